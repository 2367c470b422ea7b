//! Reading the log: one of 64 streams, one of 10,000, all partitions of a topic at once, 100 readers at different
//! places, over Kafka's Fetch; and a lane in order, as the uplink reads it, inside the log.
//!
//! The log is written by 50 sensors with one message in flight each, so that its groups are small (some 40 records of
//! 207 bytes), as those of a gateway at 1,000 messages a second are. It is in the page cache: what is measured is
//! processor time, not the disk. The consumer looks at batch headers only.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::gateway::{Gateway, sum_over_streams};
use system_tests::process::usage_of;

use crate::Options;
use crate::blast::{Payload, blast};
use crate::ingest::{plan, start_gateway};
use crate::kafka_fetch::{Consumer, Cursor, Fetched};
use crate::keys::one_key_each;
use crate::report::{json_line, mib, table};

const RECORDS: u64 = 1_000_000;
const PAYLOAD_BYTES: f64 = 207.0;
const READERS: usize = 100;
/// What librdkafka asks for by default, about.
const FETCH_BYTES: i32 = 8 << 20;
const PARTITION_BYTES: i32 = 1 << 20;
/// Single streams of a lane that are read, one after the other.
const SINGLES: usize = 8;

/// A lane of the log under test and the topics in it.
struct Store {
    lane: &'static str,
    topics: u32,
    partitions: u32,
}

const STORES: [Store; 3] = [
    Store { lane: "normal", topics: 1, partitions: 64 },
    Store { lane: "bulk", topics: 10, partitions: 1_000 },
    Store { lane: "alarm", topics: 1, partitions: 6 },
];

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut gateway = start_gateway(Some(config()))?;
    for store in &STORES {
        fill(&mut gateway, store)?;
    }
    // A gateway that has just started holds no decoded group.
    gateway.terminate()?;
    gateway.start_again()?;

    let mut rows = Vec::new();
    let [of_64, of_10_000, of_6] = &STORES;
    let mut bench = Bench { gateway: &mut gateway, rows: &mut rows, length: options.measure };
    bench.singles("one of 64 streams", of_64, SINGLES)?;
    bench.singles("one of 10,000 streams", of_10_000, SINGLES)?;
    bench.together("all 6 partitions at once", of_6)?;
    bench.together("all 64 partitions at once", of_64)?;
    bench.readers("100 readers, 64 streams", of_64)?;
    gateway.terminate()?;
    for store in [of_64, of_6] {
        rows.extend(lane_in_order(&gateway.data_dir(), store.lane)?);
    }
    table(
        &[
            "what",
            "records/s",
            "payload MB/s",
            "MB/CPU s",
            "decoded B/payload B",
            "read B/payload B",
            "RSS max",
        ],
        &rows.iter().map(Row::cells).collect::<Vec<_>>(),
    );
    let figures: Vec<Value> = rows.iter().map(Row::json).collect();
    json_line(&json!({"bench": "read", "records": RECORDS, "figures": figures}));
    Ok(())
}

fn config() -> String {
    let mut text = String::new();
    for store in &STORES {
        let lane = store.lane;
        text += &format!(
            "[lane.{lane}]\nbudget = \"512MiB\"\nsegment = \"16MiB\"\ncommit_window_ms = 0\nwhen_full = \"refuse\"\n"
        );
        for topic in 0..store.topics {
            let partitions = store.partitions;
            text += &format!(
                "[[route]]\nfilter = \"{lane}/t{topic}/+\"\ntopic = \"{lane}{topic}\"\nkey = \"{{3}}\"\n\
                 lane = \"{lane}\"\npartitions = {partitions}\n"
            );
        }
    }
    text
}

fn fill(gateway: &mut Gateway, store: &Store) -> Result<()> {
    let keys = one_key_each(store.partitions);
    let lane = store.lane;
    let mut plan = plan(gateway.mqtt_address(), 1, Duration::from_secs(600));
    plan.topics = (0..store.topics)
        .flat_map(|topic| keys.iter().map(move |key| format!("{lane}/t{topic}/{key}")))
        .collect();
    plan.payload = Payload::Reading;
    plan.warm_up = Duration::ZERO;
    plan.messages_max = Some(RECORDS);
    blast(&plan, gateway.server()?.pid()).with_context(|| gateway.log_tail())?;
    Ok(())
}

struct Row {
    what: String,
    records: u64,
    elapsed: Duration,
    cpu: Duration,
    decoded_bytes: u64,
    read_bytes: u64,
    rss_bytes_max: u64,
}

impl Row {
    fn payload_bytes(&self) -> f64 {
        self.records as f64 * PAYLOAD_BYTES
    }

    fn figures(&self) -> [f64; 5] {
        let seconds = self.elapsed.as_secs_f64();
        [
            self.records as f64 / seconds,
            self.payload_bytes() / 1e6 / seconds,
            // The kernel counts in ticks of 10 ms.
            self.payload_bytes() / 1e6 / self.cpu.as_secs_f64().max(0.005),
            self.decoded_bytes as f64 / self.payload_bytes(),
            self.read_bytes as f64 / self.payload_bytes(),
        ]
    }

    fn cells(&self) -> Vec<String> {
        let [records, rate, per_cpu, decoded, read] = self.figures();
        vec![
            self.what.clone(),
            format!("{records:.0}"),
            format!("{rate:.1}"),
            format!("{per_cpu:.1}"),
            format!("{decoded:.2}"),
            format!("{read:.2}"),
            mib(self.rss_bytes_max),
        ]
    }

    fn json(&self) -> Value {
        let [records, rate, per_cpu, decoded, read] = self.figures();
        json!({
            "what": self.what,
            "records": self.records,
            "records_per_second": records,
            "payload_mb_per_second": rate,
            "payload_mb_per_cpu_second": per_cpu,
            "decoded_bytes_per_payload_byte": decoded,
            "read_bytes_per_payload_byte": read,
            "rss_bytes_max": self.rss_bytes_max,
        })
    }
}

struct Bench<'a> {
    gateway: &'a mut Gateway,
    rows: &'a mut Vec<Row>,
    length: Duration,
}

impl Bench<'_> {
    /// Measures what `work` reads.
    fn measure(
        &mut self,
        what: &str,
        work: impl FnOnce(&Gateway) -> Result<Fetched>,
    ) -> Result<()> {
        let pid = self.gateway.server()?.pid();
        let (before, usage, began) = (reads(self.gateway)?, usage_of(pid)?, Instant::now());
        let fetched = work(self.gateway)?;
        let (elapsed, after) = (began.elapsed(), usage_of(pid)?);
        let (decoded, read) = reads(self.gateway)?;
        self.rows.push(Row {
            what: what.to_owned(),
            records: fetched.records,
            elapsed,
            cpu: after.cpu.saturating_sub(usage.cpu),
            decoded_bytes: decoded - before.0,
            read_bytes: read - before.1,
            rss_bytes_max: after.rss_bytes_max,
        });
        Ok(())
    }

    /// Single streams from their beginning to their end, one after the other.
    fn singles(&mut self, what: &str, store: &Store, count: usize) -> Result<()> {
        let cursors = cursors(self.gateway, store)?;
        let step = cursors.len() / count;
        let length = self.length;
        self.measure(what, |gateway| {
            let mut consumer = Consumer::connect(gateway.kafka_address())?;
            let (began, mut sum) = (Instant::now(), Fetched::default());
            for cursor in cursors.iter().step_by(step) {
                sum.add(read_all(&mut consumer, &mut [cursor.clone()])?);
                if began.elapsed() > length {
                    break;
                }
            }
            Ok(sum)
        })
    }

    /// All streams with one consumer.
    fn together(&mut self, what: &str, store: &Store) -> Result<()> {
        let mut cursors = cursors(self.gateway, store)?;
        self.measure(what, |gateway| {
            read_all(&mut Consumer::connect(gateway.kafka_address())?, &mut cursors)
        })
    }

    /// Many consumers, each of one stream, from different places on.
    fn readers(&mut self, what: &str, store: &Store) -> Result<()> {
        let cursors = cursors(self.gateway, store)?;
        let length = self.length;
        self.measure(what, |gateway| {
            let address = gateway.kafka_address();
            std::thread::scope(|scope| {
                let readers: Vec<_> = (0..READERS)
                    .map(|reader| {
                        let mut cursor = cursors[reader % cursors.len()].clone();
                        cursor.offset +=
                            (cursor.end - cursor.offset) * reader as i64 / READERS as i64;
                        scope.spawn(move || -> Result<Fetched> {
                            let mut consumer = Consumer::connect(address)?;
                            let (began, mut sum) = (Instant::now(), Fetched::default());
                            let mut cursor = [cursor];
                            while cursor[0].offset < cursor[0].end && began.elapsed() < length {
                                sum.add(consumer.fetch(&mut cursor, FETCH_BYTES, 64 << 10)?);
                            }
                            Ok(sum)
                        })
                    })
                    .collect();
                let mut sum = Fetched::default();
                for reader in readers {
                    sum.add(reader.join().ok().context("a reader panicked")??);
                }
                Ok(sum)
            })
        })
    }
}

fn read_all(consumer: &mut Consumer, cursors: &mut [Cursor]) -> Result<Fetched> {
    let mut sum = Fetched::default();
    let mut open: Vec<Cursor> = cursors.to_vec();
    while !open.is_empty() {
        sum.add(consumer.fetch(&mut open, FETCH_BYTES, PARTITION_BYTES)?);
        open.retain(|cursor| cursor.offset < cursor.end);
        // As consumers do: who was served last time waits behind the others.
        if open.len() > 1 {
            open.rotate_left(1);
        }
    }
    Ok(sum)
}

fn cursors(gateway: &Gateway, store: &Store) -> Result<Vec<Cursor>> {
    let status = gateway.status()?;
    let streams = status["streams"].as_array().context("status has no list `streams`")?;
    let mut cursors = Vec::new();
    for stream in streams.iter().filter(|stream| stream["lane"] == store.lane) {
        let number = |name: &str| stream[name].as_i64().with_context(|| name.to_owned());
        cursors.push(Cursor {
            topic: stream["topic"].as_str().context("topic")?.to_owned(),
            partition: number("partition")? as i32,
            offset: number("log_start")?,
            end: number("durable_end")?,
        });
    }
    // The default topic of the lane may be there, empty.
    cursors.retain(|cursor| cursor.end > 0);
    ensure!(
        cursors.len() == (store.topics * store.partitions) as usize,
        "{} streams",
        cursors.len()
    );
    let stored: u64 = (0..store.topics)
        .map(|topic| sum_over_streams(&status, &format!("{}{topic}", store.lane), "durable_end"))
        .sum::<Result<u64>>()?;
    ensure!(stored >= RECORDS, "{stored} records in the lane {}", store.lane);
    Ok(cursors)
}

/// Bytes that readers unpacked and read so far, all lanes together.
fn reads(gateway: &Gateway) -> Result<(u64, u64)> {
    let status = gateway.status()?;
    let lanes = status["lanes"].as_object().context("status has no object `lanes`")?;
    let sum = |name: &str| {
        lanes.values().map(|lane| lane[name].as_u64().context(name.to_owned())).sum::<Result<u64>>()
    };
    Ok((sum("decoded_bytes")?, sum("read_bytes")?))
}

/// The program that reads inside the log: `EDGE_LANE_BENCH`. Without it these rows are left out.
fn lane_in_order(data_dir: &Path, lane: &str) -> Result<Vec<Row>> {
    let Some(program) = std::env::var_os("EDGE_LANE_BENCH") else {
        println!("a lane in order left out: EDGE_LANE_BENCH names no lane_bench");
        return Ok(Vec::new());
    };
    let text = crate::volume::output(
        Command::new(program).args(["read".as_ref(), data_dir.as_os_str()]).arg(lane),
    )?;
    let rows = text.lines().filter(|line| line.starts_with('{')).map(|line| {
        let row: Value = serde_json::from_str(line)?;
        let number = |name: &str| row[name].as_u64().with_context(|| name.to_owned());
        Ok(Row {
            what: format!("in the log, {lane}: {}", row["what"].as_str().context("what")?),
            records: number("records")?,
            elapsed: Duration::from_micros(number("us")?),
            cpu: Duration::from_micros(number("cpu_us")?),
            decoded_bytes: number("decoded_bytes")?,
            read_bytes: number("read_bytes")?,
            rss_bytes_max: number("rss_bytes_max")?,
        })
    });
    rows.collect()
}

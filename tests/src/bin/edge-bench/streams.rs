//! The number of streams: 1, 64, 1,024 and 10,000 of them, each with a sensor of its own.
//!
//! As many messages as are acknowledged (50 connections, window 100, about 100 bytes), and syncs a second at 1,000
//! messages a second. Neither should depend on the number of streams. Rounds alternate; figures are medians.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::gateway::{Gateway, sum_over_streams};
use system_tests::telemetry::Telemetry;

use crate::Options;
use crate::blast::blast;
use crate::fleet::Fleet;
use crate::ingest::{CONNECTIONS, device_ratio, plan, start_gateway, storage};
use crate::keys::one_key_each;
use crate::report::{json_line, mib, short, table};

const STREAMS: [u32; 4] = [1, 64, 1_024, 10_000];
/// The limit of a topic.
const PARTITIONS_MAX: u32 = 1_024;
const RATE: f64 = 1_000.0;
const WINDOW: usize = 100;
const ROUNDS: usize = 3;

pub(crate) fn run(options: &Options) -> Result<()> {
    let counts = options.streams.map_or_else(|| STREAMS.to_vec(), |streams| vec![streams]);
    let mut measured: Vec<Vec<Figure>> = counts.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (streams, figures) in counts.iter().zip(&mut measured) {
            figures.push(measure(*streams, options.measure / ROUNDS as u32)?);
        }
    }
    let figures: Vec<Figure> = measured.into_iter().filter_map(median).collect();
    let first = figures.first().context("figures")?.per_second;
    let rows: Vec<_> = figures.iter().map(|figure| figure.row(first)).collect();
    table(
        &[
            "streams",
            "msg/s",
            "of 1 stream",
            "CPU s/M",
            "syncs/s",
            "B/payload B",
            "RSS max",
            "at 1,000/s: syncs/s",
            "PUBACK p99",
        ],
        &rows,
    );
    let json: Vec<_> = figures.iter().map(|figure| figure.json(first)).collect();
    json_line(&json!({"bench": "streams", "figures": json}));
    Ok(())
}

struct Figure {
    streams: u32,
    per_second: f64,
    cpu_seconds_per_million: f64,
    syncs_per_second: f64,
    device_ratio: f64,
    rss_bytes_max: u64,
    paced_syncs_per_second: f64,
    paced_p99: Duration,
}

impl Figure {
    fn row(&self, first: f64) -> Vec<String> {
        vec![
            self.streams.to_string(),
            short(self.per_second),
            format!("{:.2}", self.per_second / first),
            format!("{:.2}", self.cpu_seconds_per_million),
            format!("{:.0}", self.syncs_per_second),
            format!("{:.3}", self.device_ratio),
            mib(self.rss_bytes_max),
            format!("{:.1}", self.paced_syncs_per_second),
            format!("{:.1} ms", self.paced_p99.as_secs_f64() * 1e3),
        ]
    }

    fn json(&self, first: f64) -> serde_json::Value {
        json!({
            "streams": self.streams,
            "messages_per_second": self.per_second.round(),
            "of_one_stream": self.per_second / first,
            "cpu_seconds_per_million": self.cpu_seconds_per_million,
            "syncs_per_second": self.syncs_per_second,
            "device_bytes_per_payload_byte": self.device_ratio,
            "rss_bytes_max": self.rss_bytes_max,
            "paced_messages_per_second": RATE,
            "paced_syncs_per_second": self.paced_syncs_per_second,
            "paced_puback_p99_us": self.paced_p99.as_micros() as u64,
        })
    }
}

fn median(mut figures: Vec<Figure>) -> Option<Figure> {
    figures.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let middle = figures.len() / 2;
    figures.into_iter().nth(middle)
}

fn measure(streams: u32, length: Duration) -> Result<Figure> {
    let mut gateway = start(streams)?;
    let topics = mqtt_topics(streams);
    let mut telemetry = Telemetry::new(64, 1);
    let mut publish = |rate: f64, length: Duration| {
        let mut fleet =
            Fleet::connect(gateway.mqtt_address(), CONNECTIONS, |index| format!("fleet-{index}"))?;
        fleet.publish(rate, length, &mut |number, message| {
            let at = number as usize % topics.len();
            message.client = at % CONNECTIONS;
            message.topic.clone_from(&topics[at]);
            message.payload = telemetry.reading().payload.into_bytes();
        })
    };
    // Every stream is there before anything is measured.
    publish(5_000.0, Duration::from_secs_f64(f64::from(streams) / 5_000.0))?;
    let status = gateway.status()?;
    let used = status["streams"].as_array().context("status has no list `streams`")?;
    let used = used.iter().filter(|stream| stream["durable_end"].as_u64() > Some(0)).count();
    ensure!(used == streams as usize, "{used} of {streams} streams are in use");

    let before = storage(&status)?.syncs;
    let mut paced = publish(RATE, length)?;
    let paced_syncs = storage(&gateway.status()?)?.syncs - before;

    let before = storage(&gateway.status()?)?;
    let mut plan = plan(gateway.mqtt_address(), WINDOW, length);
    plan.topics.clone_from(&topics);
    let blast = blast(&plan, gateway.server()?.pid()).with_context(|| gateway.log_tail())?;
    let status = gateway.status()?;
    let written = storage(&status)?.since(before);
    let stored = stored(&status, streams)?;
    let acked = blast.acked_in_all + paced.messages;
    ensure!(stored >= acked, "{stored} records for {acked} PUBACKs");
    Ok(Figure {
        streams,
        per_second: blast.rate(),
        cpu_seconds_per_million: blast.cpu_seconds_per_million(),
        // Of the whole run, warm-up included.
        syncs_per_second: written.syncs as f64 * blast.rate() / blast.acked_in_all as f64,
        device_ratio: device_ratio(written),
        rss_bytes_max: blast.broker.rss_bytes_max,
        paced_syncs_per_second: paced_syncs as f64 / paced.elapsed.as_secs_f64(),
        paced_p99: paced.latency(99.0),
    })
}

/// As few topics as the limit of partitions allows: how many, and how many partitions each has.
fn shape(streams: u32) -> (u32, u32) {
    let topics = streams.div_ceil(PARTITIONS_MAX);
    (topics, streams / topics)
}

fn start(streams: u32) -> Result<Gateway> {
    let (topics, partitions) = shape(streams);
    let routes = (0..topics).map(|topic| {
        format!(
            "[[route]]\nfilter = \"bench/t{topic}/+\"\ntopic = \"bench{topic}\"\nkey = \"{{3}}\"\n\
             lane = \"normal\"\npartitions = {partitions}\n"
        )
    });
    start_gateway(Some(routes.collect()))
}

/// The topics of so many streams.
pub(crate) fn mqtt_topics(streams: u32) -> Vec<String> {
    let (topics, partitions) = shape(streams);
    let keys = one_key_each(partitions);
    (0..topics)
        .flat_map(|topic| keys.iter().map(move |key| format!("bench/t{topic}/{key}")))
        .collect()
}

fn stored(status: &serde_json::Value, streams: u32) -> Result<u64> {
    let (topics, _) = shape(streams);
    (0..topics).map(|topic| sum_over_streams(status, &format!("bench{topic}"), "durable_end")).sum()
}

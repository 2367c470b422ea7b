//! Figures of a lane, on a real directory:
//!
//! ```text
//! cargo run --release -p edge-log --example lane_bench -- speed DIR [seconds] [level] [streams]
//! cargo run --release -p edge-log --example lane_bench -- bytes DIR < telemetry.tsv   [window in ms] [level]
//! cargo run --release -p edge-log --example lane_bench -- fill DIR [MiB of journal]
//! cargo run --release -p edge-log --example lane_bench -- restart DIR
//! cargo run --release -p edge-log --example lane_bench -- read DIR [lane]
//! ```
//!
//! `speed`: records of 100 bytes that vary as telemetry does, over 64 streams, groups of 256 KiB, appended and
//! committed as fast as one thread can. `bytes`: the lines of `telemetry.py` (topic, tab, payload), 1,000 a second
//! by their number, one stream a topic, key and two headers as the default route makes them; bytes written per
//! payload byte. `fill` makes a lane of that size out of noise, `restart` opens it, `read` reads all of it as the uplink
//! does, then streams as consumers do; also a lane that a gateway wrote, while that is stopped.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use edge_log::{
    ClockReading, ClockState, CommitDecision, CommitError, FileStorage, GroupAt, GroupCompression,
    JournalPosition, Lane, LaneConfig, LaneReader, StreamDefinition,
};
use edge_wire::{Envelope, HeadersBuilder, PartitionId, StreamId, TopicId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, dir, rest @ ..] = &arguments[..] else {
        return Err("speed|bytes|fill|restart|read DIR [...]".into());
    };
    let number = |index: usize, default: u64| {
        rest.get(index).map_or(Ok(default), |argument| argument.parse::<u64>())
    };
    std::fs::create_dir_all(dir)?;
    match mode.as_str() {
        "speed" => {
            speed(Path::new(dir), number(0, 5)?, number(1, 1)? as i32, number(2, 64)? as u32)
        }
        "fill" => fill(Path::new(dir), number(0, 1024)?),
        "restart" => restart(Path::new(dir)),
        "read" => read(Path::new(dir), rest.first().map_or("filled", String::as_str)),
        "bytes" => bytes(Path::new(dir), number(0, 50)?, number(1, 3)? as i32),
        _ => Err("speed|bytes|fill|restart|read DIR [...]".into()),
    }
}

fn clock(start: Instant, entropy: u64) -> ClockReading {
    let boottime_us = start.elapsed().as_micros() as u64;
    let wall_us = 1_767_225_600_000_000 + boottime_us as i64;
    ClockReading { boot_id: 1, boottime_us, wall_us, state: ClockState::Synced, entropy }
}

fn define(lane: &mut Lane, stream: u32) {
    lane.define_stream(StreamDefinition {
        stream: StreamId(stream),
        topic: "telemetry".to_owned(),
        topic_id: TopicId([1; 16]),
        partition: PartitionId(stream),
        partition_count: 64,
    });
}

fn envelope(topic: &str, client: &str) -> Arc<Envelope> {
    let mut headers = HeadersBuilder::new();
    headers.push("mqtt.topic", Some(topic.as_bytes()));
    headers.push("mqtt.client", Some(client.as_bytes()));
    Arc::new(Envelope::new(Some(topic.as_bytes()), &headers.finish()))
}

fn speed(
    dir: &Path,
    seconds: u64,
    level: i32,
    streams: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let compression =
        if level == 0 { GroupCompression::None } else { GroupCompression::Zstd { level } };
    let config = LaneConfig { compression, commit_window_us: 0, ..LaneConfig::default() };
    let storage = Arc::new(FileStorage::open(dir)?);
    let (mut lane, _) = Lane::open(storage, "lanes/speed", config, &clock(start, 1))?;
    let envelopes: Vec<_> = (0..streams)
        .map(|stream| {
            define(&mut lane, stream);
            envelope(&format!("plant/line{}/m{stream:03}/telemetry", stream / 16), "gateway")
        })
        .collect();
    let values: Vec<Vec<u8>> = (0..4096u64)
        .map(|index| {
            let mut value = format!(
                "{{\"ts\":{},\"air\":{}.{:02},\"rpm\":{},\"torque\":{}.{:02},\"vibration\":2.{:03},\"state\":\"run\",\"wear\":{}}}",
                1_767_225_600_000 + index * 7,
                295 + index % 9,
                index * 37 % 100,
                1500 + index * 13 % 90,
                35 + index % 7,
                index * 53 % 100,
                index * 131 % 1000,
                index % 240,
            );
            value.truncate(100);
            value.into_bytes()
        })
        .collect();
    let (mut records, mut in_sync_us) = (0u64, 0u64);
    let cpu_before = cpu_us();
    let measured = Instant::now();
    while measured.elapsed().as_secs() < seconds {
        while !lane.is_group_full() {
            let at = records as usize;
            let value = &values[at % values.len()];
            // One after the other, but not side by side.
            let stream = at * 7_919 % streams as usize;
            let envelope = lane.envelope(&envelopes[stream]);
            match lane.append_record(
                StreamId(stream as u32),
                envelope,
                1_767_225_600_000 + at as i64 / 1000,
                Some(value),
            ) {
                Ok(_) => records += 1,
                Err(error) if error.is_retriable() => break,
                Err(error) => return Err(error.into()),
            }
        }
        let before = Instant::now();
        let now_us = start.elapsed().as_micros() as u64;
        match lane.commit(&clock(start, records), now_us, &mut ()) {
            Ok(_) => {}
            Err(CommitError::Full) => break,
            Err(error) => return Err(error.into()),
        }
        in_sync_us += before.elapsed().as_micros() as u64;
        while lane.maintain(&clock(start, records), start.elapsed().as_micros() as u64)? {}
    }
    let wall_us = measured.elapsed().as_micros() as f64;
    let cpu = (cpu_us() - cpu_before) as f64;
    let stats = lane.reader().stats();
    println!(
        "{records} records in {:.2} s: {:.2} million/s, {:.0} ns of CPU each ({:.2} million/s of CPU), {:.0} % of the time in commit",
        wall_us / 1e6,
        records as f64 / wall_us,
        cpu * 1000.0 / records as f64,
        records as f64 / cpu,
        in_sync_us as f64 / wall_us * 100.0,
    );
    println!(
        "{} groups, {} syncs, {:.3} journal bytes per payload byte, {:?}",
        stats.groups,
        stats.syncs,
        stats.journal_bytes as f64 / stats.payload_bytes as f64,
        stats.io_mode
    );
    Ok(())
}

fn filled(mib: u64) -> LaneConfig {
    LaneConfig {
        budget_bytes: (mib << 20) + (64 << 20),
        commit_window_us: 0,
        compression: GroupCompression::Zstd { level: 1 },
        ..LaneConfig::default()
    }
}

fn fill(dir: &Path, mib: u64) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let storage = Arc::new(FileStorage::open(dir)?);
    let (mut lane, _) = Lane::open(storage, "lanes/filled", filled(mib), &clock(start, 1))?;
    (0..64).for_each(|stream| define(&mut lane, stream));
    let envelope = envelope("plant/line1/m000/telemetry", "gateway");
    let (mut noise, mut records) = (1u64, 0u64);
    while lane.reader().stats().journal_bytes < mib << 20 {
        let reference = lane.envelope(&envelope);
        while !lane.is_group_full() {
            let mut value = [0u8; 200];
            for word in value.chunks_exact_mut(8) {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                word.copy_from_slice(&noise.to_le_bytes());
            }
            let stream = StreamId((records % 64) as u32);
            match lane.append_record(stream, reference, records as i64, Some(&value)) {
                Ok(_) => records += 1,
                Err(error) if error.is_retriable() => break,
                Err(error) => return Err(error.into()),
            }
        }
        lane.commit(&clock(start, records), 0, &mut ())?;
        while lane.maintain(&clock(start, records), 0)? {}
    }
    println!("{records} records, {:?}", lane.reader().stats());
    Ok(())
}

fn restart(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let storage = Arc::new(FileStorage::open(dir)?);
    let (lane, recovery) = Lane::open(storage, "lanes/filled", filled(0), &clock(start, 2))?;
    println!(
        "opened in {:.1} ms: {} bytes of segments, {} bytes read, {} streams, RSS {} KiB",
        start.elapsed().as_secs_f64() * 1e3,
        recovery.used_bytes,
        recovery.scanned_bytes,
        recovery.streams.len(),
        rss_kib(),
    );
    drop(lane);
    Ok(())
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Reads all of a lane in the order of the journal, as the uplink does, then single streams and many at once.
fn read(dir: &Path, lane: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let storage = Arc::new(FileStorage::open(dir)?);
    let (lane, _) =
        Lane::open(storage, &format!("lanes/{lane}"), filled(1 << 20), &clock(start, 2))?;
    let reader = lane.reader();
    let measure = Measure::begin(&reader);
    let (mut at, mut records, mut payload) = (JournalPosition::START, 0u64, 0u64);
    let mut streams = std::collections::BTreeSet::new();
    loop {
        match reader.group(at)? {
            GroupAt::Group(group) => {
                for batch in group.batches() {
                    streams.insert(batch.stream());
                    batch.for_each_record(&mut |record| {
                        records += 1;
                        payload += record.value.map_or(0, |value| value.len() as u64);
                    })?;
                }
                at = group.next();
            }
            GroupAt::Lost { next } => at = next,
            GroupAt::End => break,
        }
    }
    measure.end("in order", &reader, records);
    eprintln!("{payload} bytes of values, {} streams", streams.len());

    let some: Vec<StreamId> = streams.iter().copied().step_by(streams.len().div_ceil(8)).collect();
    let measure = Measure::begin(&reader);
    let (mut records, mut out) = (0, Vec::new());
    for stream in some {
        records += read_stream(&reader, stream, u64::MAX, &mut out)?.1;
    }
    measure.end("single streams", &reader, records);

    let measure = Measure::begin(&reader);
    let mut records = 0;
    let all: Vec<StreamId> = streams.iter().copied().take(64).collect();
    let mut next: Vec<Option<edge_wire::Offset>> = vec![None; all.len()];
    loop {
        let before = records;
        for (stream, next) in all.iter().zip(&mut next) {
            let (read_to, count) = read_some(&reader, *stream, *next, 128 << 10, &mut out)?;
            *next = Some(read_to);
            records += count;
        }
        if records == before {
            break;
        }
    }
    measure.end("64 streams in turn", &reader, records);
    Ok(())
}

/// Reads a stream from its start, at most so many records; where it came to and how many.
fn read_stream(
    reader: &LaneReader,
    stream: StreamId,
    records_max: u64,
    out: &mut Vec<u8>,
) -> Result<(edge_wire::Offset, u64), Box<dyn std::error::Error>> {
    let (mut next, mut records) = (None, 0);
    loop {
        let (read_to, count) = read_some(reader, stream, next, 1 << 20, out)?;
        records += count;
        next = Some(read_to);
        if count == 0 || records >= records_max {
            return Ok((read_to, records));
        }
    }
}

fn read_some(
    reader: &LaneReader,
    stream: StreamId,
    next: Option<edge_wire::Offset>,
    bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(edge_wire::Offset, u64), Box<dyn std::error::Error>> {
    let bounds = reader.bounds(stream).ok_or("no such stream")?;
    let from = next.unwrap_or(bounds.log_start);
    out.clear();
    let read_to = reader.read(stream, from, bytes, out)?.next;
    Ok((read_to, read_to.0 - from.0))
}

/// What a stretch of reading costs; one JSON line.
struct Measure {
    begun: Instant,
    cpu_us: u64,
    before: edge_log::LaneStats,
}

impl Measure {
    fn begin(reader: &LaneReader) -> Self {
        Self { before: reader.stats(), cpu_us: cpu_us(), begun: Instant::now() }
    }

    fn end(&self, what: &str, reader: &LaneReader, records: u64) {
        let (us, stats) = (self.begun.elapsed().as_micros(), reader.stats());
        println!(
            "{{\"what\":\"{what}\",\"records\":{records},\"us\":{us},\"cpu_us\":{},\"decoded_bytes\":{},\"read_bytes\":{},\"skipped_groups\":{},\"rss_bytes_max\":{}}}",
            cpu_us() - self.cpu_us,
            stats.decoded_bytes - self.before.decoded_bytes,
            stats.read_bytes - self.before.read_bytes,
            stats.skipped_groups - self.before.skipped_groups,
            rss_kib() << 10,
        );
    }
}

fn cpu_us() -> u64 {
    // utime and stime, in ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    (field(11).unwrap_or(0) + field(12).unwrap_or(0)) * 10_000
}

fn bytes(dir: &Path, window_ms: u64, level: i32) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let config = LaneConfig {
        compression: GroupCompression::Zstd { level },
        commit_window_us: window_ms * 1000,
        commit_bytes: 256 << 10,
        ..LaneConfig::default()
    };
    let storage = Arc::new(FileStorage::open(dir)?);
    let (mut lane, _) = Lane::open(storage, "lanes/bytes", config, &clock(start, 1))?;
    let mut topics: Vec<(String, Arc<Envelope>)> = Vec::new();
    let mut payload_bytes = 0u64;
    let first = lane.reader().stats();
    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        let (topic, payload) = line.split_once('\t').ok_or("not a line of telemetry.py")?;
        let known = topics.iter().position(|(known, _)| known == topic);
        let stream = known.unwrap_or_else(|| {
            let client = topic.split('/').nth(2).unwrap_or("client");
            topics.push((topic.to_owned(), envelope(topic, client)));
            topics.len() - 1
        });
        if known.is_none() {
            define(&mut lane, stream as u32);
        }
        let now_us = index as u64 * 1000;
        let reading = ClockReading {
            boot_id: 1,
            boottime_us: now_us,
            wall_us: 1_767_225_600_000_000 + now_us as i64,
            state: ClockState::Synced,
            entropy: index as u64,
        };
        if lane.poll_commit(now_us) == CommitDecision::Now {
            lane.commit(&reading, now_us, &mut ())?;
            while lane.maintain(&reading, now_us)? {}
        }
        let envelope = lane.envelope(&topics[stream].1);
        lane.append_record(
            StreamId(stream as u32),
            envelope,
            reading.wall_us / 1000,
            Some(payload.as_bytes()),
        )?;
        payload_bytes += payload.len() as u64;
    }
    let stats = lane.reader().stats();
    let journal = stats.journal_bytes - first.journal_bytes;
    writeln!(
        std::io::stdout(),
        "window {window_ms} ms, level {level}: {:.4} journal bytes per payload byte, {} groups of {:.0} bytes, {} streams",
        journal as f64 / payload_bytes as f64,
        stats.groups - first.groups,
        journal as f64 / (stats.groups - first.groups) as f64,
        topics.len(),
    )?;
    Ok(())
}

//! Start after `kill -9` with a large log: until MQTT and Kafka accept, whatever the number of segments.
//!
//! The log is filled through the gateway: large messages first, stored as they are, for speed; then, with the settings
//! that a gateway has, small groups of one commit each until most of a segment holds nothing else, which is the most
//! that a start has to walk through. It is killed under that load. Cold: after the page cache was dropped (root).

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::gateway::{Gateway, GatewayOptions, ask_kafka};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};

use crate::Options;
use crate::blast::{Payload, blast};
use crate::ingest::{bench_folder, plan};
use crate::report::{json_line, mib, table};

const SEGMENTS_MIB: [u64; 3] = [16, 1, 64];
const MESSAGE_BYTES: usize = 24 << 10;
const TOPICS: usize = 64;
/// Small groups fill this share of a segment, but no more than that many MiB.
const TAIL_PER_CENT: u64 = 90;
const TAIL_MIB_MAX: u64 = 15;
const FILL_WITHIN: Duration = Duration::from_secs(900);
const API_VERSIONS: &[u8] = &[0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF];

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut rows = Vec::new();
    let sizes = options.segment_mib.map_or_else(|| SEGMENTS_MIB.to_vec(), |mib| vec![mib]);
    for segment_mib in sizes {
        let mut gateway = fill(options.gib << 10, segment_mib)?;
        let status = gateway.status()?;
        let lane = &status["lanes"]["normal"];
        let number = |name: &str| lane[name].as_u64().with_context(|| name.to_owned());
        let (used_bytes, groups) = (number("used_bytes")?, number("groups")?);
        gateway.kill_now()?;
        let is_cold = drop_caches();
        for name in [if is_cold { "cold" } else { "not cold: no right to drop the cache" }, "warm"]
        {
            let start = Start::measure(&mut gateway)?;
            gateway.kill_now()?;
            rows.push((name, segment_mib, used_bytes, groups, start));
        }
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, segment_mib, used_bytes, _, start)| {
            vec![
                format!("{segment_mib} MiB"),
                (used_bytes / (segment_mib << 20)).to_string(),
                mib(*used_bytes),
                (*name).to_owned(),
                format!("{:.0} ms", start.mqtt.as_secs_f64() * 1e3),
                format!("{:.0} ms", start.kafka.as_secs_f64() * 1e3),
                mib(start.rss_bytes_max),
                mib(start.asked_bytes),
                mib(start.device_bytes),
            ]
        })
        .collect();
    table(
        &[
            "segment",
            "segments",
            "log",
            "cache",
            "MQTT",
            "Kafka",
            "RSS max",
            "read",
            "from the device",
        ],
        &cells,
    );
    let figures: Vec<_> = rows
        .iter()
        .map(|(name, segment_mib, used_bytes, groups, start)| {
            json!({
                "segment_bytes": segment_mib << 20,
                "log_bytes": used_bytes,
                "groups": groups,
                "cache": name,
                "mqtt_ms": start.mqtt.as_secs_f64() * 1e3,
                "kafka_ms": start.kafka.as_secs_f64() * 1e3,
                "rss_bytes_max": start.rss_bytes_max,
                "read_bytes": start.asked_bytes,
                "device_read_bytes": start.device_bytes,
            })
        })
        .collect();
    json_line(&json!({"bench": "restart", "figures": figures}));
    Ok(())
}

fn config(log_mib: u64, segment_mib: u64, filling: bool) -> String {
    let budget_mib = log_mib + 4 * segment_mib;
    let how = if filling { "compression = \"none\"\n" } else { "commit_window_ms = 0\n" };
    format!(
        "[lane.normal]\nbudget = \"{budget_mib}MiB\"\nsegment = \"{segment_mib}MiB\"\nwhen_full = \"drop-oldest\"\n{how}\
         [[route]]\nfilter = \"plant/+/+/telemetry\"\ntopic = \"telemetry\"\nkey = \"{{3}}\"\nlane = \"normal\"\npartitions = {TOPICS}\n"
    )
}

/// A gateway under load whose log has so many MiB.
fn fill(log_mib: u64, segment_mib: u64) -> Result<Gateway> {
    let config_of = |filling| Some(config(log_mib, segment_mib, filling));
    let base = Some(bench_folder()?);
    let mut gateway = Gateway::start_with(GatewayOptions {
        base,
        config: config_of(true),
        ..Default::default()
    })?;
    let mut bulk = plan(gateway.mqtt_address(), 8, FILL_WITHIN);
    bulk.connections = 4;
    bulk.payload = Payload::Readings(MESSAGE_BYTES);
    bulk.warm_up = Duration::ZERO;
    let goal = log_mib << 20;
    while used_bytes(&gateway)? < goal {
        let missing = goal.saturating_sub(used_bytes(&gateway)?).max(1 << 20);
        bulk.messages_max = Some(missing / MESSAGE_BYTES as u64 + 1);
        blast(&bulk, gateway.server()?.pid()).with_context(|| gateway.log_tail())?;
    }
    gateway.terminate()?;
    let text = config(log_mib, segment_mib, false);
    fs::write(gateway.config_path(), text)?;
    gateway.start_again()?;
    let mut small = plan(gateway.mqtt_address(), 1, FILL_WITHIN);
    small.payload = Payload::Reading;
    small.warm_up = Duration::ZERO;
    small.messages_max = Some(5_000);
    let tail = (segment_mib * TAIL_PER_CENT / 100).clamp(1, TAIL_MIB_MAX) << 20;
    let before = journal_bytes(&gateway)?;
    while journal_bytes(&gateway)? - before < tail {
        blast(&small, gateway.server()?.pid()).with_context(|| gateway.log_tail())?;
    }
    ensure!(used_bytes(&gateway)? >= goal, "the log did not become as large as it should");
    Ok(gateway)
}

fn used_bytes(gateway: &Gateway) -> Result<u64> {
    gateway.status()?["lanes"]["normal"]["used_bytes"].as_u64().context("used_bytes")
}

fn journal_bytes(gateway: &Gateway) -> Result<u64> {
    gateway.status()?["lanes"]["normal"]["journal_bytes"].as_u64().context("journal_bytes")
}

fn drop_caches() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

struct Start {
    mqtt: Duration,
    kafka: Duration,
    rss_bytes_max: u64,
    /// Asked of the kernel, and what that had to get from the device.
    asked_bytes: u64,
    device_bytes: u64,
}

impl Start {
    fn measure(gateway: &mut Gateway) -> Result<Self> {
        let (mqtt, kafka) = (gateway.mqtt_address(), gateway.kafka_address());
        let began = Instant::now();
        let watch = std::thread::spawn(move || {
            until(|| {
                let options = ConnectOptions::new(Version::V311, "first");
                MqttClient::connect(mqtt, &options).is_ok()
            });
            let mqtt = began.elapsed();
            until(|| ask_kafka(kafka, API_VERSIONS).is_ok_and(|answer| answer.len() > 6));
            (mqtt, began.elapsed())
        });
        gateway.start_again()?;
        let (mqtt, kafka) = watch.join().ok().context("the watch panicked")?;
        let server = gateway.server()?;
        let usage = server.usage()?;
        let io = fs::read_to_string(format!("/proc/{}/io", server.pid()))?;
        let number = |label: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(label));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            mqtt,
            kafka,
            rss_bytes_max: usage.rss_bytes_max,
            asked_bytes: number("rchar:"),
            device_bytes: number("read_bytes:"),
        })
    }
}

fn until(ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !ready() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

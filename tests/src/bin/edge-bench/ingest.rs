//! Durable QoS 1 beside the machine's Mosquitto, which syncs nothing, and the bare loops that are its limit
//! (`bare_loop`), in the same minutes; and one client alone (`lone_client`).
//!
//! 50 connections, windows 20 and 100, about 100 bytes of telemetry in a message. They take turns and
//! run by themselves, with the load generator on the same processors. Rounds alternate; ratios
//! are ours to theirs, of the medians.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use system_tests::gateway::{Gateway, GatewayOptions, workspace};
use system_tests::mosquitto::Mosquitto;
use system_tests::telemetry::Telemetry;

use crate::Options;
use crate::bare_loop::{BareLoop, Kind};
use crate::blast::{BlastPlan, BlastResult, Payload, blast};
use crate::lone_client;
use crate::report::{json_line, mib, short, table};

pub(crate) const CONNECTIONS: usize = 50;
pub(crate) const WINDOWS: [usize; 2] = [20, 100];
const ROUNDS: usize = 3;
const MOSQUITTO: &str = "mosquitto";
const PLAIN: &str = "bare loop";
const BATCHES: &str = "bare loop, batches";
/// Who is measured, and whether it is us.
const SIDES: [(&str, bool); 4] =
    [("edge-broker, durable", true), (MOSQUITTO, false), (PLAIN, false), (BATCHES, false)];
const WARM_UP: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &Options) -> Result<()> {
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for window in WINDOWS {
        let mut measured: Vec<Vec<Side>> = SIDES.iter().map(|_| Vec::new()).collect();
        let length = options.measure / ROUNDS as u32;
        for _ in 0..ROUNDS {
            for ((name, is_ours), sides) in SIDES.iter().zip(&mut measured) {
                match (*name, *is_ours) {
                    (_, true) if options.gateway => sides.push(measure_gateway(window, length)?),
                    (MOSQUITTO, false) if options.peer => sides.push(measure_peer(window, length)?),
                    (PLAIN, false) if options.peer => {
                        sides.push(measure_loop(Kind::Plain, window, length)?);
                    }
                    (BATCHES, false) if options.peer => {
                        sides.push(measure_loop(Kind::Batches, window, length)?);
                    }
                    _ => {}
                }
            }
        }
        let sides: Vec<_> = measured.into_iter().map(median).collect();
        let ours = sides.first().and_then(Option::as_ref).map(|ours| ours.blast.rate());
        for ((name, is_ours), side) in SIDES.iter().zip(&sides) {
            let Some(side) = side else { continue };
            let ratio = ours.filter(|_| !is_ours).map(|ours| ours / side.blast.rate());
            rows.push(row(name, window, side, ratio));
            figures.push(figure(name, window, side, ratio));
        }
    }
    table(
        &[
            "broker",
            "window",
            "msg/s",
            "ours to it",
            "RSS",
            "RSS max",
            "CPU s/M",
            "load CPU s/M",
            "device B/payload B",
            "syncs",
            "msg/sync",
        ],
        &rows,
    );
    let lone = options.gateway.then(|| lone_client::measure(options.measure / 3)).transpose()?;
    if let Some(lone) = lone {
        println!(
            "one client, window 1: PUBACK p50 {} us, a bare write and fdatasync {} us, bound {} us",
            lone.puback.as_micros(),
            lone.raw.as_micros(),
            lone.bound().as_micros()
        );
    }
    let lone = lone.map(|lone| {
        json!({
            "puback_p50_us": lone.puback.as_micros() as u64,
            "raw_p50_us": lone.raw.as_micros() as u64,
            "bound_us": lone.bound().as_micros() as u64,
        })
    });
    json_line(&json!({
        "bench": "ingest",
        "connections": CONNECTIONS,
        "figures": figures,
        "one_client": lone,
    }));
    Ok(())
}

struct Side {
    blast: BlastResult,
    storage: Option<Storage>,
}

/// What the lanes report over a whole run, all lanes together.
#[derive(Clone, Copy)]
pub(crate) struct Storage {
    pub(crate) payload_bytes: u64,
    pub(crate) device_bytes: u64,
    pub(crate) syncs: u64,
}

impl Storage {
    /// What was added since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            payload_bytes: self.payload_bytes - before.payload_bytes,
            device_bytes: self.device_bytes - before.device_bytes,
            syncs: self.syncs - before.syncs,
        }
    }
}

fn median(mut sides: Vec<Side>) -> Option<Side> {
    sides.sort_by(|a, b| a.blast.rate().total_cmp(&b.blast.rate()));
    let middle = sides.len() / 2;
    sides.into_iter().nth(middle)
}

/// The load of every figure here.
pub(crate) fn plan(address: std::net::SocketAddr, window: usize, measure: Duration) -> BlastPlan {
    BlastPlan {
        address,
        connections: CONNECTIONS,
        topics: (0..CONNECTIONS).map(Telemetry::topic_of).collect(),
        payload: Payload::Compact,
        messages_max: None,
        window,
        threads: 2,
        warm_up: WARM_UP,
        measure: measure.max(Duration::from_secs(1)),
    }
}

fn measure_peer(window: usize, measure: Duration) -> Result<Side> {
    let mosquitto = Mosquitto::start()?;
    let blast = blast(&plan(mosquitto.address(), window, measure), mosquitto.server().pid())?;
    Ok(Side { blast, storage: None })
}

fn measure_loop(kind: Kind, window: usize, measure: Duration) -> Result<Side> {
    let bare = BareLoop::start(kind)?;
    let blast = blast(&plan(bare.address, window, measure), bare.pid())?;
    Ok(Side { blast, storage: None })
}

fn measure_gateway(window: usize, measure: Duration) -> Result<Side> {
    let mut gateway = start_gateway(None)?;
    let address = gateway.mqtt_address();
    let before = storage(&gateway.status()?)?;
    let blast = blast(&plan(address, window, measure), gateway.server()?.pid())
        .with_context(|| gateway.log_tail())?;
    let storage = storage(&gateway.status()?)?.since(before);
    Ok(Side { blast, storage: Some(storage) })
}

/// A gateway whose data lies where the disk is measured.
pub(crate) fn start_gateway(config: Option<String>) -> Result<Gateway> {
    let base = Some(bench_folder()?);
    Gateway::start_with(GatewayOptions { base, config, ..GatewayOptions::default() })
}

/// `EDGE_BENCH_DIR`, or a folder of the build's.
pub(crate) fn bench_folder() -> Result<PathBuf> {
    let folder = std::env::var_os("EDGE_BENCH_DIR")
        .map_or_else(|| workspace().join("target/bench"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Adds up what the lanes say in `status --json`.
pub(crate) fn storage(status: &Value) -> Result<Storage> {
    let lanes = status["lanes"].as_object().context("status has no object `lanes`")?;
    let sum = |name: &str| {
        lanes.values().map(|lane| lane[name].as_u64().context(name.to_owned())).sum::<Result<u64>>()
    };
    Ok(Storage {
        payload_bytes: sum("payload_bytes")?,
        device_bytes: sum("device_bytes")?,
        syncs: sum("syncs")?,
    })
}

fn row(name: &str, window: usize, side: &Side, ratio: Option<f64>) -> Vec<String> {
    let blast = &side.blast;
    let dash = || "-".to_owned();
    let per_million = blast.own_cpu.as_secs_f64() * 1e6 / blast.acked.max(1) as f64;
    vec![
        name.to_owned(),
        window.to_string(),
        short(blast.rate()),
        ratio.map_or_else(dash, |ratio| format!("{ratio:.2}")),
        mib(blast.broker.rss_bytes),
        mib(blast.broker.rss_bytes_max),
        format!("{:.2}", blast.cpu_seconds_per_million()),
        format!("{per_million:.2}"),
        side.storage.map_or_else(dash, |storage| format!("{:.3}", device_ratio(storage))),
        side.storage.map_or_else(dash, |storage| storage.syncs.to_string()),
        side.storage.map_or_else(dash, |storage| {
            format!("{:.0}", blast.acked_in_all as f64 / storage.syncs.max(1) as f64)
        }),
    ]
}

fn figure(name: &str, window: usize, side: &Side, ratio: Option<f64>) -> Value {
    let blast = &side.blast;
    json!({
        "broker": name,
        "window": window,
        "messages_per_second": blast.rate().round(),
        "ours_to_it": ratio,
        "payload_bytes_mean": blast.payload_bytes_mean,
        "rss_bytes": blast.broker.rss_bytes,
        "rss_bytes_max": blast.broker.rss_bytes_max,
        "cpu_seconds_per_million": blast.cpu_seconds_per_million(),
        "load_cpu_seconds": blast.own_cpu.as_secs_f64(),
        "device_bytes_per_payload_byte": side.storage.map(device_ratio),
        "syncs": side.storage.map(|storage| storage.syncs),
        "proc_io_written_bytes": blast.broker.written_bytes,
    })
}

pub(crate) fn device_ratio(storage: Storage) -> f64 {
    storage.device_bytes as f64 / storage.payload_bytes.max(1) as f64
}

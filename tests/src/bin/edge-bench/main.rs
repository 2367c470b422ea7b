//! The benchmarks: each prints a table and ends in one JSON line.
//!
//! `edge-bench NAME [--seconds N]`; `cargo xtask bench NAME` builds both
//! this and the broker in the release profile and calls it. `EDGE_BROKER_BIN` names the broker;
//! `EDGE_BENCH_DIR` the folder for data directories, which has to be on the disk that is measured.
//! The load generator, the broker and the peer share the machine: figures are for that.

mod bare_loop;
mod blast;
mod connects;
mod fleet;
mod generator;
mod ingest;
mod kafka_fetch;
mod keys;
mod latency;
mod lone_client;
mod nats;
mod paced;
mod page_trace;
mod read;
mod report;
mod restart;
mod size;
mod sqlite;
mod streams;
mod volume;
mod wear;

use std::time::Duration;

use anyhow::{Context, Result, bail};

const NAMES: &str = "ingest, connects, latency, streams, wear, restart, read, size or generator";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().with_context(|| format!("which benchmark? {NAMES}"))?;
    if name == "bare-loop" {
        let kind = arguments.next().context("which loop?")?;
        let path = arguments.next().context("which file?")?;
        return bare_loop::serve(&kind, path.as_ref());
    }
    let seconds = if name == "wear" { 180 } else { 10 };
    let mut options = Options {
        measure: Duration::from_secs(seconds),
        gateway: true,
        peer: true,
        streams: None,
        gib: 8,
        segment_mib: None,
    };
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--seconds" => {
                let seconds = arguments.next().context("--seconds wants a number")?;
                options.measure = Duration::from_secs(seconds.parse()?);
            }
            "--streams" => {
                let streams = arguments.next().context("--streams wants a number")?;
                options.streams = Some(streams.parse()?);
            }
            "--gib" => {
                let gib = arguments.next().context("--gib wants a number")?;
                options.gib = gib.parse()?;
            }
            "--segment-mib" => {
                let mib = arguments.next().context("--segment-mib wants a number")?;
                options.segment_mib = Some(mib.parse()?);
            }
            // To try the load generator, or one side, by itself.
            "--only-peer" => options.gateway = false,
            "--only-gateway" => options.peer = false,
            _ => bail!("unknown option {flag}"),
        }
    }
    match name.as_str() {
        "ingest" => ingest::run(&options),
        "connects" => connects::run(),
        "streams" => streams::run(&options),
        "latency" => latency::run(&options),
        "wear" => wear::run(&options),
        "read" => read::run(&options),
        "restart" => restart::run(&options),
        "size" => size::run(),
        "generator" => generator::run(&options),
        _ => bail!("no benchmark {name}: {NAMES}"),
    }
}

/// What every benchmark is told.
struct Options {
    /// How long each figure is measured.
    measure: Duration,
    /// Measure the gateway.
    gateway: bool,
    /// Measure peers beside it.
    peer: bool,
    /// Only this many streams.
    streams: Option<u32>,
    /// How much log a restart finds.
    gib: u64,
    /// Only segments of this size.
    segment_mib: Option<u64>,
}

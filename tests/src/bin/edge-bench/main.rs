//! The benchmarks: each prints a table and ends in one JSON line.
//!
//! `edge-bench ingest|streams|latency|size|generator [--seconds N]`; `cargo xtask bench NAME` builds both
//! this and the broker in the release profile and calls it. `EDGE_BROKER_BIN` names the broker;
//! `EDGE_BENCH_DIR` the folder for data directories, which has to be on the disk that is measured.
//! The load generator, the broker and the peer share the machine: figures are for that.

mod blast;
mod generator;
mod ingest;
mod latency;
mod paced;
mod report;
mod size;
mod streams;

use std::time::Duration;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name =
        arguments.next().context("which benchmark? ingest, streams, latency, size or generator")?;
    let mut options = Options { measure: Duration::from_secs(10), gateway: true, peer: true };
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--seconds" => {
                let seconds = arguments.next().context("--seconds wants a number")?;
                options.measure = Duration::from_secs(seconds.parse()?);
            }
            // To try the load generator, or one side, by itself.
            "--only-peer" => options.gateway = false,
            "--only-gateway" => options.peer = false,
            _ => bail!("unknown option {flag}"),
        }
    }
    match name.as_str() {
        "ingest" => ingest::run(&options),
        "streams" => streams::run(&options),
        "latency" => latency::run(&options),
        "size" => size::run(),
        "generator" => generator::run(&options),
        _ => bail!("no benchmark {name}: ingest, streams, latency, size or generator"),
    }
}

/// What every benchmark is told.
struct Options {
    /// How long each figure is measured.
    measure: Duration,
    /// Measure the gateway.
    gateway: bool,
    /// Measure Mosquitto beside it.
    peer: bool,
}

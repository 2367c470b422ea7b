//! Builds broker and load generator in the release profile and runs a benchmark.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::shell::{self, cargo};
use crate::tools::is_installed;

/// The peer of `wear`, as a Go module.
const NATS: &str = "github.com/nats-io/nats-server/v2@v2.15.2";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    shell::run(cargo().args([
        "build",
        "--release",
        "--quiet",
        "--package",
        "edge-broker",
        "--package",
        "system-tests",
        "--bin",
        "edge-broker",
        "--bin",
        "edge-bench",
    ]))?;
    let release = shell::target_folder().join("release");
    let name = arguments.first().map_or("", String::as_str);
    if name == "read" {
        let example = ["--package", "edge-log", "--example", "lane_bench"];
        shell::run(cargo().args(["build", "--release", "--quiet"]).args(example))?;
    }
    let mut bench = Command::new(release.join("edge-bench"));
    bench.args(arguments).env("EDGE_BROKER_BIN", release.join("edge-broker"));
    bench.env("EDGE_LANE_BENCH", release.join("examples/lane_bench"));
    if name == "wear"
        && let Some(nats) = nats_server()
    {
        bench.env("EDGE_BENCH_NATS", nats);
    }
    shell::run(bench.current_dir(shell::workspace()))
}

/// A NATS server to measure beside us: from the path, or built once from its sources. Without it the bench says so
/// and goes on.
fn nats_server() -> Option<PathBuf> {
    if is_installed("nats-server") {
        return Some("nats-server".into());
    }
    let folder = shell::target_folder().join("peers");
    let built = folder.join("nats-server");
    if !built.exists() {
        if !is_installed("go") {
            return None;
        }
        let mut go = Command::new("go");
        go.args(["install", NATS]).env("GOBIN", &folder).env("GOFLAGS", "-mod=mod");
        if let Err(error) = shell::run(&mut go) {
            eprintln!("{error:#}");
            return None;
        }
    }
    Some(built)
}

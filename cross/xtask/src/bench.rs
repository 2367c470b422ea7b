//! Builds broker and load generator in the release profile and runs a benchmark.

use anyhow::Result;

use crate::shell::{self, cargo};

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
    let mut bench = std::process::Command::new(release.join("edge-bench"));
    bench.args(arguments).env("EDGE_BROKER_BIN", release.join("edge-broker"));
    shell::run(bench.current_dir(shell::workspace()))
}

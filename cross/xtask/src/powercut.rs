//! Builds broker and power cut harness in the release profile and runs the one against the other.

use anyhow::Result;

use crate::shell::{self, cargo};

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--quiet", "--package", "edge-broker"]);
    build.args(["--package", "powercut", "--bin", "edge-broker", "--bin", "powercut"]);
    shell::run(&mut build)?;
    let release = shell::target_folder().join("release");
    let mut powercut = std::process::Command::new(release.join("powercut"));
    powercut.args(arguments).env("EDGE_BROKER_BIN", release.join("edge-broker"));
    shell::run(powercut.current_dir(shell::workspace()))
}

//! Everything that has to hold before a change goes in, in one command.
//!
//! Two build profiles only, dev for tests and dist for boards: a clean clone has to be through in
//! 45 minutes on two cores. Cheap checks come first.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::shell::{self, cargo};
use crate::{deny, dist, smoke, tidy, tools};

pub(crate) fn run(full: bool) -> Result<()> {
    let began = Instant::now();
    let missing = tell_missing();

    tidy::run()?;
    shell::run(cargo().args(["fmt", "--all", "--check"]))?;
    shell::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    if tools::is_installed("cargo-deny") {
        deny::run(deny::Checks::Offline)?;
    }

    // Everything in one go, so that features are unified once and nothing is built twice.
    shell::run(cargo().args(["build", "--workspace", "--all-targets", "--quiet"]))?;
    let mut test = cargo();
    test.args(["test", "--workspace", "--quiet"]);
    test.env("EDGE_SYSTEM_TESTS", "1");
    test.env("EDGE_BROKER_BIN", shell::target_folder().join("debug/edge-broker"));
    if full {
        test.env("EDGE_TESTS_FULL", "1");
    }
    shell::run(&mut test)?;
    shell::run(
        cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;

    for target in dist::TARGETS {
        if dist::can_build(target) {
            dist::build(target)?;
            if smoke::can_run(target) {
                smoke::run(target)?;
            }
        }
    }
    eprintln!("everything ran in {:.1} min", began.elapsed().as_secs_f64() / 60.0);
    if missing && tools::in_ci() {
        bail!("CI leaves nothing out; see what is missing at the top");
    }
    Ok(())
}

/// One line for each missing tool, and the line that installs them all.
fn tell_missing() -> bool {
    let missing = tools::missing();
    for tool in &missing {
        eprintln!("left out, no {}: {}", tool.program, tool.wanted_for);
    }
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|tool| tool.packages).collect();
        eprintln!("to run it all: apt-get install --no-install-recommends {}", packages.join(" "));
    }
    let targets = dist::TARGETS.iter().filter(|target| !tools::has_rust_target(target));
    let targets: Vec<&str> = targets.copied().collect();
    if !targets.is_empty() {
        eprintln!("left out, no standard library for it: rustup target add {}", targets.join(" "));
    }
    !missing.is_empty() || !targets.is_empty()
}

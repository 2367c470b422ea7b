//! The mutation test of the log crate: `.cargo/mutants.toml`, run by cargo-mutants in a copy of the tree.

use anyhow::{Result, bail};

use crate::shell::{self, cargo};
use crate::tools;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !tools::is_installed("cargo-mutants") {
        bail!("no cargo-mutants: cargo install cargo-mutants --locked");
    }
    let mut mutants = cargo();
    // Two at once is what a two-core machine stands; options that follow win.
    mutants.args(["mutants", "--package", "edge-log", "--jobs", "2"]);
    mutants.arg("--output").arg(shell::target_folder());
    shell::run(mutants.args(arguments))
}

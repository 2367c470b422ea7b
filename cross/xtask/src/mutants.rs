//! The mutation test of the log crate: `tests/mutants`, which asks cargo-mutants what there is to change.

use anyhow::{Result, bail};

use crate::shell::{self, cargo};
use crate::tools;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !tools::is_installed("cargo-mutants") {
        bail!("no cargo-mutants: cargo install cargo-mutants --locked");
    }
    let mut mutants = cargo();
    mutants.args(["run", "--package", "mutants", "--"]);
    shell::run(mutants.args(arguments))
}

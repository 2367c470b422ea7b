//! Builds the proofs of the log in the release profile and runs one.

use anyhow::Result;

use crate::shell::{self, cargo};

pub(crate) fn run(name: &str, arguments: &[String]) -> Result<()> {
    shell::run(cargo().args(["build", "--release", "--quiet", "--package", "log-proofs"]))?;
    let mut proof = std::process::Command::new(shell::target_folder().join("release/log-proofs"));
    shell::run(proof.arg(name).args(arguments).current_dir(shell::workspace()))
}

//! Builds a proof (of the log, of sessions) in the release profile and runs it.

use anyhow::Result;

use crate::shell::{self, cargo};

pub(crate) fn run(package: &str, leading: &[&str], arguments: &[String]) -> Result<()> {
    shell::run(cargo().args(["build", "--release", "--quiet", "--package", package]))?;
    let program = shell::target_folder().join("release").join(package);
    let mut proof = std::process::Command::new(program);
    shell::run(proof.args(leading).args(arguments).current_dir(shell::workspace()))
}

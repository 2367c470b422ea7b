//! Publish, kill, restart, consume: a board's binary under qemu-user.

use anyhow::{Context, Result, bail};

use crate::shell::{self, cargo};
use crate::{dist, tools};

/// The emulator of a target and its C library; `None` for the machine's own target.
fn emulator(target: &str) -> Option<(&'static str, &'static str)> {
    match target {
        "aarch64-unknown-linux-gnu" => Some(("qemu-aarch64-static", "/usr/aarch64-linux-gnu")),
        "armv7-unknown-linux-gnueabihf" => Some(("qemu-arm-static", "/usr/arm-linux-gnueabihf")),
        _ => None,
    }
}

/// True where the emulator is there.
pub(crate) fn can_run(target: &str) -> bool {
    emulator(target).is_none_or(|(program, _)| tools::is_installed(program))
}

/// Runs `edge-smoke` against the binary that `dist` made.
///
/// # Errors
/// When the emulator is missing or the binary does not keep what it acknowledged.
pub(crate) fn run(target: &str) -> Result<()> {
    if !can_run(target) {
        bail!("{target} needs qemu-user-static (Debian package of that name)");
    }
    let binary = dist::path(target);
    let binary = binary.canonicalize().with_context(|| {
        format!("{}: build it with `cargo xtask dist --target {target}`", binary.display())
    })?;
    let mut smoke = cargo();
    smoke.args(["run", "--quiet", "--package", "system-tests", "--bin", "edge-smoke"]);
    smoke.env("EDGE_BROKER_BIN", binary);
    if let Some((program, library)) = emulator(target) {
        smoke.env("EDGE_BROKER_RUNNER", format!("{program} -L {library}"));
    }
    shell::run(&mut smoke)
}

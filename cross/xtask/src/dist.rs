//! The binary that goes onto a board: profile `dist`, cross-built with rustup's targets and
//! Debian's cross compilers (the linkers are named in `.cargo/config.toml`).

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::shell::{self, cargo};
use crate::tools;

/// What is built for boards.
pub(crate) const TARGETS: [&str; 2] =
    ["aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"];

/// The size that a release binary may have (aarch64): 10 MB.
const SIZE_BYTES_MAX: u64 = 10_000_000;

/// The cross compiler of a target; `None` for the machine's own.
fn cross_gcc(target: &str) -> Option<&'static str> {
    match target {
        "aarch64-unknown-linux-gnu" => Some("aarch64-linux-gnu-gcc"),
        "armv7-unknown-linux-gnueabihf" => Some("arm-linux-gnueabihf-gcc"),
        _ => None,
    }
}

/// True where compiler and standard library are there.
pub(crate) fn can_build(target: &str) -> bool {
    cross_gcc(target).is_none_or(tools::is_installed) && tools::has_rust_target(target)
}

/// Where the binary of a target lies.
pub(crate) fn path(target: &str) -> PathBuf {
    shell::target_folder().join(target).join("dist/edge-broker")
}

/// Builds it and tells its size.
///
/// # Errors
/// When a tool is missing, the build fails, or the binary is too big for the small boards.
pub(crate) fn build(target: &str) -> Result<PathBuf> {
    if !can_build(target) {
        let gcc = cross_gcc(target).unwrap_or("gcc");
        bail!("{target} needs {gcc} and `rustup target add {target}`");
    }
    let mut build = cargo();
    build.args(["build", "--package", "edge-broker", "--bin", "edge-broker", "--quiet"]);
    build.args(["--profile", "dist", "--target", target]);
    if let Some(gcc) = cross_gcc(target) {
        // For the C code of dependencies; the linker is in .cargo/config.toml.
        build.env(format!("CC_{}", target.replace('-', "_")), gcc);
    }
    shell::run(&mut build)?;
    let path = path(target);
    let bytes = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    eprintln!("{}: {:.2} MB", path.display(), bytes as f64 / 1e6);
    if bytes > SIZE_BYTES_MAX {
        bail!("{target}: {bytes} bytes, more than {SIZE_BYTES_MAX}");
    }
    Ok(path)
}

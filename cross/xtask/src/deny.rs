//! Licences, advisories, bans and sources of what we link: `deny.toml`, checked by cargo-deny.

use anyhow::{Result, bail};

use crate::shell::{self, cargo};
use crate::tools;

pub(crate) fn run() -> Result<()> {
    if !tools::is_installed("cargo-deny") {
        bail!("no cargo-deny: cargo install cargo-deny --locked");
    }
    shell::run(cargo().args(["deny", "--all-features", "check"]))
}

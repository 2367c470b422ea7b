//! Licences, advisories, bans and sources of what we link: `deny.toml`, checked by cargo-deny.

use anyhow::{Result, bail};

use crate::shell::{self, cargo};
use crate::tools;

/// Which checks: the advisories come from the network, the others are all in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checks {
    Offline,
    All,
}

pub(crate) fn run(checks: Checks) -> Result<()> {
    if !tools::is_installed("cargo-deny") {
        bail!("no cargo-deny: cargo install cargo-deny --locked");
    }
    let mut deny = cargo();
    deny.args(["deny", "--all-features", "check", "--hide-inclusion-graph"]);
    if checks == Checks::Offline {
        deny.args(["licenses", "bans", "sources"]);
    }
    shell::run(&mut deny)
}

//! `edge-broker config check|show`

use edge_config::Config;
use edge_config::units::human_bytes;

use crate::access_store::{AccessStore, anonymous_of};
use crate::args::ConfigCommand;
use crate::cli::{Failure, load_config, output};

pub(super) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(layers) => {
            let config = load_config(layers)?;
            for warning in &config.warnings {
                output::tell(&format!("warning: {warning}"));
            }
            if let Some(warning) = lockout(&config)? {
                output::tell(&format!("warning: {warning}"));
            }
            for note in &config.notes {
                output::tell(&format!("note: {note}"));
            }
            output::print(&summary(&config))
        }
        ConfigCommand::Show(layers) => output::print(&load_config(layers)?.to_toml()),
    }
}

/// Whether the users and rules that are there already shut everybody out.
fn lockout(config: &Config) -> Result<Option<String>, Failure> {
    let store = AccessStore::new(&config.auth.file);
    let found = store.load()?.lockout(anonymous_of(config));
    Ok(found.map(|why| format!("{}: {why}", store.path().display())))
}

fn summary(config: &Config) -> String {
    let budget: u64 = config.lanes.iter().map(|lane| lane.budget_bytes).sum();
    let uplink = match &config.uplink {
        Some(uplink) => {
            let brokers: Vec<String> = uplink.bootstrap.iter().map(ToString::to_string).collect();
            format!("replicates to {}", brokers.join(","))
        }
        None => "replicates to nobody".to_owned(),
    };
    format!(
        "ok: gateway {}, board {}, {} in {} lanes, {}, {}",
        config.gateway,
        config.board.name,
        human_bytes(budget),
        config.lanes.len(),
        counted(config.routes.len(), "route"),
        uplink
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

//! Arguments of `client`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `client ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// List the MQTT clients that are connected
    List(ClientListArgs),
    /// End the connections of an MQTT client; it may come back at once unless rules forbid it
    Kick(ClientKickArgs),
}

/// `client list`
#[derive(Debug, Args)]
pub(crate) struct ClientListArgs {
    /// The data directory of the gateway
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `client kick`
#[derive(Debug, Args)]
pub(crate) struct ClientKickArgs {
    /// The client id
    pub(crate) client: String,
    /// The data directory of the gateway
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

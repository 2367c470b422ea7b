//! The subcommands that answer and end: one file each.
//!
//! They write to standard output only what was asked for, and one line to standard error when something is wrong.
//! A reader that goes away (`edge-broker consume t | head`) ends the program quietly.

mod acl;
mod backup;
mod broker;
mod card;
mod client;
mod config;
mod consume;
mod export;
mod flash_status;
pub(crate) mod host;
pub(crate) mod moment;
pub(crate) mod output;
mod produce;
mod progress;
mod record_json;
mod repair;
mod route;
mod status;
mod table;
mod topic;
mod user;
mod verify;

use std::fmt;
use std::process::ExitCode;

use edge_config::{Config, ConfigError};
use uplink::client::{ConnectError, RequestError};

use crate::args::{LayerArgs, Tool};

/// Exit code of a wrong command line, configuration or start.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Exit code of everything else that fails.
pub(crate) const EXIT_FAILED: u8 = 1;

/// Why a subcommand ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operator's mistake: exit code 2.
    Usage(String),
    /// Something else: exit code 1.
    Failed(String),
    /// The answer is no, and was printed: exit code 1.
    Told,
    /// Nobody reads what we write any more; nothing to complain about.
    ReaderGone,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Failed(message) => f.write_str(message),
            Self::Told => f.write_str("no"),
            Self::ReaderGone => f.write_str("nobody reads the output any more"),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Connect(error) => error.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Address { .. } => Self::Usage(error.to_string()),
            other => Self::Failed(format!(
                "{other}; start a gateway with edge-broker run, or name its address with --broker"
            )),
        }
    }
}

impl Failure {
    /// Tells the operator, in one line a mistake, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Failed(_) => EXIT_FAILED,
            Self::Told => return ExitCode::from(EXIT_FAILED),
            Self::ReaderGone => return ExitCode::SUCCESS,
        };
        // Mistakes in a configuration are a line each.
        self.to_string().lines().for_each(output::tell);
        ExitCode::from(code)
    }
}

/// Runs one of the subcommands that answer and end, and gives the exit code.
#[must_use]
pub(crate) fn run(tool: Tool) -> ExitCode {
    let result = match tool {
        Tool::Config(command) => config::run(&command),
        Tool::Route(command) => route::run(&command),
        Tool::Status(args) => status::run(&args),
        Tool::Verify(args) => verify::run(&args),
        Tool::Repair(args) => repair::run(&args),
        Tool::Export(args) => export::run(&args),
        Tool::Client(command) => client::run(&command),
        Tool::User(command) => user::run(&command),
        Tool::Acl(command) => acl::run(&command),
        Tool::Topic(command) => blocking(topic::run(&command)),
        Tool::Produce(args) => blocking(produce::run(&args)),
        Tool::Consume(args) => blocking(consume::run(&args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The configuration of this machine: the layers of the file and the flags over its board.
///
/// # Errors
/// A [`Failure::Usage`] with a line for each mistake.
pub(crate) fn load_config(layers: &LayerArgs) -> Result<Config, Failure> {
    Ok(Config::load(layers.config.as_deref(), &layers.overrides(), &host::ThisMachine)?)
}

fn blocking(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    // One thread does for one command; tasks need not be able to change threads.
    let result = tokio::task::LocalSet::new().block_on(&runtime, work);
    // A thread that still waits for standard input must not hold up the end.
    runtime.shutdown_background();
    result
}

//! The program's own log: lines for people on a terminal, JSON otherwise. To standard error, since standard
//! output belongs to what a command answers.

use std::io::IsTerminal as _;

use edge_config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging. `EDGE_BROKER_LOG` (in the syntax of `tracing`'s `EnvFilter`) overrides the level.
pub(crate) fn start(config: &LogConfig) {
    let filter = EnvFilter::try_from_env("EDGE_BROKER_LOG")
        .unwrap_or_else(|_| EnvFilter::new(config.level.as_str()));
    let human = match config.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start (a test that runs two appliances in one process) changes nothing.
    let _ = if human {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}

//! The edge-broker program: MQTT in, a crash-safe log, the Kafka protocol out, replication to a central Kafka.

mod access_args;
mod access_store;
mod access_watch;
mod appliance;
mod args;
mod card_args;
mod cli;
mod client_args;
mod control_socket;
mod data_dir;
mod demo;
mod engine_setup;
mod fd_limit;
mod logging;
mod random;
mod run;
mod tls_watch;
mod uplink_bridge;

use std::process::ExitCode;

use args::{Command, DemoArgs, LayerArgs};
use cli::{EXIT_FAILED, EXIT_USAGE};

fn main() -> ExitCode {
    match args::parse(std::env::args_os()).map(|cli| cli.command) {
        Ok(Command::Run(layers)) => run_gateway(&layers),
        Ok(Command::Demo(args)) => run_demo(args),
        Ok(Command::Tool(tool)) => cli::run(tool),
        Err(code) => code,
    }
}

fn run_gateway(layers: &LayerArgs) -> ExitCode {
    let config = match cli::load_config(layers) {
        Ok(config) => config,
        Err(failure) => return failure.report(),
    };
    match run::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edge-broker: {}", error.to_string().replace('\n', " "));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run_demo(args: DemoArgs) -> ExitCode {
    let options = demo::DemoOptions {
        seconds: args.seconds,
        rate: args.rate,
        replay: args.replay,
        upstream: args.upstream,
        keep: args.keep,
        data_dir: args.data_dir,
    };
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("edge-broker: cannot start: {error}");
                return ExitCode::from(EXIT_FAILED);
            }
        };
    match runtime.block_on(demo::run(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("edge-broker: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

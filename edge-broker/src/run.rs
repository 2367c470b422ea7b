//! `edge-broker run`: an appliance until a signal says stop.

use std::time::Duration;

use edge_config::Config;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::appliance::{Appliance, StartError};
use crate::{fd_limit, logging};

/// Runs a gateway until SIGTERM or SIGINT. Builds the runtime with as many threads as the board has for the network.
///
/// # Errors
/// [`StartError`]: it did not start; the message is one line.
pub(crate) fn run(config: Config) -> Result<(), StartError> {
    logging::start(&config.log);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.min(usize::from(config.board.threads.workers_max)).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(16)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build()
        .map_err(|source| StartError::Storage {
            path: config.data_dir.display().to_string(),
            source,
        })?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), StartError> {
    let mut warnings = config.warnings.clone();
    warnings.extend(fd_limit::raise(&config));
    let appliance = Appliance::start(config).await?;
    // After the start: what keeps it from starting is the one line that counts.
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    // Without systemd these do nothing.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let watchdog = tokio::spawn(feed_watchdog());
    wait_for_stop().await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    watchdog.abort();
    appliance.stop().await;
    tracing::info!("stopped");
    Ok(())
}

async fn wait_for_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("no signal handlers; only SIGKILL stops this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Tells systemd that the event loop still turns (`WatchdogSec=`, sd_notify(3)).
async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((limit / 3).max(Duration::from_millis(100)));
    loop {
        ticks.tick().await;
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

//! Accepts connections and waits for them at the end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use edge_engine::Engine;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection;
use crate::options::KafkaOptions;
use crate::session::{Context, Session, stopped};

/// Pause after a failed accept: out of descriptors or memory, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the Kafka protocol until `shutdown` becomes true (or its sender is gone), then lets requests in
/// progress finish within [`KafkaOptions::drain_timeout`].
///
/// # Errors
/// None at present: what goes wrong with a connection ends that connection, and a failed accept is tried again.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    options: KafkaOptions,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let drain_timeout = options.drain_timeout;
    let connections_max = options.connections_max.max(1);
    let context = Arc::new(Context::new(engine, options, shutdown.clone()));
    let mut stop = shutdown;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) if connections.len() >= connections_max => {
                    tracing::warn!(%peer, connections_max, "kafka: too many connections, one was closed");
                    drop(socket);
                }
                Ok((socket, peer)) => {
                    let Ok(local) = socket.local_addr() else { continue };
                    let session = Arc::new(Session::new(context.clone(), local));
                    connections.spawn(connection::run(socket, peer, session));
                }
                Err(error) => {
                    tracing::warn!(%error, "kafka: a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    // Twice: a connection first finishes what it reads, then what it answers. The rest is cut off.
    if timeout(drain_timeout * 2, all_ended).await.is_err() {
        tracing::warn!(left = connections.len(), "kafka: connections were cut off");
    }
    Ok(())
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "kafka: a bug ended a connection");
    }
}

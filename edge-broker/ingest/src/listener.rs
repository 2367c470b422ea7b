//! Accepts connections and ends them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edge_config::Router;
use edge_engine::Engine;
use edge_mqtt::SubscriberId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::connection::Connection;
use crate::mailbox::Mailbox;
use crate::options::MqttOptions;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::stats::{IngestStats, count};
use crate::targets::Targets;

/// Pause after an accept that failed: mostly, there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often topics that were deleted are noticed.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often a change of users and rules is looked for, for connections that are quiet.
const ACCESS_EVERY: Duration = Duration::from_millis(250);
/// TCP keep-alive: finds peers that are gone where MQTT keep-alive is off.
const TCP_KEEP_IDLE: Duration = Duration::from_secs(120);
const TCP_KEEP_INTERVAL: Duration = Duration::from_secs(30);
const TCP_KEEP_COUNT: u32 = 4;
/// Beyond the drain timeout: closing sockets and their last packets.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Serves MQTT on `listener` until `shutdown` turns true: then accepts no more, lets connections get
/// the acknowledgements of what they have sent (at most
/// [`drain_timeout`](MqttOptions::drain_timeout)), tells them, and returns when all have ended.
///
/// The engine must outlive it: stop this first.
///
/// # Errors
/// When the listening socket fails for good.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    router: Arc<Router>,
    options: MqttOptions,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let stats = Arc::new(IngestStats::default());
    serve_with_stats(listener, engine, router, options, shutdown, stats).await
}

/// [`serve`], with counters that the caller can read.
///
/// # Errors
/// As there.
pub async fn serve_with_stats(
    listener: TcpListener,
    engine: Arc<Engine>,
    router: Arc<Router>,
    options: MqttOptions,
    mut shutdown: watch::Receiver<bool>,
    stats: Arc<IngestStats>,
) -> io::Result<()> {
    let drain_timeout = options.drain_timeout;
    let shared = Arc::new(Shared {
        lanes: engine.lanes().into(),
        targets: Targets::new(engine, router.clone(), options.topics.clone()),
        router,
        registry: Registry::new(options.subscriptions),
        stats,
        hashes: Arc::new(tokio::sync::Semaphore::new(
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        )),
        cache_entries: Arc::new(AtomicUsize::new(0)),
        options,
    });
    let made = shared.clone();
    let creation =
        tokio::spawn(
            async move { made.targets.create_all(made.options.create_topic_timeout).await },
        );

    let mut connections = JoinSet::new();
    let mut identities = Identities::default();
    let mut refresh = tokio::time::interval(REFRESH_EVERY);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut access_of = shared.options.access.generation();
    let mut access_tick = tokio::time::interval(ACCESS_EVERY);
    access_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    accept(&shared, stream, peer, &mut identities, &mut connections);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                ended_with(&shared, ended);
            }
            _ = refresh.tick() => shared.targets.refresh(),
            _ = access_tick.tick() => {
                let generation = shared.options.access.generation();
                if generation != access_of {
                    access_of = generation;
                    let sent_away = shared.registry.recheck(&shared.options.access.get());
                    if sent_away > 0 {
                        tracing::info!(sent_away, "connections whose user is gone are ended");
                    }
                }
            }
            _ = stop(&mut shutdown) => break,
        }
    }
    drop(listener);
    creation.abort();
    shared.registry.shut_down();
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            ended_with(&shared, ended);
        }
    };
    if tokio::time::timeout(drain_timeout + STOP_GRACE, all_ended).await.is_err() {
        tracing::warn!(left = connections.len(), "connections did not end in time");
        connections.shutdown().await;
    }
    Ok(())
}

fn accept(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    identities: &mut Identities,
    connections: &mut JoinSet<()>,
) {
    count(&shared.stats.connections_accepted, 1);
    if connections.len() >= shared.options.connections_max {
        count(&shared.stats.connections_refused, 1);
        tracing::warn!(limit = shared.options.connections_max, "connection limit reached");
        return;
    }
    set_options(&stream);
    let (id, seed) = identities.next();
    let mailbox =
        Arc::new(Mailbox::new(id, shared.lanes.len(), shared.options.delivery_queue_bytes_max));
    let connection = Connection::new(shared.clone(), stream, peer, mailbox, seed);
    connections.spawn(connection.run());
}

/// A connection without these works, too; nothing to do about a failure.
fn set_options(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(stream, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(stream, TCP_KEEP_IDLE);
    let _ = rustix::net::sockopt::set_tcp_keepintvl(stream, TCP_KEEP_INTERVAL);
    let _ = rustix::net::sockopt::set_tcp_keepcnt(stream, TCP_KEEP_COUNT);
}

fn ended_with(shared: &Shared, ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        shared.stats.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!("a connection panicked; only that connection has ended");
    }
}

/// Resolves when the sender says so or is gone.
async fn stop(shutdown: &mut watch::Receiver<bool>) {
    let _gone = shutdown.wait_for(|stop| *stop).await;
}

/// Names for connections: a number that is never used again, and one that cannot be guessed.
#[derive(Default)]
struct Identities {
    last: u64,
    random: RandomState,
}

impl Identities {
    fn next(&mut self) -> (SubscriberId, u64) {
        self.last += 1;
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.last);
        (SubscriberId(self.last), hasher.finish())
    }
}

//! Accepts connections and ends them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edge_config::Router;
use edge_engine::Engine;
use edge_mqtt::SubscriberId;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::connection::{Connection, Peer, is_local};
use crate::door::{Arrived, Door, Doors};
use crate::mailbox::Mailbox;
use crate::options::MqttOptions;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::stats::{IngestStats, count};
use crate::targets::Targets;
use crate::transport::{Carrier, Greeted, Transport, greet};

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

/// Serves MQTT behind `doors` until `shutdown` turns true: then accepts no more, lets connections get
/// the acknowledgements of what they have sent (at most
/// [`drain_timeout`](MqttOptions::drain_timeout)), tells them, and returns when all have ended.
///
/// The engine must outlive it: stop this first.
///
/// # Errors
/// When a listening socket fails for good.
pub async fn serve(
    doors: Vec<Door>,
    engine: Arc<Engine>,
    router: Arc<Router>,
    options: MqttOptions,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let stats = Arc::new(IngestStats::default());
    serve_with_stats(doors, engine, router, options, shutdown, stats).await
}

/// [`serve`], with counters that the caller can read.
///
/// # Errors
/// As there.
pub async fn serve_with_stats(
    doors: Vec<Door>,
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
        handshakes: tokio::sync::Semaphore::new(options.handshakes_max),
        cache_entries: Arc::new(AtomicUsize::new(0)),
        options,
    });
    let made = shared.clone();
    let creation =
        tokio::spawn(
            async move { made.targets.create_all(made.options.create_topic_timeout).await },
        );

    let mut doors = Doors::new(doors);
    let mut connections = JoinSet::new();
    let mut identities = Identities::default();
    let mut refresh = tokio::time::interval(REFRESH_EVERY);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut access_of = shared.options.access.generation();
    let mut access_tick = tokio::time::interval(ACCESS_EVERY);
    access_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = doors.accept() => match accepted {
                Ok(arrived) => accept(&shared, arrived, &mut identities, &mut connections),
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
    drop(doors);
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
    arrived: Arrived,
    identities: &mut Identities,
    connections: &mut JoinSet<()>,
) {
    count(&shared.stats.connections_accepted, 1);
    if connections.len() >= shared.options.connections_max {
        count(&shared.stats.connections_refused, 1);
        tracing::warn!(limit = shared.options.connections_max, "connection limit reached");
        return;
    }
    let Arrived { stream, peer, tls, carrier } = arrived;
    set_options(&stream);
    let accepted_at = Instant::now();
    let (id, seed) = identities.next();
    let mailbox =
        Arc::new(Mailbox::new(id, shared.lanes.len(), shared.options.delivery_queue_bytes_max));
    let shared = shared.clone();
    if tls.is_none() && carrier == Carrier::Stream {
        let peer =
            Peer { address: peer, certificate: Vec::new(), is_local: is_local(&peer), accepted_at };
        let connection = Connection::new(shared, Transport::Tcp(stream), peer, mailbox, seed);
        connections.spawn(connection.run());
        return;
    }
    connections.spawn(async move {
        let until = accepted_at + shared.options.session.connect_deadline;
        // In a box of its own, which is gone when the connection begins.
        let greeting = Box::pin(greet(stream, tls.as_ref(), carrier, &shared.handshakes, until));
        match greeting.await {
            Ok(Greeted { transport, certificate, is_own_program }) => {
                let is_local = is_own_program && is_local(&peer);
                let peer = Peer { address: peer, certificate, is_local, accepted_at };
                Box::pin(Connection::new(shared, transport, peer, mailbox, seed).run()).await;
            }
            Err(error) => {
                count(&shared.stats.handshakes_failed, 1);
                tracing::info!(%peer, %error, "connection refused");
            }
        }
    });
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

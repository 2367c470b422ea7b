//! Accepts connections and ends them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edge_config::Router;
use edge_engine::Engine;
use edge_mqtt::SubscriberId;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use crate::budget::Budget;
use crate::clients::{ClientInfo, Clients};
use crate::connection::{Connection, Peer, is_local};
use crate::door::{Arrived, Door, Doors};
use crate::durable::{Durable, Restored};
use crate::gatekeeper::{AcceptRate, Gatekeeper, Limits, Refused};
use crate::lasting::asked_options;
use crate::mailbox::Mailbox;
use crate::options::MqttOptions;
use crate::registry::Registry;
use crate::retained::Retained;
use crate::seldom::Seldom;
use crate::sessions::{self, Sessions};
use crate::shared::Shared;
use crate::stats::{IngestStats, count};
use crate::sys::SysTopics;
use crate::targets::Targets;
use crate::transport::{Carrier, Greeted, Transport, greet};
use crate::wills;

/// Ids of sessions of earlier lives of the program: no connection gets so far.
const RESTORED_FROM: u64 = 1 << 63;

/// Pause after an accept that failed: mostly, there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often topics that were deleted are noticed.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often a change of users and rules is looked for, for connections that are quiet; and sessions and wills
/// whose time has come.
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
    shutdown: watch::Receiver<bool>,
    stats: Arc<IngestStats>,
) -> io::Result<()> {
    MqttServer::new(engine, router, options, stats).serve(doors, shutdown).await
}

/// All MQTT listeners of a gateway, before they are opened.
pub struct MqttServer {
    shared: Arc<Shared>,
}

/// Looks into a running server, and orders.
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl ServerHandle {
    /// Who is connected.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientInfo> {
        self.shared.clients.list()
    }

    /// Ends the connections of a client; returns how many there were.
    #[must_use]
    pub fn kick(&self, client_id: &str) -> usize {
        self.shared.clients.kick(client_id)
    }

    /// Counters by name.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let memory = [("memory_bytes", self.shared.budget.used_bytes() as u64)];
        self.shared.stats.named().chain(memory)
    }
}

impl MqttServer {
    /// Ready to serve.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        router: Arc<Router>,
        options: MqttOptions,
        stats: Arc<IngestStats>,
    ) -> Self {
        Self { shared: shared(engine, router, options, stats) }
    }

    /// For whoever looks on.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { shared: self.shared.clone() }
    }

    /// [`serve`].
    ///
    /// # Errors
    /// As there.
    pub async fn serve(self, doors: Vec<Door>, shutdown: watch::Receiver<bool>) -> io::Result<()> {
        serve_shared(self.shared, doors, shutdown).await
    }
}

fn shared(
    engine: Arc<Engine>,
    router: Arc<Router>,
    options: MqttOptions,
    stats: Arc<IngestStats>,
) -> Arc<Shared> {
    let lanes: Arc<[_]> = engine.lanes().into();
    let keeper = options.sessions.clone();
    Arc::new(Shared {
        durable: keeper.map(|keeper| Durable::new(keeper, lanes.clone())),
        gatekeeper: Gatekeeper::new(Limits {
            connections_max: options.connections_max,
            per_address_max: options.connections_per_address_max,
            failures_max: options.ban_after_failures,
            ban_max: options.ban_max,
        }),
        clients: Arc::new(Clients::default()),
        budget: Budget::new(options.memory_bytes_max),
        lanes,
        targets: Targets::new(
            engine,
            router.clone(),
            options.topics.clone(),
            options.dead_letter.clone(),
        ),
        router,
        registry: Registry::new(options.subscriptions),
        retained: Retained::new(options.retained_bytes_max, options.retained_max),
        sessions: Sessions::new(sessions::Limits {
            sessions_max: options.sessions_max,
            queue_bytes_max: options.delivery_queue_bytes_max,
            offline_bytes_max: options.offline_bytes_max,
        }),
        stats,
        hashes: Arc::new(tokio::sync::Semaphore::new(
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        )),
        handshakes: tokio::sync::Semaphore::new(options.handshakes_max),
        refusals_told: Seldom::default(),
        limit_told: Seldom::default(),
        cache_entries: Arc::new(AtomicUsize::new(0)),
        options,
    })
}

async fn serve_shared(
    shared: Arc<Shared>,
    doors: Vec<Door>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let drain_timeout = shared.options.drain_timeout;
    restore(&shared);
    let made = shared.clone();
    let creation =
        tokio::spawn(
            async move { made.targets.create_all(made.options.create_topic_timeout).await },
        );

    let mut doors = Doors::new(doors);
    let mut connections = JoinSet::new();
    let mut identities = Identities::default();
    let mut rate = AcceptRate::new(shared.options.accept_per_second, Instant::now());
    let mut sys = SysTopics::new(Instant::now());
    let mut refresh = tokio::time::interval(REFRESH_EVERY);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut access_of = shared.options.access.generation();
    let mut access_tick = tokio::time::interval(ACCESS_EVERY);
    access_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let wait_until = rate.wait_until(Instant::now());
        tokio::select! {
            accepted = doors.accept(), if wait_until.is_none() => match accepted {
                Ok(arrived) => {
                    // Who is turned away at once must not keep others waiting.
                    if accept(&shared, arrived, &mut identities, &mut connections) {
                        rate.accepted(Instant::now());
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                ended_with(&shared, ended);
            }
            () = sleep_until(wait_until), if wait_until.is_some() => {
                count(&shared.stats.accept_waits, 1);
            }
            _ = refresh.tick() => {
                shared.targets.refresh();
                shared.retained.expire(Instant::now());
                sys.tick(&shared, Instant::now());
                if let Some(durable) = &shared.durable {
                    shared.registry.for_each_session(|inbox| {
                        if let Some(lasting) = inbox.lasting() {
                            durable.flush(lasting, false);
                        }
                    });
                }
            }
            _ = access_tick.tick() => {
                let over = shared.sessions.expire(Instant::now());
                for will in shared.clear_up(over) {
                    connections.spawn(wills::publish(shared.clone(), will));
                }
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

/// Sessions that the log has are there again.
fn restore(shared: &Shared) {
    let Some(durable) = &shared.durable else { return };
    let now = Instant::now();
    for (id, restored) in (RESTORED_FROM..).zip(durable.restored(now)) {
        let Restored { session, lasting, expires_in, state } = restored;
        let user = session.user.as_deref().map(Into::into);
        let inbox = shared.sessions.restore(
            SubscriberId(id),
            &session.client,
            user,
            state,
            now + expires_in,
        );
        inbox.last(lasting);
        shared.registry.enter(&inbox);
        for (filter, subscription) in &session.subscriptions {
            let options = asked_options(&subscription.options);
            if let Err(reason) = shared.registry.subscribe(inbox.id(), filter, options) {
                tracing::warn!(
                    client = session.client,
                    filter,
                    ?reason,
                    "a subscription is not taken up again"
                );
            }
        }
    }
}

/// False if it was turned away.
fn accept(
    shared: &Arc<Shared>,
    arrived: Arrived,
    identities: &mut Identities,
    connections: &mut JoinSet<()>,
) -> bool {
    count(&shared.stats.connections_accepted, 1);
    let Arrived { stream, peer, tls, carrier } = arrived;
    let accepted_at = Instant::now();
    if shared.budget.is_used_up() {
        count(&shared.stats.connections_refused_memory, 1);
        return false;
    }
    let pass = match shared.gatekeeper.admit(peer.ip(), accepted_at) {
        Ok(pass) => pass,
        Err(refused) => {
            tell_refused(shared, refused, &peer);
            return false;
        }
    };
    set_options(&stream);
    let (id, seed) = identities.next();
    let mailbox = Arc::new(Mailbox::new(id, shared.lanes.len()));
    let shared = shared.clone();
    if tls.is_none() && carrier == Carrier::Stream {
        let peer =
            Peer { address: peer, certificate: Vec::new(), is_local: is_local(&peer), accepted_at };
        let connection = Connection::new(shared, Transport::Tcp(stream), peer, mailbox, seed);
        connections.spawn(async move {
            let _pass = pass;
            connection.run().await;
        });
        return true;
    }
    connections.spawn(async move {
        let _pass = pass;
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
                // Strangers do not write our log full: the counter tells how many there were.
                if let Some(more) = shared.refusals_told.turn(Instant::now()) {
                    tracing::info!(%peer, %error, more, "connection refused");
                }
                if error.is_of_the_client() {
                    shared.failed(&peer);
                }
            }
        }
    });
    true
}

fn tell_refused(shared: &Shared, refused: Refused, peer: &SocketAddr) {
    let stats = &shared.stats;
    match refused {
        Refused::Full => {
            count(&stats.connections_refused, 1);
            if let Some(more) = shared.limit_told.turn(Instant::now()) {
                tracing::warn!(
                    limit = shared.options.connections_max,
                    more,
                    "connection limit reached"
                );
            }
        }
        Refused::AddressFull => {
            count(&stats.connections_refused_address, 1);
            tracing::debug!(%peer, "this address has as many connections as it may");
        }
        Refused::Banned => {
            count(&stats.connections_refused_banned, 1);
            tracing::debug!(%peer, "this address is banned for a while");
        }
    }
}

/// Never, if there is no such moment.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
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
    fn next(&mut self) -> (u64, u64) {
        self.last += 1;
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.last);
        (self.last, hasher.finish())
    }
}

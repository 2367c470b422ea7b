//! The appliance: every part of a running gateway, started and stopped in order.
//!
//! Start: data directory, lanes, topics, listeners, uplink, status socket. A port that is taken or a directory that
//! cannot be used is one clear error before anything is promised to anybody.
//! Stop: listeners first (no new promises), then the uplink, then the lanes, which commit what waits and prove it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_config::{
    Config, HeaderSelection, KeyTemplate, Router, StoreTarget, TimestampSource, TopicSettings,
};
use edge_engine::status::Status;
use edge_engine::{CreateTopicError, Engine, EngineOpenError, EventOwner, OpenReport, TopicSpec};
use edge_ingest::SessionKeeper;
use edge_ingest::{Carrier, Door, IngestStats, MqttOptions, MqttServer, ServerHandle};
use edge_kafka::KafkaOptions;
use edge_log::{FileStorage, Storage};
use edge_mqtt::{SessionLimits, SubscriptionLimits};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uplink::{UplinkHandle, UplinkObserver};

use crate::access_store::AccessStoreError;
use crate::access_watch::AccessWatch;
use crate::control_socket::{Ask, Client, ControlSocket, Kicked, to_json};
use crate::data_dir::{DataDir, DataDirError};
use crate::engine_setup::{engine_config, set_from_file, topic_specs};
use crate::tls_watch::{TlsFileError, TlsWatch};
use crate::uplink_bridge;

/// How long listeners may take to flush what they promised.
const DRAIN: Duration = Duration::from_secs(8);

/// How long a start waits for topics that have to be made.
const TOPICS_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether the clock has been set.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn, 4,096 by default).
const BACKLOG: u32 = 8_192;

/// A running gateway.
pub(crate) struct Appliance {
    engine: Arc<Engine>,
    shutdown: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    status: Option<JoinHandle<()>>,
    /// Followers of files.
    watches: Vec<JoinHandle<()>>,
    uplink: Option<UplinkHandle>,
    clock: JoinHandle<()>,
    _data_dir: DataDir,
}

/// The gateway cannot start. Each message is one line that names what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The disk below it.
    #[error(
        "data directory {path}: {source}; check the file system or give another with --data-dir"
    )]
    Storage {
        /// Where the directory's name stands.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A lane.
    #[error("{path}: {}", chain(source))]
    Engine {
        /// Where the directory's name stands.
        path: String,
        /// Why.
        source: EngineOpenError,
    },
    /// A topic of the configuration.
    #[error("topic of the configuration: {0}")]
    Topic(CreateTopicError),
    /// Users and access rules.
    #[error("{0}; mend the file or restore an older one: nobody is let in by mistake")]
    Access(#[from] AccessStoreError),
    /// Certificates.
    #[error("{0}; mend the files under [tls], or take the encrypted listeners out")]
    Tls(#[from] TlsFileError),
    /// The kernel has no random numbers.
    #[error("no random numbers: {0}")]
    Random(io::Error),
    /// Others can reach a listener, and nobody is told apart.
    #[error(
        "{place}: other machines can reach this address and there are no users; add one with edge-broker user add NAME --generate, ask for client certificates with client_ca under [tls], or set anonymous = \"always\" under [auth]"
    )]
    NoUsers {
        /// Where the address stands.
        place: String,
    },
    /// A port.
    #[error("{place}: {source}; {remedy}")]
    Listen {
        /// Where the address stands.
        place: String,
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl Appliance {
    /// Starts every part.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&config.data_dir, &config.places.data_dir)?;
        let boot_key = crate::random::bytes().map_err(StartError::Random)?;
        let access = AccessWatch::open(&config, boot_key)?;
        let is_open = access.live().get().is_open();
        if is_open && config.auth.anonymous != edge_config::Anonymous::Always {
            refuse_reachable(&config)?;
        }
        // Ports first: they are the likeliest thing to be wrong, and cheap to try.
        let mqtt = mqtt_doors(&config).await?;
        let kafka = listen(&config.places.kafka_listen, config.kafka.listen, "--kafka").await?;

        let path = config.places.data_dir.clone();
        let storage = FileStorage::open(data_dir.path())
            .map_err(|source| StartError::Storage { path: path.clone(), source })?;
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let mut setup = engine_config(&config);
        setup.flash.data_dir = Some(data_dir.path().to_owned());
        let sessions = Arc::new(SessionKeeper::default());
        let keeper = sessions.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let owner = Some(keeper as Arc<dyn EventOwner>);
            Engine::open_with_owner(&storage, setup, Some(&uplink_bridge::STORED_ENDS), owner)
        })
        .await;
        let (engine, report) = opened
            .map_err(|error| StartError::Storage { path: path.clone(), source: error.into() })?
            .map_err(|source| StartError::Engine { path, source })?;
        tell(&report);
        start_topics(&engine, &config).await?;

        let (shutdown, stopping) = watch::channel(false);
        let uplink = uplink_bridge::start(&engine, &config);
        let router = Arc::new(Router::new(&config));
        let mqtt_addresses: Vec<String> =
            mqtt.iter().map(|(_, listener)| address(listener).to_string()).collect();
        let kafka_address = address(&kafka);
        let tls = config.tls.as_ref().map(|files| TlsWatch::open(files, &engine)).transpose()?;
        let doors = mqtt.into_iter().map(|(door, listener)| Door {
            listener,
            tls: tls.as_ref().filter(|_| door.is_encrypted).map(TlsWatch::live),
            carrier: door.carrier,
        });
        let server = MqttServer::new(
            engine.clone(),
            router,
            MqttOptions {
                access: access.live(),
                sessions: Some(sessions),
                ..mqtt_options(&config)
            },
            Arc::new(IngestStats::default()),
        );
        let mqtt = server.handle();
        let listeners = vec![
            spawn("MQTT", server.serve(doors.collect(), stopping.clone())),
            spawn(
                "Kafka",
                edge_kafka::serve(kafka, engine.clone(), kafka_options(&config), stopping),
            ),
        ];
        let mut watches = vec![tokio::spawn(access.run())];
        watches.extend(tls.map(|tls| tokio::spawn(tls.run())));
        let observer = uplink.as_ref().map(UplinkHandle::observer);
        let status = serve_control(&engine, observer, mqtt, &data_dir);
        tracing::info!(
            gateway = config.gateway,
            mqtt = mqtt_addresses.join(" "),
            kafka = %kafka_address,
            data_dir = %data_dir.path().display(),
            board = config.board.name,
            "ready"
        );
        let clock = tokio::spawn(tend_clock(engine.clone()));
        Ok(Self {
            engine,
            shutdown,
            listeners,
            status,
            watches,
            uplink,
            clock,
            _data_dir: data_dir,
        })
    }

    /// Stops every part: what was acknowledged is on disk and proven, what was not is its sender's again.
    pub(crate) async fn stop(self) {
        self.shutdown.send_replace(true);
        for listener in self.listeners {
            let abort = listener.abort_handle();
            if tokio::time::timeout(DRAIN, listener).await.is_err() {
                tracing::warn!("a listener did not drain in time");
                abort.abort();
            }
        }
        self.watches.iter().for_each(JoinHandle::abort);
        if let Some(uplink) = self.uplink {
            uplink.shutdown().await;
        }
        self.clock.abort();
        let engine = self.engine;
        if tokio::task::spawn_blocking(move || engine.shut_down()).await.is_err() {
            tracing::error!("the lanes did not stop in order");
        }
        if let Some(status) = self.status {
            status.abort();
        }
    }
}

/// An MQTT listener of the configuration.
struct DoorPlan<'a> {
    place: &'a str,
    address: SocketAddr,
    flag: &'static str,
    carrier: Carrier,
    is_encrypted: bool,
}

fn door_plans(config: &Config) -> Vec<DoorPlan<'_>> {
    let (mqtt, places) = (&config.mqtt, &config.places);
    let plan = |place, address, flag, carrier, is_encrypted| DoorPlan {
        place,
        address,
        flag,
        carrier,
        is_encrypted,
    };
    let mut plans = vec![plan(&places.mqtt_listen, mqtt.listen, "--mqtt", Carrier::Stream, false)];
    let more = [
        (&places.mqtt_tls_listen, mqtt.tls_listen, Carrier::Stream, true),
        (&places.mqtt_ws_listen, mqtt.ws_listen, Carrier::WebSocket, false),
        (&places.mqtt_wss_listen, mqtt.wss_listen, Carrier::WebSocket, true),
    ];
    for (place, address, carrier, is_encrypted) in more {
        plans.extend(address.map(|address| plan(place, address, "", carrier, is_encrypted)));
    }
    plans
}

/// Nobody is told apart: then nobody else may reach a listener, but for one that asks for certificates.
fn refuse_reachable(config: &Config) -> Result<(), StartError> {
    let asks_for_certificates = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    for plan in door_plans(config) {
        let is_told_apart = plan.is_encrypted && asks_for_certificates;
        if !plan.address.ip().is_loopback() && !is_told_apart {
            return Err(StartError::NoUsers { place: plan.place.to_owned() });
        }
    }
    Ok(())
}

async fn mqtt_doors(config: &Config) -> Result<Vec<(DoorPlan<'_>, TcpListener)>, StartError> {
    let mut doors = Vec::new();
    for plan in door_plans(config) {
        let listener = listen(plan.place, plan.address, plan.flag).await?;
        doors.push((plan, listener));
    }
    Ok(doors)
}

async fn listen(
    place: &str,
    address: SocketAddr,
    flag: &'static str,
) -> Result<TcpListener, StartError> {
    bind(address).map_err(|source| StartError::Listen {
        place: place.to_owned(),
        remedy: match (source.kind(), flag) {
            (io::ErrorKind::AddrInUse, "--mqtt") => {
                "another program listens there; stop it or choose another port with --mqtt IP:PORT"
            }
            (io::ErrorKind::AddrInUse, "") => {
                "another program listens there; stop it or choose another port in the file"
            }
            (_, "") => "choose an address of this machine in the file",
            (io::ErrorKind::AddrInUse, _) => {
                "another program listens there; stop it or choose another port with --kafka IP:PORT"
            }
            (_, "--mqtt") => "choose an address of this machine with --mqtt IP:PORT",
            _ => "choose an address of this machine with --kafka IP:PORT",
        },
        source,
    })
}

/// As [`TcpListener::bind`], with room for a fleet that comes back all at once.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

fn spawn(
    name: &'static str,
    serving: impl Future<Output = io::Result<()>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the {name} listener ended");
        }
    })
}

/// Makes the topics of the configuration. With a disk that is full they wait for room, but the gateway does not wait
/// for them: live subscribers are served, and publishes to the log wait as they do for any full lane.
async fn start_topics(engine: &Arc<Engine>, config: &Config) -> Result<(), StartError> {
    let specs: Vec<TopicSpec> = topic_specs(config).collect();
    let settings = config.topics.clone();
    let engine = engine.clone();
    let mut making = Box::pin(async move { make_topics(&engine, specs, &settings).await });
    match tokio::time::timeout(TOPICS_PATIENCE, &mut making).await {
        Ok(made) => made,
        Err(_) => {
            tracing::warn!(
                "no room yet for new topics of the configuration; starting without them"
            );
            tokio::spawn(async move {
                if let Err(error) = making.await {
                    tracing::error!(%error, "topics of the configuration were not made");
                }
            });
            Ok(())
        }
    }
}

async fn make_topics(
    engine: &Engine,
    specs: Vec<TopicSpec>,
    settings: &[TopicSettings],
) -> Result<(), StartError> {
    for (spec, settings) in specs.into_iter().zip(settings) {
        let (partitions, lane) = (spec.partitions, spec.lane.clone().unwrap_or_default());
        match engine.create_topic(spec).await {
            Ok(_) => {}
            Err(CreateTopicError::Exists { topic }) => {
                if topic.partition_count() != partitions || topic.lane() != lane {
                    tracing::warn!(
                        topic = topic.name(),
                        "exists with {} partitions in lane '{}'; the configuration's {partitions} in \
                         '{lane}' are for new topics",
                        topic.partition_count(),
                        topic.lane(),
                    );
                }
                let altered = engine.alter_topic(topic.name(), |config| {
                    set_from_file(settings, config);
                    Ok(())
                });
                match altered.await {
                    Ok(now) if now.config() != topic.config() => {
                        tracing::info!(topic = topic.name(), "has the settings of the file now");
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "the settings of the file were not made"),
                }
            }
            Err(error) => return Err(StartError::Topic(error)),
        }
    }
    Ok(())
}

fn mqtt_options(config: &Config) -> MqttOptions {
    let memory = &config.board.memory;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let limits = &config.mqtt.limits;
    MqttOptions {
        session: SessionLimits {
            connect_deadline: Duration::from_millis(limits.connect_deadline_ms),
            receive_maximum: limits.receive_maximum,
            packet_bytes_max: config.mqtt.max_packet_bytes as usize,
            denied_publish_v3_is_acknowledged: config.mqtt.denied_publish_v3_is_acknowledged,
            deliveries_queued_bytes_max: bytes(memory.mqtt_subscriber_queue.0),
            ..SessionLimits::default()
        },
        subscriptions: SubscriptionLimits {
            per_subscriber_max: limits.subscriptions as usize,
            ..SubscriptionLimits::default()
        },
        connections_max: config.mqtt.max_connections as usize,
        connections_per_address_max: limits.connections_per_address as usize,
        connections_per_identity_max: limits.connections_per_identity,
        accept_per_second: limits.accept_per_second,
        handshakes_max: limits.handshakes as usize,
        ban_after_failures: limits.ban_after,
        ban_max: Duration::from_millis(limits.ban_ms),
        memory_bytes_max: bytes(limits.memory_bytes),
        delivery_queue_bytes_max: bytes(memory.mqtt_subscriber_queue.0),
        route_cache_entries_max: memory.route_cache_entries as usize,
        topics: topic_specs(config).collect(),
        sys_interval: Duration::from_millis(config.mqtt.sys_interval_ms),
        dead_letter: config.mqtt.dead_letter.clone().map(|topic| StoreTarget {
            topic,
            lane: config.kafka.default_lane.clone(),
            partitions: 1,
            key: KeyTemplate::MqttTopic,
            headers: HeaderSelection::ALL,
            timestamp: TimestampSource::Now,
        }),
        ..MqttOptions::default()
    }
}

fn kafka_options(config: &Config) -> KafkaOptions {
    let kafka = &config.kafka;
    KafkaOptions {
        advertised: kafka.advertised.as_ref().map(|at| (at.host.clone(), at.port)),
        cluster_id: config.gateway.clone(),
        auto_create_topics: kafka.auto_create_topics,
        partitions_default: kafka.default_partitions,
        connections_max: kafka.max_connections as usize,
        request_bytes_max: kafka.max_request_bytes as usize,
        ..KafkaOptions::default()
    }
}

/// What was found on disk, one line for each thing worth one.
fn tell(report: &OpenReport) {
    for (lane, recovery) in &report.lanes {
        if let Some(torn) = &recovery.torn_tail {
            tracing::info!(lane, at = %torn.at, "cut off a write that a stop had interrupted");
        }
        if let Some(suspect) = &recovery.suspect_tail {
            tracing::warn!(
                lane,
                at = %suspect.at,
                records = suspect.records,
                "suspect tail: the last group before an unclean stop is damaged; it may have been acknowledged"
            );
        }
        for gap in &recovery.gaps {
            tracing::warn!(
                lane,
                stream = %gap.stream,
                from = %gap.from,
                to = %gap.to,
                reason = ?gap.reason,
                "offsets are lost"
            );
        }
        tracing::debug!(
            lane,
            streams = recovery.streams.len(),
            clean = recovery.clean_shutdown,
            scanned_bytes = recovery.scanned_bytes,
            "recovered"
        );
    }
    if let Some(error) = &report.state_error {
        tracing::error!(%error, "the stored state is damaged; the catalogue was rebuilt from the lanes");
    }
    for lost in &report.lanes_lost {
        tracing::error!(lane = lost.lane, topics = lost.topics.len(), "{lost}");
    }
    for topic in &report.topics_adopted {
        tracing::warn!(topic, "the catalogue had lost this topic; found again in its lane");
    }
}

/// Notices when the clock is set, and has what was stamped before corrected.
async fn tend_clock(engine: Arc<Engine>) {
    loop {
        if let Err(error) = engine.tend_clock().await {
            tracing::debug!(%error, "what was found out about the clock is not durable yet");
        }
        tokio::time::sleep(CLOCK_CHECK).await;
    }
}

fn serve_control(
    engine: &Arc<Engine>,
    uplink: Option<UplinkObserver>,
    mqtt: ServerHandle,
    data_dir: &DataDir,
) -> Option<JoinHandle<()>> {
    let socket = match ControlSocket::bind(data_dir.path()) {
        Ok(socket) => socket,
        Err(error) => {
            // A file system without sockets costs the status, not the service.
            tracing::warn!(%error, "no status socket; `edge-broker status` will not see this gateway");
            return None;
        }
    };
    let (engine, path) = (engine.clone(), data_dir.path().to_owned());
    let answer = move |ask: &Ask| match ask {
        Ask::Status => to_json(&full_status(&engine, uplink.as_ref(), &mqtt, &path)),
        Ask::Clients => {
            let clients: Vec<Client> = mqtt.clients().into_iter().map(Client::from).collect();
            to_json(&clients)
        }
        Ask::Kick { client } => to_json(&Kicked { kicked: mqtt.kick(client) }),
    };
    Some(tokio::spawn(socket.serve(Arc::new(answer))))
}

fn full_status(
    engine: &Engine,
    uplink: Option<&UplinkObserver>,
    mqtt: &ServerHandle,
    data_dir: &std::path::Path,
) -> Status {
    let mut status = engine.status(data_dir);
    status.mqtt = Some(mqtt.counters().map(|(name, count)| (name.to_owned(), count)).collect());
    if let Some(uplink) = uplink {
        uplink_bridge::add_status(uplink, &mut status);
    }
    status
}

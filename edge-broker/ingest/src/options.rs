//! What the listener may cost, and how patient it is.

use std::time::Duration;

use std::sync::Arc;

use edge_auth::{Access, AccessFile, Anonymous, LiveAccess};
use edge_config::StoreTarget;
use edge_engine::TopicSpec;
use edge_mqtt::{SessionLimits, SubscriptionLimits};

use crate::session_keeper::SessionKeeper;

/// Settings of the MQTT listener. The sizes belong to one memory budget, that of the board. What may wait to be
/// durable is a limit of each lane: [`Holding`](edge_engine::Holding).
#[derive(Clone, Debug)]
pub struct MqttOptions {
    /// Limits of each connection's protocol machine.
    pub session: SessionLimits,
    /// Limits of subscriptions.
    pub subscriptions: SubscriptionLimits,
    /// Connections at one time; more are accepted and closed at once.
    pub connections_max: usize,
    /// Of one address, loopback excepted; more are closed at once.
    pub connections_per_address_max: usize,
    /// Of one user or certificate; more are refused in CONNACK.
    pub connections_per_identity_max: u32,
    /// Connections accepted in a second, after a second's worth at once; 0: as fast as they come.
    pub accept_per_second: u32,
    /// Failures of one address within a minute that ban it; 0: none does.
    pub ban_after_failures: u32,
    /// Longest ban.
    pub ban_max: Duration,
    /// Memory of all connections together; beyond it new ones are refused and others read with pauses.
    pub memory_bytes_max: usize,
    /// TLS handshakes at one time; more wait, and their time is not counted before they have begun.
    pub handshakes_max: usize,
    /// Bytes of deliveries that wait for one subscriber, connected or away. Beyond it the newest are
    /// dropped and counted; a connected subscriber for which nothing waits takes one message of any size.
    pub delivery_queue_bytes_max: usize,
    /// Bytes of deliveries that wait for all subscribers that are away.
    pub offline_bytes_max: usize,
    /// Bytes of retained messages.
    pub retained_bytes_max: usize,
    /// Retained messages.
    pub retained_max: usize,
    /// Sessions that outlive their connection; a client that asks for one more is refused.
    pub sessions_max: usize,
    /// How long a client waits for its session while an earlier connection still has it.
    pub session_wait: Duration,
    /// What an MQTT 5 client that asks for Response Information is told, with its client id behind it.
    pub response_topics: Option<String>,
    /// Bytes that may wait to be written to one client; beyond it the connection is not read from and
    /// gets no deliveries.
    pub output_bytes_max: usize,
    /// MQTT topics whose route, key and headers are kept ready, all connections together. Each
    /// connection keeps a few whatever the others do.
    pub route_cache_entries_max: usize,
    /// A client that takes no byte for this long is cut off.
    pub write_timeout: Duration,
    /// How long connections may take on shutdown to get their last acknowledgements out.
    pub drain_timeout: Duration,
    /// How long a publish waits for the topic of its route to be made.
    pub create_topic_timeout: Duration,
    /// Settings of topics that routes need and that may not exist yet. A topic that is not listed is
    /// made with the route's partitions and lane, and defaults.
    pub topics: Vec<TopicSpec>,
    /// How often `$SYS` topics are published while somebody subscribes to them; zero: never.
    pub sys_interval: Duration,
    /// Where publishes go that can never be stored where they belong; none: they end their connection.
    pub dead_letter: Option<StoreTarget>,
    /// Users and access rules.
    pub access: Arc<LiveAccess>,
    /// Who keeps sessions over a restart: the one that the engine was opened with. `None`: memory does.
    pub sessions: Option<Arc<SessionKeeper>>,
}

impl Default for MqttOptions {
    fn default() -> Self {
        Self {
            session: SessionLimits::default(),
            subscriptions: SubscriptionLimits::default(),
            connections_max: 1_024,
            connections_per_address_max: 1_024,
            connections_per_identity_max: 1_024,
            accept_per_second: 1_000,
            ban_after_failures: 20,
            ban_max: Duration::from_secs(60),
            memory_bytes_max: 128 * 1024 * 1024,
            handshakes_max: 64,
            delivery_queue_bytes_max: 256 * 1024,
            offline_bytes_max: 16 * 1024 * 1024,
            retained_bytes_max: 16 * 1024 * 1024,
            retained_max: 16_384,
            sessions_max: 4_096,
            session_wait: Duration::from_secs(10),
            response_topics: None,
            output_bytes_max: 256 * 1024,
            route_cache_entries_max: 16_384,
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            create_topic_timeout: Duration::from_secs(5),
            topics: Vec::new(),
            sys_interval: Duration::from_secs(10),
            dead_letter: None,
            sessions: None,
            access: Arc::new(LiveAccess::new(Access::new(
                AccessFile::default(),
                Anonymous::Loopback,
                [0; 32],
            ))),
        }
    }
}

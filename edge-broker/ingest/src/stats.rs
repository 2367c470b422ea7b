//! Counters of the listener. Updated once per read, not per message.

use std::sync::atomic::{AtomicU64, Ordering};

use edge_mqtt::{Close, ReasonCode};

/// Counters since the start. All of them only grow, but for `connections_open`.
#[derive(Debug, Default)]
pub struct IngestStats {
    /// Connections accepted.
    pub connections_accepted: AtomicU64,
    /// Connections open now.
    pub connections_open: AtomicU64,
    /// TLS handshakes and WebSocket requests that failed.
    pub handshakes_failed: AtomicU64,
    /// Connections closed at once because of the limit.
    pub connections_refused: AtomicU64,
    /// Connections closed at once because their address had as many as it may.
    pub connections_refused_address: AtomicU64,
    /// Connections closed at once because their address was banned.
    pub connections_refused_banned: AtomicU64,
    /// Connections closed at once because memory was short.
    pub connections_refused_memory: AtomicU64,
    /// Connections refused because their user or certificate had as many as it may.
    pub connections_refused_identity: AtomicU64,
    /// Times that accepting waited for the accept rate.
    pub accept_waits: AtomicU64,
    /// Addresses banned.
    pub bans: AtomicU64,
    /// Times that a connection was not read because memory was short.
    pub memory_waits: AtomicU64,
    /// Connections ended because they held a part of a packet while memory was short.
    pub memory_shed: AtomicU64,
    /// Connections ended by `client kick`.
    pub kicked: AtomicU64,
    /// PUBLISHes with QoS 0 that passed every check.
    pub publishes_qos0: AtomicU64,
    /// PUBLISHes with QoS 1 that passed every check.
    pub publishes_qos1: AtomicU64,
    /// PUBLISHes with QoS 2 that passed every check, without those that came again.
    pub publishes_qos2: AtomicU64,
    /// Their payload bytes.
    pub payload_bytes: AtomicU64,
    /// Bytes read from clients, as MQTT sees them.
    pub bytes_received: AtomicU64,
    /// Bytes written to clients, as MQTT sees them.
    pub bytes_sent: AtomicU64,
    /// Publishes kept as dead letters.
    pub dead_letters: AtomicU64,
    /// PUBACKs written, and other packets that waited to be durable.
    pub pubacks: AtomicU64,
    /// QoS 0 records that the log could not take (delivered live all the same).
    pub records_dropped: AtomicU64,
    /// Messages handed to subscribers.
    pub deliveries: AtomicU64,
    /// Messages that a subscriber did not get because it was too slow.
    pub deliveries_dropped: AtomicU64,
    /// Messages not delivered because they expired or were larger than the client takes.
    pub deliveries_unfit: AtomicU64,
    /// Messages that were not retained because there was no room.
    pub retained_dropped: AtomicU64,
    /// Hand-overs that waited in their connection because a lane had no room.
    pub lane_waits: AtomicU64,
    /// Connections refused for their credentials.
    pub logins_refused: AtomicU64,
    /// Publishes that no access rule allows.
    pub publishes_denied: AtomicU64,
    /// Subscriptions that no access rule allows.
    pub subscriptions_denied: AtomicU64,
    /// QoS 1 and 2 publishes that were refused because their lane stayed full.
    pub publishes_refused: AtomicU64,
    /// Publishes that can never be stored: without a key, for a compacted topic. With QoS 0 they are among
    /// `records_dropped` as well.
    pub publishes_unstorable: AtomicU64,
    /// Connections ended because their publishes could not be made durable.
    pub store_failures: AtomicU64,
    /// Connections ended by keep-alive, CONNECT deadline or a stuck peer.
    pub timeouts: AtomicU64,
    /// Connections taken over by another with the same client id.
    pub take_overs: AtomicU64,
    /// Connection tasks that panicked: bugs.
    pub panics: AtomicU64,
    /// Connections ended by a violation, by kind.
    pub violations: Violations,
}

/// Connections ended by a violation of the protocol, by kind.
#[derive(Debug, Default)]
pub struct Violations {
    /// Bytes that are not MQTT.
    pub malformed: AtomicU64,
    /// Packets that are not allowed there or then.
    pub protocol_error: AtomicU64,
    /// Larger than allowed.
    pub packet_too_large: AtomicU64,
    /// Topic names, filters and aliases.
    pub topic_invalid: AtomicU64,
    /// Unknown protocol versions, authentication methods.
    pub not_supported: AtomicU64,
    /// Limits of ours: receive maximum, user properties, filters.
    pub quota: AtomicU64,
    /// Everything else.
    pub other: AtomicU64,
}

impl IngestStats {
    /// All of them by name, as `status` shows them.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let violations = &self.violations;
        [
            ("connections_accepted", &self.connections_accepted),
            ("connections_open", &self.connections_open),
            ("handshakes_failed", &self.handshakes_failed),
            ("connections_refused", &self.connections_refused),
            ("connections_refused_address", &self.connections_refused_address),
            ("connections_refused_banned", &self.connections_refused_banned),
            ("connections_refused_memory", &self.connections_refused_memory),
            ("connections_refused_identity", &self.connections_refused_identity),
            ("accept_waits", &self.accept_waits),
            ("bans", &self.bans),
            ("memory_waits", &self.memory_waits),
            ("memory_shed", &self.memory_shed),
            ("kicked", &self.kicked),
            ("publishes_qos0", &self.publishes_qos0),
            ("publishes_qos1", &self.publishes_qos1),
            ("payload_bytes", &self.payload_bytes),
            ("bytes_received", &self.bytes_received),
            ("bytes_sent", &self.bytes_sent),
            ("dead_letters", &self.dead_letters),
            ("pubacks", &self.pubacks),
            ("records_dropped", &self.records_dropped),
            ("deliveries", &self.deliveries),
            ("deliveries_dropped", &self.deliveries_dropped),
            ("deliveries_unfit", &self.deliveries_unfit),
            ("lane_waits", &self.lane_waits),
            ("logins_refused", &self.logins_refused),
            ("publishes_denied", &self.publishes_denied),
            ("subscriptions_denied", &self.subscriptions_denied),
            ("publishes_refused", &self.publishes_refused),
            ("publishes_unstorable", &self.publishes_unstorable),
            ("store_failures", &self.store_failures),
            ("timeouts", &self.timeouts),
            ("take_overs", &self.take_overs),
            ("panics", &self.panics),
            ("violations_malformed", &violations.malformed),
            ("violations_protocol_error", &violations.protocol_error),
            ("violations_packet_too_large", &violations.packet_too_large),
            ("violations_topic_invalid", &violations.topic_invalid),
            ("violations_not_supported", &violations.not_supported),
            ("violations_quota", &violations.quota),
            ("violations_other", &violations.other),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }

    /// Counts the end of a connection.
    pub(crate) fn closed(&self, close: &Close) {
        let counter = match close {
            Close::Violation(violation) => match violation.reason() {
                ReasonCode::MalformedPacket => &self.violations.malformed,
                ReasonCode::ProtocolError => &self.violations.protocol_error,
                ReasonCode::PacketTooLarge => &self.violations.packet_too_large,
                ReasonCode::TopicNameInvalid
                | ReasonCode::TopicFilterInvalid
                | ReasonCode::TopicAliasInvalid => &self.violations.topic_invalid,
                ReasonCode::UnsupportedProtocolVersion | ReasonCode::BadAuthenticationMethod => {
                    &self.violations.not_supported
                }
                ReasonCode::ReceiveMaximumExceeded | ReasonCode::QuotaExceeded => {
                    &self.violations.quota
                }
                _ => &self.violations.other,
            },
            Close::KeepAliveTimeout | Close::ConnectTimeout | Close::StalledPacket => {
                &self.timeouts
            }
            Close::Broker(ReasonCode::SessionTakenOver) => &self.take_overs,
            Close::Broker(ReasonCode::AdministrativeAction) => &self.kicked,
            _ => return,
        };
        count(counter, 1);
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

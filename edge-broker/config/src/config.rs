//! The effective configuration: what every part of the program is given.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use boards::Profile;

use crate::{FlashConfig, Lane, Route, UplinkConfig};

/// Everything, checked and filled in. Made by [`Config::load`](crate::Config::load) only.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of this gateway, unique in its fleet.
    pub gateway: String,
    /// Where the lanes live.
    pub data_dir: PathBuf,
    /// The board profile: memory and connection limits.
    pub board: Profile,
    /// The MQTT listener.
    pub mqtt: MqttConfig,
    /// The Kafka listener.
    pub kafka: KafkaConfig,
    /// Certificates of the encrypted listeners, where there are any.
    pub tls: Option<TlsConfig>,
    /// Users and access rules.
    pub auth: AuthConfig,
    /// In the order they are tried. The last one takes every MQTT topic: nothing falls through.
    pub routes: Vec<Route>,
    /// Every topic that the routes and `[[topic]]` name, once each, in the order they are first named.
    pub topics: Vec<TopicSettings>,
    /// `system` first, then `alarm`, `normal`, `bulk`, then the others as in the file. At most 16.
    pub lanes: Vec<Lane>,
    /// Where to replicate to, if anywhere.
    pub uplink: Option<UplinkConfig>,
    /// The flash that the lanes lie on.
    pub flash: FlashConfig,
    /// The program's own log.
    pub log: LogConfig,
    /// What is legal and probably not meant, one line each.
    pub warnings: Vec<String>,
    /// What follows from the file and is worth knowing, one line each.
    pub notes: Vec<String>,
    /// Where values stand that only a start can prove wrong.
    pub places: Places,
}

/// Where values stand that only a start can prove wrong: `FILE:LINE: KEY = VALUE`, a flag with its value, or the key
/// of a default. For messages.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Of `data_dir`.
    pub data_dir: String,
    /// Of `mqtt.listen`.
    pub mqtt_listen: String,
    /// Of `mqtt.tls_listen`.
    pub mqtt_tls_listen: String,
    /// Of `mqtt.ws_listen`.
    pub mqtt_ws_listen: String,
    /// Of `mqtt.wss_listen`.
    pub mqtt_wss_listen: String,
    /// Of `kafka.listen`.
    pub kafka_listen: String,
}

impl PartialEq for Places {
    /// Two configurations are the same wherever they were written.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Config {
    /// The lane called `name`.
    #[must_use]
    pub fn lane(&self, name: &str) -> Option<&Lane> {
        self.lanes.iter().find(|lane| &*lane.name == name)
    }

    /// The settings of the topic called `name`.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicSettings> {
        self.topics.iter().find(|topic| &*topic.name == name)
    }
}

/// The MQTT listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    /// Where it listens. Port 0: the system chooses.
    pub listen: SocketAddr,
    /// MQTT over TLS.
    pub tls_listen: Option<SocketAddr>,
    /// MQTT over WebSocket.
    pub ws_listen: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS.
    pub wss_listen: Option<SocketAddr>,
    /// Largest packet after CONNECT.
    pub max_packet_bytes: u32,
    /// Connections at one time.
    pub max_connections: u32,
    /// What else clients may cost.
    pub limits: MqttLimits,
    /// How often `$SYS` topics are published while somebody subscribes to them; 0: never.
    pub sys_interval_ms: u64,
    /// The topic for publishes that can never be stored where they belong; none: they end their connection.
    pub dead_letter: Option<Arc<str>>,
    /// A publish of a 3.1 or 3.1.1 client that may not be is acknowledged and thrown away; else the connection ends.
    pub denied_publish_v3_is_acknowledged: bool,
    /// The operator allowed plaintext beyond loopback.
    pub insecure_remote: bool,
}

/// What MQTT clients may cost, beside the size of packets and the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MqttLimits {
    /// Connections of one address, loopback excepted.
    pub connections_per_address: u32,
    /// Connections of one user or certificate.
    pub connections_per_identity: u32,
    /// CONNECT has to be there by then, handshakes included.
    pub connect_deadline_ms: u64,
    /// Connections accepted in a second; 0: as fast as they come.
    pub accept_per_second: u32,
    /// TLS handshakes at one time.
    pub handshakes: u32,
    /// Failures of one address within a minute that ban it; 0: none does.
    pub ban_after: u32,
    /// Longest ban.
    pub ban_ms: u64,
    /// Memory of all connections together.
    pub memory_bytes: u64,
    /// Publishes of one client whose exchange is not over.
    pub receive_maximum: u16,
    /// Subscriptions of one client.
    pub subscriptions: u32,
}

/// Certificates of the encrypted listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Our certificate and what leads from it to a root, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who may sign certificates of clients, PEM; none: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// A client without a certificate is refused.
    pub client_certificate_required: bool,
}

/// Users and access rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// The file that holds them; it need not exist.
    pub file: PathBuf,
    /// Who may connect without a user name or a certificate.
    pub anonymous: Anonymous,
}

/// Who may connect without a user name or a certificate. What it may do then is up to the access rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Clients on this machine.
    Loopback,
    /// Everybody.
    Always,
    /// Nobody.
    Never,
}

impl Anonymous {
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("loopback", Self::Loopback), ("always", Self::Always), ("never", Self::Never)];

    /// As it stands in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// The Kafka listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Where it listens. Port 0: the system chooses.
    pub listen: SocketAddr,
    /// What clients are told to connect to; none: the address they connected to.
    pub advertised: Option<HostPort>,
    /// Whether a topic comes into being when a client asks for it.
    pub auto_create_topics: bool,
    /// Partitions of a topic whose creator does not say.
    pub default_partitions: u32,
    /// The lane of topics whose creator does not say.
    pub default_lane: Arc<str>,
    /// Connections at one time.
    pub max_connections: u32,
    /// Largest request frame.
    pub max_request_bytes: u32,
    /// Largest record batch a producer may send.
    pub max_batch_bytes: u32,
    /// The operator allowed plaintext without a password beyond loopback.
    pub insecure_remote: bool,
}

/// A host name or address with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port, not 0.
    pub port: u16,
}

impl HostPort {
    /// Reads `HOST:PORT` or `[IPV6]:PORT`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || "write HOST:PORT, for example \"kafka-1.example:9092\"".to_owned();
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        match port.parse::<u16>() {
            Ok(port @ 1..) if (1..=253).contains(&host.len()) && host.chars().all(legal) => {
                Ok(Self { host: host.to_owned(), port })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A topic that exists from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Its lane.
    pub lane: Arc<str>,
    /// Partitions, 1 to 1,024.
    pub partitions: u32,
    /// When its records may go.
    pub retention: Retention,
    /// What becomes of old records; none: they go by retention.
    pub cleanup: Option<Cleanup>,
    /// How long a compacted topic keeps the null values that delete keys.
    pub delete_retention_ms: Option<u64>,
    /// Largest record, or batch of a Kafka producer.
    pub max_message_bytes: Option<u32>,
    /// Whose clock stamps records; none: the sender's where it says, else ours.
    pub timestamps: Option<Timestamps>,
    /// How far a Kafka producer's timestamps may be behind our clock.
    pub timestamp_before_max_ms: Option<u64>,
    /// How far a Kafka producer's timestamps may be ahead of our clock.
    pub timestamp_after_max_ms: Option<u64>,
}

/// What becomes of old records of a topic (Kafka's `cleanup.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// They go by age and size.
    Delete,
    /// The last of each key stays.
    Compact,
    /// Both.
    CompactDelete,
}

impl Cleanup {
    pub(crate) const NAMES: [(&str, Self); 3] = [
        ("delete", Self::Delete),
        ("compact", Self::Compact),
        ("compact,delete", Self::CompactDelete),
    ];

    /// As written in the file, which is as Kafka writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        name_of(&Self::NAMES, self)
    }
}

/// Whose clock stamps the records of a topic (Kafka's `message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The sender's where it says, else ours.
    Create,
    /// Ours, when a record is appended.
    Append,
}

impl Timestamps {
    pub(crate) const NAMES: [(&str, Self); 2] =
        [("create", Self::Create), ("append", Self::Append)];

    /// As written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        name_of(&Self::NAMES, self)
    }
}

/// When records of a topic may go, beside the lane's budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// After this time; none: no limit by age.
    pub ms: Option<u64>,
    /// When a partition holds more than this; none: no limit by size.
    pub bytes: Option<u64>,
}

/// The program's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is worth a line.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what may fail soon.
    Warn,
    /// And what happens a few times a day.
    Info,
    /// And what happens with every connection.
    Debug,
    /// And what happens with every record.
    Trace,
}

impl LogFormat {
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("auto", Self::Auto), ("human", Self::Human), ("json", Self::Json)];

    /// As written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        name_of(&Self::NAMES, self)
    }
}

impl LogLevel {
    pub(crate) const NAMES: [(&str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// As written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        name_of(&Self::NAMES, self)
    }
}

pub(crate) fn name_of<T: PartialEq>(names: &'static [(&str, T)], value: T) -> &'static str {
    names
        .iter()
        .find(|(_, known)| *known == value)
        .map(|(name, _)| *name)
        .expect("every variant is in its table")
}

//! Configuration file and routes: parsed once to types that cannot be wrong.
//!
//! Layers, later ones win: defaults, the board profile, the file, the command line ([`Overrides`]). The only I/O is
//! reading the file; what depends on the machine (host name, board, free space) comes in through [`Host`].
//!
//! Every mistake is one line that names the place, the key, the value and the remedy ([`ConfigError`]):
//!
//! ```text
//! /etc/edge-broker.toml:12: lane.normal.budget = "512XB": not a size; write a whole number with KiB, MiB or GiB
//! ```
//!
//! [`Router`] answers which [`Route`] an MQTT topic takes and renders the record's key. It is pure apart from a
//! bounded cache.
//!
//! Limits: file 1 MiB, 1,024 routes, 1,024 topics, 16 lanes, 1,024 partitions a topic.

mod build;
mod config;
mod error;
mod flash;
mod key;
mod lane;
mod names;
mod polish;
mod raw;
mod route;
mod router;
mod show;
mod timestamp;
mod uplink;

pub use boards::{Profile, units};
pub use build::{Host, Overrides};
pub use config::{
    Anonymous, AuthConfig, Cleanup, Config, HostPort, KafkaConfig, LogConfig, LogFormat, LogLevel,
    MqttConfig, MqttLimits, Places, Retention, Timestamps, TlsConfig, TopicSettings,
};
pub use error::{ConfigError, Problem};
pub use flash::{FlashConfig, ReserveConfig};
pub use key::{KeyKind, KeyTemplate, TemplateError};
pub use lane::{Compression, Decay, Durability, Lane, SYSTEM_LANE, SyncAllowance, WhenFull};
pub use names::{NameError, validate_gateway, validate_lane, validate_topic_name};
pub use route::{HeaderSelection, Route, RouteTarget, StoreTarget};
pub use router::{RouteIndex, Router};
pub use timestamp::{TimestampSource, TimestampUnit};
pub use uplink::{UplinkConfig, UpstreamTopic};

//! Replicator from the lanes to a central Kafka cluster, and the Kafka client it uses.
//!
//! Delivery: every durable record once and in the order of its stream, from the gateway's log to the upstream's, as
//! long as the upstream keeps its producer state (`producer.id.expiration.ms`, 1 day by default); beyond that,
//! records whose outcome is not known are sent again, counted and named. Nothing durable is left out without being
//! counted and named.

pub mod client;
pub mod driver;

pub use driver::{
    ENDS_KEY, LaneRead, LaneSource, ProgressStore, ReadLaneError, SaveError, SourceStream, Uplink,
    UplinkConfig, UplinkCounters, UplinkHandle, UplinkObserver, UplinkStatus,
};
pub use uplink_core as core;

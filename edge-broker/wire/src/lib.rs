//! Kafka record batches, compression and partitioning: what the listener, the log and the uplink share.
//!
//! No I/O, no clock, no tokio: bytes in, values out.

pub mod ids;
pub use ids::{LaneId, Offset, PartitionId, ProducerId, StreamId, TopicId};

//! What a lane knows about a stream (one topic partition).

use edge_wire::{Offset, PartitionId, StreamId, TopicId};

/// Who a stream is. Carried in every segment that uses the stream, so that a segment can be read alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamDefinition {
    /// The stream's number in this gateway, given out once.
    pub stream: StreamId,
    /// Topic name, at most 249 bytes (Kafka's limit).
    pub topic: String,
    /// Topic id (KIP-516).
    pub topic_id: TopicId,
    /// Partition of the topic.
    pub partition: PartitionId,
    /// How many partitions the topic had when the stream was defined.
    pub partition_count: u32,
}

/// The range of a stream that can be read: `log_start..durable_end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamBounds {
    /// First offset that may still be read.
    pub log_start: Offset,
    /// First offset that is not yet durable.
    pub durable_end: Offset,
}

/// How long a stream's records are kept, beside the lane's byte budget. `None` = only the budget decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of the stream (uncompressed) to keep at least; older ones fall out of the log.
    pub bytes: Option<u64>,
    /// Age by record timestamp, counted only while the wall clock is trusted.
    pub age_ms: Option<u64>,
    /// Of each key only the newest record is kept, and that for as long as the other two allow.
    pub compaction: Option<Compaction>,
}

/// How a stream is cleaned of records whose key has a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// How long a tombstone (a null value) that is the newest of its key is kept, ms.
    pub tombstone_ms: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        // Kafka's default of delete.retention.ms.
        Self { tombstone_ms: 24 * 3600 * 1000 }
    }
}

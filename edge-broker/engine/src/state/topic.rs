//! A topic: its name, its streams, its configuration.

use edge_log::{Compaction, Retention};
use edge_wire::{PartitionId, StreamId, TopicId};
use serde::{Deserialize, Serialize};

use super::event::TopicRecord;
use super::topic_key::TopicKeys;

/// What to do with old records (Kafka's `cleanup.policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CleanupPolicy {
    /// By age and size.
    #[default]
    Delete,
    /// Keep the last record of each key.
    Compact,
    /// Both.
    CompactDelete,
}

/// Whose clock stamps records (Kafka's `message.timestamp.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// Ours, at the time of append.
    LogAppendTime,
}

/// Settings of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Age in milliseconds after which records may go; `None`: the lane's budget decides alone.
    pub retention_ms: Option<u64>,
    /// Bytes per partition above which the oldest may go; `None`: no limit of its own.
    pub retention_bytes: Option<u64>,
    /// What to do with old records.
    pub cleanup_policy: CleanupPolicy,
    /// How long a compacted topic keeps the null values that delete keys.
    pub delete_retention_ms: u64,
    /// Largest batch, in bytes, compressed as it came.
    pub max_message_bytes: u32,
    /// Whose clock stamps records.
    pub timestamp_type: TimestampType,
    /// How far a producer's timestamps may be behind our clock; `None`: as far as they like.
    pub timestamp_before_max_ms: Option<u64>,
    /// How far a producer's timestamps may be ahead of our clock; `None`: as far as they like.
    pub timestamp_after_max_ms: Option<u64>,
    /// Which settings somebody made, be it to their default.
    pub set: TopicKeys,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention_ms: None,
            retention_bytes: None,
            cleanup_policy: CleanupPolicy::Delete,
            // Kafka's default: a day.
            delete_retention_ms: 86_400_000,
            // Kafka's default of message.max.bytes.
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: None,
            timestamp_after_max_ms: None,
            set: TopicKeys::default(),
        }
    }
}

impl TopicConfig {
    /// What the topic's lane has to know.
    #[must_use]
    pub fn retention(&self) -> Retention {
        let compaction = Compaction { tombstone_ms: self.delete_retention_ms };
        let limits =
            Retention { bytes: self.retention_bytes, age_ms: self.retention_ms, compaction: None };
        match self.cleanup_policy {
            CleanupPolicy::Delete => limits,
            CleanupPolicy::CompactDelete => Retention { compaction: Some(compaction), ..limits },
            CleanupPolicy::Compact => {
                Retention { compaction: Some(compaction), ..Retention::default() }
            }
        }
    }
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Legal Kafka topic name.
    pub name: String,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// Name of the lane; `None`: the engine's default lane.
    pub lane: Option<String>,
    /// Settings.
    pub config: TopicConfig,
}

/// A topic of the catalogue. Immutable: a change makes a new one.
#[derive(Debug)]
pub struct Topic {
    name: String,
    id: TopicId,
    lane: String,
    streams: Box<[StreamId]>,
    config: TopicConfig,
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its id, never reused (KIP-516).
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Name of its lane.
    #[must_use]
    pub fn lane(&self) -> &str {
        &self.lane
    }

    /// The stream of each partition, by partition number.
    #[must_use]
    pub fn streams(&self) -> &[StreamId] {
        &self.streams
    }

    /// The stream of one partition.
    #[must_use]
    pub fn stream(&self, partition: PartitionId) -> Option<StreamId> {
        self.streams.get(partition.0 as usize).copied()
    }

    /// Number of partitions.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.streams.len()).unwrap_or(u32::MAX)
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    pub(crate) fn from_record(record: &TopicRecord) -> Self {
        Self {
            name: record.name.clone(),
            id: TopicId(record.id),
            lane: record.lane.clone(),
            streams: record.streams.iter().copied().map(StreamId).collect(),
            config: record.config.clone(),
        }
    }

    pub(crate) fn to_record(&self) -> TopicRecord {
        TopicRecord {
            name: self.name.clone(),
            id: self.id.0,
            lane: self.lane.clone(),
            streams: self.streams.iter().map(|stream| stream.0).collect(),
            config: self.config.clone(),
        }
    }
}

/// Kafka's rule for topic names: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
#[must_use]
pub fn legal_topic_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 249
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

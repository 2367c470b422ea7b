//! What goes into requests and comes out of answers.

use std::time::Duration;

use bytes::Bytes;
use edge_wire::{Offset, PartitionId, ProducerId, TopicId};

use super::error::BrokerError;

/// A broker's number inside its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i32);

/// What the cluster said about itself.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Brokers that are up.
    pub brokers: Vec<Broker>,
    /// The active controller, or any broker in its place.
    pub controller: Option<NodeId>,
    /// Name of the cluster.
    pub cluster_id: Option<String>,
    /// The topics asked for.
    pub topics: Vec<TopicMetadata>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub node: NodeId,
    /// Host it says it is reached at.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// One topic.
#[derive(Clone, Debug)]
pub struct TopicMetadata {
    /// Name.
    pub name: String,
    /// Id; all zero from brokers that are too old.
    pub topic_id: TopicId,
    /// Kafka's own topic (`__consumer_offsets`).
    pub is_internal: bool,
    /// Why nothing is known about it.
    pub error: Option<BrokerError>,
    /// By partition number, ascending.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionMetadata {
    /// Number.
    pub partition: PartitionId,
    /// Who leads it, if anybody does.
    pub leader: Option<NodeId>,
    /// Brokers that keep a copy.
    pub replicas: Vec<NodeId>,
    /// Brokers whose copy is current.
    pub in_sync: Vec<NodeId>,
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Number of partitions; `None` takes the broker's default.
    pub partitions: Option<u32>,
    /// Copies; `None` takes the broker's default.
    pub replication_factor: Option<u16>,
    /// Configuration, such as `retention.ms`.
    pub configs: Vec<(String, String)>,
}

/// What became of one topic of a `create_topics` or `delete_topics`.
#[derive(Clone, Debug)]
pub struct TopicOutcome {
    /// Name.
    pub name: String,
    /// `Ok`, or the broker's refusal.
    pub result: Result<(), BrokerError>,
}

/// A change to one setting of a topic: its name, and its new value or `None` for the broker's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// Such as `retention.ms`.
    pub name: String,
    /// The value it gets.
    pub value: Option<String>,
}

/// Everything about one topic, for people.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    /// Name.
    pub name: String,
    /// Id.
    pub topic_id: TopicId,
    /// Kafka's own topic.
    pub is_internal: bool,
    /// By number.
    pub partitions: Vec<PartitionDescription>,
    /// Configuration: name and value, in the broker's order; empty where the broker does not tell.
    pub configs: Vec<TopicConfig>,
}

/// One partition, for people.
#[derive(Clone, Debug)]
pub struct PartitionDescription {
    /// Who keeps it.
    pub metadata: PartitionMetadata,
    /// First offset that is kept; `None` while there is no leader.
    pub earliest: Option<Offset>,
    /// One past the last offset; `None` while there is no leader.
    pub latest: Option<Offset>,
}

/// One setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Name.
    pub name: String,
    /// Value; `None` for secrets.
    pub value: Option<String>,
    /// Set on the topic itself, not inherited.
    pub is_set: bool,
}

/// An idempotent producer's identity (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Id.
    pub producer: ProducerId,
    /// Epoch.
    pub epoch: i16,
}

/// When the broker acknowledges a Produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Never: there is no answer.
    None,
    /// When the leader has it.
    Leader,
    /// When all in-sync copies have it. Needed for idempotent producers.
    All,
}

/// One partition's batch in a Produce request.
#[derive(Clone, Debug)]
pub struct PartitionBatch {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: PartitionId,
    /// Exactly one RecordBatch v2, base offset 0.
    pub batch: Bytes,
}

/// The broker's answer for one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceAck {
    /// Offset of the first record; `None` with [`Acks::None`], and for a duplicate whose offset the broker no
    /// longer knows.
    pub base_offset: Option<Offset>,
}

/// The broker's answer for one partition of a request with several.
#[derive(Clone, Debug)]
pub struct PartitionAck {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: PartitionId,
    /// Acknowledged, or refused.
    pub result: Result<ProduceAck, BrokerError>,
}

/// How much a Fetch may bring and how long it may wait.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// How long the broker waits for `min_bytes`.
    pub max_wait: Duration,
    /// Answer at once when this much is there.
    pub min_bytes: u32,
    /// Largest answer; the first batch comes whole even if it is larger.
    pub max_bytes: u32,
}

impl Default for FetchLimits {
    /// 500 ms, 1 byte, 1 MiB: Kafka's own defaults for a partition.
    fn default() -> Self {
        Self { max_wait: Duration::from_millis(500), min_bytes: 1, max_bytes: 1024 * 1024 }
    }
}

/// What a Fetch brought.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// One past the last offset that may be read.
    pub high_watermark: Offset,
    /// First offset that is kept.
    pub log_start: Offset,
    /// Record batches, the last one possibly cut short. Read them with [`RecordStream`](super::RecordStream).
    pub records: Bytes,
}

/// Which offset `list_offsets` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The first that is kept.
    Earliest,
    /// One past the last.
    Latest,
    /// The first whose timestamp (ms since 1970) is this or later.
    Time(i64),
    /// The record with the largest timestamp (ListOffsets v7).
    MaxTimestamp,
}

/// An offset that `list_offsets` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: Offset,
    /// Its record's timestamp in ms, where there is a record.
    pub timestamp_ms: Option<i64>,
}

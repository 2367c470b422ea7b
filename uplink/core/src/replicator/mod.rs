//! The replicator: what to send, what is sent, what to remember.
//!
//! # Contract
//! Like every state machine here: `handle_*` tells it a fact, `poll_*` asks what to do, `now` comes in and never
//! goes back. After any `handle_*`, call [`Replicator::poll_action`] until it yields `None`, and again at
//! [`Replicator::poll_timeout`]. Every [`Action`] but `Released` and `Disconnect` is answered by exactly one
//! `handle_*`; a `Send` that gets no answer is answered with [`Answer::Unknown`].

mod answers;
mod idempotent;
mod parked;
mod plan;
mod poll;
mod resuming;
mod status;
mod target;
mod topics;
mod verdict;

use bytes::Bytes;
use edge_log::JournalPosition;
use edge_wire::{Offset, PartitionId, StreamId};

use crate::backoff::BackoffPolicy;
use crate::naming::TopicTemplate;
use crate::rebatch::RebatchLimits;

pub use idempotent::Replicator;
pub use status::{BlockedTopic, OffsetRange, ReplicatorStatus};

/// The caller's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, microseconds.
    pub mono_us: u64,
    /// Wall clock, milliseconds since 1970; only to correct timestamps that the upstream refuses.
    pub wall_ms: i64,
}

/// Settings.
#[derive(Clone, Debug)]
pub struct ReplicatorConfig {
    /// This gateway's name, for the template.
    pub gateway: String,
    /// Upstream names.
    pub topic: TopicTemplate,
    /// Whether missing topics may be created upstream.
    pub create_topics: bool,
    /// Batches in flight for each upstream partition, 1 to 5.
    pub in_flight_max: usize,
    /// Bytes of unacknowledged batches at which reading stops.
    pub unacked_bytes_max: usize,
    /// Without an acknowledgement for this long, while some are due, the link is given up.
    pub watchdog_us: u64,
    /// Between attempts to reach the upstream.
    pub link_backoff: BackoffPolicy,
    /// When all is quiet, progress is made durable after this long.
    pub progress_flush_us: u64,
    /// How batches are made again when one has to be taken apart.
    pub limits: RebatchLimits,
    /// By lane, how many segments behind the others a stream whose topic is refused keeps its place; lanes that are
    /// not named let it keep its place for ever.
    pub park_segments_max: Vec<u64>,
}

impl ReplicatorConfig {
    fn park_segments_max(&self, lane: usize) -> u64 {
        self.park_segments_max.get(lane).copied().unwrap_or(u64::MAX)
    }
}

impl Default for ReplicatorConfig {
    /// `{topic}`, created where missing, 5 in flight, 2 MiB, 30 s, 1 s.
    fn default() -> Self {
        Self {
            gateway: "gateway".to_owned(),
            topic: TopicTemplate::parse("{topic}").expect("a constant that parses"),
            create_topics: true,
            in_flight_max: target::WINDOW,
            unacked_bytes_max: 2 * 1024 * 1024,
            watchdog_us: 30_000_000,
            link_backoff: BackoffPolicy::LINK,
            progress_flush_us: 1_000_000,
            limits: RebatchLimits::default(),
            park_segments_max: Vec::new(),
        }
    }
}

/// What a stream is, as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Topic on the gateway.
    pub topic: String,
    /// Partition on the gateway.
    pub partition: PartitionId,
    /// Number of partitions on the gateway.
    pub partition_count: u32,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// See that some broker answers; [`Replicator::handle_connected`] or [`Replicator::handle_connect_failed`].
    Connect,
    /// Drop all connections; what is in flight gets [`Answer::Unknown`].
    Disconnect,
    /// Ask for a producer id; [`Replicator::handle_producer`].
    InitProducer,
    /// See that the topic exists upstream; [`Replicator::handle_topic`].
    EnsureTopic {
        /// Name.
        topic: String,
        /// Partitions it should have if it is created.
        partitions: u32,
        /// Whether it may be created.
        create: bool,
    },
    /// Make these bytes durable; [`Replicator::handle_persisted`].
    Persist {
        /// Number of the plan.
        plan: u64,
        /// [`ResumeState`](crate::resume::ResumeState), encoded.
        bytes: Vec<u8>,
    },
    /// Produce this batch with acks = all; [`Replicator::handle_answer`]. Batches for one partition leave in the
    /// order of these actions, on one connection.
    Send {
        /// Number of the send.
        send: u64,
        /// Upstream topic.
        topic: std::sync::Arc<str>,
        /// Upstream partition.
        partition: PartitionId,
        /// The batch.
        batch: Bytes,
    },
    /// Everything in this lane before `through` is upstream, durably known: retention may have it.
    Released {
        /// The lane.
        lane: usize,
        /// The position.
        through: JournalPosition,
    },
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// In the upstream's log.
    Acknowledged,
    /// Refused with this error code.
    Refused {
        /// Kafka's code.
        code: i16,
        /// The code in words.
        reason: String,
    },
    /// No answer: it may or may not be in the upstream's log.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Why a request other than Produce failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Kafka's code, where the broker answered.
    pub code: Option<i16>,
    /// A sentence.
    pub reason: String,
}

/// What the reader of a lane has to do before it reads on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneCommands {
    /// Counts the reads; goes back in with the round.
    pub generation: u64,
    /// Where to read from, where that is not where it stopped.
    pub seek: Option<JournalPosition>,
    /// In order.
    pub commands: Vec<LaneCommand>,
}

/// For the lane's [`Rebatcher`](crate::rebatch::Rebatcher).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneCommand {
    /// [`park`](crate::rebatch::Rebatcher::park).
    Park(StreamId),
    /// [`follow_from`](crate::rebatch::Rebatcher::follow_from).
    FollowFrom(StreamId, Offset),
    /// [`expect_cut`](crate::rebatch::Rebatcher::expect_cut).
    ExpectCut(StreamId, Offset, Offset),
}

impl LaneCommand {
    /// Carries it out.
    pub fn apply(self, rebatcher: &mut crate::rebatch::Rebatcher) {
        match self {
            Self::Park(stream) => rebatcher.park(stream),
            Self::FollowFrom(stream, next) => rebatcher.follow_from(stream, next),
            Self::ExpectCut(stream, first, end) => rebatcher.expect_cut(stream, first, end),
        }
    }
}

/// Index of an upstream topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicIndex(usize);

/// Index of an upstream partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TargetIndex(usize);

//! Lane threads, topic catalogue and durable state: what every listener writes to and reads from.
//!
//! One [`Engine`] per gateway. It owns a thread per lane (`lane_thread.rs`); that thread alone appends,
//! syncs and moves the durable end. Listeners hand over a [`Submission`] and hear of it through its
//! [`Completion`] once it is durable; they read through the lane's
//! [`LaneReader`](edge_log::LaneReader), which never goes past the durable end.
//!
//! What must survive besides records (topics, committed offsets, producer ids, the uplink's progress)
//! is [`state`]: events in the `system` lane, with a checkpoint at the head of each of its segments.
//!
//! **Invariant:** nothing in here knows a socket. Of tokio only `sync` is used.

pub mod clock;
mod device;
mod disk;
mod engine;
mod keeper;
mod lane_handle;
mod lane_thread;
mod lost;
mod open;
mod owner;
mod queue;
mod reserve;
mod scrubber;
pub mod state;
pub mod status;
mod submission;
pub mod tools;
mod wear;

pub use device::{Device, DeviceCount};
pub use disk::{DiskLevel, DiskStatus};
pub use engine::{
    AlterTopicError, CommitOffsetsError, CreateTopicError, DeleteRecordsError, DeleteTopicError,
    Engine, StateError,
};
pub use keeper::FlashSetup;
pub use lane_handle::{Holding, InFlight, LaneHandle, LaneState, Refused, RefusedReason};
pub use lost::{LostLane, StoredEnds};
pub use open::{EngineConfig, EngineOpenError, LaneRetention, LaneSetup, OpenReport};
pub use owner::{EventOwner, LaneEvents};
pub use reserve::ReserveSize;
pub use scrubber::{ScrubSetup, ScrubStatus};
pub use state::{
    CleanupPolicy, CommittedOffset, TimestampType, Topic, TopicConfig, TopicKey, TopicKeys,
    TopicSpec, TopicValueError,
};
pub use submission::{
    AppendResult, Body, Completion, CompletionSink, EVENT_TAGS_FROM, Failure, Outcome,
    ProducedBatch, RecordChunk, RecordEvent, RecordRef, RecordTime, Submission,
};
pub use wear::{PerDay, WearStatus, Written};

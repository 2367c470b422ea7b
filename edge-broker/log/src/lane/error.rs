//! What can go wrong in a lane, one enum per operation.

use std::io;

use edge_wire::{BatchError, Offset, StreamId};
use thiserror::Error;

use crate::position::JournalPosition;

/// Why a lane could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk refused. Damage found on it is not an error.
    #[error("{operation} {path} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path below the data directory.
        path: String,
        /// In the system's words.
        #[source]
        source: io::Error,
    },
    /// A newer program wrote the lane.
    #[error("{path} has format version {found}; this program reads up to {supported}")]
    NewerFormat {
        /// The file.
        path: String,
        /// Version found.
        found: u8,
        /// Newest version known here.
        supported: u8,
    },
}

/// Why something was not appended. Nothing of it is in the pending group.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The stream was not defined or was removed.
    #[error("stream {stream} is not in this lane")]
    UnknownStream {
        /// The stream.
        stream: StreamId,
    },
    /// The pending group has no room: commit and append again.
    #[error("the pending group is full")]
    GroupFull,
    /// It can never be stored in this lane.
    #[error("{bytes} bytes are more than the lane's limit of {max_bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The bytes are not one whole record batch, or one that may not be stored.
    #[error("not a record batch")]
    Malformed {
        /// Why.
        #[from]
        source: BatchError,
    },
    /// Offset deltas of the batch have holes, or it is a control or transactional batch.
    #[error("the batch is {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// A batch of this producer is missing before it (Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("out of order: sequence {expected} is expected")]
    OutOfOrderSequence {
        /// The sequence that would be right.
        expected: i32,
    },
    /// A newer instance of the producer was here (Kafka: INVALID_PRODUCER_EPOCH).
    #[error("the producer is fenced by epoch {current_epoch}")]
    InvalidProducerEpoch {
        /// The epoch that is valid.
        current_epoch: i16,
    },
    /// A write or sync failed before: reopen the lane.
    #[error("the lane is poisoned by a failed write")]
    Poisoned,
}

impl AppendError {
    /// Whether the same append may succeed after a commit.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::GroupFull)
    }
}

/// Why a group did not become durable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The budget is used and nothing may be overwritten. The group is kept: commit again later.
    #[error("the lane is full")]
    Full,
    /// A write or sync failed, now or before. Whether the group is on disk is unknown: no acknowledgement.
    /// Reopen the lane; do not retry.
    #[error("the lane is poisoned: {operation} at {at} failed")]
    Poisoned {
        /// What failed.
        operation: &'static str,
        /// Where.
        at: JournalPosition,
        /// In the system's words; absent if it failed in an earlier call.
        #[source]
        source: Option<io::Error>,
    },
    /// A clean end was asked for while a group is pending. Commit it first.
    #[error("a group is pending: the stop is not clean")]
    Pending,
    /// The owner's state does not fit into the head of a segment. The group is kept.
    #[error("a checkpoint of {bytes} bytes does not fit; at most {max_bytes}")]
    CheckpointTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
}

impl CommitError {
    /// Whether the same commit may succeed later without reopening.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Full)
    }
}

/// Why there is no room for a group: the lane's own budget, or the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FullCause {
    /// The budget is used and nothing of it may be given up yet.
    #[error(
        "the lane is full: {} of {} used, and nothing of it may be given up yet",
        MiB(*used_bytes),
        MiB(*budget_bytes)
    )]
    Budget {
        /// Of all segments.
        used_bytes: u64,
        /// What they may have.
        budget_bytes: u64,
    },
    /// The file system has no room for the next segment.
    #[error(
        "the disk is full: {} free, {} needed for the next segment and what is kept free; make room on the disk of the \
         data directory (the lane has {} of its budget of {})",
        MiB(*free_bytes),
        MiB(*needed_bytes),
        MiB(*used_bytes),
        MiB(*budget_bytes)
    )]
    Disk {
        /// What is free.
        free_bytes: u64,
        /// What would be enough.
        needed_bytes: u64,
        /// Of all segments.
        used_bytes: u64,
        /// What they may have.
        budget_bytes: u64,
    },
}

/// Bytes as people read them.
struct MiB(u64);

impl std::fmt::Display for MiB {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} MiB", self.0 as f64 / f64::from(1 << 20))
    }
}

/// Why the log start did not move.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogStartError {
    /// The lane has no such stream.
    #[error("stream {stream} is not in this lane")]
    UnknownStream {
        /// The stream.
        stream: StreamId,
    },
    /// Beyond what is durable.
    #[error("offset {offset} is beyond the durable end {durable_end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// First offset that is not durable.
        durable_end: Offset,
    },
}

/// Why maintenance stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MaintainError {
    /// The disk refused; the lane still works with what it has. Try again later.
    #[error("{operation} {path} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path below the data directory.
        path: String,
        /// In the system's words.
        #[source]
        source: io::Error,
    },
    /// Writing a seal failed and poisoned the lane.
    #[error("a housekeeping frame could not be written")]
    Journal {
        /// Why.
        #[from]
        source: CommitError,
    },
}

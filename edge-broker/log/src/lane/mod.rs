//! A lane: appends, commits, maintains. Owned by one thread.

mod error;

use std::sync::Arc;

use edge_wire::{Envelope, Offset, StreamId};

pub use error::{AppendError, CommitError, LogStartError, MaintainError, OpenError};

use crate::clock::ClockReading;
use crate::committer::CommitDecision;
use crate::config::LaneConfig;
use crate::position::JournalPosition;
use crate::reader::LaneReader;
use crate::recovered::Recovery;
use crate::storage::Storage;
use crate::stream::{Retention, StreamDefinition};

/// An envelope of the pending group. Valid until the next successful commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeRef(pub(crate) u32);

/// What became of a producer's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the pending group.
    New {
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// It is in the log, or in the pending group, already.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
    },
}

/// A successful commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Where the group stands. Equal to `end` if nothing was pending.
    pub position: JournalPosition,
    /// The durable end of the journal.
    pub end: JournalPosition,
    /// Records made durable.
    pub records: u32,
    /// Bytes written, padding and a new segment's head included.
    pub written_bytes: u32,
}

/// The owner of a lane's durable state beside the records: the engine.
pub trait SegmentOwner {
    /// Appends the owner's state as of all groups before this segment to `out`. The events of the pending
    /// group are written after it and come back from recovery as events: leave them out, or make them
    /// harmless to apply twice.
    fn checkpoint(&mut self, out: &mut Vec<u8>);
}

impl SegmentOwner for () {
    fn checkpoint(&mut self, _out: &mut Vec<u8>) {}
}

/// A lane. One thread owns it; readers come from [`Lane::reader`].
pub struct Lane {}

impl Lane {
    /// Opens a lane, creating it if its directory holds none, and recovers it.
    ///
    /// # Errors
    /// The directory cannot be read or written. Damage is no error: it is told in [`Recovery`].
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &str,
        config: LaneConfig,
        clock: &ClockReading,
    ) -> Result<(Self, Recovery), OpenError> {
        let _ = (storage, dir, config, clock);
        todo!()
    }
    /// Recovers without writing anything: for a look at a stopped gateway.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn inspect(storage: &dyn Storage, dir: &str) -> Result<Recovery, OpenError> {
        let _ = (storage, dir);
        todo!()
    }
    /// Makes a stream known. Idempotent; written at its first use in each segment.
    pub fn define_stream(&mut self, definition: StreamDefinition) {
        let _ = definition;
        todo!()
    }
    /// Forgets a stream: its topic was deleted. Told by the next group.
    pub fn remove_stream(&mut self, stream: StreamId) {
        let _ = stream;
        todo!()
    }
    /// Moves the log start forward (DeleteRecords); told by the next group. Returns the log start now.
    ///
    /// # Errors
    /// The stream is unknown or the offset beyond its durable end.
    pub fn set_log_start(
        &mut self,
        stream: StreamId,
        offset: Offset,
    ) -> Result<Offset, LogStartError> {
        let _ = (stream, offset);
        todo!()
    }
    /// Sets how long a stream's records are kept. Not kept in the journal: told again after every open.
    pub fn set_retention(&mut self, stream: StreamId, retention: Retention) {
        let _ = (stream, retention);
        todo!()
    }
    /// Registers an envelope for the pending group; the same `Arc` gives the same reference.
    pub fn envelope(&mut self, envelope: &Arc<Envelope>) -> EnvelopeRef {
        let _ = envelope;
        todo!()
    }
    /// Appends one record to the pending group.
    ///
    /// # Errors
    /// See [`AppendError`]; `GroupFull` is cured by a commit.
    pub fn append_record(
        &mut self,
        stream: StreamId,
        envelope: EnvelopeRef,
        timestamp_ms: i64,
        value: Option<&[u8]>,
    ) -> Result<Offset, AppendError> {
        let _ = (stream, envelope, timestamp_ms, value);
        todo!()
    }
    /// Appends one verified RecordBatch v2 of a producer to the pending group.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_batch(
        &mut self,
        stream: StreamId,
        batch: &[u8],
    ) -> Result<Appended, AppendError> {
        let _ = (stream, batch);
        todo!()
    }
    /// Appends an event of the owner, durable with the group.
    ///
    /// # Errors
    /// `TooLarge` or `GroupFull`.
    pub fn append_event(&mut self, tag: u16, bytes: &[u8]) -> Result<(), AppendError> {
        let _ = (tag, bytes);
        todo!()
    }
    /// Uncompressed bytes in the pending group.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        todo!()
    }
    /// Whether the pending group has reached its size: commit before appending more.
    #[must_use]
    pub fn is_group_full(&self) -> bool {
        todo!()
    }
    /// What to do about the pending group.
    #[must_use]
    pub fn poll_commit(&self, now_us: u64) -> CommitDecision {
        let _ = now_us;
        todo!()
    }
    /// Tells how long the last commit's write and sync took, by the caller's clock: the window adapts to it.
    pub fn handle_sync_latency(&mut self, took_us: u64) {
        let _ = took_us;
    }
    /// Makes the pending group durable: one write, one sync. On `Ok` the durable ends have moved.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(
        &mut self,
        clock: &ClockReading,
        now_us: u64,
        owner: &mut dyn SegmentOwner,
    ) -> Result<Commit, CommitError> {
        let _ = (clock, now_us, owner);
        todo!()
    }
    /// Everything before `through` is upstream.
    pub fn handle_upstream(&mut self, through: JournalPosition) {
        let _ = through;
        todo!()
    }
    /// Work off the path of acknowledgements, a bounded piece a call. `true` = there is more.
    ///
    /// # Errors
    /// The disk failed. A failed journal write poisons the lane; anything else is tried again later.
    pub fn maintain(&mut self, clock: &ClockReading, now_us: u64) -> Result<bool, MaintainError> {
        let _ = (clock, now_us);
        todo!()
    }
    /// Proves the last group. `clean` makes it the clean-shutdown marker: nothing may be pending.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn seal(&mut self, clock: &ClockReading, clean: bool) -> Result<(), CommitError> {
        let _ = (clock, clean);
        todo!()
    }
    /// A reader.
    #[must_use]
    pub fn reader(&self) -> LaneReader {
        todo!()
    }
}

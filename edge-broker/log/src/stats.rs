//! Counters and state of a lane, for `status` and metrics.

use crate::committer::CommitPace;
use crate::storage::IoMode;

/// What a lane can do at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LaneState {
    /// Takes data.
    #[default]
    Open,
    /// The budget is used and nothing may be overwritten yet: the pending group waits.
    Full,
    /// A write or sync failed: only [`Lane::open`](crate::Lane::open) helps.
    Poisoned,
}

/// Counters since the lane was created (they are kept in its checkpoints) and its state now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Bytes of values, as appended (of producer batches: their records section as stored).
    pub payload_bytes: u64,
    /// Bytes written to the journal: headers, padding and housekeeping included.
    pub journal_bytes: u64,
    /// Bytes written beside the journal: zeroing of new segments, side indexes.
    pub other_bytes: u64,
    /// Successful syncs of the journal.
    pub syncs: u64,
    /// Frames written.
    pub groups: u64,
    /// Records made durable.
    pub records: u64,
    /// Segment files in use, in bytes.
    pub used_bytes: u64,
    /// The lane's byte budget.
    pub budget_bytes: u64,
    /// Segments that were recycled.
    pub segments_recycled: u64,
    /// Records that were dropped before they were upstream.
    pub dropped_records: u64,
    /// Records lost to damage.
    pub lost_records: u64,
    /// What the lane can do.
    pub state: LaneState,
    /// How writes reach the device.
    pub io_mode: Option<IoMode>,
    /// How commits are paced, as of the last one.
    pub pace: CommitPace,
}

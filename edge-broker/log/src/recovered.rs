//! What opening a lane found out, for the caller.

use edge_wire::Offset;

use crate::clock::{BootClocks, ClockReading};
use crate::gap::Gap;
use crate::position::JournalPosition;
use crate::stats::LaneStats;
use crate::storage::IoMode;
use crate::stream::StreamDefinition;

/// One stream as found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredStream {
    /// Who it is.
    pub definition: StreamDefinition,
    /// First offset that can be read.
    pub log_start: Offset,
    /// First offset that is not durable: the next to be given out.
    pub durable_end: Offset,
}

/// Bytes at the end of the journal that no acknowledgement can have covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where the journal ends now.
    pub at: JournalPosition,
}

/// A damaged, unproven last group: a torn write, or rot of a group that was acknowledged. Nobody can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectTail {
    /// Where it is.
    pub at: JournalPosition,
    /// Number of records it held, as far as its header tells.
    pub records: u32,
}

/// What [`Lane::open`](crate::Lane::open) found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// All streams of the lane.
    pub streams: Vec<RecoveredStream>,
    /// The owner's state as of the head of the newest readable segment.
    pub owner_checkpoint: Option<Vec<u8>>,
    /// The owner's events after that checkpoint, in order.
    pub events: Vec<(u16, Vec<u8>)>,
    /// Groups after that checkpoint that cannot be read: their events, if they had any, are missing.
    pub lost_groups: u64,
    /// The last stop was clean.
    pub clean_shutdown: bool,
    /// Where a torn write was cut off, if there was one.
    pub torn_tail: Option<TornTail>,
    /// A last group that is damaged, if there is one.
    pub suspect_tail: Option<SuspectTail>,
    /// All gaps known, old and new.
    pub gaps: Vec<Gap>,
    /// How writes reach the device.
    pub io_mode: Option<IoMode>,
    /// Bytes read to find all this out.
    pub scanned_bytes: u64,
    /// Bytes of them that could not be read and count as damaged; the same bytes may be counted more than once.
    pub unreadable_bytes: u64,
    /// Where the journal starts.
    pub start: JournalPosition,
    /// Where the journal ends.
    pub end: JournalPosition,
    /// Where the owner had said with `handle_upstream` that everything before is upstream, when the newest
    /// segment began.
    pub upstream: JournalPosition,
    /// When boots really began, as far as frames and segments tell that were written with the clock set.
    pub boot_clocks: BootClocks,
    /// The clock as of the last intact frame that was read.
    pub last_clock: Option<ClockReading>,
    /// Bytes of all segment files.
    pub used_bytes: u64,
    /// Counters since the lane was created, as far as the journal has them.
    pub stats: LaneStats,
}

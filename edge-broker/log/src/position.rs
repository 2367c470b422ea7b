//! A place in a lane's journal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a lane's journal: where a frame starts, or where the journal ends.
///
/// Positions order as the journal does. They stay valid across restarts; a segment that was recycled takes
/// its positions with it, and sequences are never used again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct JournalPosition {
    /// Sequence of the segment, from 1. 0 stands before everything.
    pub segment: u64,
    /// Byte inside the segment file.
    pub byte: u32,
}

impl JournalPosition {
    /// Before everything: where a reader that has seen nothing yet begins.
    pub const START: Self = Self { segment: 0, byte: 0 };

    /// The position as one number that orders the same way, for atomics.
    ///
    /// Segment sequences fit in 32 bits: at one 64 KiB segment a millisecond that is 50 days of nothing
    /// but rolling, 281 TB; the writer refuses to go further.
    pub(crate) fn pack(self) -> u64 {
        debug_assert!(self.segment <= u64::from(u32::MAX));
        (self.segment << 32) | u64::from(self.byte)
    }

    /// The inverse of [`JournalPosition::pack`].
    pub(crate) fn unpack(packed: u64) -> Self {
        Self { segment: packed >> 32, byte: (packed & 0xffff_ffff) as u32 }
    }
}

impl fmt::Display for JournalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.byte)
    }
}

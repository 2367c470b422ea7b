//! What was lost, why, told once and for ever.

use edge_wire::{Offset, StreamId};

use crate::position::JournalPosition;

/// Why a range of offsets cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// Bytes that had been synced came back damaged.
    Rot,
    /// The last group before an unclean stop was damaged: it may or may not have been acknowledged. Its
    /// offsets are not given out again.
    SuspectTail,
    /// The lane was full, its policy is to drop the oldest, and the range was not yet upstream.
    DroppedOldest,
    /// A reason that a newer program wrote; the code is kept.
    Other(u8),
}

/// A range of offsets `from..to` of one stream that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: StreamId,
    /// First offset lost.
    pub from: Offset,
    /// First offset after the loss.
    pub to: Offset,
    /// Why.
    pub reason: GapReason,
    /// Where in the journal the loss happened, as near as is known.
    pub at: JournalPosition,
    /// Wall clock when the loss was found, microseconds since 1970.
    pub wall_us: i64,
}

impl GapReason {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Rot => 1,
            Self::SuspectTail => 2,
            Self::DroppedOldest => 3,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Rot,
            2 => Self::SuspectTail,
            3 => Self::DroppedOldest,
            code => Self::Other(code),
        }
    }
}

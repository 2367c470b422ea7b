//! What was lost, why, told once and for ever.

use edge_wire::{Offset, StreamId};

use crate::journal::format::GAPS_MAX;
use crate::position::JournalPosition;

/// Why a range of offsets cannot be read, or not all of it.
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
    /// The lane thinned old records instead of dropping them: every so many-th of each key is left.
    Thinned {
        /// One of so many is left.
        keep_every: u32,
    },
    /// The lane thinned old records instead of dropping them: one aggregate is left of each key and time.
    Aggregated {
        /// How much time one aggregate covers.
        seconds: u32,
    },
    /// The lane's directory was gone: nothing of what it held is left.
    LaneLost,
    /// A reason that a newer program wrote; the code is kept.
    Other(u8),
}

/// In words, for people and reports.
impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rot => f.write_str("rot"),
            Self::SuspectTail => f.write_str("suspect tail"),
            Self::DroppedOldest => f.write_str("dropped oldest"),
            Self::Thinned { keep_every } => write!(f, "thinned to every {keep_every}th of a key"),
            Self::Aggregated { seconds } => write!(f, "aggregated over {seconds} s"),
            Self::LaneLost => f.write_str("lane lost"),
            Self::Other(code) => write!(f, "reason {code} of a newer program"),
        }
    }
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
    /// A rule of the lane asked for it (thinning, dropping what it has no room for). Everything else is damage.
    #[must_use]
    pub fn is_policy(self) -> bool {
        self == Self::DroppedOldest || self.is_thinning()
    }

    /// Records were thinned: part of the range is still there.
    #[must_use]
    pub fn is_thinning(self) -> bool {
        matches!(self, Self::Thinned { .. } | Self::Aggregated { .. })
    }

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Rot => 1,
            Self::SuspectTail => 2,
            Self::DroppedOldest => 3,
            Self::Thinned { .. } => 4,
            Self::Aggregated { .. } => 5,
            Self::LaneLost => 6,
            Self::Other(code) => code,
        }
    }

    /// The number that goes with some reasons.
    pub(crate) fn parameter(self) -> Option<u32> {
        match self {
            Self::Thinned { keep_every } => Some(keep_every),
            Self::Aggregated { seconds } => Some(seconds),
            _ => None,
        }
    }

    /// The reason with its number, or 0 in the place of a number that is not known yet.
    pub(crate) fn with_parameter(self, parameter: u32) -> Self {
        match self {
            Self::Thinned { .. } => Self::Thinned { keep_every: parameter },
            Self::Aggregated { .. } => Self::Aggregated { seconds: parameter },
            other => other,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            4 => Self::Thinned { keep_every: 0 },
            5 => Self::Aggregated { seconds: 0 },
            1 => Self::Rot,
            2 => Self::SuspectTail,
            3 => Self::DroppedOldest,
            6 => Self::LaneLost,
            code => Self::Other(code),
        }
    }
}

/// The gaps that are known, by the order in which they were told.
///
/// Bounded: of more than [`GAPS_MAX`] the oldest are forgotten here; the journal has them until it is recycled.
#[derive(Clone, Debug, Default)]
pub(crate) struct GapList {
    gaps: Vec<Gap>,
}

impl GapList {
    pub(crate) fn as_slice(&self) -> &[Gap] {
        &self.gaps
    }

    /// Adds a gap. One that continues a gap of the same kind extends it; what is known already is left out.
    pub(crate) fn add(&mut self, gap: Gap) {
        for (from, to) in self.untold(gap.stream, gap.from, gap.to) {
            self.push(Gap { from, to, ..gap });
        }
    }

    fn push(&mut self, gap: Gap) {
        let same = |known: &&mut Gap| {
            known.stream == gap.stream && known.reason == gap.reason && known.to == gap.from
        };
        if let Some(known) = self.gaps.iter_mut().find(same) {
            known.to = gap.to;
            return;
        }
        if self.gaps.len() >= GAPS_MAX {
            self.gaps.remove(0);
        }
        self.gaps.push(gap);
    }

    /// The parts of a range that no known gap covers.
    pub(crate) fn untold(
        &self,
        stream: StreamId,
        from: Offset,
        to: Offset,
    ) -> Vec<(Offset, Offset)> {
        let mut parts = if from < to { vec![(from, to)] } else { Vec::new() };
        for known in self.gaps.iter().filter(|known| known.stream == stream) {
            parts = parts
                .into_iter()
                .flat_map(|(from, to)| [(from, to.min(known.from)), (from.max(known.to), to)])
                .filter(|(from, to)| from < to)
                .collect();
        }
        parts
    }

    /// Forgets the gaps of a stream.
    pub(crate) fn forget(&mut self, stream: StreamId) {
        self.gaps.retain(|gap| gap.stream != stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from: u64, to: u64) -> Gap {
        Gap {
            stream: StreamId(1),
            from: Offset(from),
            to: Offset(to),
            reason: GapReason::Rot,
            at: JournalPosition::START,
            wall_us: 0,
        }
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut list = GapList::default();
        list.add(gap(10, 20));
        list.add(gap(30, 40));
        list.add(gap(5, 35));
        let mut told: Vec<_> = list.as_slice().iter().map(|gap| (gap.from.0, gap.to.0)).collect();
        told.sort_unstable();
        let covered: u64 = told.iter().map(|(from, to)| to - from).sum();
        assert_eq!(covered, 35);
        assert_eq!(
            list.untold(StreamId(1), Offset(0), Offset(50)),
            [(Offset(0), Offset(5)), (Offset(40), Offset(50)),]
        );
        assert_eq!(list.untold(StreamId(2), Offset(0), Offset(1)).len(), 1);
    }

    #[test]
    fn an_empty_range_needs_no_telling() {
        assert!(GapList::default().untold(StreamId(1), Offset(5), Offset(5)).is_empty());
    }

    #[test]
    fn the_gaps_of_a_removed_stream_are_forgotten_and_no_others() {
        let mut list = GapList::default();
        list.add(gap(10, 20));
        list.add(Gap { stream: StreamId(2), ..gap(10, 20) });
        list.forget(StreamId(1));
        assert_eq!(list.as_slice(), [Gap { stream: StreamId(2), ..gap(10, 20) }]);
    }

    #[test]
    fn reasons_come_back_from_the_disk_as_they_were() {
        for (reason, byte, parameter) in [
            (GapReason::Rot, 1, None),
            (GapReason::SuspectTail, 2, None),
            (GapReason::DroppedOldest, 3, None),
            (GapReason::Thinned { keep_every: 7 }, 4, Some(7)),
            (GapReason::Aggregated { seconds: 60 }, 5, Some(60)),
            (GapReason::LaneLost, 6, None),
            (GapReason::Other(99), 99, None),
        ] {
            assert_eq!((reason.to_byte(), reason.parameter()), (byte, parameter));
            let read = GapReason::from_byte(byte);
            assert_eq!(read.with_parameter(parameter.unwrap_or(0)), reason);
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let mut list = GapList::default();
        for index in 0..GAPS_MAX as u64 + 50 {
            list.add(gap(index * 10, index * 10 + 1));
        }
        assert_eq!(list.as_slice().len(), GAPS_MAX);
    }
}

//! Where a stream's offsets are in the journal: sparse, in memory for the open segment, in a side file for sealed
//! ones.
//!
//! Limits: at most [`ENTRIES_MAX`] places of a stream in a segment, 128 bytes resident a stream; side files are
//! loaded on demand and at most [`RESIDENT_BYTES_MAX`] of them stay. Losing a side file makes a lookup slower,
//! never wrong: it is made anew by reading the segment.

pub(crate) mod hints;
pub(crate) mod rebuild;
pub(crate) mod side;

use edge_wire::Offset;

/// Most places of one stream in one segment.
pub(crate) const ENTRIES_MAX: usize = 8;
/// Most bytes of side indexes in memory, for a lane.
pub(crate) const RESIDENT_BYTES_MAX: usize = 1 << 20;

/// A stream's places in the segment that it was written to last.
///
/// What every commit needs stands in front: with thousands of streams it is far away.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct TailIndex {
    /// The segment; 0 before the first record.
    pub(crate) segment: u64,
    /// Highest timestamp in that segment, ms.
    pub(crate) segment_max_ms: i64,
    /// Bytes of records in that segment, unpacked.
    pub(crate) segment_bytes: u64,
    /// The record with the highest timestamp of all.
    pub(crate) newest: Option<(Offset, i64)>,
    /// Where the next entry may stand at the earliest.
    next_byte: u32,
    len: u8,
    /// Something in that segment was stamped by us before the clock was set: it may turn out to be later.
    pub(crate) segment_unvouched: bool,
    /// The same of what came since `newest`, itself included.
    pub(crate) newest_unvouched: bool,
    /// The stream's first offset in that segment.
    pub(crate) head: Offset,
    /// Offset minus head, byte of the group.
    entries: [(u32, u32); ENTRIES_MAX],
}

const _: () = assert!(size_of::<TailIndex>() + 2 * size_of::<u64>() <= 144);

impl Default for TailIndex {
    fn default() -> Self {
        Self {
            segment: 0,
            head: Offset(0),
            segment_max_ms: i64::MIN,
            segment_bytes: 0,
            newest: None,
            entries: [(0, 0); ENTRIES_MAX],
            len: 0,
            segment_unvouched: false,
            newest_unvouched: false,
            next_byte: 0,
        }
    }
}

impl TailIndex {
    /// No places yet, but the newest record is known.
    pub(crate) fn with_newest(newest: Option<(Offset, i64)>) -> Self {
        Self { newest, ..Self::default() }
    }

    /// Begins a segment.
    pub(crate) fn begin(&mut self, segment: u64, head: Offset) {
        self.segment = segment;
        self.head = head;
        self.segment_max_ms = i64::MIN;
        self.segment_bytes = 0;
        self.segment_unvouched = false;
        self.len = 0;
        self.next_byte = 0;
    }

    /// Notes that the group at `byte` holds the stream from `base` on.
    pub(crate) fn note(&mut self, base: Offset, byte: u32) {
        if byte < self.next_byte {
            return;
        }
        let Ok(delta) = u32::try_from(base.0.saturating_sub(self.head.0)) else { return };
        if usize::from(self.len) == ENTRIES_MAX {
            self.thin();
            return self.note(base, byte);
        }
        self.next_byte = byte.saturating_add(self.spacing_bytes());
        self.entries[usize::from(self.len)] = (delta, byte);
        self.len += 1;
    }

    /// Least distance in bytes between two entries.
    fn spacing_bytes(&self) -> u32 {
        self.entries().last().map_or(0, |(_, last)| self.next_byte.saturating_sub(*last))
    }

    /// Notes what else is kept of a batch.
    pub(crate) fn note_batch(
        &mut self,
        last: Offset,
        max_timestamp_ms: i64,
        unvouched: bool,
        bytes: usize,
    ) {
        self.segment_unvouched |= unvouched;
        self.newest_unvouched |= unvouched;
        self.segment_max_ms = self.segment_max_ms.max(max_timestamp_ms);
        self.segment_bytes += bytes as u64;
        if self.newest.is_none_or(|(_, newest_ms)| max_timestamp_ms > newest_ms) {
            self.newest = Some((last, max_timestamp_ms));
            self.newest_unvouched = unvouched;
        }
    }

    /// Keeps every second entry and asks for twice the distance.
    fn thin(&mut self) {
        let span = self.entries[ENTRIES_MAX - 1].1 - self.entries[0].1;
        let doubled = self.spacing_bytes().saturating_mul(2);
        for index in 0..ENTRIES_MAX / 2 {
            self.entries[index] = self.entries[index * 2];
        }
        self.len = (ENTRIES_MAX / 2) as u8;
        let spacing_bytes = (span / (ENTRIES_MAX as u32 / 2)).max(doubled).max(1);
        let last = self.entries[ENTRIES_MAX / 2 - 1].1;
        self.next_byte = last.saturating_add(spacing_bytes);
    }

    /// The places, in order.
    pub(crate) fn entries(&self) -> &[(u32, u32)] {
        &self.entries[..usize::from(self.len)]
    }

    /// The byte of the last known group that begins at or before `from`, if the stream was there already.
    pub(crate) fn floor(&self, from: Offset) -> Option<u32> {
        let delta = from.0.checked_sub(self.head.0)?;
        floor(self.entries(), delta)
    }
}

/// The byte of the last entry at or below `delta`.
pub(crate) fn floor(entries: &[(u32, u32)], delta: u64) -> Option<u32> {
    let count = entries.partition_point(|(at, _)| u64::from(*at) <= delta);
    count.checked_sub(1).map(|index| entries[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_never_behind_what_is_looked_for() {
        let mut index = TailIndex::default();
        index.begin(1, Offset(1000));
        let places: Vec<(u64, u32)> =
            (0..500).map(|i| (1000 + i * 3, 512 + (i as u32) * 1024)).collect();
        for (base, byte) in &places {
            index.note(Offset(*base), *byte);
        }
        assert_eq!(index.floor(Offset(999)), None);
        for (base, byte) in &places {
            let found = index.floor(Offset(*base)).unwrap();
            assert!(found <= *byte);
            assert!(byte - found <= 500 * 1024 / 3, "the index is still dense enough");
        }
    }
}

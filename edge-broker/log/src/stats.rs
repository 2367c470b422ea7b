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

/// What many cards write at once inside, whatever they are told to write.
const CARD_PAGE_BYTES: u64 = 16 << 10;

/// Counters since the lane was created (they are kept in its checkpoints) and its state now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Bytes of values, as appended (of producer batches: their records section as stored).
    pub payload_bytes: u64,
    /// Bytes written to the journal: headers, padding and housekeeping included.
    pub journal_bytes: u64,
    /// Bytes written beside the journal: zeroing of new segments, side indexes.
    pub other_bytes: u64,
    /// Bytes of the journal that only fill frames up to whole sectors, since the lane was opened.
    pub padding_bytes: u64,
    /// All writes since the lane was opened, each rounded up to the card pages it touches.
    pub page_bytes: u64,
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
    /// Bytes that readers had read from segment files since the lane was opened.
    pub read_bytes: u64,
    /// Bytes that groups had when readers had unpacked them, since the lane was opened.
    pub decoded_bytes: u64,
    /// Groups that readers unpacked, since the lane was opened.
    pub decoded_groups: u64,
    /// Groups that readers passed over without unpacking them, since the lane was opened.
    pub skipped_groups: u64,
    /// Records that were copied forward out of segments that had to go, each time counted.
    pub copied_records: u64,
    /// Bytes written to the journal for them.
    pub copied_bytes: u64,
    /// Records that cleaning left out: a newer one has their key, or they were tombstones whose time was over.
    pub compacted_records: u64,
    /// Records that thinning left out.
    pub thinned_records: u64,
    /// What the lane can do.
    pub state: LaneState,
    /// How writes reach the device.
    pub io_mode: Option<IoMode>,
    /// How commits are paced, as of the last one.
    pub pace: CommitPace,
}

impl LaneStats {
    /// Counts a write beside the journal.
    pub(crate) fn add_other(&mut self, position: u64, bytes: u64) {
        self.other_bytes += bytes;
        self.add_pages(position, bytes);
    }

    /// Counts the card pages that a write touches.
    pub(crate) fn add_pages(&mut self, position: u64, bytes: u64) {
        let first = position / CARD_PAGE_BYTES;
        let end = (position + bytes).div_ceil(CARD_PAGE_BYTES);
        self.page_bytes += (end - first) * CARD_PAGE_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_every_card_page_it_touches() {
        let pages = |position, bytes| {
            let mut stats = LaneStats::default();
            stats.add_pages(position, bytes);
            stats.page_bytes / CARD_PAGE_BYTES
        };
        assert_eq!([pages(0, 512), pages(512, 15_872), pages(0, 16_384)], [1, 1, 1]);
        assert_eq!([pages(16_384 - 512, 1_024), pages(0, 16_385), pages(512, 32_768)], [2, 2, 3]);
    }
}

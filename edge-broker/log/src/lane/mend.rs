//! What tools do with a lane that no gateway runs on: read it without writing, and bring it to rest after damage.

use std::sync::Arc;

use super::open::{report, take_segments};
use super::writer::Writer;
use super::{CommitError, Lane, OpenError, SegmentOwner};
use crate::clock::ClockReading;
use crate::position::JournalPosition;
use crate::reader::LaneReader;
use crate::recovered::Recovery;
use crate::recovery::recover;
use crate::shared::{Shared, StreamShared};
use crate::storage::Storage;

impl Lane {
    /// A reader of a lane that nobody writes to, on a read-only file system too. It sees what recovery found, and what
    /// a reader of the running gateway would see; [`LaneReader::set_boot_clocks`] adds what the system lane knows.
    ///
    /// Beside a running gateway it sees the lane as it was at this moment; segments that are recycled later read as
    /// holes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn view(
        storage: Arc<dyn Storage>,
        dir: &str,
        decoded_cache_bytes: usize,
    ) -> Result<(LaneReader, Recovery), OpenError> {
        let state = recover(&*storage, dir, false, 0)?;
        let recovery = report(&state);
        let shared = Arc::new(Shared::new(storage, dir, decoded_cache_bytes));
        take_segments(&state, None, &shared, &mut Writer::new());
        *shared.gaps() = state.gaps;
        *shared.copies() = state.copies;
        shared.set_clocks(state.boot_clocks);
        for (stream, found) in state.streams {
            let seen = StreamShared::new(found.log_start, found.next, found.tail);
            seen.raise_home(found.home);
            shared.add_stream(stream, Arc::new(seen));
        }
        Ok((LaneReader::new(shared), recovery))
    }

    /// Something is damaged here: [`Lane::maintain`] names what is lost in this segment.
    pub fn note_damage(&self, at: JournalPosition) {
        self.shared.note_damage(at);
    }

    /// Side indexes that are missing or damaged are written by [`Lane::maintain`].
    pub fn renew_indexes(&mut self) {
        let sealed: Vec<u64> = {
            let segments = self.shared.segments();
            segments.iter().rev().skip(1).map(|segment| segment.id.sequence).collect()
        };
        self.unwritten_sides.extend(sealed);
    }

    /// Begins the next segment, so that the state of the lane stands in a checkpoint behind everything else. A lane
    /// that was never written to stays as it is.
    ///
    /// # Errors
    /// See [`CommitError`]; `Full` if no slot may be used for it.
    pub fn start_segment(
        &mut self,
        clock: &ClockReading,
        now_us: u64,
        owner: &mut dyn SegmentOwner,
    ) -> Result<(), CommitError> {
        self.check_poison()?;
        if !self.pending.is_empty() {
            return Err(CommitError::Pending);
        }
        if self.writer.current.is_some() {
            self.roll(clock, now_us, owner)?;
        }
        Ok(())
    }
}

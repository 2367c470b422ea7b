//! Work off the path of acknowledgements, a bounded piece a call.
//!
//! In this order: name what readers found damaged; write side indexes; prepare the next slot (make one while the
//! budget allows, else give up the oldest segment if the policy allows); move log starts by topic retention; clean
//! compacted streams; seal a lane that went quiet.

use super::slots::Prepared;
use super::{CommitError, Lane, MaintainError};
use crate::clock::ClockReading;
use crate::shared::{lock, side_path};
use crate::storage::{AlignedBuf, OpenMode};
use crate::stream_index::rebuild::load;

impl Lane {
    /// Work off the path of acknowledgements, a bounded piece a call. `true` = there is more.
    ///
    /// # Errors
    /// The disk failed. A failed journal write poisons the lane; anything else is tried again later.
    pub fn maintain(&mut self, clock: &ClockReading, now_us: u64) -> Result<bool, MaintainError> {
        if self.poisoned {
            return Ok(false);
        }
        if self.judge_damage(clock)? {
            return Ok(true);
        }
        self.unwritten_sides.extend(self.shared.take_rebuilt());
        if let Some(sequence) = self.unwritten_sides.pop_front() {
            // Without it a lookup reads more: no reason to stop here, a full disk is the usual one.
            if let Err(error) = self.write_side(sequence) {
                tracing::warn!(lane = self.config.name, %error, "a side index was not written");
            }
            return Ok(true);
        }
        // A lane that nobody uses needs no segment.
        let in_use = self.writer.current.is_some()
            || !self.pending.is_empty()
            || self.config.preallocate && now_us >= self.grow_again_us;
        if in_use && !self.slots.has_ready() {
            match self.prepare_slot(clock, now_us, false)? {
                Prepared::Ready | Prepared::Working => return Ok(true),
                Prepared::AtBudget => {}
            }
        }
        if self.config.preallocate && now_us >= self.grow_again_us && self.preallocate(now_us) {
            return Ok(true);
        }
        if now_us >= self.retention_due_us {
            self.apply_retention(clock, now_us)?;
        }
        if self.clean_step(clock)? {
            return Ok(true);
        }
        self.seal_if_quiet(clock, now_us)?;
        Ok(false)
    }

    fn seal_if_quiet(&mut self, clock: &ClockReading, now_us: u64) -> Result<(), MaintainError> {
        let Some(last_write_us) = self.last_write_us else { return Ok(()) };
        let quiet = now_us.saturating_sub(last_write_us) >= self.config.quiet_seal_us;
        if !quiet || self.sealed || !self.pending.is_empty() {
            return Ok(());
        }
        self.last_write_us = None;
        match self.seal(clock, false) {
            // No room: the head of the next segment will prove it.
            Ok(()) | Err(CommitError::Full) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_side(&mut self, sequence: u64) -> Result<(), MaintainError> {
        let Some(segment) = self.shared.segment_at_or_after(sequence) else { return Ok(()) };
        let newest = self.writer.current.as_ref().map_or(0, |now| now.segment.id.sequence);
        if segment.id.sequence != sequence || sequence == newest {
            return Ok(());
        }
        let resident = lock(&segment.side).is_some();
        if !resident && load(&self.shared, &segment).is_some() {
            return Ok(());
        }
        let side = self.side_of(&segment)?;
        let path = side_path(&self.shared.dir, segment.slot);
        let failed = |source| MaintainError::Io { operation: "write", path: path.clone(), source };
        let storage = &self.shared.storage;
        // In place if it is there: the steady state creates no file. Half an index is told by its CRC.
        let file = match storage.open(&path, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(_) => storage.open(&path, OpenMode::Create).map_err(failed)?,
        };
        let mut buf = AlignedBuf::new();
        buf.extend_from_slice(side.bytes());
        buf.resize(buf.len().next_multiple_of(file.io_mode().sector_bytes() as usize));
        file.write_at(&buf, 0).map_err(failed)?;
        self.shared.stats().add_other(0, buf.len() as u64);
        Ok(())
    }
}

//! Work off the path of acknowledgements, a bounded piece a call.
//!
//! In this order: name what readers found damaged; write side indexes; prepare the next slot (make one while the
//! budget allows, else give up the oldest segment if the policy allows); move log starts by topic retention; seal
//! a lane that went quiet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use edge_wire::{Offset, StreamId};

use super::slots::Prepared;
use super::{CommitError, Lane, MaintainError};
use crate::clock::{ClockReading, ClockState};
use crate::config::WhenFull;
use crate::gap::{Gap, GapReason};
use crate::journal::scan::SegmentId;
use crate::journal::segment::{SegmentHeader, SlotUse};
use crate::position::JournalPosition;
use crate::retention::{Part, new_log_start};
use crate::shared::{Segment, lock, side_path, slot_path};
use crate::storage::{AlignedBuf, OpenMode, StorageFile, is_of_one_file};
use crate::stream_index::rebuild::{load, side_index};

/// How often topic retention is looked at.
const RETENTION_INTERVAL_US: u64 = 30_000_000;
/// How long growing is not tried again after it failed.
const GROW_PAUSE_US: u64 = 10_000_000;

/// A segment that was given up; its slot is free once a group has told what was lost with it.
pub(super) struct Retiring {
    segment: Arc<Segment>,
    /// The group that tells it.
    told_by: u64,
}

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
            self.retention_due_us = now_us.saturating_add(RETENTION_INTERVAL_US);
            self.apply_retention(clock)?;
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

    /// One step towards a slot to roll to. `at_once`: a commit waits for it.
    pub(super) fn prepare_slot(
        &mut self,
        clock: &ClockReading,
        now_us: u64,
        at_once: bool,
    ) -> Result<Prepared, MaintainError> {
        if let Some(retiring) = &self.retiring {
            if at_once || self.writer.next_group > retiring.told_by {
                self.free_retired(clock)?;
            } else {
                return Ok(Prepared::AtBudget);
            }
        }
        if at_once || now_us >= self.grow_again_us {
            let prepared = self.slots.prepare();
            let mut stats = self.shared.stats();
            stats.add_other(0, std::mem::take(&mut self.slots.zeroed_bytes));
            stats.used_bytes = self.slots.used_bytes();
            drop(stats);
            match prepared {
                Ok(Prepared::AtBudget) => {}
                Ok(prepared) => return Ok(prepared),
                Err(error) => {
                    self.grow_again_us = now_us.saturating_add(GROW_PAUSE_US);
                    if !at_once {
                        return Err(error);
                    }
                    tracing::warn!(lane = self.config.name, %error, "the lane could not grow");
                }
            }
        }
        self.retire_oldest(clock)
    }

    /// One step towards having every segment that the budget allows. `true` if there is more to do.
    fn preallocate(&mut self, now_us: u64) -> bool {
        let prepared = self.slots.preallocate();
        let mut stats = self.shared.stats();
        stats.add_other(0, std::mem::take(&mut self.slots.zeroed_bytes));
        stats.used_bytes = self.slots.used_bytes();
        drop(stats);
        match prepared {
            Ok(Prepared::AtBudget) => {
                // Of room on the disk there may be more later.
                self.grow_again_us = now_us.saturating_add(GROW_PAUSE_US);
                false
            }
            Ok(_) => true,
            Err(error) => {
                self.grow_again_us = now_us.saturating_add(GROW_PAUSE_US);
                tracing::debug!(lane = self.config.name, %error, "a segment could not be made ahead");
                false
            }
        }
    }

    /// Gives up the oldest segment, if the policy allows.
    fn retire_oldest(&mut self, clock: &ClockReading) -> Result<Prepared, MaintainError> {
        let (oldest, next) = {
            let segments = self.shared.segments();
            match (segments.front(), segments.get(1)) {
                // The segment that is written to is never given up.
                (Some(oldest), Some(next)) => (Arc::clone(oldest), Arc::clone(next)),
                _ => return Ok(Prepared::AtBudget),
            }
        };
        let end = JournalPosition { segment: oldest.id.sequence, byte: oldest.end() };
        let sent = self.upstream >= end || self.upstream.segment > end.segment;
        let may_go = !self.config.protect_unsent
            || sent
            || self.config.when_full == (WhenFull::DropOldest { unsent: true });
        if !may_go {
            return Ok(Prepared::AtBudget);
        }
        let heads = self.heads_of(&next)?;
        let lost = if self.config.protect_unsent && !sent {
            self.unsent_in(&oldest, &heads, clock)?
        } else {
            Vec::new()
        };
        self.shared.segments_mut().pop_front();
        oldest.retired.store(true, Ordering::Release);
        self.shared.cache().forget_before(next.first_position());
        for (stream, head) in heads {
            if let Some(local) = self.streams.find(stream) {
                let shared = &self.streams.get(local).shared;
                shared.raise_log_start(head.min(shared.durable_end()));
            }
        }
        self.retiring = Some(Retiring {
            segment: oldest,
            told_by: if lost.is_empty() { 0 } else { self.writer.next_group },
        });
        let mut stats = self.shared.stats();
        stats.segments_recycled += 1;
        stats.dropped_records += lost.iter().map(|gap| gap.to.0 - gap.from.0).sum::<u64>();
        drop(stats);
        self.tell_gaps(&lost);
        Ok(Prepared::Working)
    }

    /// Writes the free header over a segment that was given up.
    fn free_retired(&mut self, clock: &ClockReading) -> Result<(), MaintainError> {
        let Some(retiring) = &self.retiring else { return Ok(()) };
        let segment = &retiring.segment;
        let id = segment.id;
        let path = slot_path(&self.shared.dir, segment.slot);
        let opened = self.shared.storage.open(&path, OpenMode::ReadWrite);
        let written = opened.and_then(|file| self.write_free_header(&*file, id, clock));
        match written {
            Ok(sector_bytes) => {
                self.slots.add_free(segment.slot);
                self.shared.stats().add_other(0, u64::from(sector_bytes));
            }
            // This file does not take it; others may. Its journal start passed it by: a restart finds it free.
            Err(error) if is_of_one_file(&error) && self.slots.quarantine() => {
                tracing::error!(path, %error, "a slot is not used again until the next start");
            }
            Err(source) => return Err(MaintainError::Io { operation: "free", path, source }),
        }
        self.retiring = None;
        Ok(())
    }

    /// Returns the bytes written.
    fn write_free_header(
        &self,
        file: &dyn StorageFile,
        id: SegmentId,
        clock: &ClockReading,
    ) -> std::io::Result<u32> {
        let sector_bytes = file.io_mode().sector_bytes().max(id.sector_bytes);
        let mut sector = AlignedBuf::zeroed(sector_bytes as usize);
        SegmentHeader {
            slot_use: SlotUse::Free,
            sector_bytes: id.sector_bytes,
            segment_bytes: id.segment_bytes,
            previous_end: 0,
            sequence: id.sequence,
            salt: id.salt,
            first_group: 0,
            log_id: self.identity.log_id,
            name_hash: self.identity.name_hash,
            journal_start: self.journal_start(),
            clock: *clock,
        }
        .encode(&mut sector);
        file.write_at(&sector, 0)?;
        file.sync_data()?;
        Ok(sector_bytes)
    }

    /// The next offset of every stream at the head of a segment.
    fn heads_of(&self, segment: &Segment) -> Result<Vec<(StreamId, Offset)>, MaintainError> {
        let newest = self.writer.current.as_ref().map_or(0, |now| now.segment.id.sequence);
        if segment.id.sequence != newest {
            let side = self.side_of(segment)?;
            return Ok(side.lines().map(|line| (line.stream, line.head)).collect());
        }
        Ok(self
            .streams
            .iter()
            .map(|stream| {
                let tail = stream.shared.tail();
                let here = tail.segment == newest;
                let head = if here { tail.head } else { stream.shared.durable_end() };
                (stream.definition.stream, head)
            })
            .collect())
    }

    fn side_of(
        &self,
        segment: &Segment,
    ) -> Result<Arc<crate::stream_index::side::SideIndex>, MaintainError> {
        side_index(&self.shared, segment).map_err(|source| MaintainError::Io {
            operation: "read",
            path: slot_path(&self.shared.dir, segment.slot),
            source,
        })
    }

    /// What of a segment is not upstream, stream by stream.
    fn unsent_in(
        &self,
        oldest: &Segment,
        heads: &[(StreamId, Offset)],
        clock: &ClockReading,
    ) -> Result<Vec<Gap>, MaintainError> {
        // Where the uplink stands inside the segment, everything before it is not lost.
        let sent = if self.upstream.segment == oldest.id.sequence {
            self.ends_before(oldest, self.upstream.byte)?
        } else {
            Vec::new()
        };
        let mut gaps = Vec::new();
        for (stream, head) in heads {
            let Some(local) = self.streams.find(*stream) else { continue };
            let shared = &self.streams.get(local).shared;
            let mut from = shared.log_start();
            if let Some((_, end)) = sent.iter().find(|(sent, _)| sent == stream) {
                from = from.max(*end);
            }
            let to = (*head).min(shared.durable_end());
            if from < to {
                gaps.push(Gap {
                    stream: *stream,
                    from,
                    to,
                    reason: GapReason::DroppedOldest,
                    at: oldest.first_position(),
                    wall_us: clock.wall_us,
                });
            }
        }
        Ok(gaps)
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

    fn apply_retention(&mut self, clock: &ClockReading) -> Result<(), MaintainError> {
        let limited: Vec<_> = self
            .streams
            .iter()
            .filter(|stream| stream.retention.bytes.is_some() || stream.retention.age_ms.is_some())
            .map(|stream| (stream.definition.stream, stream.retention, Arc::clone(&stream.shared)))
            .collect();
        if limited.is_empty() {
            return Ok(());
        }
        let now_ms = (clock.state == ClockState::Synced).then_some(clock.wall_us / 1000);
        let newest = self.writer.current.as_ref().map_or(0, |now| now.segment.id.sequence);
        let sealed: Vec<_> = {
            let segments = self.shared.segments();
            segments.iter().filter(|segment| segment.id.sequence != newest).cloned().collect()
        };
        let mut parts = vec![Vec::new(); limited.len()];
        for segment in &sealed {
            let side = self.side_of(segment)?;
            let may_go = !self.config.protect_unsent || self.upstream.segment > segment.id.sequence;
            for ((stream, ..), parts) in limited.iter().zip(&mut parts) {
                if let Some(line) = side.find(*stream) {
                    let (head, end, bytes) = (line.head, line.end, line.bytes);
                    parts.push(Part { head, end, bytes, max_ms: line.max_ms, may_go });
                }
            }
        }
        for ((_, retention, shared), parts) in limited.iter().zip(&parts) {
            let newer_bytes = {
                let tail = shared.tail();
                if tail.segment == newest { tail.segment_bytes } else { 0 }
            };
            let moved = new_log_start(shared.log_start(), parts, newer_bytes, *retention, now_ms);
            if let Some(offset) = moved {
                // Not written: were it to be forgotten in a crash, the next pass finds it again.
                shared.raise_log_start(offset.min(shared.durable_end()));
            }
        }
        Ok(())
    }
}

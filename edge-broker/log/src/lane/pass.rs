//! A pass over one sealed segment: what of it is wanted is copied forward, in pieces.
//!
//! - Before the ring gives a segment up: of compacted streams what is the newest of its key, of lanes that decay
//!   what thinning leaves, of streams with a retention of their own everything, if that is at most half of the
//!   segment (else the copies would take the place of what is new).
//! - To clean compacted streams ahead of the ring: these only.
//! - What stands in the segment as a copy is gone through likewise, if no newer copy of it exists.
//! - Pace: no more is copied than was written since the pass began, one group ahead, unless the room that is left
//!   for copies gets short. A step reads at most [`STEP_BYTES`]. Never on the path of an acknowledgement, unless a
//!   commit needs the segment before the pass came to its end: then the rest is done at once.

use std::sync::Arc;

use edge_wire::{Offset, StreamId};
use hashbrown::HashMap;

use super::copy_group::CopyGroup;
use super::decay::{Stretch, Thinner};
use super::{Lane, MaintainError};
use crate::clock::{ClockReading, ClockState};
use crate::decoded::{BatchRef, DecodedGroup, GroupHeader, GroupKind};
use crate::journal::directory::read_all;
use crate::journal::frame::{FrameHeader, HeaderAt};
use crate::journal::scan::{Window, directories, frame, header_at, resync};
use crate::retention::is_believable;
use crate::shared::{Segment, Shared, slot_path};
use crate::storage::StorageFile;
use crate::stream::Compaction;

/// Most bytes of the journal that one step reads.
pub(super) const STEP_BYTES: u64 = 256 << 10;

/// Why a segment is gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassKind {
    /// The ring needs its place.
    Ring,
    /// Compacted streams are to be read from their copies.
    Clean,
}

/// What becomes of a stream's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They go.
    Drop,
    /// They are copied.
    Keep,
    /// The newest of each key are copied.
    Clean(Compaction),
    /// What thinning leaves is copied.
    Thin,
}

/// How far a pass came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to do.
    Working,
    /// There is more to do once more was written.
    Waiting,
    /// Everything that is wanted was copied.
    Done,
    /// There is no room for the rest.
    NoRoom,
}

/// A pass on its way.
pub(super) struct Pass {
    pub(super) kind: PassKind,
    pub(super) segment: Arc<Segment>,
    /// The next group to be read.
    byte: u32,
    /// What stands before is dealt with for good, whatever becomes of the rest.
    pub(super) safe_byte: u32,
    last_group: u64,
    /// Something was damaged, and what is lost with it was named.
    is_judged: bool,
    window: Window,
    group: CopyGroup,
    thinner: Option<Thinner>,
    keeps_plain: bool,
    /// What was decided of each stream: a pass does not change its mind.
    fates: HashMap<StreamId, Fate>,
    /// The end of each compacted stream up to which all keys are known.
    clean_to: HashMap<StreamId, Offset>,
    written_bytes: u64,
    journal_bytes_before: u64,
    pub(super) compacted: u64,
    pub(super) thinned: u64,
}

impl Pass {
    pub(super) fn new(
        kind: PassKind,
        segment: Arc<Segment>,
        keeps_plain: bool,
        clean_to: HashMap<StreamId, Offset>,
        journal_bytes_before: u64,
    ) -> Self {
        let byte = segment.id.first_frame();
        Self {
            kind,
            segment,
            byte,
            safe_byte: byte,
            last_group: 0,
            is_judged: false,
            window: Window::default(),
            group: CopyGroup::default(),
            thinner: None,
            keeps_plain,
            fates: HashMap::new(),
            clean_to,
            written_bytes: 0,
            journal_bytes_before,
            compacted: 0,
            thinned: 0,
        }
    }

    /// What became of a stream's records.
    pub(super) fn fate_of(&self, stream: StreamId) -> Fate {
        self.fates.get(&stream).copied().unwrap_or(Fate::Drop)
    }

    pub(super) fn is_of(&self, kind: PassKind, segment: &Segment) -> bool {
        self.kind == kind && self.segment.id == segment.id
    }
}

/// The next intact header of a segment at or behind `byte`.
pub(super) fn header_from(
    window: &mut Window,
    segment: &Segment,
    byte: u32,
    last_group: u64,
) -> std::io::Result<Option<FrameHeader>> {
    let (file, id, end) = (&segment.file, &segment.id, segment.end());
    if byte >= end {
        return Ok(None);
    }
    if let HeaderAt::Frame(header) = header_at(window, file, id, byte)? {
        return Ok(Some(header));
    }
    // Perhaps only the copy in memory is stale: it was read while the frame was on its way to the device.
    window.forget();
    segment.file.forget_cached();
    match header_at(window, file, id, byte)? {
        HeaderAt::Frame(header) => Ok(Some(header)),
        _ => resync(window, file, id, byte.saturating_add(id.sector_bytes), end, last_group),
    }
}

/// The group of a header, from memory or from the disk; `None` if it is damaged.
pub(super) fn group_of(
    shared: &Shared,
    window: &mut Window,
    segment: &Segment,
    header: &FrameHeader,
) -> std::io::Result<Option<Arc<DecodedGroup>>> {
    let cached = shared.cache().get(header.position);
    if let Some(group) = cached.and_then(|cached| cached.group(&shared.clocks())) {
        return Ok(Some(group));
    }
    let bytes = frame(window, &segment.file, header)?;
    if let Some(group) = decode(shared, header, bytes) {
        return Ok(Some(group));
    }
    window.forget();
    segment.file.forget_cached();
    let bytes = frame(window, &segment.file, header)?;
    Ok(decode(shared, header, bytes))
}

/// A group whose times are corrected as they are known now: their copies need no more be.
fn decode(shared: &Shared, header: &FrameHeader, bytes: &[u8]) -> Option<Arc<DecodedGroup>> {
    let mut group = shared.unpacker.decode(header, bytes).ok()?;
    group.correct(&shared.clocks());
    Some(Arc::new(group))
}

impl Lane {
    /// What becomes of a stream's records in a pass.
    pub(super) fn fate(&self, kind: PassKind, keeps_plain: bool, stream: StreamId) -> Fate {
        let Some(local) = self.streams.find(stream) else { return Fate::Drop };
        let retention = &self.streams.get(local).retention;
        if let Some(compaction) = retention.compaction {
            return Fate::Clean(compaction);
        }
        let limited = retention.bytes.is_some() || retention.age_ms.is_some();
        match kind {
            PassKind::Clean => Fate::Drop,
            PassKind::Ring if self.config.decay.is_some() => Fate::Thin,
            PassKind::Ring if keeps_plain && limited => Fate::Keep,
            PassKind::Ring => Fate::Drop,
        }
    }

    /// The same, once and for all in this pass.
    fn decide(&self, pass: &mut Pass, stream: StreamId) -> Fate {
        if self.streams.find(stream).is_none() {
            return Fate::Drop;
        }
        let (kind, keeps_plain) = (pass.kind, pass.keeps_plain);
        *pass.fates.entry(stream).or_insert_with(|| self.fate(kind, keeps_plain, stream))
    }

    /// One step of a pass, or all of it. An error leaves it where it is.
    pub(super) fn step_pass(
        &mut self,
        pass: &mut Pass,
        clock: &ClockReading,
        to_end: bool,
    ) -> Result<Progress, MaintainError> {
        let segment = Arc::clone(&pass.segment);
        let path = slot_path(&self.shared.dir, segment.slot);
        let failed = |source| MaintainError::Io { operation: "read", path: path.clone(), source };
        if !to_end && !self.may_copy(pass) {
            return Ok(Progress::Waiting);
        }
        let mut read_bytes = 0;
        while to_end || read_bytes < STEP_BYTES {
            let header = header_from(&mut pass.window, &segment, pass.byte, pass.last_group);
            let header = header.map_err(failed)?;
            if header.as_ref().map_or(segment.end(), |header| header.position.byte) > pass.byte {
                self.judge_in_pass(pass, clock)?;
            }
            let Some(header) = header else { return self.end_pass(pass, clock) };
            pass.last_group = header.sequence;
            read_bytes += header.frame_bytes();
            if header.kind.has_entries() && self.is_wanted(pass, &header).map_err(failed)? {
                let group = group_of(&self.shared, &mut pass.window, &segment, &header);
                match group.map_err(failed)? {
                    Some(group) => {
                        if !self.copy_from(pass, &group, clock)? {
                            return Ok(Progress::NoRoom);
                        }
                    }
                    None => self.judge_in_pass(pass, clock)?,
                }
            }
            pass.byte = header.end().byte;
        }
        Ok(Progress::Working)
    }

    /// What is damaged cannot be copied: it is named now, the segment may be gone before anybody else looks. Once a
    /// pass, all of the segment.
    fn judge_in_pass(
        &mut self,
        pass: &mut Pass,
        clock: &ClockReading,
    ) -> Result<(), MaintainError> {
        if !pass.is_judged {
            let segment = Arc::clone(&pass.segment);
            // Copies in it were made from older segments, which were gone through before: all of them are read.
            self.judge_segment(&segment, clock)?;
            pass.is_judged = true;
        }
        Ok(())
    }

    /// Whether the pace allows to go on.
    fn may_copy(&self, pass: &Pass) -> bool {
        let Some(current) = &self.writer.current else { return false };
        let written = self.shared.stats().journal_bytes - pass.journal_bytes_before;
        let fresh = written.saturating_sub(pass.written_bytes);
        if pass.written_bytes <= fresh + u64::from(self.config.group_bytes_max) {
            return true;
        }
        let room = u64::from(current.segment.id.segment_bytes.saturating_sub(current.byte));
        let left = u64::from(pass.segment.end().saturating_sub(pass.byte));
        pass.kind == PassKind::Ring && room < 2 * left
    }

    /// Whether a group has anything that may be copied.
    fn is_wanted(&self, pass: &mut Pass, header: &FrameHeader) -> std::io::Result<bool> {
        let segment = Arc::clone(&pass.segment);
        let own = directories(&mut pass.window, &segment.file, header)?.own;
        let Some(entries) = own.and_then(|own| read_all(own).ok()) else { return Ok(true) };
        let mut wanted = false;
        for entry in entries {
            wanted |= self.decide(pass, entry.stream) != Fate::Drop;
        }
        Ok(wanted)
    }

    /// Copies what is wanted of a group. `false`: there is no room.
    fn copy_from(
        &mut self,
        pass: &mut Pass,
        group: &DecodedGroup,
        clock: &ClockReading,
    ) -> Result<bool, MaintainError> {
        for batch in group.batches() {
            let fate = self.decide(pass, batch.stream());
            if fate == Fate::Drop || !self.is_live(pass, &batch, group) {
                continue;
            }
            let span = batch.end_offset().0 - batch.base_offset().0;
            let bytes_max = self.config.group_bytes_max as usize;
            if !pass.group.has_room(span, batch.stored_bytes(), bytes_max) {
                if !self.write_pass(pass, clock)? {
                    return Ok(false);
                }
                pass.safe_byte = group.position().byte;
            }
            match fate {
                Fate::Drop => {}
                Fate::Keep => pass.group.push_batch(&batch),
                Fate::Clean(compaction) => {
                    self.clean_batch(pass, &batch, compaction, group.header(), clock);
                }
                Fate::Thin => {
                    if !self.thin_batch(pass, &batch, clock)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Whether a batch stands here for its stream: not below the log start, not cleaned, not copied on already.
    fn is_live(&self, pass: &Pass, batch: &BatchRef<'_>, group: &DecodedGroup) -> bool {
        let Some(shared) = self.shared.stream(batch.stream()) else { return false };
        if batch.end_offset() <= shared.log_start() {
            return false;
        }
        let run = self.shared.copies().holder(batch.stream(), batch.base_offset());
        if group.header().kind == GroupKind::Copied {
            return batch.base_offset() < shared.home()
                && run.is_some_and(|run| run.at == group.position());
        }
        // A copy behind this segment was made before the last stop.
        batch.end_offset() > shared.home()
            && run.is_none_or(|run| run.at.segment <= pass.segment.id.sequence)
    }

    /// Copies what is the newest of its key.
    fn clean_batch(
        &self,
        pass: &mut Pass,
        batch: &BatchRef<'_>,
        compaction: Compaction,
        header: &GroupHeader,
        clock: &ClockReading,
    ) {
        let stream = batch.stream();
        let Some(keys) = &self.keys else { return pass.group.push_batch(batch) };
        // Tombstones below which older records of their key may still be copied stay.
        let copies = self.shared.copies();
        let runs = copies.of(stream).map(|(base, run)| (base, run.clean_to));
        let runs: Vec<(Offset, Offset)> =
            runs.take_while(|(base, _)| *base < batch.end_offset()).collect();
        drop(copies);
        let mut kept = Vec::new();
        let unpacked = batch.for_each_record(&mut |record| {
            // As in Kafka: a compacted stream has no place for a record without a key.
            let keeps = record.key.is_some() && {
                let newest = keys.map.newest(&keys.hasher.hash(stream, record.key));
                let is_newest = newest.is_none_or(|newest| newest <= record.offset);
                let over = record.value.is_none()
                    && newest == Some(record.offset)
                    && is_over(record.timestamp_ms, compaction, header, clock)
                    && runs.iter().all(|(base, to)| *base >= record.offset || *to > record.offset);
                is_newest && !over
            };
            kept.push(keeps);
        });
        if unpacked.is_err() || kept.iter().all(|keeps| *keeps) {
            return pass.group.push_batch(batch);
        }
        pass.compacted += kept.iter().filter(|keeps| !**keeps).count() as u64;
        push_kept(&mut pass.group, batch, &kept);
    }

    /// Copies what thinning leaves. `false`: there is no room.
    fn thin_batch(
        &mut self,
        pass: &mut Pass,
        batch: &BatchRef<'_>,
        clock: &ClockReading,
    ) -> Result<bool, MaintainError> {
        let Some(decay) = self.config.decay else { return Ok(true) };
        let (stream, hasher) = (batch.stream(), self.hasher);
        let thinner = pass.thinner.get_or_insert_with(|| Thinner::new(decay));
        match thinner {
            Thinner::Sample(sampler) => {
                let mut kept = Vec::new();
                let unpacked = batch.for_each_record(&mut |record| {
                    kept.push(sampler.keeps(hasher.hash(stream, record.key)));
                });
                if unpacked.is_err() {
                    pass.group.push_batch(batch);
                } else {
                    pass.thinned += kept.iter().filter(|keeps| !**keeps).count() as u64;
                    push_kept(&mut pass.group, batch, &kept);
                }
                Ok(true)
            }
            Thinner::Aggregate(aggregator) => {
                let (base, end) = (batch.base_offset(), batch.end_offset());
                let stamp = batch.unknown_stamp();
                aggregator.cover(stream, (base, end), batch.is_copied(), stamp);
                // What of a batch cannot be unpacked is no more than its first records.
                let _ = batch.for_each_unflagged(&mut |record| {
                    aggregator.offer(stream, hasher.hash(stream, record.key), stamp, &record);
                });
                pass.thinned += u64::from(batch.count());
                if !aggregator.is_full() {
                    return Ok(true);
                }
                let stretches = aggregator.finish();
                self.copy_stretches(pass, stretches, clock)
            }
        }
    }

    /// Copies what aggregation left. `false`: there is no room.
    fn copy_stretches(
        &mut self,
        pass: &mut Pass,
        stretches: Vec<Stretch>,
        clock: &ClockReading,
    ) -> Result<bool, MaintainError> {
        let bytes_max = self.config.group_bytes_max as usize;
        for Stretch { stream, base, end, again, stamp, records } in stretches {
            let mut from = base;
            for (index, record) in records.iter().enumerate() {
                let to = if index + 1 == records.len() { end } else { record.offset.plus(1) };
                let bytes = record.value.as_ref().map_or(0, Vec::len);
                if !pass.group.has_room(to.0 - from.0, bytes, bytes_max)
                    && !self.write_pass(pass, clock)?
                {
                    return Ok(false);
                }
                pass.group.cover(stream, (from, to), again, stamp);
                pass.group.push(stream, &record.into());
                pass.thinned = pass.thinned.saturating_sub(1);
                from = to;
            }
        }
        Ok(true)
    }

    /// The segment was gone through: writes what is left to be written.
    fn end_pass(
        &mut self,
        pass: &mut Pass,
        clock: &ClockReading,
    ) -> Result<Progress, MaintainError> {
        if let Some(Thinner::Aggregate(aggregator)) = &mut pass.thinner {
            let stretches = aggregator.finish();
            if !self.copy_stretches(pass, stretches, clock)? {
                return Ok(Progress::NoRoom);
            }
        }
        if !pass.group.is_empty() && !self.write_pass(pass, clock)? {
            return Ok(Progress::NoRoom);
        }
        pass.safe_byte = pass.segment.end();
        Ok(Progress::Done)
    }

    /// Writes the group that was gathered. `false`: there is no room.
    fn write_pass(&mut self, pass: &mut Pass, clock: &ClockReading) -> Result<bool, MaintainError> {
        let mut group = std::mem::take(&mut pass.group);
        match self.write_copies(&mut group, &pass.clean_to, clock)? {
            Some(bytes) => {
                pass.written_bytes += bytes;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// Keeps some records of a batch, by their place in it.
fn push_kept(group: &mut CopyGroup, batch: &BatchRef<'_>, kept: &[bool]) {
    if batch.raw_records().is_some() {
        return group.push_some(batch, kept);
    }
    let stream = batch.stream();
    let covered = (batch.base_offset(), batch.end_offset());
    group.cover(stream, covered, batch.is_copied(), batch.unknown_stamp());
    let mut place = 0;
    // The records of a built batch were walked when its group was read.
    let _ = batch.for_each_unflagged(&mut |record| {
        if kept[place] {
            group.push(stream, &(&record).into());
        }
        place += 1;
    });
}

/// Whether a tombstone's time is over: by its own time if that and the clock can be believed, else by the time
/// that this boot has been up since its group was written.
fn is_over(
    timestamp_ms: i64,
    compaction: Compaction,
    header: &GroupHeader,
    clock: &ClockReading,
) -> bool {
    let age_ms = i64::try_from(compaction.tombstone_ms).unwrap_or(i64::MAX);
    let now_ms = clock.wall_us / 1000;
    if clock.state == ClockState::Synced && is_believable(timestamp_ms, now_ms) {
        return now_ms.saturating_sub(timestamp_ms) >= age_ms;
    }
    let same_boot = header.boot_id == clock.boot_id && clock.boot_id != 0;
    let up_ms = clock.boottime_us.saturating_sub(header.boottime_us) / 1000;
    same_boot && up_ms >= compaction.tombstone_ms
}

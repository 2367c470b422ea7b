//! Giving up the oldest segment: what of it is wanted is copied, what is lost with it is told, then its slot is
//! free.
//!
//! - Never the segment that is written to, and never what is not yet upstream unless the lane says so.
//! - The free header is written, and frames tell a later journal start, only once a frame tells what was lost, and
//!   the log starts below which nothing was copied: a crash before that finds the segment again. A stream without
//!   copies starts where the oldest segment finds it, whatever is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use edge_wire::{Offset, StreamId};

use super::pass::{Fate, Pass, PassKind, Progress};
use super::pending::Closed;
use super::slots::Prepared;
use super::writer::FrameFields;
use super::{Lane, MaintainError};
use crate::clock::ClockReading;
use crate::config::{Decay, WhenFull};
use crate::decoded::GroupKind;
use crate::gap::{Gap, GapReason};
use crate::journal::entry::{put_gap, put_log_start};
use crate::journal::scan::SegmentId;
use crate::journal::segment::{SegmentHeader, SlotUse};
use crate::position::JournalPosition;
use crate::shared::{Segment, slot_path};
use crate::storage::{AlignedBuf, OpenMode, StorageFile, is_of_one_file};
use crate::stream_index::rebuild::side_index;
use crate::stream_index::side::SideIndex;

/// How long growing is not tried again after it failed.
const GROW_PAUSE_US: u64 = 10_000_000;

/// A segment that was given up; its slot is free once a group has told what was lost with it.
pub(super) struct Retiring {
    segment: Arc<Segment>,
    /// What was lost with it, while no frame on disk tells so.
    untold: Vec<Gap>,
    /// Log starts that decided what of it was not copied, likewise.
    untold_starts: Vec<(StreamId, Offset)>,
}

impl Retiring {
    fn is_told(&self) -> bool {
        self.untold.is_empty() && self.untold_starts.is_empty()
    }
}

impl Lane {
    /// One step towards a slot to roll to. `at_once`: a commit waits for it.
    pub(super) fn prepare_slot(
        &mut self,
        clock: &ClockReading,
        now_us: u64,
        at_once: bool,
    ) -> Result<Prepared, MaintainError> {
        if let Some(retiring) = &self.retiring {
            if retiring.is_told() {
                self.free_retired(clock)?;
            } else if at_once {
                self.tell_now(clock)?;
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
        // A lane that was only opened keeps all it has: a look at it, or a start after a repair, costs nothing.
        if self.untouched && !at_once {
            return Ok(Prepared::AtBudget);
        }
        self.retire_oldest(clock, at_once)
    }

    /// One step towards having every segment that the budget allows. `true` if there is more to do.
    pub(super) fn preallocate(&mut self, now_us: u64) -> bool {
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

    /// Gives up the oldest segment, if the policy allows, once what is wanted of it was copied.
    fn retire_oldest(
        &mut self,
        clock: &ClockReading,
        at_once: bool,
    ) -> Result<Prepared, MaintainError> {
        let (oldest, next) = {
            let segments = self.shared.segments();
            match (segments.front(), segments.get(1)) {
                // The segment that is written to is never given up.
                (Some(oldest), Some(next)) => (Arc::clone(oldest), Arc::clone(next)),
                _ => return Ok(Prepared::AtBudget),
            }
        };
        let sent = self.is_sent(&oldest);
        let may_go = !self.config.protect_unsent
            || sent
            || self.config.when_full == (WhenFull::DropOldest { unsent: true })
            // Of streams that are removed, or begin behind it, nothing is left to be sent.
            || self.unsent_in(&oldest, &self.heads_of(&next)?, clock)?.is_empty();
        if !may_go {
            return Ok(Prepared::AtBudget);
        }
        self.interrupt_cleaning();
        let pass = match self.pass.take().filter(|pass| pass.is_of(PassKind::Ring, &oldest)) {
            Some(pass) => Some(pass),
            None if !at_once && !self.scan_keys()? => return Ok(Prepared::Working),
            None => self.begin_ring_pass(&oldest, clock)?,
        };
        let mut ended = None;
        if let Some(mut pass) = pass {
            let progress = self.step_pass(&mut pass, clock, at_once);
            if matches!(progress, Ok(Progress::Working | Progress::Waiting) | Err(_)) {
                self.pass = Some(pass);
                let waits = matches!(progress?, Progress::Waiting);
                return Ok(if waits { Prepared::AtBudget } else { Prepared::Working });
            }
            ended = Some((pass, progress? == Progress::Done));
        }
        self.give_up(&oldest, &next, sent, ended.as_ref(), clock)?;
        Ok(Prepared::Working)
    }

    /// Everything of a segment is upstream.
    pub(super) fn is_sent(&self, segment: &Segment) -> bool {
        let end = JournalPosition { segment: segment.id.sequence, byte: segment.end() };
        self.upstream >= end || self.upstream.segment > end.segment
    }

    /// Nobody waits for a segment's records to be sent.
    pub(super) fn is_done_with(&self, segment: &Segment) -> bool {
        !(self.config.protect_unsent && self.config.retention_waits) || self.is_sent(segment)
    }

    /// The pass over the oldest segment, if anything of it is wanted.
    fn begin_ring_pass(
        &mut self,
        oldest: &Arc<Segment>,
        clock: &ClockReading,
    ) -> Result<Option<Pass>, MaintainError> {
        let any = self.config.decay.is_some() || self.keeping > 0;
        if !any || self.writer.current.is_none() {
            return Ok(None);
        }
        self.shed_copies(clock);
        let side = self.side_of(oldest)?;
        let (mut all_bytes, mut plain_bytes, mut wanted) = (0, 0, false);
        let mut take = |stream: StreamId, bytes: u64, is_live: bool| {
            all_bytes += bytes;
            if !is_live {
                return;
            }
            match self.fate(PassKind::Ring, true, stream) {
                Fate::Drop => {}
                Fate::Keep => plain_bytes += bytes,
                Fate::Clean(_) | Fate::Thin => wanted = true,
            }
        };
        for line in side.lines().filter(|line| line.end > line.head) {
            let live = self
                .shared
                .stream(line.stream)
                .is_some_and(|shared| line.end > shared.log_start() && line.end > shared.home());
            take(line.stream, line.bytes, live);
        }
        for (stream, _, run) in self.shared.copies().iter() {
            if run.at.segment == oldest.id.sequence {
                take(stream, u64::from(run.bytes), true);
            }
        }
        let keeps_plain = plain_bytes > 0 && plain_bytes * 2 <= all_bytes;
        let pass = (wanted || keeps_plain)
            .then(|| self.new_pass(PassKind::Ring, Arc::clone(oldest), keeps_plain));
        Ok(pass)
    }

    /// Gives up the oldest segment. `ended`: the pass over it, and whether it copied all that was wanted.
    fn give_up(
        &mut self,
        oldest: &Arc<Segment>,
        next: &Arc<Segment>,
        sent: bool,
        ended: Option<&(Pass, bool)>,
        clock: &ClockReading,
    ) -> Result<(), MaintainError> {
        let mut heads = self.heads_of(next)?;
        self.add_ends_of(oldest, &mut heads)?;
        let mut lost = if self.config.protect_unsent && !sent {
            self.unsent_in(oldest, &heads, clock)?
        } else {
            Vec::new()
        };
        let dropped: u64 = lost.iter().map(|gap| gap.to.0 - gap.from.0).sum();
        // What is left of its copies has newer ones, is dead, or goes with it.
        let copies_gone = {
            let mut copies = self.shared.copies();
            copies.retain(|_, _, run| run.at.segment != oldest.id.sequence)
        };
        if let Some((pass, false)) = ended {
            lost.extend(self.not_copied(pass, &heads, &copies_gone, clock)?);
        }
        if let Some((pass, _)) = ended {
            lost.extend(self.thinned_in(pass, &heads, clock)?);
            let mut stats = self.shared.stats();
            stats.compacted_records += pass.compacted;
            stats.thinned_records += pass.thinned;
        }
        let mut untold_starts = Vec::new();
        for (stream, head) in heads {
            let Some(local) = self.streams.find(stream) else { continue };
            let shared = Arc::clone(&self.streams.get(local).shared);
            let head = head.min(shared.durable_end());
            if !self.is_compacted(stream) {
                let copied = ended.is_some_and(|(pass, is_whole)| {
                    *is_whole && pass.fate_of(stream) != Fate::Drop
                });
                let gone = copies_gone.iter().filter(|(of, ..)| *of == stream);
                let gone = gone.map(|(_, _, run)| run.end).max();
                let is_live_here = head > shared.log_start().max(shared.home());
                let lost_to = if is_live_here { Some(head) } else { gone };
                let first = self.shared.copies().at_or_after(stream, shared.log_start());
                if let Some(lost_to) = lost_to.filter(|_| !copied && first.is_some()) {
                    self.drop_below(stream, lost_to);
                }
                let first = self.shared.copies().at_or_after(stream, shared.log_start());
                if first.is_none_or(|(base, _)| base >= head) {
                    shared.raise_log_start(head);
                }
            }
            shared.raise_home(head);
            let known = self.streams.get(local);
            let may_come_back = known.was_copied || known.retention.compaction.is_some();
            if may_come_back && shared.log_start() > known.told_start {
                untold_starts.push((stream, shared.log_start()));
                put_log_start(self.pending.state(), stream, shared.log_start());
            }
        }
        self.shared.segments_mut().pop_front();
        oldest.retired.store(true, Ordering::Release);
        self.shared.cache().forget_before(next.first_position());
        self.tell_gaps(&lost);
        self.retiring = Some(Retiring { segment: Arc::clone(oldest), untold: lost, untold_starts });
        if let Some(keys) = &mut self.keys {
            keys.map.turn_over();
        }
        let mut stats = self.shared.stats();
        stats.segments_recycled += 1;
        stats.dropped_records += dropped;
        Ok(())
    }

    /// What of compacted streams a pass that found no room has not copied.
    fn not_copied(
        &self,
        pass: &Pass,
        heads: &[(StreamId, Offset)],
        copies_gone: &[(StreamId, Offset, crate::copies::CopyRun)],
        clock: &ClockReading,
    ) -> Result<Vec<Gap>, MaintainError> {
        let (reason, wall_us) = (GapReason::DroppedOldest, clock.wall_us);
        let at = JournalPosition { segment: pass.segment.id.sequence, byte: pass.safe_byte };
        let gap = |stream, from, to| Gap { stream, from, to, reason, at, wall_us };
        let mut gaps = Vec::new();
        for (stream, from, run) in copies_gone {
            if self.is_compacted(*stream) && run.at.byte >= pass.safe_byte {
                gaps.push(gap(*stream, *from, run.end));
            }
        }
        let copied = self.ends_before(&pass.segment, pass.safe_byte)?;
        for (stream, head) in heads {
            if !self.is_compacted(*stream) {
                continue;
            }
            let Some(shared) = self.shared.stream(*stream) else { continue };
            let copied =
                copied.iter().find(|(of, _)| of == stream).map_or(Offset(0), |(_, end)| *end);
            let from = shared.log_start().max(shared.home()).max(copied);
            if from < *head {
                gaps.push(gap(*stream, from, *head));
            }
        }
        Ok(gaps)
    }

    /// What a pass has thinned for the first time.
    fn thinned_in(
        &self,
        pass: &Pass,
        heads: &[(StreamId, Offset)],
        clock: &ClockReading,
    ) -> Result<Vec<Gap>, MaintainError> {
        let reason = match self.config.decay {
            Some(Decay::KeepEvery { records }) => GapReason::Thinned { keep_every: records },
            Some(Decay::Aggregate { seconds }) => GapReason::Aggregated { seconds },
            None => return Ok(Vec::new()),
        };
        let mut gaps = Vec::new();
        let side = self.side_of(&pass.segment)?;
        for line in side.lines().filter(|line| line.end > line.head) {
            let (stream, from) = (line.stream, line.head);
            if pass.fate_of(stream) != Fate::Thin {
                continue;
            }
            let Some(shared) = self.shared.stream(stream) else { continue };
            let from = from.max(shared.log_start());
            let head =
                heads.iter().find(|(of, _)| *of == stream).map_or(line.end, |(_, head)| *head);
            let (to, at) = (line.end.min(head), pass.segment.first_position());
            if from < to {
                gaps.push(Gap { stream, from, to, reason, at, wall_us: clock.wall_us });
            }
        }
        Ok(gaps)
    }

    /// A frame on disk tells what was lost with a segment that was given up.
    pub(super) fn note_told(&mut self) {
        let Some(retiring) = &mut self.retiring else { return };
        retiring.untold.clear();
        for (stream, told) in retiring.untold_starts.drain(..) {
            if let Some(local) = self.streams.find(stream) {
                let known = self.streams.get_mut(local);
                known.told_start = known.told_start.max(told);
            }
        }
    }

    /// The journal start that a frame tells that does not carry the pending group: a segment counts until it is told
    /// what was lost with it.
    pub(super) fn start_told_alone(&self) -> u64 {
        let untold = self.retiring.as_ref().filter(|retiring| !retiring.is_told());
        untold.map_or_else(|| self.journal_start(), |retiring| retiring.segment.id.sequence)
    }

    /// Tells what was lost in a frame of its own: a commit waits for the slot. If there is no room for it the head
    /// of the next segment tells it.
    fn tell_now(&mut self, clock: &ClockReading) -> Result<(), MaintainError> {
        let Some(retiring) = &self.retiring else { return Ok(()) };
        let mut body = Vec::new();
        for gap in &retiring.untold {
            put_gap(&mut body, gap);
        }
        for (stream, offset) in &retiring.untold_starts {
            put_log_start(&mut body, *stream, *offset);
        }
        let Some(place) = self.writer.place().filter(|_| !self.tail_closed) else { return Ok(()) };
        let fields = FrameFields {
            kind: GroupKind::Gap,
            flags: 0,
            compression: self.config.compression,
            records: 0,
            journal_start: self.journal_start(),
            clock,
        };
        let parts = Closed { body, has_state: true, ..Closed::default() };
        let header = self.writer.assemble(0, place, &fields, &parts);
        if !self.writer.fits(header.frame_bytes() as usize, 0) {
            return Ok(());
        }
        if let Err((operation, source)) = self.writer.write(header.position.byte) {
            return Err(self.poison(operation, header.position, source).into());
        }
        self.writer.advance(&header, &[]);
        self.publish_position(&header);
        self.note_told();
        Ok(())
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
            // What was lost is told by now: if this group is lost, it is found out again.
            link: self.writer.next_group - 1,
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

    /// A segment of which too little is left does not say where every stream began in it: that is at least where the
    /// one before it ended.
    fn add_ends_of(
        &self,
        oldest: &Arc<Segment>,
        heads: &mut Vec<(StreamId, Offset)>,
    ) -> Result<(), MaintainError> {
        let known: BTreeSet<StreamId> = heads.iter().map(|(stream, _)| *stream).collect();
        if self.streams.iter().all(|stream| known.contains(&stream.definition.stream)) {
            return Ok(());
        }
        let side = self.side_of(oldest)?;
        let missing = side.lines().filter(|line| !known.contains(&line.stream));
        heads.extend(missing.map(|line| (line.stream, line.end)));
        Ok(())
    }

    pub(super) fn side_of(&self, segment: &Segment) -> Result<Arc<SideIndex>, MaintainError> {
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
            let mut from = shared.log_start().max(shared.home());
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
}

//! Copying forward: writing copied groups, and how much of a lane they may take.
//!
//! Copies take at most half of a lane's budget, decayed ones a quarter. What is above goes, the oldest first: of a
//! plain or decayed stream the log start moves; of a compacted stream it is a gap, told as dropped.

use edge_wire::{Offset, StreamId};
use hashbrown::HashMap;

use super::copy_group::CopyGroup;
use super::pending::Closed;
use super::writer::FrameFields;
use super::{Lane, MaintainError};
use crate::clock::ClockReading;
use crate::copies::{CopyRun, copied_runs, runs_max};
use crate::decoded::{DecodedGroup, GroupKind};
use crate::gap::{Gap, GapReason};
use crate::journal::entry::put_log_start;

impl Lane {
    /// Writes a copied group behind the last frame. Returns the bytes written, or `None` if there is no room.
    pub(super) fn write_copies(
        &mut self,
        group: &mut CopyGroup,
        clean_to: &HashMap<StreamId, Offset>,
        clock: &ClockReading,
    ) -> Result<Option<u64>, MaintainError> {
        for stream in group.streams() {
            if self.streams.find(stream).is_none() {
                group.forget(stream);
            }
        }
        if group.is_empty() {
            return Ok(Some(0));
        }
        let Some(place) = self.writer.place().filter(|_| !self.tail_closed) else {
            return Ok(None);
        };
        let mut closed = Closed::default();
        let offsets = group.close(&self.streams, place.position.segment, &mut closed);
        let fields = FrameFields {
            kind: GroupKind::Copied,
            flags: 0,
            compression: self.config.compression,
            records: offsets,
            journal_start: self.start_told_alone(),
            clock,
        };
        let header = self.writer.assemble(0, place, &fields, &closed);
        if !self.writer.fits(header.frame_bytes() as usize, closed.directory.len()) {
            return Ok(None);
        }
        if let Err((operation, source)) = self.writer.write(header.position.byte) {
            return Err(self.poison(operation, header.position, source).into());
        }
        self.writer.advance(&header, &closed.directory);
        self.publish_position(&header);
        let runs = match DecodedGroup::parse(&header, &closed.directory, closed.body, closed.raw) {
            Ok(decoded) => copied_runs(&decoded, header.frame_bytes()),
            // Nobody is led to it; the originals stay until it is tried again.
            Err(error) => {
                debug_assert!(false, "copies that were just put together are malformed: {error}");
                return Ok(None);
            }
        };
        for stream in group.streams() {
            if let Some(local) = self.streams.find(stream) {
                let stream = self.streams.get_mut(local);
                stream.defined_in = place.position.segment;
                stream.was_copied = true;
            }
        }
        {
            let mut copies = self.shared.copies();
            for (stream, base, run) in runs {
                let clean_to = clean_to.get(&stream).copied().unwrap_or_default();
                let home = self.shared.stream(stream).map_or(Offset(0), |shared| shared.home());
                copies.insert_at_home(stream, base, CopyRun { clean_to, ..run }, home);
            }
        }
        let mut stats = self.shared.stats();
        stats.copied_records += group.records();
        stats.copied_bytes += header.frame_bytes();
        drop(stats);
        self.sealed = false;
        self.last_write_us.get_or_insert(clock.boottime_us);
        Ok(Some(header.frame_bytes()))
    }

    /// Makes room among the copies for those that come.
    pub(super) fn shed_copies(&mut self, clock: &ClockReading) {
        let budget = self.config.budget_bytes;
        let plain_bytes_max = if self.config.decay.is_some() { budget / 4 } else { budget / 2 };
        let runs_kept = runs_max(self.config.segment_bytes) / 4 * 3;
        let (mut plain, mut cleaned) = (Vec::new(), Vec::new());
        let (mut bytes, mut plain_bytes, mut runs) = (0, 0, 0);
        {
            let copies = self.shared.copies();
            if copies.frame_bytes() <= plain_bytes_max.min(budget / 2) && copies.len() <= runs_kept
            {
                return;
            }
            let mut before = (StreamId(0), i64::MIN);
            for (stream, base, run) in copies.iter() {
                bytes += u64::from(run.frame_bytes);
                runs += 1;
                if self.is_compacted(stream) {
                    cleaned.push((run.at, stream, base, *run));
                    continue;
                }
                plain_bytes += u64::from(run.frame_bytes);
                // A stream's runs go in order, whatever their times.
                let max_ms = if before.0 == stream { before.1.max(run.max_ms) } else { run.max_ms };
                before = (stream, max_ms);
                plain.push((max_ms, stream, base, *run));
            }
        }
        plain.sort_unstable_by_key(|(max_ms, stream, base, _)| (*max_ms, *stream, *base));
        for (_, stream, _, run) in plain {
            if plain_bytes <= plain_bytes_max && bytes <= budget / 2 && runs <= runs_kept {
                break;
            }
            plain_bytes -= u64::from(run.frame_bytes);
            bytes -= u64::from(run.frame_bytes);
            runs -= 1;
            self.drop_below(stream, run.end);
        }
        cleaned.sort_unstable_by_key(|(at, stream, base, _)| (*at, *stream, *base));
        let mut gaps = Vec::new();
        for (at, stream, base, run) in cleaned {
            if bytes <= budget / 2 && runs <= runs_kept {
                break;
            }
            bytes -= u64::from(run.frame_bytes);
            runs -= 1;
            self.shared.copies().forget(stream, base);
            gaps.push(Gap {
                stream,
                from: base,
                to: run.end,
                reason: GapReason::DroppedOldest,
                at,
                wall_us: clock.wall_us,
            });
        }
        if !gaps.is_empty() {
            let lane = &self.config.name;
            tracing::warn!(lane, runs = gaps.len(), "compacted topics outgrow half of the lane");
        }
        self.tell_gaps(&gaps);
    }

    /// Moves a stream's log start, told by the next group, because what lies below goes.
    pub(super) fn drop_below(&mut self, stream: StreamId, offset: Offset) {
        let Some(local) = self.streams.find(stream) else { return };
        let shared = &self.streams.get(local).shared;
        let offset = offset.min(shared.durable_end());
        if offset > shared.log_start() {
            shared.raise_log_start(offset);
            put_log_start(self.pending.state(), stream, offset);
        }
        self.shared.copies().forget_below(stream, offset);
    }

    pub(super) fn is_compacted(&self, stream: StreamId) -> bool {
        self.streams.find(stream).is_some_and(|local| {
            let stream = self.streams.get(local);
            stream.retention.compaction.is_some()
        })
    }
}

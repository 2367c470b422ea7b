//! Naming what readers found damaged: each hole becomes a gap, told once.

use std::collections::{BTreeMap, BTreeSet};

use edge_wire::{Offset, StreamId};

use super::compact::Cleaning;
use super::{Lane, MaintainError};
use crate::clock::ClockReading;
use crate::decoded::GroupKind;
use crate::gap::{Gap, GapReason};
use crate::holes::{heads, walk};
use crate::journal::directory::read_all;
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{Window, directories, header_at};
use crate::position::JournalPosition;
use crate::shared::{Segment, slot_path};
use crate::storage::StorageFile;
use crate::stream_index::rebuild::load;

/// What a segment lacks and what it has.
struct Holes {
    /// Offsets of streams that were written here first and are missing, and the byte before which they are.
    originals: Vec<(StreamId, Offset, Offset, u32)>,
    /// Where the copied groups stand that are intact.
    copied: BTreeSet<u32>,
}

impl Lane {
    /// Judges the damage that was noted since last time. `true` if there was any.
    pub(super) fn judge_damage(&mut self, clock: &ClockReading) -> Result<bool, MaintainError> {
        let damage = self.shared.take_damage();
        if damage.is_empty() {
            return Ok(false);
        }
        let mut segments: Vec<u64> = damage.iter().map(|at| at.segment).collect();
        segments.dedup();
        for sequence in segments {
            let Some(segment) = self.shared.segment_at_or_after(sequence) else { continue };
            if segment.id.sequence != sequence {
                continue;
            }
            if self.judge_segment(&segment, clock)? {
                // A pass made copies that are not read yet, and their originals are still there: again.
                self.pass = None;
                self.cleaning = Cleaning::default();
                self.cleaning.look = true;
            }
        }
        Ok(true)
    }

    /// Names what cannot be read of a segment any more, copies included; these are forgotten. `true`: some of them
    /// were not read yet.
    pub(super) fn judge_segment(
        &mut self,
        segment: &Segment,
        clock: &ClockReading,
    ) -> Result<bool, MaintainError> {
        segment.file.forget_cached();
        let judged = self.holes_of(segment);
        let Holes { originals, copied } = judged.map_err(|source| MaintainError::Io {
            operation: "read",
            path: slot_path(&self.shared.dir, segment.slot),
            source,
        })?;
        let sequence = segment.id.sequence;
        let rotten = {
            let is_there =
                |at: JournalPosition| at.segment != sequence || copied.contains(&at.byte);
            self.shared.copies().retain(|_, _, run| is_there(run.at))
        };
        let mut gaps = Vec::new();
        let mut is_early = false;
        let (reason, wall_us) = (GapReason::Rot, clock.wall_us);
        for (stream, base, run) in rotten {
            let Some(shared) = self.shared.stream(stream) else { continue };
            is_early |= run.end > shared.home();
            let (from, to) = (base.max(shared.log_start()), run.end.min(shared.home()));
            if from < to {
                gaps.push(Gap { stream, from, to, reason, at: run.at, wall_us });
            }
        }
        for (stream, from, to, byte) in originals {
            let Some(shared) = self.shared.stream(stream) else { continue };
            // Nobody misses what is below the log start, or is read from its copy.
            let range = (from.max(shared.log_start()), to);
            let parts = self.shared.copies().uncovered(stream, range, shared.home());
            let at = JournalPosition { segment: sequence, byte };
            let parts = parts.into_iter();
            gaps.extend(parts.map(|(from, to)| Gap { stream, from, to, reason, at, wall_us }));
        }
        let lost: u64 = {
            let known = self.shared.gaps();
            let parts = gaps.iter().flat_map(|gap| known.untold(gap.stream, gap.from, gap.to));
            parts.map(|(from, to)| to.0 - from.0).sum()
        };
        self.shared.stats().lost_records += lost;
        if lost > 0 {
            tracing::error!(lane = self.config.name, segment = sequence, lost, "damage found");
        }
        self.tell_gaps(&gaps);
        Ok(is_early)
    }

    /// Holes of a segment, those at its end included.
    fn holes_of(&self, segment: &Segment) -> std::io::Result<Holes> {
        let mut window = Window::default();
        let unpacker = &self.shared.unpacker;
        let (file, id, end) = (&segment.file, &segment.id, segment.end());
        let mut found = walk(&mut window, file, id, end, unpacker, BTreeMap::new())?;
        if !found.has_heads {
            let heads = self.heads_without_checkpoint(segment)?;
            window.forget();
            found = walk(&mut window, file, id, end, unpacker, heads)?;
        }
        let mut originals = found.holes;
        let ends = self.heads_behind(segment)?;
        for (stream, end_offset) in ends {
            let new_here = found.has_heads.then_some(Offset(0));
            let from = found.ends.get(&stream).copied().or(new_here);
            if let Some(from) = from.filter(|from| *from < end_offset) {
                originals.push((stream, from, end_offset, end));
            }
        }
        Ok(Holes { originals, copied: found.copied })
    }

    /// The next offset of every stream when a segment ended, from what stands behind it: a checkpoint, a side
    /// index, else the first groups.
    fn heads_behind(&self, segment: &Segment) -> std::io::Result<BTreeMap<StreamId, Offset>> {
        let unpacker = &self.shared.unpacker;
        let mut known = BTreeMap::new();
        let mut sequence = segment.id.sequence;
        while let Some(next) = self.shared.segment_at_or_after(sequence + 1) {
            sequence = next.id.sequence;
            let (file, id, end) = (&next.file, &next.id, next.end());
            let mut window = Window::default();
            let whole: Option<Vec<(StreamId, Offset)>> =
                match heads(&mut window, file, id, unpacker)? {
                    Some(checkpoint) => {
                        let streams = checkpoint.streams.iter();
                        Some(
                            streams.map(|stream| (stream.definition.stream, stream.next)).collect(),
                        )
                    }
                    None => load(&self.shared, &next)
                        .map(|side| side.lines().map(|line| (line.stream, line.head)).collect()),
                };
            if let Some(whole) = whole {
                for (stream, head) in whole {
                    known.entry(stream).or_insert(head);
                }
                return Ok(known);
            }
            let walked = walk(&mut window, file, id, end, unpacker, BTreeMap::new())?;
            for (stream, first) in walked.firsts {
                known.entry(stream).or_insert(first);
            }
        }
        for stream in self.streams.iter() {
            known.entry(stream.definition.stream).or_insert(stream.shared.durable_end());
        }
        Ok(known)
    }

    /// The next offset of every stream when a segment began whose own checkpoint is damaged: from its side index,
    /// else from the segments before it, else what the log starts say.
    fn heads_without_checkpoint(
        &self,
        segment: &Segment,
    ) -> std::io::Result<BTreeMap<StreamId, Offset>> {
        if let Some(side) = load(&self.shared, segment) {
            return Ok(side.lines().map(|line| (line.stream, line.head)).collect());
        }
        let before: Vec<_> = {
            let segments = self.shared.segments();
            let older = segments.iter().rev().filter(|one| one.id.sequence < segment.id.sequence);
            older.cloned().collect()
        };
        let starts = self.streams.iter().map(|stream| {
            let shared = &stream.shared;
            (stream.definition.stream, shared.log_start())
        });
        let mut heads: BTreeMap<StreamId, Offset> = starts.collect();
        let mut ends: BTreeMap<StreamId, Offset> = BTreeMap::new();
        for before in before {
            let (file, id, end) = (&before.file, &before.id, before.end());
            let mut window = Window::default();
            let unpacker = &self.shared.unpacker;
            let walked = walk(&mut window, file, id, end, unpacker, BTreeMap::new())?;
            for (stream, end) in walked.ends {
                ends.entry(stream).or_insert(end);
            }
            if walked.has_heads {
                break;
            }
        }
        for (stream, end) in ends {
            let head = heads.entry(stream).or_insert(end);
            *head = (*head).max(end);
        }
        Ok(heads)
    }

    /// Next offsets of the streams that have groups before `byte` in a segment.
    pub(super) fn ends_before(
        &self,
        segment: &Segment,
        byte: u32,
    ) -> Result<Vec<(StreamId, Offset)>, MaintainError> {
        let mut window = Window::default();
        let mut ends = BTreeMap::new();
        let mut at = segment.id.first_frame();
        let read = |at: u32, window: &mut Window, ends: &mut BTreeMap<StreamId, Offset>| {
            let header = match header_at(window, &segment.file, &segment.id, at)? {
                HeaderAt::Frame(header) => header,
                _ => return Ok::<_, std::io::Error>(None),
            };
            // Offsets of copies were given out long ago.
            if header.kind != GroupKind::Copied {
                let own = directories(window, &segment.file, &header)?.own.unwrap_or(&[]);
                for entry in read_all(own).unwrap_or_default() {
                    let end: &mut Offset = ends.entry(entry.stream).or_default();
                    *end = (*end).max(entry.end());
                }
            }
            Ok(Some(header.end().byte))
        };
        while at < byte.min(segment.end()) {
            let next = read(at, &mut window, &mut ends).map_err(|source| MaintainError::Io {
                operation: "read",
                path: slot_path(&self.shared.dir, segment.slot),
                source,
            })?;
            // Damage: what follows counts as not sent, which is the safe side.
            let Some(next) = next else { break };
            at = next;
        }
        Ok(ends.into_iter().collect())
    }
}

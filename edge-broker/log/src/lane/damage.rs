//! Naming what readers found damaged: each hole becomes a gap, told once.

use std::collections::BTreeMap;

use edge_wire::{Offset, StreamId};

use super::{Lane, MaintainError};
use crate::clock::ClockReading;
use crate::gap::{Gap, GapReason};
use crate::holes::{heads, walk};
use crate::journal::directory::read_all;
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{Window, directories, header_at};
use crate::position::JournalPosition;
use crate::shared::{Segment, slot_path};

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
            let judged = self.holes_of(&segment);
            let holes = judged.map_err(|source| MaintainError::Io {
                operation: "read",
                path: slot_path(&self.shared.dir, segment.slot),
                source,
            })?;
            let gaps: Vec<Gap> = holes
                .into_iter()
                .filter(|(stream, ..)| self.streams.find(*stream).is_some())
                .map(|(stream, from, to, byte)| Gap {
                    stream,
                    from,
                    to,
                    reason: GapReason::Rot,
                    at: JournalPosition { segment: sequence, byte },
                    wall_us: clock.wall_us,
                })
                .collect();
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
        }
        Ok(true)
    }

    /// Holes of a segment, those at its end included.
    fn holes_of(&self, segment: &Segment) -> std::io::Result<Vec<(StreamId, Offset, Offset, u32)>> {
        let mut window = Window::default();
        let unpacker = &self.shared.unpacker;
        let end = segment.end();
        let found = walk(&mut window, &*segment.file, &segment.id, end, unpacker)?;
        let mut holes = found.holes;
        let next = self.shared.segment_at_or_after(segment.id.sequence + 1);
        let ends: BTreeMap<StreamId, Offset> = match next {
            Some(next) => {
                window.forget();
                let checkpoint = heads(&mut window, &*next.file, &next.id, unpacker)?;
                checkpoint.map_or_else(BTreeMap::new, |checkpoint| {
                    let streams = checkpoint.streams.iter();
                    streams.map(|stream| (stream.definition.stream, stream.next)).collect()
                })
            }
            None => self
                .streams
                .iter()
                .map(|stream| (stream.definition.stream, stream.shared.durable_end()))
                .collect(),
        };
        for (stream, end_offset) in ends {
            let new_here = found.has_heads.then_some(Offset(0));
            let from = found.ends.get(&stream).copied().or(new_here);
            if let Some(from) = from.filter(|from| *from < end_offset) {
                holes.push((stream, from, end_offset, end));
            }
        }
        Ok(holes)
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
            let header = match header_at(window, &*segment.file, &segment.id, at)? {
                HeaderAt::Frame(header) => header,
                _ => return Ok::<_, std::io::Error>(None),
            };
            let own = directories(window, &*segment.file, &header)?.own.unwrap_or(&[]);
            for entry in read_all(own).unwrap_or_default() {
                ends.insert(entry.stream, entry.end());
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

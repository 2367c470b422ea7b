//! What is there of every stream, and what the journal says is missing.

use std::collections::BTreeMap;

use edge_wire::{Offset, StreamId};

use super::ranges::Ranges;
use super::report::{LISTED_MAX, LaneReport, Lost, Missing, StreamReport, ToldGap};
use crate::gap::Gap;
use crate::journal::checkpoint::Checkpoint;
use crate::position::JournalPosition;
use crate::stream::StreamDefinition;

/// A stream as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) definition: Option<StreamDefinition>,
    pub(crate) present: Ranges,
    /// Next offset.
    pub(crate) next: u64,
    /// As the journal tells it.
    pub(crate) log_start: u64,
    /// Its next offset when the oldest segment began: what is below is only there as a copy.
    pub(crate) floor: u64,
    records: u64,
    bytes: u64,
}

/// Where offsets were left out: nothing was between two groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jump {
    pub(crate) stream: StreamId,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The frame that came after.
    pub(crate) at: JournalPosition,
}

/// Most jumps that are remembered.
const JUMPS_MAX: usize = 1 << 16;

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) seen: BTreeMap<StreamId, Seen>,
    told: BTreeMap<StreamId, Ranges>,
    gaps: Vec<Gap>,
    pub(crate) jumps: Vec<Jump>,
    pub(crate) jumps_omitted: u64,
}

impl Streams {
    /// A stream of which a batch was found, or lost.
    fn stream(&mut self, stream: StreamId, base: u64) -> &mut Seen {
        self.seen.entry(stream).or_insert_with(|| Seen {
            next: base,
            floor: base,
            ..Seen::default()
        })
    }

    /// Offsets that are there. `copied`: they stand in an older segment too, or did.
    pub(crate) fn take(
        &mut self,
        stream: StreamId,
        (from, to): (u64, u64),
        (records, bytes): (u64, u64),
        copied: bool,
        at: JournalPosition,
    ) {
        let known = self.stream(stream, from);
        if known.present.insert(from, to) > 0 {
            known.records += records;
            known.bytes += bytes;
        }
        let next = known.next;
        known.next = next.max(to);
        if from > next && !copied {
            self.jump(stream, next, from, at);
        }
    }

    /// Offsets that were there. What was left out before them is missing before `at`.
    pub(crate) fn take_lost(
        &mut self,
        stream: StreamId,
        (from, to): (u64, u64),
        at: JournalPosition,
    ) {
        let known = self.stream(stream, from);
        let next = known.next;
        known.next = next.max(to);
        if from > next {
            self.jump(stream, next, from, at);
        }
    }

    fn jump(&mut self, stream: StreamId, from: u64, to: u64, at: JournalPosition) {
        if self.jumps.len() < JUMPS_MAX {
            self.jumps.push(Jump { stream, from, to, at });
        } else {
            self.jumps_omitted += 1;
        }
    }

    pub(crate) fn define(&mut self, definition: StreamDefinition) {
        let known = self.seen.entry(definition.stream).or_default();
        known.definition = Some(definition);
    }

    pub(crate) fn set_log_start(&mut self, stream: StreamId, offset: Offset) {
        if let Some(known) = self.seen.get_mut(&stream) {
            known.log_start = known.log_start.max(offset.0);
        }
    }

    pub(crate) fn remove(&mut self, stream: StreamId) {
        self.seen.remove(&stream);
        self.told.remove(&stream);
        self.gaps.retain(|gap| gap.stream != stream);
        self.jumps.retain(|jump| jump.stream != stream);
    }

    pub(crate) fn tell(&mut self, gap: Gap) {
        let told = self.told.entry(gap.stream).or_default();
        let parts = told.missing(gap.from.0, gap.to.0);
        told.insert(gap.from.0, gap.to.0);
        for (from, to) in parts {
            let last = self.gaps.last_mut();
            if let Some(last) = last
                && last.stream == gap.stream
                && last.reason == gap.reason
                && last.to.0 == from
            {
                last.to = Offset(to);
            } else if self.gaps.len() < LISTED_MAX {
                self.gaps.push(Gap { from: Offset(from), to: Offset(to), ..gap });
            }
        }
        if let Some(known) = self.seen.get_mut(&gap.stream) {
            known.next = known.next.max(gap.to.0);
        }
    }

    /// Parts of a range that are neither there nor told nor below the log start.
    pub(crate) fn untold(&self, stream: StreamId, from: u64, to: u64) -> Vec<(u64, u64)> {
        let Some(known) = self.seen.get(&stream) else { return Vec::new() };
        let missing = known.present.missing(from.max(known.log_start), to);
        let Some(told) = self.told.get(&stream) else { return missing };
        missing.into_iter().flat_map(|(from, to)| told.missing(from, to)).collect()
    }

    /// Parts of a range that are not there and should be.
    pub(crate) fn lost(&self, stream: StreamId, from: u64, to: u64) -> Vec<(u64, u64)> {
        let Some(known) = self.seen.get(&stream) else { return Vec::new() };
        known.present.missing(from.max(known.log_start), to)
    }

    /// Takes a checkpoint and returns what it contradicts. `first`: nothing before it was read.
    pub(crate) fn checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        at: JournalPosition,
        first: bool,
        damaged_before: bool,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        // Gaps first: they move the next offset as the checkpoint has it.
        for gap in &checkpoint.gaps {
            self.tell(*gap);
        }
        for found in &checkpoint.streams {
            let stream = found.definition.stream;
            let (next, log_start) = (found.next.0, found.log_start.0);
            let is_new = !self.seen.contains_key(&stream);
            let known = self.stream(stream, next);
            known.definition = Some(found.definition.clone());
            if first {
                known.floor = known.floor.max(next);
            }
            if next < known.next {
                wrong.push(format!(
                    "stream {stream} ends at {next} in it, at {} in the frames before",
                    known.next
                ));
            }
            if !is_new && log_start < known.log_start {
                wrong.push(format!(
                    "stream {stream} starts at {log_start} in it, at {} in the frames before",
                    known.log_start
                ));
            }
            known.log_start = known.log_start.max(log_start);
            let before = known.next;
            if next > before {
                known.next = next;
                if !first {
                    self.jump(stream, before, next, at);
                }
            }
        }
        let named: std::collections::BTreeSet<StreamId> =
            checkpoint.streams.iter().map(|stream| stream.definition.stream).collect();
        let left_out: Vec<StreamId> =
            self.seen.keys().filter(|stream| !named.contains(stream)).copied().collect();
        for stream in left_out {
            // Its removal was told in a group that is lost, or its definition is.
            if !damaged_before
                && self.seen.get(&stream).is_some_and(|seen| seen.definition.is_some())
            {
                wrong.push(format!("stream {stream} of the frames before is not in it"));
            }
        }
        wrong
    }

    /// The segments before this checkpoint are missing: what they held from the log starts on is.
    pub(crate) fn miss_before(&mut self, checkpoint: &Checkpoint, at: JournalPosition) {
        for found in &checkpoint.streams {
            let (stream, start) = (found.definition.stream, found.log_start.0);
            if let Some(known) = self.seen.get_mut(&stream) {
                known.floor = known.floor.min(start);
            }
            if start < found.next.0 {
                self.jump(stream, start, found.next.0, at);
            }
        }
    }

    /// Frames before `at` are not known: what is below each stream's next head is not judged.
    pub(crate) fn restart(&mut self) {
        self.seen.clear();
        self.jumps.clear();
    }

    pub(crate) fn name(&self, stream: StreamId, from: u64, to: u64) -> Lost {
        let definition = self.seen.get(&stream).and_then(|seen| seen.definition.as_ref());
        Lost {
            stream: stream.0,
            topic: definition.map(|definition| definition.topic.clone()),
            partition: definition.map(|definition| definition.partition.0),
            from,
            to,
        }
    }

    /// What was told of a damaged place: the gaps that name it, in the order in which they were told.
    pub(crate) fn told_of(&self, place: JournalPosition, bytes: u64) -> impl Iterator<Item = &Gap> {
        let end = u64::from(place.byte).saturating_add(bytes.max(1));
        self.gaps.iter().filter(move |gap| {
            !gap.reason.is_policy()
                && gap.at.segment == place.segment
                && (u64::from(place.byte)..end).contains(&u64::from(gap.at.byte))
        })
    }

    /// Writes streams and gaps into the report.
    pub(crate) fn report(&self, report: &mut LaneReport) {
        for (stream, seen) in &self.seen {
            let name = self.name(*stream, 0, 0);
            let start = seen.log_start.max(seen.floor.min(seen.next));
            let first = seen.present.first_from(seen.log_start).map_or(seen.next, |part| part.0);
            let told = self.told.get(stream);
            let mut missing = Vec::new();
            for (from, to) in seen.present.missing(start, seen.next) {
                let untold = told.map_or(vec![(from, to)], |told| told.missing(from, to));
                let mut at = from;
                for (hole_from, hole_to) in untold {
                    if at < hole_from {
                        missing.push(Missing { from: at, to: hole_from, told: true });
                    }
                    missing.push(Missing { from: hole_from, to: hole_to, told: false });
                    at = hole_to;
                }
                if at < to {
                    missing.push(Missing { from: at, to, told: true });
                }
            }
            missing.truncate(LISTED_MAX);
            if seen.present.inexact {
                report.note("", format!("stream {stream} has more holes than are kept apart"));
            }
            report.streams.push(StreamReport {
                stream: stream.0,
                topic: name.topic,
                partition: name.partition,
                log_start: seen.log_start,
                first,
                end: seen.next,
                records: seen.records,
                bytes: seen.bytes,
                missing,
            });
        }
        for gap in &self.gaps {
            report.gaps.push(ToldGap {
                range: self.name(gap.stream, gap.from.0, gap.to.0),
                reason: gap.reason.to_string(),
                policy: gap.reason.is_policy(),
                at: gap.at,
                wall_us: gap.wall_us,
            });
        }
    }
}

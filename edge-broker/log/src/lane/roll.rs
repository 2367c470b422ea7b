//! Going on to the next segment: its header and the checkpoint behind it, in one write and one sync.
//!
//! The group that did not fit follows as a frame of its own: so there is never more than one frame on its way to
//! the disk, and an intact frame proves all before it. It costs one more sync a segment.

use std::sync::Arc;

use edge_wire::{Offset, ProducerTable};

use super::pending::Closed;
use super::slots::{FreeSlot, Prepared};
use super::writer::{Current, FrameFields, Place};
use super::{CommitError, Lane, SegmentOwner};
use crate::clock::ClockReading;
use crate::config::GroupCompression;
use crate::decoded::GroupKind;
use crate::journal::checkpoint::{
    PRODUCERS_MAX, StreamLine, put_bad_slots, put_copies, put_gaps, put_lane, put_owner, put_stream,
};
use crate::journal::format::GAPS_MAX;
use crate::journal::scan::SegmentId;
use crate::journal::segment::{SegmentHeader, SlotUse, mix};
use crate::position::JournalPosition;
use crate::shared::{Segment, lock};
use crate::stats::LaneState;
use crate::stream_index::rebuild::{keep_resident, line};
use crate::stream_index::side::{SideBuilder, SideLine};

/// Level of checkpoints: they are written rarely.
const CHECKPOINT_LEVEL: i32 = 3;

/// Steps after which a checkpoint has no producers, and then no gaps either.
const SHRINK_PRODUCERS: u32 = PRODUCERS_MAX.ilog2() + 1;
pub(super) const SHRINK_MAX: u32 = SHRINK_PRODUCERS + GAPS_MAX.ilog2() + 1;

/// Why no segment was started.
enum Failed {
    /// Another slot may take it.
    Write(JournalPosition, std::io::Error),
    Final(CommitError),
}

impl Lane {
    /// Starts the next segment. Returns the bytes written. If a slot takes no write the next one is tried, once.
    pub(super) fn roll(
        &mut self,
        clock: &ClockReading,
        now_us: u64,
        owner: &mut dyn SegmentOwner,
    ) -> Result<u32, CommitError> {
        let slot = self.ready_slot(clock, now_us)?;
        let number = slot.slot;
        match self.roll_to(slot, clock, owner) {
            Err(Failed::Write(_, source)) => {
                tracing::error!(
                    lane = self.config.name,
                    slot = number,
                    error = %source,
                    "a slot takes no segment: the next one is tried"
                );
                self.slots.set_aside(number, &source);
                let slot = self.ready_slot(clock, now_us)?;
                self.roll_to(slot, clock, owner)
            }
            rolled => rolled,
        }
        .map_err(|failed| match failed {
            Failed::Write(at, source) => self.poison("write", at, source),
            Failed::Final(error) => error,
        })
    }

    fn roll_to(
        &mut self,
        slot: FreeSlot,
        clock: &ClockReading,
        owner: &mut dyn SegmentOwner,
    ) -> Result<u32, Failed> {
        // A slot that was given up is overwritten only once a frame on disk says so: were the write to be torn,
        // its old frames could come back otherwise. Mostly a group has said so long ago.
        if self.writer.told_start < self.journal_start() && self.writer.place().is_some() {
            match self.seal(clock, false) {
                Ok(()) | Err(CommitError::Full) => {}
                Err(error) => {
                    self.slots.give_back(slot);
                    return Err(Failed::Final(error));
                }
            }
        }
        let sequence = self.next_sequence();
        let sector_bytes = slot.file.io_mode().sector_bytes();
        let id = SegmentId {
            sequence,
            salt: mix(clock.entropy ^ self.identity.name_hash, sequence),
            segment_bytes: self.config.segment_bytes,
            sector_bytes,
        };
        // Behind a tail that recovery skipped this is less than where the next frame would have gone.
        let proven_end = self.writer.proven_end;
        let link = if proven_end.segment + 1 == sequence { 0 } else { proven_end.segment };
        let mut owner_state = Vec::new();
        owner.checkpoint(&mut owner_state);
        let max_bytes = self.config.segment_bytes as usize / 4;
        let place = Place {
            position: JournalPosition { segment: sequence, byte: id.first_frame() },
            salt: id.salt,
            sector_bytes,
            segment_bytes: id.segment_bytes,
        };
        let fields = FrameFields {
            kind: GroupKind::Checkpoint,
            flags: 0,
            compression: match self.config.compression {
                GroupCompression::None => GroupCompression::None,
                GroupCompression::Zstd { .. } => GroupCompression::Zstd { level: CHECKPOINT_LEVEL },
            },
            records: 0,
            journal_start: self
                .shared
                .segments()
                .front()
                .map_or(sequence, |oldest| oldest.id.sequence),
            clock,
        };
        // Packed it fits a quarter of the segment, unpacked no reader takes more than a whole one. What does not fit
        // is made smaller: better a producer or a gap of long ago forgotten than a lane that takes no more data.
        let mut shrink = 0;
        let frame = loop {
            let body = self.checkpoint_body(&owner_state, shrink);
            let parts = Closed { body, has_state: true, ..Closed::default() };
            let frame = self.writer.assemble(sector_bytes as usize, place, &fields, &parts);
            let bytes = frame.body_stored_bytes as usize;
            if bytes <= max_bytes && frame.body_bytes <= id.segment_bytes {
                break frame;
            }
            if shrink == SHRINK_MAX {
                self.slots.give_back(slot);
                return Err(Failed::Final(CommitError::CheckpointTooLarge { bytes, max_bytes }));
            }
            shrink += 1;
        };
        if shrink > 0 {
            let lane = &self.config.name;
            tracing::warn!(
                lane,
                shrink,
                "the checkpoint was too large: the oldest of it is left out"
            );
        }
        let header = SegmentHeader {
            slot_use: SlotUse::Live,
            sector_bytes,
            segment_bytes: id.segment_bytes,
            previous_end: proven_end.byte,
            sequence,
            salt: id.salt,
            first_group: frame.sequence,
            log_id: self.identity.log_id,
            name_hash: self.identity.name_hash,
            journal_start: frame.journal_start,
            link,
            clock: *clock,
        };
        self.writer.buf[..sector_bytes as usize].fill(0);
        header.encode(&mut self.writer.buf[..sector_bytes as usize]);
        let end = frame.end().byte;
        let segment = Arc::new(Segment::new(&self.shared, id, slot.slot, end));
        let current =
            Current { segment: Arc::clone(&segment), file: Arc::clone(&slot.file), byte: 0 };
        let old = self.writer.current.replace(current);
        match self.writer.write(0) {
            Ok(()) => {}
            Err(("write", source)) => {
                // Half of it may be there: its number is not used again.
                self.writer.current = old;
                self.sequence_min = sequence + 1;
                return Err(Failed::Write(frame.position, source));
            }
            Err((operation, source)) => {
                return Err(Failed::Final(self.poison(operation, frame.position, source)));
            }
        }
        self.writer.advance(&frame, &[]);
        // The checkpoint has all gaps and all log starts.
        self.note_told();
        for stream in self.streams.iter_mut() {
            stream.told_start = stream.shared.log_start();
        }
        self.must_roll = false;
        self.tail_closed = false;
        if let Some(old) = old {
            self.seal_index(&old.segment);
        }
        self.shared.segments_mut().push_back(segment);
        self.publish_position(&frame);
        let mut stats = self.shared.stats();
        stats.journal_bytes += u64::from(sector_bytes);
        stats.used_bytes = self.slots.used_bytes();
        stats.io_mode = Some(slot.file.io_mode());
        Ok(frame.frame_bytes() as u32 + sector_bytes)
    }

    fn next_sequence(&self) -> u64 {
        let newest = self.shared.segments().back().map(|segment| segment.id.sequence);
        let next = newest.unwrap_or_else(|| self.shared.end().segment) + 1;
        next.max(self.sequence_min)
    }

    /// A slot to roll to, prepared here and now if maintenance did not come to it.
    fn ready_slot(&mut self, clock: &ClockReading, now_us: u64) -> Result<FreeSlot, CommitError> {
        loop {
            if let Some(slot) = self.slots.take_ready() {
                return Ok(slot);
            }
            match self.prepare_slot(clock, now_us, true) {
                Ok(Prepared::AtBudget) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(lane = self.config.name, %error, "no segment could be prepared");
                    break;
                }
            }
        }
        self.shared.stats().state = LaneState::Full;
        Err(CommitError::Full)
    }

    /// The state as of all groups that are durable. Each step of `shrink` leaves out half of what is left of each
    /// stream's producers, the longest idle, then half of the gaps, the oldest.
    pub(super) fn checkpoint_body(&self, owner_state: &[u8], shrink: u32) -> Vec<u8> {
        let (mut body, mut scratch) = (Vec::new(), Vec::new());
        put_lane(&mut body, &mut scratch, self.upstream, &self.shared.stats());
        let producers_max = PRODUCERS_MAX.checked_shr(shrink).unwrap_or(0);
        for stream in self.streams.by_id() {
            let newest = stream.shared.tail().newest;
            let fewer = stream
                .durable
                .as_deref()
                .filter(|producers| producers.len() > producers_max)
                .and_then(|producers| latest_producers(producers, producers_max));
            let whole = stream.durable.as_deref();
            let producers = whole.filter(|producers| producers.len() <= producers_max);
            put_stream(
                &mut body,
                &mut scratch,
                &StreamLine {
                    definition: &stream.definition,
                    next: stream.shared.durable_end(),
                    log_start: stream.shared.log_start(),
                    newest,
                    producers: producers.or(fewer.as_ref()),
                    home: stream.clean_home,
                    keeps_start: stream.retention.compaction.is_some(),
                },
            );
        }
        let gaps = self.shared.gaps();
        let gaps = gaps.as_slice();
        let kept = gaps.len().checked_shr(shrink.saturating_sub(SHRINK_PRODUCERS)).unwrap_or(0);
        put_gaps(&mut body, &gaps[gaps.len() - kept..]);
        put_copies(&mut body, &mut scratch, &self.shared.copies());
        put_bad_slots(&mut body, &mut scratch, &self.slots.bad());
        if !owner_state.is_empty() {
            put_owner(&mut body, owner_state);
        }
        body
    }

    /// Makes the side index of a segment that is full now. Maintenance writes it.
    fn seal_index(&mut self, segment: &Segment) {
        let sequence = segment.id.sequence;
        let streams = self.streams.by_id();
        let mut builder =
            SideBuilder::new(sequence, segment.id.salt, segment.id.segment_bytes, streams.len());
        for stream in streams {
            let end = stream.shared.durable_end();
            let tail = stream.shared.tail();
            let id = stream.definition.stream;
            builder.push(&if tail.segment == sequence {
                line(id, &tail, end)
            } else {
                empty_line(id, end)
            });
        }
        let side = Arc::new(builder.finish());
        let bytes = side.bytes().len();
        *lock(&segment.side) = Some(side);
        keep_resident(&self.shared, sequence, bytes);
        self.unwritten_sides.push_back(sequence);
        self.cleaning.look = true;
    }
}

/// A table of the producers used last.
fn latest_producers(producers: &ProducerTable, producers_max: usize) -> Option<ProducerTable> {
    if producers_max == 0 {
        return None;
    }
    let mut bytes = Vec::new();
    producers.encode(&mut bytes);
    ProducerTable::decode(&mut &bytes[..], producers_max).ok()
}

/// The line of a stream without records in a segment.
fn empty_line(stream: edge_wire::StreamId, end: Offset) -> SideLine {
    SideLine { stream, head: end, end, bytes: 0, max_ms: 0, unvouched: false, places: Vec::new() }
}

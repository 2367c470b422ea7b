//! The first frame of a segment: the state of the lane as of all groups before it.
//!
//! A body of entries (entry.rs): lane state, then for each stream its definition, its state, and its idempotent
//! producers if it has any; gaps; the copies of each stream that has any; the owner's state. States carry their length: a newer program may append
//! fields, an older one ignores them, and a field that is absent is zero.
//!
//! ```text
//! lane state     upstream segment, upstream byte, then counters: payload bytes, journal bytes, other bytes,
//!                syncs, groups, records, segments recycled, dropped records, lost records, copied records,
//!                copied bytes, compacted records, thinned records (zeros at the end are left out)
//! stream state   stream, next offset, log start, offset of the highest timestamp + 1 (0 = none),
//!                zigzag highest timestamp in ms; home, flags (both left out if 0): 1 the log start does not follow
//!                the ring
//! copies         stream, then its runs (copies.rs) by offset: base - end of the one before (0), end - base, segment,
//!                byte, bytes, bytes on disk, zigzag highest timestamp in ms, clean to
//! unvouched      stream, then of its runs that hold what was stamped while the clock was not set: base - that of the
//!   copies       one before (0)
//! bad slots      slots that took no write, or could not be read and were judged: they hold nothing that is newer
//! ```

use edge_wire::varint::{get_unsigned, get_varlong, put_unsigned, put_varlong};
use edge_wire::{Offset, ProducerTable, StreamId};

use super::entry::{
    BAD_SLOTS, COPIES, Entries, Entry, LANE_STATE, OWNER_STATE, PRODUCERS, STREAM_STATE,
    UNVOUCHED_COPIES, get_offset, get_stream, get_u32_varint, put_bytes, put_definition, put_gap,
};
use super::format::{Malformed, malformed};
use crate::copies::{CopyRun, CopyTable};
use crate::gap::Gap;
use crate::position::JournalPosition;
use crate::stats::LaneStats;
use crate::stream::StreamDefinition;

/// Fields of the lane's state from this one on are left out if they and all behind them are 0.
const NEWER_FIELDS_AT: usize = 11;

/// Most idempotent producers remembered for one stream.
pub(crate) const PRODUCERS_MAX: usize = 256;

/// A stream in a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct StreamState {
    pub(crate) definition: StreamDefinition,
    pub(crate) next: Offset,
    pub(crate) log_start: Offset,
    /// The record with the highest timestamp.
    pub(crate) newest: Option<(Offset, i64)>,
    pub(crate) producers: Option<Box<ProducerTable>>,
    /// Below it only copies count, if it is beyond the stream's head in the oldest segment.
    pub(crate) home: Offset,
    /// The log start does not follow the ring.
    pub(crate) keeps_start: bool,
}

/// The log start does not follow the ring.
const FLAG_KEEPS_START: u64 = 1;

/// The state of a lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) upstream: JournalPosition,
    pub(crate) stats: LaneStats,
    pub(crate) streams: Vec<StreamState>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) copies: CopyTable,
    /// Slots that are not to be used, if it can be helped.
    pub(crate) bad_slots: Vec<u32>,
    pub(crate) owner: Option<Vec<u8>>,
}

pub(crate) fn put_lane(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    upstream: JournalPosition,
    stats: &LaneStats,
) {
    scratch.clear();
    let fields = [
        upstream.segment,
        u64::from(upstream.byte),
        stats.payload_bytes,
        stats.journal_bytes,
        stats.other_bytes,
        stats.syncs,
        stats.groups,
        stats.records,
        stats.segments_recycled,
        stats.dropped_records,
        stats.lost_records,
        stats.copied_records,
        stats.copied_bytes,
        stats.compacted_records,
        stats.thinned_records,
    ];
    let last = fields[NEWER_FIELDS_AT..].iter().rposition(|field| *field != 0);
    let count = NEWER_FIELDS_AT + last.map_or(0, |last| last + 1);
    for field in &fields[..count] {
        put_unsigned(scratch, *field);
    }
    out.push(LANE_STATE);
    put_bytes(out, scratch);
}

/// A stream as it goes into a checkpoint.
pub(crate) struct StreamLine<'a> {
    pub(crate) definition: &'a StreamDefinition,
    pub(crate) next: Offset,
    pub(crate) log_start: Offset,
    pub(crate) newest: Option<(Offset, i64)>,
    pub(crate) producers: Option<&'a ProducerTable>,
    pub(crate) home: Offset,
    pub(crate) keeps_start: bool,
}

pub(crate) fn put_stream(out: &mut Vec<u8>, scratch: &mut Vec<u8>, line: &StreamLine<'_>) {
    put_definition(out, line.definition);
    scratch.clear();
    put_unsigned(scratch, u64::from(line.definition.stream.0));
    put_unsigned(scratch, line.next.0);
    put_unsigned(scratch, line.log_start.0);
    put_unsigned(scratch, line.newest.map_or(0, |(offset, _)| offset.0 + 1));
    put_varlong(scratch, line.newest.map_or(0, |(_, timestamp_ms)| timestamp_ms));
    if line.keeps_start || line.home > Offset(0) {
        put_unsigned(scratch, line.home.0);
    }
    if line.keeps_start {
        put_unsigned(scratch, FLAG_KEEPS_START);
    }
    out.push(STREAM_STATE);
    put_bytes(out, scratch);
    if let Some(producers) = line.producers.filter(|producers| !producers.is_empty()) {
        scratch.clear();
        producers.encode(scratch);
        out.push(PRODUCERS);
        put_unsigned(out, u64::from(line.definition.stream.0));
        put_bytes(out, scratch);
    }
}

pub(crate) fn put_gaps(out: &mut Vec<u8>, gaps: &[Gap]) {
    for gap in gaps {
        put_gap(out, gap);
    }
}

pub(crate) fn put_copies(out: &mut Vec<u8>, scratch: &mut Vec<u8>, copies: &CopyTable) {
    for stream in copies.streams() {
        scratch.clear();
        put_unsigned(scratch, u64::from(stream.0));
        let mut before = 0;
        for (base, run) in copies.of(stream) {
            put_unsigned(scratch, base.0 - before);
            put_unsigned(scratch, run.end.0 - base.0);
            put_unsigned(scratch, run.at.segment);
            put_unsigned(scratch, u64::from(run.at.byte));
            put_unsigned(scratch, u64::from(run.bytes));
            put_unsigned(scratch, u64::from(run.frame_bytes));
            put_varlong(scratch, run.max_ms);
            put_unsigned(scratch, run.clean_to.0);
            before = run.end.0;
        }
        out.push(COPIES);
        put_bytes(out, scratch);
        scratch.clear();
        put_unsigned(scratch, u64::from(stream.0));
        let (stream_bytes, mut before) = (scratch.len(), 0);
        for (base, _) in copies.of(stream).filter(|(_, run)| run.unvouched) {
            put_unsigned(scratch, base.0 - before);
            before = base.0;
        }
        if scratch.len() > stream_bytes {
            out.push(UNVOUCHED_COPIES);
            put_bytes(out, scratch);
        }
    }
}

fn get_copies(mut fields: &[u8], copies: &mut CopyTable) -> Result<(), Malformed> {
    let input = &mut fields;
    let stream = get_stream(input)?;
    let mut before = 0u64;
    while !input.is_empty() {
        let base = before.saturating_add(get_unsigned(input)?);
        let end = base.saturating_add(get_unsigned(input)?);
        if end > i64::MAX as u64 {
            return malformed("an offset does not fit");
        }
        let at = JournalPosition { segment: get_unsigned(input)?, byte: get_u32_varint(input)? };
        let run = CopyRun {
            end: Offset(end),
            at,
            bytes: get_u32_varint(input)?,
            frame_bytes: get_u32_varint(input)?,
            max_ms: get_varlong(input)?,
            clean_to: get_offset(input)?,
            unvouched: false,
        };
        copies.insert(stream, Offset(base), run);
        before = end;
    }
    Ok(())
}

fn get_unvouched(mut fields: &[u8], copies: &mut CopyTable) -> Result<(), Malformed> {
    let input = &mut fields;
    let stream = get_stream(input)?;
    let mut base = 0u64;
    while !input.is_empty() {
        base = base.saturating_add(get_unsigned(input)?);
        copies.set_unvouched(stream, Offset(base));
    }
    Ok(())
}

pub(crate) fn put_bad_slots(out: &mut Vec<u8>, scratch: &mut Vec<u8>, slots: &[u32]) {
    if slots.is_empty() {
        return;
    }
    scratch.clear();
    for slot in slots {
        put_unsigned(scratch, u64::from(*slot));
    }
    out.push(BAD_SLOTS);
    put_bytes(out, scratch);
}

pub(crate) fn put_owner(out: &mut Vec<u8>, owner: &[u8]) {
    out.push(OWNER_STATE);
    put_bytes(out, owner);
}

impl Checkpoint {
    /// Reads the unpacked body of a checkpoint frame.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut checkpoint = Self::default();
        for entry in Entries::new(body) {
            match entry? {
                Entry::LaneState(fields) => checkpoint.read_lane(fields)?,
                Entry::Definition(definition) => checkpoint.streams.push(StreamState {
                    definition: definition.to_owned(),
                    next: Offset(0),
                    log_start: Offset(0),
                    newest: None,
                    producers: None,
                    home: Offset(0),
                    keeps_start: false,
                }),
                Entry::StreamState(fields) => checkpoint.read_stream(fields)?,
                Entry::Producers { stream, mut bytes } => {
                    let table = ProducerTable::decode(&mut bytes, PRODUCERS_MAX)?;
                    checkpoint.last(stream)?.producers = Some(Box::new(table));
                }
                Entry::Gap(gap) => checkpoint.gaps.push(gap),
                Entry::Copies(fields) => get_copies(fields, &mut checkpoint.copies)?,
                Entry::UnvouchedCopies(fields) => get_unvouched(fields, &mut checkpoint.copies)?,
                Entry::BadSlots(mut fields) => {
                    while !fields.is_empty() {
                        let Ok(slot) = u32::try_from(get_unsigned(&mut fields)?) else {
                            return malformed("a slot number does not fit");
                        };
                        checkpoint.bad_slots.push(slot);
                    }
                }
                Entry::OwnerState(bytes) => checkpoint.owner = Some(bytes.to_vec()),
                _ => {}
            }
        }
        Ok(checkpoint)
    }

    /// The stream whose definition came last.
    fn last(&mut self, stream: StreamId) -> Result<&mut StreamState, Malformed> {
        match self.streams.last_mut() {
            Some(last) if last.definition.stream == stream => Ok(last),
            _ => malformed("the state of a stream without its definition"),
        }
    }

    fn read_stream(&mut self, mut fields: &[u8]) -> Result<(), Malformed> {
        let input = &mut fields;
        let stream = get_stream(input)?;
        let next = get_offset(input)?;
        let log_start = get_offset(input)?;
        let newest_offset = get_unsigned(input)?;
        let newest_timestamp = get_varlong(input)?;
        let home = if input.is_empty() { Offset(0) } else { get_offset(input)? };
        let flags = if input.is_empty() { 0 } else { get_unsigned(input)? };
        let state = self.last(stream)?;
        state.next = next;
        state.log_start = log_start;
        state.home = home;
        state.keeps_start = flags & FLAG_KEEPS_START != 0;
        state.newest =
            newest_offset.checked_sub(1).map(|offset| (Offset(offset), newest_timestamp));
        Ok(())
    }

    fn read_lane(&mut self, mut fields: &[u8]) -> Result<(), Malformed> {
        let mut field = || -> Result<u64, Malformed> {
            if fields.is_empty() { Ok(0) } else { Ok(get_unsigned(&mut fields)?) }
        };
        let segment = field()?;
        let Ok(byte) = u32::try_from(field()?) else { return malformed("a byte does not fit") };
        self.upstream = JournalPosition { segment, byte };
        let stats = &mut self.stats;
        for counter in [
            &mut stats.payload_bytes,
            &mut stats.journal_bytes,
            &mut stats.other_bytes,
            &mut stats.syncs,
            &mut stats.groups,
            &mut stats.records,
            &mut stats.segments_recycled,
            &mut stats.dropped_records,
            &mut stats.lost_records,
            &mut stats.copied_records,
            &mut stats.copied_bytes,
            &mut stats.compacted_records,
            &mut stats.thinned_records,
        ] {
            *counter = field()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

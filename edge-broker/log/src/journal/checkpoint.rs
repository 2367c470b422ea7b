//! The first frame of a segment: the state of the lane as of all groups before it.
//!
//! A body of entries (entry.rs): lane state, then for each stream its definition, its state, and its idempotent
//! producers if it has any; gaps; the owner's state. States carry their length: a newer program may append
//! fields, an older one ignores them, and a field that is absent is zero.
//!
//! ```text
//! lane state     upstream segment, upstream byte, then counters: payload bytes, journal bytes, other bytes,
//!                syncs, groups, records, segments recycled, dropped records, lost records
//! stream state   stream, next offset, log start, offset of the highest timestamp + 1 (0 = none),
//!                zigzag highest timestamp in ms
//! ```

use edge_wire::varint::{get_unsigned, get_varlong, put_unsigned, put_varlong};
use edge_wire::{Offset, ProducerTable, StreamId};

use super::entry::{
    Entries, Entry, LANE_STATE, OWNER_STATE, PRODUCERS, STREAM_STATE, get_offset, get_stream,
    put_bytes, put_definition, put_gap,
};
use super::format::{Malformed, malformed};
use crate::gap::Gap;
use crate::position::JournalPosition;
use crate::stats::LaneStats;
use crate::stream::StreamDefinition;

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
}

/// The state of a lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) upstream: JournalPosition,
    pub(crate) stats: LaneStats,
    pub(crate) streams: Vec<StreamState>,
    pub(crate) gaps: Vec<Gap>,
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
    ];
    for field in fields {
        put_unsigned(scratch, field);
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
}

pub(crate) fn put_stream(out: &mut Vec<u8>, scratch: &mut Vec<u8>, line: &StreamLine<'_>) {
    put_definition(out, line.definition);
    scratch.clear();
    put_unsigned(scratch, u64::from(line.definition.stream.0));
    put_unsigned(scratch, line.next.0);
    put_unsigned(scratch, line.log_start.0);
    put_unsigned(scratch, line.newest.map_or(0, |(offset, _)| offset.0 + 1));
    put_varlong(scratch, line.newest.map_or(0, |(_, timestamp_ms)| timestamp_ms));
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
                }),
                Entry::StreamState(fields) => checkpoint.read_stream(fields)?,
                Entry::Producers { stream, mut bytes } => {
                    let table = ProducerTable::decode(&mut bytes, PRODUCERS_MAX)?;
                    checkpoint.last(stream)?.producers = Some(Box::new(table));
                }
                Entry::Gap(gap) => checkpoint.gaps.push(gap),
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
        let state = self.last(stream)?;
        state.next = next;
        state.log_start = log_start;
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
        ] {
            *counter = field()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

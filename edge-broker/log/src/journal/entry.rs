//! Entries of a group's body: a tag byte, then fields as varints (unsigned LEB128 unless it says zigzag).
//!
//! ```text
//!  1 definition        stream, topic id (16 bytes), partition, partition count, length, topic
//!  2 envelopes         see envelopes.rs; at most one, before 3
//!  3 batches           see batches.rs; at most one
//!  4 event             tag, length, bytes (the owner's)
//!  5 gap               stream, from, to - from, reason (byte), segment, byte, zigzag wall clock in us;
//!                     of reason 4 (thinned) keep every, of reason 5 (aggregated) seconds
//!  6 log start         stream, offset
//!  7 stream removed    stream
//! 16 lane state        length, fields (checkpoint.rs); 17 stream state likewise
//! 18 producers         stream, length, ProducerTable of edge-wire
//! 19 owner state       length, bytes
//! 64 copies            length, fields (checkpoint.rs)
//! 65 bad slots         length, slot numbers
//! 66 stamps            length, fields (stamps.rs)
//! 67 unvouched copies  length, fields (checkpoint.rs)
//! 68... unknown        length, bytes: skipped
//! ```

use edge_wire::varint::{
    get_byte, get_slice, get_unsigned, get_varlong, put_unsigned, put_varlong,
};
use edge_wire::{Offset, PartitionId, StreamId, TopicId};

use super::format::{Malformed, TOPIC_BYTES_MAX, malformed};
use crate::gap::{Gap, GapReason};
use crate::position::JournalPosition;
use crate::stream::StreamDefinition;

pub(crate) const DEFINITION: u8 = 1;
pub(crate) const ENVELOPES: u8 = 2;
pub(crate) const BATCHES: u8 = 3;
pub(crate) const EVENT: u8 = 4;
pub(crate) const GAP: u8 = 5;
pub(crate) const LOG_START: u8 = 6;
pub(crate) const STREAM_REMOVED: u8 = 7;
pub(crate) const LANE_STATE: u8 = 16;
pub(crate) const STREAM_STATE: u8 = 17;
pub(crate) const PRODUCERS: u8 = 18;
pub(crate) const OWNER_STATE: u8 = 19;
pub(crate) const BAD_SLOTS: u8 = 65;
pub(crate) const STAMPS: u8 = 66;
pub(crate) const UNVOUCHED_COPIES: u8 = 67;
const AFTER_UNVOUCHED_COPIES: u8 = UNVOUCHED_COPIES + 1;
/// From here on a tag is followed by a length.
#[cfg(test)]
pub(crate) const SKIPPABLE: u8 = 64;
pub(crate) const COPIES: u8 = 64;

/// One entry, borrowed from the body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry<'a> {
    Definition(DefinitionRef<'a>),
    /// The columns: skipped, whoever wants them reads them from here.
    Envelopes(&'a [u8]),
    Batches(&'a [u8]),
    Event {
        tag: u16,
        bytes: &'a [u8],
    },
    Gap(Gap),
    LogStart {
        stream: StreamId,
        offset: Offset,
    },
    StreamRemoved(StreamId),
    LaneState(&'a [u8]),
    StreamState(&'a [u8]),
    Producers {
        stream: StreamId,
        bytes: &'a [u8],
    },
    OwnerState(&'a [u8]),
    /// The runs of one stream.
    Copies(&'a [u8]),
    BadSlots(&'a [u8]),
    /// Whose clocks stamped the batches of a copied group.
    Stamps(&'a [u8]),
    /// The runs of one stream that hold such batches.
    UnvouchedCopies(&'a [u8]),
    Unknown,
}

/// A definition, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DefinitionRef<'a> {
    pub(crate) stream: StreamId,
    pub(crate) topic: &'a str,
    pub(crate) topic_id: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) partition_count: u32,
}

impl DefinitionRef<'_> {
    pub(crate) fn to_owned(self) -> StreamDefinition {
        StreamDefinition {
            stream: self.stream,
            topic: self.topic.to_owned(),
            topic_id: self.topic_id,
            partition: self.partition,
            partition_count: self.partition_count,
        }
    }
}

pub(crate) fn put_definition(out: &mut Vec<u8>, definition: &StreamDefinition) {
    out.push(DEFINITION);
    put_unsigned(out, u64::from(definition.stream.0));
    out.extend_from_slice(&definition.topic_id.0);
    put_unsigned(out, u64::from(definition.partition.0));
    put_unsigned(out, u64::from(definition.partition_count));
    put_bytes(out, definition.topic.as_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_unsigned(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_event(out: &mut Vec<u8>, tag: u16, bytes: &[u8]) {
    out.push(EVENT);
    put_unsigned(out, u64::from(tag));
    put_bytes(out, bytes);
}

pub(crate) fn put_gap(out: &mut Vec<u8>, gap: &Gap) {
    out.push(GAP);
    put_unsigned(out, u64::from(gap.stream.0));
    put_unsigned(out, gap.from.0);
    put_unsigned(out, gap.to.0.saturating_sub(gap.from.0));
    out.push(gap.reason.to_byte());
    put_unsigned(out, gap.at.segment);
    put_unsigned(out, u64::from(gap.at.byte));
    put_varlong(out, gap.wall_us);
    if let Some(parameter) = gap.reason.parameter() {
        put_unsigned(out, u64::from(parameter));
    }
}

pub(crate) fn put_log_start(out: &mut Vec<u8>, stream: StreamId, offset: Offset) {
    out.push(LOG_START);
    put_unsigned(out, u64::from(stream.0));
    put_unsigned(out, offset.0);
}

pub(crate) fn put_stream_removed(out: &mut Vec<u8>, stream: StreamId) {
    out.push(STREAM_REMOVED);
    put_unsigned(out, u64::from(stream.0));
}

/// Walks a body. Ends at the first error, which it returns.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn read(&mut self) -> Result<Entry<'a>, Malformed> {
        let input = &mut self.rest;
        let tag = get_byte(input)?;
        Ok(match tag {
            DEFINITION => Entry::Definition(get_definition(input)?),
            ENVELOPES => {
                let columns = *input;
                get_unsigned(input)?;
                skip_columns(input, ENVELOPE_COLUMNS)?;
                Entry::Envelopes(columns)
            }
            BATCHES => {
                let columns = *input;
                skip_columns(input, BATCH_COLUMNS)?;
                Entry::Batches(columns)
            }
            EVENT => {
                let Ok(tag) = u16::try_from(get_unsigned(input)?) else {
                    return malformed("an event tag does not fit");
                };
                Entry::Event { tag, bytes: get_bytes(input)? }
            }
            GAP => Entry::Gap(get_gap(input)?),
            LOG_START => Entry::LogStart { stream: get_stream(input)?, offset: get_offset(input)? },
            STREAM_REMOVED => Entry::StreamRemoved(get_stream(input)?),
            LANE_STATE => Entry::LaneState(get_bytes(input)?),
            STREAM_STATE => Entry::StreamState(get_bytes(input)?),
            PRODUCERS => Entry::Producers { stream: get_stream(input)?, bytes: get_bytes(input)? },
            OWNER_STATE => Entry::OwnerState(get_bytes(input)?),
            COPIES => Entry::Copies(get_bytes(input)?),
            BAD_SLOTS => Entry::BadSlots(get_bytes(input)?),
            STAMPS => Entry::Stamps(get_bytes(input)?),
            UNVOUCHED_COPIES => Entry::UnvouchedCopies(get_bytes(input)?),
            AFTER_UNVOUCHED_COPIES.. => {
                get_bytes(input)?;
                Entry::Unknown
            }
            _ => return malformed("an entry of an unknown kind"),
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

pub(crate) fn get_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let Ok(len) = usize::try_from(get_unsigned(input)?) else {
        return malformed("a length does not fit");
    };
    Ok(get_slice(input, len)?)
}

pub(crate) fn get_u32_varint(input: &mut &[u8]) -> Result<u32, Malformed> {
    match u32::try_from(get_unsigned(input)?) {
        Ok(value) => Ok(value),
        Err(_) => malformed("a number does not fit"),
    }
}

pub(crate) fn get_stream(input: &mut &[u8]) -> Result<StreamId, Malformed> {
    Ok(StreamId(get_u32_varint(input)?))
}

pub(crate) fn get_offset(input: &mut &[u8]) -> Result<Offset, Malformed> {
    let offset = get_unsigned(input)?;
    if offset > i64::MAX as u64 {
        return malformed("an offset does not fit");
    }
    Ok(Offset(offset))
}

fn get_definition<'a>(input: &mut &'a [u8]) -> Result<DefinitionRef<'a>, Malformed> {
    let stream = get_stream(input)?;
    let mut topic_id = TopicId::default();
    topic_id.0.copy_from_slice(get_slice(input, 16)?);
    let partition = PartitionId(get_u32_varint(input)?);
    let partition_count = get_u32_varint(input)?;
    let topic = get_bytes(input)?;
    match std::str::from_utf8(topic) {
        Ok(topic) if topic.len() <= TOPIC_BYTES_MAX => {
            Ok(DefinitionRef { stream, topic, topic_id, partition, partition_count })
        }
        _ => malformed("a topic name is not one"),
    }
}

fn get_gap(input: &mut &[u8]) -> Result<Gap, Malformed> {
    let stream = get_stream(input)?;
    let from = get_offset(input)?;
    let to = from.plus(get_unsigned(input)?);
    let reason = GapReason::from_byte(get_byte(input)?);
    let segment = get_unsigned(input)?;
    let byte = get_u32_varint(input)?;
    let wall_us = get_varlong(input)?;
    let reason = match reason.parameter() {
        Some(_) => reason.with_parameter(get_u32_varint(input)?),
        None => reason,
    };
    if to.0 > i64::MAX as u64 {
        return malformed("an offset does not fit");
    }
    Ok(Gap { stream, from, to, reason, at: JournalPosition { segment, byte }, wall_us })
}

const ENVELOPE_COLUMNS: usize = 4;
const BATCH_COLUMNS: usize = 6;

fn skip_columns(input: &mut &[u8], count: usize) -> Result<(), Malformed> {
    for _ in 0..count {
        get_bytes(input)?;
    }
    Ok(())
}

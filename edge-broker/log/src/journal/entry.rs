//! Entries of a group's body: a tag byte, then fields as varints (unsigned LEB128 unless it says zigzag).
//!
//! ```text
//!  1 definition        stream, topic id (16 bytes), partition, partition count, length, topic
//!  2 envelope          length, key section and headers section (Kafka's record encoding); numbered from 0
//!  3 built batch of 1  zigzag base timestamp - that of the batch entry before (0), envelope, value length + 1
//!                      (0 = null), value
//!  4 built batch       zigzag base timestamp as in 3, max timestamp - base, bytes of the records, then each
//!                      record: zigzag timestamp - base, envelope, value length + 1 (0 = null), value
//!  5 producer batch    fields below, bytes, records section as the producer wrote it, not compressed
//!  6 packed batch      fields below, bytes in the raw section (in the order of these entries)
//!                      fields: attributes, zigzag base timestamp as in 3, zigzag max timestamp - base, offsets
//!                      covered - number of records, producer id + 1 (0 = none), then if there is one: epoch,
//!                      base sequence
//!  7 event             tag, length, bytes (the owner's)
//!  8 gap               stream, from, to - from, reason (byte), segment, byte, zigzag wall clock in us
//!  9 log start         stream, offset
//! 10 stream removed    stream
//! 16 lane state        length, fields (checkpoint.rs); 17 stream state likewise
//! 18 producers         stream, length, ProducerTable of edge-wire
//! 19 owner state       length, bytes
//! 64... unknown        length, bytes: skipped
//! ```
//!
//! Batch entries stand in the order of the group's directory, which has their streams, offsets and counts. What
//! a Kafka batch has beyond these fields is constant or follows from them: it is rebuilt on read, bit for bit.

use edge_wire::varint::{
    get_byte, get_slice, get_unsigned, get_varlong, put_unsigned, put_varlong,
};
use edge_wire::{Offset, PartitionId, ProducerId, ProducerStamp, StreamId, TopicId};

use super::format::{Malformed, TOPIC_BYTES_MAX, malformed};
use crate::gap::{Gap, GapReason};
use crate::position::JournalPosition;
use crate::stream::StreamDefinition;

pub(crate) const DEFINITION: u8 = 1;
pub(crate) const ENVELOPE: u8 = 2;
pub(crate) const BUILT_ONE: u8 = 3;
pub(crate) const BUILT: u8 = 4;
pub(crate) const PRODUCER_PLAIN: u8 = 5;
pub(crate) const PRODUCER_PACKED: u8 = 6;
pub(crate) const EVENT: u8 = 7;
pub(crate) const GAP: u8 = 8;
pub(crate) const LOG_START: u8 = 9;
pub(crate) const STREAM_REMOVED: u8 = 10;
pub(crate) const LANE_STATE: u8 = 16;
pub(crate) const STREAM_STATE: u8 = 17;
pub(crate) const PRODUCERS: u8 = 18;
pub(crate) const OWNER_STATE: u8 = 19;
/// From here on a tag is followed by a length.
pub(crate) const SKIPPABLE: u8 = 64;

/// One entry, borrowed from the body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry<'a> {
    Definition(DefinitionRef<'a>),
    Envelope(&'a [u8]),
    Batch(BatchEntry<'a>),
    Event { tag: u16, bytes: &'a [u8] },
    Gap(Gap),
    LogStart { stream: StreamId, offset: Offset },
    StreamRemoved(StreamId),
    LaneState(&'a [u8]),
    StreamState(&'a [u8]),
    Producers { stream: StreamId, bytes: &'a [u8] },
    OwnerState(&'a [u8]),
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

/// Fields of a batch that a producer built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerFields {
    pub(crate) attributes: u16,
    /// Offsets covered minus number of records.
    pub(crate) missing: u32,
    pub(crate) stamp: Option<ProducerStamp>,
}

/// Where a batch's records are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BatchForm<'a> {
    /// One record of a built batch: envelope, value.
    BuiltOne(&'a [u8]),
    /// Records of a built batch.
    Built(&'a [u8]),
    /// A records section.
    Plain(ProducerFields, &'a [u8]),
    /// So many bytes of the raw section.
    Packed(ProducerFields, u32),
}

/// A batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchEntry<'a> {
    pub(crate) base_timestamp_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) form: BatchForm<'a>,
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

/// Appends the fields that a plain and a packed producer batch share.
pub(crate) fn put_producer_fields(
    out: &mut Vec<u8>,
    fields: &ProducerFields,
    base_timestamp_delta: i64,
    max_minus_base: i64,
) {
    put_unsigned(out, u64::from(fields.attributes));
    put_varlong(out, base_timestamp_delta);
    put_varlong(out, max_minus_base);
    put_unsigned(out, u64::from(fields.missing));
    match fields.stamp {
        None => put_unsigned(out, 0),
        Some(stamp) => {
            put_unsigned(out, stamp.id.0 + 1);
            put_unsigned(out, stamp.epoch as u64);
            put_unsigned(out, stamp.base_sequence as u64);
        }
    }
}

/// Walks a body. Ends at the first error, which it returns.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
    base_timestamp_ms: i64,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body, base_timestamp_ms: 0 }
    }

    fn read(&mut self) -> Result<Entry<'a>, Malformed> {
        let input = &mut self.rest;
        let tag = get_byte(input)?;
        Ok(match tag {
            DEFINITION => Entry::Definition(get_definition(input)?),
            ENVELOPE => Entry::Envelope(get_bytes(input)?),
            BUILT_ONE | BUILT | PRODUCER_PLAIN | PRODUCER_PACKED => {
                let batch = get_batch(tag, input, self.base_timestamp_ms)?;
                self.base_timestamp_ms = batch.base_timestamp_ms;
                Entry::Batch(batch)
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
            SKIPPABLE.. => {
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
    if to.0 > i64::MAX as u64 {
        return malformed("an offset does not fit");
    }
    Ok(Gap { stream, from, to, reason, at: JournalPosition { segment, byte }, wall_us })
}

fn get_batch<'a>(
    tag: u8,
    input: &mut &'a [u8],
    previous_base: i64,
) -> Result<BatchEntry<'a>, Malformed> {
    if tag == BUILT_ONE || tag == BUILT {
        let base = previous_base.wrapping_add(get_varlong(input)?);
        if tag == BUILT_ONE {
            let record = get_built_one(input)?;
            let form = BatchForm::BuiltOne(record);
            return Ok(BatchEntry { base_timestamp_ms: base, max_timestamp_ms: base, form });
        }
        let max = base.wrapping_add(get_unsigned(input)? as i64);
        let form = BatchForm::Built(get_bytes(input)?);
        return Ok(BatchEntry { base_timestamp_ms: base, max_timestamp_ms: max, form });
    }
    let Ok(attributes) = u16::try_from(get_unsigned(input)?) else {
        return malformed("batch attributes do not fit");
    };
    let base = previous_base.wrapping_add(get_varlong(input)?);
    let max = base.wrapping_add(get_varlong(input)?);
    let missing = get_u32_varint(input)?;
    let stamp = match get_unsigned(input)? {
        0 => None,
        id => {
            let epoch = i16::try_from(get_unsigned(input)?);
            let base_sequence = i32::try_from(get_unsigned(input)?);
            let (Ok(epoch), Ok(base_sequence)) = (epoch, base_sequence) else {
                return malformed("a producer epoch or sequence does not fit");
            };
            Some(ProducerStamp { id: ProducerId(id - 1), epoch, base_sequence })
        }
    };
    let fields = ProducerFields { attributes, missing, stamp };
    let form = if tag == PRODUCER_PLAIN {
        BatchForm::Plain(fields, get_bytes(input)?)
    } else {
        BatchForm::Packed(fields, get_u32_varint(input)?)
    };
    Ok(BatchEntry { base_timestamp_ms: base, max_timestamp_ms: max, form })
}

/// The bytes of an envelope number and a value.
fn get_built_one<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let start = *input;
    get_unsigned(input)?;
    get_value(input)?;
    Ok(&start[..start.len() - input.len()])
}

/// `value length + 1, value`; 0 is Kafka's null.
#[inline]
pub(crate) fn get_value<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let len = get_unsigned(input)?;
    if len == 0 {
        return Ok(None);
    }
    let Ok(len) = usize::try_from(len - 1) else {
        return malformed("a length does not fit");
    };
    Ok(Some(get_slice(input, len)?))
}

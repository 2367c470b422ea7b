//! A commit group in memory, ready to be read.
//!
//! Limits: a group takes its unpacked body, its raw section and a table of some 48 bytes a batch. Groups are
//! shared by all readers and never change. What is stored reducible to RecordBatch v2 becomes one here, bit for
//! bit: the frame's CRC was checked when the group was read, the batch's CRC is computed anew.

use edge_wire::record::record_len;
use edge_wire::record_batch::{complete_header, reserve_header};
use edge_wire::varint::get_varint;
use edge_wire::{
    Attributes, BATCH_HEADER_BYTES, BatchHeader, Compression, Offset, ProducerStamp, RecordTail,
    Records, StreamId, put_record, write_batch,
};
use thiserror::Error;

use crate::clock::ClockState;
use crate::gap::Gap;
use crate::journal::batches::{BatchSlot, BatchTable, Form, ProducerFields};
use crate::journal::entry::{Entries, Entry};
use crate::journal::envelopes::{EnvelopeTable, get_envelopes};
use crate::journal::format::{Malformed, malformed};
use crate::journal::frame::{FLAG_STATE, FrameHeader};
use crate::position::JournalPosition;
use crate::stream::StreamDefinition;

/// Most bytes that a producer's compressed batch may unpack to while its records are visited.
pub const UNPACKED_BATCH_BYTES_MAX: usize = 64 << 20;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupKind {
    /// Records, events, changes.
    Data,
    /// Records that stand in an older segment too and were copied forward; never sent upstream twice.
    Copied,
    /// Only gap entries.
    Gap,
    /// Nothing: it proves the group before it.
    Seal,
    /// The state of the lane at the head of a segment.
    Checkpoint,
    /// A kind that a newer program wrote.
    Other(u8),
}

impl GroupKind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Copied => 2,
            Self::Gap => 3,
            Self::Seal => 4,
            Self::Checkpoint => 5,
            Self::Other(byte) => byte,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Data,
            2 => Self::Copied,
            3 => Self::Gap,
            4 => Self::Seal,
            5 => Self::Checkpoint,
            byte => Self::Other(byte),
        }
    }

    /// Whether the body has entries for readers.
    pub(crate) fn has_entries(self) -> bool {
        matches!(self, Self::Data | Self::Copied | Self::Gap)
    }
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// What it is for.
    pub kind: GroupKind,
    /// Counts the groups of the lane. A number is left out where a recovery skipped a suspect tail.
    pub sequence: u64,
    /// Boot in which it was written.
    pub boot_id: u64,
    /// Time since that boot.
    pub boottime_us: u64,
    /// Wall clock.
    pub wall_us: i64,
    /// How far the wall clock can be trusted.
    pub clock_state: ClockState,
    /// Number of offsets that all its batches cover.
    pub records: u32,
}

/// A decoded commit group.
#[derive(Debug)]
pub struct DecodedGroup {
    header: GroupHeader,
    position: JournalPosition,
    next: JournalPosition,
    has_state: bool,
    body: Vec<u8>,
    raw: Vec<u8>,
    batches: BatchTable,
    envelopes: EnvelopeTable,
}

impl DecodedGroup {
    /// Reads the tables of a group whose CRCs were checked. `body` is unpacked.
    pub(crate) fn parse(
        header: &FrameHeader,
        directory: &[u8],
        body: Vec<u8>,
        raw: Vec<u8>,
    ) -> Result<Self, Malformed> {
        let mut group = Self {
            header: header.group(),
            position: header.position,
            next: header.end(),
            has_state: header.flags & FLAG_STATE != 0 && header.kind.has_entries(),
            body,
            raw,
            batches: BatchTable::default(),
            envelopes: EnvelopeTable::default(),
        };
        if header.kind.has_entries() {
            group.parse_entries(directory, header.segment_bytes as usize / 2)?;
        }
        Ok(group)
    }

    fn parse_entries(&mut self, directory: &[u8], bytes_max: usize) -> Result<(), Malformed> {
        let mut has_batches = false;
        for entry in Entries::new(&self.body) {
            match entry? {
                Entry::Envelopes(mut columns) => {
                    self.envelopes = get_envelopes(&mut columns, bytes_max)?;
                }
                Entry::Batches(mut columns) => {
                    // An entry reaches from where it stands to the end of the body.
                    let at = self.body.len() - columns.len();
                    self.batches = BatchTable::get(
                        &mut columns,
                        at,
                        &self.body,
                        directory,
                        self.raw.len(),
                        self.envelopes.slots.len(),
                    )?;
                    has_batches = true;
                }
                _ => {}
            }
        }
        if !has_batches && !directory.is_empty() {
            return malformed("a directory without batches");
        }
        Ok(())
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> JournalPosition {
        self.position
    }

    /// Where the next group stands or will stand.
    #[must_use]
    pub fn next(&self) -> JournalPosition {
        self.next
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &GroupHeader {
        &self.header
    }

    /// Its batches: by stream id, those of one stream in offset order.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = BatchRef<'_>> {
        self.batches.slots.iter().map(|slot| BatchRef { group: self, slot })
    }

    /// The batches of one stream, in offset order.
    pub fn batches_of(&self, stream: StreamId) -> impl ExactSizeIterator<Item = BatchRef<'_>> {
        let slots = &self.batches.slots;
        let start = slots.partition_point(|slot| slot.stream < stream);
        let count = slots[start..].partition_point(|slot| slot.stream == stream);
        slots[start..start + count].iter().map(|slot| BatchRef { group: self, slot })
    }

    /// The owner's events, in order.
    pub fn events(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.state_entries().filter_map(|entry| match entry {
            Entry::Event { tag, bytes } => Some((tag, bytes)),
            _ => None,
        })
    }

    /// Stream definitions.
    #[must_use]
    pub fn definitions(&self) -> Vec<StreamDefinition> {
        self.state_entries()
            .filter_map(|entry| match entry {
                Entry::Definition(definition) => Some(definition.to_owned()),
                _ => None,
            })
            .collect()
    }

    /// Gaps told by this group.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        self.state_entries()
            .filter_map(|entry| match entry {
                Entry::Gap(gap) => Some(gap),
                _ => None,
            })
            .collect()
    }

    /// Entries that are neither batches nor envelopes, if there are any.
    pub(crate) fn state_entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let body: &[u8] = if self.has_state { &self.body } else { &[] };
        // The body was walked when the group was parsed, so there is no error to miss.
        Entries::new(body).map_while(Result::ok)
    }

    /// Memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.body.capacity()
            + self.raw.capacity()
            + self.batches.memory_bytes()
            + self.envelopes.memory_bytes()
    }

    /// Takes the large buffers out, for use by another group.
    pub(crate) fn into_buffers(self) -> [Vec<u8>; 2] {
        [self.body, self.raw]
    }
}

/// A batch in a decoded group.
#[derive(Clone, Copy, Debug)]
pub struct BatchRef<'a> {
    group: &'a DecodedGroup,
    slot: &'a BatchSlot,
}

/// Why a batch cannot be unpacked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The producer's own compression is damaged or expands beyond the bound. What was stored is as it came.
    #[error(
        "the producer's batch at offset {offset} of stream {stream} cannot be unpacked: {reason}"
    )]
    Batch {
        /// The stream.
        stream: StreamId,
        /// The batch's base offset.
        offset: Offset,
        /// In the codec's words.
        reason: String,
    },
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// `varint count, headers` as in a Kafka record.
    pub headers_section: &'a [u8],
    /// The value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// One record of a built batch.
struct Built<'a> {
    timestamp_ms: i64,
    key_section: &'a [u8],
    headers_section: &'a [u8],
    value: Option<&'a [u8]>,
}

impl<'a> BatchRef<'a> {
    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.slot.stream
    }

    /// Offset of its first record.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.slot.base
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.slot.count - self.producer_fields().map_or(0, |fields| fields.missing)
    }

    /// Offset of its last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.slot.base.plus(u64::from(self.slot.count) - 1)
    }

    /// The offset behind its last record.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.slot.base.plus(u64::from(self.slot.count))
    }

    /// Base timestamp, ms.
    #[must_use]
    pub fn base_timestamp_ms(&self) -> i64 {
        self.slot.base_timestamp_ms
    }

    /// Highest timestamp, ms.
    #[must_use]
    pub fn max_timestamp_ms(&self) -> i64 {
        self.slot.max_timestamp_ms
    }

    /// It stands in an older segment too.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        self.group.header.kind == GroupKind::Copied
    }

    /// How the producer compressed it.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.attributes().compression()
    }

    /// Codec and flags, as in a Kafka batch.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        self.producer_fields()
            // Checked when the group was parsed.
            .and_then(|fields| Attributes::from_bits(fields.attributes as i16))
            .unwrap_or_default()
    }

    /// The idempotent producer's stamp.
    #[must_use]
    pub fn producer(&self) -> Option<ProducerStamp> {
        self.producer_fields()?.stamp
    }

    fn producer_fields(&self) -> Option<&'a ProducerFields> {
        match self.slot.form {
            Form::Plain(index) | Form::Packed(index) => {
                self.group.batches.producers.get(index as usize)
            }
            Form::Built => None,
        }
    }

    /// The stored records section of a batch that a producer built, compressed or not.
    #[must_use]
    pub fn raw_records(&self) -> Option<&'a [u8]> {
        match self.slot.form {
            Form::Plain(_) | Form::Packed(_) => Some(self.stored()),
            Form::Built => None,
        }
    }

    /// Bytes of the records as stored in the group, before the group's own compression.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.slot.bytes as usize
    }

    fn stored(&self) -> &'a [u8] {
        match self.slot.form {
            Form::Packed(_) => {
                &self.group.raw[self.slot.start as usize..][..self.slot.bytes as usize]
            }
            _ => self.group.batches.stored(self.slot, &self.group.body),
        }
    }

    fn batch_header(&self) -> BatchHeader {
        BatchHeader {
            base_offset: self.slot.base,
            partition_leader_epoch: 0,
            crc: 0,
            attributes: self.attributes(),
            last_offset_delta: self.slot.count - 1,
            base_timestamp: self.slot.base_timestamp_ms,
            max_timestamp: self.slot.max_timestamp_ms,
            producer: self.producer(),
            record_count: self.count(),
        }
    }

    /// Appends the whole RecordBatch v2, CRC included, partition leader epoch 0.
    pub fn write_record_batch(&self, out: &mut Vec<u8>) {
        if let Some(records) = self.raw_records() {
            write_batch(&self.batch_header(), records, out);
            return;
        }
        let start = reserve_header(out);
        let mut offset_delta = 0;
        self.for_each_built(&mut |record| {
            put_record(out, offset_delta, self.delta(&record), record.tail());
            offset_delta += 1;
        });
        complete_header(&mut out[start..], &self.batch_header());
    }

    /// Bytes that [`write_record_batch`](Self::write_record_batch) appends.
    #[must_use]
    pub fn record_batch_bytes(&self) -> usize {
        if let Some(records) = self.raw_records() {
            return BATCH_HEADER_BYTES + records.len();
        }
        let (mut bytes, mut offset_delta) = (BATCH_HEADER_BYTES, 0);
        self.for_each_built(&mut |record| {
            bytes += record_len(offset_delta, self.delta(&record), record.tail());
            offset_delta += 1;
        });
        bytes
    }

    /// Visits every record in order. Those of a built batch are not copied; a producer's compressed batch is
    /// unpacked, to at most [`UNPACKED_BATCH_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// A producer's batch cannot be unpacked; the records before the damage were visited.
    pub fn for_each_record(&self, visit: &mut dyn FnMut(RecordRef<'_>)) -> Result<(), UnpackError> {
        let Some(stored) = self.raw_records() else {
            let mut offset = self.slot.base;
            self.for_each_built(&mut |record| {
                visit(RecordRef {
                    offset,
                    timestamp_ms: record.timestamp_ms,
                    key: key_of(record.key_section),
                    headers_section: record.headers_section,
                    value: record.value,
                });
                offset = offset.plus(1);
            });
            return Ok(());
        };
        let mut unpacked = Vec::new();
        let failed = |reason: String| UnpackError::Batch {
            stream: self.slot.stream,
            offset: self.slot.base,
            reason,
        };
        let section = match self.compression() {
            Compression::None => stored,
            codec => {
                codec
                    .decompress(stored, UNPACKED_BATCH_BYTES_MAX, &mut unpacked)
                    .map_err(|error| failed(error.to_string()))?;
                &unpacked
            }
        };
        let append_time =
            self.attributes().timestamp_type() == edge_wire::TimestampType::LogAppendTime;
        for record in Records::new(section, self.count()) {
            let record = record.map_err(|error| failed(error.to_string()))?;
            let timestamp_ms = if append_time {
                self.slot.max_timestamp_ms
            } else {
                self.slot.base_timestamp_ms.wrapping_add(record.timestamp_delta)
            };
            visit(RecordRef {
                offset: self.slot.base.plus(u64::from(record.offset_delta.unsigned_abs())),
                timestamp_ms,
                key: record.key,
                headers_section: record.headers.section(),
                value: record.value,
            });
        }
        Ok(())
    }

    fn delta(&self, record: &Built<'_>) -> i64 {
        record.timestamp_ms.wrapping_sub(self.slot.base_timestamp_ms)
    }

    /// Visits the records of a built batch. They were walked when the group was parsed.
    fn for_each_built(&self, visit: &mut dyn FnMut(Built<'a>)) {
        let group = self.group;
        let visited = group.batches.for_each(self.slot, &group.body, &mut |record| {
            let Some(slot) = group.envelopes.slots.get(record.envelope as usize) else { return };
            let bytes = &group.envelopes.bytes;
            visit(Built {
                timestamp_ms: record.timestamp_ms,
                key_section: &bytes[slot.start as usize..slot.key_end as usize],
                headers_section: &bytes[slot.key_end as usize..slot.end as usize],
                value: record.value,
            });
        });
        debug_assert!(visited.is_ok(), "a record that was walked cannot be read");
    }
}

impl<'a> Built<'a> {
    fn tail(&self) -> RecordTail<'a> {
        RecordTail {
            key_section: self.key_section,
            value: self.value,
            headers_section: self.headers_section,
        }
    }
}

fn key_of(mut key_section: &[u8]) -> Option<&[u8]> {
    let len = get_varint(&mut key_section).ok()?;
    if len < 0 { None } else { Some(key_section) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edge_wire::{Envelope, RecordBatchBuilder};
    use proptest::prelude::*;

    use super::*;
    use crate::journal::frame::BodyCodec;
    use crate::lane::pending::{Closed, Pending};
    use crate::lane::streams::{Stream, StreamTable};
    use crate::shared::StreamShared;
    use crate::stream_index::TailIndex;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: GroupKind::Data,
            flags: FLAG_STATE,
            codec: BodyCodec::Plain,
            sector_bytes: 512,
            salt: 1,
            sequence: 1,
            position: JournalPosition { segment: 1, byte: 512 },
            records: 0,
            proven_end: JournalPosition { segment: 1, byte: 512 },
            journal_start: 1,
            clock: crate::ClockReading::default(),
            directory_bytes: 0,
            directory_crc: 0,
            previous_directory_bytes: 0,
            previous_directory_crc: 0,
            body_stored_bytes: 0,
            body_bytes: 0,
            raw_bytes: 0,
            body_crc: 0,
            segment_bytes: 1 << 20,
        }
    }

    /// A group with every kind of entry.
    fn sample() -> Closed {
        let mut streams = StreamTable::default();
        let mut pending = Pending::default();
        for id in 0..3u32 {
            let shared = Arc::new(StreamShared::new(Offset(0), Offset(0), TailIndex::default()));
            let definition = StreamDefinition {
                stream: StreamId(id),
                topic: format!("topic {id}"),
                topic_id: edge_wire::TopicId([3; 16]),
                partition: edge_wire::PartitionId(id),
                partition_count: 3,
            };
            streams.insert(Stream::new(definition, shared, Offset(u64::from(id) * 100), None));
        }
        let envelope = Arc::new(Envelope::new(Some(b"key"), &[]));
        for index in 0..20u32 {
            let envelope = pending.envelope(&envelope);
            let value = index.to_le_bytes();
            let stream = streams.get_mut(index % 2);
            pending.push_record(index % 2, stream, envelope, i64::from(index), Some(&value));
        }
        let mut builder = RecordBatchBuilder::new();
        builder.start(Offset(0), 5);
        builder.push(5, None, Some(b"produced"), &[0]);
        for packed in [false, true] {
            let mut batch = Vec::new();
            let codec = if packed { Compression::Zstd } else { Compression::None };
            builder.finish(None, codec, None, &mut batch).unwrap();
            let records = &batch[BATCH_HEADER_BYTES..];
            let fields = ProducerFields {
                attributes: Attributes::new(codec).bits() as u16,
                missing: 0,
                stamp: None,
            };
            let batch = crate::lane::pending::ProducerBatch {
                fields,
                base_timestamp_ms: 5,
                max_timestamp_ms: 5,
                span: 1,
                packed,
                records,
            };
            pending.push_batch(2, streams.get_mut(2), &batch);
        }
        crate::journal::entry::put_event(pending.state(), 7, b"event");
        let mut closed = Closed::default();
        pending.close(&streams, 1, &mut closed);
        closed
    }

    fn read_all(group: &DecodedGroup) -> usize {
        let mut out = Vec::new();
        for batch in group.batches() {
            let _ = batch.for_each_record(&mut |record| out.push(record.offset.0 as u8));
            batch.write_record_batch(&mut out);
            out.resize(out.len() + batch.record_batch_bytes().min(10), 0);
        }
        out.len() + group.events().count() + group.definitions().len() + group.gaps().len()
    }

    #[test]
    fn a_group_has_what_was_put_into_it() {
        let closed = sample();
        let group =
            DecodedGroup::parse(&header(), &closed.directory, closed.body, closed.raw).unwrap();
        let bases: Vec<_> =
            group.batches().map(|b| (b.stream().0, b.base_offset().0, b.count())).collect();
        assert_eq!(bases, [(0, 0, 10), (1, 100, 10), (2, 200, 1), (2, 201, 1)]);
        assert_eq!(group.batches_of(StreamId(2)).len(), 2);
        assert_eq!(group.events().collect::<Vec<_>>(), [(7, &b"event"[..])]);
        assert_eq!(group.definitions().len(), 3);
        assert!(read_all(&group) > 0);
    }

    proptest! {
        /// Behind a CRC that fits: a program that is broken, or someone who wants to break this one.
        #[test]
        fn altered_groups_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            part in 0..4u8,
        ) {
            let mut closed = sample();
            for (at, value) in changes {
                let target = match part {
                    0 => &mut closed.directory,
                    1 => &mut closed.raw,
                    _ => &mut closed.body,
                };
                let at = at.index(target.len());
                target[at] = value;
            }
            if part == 3 {
                let at = cut.index(closed.body.len());
                closed.body.truncate(at);
            }
            let Closed { directory, body, raw, .. } = closed;
            if let Ok(group) = DecodedGroup::parse(&header(), &directory, body, raw) {
                read_all(&group);
            }
        }
    }
}

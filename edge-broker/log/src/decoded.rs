//! A commit group in memory, ready to be read.
//!
//! Limits: a group takes its unpacked body, its raw section and a table of some 48 bytes a batch. Groups are
//! shared by all readers and never change. What is stored reducible to RecordBatch v2 becomes one here, bit for
//! bit: the frame's CRC was checked when the group was read, the batch's CRC is computed anew.

use edge_wire::record::record_len;
use edge_wire::record_batch::{complete_header, reserve_header};
use edge_wire::varint::{get_unsigned, get_varint, get_varlong};
use edge_wire::{
    Attributes, BATCH_HEADER_BYTES, BatchHeader, Compression, Offset, ProducerStamp, RecordTail,
    Records, StreamId, put_record, write_batch,
};
use thiserror::Error;

use crate::clock::ClockState;
use crate::gap::Gap;
use crate::journal::directory::DirectoryReader;
use crate::journal::entry::{BatchForm, Entries, Entry, ProducerFields, get_value};
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
    batches: Vec<BatchSlot>,
    envelopes: Vec<EnvelopeSlot>,
    producers: Vec<ProducerFields>,
}

#[derive(Clone, Copy, Debug)]
struct BatchSlot {
    base: Offset,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    stream: StreamId,
    /// Offsets covered.
    count: u32,
    /// Where the records are in the body, or in the raw section.
    start: u32,
    len: u32,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    BuiltOne,
    Built,
    /// Index into `producers`.
    Plain(u32),
    Packed(u32),
}

#[derive(Clone, Copy, Debug)]
struct EnvelopeSlot {
    start: u32,
    key_end: u32,
    end: u32,
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
            batches: Vec::new(),
            envelopes: Vec::new(),
            producers: Vec::new(),
        };
        if header.kind.has_entries() {
            group.parse_entries(directory)?;
        }
        Ok(group)
    }

    fn parse_entries(&mut self, directory: &[u8]) -> Result<(), Malformed> {
        let mut directory = DirectoryReader::new(directory);
        let mut raw_used = 0u32;
        let at = |part: &[u8]| (part.as_ptr().addr() - self.body.as_ptr().addr()) as u32;
        for entry in Entries::new(&self.body) {
            match entry? {
                Entry::Envelope(bytes) => {
                    let mut rest = bytes;
                    let key_bytes = get_varint(&mut rest)?;
                    if usize::try_from(key_bytes.max(0)).is_ok_and(|len| len > rest.len()) {
                        return malformed("an envelope is shorter than its key");
                    }
                    let start = at(bytes);
                    let key_at = start + (bytes.len() - rest.len()) as u32;
                    self.envelopes.push(EnvelopeSlot {
                        start,
                        key_end: key_at + key_bytes.max(0) as u32,
                        end: start + bytes.len() as u32,
                    });
                }
                Entry::Batch(batch) => {
                    let Some(place) = directory.next().transpose()? else {
                        return malformed("more batches than the directory has");
                    };
                    let (form, start, len) = match batch.form {
                        BatchForm::BuiltOne(record) if place.count == 1 => {
                            (Form::BuiltOne, at(record), record.len() as u32)
                        }
                        BatchForm::BuiltOne(_) => return malformed("a batch of one is not of one"),
                        BatchForm::Built(records) => {
                            (Form::Built, at(records), records.len() as u32)
                        }
                        BatchForm::Plain(fields, records) => {
                            self.producers.push(fields);
                            let index = self.producers.len() as u32 - 1;
                            (Form::Plain(index), at(records), records.len() as u32)
                        }
                        BatchForm::Packed(fields, len) => {
                            self.producers.push(fields);
                            let index = self.producers.len() as u32 - 1;
                            let start = raw_used;
                            raw_used = raw_used.saturating_add(len);
                            if raw_used as usize > self.raw.len() {
                                return malformed("a batch ends behind the raw section");
                            }
                            (Form::Packed(index), start, len)
                        }
                    };
                    if let Form::Plain(index) | Form::Packed(index) = form {
                        let fields = self.producers[index as usize];
                        let known = Attributes::from_bits(fields.attributes as i16).is_some();
                        if !known || fields.missing >= place.count {
                            return malformed("impossible fields of a producer's batch");
                        }
                    }
                    self.batches.push(BatchSlot {
                        base: place.base,
                        base_timestamp_ms: batch.base_timestamp_ms,
                        max_timestamp_ms: batch.max_timestamp_ms,
                        stream: place.stream,
                        count: place.count,
                        start,
                        len,
                        form,
                    });
                }
                _ => {}
            }
        }
        if directory.next().is_some() {
            return malformed("fewer batches than the directory has");
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
        self.batches.iter().map(|slot| BatchRef { group: self, slot })
    }

    /// The batches of one stream, in offset order.
    pub fn batches_of(&self, stream: StreamId) -> impl ExactSizeIterator<Item = BatchRef<'_>> {
        let start = self.batches.partition_point(|slot| slot.stream < stream);
        let count = self.batches[start..].partition_point(|slot| slot.stream == stream);
        self.batches[start..start + count].iter().map(|slot| BatchRef { group: self, slot })
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
            + self.batches.capacity() * size_of::<BatchSlot>()
            + self.envelopes.capacity() * size_of::<EnvelopeSlot>()
            + self.producers.capacity() * size_of::<ProducerFields>()
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
struct BuiltRecord<'a> {
    timestamp_delta: i64,
    envelope: &'a [u8],
    key_bytes: usize,
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
            Form::Plain(index) | Form::Packed(index) => self.group.producers.get(index as usize),
            Form::BuiltOne | Form::Built => None,
        }
    }

    /// The stored records section of a batch that a producer built, compressed or not.
    #[must_use]
    pub fn raw_records(&self) -> Option<&'a [u8]> {
        match self.slot.form {
            Form::Plain(_) | Form::Packed(_) => Some(self.stored()),
            Form::BuiltOne | Form::Built => None,
        }
    }

    /// Bytes of the records as stored in the group, before the group's own compression.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.slot.len as usize
    }

    fn stored(&self) -> &'a [u8] {
        let section = match self.slot.form {
            Form::Packed(_) => &self.group.raw,
            _ => &self.group.body,
        };
        &section[self.slot.start as usize..][..self.slot.len as usize]
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
            let tail = RecordTail {
                key_section: &record.envelope[..record.key_bytes],
                value: record.value,
                headers_section: &record.envelope[record.key_bytes..],
            };
            put_record(out, offset_delta, record.timestamp_delta, tail);
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
            let tail = RecordTail {
                key_section: &record.envelope[..record.key_bytes],
                value: record.value,
                headers_section: &record.envelope[record.key_bytes..],
            };
            bytes += record_len(offset_delta, record.timestamp_delta, tail);
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
                    timestamp_ms: self.slot.base_timestamp_ms.wrapping_add(record.timestamp_delta),
                    key: key_of(&record.envelope[..record.key_bytes]),
                    headers_section: &record.envelope[record.key_bytes..],
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

    /// Visits the records of a built batch. They stand behind a checked CRC, so what cannot be read can only be
    /// a mistake of the program that wrote it: the walk then ends.
    fn for_each_built(&self, visit: &mut dyn FnMut(BuiltRecord<'a>)) {
        let mut input = self.stored();
        let with_timestamp = matches!(self.slot.form, Form::Built);
        for _ in 0..self.slot.count {
            match self.get_built(&mut input, with_timestamp) {
                Ok(record) => visit(record),
                Err(_) => {
                    debug_assert!(false, "a built record cannot be read");
                    return;
                }
            }
        }
    }

    fn get_built(
        &self,
        input: &mut &'a [u8],
        with_timestamp: bool,
    ) -> Result<BuiltRecord<'a>, Malformed> {
        let timestamp_delta = if with_timestamp { get_varlong(input)? } else { 0 };
        let envelope = get_unsigned(input)?;
        let value = get_value(input)?;
        let slot = usize::try_from(envelope).ok().and_then(|at| self.group.envelopes.get(at));
        let Some(slot) = slot else { return malformed("a record names no envelope") };
        Ok(BuiltRecord {
            timestamp_delta,
            envelope: &self.group.body[slot.start as usize..slot.end as usize],
            key_bytes: (slot.key_end - slot.start) as usize,
            value,
        })
    }
}

fn key_of(mut key_section: &[u8]) -> Option<&[u8]> {
    let len = get_varint(&mut key_section).ok()?;
    if len < 0 { None } else { Some(key_section) }
}

//! A group of records that are copied forward: gathered from the segment they stand in, then written as one frame.
//!
//! - Records of built batches of a stream that follow one another become one batch, with holes where records are
//!   left out. Such a batch covers the offsets of all batches it was made from, so that one look at the table of
//!   copies says whether an offset was gone through.
//! - A producer's batch keeps its bytes and its stamp; one that loses records is unpacked, and keeps its stamp.
//! - Times that can be corrected are written corrected. What nobody knows better yet keeps its time and names the
//!   clock that stamped it, so that the truth reaches it when it is found.
//! - Limits: as any group; a batch covers at most [`SPAN_MAX`] offsets unless it came so.

use edge_wire::{
    Attributes, Compression, Envelope, Offset, RecordTail, StreamId, TimestampType, put_record,
};
use hashbrown::HashMap;

use super::pending::{BATCH_OVERHEAD_BYTES, Closed, RECORD_OVERHEAD_BYTES};
use super::streams::StreamTable;
use crate::decoded::{BatchRef, RecordRef};
use crate::journal::batches::{BatchWriter, Marks, ProducerFields};
use crate::journal::directory::{DirectoryEntry, DirectoryWriter};
use crate::journal::entry::{BATCHES, ENVELOPES, put_definition};
use crate::journal::envelope_arena::EnvelopeArena;
use crate::journal::envelopes::EnvelopeWriter;
use crate::journal::format::GROUP_OFFSETS_MAX;
use crate::journal::stamps::{StampClock, StampWriter};

/// Most offsets that a batch made of several covers.
const SPAN_MAX: u64 = 1 << 16;

/// A batch that is being put together.
#[derive(Debug)]
struct Draft {
    stream: StreamId,
    base: Offset,
    end: Offset,
    /// It was a copy before.
    again: bool,
    /// What stamped it, if its times are still to be corrected.
    stamp: Option<StampClock>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Built(Vec<Record>),
    Producer(Box<Produced>),
}

/// A record; its value is in the arena.
#[derive(Clone, Copy, Debug)]
struct Record {
    offset: Offset,
    timestamp_ms: i64,
    envelope: u32,
    start: usize,
    length: Option<u32>,
}

#[derive(Debug)]
struct Produced {
    fields: ProducerFields,
    base_ms: i64,
    max_ms: i64,
    records: Vec<u8>,
    count: u32,
}

/// A record as it is copied.
pub(crate) struct CopiedRecord<'a> {
    pub(crate) offset: Offset,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) headers_section: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

impl<'a> From<&RecordRef<'a>> for CopiedRecord<'a> {
    fn from(record: &RecordRef<'a>) -> Self {
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            headers_section: record.headers_section,
            value: record.value,
        }
    }
}

/// What will be one copied frame.
#[derive(Debug, Default)]
pub(crate) struct CopyGroup {
    drafts: Vec<Draft>,
    /// The draft of each stream that may go on.
    open: HashMap<StreamId, usize>,
    arena: Vec<u8>,
    envelopes: Vec<Envelope>,
    envelope_refs: HashMap<Vec<u8>, u32>,
    bytes: usize,
    offsets: u64,
    records: u64,
}

impl CopyGroup {
    /// Records in it.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether so many more offsets and bytes fit a group of `bytes_max`; an empty one takes anything.
    pub(crate) fn has_room(&self, offsets: u64, bytes: usize, bytes_max: usize) -> bool {
        self.is_empty()
            || (self.bytes + bytes <= bytes_max
                && self.offsets + offsets <= u64::from(GROUP_OFFSETS_MAX))
    }

    /// Goes through the offsets `base..end` of a stream whose records are built: those that are kept follow with
    /// [`CopyGroup::push`]. `again`: they are copies already; such are not put together with others.
    pub(crate) fn cover(
        &mut self,
        stream: StreamId,
        (base, end): (Offset, Offset),
        again: bool,
        stamp: Option<StampClock>,
    ) {
        let last = self.open.get(&stream).map(|index| &mut self.drafts[*index]);
        if let Some(last) = last
            && last.end == base
            && last.again == again
            && last.stamp == stamp
            && end.0 - last.base.0 <= SPAN_MAX
            && matches!(last.content, Content::Built(_))
        {
            last.end = end;
        } else {
            self.open.insert(stream, self.drafts.len());
            let content = Content::Built(Vec::new());
            self.drafts.push(Draft { stream, base, end, again, stamp, content });
            self.bytes += BATCH_OVERHEAD_BYTES;
        }
        self.offsets += end.0 - base.0;
    }

    /// Keeps a record inside what was covered last of its stream.
    pub(crate) fn push(&mut self, stream: StreamId, record: &CopiedRecord<'_>) {
        let envelope = self.envelope(record.key, record.headers_section);
        let Some(index) = self.open.get(&stream) else { return };
        let Content::Built(records) = &mut self.drafts[*index].content else { return };
        debug_assert!(records.last().is_none_or(|last| last.offset < record.offset));
        let start = self.arena.len();
        self.arena.extend_from_slice(record.value.unwrap_or(&[]));
        records.push(Record {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            envelope,
            start,
            length: record.value.map(|value| value.len() as u32),
        });
        self.bytes += record.value.map_or(0, <[u8]>::len) + RECORD_OVERHEAD_BYTES;
        self.records += 1;
    }

    fn envelope(&mut self, key: Option<&[u8]>, headers_section: &[u8]) -> u32 {
        let envelope = Envelope::new(key, headers_section);
        if let Some(known) = self.envelope_refs.get(envelope.as_bytes()) {
            return *known;
        }
        let number = self.envelopes.len() as u32;
        self.bytes += envelope.encoded_len() + RECORD_OVERHEAD_BYTES;
        self.envelope_refs.insert(envelope.as_bytes().to_vec(), number);
        self.envelopes.push(envelope);
        number
    }

    /// Keeps a whole batch.
    pub(crate) fn push_batch(&mut self, batch: &BatchRef<'_>) {
        let (stream, base, end) = (batch.stream(), batch.base_offset(), batch.end_offset());
        let Some(records) = batch.raw_records() else {
            self.cover(stream, (base, end), batch.is_copied(), batch.unknown_stamp());
            // The records of a built batch were walked when its group was read.
            let _ = batch.for_each_unflagged(&mut |record| self.push(stream, &(&record).into()));
            return;
        };
        let produced = Produced {
            fields: ProducerFields {
                attributes: batch.attributes().bits() as u16,
                missing: (end.0 - base.0) as u32 - batch.count(),
                stamp: batch.producer(),
            },
            base_ms: batch.base_timestamp_ms(),
            max_ms: batch.max_timestamp_ms(),
            records: records.to_vec(),
            count: batch.count(),
        };
        self.push_produced(batch, produced);
    }

    /// Keeps some records of a producer's batch, by their place in it.
    pub(crate) fn push_some(&mut self, batch: &BatchRef<'_>, kept: &[bool]) {
        let (base, end) = (batch.base_offset(), batch.end_offset());
        let base_ms = batch.base_timestamp_ms();
        let attributes = batch.attributes();
        let append_time = attributes.timestamp_type() == TimestampType::LogAppendTime;
        let (mut records, mut count, mut max_ms, mut place) = (Vec::new(), 0, i64::MIN, 0);
        let mut key_section = Vec::new();
        let unpacked = batch.for_each_record(&mut |record| {
            place += 1;
            if !kept.get(place - 1).copied().unwrap_or(true) {
                return;
            }
            count += 1;
            max_ms = max_ms.max(record.timestamp_ms);
            let envelope = Envelope::new(record.key, &[]);
            key_section.clear();
            key_section.extend_from_slice(envelope.key_section());
            let tail = RecordTail {
                key_section: &key_section,
                value: record.value,
                headers_section: record.headers_section,
            };
            let delta = if append_time { 0 } else { record.timestamp_ms.wrapping_sub(base_ms) };
            put_record(&mut records, (record.offset.0 - base.0) as i32, delta, tail);
        });
        if unpacked.is_err() {
            return self.push_batch(batch);
        }
        if count == 0 {
            return;
        }
        let plain =
            Attributes::new(Compression::None).with_timestamp_type(attributes.timestamp_type());
        let produced = Produced {
            fields: ProducerFields {
                attributes: plain.bits() as u16,
                missing: (end.0 - base.0) as u32 - count,
                stamp: batch.producer(),
            },
            base_ms,
            max_ms,
            records,
            count,
        };
        self.push_produced(batch, produced);
    }

    fn push_produced(&mut self, batch: &BatchRef<'_>, produced: Produced) {
        let (stream, base, end) = (batch.stream(), batch.base_offset(), batch.end_offset());
        self.open.remove(&stream);
        self.bytes += produced.records.len() + BATCH_OVERHEAD_BYTES;
        self.offsets += end.0 - base.0;
        self.records += u64::from(produced.count);
        let content = Content::Producer(Box::new(produced));
        let (again, stamp) = (batch.is_copied(), batch.unknown_stamp());
        self.drafts.push(Draft { stream, base, end, again, stamp, content });
    }

    /// Streams of which something is kept, by id.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        let mut streams: Vec<_> = self.drafts.iter().map(|draft| draft.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        streams
    }

    /// Leaves out a stream that was removed meanwhile.
    pub(crate) fn forget(&mut self, stream: StreamId) {
        self.drafts.retain(|draft| draft.stream != stream);
        self.open.clear();
        self.records = self.drafts.iter().map(Draft::count).map(u64::from).sum();
    }

    /// Puts the group together as it goes into `segment`. Returns the offsets it covers.
    pub(crate) fn close(
        &mut self,
        streams: &StreamTable,
        segment: u64,
        closed: &mut Closed,
    ) -> u32 {
        closed.directory.clear();
        closed.body.clear();
        closed.raw.clear();
        closed.has_state = false;
        self.drafts.retain(|draft| draft.count() > 0);
        self.open.clear();
        self.drafts.sort_by_key(|draft| (draft.stream, draft.base));
        for stream in self.streams().iter().filter_map(|stream| streams.find(*stream)) {
            let stream = streams.get(stream);
            if stream.defined_in != segment {
                put_definition(&mut closed.body, &stream.definition);
                closed.has_state = true;
            }
        }
        let (mut batches, mut directory) = (BatchWriter::default(), DirectoryWriter::default());
        let mut numbers: Vec<Option<u32>> = vec![None; self.envelopes.len()];
        let (mut named, mut values, mut offsets) = (Vec::new(), Vec::new(), 0);
        let mut stamps = StampWriter::default();
        for draft in &self.drafts {
            let marks = Marks { unvouched: draft.stamp.is_some(), append_time: false };
            if let Some(stamp) = draft.stamp {
                stamps.push(stamp);
            }
            let count = (draft.end.0 - draft.base.0) as u32;
            let entry = DirectoryEntry { stream: draft.stream, base: draft.base, count };
            directory.push(entry, &mut closed.directory);
            offsets += count;
            match &draft.content {
                Content::Built(records) => {
                    push_built(&mut batches, draft.base, count, marks, records);
                    let mut before_ms = None;
                    for record in records {
                        if let Some(before_ms) = before_ms {
                            batches.push_timestamp(record.timestamp_ms, before_ms);
                        }
                        before_ms = Some(record.timestamp_ms);
                        let number = &mut numbers[record.envelope as usize];
                        if number.is_none() {
                            named.push(record.envelope);
                        }
                        *number = Some(batches.push_envelope(*number));
                        batches.push_length(record.length.map_or(0, |length| length + 1));
                        let length = record.length.unwrap_or(0) as usize;
                        values.extend_from_slice(&self.arena[record.start..record.start + length]);
                    }
                }
                Content::Producer(produced) => {
                    closed.has_state = true;
                    let attributes = Attributes::from_bits(produced.fields.attributes as i16);
                    let packed =
                        attributes.is_some_and(|bits| bits.compression() != Compression::None);
                    let bytes = produced.records.len() as u32;
                    let (base_ms, max_ms) = (produced.base_ms, produced.max_ms);
                    let fields = &produced.fields;
                    batches.push_producer(fields, packed, marks, base_ms, max_ms, bytes);
                    let section = if packed { &mut closed.raw } else { &mut values };
                    section.extend_from_slice(&produced.records);
                }
            }
        }
        let body = &mut closed.body;
        if !named.is_empty() {
            body.push(ENVELOPES);
            let mut arena = EnvelopeArena::default();
            self.envelopes.iter().for_each(|envelope| {
                arena.push(envelope.view());
            });
            EnvelopeWriter::default().put(body, &arena, &named);
        }
        stamps.put(body);
        body.push(BATCHES);
        batches.put(body, values.len());
        body.extend_from_slice(&values);
        offsets
    }
}

impl Draft {
    fn count(&self) -> u32 {
        match &self.content {
            Content::Built(records) => records.len() as u32,
            Content::Producer(produced) => produced.count,
        }
    }
}

fn push_built(
    batches: &mut BatchWriter,
    base: Offset,
    count: u32,
    marks: Marks,
    records: &[Record],
) {
    let Some(first) = records.first() else { return };
    let base_ms = first.timestamp_ms;
    let max_ms = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(base_ms);
    if records.len() == count as usize {
        // Each record with its own time.
        batches.push_built(count, base_ms, max_ms, marks);
    } else {
        let offsets = records.iter().map(|record| (record.offset.0 - base.0) as u32);
        batches.push_sparse(base_ms, max_ms, marks, offsets);
    }
}

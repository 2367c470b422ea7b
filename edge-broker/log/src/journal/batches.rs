//! The batches of a group, in columns, in the order of the directory, which has their streams and offsets.
//!
//! ```text
//! column  for each batch its kind: 0 built, 1 of a producer, 2 of a producer and compressed, 3 built with holes; + 4:
//!         stamped by us while the clock was not set (to be corrected); + 8, 0 only: every record has the time of append
//! column  for each batch its fields: zigzag base timestamp - that of the batch before (0);
//!         built, of more than one record: max timestamp - base
//!         built with holes: max timestamp - base, number of records, then for each record its offset - the one
//!         behind the record before it (the first: - the base offset)
//!         of a producer: zigzag max timestamp - base, attributes, offsets covered - number of records, bytes of
//!         the records section, producer id + 1 (0 = none), then if there is one: epoch, base sequence
//! column  for each record of a built batch (with holes or not) but its first: zigzag timestamp - that of the record before
//! column  for each record of a built batch its envelope, as envelopes named so far in the group - its number;
//!         0 = the next one, named now for the first time
//! column  for each record of a built batch: length of the value + 1, 0 = null
//! column  the values of built batches and the records sections of producers, in order
//! ```
//!
//! A column is a length and its bytes. The records section of a compressed batch is in the raw section of the
//! frame instead, in the same order. The first record of a built batch has the base timestamp. Batches with holes
//! are what cleaning and thinning leave; they cover the offsets of what was removed. What a Kafka batch
//! has beyond these fields is constant or follows from them: it is rebuilt on read, bit for bit.

use edge_wire::varint::{get_unsigned, get_varlong, put_unsigned, put_varlong};
use edge_wire::{Attributes, Offset, ProducerId, ProducerStamp, StreamId};

use super::directory::DirectoryReader;
use super::entry::{get_bytes, get_u32_varint, put_bytes};
use super::format::{Malformed, malformed};

const BUILT: u8 = 0;
const PLAIN: u8 = 1;
const PACKED: u8 = 2;
const SPARSE: u8 = 3;
const UNVOUCHED: u8 = 4;
const APPEND_TIME: u8 = 8;
const BUILT_APPEND_TIME: u8 = BUILT | APPEND_TIME;

/// Whose time a batch has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The gateway stamped it before its clock was set.
    pub(crate) unvouched: bool,
    /// Of a built batch: Kafka's LogAppendTime.
    pub(crate) append_time: bool,
}

impl Marks {
    fn bits(self) -> u8 {
        (if self.unvouched { UNVOUCHED } else { 0 })
            | (if self.append_time { APPEND_TIME } else { 0 })
    }

    fn from_kind(kind: u8) -> Self {
        Self { unvouched: kind & UNVOUCHED != 0, append_time: kind & APPEND_TIME != 0 }
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

/// Columns that are being made; kept from group to group.
#[derive(Debug, Default)]
pub(crate) struct BatchWriter {
    kinds: Vec<u8>,
    fields: Vec<u8>,
    timestamps: Vec<u8>,
    envelopes: Vec<u8>,
    lengths: Vec<u8>,
    base_before: i64,
    /// Envelopes named so far, and the number each got.
    named: u32,
}

impl BatchWriter {
    /// Starts anew.
    pub(crate) fn clear(&mut self) {
        for column in [
            &mut self.kinds,
            &mut self.fields,
            &mut self.timestamps,
            &mut self.envelopes,
            &mut self.lengths,
        ] {
            column.clear();
        }
        self.base_before = 0;
        self.named = 0;
    }

    pub(crate) fn push_built(&mut self, count: u32, base_ms: i64, max_ms: i64, marks: Marks) {
        self.push_base(BUILT | marks.bits(), base_ms);
        if count > 1 {
            put_unsigned(&mut self.fields, max_ms.wrapping_sub(base_ms) as u64);
        }
    }

    /// A built batch with holes: `offsets` are those of its records, relative to its base, in order.
    pub(crate) fn push_sparse(
        &mut self,
        base_ms: i64,
        max_ms: i64,
        marks: Marks,
        offsets: impl ExactSizeIterator<Item = u32>,
    ) {
        self.push_base(SPARSE | marks.bits(), base_ms);
        let out = &mut self.fields;
        put_unsigned(out, max_ms.wrapping_sub(base_ms) as u64);
        put_unsigned(out, offsets.len() as u64);
        let mut behind = 0;
        for offset in offsets {
            put_unsigned(out, u64::from(offset - behind));
            behind = offset + 1;
        }
    }

    /// A record's timestamp; not called for the first of a batch.
    #[inline]
    pub(crate) fn push_timestamp(&mut self, timestamp_ms: i64, before_ms: i64) {
        put_varlong(&mut self.timestamps, timestamp_ms.wrapping_sub(before_ms));
    }

    /// A record's envelope: its number, or `None` if it is named for the first time. Returns its number.
    #[inline]
    pub(crate) fn push_envelope(&mut self, number: Option<u32>) -> u32 {
        match number {
            Some(number) => {
                put_unsigned(&mut self.envelopes, u64::from(self.named - number));
                number
            }
            None => {
                self.envelopes.push(0);
                self.named += 1;
                self.named - 1
            }
        }
    }

    /// A record's value: its length + 1, or 0.
    #[inline]
    pub(crate) fn push_length(&mut self, length_plus_one: u32) {
        put_unsigned(&mut self.lengths, u64::from(length_plus_one));
    }

    pub(crate) fn push_producer(
        &mut self,
        fields: &ProducerFields,
        packed: bool,
        marks: Marks,
        base_ms: i64,
        max_ms: i64,
        bytes: u32,
    ) {
        self.push_base(if packed { PACKED } else { PLAIN } | marks.bits(), base_ms);
        let out = &mut self.fields;
        put_varlong(out, max_ms.wrapping_sub(base_ms));
        put_unsigned(out, u64::from(fields.attributes));
        put_unsigned(out, u64::from(fields.missing));
        put_unsigned(out, u64::from(bytes));
        match fields.stamp {
            None => put_unsigned(out, 0),
            Some(stamp) => {
                put_unsigned(out, stamp.id.0 + 1);
                put_unsigned(out, stamp.epoch as u64);
                put_unsigned(out, stamp.base_sequence as u64);
            }
        }
    }

    fn push_base(&mut self, kind: u8, base_ms: i64) {
        self.kinds.push(kind);
        put_varlong(&mut self.fields, base_ms.wrapping_sub(self.base_before));
        self.base_before = base_ms;
    }

    /// Appends all columns but the last, and the length of the last; its bytes follow.
    pub(crate) fn put(&self, out: &mut Vec<u8>, values_bytes: usize) {
        for column in [&self.kinds, &self.fields, &self.timestamps, &self.envelopes, &self.lengths]
        {
            put_bytes(out, column);
        }
        put_unsigned(out, values_bytes as u64);
    }
}

/// A batch in its columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSlot {
    pub(crate) base: Offset,
    pub(crate) base_timestamp_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) stream: StreamId,
    /// Offsets covered.
    pub(crate) count: u32,
    pub(crate) form: Form,
    pub(crate) marks: Marks,
    /// Where its values or its records section begin, in the column or the raw section, and their bytes.
    pub(crate) start: u32,
    pub(crate) bytes: u32,
    /// Where its records begin in the columns of timestamps, envelopes and lengths.
    timestamps_at: u32,
    envelopes_at: u32,
    lengths_at: u32,
    /// Envelopes named before it.
    named: u32,
    /// Of an unvouched one: which clock of the group stamped it, from 1; 0 = the one in the header.
    pub(crate) stamp: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Built,
    /// Number of records, and where their offsets are in the column of fields.
    Sparse {
        records: u32,
        offsets_at: u32,
    },
    /// Index into the producer fields.
    Plain(u32),
    Packed(u32),
}

/// Where a column is in the body.
#[derive(Clone, Copy, Debug, Default)]
struct Column {
    start: u32,
    end: u32,
}

impl Column {
    fn of<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        &body[self.start as usize..self.end as usize]
    }
}

/// The batches of a group.
#[derive(Debug, Default)]
pub(crate) struct BatchTable {
    pub(crate) slots: Vec<BatchSlot>,
    pub(crate) producers: Vec<ProducerFields>,
    fields: Column,
    timestamps: Column,
    envelopes: Column,
    lengths: Column,
    values: Column,
}

/// One record of a built batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuiltRecord<'a> {
    /// Its offset minus that of the batch.
    pub(crate) offset_delta: u32,
    pub(crate) timestamp_ms: i64,
    pub(crate) envelope: u32,
    pub(crate) value: Option<&'a [u8]>,
}

impl BatchTable {
    /// Reads the columns at the front of `input`, which begins `at` bytes into `body`.
    pub(crate) fn get(
        input: &mut &[u8],
        at: usize,
        body: &[u8],
        directory: &[u8],
        raw_bytes: usize,
        envelopes: usize,
    ) -> Result<Self, Malformed> {
        let whole = input.len();
        let mut next = || -> Result<Column, Malformed> {
            let bytes = get_bytes(input)?;
            let end = (at + whole - input.len()) as u32;
            Ok(Column { start: end - bytes.len() as u32, end })
        };
        let (kinds, fields_column) = (next()?, next()?);
        let mut table = Self {
            fields: fields_column,
            timestamps: next()?,
            envelopes: next()?,
            lengths: next()?,
            values: next()?,
            ..Self::default()
        };
        let kinds = kinds.of(body);
        let mut fields = fields_column.of(body);
        let mut walk = Walk {
            timestamps: table.timestamps.of(body),
            envelopes: table.envelopes.of(body),
            lengths: table.lengths.of(body),
            named: 0,
        };
        let (mut values_used, mut raw_used, mut base_before) = (0u64, 0u64, 0i64);
        let mut directory = DirectoryReader::new(directory);
        table.slots.reserve_exact(kinds.len());
        for kind in kinds {
            let Some(place) = directory.next().transpose()? else {
                return malformed("more batches than the directory has");
            };
            let base_ms = base_before.wrapping_add(get_varlong(&mut fields)?);
            base_before = base_ms;
            let mut slot = BatchSlot {
                base: place.base,
                base_timestamp_ms: base_ms,
                max_timestamp_ms: base_ms,
                stream: place.stream,
                count: place.count,
                form: Form::Built,
                marks: Marks::from_kind(*kind),
                start: values_used as u32,
                bytes: 0,
                timestamps_at: (table.timestamps.of(body).len() - walk.timestamps.len()) as u32,
                envelopes_at: (table.envelopes.of(body).len() - walk.envelopes.len()) as u32,
                lengths_at: (table.lengths.of(body).len() - walk.lengths.len()) as u32,
                named: walk.named,
                stamp: 0,
            };
            let form = *kind & !UNVOUCHED;
            match form {
                BUILT | BUILT_APPEND_TIME => {
                    if place.count > 1 {
                        let above = get_unsigned(&mut fields)?;
                        slot.max_timestamp_ms = base_ms.wrapping_add(above as i64);
                    }
                    let bytes = walk.skip(place.count, envelopes)?;
                    values_used += bytes;
                    slot.bytes = bytes as u32;
                }
                SPARSE => {
                    let above = get_unsigned(&mut fields)?;
                    slot.max_timestamp_ms = base_ms.wrapping_add(above as i64);
                    let records = get_u32_varint(&mut fields)?;
                    let offsets_at = (fields_column.of(body).len() - fields.len()) as u32;
                    slot.form = Form::Sparse { records, offsets_at };
                    skip_offsets(&mut fields, records, place.count)?;
                    let bytes = walk.skip(records, envelopes)?;
                    values_used += bytes;
                    slot.bytes = bytes as u32;
                }
                PLAIN | PACKED => {
                    slot.max_timestamp_ms = base_ms.wrapping_add(get_varlong(&mut fields)?);
                    let (producer, bytes) = get_producer(&mut fields, place.count)?;
                    slot.bytes = bytes;
                    let index = table.producers.len() as u32;
                    table.producers.push(producer);
                    if form == PLAIN {
                        slot.form = Form::Plain(index);
                        values_used += u64::from(bytes);
                    } else {
                        slot.form = Form::Packed(index);
                        slot.start = raw_used as u32;
                        raw_used += u64::from(bytes);
                    }
                }
                _ => return malformed("a batch of an unknown kind"),
            }
            if values_used > table.values.of(body).len() as u64 || raw_used > raw_bytes as u64 {
                return malformed("a batch ends behind its column");
            }
            table.slots.push(slot);
        }
        if directory.next().is_some() {
            return malformed("fewer batches than the directory has");
        }
        Ok(table)
    }

    /// The values of a built batch, or the records section of a producer's batch that is not compressed.
    pub(crate) fn stored<'b>(&self, slot: &BatchSlot, body: &'b [u8]) -> &'b [u8] {
        &self.values.of(body)[slot.start as usize..][..slot.bytes as usize]
    }

    /// Visits the records of a built batch. They were walked when the table was read.
    pub(crate) fn for_each<'b>(
        &self,
        slot: &BatchSlot,
        body: &'b [u8],
        visit: &mut dyn FnMut(BuiltRecord<'b>),
    ) -> Result<(), Malformed> {
        let mut timestamps = &self.timestamps.of(body)[slot.timestamps_at as usize..];
        let mut envelopes = &self.envelopes.of(body)[slot.envelopes_at as usize..];
        let mut lengths = &self.lengths.of(body)[slot.lengths_at as usize..];
        let mut values = self.stored(slot, body);
        let mut named = slot.named;
        let mut timestamp_ms = slot.base_timestamp_ms;
        let (records, mut offsets) = match slot.form {
            Form::Sparse { records, offsets_at } => {
                (records, Some(&self.fields.of(body)[offsets_at as usize..]))
            }
            _ => (slot.count, None),
        };
        let mut offset_delta = 0;
        for index in 0..records {
            if index > 0 {
                timestamp_ms = timestamp_ms.wrapping_add(get_varlong(&mut timestamps)?);
            }
            let envelope = get_envelope(&mut envelopes, &mut named)?;
            let length = get_unsigned(&mut lengths)? as usize;
            let value = match length.checked_sub(1) {
                Some(length) => {
                    let Some((value, rest)) = values.split_at_checked(length) else {
                        return malformed("a value ends behind its batch");
                    };
                    values = rest;
                    Some(value)
                }
                None => None,
            };
            if let Some(offsets) = &mut offsets {
                offset_delta += get_u32_varint(offsets)?;
            }
            visit(BuiltRecord { offset_delta, timestamp_ms, envelope, value });
            offset_delta += 1;
        }
        Ok(())
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<BatchSlot>()
            + self.producers.capacity() * size_of::<ProducerFields>()
    }
}

/// Places in the columns of records.
struct Walk<'b> {
    timestamps: &'b [u8],
    envelopes: &'b [u8],
    lengths: &'b [u8],
    named: u32,
}

impl Walk<'_> {
    /// Goes past the records of a batch. Returns the bytes of their values.
    fn skip(&mut self, count: u32, envelopes: usize) -> Result<u64, Malformed> {
        let mut bytes = 0u64;
        for index in 0..count {
            if index > 0 {
                get_varlong(&mut self.timestamps)?;
            }
            let envelope = get_envelope(&mut self.envelopes, &mut self.named)?;
            if envelope as usize >= envelopes {
                return malformed("a record names no envelope");
            }
            bytes = bytes.saturating_add(get_unsigned(&mut self.lengths)?.saturating_sub(1));
        }
        Ok(bytes)
    }
}

#[inline]
fn get_envelope(input: &mut &[u8], named: &mut u32) -> Result<u32, Malformed> {
    let back = get_u32_varint(input)?;
    if back == 0 {
        *named += 1;
        return Ok(*named - 1);
    }
    match named.checked_sub(back) {
        Some(envelope) => Ok(envelope),
        None => malformed("a record names an envelope before the first"),
    }
}

/// Goes past the offsets of a batch with holes, which covers `count` offsets.
fn skip_offsets(input: &mut &[u8], records: u32, count: u32) -> Result<(), Malformed> {
    if records == 0 || records > count {
        return malformed("a batch with holes has no records, or more than offsets");
    }
    let mut behind = 0u64;
    for _ in 0..records {
        behind += u64::from(get_u32_varint(input)?) + 1;
    }
    if behind > u64::from(count) {
        return malformed("a record lies behind its batch");
    }
    Ok(())
}

fn get_producer(input: &mut &[u8], count: u32) -> Result<(ProducerFields, u32), Malformed> {
    let Ok(attributes) = u16::try_from(get_unsigned(input)?) else {
        return malformed("batch attributes do not fit");
    };
    let missing = get_u32_varint(input)?;
    let bytes = get_u32_varint(input)?;
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
    if Attributes::from_bits(attributes as i16).is_none() || missing >= count {
        return malformed("impossible fields of a producer's batch");
    }
    Ok((ProducerFields { attributes, missing, stamp }, bytes))
}

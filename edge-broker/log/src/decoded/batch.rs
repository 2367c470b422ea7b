//! A batch in a decoded group: as RecordBatch v2, or record by record.

use edge_wire::record::record_len;
use edge_wire::record_batch::{complete_header, reserve_header};
use edge_wire::varint::get_varint;
use edge_wire::{
    Attributes, BATCH_HEADER_BYTES, BatchHeader, Compression, Offset, ProducerStamp, RecordTail,
    Records, StreamId, TimestampType, put_record, write_batch,
};
use thiserror::Error;

use super::{DecodedGroup, GroupKind};
use crate::journal::batches::{BatchSlot, Form, ProducerFields};
use crate::journal::stamps::StampClock;

/// Most bytes that a producer's compressed batch may unpack to while its records are visited.
pub const UNPACKED_BATCH_BYTES_MAX: usize = 64 << 20;

/// A batch in a decoded group.
#[derive(Clone, Copy, Debug)]
pub struct BatchRef<'a> {
    pub(super) group: &'a DecodedGroup,
    pub(super) slot: &'a BatchSlot,
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
    offset_delta: u32,
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
        match self.slot.form {
            Form::Sparse { records, .. } => records,
            _ => self.slot.count - self.producer_fields().map_or(0, |fields| fields.missing),
        }
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
        match self.slot.form {
            Form::Built | Form::Sparse { .. } => {
                self.slot.base_timestamp_ms.saturating_add(self.shift_ms())
            }
            // What its producer's deltas count from.
            Form::Plain(_) | Form::Packed(_) => self.slot.base_timestamp_ms,
        }
    }

    /// Highest timestamp, ms.
    #[must_use]
    pub fn max_timestamp_ms(&self) -> i64 {
        self.slot.max_timestamp_ms.saturating_add(self.shift_ms())
    }

    /// The gateway stamped it before its clock was set. Its timestamps are corrected here if that is possible.
    #[must_use]
    pub fn is_unvouched(&self) -> bool {
        self.slot.marks.unvouched
    }

    /// Its times are invented, and nobody knows better yet.
    #[must_use]
    pub fn is_flagged(&self) -> bool {
        let stamped = self.group.stamp_of(self.slot);
        self.group.flagged.is_some()
            && stamped.is_some_and(|stamp| stamp.shift_ms.is_none() && stamp.clock.is_invented())
    }

    /// The clock that stamped it, if nobody vouched for that and nobody knows better yet.
    pub(crate) fn unknown_stamp(&self) -> Option<StampClock> {
        let stamped = self.group.stamp_of(self.slot)?;
        stamped.shift_ms.is_none().then_some(stamped.clock)
    }

    fn shift_ms(&self) -> i64 {
        self.group.stamp_of(self.slot).and_then(|stamp| stamp.shift_ms).unwrap_or(0)
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
        if self.slot.marks.append_time {
            return Attributes::default().with_timestamp_type(TimestampType::LogAppendTime);
        }
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
            Form::Built | Form::Sparse { .. } => None,
        }
    }

    /// The stored records section of a batch that a producer built, compressed or not.
    #[must_use]
    pub fn raw_records(&self) -> Option<&'a [u8]> {
        match self.slot.form {
            Form::Plain(_) | Form::Packed(_) => Some(self.stored()),
            Form::Built | Form::Sparse { .. } => None,
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
            base_timestamp: self.base_timestamp_ms(),
            max_timestamp: self.max_timestamp_ms(),
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
        self.for_each_built(true, &mut |record| {
            put_record(out, record.offset_delta as i32, self.delta(&record), record.tail());
        });
        complete_header(&mut out[start..], &self.batch_header());
    }

    /// Bytes that [`write_record_batch`](Self::write_record_batch) appends.
    #[must_use]
    pub fn record_batch_bytes(&self) -> usize {
        if let Some(records) = self.raw_records() {
            return BATCH_HEADER_BYTES + records.len();
        }
        let mut bytes = BATCH_HEADER_BYTES;
        self.for_each_built(true, &mut |record| {
            bytes += record_len(record.offset_delta as i32, self.delta(&record), record.tail());
        });
        bytes
    }

    /// Visits every record in order. Those of a built batch are not copied; a producer's compressed batch is
    /// unpacked, to at most [`UNPACKED_BATCH_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// A producer's batch cannot be unpacked; the records before the damage were visited.
    pub fn for_each_record(&self, visit: &mut dyn FnMut(RecordRef<'_>)) -> Result<(), UnpackError> {
        self.for_each(true, visit)
    }

    /// The same without the header that says that the time is invented: for who keeps the record and its
    /// [`unknown_stamp`](Self::unknown_stamp).
    pub(crate) fn for_each_unflagged(
        &self,
        visit: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<(), UnpackError> {
        self.for_each(false, visit)
    }

    fn for_each(
        &self,
        flag: bool,
        visit: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<(), UnpackError> {
        let Some(stored) = self.raw_records() else {
            self.for_each_built(flag, &mut |record| {
                visit(RecordRef {
                    offset: self.slot.base.plus(u64::from(record.offset_delta)),
                    timestamp_ms: record.timestamp_ms,
                    key: key_of(record.key_section),
                    headers_section: record.headers_section,
                    value: record.value,
                });
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
        let append_time = self.attributes().timestamp_type() == TimestampType::LogAppendTime;
        for record in Records::new(section, self.count()) {
            let record = record.map_err(|error| failed(error.to_string()))?;
            let timestamp_ms = if append_time {
                self.max_timestamp_ms()
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
        record.timestamp_ms.wrapping_sub(self.base_timestamp_ms())
    }

    /// Visits the records of a built batch. They were walked when the group was parsed.
    fn for_each_built(&self, flag: bool, visit: &mut dyn FnMut(Built<'a>)) {
        let group = self.group;
        let flagged = group.flagged.as_ref().filter(|_| flag && self.is_flagged());
        let (envelopes, shift_ms) = (flagged.unwrap_or(&group.envelopes), self.shift_ms());
        let visited = group.batches.for_each(self.slot, &group.body, &mut |record| {
            let Some(slot) = envelopes.slots.get(record.envelope as usize) else { return };
            let bytes = &envelopes.bytes;
            visit(Built {
                offset_delta: record.offset_delta,
                timestamp_ms: record.timestamp_ms.saturating_add(shift_ms),
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

//! Builds one record batch, record by record, in a buffer that is kept for the next one.

use crate::compression::{CompressError, Compression};
use crate::envelope::Envelope;
use crate::headers::{NO_HEADERS, put_nullable};
use crate::ids::Offset;
use crate::record::{RecordTail, put_record};
use crate::record_batch::{
    Attributes, BATCH_HEADER_BYTES, BatchHeader, ProducerStamp, complete_header, reserve_header,
};

/// Collects the records of one batch. Call [`start`](Self::start), push, then [`finish`](Self::finish).
#[derive(Clone, Debug, Default)]
pub struct RecordBatchBuilder {
    base_offset: Offset,
    base_timestamp: i64,
    max_timestamp: i64,
    count: u32,
    records: Vec<u8>,
    key_section: Vec<u8>,
}

impl RecordBatchBuilder {
    /// One that has not been started: base offset 0, base timestamp 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what was pushed and begins a batch. Timestamps are in ms.
    pub fn start(&mut self, base_offset: Offset, base_timestamp: i64) {
        self.base_offset = base_offset;
        self.base_timestamp = base_timestamp;
        self.max_timestamp = i64::MIN;
        self.count = 0;
        self.records.clear();
    }

    /// Adds a record. `headers_section` is `varint count, headers`; empty means none.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers_section: &[u8],
    ) {
        let mut key_section = std::mem::take(&mut self.key_section);
        key_section.clear();
        put_nullable(&mut key_section, key);
        let headers_section = if headers_section.is_empty() { NO_HEADERS } else { headers_section };
        self.push_tail(timestamp, RecordTail { key_section: &key_section, value, headers_section });
        self.key_section = key_section;
    }

    /// Adds a record whose key and headers are encoded already.
    #[inline]
    pub fn push_enveloped(&mut self, timestamp: i64, envelope: &Envelope, value: Option<&[u8]>) {
        self.push_tail(timestamp, envelope.tail(value));
    }

    /// Adds a record of which all but the deltas is encoded already.
    #[inline]
    pub fn push_tail(&mut self, timestamp: i64, tail: RecordTail<'_>) {
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        put_record(&mut self.records, self.count as i32, timestamp_delta, tail);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
    }

    /// Number of records pushed.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch if it is finished uncompressed.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.records.len()
    }

    /// Appends the batch to `out` and returns its header. The builder keeps its records until `start`.
    ///
    /// # Errors
    /// The codec refused; `out` is as it was.
    pub fn finish(
        &self,
        producer: Option<ProducerStamp>,
        compression: Compression,
        level: Option<i32>,
        out: &mut Vec<u8>,
    ) -> Result<BatchHeader, CompressError> {
        let start = reserve_header(out);
        if let Err(error) = compression.compress(level, &self.records, out) {
            out.truncate(start);
            return Err(error);
        }
        let header = BatchHeader {
            base_offset: self.base_offset,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: Attributes::new(compression),
            last_offset_delta: self.count.saturating_sub(1),
            base_timestamp: self.base_timestamp,
            max_timestamp: if self.count == 0 { -1 } else { self.max_timestamp },
            producer,
            record_count: self.count,
        };
        complete_header(&mut out[start..], &header);
        Ok(header)
    }
}

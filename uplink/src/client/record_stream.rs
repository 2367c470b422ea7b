//! Fetched bytes to records.

use bytes::Bytes;
use edge_wire::record_batch::TimestampType;
use edge_wire::{
    BatchError, CrcMismatch, DecompressError, Offset, RecordBatchView, RecordError, Records,
};

/// Largest size, in bytes, that one compressed batch may unpack to.
const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a fetched batch cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordStreamError {
    /// The header makes no sense.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The bytes are not those that were written.
    #[error("batch at offset {offset}: {source}")]
    Crc {
        /// First offset of the batch.
        offset: Offset,
        /// The two sums.
        source: CrcMismatch,
    },
    /// The records section does not unpack.
    #[error("batch at offset {offset}: {source}")]
    Unpack {
        /// First offset of the batch.
        offset: Offset,
        /// Why.
        source: DecompressError,
    },
    /// A record makes no sense.
    #[error("batch at offset {offset}: {source}")]
    Record {
        /// First offset of the batch.
        offset: Offset,
        /// Why.
        source: RecordError,
    },
}

/// A record, owned; keys and values share the memory of their batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Offset.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// Value; `None` is Kafka's null.
    pub value: Option<Bytes>,
    /// Headers in their order, duplicates included.
    pub headers: Vec<FetchedHeader>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedHeader {
    /// Name.
    pub key: String,
    /// Value; `None` is Kafka's null.
    pub value: Option<Bytes>,
}

/// A record, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Offset.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: edge_wire::HeadersView<'a>,
}

/// Walks the batches of a Fetch. Control batches are passed by, so are records below the offset asked for and
/// a last batch that was cut short.
#[derive(Clone, Debug)]
pub struct RecordStream {
    rest: Bytes,
    next: Offset,
    scratch: Vec<u8>,
}

impl RecordStream {
    /// A walk over what a fetch from `from` brought.
    #[must_use]
    pub fn new(records: Bytes, from: Offset) -> Self {
        Self { rest: records, next: from, scratch: Vec::new() }
    }

    /// The offset to fetch next, after the batches walked so far.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// The records of the next batch, owned; `None` at the end.
    pub fn next_batch(&mut self) -> Option<Result<Vec<FetchedRecord>, RecordStreamError>> {
        let batch = self.take_batch()?;
        Some(batch.and_then(|batch| self.own(&batch)))
    }

    /// Visits every record without owning it: for those who count or compare.
    ///
    /// # Errors
    /// The first batch that cannot be read; what was visited before it is good, and `next_offset` stands before it.
    pub fn for_each(
        &mut self,
        mut visit: impl FnMut(RecordRef<'_>),
    ) -> Result<(), RecordStreamError> {
        while let Some(batch) = self.take_batch() {
            let batch = batch?;
            let view = RecordBatchView::parse(&batch)?;
            let from = self.next;
            let end = view.header().end_offset();
            if !view.header().attributes.is_control() {
                let mut scratch = std::mem::take(&mut self.scratch);
                let walked = walk(&view, &mut scratch, from, &mut visit);
                self.scratch = scratch;
                walked?;
            }
            self.next = end.max(from);
        }
        Ok(())
    }

    fn take_batch(&mut self) -> Option<Result<Bytes, RecordStreamError>> {
        if self.rest.is_empty() {
            return None;
        }
        match RecordBatchView::parse(&self.rest) {
            Ok(view) => {
                let length = view.bytes().len();
                Some(Ok(self.rest.split_to(length)))
            }
            Err(BatchError::Truncated { .. }) => {
                self.rest = Bytes::new();
                None
            }
            Err(error) => {
                self.rest = Bytes::new();
                Some(Err(error.into()))
            }
        }
    }

    fn own(&mut self, batch: &Bytes) -> Result<Vec<FetchedRecord>, RecordStreamError> {
        let view = RecordBatchView::parse(batch)?;
        let offset = view.header().base_offset;
        let from = self.next;
        let end = view.header().end_offset();
        let mut out = Vec::new();
        if !view.header().attributes.is_control() {
            view.verify_crc().map_err(|source| RecordStreamError::Crc { offset, source })?;
            let mut unpacked = Vec::new();
            let is_packed = view.header().attributes.compression() != edge_wire::Compression::None;
            let section: Bytes = if is_packed {
                view.unpack(UNPACKED_BYTES_MAX, &mut unpacked)
                    .map_err(|source| RecordStreamError::Unpack { offset, source })?;
                Bytes::from(unpacked)
            } else {
                batch.slice_ref(view.records_section())
            };
            for record in Records::new(&section, view.header().record_count) {
                let record =
                    record.map_err(|source| RecordStreamError::Record { offset, source })?;
                let at =
                    Offset(offset.0.saturating_add(u64::from(record.offset_delta.unsigned_abs())));
                if at < from {
                    continue;
                }
                out.push(FetchedRecord {
                    offset: at,
                    timestamp_ms: timestamp(&view, record.timestamp_delta),
                    key: record.key.map(|key| section.slice_ref(key)),
                    value: record.value.map(|value| section.slice_ref(value)),
                    headers: record
                        .headers
                        .iter()
                        .map(|header| FetchedHeader {
                            key: header.key.to_owned(),
                            value: header.value.map(|value| section.slice_ref(value)),
                        })
                        .collect(),
                });
            }
        }
        self.next = end.max(from);
        Ok(out)
    }
}

fn timestamp(view: &RecordBatchView<'_>, delta: i64) -> i64 {
    match view.header().attributes.timestamp_type() {
        TimestampType::CreateTime => view.header().base_timestamp.wrapping_add(delta),
        TimestampType::LogAppendTime => view.header().max_timestamp,
    }
}

fn walk(
    view: &RecordBatchView<'_>,
    scratch: &mut Vec<u8>,
    from: Offset,
    visit: &mut impl FnMut(RecordRef<'_>),
) -> Result<(), RecordStreamError> {
    let offset = view.header().base_offset;
    view.verify_crc().map_err(|source| RecordStreamError::Crc { offset, source })?;
    let section = view
        .unpack(UNPACKED_BYTES_MAX, scratch)
        .map_err(|source| RecordStreamError::Unpack { offset, source })?;
    for record in Records::new(section, view.header().record_count) {
        let record = record.map_err(|source| RecordStreamError::Record { offset, source })?;
        let at = Offset(offset.0.saturating_add(u64::from(record.offset_delta.unsigned_abs())));
        if at >= from {
            visit(RecordRef {
                offset: at,
                timestamp_ms: timestamp(view, record.timestamp_delta),
                key: record.key,
                value: record.value,
                headers: record.headers,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use edge_wire::{Compression, RecordBatchBuilder};

    use super::*;

    fn batch(base: u64, values: &[&str], compression: Compression) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new();
        builder.start(Offset(base), 1000);
        let mut headers = Vec::new();
        edge_wire::varint::put_varint(&mut headers, 1);
        edge_wire::put_header(&mut headers, "h", None);
        for (index, value) in values.iter().enumerate() {
            builder.push(1000 + index as i64, Some(b"k"), Some(value.as_bytes()), &headers);
        }
        let mut out = Vec::new();
        builder.finish(None, compression, None, &mut out).unwrap();
        out
    }

    fn all(mut stream: RecordStream) -> Vec<FetchedRecord> {
        let mut out = Vec::new();
        while let Some(batch) = stream.next_batch() {
            out.append(&mut batch.unwrap());
        }
        out
    }

    #[test]
    fn records_below_the_offset_asked_for_are_left_out() {
        for compression in [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let mut bytes = batch(10, &["a", "b", "c"], compression);
            bytes.extend(batch(13, &["d"], compression));
            let mut stream = RecordStream::new(Bytes::from(bytes), Offset(11));
            let records = all(stream.clone());
            let values: Vec<_> = records
                .iter()
                .map(|record| (record.offset.0, record.value.clone().unwrap()))
                .collect();
            assert_eq!(
                values,
                [(11, Bytes::from("b")), (12, Bytes::from("c")), (13, Bytes::from("d"))]
            );
            assert_eq!(records[0].timestamp_ms, 1001);
            assert_eq!(records[0].headers, [FetchedHeader { key: "h".to_owned(), value: None }]);
            let mut seen = 0;
            stream.for_each(|_| seen += 1).unwrap();
            assert_eq!((seen, stream.next_offset()), (3, Offset(14)));
        }
    }

    #[test]
    fn a_batch_cut_short_ends_the_walk_quietly() {
        let mut bytes = batch(0, &["a"], Compression::None);
        let second = batch(1, &["b"], Compression::None);
        bytes.extend_from_slice(&second[..second.len() - 1]);
        let mut stream = RecordStream::new(Bytes::from(bytes), Offset(0));
        assert_eq!(stream.next_batch().unwrap().unwrap().len(), 1);
        assert!(stream.next_batch().is_none());
        assert_eq!(stream.next_offset(), Offset(1));
    }

    #[test]
    fn a_flipped_bit_is_an_error_and_not_a_record() {
        let mut bytes = batch(0, &["abcdef"], Compression::None);
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        let mut stream = RecordStream::new(Bytes::from(bytes.clone()), Offset(0));
        assert!(matches!(stream.next_batch(), Some(Err(RecordStreamError::Crc { .. }))));
        assert_eq!(stream.next_offset(), Offset(0));
        assert!(
            RecordStream::new(Bytes::from(bytes), Offset(0))
                .for_each(|_| panic!("served"))
                .is_err()
        );
    }
}

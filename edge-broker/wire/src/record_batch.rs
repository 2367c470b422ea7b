//! Kafka's record batch v2 (magic 2): header, checksum, view and patching.
//!
//! ```text
//!  0 i64 base offset              } not covered by the CRC: a broker
//!  8 i32 length of what follows   } assigns them without touching
//! 12 i32 partition leader epoch   } the records
//! 16 i8  magic, 2                 }
//! 17 u32 CRC32C of all that follows
//! 21 i16 attributes: 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon
//! 23 i32 last offset delta
//! 27 i64 base timestamp, ms       (the delete horizon if attribute 6 is set)
//! 35 i64 max timestamp, ms
//! 43 i64 producer id, -1 for none
//! 51 i16 producer epoch
//! 53 i32 base sequence
//! 57 i32 number of records
//! 61     records, as a whole compressed with the codec
//! ```
//!
//! All integers are big-endian. These bytes are Kafka's; nothing here is ours to change.
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>, KIP-98.

use thiserror::Error;

pub use crate::attributes::{Attributes, TimestampType};
use crate::compression::{Compression, DecompressError};
use crate::ids::{Offset, ProducerId};

/// Where the base offset is.
pub const BASE_OFFSET_AT: usize = 0;
/// Where the length is.
pub const LENGTH_AT: usize = BASE_OFFSET_AT + 8;
/// Where the partition leader epoch is.
pub const LEADER_EPOCH_AT: usize = LENGTH_AT + 4;
/// Where the magic byte is.
pub const MAGIC_AT: usize = LEADER_EPOCH_AT + 4;
/// Where the CRC is.
pub const CRC_AT: usize = MAGIC_AT + 1;
/// Where the attributes are; the CRC covers everything from here.
pub const ATTRIBUTES_AT: usize = CRC_AT + 4;
/// Where the last offset delta is.
pub const LAST_OFFSET_DELTA_AT: usize = ATTRIBUTES_AT + 2;
/// Where the base timestamp is.
pub const BASE_TIMESTAMP_AT: usize = LAST_OFFSET_DELTA_AT + 4;
/// Where the max timestamp is.
pub const MAX_TIMESTAMP_AT: usize = BASE_TIMESTAMP_AT + 8;
/// Where the producer id is.
pub const PRODUCER_ID_AT: usize = MAX_TIMESTAMP_AT + 8;
/// Where the producer epoch is.
pub const PRODUCER_EPOCH_AT: usize = PRODUCER_ID_AT + 8;
/// Where the base sequence is.
pub const BASE_SEQUENCE_AT: usize = PRODUCER_EPOCH_AT + 2;
/// Where the number of records is.
pub const RECORD_COUNT_AT: usize = BASE_SEQUENCE_AT + 4;
/// Size of the header; the records follow.
pub const BATCH_HEADER_BYTES: usize = RECORD_COUNT_AT + 4;
/// Bytes before those the length field counts.
pub const LENGTH_OVERHEAD_BYTES: usize = LENGTH_AT + 4;
/// The only magic there is for us.
pub const MAGIC: u8 = 2;

const _: () = assert!(BATCH_HEADER_BYTES == 61);
const _: () = assert!(LENGTH_OVERHEAD_BYTES == 12);
const _: () = assert!(ATTRIBUTES_AT == 21);

const NO_PRODUCER: i64 = -1;

/// What an idempotent producer stamps on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch, not negative.
    pub epoch: i16,
    /// Sequence of the first record, not negative.
    pub base_sequence: i32,
}

/// The fields of a batch header that carry meaning of their own (length and magic follow from the rest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Epoch of the leader that appended it, -1 for unknown.
    pub partition_leader_epoch: i32,
    /// As stored; [`RecordBatchView::verify_crc`] compares it. Ignored when a header is written.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Offset of the last record minus the base offset.
    pub last_offset_delta: u32,
    /// What timestamp deltas count from, ms.
    pub base_timestamp: i64,
    /// Highest timestamp in the batch, ms.
    pub max_timestamp: i64,
    /// Set by idempotent and transactional producers.
    pub producer: Option<ProducerStamp>,
    /// Number of records; fewer than `last_offset_delta + 1` in compacted topics only.
    pub record_count: u32,
}

impl BatchHeader {
    /// The offset behind the last record.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_offset_delta) + 1)
    }
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the header or than its length says.
    #[error("a batch of {needed_bytes} bytes in {found_bytes}")]
    Truncated {
        /// How many there should be.
        needed_bytes: usize,
        /// How many there are.
        found_bytes: usize,
    },
    /// A format we do not read.
    #[error("magic {found}; only 2 is supported")]
    Magic {
        /// The magic byte.
        found: u8,
    },
    /// The length cannot hold a header.
    #[error("a batch length of {found} is impossible")]
    Length {
        /// The length field.
        found: i32,
    },
    /// A codec that does not exist.
    #[error("codec {found} does not exist")]
    Codec {
        /// The codec bits.
        found: u8,
    },
    /// A field that is never negative is.
    #[error("{field} is {found}")]
    Negative {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: i64,
    },
}

/// The stored checksum is not that of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("batch CRC is {stored:08x}, its bytes have {computed:08x}")]
pub struct CrcMismatch {
    /// What the header says.
    pub stored: u32,
    /// What the bytes say.
    pub computed: u32,
}

/// One whole batch at the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct RecordBatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> RecordBatchView<'a> {
    /// Reads the batch at the front of `input`, which may be followed by anything. The CRC is not checked.
    ///
    /// # Errors
    /// `input` does not start with a whole, plausible batch.
    pub fn parse(input: &'a [u8]) -> Result<Self, BatchError> {
        let found_bytes = input.len();
        let truncated = |needed_bytes| BatchError::Truncated { needed_bytes, found_bytes };
        let head =
            input.first_chunk::<BATCH_HEADER_BYTES>().ok_or_else(|| match input.get(MAGIC_AT) {
                Some(&found) if found != MAGIC => BatchError::Magic { found },
                _ => truncated(BATCH_HEADER_BYTES),
            })?;
        if head[MAGIC_AT] != MAGIC {
            return Err(BatchError::Magic { found: head[MAGIC_AT] });
        }
        let length = read_i32(head, LENGTH_AT);
        let total_bytes = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(LENGTH_OVERHEAD_BYTES))
            .filter(|total| *total >= BATCH_HEADER_BYTES)
            .ok_or(BatchError::Length { found: length })?;
        let bytes = input.get(..total_bytes).ok_or_else(|| truncated(total_bytes))?;
        Ok(Self { header: parse_header(head)?, bytes })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch, header included, and nothing behind it.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records as stored: compressed if the attributes say so.
    #[must_use]
    pub fn records_section(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }

    /// Compares the stored CRC32C with the bytes.
    ///
    /// # Errors
    /// They differ.
    pub fn verify_crc(&self) -> Result<(), CrcMismatch> {
        let computed = crc32c::crc32c(&self.bytes[ATTRIBUTES_AT..]);
        let stored = self.header.crc;
        if stored == computed { Ok(()) } else { Err(CrcMismatch { stored, computed }) }
    }

    /// The records unpacked: borrowed if they are not compressed, else in `scratch`, which is cleared first.
    /// At most `max_bytes`.
    ///
    /// # Errors
    /// They are damaged or unpack to more.
    pub fn unpack<'s>(
        &self,
        max_bytes: usize,
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], DecompressError>
    where
        'a: 's,
    {
        let compression = self.header.attributes.compression();
        if compression == Compression::None {
            return Ok(self.records_section());
        }
        scratch.clear();
        compression.decompress(self.records_section(), max_bytes, scratch)?;
        Ok(scratch)
    }
}

/// Walks batches that stand one behind the other, as a Fetch answers them. A cut-off last batch ends the
/// walk quietly, as Kafka's consumers do.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// A walk over `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been walked yet.
    #[must_use]
    pub const fn remaining(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<RecordBatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match RecordBatchView::parse(self.rest) {
            Ok(batch) => {
                self.rest = &self.rest[batch.bytes.len()..];
                Some(Ok(batch))
            }
            Err(BatchError::Truncated { .. }) => {
                self.rest = &[];
                None
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// Appends a whole batch: header, CRC, `records` as they are. `header.crc` is ignored.
pub fn write_batch(header: &BatchHeader, records: &[u8], out: &mut Vec<u8>) {
    out.reserve(BATCH_HEADER_BYTES + records.len());
    let start = reserve_header(out);
    out.extend_from_slice(records);
    complete_header(&mut out[start..], header);
}

/// Appends room for a header and returns where it starts. Append the records, then call
/// [`complete_header`] with everything from there.
#[must_use]
pub fn reserve_header(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
    start
}

/// Writes the header of the batch that `batch` is, its length and its CRC. `header.crc` is ignored.
///
/// # Panics
/// `batch` is shorter than a header: a mistake of the caller.
pub fn complete_header(batch: &mut [u8], header: &BatchHeader) {
    let length = (batch.len() - LENGTH_OVERHEAD_BYTES) as i32;
    let head =
        batch.first_chunk_mut::<BATCH_HEADER_BYTES>().expect("room was made by reserve_header");
    let (id, epoch, sequence) = match header.producer {
        Some(stamp) => (stamp.id.0 as i64, stamp.epoch, stamp.base_sequence),
        None => (NO_PRODUCER, -1, -1),
    };
    put(head, BASE_OFFSET_AT, (header.base_offset.0 as i64).to_be_bytes());
    put(head, LENGTH_AT, length.to_be_bytes());
    put(head, LEADER_EPOCH_AT, header.partition_leader_epoch.to_be_bytes());
    head[MAGIC_AT] = MAGIC;
    put(head, ATTRIBUTES_AT, header.attributes.bits().to_be_bytes());
    put(head, LAST_OFFSET_DELTA_AT, (header.last_offset_delta as i32).to_be_bytes());
    put(head, BASE_TIMESTAMP_AT, header.base_timestamp.to_be_bytes());
    put(head, MAX_TIMESTAMP_AT, header.max_timestamp.to_be_bytes());
    put(head, PRODUCER_ID_AT, id.to_be_bytes());
    put(head, PRODUCER_EPOCH_AT, epoch.to_be_bytes());
    put(head, BASE_SEQUENCE_AT, sequence.to_be_bytes());
    put(head, RECORD_COUNT_AT, (header.record_count as i32).to_be_bytes());
    rewrite_crc(batch);
}

/// Gives a batch its offset. Outside the CRC. Does nothing to a slice shorter than a header.
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    if let Some(head) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() {
        put(head, BASE_OFFSET_AT, (base_offset.0 as i64).to_be_bytes());
    }
}

/// Gives a batch its leader epoch. Outside the CRC. Does nothing to a slice shorter than a header.
pub fn set_partition_leader_epoch(batch: &mut [u8], epoch: i32) {
    if let Some(head) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() {
        put(head, LEADER_EPOCH_AT, epoch.to_be_bytes());
    }
}

/// Marks a batch as stamped by the broker at `now_ms` and computes its CRC anew. `batch` is exactly one
/// batch; a slice shorter than a header is left alone.
pub fn set_log_append_time(batch: &mut [u8], now_ms: i64) {
    let Some(head) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() else { return };
    let attributes = read_i16(head, ATTRIBUTES_AT) | Attributes::LOG_APPEND_TIME;
    put(head, ATTRIBUTES_AT, attributes.to_be_bytes());
    put(head, MAX_TIMESTAMP_AT, now_ms.to_be_bytes());
    rewrite_crc(batch);
}

/// Puts another producer's stamp on a batch and computes its CRC anew. `batch` is exactly one batch; a slice
/// shorter than a header is left alone.
pub fn set_producer(batch: &mut [u8], producer: Option<ProducerStamp>) {
    let Some(head) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() else { return };
    let (id, epoch, sequence) = match producer {
        Some(stamp) => (stamp.id.0 as i64, stamp.epoch, stamp.base_sequence),
        None => (NO_PRODUCER, -1, -1),
    };
    put(head, PRODUCER_ID_AT, id.to_be_bytes());
    put(head, PRODUCER_EPOCH_AT, epoch.to_be_bytes());
    put(head, BASE_SEQUENCE_AT, sequence.to_be_bytes());
    rewrite_crc(batch);
}

fn rewrite_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
}

fn parse_header(head: &[u8; BATCH_HEADER_BYTES]) -> Result<BatchHeader, BatchError> {
    let bits = read_i16(head, ATTRIBUTES_AT);
    let attributes = Attributes::from_bits(bits)
        .ok_or(BatchError::Codec { found: (bits & Attributes::CODEC_MASK) as u8 })?;
    Ok(BatchHeader {
        base_offset: Offset(not_negative("base offset", read_i64(head, BASE_OFFSET_AT))?),
        partition_leader_epoch: read_i32(head, LEADER_EPOCH_AT),
        crc: read_i32(head, CRC_AT) as u32,
        attributes,
        last_offset_delta: count("last offset delta", read_i32(head, LAST_OFFSET_DELTA_AT))?,
        base_timestamp: read_i64(head, BASE_TIMESTAMP_AT),
        max_timestamp: read_i64(head, MAX_TIMESTAMP_AT),
        producer: parse_producer(head)?,
        record_count: count("record count", read_i32(head, RECORD_COUNT_AT))?,
    })
}

fn parse_producer(head: &[u8; BATCH_HEADER_BYTES]) -> Result<Option<ProducerStamp>, BatchError> {
    let id = read_i64(head, PRODUCER_ID_AT);
    if id == NO_PRODUCER {
        return Ok(None);
    }
    let id = ProducerId(not_negative("producer id", id)?);
    let epoch = read_i16(head, PRODUCER_EPOCH_AT);
    not_negative("producer epoch", i64::from(epoch))?;
    let base_sequence = read_i32(head, BASE_SEQUENCE_AT);
    // Control batches carry a producer but no sequence.
    if base_sequence < 0 && read_i16(head, ATTRIBUTES_AT) & Attributes::CONTROL == 0 {
        return Err(BatchError::Negative {
            field: "base sequence",
            found: i64::from(base_sequence),
        });
    }
    Ok(Some(ProducerStamp { id, epoch, base_sequence }))
}

fn not_negative(field: &'static str, found: i64) -> Result<u64, BatchError> {
    u64::try_from(found).map_err(|_| BatchError::Negative { field, found })
}

fn count(field: &'static str, found: i32) -> Result<u32, BatchError> {
    u32::try_from(found).map_err(|_| BatchError::Negative { field, found: i64::from(found) })
}

fn read<const N: usize>(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

fn read_i16(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> i16 {
    i16::from_be_bytes(read(head, at))
}

fn read_i32(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(read(head, at))
}

fn read_i64(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(read(head, at))
}

fn put<const N: usize>(head: &mut [u8; BATCH_HEADER_BYTES], at: usize, bytes: [u8; N]) {
    head[at..at + N].copy_from_slice(&bytes);
}

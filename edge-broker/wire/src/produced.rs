//! What a broker checks in a batch before it gives it an offset.
//!
//! A producer's batch is stored as it came, so everything a consumer will rely on is checked once, here:
//! one whole batch of magic 2, its CRC, no transactional or control flag, at least one record, offset deltas
//! 0, 1, 2 and so on up to the stated last one, and records that unpack within a limit.
//!
//! Source: `LogValidator` and `UnifiedLog.analyzeAndValidateRecords` of Apache Kafka.

use thiserror::Error;

use crate::compression::DecompressError;
use crate::record::{RecordError, Records};
use crate::record_batch::{BatchError, CrcMismatch, RecordBatchView};

/// Why a producer's batch was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProducedError {
    /// Not a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Damaged on the way.
    #[error(transparent)]
    Crc(#[from] CrcMismatch),
    /// Something follows the batch; one batch per partition and request is allowed.
    #[error("{excess_bytes} bytes follow the batch; one batch per partition is allowed")]
    SecondBatch {
        /// How many bytes.
        excess_bytes: usize,
    },
    /// A flag that a plain or idempotent producer does not set.
    #[error("{what} batches are not accepted from clients")]
    Forbidden {
        /// Which kind.
        what: &'static str,
    },
    /// A batch without records.
    #[error("the batch holds no records")]
    Empty,
    /// Count and last offset delta disagree.
    #[error("{record_count} records but a last offset delta of {last_offset_delta}")]
    Count {
        /// As stated.
        record_count: u32,
        /// As stated.
        last_offset_delta: u32,
    },
    /// An offset delta is not the next one.
    #[error("record {index} has offset delta {found}")]
    Delta {
        /// Which record, from 0.
        index: u32,
        /// Its delta.
        found: i32,
    },
    /// The records do not unpack.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// The records do not parse.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record's time is too far from the broker's.
    #[error(
        "record {index} has timestamp {timestamp_ms}, from {earliest_ms} to {latest_ms} are accepted"
    )]
    Timestamp {
        /// Which record, from 0.
        index: u32,
        /// Its timestamp.
        timestamp_ms: i64,
        /// The earliest that is accepted.
        earliest_ms: i64,
        /// The latest.
        latest_ms: i64,
    },
    /// A compacted topic needs a key in every record.
    #[error("record {index} has no key; a compacted topic needs one")]
    MissingKey {
        /// Which record, from 0.
        index: u32,
    },
}

/// What the check asks for beyond the format.
#[derive(Clone, Copy, Debug)]
pub struct ProducedLimits {
    /// Most bytes the records may unpack to.
    pub unpacked_bytes_max: usize,
    /// Whether every record must have a key (a compacted topic).
    pub key_required: bool,
    /// The earliest and the latest timestamp that a record may have, ms.
    pub timestamps_ms: Option<(i64, i64)>,
}

/// Checks the bytes a producer sent for one partition. `scratch` is working memory, its contents are lost.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_produced<'a>(
    bytes: &'a [u8],
    limits: ProducedLimits,
    scratch: &mut Vec<u8>,
) -> Result<RecordBatchView<'a>, ProducedError> {
    let batch = RecordBatchView::parse(bytes)?;
    let excess_bytes = bytes.len() - batch.bytes().len();
    if excess_bytes > 0 {
        return Err(ProducedError::SecondBatch { excess_bytes });
    }
    batch.verify_crc()?;
    let header = *batch.header();
    let forbidden = [
        (header.attributes.is_control(), "control"),
        (header.attributes.is_transactional(), "transactional"),
        (header.attributes.has_delete_horizon(), "delete horizon"),
    ];
    if let Some((_, what)) = forbidden.into_iter().find(|(set, _)| *set) {
        return Err(ProducedError::Forbidden { what });
    }
    let record_count = header.record_count;
    if record_count == 0 {
        return Err(ProducedError::Empty);
    }
    if header.last_offset_delta != record_count - 1 {
        return Err(ProducedError::Count {
            record_count,
            last_offset_delta: header.last_offset_delta,
        });
    }
    let section = batch.unpack(limits.unpacked_bytes_max, scratch)?;
    for (index, record) in (0u32..).zip(Records::new(section, record_count)) {
        let record = record?;
        if record.offset_delta as u32 != index {
            return Err(ProducedError::Delta { index, found: record.offset_delta });
        }
        if let Some((earliest_ms, latest_ms)) = limits.timestamps_ms {
            let timestamp_ms = header.base_timestamp.wrapping_add(record.timestamp_delta);
            if !(earliest_ms..=latest_ms).contains(&timestamp_ms) {
                return Err(ProducedError::Timestamp {
                    index,
                    timestamp_ms,
                    earliest_ms,
                    latest_ms,
                });
            }
        }
        if limits.key_required && record.key.is_none() {
            return Err(ProducedError::MissingKey { index });
        }
    }
    Ok(batch)
}

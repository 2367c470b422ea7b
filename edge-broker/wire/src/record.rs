//! One record inside a batch (Kafka's record format v2) and a checked walk over many.
//!
//! ```text
//! varint   length of what follows
//! i8       attributes, always 0
//! varlong  timestamp delta (ms to the batch's base timestamp)
//! varint   offset delta
//! varint   key length or -1,   key        } the key section
//! varint   value length or -1, value
//! varint   header count,       headers    } the headers section
//! ```
//!
//! The parser is zero-copy and trusts nothing: every length is checked against what is left, a record must
//! fill its stated length exactly, offset deltas must rise, and the number of records must be the stated one.
//!
//! Source: <https://kafka.apache.org/documentation/#record>.

use thiserror::Error;

use crate::headers::{HeadersView, get_nullable, put_length};
use crate::varint::{
    DecodeError, get_byte, get_slice, get_varint, get_varlong, put_varint, put_varlong, varint_len,
    varlong_len,
};

/// The fewest bytes a record can take, its length included.
pub const RECORD_BYTES_MIN: usize = 7;

/// One record, borrowed from the batch that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp in ms minus the batch's base timestamp.
    pub timestamp_delta: i64,
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is Kafka's null (a tombstone in a compacted topic).
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: HeadersView<'a>,
    /// The key as encoded: its length and its bytes.
    pub key_section: &'a [u8],
}

/// Why a records section was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A field of the record cannot be read.
    #[error("record {index}: {source}")]
    Field {
        /// Which record, from 0.
        index: u32,
        /// What is wrong.
        source: DecodeError,
    },
    /// The fields of a record are shorter than its stated length.
    #[error("record {index}: {excess_bytes} bytes more than its fields")]
    Excess {
        /// Which record, from 0.
        index: u32,
        /// How many bytes are left.
        excess_bytes: usize,
    },
    /// Offset deltas must rise.
    #[error("record {index}: offset delta {found} is not above {previous}")]
    OffsetDelta {
        /// Which record, from 0.
        index: u32,
        /// The delta of the record before, -1 for none.
        previous: i32,
        /// The delta found.
        found: i32,
    },
    /// The section is longer or shorter than its stated number of records.
    #[error("{left_bytes} bytes are left after the stated {count} records")]
    Trailing {
        /// Stated number of records.
        count: u32,
        /// What follows them.
        left_bytes: usize,
    },
    /// The section is too short for its stated number of records.
    #[error("{count} records cannot fit {section_bytes} bytes")]
    Count {
        /// Stated number of records.
        count: u32,
        /// Size of the section.
        section_bytes: usize,
    },
}

/// What of a record does not depend on its position in a batch: everything but the two deltas.
#[derive(Clone, Copy, Debug)]
pub struct RecordTail<'a> {
    /// `varint length or -1, key`.
    pub key_section: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
    /// `varint count, headers`.
    pub headers_section: &'a [u8],
}

impl RecordTail<'_> {
    /// Encoded size of the tail in bytes.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let value = match self.value {
            Some(value) => varlong_len(value.len() as i64) + value.len(),
            None => 1,
        };
        self.key_section.len() + value + self.headers_section.len()
    }
}

/// Appends one record.
#[inline]
pub fn put_record(
    out: &mut Vec<u8>,
    offset_delta: i32,
    timestamp_delta: i64,
    tail: RecordTail<'_>,
) {
    let body_bytes =
        1 + varlong_len(timestamp_delta) + varint_len(offset_delta) + tail.encoded_len();
    out.reserve(10 + body_bytes);
    put_length(out, body_bytes);
    out.push(0);
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    out.extend_from_slice(tail.key_section);
    crate::headers::put_nullable(out, tail.value);
    out.extend_from_slice(tail.headers_section);
}

/// Encoded size in bytes of one record.
#[must_use]
pub fn record_len(offset_delta: i32, timestamp_delta: i64, tail: RecordTail<'_>) -> usize {
    let body_bytes =
        1 + varlong_len(timestamp_delta) + varint_len(offset_delta) + tail.encoded_len();
    varlong_len(body_bytes as i64) + body_bytes
}

/// Walks an uncompressed records section. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    count: u32,
    index: u32,
    previous_delta: i32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Start { section_bytes: usize },
    Walking,
    Done,
}

impl<'a> Records<'a> {
    /// A walk over `section`, which must hold exactly `count` records.
    #[must_use]
    pub fn new(section: &'a [u8], count: u32) -> Self {
        Self {
            rest: section,
            count,
            index: 0,
            previous_delta: -1,
            state: State::Start { section_bytes: section.len() },
        }
    }

    fn next_record(&mut self) -> Result<RecordView<'a>, RecordError> {
        let index = self.index;
        let field = |source| RecordError::Field { index, source };
        let length = get_varint(&mut self.rest).map_err(field)?;
        let length = usize::try_from(length)
            .map_err(|_| field(DecodeError::Length { found: i64::from(length) }))?;
        let body = get_slice(&mut self.rest, length).map_err(field)?;
        let record = parse_body(body, index)?;
        if record.offset_delta <= self.previous_delta {
            return Err(RecordError::OffsetDelta {
                index,
                previous: self.previous_delta,
                found: record.offset_delta,
            });
        }
        self.previous_delta = record.offset_delta;
        self.index += 1;
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.state {
            State::Done => return None,
            State::Start { section_bytes } => {
                self.state = State::Walking;
                if self.count as usize > section_bytes / RECORD_BYTES_MIN {
                    self.state = State::Done;
                    return Some(Err(RecordError::Count { count: self.count, section_bytes }));
                }
            }
            State::Walking => {}
        }
        if self.index == self.count {
            self.state = State::Done;
            return (!self.rest.is_empty()).then_some(Err(RecordError::Trailing {
                count: self.count,
                left_bytes: self.rest.len(),
            }));
        }
        let next = self.next_record();
        if next.is_err() {
            self.state = State::Done;
        }
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some((self.count - self.index) as usize + 1))
    }
}

fn parse_body(body: &[u8], index: u32) -> Result<RecordView<'_>, RecordError> {
    let field = |source| RecordError::Field { index, source };
    let mut rest = body;
    // Attributes: unused in v2, readers ignore them.
    get_byte(&mut rest).map_err(field)?;
    let timestamp_delta = get_varlong(&mut rest).map_err(field)?;
    let offset_delta = get_varint(&mut rest).map_err(field)?;
    let before_key = rest;
    let key = get_nullable(&mut rest).map_err(field)?;
    let key_section = &before_key[..before_key.len() - rest.len()];
    let value = get_nullable(&mut rest).map_err(field)?;
    let headers = HeadersView::parse(rest).map_err(|source| match source {
        DecodeError::Length { found } if found == rest.len() as i64 && found > 0 => {
            RecordError::Excess { index, excess_bytes: rest.len() }
        }
        other => field(other),
    })?;
    Ok(RecordView { offset_delta, timestamp_delta, key, value, headers, key_section })
}

//! Requests as they come off the wire: a 4-byte length, then a header, then a body.
//!
//! - The length is believed only within limits, and the API and version are looked at as soon as eight bytes
//!   are there: an HTTP request or a TLS hello is refused before anything is kept for it.
//! - A request without records is held to [`SMALL_REQUEST_BYTES_MAX`].
//! - The buffer can be given back whenever it is empty.
//!
//! Source: <https://kafka.apache.org/protocol.html#protocol_messages>.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use thiserror::Error;

use edge_wire::varint::{DecodeError, get_slice};

use crate::api_versions::{self, Api};
use crate::request_layout;

/// Largest request that is not a Produce.
pub(crate) const SMALL_REQUEST_BYTES_MAX: usize = 1 << 20;
/// API key, version, correlation id: the least a header has.
const HEADER_BYTES_MIN: usize = 8;
const LENGTH_BYTES: usize = 4;

/// Why a connection is closed rather than answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum FrameError {
    /// The length is none that a request can have.
    #[error("a request of {found} bytes (at most {max} are read); is this a Kafka client?")]
    Length { found: i64, max: usize },
    /// Not an API of this table.
    #[error("API {key} is not served here")]
    UnknownApi { key: i16 },
    /// Not a version of this table.
    #[error("{key:?} version {version} is not served here")]
    UnknownVersion { key: ApiKey, version: i16 },
    /// The header or the body do not parse.
    #[error("a malformed {key:?} request, version {version}: {source}")]
    Malformed { key: ApiKey, version: i16, source: DecodeError },
}

/// A request, its body not yet decoded but walked: every length and count in it fits.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
}

/// What the answer needs to know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

/// What the reader does next.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A whole request.
    Frame(Frame),
    /// Read at least so many bytes more.
    More { missing_bytes: usize },
    /// An ApiVersions request of a version we do not know: it is answered all the same (KIP-511).
    UnknownApiVersions { correlation_id: i32 },
}

/// Cuts requests out of what was read.
pub(crate) struct Frames {
    pub(crate) buffer: BytesMut,
    request_bytes_max: usize,
}

impl Frames {
    pub(crate) fn new(request_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), request_bytes_max }
    }

    /// Whether nothing of a next request has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Gives the buffer back, if nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// The next request, or what is missing for it.
    pub(crate) fn next(&mut self) -> Result<Progress, FrameError> {
        let have = self.buffer.len();
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(Progress::More { missing_bytes: LENGTH_BYTES - have });
        };
        let found = i64::from(i32::from_be_bytes(*length));
        let length = usize::try_from(found)
            .ok()
            .filter(|length| (HEADER_BYTES_MIN..=self.request_bytes_max).contains(length))
            .ok_or(FrameError::Length { found, max: self.request_bytes_max })?;
        let Some(start) = self.buffer.get(LENGTH_BYTES..LENGTH_BYTES + HEADER_BYTES_MIN) else {
            return Ok(Progress::More { missing_bytes: LENGTH_BYTES + HEADER_BYTES_MIN - have });
        };
        let (api, version, known) = look_up(start, length)?;
        let whole = LENGTH_BYTES + length;
        if have < whole {
            return Ok(Progress::More { missing_bytes: whole - have });
        }
        let mut frame = self.buffer.split_to(whole);
        frame.advance(LENGTH_BYTES);
        let mut body = frame.freeze();
        let correlation_id = body.slice(LENGTH_BYTES..HEADER_BYTES_MIN).get_i32();
        body.advance(HEADER_BYTES_MIN);
        if !known {
            return Ok(Progress::UnknownApiVersions { correlation_id });
        }
        let malformed = |source| FrameError::Malformed { key: api.key, version, source };
        let flexible = api.is_flexible(version);
        let header_bytes = header_rest(&body, flexible).map_err(malformed)?;
        body.advance(header_bytes);
        request_layout::check(api.layout, version, flexible, &body).map_err(malformed)?;
        let head = Head { key: api.key, version, correlation_id };
        Ok(Progress::Frame(Frame { head, body }))
    }
}

/// The API a request names; the last is false for a version of ApiVersions that we do not know.
fn look_up(start: &[u8], length: usize) -> Result<(&'static Api, i16, bool), FrameError> {
    let mut start = start;
    let key = start.get_i16();
    let version = start.get_i16();
    let api = api_versions::find(key).ok_or(FrameError::UnknownApi { key })?;
    if api.key != ApiKey::Produce && length > SMALL_REQUEST_BYTES_MAX {
        let found = i64::try_from(length).unwrap_or(i64::MAX);
        return Err(FrameError::Length { found, max: SMALL_REQUEST_BYTES_MAX });
    }
    let known = api.has(version);
    if !known && api.key != ApiKey::ApiVersions {
        return Err(FrameError::UnknownVersion { key: api.key, version });
    }
    Ok((api, version, known))
}

/// Size of the header behind the correlation id: the client's name and, in flexible versions, tags.
fn header_rest(input: &[u8], flexible: bool) -> Result<usize, DecodeError> {
    let mut rest = input;
    let mut length = [0; 2];
    length.copy_from_slice(get_slice(&mut rest, 2)?);
    let length = i16::from_be_bytes(length);
    if length != -1 {
        let length = usize::try_from(length)
            .map_err(|_| DecodeError::Length { found: i64::from(length) })?;
        get_slice(&mut rest, length)?;
    }
    if flexible {
        request_layout::skip_tags(&mut rest)?;
    }
    Ok(input.len() - rest.len())
}

#[cfg(test)]
mod tests;

//! What many records of one origin share: the key and the headers.
//!
//! A sensor's records differ in value and time only. Their key and headers are encoded once, exactly as
//! Kafka's record format wants them, so that writing a record is a few varints and three copies.

use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::headers::{HeadersView, NO_HEADERS, get_nullable, put_nullable};
use crate::record::RecordTail;
use crate::varint::DecodeError;

/// An encoded key and encoded headers. Immutable; share it with an `Arc`.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Key section, then headers section.
    bytes: Box<[u8]>,
    key_section_bytes: u32,
    id: EnvelopeId,
}

/// Tells envelopes apart without looking at their bytes: clones have the same, and none is given out twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnvelopeId(NonZeroU64);

impl EnvelopeId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX))
    }
}

/// An [`Envelope`] whose bytes lie somewhere else: in the chunk of records that refer to it.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeView<'a> {
    id: EnvelopeId,
    bytes: &'a [u8],
}

impl<'a> EnvelopeView<'a> {
    /// From what [`Envelope::id`] and [`Envelope::as_bytes`] gave.
    #[inline]
    #[must_use]
    pub fn new(id: EnvelopeId, bytes: &'a [u8]) -> Self {
        Self { id, bytes }
    }

    /// Which envelope it is.
    #[inline]
    #[must_use]
    pub fn id(self) -> EnvelopeId {
        self.id
    }

    /// Key section and headers section, one behind the other.
    #[inline]
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The key, and the headers.
    #[inline]
    #[must_use]
    pub fn parts(self) -> (Option<&'a [u8]>, HeadersView<'a>) {
        let mut rest = self.bytes;
        let key = get_nullable(&mut rest).ok().flatten();
        // Checked when the envelope was made.
        (key, HeadersView::of_checked(rest).unwrap_or(HeadersView::empty()))
    }
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Envelope {}

impl Hash for Envelope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl Envelope {
    /// From a key and a headers section (`varint count`, then the headers; empty means no headers).
    ///
    /// The headers section must be one this crate built or checked
    /// ([`HeadersBuilder`](crate::HeadersBuilder), [`HeadersView::section`]).
    #[must_use]
    pub fn new(key: Option<&[u8]>, headers_section: &[u8]) -> Self {
        let headers_section = if headers_section.is_empty() { NO_HEADERS } else { headers_section };
        debug_assert!(HeadersView::parse(headers_section).is_ok());
        let mut bytes = Vec::with_capacity(5 + key.map_or(0, <[u8]>::len) + headers_section.len());
        put_nullable(&mut bytes, key);
        let key_section_bytes = bytes.len() as u32;
        bytes.extend_from_slice(headers_section);
        Self { bytes: bytes.into_boxed_slice(), key_section_bytes, id: EnvelopeId::next() }
    }

    /// From the bytes of [`as_bytes`](Self::as_bytes), all of them checked.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        get_nullable(&mut rest)?;
        HeadersView::parse(rest)?;
        let key_section_bytes = (bytes.len() - rest.len()) as u32;
        Ok(Self { bytes: bytes.into(), key_section_bytes, id: EnvelopeId::next() })
    }

    /// Key section and headers section, one behind the other.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which envelope it is.
    #[inline]
    #[must_use]
    pub fn id(&self) -> EnvelopeId {
        self.id
    }

    /// The same, borrowed.
    #[inline]
    #[must_use]
    pub fn view(&self) -> EnvelopeView<'_> {
        EnvelopeView { id: self.id, bytes: &self.bytes }
    }

    /// `varint length or -1, key`.
    #[inline]
    #[must_use]
    pub fn key_section(&self) -> &[u8] {
        &self.bytes[..self.key_section_bytes as usize]
    }

    /// `varint count, headers`.
    #[inline]
    #[must_use]
    pub fn headers_section(&self) -> &[u8] {
        &self.bytes[self.key_section_bytes as usize..]
    }

    /// The key; `None` is Kafka's null.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        get_nullable(&mut self.key_section()).ok().flatten()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> HeadersView<'_> {
        // Checked when this envelope was made.
        HeadersView::of_checked(self.headers_section()).unwrap_or(HeadersView::empty())
    }

    /// Size in bytes of both sections.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// The tail of a record with this key, these headers and `value`.
    #[inline]
    #[must_use]
    pub fn tail<'a>(&'a self, value: Option<&'a [u8]>) -> RecordTail<'a> {
        RecordTail {
            key_section: self.key_section(),
            value,
            headers_section: self.headers_section(),
        }
    }
}

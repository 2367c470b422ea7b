//! The headers of a record: `varint count`, then per header `varint key length, key, varint value length
//! or -1, value`. These bytes are called a *headers section* everywhere in this workspace.
//!
//! A header key is UTF-8 and never null; a value may be null. Order and duplicates are kept.
//!
//! Source: <https://kafka.apache.org/documentation/#recordheader>.

use crate::varint::{self, DecodeError, get_slice, get_varint, put_varint};

/// The headers section of a record without headers.
pub const NO_HEADERS: &[u8] = &[0];

/// One header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name, not necessarily unique.
    pub key: &'a str,
    /// Its value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// A headers section whose every byte has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersView<'a> {
    section: &'a [u8],
    body: &'a [u8],
    count: u32,
}

impl<'a> HeadersView<'a> {
    /// Checks a whole headers section; nothing may follow it.
    ///
    /// # Errors
    /// What is wrong with the first wrong header.
    pub fn parse(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = section;
        let count = get_varint(&mut rest)?;
        let found = i64::from(count);
        let count = u32::try_from(count).map_err(|_| DecodeError::Length { found })?;
        // A header takes two bytes at least, so a count beyond that is a lie.
        if count as usize > rest.len() / 2 {
            return Err(DecodeError::Length { found });
        }
        let body = rest;
        for _ in 0..count {
            get_header(&mut rest)?;
        }
        if !rest.is_empty() {
            return Err(DecodeError::Length { found: rest.len() as i64 });
        }
        Ok(Self { section, body, count })
    }

    /// A headers section that was checked before.
    pub(crate) fn of_checked(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut body = section;
        let count = get_varint(&mut body)?.unsigned_abs();
        Ok(Self { section, body, count })
    }

    /// Names and values in their order, the names as bytes.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.body;
        // As in `iter`.
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let name = get_nullable(&mut rest).ok()??;
            Some((name, get_nullable(&mut rest).ok()?))
        })
    }

    /// The headers of a record that has none.
    #[must_use]
    pub const fn empty() -> HeadersView<'static> {
        HeadersView { section: NO_HEADERS, body: &[], count: 0 }
    }

    /// The exact bytes, count included.
    #[must_use]
    pub const fn section(&self) -> &'a [u8] {
        self.section
    }

    /// Number of headers.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers in their order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.body;
        // The section was checked by `parse`, so an error cannot come up before the last header.
        std::iter::from_fn(move || if rest.is_empty() { None } else { get_header(&mut rest).ok() })
    }

    /// The value of the last header of this name, as Kafka's `lastHeader`.
    #[must_use]
    pub fn last(&self, key: &str) -> Option<Header<'a>> {
        self.iter().filter(|header| header.key == key).last()
    }
}

/// Builds a headers section.
#[derive(Clone, Debug, Default)]
pub struct HeadersBuilder {
    body: Vec<u8>,
    count: u32,
}

impl HeadersBuilder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header behind those already there.
    pub fn push(&mut self, key: &str, value: Option<&[u8]>) -> &mut Self {
        put_header(&mut self.body, key, value);
        self.count += 1;
        self
    }

    /// Forgets all headers, keeps the memory.
    pub fn clear(&mut self) {
        self.body.clear();
        self.count = 0;
    }

    /// Appends the headers section.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(varint::VARINT_BYTES_MAX + self.body.len());
        varint::put_varlong(out, i64::from(self.count));
        out.extend_from_slice(&self.body);
    }

    /// The headers section.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// Appends one header. The caller writes the count in front of the first one.
pub fn put_header(out: &mut Vec<u8>, key: &str, value: Option<&[u8]>) {
    put_length(out, key.len());
    out.extend_from_slice(key.as_bytes());
    put_nullable(out, value);
}

/// Appends `varint length, bytes`, or -1 for `None`: how keys, values and header values are written.
#[inline]
pub(crate) fn put_nullable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

/// Takes what [`put_nullable`] wrote.
#[inline]
pub(crate) fn get_nullable<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, DecodeError> {
    match get_varint(input)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length)
                .map_err(|_| DecodeError::Length { found: i64::from(length) })?;
            get_slice(input, length).map(Some)
        }
    }
}

/// A length beyond `i32` is written as the longer varlong: a reader refuses it, nothing is cut short.
#[inline]
pub(crate) fn put_length(out: &mut Vec<u8>, length_bytes: usize) {
    varint::put_varlong(out, length_bytes as i64);
}

fn get_header<'a>(input: &mut &'a [u8]) -> Result<Header<'a>, DecodeError> {
    let key = get_nullable(input)?.ok_or(DecodeError::Length { found: -1 })?;
    let key = std::str::from_utf8(key).map_err(|_| DecodeError::Utf8)?;
    let value = get_nullable(input)?;
    Ok(Header { key, value })
}

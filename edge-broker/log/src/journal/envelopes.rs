//! The envelopes of a group, in columns: what is alike stands together, so that the group compresses.
//!
//! An envelope is a key and headers; those of one lane mostly have the same header names and differ in the key
//! and a few values. A *shape* is a list of header names.
//!
//! ```text
//! varint  number of envelopes
//! column  shapes, numbered from 1: number of headers, then each name: length, bytes
//! column  for each envelope: its shape; 0 = raw
//! column  lengths, see below: length + 1, 0 = null; of a raw envelope its length
//! column  bytes, in the same order
//! ```
//!
//! A column is a length and its bytes. Lengths and bytes: first every envelope's key (a raw envelope: all of it),
//! then every first header value, then every second one, and so on. The exact encoding that Kafka's record format
//! wants is rebuilt; an envelope whose encoding is not the shortest one is kept raw.

use edge_wire::Envelope;
use edge_wire::varint::{
    get_slice, get_unsigned, get_varlong, put_unsigned, put_varlong, varlong_len,
};

use super::entry::{get_bytes, get_u32_varint, put_bytes};
use super::format::{Malformed, malformed};

/// More shapes are kept raw.
const SHAPES_MAX: usize = 64;

/// Columns that are being made; kept from group to group.
#[derive(Debug, Default)]
pub(crate) struct EnvelopeWriter {
    shapes: Vec<u8>,
    shape_ends: Vec<usize>,
    refs: Vec<u8>,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    names: Vec<u8>,
}

impl EnvelopeWriter {
    /// Appends the columns for these envelopes, in this order.
    pub(crate) fn put<'e>(
        &mut self,
        out: &mut Vec<u8>,
        envelopes: impl Iterator<Item = &'e Envelope>,
    ) {
        for column in [&mut self.shapes, &mut self.refs, &mut self.lengths, &mut self.bytes] {
            column.clear();
        }
        self.shape_ends.clear();
        // Values of all envelopes, and where those of each begin.
        let mut values: Vec<Option<&'e [u8]>> = Vec::new();
        let mut firsts: Vec<usize> = Vec::new();
        for envelope in envelopes {
            firsts.push(values.len());
            let shape = self.shape_of(envelope, &mut values);
            put_unsigned(&mut self.refs, shape as u64);
            if shape == 0 {
                values.truncate(firsts[firsts.len() - 1]);
                put_bytes_apart(&mut self.lengths, &mut self.bytes, Some(envelope.as_bytes()), 0);
            } else {
                put_bytes_apart(&mut self.lengths, &mut self.bytes, envelope.key(), 1);
            }
        }
        let count = firsts.len();
        firsts.push(values.len());
        let headers_max = firsts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        for header in 0..headers_max {
            for pair in firsts.windows(2) {
                if let Some(value) = values[pair[0]..pair[1]].get(header) {
                    put_bytes_apart(&mut self.lengths, &mut self.bytes, *value, 1);
                }
            }
        }
        put_unsigned(out, count as u64);
        for column in [&self.shapes, &self.refs, &self.lengths, &self.bytes] {
            put_bytes(out, column);
        }
    }

    /// The shape of an envelope, whose header values it appends; 0 if it is kept raw.
    fn shape_of<'e>(
        &mut self,
        envelope: &'e Envelope,
        values: &mut Vec<Option<&'e [u8]>>,
    ) -> usize {
        self.names.clear();
        let headers = envelope.headers();
        let first = values.len();
        let mut shortest = nullable_len(envelope.key());
        for (name, value) in headers.iter_bytes() {
            put_bytes(&mut self.names, name);
            shortest += nullable_len(Some(name)) + nullable_len(value);
            values.push(value);
        }
        let count = values.len() - first;
        shortest += varlong_len(count as i64);
        if shortest != envelope.encoded_len() {
            return 0;
        }
        let mut start = 0;
        for (index, end) in self.shape_ends.iter().enumerate() {
            let mut known = &self.shapes[start..*end];
            if get_unsigned(&mut known) == Ok(count as u64) && known == self.names {
                return index + 1;
            }
            start = *end;
        }
        if self.shape_ends.len() == SHAPES_MAX {
            return 0;
        }
        put_unsigned(&mut self.shapes, count as u64);
        self.shapes.extend_from_slice(&self.names);
        self.shape_ends.push(self.shapes.len());
        self.shape_ends.len()
    }
}

fn put_bytes_apart(
    lengths: &mut Vec<u8>,
    bytes: &mut Vec<u8>,
    value: Option<&[u8]>,
    null_shift: u64,
) {
    put_unsigned(lengths, value.map_or(0, |value| value.len() as u64 + null_shift));
    bytes.extend_from_slice(value.unwrap_or(&[]));
}

fn nullable_len(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| varlong_len(value.len() as i64) + value.len())
}

/// Where an envelope is in [`EnvelopeTable::bytes`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvelopeSlot {
    pub(crate) start: u32,
    pub(crate) key_end: u32,
    pub(crate) end: u32,
}

/// Envelopes as Kafka's record format encodes them.
#[derive(Debug, Default)]
pub(crate) struct EnvelopeTable {
    pub(crate) bytes: Vec<u8>,
    pub(crate) slots: Vec<EnvelopeSlot>,
}

/// A shape as read.
struct Shape<'a> {
    names: Vec<&'a [u8]>,
}

/// Reads the columns. The envelopes together take at most `bytes_max`.
pub(crate) fn get_envelopes(
    input: &mut &[u8],
    bytes_max: usize,
) -> Result<EnvelopeTable, Malformed> {
    let count = get_unsigned(input)?;
    let mut shape_column = get_bytes(input)?;
    let mut refs = get_bytes(input)?;
    let mut lengths = get_bytes(input)?;
    let mut bytes = get_bytes(input)?;
    if count > refs.len() as u64 {
        return malformed("more envelopes than shapes are named");
    }
    let mut shapes = Vec::new();
    while !shape_column.is_empty() {
        let headers = get_unsigned(&mut shape_column)?;
        if headers > shape_column.len() as u64 {
            return malformed("a shape with more headers than bytes");
        }
        let mut names = Vec::with_capacity(headers as usize);
        for _ in 0..headers {
            names.push(get_bytes(&mut shape_column)?);
        }
        shapes.push(Shape { names });
    }
    let mut of: Vec<Option<&Shape<'_>>> = Vec::with_capacity(count as usize);
    let mut keys: Vec<Option<&[u8]>> = Vec::with_capacity(count as usize);
    let mut headers_max = 0;
    for _ in 0..count {
        let shape = get_u32_varint(&mut refs)?;
        let length = get_unsigned(&mut lengths)?;
        if shape == 0 {
            of.push(None);
            keys.push(Some(take(&mut bytes, length)?));
            continue;
        }
        let Some(shape) = shapes.get(shape as usize - 1) else {
            return malformed("an envelope of an unknown shape");
        };
        headers_max = headers_max.max(shape.names.len());
        of.push(Some(shape));
        keys.push(length.checked_sub(1).map(|length| take(&mut bytes, length)).transpose()?);
    }
    let mut values: Vec<Vec<Option<&[u8]>>> = of.iter().map(|_| Vec::new()).collect();
    for header in 0..headers_max {
        for (shape, values) in of.iter().zip(&mut values) {
            if shape.is_some_and(|shape| shape.names.len() > header) {
                let length = get_unsigned(&mut lengths)?.checked_sub(1);
                values.push(length.map(|length| take(&mut bytes, length)).transpose()?);
            }
        }
    }
    let mut table = EnvelopeTable::default();
    for ((shape, key), values) in of.iter().zip(keys).zip(values) {
        table.push(*shape, key, &values)?;
        if table.bytes.len() > bytes_max {
            return malformed("envelopes larger than a group can be");
        }
    }
    Ok(table)
}

impl EnvelopeTable {
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.slots.capacity() * size_of::<EnvelopeSlot>()
    }

    /// The same envelopes with one more header behind the others.
    pub(crate) fn with_header(&self, name: &str, value: &str) -> Self {
        let mut table = Self::default();
        for slot in &self.slots {
            let part = |from: u32, to: u32| &self.bytes[from as usize..to as usize];
            let start = table.bytes.len() as u32;
            table.bytes.extend_from_slice(part(slot.start, slot.key_end));
            let key_end = table.bytes.len() as u32;
            let mut headers = part(slot.key_end, slot.end);
            // They were read or written by us: there is a count.
            let count = get_varlong(&mut headers).unwrap_or(0);
            put_varlong(&mut table.bytes, count + 1);
            table.bytes.extend_from_slice(headers);
            put_nullable(&mut table.bytes, Some(name.as_bytes()));
            put_nullable(&mut table.bytes, Some(value.as_bytes()));
            table.slots.push(EnvelopeSlot { start, key_end, end: table.bytes.len() as u32 });
        }
        table
    }

    fn push(
        &mut self,
        shape: Option<&Shape<'_>>,
        key: Option<&[u8]>,
        values: &[Option<&[u8]>],
    ) -> Result<(), Malformed> {
        let start = self.bytes.len() as u32;
        let Some(shape) = shape else {
            let raw = key.unwrap_or(&[]);
            let Ok(envelope) = Envelope::decode(raw) else {
                return malformed("a raw envelope cannot be read");
            };
            self.bytes.extend_from_slice(raw);
            let key_end = start + envelope.key_section().len() as u32;
            self.slots.push(EnvelopeSlot { start, key_end, end: self.bytes.len() as u32 });
            return Ok(());
        };
        put_nullable(&mut self.bytes, key);
        let key_end = self.bytes.len() as u32;
        put_varlong(&mut self.bytes, values.len() as i64);
        for (name, value) in shape.names.iter().zip(values) {
            put_nullable(&mut self.bytes, Some(name));
            put_nullable(&mut self.bytes, *value);
        }
        self.slots.push(EnvelopeSlot { start, key_end, end: self.bytes.len() as u32 });
        Ok(())
    }
}

/// As Kafka encodes it: zigzag length or -1, bytes.
fn put_nullable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    put_varlong(out, value.map_or(-1, |value| value.len() as i64));
    out.extend_from_slice(value.unwrap_or(&[]));
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let Ok(length) = usize::try_from(length) else { return malformed("a length does not fit") };
    Ok(get_slice(bytes, length)?)
}

#[cfg(test)]
mod tests {
    use edge_wire::HeadersBuilder;
    use proptest::prelude::*;

    use super::*;

    fn round_trip(envelopes: &[Envelope]) {
        let (mut writer, mut out) = (EnvelopeWriter::default(), Vec::new());
        writer.put(&mut out, envelopes.iter());
        let mut input = &out[..];
        let table = get_envelopes(&mut input, 1 << 20).unwrap();
        assert!(input.is_empty());
        assert_eq!(table.slots.len(), envelopes.len());
        for (slot, envelope) in table.slots.iter().zip(envelopes) {
            let bytes = &table.bytes[slot.start as usize..slot.end as usize];
            assert_eq!(bytes, envelope.as_bytes());
            assert_eq!((slot.key_end - slot.start) as usize, envelope.key_section().len());
        }
    }

    #[test]
    fn an_encoding_that_is_not_the_shortest_is_kept() {
        // The header count 1 in two bytes.
        let odd = Envelope::decode(&[1, 0x82, 0x00, 2, b'n', 1]).unwrap();
        round_trip(&[odd.clone(), Envelope::new(None, &[]), odd]);
    }

    proptest! {
        #[test]
        fn envelopes_come_back_exactly(
            raw in prop::collection::vec(
                (
                    prop::option::of("[a-z/]{0,12}"),
                    prop::collection::vec(("[a-c]{0,2}", prop::option::of("[a-z]{0,200}")), 0..4),
                ),
                0..40,
            ),
        ) {
            let envelopes: Vec<_> = raw
                .iter()
                .map(|(key, headers)| {
                    let mut builder = HeadersBuilder::new();
                    for (name, value) in headers {
                        builder.push(name, value.as_ref().map(|value| value.as_bytes()));
                    }
                    Envelope::new(key.as_ref().map(|key| key.as_bytes()), &builder.finish())
                })
                .collect();
            round_trip(&envelopes);
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = get_envelopes(&mut &bytes[..], 1000);
        }
    }
}

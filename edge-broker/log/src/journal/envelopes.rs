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
use edge_wire::varint::{get_slice, get_unsigned, get_varlong, put_unsigned, put_varlong};

use super::entry::{get_bytes, get_u32_varint, put_bytes};
use super::envelope_arena::{EnvelopeArena, Parts};
use super::format::{Malformed, malformed};

/// Columns that are being made; kept from group to group.
#[derive(Debug, Default)]
pub(crate) struct EnvelopeWriter {
    shapes: Vec<u8>,
    /// The number of each shape of the arena in the body, 0 = not named yet.
    numbers: Vec<u32>,
    refs: Vec<u8>,
    keys: Column,
    /// First every first header value, then every second one.
    headers: Vec<Column>,
}

/// Lengths and bytes, to be put behind those of other columns.
#[derive(Debug, Default)]
struct Column {
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

impl Column {
    fn clear(&mut self) {
        self.lengths.clear();
        self.bytes.clear();
    }

    fn push(&mut self, length: u32, bytes: &[u8]) {
        put_unsigned(&mut self.lengths, u64::from(length));
        self.bytes.extend_from_slice(bytes);
    }
}

impl EnvelopeWriter {
    /// Appends the columns for these envelopes of the arena, in this order.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, arena: &EnvelopeArena, named: &[u32]) {
        self.shapes.clear();
        self.refs.clear();
        self.keys.clear();
        self.headers.iter_mut().for_each(Column::clear);
        self.numbers.clear();
        self.numbers.resize(arena.shapes() + 1, 0);
        let mut shapes = 0;
        for number in named {
            let (shape, lengths, mut bytes) = match arena.get(*number) {
                Parts::Raw(raw) => {
                    self.refs.push(0);
                    self.keys.push(raw.len() as u32, raw);
                    continue;
                }
                Parts::Shaped { shape, lengths, bytes } => (shape, lengths, bytes),
            };
            let known = &mut self.numbers[shape as usize];
            if *known == 0 {
                shapes += 1;
                *known = shapes;
                self.shapes.extend_from_slice(arena.shape_of(shape));
            }
            put_unsigned(&mut self.refs, u64::from(*known));
            if self.headers.len() + 1 < lengths.len() {
                self.headers.resize_with(lengths.len() - 1, Column::default);
            }
            let columns = std::iter::once(&mut self.keys).chain(&mut self.headers);
            for (length, column) in lengths.iter().zip(columns) {
                let (value, rest) = bytes.split_at(length.saturating_sub(1) as usize);
                column.push(*length, value);
                bytes = rest;
            }
        }
        put_unsigned(out, named.len() as u64);
        put_bytes(out, &self.shapes);
        put_bytes(out, &self.refs);
        let columns = || std::iter::once(&self.keys).chain(&self.headers);
        put_unsigned(out, columns().map(|column| column.lengths.len() as u64).sum());
        columns().for_each(|column| out.extend_from_slice(&column.lengths));
        put_unsigned(out, columns().map(|column| column.bytes.len() as u64).sum());
        columns().for_each(|column| out.extend_from_slice(&column.bytes));
    }
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
        let mut arena = EnvelopeArena::default();
        let named: Vec<u32> = envelopes.iter().map(|known| arena.push(known.view())).collect();
        writer.put(&mut out, &arena, &named);
        let encoded: usize = envelopes.iter().map(Envelope::encoded_len).sum();
        assert!(encoded <= 2 * arena.bytes() + 1, "what it unpacks to is bounded");
        assert!(
            out.len() <= arena.bytes() + 16 + envelopes.len() * 4,
            "and what it takes is counted"
        );
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

//! The envelopes of the groups that are being put together: taken apart once, when they come for the first time.
//!
//! A sensor's next record has the same envelope, mostly in a later group. So envelopes stay from group to group, in
//! memory that is small and side by side, and each knows the last group that it was used in: what a group takes is
//! counted from those that it uses. Header names are kept once for each *shape* (envelopes.rs).
//!
//! Limits: [`SLOTS_KEPT`] envelopes and [`BYTES_KEPT`] of keys and values stay; with more all are forgotten when the next
//! group begins.

use edge_wire::varint::{put_unsigned, varlong_len};
use edge_wire::{EnvelopeView, HeadersView};

use super::entry::put_bytes;

/// Envelopes with more shapes than that are kept raw.
pub(crate) const SHAPES_MAX: usize = 64;
/// What stays from group to group.
const BYTES_KEPT: usize = 1 << 20;
const SLOTS_KEPT: usize = 16 << 10;

/// Envelopes, by the number that [`EnvelopeArena::push`] gave.
#[derive(Debug, Default)]
pub(crate) struct EnvelopeArena {
    slots: Vec<Slot>,
    /// Keys and header values; of a raw envelope all of it.
    bytes: Vec<u8>,
    /// Of an envelope that is not raw, for its key and each header value: length + 1, 0 = null.
    lengths: Vec<u32>,
    /// Number of headers, then each name: length, bytes.
    shapes: Vec<u8>,
    shape_ends: Vec<usize>,
    /// The last group that named each shape.
    shape_groups: Vec<u32>,
    /// The shape of the last envelope: mostly that of the next.
    last_shape: u32,
    names: Vec<u8>,
    /// The group that is being put together, from 0.
    group: u32,
    /// What it uses.
    used: usize,
    encoded_bytes: usize,
    column_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    lengths_at: u32,
    /// From 1; 0 = raw.
    shape: u32,
    encoded_bytes: u32,
    /// The last group that used it.
    group: u32,
}

/// One envelope as it was taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parts<'a> {
    /// As it was encoded.
    Raw(&'a [u8]),
    Shaped {
        /// From 1.
        shape: u32,
        /// As in [`EnvelopeArena`]: the key, then the header values.
        lengths: &'a [u32],
        bytes: &'a [u8],
    },
}

impl EnvelopeArena {
    /// Envelopes known, used in this group or not.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Envelopes that this group uses.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn is_used(&self, number: u32) -> bool {
        self.slots.get(number as usize).is_some_and(|slot| slot.group == self.group)
    }

    pub(crate) fn shapes(&self) -> usize {
        self.shape_ends.len()
    }

    /// Bytes that the envelopes of this group take in the body. What a reader unpacks them to, names and all, counts
    /// half: it is never more than twice this.
    pub(crate) fn bytes(&self) -> usize {
        self.column_bytes.max(self.encoded_bytes / 2)
    }

    /// Bytes of one envelope as Kafka encodes it.
    pub(crate) fn encoded_bytes(&self, number: u32) -> Option<usize> {
        self.slots.get(number as usize).map(|slot| slot.encoded_bytes as usize)
    }

    /// Begins the next group, which uses nothing yet. True: all envelopes were forgotten.
    pub(crate) fn begin(&mut self) -> bool {
        (self.used, self.encoded_bytes, self.column_bytes) = (0, 0, 0);
        let is_large = self.slots.len() > SLOTS_KEPT || self.bytes.len() > BYTES_KEPT;
        // A shape that nobody uses any more must not be in the way of a new one.
        let forgets = is_large || self.shape_ends.len() == SHAPES_MAX || self.group == u32::MAX;
        self.group = self.group.wrapping_add(1);
        if forgets {
            self.slots.clear();
            self.slots.shrink_to(SLOTS_KEPT);
            self.bytes.clear();
            self.bytes.shrink_to(BYTES_KEPT);
            self.lengths.clear();
            self.lengths.shrink_to(8 * SLOTS_KEPT);
            self.shapes.clear();
            self.shape_ends.clear();
            self.shape_groups.clear();
            self.last_shape = 0;
        }
        forgets
    }

    /// This group uses an envelope that was pushed before.
    #[inline]
    pub(crate) fn mark(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.group != self.group {
            slot.group = self.group;
            self.count(number);
        }
    }

    fn count(&mut self, number: u32) {
        let slot = self.slots[number as usize];
        let next = self.slots.get(number as usize + 1);
        let end = next.map_or(self.bytes.len(), |next| next.start as usize);
        let lengths_end = next.map_or(self.lengths.len(), |next| next.lengths_at as usize);
        self.used += 1;
        self.encoded_bytes += slot.encoded_bytes as usize;
        // The lengths and the shape take a byte each, mostly.
        self.column_bytes += end - slot.start as usize + lengths_end - slot.lengths_at as usize + 2;
        if let Some(shape) = (slot.shape as usize).checked_sub(1)
            && self.shape_groups[shape] != self.group
        {
            self.shape_groups[shape] = self.group;
            self.column_bytes += self.shape_of(slot.shape).len();
        }
    }

    /// Takes an envelope apart, which this group uses; its number.
    pub(crate) fn push(&mut self, envelope: EnvelopeView<'_>) -> u32 {
        let number = self.slots.len() as u32;
        let (start, lengths_at) = (self.bytes.len(), self.lengths.len());
        let encoded = envelope.as_bytes();
        let (key, headers) = envelope.parts();
        let mut shortest = nullable_len(key) + varlong_len(headers.len() as i64);
        let Self { bytes, lengths, shapes, shape_ends, last_shape, .. } = self;
        put_value(bytes, lengths, key);
        let mut left = begin_names(shape_of(shapes, shape_ends, *last_shape), headers.len());
        for (name, value) in headers.iter_bytes() {
            shortest += nullable_len(Some(name)) + nullable_len(value);
            left = left.and_then(|left| strip_name(left, name));
            put_value(bytes, lengths, value);
        }
        let shape = match left {
            Some([]) => *last_shape,
            _ => self.find_shape(&headers),
        };
        let is_shaped = shape != 0 && shortest == encoded.len();
        if is_shaped {
            self.last_shape = shape;
        } else {
            self.bytes.truncate(start);
            self.lengths.truncate(lengths_at);
            self.bytes.extend_from_slice(encoded);
        }
        self.slots.push(Slot {
            start: start as u32,
            lengths_at: lengths_at as u32,
            shape: if is_shaped { shape } else { 0 },
            encoded_bytes: encoded.len() as u32,
            group: self.group,
        });
        self.count(number);
        number
    }

    /// An envelope that was pushed.
    pub(crate) fn get(&self, number: u32) -> Parts<'_> {
        let slot = self.slots[number as usize];
        let next = self.slots.get(number as usize + 1);
        let end = next.map_or(self.bytes.len(), |next| next.start as usize);
        let lengths_end = next.map_or(self.lengths.len(), |next| next.lengths_at as usize);
        let bytes = &self.bytes[slot.start as usize..end];
        match slot.shape {
            0 => Parts::Raw(bytes),
            shape => {
                let lengths = &self.lengths[slot.lengths_at as usize..lengths_end];
                Parts::Shaped { shape, lengths, bytes }
            }
        }
    }

    /// The bytes of a shape, counted from 1; none for 0.
    pub(crate) fn shape_of(&self, shape: u32) -> &[u8] {
        shape_of(&self.shapes, &self.shape_ends, shape)
    }

    /// The shape with these names, a new one if there is none; 0 if there are too many.
    fn find_shape(&mut self, headers: &HeadersView<'_>) -> u32 {
        self.names.clear();
        put_unsigned(&mut self.names, headers.len() as u64);
        for (name, _) in headers.iter_bytes() {
            put_bytes(&mut self.names, name);
        }
        let known = (1..=self.shape_ends.len() as u32).find(|at| self.shape_of(*at) == self.names);
        if let Some(known) = known {
            return known;
        }
        if self.shape_ends.len() == SHAPES_MAX {
            return 0;
        }
        self.shapes.extend_from_slice(&self.names);
        self.shape_ends.push(self.shapes.len());
        // Not named yet: `group` is that of an envelope that is being pushed.
        self.shape_groups.push(self.group.wrapping_sub(1));
        self.shape_ends.len() as u32
    }
}

fn shape_of<'s>(shapes: &'s [u8], ends: &[usize], shape: u32) -> &'s [u8] {
    let Some(index) = (shape as usize).checked_sub(1) else { return &[] };
    let start = index.checked_sub(1).map_or(0, |before| ends[before]);
    &shapes[start..ends[index]]
}

/// The names of a shape of so many headers, if it is one and their number takes one byte.
fn begin_names(shape: &[u8], headers: usize) -> Option<&[u8]> {
    let (count, names) = shape.split_first()?;
    (*count < 0x80 && usize::from(*count) == headers).then_some(names)
}

/// What follows a name, if it stands in front and its length takes one byte.
#[inline]
fn strip_name<'s>(names: &'s [u8], name: &[u8]) -> Option<&'s [u8]> {
    let (length, rest) = names.split_first()?;
    let fits = *length < 0x80 && usize::from(*length) == name.len();
    fits.then(|| rest.strip_prefix(name)).flatten()
}

fn put_value(bytes: &mut Vec<u8>, lengths: &mut Vec<u32>, value: Option<&[u8]>) {
    lengths.push(value.map_or(0, |value| value.len() as u32 + 1));
    bytes.extend_from_slice(value.unwrap_or(&[]));
}

fn nullable_len(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| varlong_len(value.len() as i64) + value.len())
}

#[cfg(test)]
mod tests {
    use edge_wire::{Envelope, HeadersBuilder};

    use super::*;
    use crate::journal::envelopes::EnvelopeWriter;

    fn envelope(key: &str, header: &str) -> Envelope {
        let mut headers = HeadersBuilder::new();
        headers.push(header, Some(key.as_bytes()));
        Envelope::new(Some(key.as_bytes()), &headers.finish())
    }

    fn columns(arena: &EnvelopeArena, named: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        EnvelopeWriter::default().put(&mut out, arena, named);
        out
    }

    #[test]
    fn a_group_is_the_same_whatever_an_earlier_one_used() {
        let (first, second, third) = (envelope("a", "x"), envelope("bb", "y"), envelope("c", "y"));
        let mut warm = EnvelopeArena::default();
        for known in [&first, &second] {
            warm.push(known.view());
        }
        assert!(!warm.begin());
        assert_eq!((warm.used(), warm.bytes()), (0, 0));
        assert!(!warm.is_used(1));
        warm.mark(1);
        warm.mark(1);
        let new = warm.push(third.view());
        let mut fresh = EnvelopeArena::default();
        for known in [&second, &third] {
            fresh.push(known.view());
        }
        assert_eq!((warm.used(), warm.bytes()), (fresh.used(), fresh.bytes()));
        assert!(warm.is_used(1) && warm.is_used(new) && !warm.is_used(0));
        assert_eq!(columns(&warm, &[1, new]), columns(&fresh, &[0, 1]));
    }

    #[test]
    fn more_than_may_stay_is_forgotten_with_the_next_group() {
        let mut arena = EnvelopeArena::default();
        for key in 0..=SLOTS_KEPT {
            arena.push(envelope(&key.to_string(), "x").view());
        }
        assert!(arena.begin());
        assert_eq!((arena.len(), arena.used(), arena.shapes()), (0, 0, 0));
        // The same with bytes, and with shapes, of which there are few.
        arena.push(envelope(&"k".repeat(BYTES_KEPT), "x").view());
        assert!(arena.begin());
        for name in 0..SHAPES_MAX {
            arena.push(envelope("k", &name.to_string()).view());
        }
        assert!(arena.begin());
        let again = arena.push(envelope("k", "one more").view());
        assert!(matches!(arena.get(again), Parts::Shaped { shape: 1, .. }));
    }
}

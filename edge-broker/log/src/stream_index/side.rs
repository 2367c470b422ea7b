//! The side index of a sealed segment: a file beside its slot, and the same bytes in memory.
//!
//! ```text
//!  0  4 magic `EDGI`
//!  4  4 CRC32C of bytes 8..length
//!  8  4 version, 1
//! 12  4 length in bytes, without padding
//! 16  8 segment sequence     } bind it to one use of one slot
//! 24  8 salt of the segment  }
//! 32  4 number of streams
//! 36  4 number of blocks
//! 40  blocks: first stream u32, where it begins u32
//!     then blocks of up to 64 streams, by id, each: stream - the one before (varint; the first of a block as it
//!     is), head offset, end - head, bytes of records, zigzag highest timestamp in ms, number of places (+ 16 if
//!     something was stamped by us before the clock was set), then places: offset - that before (head), byte / 512 - that before (0)
//! ```
//!
//! Every stream the lane knew is in it, with its first and next offset in this segment, places or none: so a
//! search for an offset can go by halves. Little-endian; written without a sync, believed by its CRC.

use edge_wire::varint::{get_unsigned, get_varlong, put_unsigned, put_varlong};
use edge_wire::{Offset, StreamId};

use super::{ENTRIES_MAX, floor};
use crate::journal::entry::{get_offset, get_stream, get_u32_varint};
use crate::journal::format::{Malformed, get_u32, get_u64, malformed, put_u32, put_u64};

const MAGIC: [u8; 4] = *b"EDGI";
const VERSION: u32 = 1;
/// Added to a number of places.
const UNVOUCHED: u64 = 16;
const _: () = assert!((ENTRIES_MAX as u64) < UNVOUCHED);
/// Fixed part.
pub(crate) const HEAD_BYTES: usize = 40;
const BLOCK_STREAMS: usize = 64;
const BYTE_UNIT: u32 = 512;
/// Longest file that is believed: ten thousands of streams with all their places.
pub(crate) const SIDE_BYTES_MAX: usize = 16 << 20;

/// One stream in a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SideLine {
    pub(crate) stream: StreamId,
    /// Its next offset when the segment began.
    pub(crate) head: Offset,
    /// Its next offset when the segment ended.
    pub(crate) end: Offset,
    /// Bytes of its records, unpacked.
    pub(crate) bytes: u64,
    /// Highest timestamp, ms; meaningless if it has no records here.
    pub(crate) max_ms: i64,
    /// Something was stamped by us before the clock was set: it may turn out to be later.
    pub(crate) unvouched: bool,
    /// Offset minus head, byte of the group.
    pub(crate) places: Vec<(u32, u32)>,
}

impl SideLine {
    /// The byte of the last known group that begins at or before `from`.
    pub(crate) fn floor(&self, from: Offset) -> Option<u32> {
        floor(&self.places, from.0.checked_sub(self.head.0)?)
    }
}

/// A whole side index.
#[derive(Debug)]
pub(crate) struct SideIndex {
    bytes: Vec<u8>,
}

/// Makes a side index, line by line in the order of stream ids.
pub(crate) struct SideBuilder {
    sequence: u64,
    salt: u64,
    places_max: usize,
    blocks: Vec<(u32, u32)>,
    lines: Vec<u8>,
    count: usize,
    previous: u32,
}

impl SideBuilder {
    /// `streams` is how many lines will come; it decides how many places fit a percent of the segment.
    pub(crate) fn new(sequence: u64, salt: u64, segment_bytes: u32, streams: usize) -> Self {
        let budget = segment_bytes as usize / 100;
        let left = budget.saturating_sub(streams * 10);
        let places_max = (left / (streams.max(1) * 5)).clamp(1, ENTRIES_MAX);
        Self {
            sequence,
            salt,
            places_max,
            blocks: Vec::new(),
            lines: Vec::new(),
            count: 0,
            previous: 0,
        }
    }

    pub(crate) fn push(&mut self, line: &SideLine) {
        let out = &mut self.lines;
        let id = line.stream.0;
        if self.count.is_multiple_of(BLOCK_STREAMS) {
            self.blocks.push((id, out.len() as u32));
            self.previous = 0;
        }
        debug_assert!(id >= self.previous);
        put_unsigned(out, u64::from(id - self.previous));
        put_unsigned(out, line.head.0);
        put_unsigned(out, line.end.0 - line.head.0);
        put_unsigned(out, line.bytes);
        put_varlong(out, line.max_ms);
        // Every n-th place, the first always.
        let step = line.places.len().div_ceil(self.places_max).max(1);
        let places: Vec<_> = line.places.iter().step_by(step).collect();
        put_unsigned(out, places.len() as u64 + if line.unvouched { UNVOUCHED } else { 0 });
        let (mut delta_before, mut unit_before) = (0, 0);
        for (delta, byte) in places {
            put_unsigned(out, u64::from(delta - delta_before));
            put_unsigned(out, u64::from(byte / BYTE_UNIT - unit_before));
            (delta_before, unit_before) = (*delta, byte / BYTE_UNIT);
        }
        self.previous = id;
        self.count += 1;
    }

    pub(crate) fn finish(self) -> SideIndex {
        let table_bytes = self.blocks.len() * 8;
        let mut bytes = vec![0; HEAD_BYTES + table_bytes];
        bytes[..4].copy_from_slice(&MAGIC);
        put_u32(&mut bytes, 8, VERSION);
        put_u32(&mut bytes, 12, (HEAD_BYTES + table_bytes + self.lines.len()) as u32);
        put_u64(&mut bytes, 16, self.sequence);
        put_u64(&mut bytes, 24, self.salt);
        put_u32(&mut bytes, 32, self.count as u32);
        put_u32(&mut bytes, 36, self.blocks.len() as u32);
        for (index, (stream, at)) in self.blocks.iter().enumerate() {
            put_u32(&mut bytes, HEAD_BYTES + index * 8, *stream);
            let at = at + (HEAD_BYTES + table_bytes) as u32;
            put_u32(&mut bytes, HEAD_BYTES + index * 8 + 4, at);
        }
        bytes.extend_from_slice(&self.lines);
        let crc = crc32c::crc32c(&bytes[8..]);
        put_u32(&mut bytes, 4, crc);
        SideIndex { bytes }
    }
}

impl SideIndex {
    /// How many bytes the whole has, from its first [`HEAD_BYTES`] bytes.
    pub(crate) fn length(head: &[u8]) -> Option<usize> {
        let length = get_u32(head.get(..HEAD_BYTES)?, 12) as usize;
        (HEAD_BYTES..=SIDE_BYTES_MAX).contains(&length).then_some(length)
    }

    /// Takes the bytes of a file for the side index of this use of the slot, or refuses.
    pub(crate) fn check(bytes: Vec<u8>, sequence: u64, salt: u64) -> Result<Self, Malformed> {
        let whole = bytes.len() >= HEAD_BYTES
            && bytes[..4] == MAGIC
            && get_u32(&bytes, 8) == VERSION
            && get_u32(&bytes, 12) as usize == bytes.len()
            && get_u32(&bytes, 4) == crc32c::crc32c(&bytes[8..]);
        if !whole || get_u64(&bytes, 16) != sequence || get_u64(&bytes, 24) != salt {
            return malformed("not the side index of this segment");
        }
        let blocks = get_u32(&bytes, 36) as usize;
        if blocks > (bytes.len() - HEAD_BYTES) / 8 {
            return malformed("a side index with more blocks than bytes");
        }
        Ok(Self { bytes })
    }

    /// Whether the head of a file claims to be the side index of this use of the slot.
    pub(crate) fn is_of(head: &[u8; HEAD_BYTES], sequence: u64, salt: u64) -> bool {
        head[..4] == MAGIC && get_u64(head, 16) == sequence && get_u64(head, 24) == salt
    }

    /// Segment sequence and salt that bytes claim to be of.
    pub(crate) fn identity(bytes: &[u8]) -> Option<(u64, u64)> {
        let head = bytes.get(..HEAD_BYTES)?;
        Some((get_u64(head, 16), get_u64(head, 24)))
    }

    /// Whether bytes are as they were written, of whatever segment.
    pub(crate) fn is_intact(bytes: &[u8]) -> bool {
        bytes.len() >= HEAD_BYTES
            && bytes[..4] == MAGIC
            && get_u32(bytes, 4) == crc32c::crc32c(&bytes[8..])
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn block(&self, index: usize) -> (u32, &[u8]) {
        let at = HEAD_BYTES + index * 8;
        let first = get_u32(&self.bytes, at);
        let from = get_u32(&self.bytes, at + 4) as usize;
        (first, self.bytes.get(from..).unwrap_or(&[]))
    }

    fn blocks(&self) -> usize {
        get_u32(&self.bytes, 36) as usize
    }

    /// The line of one stream.
    pub(crate) fn find(&self, stream: StreamId) -> Option<SideLine> {
        let (mut low, mut high) = (0, self.blocks());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.block(middle).0 <= stream.0 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut lines = self.lines_of(low.checked_sub(1)?);
        lines.find(|line| line.stream >= stream).filter(|line| line.stream == stream)
    }

    /// All lines, by stream.
    pub(crate) fn lines(&self) -> impl Iterator<Item = SideLine> + '_ {
        (0..self.blocks()).flat_map(|block| self.lines_of(block))
    }

    fn lines_of(&self, block: usize) -> impl Iterator<Item = SideLine> + '_ {
        let mut rest = self.block(block).1;
        let total = get_u32(&self.bytes, 32) as usize;
        let count = total.saturating_sub(block * BLOCK_STREAMS).min(BLOCK_STREAMS);
        let mut previous = 0;
        (0..count).map_while(move |_| {
            let line = get_line(&mut rest, previous).ok()?;
            previous = line.stream.0;
            Some(line)
        })
    }
}

fn get_line(input: &mut &[u8], previous: u32) -> Result<SideLine, Malformed> {
    let delta = get_stream(input)?;
    let head = get_offset(input)?;
    let end = head.plus(get_unsigned(input)?);
    let bytes = get_unsigned(input)?;
    let max_ms = get_varlong(input)?;
    let count = get_unsigned(input)?;
    let unvouched = count >= UNVOUCHED;
    let count = if unvouched { count - UNVOUCHED } else { count };
    if count > ENTRIES_MAX as u64 {
        return malformed("a side index with too many places");
    }
    let mut places = Vec::with_capacity(count as usize);
    let (mut delta_before, mut unit_before) = (0u32, 0u32);
    for _ in 0..count {
        delta_before = delta_before.saturating_add(get_u32_varint(input)?);
        unit_before = unit_before.saturating_add(get_u32_varint(input)?);
        places.push((delta_before, unit_before.saturating_mul(BYTE_UNIT)));
    }
    let stream = StreamId(previous.saturating_add(delta.0));
    Ok(SideLine { stream, head, end, bytes, max_ms, unvouched, places })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(streams: u32) -> (Vec<SideLine>, SideIndex) {
        let lines: Vec<_> = (0..streams)
            .map(|i| SideLine {
                stream: StreamId(i * 3 + 1),
                head: Offset(u64::from(i) * 1000),
                end: Offset(u64::from(i) * 1000 + 77),
                bytes: u64::from(i),
                max_ms: -5,
                unvouched: i % 3 == 0,
                places: vec![(0, 512 * (i + 1)), (40, 1 << 20)],
            })
            .collect();
        let mut builder = SideBuilder::new(9, 7, 1 << 24, lines.len());
        for line in &lines {
            builder.push(line);
        }
        (lines, builder.finish())
    }

    #[test]
    fn every_line_is_found() {
        for streams in [0, 1, 63, 64, 65, 1000] {
            let (lines, index) = sample(streams);
            let index = SideIndex::check(index.bytes().to_vec(), 9, 7).unwrap();
            assert_eq!(index.lines().collect::<Vec<_>>(), lines);
            for line in &lines {
                assert_eq!(index.find(line.stream).as_ref(), Some(line));
            }
            assert_eq!(index.find(StreamId(0)), None);
            assert_eq!(index.find(StreamId(streams * 3 + 2)), None);
            assert_eq!(index.find(StreamId(2)), None);
        }
    }

    #[test]
    fn another_segment_or_a_flipped_bit_is_refused() {
        let (_, index) = sample(10);
        let bytes = index.bytes().to_vec();
        assert!(SideIndex::check(bytes.clone(), 8, 7).is_err());
        assert!(SideIndex::check(bytes.clone(), 9, 8).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(SideIndex::check(flipped, 9, 7).is_err(), "byte {at}");
        }
    }

    #[test]
    fn ten_thousand_streams_fit_a_percent_of_a_segment() {
        let segment_bytes = 16u32 << 20;
        let mut builder = SideBuilder::new(9, 7, segment_bytes, 10_000);
        for i in 0..10_000 {
            builder.push(&SideLine {
                stream: StreamId(i),
                head: Offset(100_000),
                end: Offset(100_100),
                bytes: 10,
                max_ms: 0,
                unvouched: false,
                places: (0..8).map(|p| (p * 12, p << 20)).collect(),
            });
        }
        assert!(builder.finish().bytes().len() <= segment_bytes as usize / 100);
    }
}

//! The directory of a group: which offsets of which streams it holds. Not compressed, in the clear.
//!
//! Entries by stream id, those of one stream in offset order, in the order of the batches in the body. For each
//! entry:
//!
//! ```text
//! varint  (stream - stream of the entry before, or 0) * 8 + 4 if the base is as expected + min(count - 1, 3)
//! varint  count - 4                 only if the low two bits are 3
//! zigzag  base offset - expected    only if that is not 0
//! ```
//!
//! `count` is how many offsets the batch covers. `expected` is the end of the entry before if it is of the same
//! stream, else the base offset of the entry before (streams that are written in turn have nearly equal offsets),
//! else 0. A typical entry takes one to three bytes. An empty directory takes none.

use edge_wire::varint::{get_unsigned, get_varlong, put_unsigned, put_varlong};
use edge_wire::{Offset, StreamId};

use super::format::{GROUP_OFFSETS_MAX, Malformed, malformed};

/// The offsets of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryEntry {
    pub(crate) stream: StreamId,
    pub(crate) base: Offset,
    /// Offsets covered, at least 1.
    pub(crate) count: u32,
}

impl DirectoryEntry {
    pub(crate) fn end(&self) -> Offset {
        self.base.plus(u64::from(self.count))
    }
}

/// Appends entries that are already in order.
#[derive(Debug, Default)]
pub(crate) struct DirectoryWriter {
    previous: Option<DirectoryEntry>,
}

impl DirectoryWriter {
    pub(crate) fn push(&mut self, entry: DirectoryEntry, out: &mut Vec<u8>) {
        debug_assert!(entry.count >= 1);
        let stream_before = self.previous.map_or(0, |previous| previous.stream.0);
        debug_assert!(entry.stream.0 >= stream_before);
        let delta = u64::from(entry.stream.0 - stream_before);
        let more = entry.count - 1;
        let off = entry.base.0.wrapping_sub(expected(self.previous, entry.stream)) as i64;
        put_unsigned(out, (delta << 3) | (u64::from(off == 0) << 2) | u64::from(more.min(3)));
        if more >= 3 {
            put_unsigned(out, u64::from(more - 3));
        }
        if off != 0 {
            put_varlong(out, off);
        }
        self.previous = Some(entry);
    }
}

fn expected(previous: Option<DirectoryEntry>, stream: StreamId) -> u64 {
    match previous {
        Some(previous) if previous.stream == stream => previous.end().0,
        Some(previous) => previous.base.0,
        None => 0,
    }
}

/// Walks a directory whose CRC was checked. Ends at the first error, which it returns.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryReader<'a> {
    rest: &'a [u8],
    previous: Option<DirectoryEntry>,
    offsets: u64,
}

impl<'a> DirectoryReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, previous: None, offsets: 0 }
    }

    fn read(&mut self) -> Result<DirectoryEntry, Malformed> {
        let token = get_unsigned(&mut self.rest)?;
        let more = match token & 3 {
            3 => get_unsigned(&mut self.rest)?.saturating_add(3),
            more => more,
        };
        let before = self.previous.map_or(0, |previous| u64::from(previous.stream.0));
        let Ok(stream) = u32::try_from(before + (token >> 3)) else {
            return malformed("a stream id does not fit");
        };
        let count = more.saturating_add(1);
        self.offsets = self.offsets.saturating_add(count);
        if self.offsets > u64::from(GROUP_OFFSETS_MAX) {
            return malformed("more offsets than a group may cover");
        }
        let stream = StreamId(stream);
        let delta = if token & 4 != 0 { 0 } else { get_varlong(&mut self.rest)? };
        let base = expected(self.previous, stream).wrapping_add(delta as u64);
        if base > i64::MAX as u64 - count {
            return malformed("an offset does not fit");
        }
        let entry = DirectoryEntry { stream, base: Offset(base), count: count as u32 };
        if let Some(previous) = self.previous
            && previous.stream == stream
            && entry.base < previous.end()
        {
            return malformed("batches of a stream overlap");
        }
        self.previous = Some(entry);
        Ok(entry)
    }
}

impl Iterator for DirectoryReader<'_> {
    type Item = Result<DirectoryEntry, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

/// All entries of a directory, or what is wrong with it.
pub(crate) fn read_all(bytes: &[u8]) -> Result<Vec<DirectoryEntry>, Malformed> {
    DirectoryReader::new(bytes).collect()
}

/// Whether a directory names a stream with an offset at or above `from`; what cannot be read might.
pub(crate) fn may_hold(bytes: &[u8], stream: StreamId, from: Offset) -> bool {
    for entry in DirectoryReader::new(bytes) {
        match entry {
            Ok(entry) if entry.stream == stream && entry.end() > from => return true,
            Ok(entry) if entry.stream > stream => return false,
            Ok(_) => {}
            Err(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(entries: &[DirectoryEntry]) -> Vec<u8> {
        let (mut writer, mut out) = (DirectoryWriter::default(), Vec::new());
        for entry in entries {
            writer.push(*entry, &mut out);
        }
        out
    }

    #[test]
    fn streams_in_lockstep_take_a_byte_each() {
        let entries: Vec<_> = (0..50)
            .map(|i| DirectoryEntry {
                stream: StreamId(i),
                base: Offset(100_000 - u64::from(i / 20)),
                count: 1,
            })
            .collect();
        assert!(write(&entries).len() <= 50 + 5);
    }

    fn entry(stream: u32, base: u64, count: u32) -> DirectoryEntry {
        DirectoryEntry { stream: StreamId(stream), base: Offset(base), count }
    }

    #[test]
    fn a_stream_is_looked_for_only_where_it_may_be() {
        let bytes = write(&[entry(2, 10, 5), entry(2, 30, 1), entry(5, 100, 1)]);
        let may = |stream, from| may_hold(&bytes, StreamId(stream), Offset(from));
        assert!(may(2, 0) && may(2, 14) && may(2, 15) && may(2, 30) && may(5, 100));
        assert!(!may(2, 31), "all its offsets are below");
        assert!(!may(5, 101) && !may(1, 0) && !may(3, 0) && !may(6, 0));
        // Cut off in the second entry: what is behind it might be anything, but streams are in order.
        let cut = &bytes[..2];
        assert!(may_hold(cut, StreamId(5), Offset(0)));
        assert!(may_hold(&[0xFF], StreamId(5), Offset(0)));
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let most = GROUP_OFFSETS_MAX;
        assert!(read_all(&write(&[entry(1, 0, most - 1), entry(1, 1 << 40, 1)])).is_ok());
        assert!(read_all(&write(&[entry(1, 0, most), entry(1, 1 << 40, 1)])).is_err());
        assert!(read_all(&write(&[entry(1, 10, 5), entry(1, 15, 1)])).is_ok());
        assert!(read_all(&write(&[entry(1, 10, 5), entry(1, 14, 1)])).is_err(), "overlaps");
        assert!(read_all(&write(&[entry(1, 10, 5), entry(2, 14, 1)])).is_ok());
        let last = i64::MAX as u64;
        assert!(read_all(&write(&[entry(1, last - 1, 1)])).is_ok());
        assert!(read_all(&write(&[entry(1, last, 1)])).is_err());
        let mut stream = write(&[entry(u32::MAX, 0, 1)]);
        assert!(read_all(&stream).is_ok());
        stream.extend([(1 << 3) | 4]);
        assert!(read_all(&stream).is_err(), "a stream id behind the last");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            raw in prop::collection::vec((0u32..5, 0u64..1 << 40, 1u32..300), 0..40),
        ) {
            let mut stream = 0;
            let mut entries: Vec<DirectoryEntry> = Vec::new();
            for (delta, base, count) in raw {
                stream += delta;
                let base = match entries.last() {
                    Some(last) if last.stream.0 == stream => last.end().0 + base % 7,
                    _ => base,
                };
                entries.push(DirectoryEntry { stream: StreamId(stream), base: Offset(base), count });
            }
            let bytes = write(&entries);
            prop_assert_eq!(read_all(&bytes).unwrap(), entries.clone());
            for entry in &entries {
                prop_assert!(may_hold(&bytes, entry.stream, entry.base));
            }
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes);
            let _ = may_hold(&bytes, StreamId(3), Offset(5));
        }
    }
}

use std::sync::Arc;

use super::*;
use crate::decoded::GroupKind;
use crate::journal::frame::BodyCodec;
use crate::storage::{OpenMode, SimStorage, Storage};

const ID: SegmentId =
    SegmentId { sequence: 2, salt: 77, segment_bytes: 64 << 10, sector_bytes: 512 };

fn frame_header(byte: u32, sequence: u64) -> FrameHeader {
    FrameHeader {
        kind: GroupKind::Data,
        flags: 0,
        codec: BodyCodec::Plain,
        sector_bytes: ID.sector_bytes,
        salt: ID.salt,
        sequence,
        position: JournalPosition { segment: ID.sequence, byte },
        records: 0,
        proven_end: JournalPosition { segment: ID.sequence, byte },
        journal_start: 1,
        clock: Default::default(),
        directory_bytes: 0,
        directory_crc: 0,
        previous_directory_bytes: 0,
        previous_directory_crc: 0,
        body_stored_bytes: 0,
        body_bytes: 0,
        raw_bytes: 0,
        body_crc: 0,
        segment_bytes: ID.segment_bytes,
    }
}

/// A segment with empty groups at these places.
fn segment(frames: &[(u32, u64)]) -> Arc<dyn StorageFile> {
    let file = SimStorage::new(1).open("segment", OpenMode::Create).unwrap();
    file.set_len(u64::from(ID.segment_bytes)).unwrap();
    for (byte, sequence) in frames {
        let mut sector = vec![0; 512];
        frame_header(*byte, *sequence).encode(&mut sector);
        file.write_at(&sector, u64::from(*byte)).unwrap();
    }
    file
}

const LAST: u32 = ID.segment_bytes - 512;

#[test]
fn resync_finds_the_next_later_group_within_its_bounds() {
    let file = segment(&[(512, 4), (1024, 5), (8192, 6), (LAST, 9)]);
    let find = |from, until, after| {
        let found = resync(&mut Window::default(), &*file, &ID, from, until, after).unwrap();
        found.map(|header| (header.position.byte, header.sequence))
    };
    let end = ID.segment_bytes;
    assert_eq!(find(512, end, 0), Some((512, 4)));
    assert_eq!(find(513, end, 0), Some((1024, 5)), "at sectors only");
    assert_eq!(find(512, end, 4), Some((1024, 5)), "later, not the same");
    assert_eq!(find(1025, end, 0), Some((8192, 6)));
    assert_eq!(find(1025, 8192, 0), None, "before the end of what is asked for");
    assert_eq!(find(8193, end, 0), Some((LAST, 9)));
    assert_eq!(find(8193, u32::MAX, 9), None, "not behind the segment");
}

#[test]
fn a_header_has_to_end_inside_its_segment() {
    let file = segment(&[(LAST, 9)]);
    let at = |id: &SegmentId, byte| header_at(&mut Window::default(), &*file, id, byte).unwrap();
    assert!(matches!(at(&ID, LAST), HeaderAt::Frame(_)));
    assert_eq!(at(&ID, ID.segment_bytes - 64), HeaderAt::Absent);
    assert_eq!(at(&ID, ID.segment_bytes), HeaderAt::Absent);
    assert_eq!(ID.first_frame(), 512);
    let expected = ID.expected(9);
    assert_eq!((expected.salt, expected.segment_bytes), (77, ID.segment_bytes));
    assert_eq!(expected.position, JournalPosition { segment: 2, byte: 9 });
}

#[test]
fn a_window_reads_once_what_it_holds_and_stops_at_the_end_of_the_file() {
    let file = segment(&[]);
    let marks: Vec<u8> = (0..ID.segment_bytes / 512).flat_map(|i| [i as u8; 512]).collect();
    file.write_at(&marks, 0).unwrap();
    let mut window = Window::default();
    assert_eq!(window.bytes(&*file, 512, 3).unwrap(), [1, 1, 1]);
    let read = window.read_bytes;
    assert!(read > 0);
    assert_eq!(window.bytes(&*file, 1023, 2).unwrap(), [1, 2]);
    assert_eq!(window.bytes(&*file, 512, 1).unwrap(), [1]);
    assert_eq!(window.read_bytes, read, "it was there already");
    assert_eq!(window.bytes(&*file, 511, 2).unwrap(), [0, 1], "before it");
    assert!(window.read_bytes > read);
    assert_eq!(window.bytes(&*file, u64::from(LAST), 1_000).unwrap().len(), 512);
    assert_eq!(window.bytes(&*file, 1 << 30, 5).unwrap(), [0; 0]);
    file.write_at(&[9; 512], 512).unwrap();
    window.forget();
    assert_eq!(window.bytes(&*file, 512, 1).unwrap(), [9], "forgotten, so read again");
}

/// A file of which some bytes cannot be read.
struct Broken {
    inner: Arc<dyn StorageFile>,
    unreadable: std::ops::Range<u64>,
    error: i32,
}

impl StorageFile for Broken {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let end = position + buf.len() as u64;
        if position < self.unreadable.end && end > self.unreadable.start {
            return Err(io::Error::from_raw_os_error(self.error));
        }
        self.inner.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn io_mode(&self) -> crate::storage::IoMode {
        self.inner.io_mode()
    }
}

/// The third piece of five cannot be read, and the file ends 100 bytes into the fifth.
fn broken(unreadable: std::ops::Range<u64>, error: i32) -> Broken {
    let inner = SimStorage::new(1).open("segment", OpenMode::Create).unwrap();
    inner.set_len(0).unwrap();
    inner.write_at(&[1; 4 * PIECE_BYTES + 512], 0).unwrap();
    inner.set_len(4 * PIECE_BYTES as u64 + 100).unwrap();
    Broken { inner, unreadable, error }
}

const EIO: i32 = 5;
const EMFILE: i32 = 24;

#[test]
fn a_piece_that_cannot_be_read_is_zeros_and_what_is_around_it_is_read() {
    let piece = PIECE_BYTES as u64;
    let file = broken(2 * piece..2 * piece + 1, EIO);
    for mut window in [Window::default(), Window::forgiving()] {
        let bytes = window.bytes(&file, 0, 5 * PIECE_BYTES).unwrap().to_vec();
        assert_eq!(bytes.len(), 4 * PIECE_BYTES + 100);
        for (index, part) in bytes.chunks(PIECE_BYTES).enumerate() {
            let expected = u8::from(index != 2);
            assert!(part.iter().all(|byte| *byte == expected), "piece {index}");
        }
        assert_eq!(window.unreadable_bytes, piece);
        assert_eq!(window.unreadable_behind(0), 3 * piece);
        assert_eq!(window.unreadable_behind(3 * PIECE_BYTES as u32), 0);
        window.forget();
        assert_eq!(window.unreadable_behind(0), 0);
    }
}

#[test]
fn where_nothing_can_be_read_recovery_goes_on_and_readers_do_not() {
    let all = 0..u64::MAX;
    let file = broken(all.clone(), EIO);
    assert!(Window::default().bytes(&file, 0, 512).is_err());
    let mut forgiving = Window::forgiving();
    assert_eq!(forgiving.bytes(&file, 0, 512).unwrap(), [0; 512]);
    // Short of descriptors: the bytes are not damaged, nobody has looked.
    assert!(Window::forgiving().bytes(&broken(all, EMFILE), 0, 512).is_err());
}

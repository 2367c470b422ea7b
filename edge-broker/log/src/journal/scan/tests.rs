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

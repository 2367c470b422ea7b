use super::*;

const SEGMENT_BYTES: u32 = 1 << 20;
/// The last frame of its segment: nothing may make it longer.
const BYTE: u32 = SEGMENT_BYTES - 4096;

fn header() -> FrameHeader {
    FrameHeader {
        kind: GroupKind::Data,
        flags: FLAG_STATE,
        codec: BodyCodec::Zstd,
        sector_bytes: 512,
        salt: 0x5A17,
        sequence: 7,
        position: JournalPosition { segment: 9, byte: BYTE },
        records: 3,
        proven_end: JournalPosition { segment: 8, byte: 512 },
        journal_start: 2,
        clock: ClockReading {
            boot_id: 11,
            boottime_us: 12,
            wall_us: -13,
            state: ClockState::Synced,
            entropy: 0,
        },
        directory_bytes: 20,
        directory_crc: 21,
        previous_directory_bytes: 30,
        previous_directory_crc: 31,
        body_stored_bytes: 1_000,
        body_bytes: 5_000,
        raw_bytes: 2_918,
        body_crc: 41,
        segment_bytes: SEGMENT_BYTES,
    }
}

fn expected() -> Expected {
    let position = JournalPosition { segment: 9, byte: BYTE };
    Expected { salt: 0x5A17, position, segment_bytes: SEGMENT_BYTES }
}

fn encoded(header: &FrameHeader) -> Vec<u8> {
    let mut bytes = vec![0xEE; FRAME_HEADER_BYTES];
    header.encode(&mut bytes);
    bytes
}

/// The header with bytes of its own, and a checksum that fits them.
fn forged(at: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(&header());
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c::crc32c(&bytes[VERSION_AT..FRAME_HEADER_BYTES]);
    put_u32(&mut bytes, CRC_AT, crc);
    bytes
}

#[test]
fn a_header_is_read_as_it_was_written() {
    let header = header();
    assert_eq!(FrameHeader::read(&encoded(&header), &expected()), HeaderAt::Frame(header));
    let plain = FrameHeader { codec: BodyCodec::Plain, body_bytes: 1_000, ..header };
    assert_eq!(FrameHeader::read(&encoded(&plain), &expected()), HeaderAt::Frame(plain));
    let any = FrameHeader::read_any(&encoded(&header), BYTE, SEGMENT_BYTES);
    assert_eq!(any, Some(header));
    assert_eq!(FrameHeader::read_any(&encoded(&header)[1..], BYTE, SEGMENT_BYTES), None);
    assert_eq!(FrameHeader::read_any(&encoded(&header), BYTE - 512, SEGMENT_BYTES), None);
}

#[test]
fn the_parts_of_a_frame_stand_one_behind_the_other_and_the_next_frame_behind_them() {
    let header = header();
    let at = [
        header.directory_at(),
        header.previous_directory_at(),
        header.body_at(),
        header.raw_at(),
        header.raw_end(),
    ];
    assert_eq!(at, [128, 148, 178, 1_178, 4_096]);
    assert_eq!(header.content_bytes(), 4_096);
    assert_eq!(header.frame_bytes(), 4_096);
    assert_eq!(header.end(), JournalPosition { segment: 9, byte: SEGMENT_BYTES });
    let longer = FrameHeader { raw_bytes: header.raw_bytes + 1, ..header };
    assert_eq!((longer.content_bytes(), longer.frame_bytes()), (4_097, 4_608));
    // With a trailer, which a frame has that is longer than 512 bytes.
    let flagged = FrameHeader { flags: header.flags | FLAG_TRAILER, ..header };
    assert_eq!((flagged.content_bytes(), flagged.frame_bytes()), (4_096, 4_608));
    for (content, frame) in [(512, 512), (513, 1_024), (984, 1_024), (985, 1_536), (4_056, 4_096)] {
        assert_eq!(frame_bytes(content - FRAME_HEADER_BYTES, 512), frame, "{content}");
    }
}

#[test]
fn a_header_with_impossible_values_is_damaged_though_its_checksum_fits() {
    let u32_field = |at, value: u32| forged(at, &value.to_le_bytes());
    for (what, bytes) in [
        ("a frame that ends one sector behind its segment", u32_field(RAW_BYTES_AT, 2_919)),
        ("a directory longer than the segment", u32_field(DIRECTORY_BYTES_AT, u32::MAX)),
        ("a body that unpacks to less than it is", u32_field(BODY_BYTES_AT, 999)),
        ("a body larger than a segment", u32_field(BODY_BYTES_AT, SEGMENT_BYTES + 1)),
        ("a plain body of another size", forged(CODEC_AT, &[0])),
        ("no such codec", forged(CODEC_AT, &[2])),
        ("sectors of 256 bytes", forged(SECTOR_LOG2_AT, &[8])),
        ("sectors of 8 KiB", forged(SECTOR_LOG2_AT, &[13])),
        ("sectors of 2^200 bytes", forged(SECTOR_LOG2_AT, &[200])),
    ] {
        assert_eq!(FrameHeader::read(&bytes, &expected()), HeaderAt::Damaged, "{what}");
    }
    for (what, bytes) in [
        ("a body as large as the segment", u32_field(BODY_BYTES_AT, SEGMENT_BYTES)),
        ("a body that packing did not make smaller", u32_field(BODY_BYTES_AT, 1_000)),
        ("sectors of 4 KiB", forged(SECTOR_LOG2_AT, &[12])),
    ] {
        let read = FrameHeader::read(&bytes, &expected());
        assert!(matches!(read, HeaderAt::Frame(_)), "{what}: {read:?}");
    }
    assert_eq!(FrameHeader::read(&forged(VERSION_AT, &[2]), &expected()), HeaderAt::Newer(2));
}

#[test]
fn what_was_once_our_header_is_told_from_what_never_was() {
    let read = |bytes: &[u8], expected: &Expected| FrameHeader::read(bytes, expected);
    let intact = encoded(&header());
    let mut torn = intact.clone();
    torn[RECORDS_AT] ^= 1;
    assert_eq!(read(&torn, &expected()), HeaderAt::Damaged);
    let mut unmagic = intact.clone();
    unmagic[0] ^= 1;
    assert_eq!(read(&unmagic, &expected()), HeaderAt::Damaged);
    // An intact header of another place or another use of the slot is none of this one.
    let salt = Expected { salt: 1, ..expected() };
    let segment = JournalPosition { segment: 8, byte: BYTE };
    let byte = JournalPosition { segment: 9, byte: BYTE - 512 };
    for other in [
        salt,
        Expected { position: segment, ..expected() },
        Expected { position: byte, ..expected() },
    ] {
        assert_eq!(read(&intact, &other), HeaderAt::Absent);
    }
    // A damaged one is ours if the salt fits, or the whole place.
    for other in [salt, Expected { position: segment, ..expected() }] {
        assert_eq!(read(&torn, &other), HeaderAt::Damaged);
    }
    for position in [segment, byte] {
        assert_eq!(read(&torn, &Expected { position, ..salt }), HeaderAt::Absent);
    }
    assert_eq!(read(&[0; FRAME_HEADER_BYTES], &expected()), HeaderAt::Absent);
    assert_eq!(read(&intact[..FRAME_HEADER_BYTES - 1], &expected()), HeaderAt::Absent);
}

#[test]
fn each_directory_is_judged_by_its_own_checksum() {
    let (own, previous) = ([5; 20], [6; 30]);
    let header = FrameHeader {
        directory_crc: crc32c::crc32c(&own),
        previous_directory_crc: crc32c::crc32c(&previous),
        ..header()
    };
    let mut frame = encoded(&header);
    frame.extend(own);
    frame.extend(previous);
    let check = |frame: &[u8]| {
        let found = Directories::check(&header, frame);
        (found.own.map(<[u8]>::to_vec), found.previous.map(<[u8]>::to_vec))
    };
    assert_eq!(check(&frame), (Some(own.to_vec()), Some(previous.to_vec())));
    assert_eq!(check(&frame[..frame.len() - 1]), (Some(own.to_vec()), None));
    frame[FRAME_HEADER_BYTES] ^= 1;
    assert_eq!(check(&frame), (None, Some(previous.to_vec())));
}

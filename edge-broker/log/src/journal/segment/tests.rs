use super::*;

fn header() -> SegmentHeader {
    SegmentHeader {
        slot_use: SlotUse::Live,
        sector_bytes: 512,
        segment_bytes: 1 << 20,
        previous_end: 4_096,
        sequence: 3,
        salt: 4,
        first_group: 5,
        log_id: *b"0123456789abcdef",
        name_hash: name_hash("normal"),
        journal_start: 2,
        link: 0x0909_0203_0405_0607,
        clock: ClockReading {
            boot_id: 6,
            boottime_us: 7,
            wall_us: -8,
            state: ClockState::Unsynced,
            entropy: 0,
        },
    }
}

fn encoded(header: &SegmentHeader) -> Vec<u8> {
    let mut sector = vec![0; 512];
    header.encode(&mut sector);
    sector
}

fn forged(at: usize, field: &[u8]) -> Vec<u8> {
    let mut sector = encoded(&header());
    sector[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c::crc32c(&sector[VERSION_AT..SEGMENT_HEADER_BYTES]);
    put_u32(&mut sector, CRC_AT, crc);
    sector
}

#[test]
fn a_header_is_read_as_it_was_written() {
    for header in [
        header(),
        SegmentHeader { slot_use: SlotUse::Free, sector_bytes: 4096, ..header() },
        SegmentHeader { sequence: u64::from(u32::MAX), ..header() },
    ] {
        assert_eq!(SegmentHeader::read(&encoded(&header)), SectorZero::Header(header));
    }
}

#[test]
fn a_sector_that_is_no_header_says_what_it_is() {
    assert_eq!(SegmentHeader::read(&[0; 512]), SectorZero::Blank);
    let mut last = [0; 512];
    last[511] = 1;
    assert_eq!(SegmentHeader::read(&last), SectorZero::Damaged);
    assert_eq!(SegmentHeader::read(&encoded(&header())[..127]), SectorZero::Damaged);
    assert_eq!(SegmentHeader::read(&forged(VERSION_AT, &[2])), SectorZero::Newer(2));
    for (what, sector) in [
        ("no magic", forged(0, b"X")),
        ("segment 0", forged(SEQUENCE_AT, &0u64.to_le_bytes())),
        ("a sequence out of reach", forged(SEQUENCE_AT, &(1u64 << 32).to_le_bytes())),
        ("no such use", forged(USE_AT, &[3])),
        ("sectors of 256 bytes", forged(SECTOR_LOG2_AT, &[8])),
        ("sectors of 8 KiB", forged(SECTOR_LOG2_AT, &[13])),
        ("sectors of 2^40 bytes", forged(SECTOR_LOG2_AT, &[40])),
    ] {
        assert_eq!(SegmentHeader::read(&sector), SectorZero::Damaged, "{what}");
    }
    for at in 0..ZERO_AT {
        let mut sector = encoded(&header());
        sector[at] ^= 0x10;
        assert_eq!(SegmentHeader::read(&sector), SectorZero::Damaged, "byte {at}");
    }
}

/// On disk: neither may ever give another value.
#[test]
fn hashes_and_salts_are_those_of_version_1() {
    assert_eq!(name_hash(""), 0xcbf2_9ce4_8422_2325);
    // FNV-1a's published test vector.
    assert_eq!(name_hash("foobar"), 0x8594_4171_f739_67e8);
    // splitmix64's first output for seed 0, whose state is then the constant.
    assert_eq!(mix(0x9e37_79b9_7f4a_7c15, 0), 0xe220_a839_7b1d_cdaf);
    assert_eq!(mix(0, 1), 0xe220_a839_7b1d_cdaf);
    assert_eq!(mix(0, 0), 1, "never zero");
}

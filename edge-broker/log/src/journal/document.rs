//! docs/FORMAT.md against the code: its tables of fields, by writing a header and reading it as the document says; its
//! tables of tags, kinds, flags and reasons; and its example, by the file that it is taken from.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use super::entry::{Entries, Entry, SKIPPABLE, put_event};
use super::format::{VERSION, get_u32};
use super::frame::{BodyCodec, FLAG_CLEAN_SHUTDOWN, FLAG_STATE, FLAG_TRAILER, FrameHeader};
use super::segment::{SegmentHeader, SlotUse};
use crate::clock::{ClockReading, ClockState};
use crate::decoded::GroupKind;
use crate::gap::GapReason;
use crate::position::JournalPosition;
use crate::stream_index::side::SideBuilder;

const DOCUMENT: &str = include_str!("../../../../docs/FORMAT.md");
const GOLDEN: &[u8] = include_bytes!("../../tests/log/golden/segment-v1.bin");

/// The rows of the first table behind a line that begins with `heading`, cell by cell.
fn table(heading: &str) -> Vec<Vec<String>> {
    let behind = DOCUMENT.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    let rows =
        behind.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> {
        let inside = row.trim_matches('|');
        inside.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let rows: Vec<_> = rows.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "no table behind {heading}");
    rows
}

/// Numbers of a table and what they stand for.
fn numbered(heading: &str) -> BTreeMap<u8, String> {
    table(heading).into_iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect()
}

/// Fields of a layout as bytes has them, by name; they follow each other without space.
fn fields<'b>(heading: &str, bytes: &'b [u8]) -> BTreeMap<String, &'b [u8]> {
    let mut found = BTreeMap::new();
    let mut end = 0;
    for row in table(heading) {
        let Ok(length) = row[1].parse::<usize>() else { continue };
        let at: usize = row[0].parse().unwrap();
        assert_eq!(at, end, "{heading}: {row:?}");
        end = at + length;
        if row[2] == "zero" {
            assert!(bytes[at..end].iter().all(|byte| *byte == 0), "{row:?}");
        } else {
            assert!(found.insert(row[2].clone(), &bytes[at..end]).is_none(), "{row:?} twice");
        }
    }
    found.insert("end".to_owned(), &bytes[..end]);
    found
}

fn check(fields: &BTreeMap<String, &[u8]>, expected: &[(&str, u64)]) {
    for (name, value) in expected {
        let bytes = fields.get(*name).unwrap_or_else(|| panic!("no field {name}"));
        assert_eq!(**bytes, value.to_le_bytes()[..bytes.len()], "{name}");
    }
    // Beside them only what is checked by itself.
    let by_itself = ["end", "magic", "crc", "log_id"];
    let known = |name: &String| {
        by_itself.contains(&&**name) || expected.iter().any(|(expected, _)| expected == name)
    };
    assert!(fields.keys().all(known), "{:?}", fields.keys());
}

const CLOCK: ClockReading = ClockReading {
    boot_id: 0x0101_0203_0405_0607,
    boottime_us: 0x0202_0203_0405_0607,
    wall_us: -3,
    state: ClockState::Synced,
    entropy: 0,
};

#[test]
fn the_segment_header_is_as_the_document_says() {
    let mut sector = vec![0; 512];
    SegmentHeader {
        slot_use: SlotUse::Free,
        sector_bytes: 4096,
        segment_bytes: 0x0102_0000,
        previous_end: 0x0001_0203,
        sequence: 0x0a0b_0c0d,
        salt: 0x0303_0203_0405_0607,
        first_group: 0x0404_0203_0405_0607,
        log_id: [9; 16],
        name_hash: 0x0505_0203_0405_0607,
        journal_start: 0x0606_0203_0405_0607,
        link: 0x0707_0203_0405_0607,
        clock: CLOCK,
    }
    .encode(&mut sector);
    let fields = fields("### Segment header", &sector);
    assert_eq!(fields["end"].len(), 128);
    assert_eq!(fields["magic"], b"EDGESEG1");
    assert_eq!(fields["log_id"], [9; 16]);
    assert_eq!(fields["crc"], crc32c::crc32c(&sector[12..128]).to_le_bytes());
    check(
        &fields,
        &[
            ("version", u64::from(VERSION)),
            ("use", 2),
            ("sector_log2", 12),
            ("clock_state", 2),
            ("segment_bytes", 0x0102_0000),
            ("previous_end", 0x0001_0203),
            ("sequence", 0x0a0b_0c0d),
            ("salt", 0x0303_0203_0405_0607),
            ("first_group", 0x0404_0203_0405_0607),
            ("boot_id", CLOCK.boot_id),
            ("boottime", CLOCK.boottime_us),
            ("wall", CLOCK.wall_us as u64),
            ("name_hash", 0x0505_0203_0405_0607),
            ("journal_start", 0x0606_0203_0405_0607),
            ("link", 0x0707_0203_0405_0607),
        ],
    );
}

#[test]
fn the_frame_header_is_as_the_document_says() {
    let mut frame = vec![0; 512];
    FrameHeader {
        kind: GroupKind::Gap,
        flags: FLAG_CLEAN_SHUTDOWN | FLAG_STATE,
        codec: BodyCodec::Zstd,
        sector_bytes: 1024,
        salt: 0x0303_0203_0405_0607,
        sequence: 0x0404_0203_0405_0607,
        position: JournalPosition { segment: 0x0505_0203_0405_0607, byte: 0x0101_0101 },
        records: 0x0202_0202,
        proven_end: JournalPosition { segment: 0x0606_0203_0405_0607, byte: 0x0303_0303 },
        journal_start: 0x0707_0203_0405_0607,
        clock: CLOCK,
        directory_bytes: 0x0404_0404,
        directory_crc: 0x0505_0505,
        previous_directory_bytes: 0x0606_0606,
        previous_directory_crc: 0x0707_0707,
        body_stored_bytes: 0x0808_0808,
        body_bytes: 0x0909_0909,
        raw_bytes: 0x0a0a_0a0a,
        body_crc: 0x0b0b_0b0b,
        segment_bytes: 0,
    }
    .encode(&mut frame);
    let fields = fields("### Frame header", &frame);
    assert_eq!(fields["end"].len(), 128);
    assert_eq!(fields["magic"], b"EDGF");
    assert_eq!(fields["crc"], crc32c::crc32c(&frame[8..128]).to_le_bytes());
    check(
        &fields,
        &[
            ("version", u64::from(VERSION)),
            ("kind", 3),
            ("flags", 3),
            ("clock_state", 2),
            ("codec", 1),
            ("sector_log2", 10),
            ("salt", 0x0303_0203_0405_0607),
            ("sequence", 0x0404_0203_0405_0607),
            ("segment", 0x0505_0203_0405_0607),
            ("byte", 0x0101_0101),
            ("records", 0x0202_0202),
            ("proven_segment", 0x0606_0203_0405_0607),
            ("proven_byte", 0x0303_0303),
            ("previous_directory_bytes", 0x0606_0606),
            ("journal_start", 0x0707_0203_0405_0607),
            ("boot_id", CLOCK.boot_id),
            ("boottime", CLOCK.boottime_us),
            ("wall", CLOCK.wall_us as u64),
            ("directory_bytes", 0x0404_0404),
            ("body_stored_bytes", 0x0808_0808),
            ("body_bytes", 0x0909_0909),
            ("raw_bytes", 0x0a0a_0a0a),
            ("previous_directory_crc", 0x0707_0707),
            ("directory_crc", 0x0505_0505),
            ("body_crc", 0x0b0b_0b0b),
        ],
    );
}

#[test]
fn the_side_index_is_as_the_document_says() {
    let side = SideBuilder::new(0x0a0b_0c0d, 0x0303_0203_0405_0607, 1 << 20, 0).finish();
    let bytes = side.bytes();
    let fields = fields("## Side index", bytes);
    assert_eq!(fields["magic"], b"EDGI");
    assert_eq!(fields["crc"], crc32c::crc32c(&bytes[8..]).to_le_bytes());
    check(
        &fields,
        &[
            ("version", 1),
            ("length", bytes.len() as u64),
            ("segment", 0x0a0b_0c0d),
            ("salt", 0x0303_0203_0405_0607),
            ("streams", 0),
            ("blocks", 0),
        ],
    );
    assert_eq!(get_u32(bytes, 12) as usize, fields["end"].len());
}

/// Constants of one byte in a source file.
fn constants(source: &str) -> BTreeMap<u8, String> {
    let lines = source.lines().take_while(|line| !line.contains("#[cfg(test)]"));
    lines
        .filter_map(|line| {
            let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
            let (name, value) = line.strip_prefix("const ")?.split_once(": u8 = ")?;
            Some((value.trim_end_matches(';').parse().ok()?, name.to_lowercase().replace('_', " ")))
        })
        .collect()
}

#[test]
fn every_tag_kind_flag_and_reason_is_in_the_document() {
    let mut tags = constants(include_str!("entry.rs"));
    // The first that may be skipped may have a name of its own.
    tags.retain(|tag, name| *tag != SKIPPABLE || name != "skippable");
    let documented = numbered("### Body");
    assert!(tags.len() >= 11);
    for (tag, name) in &tags {
        assert_eq!(documented.get(tag), Some(name), "entry {tag}");
    }
    let kinds = numbered("Kinds of frames:");
    for byte in 0..=u8::MAX {
        let name = match GroupKind::from_byte(byte) {
            GroupKind::Other(_) => None,
            kind => Some(format!("{kind:?}").to_lowercase()),
        };
        assert_eq!(kinds.get(&byte), name.as_ref(), "kind {byte}");
    }
    let reasons = numbered("Reasons of gaps:");
    for byte in 0..=u8::MAX {
        match GapReason::from_byte(byte) {
            GapReason::Other(_) => {}
            reason => {
                let documented = reasons.get(&byte).unwrap_or_else(|| panic!("reason {reason:?}"));
                let words = reason.to_string();
                assert!(words.starts_with(&**documented), "{byte}: {words} for {documented}");
            }
        }
    }
    let flags = numbered("Flags:");
    let known = [FLAG_CLEAN_SHUTDOWN, FLAG_STATE, FLAG_TRAILER];
    assert_eq!(flags.keys().copied().collect::<Vec<_>>(), known);
    let batches = numbered("**Batches**");
    let kinds = constants(include_str!("batches.rs"));
    assert!(kinds.len() >= 3);
    for (kind, name) in &kinds {
        assert!(batches.contains_key(kind), "batch kind {kind}: {name}");
    }
}

#[test]
fn the_example_is_what_the_golden_file_holds() {
    let mut shown = 0;
    for line in DOCUMENT.lines() {
        let Some((at, bytes)) = line.strip_prefix("    ").and_then(|line| line.split_once("  "))
        else {
            continue;
        };
        let Ok(at) = usize::from_str_radix(at, 16) else { continue };
        let bytes: Result<Vec<u8>, _> =
            bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16)).collect();
        let bytes = bytes.unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(bytes, GOLDEN[at..at + bytes.len()], "{line}");
        shown += bytes.len();
    }
    assert!(shown > 300);
}

#[test]
fn what_a_newer_program_added_is_skipped_or_refused_as_the_document_says() {
    let mut body = Vec::new();
    put_event(&mut body, 7, b"before");
    for tag in [SKIPPABLE + 32, 200, u8::MAX] {
        body.push(tag);
        body.extend_from_slice(&[3, 0xff, 0, 0xff]);
    }
    put_event(&mut body, 7, b"behind");
    let entries: Vec<Entry<'_>> = Entries::new(&body).collect::<Result<_, _>>().unwrap();
    assert_eq!(entries.len(), 5);
    assert!(matches!(entries[4], Entry::Event { tag: 7, bytes: b"behind" }));
    for tag in [0, 20, SKIPPABLE - 1] {
        let body = [tag, 1, 0];
        assert!(Entries::new(&body).any(|entry| entry.is_err()), "tag {tag} is not known");
    }
}

//! The bytes of format version 1: what this program writes, and that it reads what was written before it.
//!
//! `EDGE_LOG_GOLDEN=write cargo test -p edge-log --test log golden` makes the file anew. Do that for a new version
//! only, under a new name, and keep the old one: cards out there have it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use crate::common::{DIR, Owner, clock, definition};
use edge_log::storage::{SimStorage, Storage};
use edge_log::{
    Gap, GapReason, GroupCompression, JournalPosition, Lane, LaneConfig, OpenMode, Recovery,
};
use edge_wire::{
    Compression, Envelope, HeadersBuilder, Offset, ProducerId, ProducerStamp, StreamId,
};

const GOLDEN: &str = "tests/log/golden/segment-v1.bin";
const SLOT: &str = "lanes/normal/slot-0000.seg";

/// Without compression: another version of zstd may pack the same bytes otherwise.
fn config() -> LaneConfig {
    LaneConfig { compression: GroupCompression::None, ..crate::common::config() }
}

/// A segment with one of everything.
fn write() -> Vec<u8> {
    let storage = SimStorage::new(0);
    let (mut lane, _) = Lane::open(Arc::new(storage.clone()), DIR, config(), &clock(1)).unwrap();
    lane.define_stream(definition(1));
    lane.define_stream(definition(2));
    let mut headers = HeadersBuilder::new();
    headers.push("mqtt.topic", Some(b"plant/m1")).push("empty", None);
    let one = Arc::new(Envelope::new(Some(b"m1"), &headers.finish()));
    let two = Arc::new(Envelope::new(None, &[]));
    for group in 0..3i64 {
        for record in 0..=group {
            let envelope = lane.envelope(if record == 1 { &two } else { &one });
            let value = format!("value {group} {record}");
            let value = (record != 2).then_some(value.as_bytes());
            lane.append_record(StreamId(1), envelope, 1_000 + group * 10 - record, value).unwrap();
        }
        lane.append_event(5, format!("event {group}").as_bytes()).unwrap();
        lane.commit(&clock(10 + group as u64), 0, &mut Owner(group as u64)).unwrap();
    }
    for (sequence, codec) in [(0, Compression::None), (1, Compression::Snappy)] {
        let stamp = ProducerStamp { id: ProducerId(4), epoch: 2, base_sequence: sequence };
        let batch = crate::common::producer_batch(stamp, codec, &[b"produced".to_vec()]);
        lane.append_batch(StreamId(2), &batch).unwrap();
    }
    lane.commit(&clock(20), 0, &mut Owner(3)).unwrap();
    lane.set_log_start(StreamId(1), Offset(2)).unwrap();
    lane.commit(&clock(21), 0, &mut Owner(3)).unwrap();
    lane.seal(&clock(22), true).unwrap();
    let end = lane.reader().end();
    assert_eq!(end.segment, 1);
    let mut bytes = vec![0; end.byte as usize];
    storage.open(SLOT, OpenMode::Read).unwrap().read_at(&mut bytes, 0).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> (Lane, Recovery) {
    let storage = SimStorage::new(0);
    storage.create_dir(DIR).unwrap();
    let file = storage.open(SLOT, OpenMode::Create).unwrap();
    let mut whole = bytes.to_vec();
    whole.resize(16 << 10, 0);
    file.write_at(&whole, 0).unwrap();
    Lane::open(Arc::new(storage), DIR, config(), &clock(1 << 20)).unwrap()
}

#[test]
fn version_1_is_written_byte_for_byte() {
    let written = write();
    if std::env::var("EDGE_LOG_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::create_dir_all("tests/golden").unwrap();
        std::fs::write(GOLDEN, &written).unwrap();
    }
    let golden = std::fs::read(GOLDEN).unwrap();
    let differs = written.iter().zip(&golden).position(|(a, b)| a != b);
    assert_eq!((differs, written.len()), (None, golden.len()), "the first byte that differs");
}

#[test]
fn version_1_is_read() {
    let (lane, recovery) = read(&std::fs::read(GOLDEN).unwrap());
    assert!(recovery.clean_shutdown);
    let streams: Vec<_> = recovery
        .streams
        .iter()
        .map(|s| (s.definition.clone(), s.log_start.0, s.durable_end.0))
        .collect();
    assert_eq!(streams, [(definition(1), 2, 6), (definition(2), 0, 2)]);
    assert_eq!(recovery.owner_checkpoint, Some(0u64.to_le_bytes().to_vec()));
    let events: Vec<_> = (0..3).map(|group| (5, format!("event {group}").into_bytes())).collect();
    assert_eq!(recovery.events, events);
    let reader = lane.reader();
    let mut found = Vec::new();
    reader
        .read_batches(StreamId(1), Offset(2), &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let headers = edge_wire::HeadersView::parse(record.headers_section).unwrap();
                    found.push((
                        record.offset.0,
                        record.timestamp_ms,
                        record.key.map(text),
                        record.value.map(text),
                        headers.iter().count(),
                    ));
                })
                .unwrap();
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let own = |text: &str| Some(text.to_owned());
    assert_eq!(
        found,
        [
            (1, 1010, own("m1"), own("value 1 0"), 2),
            (2, 1009, None, own("value 1 1"), 0),
            (3, 1020, own("m1"), own("value 2 0"), 2),
            (4, 1019, None, own("value 2 1"), 0),
            (5, 1018, own("m1"), None, 2),
        ]
    );
    assert_eq!(crate::common::records(&reader, 2).len(), 2);
}

#[test]
fn a_flipped_bit_anywhere_in_version_1_is_noticed() {
    let golden = std::fs::read(GOLDEN).unwrap();
    let (whole, _) = read(&golden);
    let expected: Vec<_> =
        (1..=2).map(|stream| crate::common::records_or_empty(&whole.reader(), stream)).collect();
    for at in 0..golden.len() {
        let mut flipped = golden.clone();
        flipped[at] ^= 0x10;
        let (lane, recovery) = read(&flipped);
        let reader = lane.reader();
        for stream in 1..=2u32 {
            let found = crate::common::records_or_empty(&reader, stream);
            let missing: Vec<u64> = expected[stream as usize - 1]
                .iter()
                .filter(|record| !found.contains(record))
                .map(|(offset, _)| *offset)
                .collect();
            let named = |offset: &u64| {
                recovery.gaps.iter().any(|gap: &Gap| {
                    gap.stream.0 == stream
                        && (gap.from.0..gap.to.0).contains(offset)
                        && matches!(gap.reason, GapReason::Rot | GapReason::SuspectTail)
                })
            };
            assert!(missing.iter().all(named), "byte {at}: {missing:?}, {:?}", recovery.gaps);
        }
        assert!(reader.start() <= JournalPosition { segment: 1, byte: 512 });
    }
}

//! A whole lane of format version 1, after a life: several segments, side indexes, plain and packed groups, batches of
//! producers, a gap, damage that was dealt with, a torn tail. What this program writes, and that it reads what was
//! written before it; and a segment of a version that does not exist yet.
//!
//! `EDGE_LOG_GOLDEN=write cargo test -p edge-log --test log golden -- --test-threads=1` makes the files anew. Do that for
//! a new version only, under a new name, and keep the old ones: cards out there have them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use edge_log::inspect::{VerifyOptions, verify_lane};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    GroupCompression, JournalPosition, Lane, LaneConfig, OpenError, OpenMode, Recovery, Storage,
};
use edge_wire::{Compression, Envelope, HeadersBuilder, ProducerId, ProducerStamp, StreamId};

use crate::common::{self, DIR, Owner, clock, definition};

const GOLDEN: &str = "tests/log/golden/lane-v1";
const NEWER: &str = "tests/log/golden/newer-segment.bin";
const SEGMENT_BYTES: usize = 16 << 10;

fn config(compression: GroupCompression) -> LaneConfig {
    LaneConfig { compression, budget_bytes: 1 << 20, ..common::config() }
}

/// One life of the lane: groups of records of three streams, of producers, events.
struct Life {
    lane: Lane,
    tick: u64,
    recovery: Recovery,
}

impl Life {
    fn begin(storage: &SimStorage, tick: u64, compression: GroupCompression) -> Self {
        let opened = Lane::open(Arc::new(storage.clone()), DIR, config(compression), &clock(tick));
        let (mut lane, recovery) = opened.unwrap();
        for stream in 1..=3 {
            lane.define_stream(definition(stream));
        }
        Self { lane, tick, recovery }
    }

    fn groups(&mut self, count: u64) {
        for _ in 0..count {
            self.tick += 1;
            let tick = self.tick;
            for record in 0..=tick % 4 {
                let machine = format!("m{}", (tick + record) % 5);
                let mut headers = HeadersBuilder::new();
                headers.push("mqtt.topic", Some(format!("plant/{machine}").as_bytes()));
                let envelope = Envelope::new(Some(machine.as_bytes()), &headers.finish());
                let envelope = self.lane.envelope(&Arc::new(envelope));
                let value = format!("{{\"tick\":{tick},\"record\":{record},\"{machine}\":true}}");
                let value = (record != 3).then_some(value.as_bytes());
                let stream = StreamId(1 + ((tick + record) % 2) as u32);
                self.lane.append_record(stream, envelope, tick as i64 * 100, value).unwrap();
            }
            if tick.is_multiple_of(3) {
                let sequence = (tick / 3) as i32;
                let stamp = ProducerStamp { id: ProducerId(4), epoch: 0, base_sequence: sequence };
                let codec =
                    if tick.is_multiple_of(2) { Compression::Snappy } else { Compression::None };
                let batch = common::producer_batch(stamp, codec, &[tick.to_le_bytes().to_vec()]);
                // After a gap the sequence is out of order: then it is not taken.
                let _ = self.lane.append_batch(StreamId(3), &batch);
            }
            self.lane.append_event(9, &tick.to_le_bytes()).unwrap();
            self.lane.commit(&clock(tick), 0, &mut Owner(tick)).unwrap();
            while self.lane.maintain(&clock(tick), 0).unwrap() {}
        }
    }

    fn end(&self) -> JournalPosition {
        self.lane.reader().end()
    }
}

fn slot(position: JournalPosition) -> String {
    format!("{DIR}/slot-{:04}.seg", position.segment - 1)
}

/// The whole of it.
fn live() -> SimStorage {
    let storage = SimStorage::new(0);
    let mut life = Life::begin(&storage, 1, GroupCompression::None);
    life.groups(60);
    let last = life.end();
    life.groups(1);
    drop(life);
    // The last group is damaged, and the next start tells it.
    storage.damage(&slot(last), u64::from(last.byte) + 200, |bytes| bytes[0] ^= 1, 1);
    let mut life = Life::begin(&storage, 1_000, GroupCompression::None);
    assert!(life.recovery.suspect_tail.is_some());
    life.groups(5);
    drop(life);
    let mut life = Life::begin(&storage, 2_000, GroupCompression::Zstd { level: 1 });
    life.lane.start_segment(&clock(2_000), 0, &mut Owner(2_000)).unwrap();
    life.groups(40);
    let end = life.end();
    drop(life);
    let image = storage.crash_image(CrashPolicy::KeepAll, 0);
    image.damage(&slot(end), u64::from(end.byte) + 512, |bytes| bytes.fill(0x55), 512);
    image
}

fn files(storage: &SimStorage) -> BTreeMap<String, Vec<u8>> {
    let files = storage.files().into_iter().map(|(path, length)| {
        let mut bytes = vec![0; length as usize];
        storage.open(&path, OpenMode::Read).unwrap().read_at(&mut bytes, 0).unwrap();
        (path, bytes)
    });
    files.collect()
}

/// Without the zeros at its end.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..length]
}

fn is_writing() -> bool {
    std::env::var("EDGE_LOG_GOLDEN").is_ok_and(|mode| mode == "write")
}

/// What is in the golden files, on a disk.
fn stored() -> SimStorage {
    let storage = SimStorage::new(0);
    storage.create_dir(DIR).unwrap();
    for entry in std::fs::read_dir(GOLDEN).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("slot-") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let length = if name.ends_with(".seg") { SEGMENT_BYTES } else { bytes.len() };
        bytes.resize(length.next_multiple_of(512), 0);
        let file = storage.open(&format!("{DIR}/{name}"), OpenMode::Create).unwrap();
        file.write_at(&bytes, 0).unwrap();
    }
    storage
}

/// Every record, as text.
fn records(lane: &Lane) -> String {
    let mut text = String::new();
    for stream in 1..=3 {
        for (offset, value) in common::records_or_empty(&lane.reader(), stream) {
            text.push_str(&format!("{stream} {offset} {}\n", String::from_utf8_lossy(&value)));
        }
    }
    text
}

/// Which zstd packed the golden files: another may pack otherwise, and nothing is wrong then.
fn zstd_version() -> String {
    zstd::zstd_safe::version_number().to_string()
}

#[test]
fn a_lane_of_version_1_is_written_byte_for_byte() {
    let image = live();
    let written = files(&image);
    if is_writing() {
        std::fs::create_dir_all(GOLDEN).unwrap();
        for (path, bytes) in &written {
            let name = Path::new(path).file_name().unwrap();
            std::fs::write(Path::new(GOLDEN).join(name), trimmed(bytes)).unwrap();
        }
        let lane = Life::begin(&image, 3_000, GroupCompression::None).lane;
        std::fs::write(format!("{GOLDEN}/records.txt"), records(&lane)).unwrap();
        std::fs::write(format!("{GOLDEN}/zstd-version.txt"), zstd_version()).unwrap();
    }
    let packed_alike =
        std::fs::read_to_string(format!("{GOLDEN}/zstd-version.txt")).unwrap() == zstd_version();
    let golden = files(&stored());
    assert_eq!(golden.keys().collect::<Vec<_>>(), written.keys().collect::<Vec<_>>());
    let mut compared = 0;
    for (path, bytes) in &written {
        // Frames of the second life and before are plain: what stands in them does not depend on zstd.
        let is_plain = (512..bytes.len())
            .step_by(512)
            .all(|at| !bytes[at..].starts_with(b"EDGF") || bytes[at + 12] == 0);
        if packed_alike || is_plain {
            let differs = trimmed(bytes).iter().zip(&golden[path]).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{path}: the first byte that differs");
            assert_eq!(trimmed(bytes).len(), trimmed(&golden[path]).len(), "{path}");
            compared += 1;
        }
    }
    assert!(compared >= 3);
}

#[test]
fn a_lane_of_version_1_is_read_and_goes_on() {
    let storage = stored();
    let report = verify_lane(&storage, DIR, &VerifyOptions::default(), &mut ()).unwrap();
    assert!(report.is_sound(), "{:#?}", report.damage);
    assert!(report.segments >= 4 && report.torn_tail == Some(report.end));
    assert_eq!(report.damage.len(), 1, "{:#?}", report.damage);
    assert!(report.damage[0].known);
    assert!(!report.gaps.is_empty() && report.gaps.iter().all(|gap| gap.reason == "suspect tail"));

    let mut life = Life::begin(&storage, 3_000, GroupCompression::None);
    assert!(life.recovery.suspect_tail.is_none() && !life.recovery.clean_shutdown);
    let expected = std::fs::read_to_string(format!("{GOLDEN}/records.txt")).unwrap();
    assert_eq!(records(&life.lane), expected);
    assert!(expected.lines().count() > 200);
    let ends: Vec<_> = life.recovery.streams.iter().map(|stream| stream.durable_end).collect();
    life.groups(3);
    drop(life);
    let again = Life::begin(&storage, 4_000, GroupCompression::None);
    assert!(again.recovery.streams.iter().zip(ends).any(|(stream, end)| stream.durable_end > end));
    assert!(records(&again.lane).lines().count() > expected.lines().count());
    let report = verify_lane(&storage, DIR, &VerifyOptions::default(), &mut ()).unwrap();
    assert!(report.is_sound(), "{:#?}", report.damage);
}

#[test]
fn a_segment_of_a_newer_version_is_refused_and_nothing_is_changed() {
    let storage = stored();
    if is_writing() {
        // The checksum is CRC32C, bit by bit: the test has no other.
        let mut header = files(&storage)[&format!("{DIR}/slot-0000.seg")][..512].to_vec();
        header[12] = 2;
        let crc = !header[12..128].iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
            })
        });
        header[8..12].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(NEWER, header).unwrap();
    }
    let newer = std::fs::read(NEWER).unwrap();
    let file = storage.open(&format!("{DIR}/slot-0003.seg"), OpenMode::ReadWrite).unwrap();
    file.write_at(&newer, 0).unwrap();
    file.sync_data().unwrap();
    let before = files(&storage);
    let config = config(GroupCompression::None);
    let error = Lane::open(Arc::new(storage.clone()), DIR, config, &clock(5_000)).unwrap_err();
    assert!(
        matches!(&error, OpenError::NewerFormat { path, found: 2, supported: 1 } if path.ends_with("slot-0003.seg")),
        "{error}"
    );
    assert!(Lane::inspect(&storage, DIR).is_err());
    let error = verify_lane(&storage, DIR, &VerifyOptions::default(), &mut ()).unwrap_err();
    assert!(error.to_string().contains("use the program that wrote it"), "{error}");
    assert_eq!(files(&storage), before);
}

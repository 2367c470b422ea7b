//! What a lane promises, on the simulated disk.

use std::ops::ControlFlow;
use std::sync::Arc;

use edge_wire::{
    Compression, Envelope, Offset, PartitionId, ProducerId, ProducerStamp, RecordBatchBuilder,
    StreamId, TopicId,
};

use super::pending::RECORD_OVERHEAD_BYTES;
use super::*;
use crate::clock::ClockReading;
use crate::clock::ClockState;
use crate::config::{GroupCompression, WhenFull};
use crate::gap::GapReason;
use crate::journal::format::GAPS_MAX;
use crate::reader::{GroupAt, ReadError};
use crate::recovered::Recovery;
use crate::storage::{CrashPolicy, Fault, FaultKind, SimOperation, SimStorage, Storage};

mod full;
mod limits;

const DIR: &str = "lanes/normal";

pub(crate) fn clock(tick: u64) -> ClockReading {
    ClockReading {
        boot_id: 7,
        boottime_us: tick * 1000,
        wall_us: 1_700_000_000_000_000 + tick as i64 * 1000,
        state: ClockState::Synced,
        entropy: tick.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555,
    }
}

pub(crate) fn definition(stream: u32) -> StreamDefinition {
    StreamDefinition {
        stream: StreamId(stream),
        topic: format!("topic-{stream}"),
        topic_id: TopicId([stream as u8; 16]),
        partition: PartitionId(stream % 4),
        partition_count: 4,
    }
}

pub(crate) fn small() -> LaneConfig {
    LaneConfig {
        budget_bytes: 64 << 10,
        segment_bytes: 16 << 10,
        group_bytes_max: 2 << 10,
        commit_window_us: 0,
        decoded_cache_bytes: 8 << 10,
        ..LaneConfig::default()
    }
}

/// A lane with its disk and a clock that ticks.
struct Rig {
    storage: SimStorage,
    lane: Lane,
    recovery: Recovery,
    tick: u64,
}

impl Rig {
    fn new(config: LaneConfig) -> Self {
        Self::on(SimStorage::new(1), config, 1)
    }

    fn on(storage: SimStorage, config: LaneConfig, tick: u64) -> Self {
        let (lane, recovery) =
            Lane::open(Arc::new(storage.clone()), DIR, config, &clock(tick)).unwrap();
        let mut rig = Self { storage, lane, recovery, tick };
        for stream in 1..=3 {
            rig.lane.define_stream(definition(stream));
        }
        rig
    }

    fn reopen(self, policy: CrashPolicy, seed: u64) -> Self {
        let config = self.lane.config().clone();
        let image = self.storage.crash_image(policy, seed);
        Self::on(image, config, self.tick + 1_000_000)
    }

    fn append(&mut self, stream: u32, value: &str) -> Offset {
        let envelope = Arc::new(Envelope::new(Some(format!("key-{stream}").as_bytes()), &[]));
        let envelope = self.lane.envelope(&envelope);
        let timestamp_ms = self.tick as i64;
        self.lane
            .append_record(StreamId(stream), envelope, timestamp_ms, Some(value.as_bytes()))
            .unwrap()
    }

    fn commit(&mut self) -> Result<Commit, CommitError> {
        self.tick += 1;
        let commit = self.lane.commit(&clock(self.tick), self.tick, &mut ());
        if commit.is_ok() {
            self.maintain();
        }
        commit
    }

    fn maintain(&mut self) {
        while self.lane.maintain(&clock(self.tick), self.tick).unwrap() {}
    }

    /// Appends and commits one record.
    fn put(&mut self, stream: u32, value: &str) -> Offset {
        let offset = self.append(stream, value);
        self.commit().unwrap();
        offset
    }

    fn values(&self, stream: u32) -> Vec<(u64, String)> {
        let reader = self.lane.reader();
        let from = reader.bounds(StreamId(stream)).unwrap().log_start;
        let mut found = Vec::new();
        reader
            .read_batches(StreamId(stream), from, &mut |batch| {
                batch
                    .for_each_record(&mut |record| {
                        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                        if record.offset >= from {
                            found.push((record.offset.0, value));
                        }
                    })
                    .unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
        found
    }

    fn end(&self, stream: u32) -> u64 {
        self.lane.reader().bounds(StreamId(stream)).unwrap().durable_end.0
    }
}

fn producer_batch(codec: Compression, stamp: Option<ProducerStamp>, values: &[&str]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), 1000);
    for (index, value) in values.iter().enumerate() {
        builder.push(1000 + index as i64, Some(b"k"), Some(value.as_bytes()), &[0]);
    }
    let mut out = Vec::new();
    builder.finish(stamp, codec, None, &mut out).unwrap();
    out
}

#[test]
fn what_is_committed_is_read_and_survives() {
    let mut rig = Rig::new(small());
    for index in 0..20 {
        rig.append(1, &format!("a{index}"));
        rig.append(2, &format!("b{index}"));
        if index % 3 == 0 {
            rig.append(1, &format!("again {index}"));
        }
        rig.commit().unwrap();
    }
    let (one, two) = (rig.values(1), rig.values(2));
    assert_eq!(two.len(), 20);
    assert_eq!(one.len(), 27);
    assert_eq!(one[1], (1, "again 0".to_owned()));
    assert!(one.iter().enumerate().all(|(index, (offset, _))| index as u64 == *offset));
    let rig = rig.reopen(CrashPolicy::DropAll, 1);
    assert_eq!(rig.values(1), one);
    assert_eq!(rig.values(2), two);
    assert_eq!(rig.recovery.streams.len(), 3);
    assert!(rig.recovery.gaps.is_empty() && rig.recovery.suspect_tail.is_none());
}

#[test]
fn nothing_is_visible_before_the_sync() {
    let mut rig = Rig::new(small());
    rig.append(1, "a");
    assert_eq!(rig.end(1), 0);
    assert!(rig.values(1).is_empty());
    rig.commit().unwrap();
    assert_eq!(rig.end(1), 1);
}

#[test]
fn the_ring_wraps_and_tells_where_it_starts() {
    let mut rig = Rig::new(small());
    for index in 0..2000 {
        rig.put(1 + index % 3, &format!("{index:0>100}"));
    }
    let stats = rig.lane.reader().stats();
    assert!(stats.segments_recycled > 5, "{stats:?}");
    assert!(stats.used_bytes <= stats.budget_bytes);
    let values = rig.values(1);
    let bounds = rig.lane.reader().bounds(StreamId(1)).unwrap();
    assert!(bounds.log_start.0 > 0);
    assert_eq!(values.first().unwrap().0, bounds.log_start.0);
    assert_eq!(values.last().unwrap().0 + 1, bounds.durable_end.0);
    assert_eq!(values.len() as u64, bounds.durable_end.0 - bounds.log_start.0);
    assert!(matches!(
        rig.lane.reader().read(StreamId(1), Offset(0), 100, &mut Vec::new()),
        Err(ReadError::OutOfRange { .. })
    ));
    assert!(rig.recovery.gaps.is_empty());
    let rig = rig.reopen(CrashPolicy::DropAll, 3);
    assert_eq!(rig.values(1), values);
    assert!(rig.recovery.gaps.is_empty(), "{:?}", rig.recovery.gaps);
}

#[test]
fn the_journal_is_read_in_order() {
    let mut rig = Rig::new(LaneConfig { budget_bytes: 1 << 20, ..small() });
    for index in 0..300 {
        rig.put(1 + index % 2, &format!("{index}"));
    }
    {
        let rig = rig.reopen(CrashPolicy::DropAll, 0);
        let reader = rig.lane.reader();
        let (mut at, mut seen, mut sequence) = (JournalPosition::START, Vec::new(), 0);
        loop {
            match reader.group(at).unwrap() {
                GroupAt::Group(group) => {
                    assert!(group.position() >= at && group.header().sequence > sequence);
                    sequence = group.header().sequence;
                    for batch in group.batches() {
                        seen.push((batch.stream().0, batch.base_offset().0));
                    }
                    at = group.next();
                }
                GroupAt::End => break,
                GroupAt::Lost { next } => panic!("lost up to {next}"),
            }
        }
        assert_eq!(at, reader.end());
        let expected: Vec<_> = (0..300u64).map(|i| (1 + (i % 2) as u32, i / 2)).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn producer_batches_come_back_bit_for_bit() {
    let mut rig = Rig::new(small());
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let mut expected = Vec::new();
    for (index, codec) in codecs.into_iter().enumerate() {
        rig.append(2, "between");
        let stamp = (index % 2 == 0).then_some(ProducerStamp {
            id: ProducerId(5),
            epoch: 0,
            base_sequence: index as i32 / 2 * 3,
        });
        let mut batch = producer_batch(codec, stamp, &["one", "two", "three"]);
        let appended = rig.lane.append_batch(StreamId(2), &batch).unwrap();
        let base = index as u64 * 4 + 1;
        assert_eq!(appended, Appended::New { base_offset: Offset(base) });
        batch[..8].copy_from_slice(&(base as i64).to_be_bytes());
        batch[12..16].copy_from_slice(&0i32.to_be_bytes());
        expected.push(batch);
    }
    rig.commit().unwrap();
    {
        let rig = rig.reopen(CrashPolicy::DropAll, 0);
        let mut found = Vec::new();
        let mut records = 0;
        rig.lane
            .reader()
            .read_batches(StreamId(2), Offset(0), &mut |batch| {
                batch.for_each_record(&mut |_| records += 1).unwrap();
                if batch.raw_records().is_some() {
                    let mut out = Vec::new();
                    batch.write_record_batch(&mut out);
                    assert_eq!(out.len(), batch.record_batch_bytes());
                    found.push(out);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(found, expected);
        assert_eq!(records, 20);
    }
}

#[test]
fn built_batches_are_valid_record_batches() {
    let mut rig = Rig::new(small());
    for round in 0..3 {
        for index in 0..round * 5 + 1 {
            rig.append(1, &format!("{round}/{index}"));
        }
        rig.commit().unwrap();
    }
    let mut out = Vec::new();
    let end = rig.lane.reader().read(StreamId(1), Offset(0), 1 << 20, &mut out).unwrap();
    assert_eq!(end.next, Offset(18));
    let mut next = 0;
    for batch in edge_wire::Batches::new(&out) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.header().base_offset.0, next);
        let records = edge_wire::Records::new(batch.records_section(), batch.header().record_count);
        for record in records {
            assert_eq!(record.unwrap().key, Some(&b"key-1"[..]));
            next += 1;
        }
    }
    assert_eq!(next, 18);
    // The first batch is whole even if it is larger than asked for, and no second one comes with it.
    out.clear();
    let end = rig.lane.reader().read(StreamId(1), Offset(3), 1, &mut out).unwrap();
    assert_eq!(end.next, Offset(7));
    assert_eq!(edge_wire::Batches::new(&out).count(), 1);
}

#[test]
fn sequences_of_producers_survive_a_restart() {
    let stamp =
        |sequence, epoch| ProducerStamp { id: ProducerId(9), epoch, base_sequence: sequence };
    let batch = |sequence, epoch| {
        producer_batch(Compression::Lz4, Some(stamp(sequence, epoch)), &["x", "y"])
    };
    let mut rig = Rig::new(small());
    for index in 0..200 {
        let appended = rig.lane.append_batch(StreamId(1), &batch(index * 2, 0)).unwrap();
        assert_eq!(appended, Appended::New { base_offset: Offset(index as u64 * 2) });
        rig.commit().unwrap();
    }
    // Pending, then lost with the power: it must be new again afterwards.
    rig.lane.append_batch(StreamId(1), &batch(400, 0)).unwrap();
    let mut rig = rig.reopen(CrashPolicy::DropAll, 0);
    let duplicate = rig.lane.append_batch(StreamId(1), &batch(398, 0)).unwrap();
    assert_eq!(duplicate, Appended::Duplicate { base_offset: Offset(398) });
    assert!(matches!(
        rig.lane.append_batch(StreamId(1), &batch(404, 0)),
        Err(AppendError::OutOfOrderSequence { expected: 400 })
    ));
    let new = rig.lane.append_batch(StreamId(1), &batch(400, 0)).unwrap();
    assert_eq!(new, Appended::New { base_offset: Offset(400) });
    rig.lane.append_batch(StreamId(1), &batch(0, 1)).unwrap();
    assert!(matches!(
        rig.lane.append_batch(StreamId(1), &batch(402, 0)),
        Err(AppendError::InvalidProducerEpoch { current_epoch: 1 })
    ));
}

#[test]
fn a_pending_batch_is_not_in_the_checkpoint_of_the_roll_it_causes() {
    // A batch that forces a roll must not be remembered as appended by the checkpoint before it.
    let stamp = ProducerStamp { id: ProducerId(3), epoch: 0, base_sequence: 0 };
    let value = "v".repeat(1000);
    let batch = producer_batch(Compression::None, Some(stamp), &[&value]);
    let mut rig = Rig::new(LaneConfig { compression: GroupCompression::None, ..small() });
    let first = loop {
        rig.append(2, &"w".repeat(300));
        rig.commit().unwrap();
        let end = rig.lane.reader().end();
        if (16 << 10) - end.byte < 1600 {
            break end.segment;
        }
    };
    rig.lane.append_batch(StreamId(1), &batch).unwrap();
    // Only the head of the new segment reaches the disk.
    let syncs = rig.storage.syncs();
    let image: Arc<std::sync::Mutex<Option<SimStorage>>> = Arc::default();
    let slot = Arc::clone(&image);
    rig.storage.on_operation(Box::new(move |operation, storage| {
        if operation == SimOperation::Write && storage.syncs() == syncs + 1 {
            let image = storage.crash_image(CrashPolicy::DropAll, 0);
            slot.lock().unwrap().get_or_insert(image);
        }
    }));
    rig.commit().unwrap();
    assert_eq!(rig.lane.reader().end().segment, first + 1);
    let image = image.lock().unwrap().take().expect("the roll and the group are two writes");
    let mut rig = Rig::on(image, rig.lane.config().clone(), 99);
    let appended = rig.lane.append_batch(StreamId(1), &batch).unwrap();
    assert_eq!(appended, Appended::New { base_offset: Offset(0) });
}

#[test]
fn events_and_owner_state_come_back() {
    struct Owner(u8);
    impl SegmentOwner for Owner {
        fn checkpoint(&mut self, out: &mut Vec<u8>) {
            out.extend_from_slice(&[self.0; 10]);
        }
    }
    let mut rig = Rig::new(small());
    let mut owner = Owner(0);
    let mut since = Vec::new();
    let mut segment = 0;
    for index in 0..300u16 {
        rig.lane.append_event(index, &index.to_le_bytes()).unwrap();
        rig.append(1, &"x".repeat(100));
        owner.0 = index as u8;
        let commit = rig.lane.commit(&clock(u64::from(index)), 0, &mut owner).unwrap();
        if commit.end.segment != segment {
            segment = commit.end.segment;
            since.clear();
        }
        since.push((index, index.to_le_bytes().to_vec()));
        rig.maintain();
    }
    let rig = rig.reopen(CrashPolicy::DropAll, 0);
    assert_eq!(rig.recovery.events, since);
    assert_eq!(rig.recovery.owner_checkpoint, Some(vec![since[0].0 as u8; 10]));
}

#[test]
fn a_clean_stop_is_told_and_only_once() {
    let mut rig = Rig::new(small());
    rig.put(1, "a");
    rig.append(1, "b");
    assert!(matches!(rig.lane.seal(&clock(5), true), Err(CommitError::Pending)));
    rig.commit().unwrap();
    rig.lane.seal(&clock(5), true).unwrap();
    let mut rig = rig.reopen(CrashPolicy::DropAll, 0);
    assert!(rig.recovery.clean_shutdown);
    rig.put(1, "c");
    let rig = rig.reopen(CrashPolicy::DropAll, 0);
    assert!(!rig.recovery.clean_shutdown);
    assert_eq!(rig.values(1).len(), 3);
}

#[test]
fn a_quiet_lane_is_sealed_once_and_then_writes_nothing() {
    let mut rig = Rig::new(small());
    rig.put(1, "a");
    let written = rig.storage.written_bytes();
    rig.lane.maintain(&clock(9), rig.tick + 999_999).unwrap();
    assert_eq!(rig.storage.written_bytes(), written);
    rig.lane.maintain(&clock(9), rig.tick + 1_000_000).unwrap();
    assert_eq!(rig.storage.written_bytes(), written + 512);
    for second in 2..100 {
        rig.lane.maintain(&clock(9), rig.tick + second * 1_000_000).unwrap();
    }
    assert_eq!(rig.storage.written_bytes(), written + 512);
}

#[test]
fn log_starts_and_removals_are_kept() {
    let mut rig = Rig::new(small());
    for index in 0..10 {
        rig.append(1, &format!("{index}"));
        rig.append(2, "x");
    }
    rig.commit().unwrap();
    assert_eq!(rig.lane.set_log_start(StreamId(1), Offset(4)).unwrap(), Offset(4));
    assert_eq!(rig.lane.set_log_start(StreamId(1), Offset(2)).unwrap(), Offset(4));
    assert!(matches!(
        rig.lane.set_log_start(StreamId(1), Offset(11)),
        Err(LogStartError::OutOfRange { .. })
    ));
    rig.lane.remove_stream(StreamId(2));
    assert!(rig.lane.reader().bounds(StreamId(2)).is_none());
    assert!(matches!(
        rig.lane.append_batch(StreamId(2), &producer_batch(Compression::None, None, &["x"])),
        Err(AppendError::UnknownStream { .. })
    ));
    rig.commit().unwrap();
    let rig = rig.reopen(CrashPolicy::DropAll, 0);
    assert_eq!(rig.values(1).first().unwrap().0, 4);
    assert!(rig.recovery.streams.iter().all(|stream| stream.definition.stream != StreamId(2)));
}

#[test]
fn times_are_found_in_every_segment() {
    let mut rig = Rig::new(small());
    for index in 0..600 {
        rig.put(1 + index % 2, &format!("{index:0>60}"));
    }
    for rig in [Rig::new(small()), rig.reopen(CrashPolicy::DropAll, 0)] {
        let reader = rig.lane.reader();
        let bounds = reader.bounds(StreamId(1)).unwrap();
        if bounds.durable_end == Offset(0) {
            assert_eq!(reader.offset_at_time(StreamId(1), 0).unwrap(), None);
            assert_eq!(reader.max_timestamp(StreamId(1)).unwrap(), None);
            continue;
        }
        // Record n of stream 1 was stamped with tick 1 + 2n.
        for offset in bounds.log_start.0..bounds.durable_end.0 {
            let timestamp_ms = 1 + 2 * offset as i64;
            let found = reader.offset_at_time(StreamId(1), timestamp_ms).unwrap();
            assert_eq!(found, Some((Offset(offset), timestamp_ms)));
            let found = reader.offset_at_time(StreamId(1), timestamp_ms - 1).unwrap();
            assert_eq!(found, Some((Offset(offset), timestamp_ms)));
        }
        let newest = bounds.durable_end.0 - 1;
        assert_eq!(
            reader.max_timestamp(StreamId(1)).unwrap(),
            Some((Offset(newest), 1 + 2 * newest as i64))
        );
        assert_eq!(reader.offset_at_time(StreamId(1), 1 << 40).unwrap(), None);
    }
}

#[test]
fn topic_retention_moves_the_log_start_of_its_stream_only() {
    let mut rig = Rig::new(LaneConfig { budget_bytes: 1 << 20, ..small() });
    for index in 0..900 {
        rig.put(1 + index % 2, &format!("{index:0>100}"));
    }
    let retention = Retention { bytes: Some(10_000), ..Retention::default() };
    rig.lane.set_retention(StreamId(1), retention);
    for minute in 1..100u64 {
        rig.lane.maintain(&clock(rig.tick), minute * 60_000_000).unwrap();
    }
    let reader = rig.lane.reader();
    let one = reader.bounds(StreamId(1)).unwrap();
    assert!(one.log_start.0 > 100);
    let kept: usize = rig.values(1).iter().map(|(_, value)| value.len()).sum();
    assert!(kept >= 9_000, "{kept} bytes are left");
    assert_eq!(reader.bounds(StreamId(2)).unwrap().log_start, Offset(0));
}

#[test]
fn reading_is_right_without_side_indexes_and_with_broken_ones() {
    let mut rig = Rig::new(LaneConfig { budget_bytes: 256 << 10, ..small() });
    for index in 0..900 {
        rig.put(1 + index % 3, &format!("{index:0>60}"));
    }
    let expected: Vec<_> = (1..=3).map(|stream| rig.values(stream)).collect();
    let indexes: Vec<_> =
        rig.storage.files().into_iter().filter(|(path, _)| path.ends_with(".idx")).collect();
    assert!(indexes.len() > 3);
    for case in 0..3 {
        let image = rig.storage.crash_image(CrashPolicy::KeepAll, case);
        for (path, len) in &indexes {
            match case {
                0 => {}
                1 => image.remove(path).unwrap(),
                _ => image.damage(path, 0, |bytes| bytes[50] ^= 1, *len as usize),
            }
        }
        let reopened = Rig::on(image, rig.lane.config().clone(), 1 << 30);
        for stream in 1..=3u32 {
            assert_eq!(reopened.values(stream), expected[stream as usize - 1]);
            // And from any offset.
            for (offset, value) in expected[stream as usize - 1].iter().step_by(17) {
                let mut first = None;
                reopened
                    .lane
                    .reader()
                    .read_batches(StreamId(stream), Offset(*offset), &mut |batch| {
                        batch
                            .for_each_record(&mut |record| {
                                first = Some(record.value.unwrap().to_vec());
                            })
                            .unwrap();
                        ControlFlow::Break(())
                    })
                    .unwrap();
                assert_eq!(first.unwrap(), value.as_bytes());
            }
        }
    }
}

#[test]
fn inspecting_writes_nothing_and_sees_the_same() {
    let mut rig = Rig::new(small());
    for index in 0..100 {
        rig.put(1, &format!("{index}"));
    }
    let image = rig.storage.crash_image(CrashPolicy::DropAll, 0);
    let seen = Lane::inspect(&image, DIR).unwrap();
    assert_eq!(image.operations(), 0);
    let opened = Rig::on(image, small(), 1000);
    assert_eq!(seen.streams, opened.recovery.streams);
    assert_eq!(seen.end, opened.recovery.end);
}

#[test]
fn a_lane_of_another_sector_size_goes_on_in_a_new_segment() {
    let config = LaneConfig { segment_bytes: 64 << 10, budget_bytes: 512 << 10, ..small() };
    let mut rig = Rig::new(config.clone());
    rig.put(1, "a");
    let image = rig.storage.crash_image(CrashPolicy::DropAll, 0);
    image.set_io_mode(crate::storage::IoMode::Buffered { sector_bytes: 4096 });
    let mut rig = Rig::on(image, config, 1000);
    // A seal does not go there.
    let end = rig.lane.reader().end();
    assert!(matches!(rig.lane.seal(&clock(1001), true), Err(CommitError::Full)));
    rig.lane.maintain(&clock(1002), 1 << 40).unwrap();
    assert_eq!((rig.lane.reader().end(), rig.lane.state()), (end, LaneState::Open));
    rig.put(1, "b");
    assert_eq!(rig.lane.reader().end().segment, 2);
    assert_eq!(rig.values(1).len(), 2);
}

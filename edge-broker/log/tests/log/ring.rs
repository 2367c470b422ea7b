//! What becomes of old data, against a plain vector: random actions on lanes whose streams are compacted, kept beyond
//! the ring or thinned, with tiny limits.
//!
//! What must hold at every look: each record that is read is the one that was written at its offset, once, in order;
//! one that is missing has a reason: it is below the log start, a newer one has its key, it is a tombstone whose time
//! was over (and then nothing older of its key is left), or a gap names it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    CommitError, Compaction, Decay, GapReason, GroupAt, GroupKind, JournalPosition, Lane,
    LaneConfig, Retention, WhenFull,
};
use edge_wire::{
    Batches, Compression, Envelope, Offset, ProducerId, ProducerStamp, RecordBatchBuilder, Records,
    StreamId,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::common::{self, DIR, clock, config, definition};

/// Streams at a time; a stream that is removed makes room for a new one of the same kind.
const STREAMS: u32 = 4;
const KEYS: u32 = 6;

#[derive(Clone, Debug)]
enum Action {
    Append { slot: u32, key: u32, length: usize, time: i64, tombstone: bool },
    Batch { slot: u32, keys: Vec<u32>, packed: bool },
    Commit,
    Maintain,
    LogStart { slot: u32, back: u64 },
    Remove { slot: u32 },
    Policy { slot: u32, kind: u8 },
    Read { slot: u32, back: u64 },
    Time { slot: u32, time: i64 },
    Upstream,
    Seal { clean: bool },
    Kill,
    PowerCut,
}

fn action() -> impl Strategy<Value = Action> {
    let slot = 0..STREAMS;
    prop_oneof![
        14 => (slot.clone(), 0..KEYS, 0..700usize, -500..500i64, 0..8u8).prop_map(
            |(slot, key, length, time, dice)| Action::Append {
                slot, key, length, time, tombstone: dice == 0,
            }
        ),
        3 => (slot.clone(), prop::collection::vec(0..KEYS, 1..5), any::<bool>())
            .prop_map(|(slot, keys, packed)| Action::Batch { slot, keys, packed }),
        10 => Just(Action::Commit),
        8 => Just(Action::Maintain),
        1 => (slot.clone(), 0..60u64).prop_map(|(slot, back)| Action::LogStart { slot, back }),
        1 => slot.clone().prop_map(|slot| Action::Remove { slot }),
        1 => (slot.clone(), 0..5u8).prop_map(|(slot, kind)| Action::Policy { slot, kind }),
        3 => (slot.clone(), 0..400u64).prop_map(|(slot, back)| Action::Read { slot, back }),
        1 => (slot.clone(), -600..600i64).prop_map(|(slot, time)| Action::Time { slot, time }),
        3 => Just(Action::Upstream),
        1 => any::<bool>().prop_map(|clean| Action::Seal { clean }),
        1 => Just(Action::Kill),
        1 => Just(Action::PowerCut),
    ]
}

#[derive(Clone, Debug)]
struct Written {
    time: i64,
    key: Option<u32>,
    value: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Stream {
    id: u32,
    records: Vec<Written>,
    durable: usize,
    log_start: u64,
    retention: Retention,
    /// It was compacted at some time.
    compacted: bool,
    /// Its policy was changed.
    changed: bool,
}

impl Stream {
    fn new(id: u32, retention: Retention) -> Self {
        let compacted = retention.compaction.is_some();
        Self {
            id,
            records: Vec::new(),
            durable: 0,
            log_start: 0,
            retention,
            compacted,
            changed: false,
        }
    }
}

struct World {
    storage: SimStorage,
    lane: Lane,
    config: LaneConfig,
    streams: Vec<Stream>,
    ids: u32,
    tick: u64,
    value: u64,
    sequence: i32,
}

/// Plain; compacted, tombstones go at once; compacted, they stay; kept beyond the ring; compacted and kept by bytes.
fn retention(kind: u32) -> Retention {
    let compaction = |tombstone_ms| Some(Compaction { tombstone_ms });
    match kind {
        0 => Retention::default(),
        1 => Retention { compaction: compaction(0), ..Retention::default() },
        2 => Retention { compaction: compaction(1 << 40), ..Retention::default() },
        3 => Retention { bytes: Some(40_000), ..Retention::default() },
        _ => Retention { bytes: Some(9_000), compaction: compaction(0), ..Retention::default() },
    }
}

impl World {
    fn new(config: LaneConfig) -> Self {
        let storage = SimStorage::new(0);
        let streams: Vec<_> = (0..STREAMS).map(|id| Stream::new(id, retention(id))).collect();
        let lane = open(&storage, &config, &streams, 1);
        Self { storage, lane, config, streams, ids: STREAMS, tick: 1, value: 0, sequence: 0 }
    }

    fn act(&mut self, action: &Action) {
        self.tick += 1_000_000;
        match action {
            Action::Append { slot, key, length, time, tombstone } => {
                self.append(*slot, *key, *length, *time, *tombstone);
            }
            Action::Batch { slot, keys, packed } => self.batch(*slot, keys, *packed),
            Action::Commit => {
                self.commit();
            }
            Action::Maintain => {
                for _ in 0..50 {
                    if !self.lane.maintain(&clock(self.tick), self.tick).unwrap() {
                        break;
                    }
                }
            }
            Action::LogStart { slot, back } => {
                let known = &mut self.streams[*slot as usize];
                let offset = (known.durable as u64).saturating_sub(*back);
                known.log_start =
                    self.lane.set_log_start(StreamId(known.id), Offset(offset)).unwrap().0;
            }
            Action::Remove { slot } => self.remove(*slot),
            // What was thinned before a crash by another policy has no reason that the next one knows.
            Action::Policy { .. } if self.config.decay.is_some() => {}
            Action::Policy { slot, kind } => {
                let known = &mut self.streams[*slot as usize];
                known.retention = retention(u32::from(*kind));
                known.changed = true;
                known.compacted |= known.retention.compaction.is_some();
                self.lane.set_retention(StreamId(known.id), known.retention);
            }
            Action::Read { slot, back } => self.read(*slot, *back),
            Action::Time { slot, time } => self.time(*slot, *time),
            Action::Upstream => {
                let end = self.lane.reader().end();
                self.lane.handle_upstream(end);
            }
            Action::Seal { clean } => match self.lane.seal(&clock(self.tick), *clean) {
                Ok(()) | Err(CommitError::Full | CommitError::Pending) => {}
                Err(error) => panic!("{error}"),
            },
            Action::Kill => self.reopen(self.storage.kill_image()),
            Action::PowerCut => {
                self.reopen(self.storage.crash_image(CrashPolicy::DropAll, self.tick));
            }
        }
        self.check_bounds();
    }

    fn append(&mut self, slot: u32, key: u32, length: usize, time: i64, tombstone: bool) {
        self.value += 1;
        let mut value = self.value.to_le_bytes().to_vec();
        value.resize(length.max(8), self.value as u8);
        let value = (!tombstone).then_some(value);
        let envelope = Arc::new(Envelope::new(Some(&key.to_le_bytes()), &[]));
        let stream = StreamId(self.streams[slot as usize].id);
        loop {
            let envelope = self.lane.envelope(&envelope);
            match self.lane.append_record(stream, envelope, time, value.as_deref()) {
                Ok(offset) => {
                    let known = &mut self.streams[slot as usize];
                    assert_eq!(offset.0 as usize, known.records.len());
                    known.records.push(Written { time, key: Some(key), value });
                    return;
                }
                Err(error) if error.is_retriable() => {
                    if !self.commit() {
                        return;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn batch(&mut self, slot: u32, keys: &[u32], packed: bool) {
        let mut builder = RecordBatchBuilder::new();
        builder.start(Offset(0), 7);
        let mut added = Vec::new();
        for (index, key) in (0..).zip(keys) {
            self.value += 1;
            let value = self.value.to_le_bytes().to_vec();
            builder.push(7 + index, Some(&key.to_le_bytes()), Some(&value), &[0]);
            added.push(Written { time: 7 + index, key: Some(*key), value: Some(value) });
        }
        let stamp = ProducerStamp { id: ProducerId(7), epoch: 0, base_sequence: self.sequence };
        let mut batch = Vec::new();
        let codec = if packed { Compression::Gzip } else { Compression::None };
        let stamp = (slot == 1).then_some(stamp);
        builder.finish(stamp, codec, None, &mut batch).unwrap();
        let known = &mut self.streams[slot as usize];
        match self.lane.append_batch(StreamId(known.id), &batch) {
            Ok(edge_log::Appended::New { base_offset }) => {
                assert_eq!(base_offset.0 as usize, known.records.len());
                known.records.extend(added);
                self.sequence += if slot == 1 { keys.len() as i32 } else { 0 };
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }

    fn commit(&mut self) -> bool {
        match self.lane.commit(&clock(self.tick), self.tick, &mut ()) {
            Ok(_) => {
                for known in &mut self.streams {
                    known.durable = known.records.len();
                }
                true
            }
            Err(CommitError::Full) => {
                assert!(self.config.protect_unsent);
                assert_ne!(self.config.when_full, WhenFull::DropOldest { unsent: true });
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A removed stream never comes back, and leaves nothing behind.
    fn remove(&mut self, slot: u32) {
        if !self.commit() {
            return;
        }
        let known = &mut self.streams[slot as usize];
        self.lane.remove_stream(StreamId(known.id));
        *known = Stream::new(self.ids, known.retention);
        self.ids += 1;
        define(&mut self.lane, known);
        if slot == 1 {
            self.sequence = 0;
        }
        self.commit();
    }

    fn reopen(&mut self, image: SimStorage) {
        self.storage = image;
        self.lane = open(&self.storage, &self.config, &self.streams, self.tick + (1 << 40));
        let lost_batches = self.streams[1].records.len() > self.streams[1].durable;
        for known in &mut self.streams {
            known.records.truncate(known.durable);
            // What was not yet written of a log start may have moved back, never forward.
            let bounds = self.lane.reader().bounds(StreamId(known.id)).unwrap();
            // A stream that became compacted follows the ring until a checkpoint says so.
            assert!(bounds.log_start.0 <= known.log_start || known.changed);
            known.log_start = bounds.log_start.0;
        }
        if lost_batches {
            // Which sequences are gone is not followed: begin anew.
            self.sequence = self.sequence_of_lane();
        }
        for gap in self.lane.reader().gaps() {
            assert!(!matches!(gap.reason, GapReason::Rot | GapReason::SuspectTail), "{gap:?}");
        }
    }

    /// Where the producer of stream 1 goes on: after its records that are durable.
    fn sequence_of_lane(&self) -> i32 {
        let known = &self.streams[1];
        let mut sequence = 0;
        let mut at = JournalPosition::START;
        let reader = self.lane.reader();
        while let GroupAt::Group(group) = reader.group(at).unwrap() {
            for batch in group.batches_of(StreamId(known.id)) {
                if let Some(stamp) = batch.producer() {
                    sequence = stamp.base_sequence + batch.count() as i32;
                }
            }
            at = group.next();
        }
        sequence
    }

    fn check_bounds(&mut self) {
        let reader = self.lane.reader();
        for known in &mut self.streams {
            let bounds = reader.bounds(StreamId(known.id)).unwrap();
            assert_eq!(bounds.durable_end.0 as usize, known.durable);
            assert!(bounds.log_start.0 >= known.log_start);
            assert!(bounds.log_start <= bounds.durable_end);
            known.log_start = bounds.log_start.0;
        }
        let stats = reader.stats();
        assert!(stats.used_bytes <= stats.budget_bytes);
    }

    /// The records that can be read of a stream from an offset on.
    fn visible(&self, slot: u32, from: u64) -> BTreeSet<u64> {
        let known = &self.streams[slot as usize];
        let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
        let reader = self.lane.reader();
        let mut next = from;
        while (next as usize) < known.durable {
            out.clear();
            let end = reader.read(StreamId(known.id), Offset(next), 3000, &mut out).unwrap();
            assert!(end.next.0 > next, "a read that is not at the end moves on");
            let (mut before, mut scratch) = (None, Vec::new());
            for batch in Batches::new(&out) {
                let batch = batch.unwrap();
                batch.verify_crc().unwrap();
                let header = *batch.header();
                assert!(before.is_none_or(|before| before <= header.base_offset.0));
                before = Some(header.end_offset().0);
                let section = batch.unpack(1 << 20, &mut scratch).unwrap();
                for record in Records::new(section, header.record_count) {
                    let record = record.unwrap();
                    let offset = header.base_offset.0 + record.offset_delta as u64;
                    assert!(offset < header.end_offset().0);
                    if offset < next {
                        continue;
                    }
                    let written = &known.records[offset as usize];
                    assert_eq!(record.value, written.value.as_deref(), "offset {offset}");
                    assert_eq!(header.base_timestamp + record.timestamp_delta, written.time);
                    let key = written.key.map(u32::to_le_bytes);
                    assert_eq!(record.key, key.as_ref().map(|key| &key[..]));
                    assert!(seen.insert(offset), "offset {offset} is read twice");
                }
            }
            next = end.next.0;
        }
        assert_eq!(next.max(known.durable as u64), known.durable as u64);
        seen
    }

    fn read(&self, slot: u32, back: u64) {
        let known = &self.streams[slot as usize];
        let from = (known.durable as u64).saturating_sub(back).max(known.log_start);
        let seen = self.visible(slot, from);
        let gaps = self.lane.reader().gaps();
        let named = |offset: u64| {
            let mine = gaps.iter().filter(|gap| gap.stream.0 == known.id);
            mine.into_iter().any(|gap| (gap.from.0..gap.to.0).contains(&offset))
        };
        let mut newest: BTreeMap<Option<u32>, u64> = BTreeMap::new();
        for (offset, record) in (0..).zip(&known.records[..known.durable]) {
            newest.insert(record.key, offset);
        }
        for offset in from..known.durable as u64 {
            let record = &known.records[offset as usize];
            if seen.contains(&offset) || named(offset) {
                continue;
            }
            assert!(known.compacted, "stream {}: {offset} is missing: {gaps:?}", known.id);
            let last = newest[&record.key];
            if last > offset {
                continue;
            }
            assert!(record.value.is_none(), "stream {}: {offset} was cleaned", known.id);
            let older = (from..offset).find(|older| {
                seen.contains(older) && known.records[*older as usize].key == record.key
            });
            assert_eq!(older, None, "the tombstone {offset} went before what it deletes");
        }
    }

    fn time(&self, slot: u32, time: i64) {
        let known = &self.streams[slot as usize];
        let seen = self.visible(slot, known.log_start);
        let at = |offset: &u64| known.records[*offset as usize].time;
        let reader = self.lane.reader();
        let found = reader.offset_at_time(StreamId(known.id), time).unwrap();
        let expected = seen.iter().find(|offset| at(offset) >= time);
        assert_eq!(found, expected.map(|offset| (Offset(*offset), at(offset))));
        let newest = seen.iter().map(at).max();
        let found = reader.max_timestamp(StreamId(known.id)).unwrap();
        assert_eq!(found.map(|(_, at)| at), newest, "stream {}: {found:?} {seen:?}", known.id);
    }

    /// Who reads the journal itself sees each record once, where it was written first.
    fn check_journal(&self) {
        let reader = self.lane.reader();
        let mut next: BTreeMap<StreamId, Offset> = BTreeMap::new();
        let mut at = JournalPosition::START;
        loop {
            match reader.group(at).unwrap() {
                GroupAt::Group(group) => {
                    assert_ne!(group.header().kind, GroupKind::Copied);
                    for batch in group.batches() {
                        let expected = next.insert(batch.stream(), batch.end_offset());
                        assert!(expected.is_none_or(|next| next == batch.base_offset()));
                    }
                    at = group.next();
                }
                GroupAt::Lost { next } => panic!("lost up to {next}"),
                GroupAt::End => break,
            }
        }
    }
}

fn define(lane: &mut Lane, known: &Stream) {
    lane.define_stream(definition(known.id));
    lane.set_retention(StreamId(known.id), known.retention);
}

fn open(storage: &SimStorage, config: &LaneConfig, streams: &[Stream], tick: u64) -> Lane {
    let (mut lane, _) =
        Lane::open(Arc::new(storage.clone()), DIR, config.clone(), &clock(tick)).unwrap();
    for known in streams {
        define(&mut lane, known);
    }
    lane
}

fn lane_config() -> impl Strategy<Value = LaneConfig> {
    let decay = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Decay::KeepEvery { records: 3 })),
        1 => Just(Some(Decay::Aggregate { seconds: 1 })),
    ];
    (decay, any::<bool>(), any::<bool>(), 4..12u64, 0..3u8).prop_map(
        |(decay, protect_unsent, unsent, slots, keys)| LaneConfig {
            decay,
            protect_unsent,
            when_full: if decay.is_some() || unsent {
                WhenFull::DropOldest { unsent }
            } else {
                WhenFull::Refuse
            },
            compaction_bytes_max: if keys == 0 { 0 } else { 1 << 20 },
            budget_bytes: slots * (16 << 10),
            group_bytes_max: 3 << 10,
            ..config()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 500,
        cases: 64 * common::scale() as u32,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/log/ring.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn old_data_goes_only_as_it_may(
        actions in prop::collection::vec(action(), 100..600),
        config in lane_config(),
    ) {
        let mut world = World::new(config);
        for action in &actions {
            world.act(action);
        }
        world.act(&Action::Commit);
        world.act(&Action::Maintain);
        for slot in 0..STREAMS {
            world.read(slot, u64::MAX);
            world.time(slot, 0);
        }
        world.check_journal();
    }
}

/// A tenth of the records go to a compacted topic of 50 keys, the others to a plain one; twenty laps of the ring.
#[test]
fn a_small_compacted_topic_outlives_the_ring_at_a_small_price() {
    let storage = SimStorage::new(0);
    let config = LaneConfig {
        budget_bytes: 1 << 20,
        segment_bytes: 128 << 10,
        group_bytes_max: 32 << 10,
        ..common::config()
    };
    let streams = [Stream::new(0, retention(0)), Stream::new(1, retention(2))];
    let mut lane = open(&storage, &config, &streams, 1);
    let mut random = common::Random(7);
    let mut last = BTreeMap::new();
    let mut tick = 1;
    while lane.reader().stats().segments_recycled < 160 {
        tick += 50_000;
        for _ in 0..20 {
            let value: Vec<u8> = (0..200).map(|_| random.next() as u8).collect();
            let compacted = random.below(10) == 0;
            let key = (random.below(50) as u32).to_le_bytes();
            let envelope = lane.envelope(&Arc::new(Envelope::new(Some(&key), &[])));
            let stream = StreamId(u32::from(compacted));
            let offset = lane.append_record(stream, envelope, 0, Some(&value)).unwrap();
            if compacted {
                last.insert(key.to_vec(), (offset, value));
            }
        }
        lane.commit(&clock(tick), tick, &mut ()).unwrap();
        for _ in 0..4 {
            lane.maintain(&clock(tick), tick).unwrap();
        }
    }
    let reader = lane.reader();
    let mut found = BTreeMap::new();
    let mut records = 0;
    reader
        .read_batches(StreamId(1), Offset(0), &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    records += 1;
                    let value = record.value.unwrap().to_vec();
                    found.insert(record.key.unwrap().to_vec(), (record.offset, value));
                })
                .unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found, last, "the newest of each key, from before the first lap on");
    assert!(reader.gaps().is_empty());
    let stats = reader.stats();
    assert_eq!(reader.bounds(StreamId(1)).unwrap().log_start, Offset(0));
    assert!(records < stats.records / 10 / 4, "{records} of {stats:?}");
    assert!(stats.copied_bytes * 5 < stats.journal_bytes, "{stats:?}");
}

/// Sixty records that were written once and live on as copies, and enough plain ones to have them copied forward;
/// the lane and its tick then.
fn with_copies(storage: &SimStorage, config: &LaneConfig, streams: &[Stream]) -> (Lane, u64) {
    let mut lane = open(storage, config, streams, 1);
    let (mut kept, mut tick) = (0u32, 1);
    while lane.reader().stats().segments_recycled < 12 {
        let group: Vec<Option<u32>> = (0..8)
            .map(|place| {
                let key = (kept < 60 && place % 2 == 0).then_some(kept);
                kept += u32::from(key.is_some());
                key
            })
            .collect();
        write_group(&mut lane, &group, &mut tick);
    }
    (lane, tick)
}

/// Appends records, those with a key to stream 1, commits, and maintains to the end.
fn write_group(lane: &mut Lane, keys: &[Option<u32>], tick: &mut u64) {
    *tick += 50_000;
    for key in keys {
        let bytes = key.unwrap_or(u32::MAX).to_le_bytes();
        let envelope = lane.envelope(&Arc::new(Envelope::new(Some(&bytes), &[])));
        let stream = StreamId(u32::from(key.is_some()));
        lane.append_record(stream, envelope, 0, Some(&[7; 100])).unwrap();
    }
    lane.commit(&clock(*tick), *tick, &mut ()).unwrap();
    while lane.maintain(&clock(*tick), *tick).unwrap() {}
}

/// Offsets of stream 1 that can be read, and those from the log start on that neither can be nor are in a gap.
fn read_and_unnamed(lane: &Lane) -> (BTreeSet<u64>, Vec<u64>) {
    let (reader, mut seen) = (lane.reader(), BTreeSet::new());
    let bounds = reader.bounds(StreamId(1)).unwrap();
    let mut next = bounds.log_start;
    while next < bounds.durable_end {
        let read = reader.read_batches(StreamId(1), next, &mut |batch| {
            batch.for_each_record(&mut |record| _ = seen.insert(record.offset.0)).unwrap();
            ControlFlow::Continue(())
        });
        next = read.unwrap().next;
    }
    let gaps = reader.gaps();
    let is_named = |offset: u64| {
        let mut mine = gaps.iter().filter(|gap| gap.stream == StreamId(1));
        mine.any(|gap| (gap.from.0..gap.to.0).contains(&offset))
    };
    let unnamed = (bounds.log_start.0..60).filter(|offset| !seen.contains(offset));
    let unnamed = unnamed.filter(|offset| !is_named(*offset)).collect();
    (seen, unnamed)
}

/// How copies that rot are found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum FoundBy {
    Scrub,
    /// The ring comes to the segment, nobody has looked before.
    Pass,
    /// The head of the segment is damaged too, and the gateway is started.
    Start,
}

/// One sector after the other of a lane whose oldest records live on as copies.
fn copies_rot(kind: u32, found_by: FoundBy) {
    let storage = SimStorage::new(0);
    let config = LaneConfig {
        budget_bytes: 8 * (16 << 10),
        segment_bytes: 16 << 10,
        group_bytes_max: 4 << 10,
        compression: edge_log::GroupCompression::None,
        ..common::config()
    };
    let streams = [Stream::new(0, retention(0)), Stream::new(1, retention(kind))];
    let (lane, tick) = with_copies(&storage, &config, &streams);
    assert_eq!(read_and_unnamed(&lane), ((0..60).collect(), vec![]));
    drop(lane);
    let (mut hit, mut harmless) = (0, 0);
    for (slot, sector) in (0..8).flat_map(|slot| (2..32).map(move |sector| (slot, sector))) {
        let image = storage.kill_image();
        let mut tick = tick + (1 << 40);
        let path = format!("{DIR}/slot-{slot:04}.seg");
        let mut lane = open(&image, &config, &streams, tick);
        image.damage(&path, sector * 512 + 200, |bytes| bytes[0] ^= 0x10, 1);
        match found_by {
            FoundBy::Scrub => {
                let reader = lane.reader();
                let mut scrub = reader.scrub();
                scrub.begin(reader.start(), reader.end());
                while let edge_log::ScrubStep::Read { .. } = scrub.step().unwrap() {}
                while lane.maintain(&clock(tick), tick).unwrap() {}
            }
            FoundBy::Pass => {
                let recycled = lane.reader().stats().segments_recycled;
                while lane.reader().stats().segments_recycled < recycled + 9 {
                    write_group(&mut lane, &[None; 8], &mut tick);
                }
            }
            FoundBy::Start => {
                drop(lane);
                image.damage(&path, 512 + 200, |bytes| bytes[0] ^= 0x10, 1);
                lane = open(&image, &config, &streams, tick);
                read_and_unnamed(&lane);
                while lane.maintain(&clock(tick), tick).unwrap() {}
            }
        }
        let (seen, unnamed) = read_and_unnamed(&lane);
        assert_eq!(
            unnamed,
            Vec::<u64>::new(),
            "{found_by:?}, kind {kind}, slot {slot}, sector {sector}"
        );
        if seen.len() < 60 {
            hit += 1;
            assert!(seen.len() >= 20, "{found_by:?}, slot {slot}, sector {sector}: {seen:?} left");
        } else {
            harmless += 1;
        }
        // A recovery that finds the head of the newest segment damaged says more than was lost.
        if seen.len() == 60 && found_by != FoundBy::Start {
            let gaps = lane.reader().gaps();
            assert!(gaps.iter().all(|gap| gap.stream != StreamId(1)), "{gaps:?}");
        }
    }
    assert!(hit > 0 && harmless > 0, "{found_by:?}: {hit} of {harmless}");
}

#[test]
fn copies_that_rot_are_named_by_the_scrub() {
    copies_rot(2, FoundBy::Scrub);
    copies_rot(3, FoundBy::Scrub);
}

#[test]
fn copies_that_rot_are_named_before_the_ring_gives_them_up() {
    copies_rot(2, FoundBy::Pass);
    copies_rot(3, FoundBy::Pass);
}

#[test]
fn copies_are_read_though_the_oldest_segment_has_lost_its_head() {
    copies_rot(2, FoundBy::Start);
    copies_rot(3, FoundBy::Start);
}

//! Random actions against a plain vector: with tiny limits, so that everything rolls, wraps and is full often.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use crate::common::{DIR, clock, config, definition};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    CommitError, GroupAt, GroupCompression, JournalPosition, Lane, LaneConfig, ReadError, WhenFull,
};
use edge_wire::{Batches, Compression, Envelope, Offset, RecordBatchBuilder, Records, StreamId};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const STREAMS: u32 = 3;

#[derive(Clone, Debug)]
enum Action {
    Append { stream: u32, length: usize, time: i64 },
    Batch { stream: u32, records: usize, packed: bool },
    Commit,
    Maintain,
    LogStart { stream: u32, back: u64 },
    Read { stream: u32, back: u64, max_bytes: usize },
    Time { stream: u32, time: i64 },
    Upstream,
    Seal { clean: bool },
    Kill,
    PowerCut,
}

fn action() -> impl Strategy<Value = Action> {
    let stream = 0..STREAMS;
    prop_oneof![
        10 => (stream.clone(), 0..600usize, -500..500i64)
            .prop_map(|(stream, length, time)| Action::Append { stream, length, time }),
        2 => (stream.clone(), 1..4usize, any::<bool>())
            .prop_map(|(stream, records, packed)| Action::Batch { stream, records, packed }),
        8 => Just(Action::Commit),
        2 => Just(Action::Maintain),
        1 => (stream.clone(), 0..40u64)
            .prop_map(|(stream, back)| Action::LogStart { stream, back }),
        4 => (stream.clone(), 0..200u64, 1..5000usize)
            .prop_map(|(stream, back, max_bytes)| Action::Read { stream, back, max_bytes }),
        1 => (stream, -600..600i64).prop_map(|(stream, time)| Action::Time { stream, time }),
        2 => Just(Action::Upstream),
        1 => any::<bool>().prop_map(|clean| Action::Seal { clean }),
        1 => Just(Action::Kill),
        1 => Just(Action::PowerCut),
    ]
}

/// One record as it should be read.
type Record = (i64, Vec<u8>);

#[derive(Clone, Default)]
struct Stream {
    records: Vec<Record>,
    durable: usize,
    log_start: usize,
}

struct World {
    storage: SimStorage,
    lane: Lane,
    config: LaneConfig,
    streams: Vec<Stream>,
    tick: u64,
    value: u64,
}

impl World {
    fn new(config: LaneConfig) -> Self {
        let storage = SimStorage::new(0);
        let lane = open(&storage, &config, 1);
        let streams = vec![Stream::default(); STREAMS as usize];
        Self { storage, lane, config, streams, tick: 1, value: 0 }
    }

    fn act(&mut self, action: &Action) {
        self.tick += 1;
        match action {
            Action::Append { stream, length, time } => self.append(*stream, *length, *time),
            Action::Batch { stream, records, packed } => self.batch(*stream, *records, *packed),
            Action::Commit => self.commit(),
            Action::Maintain => self.maintain(),
            Action::LogStart { stream, back } => {
                let known = &mut self.streams[*stream as usize];
                let offset = (known.durable as u64).saturating_sub(*back);
                let moved = self.lane.set_log_start(StreamId(*stream), Offset(offset)).unwrap();
                assert_eq!(moved.0, offset.max(known.log_start as u64));
                known.log_start = moved.0 as usize;
            }
            Action::Read { stream, back, max_bytes } => self.read(*stream, *back, *max_bytes),
            Action::Time { stream, time } => self.time(*stream, *time),
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

    fn append(&mut self, stream: u32, length: usize, time: i64) {
        self.value += 1;
        let mut value = self.value.to_le_bytes().to_vec();
        value.resize(length.max(8), self.value as u8);
        let envelope = Arc::new(Envelope::new(Some(format!("k{stream}").as_bytes()), &[]));
        loop {
            let envelope = self.lane.envelope(&envelope);
            match self.lane.append_record(StreamId(stream), envelope, time, Some(&value)) {
                Ok(offset) => {
                    let known = &mut self.streams[stream as usize];
                    assert_eq!(offset.0 as usize, known.records.len());
                    known.records.push((time, value));
                    return;
                }
                Err(error) if error.is_retriable() => {
                    if !self.try_commit() {
                        return;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn batch(&mut self, stream: u32, records: usize, packed: bool) {
        let mut builder = RecordBatchBuilder::new();
        builder.start(Offset(0), 7);
        let mut added = Vec::new();
        for index in 0..records {
            self.value += 1;
            let value = self.value.to_le_bytes().to_vec();
            let time = 7 + index as i64;
            builder.push(time, Some(format!("k{stream}").as_bytes()), Some(&value), &[0]);
            added.push((time, value));
        }
        let mut batch = Vec::new();
        let codec = if packed { Compression::Gzip } else { Compression::None };
        builder.finish(None, codec, None, &mut batch).unwrap();
        match self.lane.append_batch(StreamId(stream), &batch) {
            Ok(edge_log::Appended::New { base_offset }) => {
                let known = &mut self.streams[stream as usize];
                assert_eq!(base_offset.0 as usize, known.records.len());
                known.records.extend(added);
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }

    fn commit(&mut self) {
        self.try_commit();
    }

    fn try_commit(&mut self) -> bool {
        match self.lane.commit(&clock(self.tick), self.tick, &mut ()) {
            Ok(_) => {
                for known in &mut self.streams {
                    known.durable = known.records.len();
                }
                true
            }
            // Nothing is lost; it goes in when there is room.
            Err(CommitError::Full) => {
                assert!(self.config.protect_unsent);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn maintain(&mut self) {
        while self.lane.maintain(&clock(self.tick), self.tick).unwrap() {}
    }

    fn reopen(&mut self, image: SimStorage) {
        self.storage = image;
        self.lane = open(&self.storage, &self.config, self.tick + (1 << 40));
        for known in &mut self.streams {
            known.records.truncate(known.durable);
        }
        // The ring and a log start that was not yet written may have moved back, never forward.
        for (stream, known) in (0..STREAMS).zip(&mut self.streams) {
            let bounds = self.lane.reader().bounds(StreamId(stream)).unwrap();
            assert!(bounds.log_start.0 as usize <= known.log_start);
            known.log_start = bounds.log_start.0 as usize;
        }
        assert!(self.lane.reader().gaps().is_empty());
    }

    fn check_bounds(&mut self) {
        let reader = self.lane.reader();
        for (stream, known) in (0..STREAMS).zip(&mut self.streams) {
            let bounds = reader.bounds(StreamId(stream)).unwrap();
            assert_eq!(bounds.durable_end.0 as usize, known.durable);
            assert!(bounds.log_start.0 as usize >= known.log_start);
            assert!(bounds.log_start <= bounds.durable_end);
            known.log_start = bounds.log_start.0 as usize;
        }
    }

    fn read(&self, stream: u32, back: u64, max_bytes: usize) {
        let known = &self.streams[stream as usize];
        let from = (known.durable as u64).saturating_sub(back);
        let reader = self.lane.reader();
        let mut out = Vec::new();
        let end = match reader.read(StreamId(stream), Offset(from), max_bytes, &mut out) {
            Ok(end) => end,
            Err(ReadError::OutOfRange { .. }) => {
                assert!(from < known.log_start as u64);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(out.len() <= max_bytes || Batches::new(&out).count() == 1);
        let (mut next, mut scratch) = (None, Vec::new());
        for batch in Batches::new(&out) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            let header = *batch.header();
            assert!(next.is_none_or(|next| next == header.base_offset.0));
            let section = batch.unpack(1 << 20, &mut scratch).unwrap();
            for record in Records::new(section, header.record_count) {
                let record = record.unwrap();
                let offset = header.base_offset.0 + record.offset_delta as u64;
                let (time, value) = &known.records[offset as usize];
                assert_eq!(record.value, Some(&value[..]));
                assert_eq!(header.base_timestamp + record.timestamp_delta, *time);
                assert_eq!(record.key, Some(format!("k{stream}").as_bytes()));
            }
            next = Some(header.end_offset().0);
        }
        assert_eq!(end.next.0, next.unwrap_or(from));
        assert!(next.is_some() || from == known.durable as u64);
    }

    fn time(&self, stream: u32, time: i64) {
        let known = &self.streams[stream as usize];
        let reader = self.lane.reader();
        let live = &known.records[known.log_start..known.durable];
        let expected = live.iter().position(|(at, _)| *at >= time);
        let found = reader.offset_at_time(StreamId(stream), time).unwrap();
        let expected = expected.map(|at| (Offset((known.log_start + at) as u64), live[at].0));
        assert_eq!(found, expected);
        let newest = live.iter().map(|(at, _)| *at).max();
        let found = reader.max_timestamp(StreamId(stream)).unwrap();
        assert_eq!(found.map(|(_, at)| at), newest);
    }

    /// All streams and the journal as a whole.
    fn check_all(&self) {
        for stream in 0..STREAMS {
            let mut back = self.streams[stream as usize].durable as u64;
            while back > 0 {
                self.read(stream, back, 3000);
                back = back.saturating_sub(17);
            }
        }
        let reader = self.lane.reader();
        let (mut at, mut next) = (JournalPosition::START, vec![None; STREAMS as usize]);
        loop {
            match reader.group(at).unwrap() {
                GroupAt::Group(group) => {
                    for batch in group.batches() {
                        let expected = &mut next[batch.stream().0 as usize];
                        assert!(expected.is_none_or(|next| next == batch.base_offset()));
                        *expected = Some(batch.end_offset());
                    }
                    at = group.next();
                }
                GroupAt::Lost { next } => panic!("lost up to {next}"),
                GroupAt::End => break,
            }
        }
        for (known, next) in self.streams.iter().zip(next) {
            assert!(next.is_none_or(|next| next.0 as usize == known.durable));
        }
    }
}

fn open(storage: &SimStorage, config: &LaneConfig, tick: u64) -> Lane {
    let (mut lane, _) =
        Lane::open(Arc::new(storage.clone()), DIR, config.clone(), &clock(tick)).unwrap();
    for stream in 0..STREAMS {
        lane.define_stream(definition(stream));
    }
    lane
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96 * crate::common::scale() as u32,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/log/model.proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_lane_is_a_vector(
        actions in prop::collection::vec(action(), 1..250),
        protect_unsent: bool,
        packed: bool,
    ) {
        let compression =
            if packed { GroupCompression::Zstd { level: 1 } } else { GroupCompression::None };
        let mut world = World::new(LaneConfig {
            protect_unsent,
            compression,
            when_full: WhenFull::Refuse,
            budget_bytes: 64 << 10,
            group_bytes_max: 2 << 10,
            ..config()
        });
        for action in &actions {
            world.act(action);
        }
        world.check_all();
    }
}

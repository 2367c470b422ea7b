//! A lane under a random load on the simulated disk, and what must be true of it afterwards.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    ClockReading, ClockState, CommitError, GapReason, Lane, LaneConfig, LaneReader, Recovery,
    SegmentOwner, StreamDefinition, WhenFull,
};
use edge_wire::{
    Compression, Envelope, Offset, PartitionId, ProducerId, ProducerStamp, RecordBatchBuilder,
    StreamId, TopicId,
};

pub const DIR: &str = "lanes/normal";
pub const STREAMS: u32 = 4;

/// How many times the usual number of seeds is run: `EDGE_LOG_SCALE`, 1 if it is not set.
pub fn scale() -> u64 {
    std::env::var("EDGE_LOG_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Numbers from a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub fn clock(tick: u64) -> ClockReading {
    ClockReading {
        boot_id: 3,
        boottime_us: tick,
        wall_us: 1_700_000_000_000_000 + tick as i64,
        state: ClockState::Synced,
        entropy: Random(tick).next(),
    }
}

pub fn config() -> LaneConfig {
    LaneConfig {
        budget_bytes: 80 << 10,
        segment_bytes: 16 << 10,
        group_bytes_max: 4 << 10,
        commit_window_us: 0,
        decoded_cache_bytes: 4 << 10,
        when_full: WhenFull::Refuse,
        ..LaneConfig::default()
    }
}

pub fn definition(stream: u32) -> StreamDefinition {
    StreamDefinition {
        stream: StreamId(stream),
        topic: format!("topic-{stream}"),
        topic_id: TopicId([stream as u8; 16]),
        partition: PartitionId(0),
        partition_count: 1,
    }
}

/// One stream as it should be.
#[derive(Clone, Default)]
pub struct ModelStream {
    /// Every value that was handed to a commit, by offset, and its group.
    pub attempted: BTreeMap<u64, (Vec<u8>, u64)>,
    /// First offset that is not acknowledged.
    pub acked: u64,
}

/// What was written and what was acknowledged.
#[derive(Clone, Default)]
pub struct Model {
    pub streams: BTreeMap<u32, ModelStream>,
    pub events_attempted: u64,
    pub events_acked: u64,
    pub group: u64,
    pub producer_next: i32,
}

/// The owner's state is the number of its events that are durable.
pub struct Owner(pub u64);

impl SegmentOwner for Owner {
    fn checkpoint(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }
}

pub struct Rig {
    pub lane: Lane,
    pub recovery: Recovery,
    pub tick: u64,
    pub owner: Owner,
    envelopes: Vec<Arc<Envelope>>,
}

impl Rig {
    pub fn open(storage: &SimStorage, tick: u64) -> Self {
        Self::open_with(storage, tick, config())
    }

    pub fn open_with(storage: &SimStorage, tick: u64, config: LaneConfig) -> Self {
        let (mut lane, recovery) =
            Lane::open(Arc::new(storage.clone()), DIR, config, &clock(tick)).unwrap();
        for stream in 0..STREAMS {
            lane.define_stream(definition(stream));
        }
        let envelopes = (0..STREAMS)
            .map(|stream| Arc::new(Envelope::new(Some(format!("k{stream}").as_bytes()), &[])))
            .collect();
        let owner = Owner(events(&recovery).1);
        Self { lane, recovery, tick, owner, envelopes }
    }

    /// Appends a random group to the lane and to the model, as attempted.
    pub fn append_group(&mut self, random: &mut Random, model: &mut Model) {
        model.group += 1;
        let group = model.group;
        let records = 1 + random.below(12);
        for _ in 0..records {
            let stream = random.below(u64::from(STREAMS)) as u32;
            let length = random.below(200) as usize;
            let value: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            let envelope = self.lane.envelope(&self.envelopes[stream as usize]);
            let offset = self
                .lane
                .append_record(StreamId(stream), envelope, self.tick as i64, Some(&value))
                .unwrap();
            attempt(model, stream, offset.0, value, group);
        }
        if random.below(4) == 0 {
            let stamp =
                ProducerStamp { id: ProducerId(77), epoch: 0, base_sequence: model.producer_next };
            let codec = if random.below(2) == 0 { Compression::None } else { Compression::Zstd };
            let values: Vec<Vec<u8>> =
                (0..1 + random.below(3)).map(|_| random.next().to_le_bytes().to_vec()).collect();
            let batch = producer_batch(stamp, codec, &values);
            let appended = self.lane.append_batch(StreamId(0), &batch).unwrap();
            let edge_log::lane::Appended::New { base_offset } = appended else {
                panic!("a new batch is taken for a duplicate: {appended:?}");
            };
            model.producer_next += values.len() as i32;
            for (index, value) in values.into_iter().enumerate() {
                attempt(model, 0, base_offset.0 + index as u64, value, group);
            }
        }
        for _ in 0..random.below(3) {
            self.lane.append_event(9, &model.events_attempted.to_le_bytes()).unwrap();
            model.events_attempted += 1;
        }
    }

    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.tick += 1;
        self.lane.commit(&clock(self.tick), self.tick, &mut self.owner).map(|_| ())
    }

    pub fn maintain(&mut self) {
        self.tick += 1;
        while self.lane.maintain(&clock(self.tick), self.tick).unwrap() {}
    }

    /// The last commit succeeded: what was attempted is acknowledged.
    pub fn acknowledge(&mut self, model: &mut Model) {
        let reader = self.lane.reader();
        for (stream, known) in &mut model.streams {
            if let Some((last, _)) = known.attempted.last_key_value() {
                let end = reader.bounds(StreamId(*stream)).unwrap().durable_end.0;
                assert!(end > *last);
                known.acked = last + 1;
            }
        }
        model.events_acked = model.events_attempted;
        self.owner.0 = model.events_acked;
    }
}

fn attempt(model: &mut Model, stream: u32, offset: u64, value: Vec<u8>, group: u64) {
    let known = model.streams.entry(stream).or_default();
    let before = known.attempted.insert(offset, (value, group));
    assert!(before.is_none() || known.acked <= offset, "offset {offset} was given out twice");
}

pub fn producer_batch(stamp: ProducerStamp, codec: Compression, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), 5);
    for value in values {
        builder.push(5, None, Some(value), &[0]);
    }
    let mut out = Vec::new();
    builder.finish(Some(stamp), codec, None, &mut out).unwrap();
    out
}

/// First event that is not in the checkpoint, and the first that is in neither. Whole, unless groups are lost.
pub fn events(recovery: &Recovery) -> (u64, u64) {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let start = recovery.owner_checkpoint.as_deref().map_or(0, number);
    let mut next = start;
    for (tag, bytes) in &recovery.events {
        assert_eq!(*tag, 9);
        let event = number(bytes);
        assert!(event >= next, "events are in order");
        assert!(event == next || recovery.lost_groups > 0, "events are whole: {event} for {next}");
        next = event + 1;
    }
    (start, next)
}

/// All records of a stream: offset and value.
pub fn records(reader: &LaneReader, stream: u32) -> Vec<(u64, Vec<u8>)> {
    let Some(bounds) = reader.bounds(StreamId(stream)) else { return Vec::new() };
    let mut found = Vec::new();
    let end = reader
        .read_batches(StreamId(stream), bounds.log_start, &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    if record.offset >= bounds.log_start {
                        found.push((record.offset.0, record.value.unwrap().to_vec()));
                    }
                })
                .unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(end.next, bounds.durable_end);
    found
}

/// The same with null values as empty ones.
pub fn records_or_empty(reader: &LaneReader, stream: u32) -> Vec<(u64, Vec<u8>)> {
    let Some(bounds) = reader.bounds(StreamId(stream)) else { return Vec::new() };
    let mut found = Vec::new();
    reader
        .read_batches(StreamId(stream), bounds.log_start, &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    let value = record.value.unwrap_or(&[]).to_vec();
                    found.push((record.offset.0, value));
                })
                .unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// What a power cut may leave: everything acknowledged, once, in order, and nothing that was never written.
pub fn check_after_crash(image: &SimStorage, model: &Model, log_starts: &[u64], tick: u64) -> Rig {
    let rig = Rig::open(image, tick);
    let reader = rig.lane.reader();
    for stream in 0..STREAMS {
        let known = model.streams.get(&stream).cloned().unwrap_or_default();
        let bounds = reader.bounds(StreamId(stream)).unwrap();
        let found = records(&reader, stream);
        let log_start = bounds.log_start.0;
        assert!(
            log_start <= log_starts[stream as usize],
            "stream {stream}: log start {log_start} is beyond {}",
            log_starts[stream as usize]
        );
        assert!(bounds.durable_end.0 >= known.acked, "stream {stream} lost its end");
        let mut before = None;
        for (offset, value) in &found {
            assert!(before < Some(*offset), "stream {stream}: {offset} is out of order");
            before = Some(*offset);
            let written = known.attempted.get(offset).map(|(value, _)| value);
            assert_eq!(written, Some(value), "stream {stream}, offset {offset}");
        }
        let there: std::collections::BTreeSet<u64> = found.iter().map(|(at, _)| *at).collect();
        for offset in log_start..known.acked {
            assert!(there.contains(&offset), "stream {stream}: acknowledged {offset} is lost");
        }
        // What is not there of the rest is named.
        for offset in known.acked.max(log_start)..bounds.durable_end.0 {
            let named = rig.recovery.gaps.iter().any(|gap| {
                gap.stream.0 == stream
                    && (gap.from.0..gap.to.0).contains(&offset)
                    && gap.reason == GapReason::SuspectTail
            });
            assert!(
                there.contains(&offset) || named,
                "stream {stream}: {offset} is missing and nobody says so: {:?}",
                rig.recovery.gaps
            );
            if offset > known.acked + 4096 {
                // A jump past a whole group: its range was checked at its start.
                break;
            }
        }
    }
    let (_, events) = events(&rig.recovery);
    assert!((model.events_acked..=model.events_attempted).contains(&events));
    let gaps = &rig.recovery.gaps;
    assert!(gaps.iter().all(|gap| gap.reason == GapReason::SuspectTail), "{gaps:?}");
    rig
}

/// Recovery is idempotent, and the lane goes on.
pub fn check_goes_on(mut rig: Rig, image: &SimStorage, seed: u64) {
    let again = Rig::open(&image.crash_image(CrashPolicy::KeepAll, seed), rig.tick + 1);
    assert_eq!(again.recovery.streams, rig.recovery.streams);
    assert_eq!(again.recovery.end, rig.recovery.end);
    let ranges = |recovery: &Recovery| {
        let gaps = recovery.gaps.iter();
        gaps.map(|gap| (gap.stream, gap.from, gap.to, gap.reason)).collect::<Vec<_>>()
    };
    assert_eq!(ranges(&again.recovery), ranges(&rig.recovery));
    assert_eq!(again.recovery.events, rig.recovery.events);
    drop(again);
    let mut offsets = Vec::new();
    for stream in 0..STREAMS {
        let end = rig.lane.reader().bounds(StreamId(stream)).unwrap().durable_end;
        let envelope = rig.lane.envelope(&Arc::new(Envelope::new(None, &[])));
        let offset = rig.lane.append_record(StreamId(stream), envelope, 1, Some(b"after")).unwrap();
        assert_eq!(offset, end);
        offsets.push(offset);
    }
    rig.commit().unwrap();
    rig.maintain();
    let last = Rig::open(&image.crash_image(CrashPolicy::DropAll, seed), rig.tick + 2);
    for (stream, offset) in offsets.iter().enumerate() {
        let found = records(&last.lane.reader(), stream as u32);
        assert_eq!(found.last(), Some(&(offset.0, b"after".to_vec())));
    }
    let told = ranges(&last.recovery);
    for gap in ranges(&rig.recovery) {
        assert!(told.contains(&gap), "a gap is told for ever: {gap:?} of {told:?}");
    }
}

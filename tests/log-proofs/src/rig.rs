//! A lane on the simulated disk, driven by a random plan, with the model beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use edge_log::{
    Appended, ClockReading, ClockState, CommitError, Lane, LaneConfig, LaneReader, LaneState,
    Recovery, Retention, SegmentOwner, Storage, StreamDefinition,
};
use edge_wire::{
    Compression, Envelope, Offset, PartitionId, ProducerId, ProducerStamp, RecordBatchBuilder,
    StreamId, TopicId,
};

use crate::model::Model;
use crate::random::Random;

/// Where the lane lives.
pub const DIR: &str = "lanes/normal";
/// The tag of the owner's events.
pub const EVENT_TAG: u16 = 9;

/// Runs something of the lane; a panic is a failure like any other.
///
/// # Errors
/// It failed or panicked.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// All clocks at a tick: a microsecond each.
#[must_use]
pub fn clock(tick: u64) -> ClockReading {
    ClockReading {
        boot_id: 3,
        boottime_us: tick,
        wall_us: 1_700_000_000_000_000 + tick as i64,
        state: ClockState::Synced,
        entropy: Random(tick).next(),
    }
}

/// A stream that any lane here may have.
#[must_use]
pub fn definition(stream: u32) -> StreamDefinition {
    StreamDefinition {
        stream: StreamId(stream),
        topic: format!("topic-{stream}"),
        topic_id: TopicId([stream as u8; 16]),
        partition: PartitionId(0),
        partition_count: 1,
    }
}

/// The owner's state is the number of its events that are durable.
pub struct Owner(pub u64);

impl SegmentOwner for Owner {
    fn checkpoint(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }
}

/// First event that is not in the checkpoint, and the first that is in neither.
///
/// # Errors
/// They are out of order, or some are missing and no group is.
pub fn events(recovery: &Recovery) -> Result<(u64, u64), String> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
    let start = recovery.owner_checkpoint.as_deref().map_or(0, number);
    let mut next = start;
    for (tag, bytes) in &recovery.events {
        let event = number(bytes);
        let whole = event == next || event > next && recovery.lost_groups > 0;
        if *tag != EVENT_TAG || !whole {
            return Err(format!("event {event} of tag {tag} where {next} should be"));
        }
        next = event + 1;
    }
    Ok((start, next))
}

/// What a plan does, how often.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Streams that are written to.
    pub streams: u32,
    /// Most records of a group.
    pub records: u64,
    /// Most bytes of a value.
    pub value_bytes: u64,
    /// One group in so many has a producer's batch; 0 = none.
    pub batches: u64,
    /// One step in so many moves a log start; 0 = none.
    pub log_starts: u64,
    /// One step in so many removes a stream and makes a new one; 0 = none.
    pub removals: u64,
    /// One step in so many seals; 0 = none.
    pub seals: u64,
    /// One step in so many opens the lane anew, killed or stopped; 0 = none.
    pub reopens: u64,
    /// The uplink follows, this many groups behind; 0 = there is none.
    pub uplink: u64,
    /// Topic retention in bytes; 0 = none.
    pub retention: u64,
}

/// The lane and what drives it.
pub struct Rig {
    /// The lane.
    pub lane: Lane,
    /// What opening it found.
    pub recovery: Recovery,
    /// Time.
    pub tick: u64,
    /// Whose events travel with the lane.
    pub owner: Owner,
    /// Ids of the streams that are written to.
    pub streams: Vec<u32>,
    next_stream: u32,
    producer_next: i32,
    storage: Arc<dyn Storage>,
    config: LaneConfig,
}

fn told(what: &str) -> impl Fn(&dyn std::fmt::Display) -> String + '_ {
    move |error| format!("{what}: {error}")
}

impl Rig {
    /// Opens the lane with so many streams.
    ///
    /// # Errors
    /// It does not open.
    pub fn open(
        storage: Arc<dyn Storage>,
        config: &LaneConfig,
        streams: &[u32],
        tick: u64,
    ) -> Result<Self, String> {
        let (mut lane, recovery) =
            Lane::open(Arc::clone(&storage), DIR, config.clone(), &clock(tick))
                .map_err(|error| format!("open: {error:?}"))?;
        for stream in streams {
            lane.define_stream(definition(*stream));
        }
        let owner = Owner(events(&recovery)?.1);
        let next_stream = streams.iter().max().map_or(0, |newest| newest + 1);
        let config = config.clone();
        let streams = streams.to_vec();
        let producer_next = 0;
        let rig = Self {
            lane,
            recovery,
            tick,
            owner,
            streams,
            next_stream,
            producer_next,
            storage,
            config,
        };
        Ok(rig)
    }

    /// The lane as readers see it.
    #[must_use]
    pub fn reader(&self) -> LaneReader {
        self.lane.reader()
    }

    /// One step of a plan.
    ///
    /// # Errors
    /// The lane did something it must not do.
    pub fn step(
        &mut self,
        habits: &Habits,
        random: &mut Random,
        model: &Model,
    ) -> Result<(), String> {
        let due = |every: u64, random: &mut Random| every > 0 && random.one_in(every);
        self.append_group(habits, random, model)?;
        if due(habits.removals, random) {
            let index = random.below(self.streams.len() as u64) as usize;
            let removed = std::mem::replace(&mut self.streams[index], self.next_stream);
            model.remove(removed);
            self.lane.remove_stream(StreamId(removed));
            self.lane.define_stream(definition(self.next_stream));
            self.next_stream += 1;
        }
        if due(habits.log_starts, random) {
            let index = random.below(self.streams.len() as u64) as usize;
            let stream = StreamId(self.streams[index]);
            if let Some(bounds) = self.reader().bounds(stream) {
                let range = bounds.durable_end.0 - bounds.log_start.0;
                let offset = Offset(bounds.log_start.0 + random.below(range / 2 + 1));
                self.lane.set_log_start(stream, offset).map_err(|e| told("log start")(&e))?;
            }
        }
        if habits.retention > 0 {
            for stream in &self.streams {
                let retention = Retention { bytes: Some(habits.retention), ..Retention::default() };
                self.lane.set_retention(StreamId(*stream), retention);
            }
        }
        self.commit_all(model)?;
        if habits.uplink > 0 {
            let end = self.reader().end();
            if random.one_in(habits.uplink) {
                model.send();
                self.lane.handle_upstream(end);
            }
        }
        self.maintain()?;
        if due(habits.seals, random) {
            self.seal(random.one_in(2))?;
        }
        if due(habits.reopens, random) {
            if random.one_in(2) {
                self.seal(true)?;
            } else if random.one_in(2) {
                // What is pending goes with the process.
                let envelope = self.lane.envelope(&Arc::new(Envelope::new(None, &[])));
                let stream = StreamId(self.streams[0]);
                let _ = self.lane.append_record(stream, envelope, 0, Some(b"never"));
            }
            let (producer_next, next_stream) = (self.producer_next, self.next_stream);
            *self =
                Self::open(Arc::clone(&self.storage), &self.config, &self.streams, self.tick + 10)?;
            (self.producer_next, self.next_stream) = (producer_next, next_stream);
            model.watch(self.reader());
            if !self.recovery.gaps.iter().all(|gap| gap.reason.is_policy()) {
                return Err(format!("a stop made gaps: {:?}", self.recovery.gaps));
            }
        }
        Ok(())
    }

    /// Appends a random group, and to the model as attempted.
    ///
    /// # Errors
    /// It is refused, or gets an offset that was acknowledged before.
    pub fn append_group(
        &mut self,
        habits: &Habits,
        random: &mut Random,
        model: &Model,
    ) -> Result<(), String> {
        let records = 1 + random.below(habits.records);
        for _ in 0..records {
            let stream = self.streams[random.below(self.streams.len() as u64) as usize];
            let length = random.below(habits.value_bytes) as usize;
            // Half of it packs well.
            let mut value = vec![random.next() as u8; length];
            for byte in value.iter_mut().take(length / 2 + 8) {
                *byte = random.next() as u8;
            }
            self.append(stream, value.into(), model)?;
        }
        if habits.batches > 0 && random.one_in(habits.batches) {
            let stream = self.streams[0];
            let codec = if random.one_in(2) { Compression::None } else { Compression::Zstd };
            let values: Vec<Arc<[u8]>> =
                (0..1 + random.below(3)).map(|_| random.next().to_le_bytes()[..].into()).collect();
            let batch = self.producer_batch(codec, &values)?;
            let appended = self.lane.append_batch(StreamId(stream), &batch);
            match appended.map_err(|error| told("batch")(&error))? {
                Appended::New { base_offset } => {
                    for (index, value) in values.into_iter().enumerate() {
                        model.attempt(stream, base_offset.0 + index as u64, value)?;
                    }
                }
                Appended::Duplicate { .. } => return Err("a new batch is a duplicate".to_owned()),
            }
        }
        let count = random.below(3);
        for _ in 0..count {
            let number = model.mark().events_attempted;
            let event = self.lane.append_event(EVENT_TAG, &number.to_le_bytes());
            event.map_err(|error| told("event")(&error))?;
            model.attempt_events(1);
        }
        Ok(())
    }

    /// Appends one record, and to the model as attempted.
    ///
    /// # Errors
    /// It is refused, or gets an offset that was acknowledged before.
    pub fn append(&mut self, stream: u32, value: Arc<[u8]>, model: &Model) -> Result<u64, String> {
        let key = format!("k{stream}");
        let envelope = self.lane.envelope(&Arc::new(Envelope::new(Some(key.as_bytes()), &[])));
        let appended =
            self.lane.append_record(StreamId(stream), envelope, self.tick as i64, Some(&value));
        let offset = appended.map_err(|error| format!("append: {error:?}"))?;
        model.attempt(stream, offset.0, value)?;
        Ok(offset.0)
    }

    fn producer_batch(
        &mut self,
        codec: Compression,
        values: &[Arc<[u8]>],
    ) -> Result<Vec<u8>, String> {
        // A producer of its own each time: streams come and go.
        let id = ProducerId(self.producer_next as u64);
        self.producer_next += 1;
        let stamp = ProducerStamp { id, epoch: 0, base_sequence: 0 };
        let mut builder = RecordBatchBuilder::new();
        builder.start(Offset(0), 5);
        for value in values {
            builder.push(5, None, Some(value), &[0]);
        }
        let mut out = Vec::new();
        let built = builder.finish(Some(stamp), codec, None, &mut out);
        built.map_err(|error| told("batch")(&error))?;
        Ok(out)
    }

    /// One commit.
    ///
    /// # Errors
    /// As the lane says.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.tick += 1;
        self.lane.commit(&clock(self.tick), self.tick, &mut self.owner).map(|_| ())
    }

    /// Commits; a full lane is given an uplink that has caught up.
    ///
    /// # Errors
    /// The commit fails all the same.
    pub fn commit_all(&mut self, model: &Model) -> Result<(), String> {
        if let Err(error) = self.commit() {
            if !matches!(error, CommitError::Full) {
                return Err(format!("commit: {error:?}"));
            }
            model.send();
            self.lane.handle_upstream(self.reader().end());
            self.commit().map_err(|error| format!("commit with room: {error:?}"))?;
        }
        model.acknowledge();
        self.owner.0 = model.mark().events_acknowledged;
        Ok(())
    }

    /// All that maintenance has to do.
    ///
    /// # Errors
    /// It fails or does not end.
    pub fn maintain(&mut self) -> Result<(), String> {
        self.tick += 1;
        for _ in 0..10_000 {
            let more = self.lane.maintain(&clock(self.tick), self.tick);
            if !more.map_err(|error| format!("maintain: {error:?}"))? {
                return Ok(());
            }
        }
        Err("maintenance does not end".to_owned())
    }

    /// Seals the lane, if there is room.
    ///
    /// # Errors
    /// It fails for another reason.
    pub fn seal(&mut self, clean: bool) -> Result<(), String> {
        self.tick += 1;
        match self.lane.seal(&clock(self.tick), clean) {
            // What is pending is a gap that is still to be told: no clean stop then.
            Ok(()) | Err(CommitError::Full | CommitError::Pending) => Ok(()),
            Err(error) => Err(format!("seal: {error:?}")),
        }
    }

    /// Whether nothing is acknowledged until the lane was opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.lane.state() == LaneState::Poisoned
    }
}

/// Reasons of gaps.
pub trait Reason {
    /// Whether the lane's policy made the gap, not damage.
    fn is_policy(&self) -> bool;
}

impl Reason for edge_log::GapReason {
    fn is_policy(&self) -> bool {
        !matches!(self, Self::Rot | Self::SuspectTail)
    }
}

//! The engine: lanes, catalogue, and the few operations that change durable state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use edge_log::{Retention, StreamDefinition};
use edge_wire::{LaneId, Offset, PartitionId, ProducerId, StreamId, TopicId};
use tokio::sync::oneshot;

use crate::clock::{Clock, random_u64};
use crate::keeper::Keeper;
use crate::lane_handle::{LaneHandle, Refused};
use crate::lost::LostLane;
use crate::open::LaneRetention;
use crate::state::{
    CommittedOffset, EVENT_TAG, OFFSET_BYTES_MAX, OFFSETS_MAX, OffsetEntry, STREAMS_MAX, State,
    StateEvent, TOPICS_MAX, Topic, TopicConfig, TopicKey, TopicRecord, TopicSpec, TopicValueError,
    VALUE_BYTES_MAX, VALUES_MAX, legal_topic_name, offset_bytes,
};
use crate::submission::{Body, Completion, CompletionSink, Failure, Outcome, Submission};

/// Producer ids reserved with one durable event.
const PRODUCER_ID_BLOCK: u64 = 1_000;
/// Most partitions of one topic.
const PARTITIONS_MAX: u32 = 1_024;
/// Longest note that a consumer may store with an offset (Kafka's `offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4_096;

/// Index of the `system` lane in [`Engine::lanes`].
pub(crate) const SYSTEM: usize = 0;

/// One gateway's storage: lanes, topics and the state that must survive. Shared by all listeners.
pub struct Engine {
    pub(crate) lanes: Vec<Arc<LaneHandle>>,
    pub(crate) state: Arc<RwLock<State>>,
    /// Serialises what changes the catalogue.
    pub(crate) changes: tokio::sync::Mutex<Ids>,
    pub(crate) default_lane: String,
    pub(crate) lane_retentions: BTreeMap<String, LaneRetention>,
    /// Found at the start.
    pub(crate) lanes_lost: Vec<LostLane>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) keeping: Mutex<Option<JoinHandle<()>>>,
}

/// Ids that changes of the catalogue give out.
#[derive(Default)]
pub(crate) struct Ids {
    /// No stream id below this one is given out: whether an attempt to make a topic left it on disk is not known
    /// before the next start, so an id that was once planned is never planned again.
    stream_floor: u32,
    /// Producer ids reserved on disk and not given out yet.
    producer: u64,
    producer_end: u64,
}

impl Ids {
    pub(crate) fn from_stream(stream_floor: u32) -> Self {
        Self { stream_floor, ..Self::default() }
    }
}

impl Engine {
    /// All lanes; the first is the internal `system` lane.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<LaneHandle>] {
        &self.lanes
    }

    /// A lane by its index. Indexes are handed out by this engine and always valid.
    #[must_use]
    pub fn lane(&self, id: LaneId) -> &Arc<LaneHandle> {
        self.lanes.get(id.0 as usize).unwrap_or(&self.lanes[SYSTEM])
    }

    /// A lane by its name.
    #[must_use]
    pub fn lane_by_name(&self, name: &str) -> Option<&Arc<LaneHandle>> {
        self.lanes.iter().find(|lane| lane.name() == name)
    }

    /// The lane that holds a topic.
    #[must_use]
    pub fn lane_of(&self, topic: &Topic) -> &Arc<LaneHandle> {
        self.lane_by_name(topic.lane()).unwrap_or(&self.lanes[SYSTEM])
    }

    /// The lane of topics that name none.
    #[must_use]
    pub fn default_lane(&self) -> &str {
        &self.default_lane
    }

    /// The gateway's clocks.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().topic(name).cloned()
    }

    /// A topic by id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.read().topic_by_id(id).cloned()
    }

    /// All topics, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.read().topics().cloned().collect()
    }

    /// Makes a topic; durable on return.
    ///
    /// # Errors
    /// [`CreateTopicError`]; `Exists` carries the topic that is there.
    pub async fn create_topic(&self, spec: TopicSpec) -> Result<Arc<Topic>, CreateTopicError> {
        let mut ids = self.changes.lock().await;
        if let Some(topic) = self.topic(&spec.name) {
            return Err(CreateTopicError::Exists { topic });
        }
        let record = self.plan_topic(&spec, ids.stream_floor)?;
        ids.stream_floor = record.streams.iter().max().map_or(ids.stream_floor, |last| last + 1);
        let lane = self.lane_by_name(&record.lane).cloned();
        let lane = lane.ok_or(CreateTopicError::UnknownLane { lane: record.lane.clone() })?;
        // The lane first: nobody may find a topic whose streams its lane does not know. A definition that is never
        // used is never written, and its id is not planned again: nothing has to be taken back on failure.
        submit_and_wait(&lane, Body::Define(definitions(&record))).await?;
        self.change(StateEvent::TopicCreated(record)).await?;
        self.topic(&spec.name).ok_or(CreateTopicError::State(StateError::Failed(Failure::Poisoned)))
    }

    /// Checks a topic as [`create_topic`](Self::create_topic) would, without making it.
    ///
    /// # Errors
    /// As there.
    pub fn validate_topic(&self, spec: &TopicSpec) -> Result<(), CreateTopicError> {
        if let Some(topic) = self.topic(&spec.name) {
            return Err(CreateTopicError::Exists { topic });
        }
        self.plan_topic(spec, 0).map(|_| ())
    }

    fn plan_topic(
        &self,
        spec: &TopicSpec,
        stream_floor: u32,
    ) -> Result<TopicRecord, CreateTopicError> {
        if !legal_topic_name(&spec.name) {
            return Err(CreateTopicError::IllegalName { name: spec.name.clone() });
        }
        if spec.partitions == 0 || spec.partitions > PARTITIONS_MAX {
            return Err(CreateTopicError::Partitions {
                asked: spec.partitions,
                max: PARTITIONS_MAX,
            });
        }
        let lane = spec.lane.clone().unwrap_or_else(|| self.default_lane.clone());
        if self.lane_by_name(&lane).is_none_or(|lane| lane.id() == self.lanes[SYSTEM].id()) {
            return Err(CreateTopicError::UnknownLane { lane });
        }
        let config = self.with_retention_of(&lane, spec.config.clone());
        let state = self.read();
        let streams = state.stream_count() + spec.partitions as usize;
        if state.topics().count() >= TOPICS_MAX || streams > STREAMS_MAX {
            return Err(CreateTopicError::TooMany { topics: TOPICS_MAX, streams: STREAMS_MAX });
        }
        let first = state.next_stream().0.max(stream_floor);
        Ok(TopicRecord {
            name: spec.name.clone(),
            id: random_id(),
            lane,
            streams: (0..spec.partitions).map(|index| first + index).collect(),
            config,
        })
    }

    /// What the lane says where a new topic says nothing.
    fn with_retention_of(&self, lane: &str, mut config: TopicConfig) -> TopicConfig {
        let Some(default) = self.lane_retentions.get(lane) else { return config };
        for (key, value) in
            [(TopicKey::RetentionMs, default.ms), (TopicKey::RetentionBytes, default.bytes)]
        {
            if let (Some(value), false) = (value, config.set.has(key))
                && let Err(error) = key.set(&mut config, &value.to_string())
            {
                tracing::error!(lane, %error, "the retention of the lane is left out");
            }
        }
        config
    }

    /// Deletes a topic; durable on return. Its records go with the segments that hold them.
    ///
    /// # Errors
    /// [`DeleteTopicError`].
    pub async fn delete_topic(&self, name: &str) -> Result<(), DeleteTopicError> {
        let _one_at_a_time = self.changes.lock().await;
        let topic = self.topic(name);
        let topic = topic.ok_or_else(|| DeleteTopicError::Unknown { name: name.to_owned() })?;
        let lane = self.lane_of(&topic).clone();
        self.change(StateEvent::TopicDeleted { id: topic.id().0 }).await?;
        lane.submit(internal(Body::Remove(topic.streams().to_vec())))
            .await
            .map_err(StateError::from)?;
        Ok(())
    }

    /// Changes a topic's settings: `change` gets them as they are; durable on return.
    ///
    /// # Errors
    /// [`AlterTopicError`]; nothing is changed then.
    pub async fn alter_topic(
        &self,
        name: &str,
        change: impl FnOnce(&mut TopicConfig) -> Result<(), TopicValueError>,
    ) -> Result<Arc<Topic>, AlterTopicError> {
        let _one_at_a_time = self.changes.lock().await;
        let topic = self.topic(name);
        let topic = topic.ok_or_else(|| AlterTopicError::Unknown { name: name.to_owned() })?;
        let mut config = topic.config().clone();
        change(&mut config)?;
        if config == *topic.config() {
            return Ok(topic);
        }
        let record = TopicRecord { config: config.clone(), ..topic.to_record() };
        self.change(StateEvent::TopicConfigured { id: topic.id().0, config }).await?;
        // The catalogue first: it is what the lane is told again after every start. A full lane comes to it later.
        let told = self.lane_of(&topic).submit(internal(Body::Define(definitions(&record))));
        told.await.map_err(StateError::from)?;
        self.topic(name).ok_or_else(|| AlterTopicError::Unknown { name: name.to_owned() })
    }

    /// Moves the log start of a stream forward to an offset, or to its durable end with `None` (Kafka's
    /// DeleteRecords); durable on return. Gives the log start as it is then.
    ///
    /// # Errors
    /// [`DeleteRecordsError`].
    pub async fn delete_records(
        &self,
        topic: &Topic,
        partition: PartitionId,
        before: Option<Offset>,
    ) -> Result<Offset, DeleteRecordsError> {
        let stream = topic.stream(partition).ok_or(DeleteRecordsError::UnknownPartition)?;
        let lane = self.lane_of(topic);
        let bounds = lane.reader().bounds(stream).ok_or(DeleteRecordsError::UnknownPartition)?;
        let before = before.unwrap_or(bounds.durable_end);
        if before > bounds.durable_end {
            return Err(DeleteRecordsError::OutOfRange { durable_end: bounds.durable_end });
        }
        submit_and_wait(lane, Body::LogStart(vec![(stream, before)])).await?;
        let bounds = lane.reader().bounds(stream).ok_or(DeleteRecordsError::UnknownPartition)?;
        Ok(bounds.log_start)
    }

    /// Looks whether the clock has been set, and if so makes durable when this boot began and corrects with it what was
    /// stamped before. Call it every second or so.
    ///
    /// # Errors
    /// [`StateError`]; the next call tries again.
    pub async fn tend_clock(&self) -> Result<(), StateError> {
        let found = self.clock.finding(self.read().clocks());
        let Some(boot) = found else { return Ok(()) };
        tracing::info!(
            booted_ms = boot.base_us.div_euclid(1_000),
            shift_ms_max = boot.shift_ms_max,
            "the clock is set: timestamps given before in this boot are corrected"
        );
        self.change(StateEvent::ClockSet { boot }).await?;
        let clocks = self.read().clocks().clone();
        for lane in &self.lanes {
            lane.set_boot_clocks(&clocks);
        }
        Ok(())
    }

    /// A producer id that was never given out before, also across restarts (KIP-98).
    ///
    /// # Errors
    /// [`StateError`] when the reservation cannot be made durable.
    pub async fn allocate_producer_id(&self) -> Result<ProducerId, StateError> {
        let mut ids = self.changes.lock().await;
        if ids.producer == ids.producer_end {
            let next = self.read().next_producer_id();
            let end = next + PRODUCER_ID_BLOCK;
            self.change(StateEvent::ProducerIdsReserved { next: end }).await?;
            (ids.producer, ids.producer_end) = (next, end);
        }
        let id = ProducerId(ids.producer);
        ids.producer += 1;
        Ok(id)
    }

    /// Stores offsets of a consumer group; durable on return.
    ///
    /// # Errors
    /// [`CommitOffsetsError`].
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: Vec<(String, PartitionId, CommittedOffset)>,
    ) -> Result<(), CommitOffsetsError> {
        if let Some((_, _, large)) =
            offsets.iter().find(|(_, _, committed)| committed.metadata.len() > METADATA_BYTES_MAX)
        {
            return Err(CommitOffsetsError::MetadataTooLarge {
                bytes: large.metadata.len(),
                max: METADATA_BYTES_MAX,
            });
        }
        let bytes: usize =
            offsets.iter().map(|(topic, _, committed)| offset_bytes(group, topic, committed)).sum();
        let (count, known_bytes) = self.read().offsets_held();
        if count + offsets.len() > OFFSETS_MAX || known_bytes + bytes > OFFSET_BYTES_MAX {
            return Err(CommitOffsetsError::TooMany {
                max: OFFSETS_MAX,
                max_bytes: OFFSET_BYTES_MAX,
            });
        }
        let entries = offsets
            .into_iter()
            .map(|(topic, partition, committed)| OffsetEntry {
                topic,
                partition: partition.0,
                committed,
            })
            .collect();
        let event = StateEvent::OffsetsCommitted { group: group.to_owned(), entries };
        Ok(self.change(event).await?)
    }

    /// The offset a group stored for a partition.
    #[must_use]
    pub fn committed_offset(
        &self,
        group: &str,
        topic: &str,
        partition: PartitionId,
    ) -> Option<CommittedOffset> {
        self.read().committed(group, topic, partition.0).cloned()
    }

    /// Everything a group stored: topic, partition, offset.
    #[must_use]
    pub fn committed_offsets(&self, group: &str) -> Vec<(String, PartitionId, CommittedOffset)> {
        let all = self.read().committed_all(group);
        all.into_iter().map(|(topic, part, offset)| (topic, PartitionId(part), offset)).collect()
    }

    /// Stores a value under a key; durable on return.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn put_value(&self, key: Vec<u8>, bytes: Vec<u8>) -> Result<(), StateError> {
        if key.len() + bytes.len() > VALUE_BYTES_MAX {
            return Err(StateError::TooLarge { bytes: bytes.len(), max: VALUE_BYTES_MAX });
        }
        if self.read().value(&key).is_none() && self.read().value_count() >= VALUES_MAX {
            return Err(StateError::TooMany { max: VALUES_MAX });
        }
        self.change(StateEvent::ValueSet { key, bytes }).await
    }

    /// The value under a key.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read().value(key).map(<[u8]>::to_vec)
    }

    /// Commits what waits, proves it, stops the threads. Blocks. Nothing is taken afterwards.
    pub fn shut_down(&self) {
        self.keeper.stop();
        let keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner).take();
        if keeping.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the keeper's thread ended in a panic");
        }
        // The system lane last: the others' last words may still change state.
        for lane in self.lanes.iter().rev() {
            lane.queue().close();
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a lane's thread ended in a panic");
            }
        }
    }

    async fn change(&self, event: StateEvent) -> Result<(), StateError> {
        submit_and_wait(&self.lanes[SYSTEM], Body::Events(vec![(EVENT_TAG, event.encode())])).await
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn definitions(record: &TopicRecord) -> Vec<(StreamDefinition, Retention)> {
    let count = u32::try_from(record.streams.len()).unwrap_or(u32::MAX);
    let retention = record.config.retention();
    let define = |(partition, stream): (u32, &u32)| StreamDefinition {
        stream: StreamId(*stream),
        topic: record.name.clone(),
        topic_id: TopicId(record.id),
        partition: PartitionId(partition),
        partition_count: count,
    };
    (0..).zip(&record.streams).map(|pair| (define(pair), retention)).collect()
}

fn internal(body: Body) -> Submission {
    Submission::new(body, None)
}

async fn submit_and_wait(lane: &LaneHandle, body: Body) -> Result<(), StateError> {
    let (sender, receiver) = oneshot::channel();
    let sink = Arc::new(Waiter(Mutex::new(Some(sender))));
    let completion = Some(Completion { sink, ticket: 0 });
    lane.submit(Submission::new(body, completion)).await?;
    receiver.await.map_err(|_| StateError::Failed(Failure::Poisoned))?.map_err(StateError::Failed)
}

/// Passes one outcome on to a task.
struct Waiter(Mutex<Option<oneshot::Sender<Result<(), Failure>>>>);

impl CompletionSink for Waiter {
    fn complete(&self, _ticket: u64, outcome: &Outcome<'_>) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The task may have gone away; the change stands all the same.
            let _ = sender.send(outcome.result);
        }
    }
}

/// A random UUID (version 4).
fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random_u64().to_le_bytes());
    id[8..].copy_from_slice(&random_u64().to_le_bytes());
    id[6] = (id[6] & 0x0f) | 0x40;
    id[8] = (id[8] & 0x3f) | 0x80;
    id
}

/// Durable state could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system lane failed or is closing.
    #[error("the change could not be made durable: {0}")]
    Failed(Failure),
    /// A value is larger than what is kept under one key.
    #[error("a value of {bytes} bytes, at most {max} are kept under one key")]
    TooLarge {
        /// Size of the value.
        bytes: usize,
        /// Limit.
        max: usize,
    },
    /// Too many keys.
    #[error("at most {max} values are kept")]
    TooMany {
        /// Limit.
        max: usize,
    },
}

impl From<Refused> for StateError {
    fn from(_: Refused) -> Self {
        Self::Failed(Failure::ShuttingDown)
    }
}

/// A topic could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateTopicError {
    /// There is one of that name.
    #[error("topic '{}' exists already", topic.name())]
    Exists {
        /// The topic that is there.
        topic: Arc<Topic>,
    },
    /// Not a name Kafka allows.
    #[error("'{name}' is not a topic name: 1 to 249 of a-z A-Z 0-9 . _ -")]
    IllegalName {
        /// The name asked for.
        name: String,
    },
    /// Too few or too many partitions.
    #[error("{asked} partitions asked for, 1 to {max} are possible")]
    Partitions {
        /// Number asked for.
        asked: u32,
        /// Limit.
        max: u32,
    },
    /// No such lane.
    #[error("there is no lane '{lane}' (see [lane.NAME] in the configuration)")]
    UnknownLane {
        /// The lane asked for.
        lane: String,
    },
    /// The gateway's limits are reached.
    #[error("at most {topics} topics and {streams} partitions on one gateway")]
    TooMany {
        /// Limit of topics.
        topics: usize,
        /// Limit of partitions over all topics.
        streams: usize,
    },
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A topic's settings could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AlterTopicError {
    /// No such topic.
    #[error("there is no topic '{name}'")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A value that a setting cannot have.
    #[error(transparent)]
    Value(#[from] TopicValueError),
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A topic could not be deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteTopicError {
    /// No such topic.
    #[error("there is no topic '{name}'")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Records could not be deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteRecordsError {
    /// No such partition.
    #[error("there is no such partition")]
    UnknownPartition,
    /// Beyond what is there.
    #[error("the stream ends at offset {durable_end}")]
    OutOfRange {
        /// First offset that is not there.
        durable_end: Offset,
    },
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Offsets could not be committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitOffsetsError {
    /// A consumer's note is too long.
    #[error("metadata of {bytes} bytes, at most {max}")]
    MetadataTooLarge {
        /// Size of the note.
        bytes: usize,
        /// Limit.
        max: usize,
    },
    /// Too many groups times partitions.
    #[error("at most {max} committed offsets of {max_bytes} bytes together on one gateway")]
    TooMany {
        /// Limit of their number.
        max: usize,
        /// Limit of their bytes, names and notes included.
        max_bytes: usize,
    },
    /// The change could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
}

//! What must survive beside records: topics, committed offsets, producer ids, the uplink's progress, when boots began.
//!
//! - Every change is a `StateEvent`, appended to the `system` lane and applied once durable, on that
//!   lane's thread and in its order; so the checkpoint that the lane writes at the head of a segment
//!   holds every event before it.
//! - Events are idempotent: a checkpoint may already contain some that are replayed over it.
//! - Bytes: one version byte, then postcard. Unknown versions are refused by name, never guessed.
//!
//! Limits: [`TOPICS_MAX`] topics, [`STREAMS_MAX`] streams, [`OFFSETS_MAX`] committed offsets,
//! [`VALUE_BYTES_MAX`] for one stored value.

mod event;
mod topic;
mod topic_key;

use std::collections::BTreeMap;
use std::sync::Arc;

use edge_log::BootClocks;
use edge_wire::{Offset, StreamId, TopicId};
use serde::{Deserialize, Serialize};

pub use event::StateDecodeError;
pub(crate) use event::{EVENT_TAG, OffsetEntry, StateEvent, TopicRecord};
pub use topic::{CleanupPolicy, TimestampType, Topic, TopicConfig, TopicSpec, legal_topic_name};
pub use topic_key::{TopicKey, TopicKeys, TopicValueError};

/// Most topics on one gateway.
pub const TOPICS_MAX: usize = 4_096;
/// Most streams on one gateway.
pub const STREAMS_MAX: usize = 16_384;
/// Most committed offsets over all groups.
pub const OFFSETS_MAX: usize = 8_192;
/// Most bytes of committed offsets, names and notes included: they have to fit into a checkpoint.
pub const OFFSET_BYTES_MAX: usize = 128 * 1024;
/// Most keys that values are kept under.
pub const VALUES_MAX: usize = 4;
/// Largest value under one key (the uplink's progress is the largest user).
pub const VALUE_BYTES_MAX: usize = 256 * 1024 + 64;

/// An offset that a consumer group stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// Next offset the group wants to read.
    pub offset: u64,
    /// The consumer's own note, at most 4,096 bytes.
    pub metadata: String,
    /// Leader epoch as the consumer gave it, -1 if none.
    pub leader_epoch: i32,
}

/// All of it, in memory.
#[derive(Default)]
pub(crate) struct State {
    topics: BTreeMap<String, Arc<Topic>>,
    by_id: BTreeMap<[u8; 16], Arc<Topic>>,
    next_stream: u32,
    next_producer_id: u64,
    /// (group, topic, partition) -> offset
    offsets: BTreeMap<(String, String, u32), CommittedOffset>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    clocks: BootClocks,
}

/// The checkpoint: [`State`] flattened.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    topics: Vec<TopicRecord>,
    next_stream: u32,
    next_producer_id: u64,
    offsets: Vec<(String, String, u32, CommittedOffset)>,
    values: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Version byte in front of every checkpoint and event.
const VERSION: u8 = 1;

impl State {
    pub(crate) fn apply(&mut self, event: StateEvent) {
        match event {
            StateEvent::TopicCreated(record) => self.insert_topic(&record),
            StateEvent::TopicDeleted { id } => {
                if let Some(topic) = self.by_id.remove(&id) {
                    self.topics.remove(topic.name());
                    self.offsets.retain(|(_, name, _), _| name != topic.name());
                }
            }
            StateEvent::OffsetsCommitted { group, entries } => {
                for OffsetEntry { topic, partition, committed } in entries {
                    self.offsets.insert((group.clone(), topic, partition), committed);
                }
            }
            StateEvent::ProducerIdsReserved { next } => {
                self.next_producer_id = self.next_producer_id.max(next);
            }
            StateEvent::ValueSet { key, bytes } => {
                self.values.insert(key, bytes);
            }
            StateEvent::StreamIdsReserved { next } => self.next_stream = self.next_stream.max(next),
            StateEvent::ClockSet { boot } => self.clocks.set(boot),
            StateEvent::TopicConfigured { id, config } => {
                if let Some(topic) = self.by_id.get(&id) {
                    self.insert_topic(&TopicRecord { config, ..topic.to_record() });
                }
            }
        }
    }

    fn insert_topic(&mut self, record: &TopicRecord) {
        let last = record.streams.iter().max().map_or(0, |stream| stream + 1);
        self.next_stream = self.next_stream.max(last);
        let topic = Arc::new(Topic::from_record(record));
        // A topic of the same name that was deleted and made again has another id.
        if let Some(old) = self.topics.insert(record.name.clone(), topic.clone()) {
            self.by_id.remove(&old.id().0);
        }
        self.by_id.insert(record.id, topic);
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id.0)
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    pub(crate) fn next_stream(&self) -> StreamId {
        StreamId(self.next_stream)
    }

    pub(crate) fn next_producer_id(&self) -> u64 {
        self.next_producer_id
    }

    pub(crate) fn stream_count(&self) -> usize {
        self.topics.values().map(|topic| topic.streams().len()).sum()
    }

    /// Number of committed offsets, and their bytes.
    pub(crate) fn offsets_held(&self) -> (usize, usize) {
        let bytes = self.offsets.iter();
        let bytes =
            bytes.map(|((group, topic, _), committed)| offset_bytes(group, topic, committed));
        (self.offsets.len(), bytes.sum())
    }

    /// When boots really began.
    pub(crate) fn clocks(&self) -> &BootClocks {
        &self.clocks
    }

    /// Takes what lanes know of boots that the state has nothing of.
    pub(crate) fn adopt_clocks(&mut self, found: &BootClocks) {
        for boot in found.as_slice() {
            if self.clocks.get(boot.boot_id).is_none() {
                self.clocks.set(*boot);
            }
        }
    }

    pub(crate) fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Stream ids below `next` are not given out any more.
    pub(crate) fn reserve_streams(&mut self, next: u32) {
        self.next_stream = self.next_stream.max(next);
    }

    /// Producer ids below `next` are not given out any more.
    pub(crate) fn reserve_producers(&mut self, next: u64) {
        self.next_producer_id = self.next_producer_id.max(next);
    }

    pub(crate) fn committed(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> Option<&CommittedOffset> {
        self.offsets.get(&(group.to_owned(), topic.to_owned(), partition))
    }

    pub(crate) fn committed_all(&self, group: &str) -> Vec<(String, u32, CommittedOffset)> {
        self.offsets
            .range((group.to_owned(), String::new(), 0)..)
            .take_while(|((name, _, _), _)| name == group)
            .map(|((_, topic, partition), committed)| {
                (topic.clone(), *partition, committed.clone())
            })
            .collect()
    }

    /// Committed offsets by stream, of all groups.
    pub(crate) fn committed_streams(&self) -> impl Iterator<Item = (StreamId, Offset)> {
        self.offsets.iter().filter_map(|((_, topic, partition), committed)| {
            let streams = self.topics.get(topic)?.streams();
            Some((*streams.get(*partition as usize)?, Offset(committed.offset)))
        })
    }

    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// Appends the checkpoint.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let snapshot = Snapshot {
            topics: self.topics.values().map(|topic| topic.to_record()).collect(),
            next_stream: self.next_stream,
            next_producer_id: self.next_producer_id,
            offsets: self
                .offsets
                .iter()
                .map(|((group, topic, partition), committed)| {
                    (group.clone(), topic.clone(), *partition, committed.clone())
                })
                .collect(),
            values: self.values.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        };
        out.push(VERSION);
        let bytes =
            postcard::to_stdvec(&snapshot).expect("a snapshot of plain data always serialises");
        out.extend_from_slice(&bytes);
        let bytes = postcard::to_stdvec(&self.clocks).expect("numbers in a list always serialise");
        out.extend_from_slice(&bytes);
    }

    /// Reads a checkpoint; gives what stands behind it, which is others' (`owner.rs`).
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), StateDecodeError> {
        let Some((&version, body)) = bytes.split_first() else {
            return Ok((Self::default(), &[]));
        };
        if version != VERSION {
            return Err(StateDecodeError::Version { found: version, known: VERSION });
        }
        let malformed = |_| StateDecodeError::Malformed { bytes: body.len() };
        let (snapshot, rest): (Snapshot, _) = postcard::take_from_bytes(body).map_err(malformed)?;
        // The first programs did not write what follows.
        let (clocks, rest) = match rest {
            [] => (BootClocks::default(), rest),
            rest => postcard::take_from_bytes(rest).map_err(malformed)?,
        };
        let mut state = Self {
            next_stream: snapshot.next_stream,
            next_producer_id: snapshot.next_producer_id,
            clocks,
            ..Self::default()
        };
        for record in &snapshot.topics {
            state.insert_topic(record);
        }
        for (group, topic, partition, committed) in snapshot.offsets {
            state.offsets.insert((group, topic, partition), committed);
        }
        state.values = snapshot.values.into_iter().collect();
        Ok((state, rest))
    }
}

/// What one committed offset takes of a checkpoint, at most.
pub(crate) fn offset_bytes(group: &str, topic: &str, committed: &CommittedOffset) -> usize {
    group.len() + topic.len() + committed.metadata.len() + 32
}

/// Where a stream's committed position is kept in terms of [`Offset`].
impl From<&CommittedOffset> for Offset {
    fn from(committed: &CommittedOffset) -> Self {
        Self(committed.offset)
    }
}

#[cfg(test)]
mod tests;

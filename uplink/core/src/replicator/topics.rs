//! Upstream topics: which stream goes where, and what happens when the upstream refuses one.

use std::sync::Arc;

use edge_wire::StreamId;

use super::idempotent::Replicator;
use super::target::{Item, Target};
use super::verdict::{Verdict, verdict_of};
use super::{Failure, Now, TargetIndex, TopicIndex};
use crate::backoff::{Backoff, BackoffPolicy};

/// Questions in a row that may fail for a passing reason before the topic's batches give their memory back.
const ASKS_MAX: u32 = 9;

/// An upstream topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) state: TopicState,
    /// Why it was refused, until something is acknowledged.
    pub(super) error: Option<String>,
    /// Between attempts to use a topic that was refused.
    pub(super) backoff: Backoff,
    /// Between questions that passing trouble left unanswered.
    ask_backoff: Backoff,
    /// How many partitions it is created with.
    pub(super) partitions_wanted: u32,
    /// Streams that go there.
    pub(super) streams: Vec<StreamId>,
}

/// What is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopicState {
    /// Nothing: ask, not before this time.
    Unknown { ask_at_us: u64 },
    /// Asked.
    Asking,
    /// It exists.
    Ready { partitions: u32 },
    /// It cannot be used; ask again at this time.
    Refused { retry_at_us: u64 },
}

impl Replicator {
    /// The answer to [`Action::EnsureTopic`](super::Action::EnsureTopic): how many partitions it has.
    pub fn handle_topic(&mut self, topic: &str, result: Result<u32, Failure>, now: Now) {
        let Some(index) = self.topic_by_name.get(topic).copied() else { return };
        if self.topics[index.0].state != TopicState::Asking {
            return;
        }
        match result {
            Ok(partitions) if partitions > 0 => self.open_topic(index, partitions, now),
            Ok(_) => {
                let failure =
                    Failure { code: Some(3), reason: format!("{topic} has no partitions") };
                self.refuse_topic(index, failure.reason, now);
            }
            Err(failure) => {
                let is_passing = failure.code.is_none_or(|code| {
                    matches!(verdict_of(code), Verdict::Retry { .. } | Verdict::Acknowledged)
                });
                if is_passing {
                    let random = (self.random)();
                    let entry = &mut self.topics[index.0];
                    let ask_at_us = entry.ask_backoff.handle_failure(now.mono_us, random);
                    entry.state = TopicState::Unknown { ask_at_us };
                    if failure.code.is_none() {
                        self.link.handle_doubt(failure.reason, now.mono_us);
                    } else if entry.ask_backoff.failures() >= ASKS_MAX {
                        self.refuse_topic(index, failure.reason, now);
                    } else {
                        self.last_error = Some(failure.reason);
                    }
                } else {
                    self.refuse_topic(index, failure.reason, now);
                }
            }
        }
    }

    fn open_topic(&mut self, index: TopicIndex, partitions: u32, now: Now) {
        let entry = &mut self.topics[index.0];
        entry.state = TopicState::Ready { partitions };
        entry.ask_backoff = Backoff::new(BackoffPolicy::PARTITION);
        let streams = entry.streams.clone();
        // A topic that came back smaller: what was meant for a partition that is gone finds another one.
        let orphans: Vec<TargetIndex> = self
            .active
            .iter()
            .copied()
            .filter(|target| {
                let target = &self.targets[target.0];
                target.topic == index && target.partition >= partitions
            })
            .collect();
        for target in orphans {
            self.targets[target.0].is_to_be_parked = true;
            self.settle(target, now);
        }
        for stream in streams {
            self.unpark(stream);
            self.route(stream, now);
        }
        for target in self.active.clone() {
            if self.targets[target.0].topic == index {
                self.wake(target);
            }
        }
    }

    /// The topic cannot be used until somebody changes something: its streams are parked, the others go on.
    pub(super) fn refuse_topic(&mut self, index: TopicIndex, reason: String, now: Now) {
        let random = (self.random)();
        let entry = &mut self.topics[index.0];
        if !matches!(entry.state, TopicState::Refused { .. }) {
            // A topic can be there and refuse what is written to it: only acknowledgements reset the wait.
            let retry_at_us = entry.backoff.handle_failure(now.mono_us, random);
            entry.state = TopicState::Refused { retry_at_us };
        }
        entry.error = Some(reason);
        let streams = entry.streams.clone();
        let targets: Vec<TargetIndex> = self
            .active
            .iter()
            .copied()
            .filter(|target| self.targets[target.0].topic == index)
            .collect();
        for target in targets {
            self.targets[target.0].is_to_be_parked = true;
            self.settle(target, now);
        }
        for stream in streams {
            self.route(stream, now);
        }
    }

    /// Sends a stream's waiting batches on: to their target, or, if the topic is refused, back to the journal.
    pub(super) fn route(&mut self, id: StreamId, now: Now) {
        let Some(stream) = self.streams.get(&id) else { return };
        if stream.waiting.is_empty() {
            return;
        }
        let Some(topic) = stream.topic.or_else(|| self.resolve(id, now)) else { return };
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match self.topics[topic.0].state {
            TopicState::Unknown { .. } | TopicState::Asking => {}
            TopicState::Refused { .. } => {
                let dropped: Vec<Item> = stream.waiting.drain(..).collect();
                self.park(dropped);
            }
            TopicState::Ready { partitions } => {
                let partition =
                    stream.info.as_ref().map_or(0, |info| info.partition.0) % partitions;
                let mut waiting = std::mem::take(&mut stream.waiting);
                // Records of a stream keep their order: it changes partitions only between queues.
                let target = match stream.target {
                    Some(target)
                        if self.targets[target.0].partition < partitions
                            && self.targets[target.0]
                                .queue
                                .iter()
                                .any(|item| item.batch.stream == id) =>
                    {
                        target
                    }
                    _ => self.target_index(topic, partition),
                };
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.target = Some(target);
                }
                if self.targets[target.0].is_to_be_parked {
                    self.park(waiting.into());
                    return;
                }
                self.targets[target.0].queue.append(&mut waiting);
                self.active.insert(target);
                self.note_unplanned(target);
            }
        }
    }

    /// The upstream topic of a stream.
    fn resolve(&mut self, id: StreamId, now: Now) -> Option<TopicIndex> {
        let info = self.streams.get(&id)?.info.clone()?;
        let (name, illegal) = match self.config.topic.render(&info.topic, &self.config.gateway) {
            Ok(name) => (name, None),
            Err(error) => (error.name.clone(), Some(error.to_string())),
        };
        let topic = self.topic_index(&name, info.partition_count);
        let entry = &mut self.topics[topic.0];
        if !entry.streams.contains(&id) {
            entry.streams.push(id);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.topic = Some(topic);
        }
        if let Some(reason) = illegal {
            // Nothing upstream can mend a name.
            let entry = &mut self.topics[topic.0];
            entry.state = TopicState::Refused { retry_at_us: u64::MAX };
            self.refuse_topic(topic, reason, now);
        }
        Some(topic)
    }

    pub(super) fn topic_index(&mut self, name: &str, partitions_wanted: u32) -> TopicIndex {
        if let Some(index) = self.topic_by_name.get(name) {
            let entry = &mut self.topics[index.0];
            entry.partitions_wanted = entry.partitions_wanted.max(partitions_wanted);
            return *index;
        }
        let index = TopicIndex(self.topics.len());
        let name: Arc<str> = Arc::from(name);
        self.topics.push(Topic {
            name: Arc::clone(&name),
            state: TopicState::Unknown { ask_at_us: 0 },
            error: None,
            backoff: Backoff::new(BackoffPolicy::TOPIC),
            ask_backoff: Backoff::new(BackoffPolicy::PARTITION),
            partitions_wanted,
            streams: Vec::new(),
        });
        self.topic_by_name.insert(name, index);
        index
    }

    pub(super) fn target_index(&mut self, topic: TopicIndex, partition: u32) -> TargetIndex {
        *self.target_by_key.entry((topic, partition)).or_insert_with(|| {
            self.targets.push(Target::new(topic, partition));
            TargetIndex(self.targets.len() - 1)
        })
    }
}

//! Where the routes lead: the topic of each route, found or made, ready to be written to.
//!
//! Looked up once per connection and MQTT topic. [`Targets::refresh`] notices topics that were
//! deleted, made anew or given other settings; [`Targets::generation`] tells connections to look again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use edge_config::{RouteIndex, Router, StoreTarget};
use edge_engine::clock::boottime_us;
use edge_engine::{
    CleanupPolicy, CreateTopicError, Engine, LaneHandle, TimestampType, Topic, TopicConfig,
    TopicSpec,
};
use edge_wire::StreamId;
use edge_wire::partitioner::partition_for_key;

/// How often a topic that was just made is looked for in its lane.
const DEFINED_CHECK: Duration = Duration::from_millis(1);

/// Between two messages about the same mistake.
const TOLD_EVERY_US: u64 = 60_000_000;

/// The topic of one route.
pub(crate) struct Target {
    topic: Arc<Topic>,
    pub(crate) lane: Arc<LaneHandle>,
    next_partition: AtomicU32,
    /// When a publish without a key was told last, in microseconds since boot; 0: never.
    keyless_told_us: AtomicU64,
}

impl Target {
    /// Whether the topic keeps the newest record of each key, and so takes none without.
    pub(crate) fn needs_key(&self) -> bool {
        self.topic.config().cleanup_policy != CleanupPolicy::Delete
    }

    /// Tells that a publish without a key came for a topic that needs one; once a minute.
    pub(crate) fn tell_keyless(&self, mqtt_topic: &str) {
        let now_us = boottime_us().max(1);
        let told_us = self.keyless_told_us.load(Ordering::Relaxed);
        if told_us != 0 && now_us.saturating_sub(told_us) < TOLD_EVERY_US {
            return;
        }
        // Of two that come at once one is enough.
        let swapped = self.keyless_told_us.compare_exchange(
            told_us,
            now_us,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if swapped.is_ok() {
            tracing::warn!(
                topic = self.topic.name(),
                mqtt_topic,
                "publishes without a key cannot be stored in a compacted topic; give their route a key"
            );
        }
    }

    /// Most bytes of one record, key and headers included.
    pub(crate) fn record_bytes_max(&self) -> usize {
        let of_topic = usize::try_from(self.topic.config().max_message_bytes);
        self.lane.batch_bytes_max().min(of_topic.unwrap_or(usize::MAX))
    }

    /// When a full lane gives back what is handed over now, if ever.
    pub(crate) fn give_back_at_us(&self) -> Option<u64> {
        let refuse_after = self.lane.holding().refuse_after?;
        Some(boottime_us().saturating_add(u64::try_from(refuse_after.as_micros()).ok()?))
    }

    /// Whether records get the time when they are appended, whatever they say.
    pub(crate) fn stamps_at_append(&self) -> bool {
        self.topic.config().timestamp_type == TimestampType::LogAppendTime
    }

    /// The stream of records with this key.
    pub(crate) fn stream_of_key(&self, key: &[u8]) -> Option<StreamId> {
        self.topic.stream(partition_for_key(key, self.topic.partition_count()))
    }

    /// The stream of the next batch of records without a key.
    pub(crate) fn next_stream(&self) -> Option<StreamId> {
        let next = self.next_partition.fetch_add(1, Ordering::Relaxed);
        let streams = self.topic.streams();
        let index = usize::try_from(next).unwrap_or(0).checked_rem(streams.len())?;
        streams.get(index).copied()
    }
}

pub(crate) struct Targets {
    engine: Arc<Engine>,
    router: Arc<Router>,
    specs: Vec<TopicSpec>,
    /// Behind the routes: for what they cannot take.
    dead_letter: Option<StoreTarget>,
    known: RwLock<Vec<Option<Arc<Target>>>>,
    generation: AtomicU64,
}

impl Targets {
    pub(crate) fn new(
        engine: Arc<Engine>,
        router: Arc<Router>,
        specs: Vec<TopicSpec>,
        dead_letter: Option<StoreTarget>,
    ) -> Self {
        let known = RwLock::new(vec![None; router.routes().len() + 1]);
        Self { engine, router, specs, dead_letter, known, generation: AtomicU64::new(0) }
    }

    /// Microseconds since boot: when something arrived.
    pub(crate) fn boottime_us(&self) -> u64 {
        self.engine.clock().boottime_us()
    }

    /// Moves when a target that was given out is no longer valid.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The topic of a route, if it is there and its lane takes records for it. A topic is in the
    /// catalogue a moment before its lane knows its streams; a record that came in between could not be
    /// stored.
    pub(crate) fn get(&self, route: RouteIndex, store: &StoreTarget) -> Option<Arc<Target>> {
        let index = usize::from(route.0);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(index).cloned();
        if let Some(Some(target)) = known {
            return Some(target);
        }
        let topic = self.engine.topic(&store.topic)?;
        if topic.lane() != &*store.lane || topic.partition_count() != store.partitions {
            tracing::warn!(
                topic = topic.name(),
                lane = topic.lane(),
                partitions = topic.partition_count(),
                "the topic was made with other settings than its route asks for; it keeps them"
            );
        }
        let lane = self.engine.lane_of(&topic).clone();
        if !is_known_to(&lane, &topic) {
            return None;
        }
        let target = Arc::new(Target {
            topic,
            lane,
            next_partition: AtomicU32::new(0),
            keyless_told_us: AtomicU64::new(0),
        });
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.get_mut(index) {
            *slot = Some(target.clone());
        }
        Some(target)
    }

    /// The topic for what routes cannot take, if there is to be one; its number, if it has to be made first.
    pub(crate) fn dead_letter(&self) -> Result<Option<Arc<Target>>, RouteIndex> {
        let Some(store) = &self.dead_letter else { return Ok(None) };
        let index = RouteIndex(u16::try_from(self.router.routes().len()).unwrap_or(u16::MAX));
        self.get(index, store).map(Some).ok_or(index)
    }

    fn store(&self, route: RouteIndex) -> Option<&StoreTarget> {
        match self.router.routes().get(usize::from(route.0)) {
            Some(route) => route.store(),
            None => self.dead_letter.as_ref(),
        }
    }

    /// Makes the topic of a route and waits until its lane takes records for it. Durable on return. The
    /// caller bounds the time.
    pub(crate) async fn create(&self, route: RouteIndex) -> Result<(), CreateTopicError> {
        let Some(store) = self.store(route) else { return Ok(()) };
        let listed = self.specs.iter().find(|spec| spec.name == *store.topic);
        let spec = listed.cloned().unwrap_or_else(|| TopicSpec {
            name: store.topic.to_string(),
            partitions: store.partitions,
            lane: Some(store.lane.to_string()),
            config: TopicConfig::default(),
        });
        let topic = match self.engine.create_topic(spec).await {
            Ok(topic) => {
                tracing::info!(topic = topic.name(), lane = topic.lane(), "topic made");
                topic
            }
            Err(CreateTopicError::Exists { topic }) => topic,
            Err(error) => return Err(error),
        };
        // The lane's thread takes the definition from its queue and tells nobody: look now and then.
        while !is_known_to(self.engine.lane_of(&topic), &topic) {
            tokio::time::sleep(DEFINED_CHECK).await;
        }
        Ok(())
    }

    /// Makes all topics that routes need. What fails is tried again when it is needed.
    pub(crate) async fn create_all(&self, limit: Duration) {
        for (index, route) in self.router.routes().iter().enumerate() {
            let Ok(index) = u16::try_from(index) else { return };
            if route.store().is_none_or(|store| self.engine.topic(&store.topic).is_some()) {
                continue;
            }
            match tokio::time::timeout(limit, self.create(RouteIndex(index))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let filter = &route.filter;
                    tracing::warn!(filter, %error, "the topic of a route cannot be made yet");
                }
                Err(_timeout) => {
                    let filter = &route.filter;
                    tracing::warn!(filter, "the topic of a route could not be made in time");
                }
            }
        }
    }

    /// Forgets targets whose topic is gone or has other settings now.
    pub(crate) fn refresh(&self) {
        let gone = |target: &Arc<Target>| {
            let now = self.engine.topic(target.topic.name());
            now.is_none_or(|now| !Arc::ptr_eq(&now, &target.topic))
        };
        let any_gone = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.iter().flatten().any(gone)
        };
        if any_gone {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for slot in known.iter_mut() {
                if slot.as_ref().is_some_and(gone) {
                    *slot = None;
                }
            }
            drop(known);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Whether the lane knows every stream of the topic.
fn is_known_to(lane: &LaneHandle, topic: &Topic) -> bool {
    let reader = lane.reader();
    topic.streams().iter().all(|stream| reader.bounds(*stream).is_some())
}

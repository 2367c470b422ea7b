//! Opening the engine: recover every lane, agree on the catalogue, start the threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use edge_log::{LaneConfig, OpenError, Recovery, SegmentOwner, Storage};
use edge_wire::{LaneId, StreamId};

use crate::clock::{Clock, random_u64};
use crate::engine::{Engine, Ids, SYSTEM, definitions};
use crate::keeper::{FlashSetup, Keeper, open_reserve};
use crate::lane_handle::{Holding, LaneHandle};
use crate::lane_thread::{LaneOwner, LaneSource, LaneThread};
use crate::lost::{self, LostLane, StoredEnds, is_fresh, is_system_lost, lost_lane};
use crate::owner::{EventOwner, Listening};
use crate::reserve::ReservedStorage;
use crate::state::{EVENT_TAG, State, StateDecodeError, StateEvent, TopicConfig, TopicRecord};
use crate::submission::{Body, Submission};
use crate::tools::SYSTEM_LANE;

/// Producer ids from here on are given out once it is not known which were given out before; a random part is added.
const FORGOTTEN_PRODUCERS: u64 = 1 << 41;

/// What the engine needs to know.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The internal lane: topics, offsets, progress.
    pub system: LaneSetup,
    /// Lanes for records; at least one.
    pub lanes: Vec<LaneSetup>,
    /// Lane of topics that name none.
    pub default_lane: String,
    /// What topics of a lane keep that do not say so themselves when they are made, by lane name.
    pub lane_retentions: BTreeMap<String, LaneRetention>,
    /// The flash that it all lies on.
    pub flash: FlashSetup,
}

/// What topics of a lane keep that do not say so themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneRetention {
    /// Age, in milliseconds.
    pub ms: Option<u64>,
    /// Bytes of a partition.
    pub bytes: Option<u64>,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct LaneSetup {
    /// Its journal.
    pub log: LaneConfig,
    /// Bytes that may wait in front of it (the same again may be on its way into a group).
    pub queue_bytes: usize,
    /// What happens to publishes that it has no room for.
    pub holding: Holding,
}

/// What was found on the way up.
#[derive(Debug)]
pub struct OpenReport {
    /// By lane name, in the order of [`Engine::lanes`].
    pub lanes: Vec<(String, Recovery)>,
    /// Topics that only the lanes knew: the system lane had lost them.
    pub topics_adopted: Vec<String>,
    /// Lanes that had topics and of which nothing is left.
    pub lanes_lost: Vec<LostLane>,
    /// Why the stored state could not be read, if so; the catalogue was rebuilt from the lanes.
    pub state_error: Option<StateDecodeError>,
}

/// The engine cannot start at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineOpenError {
    /// A lane cannot be opened.
    #[error("lane '{lane}': {source}")]
    Lane {
        /// Its name.
        lane: String,
        /// Why.
        source: OpenError,
    },
    /// A newer program wrote the state in the system lane: going on would forget what only that one understands.
    #[error("the system lane holds {source}")]
    NewerState {
        /// Which version.
        source: StateDecodeError,
    },
    /// The operating system refused a thread.
    #[error("cannot start the thread of lane '{lane}': {source}")]
    Thread {
        /// The lane.
        lane: String,
        /// Why.
        source: std::io::Error,
    },
    /// A configuration without lanes, or whose default lane is not among them.
    #[error("there is no lane '{lane}' for topics that name none")]
    NoDefaultLane {
        /// The default lane asked for.
        lane: String,
    },
}

impl Engine {
    /// Recovers all lanes and starts their threads. Blocks.
    ///
    /// # Errors
    /// [`EngineOpenError`]; damage on disk is no error but told in the report.
    pub fn open(
        storage: &Arc<dyn Storage>,
        config: EngineConfig,
    ) -> Result<(Arc<Self>, OpenReport), EngineOpenError> {
        Self::open_with_clock(storage, config, Clock::new())
    }

    /// The same, with more that tells how far streams had come, should their lane be gone, and with somebody whose
    /// state travels with the lanes.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with_owner(
        storage: &Arc<dyn Storage>,
        config: EngineConfig,
        ends: Option<&StoredEnds>,
        owner: Option<Arc<dyn EventOwner>>,
    ) -> Result<(Arc<Self>, OpenReport), EngineOpenError> {
        Self::open_all(storage, config, Clock::new(), ends, owner)
    }

    /// The same without such an owner.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with_ends(
        storage: &Arc<dyn Storage>,
        config: EngineConfig,
        ends: &StoredEnds,
    ) -> Result<(Arc<Self>, OpenReport), EngineOpenError> {
        Self::open_all(storage, config, Clock::new(), Some(ends), None)
    }

    /// The same with clocks of another kind.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with_clock(
        storage: &Arc<dyn Storage>,
        config: EngineConfig,
        clock: Clock,
    ) -> Result<(Arc<Self>, OpenReport), EngineOpenError> {
        Self::open_all(storage, config, clock, None, None)
    }

    fn open_all(
        storage: &Arc<dyn Storage>,
        config: EngineConfig,
        clock: Clock,
        ends: Option<&StoredEnds>,
        event_owner: Option<Arc<dyn EventOwner>>,
    ) -> Result<(Arc<Self>, OpenReport), EngineOpenError> {
        if !config.lanes.iter().any(|lane| lane.log.name == config.default_lane) {
            return Err(EngineOpenError::NoDefaultLane { lane: config.default_lane });
        }
        let clock = Arc::new(clock);
        let reserve = open_reserve(&config.flash);
        let (mut opened, mut missing) = (Vec::new(), BTreeSet::new());
        for (index, setup) in std::iter::once(config.system).chain(config.lanes).enumerate() {
            let is_metadata = index == SYSTEM;
            let storage = match &reserve {
                None => storage.clone(),
                Some(reserve) => {
                    ReservedStorage::of_lane(storage.clone(), reserve.clone(), is_metadata)
                }
            };
            let reserve = reserve.clone().filter(|_| is_metadata);
            let name = setup.log.name.clone();
            let dir = lane_dir(&name);
            if storage.list(&dir).is_err() {
                missing.insert(name.clone());
            }
            let source = LaneSource { storage, dir, config: setup.log, reserve };
            let (lane, recovery) = source
                .open(&clock)
                .map_err(|source| EngineOpenError::Lane { lane: name.clone(), source })?;
            opened.push((name, source, lane, recovery, (setup.queue_bytes, setup.holding)));
        }

        let (mut state, state_error) = match opened.first() {
            Some((_, _, _, recovery, _)) => replay(recovery),
            None => (State::default(), None),
        };
        if let Some(source @ StateDecodeError::Version { .. }) = state_error {
            return Err(EngineOpenError::NewerState { source });
        }
        for (_, _, _, recovery, _) in &opened {
            state.adopt_clocks(&recovery.boot_clocks);
        }
        let last_clocks = opened.iter().filter_map(|(_, _, _, recovery, _)| recovery.last_clock);
        clock.learn(state.clocks(), last_clocks);
        let boot_clocks = state.clocks().clone();
        let records_in_lanes =
            || opened.iter().skip(1).map(|(name, _, _, recovery, _)| (name.as_str(), recovery));
        let others = || records_in_lanes().map(|(_, recovery)| recovery);
        let system = opened.first().map(|(_, _, _, recovery, _)| recovery);
        let system_lost = system.is_some_and(|system| is_system_lost(system, others()));
        let whole = state_error.is_none() && !system_lost && system.is_some_and(is_whole);
        let adopted = if whole {
            Vec::new()
        } else {
            forget_producers(&mut state);
            adopt_topics(&mut state, records_in_lanes())
        };
        let floors = lost::bounds(&state, ends);
        let mut lanes_lost = Vec::new();
        if system_lost {
            let topics = adopted.iter().map(|topic| topic.name.clone()).collect();
            let lane = SYSTEM_LANE.to_owned();
            lanes_lost.push(LostLane { lane, topics, lost_offsets: 0, unbounded_streams: 0 });
        }
        for (name, _) in records_in_lanes().filter(|(_, recovery)| is_fresh(recovery)) {
            lanes_lost.extend(lost_lane(&state, &floors, (name, missing.contains(name))));
        }
        // An id that any lane has seen is never given out again, whatever became of the catalogue.
        let stream_floor = records_in_lanes()
            .flat_map(|(_, recovery)| &recovery.streams)
            .map(|stream| stream.definition.stream.0 + 1)
            .fold(state.next_stream().0, u32::max);
        let records: Vec<TopicRecord> = state.topics().map(|topic| topic.to_record()).collect();
        let alive: BTreeSet<u32> =
            records.iter().flat_map(|record| record.streams.iter().copied()).collect();
        let state = Arc::new(RwLock::new(state));

        let listening =
            |name: &String| Listening { lane: name.clone(), owner: event_owner.clone() };
        for (index, (name, _, _, recovery, _)) in opened.iter().enumerate() {
            listening(name).tell_recovered(recovery, index == SYSTEM);
        }

        let mut lanes = Vec::new();
        let mut threads = Vec::new();
        let mut report = Vec::new();
        for (index, (name, source, lane, recovery, limits)) in opened.into_iter().enumerate() {
            let id = LaneId(u8::try_from(index).unwrap_or(u8::MAX));
            let largest = lane.config().batch_bytes_max();
            let (queue_bytes, holding) = limits;
            let reader = lane.reader();
            let handle = LaneHandle::new(id, name.clone(), queue_bytes, holding, largest, reader);
            handle.set_boot_clocks(&boot_clocks);
            let also = listening(&name);
            let owner: Box<dyn LaneOwner> = if index == SYSTEM {
                Box::new(StateOwner { state: state.clone(), also })
            } else {
                Box::new(also)
            };
            let mut thread = LaneThread::new(lane, source, handle.clone(), clock.clone(), owner);
            let is_lost = lanes_lost.iter().any(|lost| lost.lane == name);
            for record in records.iter().filter(|record| record.lane == name) {
                for stream in record.streams.iter().copied().map(StreamId) {
                    if let (true, Some(next)) = (is_lost, floors.get(&stream)) {
                        thread.begin_behind(stream, *next);
                    }
                }
                for (definition, retention) in definitions(record) {
                    thread.define(definition, retention);
                }
            }
            for stream in &recovery.streams {
                // Its topic was deleted; the lane had not heard of it before the stop. That can only be said with a
                // catalogue from which nothing is missing.
                if whole && !alive.contains(&stream.definition.stream.0) {
                    thread.remove(stream.definition.stream);
                }
            }
            let started = thread::Builder::new()
                .name(format!("lane-{name}"))
                .stack_size(512 * 1024)
                .spawn(move || thread.run())
                .map_err(|source| EngineOpenError::Thread { lane: name.clone(), source })?;
            threads.push(started);
            lanes.push(handle);
            report.push((name, recovery));
        }
        tell_system_lane(&lanes, &adopted, &state);
        let keeper = Keeper::new(config.flash, reserve, &lanes, &state);
        let house = keeper.clone();
        let keeping = thread::Builder::new()
            .name("keeper".to_owned())
            .stack_size(512 * 1024)
            .spawn(move || house.run())
            .map_err(|source| EngineOpenError::Thread { lane: "keeper".to_owned(), source })?;
        let topics_adopted = adopted.into_iter().map(|topic| topic.name).collect();
        let engine = Arc::new(Self {
            lanes,
            state,
            changes: tokio::sync::Mutex::new(Ids::from_stream(stream_floor)),
            default_lane: config.default_lane,
            lane_retentions: config.lane_retentions,
            lanes_lost: lanes_lost.clone(),
            clock,
            threads: Mutex::new(threads),
            keeper,
            keeping: Mutex::new(Some(keeping)),
        });
        Ok((engine, OpenReport { lanes: report, topics_adopted, lanes_lost, state_error }))
    }
}

/// Directory of a lane inside the data directory.
#[must_use]
pub(crate) fn lane_dir(name: &str) -> String {
    format!("lanes/{name}")
}

/// State from the system lane's checkpoint and the events after it.
pub(crate) fn replay(recovery: &Recovery) -> (State, Option<StateDecodeError>) {
    let mut error = None;
    let checkpoint = recovery.owner_checkpoint.as_deref().unwrap_or_default();
    let mut state = match State::decode(checkpoint) {
        Ok((state, _)) => state,
        Err(found) => {
            error = Some(found);
            State::default()
        }
    };
    for (tag, bytes) in &recovery.events {
        if *tag != EVENT_TAG {
            continue;
        }
        match StateEvent::decode(bytes) {
            Ok(event) => state.apply(event),
            Err(found) => error = Some(found),
        }
    }
    (state, error)
}

/// Whoever was given a producer id that we forgot may still use it: never meet it again.
pub(crate) fn forget_producers(state: &mut State) {
    state.reserve_producers(FORGOTTEN_PRODUCERS + (random_u64() >> 24));
}

/// Whether the catalogue that was read is all there ever was: nothing was lost with the system lane.
pub(crate) fn is_whole(recovery: &Recovery) -> bool {
    // A lane that was just made has neither a checkpoint nor events, and nothing to lose.
    let is_new = recovery.events.is_empty() && recovery.owner_checkpoint.is_none();
    recovery.lost_groups == 0
        && recovery.suspect_tail.is_none()
        && recovery.gaps.is_empty()
        && (recovery.owner_checkpoint.is_some() || is_new && recovery.scanned_bytes == 0)
}

/// What was found in the lanes is made durable before anything else is written to the system lane.
fn tell_system_lane(lanes: &[Arc<LaneHandle>], adopted: &[TopicRecord], state: &RwLock<State>) {
    let next = state.read().unwrap_or_else(PoisonError::into_inner).next_producer_id();
    let Some(system) = lanes.first() else { return };
    if adopted.is_empty() {
        return;
    }
    let created = adopted.iter().cloned().map(StateEvent::TopicCreated);
    let events = created.chain([StateEvent::ProducerIdsReserved { next }]);
    let events = events.map(|event| (EVENT_TAG, event.encode())).collect();
    let submission = Submission::new(Body::Events(events), None);
    if system.try_submit(submission).is_err() {
        tracing::error!("what was found in the lanes could not be written to the system lane");
    }
}

/// Topics whose streams are in a lane while the catalogue, which is not whole, does not have them. Partitions that
/// the lane has not seen (nothing was ever written to them) get new streams.
pub(crate) fn adopt_topics<'a>(
    state: &mut State,
    lanes: impl Iterator<Item = (&'a str, &'a Recovery)> + Clone,
) -> Vec<TopicRecord> {
    let seen = lanes.clone().flat_map(|(_, recovery)| &recovery.streams);
    let mut next =
        seen.map(|stream| stream.definition.stream.0 + 1).fold(state.next_stream().0, u32::max);
    let known: BTreeSet<u32> =
        state.topics().flat_map(|topic| topic.streams()).map(|stream| stream.0).collect();
    let mut adopted = Vec::new();
    for (lane, recovery) in lanes {
        let mut lost: Vec<_> = recovery
            .streams
            .iter()
            .map(|stream| &stream.definition)
            .filter(|definition| !known.contains(&definition.stream.0))
            .collect();
        lost.sort_by_key(|definition| (definition.topic_id, definition.partition));
        for group in lost.chunk_by(|a, b| a.topic_id == b.topic_id) {
            let Some(first) = group.first() else { continue };
            if state.topic(&first.topic).is_some() {
                tracing::warn!(
                    topic = first.topic,
                    lane,
                    "an older topic of the same name is left aside"
                );
                continue;
            }
            let mut stream_of = |partition: u32| {
                let found = group.iter().find(|definition| definition.partition.0 == partition);
                found.map_or_else(
                    || {
                        next += 1;
                        next - 1
                    },
                    |definition| definition.stream.0,
                )
            };
            let record = TopicRecord {
                name: first.topic.clone(),
                id: first.topic_id.0,
                lane: lane.to_owned(),
                streams: (0..first.partition_count).map(&mut stream_of).collect(),
                config: TopicConfig::default(),
            };
            state.apply(StateEvent::TopicCreated(record.clone()));
            adopted.push(record);
        }
    }
    state.reserve_streams(next);
    adopted
}

/// Keeps [`State`] in step with the system lane.
pub(crate) struct StateOwner {
    pub(crate) state: Arc<RwLock<State>>,
    /// Whose state stands behind it.
    pub(crate) also: Listening,
}

impl SegmentOwner for StateOwner {
    fn checkpoint(&mut self, out: &mut Vec<u8>) {
        self.state.read().unwrap_or_else(PoisonError::into_inner).encode(out);
        self.also.checkpoint(out);
    }
}

impl LaneOwner for StateOwner {
    fn events_committed(&mut self, events: Vec<(u16, Vec<u8>)>) {
        self.also.tell_committed(&events);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (tag, bytes) in events {
            if tag != EVENT_TAG {
                continue;
            }
            match StateEvent::decode(&bytes) {
                Ok(event) => state.apply(event),
                Err(error) => tracing::error!(%error, "an event of ours cannot be decoded"),
            }
        }
    }

    fn reopened(&mut self, recovery: &Recovery) {
        let (state, error) = replay(recovery);
        if let Some(error) = error {
            tracing::error!(%error, "the state of the reopened system lane is damaged");
        }
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.also.tell_recovered(recovery, true);
    }
}

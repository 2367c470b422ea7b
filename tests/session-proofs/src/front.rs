//! The rules of the front door over the real engine: what leaves, and when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge_engine::{
    Body, Completion, CompletionSink, Engine, EngineConfig, FlashSetup, Holding, LaneSetup,
    Outcome, RecordChunk, Submission, TopicConfig, TopicSpec,
};
use edge_ingest::SessionKeeper;
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{LaneConfig, Storage};
use edge_sessions::{
    Cursor, EVENT_TAG, Follow, Limits, Options, Outbound, OutboundState, Place, ReadStep, SYSTEM,
    SessionEvent, SessionId, Visit, read_group,
};
use edge_wire::{Envelope, StreamId};

use crate::clients::{Answer, Message, ToGateway, ToSubscriber};

/// Lanes with records; the topic with an even number goes to the first.
pub const LANES: [&str; 2] = ["normal", "bulk"];
const PATIENCE: Duration = Duration::from_secs(30);
const WINDOW: usize = 16;

/// The client ids of the two sessions.
pub const PUBLISHER: &str = "publisher";
/// See [`PUBLISHER`].
pub const SUBSCRIBER: &str = "subscriber";

/// What a submission was for.
#[derive(Clone, Debug)]
enum Promise {
    Puback(u16),
    Pubrec(u16),
    Pubcomp(u16),
    ToSubscriber(Vec<ToSubscriber>),
    Suback,
    Made,
    Nothing,
}

/// A packet that may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// PUBACK to the publisher.
    Puback(u16),
    /// PUBREC to the publisher.
    Pubrec(u16),
    /// PUBCOMP to the publisher.
    Pubcomp(u16),
    /// To the subscriber.
    ToSubscriber(ToSubscriber),
    /// SUBACK or UNSUBACK to the subscriber.
    Suback,
}

struct Told {
    /// The power is gone: nobody hears anything.
    cut: Arc<AtomicBool>,
    sender: Mutex<Sender<(u64, bool)>>,
}

impl CompletionSink for Told {
    fn complete(&self, ticket: u64, outcome: &Outcome<'_>) {
        if !self.cut.load(Ordering::SeqCst) {
            let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = sender.send((ticket, outcome.result.is_ok()));
        }
    }
}

/// A gateway that runs until its power goes.
pub struct Front {
    engine: Arc<Engine>,
    keeper: Arc<SessionKeeper>,
    disk: SimStorage,
    after: Arc<Mutex<Option<SimStorage>>>,
    cut: Arc<AtomicBool>,
    sink: Arc<Told>,
    outcomes: Receiver<(u64, bool)>,
    promises: HashMap<u64, Promise>,
    ticket: u64,
    streams: Vec<StreamId>,
    publisher: SessionId,
    subscriber: SessionId,
    /// QoS 2 packet ids of the publisher: the lane, and whether it is durable.
    received: BTreeMap<u16, (String, bool)>,
    /// Of those that were released, the ones of which it is not durable.
    releasing: BTreeSet<u16>,
    follows: Vec<Follow>,
    /// Packets to the subscriber that are not answered: by packet id the lane, the place, and the QoS.
    in_flight: BTreeMap<u16, (usize, Place, u8)>,
    /// QoS 2 deliveries of former lives.
    inherited: BTreeMap<(usize, Place), Outbound>,
    order: u64,
    next_id: u16,
    is_subscribed: bool,
    /// Where the subscription begins.
    starts: BTreeMap<String, Place>,
    /// Completed deliveries that are not written yet, by lane.
    completed: [Vec<Place>; 2],
}

fn setup(name: &str) -> LaneSetup {
    let log = LaneConfig {
        name: name.into(),
        budget_bytes: 64 << 16,
        // Small: checkpoints are part of what is proved.
        segment_bytes: 1 << 16,
        commit_window_us: 0,
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes: 256 << 10, holding: Holding::default() }
}

/// A topic of each lane.
fn topic_of(lane: usize) -> String {
    format!("topic-{}", LANES[lane])
}

impl Front {
    /// Switches the gateway on.
    ///
    /// # Errors
    /// It does not start.
    pub fn open(disk: SimStorage) -> Result<Self, String> {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let config = EngineConfig {
            system: setup(SYSTEM),
            lanes: LANES.iter().map(|name| setup(name)).collect(),
            default_lane: LANES[0].into(),
            flash: FlashSetup::default(),
            lane_retentions: Default::default(),
        };
        let keeper = Arc::new(SessionKeeper::new(Limits::default()));
        let (engine, _) = Engine::open_with_owner(&storage, config, None, Some(keeper.clone()))
            .map_err(|error| error.to_string())?;
        let to_tell = keeper.settle();
        if !to_tell.is_empty() {
            let told = Submission::new(Body::Events(to_tell), None);
            engine.lanes()[0].try_submit(told).map_err(|_| "no room at the start")?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let mut streams = Vec::new();
        for (index, lane) in LANES.iter().enumerate() {
            let name = topic_of(index);
            let spec = TopicSpec {
                name: name.clone(),
                partitions: 1,
                lane: Some((*lane).to_owned()),
                config: TopicConfig::default(),
            };
            let topic = match engine.topic(&name) {
                Some(topic) => topic,
                None => runtime
                    .block_on(engine.create_topic(spec))
                    .map_err(|error| error.to_string())?,
            };
            streams.extend(topic.streams());
        }
        let cut = Arc::new(AtomicBool::new(false));
        let (sender, outcomes) = channel();
        let sink = Arc::new(Told { cut: cut.clone(), sender: Mutex::new(sender) });
        let mut front = Self {
            engine,
            keeper,
            disk,
            after: Arc::default(),
            cut,
            sink,
            outcomes,
            promises: HashMap::new(),
            ticket: 0,
            streams,
            publisher: SessionId(0),
            subscriber: SessionId(0),
            received: BTreeMap::new(),
            releasing: BTreeSet::new(),
            follows: Vec::new(),
            in_flight: BTreeMap::new(),
            inherited: BTreeMap::new(),
            order: 1,
            next_id: 0,
            is_subscribed: false,
            starts: BTreeMap::new(),
            completed: Default::default(),
        };
        front.publisher = front.attach(PUBLISHER)?;
        front.subscriber = front.attach(SUBSCRIBER)?;
        Ok(front)
    }

    /// The power goes at the `operations`th change of the disk from now.
    pub fn cut_after(&self, operations: u64, policy: CrashPolicy, seed: u64) {
        let (after, cut) = (self.after.clone(), self.cut.clone());
        let mut left = operations;
        self.disk.on_operation(Box::new(move |_, disk| {
            left = left.saturating_sub(1);
            let mut after = after.lock().unwrap_or_else(PoisonError::into_inner);
            if left == 0 && after.is_none() {
                // First nobody hears anything any more, then the disk is what it is.
                cut.store(true, Ordering::SeqCst);
                *after = Some(disk.crash_image(policy, seed));
            }
        }));
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Ends it: what the disk is after the cut, or after a stop.
    #[must_use]
    pub fn close(self) -> SimStorage {
        self.engine.shut_down();
        let after = self.after.lock().unwrap_or_else(PoisonError::into_inner).take();
        after.unwrap_or_else(|| self.disk.kill_image())
    }

    fn submit(&mut self, lane: &str, body: Body, promise: Promise) -> Result<(), String> {
        self.ticket += 1;
        self.promises.insert(self.ticket, promise);
        let completion = Completion { sink: self.sink.clone(), ticket: self.ticket };
        let lane = self.engine.lane_by_name(lane).ok_or("no such lane")?;
        let submitted = lane.try_submit(Submission::new(body, Some(completion)));
        submitted.map_err(|refused| format!("refused: {:?}", refused.reason))
    }

    fn tell(
        &mut self,
        lane: &str,
        events: &[SessionEvent],
        promise: Promise,
    ) -> Result<(), String> {
        let events = events.iter().map(|event| (EVENT_TAG, event.encode())).collect();
        self.submit(lane, Body::Events(events), promise)
    }

    /// CONNECT of a client that wants its session.
    fn attach(&mut self, client: &str) -> Result<SessionId, String> {
        if let Some(id) = self.keeper.with(|store| store.of_client(client).map(|(id, _)| id)) {
            self.tell(
                SYSTEM,
                &[SessionEvent::Attached { session: id, expiry_s: 60 }],
                Promise::Nothing,
            )?;
            self.inherit(client, id);
            return Ok(id);
        }
        let session = self.keeper.with(edge_sessions::Store::next_id);
        let event =
            SessionEvent::Made { session, client: client.to_owned(), user: None, expiry_s: 60 };
        self.tell(SYSTEM, &[event], Promise::Made)?;
        self.inherit(client, session);
        Ok(session)
    }

    fn inherit(&mut self, client: &str, id: SessionId) {
        let inherited = self.keeper.with(|store| store.inherited(id));
        if client == PUBLISHER {
            self.received =
                inherited.received.into_iter().map(|(id, lane)| (id, (lane, true))).collect();
            return;
        }
        let known = self.keeper.with(|store| store.session(id)?.subscriptions.get("#").cloned());
        self.is_subscribed = known.is_some();
        self.starts = known.map(|subscription| subscription.starts).unwrap_or_default();
        let outbound = inherited.outbound.iter().filter_map(|(lane, place, one)| {
            Some(((LANES.iter().position(|name| name == lane)?, *place), *one))
        });
        self.inherited = outbound.collect();
        self.order = inherited.outbound.iter().map(|(_, _, one)| one.order + 1).max().unwrap_or(1);
        for (index, lane) in LANES.iter().enumerate() {
            let end =
                self.engine.lane_by_name(lane).map_or_else(Default::default, |l| l.reader().end());
            let cursor = self.keeper.with(|store| store.cursor(id, lane, end));
            self.follows.insert(index, Follow::new(cursor, WINDOW));
        }
    }

    /// The subscriber asks for everything.
    ///
    /// # Errors
    /// The gateway refuses.
    pub fn subscribe(&mut self) -> Result<(), String> {
        let reader_end =
            |lane: &str| self.engine.lane_by_name(lane).map(|lane| lane.reader().end());
        let starts = LANES
            .iter()
            .filter_map(|lane| Some(((*lane).to_owned(), Place::of_group(reader_end(lane)?))));
        let starts: BTreeMap<String, Place> = starts.collect();
        if !self.is_subscribed {
            self.follows = LANES.iter().map(|lane| Follow::new(starts[*lane], WINDOW)).collect();
            self.starts.clone_from(&starts);
        }
        let event = SessionEvent::Subscribed {
            session: self.subscriber,
            filter: "#".to_owned(),
            options: Options { qos: 2, ..Options::default() },
            starts,
        };
        self.is_subscribed = true;
        self.tell(SYSTEM, &[event], Promise::Suback)
    }

    /// A packet of the publisher. What leaves at once is given back.
    ///
    /// # Errors
    /// The gateway refuses.
    pub fn handle(&mut self, packet: ToGateway) -> Result<Option<Leaves>, String> {
        match packet {
            ToGateway::Publish(id, message) => {
                if message.qos == 2
                    && let Some((_, durable)) = self.received.get(&id)
                {
                    return Ok(durable.then_some(Leaves::Pubrec(id)));
                }
                let lane = usize::from(message.topic % 2);
                let mut chunk = RecordChunk::default();
                chunk.push_envelope(Envelope::new(None, &[0]).view());
                chunk.push(self.streams[lane], 0, 1_000, &message.to_value());
                let mut promise = Promise::Puback(id);
                if message.qos == 2 {
                    let received = SessionEvent::Received { session: self.publisher, id };
                    chunk.push_event(EVENT_TAG, &received.encode());
                    self.received.insert(id, (LANES[lane].to_owned(), false));
                    promise = Promise::Pubrec(id);
                }
                self.submit(LANES[lane], Body::Chunk(Arc::new(chunk)), promise)?;
            }
            ToGateway::Release(id) => {
                let Some((lane, _)) = self.received.remove(&id) else {
                    // Until that is durable the packet id is not free: it could be used in another lane.
                    return Ok((!self.releasing.contains(&id)).then_some(Leaves::Pubcomp(id)));
                };
                self.releasing.insert(id);
                let event = SessionEvent::Released { session: self.publisher, ids: vec![id] };
                self.tell(&lane, &[event], Promise::Pubcomp(id))?;
            }
        }
        Ok(None)
    }

    /// What is sent to a subscriber that is there again, before anything else.
    pub fn resume(&mut self) -> Vec<ToSubscriber> {
        let mut released = Vec::new();
        for ((lane, place), one) in &self.inherited {
            if one.state == OutboundState::Confirmed {
                self.in_flight.insert(one.id, (*lane, *place, 2));
                released.push(ToSubscriber::Release(one.id));
            }
        }
        released
    }

    /// Reads on for the subscriber; what needs no sync is given back.
    ///
    /// # Errors
    /// The gateway refuses, or something is lost.
    pub fn deliver(&mut self) -> Result<Vec<ToSubscriber>, String> {
        let mut at_once = Vec::new();
        if !self.is_subscribed {
            return Ok(at_once);
        }
        for (index, lane) in LANES.iter().enumerate() {
            let reader = self.engine.lane_by_name(lane).ok_or("no such lane")?.reader();
            let mut first = Vec::new();
            loop {
                let follow = &mut self.follows[index];
                let before = follow.next();
                let (in_flight, next_id) = (&mut self.in_flight, &mut self.next_id);
                let inherited = &self.inherited;
                let start = self.starts.get(*lane).copied().unwrap_or(Place::START);
                let step = read_group(&reader, follow, &mut |place, record| {
                    let Some(message) = Message::from_value(record.value.unwrap_or_default())
                    else {
                        return Visit::Skip;
                    };
                    if place < start {
                        return Visit::Skip;
                    }
                    match inherited.get(&(index, place)).map(|one| (one.state, one.id)) {
                        Some((OutboundState::Done, _)) => return Visit::Skip,
                        Some((OutboundState::Sent, id)) => {
                            in_flight.insert(id, (index, place, 2));
                            at_once.push(ToSubscriber::Publish(id, message));
                            return Visit::HandOver;
                        }
                        Some((OutboundState::Confirmed, _)) => return Visit::HandOver,
                        None => {}
                    }
                    let reserved = |id: &u16| {
                        let is_of =
                            |one: &Outbound| one.id == *id && one.state != OutboundState::Done;
                        in_flight.contains_key(id) || inherited.values().any(is_of)
                    };
                    let Some(id) = (1..=64)
                        .map(|step| (*next_id + step - 1) % 64 + 1)
                        .find(|id| !reserved(id))
                    else {
                        return Visit::Stop;
                    };
                    *next_id = id;
                    in_flight.insert(id, (index, place, message.qos));
                    match message.qos {
                        2 => first.push((place, id, message)),
                        _ => at_once.push(ToSubscriber::Publish(id, message)),
                    }
                    Visit::HandOver
                });
                match step.map_err(|error| error.to_string())? {
                    ReadStep::Group => {}
                    ReadStep::Stopped | ReadStep::End => break,
                    // The end of a segment looks like this too.
                    ReadStep::Lost { to, .. } if to > before.group => {}
                    lost @ ReadStep::Lost { .. } => return Err(format!("{lost:?} in {lane}")),
                }
            }
            if !first.is_empty() {
                let deliveries = first.iter().map(|(place, id, _)| (*place, *id)).collect();
                let (session, order) = (self.subscriber, self.order);
                self.order += 1;
                let packets =
                    first.iter().map(|(_, id, message)| ToSubscriber::Publish(*id, *message));
                let promise = Promise::ToSubscriber(packets.collect());
                self.tell(lane, &[SessionEvent::Sent { session, order, deliveries }], promise)?;
            }
        }
        Ok(at_once)
    }

    /// An answer of the subscriber.
    ///
    /// # Errors
    /// The gateway refuses.
    pub fn answer(&mut self, answer: Answer) -> Result<(), String> {
        match answer {
            Answer::Acknowledged(id) => {
                if let Some((lane, place, 1)) = self.in_flight.get(&id).copied() {
                    self.in_flight.remove(&id);
                    self.follows[lane].done(place);
                }
            }
            Answer::Received(id) => {
                if let Some((lane, place, 2)) = self.in_flight.get(&id).copied() {
                    let event =
                        SessionEvent::Confirmed { session: self.subscriber, places: vec![place] };
                    let promise = Promise::ToSubscriber(vec![ToSubscriber::Release(id)]);
                    self.tell(LANES[lane], &[event], promise)?;
                }
            }
            Answer::Completed(id) => {
                if let Some((lane, place, 2)) = self.in_flight.remove(&id) {
                    self.follows[lane].done(place);
                    self.completed[lane].push(place);
                    if let Some(one) = self.inherited.get_mut(&(lane, place)) {
                        one.state = OutboundState::Done;
                    }
                }
            }
        }
        Ok(())
    }

    /// Cursors ride on a group of their lane, some time.
    ///
    /// # Errors
    /// The gateway refuses.
    pub fn flush(&mut self) -> Result<(), String> {
        for (index, lane) in LANES.iter().enumerate() {
            let mut events = Vec::new();
            let session = self.subscriber;
            let places = std::mem::take(&mut self.completed[index]);
            if !places.is_empty() {
                events.push(SessionEvent::Completed { session, places });
            }
            if let Some(place) = self.follows.get_mut(index).and_then(Follow::take_moved) {
                events.push(SessionEvent::Moved {
                    cursors: vec![Cursor { session, place, missed: 0 }],
                });
            }
            if !events.is_empty() {
                self.tell(lane, &events, Promise::Nothing)?;
            }
        }
        Ok(())
    }

    /// Waits for one outcome (or only looks), and says what may leave.
    ///
    /// # Errors
    /// Nothing comes, or a hand-over failed without a cut.
    pub fn hear(&mut self, wait: bool) -> Result<Vec<Leaves>, String> {
        let waits = wait && !self.promises.is_empty();
        let outcome = match waits {
            false => self.outcomes.try_recv().ok(),
            true => {
                let mut slept = Duration::ZERO;
                loop {
                    let step = Duration::from_millis(5);
                    match self.outcomes.recv_timeout(step) {
                        Ok(outcome) => break Some(outcome),
                        Err(_) if self.is_cut() => break None,
                        Err(_) if slept > PATIENCE => return Err("no outcome comes".to_owned()),
                        Err(_) => slept += step,
                    }
                }
            }
        };
        let Some((ticket, is_durable)) = outcome else { return Ok(Vec::new()) };
        let promise = self.promises.remove(&ticket).unwrap_or(Promise::Nothing);
        if !is_durable {
            return if self.is_cut() { Ok(Vec::new()) } else { Err(format!("{promise:?} failed")) };
        }
        Ok(match promise {
            Promise::Puback(id) => vec![Leaves::Puback(id)],
            Promise::Pubrec(id) => {
                if let Some((_, durable)) = self.received.get_mut(&id) {
                    *durable = true;
                }
                vec![Leaves::Pubrec(id)]
            }
            Promise::Pubcomp(id) => {
                self.releasing.remove(&id);
                vec![Leaves::Pubcomp(id)]
            }
            Promise::ToSubscriber(packets) => {
                packets.into_iter().map(Leaves::ToSubscriber).collect()
            }
            Promise::Suback => vec![Leaves::Suback],
            Promise::Made | Promise::Nothing => Vec::new(),
        })
    }

    /// Whether CONNACK may have left: both sessions are durable.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let is_made = |id| self.keeper.with(|store| store.session(id).is_some());
        is_made(self.publisher) && is_made(self.subscriber)
    }

    /// Whether anything is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.promises.is_empty() || !self.in_flight.is_empty()
    }

    /// Whether the subscription is durable.
    #[must_use]
    pub fn has_subscription(&self) -> bool {
        let kept = self.keeper.with(|store| {
            let session = store.session(self.subscriber)?;
            Some(session.subscriptions.contains_key("#"))
        });
        kept == Some(true)
    }

    /// Everything in the log, lane by lane.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<Vec<Message>, String> {
        let mut all = Vec::new();
        for lane in LANES {
            let reader = self.engine.lane_by_name(lane).ok_or("no such lane")?.reader();
            let mut follow = Follow::new(Place::START, usize::MAX);
            loop {
                let step = read_group(&reader, &mut follow, &mut |_, record| {
                    all.extend(Message::from_value(record.value.unwrap_or_default()));
                    Visit::Skip
                });
                if step.map_err(|error| error.to_string())? == ReadStep::End {
                    break;
                }
            }
        }
        Ok(all)
    }
}

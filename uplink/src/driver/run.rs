//! The loop: deadlines and events in, actions out.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use edge_log::JournalPosition;
use edge_wire::{Offset, StreamId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uplink_core::replicator::{Action, Answer, Failure, Now, Replicator};
use uplink_core::resume::{LaneResume, ResumeState, StreamEnd, Totals};

use super::lanes::{LaneState, ReadDone};
use super::sender::{Outgoing, Sender};
use super::source::{LaneSource, ProgressStore};
use super::{Shared, UplinkConfig, upstream};
use crate::client::Client;

/// Where the plan is kept.
const PLAN_KEY: &[u8] = b"uplink/plan";
/// Key under which the ends of all streams are kept, for status after a restart and of a stopped gateway. The value
/// is a [`ResumeState`](uplink_core::resume::ResumeState) of which the lanes' ends count, and how many records were
/// acknowledged then.
pub const ENDS_KEY: &[u8] = b"uplink/ends";
/// How often the ends are stored while they move.
const ENDS_INTERVAL: Duration = Duration::from_secs(30);
/// How long a stop waits for what is under way.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// How long after a failed read the lane is read again.
const READ_RETRY: Duration = Duration::from_secs(1);

/// What a task reports.
#[derive(Debug)]
pub(super) enum Event {
    Read(ReadDone),
    Persisted { plan: u64, result: Result<(), String> },
    Connected(Result<Client, String>),
    Producer(Result<(u64, i16), Failure>),
    Topic { topic: String, result: Result<u32, Failure> },
    Answered { send: u64, answer: Answer },
    Committed { lane: usize },
}

pub(super) struct Driver<S, P> {
    source: Arc<S>,
    store: Arc<P>,
    config: UplinkConfig,
    shared: Arc<Shared>,
    started: Instant,
    lanes: Vec<LaneState>,
    events: mpsc::UnboundedSender<Event>,
    incoming: mpsc::UnboundedReceiver<Event>,
    client: Option<Client>,
    sender: Option<Sender>,
    /// Sends without an answer: answered by us when the connection is dropped.
    under_way: HashSet<u64>,
    link: &'static str,
    ends_saved: Instant,
    ends_stored: (Vec<(StreamId, Offset)>, u64),
    /// Records that an earlier run had acknowledged after it stored the ends for the last time; 0 once all ends are
    /// known again.
    acked_unstored: u64,
}

impl<S: LaneSource, P: ProgressStore> Driver<S, P> {
    pub(super) fn new(source: Arc<S>, store: Arc<P>, config: UplinkConfig) -> (Self, Arc<Shared>) {
        let names = source.lanes();
        let ends: Vec<(String, JournalPosition)> =
            names.iter().enumerate().map(|(lane, name)| (name.clone(), source.end(lane))).collect();
        let mut resume = load(&*store, PLAN_KEY);
        let stored = load(&*store, ENDS_KEY).unwrap_or_default();
        let known_ends: HashMap<StreamId, Offset> = stored
            .lanes
            .iter()
            .flat_map(|lane| &lane.ends)
            .map(|end| (StreamId(end.stream), Offset(end.end)))
            .collect();
        let mut acked_unstored = 0;
        if let Some(resume) = &mut resume {
            acked_unstored =
                resume.totals.acked_records.saturating_sub(stored.totals.acked_records);
            let mut again = 0;
            // Nobody can read again what was planned of a topic that is gone.
            resume.planned.retain(|batch| source.stream(StreamId(batch.stream)).is_some());
            for (lane, name) in names.iter().enumerate() {
                let ends = source.durable_ends(lane);
                let known = ends.iter().filter_map(|(of, _)| Some((of.0, known_ends.get(of)?.0)));
                if resume.begin_behind_the_ring(name, source.start(lane).segment, known) {
                    let known = |of| known_ends.get(of).map_or(0, |known| known.0);
                    again +=
                        ends.iter().map(|(of, end)| end.0.saturating_sub(known(of))).sum::<u64>();
                }
            }
            // Nobody knows any more which of them were acknowledged since the ends were stored.
            resume.totals.possible_duplicates += acked_unstored.min(again);
        }
        let replicator =
            Replicator::new(config.replicator.clone(), &ends, resume, random_numbers());
        let limits = config.replicator.limits;
        let lanes = (0..names.len()).map(|lane| LaneState::new(&*source, lane, limits)).collect();
        let shared = Arc::new(Shared::new(replicator, known_ends));
        let (events, incoming) = mpsc::unbounded_channel();
        let driver = Self {
            source,
            store,
            config,
            shared: Arc::clone(&shared),
            started: Instant::now(),
            lanes,
            events,
            incoming,
            client: None,
            sender: None,
            under_way: HashSet::new(),
            link: "",
            ends_saved: Instant::now(),
            ends_stored: (Vec::new(), 0),
            acked_unstored,
        };
        (driver, shared)
    }

    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let watchers: Vec<_> =
            self.lanes.iter().map(|lane| lane.commits.clone()).enumerate().collect();
        let mut tasks = tokio::task::JoinSet::new();
        for (lane, commits) in watchers {
            tasks.spawn(watch_commits(lane, commits, self.events.clone()));
        }
        loop {
            self.act();
            self.read_on();
            self.settle_snapshots();
            self.save_ends_now_and_then();
            self.tell_link();
            let deadline = self.deadline();
            tokio::select! {
                event = self.incoming.recv() => {
                    let Some(event) = event else { return };
                    self.handle(event);
                    // Whatever came together is handled together: one plan for all of it.
                    while let Ok(event) = self.incoming.try_recv() {
                        self.handle(event);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {}
                () = connection_ended(self.client.as_ref()) => self.see_whether_connected(),
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() {
                        break;
                    }
                }
            }
        }
        self.drain().await;
    }

    fn now(&self) -> Now {
        Now {
            mono_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            wall_ms: self.source.wall_ms(),
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let replicator = &mut state.replicator;
        match event {
            Event::Read(done) => {
                let (lane, generation) = (done.lane, done.generation);
                let entry = &mut self.lanes[lane];
                entry.retry_at = done.error.as_ref().map(|error| {
                    tracing::warn!(lane, %error, "the uplink cannot read a lane");
                    Instant::now() + READ_RETRY
                });
                let round = entry.finish(done);
                if let Some(round) = round {
                    entry.linger_until = None;
                    let source = &*self.source;
                    let info = |stream| {
                        source
                            .stream(stream)
                            .filter(|found| !found.is_internal)
                            .map(|found| found.info)
                    };
                    replicator.handle_round(lane, generation, round, &info, now);
                } else if entry.linger_until.is_none() {
                    entry.linger_until = Some(Instant::now() + self.config.linger);
                }
            }
            Event::Persisted { plan, result } => replicator.handle_persisted(plan, result, now),
            Event::Connected(Ok(client)) => {
                if self.sender.is_none() {
                    self.sender = Some(Sender::start(client.clone(), self.events.clone()));
                }
                self.client = Some(client);
                replicator.handle_connected(now);
            }
            Event::Connected(Err(reason)) => replicator.handle_connect_failed(reason, now),
            Event::Producer(result) => replicator.handle_producer(result, now),
            Event::Topic { topic, result } => {
                if let Err(failure) = &result {
                    tracing::warn!(topic, reason = failure.reason, "upstream topic");
                }
                replicator.handle_topic(&topic, result, now);
            }
            Event::Answered { send, answer } => {
                if self.under_way.remove(&send) {
                    replicator.handle_answer(send, answer, now);
                }
            }
            Event::Committed { lane } => self.lanes[lane].is_dirty = true,
        }
    }

    /// Carries out what the replicator asks for.
    fn act(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            let now = self.now();
            let Some(action) = state.replicator.poll_action(now) else { break };
            let events = self.events.clone();
            match action {
                Action::Connect => {
                    let (client, config) = (self.client.clone(), self.config.clone());
                    tokio::spawn(async move {
                        let _ =
                            events.send(Event::Connected(upstream::connect(client, &config).await));
                    });
                }
                Action::Disconnect => {
                    if let Some(client) = self.client.take() {
                        client.disconnect();
                    }
                    self.sender = None;
                    for send in std::mem::take(&mut self.under_way) {
                        let reason = "the connection was given up".to_owned();
                        state.replicator.handle_answer(send, Answer::Unknown { reason }, now);
                    }
                }
                Action::InitProducer => {
                    let client = self.client.clone();
                    tokio::spawn(async move {
                        let _ = events.send(Event::Producer(upstream::init_producer(client).await));
                    });
                }
                Action::EnsureTopic { topic, partitions, create } => {
                    let client = self.client.clone();
                    tokio::spawn(async move {
                        let result =
                            upstream::ensure_topic(client, &topic, partitions, create).await;
                        let _ = events.send(Event::Topic { topic, result });
                    });
                }
                Action::Persist { plan, bytes } => {
                    let store = Arc::clone(&self.store);
                    tokio::spawn(async move {
                        let result = store
                            .save(PLAN_KEY.to_vec(), bytes)
                            .await
                            .map_err(|error| error.to_string());
                        let _ = events.send(Event::Persisted { plan, result });
                    });
                }
                Action::Send { send, topic, partition, batch } => {
                    state.sent_batches += 1;
                    state.wire_bytes += batch.len() as u64;
                    self.under_way.insert(send);
                    let outgoing = Outgoing { send, topic, partition, batch };
                    let refused = match &self.sender {
                        Some(sender) => sender.send(outgoing).err(),
                        None => Some(send),
                    };
                    if let Some(send) = refused {
                        self.under_way.remove(&send);
                        let reason = "not connected".to_owned();
                        state.replicator.handle_answer(send, Answer::Unknown { reason }, now);
                    }
                }
                Action::Released { lane, through } => self.source.upstream(lane, through),
            }
        }
    }

    /// Starts reading where there is something to read and room for it.
    fn read_on(&mut self) {
        let now = Instant::now();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if !lane.is_home() || lane.retry_at.is_some_and(|at| now < at) {
                continue;
            }
            let is_due = lane.linger_until.is_some_and(|at| now >= at);
            let has_work = lane.is_dirty || is_due || state.replicator.wants_seek(number);
            if !has_work || !state.replicator.can_read(number) {
                continue;
            }
            let cut_now = is_due || (self.config.linger.is_zero());
            let commands = state.replicator.take_commands(number);
            lane.start(
                &self.source,
                number,
                commands,
                self.config.round_bytes,
                cut_now,
                &self.events,
            );
        }
    }

    /// A lane whose snapshot is settled is upstream in full, idle streams included.
    fn settle_snapshots(&mut self) {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let Some((position, _)) = &lane.snapshot else { continue };
            let mut state = self.shared.lock();
            let is_read =
                state.replicator.lane_through(number) >= *position && !lane.holds_records();
            if is_read && state.replicator.is_settled(number) {
                for (stream, end) in lane.snapshot.take().into_iter().flat_map(|(_, ends)| ends) {
                    let known = state.known_ends.entry(stream).or_insert(end);
                    *known = end.max(*known);
                }
            }
        }
        if self.lanes.iter().all(|lane| lane.snapshot.is_none()) {
            self.acked_unstored = 0;
        }
    }

    fn save_ends_now_and_then(&mut self) {
        if self.ends_saved.elapsed() < ENDS_INTERVAL {
            return;
        }
        self.ends_saved = Instant::now();
        if let Some(bytes) = self.changed_ends() {
            let store = Arc::clone(&self.store);
            tokio::spawn(async move {
                if let Err(error) = store.save(ENDS_KEY.to_vec(), bytes).await {
                    tracing::warn!(%error, "the uplink's ends cannot be stored");
                }
            });
        }
    }

    fn changed_ends(&mut self) -> Option<Vec<u8>> {
        let state = self.shared.lock();
        let acked = state.replicator.status().totals.acked_records;
        let now = (state.upstream_ends(), acked.saturating_sub(self.acked_unstored));
        drop(state);
        if now == self.ends_stored {
            return None;
        }
        let bytes = encode_ends(&now.0, now.1);
        self.ends_stored = now;
        bytes
    }

    /// A broker that dies while nothing is under way is noticed all the same.
    fn see_whether_connected(&self) {
        if self.client.as_ref().is_some_and(|client| !client.is_connected()) {
            let reason = "the upstream closed the connection".to_owned();
            self.shared.lock().replicator.handle_connection_lost(reason, self.now());
        }
    }

    fn tell_link(&mut self) {
        let state = self.shared.lock();
        let (link, error) = state.replicator.link();
        let word = link.word();
        // Before the first attempt it is neither up nor known to be down.
        let is_untried = word == "down" && error.is_none() && self.link.is_empty();
        if word == self.link || word == "connecting" || is_untried {
            return;
        }
        self.link = word;
        match error {
            Some(error) if word == "down" => tracing::warn!(error, "uplink down"),
            _ => tracing::info!("uplink {word}"),
        }
    }

    fn deadline(&self) -> Instant {
        let mut at = Instant::now() + ENDS_INTERVAL;
        if let Some(time_us) = self.shared.lock().replicator.poll_timeout() {
            at = at
                .min(self.started + Duration::from_micros(time_us.min(u64::from(u32::MAX) * 1000)));
        }
        for lane in self.lanes.iter().filter(|lane| lane.is_home()) {
            for time in [lane.linger_until, lane.retry_at].into_iter().flatten() {
                // What is overdue waits for room, not for time.
                if time > Instant::now() {
                    at = at.min(time);
                }
            }
        }
        // Rounding must not make a timer spin.
        at.max(Instant::now() + Duration::from_micros(500))
    }

    /// Waits a moment for answers, then makes the progress durable.
    async fn drain(&mut self) {
        let limit = Instant::now() + DRAIN_LIMIT;
        while !self.under_way.is_empty() {
            let Ok(Some(event)) = tokio::time::timeout_at(limit, self.incoming.recv()).await else {
                break;
            };
            self.handle(event);
        }
        let state = self.shared.lock().replicator.final_state();
        if let Some(bytes) = state
            && let Err(error) = self.store.save(PLAN_KEY.to_vec(), bytes).await
        {
            tracing::warn!(%error, "the uplink's progress cannot be stored");
        }
        if let Some(bytes) = self.changed_ends()
            && let Err(error) = self.store.save(ENDS_KEY.to_vec(), bytes).await
        {
            tracing::warn!(%error, "the uplink's ends cannot be stored");
        }
    }
}

async fn connection_ended(client: Option<&Client>) {
    match client {
        Some(client) => client.connection_ended().await,
        None => std::future::pending().await,
    }
}

async fn watch_commits(
    lane: usize,
    mut commits: watch::Receiver<u64>,
    events: mpsc::UnboundedSender<Event>,
) {
    while commits.changed().await.is_ok() {
        if events.send(Event::Committed { lane }).is_err() {
            return;
        }
    }
}

fn load<P: ProgressStore>(store: &P, key: &[u8]) -> Option<ResumeState> {
    match ResumeState::decode(&store.load(key)?) {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::error!(%error, "starting over from the oldest record: some will be upstream twice");
            None
        }
    }
}

fn encode_ends(ends: &[(StreamId, Offset)], acked_records: u64) -> Option<Vec<u8>> {
    let ends =
        ends.iter().map(|(stream, end)| StreamEnd { stream: stream.0, end: end.0 }).collect();
    let lane = LaneResume {
        name: String::new(),
        position: JournalPosition::START,
        planned_through: JournalPosition::START,
        ends,
    };
    let totals = Totals { acked_records, ..Totals::default() };
    ResumeState { lanes: vec![lane], totals, ..ResumeState::default() }.encode()
}

/// Spreads the attempts of a fleet; nothing secret depends on it.
fn random_numbers() -> Box<dyn FnMut() -> u64 + Send> {
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(1);
    let mut state = hasher.finish() | 1;
    Box::new(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

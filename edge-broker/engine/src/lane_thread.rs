//! The thread that owns a lane: it alone appends, syncs and moves the durable end.
//!
//! - It fills the open commit group from the queue, commits when the committer says so, then tells
//!   readers (the durable end has moved) and only then the submitters.
//! - While it syncs, submissions pile up in the queue: they are the next group.
//! - A failed write or sync, or a panic, poisons the lane: nothing of the group is acknowledged, the
//!   sync is not tried again, the lane is reopened through recovery with growing pauses.
//! - A full lane holds what it cannot write, and the queue behind it, un-acknowledged until there is room (`full`).

mod append;
mod full;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use edge_log::{
    CommitDecision, CommitError, Durability, GapReason, Lane, LaneConfig, OpenError, Recovery,
    Retention, SegmentOwner, Storage, StreamDefinition,
};
use edge_wire::{Offset, StreamId};

use crate::clock::{Clock, boottime_us};
use crate::lane_handle::{LaneHandle, LaneState};
use crate::reserve::Reserve;
use crate::submission::{AppendResult, Body, Completion, Failure, Outcome, Submission};

/// In waits up to this long every submission wakes the thread.
const ATTENTIVE: Duration = Duration::from_millis(4);
/// How often an idle lane looks after itself (retention, clock).
const IDLE_CHECK: Duration = Duration::from_secs(60);
/// How soon after the last commit a lane looks after itself (seal, side index).
const QUIET_CHECK: Duration = Duration::from_millis(1_100);
const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(100);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Whose state travels with a lane: hears of committed events and writes segment checkpoints.
pub(crate) trait LaneOwner: SegmentOwner + Send {
    /// These events have just become durable, in this order.
    fn events_committed(&mut self, events: Vec<(u16, Vec<u8>)>);
    /// The lane was reopened: this is what it holds now.
    fn reopened(&mut self, recovery: &Recovery);
}

/// What is needed to open the lane again.
pub(crate) struct LaneSource {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: String,
    pub(crate) config: LaneConfig,
    /// Room for this lane's groups on a disk that is full.
    pub(crate) reserve: Option<Arc<Reserve>>,
}

impl LaneSource {
    pub(crate) fn open(&self, clock: &Clock) -> Result<(Lane, Recovery), OpenError> {
        Lane::open(self.storage.clone(), &self.dir, self.config.clone(), &clock.read())
    }
}

pub(crate) struct LaneThread {
    lane: Lane,
    source: LaneSource,
    handle: Arc<LaneHandle>,
    clock: Arc<Clock>,
    owner: Box<dyn LaneOwner>,
    /// Taken from the queue, not yet appended.
    waiting: VecDeque<Submission>,
    /// Of the submission that is being appended: a panic must not lose it.
    current: Option<Completion>,
    /// Part of the submission that is being appended is on disk.
    is_split: bool,
    /// The open group holds the rest of such a submission: it has to be written as it is.
    group_is_fixed: bool,
    /// The last append found no room: wait before the next.
    no_room: bool,
    /// In the open group.
    pending: Vec<Pending>,
    /// QoS 0 records in the open group.
    droppable_records: usize,
    pending_events: Vec<(u16, Vec<u8>)>,
    /// Those of them that go with records, which may be taken out of the group again.
    bound_events: Vec<(u16, Vec<u8>)>,
    /// Streams by id, to define them again after a reopen.
    defined: BTreeMap<StreamId, (StreamDefinition, Retention)>,
    /// Where streams begin whose lane was lost.
    floors: BTreeMap<StreamId, Offset>,
    /// Gaps that were told in the log.
    told_gaps: usize,
    looked_at_segment: u64,
    acknowledge_early: bool,
    maintain_due: bool,
    /// As the lane was last told.
    wear_budget: Option<u64>,
    /// Time since boot when the submission that is being appended was taken up.
    appending_us: u64,
}

/// Something in the open group that somebody waits for, or that must not be lost.
struct Pending {
    /// `None`: nobody waits (acks=0), or it was acknowledged already.
    completion: Option<Completion>,
    appended: Vec<AppendResult>,
    /// To append it again should there be no room for the group; `None`: it stays in the group.
    body: Option<Body>,
    give_back_at_us: Option<u64>,
}

/// Why a submission was not appended.
enum NotAppended {
    /// There is no room, and nothing of it is on disk.
    NoRoom,
    Failed(Failure),
}

enum Step {
    Go,
    Stop,
}

impl LaneThread {
    pub(crate) fn new(
        lane: Lane,
        source: LaneSource,
        handle: Arc<LaneHandle>,
        clock: Arc<Clock>,
        owner: Box<dyn LaneOwner>,
    ) -> Self {
        let told_gaps = lane.reader().gaps().len();
        let acknowledge_early = matches!(source.config.durability, Durability::Interval { .. });
        Self {
            lane,
            source,
            handle,
            clock,
            owner,
            waiting: VecDeque::new(),
            current: None,
            is_split: false,
            group_is_fixed: false,
            no_room: false,
            pending: Vec::new(),
            droppable_records: 0,
            pending_events: Vec::new(),
            bound_events: Vec::new(),
            defined: BTreeMap::new(),
            floors: BTreeMap::new(),
            // What recovery found is told by who opened the lane.
            told_gaps,
            looked_at_segment: 0,
            acknowledge_early,
            maintain_due: true,
            wear_budget: None,
            appending_us: 0,
        }
    }

    /// Makes a stream known before the thread starts.
    pub(crate) fn define(&mut self, definition: StreamDefinition, retention: Retention) {
        self.lane.define_stream(definition.clone());
        self.lane.set_retention(definition.stream, retention);
        self.defined.insert(definition.stream, (definition, retention));
    }

    /// Nothing below `next` is given out of a stream that the lane has lost; before [`define`](Self::define).
    pub(crate) fn begin_behind(&mut self, stream: StreamId, next: Offset) {
        self.lane.begin_behind(stream, next, self.clock.read().wall_us);
        self.floors.insert(stream, next);
        // Told by who opened the lane.
        self.told_gaps = self.lane.reader().gaps().len();
    }

    /// Forgets a stream whose topic is gone.
    pub(crate) fn remove(&mut self, stream: StreamId) {
        self.defined.remove(&stream);
        self.lane.remove_stream(stream);
    }

    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let id = u64::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
        self.handle.set_thread_id(id);
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.step())) {
                Ok(Step::Go) => {}
                Ok(Step::Stop) => return,
                Err(_panic) => {
                    tracing::error!(lane = self.handle.name(), "the lane's thread panicked");
                    let reopened = catch_unwind(AssertUnwindSafe(|| {
                        self.poison("a bug: the lane's thread panicked".to_owned())
                    }));
                    match reopened {
                        Ok(true) => {}
                        Ok(false) => return,
                        // Recovery itself panics: nothing may hang on this lane, and it must not spin.
                        Err(_panic) => {
                            tracing::error!(
                                lane = self.handle.name(),
                                "reopening the lane panicked"
                            );
                            self.handle.queue().close();
                            self.fail_waiting(Failure::Poisoned);
                            let error = "a bug: reopening the lane panicked; restart the gateway";
                            self.handle.set_state(LaneState::Closed, Some(error.to_owned()));
                            return;
                        }
                    }
                }
            }
        }
    }

    fn step(&mut self) -> Step {
        if let Some(position) = self.handle.upstream() {
            self.lane.handle_upstream(position);
        }
        if self.waiting.is_empty() && !self.lane.is_group_full() {
            let handle = self.handle.clone();
            if !handle.queue().take(&mut self.waiting) {
                return self.shut_down();
            }
        }
        self.read_clock();
        while !self.lane.is_group_full() && !self.no_room {
            let Some(submission) = self.waiting.pop_front() else { break };
            self.append(submission);
        }
        if std::mem::take(&mut self.no_room) {
            if self.handle.queue().is_closed() {
                return self.give_up();
            }
            self.wait_for_room();
            return Step::Go;
        }
        let now_us = boottime_us();
        match self.lane.poll_commit(now_us) {
            CommitDecision::Now => return self.commit(),
            CommitDecision::Wait { until_us } => {
                if !self.waiting.is_empty() {
                    return Step::Go;
                }
                let wait = Duration::from_micros(until_us.saturating_sub(now_us).max(1));
                // A short wait is a look at who answers our acknowledgements: every arrival counts.
                let missing = match wait {
                    wait if wait <= ATTENTIVE => 1,
                    _ => self.lane.commit_bytes().saturating_sub(self.lane.pending_bytes()),
                };
                self.handle.queue().sleep(missing, Some(wait));
            }
            CommitDecision::Idle => self.idle(now_us),
        }
        Step::Go
    }

    fn idle(&mut self, now_us: u64) {
        if self.handle.state() == LaneState::Full {
            return self.idle_while_full(now_us);
        }
        let pause = match self.maintain(now_us) {
            true => Duration::ZERO,
            false if self.maintain_due => QUIET_CHECK,
            false => IDLE_CHECK,
        };
        if !pause.is_zero() {
            self.handle.queue().sleep(1, Some(pause));
            if pause == QUIET_CHECK {
                // Whatever the quiet lane needs is done at the next look.
                self.maintain_due = false;
            }
        }
    }

    /// Returns true if there is more to do.
    fn maintain(&mut self, now_us: u64) -> bool {
        match self.lane.maintain(&self.clock.read(), now_us) {
            Ok(more) => {
                // What the scrub or a reader found is told now, not with the next segment.
                if self.lane.reader().gap_count() != self.told_gaps {
                    self.tell_gaps();
                }
                more
            }
            Err(error) => {
                // A failed journal write has poisoned the lane: the next commit says so and reopens it.
                tracing::warn!(lane = self.handle.name(), %error, "upkeep of the lane failed");
                false
            }
        }
    }

    /// Commits in the middle of a submission that does not fit into the open group. `is_begun`: some of it is in it.
    fn make_room(&mut self, is_begun: bool) -> Result<(), NotAppended> {
        loop {
            match self.commit_group() {
                Ok(()) => {
                    self.is_split |= is_begun;
                    self.read_clock();
                    return Ok(());
                }
                Err(CommitError::Full) if self.handle.queue().is_closed() => {
                    return Err(NotAppended::Failed(Failure::ShuttingDown));
                }
                Err(CommitError::Full) if self.is_split || self.group_is_fixed => {
                    self.wait_for_room();
                }
                Err(CommitError::Full) => return Err(NotAppended::NoRoom),
                Err(error) => {
                    self.poison(error.to_string());
                    return Err(NotAppended::Failed(Failure::Poisoned));
                }
            }
        }
    }

    fn commit(&mut self) -> Step {
        match self.commit_group() {
            Ok(()) => Step::Go,
            Err(CommitError::Full) if self.handle.queue().is_closed() => self.give_up(),
            Err(CommitError::Full) => {
                self.hold_back();
                self.wait_for_room();
                Step::Go
            }
            Err(error) => {
                if self.poison(error.to_string()) {
                    Step::Go
                } else {
                    Step::Stop
                }
            }
        }
    }

    /// One group: durable, visible, acknowledged, in that order.
    fn commit_group(&mut self) -> Result<(), CommitError> {
        if self.wear_budget != self.handle.wear_budget() {
            self.wear_budget = self.handle.wear_budget();
            self.lane.set_wear_budget(self.wear_budget);
        }
        let started_us = boottime_us();
        self.lane.commit(&self.clock.read(), started_us, &mut *self.owner)?;
        let done_us = boottime_us();
        self.lane.handle_sync_latency(done_us.saturating_sub(started_us));
        if self.handle.state() != LaneState::Open {
            tracing::info!(lane = self.handle.name(), "the lane takes records again");
            self.handle.set_state(LaneState::Open, None);
        }
        // In the order in which they stand in the group.
        self.pending_events.append(&mut self.bound_events);
        if !self.pending_events.is_empty() {
            self.owner.events_committed(std::mem::take(&mut self.pending_events));
        }
        self.handle.committed();
        (self.droppable_records, self.group_is_fixed) = (0, false);
        for Pending { completion, appended, .. } in self.pending.drain(..) {
            if let Some(Completion { sink, ticket }) = completion {
                sink.complete(ticket, &Outcome { result: Ok(()), appended: &appended });
            }
        }
        self.maintain_due = true;
        self.maintain(done_us);
        // Gaps come with segments: a look per segment is a look per gap.
        let segment = self.lane.reader().end().segment;
        if segment != self.looked_at_segment {
            self.looked_at_segment = segment;
            self.tell_gaps();
        }
        Ok(())
    }

    /// Names what has been given up since the last look.
    fn tell_gaps(&mut self) {
        let gaps = self.lane.reader().gaps();
        for gap in gaps.iter().skip(self.told_gaps) {
            let topic = self.defined.get(&gap.stream);
            if matches!(gap.reason, GapReason::Thinned { .. } | GapReason::Aggregated { .. }) {
                tracing::info!(
                    lane = self.handle.name(),
                    topic = topic.map_or("", |(definition, _)| definition.topic.as_str()),
                    partition = topic.map_or(0, |(definition, _)| definition.partition.0),
                    from = %gap.from,
                    to = %gap.to,
                    reason = %gap.reason,
                    "old records are thinned"
                );
                continue;
            }
            tracing::warn!(
                lane = self.handle.name(),
                topic = topic.map_or("", |(definition, _)| definition.topic.as_str()),
                partition = topic.map_or(0, |(definition, _)| definition.partition.0),
                from = %gap.from,
                to = %gap.to,
                reason = ?gap.reason,
                "offsets are lost"
            );
        }
        self.told_gaps = gaps.len();
    }

    /// Nothing of the open group is acknowledged; the lane is opened anew. False: shutting down.
    fn poison(&mut self, reason: String) -> bool {
        tracing::error!(lane = self.handle.name(), reason, "the lane failed; reopening it");
        self.handle.set_state(LaneState::Poisoned, Some(reason));
        self.pending_events.clear();
        self.bound_events.clear();
        self.count_lost();
        (self.no_room, self.group_is_fixed) = (false, false);
        self.handle.count_dropped(std::mem::take(&mut self.droppable_records));
        self.fail_pending(Failure::Poisoned);
        let mut pause = REOPEN_PAUSE_MIN;
        loop {
            if self.handle.queue().is_closed() {
                self.fail_waiting(Failure::ShuttingDown);
                self.handle.set_state(LaneState::Closed, self.handle.last_error());
                return false;
            }
            match self.source.open(&self.clock) {
                Ok((lane, recovery)) => {
                    self.adopt(lane, &recovery);
                    return true;
                }
                Err(error) => {
                    tracing::error!(lane = self.handle.name(), %error, "cannot reopen the lane yet");
                    self.handle.set_state(LaneState::Poisoned, Some(error.to_string()));
                }
            }
            self.handle.queue().sleep(usize::MAX, Some(pause));
            pause = (pause * 2).min(REOPEN_PAUSE_MAX);
        }
    }

    fn adopt(&mut self, lane: Lane, recovery: &Recovery) {
        self.lane = lane;
        self.wear_budget = None;
        let wall_us = self.clock.read().wall_us;
        for (stream, next) in &self.floors {
            self.lane.begin_behind(*stream, *next, wall_us);
        }
        for (definition, retention) in self.defined.values() {
            self.lane.define_stream(definition.clone());
            self.lane.set_retention(definition.stream, *retention);
        }
        self.owner.reopened(recovery);
        self.handle.set_reader(self.lane.reader());
        self.handle.set_state(LaneState::Open, None);
        self.handle.committed();
        tracing::info!(lane = self.handle.name(), "the lane was reopened");
    }

    fn fail_pending(&mut self, failure: Failure) {
        let pending = self.pending.drain(..).filter_map(|pending| pending.completion);
        for completion in pending.chain(self.current.take()) {
            completion
                .sink
                .complete(completion.ticket, &Outcome { result: Err(failure), appended: &[] });
        }
    }

    fn fail_waiting(&mut self, failure: Failure) {
        let handle = self.handle.clone();
        handle.queue().take(&mut self.waiting);
        for submission in self.waiting.drain(..) {
            if let Some(completion) = submission.completion {
                completion
                    .sink
                    .complete(completion.ticket, &Outcome { result: Err(failure), appended: &[] });
            }
        }
    }

    /// The queue is closed and empty: commit what is open, prove it, stop.
    fn shut_down(&mut self) -> Step {
        if self.lane.pending_bytes() > 0 {
            return match self.commit() {
                Step::Go if self.lane.pending_bytes() == 0 => self.shut_down(),
                other => other,
            };
        }
        match self.lane.seal(&self.clock.read(), true) {
            Ok(()) => tracing::debug!(lane = self.handle.name(), "the lane is closed"),
            Err(error) => {
                tracing::error!(lane = self.handle.name(), %error, "the lane could not be sealed");
            }
        }
        self.handle.committed();
        self.handle.set_state(LaneState::Closed, None);
        Step::Stop
    }

    /// Shutting down with a full lane: what waits was never acknowledged, its senders keep it.
    fn give_up(&mut self) -> Step {
        self.fail_pending(Failure::ShuttingDown);
        self.fail_waiting(Failure::ShuttingDown);
        self.handle.set_state(LaneState::Closed, self.handle.last_error());
        Step::Stop
    }
}

//! The state of the idempotent replicator (KIP-98 without transactions), and what comes in from the lanes.
//!
//! - **Plan before send.** A batch leaves only when a durable plan names it with its producer id and sequence.
//!   After a crash the plan's batches are cut again exactly so and sent with the same sequences; the broker knows
//!   the ones it has and answers without appending them twice.
//! - **Five in doubt.** A plan holds at most five batches for an upstream partition, because that is what a broker
//!   remembers. Progress rides in the next plan and costs no sync of its own.
//! - **A new run, a new producer id.** Sequences are only remembered for planned batches. When those are settled, a
//!   new id starts all partitions at 0.
//! - **Nothing waits for a stranger.** A stream whose topic is refused is parked: its batches are dropped from
//!   memory, its place in the journal is kept, and the lane is read again from there when the topic works. See
//!   parked.rs for how long.
//! - Exactly once holds while the broker keeps its producer state (1 day by default, `producer.id.expiration.ms`);
//!   where it did not, the records in doubt are sent again and counted as possible duplicates.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use edge_log::JournalPosition;
use edge_wire::{Offset, StreamId};

use super::resuming::Resume;
use super::status::{BlockedTopic, OffsetRange, RANGES_MAX, ReplicatorStatus};
use super::target::{Item, Target};
use super::topics::Topic;
use super::{
    Action, LaneCommand, LaneCommands, Now, ReplicatorConfig, StreamInfo, TargetIndex, TopicIndex,
};
use crate::backoff::Backoff;
use crate::link::{Link, LinkState};
use crate::rebatch::{ReadyBatch, Round};
use crate::resume::{ResumeState, Totals};

/// See the module and [`the contract`](super).
pub struct Replicator {
    pub(super) config: ReplicatorConfig,
    pub(super) random: Box<dyn FnMut() -> u64 + Send>,
    pub(super) link: Link,
    pub(super) producer: Producer,
    pub(super) producer_backoff: Backoff,
    /// A new producer id is needed as soon as nothing is in flight.
    pub(super) is_renewing: bool,
    pub(super) resume: Option<Resume>,
    pub(super) lanes: Vec<Lane>,
    pub(super) streams: HashMap<StreamId, Stream>,
    pub(super) topics: Vec<Topic>,
    pub(super) topic_by_name: HashMap<Arc<str>, TopicIndex>,
    pub(super) targets: Vec<Target>,
    pub(super) target_by_key: HashMap<(TopicIndex, u32), TargetIndex>,
    /// Targets that have a queue.
    pub(super) active: BTreeSet<TargetIndex>,
    /// Targets that may be able to send.
    pub(super) woken: VecDeque<TargetIndex>,
    /// Targets that wait to try again.
    pub(super) recovering: BTreeSet<TargetIndex>,
    /// Targets with a batch that no plan holds yet.
    pub(super) unplanned: BTreeSet<TargetIndex>,
    /// Parked streams whose partition is to be tried again, by time.
    pub(super) resting: BTreeSet<(u64, StreamId)>,
    pub(super) sends: HashMap<u64, TargetIndex>,
    pub(super) next_send: u64,
    pub(super) next_plan: u64,
    pub(super) durable_plan: u64,
    pub(super) persisting: Option<Persisting>,
    pub(super) persist_retry_at_us: u64,
    /// No new plan before, as long as something is in flight.
    pub(super) plan_rest_until_us: u64,
    /// The plan that holds the planned batches could not be stored: the next one has to.
    pub(super) is_plan_lost: bool,
    /// What was stored last, so that the same is not stored again.
    pub(super) last_state: Option<ResumeState>,
    /// Since when there is progress that no plan holds.
    pub(super) progress_since_us: Option<u64>,
    pub(super) unacked_bytes: usize,
    pub(super) totals: Totals,
    pub(super) last_error: Option<String>,
    pub(super) possible_duplicates: VecDeque<OffsetRange>,
    pub(super) skipped: VecDeque<OffsetRange>,
    pub(super) released: VecDeque<Action>,
}

/// The producer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Producer {
    /// There is none; ask at this time.
    Absent { ask_at_us: u64 },
    /// Asked.
    Requested,
    /// Id and epoch.
    Known(u64, i16),
}

/// A plan on its way to the disk.
#[derive(Debug)]
pub(super) struct Persisting {
    pub(super) plan: u64,
    /// By lane: everything before is settled once the plan is durable.
    pub(super) positions: Vec<JournalPosition>,
}

/// A lane as it is followed.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    /// Everything before it came in with a round.
    pub(super) through: JournalPosition,
    /// The furthest that `through` ever was: planned batches stand before it, wherever the lane is read again.
    pub(super) furthest: JournalPosition,
    /// Until here the plan of the earlier run reaches.
    pub(super) resume_through: JournalPosition,
    /// Everything before it was released to retention.
    pub(super) released: JournalPosition,
    pub(super) generation: u64,
    pub(super) seek: Option<JournalPosition>,
    pub(super) commands: Vec<LaneCommand>,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) lane: usize,
    pub(super) info: Option<StreamInfo>,
    pub(super) topic: Option<TopicIndex>,
    pub(super) target: Option<TargetIndex>,
    /// First offset that is not acknowledged.
    pub(super) end: Option<Offset>,
    /// Group of the last acknowledged record.
    pub(super) end_at: JournalPosition,
    /// Batches whose target is not known yet.
    pub(super) waiting: VecDeque<Item>,
    pub(super) parked: Option<Parked>,
    /// Batches that were dropped although they may be upstream.
    pub(super) in_doubt: VecDeque<Piece>,
    /// Rounds read before this generation say nothing about the stream.
    pub(super) from_generation: u64,
}

/// What a batch was, without its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) first: Offset,
    pub(super) end: Offset,
    pub(super) count: u32,
}

/// Where a parked stream goes on.
#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub(super) at: JournalPosition,
    pub(super) next: Offset,
    /// The batches it had.
    pub(super) cuts: Vec<Piece>,
    /// How many of them, from the front, end with one that may be upstream.
    pub(super) in_doubt: usize,
    /// It held up its lane for too long: the ring may have taken what stood at its place.
    pub(super) is_overtaken: bool,
}

impl Replicator {
    /// Starts from what an earlier run made durable, if there was one. `lanes` are names and durable ends; their
    /// indexes are the lane numbers everywhere else. What was saved about a lane that ends before the saved position
    /// is about another log (somebody removed its files) and is not used. `random` yields any numbers; it spreads the attempts of a fleet.
    #[must_use]
    pub fn new(
        config: ReplicatorConfig,
        lanes: &[(String, JournalPosition)],
        resume: Option<ResumeState>,
        random: Box<dyn FnMut() -> u64 + Send>,
    ) -> Self {
        let link = Link::new(config.link_backoff, config.watchdog_us);
        let producer_backoff = Backoff::new(config.link_backoff);
        let mut replicator = Self {
            config,
            random,
            link,
            producer: Producer::Absent { ask_at_us: 0 },
            producer_backoff,
            is_renewing: false,
            resume: None,
            lanes: lanes.iter().map(|(name, _)| Lane::new(name)).collect(),
            streams: HashMap::new(),
            topics: Vec::new(),
            topic_by_name: HashMap::new(),
            targets: Vec::new(),
            target_by_key: HashMap::new(),
            active: BTreeSet::new(),
            woken: VecDeque::new(),
            recovering: BTreeSet::new(),
            unplanned: BTreeSet::new(),
            resting: BTreeSet::new(),
            sends: HashMap::new(),
            next_send: 0,
            next_plan: 1,
            durable_plan: 0,
            persisting: None,
            persist_retry_at_us: 0,
            plan_rest_until_us: 0,
            is_plan_lost: false,
            last_state: None,
            progress_since_us: None,
            unacked_bytes: 0,
            totals: Totals::default(),
            last_error: None,
            possible_duplicates: VecDeque::new(),
            skipped: VecDeque::new(),
            released: VecDeque::new(),
        };
        if let Some(state) = resume {
            replicator.take_up(state, lanes);
        }
        replicator
    }

    /// Whether the lane should be read on: there is room, or batches of an earlier run have to be found again.
    #[must_use]
    pub fn can_read(&self, lane: usize) -> bool {
        match &self.resume {
            Some(resume) if !resume.is_placed => {
                self.lanes[lane].is_resuming() || self.unacked_bytes < self.config.unacked_bytes_max
            }
            _ => self.unacked_bytes < self.config.unacked_bytes_max,
        }
    }

    /// Whether the lane has to be read again from an earlier place.
    #[must_use]
    pub fn wants_seek(&self, lane: usize) -> bool {
        self.lanes[lane].seek.is_some()
    }

    /// What the reader of the lane has to do before its next read. Call it once for each read; the generation goes
    /// back in with the round.
    pub fn take_commands(&mut self, lane: usize) -> LaneCommands {
        let lane = &mut self.lanes[lane];
        lane.generation += 1;
        LaneCommands {
            generation: lane.generation,
            seek: lane.seek.take(),
            commands: std::mem::take(&mut lane.commands),
        }
    }

    /// A round was read from a lane. `info` says what a stream is; `None` for one that is gone.
    pub fn handle_round(
        &mut self,
        lane: usize,
        generation: u64,
        round: Round,
        info: &dyn Fn(StreamId) -> Option<StreamInfo>,
        now: Now,
    ) {
        for gap in &round.gaps {
            self.totals.gap_offsets += gap.to.0.saturating_sub(gap.from.0);
        }
        let mut touched = Vec::new();
        for batch in round.batches {
            let id = batch.stream;
            let stream = self.streams.entry(id).or_insert_with(|| Stream::new(lane));
            stream.lane = lane;
            if stream.parked.is_some() || generation < stream.from_generation {
                continue;
            }
            if stream.info.is_none() {
                stream.info = info(id);
            }
            if stream.info.is_none() {
                continue;
            }
            self.unacked_bytes += batch.bytes.len();
            let (batch, may_be_appended) = match &mut self.resume {
                Some(resume) if !resume.is_placed => match resume.admit(batch) {
                    Ok(()) => continue,
                    Err(changed) => changed,
                },
                _ => (batch, false),
            };
            let mut item = Item::new(lane, batch);
            item.may_be_appended = may_be_appended;
            while let Some(piece) = stream.in_doubt.front().copied() {
                let is_it = piece.first == item.batch.first && piece.count == item.batch.count;
                item.may_be_appended |= is_it;
                if !is_it && piece.first >= item.batch.end {
                    break;
                }
                stream.in_doubt.pop_front();
            }
            stream.waiting.push_back(item);
            touched.push(id);
        }
        let entry = &mut self.lanes[lane];
        // A seek that this round has not seen yet holds the position back.
        entry.through = entry.seek.map_or(round.through, |seek| seek.min(round.through));
        entry.furthest = entry.furthest.max(round.through);
        self.place_resumed(now);
        if self.resume.as_ref().is_none_or(|resume| resume.is_placed) {
            touched.dedup();
            for stream in touched {
                self.route(stream, now);
            }
        }
        // Journal that held nothing for us is progress as well.
        self.progress_since_us.get_or_insert(now.mono_us);
    }

    /// First offset of a stream that is not acknowledged, where that is known.
    #[must_use]
    pub fn upstream_end(&self, stream: StreamId) -> Option<Offset> {
        self.streams.get(&stream)?.end
    }

    /// All streams whose acknowledged end is known.
    pub fn upstream_ends(&self) -> impl Iterator<Item = (StreamId, Offset)> + '_ {
        self.streams.iter().filter_map(|(id, stream)| Some((*id, stream.end?)))
    }

    /// Where the lane's rounds have come to.
    #[must_use]
    pub fn lane_through(&self, lane: usize) -> JournalPosition {
        self.lanes[lane].through
    }

    /// Whether everything that came in from a lane is acknowledged.
    #[must_use]
    pub fn is_settled(&self, lane: usize) -> bool {
        self.resume.is_none()
            && self.lanes[lane].seek.is_none()
            && !self
                .active
                .iter()
                .any(|target| self.targets[target.0].queue.iter().any(|item| item.lane == lane))
            && !self.streams.values().any(|stream| {
                stream.lane == lane && (stream.parked.is_some() || !stream.waiting.is_empty())
            })
    }

    /// Number of batches in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.sends.len()
    }

    /// The link, and its last failure.
    #[must_use]
    pub fn link(&self) -> (LinkState, Option<&str>) {
        (self.link.state(), self.link.last_error())
    }

    /// A picture for people.
    #[must_use]
    pub fn status(&self) -> ReplicatorStatus {
        ReplicatorStatus {
            link: self.link.state(),
            last_error: self
                .link
                .last_error()
                .map(str::to_owned)
                .or_else(|| self.last_error.clone()),
            totals: self.totals,
            in_flight: self.sends.len(),
            unacked_bytes: self.unacked_bytes,
            blocked: self
                .topics
                .iter()
                .filter_map(|topic| {
                    let reason = topic.error.clone()?;
                    let is_overtaken = |id: &StreamId| {
                        let parked = self.streams.get(id)?.parked.as_ref()?;
                        parked.is_overtaken.then_some(())
                    };
                    Some(BlockedTopic {
                        topic: topic.name.to_string(),
                        reason,
                        overtaken: topic.streams.iter().filter_map(is_overtaken).count(),
                    })
                })
                .collect(),
            possible_duplicates: self.possible_duplicates.iter().cloned().collect(),
            skipped: self.skipped.iter().cloned().collect(),
        }
    }

    pub(super) fn wake(&mut self, target: TargetIndex) {
        let entry = &mut self.targets[target.0];
        if !entry.is_woken {
            entry.is_woken = true;
            self.woken.push_back(target);
        }
    }

    pub(super) fn wake_all(&mut self) {
        for target in self.active.clone() {
            self.wake(target);
        }
    }

    pub(super) fn note_unplanned(&mut self, target: TargetIndex) {
        if self.targets[target.0].wants_plan() {
            self.unplanned.insert(target);
        } else {
            self.unplanned.remove(&target);
        }
    }
}

impl std::fmt::Debug for Replicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicator")
            .field("link", &self.link)
            .field("producer", &self.producer)
            .field("lanes", &self.lanes)
            .field("targets", &self.targets.len())
            .field("in_flight", &self.sends.len())
            .field("unacked_bytes", &self.unacked_bytes)
            .finish_non_exhaustive()
    }
}

/// Keeps the latest few.
pub(super) fn push_range(ranges: &mut VecDeque<OffsetRange>, batch: &ReadyBatch, reason: &str) {
    if ranges.len() == RANGES_MAX {
        ranges.pop_front();
    }
    ranges.push_back(OffsetRange {
        stream: batch.stream,
        from: batch.first,
        to: batch.end,
        reason: reason.to_owned(),
    });
}

impl Lane {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            through: JournalPosition::START,
            furthest: JournalPosition::START,
            resume_through: JournalPosition::START,
            released: JournalPosition::START,
            generation: 0,
            seek: Some(JournalPosition::START),
            commands: Vec::new(),
        }
    }

    /// What was planned may still come in with the next round. Among copies, a stream's number is where all of it stands.
    pub(super) fn is_resuming(&self) -> bool {
        self.through < self.resume_through
            || self.through.segment == 0
                && self.through == self.resume_through
                && self.through != JournalPosition::START
    }

    /// Reads again from `at`. Never forward: what lies between may be on its way for another stream.
    pub(super) fn seek_back(&mut self, at: JournalPosition) {
        let at = at.min(self.through);
        self.seek = Some(self.seek.map_or(at, |seek| seek.min(at)));
        self.through = at;
    }
}

impl Stream {
    pub(super) fn new(lane: usize) -> Self {
        Self {
            lane,
            info: None,
            topic: None,
            target: None,
            end: None,
            end_at: JournalPosition::START,
            waiting: VecDeque::new(),
            parked: None,
            in_doubt: VecDeque::new(),
            from_generation: 0,
        }
    }
}

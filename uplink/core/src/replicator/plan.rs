//! Plans: what is made durable before anything leaves.

use std::collections::HashMap;

use edge_log::JournalPosition;

use super::idempotent::{Persisting, Producer, Replicator};
use super::target::WINDOW;
use super::topics::TopicState;
use super::{Action, Now, TopicIndex};
use crate::resume::{LaneResume, PLANNED_MAX, PlannedBatch, ResumeState, StreamEnd};

/// Plans follow one another no faster, in microseconds, while batches are in flight: each costs a sync and a look at
/// everything.
const PLAN_REST_US: u64 = 20_000;

impl Replicator {
    /// The plan is durable, or could not be made so.
    pub fn handle_persisted(&mut self, plan: u64, result: Result<(), String>, now: Now) {
        let Some(persisting) = self.persisting.take_if(|persisting| persisting.plan == plan) else {
            return;
        };
        if let Err(reason) = result {
            self.last_error = Some(format!("the uplink's progress cannot be stored: {reason}"));
            self.persist_retry_at_us = now.mono_us + 1_000_000;
            // The next plan holds the same and more.
            self.progress_since_us.get_or_insert(now.mono_us);
            self.is_plan_lost = true;
            self.last_state = None;
            return;
        }
        self.durable_plan = plan;
        for (lane, position) in persisting.positions.into_iter().enumerate() {
            if position > self.lanes[lane].released {
                self.lanes[lane].released = position;
                // The journal begins with segment 1: before it are the copies.
                if position.segment > 0 {
                    self.released.push_back(Action::Released { lane, through: position });
                }
            }
        }
        self.wake_all();
    }

    /// The state as of now, for a clean stop: after it, nothing more may be sent.
    #[must_use]
    pub fn final_state(&self) -> Option<Vec<u8>> {
        let is_resuming = self.resume.as_ref().is_some_and(|resume| !resume.is_placed);
        if is_resuming || !matches!(self.producer, Producer::Known(..)) {
            // What is stored is still the truth.
            return None;
        }
        self.state().0.encode()
    }

    /// A plan, if one is due.
    pub(super) fn poll_plan(&mut self, now: Now) -> Option<Action> {
        let is_ready = matches!(self.producer, Producer::Known(..))
            && !self.is_renewing
            && self.resume.as_ref().is_none_or(|resume| resume.is_placed);
        if self.persisting.is_some() || !is_ready || now.mono_us < self.persist_retry_at_us {
            return None;
        }
        if now.mono_us < self.plan_rest_until_us && !self.sends.is_empty() {
            return None;
        }
        let is_flush_due = self.progress_since_us.is_some_and(|since| {
            now.mono_us >= since.saturating_add(self.config.progress_flush_us)
        }) && self.sends.is_empty();
        if self.unplanned.is_empty() && !is_flush_due && !self.is_plan_lost {
            return None;
        }
        let plan = self.next_plan;
        let mut room = PLANNED_MAX.saturating_sub(self.planned_count());
        let mut is_new = self.is_plan_lost;
        if self.link.is_up() {
            for target in self.unplanned.clone() {
                let entry = &mut self.targets[target.0];
                let is_open = matches!(self.topics[entry.topic.0].state, TopicState::Ready { .. })
                    && self
                        .resume
                        .as_ref()
                        .is_none_or(|resume| resume.unsettled > 0 && entry.is_resumed)
                    && !entry.is_to_be_parked
                    && !(entry.in_flight > 0 && entry.mode != super::target::Mode::Flow);
                if !is_open {
                    continue;
                }
                let planned = entry.plan(plan, room);
                room -= planned;
                is_new |= planned > 0;
                self.note_unplanned(target);
                if room == 0 {
                    break;
                }
            }
        }
        if !is_new && !is_flush_due {
            return None;
        }
        self.overtake_parked();
        let (state, positions) = self.state();
        let is_same = self.last_state.as_ref() == Some(&state);
        self.progress_since_us = None;
        if is_same {
            return None;
        }
        let Some(bytes) = state.encode() else {
            self.last_error = Some("the uplink's progress is too large to be stored".to_owned());
            self.persist_retry_at_us = now.mono_us + 1_000_000;
            self.is_plan_lost = true;
            return None;
        };
        self.last_state = Some(state);
        self.is_plan_lost = false;
        self.next_plan += 1;
        self.plan_rest_until_us = now.mono_us + PLAN_REST_US;
        self.persisting = Some(Persisting { plan, positions });
        Some(Action::Persist { plan, bytes })
    }

    fn planned_count(&self) -> usize {
        self.active
            .iter()
            .map(|target| {
                self.targets[target.0]
                    .queue
                    .iter()
                    .take(WINDOW)
                    .filter(|item| item.plan.is_some())
                    .count()
            })
            .sum()
    }

    /// Everything that has to survive, and by lane the position before which all is settled.
    fn state(&self) -> (ResumeState, Vec<JournalPosition>) {
        let mut positions: Vec<JournalPosition> =
            self.lanes.iter().map(|lane| lane.through).collect();
        let mut hold = |lane: usize, at: JournalPosition| positions[lane] = positions[lane].min(at);
        let mut planned = Vec::new();
        let mut topics = Vec::new();
        let mut topic_numbers: HashMap<TopicIndex, u32> = HashMap::new();
        for target in self.active.iter().map(|target| &self.targets[target.0]) {
            for item in &target.queue {
                hold(item.lane, item.batch.first_at);
                // One that is acknowledged behind one that is not stays planned: sent again, it is recognised.
                if item.plan.is_none() {
                    continue;
                }
                let topic = *topic_numbers.entry(target.topic).or_insert_with(|| {
                    topics.push(self.topics[target.topic.0].name.to_string());
                    topics.len() as u32 - 1
                });
                planned.push(PlannedBatch {
                    lane: item.lane as u32,
                    topic,
                    partition: target.partition,
                    stream: item.batch.stream.0,
                    first: item.batch.first.0,
                    end: item.batch.end.0,
                    count: item.batch.count,
                    sequence: item.sequence,
                });
            }
        }
        for stream in self.streams.values() {
            if let Some(parked) = &stream.parked {
                hold(stream.lane, parked.at);
            }
            if let Some(first) = stream.waiting.front() {
                hold(stream.lane, first.batch.first_at);
            }
        }
        let mut lanes: Vec<LaneResume> = self
            .lanes
            .iter()
            .zip(&positions)
            .map(|(lane, position)| LaneResume {
                name: lane.name.clone(),
                position: *position,
                planned_through: lane.furthest.max(lane.resume_through),
                ends: Vec::new(),
            })
            .collect();
        for (id, stream) in &self.streams {
            // A stream whose acknowledged records all stand before the position needs no word, unless there is a
            // hole between them: it has to be counted when the stream goes on.
            let overtaken = stream.parked.as_ref().filter(|parked| parked.is_overtaken);
            let end = match overtaken {
                Some(parked) => Some(stream.end.unwrap_or(parked.next)),
                None => stream.end.filter(|_| stream.end_at >= positions[stream.lane]),
            };
            if let Some(end) = end {
                lanes[stream.lane].ends.push(StreamEnd { stream: id.0, end: end.0 });
            }
        }
        for lane in &mut lanes {
            lane.ends.sort_by_key(|end| end.stream);
        }
        let producer = match self.producer {
            Producer::Known(id, epoch) => Some((id, epoch)),
            Producer::Absent { .. } | Producer::Requested => None,
        };
        (ResumeState { producer, lanes, topics, planned, totals: self.totals }, positions)
    }
}

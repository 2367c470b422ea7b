//! Taking up what an earlier run had planned: the same batches, the same sequences, before anything new.

use std::collections::{HashMap, VecDeque};

use edge_log::JournalPosition;
use edge_wire::{Offset, StreamId};

use super::idempotent::{Lane, Producer, Replicator, Stream};
use super::target::Item;
use super::{Action, LaneCommand, Now, TargetIndex};
use crate::rebatch::ReadyBatch;
use crate::resume::{PlannedBatch, ResumeState};

/// The batches that an earlier run had planned.
#[derive(Debug)]
pub(super) struct Resume {
    planned: Vec<PlannedBatch>,
    topics: Vec<String>,
    /// By stream: indexes into `planned` that have not come in.
    expected: HashMap<StreamId, VecDeque<usize>>,
    arrived: Vec<Option<ReadyBatch>>,
    missing: usize,
    /// Whether the batches stand in the queues of their targets.
    pub(super) is_placed: bool,
    /// Of those, how many are not settled.
    pub(super) unsettled: usize,
}

impl Replicator {
    pub(super) fn take_up(&mut self, state: ResumeState, ends: &[(String, JournalPosition)]) {
        self.totals = state.totals;
        let mut lane_of = vec![None; state.lanes.len()];
        for (index, saved) in state.lanes.iter().enumerate() {
            let Some(lane) = self.lanes.iter().position(|lane| lane.name == saved.name) else {
                continue;
            };
            if ends[lane].1 < saved.position {
                continue;
            }
            lane_of[index] = Some(lane);
            // Retention does not remember it. It knows nothing of copies.
            if saved.position.segment > 0 {
                self.released.push_back(Action::Released { lane, through: saved.position });
            }
            let entry = &mut self.lanes[lane];
            entry.through = saved.position;
            entry.released = saved.position;
            entry.resume_through = saved.planned_through.min(ends[lane].1);
            entry.seek = Some(saved.position);
            for end in &saved.ends {
                let stream = StreamId(end.stream);
                entry.commands.push(LaneCommand::FollowFrom(stream, Offset(end.end)));
                let mut known = Stream::new(lane);
                known.end = Some(Offset(end.end));
                // Kept in the plans until the lane's position has passed what was planned, and where a stream's
                // copies were sent, until it has passed what else may stand in the journal of it.
                known.end_at = match saved.position.segment {
                    0 => saved.planned_through.max(ends[lane].1),
                    _ => saved.planned_through,
                };
                self.streams.insert(stream, known);
            }
        }
        let Some((id, epoch)) = state.producer else { return };
        let mut resume = Resume {
            arrived: Vec::new(),
            expected: HashMap::new(),
            missing: 0,
            is_placed: false,
            unsettled: 0,
            planned: Vec::new(),
            topics: state.topics,
        };
        for planned in state.planned {
            let Some(lane) = lane_of[planned.lane as usize] else { continue };
            let stream = StreamId(planned.stream);
            self.lanes[lane].commands.push(LaneCommand::ExpectCut(
                stream,
                Offset(planned.first),
                Offset(planned.end),
            ));
            resume.expected.entry(stream).or_default().push_back(resume.planned.len());
            resume.planned.push(PlannedBatch { lane: lane as u32, ..planned });
            resume.arrived.push(None);
            resume.missing += 1;
        }
        if resume.missing > 0 {
            self.producer = Producer::Known(id, epoch);
            self.resume = Some(resume);
        }
    }

    /// Puts the batches of the earlier run into their queues once all that still exist are there.
    pub(super) fn place_resumed(&mut self, now: Now) {
        let Some(resume) = &mut self.resume else { return };
        let is_complete = resume.missing == 0 || !self.lanes.iter().any(Lane::is_resuming);
        if resume.is_placed || !is_complete {
            return;
        }
        resume.is_placed = true;
        let planned = std::mem::take(&mut resume.planned);
        let arrived = std::mem::take(&mut resume.arrived);
        let topics = std::mem::take(&mut resume.topics);
        let mut placed = 0;
        for (planned, batch) in planned.into_iter().zip(arrived) {
            let Some(batch) = batch else { continue };
            let topic = self.topic_index(&topics[planned.topic as usize], planned.partition + 1);
            let target = self.target_index(topic, planned.partition);
            if let Some(stream) = self.streams.get_mut(&batch.stream) {
                stream.topic = Some(topic);
                stream.target = Some(target);
            }
            let topic_entry = &mut self.topics[topic.0];
            if !topic_entry.streams.contains(&batch.stream) {
                topic_entry.streams.push(batch.stream);
            }
            let entry = &mut self.targets[target.0];
            if entry.queue.is_empty() {
                entry.head_sequence = planned.sequence;
            }
            entry.is_resumed = true;
            entry.queue.push_back(Item::resumed(
                planned.lane as usize,
                batch,
                planned.sequence,
                self.durable_plan,
            ));
            self.active.insert(target);
            self.wake(target);
            placed += 1;
        }
        if let Some(resume) = &mut self.resume {
            resume.unsettled = placed;
        }
        self.finish_resume_if_settled();
        let waiting: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.waiting.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for stream in waiting {
            self.route(stream, now);
        }
    }

    /// When the earlier run's batches are settled, and what was planned behind them too, a new producer id opens all
    /// partitions.
    pub(super) fn finish_resume_if_settled(&mut self) {
        let is_settled =
            self.resume.as_ref().is_some_and(|resume| resume.is_placed && resume.unsettled == 0);
        let is_in_doubt = |target: &TargetIndex| {
            self.targets[target.0].queue.iter().any(|item| item.plan.is_some())
        };
        if is_settled && !self.active.iter().any(is_in_doubt) {
            self.resume = None;
            self.is_renewing = true;
        }
    }
}

impl Resume {
    /// Keeps the batch if it is one that was planned; gives it back otherwise, with whether it has records of one that
    /// was.
    pub(super) fn admit(&mut self, batch: ReadyBatch) -> Result<(), (ReadyBatch, bool)> {
        let Some(expected) = self.expected.get_mut(&batch.stream) else {
            return Err((batch, false));
        };
        let mut has_planned = false;
        while let Some(index) = expected.front().copied() {
            let planned = &self.planned[index];
            if Offset(planned.end) > batch.first {
                if planned.first == batch.first.0 && planned.count == batch.count {
                    expected.pop_front();
                    self.missing -= 1;
                    self.arrived[index] = Some(batch);
                    return Ok(());
                }
                // Records of it are lost: what is left of it goes as new.
                has_planned = Offset(planned.first) < batch.end;
                break;
            }
            expected.pop_front();
            self.missing -= 1;
        }
        Err((batch, has_planned))
    }
}

//! What the upstream answers.

use super::idempotent::{Producer, Replicator, push_range};
use super::target::{Item, ItemState, Mode};
use super::topics::TopicState;
use super::verdict::{Verdict, verdict_of};
use super::{Answer, Failure, Now, TargetIndex};
use crate::backoff::{Backoff, BackoffPolicy};
use crate::rebatch;

/// Failures in a row, about half a minute, after which a partition no longer holds memory while others could send.
const FAILURES_MAX: u32 = 9;

impl Replicator {
    /// A broker answers.
    pub fn handle_connected(&mut self, now: Now) {
        self.link.handle_connected(now.mono_us);
        if !self.sends.is_empty() {
            self.link.handle_sent(now.mono_us);
        }
        self.wake_all();
    }

    /// All connections are gone although nothing was asked: see whether the upstream is still there.
    pub fn handle_connection_lost(&mut self, reason: String, now: Now) {
        self.link.handle_doubt(reason, now.mono_us);
    }

    /// No broker answers.
    pub fn handle_connect_failed(&mut self, reason: String, now: Now) {
        let random = (self.random)();
        self.link.handle_failed(reason, now.mono_us, random);
    }

    /// The answer to [`Action::InitProducer`](super::Action::InitProducer): id and epoch.
    pub fn handle_producer(&mut self, result: Result<(u64, i16), Failure>, now: Now) {
        match result {
            Ok((id, epoch)) => {
                self.producer_backoff.handle_success(now.mono_us);
                self.producer = Producer::Known(id, epoch);
                self.last_error = None;
                self.start_sequences_afresh();
            }
            Err(failure) => {
                let random = (self.random)();
                let ask_at_us = self.producer_backoff.handle_failure(now.mono_us, random);
                self.producer = Producer::Absent { ask_at_us };
                if failure.code.is_none() {
                    self.link.handle_doubt(failure.reason, now.mono_us);
                } else {
                    self.last_error = Some(failure.reason);
                }
            }
        }
    }

    /// Under a new producer id every partition starts at 0. What may be upstream already goes again, and is named.
    fn start_sequences_afresh(&mut self) {
        self.is_renewing = false;
        self.resume = None;
        for target in &mut self.targets {
            target.head_sequence = 0;
            target.is_primed = false;
            target.is_resumed = false;
            target.queue.retain(|item| {
                let is_settled = item.state == ItemState::Acknowledged;
                if is_settled {
                    // Behind a batch that is not: should we crash before that one is settled, it goes again.
                    self.unacked_bytes -= item.batch.bytes.len();
                    self.totals.possible_duplicates += u64::from(item.batch.count);
                    push_range(
                        &mut self.possible_duplicates,
                        &item.batch,
                        "acknowledged out of turn",
                    );
                }
                !is_settled
            });
            for item in &mut target.queue {
                item.plan = None;
                item.is_resumed = false;
                if std::mem::take(&mut item.may_be_appended) {
                    self.totals.possible_duplicates += u64::from(item.batch.count);
                    push_range(
                        &mut self.possible_duplicates,
                        &item.batch,
                        "no answer came, and the upstream forgot the producer",
                    );
                }
            }
        }
        for target in self.active.clone() {
            self.note_unplanned(target);
            self.wake(target);
        }
    }

    /// The answer to a send.
    pub fn handle_answer(&mut self, send: u64, answer: Answer, now: Now) {
        let Some(target) = self.sends.remove(&send) else { return };
        let entry = &mut self.targets[target.0];
        entry.in_flight -= 1;
        let Some(index) = entry.item_in_flight(send) else { return };
        let is_head = entry.is_head(index);
        let item = &mut entry.queue[index];
        item.state = ItemState::Idle;
        let verdict = match &answer {
            Answer::Acknowledged => Verdict::Acknowledged,
            Answer::Refused { code, .. } => verdict_of(*code),
            Answer::Unknown { .. } => Verdict::Retry { may_be_appended: true },
        };
        let reason = match answer {
            Answer::Acknowledged => String::new(),
            Answer::Refused { reason, .. } => reason,
            Answer::Unknown { reason } => {
                self.link.handle_doubt(reason.clone(), now.mono_us);
                reason
            }
        };
        match verdict {
            Verdict::Acknowledged => self.acknowledge(target, index, now),
            Verdict::Retry { may_be_appended } => {
                item.may_be_appended |= may_be_appended;
                self.back_off(target, reason, now);
            }
            Verdict::OutOfOrder if !is_head => self.back_off(target, reason, now),
            Verdict::OutOfOrder | Verdict::NewProducer => {
                self.is_renewing = true;
                self.back_off(target, reason, now);
            }
            Verdict::TakeApart | Verdict::Timestamps => {
                item.verdict = Some(verdict);
                self.last_error = Some(reason);
                self.targets[target.0].recover_at_once(now.mono_us);
                self.recovering.insert(target);
            }
            Verdict::TopicMissing => {
                let topic = entry.topic;
                if matches!(self.topics[topic.0].state, TopicState::Ready { .. }) {
                    self.topics[topic.0].state = TopicState::Unknown { ask_at_us: now.mono_us };
                }
                self.back_off(target, reason, now);
            }
            Verdict::Blocked => {
                let topic = entry.topic;
                self.back_off(target, reason.clone(), now);
                self.refuse_topic(topic, reason, now);
            }
        }
        if self.sends.is_empty() {
            self.link.handle_idle();
        }
        self.settle(target, now);
    }

    fn back_off(&mut self, target: TargetIndex, reason: String, now: Now) {
        let random = (self.random)();
        let entry = &mut self.targets[target.0];
        entry.recover(now.mono_us, random);
        self.recovering.insert(target);
        if self.link.is_up() && entry.backoff.failures() >= FAILURES_MAX {
            // The cluster is there and this partition is not: its batches make room for the others.
            entry.is_to_be_parked = true;
            entry.backoff = Backoff::new(BackoffPolicy::PARTITION);
        }
        if !reason.is_empty() {
            self.last_error = Some(reason);
        }
    }

    fn acknowledge(&mut self, target: TargetIndex, index: usize, now: Now) {
        let entry = &mut self.targets[target.0];
        let item = &mut entry.queue[index];
        item.state = ItemState::Acknowledged;
        item.may_be_appended = false;
        self.totals.acked_records += u64::from(item.batch.count);
        entry.backoff = Backoff::new(BackoffPolicy::PARTITION);
        let topic = entry.topic;
        entry.is_primed = entry.mode == Mode::Flow;
        while entry.queue.front().is_some_and(|item| item.state == ItemState::Acknowledged)
            && let Some(item) = entry.queue.pop_front()
        {
            entry.head_sequence = item.next_sequence();
            self.unacked_bytes -= item.batch.bytes.len();
            if let Some(stream) = self.streams.get_mut(&item.batch.stream) {
                stream.end = Some(item.batch.end);
                stream.end_at = stream.end_at.max(item.batch.last_at);
            }
            if item.is_resumed
                && let Some(resume) = &mut self.resume
            {
                resume.unsettled = resume.unsettled.saturating_sub(1);
            }
        }
        if entry.queue.is_empty() {
            self.active.remove(&target);
        }
        let topic = &mut self.topics[topic.0];
        topic.error = None;
        topic.backoff = Backoff::new(BackoffPolicy::TOPIC);
        self.note_unplanned(target);
        self.wake(target);
        self.last_error = None;
        self.link.handle_progress(now.mono_us, !self.sends.is_empty());
        self.progress_since_us.get_or_insert(now.mono_us);
        self.finish_resume_if_settled();
    }

    /// When nothing of a target is in flight: carries out what its answers asked for.
    pub(super) fn settle(&mut self, target: TargetIndex, now: Now) {
        let entry = &mut self.targets[target.0];
        if entry.in_flight > 0 {
            return;
        }
        if entry.is_to_be_parked {
            self.park_target(target, now);
            return;
        }
        if !entry.queue.iter().any(|item| item.verdict.is_some()) {
            return;
        }
        let limits = self.config.limits;
        let mut later = false;
        let mut clamp_failed = None;
        for mut item in std::mem::take(&mut entry.queue) {
            // Whatever stands behind a batch that changes gets its sequence anew.
            if later {
                item.plan = None;
            }
            let verdict = item.verdict.take();
            if item.state == ItemState::Acknowledged || verdict.is_none() {
                entry.queue.push_back(item);
                continue;
            }
            later = true;
            item.plan = None;
            self.unacked_bytes -= item.batch.bytes.len();
            let mut pieces = Vec::new();
            match verdict {
                Some(Verdict::Timestamps) if item.is_clamped => {
                    clamp_failed = Some(self.last_error.clone().unwrap_or_default());
                    pieces.push(item);
                }
                Some(Verdict::Timestamps) => {
                    if let Some(batch) =
                        rebatch::clamp_timestamps(&item.batch, now.wall_ms, &limits)
                    {
                        item.batch = batch;
                    }
                    item.is_clamped = true;
                    pieces.push(Item::changed(item));
                }
                _ => match rebatch::split(&item.batch, &limits) {
                    Some((left, right)) => {
                        settle_resumed(&mut self.resume, &item);
                        for batch in [left, right] {
                            let mut piece = Item::new(item.lane, batch);
                            piece.is_clamped = item.is_clamped;
                            pieces.push(piece);
                        }
                    }
                    None => {
                        settle_resumed(&mut self.resume, &item);
                        self.totals.skipped_records += u64::from(item.batch.count);
                        let reason = self.last_error.clone().unwrap_or_default();
                        push_range(&mut self.skipped, &item.batch, &reason);
                        // Passed by: the stream goes on behind it.
                        if let Some(stream) = self.streams.get_mut(&item.batch.stream) {
                            stream.end = Some(item.batch.end);
                            stream.end_at = stream.end_at.max(item.batch.last_at);
                        }
                        self.progress_since_us.get_or_insert(now.mono_us);
                    }
                },
            }
            for piece in pieces {
                self.unacked_bytes += piece.batch.bytes.len();
                entry.queue.push_back(piece);
            }
        }
        let topic = entry.topic;
        if entry.queue.is_empty() {
            entry.mode = Mode::Flow;
            self.active.remove(&target);
            self.recovering.remove(&target);
        }
        self.note_unplanned(target);
        self.wake(target);
        self.finish_resume_if_settled();
        if let Some(reason) = clamp_failed {
            let reason = format!("{reason}; is this gateway's clock right?");
            self.refuse_topic(topic, reason, now);
        }
    }
}

fn settle_resumed(resume: &mut Option<super::resuming::Resume>, item: &Item) {
    if item.is_resumed
        && let Some(resume) = resume
    {
        resume.unsettled = resume.unsettled.saturating_sub(1);
    }
}

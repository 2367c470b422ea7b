//! A lane that is full: who waits, who is given back what they sent, and how it ends.
//!
//! - What was appended and could not be written goes back in front of what waits (`hold_back`), so that all of it can
//!   be given back as long as it is nowhere on disk.
//! - A submission whose time is over ([`Submission::give_back_at_us`]) fails with [`Failure::Full`]: nothing of it is
//!   stored, or will be. One that was written in part is held until the rest has room, and so is what shares a group
//!   with that rest.
//! - Definitions of streams need no room and are taken out of their turn: topics of other lanes wait for nothing. So
//!   are removed streams and new log starts: they are what makes room.
//! - It is tried again every second, and when the uplink moves; the first group that fits opens the lane.

use std::collections::VecDeque;
use std::time::Duration;

use edge_log::FullCause;

use super::{LaneThread, Pending};
use crate::clock::boottime_us;
use crate::lane_handle::LaneState;
use crate::submission::{Body, Completion, Failure, Outcome, Submission};

/// Pause between looks at a full lane; progress of the uplink wakes it earlier.
const FULL_CHECK: Duration = Duration::from_secs(1);

impl LaneThread {
    /// Puts what was appended and not written back in front of what waits. QoS 0 does not wait.
    pub(super) fn hold_back(&mut self) {
        if self.group_is_fixed {
            return;
        }
        self.lane.discard_records();
        self.bound_events.clear();
        self.handle.count_dropped(std::mem::take(&mut self.droppable_records));
        let mut stays = Vec::new();
        for pending in self.pending.drain(..).rev() {
            match pending.body {
                Some(body) => self.waiting.push_front(Submission {
                    body,
                    completion: pending.completion,
                    droppable: false,
                    give_back_at_us: pending.give_back_at_us,
                }),
                None => stays.push(pending),
            }
        }
        stays.reverse();
        self.pending = stays;
    }

    /// Waits a moment for room, gives back what has waited long enough.
    pub(super) fn wait_for_room(&mut self) {
        let is_disk = matches!(self.lane.full_cause(), FullCause::Disk { .. });
        let reserve = self.source.reserve.as_ref().filter(|_| is_disk);
        if reserve.is_some_and(|reserve| reserve.release("a group of the system lane waits")) {
            return;
        }
        if self.handle.state() != LaneState::Full {
            let error = self.lane.full_cause().to_string();
            tracing::warn!(lane = self.handle.name(), error, "publishes wait for room");
            self.handle.set_state(LaneState::Full, Some(error));
        }
        self.serve_waiting();
        let nothing_waits = self.waiting.is_empty() && self.lane.pending_bytes() == 0;
        if nothing_waits && self.current.is_none() {
            return;
        }
        let now_us = boottime_us();
        let of_waiting = self.waiting.iter().filter_map(|waiting| waiting.give_back_at_us).min();
        let of_queue = self.handle.queue().first_give_back_us();
        let next_us = of_waiting.into_iter().chain(of_queue).min();
        let pause = next_us.map_or(FULL_CHECK, |at_us| {
            Duration::from_micros(at_us.saturating_sub(now_us).max(1)).min(FULL_CHECK)
        });
        self.handle.queue().sleep(usize::MAX, Some(pause));
        if let Some(position) = self.handle.upstream() {
            self.lane.handle_upstream(position);
        }
    }

    /// Nothing waits in a full lane: nobody's commit finds out that there is room again.
    pub(super) fn idle_while_full(&mut self, now_us: u64) {
        while self.maintain(now_us) {}
        if self.lane.has_room() {
            tracing::info!(lane = self.handle.name(), "the lane has room again");
            self.handle.set_state(LaneState::Open, None);
        } else {
            self.handle.queue().sleep(1, Some(FULL_CHECK));
        }
    }

    fn serve_waiting(&mut self) {
        let now_us = boottime_us();
        let is_due = |submission: &Submission| {
            matches!(submission.body, Body::Define(_) | Body::Remove(_) | Body::LogStart(_))
                || submission.give_back_at_us.is_some_and(|at_us| at_us <= now_us)
        };
        let mut due = Vec::new();
        if self.waiting.iter().any(is_due) {
            let mut stays = VecDeque::with_capacity(self.waiting.len());
            for submission in self.waiting.drain(..) {
                if is_due(&submission) {
                    due.push(submission);
                } else {
                    stays.push_back(submission);
                }
            }
            self.waiting = stays;
        }
        due.extend(self.handle.queue().take_some(is_due));
        for submission in due {
            let records = submission.records();
            let result = match submission.body {
                Body::Remove(streams) => {
                    streams.into_iter().for_each(|stream| self.remove(stream));
                    self.pending.extend(submission.completion.map(Pending::without_records));
                    continue;
                }
                Body::LogStart(starts) => {
                    let mut moved = starts.into_iter();
                    match moved
                        .try_for_each(|(stream, at)| self.lane.set_log_start(stream, at).map(drop))
                    {
                        Ok(()) => {
                            self.pending
                                .extend(submission.completion.map(Pending::without_records));
                            continue;
                        }
                        Err(_) => Err(Failure::Unstorable),
                    }
                }
                Body::Define(definitions) => {
                    for (definition, retention) in definitions {
                        self.define(definition, retention);
                    }
                    Ok(())
                }
                _ => {
                    self.handle.count_refused(records);
                    Err(Failure::Full)
                }
            };
            if let Some(Completion { sink, ticket }) = submission.completion {
                sink.complete(ticket, &Outcome { result, appended: &[] });
            }
        }
    }

    /// What was acknowledged before it was written (`durability = "interval"`), or was not to be acknowledged at all
    /// (acks=0), is lost with a lane that failed.
    pub(super) fn count_lost(&self) {
        let lost: usize = self.pending.iter().map(Pending::acknowledged_records).sum();
        if lost > 0 {
            tracing::error!(
                lane = self.handle.name(),
                records = lost,
                "records that nobody waited for any more are lost"
            );
            self.handle.count_dropped(lost);
        }
    }
}

impl Pending {
    /// Something else than records was put into the open group; whoever asked for it waits for the commit.
    fn without_records(completion: Completion) -> Self {
        Self {
            completion: Some(completion),
            appended: Vec::new(),
            body: None,
            give_back_at_us: None,
        }
    }

    /// Records whose sender was told already.
    fn acknowledged_records(&self) -> usize {
        match (&self.completion, &self.body) {
            (None, Some(body)) => body.records(),
            _ => 0,
        }
    }
}

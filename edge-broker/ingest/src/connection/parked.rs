//! Hand-overs that wait in their connection because the queue of their lane has no room.
//!
//! Lane by lane, in order of arrival: the first is on its way, the others stay behind it. While the lane is full they
//! are held; what its `refuse_after` says was held long enough is refused here, by the same rule as in the lane.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use edge_engine::clock::boottime_us;
use edge_engine::{Body, LaneHandle, LaneState, Refused, Submission};
use edge_mqtt::{Close, ReasonCode, Ticket};

use super::{Connection, InFlight};
use crate::mailbox::lane_of;
use crate::stats::count;

/// How soon a connection looks again whether a lane that makes it wait is full: nobody wakes it for that.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What waits for one lane.
pub(super) struct Parked {
    lane: Arc<LaneHandle>,
    first: Waiting,
    submitted: Pin<Box<dyn Future<Output = Result<(), Refused>> + Send>>,
    behind: VecDeque<(Waiting, Submission)>,
}

#[derive(Clone, Copy)]
struct Waiting {
    ticket: Option<Ticket>,
    give_back_at_us: Option<u64>,
}

/// Parks a submission behind those of its lane that wait already.
pub(super) fn park(
    parked: &mut Vec<Parked>,
    lane: &Arc<LaneHandle>,
    ticket: Option<Ticket>,
    mut submission: Submission,
) {
    if let Body::Chunk(chunk) = &mut submission.body
        && let Some(chunk) = Arc::get_mut(chunk)
    {
        // It was made for a whole read, and may stay for long.
        chunk.data.shrink_to_fit();
        chunk.records.shrink_to_fit();
    }
    let waiting = Waiting { ticket, give_back_at_us: submission.give_back_at_us };
    match parked.iter_mut().find(|parked| parked.is_of(lane)) {
        Some(parked) => parked.behind.push_back((waiting, submission)),
        None => parked.push(Parked {
            lane: lane.clone(),
            first: waiting,
            submitted: submitted(lane, submission),
            behind: VecDeque::new(),
        }),
    }
}

fn submitted(
    lane: &Arc<LaneHandle>,
    submission: Submission,
) -> Pin<Box<dyn Future<Output = Result<(), Refused>> + Send>> {
    let lane = lane.clone();
    Box::pin(async move { lane.submit(submission).await })
}

impl Parked {
    pub(super) fn is_of(&self, lane: &Arc<LaneHandle>) -> bool {
        Arc::ptr_eq(&self.lane, lane)
    }

    pub(super) fn lane_index(&self) -> usize {
        usize::from(self.lane.id().0)
    }

    /// Whose hand-overs wait.
    pub(super) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        let behind = self.behind.iter().map(|(waiting, _)| waiting);
        std::iter::once(&self.first).chain(behind).filter_map(|waiting| waiting.ticket)
    }

    /// Goes on to the one behind; false: there is none.
    fn next(&mut self) -> bool {
        let Some((waiting, submission)) = self.behind.pop_front() else { return false };
        self.first = waiting;
        self.submitted = submitted(&self.lane, submission);
        true
    }

    fn give_back_at_us(&self) -> Option<u64> {
        // The first is the oldest. Only a full lane gives back.
        self.first.give_back_at_us.filter(|_| self.lane.state() == LaneState::Full)
    }
}

impl Connection {
    /// Lanes that had no room.
    pub(super) fn poll_parked(&mut self, cx: &mut Context<'_>, now: Instant) {
        let mut index = 0;
        while let Some(parked) = self.parked.get_mut(index) {
            let mut refused = None;
            let has_more = match parked.submitted.as_mut().poll(cx) {
                Poll::Pending => {
                    if parked.give_back_at_us().is_none_or(|at_us| at_us > boottime_us()) {
                        index += 1;
                        continue;
                    }
                    refused = parked.first.ticket;
                    parked.next()
                }
                Poll::Ready(Ok(())) => parked.next(),
                Poll::Ready(Err(_shutting_down)) => {
                    let reason = ReasonCode::ServerShuttingDown;
                    self.session.close(Close::Broker(reason), &mut self.out);
                    false
                }
            };
            if !has_more {
                self.parked.swap_remove(index);
            }
            if let Some(ticket) = refused
                && let Some(at) = self.in_flight.iter().position(|known| known.ticket == ticket)
                && let Some(refused) = self.in_flight.remove(at)
            {
                if let Some(lane) = self.shared.lanes.get(lane_of(ticket.0)) {
                    lane.count_refused(refused.publishes);
                }
                self.refuse(&refused);
            }
        }
        if self.parked.iter().any(|parked| parked.first.give_back_at_us.is_some()) {
            self.look_again_soon(now);
        }
    }

    /// Tells the client that nothing of a hand-over is stored.
    pub(super) fn refuse(&mut self, refused: &InFlight) {
        self.in_flight_bytes.release(refused.ticket, refused.publishes, refused.bytes);
        count(&self.shared.stats.publishes_refused, refused.publishes as u64);
        let pubacks = self.session.handle_refused(refused.ticket, &mut self.out);
        count(&self.shared.stats.pubacks, pubacks as u64);
    }

    /// Acknowledges what is durable although something before it waits for a lane that is full.
    pub(super) fn overtake_full_lanes(&mut self, now: Instant) {
        if self.session.unacknowledged() <= self.in_flight_bytes.publishes() {
            return;
        }
        let full = self.shared.lanes.iter().enumerate().fold(0, |bits, (index, lane)| {
            bits | u32::from(lane.state() == LaneState::Full) << index
        });
        let lane_bit = |ticket: Ticket| 1 << lane_of(ticket.0);
        let pubacks = self.session.overtake(full, lane_bit, &mut self.out);
        if pubacks > 0 {
            count(&self.shared.stats.pubacks, pubacks as u64);
        }
        if self.session.unacknowledged() > self.in_flight_bytes.publishes() {
            self.look_again_soon(now);
        }
    }

    /// Nobody wakes a connection when a lane turns out to be full.
    pub(super) fn look_again_soon(&mut self, now: Instant) {
        self.look_again_at.get_or_insert(now + LOOK_AGAIN);
    }
}

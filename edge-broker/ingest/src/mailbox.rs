//! What others want of a connection: completions from lanes, word that its session has messages, orders from
//! the listener. One wake-up for all of it until the connection looks.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Waker;

use edge_auth::Identity;
use edge_engine::{CompletionSink, Failure, Outcome};
use edge_mqtt::{ReasonCode, Ticket};

/// Tickets carry the lane in their low byte: one number says which lane's hand-over it was, and
/// within a lane tickets only grow.
const LANE_BITS: u32 = 8;

/// The ticket of the `sequence`-th hand-over of a connection, to the lane with this index.
pub(crate) fn ticket(sequence: u64, lane: u8) -> Ticket {
    Ticket((sequence << LANE_BITS) | u64::from(lane))
}

/// Index of the lane that a ticket belongs to.
pub(crate) fn lane_of(ticket: u64) -> usize {
    usize::from(ticket.to_le_bytes()[0])
}

/// One per connection.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Never used again.
    id: u64,
    /// Who it is, and whether it connects from this machine; set once, at CONNECT.
    identity: OnceLock<(Identity, bool)>,
    waker: Mutex<Option<Waker>>,
    /// Something is here that the connection has not looked at.
    pending: AtomicBool,
    /// Per lane, the last ticket that is durable.
    durable: Box<[AtomicU64]>,
    /// Tickets that full lanes gave back. As many as hand-overs of the connection at most.
    refused: Mutex<Vec<u64>>,
    any_refused: AtomicBool,
    /// A hand-over failed: 0 for no, else a [`Failure`].
    failed: AtomicU8,
    /// An order: 0 for none, else a reason code.
    order: AtomicU8,
}

/// What became of a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Open,
    Durable,
    /// The lane was full for too long and gave it back.
    Refused,
}

impl Mailbox {
    pub(crate) fn new(id: u64, lanes: usize) -> Self {
        Self {
            id,
            identity: OnceLock::new(),
            waker: Mutex::default(),
            pending: AtomicBool::new(false),
            durable: (0..lanes).map(|_| AtomicU64::new(0)).collect(),
            refused: Mutex::default(),
            any_refused: AtomicBool::new(false),
            failed: AtomicU8::new(0),
            order: AtomicU8::new(0),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// It is known now who this is.
    pub(crate) fn identify(&self, identity: Identity, is_local: bool) {
        let _only_once = self.identity.set((identity, is_local));
    }

    /// Who it is, once connected, and whether it connects from this machine.
    pub(crate) fn identity(&self) -> Option<&(Identity, bool)> {
        self.identity.get()
    }

    /// Called by the connection before it looks, so that no wake-up is missed.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut known = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Whether there is anything new since the last look.
    pub(crate) fn look(&self) -> bool {
        self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::AcqRel)
    }

    /// There is something to look at.
    pub(crate) fn wake(&self) {
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake_by_ref();
        }
    }

    /// What became of the hand-over with this ticket. That it was refused is told once.
    pub(crate) fn fate(&self, ticket: Ticket) -> Fate {
        // In this order: what was refused is noted before anything later of its lane is durable.
        let durable = self.durable.get(lane_of(ticket.0));
        let is_durable = durable.is_some_and(|durable| durable.load(Ordering::Acquire) >= ticket.0);
        if self.any_refused.load(Ordering::Acquire) {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = refused.iter().position(|known| *known == ticket.0) {
                refused.swap_remove(at);
                self.any_refused.store(!refused.is_empty(), Ordering::Release);
                return Fate::Refused;
            }
        }
        if is_durable { Fate::Durable } else { Fate::Open }
    }

    /// Why a hand-over failed, if one did.
    pub(crate) fn failure(&self) -> Option<Failure> {
        match self.failed.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Failure::Poisoned),
            2 => Some(Failure::ShuttingDown),
            _ => Some(Failure::Unstorable),
        }
    }

    /// Tells the connection to end. The first order stands.
    pub(crate) fn order(&self, reason: ReasonCode) {
        let _first_wins =
            self.order.compare_exchange(0, reason.byte(), Ordering::AcqRel, Ordering::Relaxed);
        self.wake();
    }

    pub(crate) fn ordered(&self) -> Option<ReasonCode> {
        match self.order.load(Ordering::Acquire) {
            0 => None,
            code if code == ReasonCode::SessionTakenOver.byte() => {
                Some(ReasonCode::SessionTakenOver)
            }
            code if code == ReasonCode::AdministrativeAction.byte() => {
                Some(ReasonCode::AdministrativeAction)
            }
            code if code == ReasonCode::NotAuthorized.byte() => Some(ReasonCode::NotAuthorized),
            _ => Some(ReasonCode::ServerShuttingDown),
        }
    }
}

impl CompletionSink for Mailbox {
    fn complete(&self, ticket: u64, outcome: &Outcome<'_>) {
        match outcome.result {
            Ok(()) => {
                // After a failure nothing is reported durable any more: a later ticket would speak for
                // the one that failed.
                if let Some(durable) = self.durable.get(lane_of(ticket))
                    && self.failed.load(Ordering::Acquire) == 0
                {
                    durable.store(ticket, Ordering::Release);
                }
            }
            Err(Failure::Full) => {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.push(ticket);
                self.any_refused.store(true, Ordering::Release);
            }
            Err(failure) => {
                let code = match failure {
                    Failure::Poisoned => 1,
                    Failure::ShuttingDown => 2,
                    Failure::Unstorable | Failure::Full => 3,
                };
                self.failed.store(code, Ordering::Release);
            }
        }
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(result: Result<(), Failure>) -> Outcome<'static> {
        Outcome { result, appended: &[] }
    }

    #[test]
    fn lanes_complete_independently() {
        let mailbox = Mailbox::new(1, 2);
        let (first, second) = (ticket(1, 0), ticket(2, 1));
        mailbox.complete(second.0, &outcome(Ok(())));
        assert_eq!((mailbox.fate(second), mailbox.fate(first)), (Fate::Durable, Fate::Open));
        assert_eq!(mailbox.fate(ticket(3, 1)), Fate::Open);
        assert!(mailbox.look() && !mailbox.look());
    }

    #[test]
    fn what_follows_a_failure_in_its_lane_is_not_taken_for_its_success() {
        let mailbox = Mailbox::new(1, 1);
        mailbox.complete(ticket(1, 0).0, &outcome(Err(Failure::Poisoned)));
        assert_eq!(mailbox.failure(), Some(Failure::Poisoned));
        mailbox.complete(ticket(2, 0).0, &outcome(Ok(())));
        assert_eq!(mailbox.failure(), Some(Failure::Poisoned), "it is remembered");
        assert_eq!(mailbox.fate(ticket(1, 0)), Fate::Open);
    }

    #[test]
    fn what_was_refused_is_not_taken_for_durable_when_something_later_is() {
        let mailbox = Mailbox::new(1, 1);
        mailbox.complete(ticket(1, 0).0, &outcome(Err(Failure::Full)));
        mailbox.complete(ticket(2, 0).0, &outcome(Ok(())));
        assert_eq!(mailbox.fate(ticket(1, 0)), Fate::Refused);
        assert_eq!(mailbox.fate(ticket(2, 0)), Fate::Durable);
        assert_eq!(mailbox.failure(), None, "the connection goes on");
    }

    #[test]
    fn the_first_order_stands() {
        let mailbox = Mailbox::new(1, 1);
        mailbox.order(ReasonCode::SessionTakenOver);
        mailbox.order(ReasonCode::ServerShuttingDown);
        assert_eq!(mailbox.ordered(), Some(ReasonCode::SessionTakenOver));
    }
}

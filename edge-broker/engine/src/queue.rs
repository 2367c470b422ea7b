//! The queue in front of a lane: bounded in bytes, many producers, one consumer.
//!
//! - A producer wakes the lane's thread only when the thread said it wants to be woken: while it syncs
//!   or fills a commit window, pushes cost no system call.
//! - At the limit a producer is refused and waits for [`Queue::room`]. Definitions of streams pass: they are small,
//!   come one at a time, and a lane that is full takes them out of their turn.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::submission::{Body, Submission};

/// Bytes that a submission counts for beside its payload: bookkeeping of ours.
const OVERHEAD_BYTES: usize = 128;

/// Bounded hand-over between listeners and one lane thread.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    room: Notify,
    limit_bytes: usize,
}

#[derive(Default)]
struct Inner {
    submissions: VecDeque<Submission>,
    bytes: usize,
    /// The thread sleeps and wants to be woken once this many bytes wait. `None`: it is awake.
    wake_at_bytes: Option<usize>,
    nudged: bool,
    producers_wait: bool,
    closed: bool,
}

/// Why a push did not happen; gives the submission back.
pub(crate) enum PushError {
    /// The limit is reached; wait for [`Queue::room`].
    NoRoom(Submission),
    /// The lane is closed for good.
    Closed(Submission),
}

impl Queue {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), room: Notify::new(), limit_bytes }
    }

    /// Adds a submission. One that is larger than the whole limit is taken when the queue is empty.
    pub(crate) fn push(&self, submission: Submission) -> Result<(), PushError> {
        let cost = cost_bytes(&submission);
        let mut inner = self.lock();
        if inner.closed {
            return Err(PushError::Closed(submission));
        }
        let is_bounded = !matches!(submission.body, Body::Define(_));
        if is_bounded && inner.bytes > 0 && inner.bytes + cost > self.limit_bytes {
            inner.producers_wait = true;
            return Err(PushError::NoRoom(submission));
        }
        inner.bytes += cost;
        inner.submissions.push_back(submission);
        let wake = inner.wake_at_bytes.is_some_and(|at| inner.bytes >= at);
        if wake {
            inner.wake_at_bytes = None;
        }
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Resolves when there may be room again. Create it before the push that is refused, or poll it
    /// once first, so that no wake-up is missed.
    pub(crate) fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.notified()
    }

    /// Moves everything that waits to `into`. Returns false when closed and empty.
    pub(crate) fn take(&self, into: &mut VecDeque<Submission>) -> bool {
        let mut inner = self.lock();
        if into.is_empty() {
            std::mem::swap(&mut inner.submissions, into);
        } else {
            into.append(&mut inner.submissions);
        }
        inner.bytes = 0;
        let open = !inner.closed || !into.is_empty();
        let waiters = std::mem::take(&mut inner.producers_wait);
        drop(inner);
        if waiters {
            self.room.notify_waiters();
        }
        open
    }

    /// Takes out what `wanted` says yes to, in order; everything else stays as it is.
    pub(crate) fn take_some(&self, mut wanted: impl FnMut(&Submission) -> bool) -> Vec<Submission> {
        let mut inner = self.lock();
        if !inner.submissions.iter().any(&mut wanted) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for submission in std::mem::take(&mut inner.submissions) {
            if wanted(&submission) {
                inner.bytes -= cost_bytes(&submission).min(inner.bytes);
                taken.push(submission);
            } else {
                inner.submissions.push_back(submission);
            }
        }
        let waiters = std::mem::take(&mut inner.producers_wait);
        drop(inner);
        if waiters {
            self.room.notify_waiters();
        }
        taken
    }

    /// When the first of what waits is to be given back, if anything is.
    pub(crate) fn first_give_back_us(&self) -> Option<u64> {
        self.lock().submissions.iter().filter_map(|waiting| waiting.give_back_at_us).min()
    }

    /// Sleeps until `bytes` wait in the queue, somebody nudges, or the time is over.
    pub(crate) fn sleep(&self, bytes: usize, timeout: Option<Duration>) {
        let mut inner = self.lock();
        if inner.bytes >= bytes.max(1) || inner.nudged || inner.closed {
            inner.nudged = false;
            return;
        }
        inner.wake_at_bytes = Some(bytes.max(1));
        let mut inner = match timeout {
            Some(timeout) => {
                self.wake
                    .wait_timeout_while(inner, timeout, still_asleep)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => {
                self.wake.wait_while(inner, still_asleep).unwrap_or_else(PoisonError::into_inner)
            }
        };
        inner.wake_at_bytes = None;
        inner.nudged = false;
    }

    /// Wakes the thread whatever waits: something outside the queue changed.
    pub(crate) fn nudge(&self) {
        let mut inner = self.lock();
        inner.nudged = true;
        inner.wake_at_bytes = None;
        drop(inner);
        self.wake.notify_one();
    }

    /// No more submissions; what waits is still taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
        self.room.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn still_asleep(inner: &mut Inner) -> bool {
    inner.wake_at_bytes.is_some() && !inner.nudged && !inner.closed
}

fn cost_bytes(submission: &Submission) -> usize {
    OVERHEAD_BYTES
        + match &submission.body {
            Body::Chunk(chunk) => {
                chunk.data.len() + chunk.envelope_bytes.len() + 24 * chunk.records.len()
            }
            Body::Batches(batches) => batches.iter().map(|batch| batch.bytes.len()).sum(),
            Body::Events(events) => events.iter().map(|(_, bytes)| bytes.len()).sum(),
            Body::Define(definitions) => 64 * definitions.len(),
            Body::Remove(streams) => 8 * streams.len(),
            Body::LogStart(starts) => 16 * starts.len(),
        }
}

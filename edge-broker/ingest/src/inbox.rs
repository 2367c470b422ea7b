//! What waits for one session: deliveries, for a client that is connected or will be.
//!
//! Limits, in bytes: [`delivery_queue_bytes_max`](crate::MqttOptions::delivery_queue_bytes_max) for each session; what
//! waits for clients that are away also counts against
//! [`offline_bytes_max`](crate::MqttOptions::offline_bytes_max) for all of them together. Beyond either the newest are
//! dropped and counted. QoS 0 does not wait for a client that is away.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use edge_auth::Identity;
use edge_mqtt::{Delivery, Qos, SubscriberId};

use crate::lasting::Lasting;
use crate::mailbox::Mailbox;

/// One per session.
#[derive(Debug)]
pub(crate) struct Inbox {
    id: SubscriberId,
    /// Who the client is: decides what it may get.
    identity: RwLock<Identity>,
    queue: Mutex<Queue>,
    bytes_max: usize,
    offline: Arc<OfflineBytes>,
    /// The client does not take as much as it gets: others of a shared subscription come first.
    is_busy: AtomicBool,
    /// What is stored is read from the log for it, not kept here.
    lasting: OnceLock<Arc<Lasting>>,
}

/// Whom of a shared subscription a message is offered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Connected, and takes what it gets.
    Idle,
    /// Connected.
    Here,
    /// Also one that is away: not with QoS 0.
    Any,
}

/// Bytes that wait for clients that are away, all sessions together.
#[derive(Debug)]
pub(crate) struct OfflineBytes {
    now: AtomicUsize,
    max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Of these, counted in [`OfflineBytes`].
    offline_bytes: usize,
    /// The connection that takes them. `None`: the client is away.
    connection: Option<Arc<Mailbox>>,
    /// Lost since the client was last told.
    missed: u64,
    /// The session has ended.
    closed: bool,
}

impl OfflineBytes {
    pub(crate) fn new(max: usize) -> Self {
        Self { now: AtomicUsize::new(0), max }
    }

    fn add(&self, bytes: usize) -> bool {
        let add = |now: usize| (now + bytes <= self.max).then_some(now + bytes);
        self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn take_back(&self, bytes: usize) {
        self.now.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Inbox {
    pub(crate) fn new(
        id: SubscriberId,
        identity: Identity,
        bytes_max: usize,
        offline: Arc<OfflineBytes>,
    ) -> Self {
        let (identity, queue) = (RwLock::new(identity), Mutex::default());
        let (is_busy, lasting) = (AtomicBool::new(false), OnceLock::new());
        Self { id, identity, queue, bytes_max, offline, is_busy, lasting }
    }

    pub(crate) fn id(&self) -> SubscriberId {
        self.id
    }

    /// Its way through the log, if it outlives its connection.
    pub(crate) fn lasting(&self) -> Option<&Arc<Lasting>> {
        self.lasting.get()
    }

    /// It is kept over a restart from now on.
    pub(crate) fn last(&self, lasting: Arc<Lasting>) {
        let _only_once = self.lasting.set(lasting);
    }

    /// A message that is stored was published: from the log it is read in its turn.
    pub(crate) fn deliver_stored(&self, delivery: Delivery) -> bool {
        let is_read = delivery.qos != Qos::AtMostOnce && delivery.share.is_none();
        if !is_read || self.lasting.get().is_none() {
            return self.deliver(delivery);
        }
        if let Some(connection) = &self.queue().connection {
            connection.wake();
        }
        true
    }

    pub(crate) fn with_identity<T>(&self, look: impl FnOnce(&Identity) -> T) -> T {
        look(&self.identity.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client is here: deliveries go to this connection. Returns how many were lost since the last time.
    pub(crate) fn attach(&self, connection: Arc<Mailbox>, identity: Identity) -> u64 {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        let mut queue = self.queue();
        self.offline.take_back(std::mem::take(&mut queue.offline_bytes));
        connection.wake();
        queue.connection = Some(connection);
        std::mem::take(&mut queue.missed)
    }

    /// The client is away. What its connection had taken and not sent goes back to the front.
    pub(crate) fn detach(&self, not_sent: VecDeque<Delivery>) {
        let mut queue = self.queue();
        queue.connection = None;
        let later = std::mem::take(&mut queue.deliveries);
        queue.bytes = 0;
        for delivery in not_sent.into_iter().chain(later) {
            self.keep(&mut queue, delivery);
        }
    }

    /// Keeps a delivery for a client that is away, if there is room.
    fn keep(&self, queue: &mut Queue, mut delivery: Delivery) -> bool {
        if delivery.qos == Qos::AtMostOnce {
            return true;
        }
        let cost = delivery.message.cost_bytes();
        if queue.bytes + cost > self.bytes_max || !self.offline.add(cost) {
            queue.missed += 1;
            return false;
        }
        delivery.message = delivery.message.compact();
        queue.bytes += cost;
        queue.offline_bytes += cost;
        queue.deliveries.push_back(delivery);
        true
    }

    /// Hands a message over; false when there is no room for it.
    pub(crate) fn deliver(&self, delivery: Delivery) -> bool {
        let cost = delivery.message.cost_bytes();
        let mut queue = self.queue();
        if queue.closed {
            return true;
        }
        let Some(connection) = queue.connection.clone() else {
            return self.keep(&mut queue, delivery);
        };
        if queue.bytes + cost > self.bytes_max && !queue.deliveries.is_empty() {
            queue.missed += 1;
            return false;
        }
        queue.bytes += cost;
        queue.deliveries.push_back(delivery);
        drop(queue);
        connection.wake();
        true
    }

    /// As a member of a shared subscription. False: somebody else is to have it.
    pub(crate) fn offer(&self, delivery: Delivery, wanted: Wanted) -> bool {
        if wanted == Wanted::Idle && self.is_busy.load(Ordering::Relaxed) {
            return false;
        }
        let cost = delivery.message.cost_bytes();
        let mut queue = self.queue();
        let is_full = queue.bytes + cost > self.bytes_max && !queue.deliveries.is_empty();
        if queue.closed || is_full {
            return false;
        }
        let Some(connection) = queue.connection.clone() else {
            let may_wait = wanted == Wanted::Any && delivery.qos != Qos::AtMostOnce;
            return may_wait && self.keep(&mut queue, delivery);
        };
        queue.bytes += cost;
        queue.deliveries.push_back(delivery);
        drop(queue);
        connection.wake();
        true
    }

    /// Whether the client is behind with what it gets.
    pub(crate) fn set_busy(&self, is_busy: bool) {
        if self.is_busy.load(Ordering::Relaxed) != is_busy {
            self.is_busy.store(is_busy, Ordering::Relaxed);
        }
    }

    /// Takes everything that waits, swapping it with `into`, which is empty. Returns its bytes.
    pub(crate) fn take(&self, into: &mut VecDeque<Delivery>) -> usize {
        let mut queue = self.queue();
        std::mem::swap(&mut queue.deliveries, into);
        std::mem::take(&mut queue.bytes)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.queue().bytes
    }

    /// No more deliveries. Returns those that wait.
    pub(crate) fn close(&self) -> VecDeque<Delivery> {
        let mut queue = self.queue();
        queue.closed = true;
        queue.bytes = 0;
        queue.connection = None;
        self.offline.take_back(std::mem::take(&mut queue.offline_bytes));
        std::mem::take(&mut queue.deliveries)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

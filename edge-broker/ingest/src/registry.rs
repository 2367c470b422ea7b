//! Who is connected and who subscribes to what: what connections know of each other.
//!
//! Publishers cache who gets a topic and look here only after [`Registry::generation`] has moved, so
//! that a message costs no lock. Locks are held for a lookup, never across anything that waits.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use edge_auth::{Access, Action, Identity};
use edge_mqtt::{
    Delivery, Message, Qos, ReasonCode, SubscriberId, SubscriptionLimits, SubscriptionOptions,
    Subscriptions,
};
use hashbrown::HashMap;

use crate::inbox::Inbox;
use crate::intake::Held;
use crate::mailbox::Mailbox;
use crate::shared::Shared;
use crate::stats::count;

/// One subscriber of a topic.
#[derive(Debug)]
pub(crate) struct Recipient {
    inbox: Arc<Inbox>,
    qos: Qos,
    retain_as_published: bool,
    subscription_ids: Vec<NonZeroU32>,
}

/// Everybody who gets what is published to one topic.
pub(crate) type Recipients = Arc<[Recipient]>;

#[derive(Debug)]
pub(crate) struct Registry {
    subscriptions: RwLock<Subscriptions>,
    /// That of `subscriptions`, readable without a lock. 0: there are no subscriptions.
    generation: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<Mailbox>>>,
    /// Of sessions, whether their client is here or not.
    inboxes: Mutex<HashMap<SubscriberId, Arc<Inbox>>>,
}

impl Registry {
    pub(crate) fn new(limits: SubscriptionLimits) -> Self {
        Self {
            subscriptions: RwLock::new(Subscriptions::new(limits)),
            generation: AtomicU64::new(0),
            connections: Mutex::default(),
            inboxes: Mutex::default(),
        }
    }

    /// Moves with every change of subscriptions; 0 while there are none.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A connection is here.
    pub(crate) fn add(&self, mailbox: Arc<Mailbox>) {
        self.connections().insert(mailbox.id(), mailbox);
    }

    /// A connection is gone.
    pub(crate) fn remove(&self, mailbox: &Mailbox) {
        self.connections().remove(&mailbox.id());
    }

    /// A session may subscribe.
    pub(crate) fn enter(&self, inbox: &Arc<Inbox>) {
        self.inboxes().insert(inbox.id(), inbox.clone());
    }

    /// A session has ended, and with it its subscriptions.
    pub(crate) fn forget(&self, inbox: &Inbox) {
        self.change(|subscriptions| subscriptions.remove(inbox.id()));
        self.inboxes().remove(&inbox.id());
    }

    /// Tells every connection to end.
    pub(crate) fn shut_down(&self) {
        for mailbox in self.connections().values() {
            mailbox.order(ReasonCode::ServerShuttingDown);
        }
    }

    pub(crate) fn subscribe(
        &self,
        subscriber: SubscriberId,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<bool, ReasonCode> {
        self.change(|subscriptions| subscriptions.subscribe(subscriber, filter, options))
    }

    /// Filters of all subscribers.
    pub(crate) fn subscription_count(&self) -> usize {
        self.subscriptions.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn unsubscribe(&self, subscriber: SubscriberId, filter: &str) -> bool {
        self.change(|subscriptions| subscriptions.unsubscribe(subscriber, filter))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Subscriptions) -> T) -> T {
        let mut subscriptions = self.subscriptions.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut subscriptions);
        let generation = if subscriptions.is_empty() { 0 } else { subscriptions.generation() };
        self.generation.store(generation, Ordering::Release);
        result
    }

    /// Users and rules have changed: who may not be here any more is told to go. Returns how many.
    pub(crate) fn recheck(&self, access: &Access) -> usize {
        let mut sent_away = 0;
        for mailbox in self.connections().values() {
            if let Some((identity, is_local)) = mailbox.identity()
                && !access.still_knows(identity, *is_local)
            {
                mailbox.order(ReasonCode::NotAuthorized);
                sent_away += 1;
            }
        }
        sent_away
    }

    /// Everybody who gets what `publisher` publishes to `topic`: who subscribes to it and may.
    pub(crate) fn recipients(
        &self,
        topic: &str,
        publisher: Option<SubscriberId>,
        access: &Access,
    ) -> Recipients {
        let found = {
            let subscriptions = self.subscriptions.read().unwrap_or_else(PoisonError::into_inner);
            subscriptions.matches(topic, publisher)
        };
        if found.is_empty() {
            return Recipients::default();
        }
        let inboxes = self.inboxes();
        found
            .into_iter()
            .filter_map(|found| {
                let inbox = inboxes.get(&found.subscriber)?.clone();
                let may_get = |identity: &Identity| {
                    access.topic(identity, Action::Subscribe, topic).is_allowed()
                };
                if !inbox.with_identity(may_get) {
                    return None;
                }
                Some(Recipient {
                    inbox,
                    qos: found.qos,
                    retain_as_published: found.retain_as_published,
                    subscription_ids: found.subscription_ids,
                })
            })
            .collect()
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Mailbox>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inboxes(&self) -> MutexGuard<'_, HashMap<SubscriberId, Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands `message` to its recipients. Returns how many took it and how many had no room.
pub(crate) fn fan_out(message: &Message, recipients: &[Recipient]) -> (u64, u64) {
    let (mut taken, mut dropped) = (0, 0);
    for recipient in recipients {
        let delivery = Delivery {
            message: message.clone(),
            qos: recipient.qos.min(message.qos),
            retain: message.retain && recipient.retain_as_published,
            subscription_ids: recipient.subscription_ids.clone(),
            tag: 0,
            share: None,
        };
        if recipient.inbox.deliver(delivery) {
            taken += 1;
        } else {
            dropped += 1;
        }
    }
    (taken, dropped)
}

/// What becomes durable: several messages to their recipients, and into what is retained.
pub(crate) fn fan_out_all(shared: &Shared, held: &[Held]) {
    let (mut taken, mut dropped) = (0, 0);
    for held in held {
        if held.retained_as != 0 {
            shared.retain(held.retained_as, &held.message, Instant::now());
        }
        let (more_taken, more_dropped) = fan_out(&held.message, &held.recipients);
        taken += more_taken;
        dropped += more_dropped;
    }
    if taken + dropped > 0 {
        count(&shared.stats.deliveries, taken);
        count(&shared.stats.deliveries_dropped, dropped);
    }
}

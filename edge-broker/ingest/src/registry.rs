//! Who is connected and who subscribes to what: what connections know of each other.
//!
//! Publishers cache who gets a topic and look here only after [`Registry::generation`] has moved, so
//! that a message costs no lock. Locks are held for a lookup, never across anything that waits.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use edge_auth::{Access, Action};
use edge_mqtt::{
    Delivery, Message, Qos, ReasonCode, SubscriberId, SubscriptionLimits, SubscriptionOptions,
    Subscriptions,
};
use hashbrown::HashMap;

use crate::mailbox::Mailbox;

/// One subscriber of a topic.
#[derive(Debug)]
pub(crate) struct Recipient {
    mailbox: Arc<Mailbox>,
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
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    by_id: HashMap<SubscriberId, Arc<Mailbox>>,
    by_client: HashMap<Box<str>, Arc<Mailbox>>,
}

impl Registry {
    pub(crate) fn new(limits: SubscriptionLimits) -> Self {
        Self {
            subscriptions: RwLock::new(Subscriptions::new(limits)),
            generation: AtomicU64::new(0),
            connections: Mutex::default(),
        }
    }

    /// Moves with every change of subscriptions; 0 while there are none.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self, mailbox: Arc<Mailbox>) {
        self.connections().by_id.insert(mailbox.id(), mailbox);
    }

    /// A connection got its client id. An older one with the same id is told to go.
    pub(crate) fn connect(&self, client_id: &str, mailbox: &Arc<Mailbox>) {
        let older = self.connections().by_client.insert(client_id.into(), mailbox.clone());
        if let Some(older) = older.filter(|older| older.id() != mailbox.id()) {
            older.order(ReasonCode::SessionTakenOver);
        }
    }

    /// A connection is gone.
    pub(crate) fn remove(&self, client_id: Option<&str>, mailbox: &Mailbox) {
        mailbox.close();
        self.change(|subscriptions| subscriptions.remove(mailbox.id()));
        let mut connections = self.connections();
        connections.by_id.remove(&mailbox.id());
        if let Some(client_id) = client_id
            && connections.by_client.get(client_id).is_some_and(|known| known.id() == mailbox.id())
        {
            connections.by_client.remove(client_id);
        }
    }

    /// Tells every connection to end.
    pub(crate) fn shut_down(&self) {
        for mailbox in self.connections().by_id.values() {
            mailbox.order(ReasonCode::ServerShuttingDown);
        }
    }

    pub(crate) fn subscribe(
        &self,
        subscriber: SubscriberId,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<(), ReasonCode> {
        self.change(|subscriptions| subscriptions.subscribe(subscriber, filter, options))
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
        for mailbox in self.connections().by_id.values() {
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
        publisher: SubscriberId,
        access: &Access,
    ) -> Recipients {
        let found = {
            let subscriptions = self.subscriptions.read().unwrap_or_else(PoisonError::into_inner);
            subscriptions.matches(topic, Some(publisher))
        };
        if found.is_empty() {
            return Recipients::default();
        }
        let connections = self.connections();
        found
            .into_iter()
            .filter_map(|found| {
                let mailbox = connections.by_id.get(&found.subscriber)?.clone();
                let (identity, _) = mailbox.identity()?;
                if !access.topic(identity, Action::Subscribe, topic).is_allowed() {
                    return None;
                }
                Some(Recipient {
                    mailbox,
                    qos: found.qos,
                    retain_as_published: found.retain_as_published,
                    subscription_ids: found.subscription_ids,
                })
            })
            .collect()
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
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
        };
        if recipient.mailbox.deliver(delivery) {
            taken += 1;
        } else {
            dropped += 1;
        }
    }
    (taken, dropped)
}

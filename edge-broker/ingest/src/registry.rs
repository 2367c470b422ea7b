//! Who is connected and who subscribes to what: what connections know of each other.
//!
//! Publishers cache who gets a topic and look here only after [`Registry::generation`] has moved, so
//! that a message costs no lock. Locks are held for a lookup, never across anything that waits.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use edge_auth::{Access, Action, Identity};
use edge_mqtt::{
    Delivery, Match, Message, Qos, ReasonCode, Share, SubscriberId, SubscriptionLimits,
    SubscriptionOptions, Subscriptions,
};
use hashbrown::HashMap;

use crate::inbox::{Inbox, Wanted};
use crate::intake::Held;
use crate::mailbox::Mailbox;
use crate::shared::Shared;
use crate::stats::count;

/// Who gets what is published to a topic, each message once.
#[derive(Debug)]
pub(crate) enum Recipient {
    One(Member),
    /// One of the members of a shared subscription.
    Share {
        filter: Arc<str>,
        members: Box<[Member]>,
        turn: Arc<AtomicUsize>,
    },
}

/// One subscriber of a topic.
#[derive(Debug)]
pub(crate) struct Member {
    inbox: Arc<Inbox>,
    qos: Qos,
    retain_as_published: bool,
    subscription_ids: Vec<NonZeroU32>,
}

type Inboxes = HashMap<SubscriberId, Arc<Inbox>>;

/// Everybody who gets what is published to one topic.
pub(crate) type Recipients = Arc<[Recipient]>;

#[derive(Debug)]
pub(crate) struct Registry {
    subscriptions: RwLock<Subscriptions>,
    /// That of `subscriptions`, readable without a lock. 0: there are no subscriptions.
    generation: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<Mailbox>>>,
    /// Of sessions, whether their client is here or not.
    inboxes: Mutex<Inboxes>,
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

    /// Looks at every session.
    pub(crate) fn for_each_session(&self, look: impl FnMut(&Arc<Inbox>)) {
        self.inboxes().values().for_each(look);
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
        let (found, shares) = {
            let subscriptions = self.subscriptions.read().unwrap_or_else(PoisonError::into_inner);
            (subscriptions.matches(topic, publisher), subscriptions.matching_shares(topic))
        };
        if found.is_empty() && shares.is_empty() {
            return Recipients::default();
        }
        let inboxes = self.inboxes();
        let single = found.into_iter().filter_map(|found| member(&inboxes, found, topic, access));
        let single = single.map(Recipient::One);
        single
            .chain(shares.into_iter().map(|share| shared(&inboxes, share, topic, access)))
            .collect()
    }

    /// A member of shared subscriptions has left for good: what it has not acknowledged goes to others. Returns how
    /// many there were no others for.
    pub(crate) fn pass_on(&self, orphans: Vec<Delivery>, access: &Access) -> u64 {
        let mut lost = 0;
        for orphan in orphans {
            let Some(filter) = &orphan.share else { continue };
            let share = {
                let subscriptions =
                    self.subscriptions.read().unwrap_or_else(PoisonError::into_inner);
                subscriptions.share(filter)
            };
            let recipient = share.and_then(|share| {
                let topic = std::str::from_utf8(orphan.message.topic()).ok()?;
                Some(shared(&self.inboxes(), share, topic, access))
            });
            let taken = recipient.map_or(0, |recipient| fan_out(&orphan.message, &[recipient]).0);
            lost += 1 - taken;
        }
        lost
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Mailbox>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inboxes(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has subscribed, if it may get what is published to `topic`.
fn member(inboxes: &Inboxes, found: Match, topic: &str, access: &Access) -> Option<Member> {
    let inbox = inboxes.get(&found.subscriber)?.clone();
    let may_get =
        |identity: &Identity| access.topic(identity, Action::Subscribe, topic).is_allowed();
    inbox.with_identity(may_get).then_some(Member {
        inbox,
        qos: found.qos,
        retain_as_published: found.retain_as_published,
        subscription_ids: found.subscription_ids,
    })
}

fn shared(inboxes: &Inboxes, share: Share, topic: &str, access: &Access) -> Recipient {
    let Share { filter, members, turn } = share;
    let members = members.into_iter().filter_map(|found| member(inboxes, found, topic, access));
    Recipient::Share { filter, members: members.collect(), turn }
}

impl Member {
    fn delivery(&self, message: &Message, share: Option<Arc<str>>) -> Delivery {
        Delivery {
            message: message.clone(),
            qos: self.qos.min(message.qos),
            retain: message.retain && self.retain_as_published,
            subscription_ids: self.subscription_ids.clone(),
            tag: 0,
            share,
        }
    }
}

impl Recipient {
    fn deliver(&self, message: &Message, deliver: fn(&Inbox, Delivery) -> bool) -> bool {
        match self {
            Self::One(member) => deliver(&member.inbox, member.delivery(message, None)),
            Self::Share { filter, members, turn } => {
                let (before, after) = members.split_at(match members.len() {
                    0 => 0,
                    count => turn.fetch_add(1, Ordering::Relaxed) % count,
                });
                // Who is here and takes it at once, then who is here, then who is away.
                [Wanted::Idle, Wanted::Here, Wanted::Any].into_iter().any(|wanted| {
                    after.iter().chain(before).any(|member| {
                        let share = Some(filter.clone());
                        member.inbox.offer(member.delivery(message, share), wanted)
                    })
                })
            }
        }
    }
}

/// Hands `message` to its recipients. Returns how many took it and how many had no room.
pub(crate) fn fan_out(message: &Message, recipients: &[Recipient]) -> (u64, u64) {
    hand_out(message, recipients, Inbox::deliver)
}

fn hand_out(
    message: &Message,
    recipients: &[Recipient],
    deliver: fn(&Inbox, Delivery) -> bool,
) -> (u64, u64) {
    let (mut taken, mut dropped) = (0, 0);
    for recipient in recipients {
        if recipient.deliver(message, deliver) {
            taken += 1;
        } else {
            dropped += 1;
        }
    }
    (taken, dropped)
}

/// What becomes durable: several messages to their recipients, and into what is retained. Those that cannot be rebuilt
/// from their records go to sessions that outlive their connection as to others.
pub(crate) fn fan_out_all(shared: &Shared, held: &[Held]) {
    let (mut taken, mut dropped) = (0, 0);
    for held in held {
        if held.retained_as != 0 {
            shared.retain(held.retained_as, &held.message, Instant::now());
        }
        let deliver = if held.is_in_log { Inbox::deliver_stored } else { Inbox::deliver };
        let (more_taken, more_dropped) = hand_out(&held.message, &held.recipients, deliver);
        taken += more_taken;
        dropped += more_dropped;
    }
    if taken + dropped > 0 {
        count(&shared.stats.deliveries, taken);
        count(&shared.stats.deliveries_dropped, dropped);
    }
}

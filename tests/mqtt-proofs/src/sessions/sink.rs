//! The broker around the sessions: hand-overs with tickets that become durable one by one.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use edge_mqtt::{
    Accepted, Connect, ConnectVerdict, Publish, PublishVerdict, Qos, ReasonCode, SessionSink,
    SessionState, SubscriberId, SubscriptionLimits, SubscriptionOptions, Subscriptions, Ticket,
    Unsubscribed,
};

use super::book::{Answer, Book};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pending,
    Durable,
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct HandOver {
    who: usize,
    fate: Fate,
    /// Only a publish can be refused.
    is_publish: bool,
}

pub(super) struct Broker {
    pub(super) tree: Subscriptions,
    tickets: BTreeMap<Ticket, HandOver>,
    last: u64,
    /// Decides about the next publish.
    pub(super) verdict: u8,
    /// The next CONNACK has to wait.
    pub(super) connack_waits: bool,
    /// The next QoS 2 delivery has to wait.
    pub(super) delivery_waits: bool,
}

impl Default for Broker {
    fn default() -> Self {
        let limits = SubscriptionLimits { per_subscriber_max: 8, total_max: 16 };
        Self {
            tree: Subscriptions::new(limits),
            tickets: BTreeMap::new(),
            last: 0,
            verdict: 0,
            connack_waits: false,
            delivery_waits: false,
        }
    }
}

impl Broker {
    fn ticket(&mut self, who: usize, is_publish: bool) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.tickets.insert(ticket, HandOver { who, fate: Fate::Pending, is_publish });
        ticket
    }

    pub(super) fn fate(&self, ticket: Option<Ticket>) -> Fate {
        ticket.map_or(Fate::Durable, |ticket| self.tickets[&ticket].fate)
    }

    /// One of the tickets of a client that are not decided; only publishes where it shall be refused.
    pub(super) fn pending(&self, who: usize, at: usize, refused: bool) -> Option<Ticket> {
        let waits = |of: &HandOver| {
            of.who == who && of.fate == Fate::Pending && (of.is_publish || !refused)
        };
        let pending: Vec<_> = self.tickets.iter().filter(|(_, of)| waits(of)).collect();
        (!pending.is_empty()).then(|| *pending[at % pending.len()].0)
    }

    pub(super) fn settle(&mut self, ticket: Ticket, refused: bool) {
        let fate = if refused { Fate::Refused } else { Fate::Durable };
        if let Some(of) = self.tickets.get_mut(&ticket) {
            of.fate = fate;
        }
    }

    /// Whether it is, or will be: what nobody waits for any more is written all the same.
    pub(super) fn is_stored(&mut self, ticket: Ticket) -> bool {
        if self.fate(Some(ticket)) == Fate::Pending {
            self.settle(ticket, false);
        }
        self.fate(Some(ticket)) == Fate::Durable
    }
}

/// The broker as one client sees it.
pub(super) struct Sink<'a> {
    pub(super) broker: &'a mut Broker,
    pub(super) client: &'a mut Book,
    pub(super) kept: &'a mut Option<SessionState>,
    pub(super) who: usize,
}

impl SessionSink for Sink<'_> {
    fn connect(&mut self, connect: &Connect<'_>, _: &str) -> Result<ConnectVerdict, ReasonCode> {
        let resumed = self.kept.take().filter(|_| !connect.clean_start);
        if resumed.is_none() {
            self.client.forget();
            self.broker.tree.remove(SubscriberId(self.who as u64));
        }
        let waits = std::mem::take(&mut self.broker.connack_waits);
        let ticket = waits.then(|| self.broker.ticket(self.who, false));
        self.client.accepted(resumed.is_some(), ticket);
        let resumed = resumed.map(Box::new);
        Ok(ConnectVerdict::Accepted(Box::new(Accepted { resumed, ticket, ..Accepted::default() })))
    }

    fn publish(&mut self, publish: &Publish<'_>) -> PublishVerdict {
        let kind = match publish.qos {
            Qos::AtMostOnce => return PublishVerdict::LiveOnly,
            Qos::AtLeastOnce => 0x40,
            Qos::ExactlyOnce => 0x50,
        };
        let id = publish.packet_id.expect("QoS 1 and 2 have an identifier").get();
        let (ticket, reason) = match self.broker.verdict % 8 {
            0 => (None, 0),
            1 if self.client.is_v5() => (None, ReasonCode::NotAuthorized.byte()),
            _ => (Some(self.broker.ticket(self.who, true)), 0),
        };
        self.client.owed.push_back(Answer { kind, id, ticket, reason });
        if kind == 0x50 && reason == 0 {
            let known = self.client.received.insert(id, ticket);
            assert!(known.is_none(), "QoS 2 publish {id} is handed over twice");
        }
        match (ticket, reason) {
            (Some(ticket), _) => PublishVerdict::Stored(ticket),
            (None, 0) => PublishVerdict::LiveOnly,
            (None, _) => PublishVerdict::Denied,
        }
    }

    fn release(&mut self, packet_id: NonZeroU16) -> Option<Ticket> {
        let id = packet_id.get();
        assert!(
            self.client.received.remove(&id).is_some(),
            "{id} is released, and was not received"
        );
        let ticket = id.is_multiple_of(2).then(|| self.broker.ticket(self.who, false));
        self.client.owed.push_back(Answer { kind: 0x70, id, ticket, reason: 0 });
        ticket
    }

    fn subscribe(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<Option<Ticket>, ReasonCode> {
        let (kind, id) = self.client.asked.pop_front().unwrap_or_default();
        let done = self.broker.tree.subscribe(SubscriberId(self.who as u64), filter, options);
        let ticket = (done.is_ok() && id % 2 == 0).then(|| self.broker.ticket(self.who, false));
        self.client.owed.push_back(Answer { kind, id, ticket, reason: 0 });
        done.map(|_| ticket)
    }

    fn unsubscribe(&mut self, filter: &str) -> Unsubscribed {
        let (kind, id) = self.client.asked.pop_front().unwrap_or_default();
        let existed = self.broker.tree.unsubscribe(SubscriberId(self.who as u64), filter);
        let ticket = id.is_multiple_of(2).then(|| self.broker.ticket(self.who, false));
        self.client.owed.push_back(Answer { kind, id, ticket, reason: 0 });
        Unsubscribed { existed, ticket }
    }

    fn sending(&mut self, packet_id: NonZeroU16, tag: u64) -> Option<Ticket> {
        // Asked again when it goes out again: the same ticket, until it is durable.
        let id = packet_id.get();
        if let Some(&(of, ticket)) = self.client.sending.get(&id)
            && of == tag
        {
            return ticket.filter(|&ticket| self.broker.fate(Some(ticket)) == Fate::Pending);
        }
        let waits = std::mem::take(&mut self.broker.delivery_waits);
        let ticket = waits.then(|| self.broker.ticket(self.who, false));
        self.client.sending.insert(id, (tag, ticket));
        ticket
    }

    fn received(&mut self, packet_id: NonZeroU16, tag: u64) -> Option<Ticket> {
        let id = packet_id.get();
        if let Some(&(of, ticket)) = self.client.releasing.get(&id)
            && of == tag
        {
            return ticket.filter(|&ticket| self.broker.fate(Some(ticket)) == Fate::Pending);
        }
        let ticket = tag.is_multiple_of(2).then(|| self.broker.ticket(self.who, false));
        self.client.releasing.insert(id, (tag, ticket));
        ticket
    }

    fn delivered(&mut self, tag: u64) {
        assert!(self.client.delivered.insert(tag), "{tag} is told delivered twice");
    }
}

//! What one client was promised, and what it may therefore see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use edge_mqtt::{Ticket, Version};

use super::sink::{Broker, Fate};
use crate::wire::Fields;

/// An answer that the broker owes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) kind: u8,
    pub(super) id: u16,
    /// It must not leave before this is durable.
    pub(super) ticket: Option<Ticket>,
    pub(super) reason: u8,
}

/// A delivery of QoS 1 or 2 that the client has seen and that is not over.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u16,
    payload: u32,
    qos: u8,
    /// The client has sent PUBREC.
    is_received: bool,
    /// PUBREL came on this connection.
    is_released: bool,
    /// Seen on this connection.
    is_counted: bool,
    /// A connection ended before all that the client sent was read: its PUBREC may be lost.
    is_unread: bool,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    version: Option<Version>,
    in_flight_max: u16,
    /// Session present and the ticket of a CONNACK that has not come.
    connack: Option<(bool, Option<Ticket>)>,
    is_over: bool,
    /// Subscriptions and their end, by type and identifier, that the machine has not acted on.
    pub(super) asked: VecDeque<(u8, u16)>,
    pub(super) owed: VecDeque<Answer>,
    /// QoS 2 publishes that were handed over and not released, and their tickets.
    pub(super) received: BTreeMap<u16, Option<Ticket>>,
    /// Packets that the client sent without a reason, which may be answered so often.
    anyhow: BTreeMap<(u8, u16), u32>,
    /// Deliveries by payload and QoS that the client has not seen.
    pub(super) expected: VecDeque<(u32, u8)>,
    /// The same at QoS 0, of an earlier connection: they may come or not.
    perhaps: Vec<u32>,
    open: Vec<Open>,
    /// By packet identifier: tag and ticket of the QoS 2 PUBLISH, and of its PUBREL.
    pub(super) sending: BTreeMap<u16, (u64, Option<Ticket>)>,
    pub(super) releasing: BTreeMap<u16, (u64, Option<Ticket>)>,
    pub(super) delivered: BTreeSet<u64>,
    pub(super) is_lost_to_nonsense: bool,
}

impl Book {
    pub(super) fn is_v5(&self) -> bool {
        self.version == Some(Version::V5)
    }

    pub(super) fn connects(&mut self, version: Version, in_flight_max: u16) {
        self.version = Some(version);
        self.in_flight_max = in_flight_max;
        self.is_over = false;
        self.is_lost_to_nonsense = false;
    }

    pub(super) fn accepted(&mut self, present: bool, ticket: Option<Ticket>) {
        // 3.1 has no session present.
        self.connack = Some((present, ticket));
    }

    /// Answers are lost with the connection.
    pub(super) fn disconnected(&mut self, is_unread: bool) {
        self.connack = None;
        self.asked.clear();
        self.owed.clear();
        self.anyhow.clear();
        for open in &mut self.open {
            open.is_counted = false;
            open.is_released = false;
            open.is_unread |= is_unread && open.is_received;
        }
        // Nothing says that QoS 0 outlives its connection, or that it does not.
        let lost = self.expected.iter().filter(|(_, qos)| *qos == 0);
        self.perhaps.extend(lost.map(|(payload, _)| *payload));
        self.expected.retain(|(_, qos)| *qos > 0);
    }

    /// The session ends: nothing of it may be seen again.
    pub(super) fn forget(&mut self) {
        self.received.clear();
        self.expected.clear();
        self.perhaps.clear();
        self.open.clear();
        self.sending.clear();
        self.releasing.clear();
    }

    /// A client that sends nonsense or too much is cut off; one that keeps to the rules is not.
    pub(super) fn may_break_rules(&self) -> bool {
        self.is_lost_to_nonsense || self.is_v5()
    }

    /// A packet that may be answered once more than the model counts.
    pub(super) fn sends_anyhow(&mut self, first: u8, id: u16) {
        *self.anyhow.entry((first & 0xF0, id)).or_default() += 1;
    }

    fn answers_nonsense(&mut self, first: u8, id: u16) -> bool {
        let Some(count) = self.anyhow.get_mut(&(first, id)) else { return false };
        let there = *count > 0;
        *count = count.saturating_sub(1);
        there
    }

    /// What the client acknowledges next, of what it has seen.
    pub(super) fn acknowledgement(&mut self, at: usize) -> Option<Vec<u8>> {
        let ready: Vec<usize> = (0..self.open.len())
            .filter(|&index| {
                let open = &self.open[index];
                open.is_counted && (!open.is_received || open.is_released)
            })
            .collect();
        let index = *ready.get(at % ready.len().max(1))?;
        let open = &mut self.open[index];
        let [high, low] = open.id.to_be_bytes();
        let first = match (open.qos, open.is_received) {
            (1, _) => 0x40,
            (_, false) => 0x50,
            (_, true) => 0x70,
        };
        if first == 0x50 {
            open.is_received = true;
        } else {
            self.open.remove(index);
        }
        Some(vec![first, 2, high, low])
    }

    /// Judges everything that was sent.
    pub(super) fn see(&mut self, out: &[u8], broker: &Broker) {
        let mut rest = Fields(out);
        while !rest.0.is_empty() {
            let first = rest.byte().expect("a type");
            let length = rest.varint().expect("a length");
            let body = rest.take(length).expect("a whole packet");
            assert!(!self.is_over, "{first:x} behind the last word");
            if first != 0x20 && first != 0xE0 {
                assert!(self.connack.is_none(), "{first:x} before CONNACK");
            }
            self.see_packet(first, Fields(body), broker);
        }
    }

    fn see_packet(&mut self, first: u8, mut body: Fields<'_>, broker: &Broker) {
        match first & 0xF0 {
            0x20 => {
                let (present, reason) = (body.byte(), body.byte());
                if reason != Some(0) {
                    self.is_over = true;
                    return;
                }
                let (expected, ticket) = self.connack.take().expect("one CONNACK");
                assert_eq!(broker.fate(ticket), Fate::Durable, "CONNACK before it is durable");
                let told = expected && self.version != Some(Version::V31);
                assert_eq!(present, Some(u8::from(told)), "session present");
            }
            0x30 => self.see_publish(first, body, broker),
            0x60 => {
                let id = body.two().expect("an identifier");
                let open = self.open.iter_mut().find(|open| open.id == id && open.is_received);
                let Some(open) = open else {
                    assert!(self.answers_nonsense(0x50, id), "PUBREL {id} without PUBREC");
                    return;
                };
                if let Some(&(tag, ticket)) = self.releasing.get(&id)
                    && tag == u64::from(open.payload)
                {
                    assert_eq!(broker.fate(ticket), Fate::Durable, "PUBREL {id} before durable");
                }
                open.is_released = true;
                open.is_counted = true;
            }
            0xD0 => assert!(body.0.is_empty()),
            0xE0 => {
                assert!(self.is_v5(), "only MQTT 5 is told why");
                self.is_over = true;
            }
            kind => {
                let id = body.two().expect("an identifier");
                self.see_answer(kind, id, body.byte().unwrap_or(0), broker);
            }
        }
    }

    fn see_answer(&mut self, kind: u8, id: u16, reason: u8, broker: &Broker) {
        let at = self.owed.iter().position(|owed| owed.kind == kind && owed.id == id);
        // The same PUBLISH or PUBREL once more is answered once more, in its turn.
        let again = match kind {
            0x50 => 0x30,
            0x70 => 0x60,
            _ => 0,
        };
        let Some(at) = at else {
            assert!(self.answers_nonsense(again, id), "{kind:x} {id} answers nothing");
            let ticket = self.received.get(&id).copied().flatten();
            let waits = kind == 0x50 && broker.fate(ticket) == Fate::Pending;
            assert!(!waits, "PUBREC {id} once more before it is durable");
            return;
        };
        let is_early = broker.fate(self.owed[at].ticket) == Fate::Pending;
        if is_early && kind == 0x70 && self.answers_nonsense(again, id) {
            return;
        }
        let of_kind = |owed: &&Answer| owed.kind == kind && matches!(kind, 0x40 | 0x50 | 0x70);
        let overtaken = self.owed.iter().take(at).filter(of_kind).count();
        assert_eq!(overtaken, 0, "{kind:x} {id} overtakes");
        let owed = self.owed.remove(at).expect("just found");
        match broker.fate(owed.ticket) {
            Fate::Pending => panic!("{kind:x} {id} before it is durable"),
            Fate::Durable if matches!(kind, 0x40 | 0x50) => assert_eq!(reason, owed.reason),
            Fate::Durable => {}
            Fate::Refused => {
                assert!(reason >= 0x80, "{kind:x} {id} says stored, and is not");
                self.received.remove(&id);
            }
        }
    }

    fn see_publish(&mut self, first: u8, mut body: Fields<'_>, broker: &Broker) {
        let (dup, qos) = (first & 8 != 0, (first >> 1) & 3);
        assert_eq!(body.binary(), Some(&b"t"[..]));
        let id = if qos > 0 { body.two().expect("an identifier") } else { 0 };
        if self.is_v5() {
            assert_eq!(body.varint(), Some(0));
        }
        let payload = u32::from_be_bytes(body.0.try_into().expect("four bytes"));
        if qos == 0 {
            if let Some(at) = self.perhaps.iter().position(|of| *of == payload) {
                self.perhaps.drain(..=at);
                return;
            }
            let at = self.expected.iter().position(|(_, of)| *of == 0).expect("QoS 0 for nothing");
            assert_eq!(self.expected.remove(at), Some((payload, 0)), "QoS 0 out of order");
            return;
        }
        let resent = self.open.iter().position(|open| open.id == id && !open.is_counted);
        match resent.filter(|_| dup) {
            Some(at) => {
                let is_before =
                    |open: &Open| open.qos == qos && !open.is_counted && !open.is_received;
                assert!(!self.open[..at].iter().any(is_before), "{id} comes again too early");
                let open = &mut self.open[at];
                assert_eq!((open.payload, open.qos), (payload, qos), "{id} comes again changed");
                assert!(!open.is_received || open.is_unread, "{id} comes again after PUBREC");
                open.is_received = false;
                open.is_counted = true;
            }
            // New, or its PUBLISH waited for a ticket when the connection broke.
            None => self.see_new(id, payload, qos),
        }
        if qos == 2
            && let Some(&(tag, ticket)) = self.sending.get(&id)
            && tag == u64::from(payload)
        {
            assert_eq!(broker.fate(ticket), Fate::Durable, "PUBLISH {id} before it is durable");
        }
        let counted = self.open.iter().filter(|open| open.is_counted).count();
        assert!(counted <= usize::from(self.in_flight_max), "{counted} deliveries in flight");
    }

    fn see_new(&mut self, id: u16, payload: u32, qos: u8) {
        assert!(id != 0 && self.open.iter().all(|open| open.id != id), "{id} is in use");
        let at = self.expected.iter().position(|(_, of)| *of == qos).expect("nothing is expected");
        assert_eq!(self.expected.remove(at), Some((payload, qos)), "out of order");
        self.open.push(Open {
            id,
            payload,
            qos,
            is_received: false,
            is_released: false,
            is_counted: true,
            is_unread: false,
        });
    }

    /// Everything is durable and acknowledged.
    pub(super) fn is_settled(&self) {
        if self.is_lost_to_nonsense {
            return;
        }
        assert!(self.connack.is_none(), "no CONNACK");
        assert!(self.owed.is_empty(), "owed: {:?}", self.owed);
        assert!(self.expected.is_empty(), "never delivered: {:?}", self.expected);
        assert!(self.open.is_empty(), "never over: {:?}", self.open);
    }
}

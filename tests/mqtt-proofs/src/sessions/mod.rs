//! Session machines of several clients beside a model of what each was promised.
//!
//! An input is a sequence of steps: clients connect, publish, subscribe, acknowledge, send nonsense and
//! vanish; hand-overs become durable or are refused; messages are delivered. `Book` knows what may be
//! sent: nothing that promises before its ticket is durable, every QoS 2 publish handed over once, deliveries
//! in order, their identifiers unused and no more of them than the client takes, nothing behind the last
//! word. At the end everything becomes durable, and what is owed has to be paid.

mod book;
mod sink;

use std::time::{Duration, Instant};

use bytes::BytesMut;
use edge_mqtt::{
    Close, Delivery, Message, Publish, Qos, ReasonCode, Session, SessionLimits, SessionState,
    Stopped, SubscriberId, Ticket, Version,
};

use crate::input::Input;
use crate::wire;
use book::Book;
use sink::{Broker, Fate, Sink};

const CLIENTS: usize = 3;
const STEPS_MAX: usize = 400;
const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const TOPICS: [&str; 4] = ["a", "a/b", "b", "\u{fc}"];

/// Runs one input.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let who = input.below(CLIENTS);
        world.step(who, &mut input);
    }
    world.finish();
}

struct World {
    limits: SessionLimits,
    now: Instant,
    broker: Broker,
    clients: [Client; CLIENTS],
    payloads: u32,
}

/// One client, its connection if it has one, and what the broker keeps for it.
struct Client {
    session: Option<Session>,
    version: Version,
    /// Sent by the client and not used yet.
    inbox: Vec<u8>,
    kept: Option<SessionState>,
    book: Book,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let limits = SessionLimits {
            receive_maximum: input.one_of(&[1, 2, 4, 64]),
            deliveries_in_flight_max: input.one_of(&[1, 2, 64]),
            packet_bytes_max: 512,
            ..SessionLimits::default()
        };
        let client = || Client {
            session: None,
            version: Version::V5,
            inbox: Vec::new(),
            kept: None,
            book: Book::default(),
        };
        Self {
            limits,
            now: Instant::now(),
            broker: Broker::default(),
            clients: [client(), client(), client()],
            payloads: 0,
        }
    }

    fn step(&mut self, who: usize, input: &mut Input<'_>) {
        if self.clients[who].session.is_none() {
            return self.connect(who, input);
        }
        let version = self.clients[who].version;
        match input.below(16) {
            0 => self.connect(who, input),
            1..=4 => {
                let id = 1 + u16::from(input.byte() % 6);
                let qos = input.byte() % 3;
                let dup = qos > 0 && input.once_in(3);
                self.publish(who, version, id, qos, dup, input);
            }
            5 => {
                let id = 100 + u16::from(input.byte() % 4);
                let filter = wire::any_filter(input);
                let removes = input.once_in(3);
                let mut body = id.to_be_bytes().to_vec();
                if version == Version::V5 {
                    body.push(0);
                }
                wire::put_binary(&mut body, filter.as_bytes());
                if !removes {
                    body.push(input.byte() % 3);
                }
                let book = &mut self.clients[who].book;
                book.asked.push_back((if removes { 0xB0 } else { 0x90 }, id));
                self.send(who, &wire::packet(if removes { 0xA2 } else { 0x82 }, &body));
            }
            6..=8 => {
                let at = usize::from(input.byte());
                // Behind what is not read it would not be heard.
                if self.clients[who].inbox.is_empty()
                    && let Some(bytes) = self.clients[who].book.acknowledgement(at)
                {
                    self.send(who, &bytes);
                }
            }
            // For something that is not under way, or no longer.
            9 => {
                let (first, from) = input.one_of(&[
                    (0x62, 1),
                    (0x62, 1),
                    (0x40, 60_000),
                    (0x50, 60_000),
                    (0x70, 60_000),
                ]);
                let id = from + u16::from(input.byte() % 6);
                self.clients[who].book.sends_anyhow(first, id);
                let [high, low] = id.to_be_bytes();
                self.send(who, &[first, 2, high, low]);
            }
            10 | 11 => self.deliver(who, input),
            12 => {
                let refused = input.once_in(6);
                let at = usize::from(input.byte());
                if let Some(ticket) = self.broker.pending(who, at, refused) {
                    self.settle(who, ticket, refused);
                }
            }
            13 => {
                self.now += Duration::from_millis(u64::from(input.byte()) * 40);
                let client = &mut self.clients[who];
                let mut out = Vec::new();
                if let Some(session) = &mut client.session {
                    session.handle_timeout(self.now, &mut out);
                }
                self.look(who, &out);
            }
            14 if input.once_in(4) => {
                let length = input.below(24);
                let bytes = input.take(length).to_vec();
                self.clients[who].book.is_lost_to_nonsense = true;
                self.send(who, &bytes);
            }
            14 => self.send(who, &[0xC0, 0]),
            _ if input.once_in(2) => self.send(who, &[0xE0, 0]),
            _ => self.close(who, Close::ConnectionLost),
        }
    }

    fn connect(&mut self, who: usize, input: &mut Input<'_>) {
        self.close(who, Close::Broker(ReasonCode::SessionTakenOver));
        let version = input.one_of(&VERSIONS);
        let bits = input.byte();
        let (clean, keeps) = (bits & 1 != 0, bits & 2 != 0);
        let receive_maximum = u16::from(bits >> 6) + 1;
        let mut body = Vec::new();
        match version {
            Version::V31 => wire::put_binary(&mut body, b"MQIsdp"),
            _ => wire::put_binary(&mut body, b"MQTT"),
        }
        let level = VERSIONS.iter().position(|&known| known == version).map_or(5, |at| at + 3);
        body.extend([u8::try_from(level).unwrap_or(5), u8::from(clean) << 1, 0, 1]);
        if version == Version::V5 {
            body.extend([8, 0x11, 0, 0, 0, if keeps { 60 } else { 0 }, 0x21]);
            body.extend(receive_maximum.to_be_bytes());
        }
        wire::put_binary(&mut body, format!("client {who}").as_bytes());

        let client = &mut self.clients[who];
        client.version = version;
        client.inbox.clear();
        client.session = Some(Session::new(self.limits, who as u64, self.now));
        let most = if version == Version::V5 { receive_maximum } else { u16::MAX };
        client.book.connects(version, most.min(self.limits.deliveries_in_flight_max));
        self.broker.connack_waits = bits & 4 != 0;
        self.send(who, &wire::packet(0x10, &body));
    }

    fn publish(
        &mut self,
        who: usize,
        version: Version,
        id: u16,
        qos: u8,
        dup: bool,
        input: &mut Input<'_>,
    ) {
        let mut body = Vec::new();
        wire::put_binary(&mut body, input.one_of(&TOPICS).as_bytes());
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        if version == Version::V5 {
            body.push(0);
        }
        self.payloads += 1;
        body.extend(self.payloads.to_be_bytes());
        self.broker.verdict = input.byte();
        if qos == 2 {
            self.clients[who].book.sends_anyhow(0x34, id);
        }
        let first = 0x30 | u8::from(dup) << 3 | qos << 1;
        self.send(who, &wire::packet(first, &body));
    }

    fn deliver(&mut self, who: usize, input: &mut Input<'_>) {
        let session = self.clients[who].session.as_ref();
        if session.is_none_or(|session| session.version().is_none()) {
            return;
        }
        let qos = input.one_of(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        self.payloads += 1;
        let payload = self.payloads;
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: "t",
            packet_id: None,
            topic_alias: None,
            properties_raw: &[],
            expiry_s: None,
            payload: &payload.to_be_bytes(),
        };
        let message = Message::copy(&publish, self.now, &mut BytesMut::new());
        let tag = u64::from(payload);
        let delivery = Delivery { tag, ..Delivery::live(message, qos) };
        self.broker.delivery_waits = input.once_in(2);
        let client = &mut self.clients[who];
        client.book.expected.push_back((payload, qos.byte()));
        let mut out = Vec::new();
        if let Some(session) = &mut client.session {
            let mut sink = Sink {
                broker: &mut self.broker,
                client: &mut client.book,
                kept: &mut client.kept,
                who,
            };
            session.handle_delivery(delivery, self.now, &mut sink, &mut out);
        }
        self.look(who, &out);
    }

    /// A lane has reported.
    fn settle(&mut self, who: usize, ticket: Ticket, refused: bool) {
        self.broker.settle(ticket, refused);
        let client = &mut self.clients[who];
        let mut out = Vec::new();
        if let Some(session) = &mut client.session {
            let mut sink = Sink {
                broker: &mut self.broker,
                client: &mut client.book,
                kept: &mut client.kept,
                who,
            };
            if refused {
                session.handle_refused(ticket, &mut out);
            } else {
                session.handle_durable(ticket, self.now, &mut sink, &mut out);
            }
        }
        self.look(who, &out);
        // What had to wait goes on.
        self.send(who, &[]);
    }

    fn send(&mut self, who: usize, bytes: &[u8]) {
        self.clients[who].inbox.extend_from_slice(bytes);
        // What was not used because of answers that waited is tried again when some have left.
        loop {
            let client = &mut self.clients[who];
            let Some(session) = &mut client.session else { return };
            let mut out = Vec::new();
            let mut sink = Sink {
                broker: &mut self.broker,
                client: &mut client.book,
                kept: &mut client.kept,
                who,
            };
            let progress = session.handle_input(&client.inbox, self.now, &mut sink, &mut out);
            assert!(progress.consumed <= client.inbox.len(), "used more than there was");
            client.inbox.drain(..progress.consumed);
            if let Stopped::NeedsBytes(needed) = progress.stopped {
                assert!(needed > client.inbox.len() && needed <= 16 * 1024, "needs {needed} bytes");
            }
            // A client of which nothing is read is not heard for ever.
            if client.inbox.len() > 4_096 {
                return self.close(who, Close::ConnectionLost);
            }
            self.look(who, &out);
            if progress.consumed == 0 && out.is_empty() {
                return;
            }
        }
    }

    /// Judges what was sent; ends a connection that is over.
    fn look(&mut self, who: usize, out: &[u8]) {
        let client = &mut self.clients[who];
        client.book.see(out, &self.broker);
        let Some(session) = &mut client.session else { return };
        if let Some(closed) = session.closed() {
            let by_rule = matches!(closed, Close::Violation(_));
            assert!(!by_rule || client.book.may_break_rules(), "{closed:?}");
            let ending = session.take_ending();
            client.session = None;
            client.book.disconnected(!client.inbox.is_empty());
            client.inbox.clear();
            let broker = &self.broker;
            client.book.received.retain(|_, ticket| broker.fate(*ticket) != Fate::Refused);
            let Some(mut ending) = ending else { return };
            assert!(ending.state.cost_bytes() < 1 << 20, "a session that grows");
            for (id, ticket) in std::mem::take(&mut ending.state.unsettled) {
                let stored = self.broker.is_stored(ticket);
                ending.state.unsettled.push((id, ticket));
                ending.state.settle(ticket, stored);
                if !stored {
                    client.book.received.remove(&id.get());
                }
            }
            if ending.session_expiry_s > 0 {
                client.kept = Some(ending.state);
            } else {
                client.kept = None;
                client.book.forget();
                self.broker.tree.remove(SubscriberId(who as u64));
            }
        }
    }

    fn close(&mut self, who: usize, close: Close) {
        let mut out = Vec::new();
        if let Some(session) = &mut self.clients[who].session {
            session.close(close, &mut out);
        }
        self.look(who, &out);
    }

    /// Everything becomes durable and is acknowledged: nothing is owed any more.
    fn finish(&mut self) {
        for who in 0..CLIENTS {
            for _ in 0..4 * STEPS_MAX {
                if let Some(ticket) = self.broker.pending(who, 0, false) {
                    self.settle(who, ticket, false);
                } else if let Some(bytes) = self.clients[who].book.acknowledgement(0) {
                    self.send(who, &bytes);
                } else {
                    break;
                }
            }
            let client = &self.clients[who];
            if client.session.as_ref().is_some_and(|session| session.version().is_some()) {
                client.book.is_settled();
            }
        }
    }
}

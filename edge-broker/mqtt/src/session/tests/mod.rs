//! Promises of the session machine, told with raw bytes.

mod exchanges;

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::*;
use crate::message::Message;
use crate::publish::Qos;
use crate::subscriptions::SubscriptionOptions;

#[derive(Default)]
struct Listener {
    connected: Vec<String>,
    published: Vec<(String, Vec<u8>, Qos)>,
    subscribed: Vec<(String, SubscriptionOptions)>,
    verdict: Option<PublishVerdict>,
    refuse: Option<ReasonCode>,
    /// Handed in with the next CONNECT.
    resumed: Option<Box<SessionState>>,
    /// What all promises but those of publishes wait for.
    ticket: Option<Ticket>,
    connack_ticket: Option<Ticket>,
    missed: u64,
    released: Vec<u16>,
    received: Vec<(u16, u64)>,
    delivered: Vec<u64>,
}

impl SessionSink for Listener {
    fn connect(&mut self, _: &Connect<'_>, client_id: &str) -> Result<ConnectVerdict, ReasonCode> {
        self.connected.push(client_id.to_owned());
        let accepted = Accepted {
            resumed: self.resumed.take(),
            ticket: self.connack_ticket,
            response_information: Some("r/c".to_owned()),
            missed: self.missed,
        };
        self.refuse.map_or(Ok(ConnectVerdict::Accepted(Box::new(accepted))), Err)
    }

    fn publish(&mut self, publish: &Publish<'_>) -> PublishVerdict {
        let verdict = self.verdict.unwrap_or(PublishVerdict::Stored(Ticket(1)));
        if verdict != PublishVerdict::NotNow {
            self.published.push((publish.topic.to_owned(), publish.payload.to_vec(), publish.qos));
        }
        verdict
    }

    fn release(&mut self, packet_id: NonZeroU16) -> Option<Ticket> {
        self.released.push(packet_id.get());
        self.ticket
    }

    fn subscribe(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<Option<Ticket>, ReasonCode> {
        self.refuse.map_or(Ok(()), Err)?;
        self.subscribed.push((filter.to_owned(), options));
        Ok(self.ticket)
    }

    fn unsubscribe(&mut self, filter: &str) -> Unsubscribed {
        let before = self.subscribed.len();
        self.subscribed.retain(|(known, _)| known != filter);
        Unsubscribed { existed: self.subscribed.len() < before, ticket: self.ticket }
    }

    fn sending(&mut self, _: NonZeroU16, _: u64) -> Option<Ticket> {
        self.ticket
    }

    fn received(&mut self, packet_id: NonZeroU16, tag: u64) -> Option<Ticket> {
        self.received.push((packet_id.get(), tag));
        self.ticket
    }

    fn delivered(&mut self, tag: u64) {
        self.delivered.push(tag);
    }
}

struct Rig {
    session: Session,
    listener: Listener,
    out: Vec<u8>,
    now: Instant,
}

const CONNECT_V4: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01c";
const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x01c";

impl Rig {
    fn new() -> Self {
        Self::with(SessionLimits::default())
    }

    fn with(limits: SessionLimits) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(limits, 0xABCD, now),
            listener: Listener::default(),
            out: Vec::new(),
            now,
        }
    }

    fn connected(connect: &[u8]) -> Self {
        let mut rig = Self::new();
        rig.input(connect);
        assert_eq!(rig.session.client_id(), Some("c"));
        rig.out.clear();
        rig
    }

    fn input(&mut self, bytes: &[u8]) -> Progress {
        self.session.handle_input(bytes, self.now, &mut self.listener, &mut self.out)
    }

    fn durable(&mut self, ticket: u64) -> usize {
        self.session.handle_durable(Ticket(ticket), self.now, &mut self.listener, &mut self.out)
    }

    fn deliver(&mut self, delivery: Delivery) {
        self.session.handle_delivery(delivery, self.now, &mut self.listener, &mut self.out);
    }

    /// The connection is lost, and the next one of the same session begins with `connect`.
    fn again(mut self, connect: &[u8]) -> Self {
        self.session.close(Close::ConnectionLost, &mut self.out);
        let ending = self.session.take_ending().expect("it was connected");
        let mut next = Self::new();
        next.now = self.now;
        next.listener.resumed = Some(Box::new(ending.state));
        next.input(connect);
        next
    }

    fn sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now, &mut self.out);
    }

    fn will(&mut self) -> Option<Will> {
        self.session.take_ending()?.will
    }

    fn violation(&self) -> ReasonCode {
        match self.session.closed() {
            Some(Close::Violation(violation)) => violation.reason(),
            other => panic!("a violation expected, {other:?}"),
        }
    }
}

fn delivery(qos: Qos, payload: &[u8], now: Instant) -> Delivery {
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t",
        packet_id: None,
        properties_raw: &[],
        topic_alias: None,
        expiry_s: None,
        payload,
    };
    Delivery::live(Message::copy(&publish, now, &mut BytesMut::new()), qos)
}

#[test]
fn connect_is_answered_in_the_words_of_its_version() {
    let mut rig = Rig::new();
    rig.input(CONNECT_V4);
    assert_eq!(rig.sent(), [0x20, 2, 0, 0]);
    let mut rig = Rig::new();
    rig.input(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x01c");
    assert_eq!(rig.sent(), [0x20, 2, 0, 0]);

    let mut rig = Rig::new();
    rig.input(CONNECT_V5);
    let sent = rig.sent();
    assert_eq!(sent[..4], [0x20, u8::try_from(sent.len() - 2).expect("small"), 0, 0]);
    for announced in [
        &[0x21, 0x01, 0x00][..], // Receive Maximum 256
        &[0x27, 0, 4, 0, 0],     // Maximum Packet Size
        &[0x22, 0, 16],          // Topic Alias Maximum
    ] {
        assert!(sent.windows(announced.len()).any(|part| part == announced), "{announced:x?}");
    }
}

#[test]
fn a_client_without_id_is_given_one_and_told() {
    let mut rig = Rig::new();
    rig.input(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00");
    assert_eq!(rig.listener.connected, ["auto-000000000000abcd"]);
    let sent = rig.sent();
    assert!(sent.windows(24).any(|part| part == b"\x12\x00\x15auto-000000000000abcd"));
}

#[test]
fn a_session_expiry_beyond_seven_days_is_cut_and_the_client_told() {
    let connect = |expiry: [u8; 4]| {
        let mut rig = Rig::new();
        let head = b"\x10\x13\x00\x04MQTT\x05\x00\x00\x0a\x05\x11";
        rig.input(&[&head[..], &expiry, b"\x00\x01c"].concat());
        let sent = rig.sent();
        assert_eq!(sent[2], 0, "session present is 0");
        rig.session.close(Close::ConnectionLost, &mut rig.out);
        let granted_s = rig.session.take_ending().expect("it was connected").session_expiry_s;
        (granted_s, sent.windows(5).any(|part| part == [0x11, 0, 0x09, 0x3A, 0x80]))
    };
    assert_eq!(connect([0, 0, 0, 60]), (60, false));
    assert_eq!(connect([0xFF; 4]), (604_800, true));
}

#[test]
fn refused_connects_close_and_say_why_where_they_can() {
    let mut rig = Rig::new();
    let progress = rig.input(b"\x10\x0d\x00\x04MQTT\x07\x02\x00\x0a\x00\x01c");
    assert_eq!(progress.stopped, Stopped::Closed);
    assert_eq!(rig.sent(), [0x20, 2, 0, 1]);

    let mut rig = Rig::new();
    rig.input(b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x0a\x00\x00");
    assert_eq!(rig.sent(), [0x20, 2, 0, 2]);

    let mut rig = Rig::new();
    rig.listener.refuse = Some(ReasonCode::NotAuthorized);
    rig.input(CONNECT_V5);
    assert_eq!(rig.sent(), [0x20, 3, 0, 0x87, 0]);
    assert!(rig.session.closed().is_some());
}

#[test]
fn before_connect_packets_are_small_and_nothing_else() {
    let mut rig = Rig::new();
    rig.input(&[0x10, 0x81, 0x80, 0x01]);
    assert_eq!(rig.violation(), ReasonCode::PacketTooLarge);
    let mut rig = Rig::new();
    rig.input(b"GET / HTTP/1.1\r\n");
    assert_eq!(rig.violation(), ReasonCode::ProtocolError);
    assert!(rig.sent().is_empty());
}

#[test]
fn puback_leaves_only_after_durable() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.listener.verdict = Some(PublishVerdict::Stored(Ticket(4)));
    let progress = rig.input(b"\x32\x06\x00\x01t\x00\x07x\x32\x06\x00\x01t\x00\x08y");
    assert_eq!(progress.consumed, 16);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.session.unacknowledged(), 2);
    rig.durable(3);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.durable(4), 2);
    assert_eq!(rig.sent(), [0x40, 2, 0, 7, 0x40, 2, 0, 8]);
}

#[test]
fn qos_0_is_never_acknowledged_and_live_only_is_at_once() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\x30\x04\x00\x01tx");
    assert_eq!(rig.session.unacknowledged(), 0);
    rig.listener.verdict = Some(PublishVerdict::LiveOnly);
    rig.input(b"\x32\x06\x00\x01t\x00\x07x");
    assert_eq!(rig.sent(), [0x40, 2, 0, 7]);
}

#[test]
fn a_busy_sink_gets_the_same_packet_again() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.listener.verdict = Some(PublishVerdict::NotNow);
    let bytes = b"\x32\x06\x00\x01t\x00\x07x";
    let progress = rig.input(bytes);
    assert_eq!(progress, Progress { consumed: 0, stopped: Stopped::SinkBusy });
    rig.listener.verdict = None;
    assert_eq!(rig.input(bytes).consumed, 8);
    assert_eq!(rig.listener.published.len(), 1);
}

#[test]
fn beyond_receive_maximum_v5_is_refused_and_v3_waits() {
    let limits = SessionLimits { receive_maximum: 1, ..SessionLimits::default() };
    let mut rig = Rig::with(limits);
    rig.input(CONNECT_V4);
    let progress = rig.input(b"\x32\x06\x00\x01t\x00\x07x\x32\x06\x00\x01t\x00\x08y");
    assert_eq!(progress, Progress { consumed: 8, stopped: Stopped::GateFull });
    assert!(rig.session.closed().is_none());

    let mut rig = Rig::with(limits);
    rig.input(CONNECT_V5);
    rig.sent();
    rig.input(b"\x32\x07\x00\x01t\x00\x07\x00x\x32\x07\x00\x01t\x00\x08\x00y");
    assert_eq!(rig.violation(), ReasonCode::ReceiveMaximumExceeded);
    assert_eq!(rig.sent(), [0xE0, 1, 0x93]);
}

#[test]
fn violations_after_connect_end_v5_with_a_reason_and_v3_without_a_word() {
    for (bytes, reason) in [
        (&b"\x20\x02\x00\x00"[..], 0x82),
        (&b"\x30\x06\x00\x03a/#\x00"[..], 0x90),
        (&b"\x30\xff\xff\xff\x7f"[..], 0x95),
        (&b"\xf0\x00"[..], 0x82),
        (&b"\x6a\x02\x00\x01"[..], 0x81),
        (&b"\x62\x02\x00\x00"[..], 0x82),
        (&b"\xc0\x01\x00"[..], 0x81),
        (&b"\x10\x00"[..], 0x82),
    ] {
        let mut rig = Rig::connected(CONNECT_V5);
        assert_eq!(rig.input(bytes).stopped, Stopped::Closed, "{bytes:x?}");
        assert_eq!(rig.sent(), [0xE0, 1, reason], "{bytes:x?}");
        let mut rig = Rig::connected(CONNECT_V4);
        rig.input(bytes);
        assert!(rig.session.closed().is_some() && rig.out.is_empty(), "{bytes:x?}");
    }
}

#[test]
fn a_retained_publish_of_3_1_1_is_taken_with_its_flag() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\x31\x04\x00\x01tx");
    assert_eq!(rig.listener.published.len(), 1);
}

#[test]
fn nothing_is_read_after_a_violation() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\xf0\x00\x30\x04\x00\x01tx");
    assert_eq!(rig.input(b"\x30\x04\x00\x01tx").stopped, Stopped::Closed);
    assert!(rig.listener.published.is_empty());
}

#[test]
fn packets_may_arrive_byte_by_byte() {
    let mut rig = Rig::new();
    let stream = [CONNECT_V4, b"\x32\x06\x00\x01t\x00\x07x\xc0\x00"].concat();
    let mut held = Vec::new();
    for byte in stream {
        held.push(byte);
        let progress = rig.input(&held.clone());
        held.drain(..progress.consumed);
        let Stopped::NeedsBytes(needed) = progress.stopped else { panic!("{progress:?}") };
        assert!(needed > held.len());
    }
    assert_eq!(rig.listener.published, [("t".to_owned(), b"x".to_vec(), Qos::AtLeastOnce)]);
    assert!(rig.sent().ends_with(&[0xD0, 0]));
}

#[test]
fn silence_ends_the_connection_after_one_and_a_half_keep_alives() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.pass(Duration::from_millis(14_999));
    assert!(rig.session.closed().is_none());
    rig.input(b"\xc0\x00");
    rig.pass(Duration::from_millis(14_999));
    assert!(rig.session.closed().is_none());
    rig.sent();
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.session.closed(), Some(&Close::KeepAliveTimeout));
    assert_eq!(rig.sent(), [0xE0, 1, 0x8D]);
}

#[test]
fn keep_alive_zero_allows_silence_but_not_half_a_packet() {
    let mut rig = Rig::new();
    rig.input(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c");
    assert_eq!(rig.session.poll_timeout(), None);
    rig.input(b"\x30\x04\x00");
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.session.closed(), Some(&Close::StalledPacket));
}

#[test]
fn a_paused_client_is_not_blamed_for_silence() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.session.pause(true, rig.now);
    rig.pass(Duration::from_secs(3_600));
    assert!(rig.session.closed().is_none());
    rig.session.pause(false, rig.now);
    rig.pass(Duration::from_secs(14));
    assert!(rig.session.closed().is_none());
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.session.closed(), Some(&Close::KeepAliveTimeout));
}

#[test]
fn half_a_connect_and_silence_ends_at_the_deadline() {
    let mut rig = Rig::new();
    rig.input(&CONNECT_V4[..9]);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.session.closed(), Some(&Close::ConnectTimeout));
}

#[test]
fn subscriptions_are_granted_as_asked_and_removed() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\x82\x1a\x00\x09\x00\x00\x03a/+\x02\x00\x0a$share/g/t\x01\x00\x01#\x00");
    assert_eq!(rig.sent(), [0x90, 6, 0, 9, 0, 2, 1, 0]);
    assert_eq!(rig.listener.subscribed.len(), 3);
    rig.input(b"\xa2\x0b\x00\x0a\x00\x00\x01#\x00\x03a/b");
    assert_eq!(rig.sent(), [0xB0, 5, 0, 10, 0, 0, 0x11]);
    rig.listener.refuse = Some(ReasonCode::QuotaExceeded);
    rig.input(b"\x82\x07\x00\x09\x00\x00\x01b\x00");
    assert_eq!(rig.sent(), [0x90, 4, 0, 9, 0, 0x97]);
}

#[test]
fn qos_1_deliveries_respect_receive_maximum_and_are_freed_by_puback() {
    let mut rig = Rig::new();
    rig.input(b"\x10\x11\x00\x04MQTT\x05\x02\x00\x0a\x03\x21\x00\x01\x00\x01c");
    rig.sent();
    for payload in [b"1", b"2"] {
        rig.deliver(delivery(Qos::AtLeastOnce, payload, rig.now));
    }
    rig.deliver(delivery(Qos::AtMostOnce, b"0", rig.now));
    assert_eq!(rig.sent(), b"\x32\x07\x00\x01t\x00\x01\x001\x30\x05\x00\x01t\x000");
    rig.input(b"\x40\x02\x00\x09");
    assert!(rig.sent().is_empty(), "an unknown identifier frees nothing");
    rig.input(b"\x40\x03\x00\x01\x00");
    assert_eq!(rig.sent(), b"\x32\x07\x00\x01t\x00\x02\x002");
}

#[test]
fn a_full_delivery_queue_drops_the_newest_and_counts() {
    let limits = SessionLimits {
        deliveries_in_flight_max: 1,
        deliveries_queued_bytes_max: 150,
        ..SessionLimits::default()
    };
    let mut rig = Rig::with(limits);
    rig.input(CONNECT_V4);
    for payload in [b"1", b"2", b"3", b"4"] {
        rig.deliver(delivery(Qos::AtLeastOnce, payload, rig.now));
    }
    assert_eq!(rig.session.deliveries_lost().queue_full, 1);
    rig.sent();
    rig.input(b"\x40\x02\x00\x01\x40\x02\x00\x02");
    assert_eq!(rig.sent(), b"\x32\x06\x00\x01t\x00\x022\x32\x06\x00\x01t\x00\x033");
}

#[test]
fn wills_are_for_bad_ends_only() {
    let connect = b"\x10\x13\x00\x04MQTT\x04\x0e\x00\x0a\x00\x01c\x00\x01w\x00\x01x";
    let mut rig = Rig::connected(connect);
    rig.input(b"\xe0\x00");
    assert_eq!(rig.session.closed(), Some(&Close::Disconnected { with_will: false }));
    assert_eq!(rig.will(), None);

    let mut rig = Rig::connected(connect);
    rig.session.close(Close::ConnectionLost, &mut rig.out);
    let will = rig.will().expect("published");
    assert_eq!((will.publish().topic, will.qos), ("w", Qos::AtLeastOnce));
    assert!(rig.session.take_ending().is_none(), "once");

    let mut rig = Rig::connected(connect);
    rig.session.close(Close::Broker(ReasonCode::ServerShuttingDown), &mut rig.out);
    assert_eq!(rig.will(), None);
}

#[test]
fn disconnect_of_v5_may_ask_for_the_will_and_is_checked() {
    let connect = b"\x10\x15\x00\x04MQTT\x05\x06\x00\x0a\x00\x00\x01c\x00\x00\x01w\x00\x01x";
    let mut rig = Rig::connected(connect);
    rig.input(b"\xe0\x01\x04");
    assert!(rig.will().is_some());
    let mut rig = Rig::connected(connect);
    rig.input(b"\xe0\x02\x00\x00");
    assert!(rig.will().is_none());
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\xe0\x01\x8e");
    assert_eq!(rig.violation(), ReasonCode::ProtocolError);
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05");
    assert_eq!(rig.violation(), ReasonCode::ProtocolError);
}

#[test]
fn a_take_over_is_told_to_v5() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.session.close(Close::Broker(ReasonCode::SessionTakenOver), &mut rig.out);
    assert_eq!(rig.sent(), [0xE0, 1, 0x8E]);
}

#[test]
fn a_topic_that_begins_with_a_multibyte_character_is_an_ordinary_topic() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input("\u{30}\u{5}\0\u{2}üx".as_bytes());
    assert_eq!(rig.listener.published[0].0, "ü");
}

/// xorshift: the same bytes on every run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn random_and_mutated_bytes_never_panic_and_never_over_consume() {
    let valid: &[&[u8]] = &[
        CONNECT_V4,
        CONNECT_V5,
        b"\x10\x15\x00\x04MQTT\x05\x06\x00\x0a\x00\x00\x01c\x00\x00\x01w\x00\x01x",
        b"\x32\x06\x00\x01t\x00\x07x",
        b"\x32\x13\x00\x01t\x00\x07\x0d\x01\x01\x02\x00\x00\x00\x3c\x26\x00\x01k\x00\x00",
        b"\x82\x1a\x00\x09\x00\x00\x03a/+\x02\x00\x0a$share/g/t\x01\x00\x01#\x00",
        b"\x82\x10\x00\x01\x09\x0b\x05\x26\x00\x01k\x00\x01v\x00\x01a\x00",
        b"\xa2\x0b\x00\x0a\x00\x00\x01#\x00\x03a/b",
        b"\x40\x04\x00\x01\x00\x00",
        b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05",
        b"\x34\x06\x00\x01t\x00\x07x\x62\x02\x00\x07",
        b"\x30\x09\x00\x01t\x03\x23\x00\x01hi\x30\x06\x00\x00\x03\x23\x00\x01",
        b"\x50\x02\x00\x01\x70\x02\x00\x01",
        b"\xc0\x00",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..60_000_u32 {
        let mut bytes = match round % 3 {
            0 => {
                (0..random(&mut state) % 40).map(|_| random(&mut state).to_be_bytes()[0]).collect()
            }
            _ => valid[usize::try_from(random(&mut state)).expect("64 bit") % valid.len()].to_vec(),
        };
        if round % 3 == 2 {
            for _ in 0..=random(&mut state) % 3 {
                let at = usize::try_from(random(&mut state)).expect("64 bit") % bytes.len();
                bytes[at] = random(&mut state).to_be_bytes()[0];
            }
        }
        let mut rig = match random(&mut state) % 3 {
            0 => Rig::new(),
            1 => Rig::connected(CONNECT_V4),
            _ => Rig::connected(CONNECT_V5),
        };
        let progress = rig.input(&bytes);
        assert!(progress.consumed <= bytes.len());
        assert!(rig.out.len() <= 128, "answers stay small");
    }
}

//! A client of either version in raw bytes: it writes what it is told and shows what came back.

use std::collections::VecDeque;

use edge_mqtt::Version;

use crate::support::{Client, Rig, packet, put};

/// Packet types in the upper four bits, as they come from a server.
pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x60;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const UNSUBACK: u8 = 0xB0;
pub(crate) const DISCONNECT: u8 = 0xE0;

/// Property identifiers (MQTT 5.0 table 2-4).
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// A property of text or binary data.
pub(crate) fn text(id: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![id];
    put(&mut out, value);
    out
}

/// A user property.
pub(crate) fn user(name: &str, value: &str) -> Vec<u8> {
    let mut out = text(property::USER, name.as_bytes());
    put(&mut out, value.as_bytes());
    out
}

pub(crate) fn two(id: u8, value: u16) -> Vec<u8> {
    let [high, low] = value.to_be_bytes();
    vec![id, high, low]
}

pub(crate) fn four(id: u8, value: u32) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

fn put_section(out: &mut Vec<u8>, properties: &[u8]) {
    let counted = packet(0, properties);
    out.extend_from_slice(&counted[1..]);
}

/// A CONNECT to be.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: Vec<u8>,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) properties: Vec<u8>,
    pub(crate) will: Option<(Message, Vec<u8>)>,
    pub(crate) username: Option<Vec<u8>>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) name: Vec<u8>,
    pub(crate) level: u8,
    pub(crate) flags_changed: u8,
}

pub(crate) fn connect(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        client_id: client_id.as_bytes().to_vec(),
        clean: true,
        keep_alive_s: 0,
        properties: Vec::new(),
        will: None,
        username: None,
        password: None,
        name: b"MQTT".to_vec(),
        level: if version == Version::V5 { 5 } else { 4 },
        flags_changed: 0,
    }
}

/// As [`connect`], with a session that outlives the connection.
pub(crate) fn persistent(version: Version, client_id: &str) -> Connect {
    let wanted = connect(version, client_id).unclean();
    match version {
        Version::V5 => wanted.with(&four(property::SESSION_EXPIRY, 3_600)),
        _ => wanted,
    }
}

impl Connect {
    pub(crate) fn unclean(mut self) -> Self {
        self.clean = false;
        self
    }

    pub(crate) fn with(mut self, property: &[u8]) -> Self {
        self.properties.extend_from_slice(property);
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }

    /// `properties` are those of the will alone, as the delay.
    pub(crate) fn will(mut self, will: Message, properties: &[u8]) -> Self {
        self.will = Some((will, properties.to_vec()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, &self.name);
        let mut flags = u8::from(self.clean) << 1;
        if let Some((will, _)) = &self.will {
            flags |= 0x04 | (will.qos << 3) | (u8::from(will.retain) << 5);
        }
        flags |= u8::from(self.username.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        body.extend_from_slice(&[self.level, flags ^ self.flags_changed]);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.level == 5 {
            put_section(&mut body, &self.properties);
        }
        put(&mut body, &self.client_id);
        if let Some((will, properties)) = &self.will {
            if self.level == 5 {
                put_section(&mut body, &[&properties[..], &will.properties].concat());
            }
            put(&mut body, &will.topic);
            put(&mut body, &will.payload);
        }
        for field in [&self.username, &self.password].into_iter().flatten() {
            put(&mut body, field);
        }
        packet(0x10, &body)
    }
}

/// A PUBLISH to be, or one that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) id: u16,
    pub(crate) properties: Vec<u8>,
}

/// At QoS 0.
pub(crate) fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: topic.as_bytes().to_vec(),
        payload: payload.as_bytes().to_vec(),
        qos: 0,
        dup: false,
        retain: false,
        id: 0,
        properties: Vec::new(),
    }
}

impl Message {
    /// With an identifier that is not 0 where there is one.
    pub(crate) fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self.id = if qos > 0 { 1 } else { 0 };
        self
    }

    pub(crate) fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    pub(crate) fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    pub(crate) fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    pub(crate) fn with(mut self, property: &[u8]) -> Self {
        self.properties.extend_from_slice(property);
        self
    }

    pub(crate) fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, &self.topic);
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            put_section(&mut body, &self.properties);
        }
        body.extend_from_slice(&self.payload);
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        packet(0x30 | flags, &body)
    }

    fn read(bytes: &[u8], version: Version) -> Self {
        let qos = (bytes[0] >> 1) & 3;
        let mut rest = body(bytes);
        let topic = take_binary(&mut rest).to_vec();
        let id = if qos > 0 { take_two(&mut rest) } else { 0 };
        let properties =
            if version == Version::V5 { take_section(&mut rest).to_vec() } else { Vec::new() };
        Self {
            topic,
            payload: rest.to_vec(),
            qos,
            dup: bytes[0] & 8 != 0,
            retain: bytes[0] & 1 != 0,
            id,
            properties,
        }
    }

    pub(crate) fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).unwrap()
    }

    pub(crate) fn payload(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// The encoded properties with this identifier, in order.
    pub(crate) fn properties(&self, id: u8) -> Vec<Vec<u8>> {
        properties(&self.properties, id)
    }
}

/// What a CONNACK said.
#[derive(Clone, Debug)]
pub(crate) struct Connack {
    pub(crate) present: bool,
    pub(crate) code: u8,
    pub(crate) properties: Vec<u8>,
}

impl Connack {
    pub(crate) fn properties(&self, id: u8) -> Vec<Vec<u8>> {
        properties(&self.properties, id)
    }

    /// The number in the only property with this identifier.
    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        let found = self.properties(id);
        assert!(found.len() <= 1, "property {id:x} is there {} times", found.len());
        let value = found.first()?;
        Some(value[1..].iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }
}

pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) version: Version,
    /// Came while something else was waited for.
    inbox: VecDeque<Vec<u8>>,
    last_id: u16,
}

impl Peer {
    /// A TCP connection on which nothing was said.
    pub(crate) fn open(rig: &Rig, version: Version) -> Self {
        Self { client: rig.client(), version, inbox: VecDeque::new(), last_id: 1_000 }
    }

    /// Connected, in a new session that ends with the connection.
    pub(crate) fn new(rig: &Rig, version: Version, client_id: &str) -> Self {
        Self::connect(rig, &connect(version, client_id)).0
    }

    /// Connected as told.
    pub(crate) fn connect(rig: &Rig, wanted: &Connect) -> (Self, Connack) {
        let (peer, connack) = Self::try_connect(rig, wanted);
        assert_eq!(connack.code, 0, "{connack:?}");
        (peer, connack)
    }

    pub(crate) fn try_connect(rig: &Rig, wanted: &Connect) -> (Self, Connack) {
        let mut peer = Self::open(rig, wanted.version);
        peer.send(&wanted.bytes());
        let connack = peer.connack();
        (peer, connack)
    }

    /// Reads the CONNACK, which comes first.
    pub(crate) fn connack(&mut self) -> Connack {
        let bytes = self.packet();
        assert_eq!(bytes[0], CONNACK);
        let mut rest = body(&bytes);
        let (flags, code) = (rest[0], rest[1]);
        assert!(flags <= 1, "reserved bits of CONNACK");
        rest = &rest[2..];
        let properties =
            if self.version == Version::V5 { take_section(&mut rest).to_vec() } else { Vec::new() };
        assert!(rest.is_empty());
        Connack { present: flags == 1, code, properties }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
    }

    /// The next packet.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        self.inbox.pop_front().unwrap_or_else(|| self.client.packet())
    }

    /// The next packet of this type; others wait.
    pub(crate) fn expect(&mut self, kind: u8) -> Vec<u8> {
        if let Some(at) = self.inbox.iter().position(|bytes| bytes[0] & 0xF0 == kind) {
            return self.inbox.remove(at).unwrap();
        }
        loop {
            let bytes = self.client.packet();
            if bytes[0] & 0xF0 == kind {
                return bytes;
            }
            assert_ne!(bytes[0] & 0xF0, DISCONNECT, "disconnected: {bytes:x?}");
            self.inbox.push_back(bytes);
        }
    }

    /// The next packet of this type is an acknowledgement of `id`; its reason code.
    pub(crate) fn acknowledgement(&mut self, kind: u8, id: u16) -> u8 {
        let bytes = self.expect(kind);
        let mut rest = body(&bytes);
        assert_eq!(take_two(&mut rest), id, "{bytes:x?}");
        let reason = rest.first().copied().unwrap_or(0);
        if self.version == Version::V5 {
            if rest.len() > 1 {
                let mut behind = &rest[1..];
                take_section(&mut behind);
                assert!(behind.is_empty());
            }
        } else {
            assert!(rest.is_empty(), "3.1.1 has no reason code");
        }
        reason
    }

    pub(crate) fn send_id(&mut self, first: u8, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[first, 2, high, low]);
    }

    /// Publishes and goes through all its acknowledgements; the last reason code.
    pub(crate) fn publish(&mut self, message: &Message) -> u8 {
        self.send(&message.bytes(self.version));
        match message.qos {
            0 => {
                self.ping();
                0
            }
            1 => self.acknowledgement(PUBACK, message.id),
            _ => {
                let reason = self.acknowledgement(PUBREC, message.id);
                if reason < 0x80 {
                    self.send_id(0x62, message.id);
                    assert_eq!(self.acknowledgement(PUBCOMP, message.id), 0);
                }
                reason
            }
        }
    }

    fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.expect(0xD0), [0xD0, 0]);
    }

    /// The broker answers, and has nothing else to say.
    pub(crate) fn is_served(&mut self) {
        self.ping();
        assert!(self.inbox.is_empty(), "{:x?}", self.inbox);
    }

    /// The next PUBLISH, not acknowledged.
    pub(crate) fn message(&mut self) -> Message {
        let bytes = self.expect(PUBLISH);
        Message::read(&bytes, self.version)
    }

    /// The next PUBLISH, acknowledged to the end.
    pub(crate) fn take(&mut self) -> Message {
        let message = self.message();
        self.acknowledge(&message);
        message
    }

    pub(crate) fn acknowledge(&mut self, message: &Message) {
        match message.qos {
            0 => {}
            1 => self.send_id(0x40, message.id),
            _ => {
                self.send_id(0x50, message.id);
                assert_eq!(self.acknowledgement(PUBREL, message.id), 0);
                self.send_id(0x70, message.id);
            }
        }
    }

    /// Subscribes; the reason code or granted QoS.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_all(&[(filter, options)], &[])[0]
    }

    pub(crate) fn subscribe_all(&mut self, filters: &[(&str, u8)], properties: &[u8]) -> Vec<u8> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&subscribe(self.version, id, filters, properties));
        self.codes(SUBACK, id)
    }

    /// Unsubscribes; the reason codes of MQTT 5.
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&unsubscribe(self.version, id, filters));
        self.codes(UNSUBACK, id)
    }

    /// The codes of a SUBACK or UNSUBACK for `id`.
    pub(crate) fn codes(&mut self, kind: u8, id: u16) -> Vec<u8> {
        let bytes = self.expect(kind);
        assert_eq!(bytes[0], kind);
        let mut rest = body(&bytes);
        assert_eq!(take_two(&mut rest), id, "{bytes:x?}");
        if self.version == Version::V5 {
            take_section(&mut rest);
        }
        rest.to_vec()
    }

    /// Nothing but a message that was published just now comes to this subscriber, which has to have
    /// subscribed to `fence`.
    pub(crate) fn gets_nothing(&mut self, publisher: &mut Self) {
        assert_eq!(publisher.publish(&message("fence", "f").qos(1).id(65_000)), 0);
        let found = self.take();
        assert_eq!(found.topic(), "fence", "{found:?}");
    }

    /// The connection ends; in MQTT 5 with one of these reasons in a DISCONNECT, in 3.1.1 without a word.
    pub(crate) fn is_refused(&mut self, reasons: &[u8]) {
        let mut last = Vec::new();
        loop {
            let bytes = self.client.rest_or_packet();
            if bytes.is_empty() {
                break;
            }
            assert!(last.is_empty(), "a packet after DISCONNECT: {bytes:x?}");
            match self.version {
                Version::V5 if bytes[0] == DISCONNECT => last = bytes,
                Version::V5 => assert_ne!(bytes[0] & 0xF0, CONNACK, "{bytes:x?}"),
                _ => panic!("3.1.1 has no word for it: {bytes:x?}"),
            }
        }
        if self.version == Version::V5 {
            let reason = last.get(2).copied().unwrap_or(0);
            assert!(reasons.contains(&reason), "reason {reason:#x}, not one of {reasons:x?}");
        }
    }

    /// The connection ends without a packet.
    pub(crate) fn is_closed(&mut self) {
        let rest = self.client.rest();
        assert!(rest.is_empty(), "{rest:x?}");
    }

    /// DISCONNECT, and the broker has seen it.
    pub(crate) fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        self.client.rest();
    }
}

/// A connected subscriber with this filter, and `fence` at QoS 1.
pub(crate) fn subscriber(rig: &Rig, version: Version, filter: &str, options: u8) -> Peer {
    let mut peer = Peer::new(rig, version, "subscriber");
    assert_eq!(peer.subscribe(filter, options), options & 3);
    assert_eq!(peer.subscribe("fence", 1), 1);
    peer
}

pub(crate) fn subscribe(
    version: Version,
    id: u16,
    filters: &[(&str, u8)],
    properties: &[u8],
) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        put_section(&mut bytes, properties);
    }
    for (filter, options) in filters {
        put(&mut bytes, filter.as_bytes());
        bytes.push(*options);
    }
    packet(0x82, &bytes)
}

pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        bytes.push(0);
    }
    for filter in filters {
        put(&mut bytes, filter.as_bytes());
    }
    packet(0xA2, &bytes)
}

/// A client that is connected sends these bytes and is refused.
pub(crate) fn refused(version: Version, bytes: &[u8], reasons: &[u8]) {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, version, "offender");
    peer.send(bytes);
    peer.is_refused(reasons);
    Peer::new(&rig, version, "another").is_served();
}

/// A CONNECT is refused: by a close, or by a CONNACK with an error and a close.
pub(crate) fn connect_refused(wanted: &Connect, codes: &[u8]) {
    let rig = Rig::new();
    let mut peer = Peer::open(&rig, wanted.version);
    peer.send(&wanted.bytes());
    let answer = peer.client.rest_or_packet();
    if answer.is_empty() {
        assert!(codes.is_empty(), "closed without a CONNACK, wanted {codes:x?}");
        return;
    }
    assert_eq!((answer[0], answer[2]), (CONNACK, 0), "session present with an error");
    assert!(codes.contains(&answer[3]), "{answer:x?}, wanted {codes:x?}");
    peer.is_closed();
}

/// What is behind the fixed header; its length in the shortest form.
pub(crate) fn body(bytes: &[u8]) -> &[u8] {
    let length_bytes = bytes[1..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    assert!(length_bytes == 1 || bytes[length_bytes] != 0, "a length that could be shorter");
    &bytes[1 + length_bytes..]
}

fn take_two(rest: &mut &[u8]) -> u16 {
    let (head, tail) = rest.split_first_chunk::<2>().unwrap();
    *rest = tail;
    u16::from_be_bytes(*head)
}

fn take_binary<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::from(take_two(rest));
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    head
}

fn take_section<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let mut length = 0;
    let mut count = 0;
    loop {
        let byte = rest[count];
        length |= usize::from(byte & 0x7F) << (7 * count);
        count += 1;
        if byte & 0x80 == 0 {
            assert!(count == 1 || byte != 0, "a length that could be shorter");
            break;
        }
    }
    let (head, tail) = rest[count..].split_at(length);
    *rest = tail;
    head
}

fn properties(mut raw: &[u8], wanted: u8) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !raw.is_empty() {
        let (id, mut rest) = (raw[0], &raw[1..]);
        match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => rest = &rest[1..],
            0x13 | 0x21 | 0x22 | 0x23 => rest = &rest[2..],
            0x02 | 0x11 | 0x18 | 0x27 => rest = &rest[4..],
            0x0B => rest = &rest[rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1..],
            0x26 => {
                take_binary(&mut rest);
                take_binary(&mut rest);
            }
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => {
                take_binary(&mut rest);
            }
            id => panic!("property {id:x} does not exist"),
        }
        if id == wanted {
            found.push(raw[..raw.len() - rest.len()].to_vec());
        }
        raw = rest;
    }
    found
}

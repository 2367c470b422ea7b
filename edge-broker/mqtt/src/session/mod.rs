//! One connection as a state machine: bytes, events and `now` in; bytes, calls to
//! [`SessionSink`] and a deadline out. No socket, no clock.
//!
//! - [`Session::handle_input`] takes what the socket gave and says how much of it was used.
//! - [`Session::handle_durable`] reports a hand-over durable; PUBACKs leave through the
//!   [gate](crate::puback).
//! - [`Session::handle_delivery`] sends a message to the client as a subscriber.
//! - [`Session::poll_timeout`] and [`Session::handle_timeout`] are the CONNECT deadline, keep-alive
//!   times 1.5, and the deadline of a packet that stalls.
//! - [`Session::close`] ends it for a reason of the listener's. Once closed, nothing is read any more.
//!
//! Outside the scope of this machine for now, with the seam they will use: QoS 2 (refused with 0x9B;
//! a second kind of hold in the gate), durable sessions (session present is always 0 and an expiry
//! asked for is granted as 0), retained messages (`Retain Available` 0; MQTT 3.1.1 publishes keep
//! the flag in their record), shared subscriptions (0x9E), enhanced authentication (0x8C). Access
//! control is the sink's.

mod close;
mod limits;
mod outgoing;
mod sink;
#[cfg(test)]
mod tests;

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use rumqttd::protocol::ConnAckProperties;

pub use close::Close;
pub use limits::SessionLimits;
pub use outgoing::DeliveriesLost;
pub use sink::{ConnectVerdict, PublishVerdict, SessionSink};

use crate::connect::{Connect, Will};
use crate::frame::{Frame, PACKET_BYTES_MAX_BEFORE_CONNECT, PacketType, Split, Version, split};
use crate::message::Delivery;
use crate::property;
use crate::puback::{PubackGate, Ticket};
use crate::publish::Publish;
use crate::reader::Reader;
use crate::subscribe::{Subscribe, Unsubscribe};
use crate::violation::{ReasonCode, Violation};
use crate::write;
use outgoing::Outgoing;

/// One connection, from accept to close.
#[derive(Debug)]
pub struct Session {
    limits: SessionLimits,
    /// Makes the client id of a client that brings none.
    seed: u64,
    phase: Phase,
    gate: PubackGate,
    created: Instant,
    last_packet: Instant,
    /// Part of a packet waits since then, without progress.
    stalled_since: Option<Instant>,
    /// The listener does not read: silence is not the client's fault.
    paused: bool,
}

#[derive(Debug)]
enum Phase {
    Connecting,
    Connected(Box<Connected>),
    Closed(Close, Option<Box<Will>>),
}

#[derive(Debug)]
struct Connected {
    version: Version,
    client_id: String,
    keep_alive: Option<Duration>,
    session_expiry_asked: bool,
    will: Option<Box<Will>>,
    outgoing: Outgoing,
}

/// What [`Session::handle_input`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that were used; give the rest again, with more behind it.
    pub consumed: usize,
    /// Why it stopped.
    pub stopped: Stopped,
}

/// Why [`Session::handle_input`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The next packet is not complete; it needs this many bytes in all, as far as is known.
    NeedsBytes(usize),
    /// Receive Maximum of publishes wait for their PUBACK. Go on when some have left.
    GateFull,
    /// The sink said [`PublishVerdict::NotNow`].
    SinkBusy,
    /// The session is closed; write what is in the output, then close the socket.
    Closed,
}

impl Session {
    /// A connection that was just accepted. `seed` must differ between connections.
    #[must_use]
    pub fn new(limits: SessionLimits, seed: u64, now: Instant) -> Self {
        Self {
            limits,
            seed,
            phase: Phase::Connecting,
            gate: PubackGate::default(),
            created: now,
            last_packet: now,
            stalled_since: None,
            paused: false,
        }
    }

    /// The client id, once connected.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Connected(connected) => Some(&connected.client_id),
            _ => None,
        }
    }

    /// The protocol, once connected.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match &self.phase {
            Phase::Connected(connected) => Some(connected.version),
            _ => None,
        }
    }

    /// Why it is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<&Close> {
        match &self.phase {
            Phase::Closed(close, _) => Some(close),
            _ => None,
        }
    }

    /// The will to publish, once, after the session closed in a way that calls for it.
    pub fn take_will(&mut self) -> Option<Will> {
        match &mut self.phase {
            Phase::Closed(_, will) => will.take().map(|will| *will),
            _ => None,
        }
    }

    /// QoS 1 publishes that wait for their PUBACK.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.gate.len()
    }

    /// Deliveries that did not reach this client.
    #[must_use]
    pub fn deliveries_lost(&self) -> DeliveriesLost {
        match &self.phase {
            Phase::Connected(connected) => connected.outgoing.lost,
            _ => DeliveriesLost::default(),
        }
    }

    /// Takes whole packets off the front of `input` and acts on them.
    pub fn handle_input(
        &mut self,
        input: &[u8],
        now: Instant,
        sink: &mut impl SessionSink,
        out: &mut Vec<u8>,
    ) -> Progress {
        let mut consumed = 0;
        let stopped = loop {
            match self.step(&input[consumed..], now, sink, out) {
                Ok(Step::Used(bytes)) => consumed += bytes,
                Ok(Step::Stop(stopped)) => break stopped,
                Err(close) => {
                    self.end(close, out);
                    break Stopped::Closed;
                }
            }
        };
        self.gate.release(out);
        if consumed > 0 {
            self.last_packet = now;
        }
        let part_waits = matches!(stopped, Stopped::NeedsBytes(_)) && consumed < input.len();
        self.stalled_since = part_waits.then_some(now);
        Progress { consumed, stopped }
    }

    /// More of a packet has arrived that is not complete yet, and was not given to
    /// [`handle_input`](Self::handle_input).
    pub fn handle_part(&mut self, now: Instant) {
        self.stalled_since = Some(now);
    }

    #[inline]
    fn step(
        &mut self,
        input: &[u8],
        now: Instant,
        sink: &mut impl SessionSink,
        out: &mut Vec<u8>,
    ) -> Result<Step, Close> {
        let connected = match &mut self.phase {
            Phase::Connected(connected) => connected,
            Phase::Connecting => return self.step_connect(input, sink, out),
            Phase::Closed(..) => return Ok(Step::Stop(Stopped::Closed)),
        };
        let frame =
            match split(input, true, self.limits.packet_bytes_max).map_err(Close::Violation)? {
                Split::Frame(frame) => frame,
                Split::Incomplete { needed_bytes } => {
                    return Ok(Step::Stop(Stopped::NeedsBytes(needed_bytes)));
                }
            };
        if frame.packet == PacketType::Publish {
            let publish = Publish::parse(&frame, connected.version).map_err(Close::Violation)?;
            return admit(&mut self.gate, &self.limits, connected.version, &publish, sink)
                .map(|stop| stop.map_or(Step::Used(frame.bytes.len()), Step::Stop));
        }
        connected.handle_control(&frame, now, sink, out)?;
        Ok(Step::Used(frame.bytes.len()))
    }

    fn step_connect(
        &mut self,
        input: &[u8],
        sink: &mut impl SessionSink,
        out: &mut Vec<u8>,
    ) -> Result<Step, Close> {
        let limit = PACKET_BYTES_MAX_BEFORE_CONNECT.min(self.limits.packet_bytes_max);
        let frame = match split(input, false, limit).map_err(Close::Violation)? {
            Split::Frame(frame) => frame,
            Split::Incomplete { needed_bytes } => {
                return Ok(Step::Stop(Stopped::NeedsBytes(needed_bytes)));
            }
        };
        let connect = match Connect::parse(frame.body) {
            Ok(connect) => connect,
            Err(refused) => {
                if let Some(version) = refused.version {
                    write::connack_refused(version, refused.violation.reason(), out);
                }
                return Err(Close::Violation(refused.violation));
            }
        };
        let assigned = connect.client_id.is_empty().then(|| format!("auto-{:016x}", self.seed));
        let client_id = assigned.as_deref().unwrap_or(connect.client_id).to_owned();
        match sink.connect(&connect, &client_id) {
            Ok(ConnectVerdict::Accepted) => {}
            Ok(ConnectVerdict::NotNow) => return Ok(Step::Stop(Stopped::SinkBusy)),
            Err(reason) => {
                write::connack_refused(connect.version, reason, out);
                return Err(Close::Broker(reason));
            }
        }
        write::connack(connect.version, self.announced(&connect, assigned), out);
        let outgoing = Outgoing::new(&connect, &self.limits);
        self.phase = Phase::Connected(Box::new(Connected {
            version: connect.version,
            client_id,
            keep_alive: (connect.keep_alive_s > 0)
                .then(|| Duration::from_millis(u64::from(connect.keep_alive_s) * 1_500)),
            session_expiry_asked: connect.session_expiry_s > 0,
            will: connect.will.map(Box::new),
            outgoing,
        }));
        Ok(Step::Used(frame.bytes.len()))
    }

    /// What we tell an MQTT 5 client about ourselves.
    fn announced(&self, connect: &Connect<'_>, assigned: Option<String>) -> ConnAckProperties {
        ConnAckProperties {
            session_expiry_interval: (connect.session_expiry_s > 0).then_some(0),
            receive_max: Some(self.limits.receive_maximum),
            max_qos: Some(1),
            retain_available: Some(0),
            max_packet_size: u32::try_from(self.limits.packet_bytes_max).ok(),
            assigned_client_identifier: assigned,
            topic_alias_max: Some(0),
            wildcard_subscription_available: Some(1),
            subscription_identifiers_available: Some(1),
            shared_subscription_available: Some(0),
            ..ConnAckProperties::default()
        }
    }

    /// Everything handed over with `ticket` is durable: PUBACKs that may leave are appended to
    /// `out`. Returns how many.
    pub fn handle_durable(&mut self, ticket: Ticket, out: &mut Vec<u8>) -> usize {
        self.gate.acknowledge(ticket);
        let released = self.gate.release(out);
        if self.gate.is_empty() {
            self.gate.shrink();
        }
        released
    }

    /// Nothing of what was handed over with `ticket` is stored, or will be: its lane was full for too
    /// long. An MQTT 5 client is told with its PUBACK; an older one can only be disconnected, so that it
    /// sends again. Returns how many PUBACKs left.
    pub fn handle_refused(&mut self, ticket: Ticket, out: &mut Vec<u8>) -> usize {
        let reason = ReasonCode::QuotaExceeded;
        if !self.version().is_some_and(Version::is_v5) {
            self.end(Close::Broker(reason), out);
            return 0;
        }
        self.gate.refuse(ticket, reason);
        let released = self.gate.release(out);
        if self.gate.is_empty() {
            self.gate.shrink();
        }
        released
    }

    /// PUBACKs of lanes that have room leave before those of lanes that are full
    /// ([`PubackGate::release_past`]). Returns how many.
    pub fn overtake(
        &mut self,
        full: u32,
        lane_bit: impl Fn(Ticket) -> u32,
        out: &mut Vec<u8>,
    ) -> usize {
        match &self.phase {
            Phase::Connected(_) => self.gate.release_past(full, lane_bit, out),
            _ => 0,
        }
    }

    /// A message for this client. Ignored when it is not connected.
    pub fn handle_delivery(&mut self, delivery: Delivery, now: Instant, out: &mut Vec<u8>) {
        if let Phase::Connected(connected) = &mut self.phase {
            connected.outgoing.deliver(delivery, now, out);
        }
    }

    /// The listener stops reading (`true`) or reads again. Silence in between does not count against
    /// the client.
    pub fn pause(&mut self, paused: bool, now: Instant) {
        if self.paused && !paused {
            self.last_packet = now;
            self.stalled_since = self.stalled_since.map(|_| now);
        }
        self.paused = paused;
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, as things stand. It may move
    /// with every input; being called early does nothing.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            // What we take to decide does not count against the client.
            Phase::Connecting if self.paused => None,
            Phase::Connecting => Some(self.created + self.limits.connect_deadline),
            Phase::Connected(connected) if !self.paused => {
                let keep_alive = connected.keep_alive.map(|allowed| self.last_packet + allowed);
                let stalled =
                    self.stalled_since.map(|since| since + self.limits.stalled_packet_deadline);
                keep_alive.into_iter().chain(stalled).min()
            }
            Phase::Connected(_) | Phase::Closed(..) => None,
        }
    }

    /// Time has passed: closes the session if a deadline is over.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        let close = match &self.phase {
            Phase::Connecting => Close::ConnectTimeout,
            Phase::Connected(connected)
                if connected
                    .keep_alive
                    .is_some_and(|allowed| now >= self.last_packet + allowed) =>
            {
                Close::KeepAliveTimeout
            }
            _ => Close::StalledPacket,
        };
        self.end(close, out);
    }

    /// Ends the session for a reason of the listener's. PUBACKs that may leave were already written.
    pub fn close(&mut self, close: Close, out: &mut Vec<u8>) {
        self.end(close, out);
    }

    fn end(&mut self, close: Close, out: &mut Vec<u8>) {
        let will = match &mut self.phase {
            Phase::Closed(..) => return,
            Phase::Connecting => None,
            Phase::Connected(connected) => {
                // What is durable is acknowledged before the last word.
                self.gate.release(out);
                if let Some(reason) = close.reason() {
                    write::disconnect(connected.version, reason, out);
                }
                connected.will.take().filter(|_| close.publishes_will())
            }
        };
        self.phase = Phase::Closed(close, will);
    }
}

enum Step {
    Used(usize),
    Stop(Stopped),
}

/// Hands a PUBLISH to the sink and holds its PUBACK.
#[inline]
fn admit(
    gate: &mut PubackGate,
    limits: &SessionLimits,
    version: Version,
    publish: &Publish<'_>,
    sink: &mut impl SessionSink,
) -> Result<Option<Stopped>, Close> {
    if publish.packet_id.is_some() && gate.len() >= usize::from(limits.receive_maximum) {
        if version.is_v5() {
            return Err(Close::Violation(Violation::ReceiveMaximumExceeded {
                limit: limits.receive_maximum,
            }));
        }
        return Ok(Some(Stopped::GateFull));
    }
    let ticket = match sink.publish(publish) {
        PublishVerdict::Stored(ticket) => Some(ticket),
        PublishVerdict::LiveOnly => None,
        PublishVerdict::NotNow => return Ok(Some(Stopped::SinkBusy)),
        PublishVerdict::Denied if version.is_v5() => {
            // Nothing can be said about a QoS 0 publish but by ending the connection.
            if let Some(packet_id) = publish.packet_id {
                gate.deny(packet_id, ReasonCode::NotAuthorized);
            }
            return Ok(None);
        }
        PublishVerdict::Denied if limits.denied_publish_v3_is_acknowledged => None,
        PublishVerdict::Denied => return Err(Close::Broker(ReasonCode::NotAuthorized)),
        PublishVerdict::Unstorable(reason) if version.is_v5() => {
            if let Some(packet_id) = publish.packet_id {
                gate.deny(packet_id, reason);
            }
            return Ok(None);
        }
        PublishVerdict::Unstorable(reason) | PublishVerdict::Refused(reason) => {
            return Err(Close::Broker(reason));
        }
    };
    if let Some(packet_id) = publish.packet_id {
        gate.hold(ticket, packet_id);
    }
    Ok(None)
}

impl Connected {
    fn handle_control(
        &mut self,
        frame: &Frame<'_>,
        now: Instant,
        sink: &mut impl SessionSink,
        out: &mut Vec<u8>,
    ) -> Result<(), Close> {
        match frame.packet {
            PacketType::Pingreq if frame.body.is_empty() => {
                out.extend_from_slice(&write::PINGRESP);
                Ok(())
            }
            PacketType::Pingreq => {
                Err(Close::Violation(Violation::TrailingBytes { packet: frame.packet }))
            }
            PacketType::Puback => {
                let packet_id = parse_puback(frame, self.version).map_err(Close::Violation)?;
                self.outgoing.acknowledged(packet_id.get(), now, out);
                Ok(())
            }
            PacketType::Subscribe => {
                let subscribe = Subscribe::parse(frame, self.version).map_err(Close::Violation)?;
                self.handle_subscribe(&subscribe, sink, out);
                Ok(())
            }
            PacketType::Unsubscribe => {
                let unsubscribe =
                    Unsubscribe::parse(frame, self.version).map_err(Close::Violation)?;
                let existed: Vec<_> =
                    unsubscribe.filters.iter().map(|filter| sink.unsubscribe(filter)).collect();
                write::unsuback(self.version, unsubscribe.packet_id.get(), &existed, out);
                Ok(())
            }
            PacketType::Disconnect => Err(self
                .parse_disconnect(frame)
                .map_or_else(Close::Violation, |with_will| Close::Disconnected { with_will })),
            packet => Err(Close::Violation(Violation::NoExchange { packet })),
        }
    }

    fn handle_subscribe(
        &mut self,
        subscribe: &Subscribe,
        sink: &mut impl SessionSink,
        out: &mut Vec<u8>,
    ) {
        let answers: Vec<_> = subscribe
            .filters
            .iter()
            .map(|requested| {
                if requested.shared {
                    return Err(ReasonCode::SharedSubscriptionsNotSupported);
                }
                sink.subscribe(&requested.filter, requested.options).map(|()| requested.options.qos)
            })
            .collect();
        write::suback(self.version, subscribe.packet_id.get(), &answers, out);
    }

    /// Ours: the codec of `rumqttd` 0.20 refuses a DISCONNECT of one byte, which the standard allows.
    /// Returns whether the will is to be published.
    fn parse_disconnect(&self, frame: &Frame<'_>) -> Result<bool, Violation> {
        let packet = PacketType::Disconnect;
        let mut reader = Reader::new(packet, frame.body);
        if !self.version.is_v5() || reader.is_empty() {
            reader.finish()?;
            return Ok(false);
        }
        let reason = reader.byte()?;
        let from_client = matches!(reason, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99);
        if !from_client {
            return Err(Violation::ReasonCodeNotAllowed { packet, found: reason });
        }
        if !reader.is_empty() {
            property::walk(packet, reader.section()?, property::IN_DISCONNECT, |id, value| {
                let expiry = id == property::SESSION_EXPIRY_INTERVAL && value.number() > 0;
                if expiry && !self.session_expiry_asked {
                    return Err(Violation::SessionExpiryAtDisconnect);
                }
                Ok(())
            })?;
            reader.finish()?;
        }
        Ok(reason != 0)
    }
}

/// PUBACK from a subscriber. Ours for speed: one comes for every QoS 1 delivery.
fn parse_puback(frame: &Frame<'_>, version: Version) -> Result<NonZeroU16, Violation> {
    let packet = PacketType::Puback;
    let mut reader = Reader::new(packet, frame.body);
    let packet_id = NonZeroU16::new(reader.two()?).ok_or(Violation::PacketIdZero { packet })?;
    if version.is_v5() && !reader.is_empty() {
        let reason = reader.byte()?;
        if !matches!(reason, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99) {
            return Err(Violation::ReasonCodeNotAllowed { packet, found: reason });
        }
        if !reader.is_empty() {
            property::walk(packet, reader.section()?, property::IN_PUBACK, |_, _| Ok(()))?;
        }
    }
    reader.finish()?;
    Ok(packet_id)
}

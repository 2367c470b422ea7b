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
//! What survives a connection is a [`SessionState`]: the sink hands it in with its [`Accepted`], and gets it back
//! from [`Session::take_ending`]. Subscriptions and retained messages are the sink's, and so is access control.
//! What promises something waits in the [gate](crate::puback) for a ticket of the sink's.
//!
//! Not offered: enhanced authentication (0x8C).

mod acknowledgement;
mod aliases;
mod close;
mod connected;
mod incoming;
mod limits;
mod outgoing;
mod sink;
mod state;
#[cfg(test)]
mod tests;

use std::time::Instant;

pub use close::Close;
pub use limits::SessionLimits;
pub use outgoing::DeliveriesLost;
pub use sink::{Accepted, ConnectVerdict, PublishVerdict, SessionSink, Unsubscribed};
pub use state::{InFlight, SessionState, Stage};

use crate::connect::{Connect, Will};
use crate::frame::{DUP, PACKET_BYTES_MAX_BEFORE_CONNECT, PacketType, Split, Version, split};
use crate::message::Delivery;
use crate::puback::{PubackGate, Ticket};
use crate::publish::Publish;
use crate::violation::{ReasonCode, Violation};
use crate::write;
use connected::Connected;
pub(crate) use connected::keep_alive_s;
use outgoing::Way;

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
    Closed(Close, Option<Box<Ending>>),
}

/// What a connection leaves behind.
#[derive(Debug)]
pub struct Ending {
    /// To publish when its delay is over, or at once if the session ends.
    pub will: Option<Will>,
    /// How long the session waits for its client, in seconds. 0: it has ended.
    pub session_expiry_s: u32,
    /// What was under way.
    pub state: SessionState,
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
    /// As many packets as may wait to be durable do. Go on when some have left.
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

    /// What is left after the session closed, once. `None` also for a connection that never got as far as
    /// its CONNACK.
    pub fn take_ending(&mut self) -> Option<Ending> {
        match &mut self.phase {
            Phase::Closed(_, ending) => ending.take().map(|ending| *ending),
            _ => None,
        }
    }

    /// Packets that wait until what they promise is durable.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.gate.len()
    }

    /// CONNACK waits to be durable. Nothing is read until then.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        matches!(&self.phase, Phase::Connected(connected) if connected.connack.is_some())
    }

    /// Whether a QoS 1 or 2 delivery would be sent at once: the client has room, and nothing waits in front.
    #[must_use]
    pub fn wants_deliveries(&self) -> bool {
        match &self.phase {
            Phase::Connected(connected) => connected.outgoing.wants_deliveries(),
            _ => false,
        }
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
        self.release(out);
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
            Phase::Connecting => return self.step_connect(input, now, sink, out),
            Phase::Closed(..) => return Ok(Step::Stop(Stopped::Closed)),
        };
        if connected.connack.is_some() {
            return Ok(Step::Stop(Stopped::SinkBusy));
        }
        let frame =
            match split(input, true, self.limits.packet_bytes_max).map_err(Close::Violation)? {
                Split::Frame(frame) => frame,
                Split::Incomplete { needed_bytes } => {
                    return Ok(Step::Stop(Stopped::NeedsBytes(needed_bytes)));
                }
            };
        let (limits, gate) = (&self.limits, &mut self.gate);
        if frame.packet == PacketType::Publish {
            let mut publish =
                Publish::parse(&frame, connected.version).map_err(Close::Violation)?;
            if publish.topic_alias.is_some() {
                let resolved = connected.aliases.resolve(&publish, limits.topic_aliases_max);
                publish = resolved.map_err(Close::Violation)?;
            }
            let stop = connected.incoming.admit(&publish, limits, gate, sink)?;
            return Ok(stop.map_or(Step::Used(frame.bytes.len()), Step::Stop));
        }
        if frame.flags & DUP != 0 && connected.version != Version::V31 {
            let (packet, found) = (frame.packet, frame.flags);
            return Err(Close::Violation(Violation::HeaderFlags { packet, found }));
        }
        let asks = matches!(
            frame.packet,
            PacketType::Pubrec
                | PacketType::Pubrel
                | PacketType::Subscribe
                | PacketType::Unsubscribe
        );
        if asks && gate.len() >= 2 * usize::from(limits.receive_maximum) {
            return Ok(Step::Stop(Stopped::GateFull));
        }
        connected.handle_control(&frame, limits, &mut Way { now, sink, gate, out })?;
        Ok(Step::Used(frame.bytes.len()))
    }

    fn step_connect(
        &mut self,
        input: &[u8],
        now: Instant,
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
        let mut connect = match Connect::parse(frame.body) {
            Ok(connect) => connect,
            Err(refused) => {
                if let Some(version) = refused.version {
                    write::connack_refused(version, refused.violation.reason(), out);
                }
                return Err(Close::Violation(refused.violation));
            }
        };
        let asked_s = connect.session_expiry_s;
        connect.session_expiry_s = asked_s.min(self.limits.session_expiry_max_s);
        let assigned = connect.client_id.is_empty().then(|| format!("auto-{:016x}", self.seed));
        let client_id = assigned.as_deref().unwrap_or(connect.client_id).to_owned();
        let accepted = match sink.connect(&connect, &client_id) {
            Ok(ConnectVerdict::Accepted(accepted)) => *accepted,
            Ok(ConnectVerdict::NotNow) => return Ok(Step::Stop(Stopped::SinkBusy)),
            Err(reason) => {
                write::connack_refused(connect.version, reason, out);
                return Err(Close::Broker(reason));
            }
        };
        let connack = write::Connack::new(&connect, asked_s, &self.limits, &accepted, assigned);
        let ticket = accepted.ticket;
        let mut connected = Connected::new(connect, client_id, &self.limits, accepted, asked_s > 0);
        let at = out.len();
        let is_written = connack.write(connected.packet_bytes_max, out);
        if let Some(ticket) = ticket {
            connected.connack = Some((ticket, out.split_off(at).into()));
            connected.outgoing.is_held = true;
        }
        connected.outgoing.pump(&mut Way { now, sink, gate: &mut self.gate, out });
        self.phase = Phase::Connected(Box::new(connected));
        match is_written {
            true => Ok(Step::Used(frame.bytes.len())),
            false => Err(Close::Broker(ReasonCode::PacketTooLarge)),
        }
    }

    /// Everything handed over with `ticket` is durable: PUBACKs that may leave are appended to
    /// `out`. Returns how many.
    pub fn handle_durable(
        &mut self,
        ticket: Ticket,
        now: Instant,
        sink: &mut impl SessionSink,
        out: &mut Vec<u8>,
    ) -> usize {
        self.gate.acknowledge(ticket);
        if let Phase::Connected(connected) = &mut self.phase
            && let Some((_, connack)) = connected.connack.take_if(|(waits, _)| *waits == ticket)
        {
            out.extend_from_slice(&connack);
            connected.outgoing.is_held = false;
            connected.outgoing.pump(&mut Way { now, sink, gate: &mut self.gate, out });
        }
        self.release_reported(out)
    }

    /// Nothing of what was handed over with `ticket` is stored, or will be: its lane was full for too
    /// long. An MQTT 5 client is told with its PUBACK or PUBREC; an older one can only be disconnected, so
    /// that it sends again. Returns how many packets left.
    pub fn handle_refused(&mut self, ticket: Ticket, out: &mut Vec<u8>) -> usize {
        let reason = ReasonCode::QuotaExceeded;
        if !self.version().is_some_and(Version::is_v5) {
            self.release(out);
            // Not with a PUBACK, which would say that it is stored.
            self.gate.refuse(ticket, reason);
            self.end_now(Close::Broker(reason), out);
            return 0;
        }
        self.gate.refuse(ticket, reason);
        self.release_reported(out)
    }

    /// Packets that may leave.
    #[inline]
    fn release(&mut self, out: &mut Vec<u8>) -> usize {
        match &mut self.phase {
            Phase::Connected(connected) if connected.connack.is_none() => {
                let released = self.gate.release(out);
                connected.incoming.settle(&mut self.gate);
                released
            }
            _ => 0,
        }
    }

    /// As [`release`](Self::release), when a lane has reported: idle connections hold no memory.
    fn release_reported(&mut self, out: &mut Vec<u8>) -> usize {
        let released = self.release(out);
        if self.gate.is_empty() {
            self.gate.shrink();
        }
        released
    }

    /// Packets for lanes that have room leave before those for lanes that are full
    /// ([`PubackGate::release_past`]). Returns how many.
    pub fn overtake(
        &mut self,
        full: u32,
        lane_bit: impl Fn(Ticket) -> u32,
        out: &mut Vec<u8>,
    ) -> usize {
        match &mut self.phase {
            Phase::Connected(connected) if connected.connack.is_none() => {
                let released = self.gate.release_past(full, lane_bit, out);
                connected.incoming.settle(&mut self.gate);
                released
            }
            _ => 0,
        }
    }

    /// A message for this client. Ignored when it is not connected.
    pub fn handle_delivery(
        &mut self,
        delivery: Delivery,
        now: Instant,
        sink: &mut impl SessionSink,
        out: &mut Vec<u8>,
    ) {
        if let Phase::Connected(connected) = &mut self.phase {
            let way = &mut Way { now, sink, gate: &mut self.gate, out };
            connected.outgoing.deliver(delivery, way);
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
        // What is durable is acknowledged before the last word.
        self.release(out);
        self.end_now(close, out);
    }

    fn end_now(&mut self, close: Close, out: &mut Vec<u8>) {
        let ending = match std::mem::replace(&mut self.phase, Phase::Connecting) {
            Phase::Closed(earlier, ending) => {
                self.phase = Phase::Closed(earlier, ending);
                return;
            }
            Phase::Connecting => None,
            Phase::Connected(connected) => {
                if let Some(reason) = close.reason() {
                    match connected.connack {
                        None => write::disconnect(connected.version, reason, out),
                        Some(_) => write::connack_refused(connected.version, reason, out),
                    }
                }
                Some(Box::new(connected.into_ending(&close, &self.gate)))
            }
        };
        self.gate = PubackGate::default();
        self.phase = Phase::Closed(close, ending);
    }
}

enum Step {
    Used(usize),
    Stop(Stopped),
}

//! A connection whose CONNECT was accepted: everything but PUBLISH.

use std::time::Duration;

use super::acknowledgement;
use super::aliases::AliasesIn;
use super::incoming::Incoming;
use super::outgoing::{Outgoing, Way};
use super::{Accepted, Close, Ending, SessionLimits, SessionSink};
use crate::connect::{Connect, Will};
use crate::frame::{Frame, PacketType, Version};
use crate::property;
use crate::puback::{PubackGate, Ticket};
use crate::reader::Reader;
use crate::subscribe::{Subscribe, Unsubscribe};
use crate::violation::{ReasonCode, Violation};
use crate::write;

#[derive(Debug)]
pub(super) struct Connected {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) keep_alive: Option<Duration>,
    pub(super) packet_bytes_max: usize,
    /// CONNACK, as long as it waits to be durable.
    pub(super) connack: Option<(Ticket, Box<[u8]>)>,
    pub(super) aliases: AliasesIn,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    will: Option<Will>,
    session_expiry_s: u32,
    /// CONNECT asked for a session that outlives the connection.
    session_expiry_asked: bool,
}

impl Connected {
    pub(super) fn new(
        connect: Connect<'_>,
        client_id: String,
        limits: &SessionLimits,
        accepted: Accepted,
        session_expiry_asked: bool,
    ) -> Self {
        let mut state = accepted.resumed.map(|state| *state).unwrap_or_default();
        let received = std::mem::take(&mut state.received);
        let keep_alive_s = keep_alive_s(&connect, limits);
        Self {
            version: connect.version,
            client_id,
            keep_alive: (keep_alive_s > 0)
                .then(|| Duration::from_millis(u64::from(keep_alive_s) * 1_500)),
            packet_bytes_max: connect
                .packet_bytes_max
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(usize::MAX),
            connack: None,
            aliases: AliasesIn::default(),
            incoming: Incoming::new(connect.version, limits, received),
            outgoing: Outgoing::new(&connect, limits, state),
            session_expiry_s: connect.session_expiry_s,
            session_expiry_asked,
            will: connect.will,
        }
    }

    pub(super) fn handle_control(
        &mut self,
        frame: &Frame<'_>,
        limits: &SessionLimits,
        way: &mut Way<'_, impl SessionSink>,
    ) -> Result<(), Close> {
        match frame.packet {
            PacketType::Pingreq if frame.body.is_empty() => {
                way.out.extend_from_slice(&write::PINGRESP);
                Ok(())
            }
            PacketType::Pingreq => {
                Err(Close::Violation(Violation::TrailingBytes { packet: frame.packet }))
            }
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                let (packet_id, reason) =
                    acknowledgement::parse(frame, self.version).map_err(Close::Violation)?;
                match frame.packet {
                    PacketType::Puback => self.outgoing.acknowledged(packet_id, way),
                    PacketType::Pubrec => self.outgoing.received(packet_id, reason, way),
                    PacketType::Pubrel => self.incoming.release(packet_id, way.gate, way.sink),
                    _ => self.outgoing.completed(packet_id, way),
                }
                Ok(())
            }
            PacketType::Subscribe => {
                let subscribe = Subscribe::parse(frame, self.version).map_err(Close::Violation)?;
                self.handle_subscribe(&subscribe, way)
            }
            PacketType::Unsubscribe => {
                let unsubscribe =
                    Unsubscribe::parse(frame, self.version).map_err(Close::Violation)?;
                self.handle_unsubscribe(&unsubscribe, way)
            }
            PacketType::Disconnect => {
                let (with_will, session_expiry_s) =
                    self.parse_disconnect(frame).map_err(Close::Violation)?;
                if let Some(asked_s) = session_expiry_s {
                    self.session_expiry_s = asked_s.min(limits.session_expiry_max_s);
                }
                Err(Close::Disconnected { with_will })
            }
            PacketType::Auth if !self.version.is_v5() => {
                let found = PacketType::Auth as u8;
                Err(Close::Violation(Violation::PacketTypeNotAccepted { found }))
            }
            PacketType::Auth => Err(Close::Violation(Violation::AuthenticationNotStarted)),
            packet => Err(Close::Violation(Violation::BrokerOnlyPacket { packet })),
        }
    }

    fn handle_subscribe(
        &mut self,
        subscribe: &Subscribe,
        way: &mut Way<'_, impl SessionSink>,
    ) -> Result<(), Close> {
        let mut ticket = None;
        let answers: Vec<_> = subscribe
            .filters
            .iter()
            .map(|requested| {
                let given = way.sink.subscribe(&requested.filter, requested.options)?;
                ticket = given.or(ticket);
                Ok(requested.options.qos)
            })
            .collect();
        let packet = write::suback(self.version, subscribe.packet_id.get(), &answers);
        self.answer(packet, ticket, way)
    }

    fn handle_unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe,
        way: &mut Way<'_, impl SessionSink>,
    ) -> Result<(), Close> {
        let mut ticket = None;
        let existed: Vec<_> = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                let done = way.sink.unsubscribe(filter);
                ticket = done.ticket.or(ticket);
                done.existed
            })
            .collect();
        let packet = write::unsuback(self.version, unsubscribe.packet_id.get(), &existed);
        self.answer(packet, ticket, way)
    }

    /// Without a ticket at once: nothing says that SUBACK has to wait for the PUBACKs before it.
    fn answer(
        &self,
        packet: Vec<u8>,
        ticket: Option<Ticket>,
        way: &mut Way<'_, impl SessionSink>,
    ) -> Result<(), Close> {
        if packet.len() > self.packet_bytes_max {
            return Err(Close::Broker(ReasonCode::PacketTooLarge));
        }
        match ticket {
            Some(_) => way.gate.hold_packet(ticket, packet.into()),
            None => way.out.extend_from_slice(&packet),
        }
        Ok(())
    }

    /// Ours: the codec of `rumqttd` 0.20 refuses a DISCONNECT of one byte, which the standard allows.
    /// Returns whether the will is to be published, and the session expiry if it is set anew.
    fn parse_disconnect(&self, frame: &Frame<'_>) -> Result<(bool, Option<u32>), Violation> {
        let packet = PacketType::Disconnect;
        let mut reader = Reader::new(packet, frame.body);
        if !self.version.is_v5() || reader.is_empty() {
            reader.finish()?;
            return Ok((false, None));
        }
        let reason = reader.byte()?;
        let from_client = matches!(reason, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99);
        if !from_client {
            return Err(Violation::ReasonCodeNotAllowed { packet, found: reason });
        }
        let mut session_expiry_s = None;
        if !reader.is_empty() {
            property::walk(packet, reader.section()?, property::IN_DISCONNECT, |id, value| {
                if id == property::SESSION_EXPIRY_INTERVAL {
                    if value.number() > 0 && !self.session_expiry_asked {
                        return Err(Violation::SessionExpiryAtDisconnect);
                    }
                    session_expiry_s = Some(value.number());
                }
                Ok(())
            })?;
            reader.finish()?;
        }
        Ok((reason != 0, session_expiry_s))
    }

    /// The connection is over: what it leaves.
    pub(super) fn into_ending(self, close: &Close, gate: &PubackGate) -> Ending {
        let mut state = self.outgoing.into_state();
        state.received = self.incoming.received;
        for (ticket, packet_id) in gate.unsettled() {
            let was_new = state.received.remove(packet_id);
            if let Some(ticket) = ticket.filter(|_| was_new) {
                state.unsettled.push((packet_id, ticket));
            }
        }
        Ending {
            will: self.will.filter(|_| close.publishes_will()),
            session_expiry_s: self.session_expiry_s,
            state,
        }
    }
}

/// The keep-alive in force: that of the client, or ours.
pub(crate) fn keep_alive_s(connect: &Connect<'_>, limits: &SessionLimits) -> u16 {
    let (asked_s, max_s) = (connect.keep_alive_s, limits.keep_alive_max_s);
    let is_too_long = max_s > 0 && (asked_s == 0 || asked_s > max_s);
    if is_too_long && connect.version.is_v5() { max_s } else { asked_s }
}

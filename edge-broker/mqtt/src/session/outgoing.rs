//! Deliveries to one subscriber: packet identifiers, the client's Receive Maximum, a bounded queue.
//!
//! QoS 0 is written at once. QoS 1 and 2 take a packet identifier until their exchange is over; when the
//! client's quota is used up, or too many bytes are under way, deliveries wait here, at most
//! [`deliveries_queued_bytes_max`](super::SessionLimits::deliveries_queued_bytes_max) bytes; beyond
//! that the newest are dropped and counted. What a connection leaves unfinished the next one of the same
//! session sends again, in the same order (4.4, 4.6).

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::time::Instant;

use super::aliases::AliasesOut;
use super::state::{InFlight, SessionState, Stage};
use super::{SessionLimits, SessionSink};
use crate::connect::Connect;
use crate::frame::Version;
use crate::message::{self, Alias, Delivery, Form};
use crate::packet_ids::PacketIds;
use crate::puback::{PubackGate, Reply};
use crate::publish::Qos;
use crate::violation::ReasonCode;

/// Deliveries that did not reach the client, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveriesLost {
    /// The queue was full.
    pub queue_full: u64,
    /// The message expiry interval was over.
    pub expired: u64,
    /// Larger than the client's Maximum Packet Size.
    pub too_large: u64,
}

/// What a delivery needs on its way out.
pub(super) struct Way<'a, S: SessionSink> {
    pub(super) now: Instant,
    pub(super) sink: &'a mut S,
    pub(super) gate: &'a mut PubackGate,
    pub(super) out: &'a mut Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    version: Version,
    packet_bytes_max: usize,
    in_flight_max: usize,
    in_flight_bytes_max: usize,
    queued_bytes_max: usize,
    last_packet_id: u16,
    /// Identifiers of `in_flight`.
    ids: PacketIds,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// Of those, sent on this connection: the client's Receive Maximum counts them (4.9).
    used: usize,
    /// Of an earlier connection, to be sent again.
    again: VecDeque<NonZeroU16>,
    queue: VecDeque<Delivery>,
    queued_bytes: usize,
    /// There is QoS 0 in `queue`: it came before CONNACK left, and waits for nothing else.
    holds_qos0: bool,
    /// A QoS 2 PUBLISH went into the gate: as long as something is in there, later ones follow it.
    is_gated: bool,
    aliases: AliasesOut,
    /// CONNACK has not left: everything waits behind it.
    pub(super) is_held: bool,
    pub(super) lost: DeliveriesLost,
}

impl Outgoing {
    pub(super) fn new(connect: &Connect<'_>, limits: &SessionLimits, state: SessionState) -> Self {
        let aliases = match connect.version.is_v5() {
            true => connect.topic_alias_max.min(limits.topic_aliases_max),
            false => 0,
        };
        let SessionState { last_packet_id, in_flight, queue, .. } = state;
        Self {
            version: connect.version,
            packet_bytes_max: connect
                .packet_bytes_max
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(usize::MAX),
            in_flight_max: usize::from(
                connect.receive_maximum.min(limits.deliveries_in_flight_max),
            ),
            in_flight_bytes_max: limits.deliveries_in_flight_bytes_max,
            queued_bytes_max: limits.deliveries_queued_bytes_max,
            last_packet_id,
            ids: in_flight.iter().map(|sent| sent.packet_id).collect(),
            again: in_flight.iter().map(|sent| sent.packet_id).collect(),
            in_flight_bytes: in_flight.iter().map(InFlight::cost_bytes).sum(),
            in_flight,
            used: 0,
            queued_bytes: queue.iter().map(|waits| waits.message.cost_bytes()).sum(),
            holds_qos0: queue.iter().any(|waits| waits.qos == Qos::AtMostOnce),
            queue,
            is_gated: false,
            aliases: AliasesOut::new(aliases),
            is_held: false,
            lost: DeliveriesLost::default(),
        }
    }

    /// What the session keeps. The received identifiers are somebody else's.
    pub(super) fn into_state(self) -> SessionState {
        SessionState {
            last_packet_id: self.last_packet_id,
            in_flight: self.in_flight,
            queue: self.queue,
            ..SessionState::default()
        }
    }

    /// Whether a QoS 1 or 2 delivery would be sent at once.
    pub(super) fn wants_deliveries(&self) -> bool {
        !self.is_held && self.again.is_empty() && self.queue.is_empty() && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.used < self.in_flight_max
            && (self.in_flight_bytes < self.in_flight_bytes_max || self.used == 0)
    }

    pub(super) fn deliver(&mut self, delivery: Delivery, way: &mut Way<'_, impl SessionSink>) {
        if delivery.qos == Qos::AtMostOnce && !self.is_held {
            self.send_qos0(&delivery, way);
            return;
        }
        if self.wants_deliveries() {
            self.send(delivery, way);
            return;
        }
        let cost = delivery.message.cost_bytes();
        if self.queued_bytes + cost > self.queued_bytes_max {
            self.lost.queue_full += 1;
            if delivery.tag != 0 {
                way.sink.delivered(delivery.tag);
            }
            return;
        }
        self.queued_bytes += cost;
        self.holds_qos0 |= delivery.qos == Qos::AtMostOnce;
        self.queue.push_back(delivery);
    }

    /// The client acknowledged a delivery. Unknown identifiers are ignored, as the standard leaves
    /// it to us.
    pub(super) fn acknowledged(
        &mut self,
        packet_id: NonZeroU16,
        way: &mut Way<'_, impl SessionSink>,
    ) {
        let sent = self.position(packet_id);
        let is_qos1 = |sent: &InFlight| matches!(&sent.stage, Stage::Published(delivery) if delivery.qos == Qos::AtLeastOnce);
        if let Some(at) = sent
            && self.in_flight.get(at).is_some_and(is_qos1)
        {
            self.done(at, way);
            self.pump(way);
        }
    }

    /// PUBREC. One with an error ends the exchange.
    pub(super) fn received(
        &mut self,
        packet_id: NonZeroU16,
        reason: u8,
        way: &mut Way<'_, impl SessionSink>,
    ) {
        let Some(at) = self.position(packet_id) else {
            if reason < 0x80 {
                self.release_unknown(packet_id, way);
            }
            return;
        };
        let Some(sent) = self.in_flight.get_mut(at) else { return };
        let tag = sent.tag();
        match &sent.stage {
            Stage::Published(delivery) if delivery.qos != Qos::ExactlyOnce => return,
            Stage::Published(delivery) if reason < 0x80 => {
                self.in_flight_bytes -= delivery.message.cost_bytes();
                sent.stage = Stage::Released { tag };
            }
            Stage::Released { .. } if reason < 0x80 => {}
            _ => {
                self.done(at, way);
                self.pump(way);
                return;
            }
        }
        let ticket = way.sink.received(packet_id, tag);
        way.gate.hold_reply(Reply::Pubrel, ticket, packet_id);
        self.pump(way);
    }

    fn release_unknown(&self, packet_id: NonZeroU16, way: &mut Way<'_, impl SessionSink>) {
        match self.version.is_v5() {
            true => way.gate.deny(Reply::Pubrel, packet_id, ReasonCode::PacketIdNotFound),
            false => way.gate.hold_reply(Reply::Pubrel, None, packet_id),
        }
    }

    /// PUBCOMP.
    pub(super) fn completed(&mut self, packet_id: NonZeroU16, way: &mut Way<'_, impl SessionSink>) {
        let released = |sent: &InFlight| matches!(sent.stage, Stage::Released { .. });
        if let Some(at) = self.position(packet_id)
            && self.in_flight.get(at).is_some_and(released)
        {
            self.done(at, way);
            self.pump(way);
        }
    }

    /// Most are acknowledged in the order in which they were sent.
    fn position(&self, packet_id: NonZeroU16) -> Option<usize> {
        if !self.ids.contains(packet_id) {
            return None;
        }
        self.in_flight.iter().position(|sent| sent.packet_id == packet_id)
    }

    fn done(&mut self, at: usize, way: &mut Way<'_, impl SessionSink>) {
        let Some(sent) = self.in_flight.remove(at) else { return };
        self.in_flight_bytes -= sent.cost_bytes();
        self.ids.remove(sent.packet_id);
        match self.again.iter().position(|packet_id| *packet_id == sent.packet_id) {
            Some(at) => drop(self.again.remove(at)),
            None => self.used = self.used.saturating_sub(1),
        }
        if sent.tag() != 0 {
            way.sink.delivered(sent.tag());
        }
        if self.in_flight.is_empty() {
            self.in_flight = VecDeque::new();
        }
    }

    /// Sends what waits, as far as the client takes it.
    pub(super) fn pump(&mut self, way: &mut Way<'_, impl SessionSink>) {
        if self.is_held {
            return;
        }
        if std::mem::take(&mut self.holds_qos0) {
            // Before any that is live: what comes later must not overtake it.
            let (held, queue): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.queue)
                .into_iter()
                .partition(|waits| waits.qos == Qos::AtMostOnce);
            self.queue = queue;
            for delivery in held {
                self.queued_bytes -= delivery.message.cost_bytes();
                self.send_qos0(&delivery, way);
            }
        }
        while self.used < self.in_flight_max
            && let Some(packet_id) = self.again.pop_front()
        {
            self.send_again(packet_id, way);
        }
        while self.again.is_empty()
            && self.has_room()
            && let Some(next) = self.queue.pop_front()
        {
            self.queued_bytes -= next.message.cost_bytes();
            self.send(next, way);
        }
    }

    fn send_again(&mut self, packet_id: NonZeroU16, way: &mut Way<'_, impl SessionSink>) {
        let Some(packet_at) = self.position(packet_id) else { return };
        let Some(sent) = self.in_flight.get(packet_at) else { return };
        self.used += 1;
        let delivery = match &sent.stage {
            Stage::Published(delivery) => delivery,
            &Stage::Released { tag } => {
                // The connection may have ended before this was durable.
                let ticket = way.sink.received(packet_id, tag);
                way.gate.hold_reply(Reply::Pubrel, ticket, packet_id);
                way.gate.release(way.out);
                return;
            }
        };
        let form = Form {
            version: self.version,
            packet_id: packet_id.get(),
            dup: true,
            alias: Alias::None,
            packet_bytes_max: self.packet_bytes_max,
        };
        let (at, qos, tag) = (way.out.len(), delivery.qos, delivery.tag);
        if message::write(delivery, form, way.now, way.out).is_err() {
            // This connection takes smaller packets than the last.
            self.lost.too_large += 1;
            self.done(packet_at, way);
            return;
        }
        if qos == Qos::ExactlyOnce {
            self.gate(packet_id, tag, at, way);
        }
    }

    /// A QoS 2 PUBLISH was written at `at`: it leaves when its identifier is durable, in its turn.
    fn gate(&mut self, id: NonZeroU16, tag: u64, at: usize, way: &mut Way<'_, impl SessionSink>) {
        let ticket = way.sink.sending(id, tag);
        self.is_gated = ticket.is_some() || (self.is_gated && !way.gate.is_empty());
        if self.is_gated {
            let packet = way.out.split_off(at);
            way.gate.hold_packet(ticket, packet.into());
        }
    }

    fn send(&mut self, delivery: Delivery, way: &mut Way<'_, impl SessionSink>) {
        let packet_id = self.free_packet_id();
        let at = way.out.len();
        if !self.write(&delivery, packet_id.get(), way) {
            if delivery.tag != 0 {
                way.sink.delivered(delivery.tag);
            }
            return;
        }
        if delivery.qos == Qos::ExactlyOnce {
            self.gate(packet_id, delivery.tag, at, way);
        }
        self.last_packet_id = packet_id.get();
        self.ids.insert(packet_id);
        self.used += 1;
        self.in_flight_bytes += delivery.message.cost_bytes();
        self.in_flight.push_back(InFlight { packet_id, stage: Stage::Published(delivery) });
    }

    fn send_qos0(&mut self, delivery: &Delivery, way: &mut Way<'_, impl SessionSink>) {
        self.write(delivery, 0, way);
        if delivery.tag != 0 {
            way.sink.delivered(delivery.tag);
        }
    }

    fn write(
        &mut self,
        delivery: &Delivery,
        packet_id: u16,
        way: &mut Way<'_, impl SessionSink>,
    ) -> bool {
        // A QoS 2 PUBLISH may wait in the gate, and what it sets would be used before.
        let alias = match delivery.qos {
            Qos::ExactlyOnce => Alias::None,
            _ => self.aliases.choose(delivery.message.topic()),
        };
        let form = Form {
            version: self.version,
            packet_id,
            dup: false,
            alias,
            packet_bytes_max: self.packet_bytes_max,
        };
        match message::write(delivery, form, way.now, way.out) {
            Ok(()) => {
                self.aliases.written(delivery.message.topic(), alias);
                return true;
            }
            Err(message::NotWritten::Expired) => self.lost.expired += 1,
            Err(message::NotWritten::TooLarge) => self.lost.too_large += 1,
        }
        false
    }

    /// The next identifier that is not in flight. There is one: in flight are at most 65,534 of
    /// 65,535, as the state of a session and the limits say.
    fn free_packet_id(&self) -> NonZeroU16 {
        let mut packet_id = self.last_packet_id;
        loop {
            packet_id = packet_id.checked_add(1).unwrap_or(1);
            if let Some(free) = NonZeroU16::new(packet_id).filter(|id| !self.ids.contains(*id)) {
                return free;
            }
        }
    }
}

//! Deliveries to one subscriber: packet identifiers, the client's Receive Maximum, a bounded queue.
//!
//! QoS 0 is written at once. QoS 1 takes a packet identifier until its PUBACK arrives; when the
//! client's quota is used up, deliveries wait here, at most
//! [`deliveries_queued_bytes_max`](super::SessionLimits::deliveries_queued_bytes_max) bytes; beyond
//! that the newest are dropped and counted. Sessions end with their connection, so nothing is ever
//! sent a second time.

use std::collections::VecDeque;
use std::time::Instant;

use hashbrown::HashSet;

use super::SessionLimits;
use crate::connect::Connect;
use crate::frame::Version;
use crate::message::{self, Delivery};
use crate::publish::Qos;

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

#[derive(Debug)]
pub(crate) struct Outgoing {
    version: Version,
    packet_bytes_max: usize,
    in_flight_max: usize,
    queued_bytes_max: usize,
    last_packet_id: u16,
    in_flight: HashSet<u16>,
    queue: VecDeque<Delivery>,
    queued_bytes: usize,
    pub(crate) lost: DeliveriesLost,
}

impl Outgoing {
    pub(crate) fn new(connect: &Connect<'_>, limits: &SessionLimits) -> Self {
        Self {
            version: connect.version,
            packet_bytes_max: connect
                .packet_bytes_max
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(usize::MAX),
            in_flight_max: usize::from(
                connect.receive_maximum.min(limits.deliveries_in_flight_max),
            ),
            queued_bytes_max: limits.deliveries_queued_bytes_max,
            last_packet_id: 0,
            in_flight: HashSet::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            lost: DeliveriesLost::default(),
        }
    }

    pub(crate) fn deliver(&mut self, delivery: Delivery, now: Instant, out: &mut Vec<u8>) {
        if delivery.qos == Qos::AtMostOnce {
            self.write(&delivery, 0, now, out);
            return;
        }
        if self.queue.is_empty() && self.in_flight.len() < self.in_flight_max {
            self.send(&delivery, now, out);
            return;
        }
        let cost = delivery.message.cost_bytes();
        if self.queued_bytes + cost > self.queued_bytes_max {
            self.lost.queue_full += 1;
            return;
        }
        self.queued_bytes += cost;
        self.queue.push_back(delivery);
    }

    /// The client acknowledged a delivery. Unknown identifiers are ignored, as the standard leaves
    /// it to us.
    pub(crate) fn acknowledged(&mut self, packet_id: u16, now: Instant, out: &mut Vec<u8>) {
        if !self.in_flight.remove(&packet_id) {
            return;
        }
        while self.in_flight.len() < self.in_flight_max {
            let Some(next) = self.queue.pop_front() else { break };
            self.queued_bytes -= next.message.cost_bytes();
            self.send(&next, now, out);
        }
    }

    fn send(&mut self, delivery: &Delivery, now: Instant, out: &mut Vec<u8>) {
        let packet_id = self.free_packet_id();
        if self.write(delivery, packet_id, now, out) {
            self.last_packet_id = packet_id;
            self.in_flight.insert(packet_id);
        }
    }

    fn write(
        &mut self,
        delivery: &Delivery,
        packet_id: u16,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> bool {
        let max = self.packet_bytes_max;
        match message::write(delivery, self.version, packet_id, max, now, out) {
            Ok(()) => return true,
            Err(message::NotWritten::Expired) => self.lost.expired += 1,
            Err(message::NotWritten::TooLarge) => self.lost.too_large += 1,
        }
        false
    }

    /// The next identifier that is not in flight. There is one: in flight are at most 65,535 of
    /// 65,535, and we only come here below the limit.
    fn free_packet_id(&self) -> u16 {
        let mut packet_id = self.last_packet_id;
        loop {
            packet_id = packet_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains(&packet_id) {
                return packet_id;
            }
        }
    }
}

//! THE gate: the only code that makes a PUBACK.
//!
//! - A QoS 1 publish enters with the [`Ticket`] of the hand-over that carries it to a lane; its
//!   PUBACK leaves after that ticket was reported durable, never before.
//! - PUBACKs leave in the order in which the publishes came (MQTT 5.0 section 4.6), also when they
//!   went to different lanes: a slow lane holds back what came after it on the same connection.
//! - A ticket that failed is never reported: the connection ends and the client sends again.
//!
//! Limits: the caller bounds [`PubackGate::len`] (Receive Maximum). Reason code is always success,
//! so the four bytes are the same in all versions.
//!
//! Source: MQTT 5.0 section 3.4, 3.1.1 section 3.4.

use std::collections::VecDeque;
use std::num::NonZeroU16;

/// One hand-over of publishes of one connection, counted by the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

const FIRST_BYTE: u8 = 0x40;
const REMAINING_LENGTH: u8 = 2;

/// Publishes of one connection that wait for their PUBACK, in order of arrival.
#[derive(Debug, Default)]
pub struct PubackGate {
    packet_ids: VecDeque<NonZeroU16>,
    runs: VecDeque<Run>,
}

/// Neighbours that share a ticket.
#[derive(Debug)]
struct Run {
    /// `None`: there is nothing to wait for but those in front.
    ticket: Option<Ticket>,
    count: usize,
}

impl PubackGate {
    /// Publishes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packet_ids.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packet_ids.is_empty()
    }

    /// Holds the PUBACK of `packet_id` until `ticket` is durable. `None`: the route stores nothing,
    /// so only the order has to be kept.
    #[inline]
    pub fn hold(&mut self, ticket: Option<Ticket>, packet_id: NonZeroU16) {
        self.packet_ids.push_back(packet_id);
        match self.runs.back_mut() {
            Some(run) if run.ticket == ticket => run.count += 1,
            _ => self.runs.push_back(Run { ticket, count: 1 }),
        }
    }

    /// Everything handed over with `ticket` is durable. Call [`release`](Self::release) after.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        for run in &mut self.runs {
            if run.ticket == Some(ticket) {
                run.ticket = None;
            }
        }
    }

    /// Appends the PUBACKs that may leave to `out`. Returns how many.
    pub fn release(&mut self, out: &mut Vec<u8>) -> usize {
        let mut released = 0;
        while let Some(Run { ticket: None, count }) = self.runs.front() {
            released += count;
            self.runs.pop_front();
        }
        out.reserve(4 * released);
        for packet_id in self.packet_ids.drain(..released) {
            let [high, low] = packet_id.get().to_be_bytes();
            out.extend_from_slice(&[FIRST_BYTE, REMAINING_LENGTH, high, low]);
        }
        released
    }

    /// Gives memory back when nothing waits: idle connections hold none.
    pub fn shrink(&mut self) {
        if self.packet_ids.is_empty() {
            self.packet_ids = VecDeque::new();
            self.runs = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u16; 0] = [];

    fn id(value: u16) -> NonZeroU16 {
        NonZeroU16::new(value).expect("not zero")
    }

    fn released(gate: &mut PubackGate) -> Vec<u16> {
        let mut out = Vec::new();
        let count = gate.release(&mut out);
        assert_eq!(out.len(), 4 * count);
        out.chunks_exact(4)
            .map(|bytes| {
                assert_eq!(bytes[..2], [0x40, 2]);
                u16::from_be_bytes([bytes[2], bytes[3]])
            })
            .collect()
    }

    #[test]
    fn nothing_leaves_before_its_ticket_is_durable() {
        let mut gate = PubackGate::default();
        gate.hold(Some(Ticket(1)), id(7));
        gate.hold(Some(Ticket(2)), id(8));
        assert_eq!(released(&mut gate), NONE);
        gate.acknowledge(Ticket(1));
        assert_eq!(released(&mut gate), [7]);
        assert_eq!(gate.len(), 1);
        gate.acknowledge(Ticket(2));
        assert_eq!(released(&mut gate), [8]);
        assert!(gate.is_empty());
    }

    #[test]
    fn order_of_arrival_is_kept_across_lanes() {
        let mut gate = PubackGate::default();
        for (ticket, packet_id) in [(1, 10), (2, 11), (1, 12), (2, 13)] {
            gate.hold(Some(Ticket(ticket)), id(packet_id));
        }
        gate.acknowledge(Ticket(2));
        assert_eq!(released(&mut gate), NONE, "the first publish is not durable yet");
        gate.acknowledge(Ticket(1));
        assert_eq!(released(&mut gate), [10, 11, 12, 13]);
    }

    #[test]
    fn what_is_not_stored_waits_only_for_its_turn() {
        let mut gate = PubackGate::default();
        gate.hold(None, id(1));
        gate.hold(Some(Ticket(1)), id(2));
        gate.hold(None, id(3));
        assert_eq!(released(&mut gate), [1]);
        gate.acknowledge(Ticket(1));
        assert_eq!(released(&mut gate), [2, 3]);
    }

    #[test]
    fn a_failed_ticket_is_never_acknowledged() {
        let mut gate = PubackGate::default();
        gate.hold(Some(Ticket(1)), id(1));
        gate.hold(Some(Ticket(2)), id(2));
        gate.acknowledge(Ticket(2));
        gate.acknowledge(Ticket(99));
        assert_eq!(released(&mut gate), NONE);
        assert_eq!(gate.len(), 2);
    }
}

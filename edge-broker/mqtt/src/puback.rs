//! THE gate: the only code that makes a PUBACK, and every other packet that promises.
//!
//! - A QoS 1 publish enters with the [`Ticket`] of the hand-over that carries it to a lane; its
//!   PUBACK leaves after that ticket was reported durable, never before. The same goes for PUBREC,
//!   PUBREL, PUBCOMP and for whole packets ([`PubackGate::hold_packet`]).
//! - They leave in the order in which they came, also when they wait for different lanes: a
//!   slow lane holds back what came after it on the same connection. Only publishes that a full lane
//!   holds are overtaken ([`PubackGate::release_past`]): what has room does not wait for what has not.
//!   The order of PUBACKs is a duty of the *client* that receives ([MQTT-4.6.0-2], 3.1.1 and 5.0: "the
//!   Client MUST send PUBACK packets in the order..."); what binds the server is the order of messages
//!   within a topic (ordered topics), and a topic belongs to one lane, whose order is always kept.
//! - A ticket that failed is never reported: the connection ends and the client sends again. One that
//!   was refused is acknowledged with the reason (MQTT 5 only): nothing of it is stored.
//!
//! Limits: the caller bounds [`PubackGate::len`] (Receive Maximum, and twice that for all packets). A
//! success takes four bytes, the same in all versions.
//!
//! Source: MQTT 5.0 sections 3.4 to 3.7 and 4.6, 3.1.1 the same.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::violation::ReasonCode;

/// One hand-over of publishes of one connection, counted by the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A packet of an exchange that the gate makes; its first byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// A QoS 1 PUBLISH is stored.
    Puback = 0x40,
    /// A QoS 2 PUBLISH is stored.
    Pubrec = 0x50,
    /// A subscriber's PUBREC is remembered.
    Pubrel = 0x62,
    /// A PUBREL is remembered: the exchange is over.
    Pubcomp = 0x70,
}

const REMAINING_LENGTH: u8 = 2;
const REMAINING_LENGTH_WITH_REASON: u8 = 3;

/// Packets of one connection that wait until what they promise is durable, in order.
#[derive(Debug, Default)]
pub struct PubackGate {
    packet_ids: VecDeque<NonZeroU16>,
    runs: VecDeque<Run>,
    /// Whole packets, for runs of [`What::Packet`].
    packets: VecDeque<Box<[u8]>>,
    left: Left,
}

/// What has left since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Publishes of the client that are done: each gives back one of its Receive Maximum.
    pub(crate) completed: usize,
    /// QoS 2 publishes that were refused: their identifiers are free again.
    pub(crate) refused: Vec<NonZeroU16>,
}

/// Neighbours of a kind that wait for the same.
#[derive(Clone, Copy, Debug)]
struct Run {
    wait: Wait,
    what: What,
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Reply(Reply),
    Packet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For what was handed over with this ticket.
    For(Ticket),
    /// For nothing but those in front.
    Turn,
    /// The same; then it is refused.
    Denied(ReasonCode),
    /// The same, and for those of its lane; then it is refused.
    Refused(Ticket, ReasonCode),
}

impl From<Option<Ticket>> for Wait {
    #[inline]
    fn from(ticket: Option<Ticket>) -> Self {
        ticket.map_or(Self::Turn, Self::For)
    }
}

impl PubackGate {
    /// Packets that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packet_ids.len() + self.packets.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Holds the PUBACK of `packet_id` until `ticket` is durable. `None`: the route stores nothing,
    /// so only the order has to be kept.
    #[inline]
    pub fn hold(&mut self, ticket: Option<Ticket>, packet_id: NonZeroU16) {
        self.hold_reply(Reply::Puback, ticket, packet_id);
    }

    /// Holds any of the replies.
    #[inline]
    pub fn hold_reply(&mut self, reply: Reply, ticket: Option<Ticket>, packet_id: NonZeroU16) {
        self.push(ticket.into(), reply, packet_id);
    }

    /// Holds a packet as it is.
    pub fn hold_packet(&mut self, ticket: Option<Ticket>, packet: Box<[u8]>) {
        self.packets.push_back(packet);
        self.runs.push_back(Run { wait: ticket.into(), what: What::Packet, count: 1 });
    }

    /// A QoS 2 PUBLISH came again: its PUBREC leaves once more, not before the first.
    pub fn hold_pubrec_again(&mut self, packet_id: NonZeroU16) {
        let wait = self.pubrecs().find(|(_, known)| *known == packet_id);
        self.push(wait.map_or(Wait::Turn, |(wait, _)| wait), Reply::Pubrec, packet_id);
    }

    /// Not stored, and never will be: the reply says why, in its turn. For MQTT 5 clients only.
    pub fn deny(&mut self, reply: Reply, packet_id: NonZeroU16, reason: ReasonCode) {
        self.push(Wait::Denied(reason), reply, packet_id);
    }

    #[inline]
    fn push(&mut self, wait: Wait, reply: Reply, packet_id: NonZeroU16) {
        self.packet_ids.push_back(packet_id);
        let what = What::Reply(reply);
        match self.runs.back_mut() {
            Some(run) if run.wait == wait && run.what == what => run.count += 1,
            _ => self.runs.push_back(Run { wait, what, count: 1 }),
        }
    }

    /// PUBRECs that wait, with what they wait for.
    fn pubrecs(&self) -> impl Iterator<Item = (Wait, NonZeroU16)> + '_ {
        let mut at = 0;
        self.runs.iter().flat_map(move |run| {
            let ids = match run.what {
                What::Packet => at..at,
                What::Reply(_) => at..at + run.count,
            };
            at = ids.end;
            let ids = if run.what == What::Reply(Reply::Pubrec) { ids } else { at..at };
            self.packet_ids.range(ids).map(|packet_id| (run.wait, *packet_id))
        })
    }

    /// QoS 2 publishes that are not known to be stored, each with its ticket; without one: refused.
    pub fn unsettled(&self) -> impl Iterator<Item = (Option<Ticket>, NonZeroU16)> + '_ {
        self.pubrecs().filter_map(|(wait, packet_id)| match wait {
            Wait::For(ticket) => Some((Some(ticket), packet_id)),
            Wait::Turn => None,
            Wait::Denied(_) | Wait::Refused(..) => Some((None, packet_id)),
        })
    }

    /// Everything handed over with `ticket` is durable. Call [`release`](Self::release) after.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        self.settle(ticket, Wait::Turn);
    }

    /// Nothing of what was handed over with `ticket` is stored, or will be. For MQTT 5 clients only:
    /// older ones have no word for it.
    pub fn refuse(&mut self, ticket: Ticket, reason: ReasonCode) {
        self.settle(ticket, Wait::Refused(ticket, reason));
    }

    fn settle(&mut self, ticket: Ticket, settled: Wait) {
        for run in &mut self.runs {
            if run.wait == Wait::For(ticket) {
                run.wait = settled;
            }
        }
    }

    /// What has left since the last call.
    pub(crate) fn take_left(&mut self) -> Left {
        std::mem::take(&mut self.left)
    }

    /// Appends the packets that may leave to `out`. Returns how many.
    pub fn release(&mut self, out: &mut Vec<u8>) -> usize {
        let mut released = 0;
        while let Some(&run) = self.runs.front() {
            if matches!(run.wait, Wait::For(_)) {
                break;
            }
            self.runs.pop_front();
            match run.what {
                What::Reply(reply) => {
                    out.reserve(5 * run.count);
                    for packet_id in self.packet_ids.drain(..run.count) {
                        put(reply, packet_id, run.wait, &mut self.left, out);
                    }
                }
                What::Packet => {
                    self.packets
                        .drain(..run.count)
                        .for_each(|packet| out.extend_from_slice(&packet));
                }
            }
            released += run.count;
        }
        released
    }

    /// As [`release`](Self::release), but does not wait for those that full lanes hold. `full` has a bit
    /// for each of them, `lane_bit` says which bit is a ticket's. Costs as much as there are packets
    /// that wait.
    pub fn release_past(
        &mut self,
        full: u32,
        lane_bit: impl Fn(Ticket) -> u32,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut released = self.release(out);
        if full == 0 || self.runs.is_empty() {
            return released;
        }
        let runs = std::mem::take(&mut self.runs);
        let mut ids = std::mem::take(&mut self.packet_ids).into_iter();
        let mut packets = std::mem::take(&mut self.packets).into_iter();
        // Lanes of those that stay: nothing passes but what full lanes hold, and nothing of the same lane.
        let mut staying = 0;
        for run in runs {
            let may_pass = staying & !full == 0;
            let leaves = match run.wait {
                Wait::For(ticket) => {
                    staying |= lane_bit(ticket);
                    false
                }
                Wait::Turn | Wait::Denied(_) => may_pass,
                Wait::Refused(ticket, _) => may_pass && staying & lane_bit(ticket) == 0,
            };
            match run.what {
                What::Reply(reply) => {
                    for packet_id in ids.by_ref().take(run.count) {
                        match leaves {
                            true => put(reply, packet_id, run.wait, &mut self.left, out),
                            false => self.packet_ids.push_back(packet_id),
                        }
                    }
                }
                What::Packet => {
                    for packet in packets.by_ref().take(run.count) {
                        match leaves {
                            true => out.extend_from_slice(&packet),
                            false => self.packets.push_back(packet),
                        }
                    }
                }
            }
            match leaves {
                true => released += run.count,
                false => self.runs.push_back(run),
            }
        }
        released
    }

    /// Gives memory back when nothing waits: idle connections hold none.
    pub fn shrink(&mut self) {
        if self.runs.is_empty() {
            self.packet_ids = VecDeque::new();
            self.runs = VecDeque::new();
            self.packets = VecDeque::new();
        }
    }
}

#[inline]
fn put(reply: Reply, packet_id: NonZeroU16, wait: Wait, left: &mut Left, out: &mut Vec<u8>) {
    let [high, low] = packet_id.get().to_be_bytes();
    left.completed += usize::from(matches!(reply, Reply::Puback | Reply::Pubcomp));
    match wait {
        Wait::Refused(_, reason) | Wait::Denied(reason) => {
            if reply == Reply::Pubrec {
                left.completed += 1;
                left.refused.push(packet_id);
            }
            let length = REMAINING_LENGTH_WITH_REASON;
            out.extend_from_slice(&[reply as u8, length, high, low, reason.byte()]);
        }
        _ => out.extend_from_slice(&[reply as u8, REMAINING_LENGTH, high, low]),
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
    fn only_what_a_full_lane_holds_is_overtaken() {
        let (full, slow, open) = (Ticket(1), Ticket(2), Ticket(3));
        let lane_bit = |ticket: Ticket| 1 << ticket.0;
        let mut gate = PubackGate::default();
        for (ticket, packet_id) in [(full, 1), (open, 2), (full, 3), (slow, 4), (open, 5)] {
            gate.hold(Some(ticket), id(packet_id));
        }
        let past = |gate: &mut PubackGate| {
            let mut out = Vec::new();
            let count = gate.release_past(lane_bit(full), lane_bit, &mut out);
            assert_eq!(out.len(), 4 * count);
            out.chunks_exact(4).map(|bytes| u16::from_be_bytes([bytes[2], bytes[3]])).collect()
        };
        assert_eq!(past(&mut gate), NONE);
        gate.acknowledge(open);
        let first: Vec<u16> = past(&mut gate);
        assert_eq!(first, [2], "5 waits for 4, whose lane has room");
        gate.acknowledge(slow);
        assert_eq!(past(&mut gate), [4, 5]);
        assert_eq!(gate.len(), 2);
        assert_eq!(released(&mut gate), NONE);
        gate.acknowledge(full);
        assert_eq!(released(&mut gate), [1, 3]);
    }

    #[test]
    fn what_was_refused_is_told_in_its_turn() {
        let mut gate = PubackGate::default();
        gate.hold(Some(Ticket(1)), id(1));
        gate.hold(Some(Ticket(2)), id(2));
        gate.refuse(Ticket(2), ReasonCode::QuotaExceeded);
        let mut out = Vec::new();
        assert_eq!(gate.release(&mut out), 0);
        gate.acknowledge(Ticket(1));
        assert_eq!(gate.release(&mut out), 2);
        assert_eq!(out, [0x40, 2, 0, 1, 0x40, 3, 0, 2, 0x97]);

        // Past another full lane, but not past its own.
        for (ticket, packet_id) in [(8, 3), (9, 4), (9, 5)] {
            gate.hold(Some(Ticket(ticket)), id(packet_id));
        }
        gate.hold(Some(Ticket(10)), id(6));
        gate.refuse(Ticket(10), ReasonCode::QuotaExceeded);
        let lane_bit = |ticket: Ticket| if ticket.0 == 8 { 1 } else { 2 };
        out.clear();
        assert_eq!(gate.release_past(3, lane_bit, &mut out), 0);
        gate.refuse(Ticket(9), ReasonCode::QuotaExceeded);
        assert_eq!(gate.release_past(3, lane_bit, &mut out), 3);
        assert_eq!(gate.len(), 1);
    }

    #[test]
    fn other_promises_wait_in_the_same_row() {
        let mut gate = PubackGate::default();
        gate.hold_reply(Reply::Pubrec, Some(Ticket(1)), id(1));
        gate.hold_packet(Some(Ticket(2)), [0x90, 3, 0, 9, 0].into());
        gate.hold_reply(Reply::Pubcomp, None, id(2));
        gate.hold_pubrec_again(id(1));
        gate.hold_reply(Reply::Pubrel, None, id(3));
        assert_eq!(gate.len(), 5);
        let unsettled = [(Some(Ticket(1)), id(1)), (Some(Ticket(1)), id(1))];
        assert!(gate.unsettled().eq(unsettled));
        let mut out = Vec::new();
        gate.acknowledge(Ticket(1));
        assert_eq!((gate.release(&mut out), out.as_slice()), (1, &[0x50, 2, 0, 1][..]));
        out.clear();
        // Past a full lane, the packet stays alone.
        assert_eq!(gate.release_past(4, |ticket| 1 << ticket.0, &mut out), 3);
        assert_eq!(out, [0x70, 2, 0, 2, 0x50, 2, 0, 1, 0x62, 2, 0, 3]);
        assert_eq!((gate.len(), gate.take_left().completed), (1, 1));
        out.clear();
        gate.acknowledge(Ticket(2));
        assert_eq!((gate.release(&mut out), out.as_slice()), (1, &[0x90, 3, 0, 9, 0][..]));
        assert!(gate.is_empty());
    }

    #[test]
    fn a_refused_pubrec_frees_its_identifier() {
        let mut gate = PubackGate::default();
        gate.hold_reply(Reply::Pubrec, Some(Ticket(1)), id(5));
        gate.refuse(Ticket(1), ReasonCode::QuotaExceeded);
        assert!(gate.unsettled().eq([(None, id(5))]));
        let mut out = Vec::new();
        assert_eq!(gate.release(&mut out), 1);
        assert_eq!(out, [0x50, 3, 0, 5, 0x97]);
        let left = gate.take_left();
        assert_eq!((left.completed, left.refused), (1, vec![id(5)]));
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

//! What of a session outlives its connection. Subscriptions are the listener's.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::message::Delivery;
use crate::packet_ids::PacketIds;
use crate::puback::Ticket;

/// The exchanges of a session that are not over (MQTT 5.0 section 4.1), handed in at CONNECT and back at
/// the end of the connection.
#[derive(Clone, Debug, Default)]
pub struct SessionState {
    /// QoS 2 publishes of the client that are stored and whose PUBREL has not come.
    pub received: PacketIds,
    /// The same, as long as it is not known whether they are stored. Only at the end of a connection: the
    /// listener [settles](Self::settle) them before it hands the state in again.
    pub unsettled: Vec<(NonZeroU16, Ticket)>,
    /// The packet identifier that was last given to a delivery; 0: none.
    pub last_packet_id: u16,
    /// Deliveries that were sent and are not done, in the order in which they were sent.
    pub in_flight: VecDeque<InFlight>,
    /// Deliveries that wait behind them.
    pub queue: VecDeque<Delivery>,
}

/// One delivery of QoS 1 or 2 under way.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its packet identifier.
    pub packet_id: NonZeroU16,
    /// How far it is.
    pub stage: Stage,
}

/// How far a delivery is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// PUBLISH was sent; PUBACK or PUBREC has not come.
    Published(Delivery),
    /// PUBREC came; PUBCOMP has not.
    Released {
        /// [`Delivery::tag`].
        tag: u64,
    },
}

impl InFlight {
    pub(crate) fn tag(&self) -> u64 {
        match &self.stage {
            Stage::Published(delivery) => delivery.tag,
            Stage::Released { tag } => *tag,
        }
    }

    pub(crate) fn cost_bytes(&self) -> usize {
        match &self.stage {
            Stage::Published(delivery) => delivery.message.cost_bytes(),
            Stage::Released { .. } => 0,
        }
    }
}

impl SessionState {
    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
            && self.unsettled.is_empty()
            && self.in_flight.is_empty()
            && self.queue.is_empty()
    }

    /// What was handed over with `ticket` is stored, or never will be: a client that sends it again gets
    /// it stored then.
    pub fn settle(&mut self, ticket: Ticket, is_stored: bool) {
        let received = &mut self.received;
        self.unsettled.retain(|&(packet_id, waits_for)| {
            if waits_for == ticket && is_stored {
                received.insert(packet_id);
            }
            waits_for != ticket
        });
    }

    /// Bytes that the messages count for.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        let in_flight: usize = self.in_flight.iter().map(InFlight::cost_bytes).sum();
        let queued: usize = self.queue.iter().map(|delivery| delivery.message.cost_bytes()).sum();
        in_flight + queued
    }
}

//! What goes from a connection to a lane, and what happens when it is durable.

use std::sync::Arc;

use edge_engine::{LaneHandle, Submission};
use edge_mqtt::{Message, Ticket};

use crate::registry::Recipients;

/// A QoS 1 or 2 message and who gets it once it is durable.
pub(crate) struct Held {
    pub(crate) message: Message,
    pub(crate) recipients: Recipients,
    /// Its place among those that are retained; 0: it is not.
    pub(crate) retained_as: u64,
    /// Its record has all that a session needs to get it from the log.
    pub(crate) is_in_log: bool,
}

/// One chunk on its way to a lane.
pub(crate) struct HandOver {
    pub(crate) lane: Arc<LaneHandle>,
    pub(crate) submission: Submission,
    /// `None`: QoS 0, nobody waits.
    pub(crate) waits: Option<Waits>,
}

/// What happens when a hand-over is durable.
pub(crate) struct Waits {
    pub(crate) ticket: Ticket,
    pub(crate) publishes: usize,
    pub(crate) bytes: usize,
    pub(crate) held: Vec<Held>,
}

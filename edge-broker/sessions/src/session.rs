//! A session as it is kept: who, for how long, subscribed to what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::place::Place;

/// Number of a session. Given out once, in ascending order, never again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SessionId(pub u64);

/// A session that outlives its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Client identifier.
    pub client: String,
    /// The user that it belongs to.
    pub user: Option<String>,
    /// Seconds that it is kept after its connection ended; `u32::MAX`: for ever.
    pub expiry_s: u32,
    /// Powered-on second in which its connection ended; `None`: it is connected, or was when the power went.
    pub left_at_s: Option<u64>,
    /// By topic filter, as the client wrote it.
    pub subscriptions: BTreeMap<String, Subscription>,
    /// What is published if it does not come back.
    pub will: Option<StoredWill>,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// As the client asked for it.
    pub options: Options,
    /// What stood in a lane before this place does not concern it, by name of the lane. A lane that is not named is
    /// younger than the subscription, or has been read beyond the place.
    pub starts: BTreeMap<String, Place>,
}

/// Options of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Highest QoS.
    pub qos: u8,
    /// Not what the client itself publishes.
    pub no_local: bool,
    /// The retain flag stays as published.
    pub retain_as_published: bool,
    /// Subscription identifier; 0: none.
    pub identifier: u32,
}

/// A will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredWill {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// MQTT 5 properties of the message, as they go on the wire.
    pub properties: Vec<u8>,
    /// Seconds between the end of the connection and the will.
    pub delay_s: u32,
}

/// What a session takes of a checkpoint beside its parts, at most.
const SESSION_BYTES: usize = 40;
/// The same of a subscription.
const SUBSCRIPTION_BYTES: usize = 16;
/// The same of a start position, beside the name of the lane.
const START_BYTES: usize = 20;

impl Session {
    /// What it takes of a checkpoint, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let subscriptions = self.subscriptions.iter();
        SESSION_BYTES
            + self.client.len()
            + self.user.as_ref().map_or(0, String::len)
            + self.will.as_ref().map_or(0, StoredWill::bytes)
            + subscriptions.map(|(filter, of)| filter.len() + of.bytes()).sum::<usize>()
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now_s: u64) -> bool {
        self.expiry_s != u32::MAX
            && self.left_at_s.is_some_and(|left| now_s >= left + u64::from(self.expiry_s))
    }
}

impl Subscription {
    /// What it takes of a checkpoint beside its filter, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let starts = self.starts.keys();
        SUBSCRIPTION_BYTES + starts.map(|lane| lane.len() + START_BYTES).sum::<usize>()
    }

    /// Where it begins in a lane.
    #[must_use]
    pub fn start(&self, lane: &str) -> Place {
        self.starts.get(lane).copied().unwrap_or(Place::START)
    }
}

impl StoredWill {
    /// What it takes of a checkpoint, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        SESSION_BYTES + self.topic.len() + self.payload.len() + self.properties.len()
    }
}

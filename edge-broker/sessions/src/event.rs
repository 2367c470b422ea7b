//! The changes that the [`Store`](crate::Store) can undergo, as bytes: one version byte, then postcard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::session::{Options, SessionId, StoredWill};

/// Tag of a session event among the events of a commit group. Tags below 256 are the engine's.
pub const EVENT_TAG: u16 = 256;

/// Version byte in front of every event and checkpoint.
pub(crate) const VERSION: u8 = 1;

/// One change. Variants are numbered by their order, fields are positional: add variants, and at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEvent {
    /// `system`: a session begins; an older one of the client ends.
    Made {
        /// Its number.
        session: SessionId,
        /// Client identifier.
        client: String,
        /// The user that it belongs to; another one with the same client identifier does not get it.
        user: Option<String>,
        /// Seconds it is kept once its connection has ended.
        expiry_s: u32,
    },
    /// `system`: a session ends, and everything of it.
    Discarded {
        /// Which.
        session: SessionId,
    },
    /// `system`: its client is there again.
    Attached {
        /// Which.
        session: SessionId,
        /// As the client asked for now.
        expiry_s: u32,
    },
    /// `system`: its connection has ended.
    Left {
        /// Which.
        session: SessionId,
        /// As the client said last.
        expiry_s: u32,
        /// Powered-on second.
        at_s: u64,
    },
    /// `system`: a subscription is made, or gets other options.
    Subscribed {
        /// Which session.
        session: SessionId,
        /// Topic filter.
        filter: String,
        /// Its options.
        options: Options,
        /// Where it begins, by name of the lane.
        starts: BTreeMap<String, Place>,
    },
    /// `system`: a subscription ends.
    Unsubscribed {
        /// Which session.
        session: SessionId,
        /// Topic filter.
        filter: String,
    },
    /// `system`: the will of a connection, or that there is none any more.
    WillSet {
        /// Which session.
        session: SessionId,
        /// The will.
        will: Option<StoredWill>,
    },
    /// `system`: so much powered-on time has passed.
    Passed {
        /// Powered-on seconds.
        at_s: u64,
    },
    /// `system`: a lane had been lost and begins anew: places in it mean nothing any more.
    LaneReborn {
        /// Its name.
        lane: String,
    },
    /// The lane of the record: a QoS 2 PUBLISH of the client with this packet id is stored.
    Received {
        /// Which session.
        session: SessionId,
        /// Packet id.
        id: u16,
    },
    /// The same lane: the client has released it; the next PUBLISH with this packet id is another message.
    Released {
        /// Which session.
        session: SessionId,
        /// Packet ids.
        ids: Vec<u16>,
    },
    /// The lane that is read: everything before these places is done.
    Moved {
        /// Where sessions stand now.
        cursors: Vec<Cursor>,
    },
    /// The lane of the record: it goes to the session as QoS 2 with these packet ids.
    Sent {
        /// Which session.
        session: SessionId,
        /// Ascends with every delivery of the session: of two that use a packet id, the later one has it.
        order: u64,
        /// Place of the record and packet id.
        deliveries: Vec<(Place, u16)>,
    },
    /// The same lane: the session has these (PUBREC).
    Confirmed {
        /// Which session.
        session: SessionId,
        /// Places of the records.
        places: Vec<Place>,
    },
    /// The same lane: the session has forgotten their packet ids (PUBCOMP).
    Completed {
        /// Which session.
        session: SessionId,
        /// Places of the records.
        places: Vec<Place>,
    },
}

/// How far a session has come in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which session.
    pub session: SessionId,
    /// Everything before it is done.
    pub place: Place,
    /// Messages for the session, in all, that went before it had read them.
    pub missed: u64,
}

/// An event cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventDecodeError {
    /// Written by a newer program.
    #[error("session state of version {found}, this program knows version {known}")]
    Version {
        /// Version byte found.
        found: u8,
        /// Version this program writes.
        known: u8,
    },
    /// Not what this program writes.
    #[error("session state of {bytes} bytes cannot be decoded")]
    Malformed {
        /// Size of what was found.
        bytes: usize,
    },
}

impl SessionEvent {
    /// The event as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(postcard::to_stdvec(self).expect("plain data always serialises"));
        out
    }

    /// Reads what [`SessionEvent::encode`] wrote.
    ///
    /// # Errors
    /// [`EventDecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EventDecodeError> {
        postcard::from_bytes(versioned(bytes)?)
            .map_err(|_| EventDecodeError::Malformed { bytes: bytes.len() })
    }
}

/// What stands behind the version byte.
pub(crate) fn versioned(bytes: &[u8]) -> Result<&[u8], EventDecodeError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((&found, _)) => Err(EventDecodeError::Version { found, known: VERSION }),
        None => Err(EventDecodeError::Malformed { bytes: 0 }),
    }
}

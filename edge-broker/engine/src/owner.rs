//! Whose state travels with the lanes beside the engine's own: what a listener has to remember.
//!
//! - Its events (tags of [`EVENT_TAGS_FROM`] and above) go into the commit group of the record they
//!   belong to ([`RecordChunk::push_event`](crate::RecordChunk::push_event)), or come alone
//!   ([`Body::Events`](crate::Body::Events)). It hears of them once they are durable, lane by lane, in the order of the
//!   lane, on that lane's thread, before the submitters do.
//! - Each lane's checkpoints hold what it says for that lane. So a lane explains itself, and nothing has to be known
//!   of the order between two journals.

use std::sync::Arc;

use edge_log::{Recovery, SegmentOwner};

use crate::lane_thread::LaneOwner;
use crate::lost::is_fresh;
use crate::state::State;
use crate::submission::EVENT_TAGS_FROM;

/// Keeps state that lives in the lanes. Called from their threads: must be quick, must not block.
pub trait EventOwner: Send + Sync {
    /// A lane was opened: this is what it holds, and all that counts of it. At the start `system` comes first; all
    /// lanes come before any of them runs.
    fn recovered(&self, lane: &str, found: &LaneEvents<'_>);
    /// These have become durable in a lane, in this order.
    fn committed(&self, lane: &str, events: &[(u16, Vec<u8>)]);
    /// Appends a lane's part of the state, as of all events that have become durable in it. At most an eighth of a
    /// segment: a lane whose checkpoint does not fit cannot go on.
    fn checkpoint(&self, lane: &str, out: &mut Vec<u8>);
}

/// What a lane holds of an owner's state.
#[derive(Clone, Copy, Debug)]
pub struct LaneEvents<'r> {
    /// Its newest checkpoint; empty if there is none.
    pub checkpoint: &'r [u8],
    /// The events behind it, the engine's own among them.
    pub events: &'r [(u16, Vec<u8>)],
    /// Nothing was ever in it: it is new, or was lost as a whole.
    pub is_new: bool,
}

impl<'r> LaneEvents<'r> {
    /// The events with one tag.
    pub fn with_tag(&self, wanted: u16) -> impl Iterator<Item = &'r [u8]> {
        let of_tag = self.events.iter().filter(move |(tag, _)| *tag == wanted);
        of_tag.map(|(_, bytes)| bytes.as_slice())
    }
}

/// One lane of an owner, if there is one.
pub(crate) struct Listening {
    pub(crate) lane: String,
    pub(crate) owner: Option<Arc<dyn EventOwner>>,
}

impl Listening {
    /// `system` has the engine's state in front of the owner's.
    pub(crate) fn tell_recovered(&self, recovery: &Recovery, is_system: bool) {
        let Some(owner) = &self.owner else { return };
        let stored = recovery.owner_checkpoint.as_deref().unwrap_or_default();
        let checkpoint = match is_system {
            true => State::decode(stored).map_or(&[][..], |(_, rest)| rest),
            false => stored,
        };
        let found = LaneEvents { checkpoint, events: &recovery.events, is_new: is_fresh(recovery) };
        owner.recovered(&self.lane, &found);
    }

    pub(crate) fn tell_committed(&self, events: &[(u16, Vec<u8>)]) {
        if let Some(owner) = &self.owner
            && events.iter().any(|(tag, _)| *tag >= EVENT_TAGS_FROM)
        {
            owner.committed(&self.lane, events);
        }
    }
}

impl SegmentOwner for Listening {
    fn checkpoint(&mut self, out: &mut Vec<u8>) {
        if let Some(owner) = &self.owner {
            owner.checkpoint(&self.lane, out);
        }
    }
}

impl LaneOwner for Listening {
    fn events_committed(&mut self, events: Vec<(u16, Vec<u8>)>) {
        self.tell_committed(&events);
    }

    fn reopened(&mut self, recovery: &Recovery) {
        self.tell_recovered(recovery, false);
    }
}

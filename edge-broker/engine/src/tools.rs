//! For tools on the data directory of a gateway that does not run: is the stored state readable, and bringing lanes
//! to rest after damage.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use edge_log::inspect::Observer;
use edge_log::{
    AppendError, CommitError, JournalPosition, Lane, LaneConfig, MaintainError, OpenError,
    SegmentOwner, Storage, WhenFull,
};

pub use crate::lost::lost_lanes;

use crate::clock::Clock;
use crate::open::{StateOwner, adopt_topics, forget_producers, is_whole, lane_dir, replay};
use crate::owner::{EventOwner, Listening};
use crate::state::{EVENT_TAG, State, StateDecodeError, StateEvent};

/// Name of the lane that holds the state.
pub const SYSTEM_LANE: &str = "system";

/// Decodes every checkpoint and event of the system lane as it goes by.
#[derive(Debug, Default)]
pub struct StateCheck {
    /// What cannot be decoded, and where it stands; at most [`StateCheck::WRONG_MAX`].
    pub wrong: Vec<(JournalPosition, String)>,
    /// More than that.
    pub wrong_more: u64,
    /// Something of it was written by a newer program: nothing may be changed.
    pub newer: Option<StateDecodeError>,
    /// Checkpoints and events that were decoded.
    pub decoded: u64,
}

impl StateCheck {
    /// Most places that are listed.
    pub const WRONG_MAX: usize = 256;

    fn judge(&mut self, at: JournalPosition, wrong: Option<StateDecodeError>) {
        match wrong {
            None => self.decoded += 1,
            Some(error @ StateDecodeError::Version { .. }) => self.newer = Some(error),
            Some(error) if self.wrong.len() < Self::WRONG_MAX => {
                self.wrong.push((at, error.to_string()));
            }
            Some(_) => self.wrong_more += 1,
        }
    }
}

impl Observer for StateCheck {
    fn checkpoint(&mut self, at: JournalPosition, owner: Option<&[u8]>) {
        let decoded = State::decode(owner.unwrap_or_default());
        self.judge(at, decoded.err());
    }

    fn event(&mut self, at: JournalPosition, tag: u16, bytes: &[u8]) {
        if tag == EVENT_TAG {
            self.judge(at, StateEvent::decode(bytes).err());
        }
    }
}

/// A lane that is to be brought to rest.
#[derive(Clone, Debug)]
pub struct LaneRepair {
    /// Its name.
    pub lane: String,
    /// Bytes of its segments, and of all its slots.
    pub segment_bytes: u32,
    /// Bytes of all its slots.
    pub used_bytes: u64,
    /// Sequences of segments in which something is damaged.
    pub segments: Vec<u64>,
    /// Only side indexes are to be made anew.
    pub indexes_only: bool,
}

/// Why a lane could not be brought to rest. Nothing readable is lost by it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// It cannot be opened.
    #[error("lane '{lane}': {source}")]
    Open {
        /// Its name.
        lane: String,
        /// Why.
        source: OpenError,
    },
    /// The loss cannot be written down.
    #[error("lane '{lane}': {source}")]
    Commit {
        /// Its name.
        lane: String,
        /// Why.
        source: CommitError,
    },
    /// A topic that was found cannot be written down.
    #[error("lane '{lane}': {source}")]
    Append {
        /// Its name.
        lane: String,
        /// Why.
        source: AppendError,
    },
    /// The disk failed.
    #[error("lane '{lane}': {source}")]
    Maintain {
        /// Its name.
        lane: String,
        /// Why.
        source: MaintainError,
    },
}

/// So many segments are judged at once: the lane remembers 256 damaged places.
const JUDGED_AT_ONCE: usize = 128;
/// Slots that a repair may add: the one it ends with and the one made ahead of use.
const MORE_SLOTS: u64 = 3;

/// Makes what was lost durable as gaps, puts a checkpoint behind it, writes missing side indexes, and ends with the
/// mark of an orderly stop. Nothing readable is given up and no offset given out. The caller holds the data directory,
/// and brings who keeps the state of listeners, so that it goes into the new checkpoint.
///
/// # Errors
/// [`RepairError`]
pub fn repair_lane(
    storage: &Arc<dyn Storage>,
    repair: &LaneRepair,
    event_owner: Option<Arc<dyn EventOwner>>,
) -> Result<(), RepairError> {
    let name = &repair.lane;
    let clock = Clock::new();
    let config = LaneConfig {
        name: name.clone(),
        segment_bytes: repair.segment_bytes,
        budget_bytes: repair.used_bytes + MORE_SLOTS * u64::from(repair.segment_bytes),
        // Nothing makes room here by giving something up.
        when_full: WhenFull::Refuse,
        protect_unsent: true,
        ..LaneConfig::default()
    };
    let commit = |source| RepairError::Commit { lane: name.clone(), source };
    let maintain = |source| RepairError::Maintain { lane: name.clone(), source };
    let (mut lane, recovery) = Lane::open(storage.clone(), &lane_dir(name), config, &clock.read())
        .map_err(|source| RepairError::Open { lane: name.clone(), source })?;
    let is_system = name == SYSTEM_LANE;
    let (mut state, state_error) = if is_system { replay(&recovery) } else { Default::default() };
    let mut events = Vec::new();
    if is_system && (state_error.is_some() || !is_whole(&recovery)) {
        forget_producers(&mut state);
        let lanes = other_lanes(storage)?;
        let found = lanes.iter().map(|(name, recovery)| (name.as_str(), recovery));
        let adopted = adopt_topics(&mut state, found);
        events.extend(adopted.into_iter().map(StateEvent::TopicCreated));
        events.push(StateEvent::ProducerIdsReserved { next: state.next_producer_id() });
        events.push(StateEvent::StreamIdsReserved { next: state.next_stream().0 });
    }
    let also = Listening { lane: name.clone(), owner: event_owner };
    also.tell_recovered(&recovery, is_system);
    let mut owner: Box<dyn SegmentOwner> = if is_system {
        Box::new(StateOwner { state: Arc::new(RwLock::new(state)), also })
    } else {
        Box::new(also)
    };
    for some in repair.segments.chunks(JUDGED_AT_ONCE) {
        for segment in some {
            lane.note_damage(JournalPosition { segment: *segment, byte: 0 });
        }
        while lane.maintain(&clock.read(), 0).map_err(maintain)? {}
        lane.commit(&clock.read(), 0, &mut *owner).map_err(commit)?;
    }
    for event in events {
        let bytes = event.encode();
        if let Err(AppendError::GroupFull) = lane.append_event(EVENT_TAG, &bytes) {
            lane.commit(&clock.read(), 0, &mut *owner).map_err(commit)?;
            lane.append_event(EVENT_TAG, &bytes)
                .map_err(|source| RepairError::Append { lane: name.clone(), source })?;
        }
    }
    lane.renew_indexes();
    while lane.maintain(&clock.read(), 0).map_err(maintain)? {}
    // New gaps that recovery found are pending even if nothing else is.
    lane.commit(&clock.read(), 0, &mut *owner).map_err(commit)?;
    if !repair.indexes_only {
        lane.start_segment(&clock.read(), 0, &mut *owner).map_err(commit)?;
    }
    match lane.seal(&clock.read(), true) {
        // Without the mark the next start reads the newest segment: nothing is wrong with that.
        Ok(()) | Err(CommitError::Full) => Ok(()),
        Err(error) => Err(commit(error)),
    }
}

fn other_lanes(
    storage: &Arc<dyn Storage>,
) -> Result<BTreeMap<String, edge_log::Recovery>, RepairError> {
    let open = |lane: &str, source| RepairError::Open { lane: lane.to_owned(), source };
    let names = storage.list("lanes").map_err(|source| {
        let path = "lanes".to_owned();
        open(SYSTEM_LANE, OpenError::Io { operation: "list", path, source })
    })?;
    let mut found = BTreeMap::new();
    for name in names.into_iter().filter(|name| name != SYSTEM_LANE) {
        let recovery = Lane::inspect(&**storage, &lane_dir(&name));
        let recovery = recovery.map_err(|source| open(&name, source))?;
        found.insert(name, recovery);
    }
    Ok(found)
}

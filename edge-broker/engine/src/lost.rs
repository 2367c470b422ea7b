//! Lanes that are gone: the catalogue has topics in them, and nothing of them is on disk.
//!
//! - A lane's directory is made durable before a topic can be made in it, so one that is missing was taken away. Of one
//!   that is there with nothing in it that can only be said if something is known to have been read from it.
//! - What bounds the offsets that were given out: how far the uplink and consumer groups had come. They are a gap
//!   then. A bound beyond [`BOUND_MAX`] is a consumer's invention and not believed.
//! - The system lane is gone if it is new and another lane has streams.

use std::collections::{BTreeMap, BTreeSet};

use edge_log::{OpenError, Recovery, Storage};
use edge_wire::{Offset, StreamId};

use crate::open::{lane_dir, replay};
use crate::state::State;
use crate::tools::SYSTEM_LANE;

/// No stream of a gateway comes this far.
const BOUND_MAX: u64 = 1 << 48;

/// What of a value under a key ([`Engine::put_value`](crate::Engine::put_value)) tells how far streams had come.
#[derive(Clone, Copy, Debug)]
pub struct StoredEnds {
    /// The key.
    pub key: &'static [u8],
    /// First offsets that are not known to have been given out, by stream.
    pub decode: fn(&[u8]) -> Vec<(StreamId, Offset)>,
}

/// A lane that had topics and of which nothing is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostLane {
    /// Its name.
    pub lane: String,
    /// Topics that were in it; of the system lane those that are found again.
    pub topics: Vec<String>,
    /// Offsets that are known to have been given out in it, over all its streams.
    pub lost_offsets: u64,
    /// Streams of which nothing is known: their offsets begin at 0 again.
    pub unbounded_streams: u64,
}

/// In words, for the log, the status and `verify`.
impl std::fmt::Display for LostLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lane, topics, lost_offsets, unbounded_streams } = self;
        let topics = topics.join(", ");
        if lane == SYSTEM_LANE {
            return write!(
                f,
                "the files of lane system are gone: settings of topics, committed offsets and the uplink's progress are lost; topics are found again in the other lanes ({topics})"
            );
        }
        write!(f, "the files of lane {lane} are gone, and with them all records of {topics}")?;
        if *lost_offsets > 0 {
            write!(
                f,
                "; {lost_offsets} offsets are known to have been given out and are told as gaps"
            )?;
        }
        if *unbounded_streams > 0 {
            write!(
                f,
                "; how many records {unbounded_streams} partitions had is not known: their offsets begin at 0 again"
            )?;
        }
        Ok(())
    }
}

/// Whether nothing of a lane is on disk.
pub(crate) fn is_fresh(recovery: &Recovery) -> bool {
    recovery.start == recovery.end
        && recovery.streams.is_empty()
        && recovery.gaps.is_empty()
        && recovery.owner_checkpoint.is_none()
        && recovery.events.is_empty()
        && recovery.scanned_bytes == 0
}

/// Whether nothing of the system lane is left while another lane has streams.
pub(crate) fn is_system_lost<'a>(
    system: &Recovery,
    mut others: impl Iterator<Item = &'a Recovery>,
) -> bool {
    is_fresh(system) && others.any(|lane| !lane.streams.is_empty())
}

/// Lowest offsets that streams may go on with, by stream, as far as anything knows.
pub(crate) fn bounds(state: &State, ends: Option<&StoredEnds>) -> BTreeMap<StreamId, Offset> {
    let stored = ends.and_then(|ends| Some((ends.decode)(state.value(ends.key)?)));
    let mut bounds = BTreeMap::new();
    for (stream, next) in stored.into_iter().flatten().chain(state.committed_streams()) {
        if (1..BOUND_MAX).contains(&next.0) {
            let bound = bounds.entry(stream).or_insert(next);
            *bound = next.max(*bound);
        }
    }
    bounds
}

/// A lane of records of which nothing is left, if that can be said of it.
pub(crate) fn lost_lane(
    state: &State,
    bounds: &BTreeMap<StreamId, Offset>,
    (lane, is_missing): (&str, bool),
) -> Option<LostLane> {
    let of_lane: Vec<_> = state.topics().filter(|topic| topic.lane() == lane).collect();
    let streams = || of_lane.iter().flat_map(|topic| topic.streams());
    let lost_offsets: u64 =
        streams().filter_map(|stream| bounds.get(stream)).map(|next| next.0).sum();
    if of_lane.is_empty() || !is_missing && lost_offsets == 0 {
        return None;
    }
    let unbounded_streams = streams().filter(|stream| !bounds.contains_key(stream)).count() as u64;
    let topics = of_lane.iter().map(|topic| topic.name().to_owned()).collect();
    Some(LostLane { lane: lane.to_owned(), topics, lost_offsets, unbounded_streams })
}

/// The lanes of a gateway that does not run of which nothing is left. Reads only.
///
/// # Errors
/// A lane cannot be read.
pub fn lost_lanes(
    storage: &dyn Storage,
    ends: Option<&StoredEnds>,
) -> Result<Vec<LostLane>, OpenError> {
    let io = |source| OpenError::Io { operation: "list", path: "lanes".to_owned(), source };
    let names: BTreeSet<String> = storage.list("lanes").map_err(io)?.into_iter().collect();
    let mut found = BTreeMap::new();
    for name in &names {
        // What stands beside the lanes is not one of them.
        if storage.list(&lane_dir(name)).is_ok() {
            found.insert(name.as_str(), edge_log::Lane::inspect(storage, &lane_dir(name))?);
        }
    }
    let nothing = Recovery::default();
    let system = found.get(SYSTEM_LANE).unwrap_or(&nothing);
    let others = || found.iter().filter(|(name, _)| **name != SYSTEM_LANE);
    let mut lost = Vec::new();
    if is_system_lost(system, others().map(|(_, recovery)| recovery)) {
        let streams = others().flat_map(|(_, recovery)| &recovery.streams);
        let topics: BTreeSet<_> = streams.map(|stream| stream.definition.topic.clone()).collect();
        lost.push(LostLane {
            lane: SYSTEM_LANE.to_owned(),
            topics: topics.into_iter().collect(),
            lost_offsets: 0,
            unbounded_streams: 0,
        });
    }
    let (state, _) = replay(system);
    let bounds = bounds(&state, ends);
    let lanes: BTreeSet<&str> = state.topics().map(|topic| topic.lane()).collect();
    for lane in lanes {
        let recovery = found.get(lane);
        if recovery.is_none_or(is_fresh) {
            lost.extend(lost_lane(&state, &bounds, (lane, recovery.is_none())));
        }
    }
    Ok(lost)
}

//! What the replicator tells about itself.

use edge_wire::{Offset, StreamId};

use crate::link::LinkState;
use crate::resume::Totals;

/// Ranges that are kept for people; the counters go on beyond.
pub(crate) const RANGES_MAX: usize = 64;

/// A picture of the replicator.
#[derive(Clone, Debug)]
pub struct ReplicatorStatus {
    /// The link.
    pub link: LinkState,
    /// The last failure, as a sentence; `None` once things work again.
    pub last_error: Option<String>,
    /// Counters that survive restarts.
    pub totals: Totals,
    /// Batches in flight.
    pub in_flight: usize,
    /// Bytes of batches that are not acknowledged.
    pub unacked_bytes: usize,
    /// Topics that wait for somebody to change something upstream.
    pub blocked: Vec<BlockedTopic>,
    /// The latest ranges that may be upstream twice.
    pub possible_duplicates: Vec<OffsetRange>,
    /// The latest records that the upstream will not take.
    pub skipped: Vec<OffsetRange>,
}

/// A topic that the upstream refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedTopic {
    /// Upstream name.
    pub topic: String,
    /// Why, as a sentence.
    pub reason: String,
    /// How many of its streams no longer keep their oldest unsent records in the lane.
    pub overtaken: usize,
}

/// Offsets of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// The stream.
    pub stream: StreamId,
    /// First offset.
    pub from: Offset,
    /// The offset behind the last.
    pub to: Offset,
    /// Why, as a sentence.
    pub reason: String,
}

//! The changes that [`State`](super::State) can undergo, as bytes.

use edge_log::BootClock;
use serde::{Deserialize, Serialize};

use super::{CommittedOffset, VERSION};

/// Tag of a state event among the events of a commit group. Tags below 256 are the engine's.
pub(crate) const EVENT_TAG: u16 = 1;

/// One change. Variants are numbered by their order: add at the end only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum StateEvent {
    TopicCreated(TopicRecord),
    TopicDeleted { id: [u8; 16] },
    OffsetsCommitted { group: String, entries: Vec<OffsetEntry> },
    ProducerIdsReserved { next: u64 },
    ValueSet { key: Vec<u8>, bytes: Vec<u8> },
    StreamIdsReserved { next: u32 },
    TopicConfigured { id: [u8; 16], config: super::TopicConfig },
    ClockSet { boot: BootClock },
}

/// A topic on disk. Fields are positional: add at the end only, with a new version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) name: String,
    pub(crate) id: [u8; 16],
    /// By name: the index of a lane is not stable.
    pub(crate) lane: String,
    /// Stream id of each partition.
    pub(crate) streams: Vec<u32>,
    pub(crate) config: super::TopicConfig,
}

/// One committed offset of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OffsetEntry {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) committed: CommittedOffset,
}

/// Why stored state could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateDecodeError {
    /// Written by a newer program.
    #[error("state of version {found}, this program knows version {known}: run the newer program")]
    Version {
        /// Version byte found.
        found: u8,
        /// Version this program writes.
        known: u8,
    },
    /// Passed its checksum and is still not what this program writes: a bug, or a foreign file.
    #[error("state of {bytes} bytes cannot be decoded")]
    Malformed {
        /// Size of what was found.
        bytes: usize,
    },
}

impl StateEvent {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(postcard::to_stdvec(self).expect("an event of plain data always serialises"));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateDecodeError> {
        match bytes.split_first() {
            Some((&VERSION, body)) => postcard::from_bytes(body)
                .map_err(|_| StateDecodeError::Malformed { bytes: body.len() }),
            Some((&found, _)) => Err(StateDecodeError::Version { found, known: VERSION }),
            None => Err(StateDecodeError::Malformed { bytes: 0 }),
        }
    }
}

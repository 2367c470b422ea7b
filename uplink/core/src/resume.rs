//! What the uplink must remember across a power cut, as bytes.
//!
//! ```text
//! "EUPL"  4  magic
//! version 1  currently 2; another version is refused, never guessed
//! length  4  bytes of the body, big-endian
//! crc     4  CRC-32C of the body, big-endian
//! body       postcard of [`ResumeState`]
//! ```
//!
//! Limits: [`PLANNED_MAX`] batches, [`BYTES_MAX`] bytes in all. The first byte that does not fit makes the whole
//! record unreadable, and the uplink then starts over from the oldest record it still has: duplicates rather
//! than loss.

use std::collections::BTreeMap;

use edge_log::JournalPosition;
use serde::{Deserialize, Serialize};

/// Most batches that one plan may hold.
pub const PLANNED_MAX: usize = 2048;
/// Largest encoding. The store takes 256 KiB.
pub const BYTES_MAX: usize = 256 * 1024;

const MAGIC: [u8; 4] = *b"EUPL";
const VERSION: u8 = 2;
const HEADER_BYTES: usize = 4 + 1 + 4 + 4;

/// The uplink's memory. It is written before what it plans is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeState {
    /// Producer id and epoch that the planned batches carry.
    pub producer: Option<(u64, i16)>,
    /// How far each lane has been replicated.
    pub lanes: Vec<LaneResume>,
    /// Names that `planned` refers to.
    pub topics: Vec<String>,
    /// Batches that may be under way: at most five for each upstream partition, which is what a broker remembers.
    pub planned: Vec<PlannedBatch>,
    /// What has been counted so far.
    pub totals: Totals,
}

/// How far a lane has been replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneResume {
    /// Name of the lane.
    pub name: String,
    /// Everything before it is upstream (or was given up by name). In segment 0, which no journal has: the copies of
    /// the streams below this number are, and nothing of the journal.
    pub position: JournalPosition,
    /// Every planned batch stands before it.
    pub planned_through: JournalPosition,
    /// First offset that is not acknowledged, for the streams that are ahead of `position`.
    pub ends: Vec<StreamEnd>,
}

/// A stream's acknowledged end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// The stream.
    pub stream: u32,
    /// First offset that is not acknowledged.
    pub end: u64,
}

/// A batch that may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedBatch {
    /// Index into `lanes`.
    pub lane: u32,
    /// Index into `topics`.
    pub topic: u32,
    /// Upstream partition.
    pub partition: u32,
    /// Stream it comes from.
    pub stream: u32,
    /// First edge offset.
    pub first: u64,
    /// The offset behind its last record; among copies, behind the hole that follows it.
    pub end: u64,
    /// Number of records.
    pub count: u32,
    /// Producer sequence of the first record.
    pub sequence: i32,
}

/// Counters that survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Records acknowledged.
    pub acked_records: u64,
    /// Records that may be upstream twice.
    pub possible_duplicates: u64,
    /// Records that the upstream will not take.
    pub skipped_records: u64,
    /// Offsets that were not in the log any more when their turn came.
    pub gap_offsets: u64,
}

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeDecodeError {
    /// Not our record.
    #[error("the uplink's progress does not start as it should")]
    Magic,
    /// Written by another version of the program.
    #[error("the uplink's progress has format version {found}, this program knows {VERSION}")]
    Version {
        /// The version.
        found: u8,
    },
    /// The length does not match.
    #[error("the uplink's progress is {found} bytes long, not {expected}")]
    Length {
        /// What the header says.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// The bytes are damaged.
    #[error("the uplink's progress is damaged (CRC)")]
    Crc,
    /// The body makes no sense.
    #[error("the uplink's progress cannot be read: {reason}")]
    Body {
        /// In the decoder's words.
        reason: String,
    },
}

impl ResumeState {
    /// The bytes; `None` if they would be more than [`BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let body = postcard::to_allocvec(self).ok()?;
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&u32::try_from(body.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        out.extend_from_slice(&body);
        (out.len() <= BYTES_MAX).then_some(out)
    }

    /// The ring went past what was sent of a lane, whose journal starts in segment `start` by now: nobody was there to
    /// hold it. What is missing may stand in copies, so the lane is begun anew with them, behind what is known to be
    /// upstream. Batches that were under way then cannot be told from new ones; they are counted as possible
    /// duplicates. Returns whether the lane is begun anew.
    pub fn begin_behind_the_ring(
        &mut self,
        lane: &str,
        start: u64,
        known: impl IntoIterator<Item = (u32, u64)>,
    ) -> bool {
        let Some(index) = self.lanes.iter().position(|saved| saved.name == lane) else {
            return false;
        };
        let saved = &mut self.lanes[index];
        if saved.position.segment == 0 || saved.position.segment >= start {
            return false;
        }
        let ends = saved.ends.iter().map(|end| (end.stream, end.end));
        let mut all: BTreeMap<u32, u64> = BTreeMap::new();
        for (stream, end) in ends.chain(known) {
            let known = all.entry(stream).or_default();
            *known = end.max(*known);
        }
        saved.ends = all.into_iter().map(|(stream, end)| StreamEnd { stream, end }).collect();
        saved.position = JournalPosition::START;
        let totals = &mut self.totals;
        self.planned.retain(|batch| {
            let is_kept = batch.lane as usize != index;
            totals.possible_duplicates += if is_kept { 0 } else { u64::from(batch.count) };
            is_kept
        });
        true
    }

    /// From the bytes.
    ///
    /// # Errors
    /// See [`ResumeDecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ResumeDecodeError> {
        let (header, body) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(ResumeDecodeError::Magic)?;
        let [m0, m1, m2, m3, version, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(ResumeDecodeError::Magic);
        }
        if version != VERSION {
            return Err(ResumeDecodeError::Version { found: version });
        }
        let expected = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if expected != body.len() || bytes.len() > BYTES_MAX {
            return Err(ResumeDecodeError::Length { expected, found: body.len() });
        }
        if u32::from_be_bytes([c0, c1, c2, c3]) != crc32c::crc32c(body) {
            return Err(ResumeDecodeError::Crc);
        }
        let state: Self = postcard::from_bytes(body)
            .map_err(|error| ResumeDecodeError::Body { reason: error.to_string() })?;
        let topics = state.topics.len();
        let lanes = state.lanes.len();
        if state.planned.iter().any(|batch| {
            batch.lane as usize >= lanes
                || batch.topic as usize >= topics
                || batch.count == 0
                || batch.end.saturating_sub(batch.first) < u64::from(batch.count)
                || batch.sequence < 0
        }) {
            return Err(ResumeDecodeError::Body {
                reason: "a planned batch makes no sense".to_owned(),
            });
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ResumeState {
        ResumeState {
            producer: Some((4711, 3)),
            lanes: vec![LaneResume {
                name: "normal".to_owned(),
                position: JournalPosition { segment: 3, byte: 4096 },
                planned_through: JournalPosition { segment: 3, byte: 8192 },
                ends: vec![StreamEnd { stream: 7, end: 1 << 40 }],
            }],
            topics: vec!["telemetry".to_owned()],
            planned: vec![PlannedBatch {
                lane: 0,
                topic: 0,
                partition: 5,
                stream: 7,
                first: 99,
                end: 103,
                count: 4,
                sequence: i32::MAX,
            }],
            totals: Totals {
                acked_records: 1,
                possible_duplicates: 2,
                skipped_records: 3,
                gap_offsets: 4,
            },
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = sample().encode().unwrap();
        assert_eq!(ResumeState::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn a_lane_whose_ring_went_on_alone_begins_with_its_copies() {
        let mut state = sample();
        assert!(!state.begin_behind_the_ring("normal", 3, [(7, 1), (8, 5)]));
        assert_eq!(state, sample(), "what was sent is still there");
        assert!(state.begin_behind_the_ring("normal", 4, [(7, 1), (8, 5)]));
        let lane = &state.lanes[0];
        assert_eq!(lane.position, JournalPosition::START);
        let ends: Vec<_> = lane.ends.iter().map(|end| (end.stream, end.end)).collect();
        assert_eq!(ends, [(7, 1 << 40), (8, 5)]);
        assert!(state.planned.is_empty());
        assert_eq!(state.totals.possible_duplicates, sample().totals.possible_duplicates + 4);
    }

    #[test]
    fn any_damage_is_noticed() {
        let bytes = sample().encode().unwrap();
        for cut in 0..bytes.len() {
            assert!(ResumeState::decode(&bytes[..cut]).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ResumeState::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_fullest_plan_fits() {
        let topic = "t".repeat(200);
        let state = ResumeState {
            topics: (0..100).map(|index| format!("{topic}{index}")).collect(),
            planned: vec![
                PlannedBatch {
                    lane: 0,
                    topic: 99,
                    partition: 1023,
                    stream: 16_383,
                    first: 1 << 40,
                    end: 1 << 41,
                    count: 10_000,
                    sequence: i32::MAX
                };
                PLANNED_MAX
            ],
            lanes: vec![LaneResume {
                ends: vec![StreamEnd { stream: 16_383, end: 1 << 40 }; 16_384],
                ..sample().lanes.remove(0)
            }],
            ..sample()
        };
        assert!(state.encode().is_some());
    }
}

//! Looking at a lane, or one of its segment files, without changing anything: every checksum, every rule of the
//! format, what is there of every stream and what is missing.
//!
//! The frames are read from the first to the last, independently of recovery, and recovery's result is compared with
//! what they say. Reads only; a read-only file system does. Works beside a running gateway too: then only what
//! stands before the durable end that it told is judged, and a slot that is recycled meanwhile is left out.
//!
//! Memory: one frame as stored and unpacked (at most one and a half times a segment's largest batch), 64 KiB of
//! window, for each stream its ranges of offsets (one range while nothing is missing; at most 65,536), and lists
//! that are bounded by the constants in [`report`]. It does not grow with the size of the lane.
//!
//! Damage is *known* when nothing is left to do about it: the journal tells every offset it cost as a gap, a
//! recovery judged it, or a repair noted it ([`VerifyOptions::dealt_with`]).

mod alone;
mod frames;
mod lane;
pub mod mend;
mod ranges;
mod replay;
pub mod report;
mod sides;
mod slots;
mod streams;

use std::collections::BTreeSet;
use std::io;

use thiserror::Error;

use crate::position::JournalPosition;

pub use alone::SegmentReader;
pub use lane::{verify_lane, verify_segment};
pub use report::{Damage, DamageKind, LaneReport, Lost, Missing, Note, StreamReport, ToldGap};

/// Why nothing can be said.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The system refused. Damage is not an error.
    #[error("{operation} {path} failed: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path below the data directory.
        path: String,
        /// In the system's words.
        source: io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "{path} has format version {found}, this program reads up to {supported}: use the program that wrote it, or a newer one; nothing was changed"
    )]
    NewerFormat {
        /// The file.
        path: String,
        /// Version found.
        found: u8,
        /// Newest version known here.
        supported: u8,
    },
    /// It is no segment of a lane.
    #[error("{path} is not a segment: neither a header nor any frame of a journal is in it")]
    NotASegment {
        /// The file.
        path: String,
    },
}

/// Sees what goes by.
pub trait Observer {
    /// So many bytes of so many are read.
    fn progress(&mut self, _bytes: u64, _of_bytes: u64) {}
    /// The owner's state at the head of a segment.
    fn checkpoint(&mut self, _at: JournalPosition, _owner: Option<&[u8]>) {}
    /// An event of the owner.
    fn event(&mut self, _at: JournalPosition, _tag: u16, _bytes: &[u8]) {}
}

impl Observer for () {}

/// How a lane is looked at.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// A gateway runs on it. `Some`: where the journal ended when it was asked.
    pub live: Option<Live>,
    /// Segment and byte of damage that a repair dealt with: known unless offsets are missing that nothing tells.
    pub dealt_with: BTreeSet<(u64, u64)>,
}

/// What is known of a running gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Its durable end, if it said so.
    pub end: Option<JournalPosition>,
}

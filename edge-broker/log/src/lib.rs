//! Crash-safe lanes of partitioned logs: journal, recovery, index, retention. No tokio, no clock.
//!
//! A lane is a journal on disk that many streams (topic partitions) share. One thread owns a [`Lane`]: it appends
//! records to a pending group in memory, and [`Lane::commit`] makes the group durable with one write and one sync.
//! Any thread reads with a [`LaneReader`], never past the durable end.
//!
//! # What is promised
//!
//! - What a successful commit covered survives power loss, in order, once, as long as the device keeps what it
//!   acknowledged; what the device loses later costs the group it hits and becomes a [`Gap`], told once and for ever.
//! - An offset that was served or acknowledged is never given out twice.
//! - Opening never fails because of damage, and changes nothing: a crash during recovery is harmless.
//! - After a failed write or sync nothing more is acknowledged until the lane was opened again.
//!
//! # Who writes, who deletes
//!
//! Only the owner of the lane writes. Segment files are made until the byte budget is used, then written over in
//! place, oldest first, by the lane's policy; none is deleted, unless the budget was made smaller. Everything that
//! can grow has a limit: see [`LaneConfig`] and `journal/format.rs`.
//!
//! # Where to look
//!
//! | | |
//! |---|---|
//! | `docs/FORMAT.md` | the format, byte by byte |
//! | `recovery/mod.rs` | each state that can be found on disk, and what is done |
//! | `lane/` | append, commit, roll to the next segment, maintenance |
//! | `reader.rs`, `decoded/` | reading by stream, by time, by journal position |
//! | `stream_index/`, `copies.rs` | where a stream's offsets are |
//! | `inspect/` | every byte looked at, nothing changed |
//! | `committer.rs` | when to sync |
//! | `scrub.rs` | reading again what is on the device |
//! | `storage/` | the only door to the disk, real and simulated |

pub mod clock;
pub mod committer;
pub mod config;
mod copies;
pub mod decoded;
pub mod gap;
mod group_cache;
mod holes;
pub mod inspect;
mod journal;
pub mod lane;
pub mod position;
pub mod read_many;
pub mod reader;
pub mod recovered;
mod recovery;
mod retention;
pub mod scrub;
mod shared;
pub mod stats;
pub mod storage;
pub mod stream;
mod stream_index;

pub use clock::{BOOTS_MAX, BootClock, BootClocks, ClockReading, ClockState};
pub use committer::{CommitDecision, CommitPace};
pub use config::{Decay, Durability, GroupCompression, LaneConfig, WhenFull};
pub use decoded::{
    BatchRef, CLOCK_HEADER, CLOCK_UNSYNCED, DecodedGroup, GroupHeader, GroupKind, RecordRef,
    UnpackError,
};
pub use gap::{Gap, GapReason};
pub use lane::{
    AGGREGATE_HEADER, AppendError, Appended, Commit, CommitError, EnvelopeRef, FullCause, Lane,
    LogStartError, MaintainError, OpenError, SegmentOwner,
};
pub use position::JournalPosition;
pub use read_many::StreamRead;
pub use reader::{CopiedPart, CopiedRead, CopiedStream, GroupAt, LaneReader, ReadEnd, ReadError};
pub use recovered::{RecoveredStream, Recovery, SuspectTail, TornTail};
pub use scrub::{Rot, Scrub, ScrubStep};
pub use stats::{LaneState, LaneStats};
pub use storage::{FileStorage, IoMode, OpenMode, SimStorage, Storage, StorageFile};
pub use stream::{Compaction, Retention, StreamBounds, StreamDefinition};

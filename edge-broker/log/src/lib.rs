//! Crash-safe lanes of partitioned logs: journal, recovery, index, retention. No tokio, no clock.

pub mod clock;
pub mod committer;
pub mod config;
pub mod decoded;
pub mod gap;
mod group_cache;
mod holes;
mod journal;
pub mod lane;
pub mod position;
pub mod reader;
pub mod recovered;
mod recovery;
mod retention;
mod shared;
pub mod stats;
pub mod storage;
pub mod stream;
mod stream_index;

pub use clock::{ClockReading, ClockState};
pub use committer::CommitDecision;
pub use config::{Durability, GroupCompression, LaneConfig, WhenFull};
pub use decoded::{BatchRef, DecodedGroup, GroupHeader, GroupKind, RecordRef, UnpackError};
pub use gap::{Gap, GapReason};
pub use lane::{
    AppendError, Appended, Commit, CommitError, EnvelopeRef, Lane, LogStartError, MaintainError,
    OpenError, SegmentOwner,
};
pub use position::JournalPosition;
pub use reader::{GroupAt, LaneReader, ReadEnd, ReadError};
pub use recovered::{RecoveredStream, Recovery, SuspectTail, TornTail};
pub use stats::{LaneState, LaneStats};
pub use storage::{FileStorage, IoMode, OpenMode, SimStorage, Storage, StorageFile};
pub use stream::{Retention, StreamBounds, StreamDefinition};

//! What the uplink needs of the gateway: lanes to read and a place to keep its progress.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use edge_log::{CopiedRead, CopiedStream, DecodedGroup, GroupAt, JournalPosition, LaneReader};
use edge_wire::{Offset, StreamId};
use tokio::sync::watch;
use uplink_core::rebatch::TimeLimits;
use uplink_core::replicator::StreamInfo;

/// The lanes of a gateway. Lanes are numbered as [`lanes`](Self::lanes) names them.
pub trait LaneSource: Send + Sync + 'static {
    /// Names of the lanes that are replicated, fixed while the uplink runs.
    fn lanes(&self) -> Vec<String>;

    /// The durable end of a lane's journal.
    fn end(&self, lane: usize) -> JournalPosition;

    /// Groups from a position on, at most about `max_bytes` of them, never past the durable end. Blocks.
    ///
    /// # Errors
    /// The lane cannot be read at the moment; the same call is made again later.
    fn read(
        &self,
        lane: usize,
        from: JournalPosition,
        max_bytes: usize,
    ) -> Result<LaneRead, ReadLaneError>;

    /// The first stream from a number on whose oldest records stand in copies: they were moved forward in the journal,
    /// and who follows that does not see them.
    fn copied(&self, _lane: usize, _from: StreamId) -> Option<CopiedStream> {
        None
    }

    /// Copies of a stream, at most about `max_bytes` of their groups. Blocks.
    ///
    /// # Errors
    /// The lane cannot be read at the moment; the same call is made again later.
    fn read_copies(
        &self,
        _lane: usize,
        _stream: StreamId,
        range: Range<Offset>,
        _max_bytes: usize,
    ) -> Result<CopiedRead, ReadLaneError> {
        Ok(CopiedRead { parts: Vec::new(), next: range.end })
    }

    /// Where a lane's journal begins. [`JournalPosition::START`]: not known.
    fn start(&self, _lane: usize) -> JournalPosition {
        JournalPosition::START
    }

    /// Changes with every commit group.
    fn commits(&self, lane: usize) -> watch::Receiver<u64>;

    /// What a stream is; `None` if its topic is gone.
    fn stream(&self, stream: StreamId) -> Option<SourceStream>;

    /// Everything before `through` is upstream: retention may have it.
    fn upstream(&self, lane: usize, through: JournalPosition);

    /// Which timestamps may leave, by the gateway's clock as it is now.
    fn times(&self) -> TimeLimits {
        TimeLimits::default()
    }

    /// The time by the gateway's clock, ms since 1970.
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// The durable end of every stream of a lane; used to tell, after a restart, that idle streams are upstream in
    /// full. May be empty.
    fn durable_ends(&self, lane: usize) -> Vec<(StreamId, Offset)>;
}

/// What a read brought.
#[derive(Clone, Debug, Default)]
pub struct LaneRead {
    /// In journal order.
    pub groups: Vec<Arc<DecodedGroup>>,
    /// Where to read on.
    pub next: JournalPosition,
    /// Nothing stands behind `next` yet.
    pub is_end: bool,
}

impl LaneRead {
    /// What [`LaneSource::read`] is to bring, from a lane's reader. Blocks.
    ///
    /// # Errors
    /// The disk did not read.
    pub fn from_reader(
        reader: &LaneReader,
        from: JournalPosition,
        max_bytes: usize,
    ) -> Result<Self, ReadLaneError> {
        let mut read = Self { groups: Vec::new(), next: from, is_end: false };
        let mut bytes = 0;
        while bytes < max_bytes {
            match reader.group(read.next) {
                Ok(GroupAt::Group(group)) => {
                    read.next = group.next();
                    bytes += group.memory_bytes();
                    read.groups.push(group);
                }
                // What was in between is told as a gap when the next offset of its stream comes.
                Ok(GroupAt::Lost { next }) => read.next = next,
                Ok(GroupAt::End) => {
                    read.is_end = true;
                    break;
                }
                Err(_) if !read.groups.is_empty() => break,
                Err(error) => return Err(ReadLaneError { reason: error.to_string() }),
            }
        }
        Ok(read)
    }
}

/// A stream of the gateway.
#[derive(Clone, Debug)]
pub struct SourceStream {
    /// Topic and partition.
    pub info: StreamInfo,
    /// The gateway's own: not replicated.
    pub is_internal: bool,
}

/// Why a lane could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ReadLaneError {
    /// A sentence.
    pub reason: String,
}

/// Where progress is kept.
pub trait ProgressStore: Send + Sync + 'static {
    /// Stores bytes under a key; durable when it returns.
    fn save(
        &self,
        key: Vec<u8>,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), SaveError>> + Send;

    /// What was stored last.
    fn load(&self, key: &[u8]) -> Option<Vec<u8>>;
}

/// Why progress could not be stored.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SaveError {
    /// A sentence.
    pub reason: String,
}

//! Reading a lane from any thread, never past the durable end.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use edge_wire::{Offset, StreamId};
use thiserror::Error;

use crate::decoded::{BatchRef, DecodedGroup};
use crate::gap::Gap;
use crate::position::JournalPosition;
use crate::stats::LaneStats;
use crate::stream::StreamBounds;

/// Why nothing could be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The lane has no such stream.
    #[error("stream {stream} is not in this lane")]
    UnknownStream {
        /// The stream asked for.
        stream: StreamId,
    },
    /// The offset is below the log start or beyond the durable end.
    #[error("offset {offset} is outside {log_start}..{durable_end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// First readable offset.
        log_start: Offset,
        /// First offset that is not durable.
        durable_end: Offset,
    },
    /// The disk did not read.
    #[error("reading segment {segment} failed")]
    Io {
        /// Sequence of the segment.
        segment: u64,
        /// In the system's words.
        #[source]
        source: io::Error,
    },
}

/// How far a read came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadEnd {
    /// The offset to read next.
    pub next: Offset,
}

/// What stands at a journal position.
#[derive(Clone, Debug)]
pub enum GroupAt {
    /// A group.
    Group(Arc<DecodedGroup>),
    /// Nothing yet: it is the durable end.
    End,
    /// Damaged or recycled.
    Lost {
        /// Where to continue.
        next: JournalPosition,
    },
}

/// Reads a lane. Cheap to clone; any thread.
#[derive(Clone)]
pub struct LaneReader {}

impl LaneReader {
    /// Readable range of a stream.
    #[must_use]
    pub fn bounds(&self, stream: StreamId) -> Option<StreamBounds> {
        let _ = stream;
        todo!()
    }
    /// Appends whole RecordBatch v2 from the batch that holds `from` (so the first may begin below `from`),
    /// until the next would pass `max_bytes`; the first is always whole. Holes are jumped over.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(
        &self,
        stream: StreamId,
        from: Offset,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<ReadEnd, ReadError> {
        let _ = (stream, from, max_bytes, out);
        todo!()
    }
    /// Visits the batches from the one that holds `from`, until the durable end or `Break`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_batches(
        &self,
        stream: StreamId,
        from: Offset,
        visit: &mut dyn FnMut(BatchRef<'_>) -> ControlFlow<()>,
    ) -> Result<ReadEnd, ReadError> {
        let _ = (stream, from, visit);
        todo!()
    }
    /// The first record whose timestamp is `timestamp_ms` or later: its offset and timestamp.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_at_time(
        &self,
        stream: StreamId,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let _ = (stream, timestamp_ms);
        todo!()
    }
    /// The record with the highest timestamp: its offset and timestamp.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn max_timestamp(&self, stream: StreamId) -> Result<Option<(Offset, i64)>, ReadError> {
        let _ = stream;
        todo!()
    }
    /// Where the journal starts.
    #[must_use]
    pub fn start(&self) -> JournalPosition {
        todo!()
    }
    /// The durable end of the journal.
    #[must_use]
    pub fn end(&self) -> JournalPosition {
        todo!()
    }
    /// The group at a position. `JournalPosition::START` and any position between groups mean the next
    /// group there is.
    ///
    /// # Errors
    /// The disk did not read.
    pub fn group(&self, at: JournalPosition) -> Result<GroupAt, ReadError> {
        let _ = at;
        todo!()
    }
    /// Counters and state.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        todo!()
    }
    /// All gaps known.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        todo!()
    }
}

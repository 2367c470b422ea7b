//! A commit group in memory, ready to be read.

use edge_wire::{Compression, Offset, ProducerId, StreamId};
use thiserror::Error;

use crate::clock::ClockState;
use crate::gap::Gap;
use crate::position::JournalPosition;
use crate::stream::StreamDefinition;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Records, events, changes.
    Data,
    /// Records that stand in an older segment too and were copied forward; never sent upstream twice.
    Copied,
    /// Only gap entries.
    Gap,
    /// Nothing: it proves the group before it.
    Seal,
    /// The state of the lane at the head of a segment.
    Checkpoint,
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// What it is for.
    pub kind: GroupKind,
    /// Counts the groups of the lane, without holes.
    pub sequence: u64,
    /// Boot in which it was written.
    pub boot_id: u64,
    /// Time since that boot.
    pub boottime_us: u64,
    /// Wall clock.
    pub wall_us: i64,
    /// How far the wall clock can be trusted.
    pub clock_state: ClockState,
    /// Number of records in all its batches.
    pub records: u32,
}

/// A decoded commit group.
#[derive(Debug)]
pub struct DecodedGroup {}

impl DecodedGroup {
    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> JournalPosition {
        todo!()
    }
    /// Where the next group stands or will stand.
    #[must_use]
    pub fn next(&self) -> JournalPosition {
        todo!()
    }
    /// Its header.
    #[must_use]
    pub fn header(&self) -> &GroupHeader {
        todo!()
    }
    /// Its batches: by stream id, those of one stream in offset order.
    pub fn batches(&self) -> impl Iterator<Item = BatchRef<'_>> {
        std::iter::empty()
    }
    /// The batches of one stream, in offset order.
    pub fn batches_of(&self, stream: StreamId) -> impl Iterator<Item = BatchRef<'_>> {
        let _ = stream;
        std::iter::empty()
    }
    /// The owner's events, in order.
    pub fn events(&self) -> impl Iterator<Item = (u16, &[u8])> {
        std::iter::empty()
    }
    /// Stream definitions.
    pub fn definitions(&self) -> Vec<StreamDefinition> {
        todo!()
    }
    /// Gaps told by this group.
    pub fn gaps(&self) -> Vec<Gap> {
        todo!()
    }
    /// Memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        todo!()
    }
}

/// A batch in a decoded group.
#[derive(Clone, Copy, Debug)]
pub struct BatchRef<'a> {
    group: &'a DecodedGroup,
}

/// Why a batch cannot be unpacked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The producer's own compression is damaged or expands beyond the bound. What was stored is as it came.
    #[error("the producer's batch at offset {offset} of stream {stream} cannot be unpacked: {reason}")]
    Batch {
        /// The stream.
        stream: StreamId,
        /// The batch's base offset.
        offset: Offset,
        /// In the codec's words.
        reason: String,
    },
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// `varint count, headers` as in a Kafka record.
    pub headers_section: &'a [u8],
    /// The value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// Producer fields of a batch.
pub type Producer = edge_wire::ProducerStamp;

impl<'a> BatchRef<'a> {
    /// Its stream.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        let _ = self.group;
        todo!()
    }
    /// Offset of its first record.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        todo!()
    }
    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        todo!()
    }
    /// Offset of its last record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        todo!()
    }
    /// Base timestamp, ms.
    #[must_use]
    pub fn base_timestamp_ms(&self) -> i64 {
        todo!()
    }
    /// Highest timestamp, ms.
    #[must_use]
    pub fn max_timestamp_ms(&self) -> i64 {
        todo!()
    }
    /// It stands in an older segment too.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        todo!()
    }
    /// How the producer compressed it.
    #[must_use]
    pub fn compression(&self) -> Compression {
        todo!()
    }
    /// The idempotent producer's stamp.
    #[must_use]
    pub fn producer(&self) -> Option<Producer> {
        let _: Option<ProducerId> = None;
        todo!()
    }
    /// Appends the whole RecordBatch v2, CRC included, partition leader epoch 0.
    pub fn write_record_batch(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }
    /// Upper bound of what `write_record_batch` appends.
    #[must_use]
    pub fn record_batch_bytes(&self) -> usize {
        todo!()
    }
    /// Visits every record in order.
    ///
    /// # Errors
    /// A producer-compressed batch cannot be unpacked.
    pub fn for_each_record(
        &self,
        visit: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<(), UnpackError> {
        let _ = visit;
        todo!()
    }
    /// The stored records section of a batch that a producer built, compressed or not.
    #[must_use]
    pub fn raw_records(&self) -> Option<&'a [u8]> {
        todo!()
    }
}

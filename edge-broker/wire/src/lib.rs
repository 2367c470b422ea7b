//! Kafka record batches, compression and partitioning: what the listener, the log and the uplink share.
//!
//! No I/O, no clock, no tokio: bytes in, values out. No function here panics on bytes from outside, and none
//! allocates more than a small multiple of its input or the cap it is given.

mod attributes;
pub mod batch_builder;
pub mod compression;
pub mod envelope;
pub mod headers;
pub mod ids;
pub mod partitioner;
pub mod produced;
pub mod record;
pub mod record_batch;
pub mod sequence;
pub mod varint;

pub use batch_builder::RecordBatchBuilder;
pub use compression::{CompressError, Compression, DecompressError};
pub use envelope::{Envelope, EnvelopeId, EnvelopeView};
pub use headers::{Header, HeadersBuilder, HeadersView, put_header};
pub use ids::{LaneId, Offset, PartitionId, ProducerId, StreamId, TopicId};
pub use partitioner::{murmur2, partition_for_key};
pub use record::{RecordError, RecordTail, RecordView, Records, put_record};
pub use record_batch::{
    Attributes, BATCH_HEADER_BYTES, BatchError, BatchHeader, Batches, CrcMismatch, ProducerStamp,
    RecordBatchView, TimestampType, write_batch,
};
pub use sequence::{ProducerTable, SequenceCheck};
pub use varint::DecodeError;

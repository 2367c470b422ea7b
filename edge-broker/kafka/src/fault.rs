//! What clients are told when something does not work: a Kafka error code and a sentence.
//!
//! Clients branch on the code, so it is chosen by what they do with it:
//! - `KAFKA_STORAGE_ERROR` (a lane is full or being recovered, nothing was taken): the Java client and
//!   librdkafka refresh metadata and send again.
//! - `NOT_ENOUGH_REPLICAS_AFTER_APPEND` (a sync failed, the records may be there): both send again, and
//!   librdkafka counts the messages as possibly persisted.
//! - `NOT_LEADER_OR_FOLLOWER` (shutting down): both look for another leader and try again.

use edge_engine::{
    AlterTopicError, CommitOffsetsError, CreateTopicError, DeleteRecordsError, DeleteTopicError,
    Failure, StateError,
};
use edge_log::{AppendError, ReadError};
use edge_wire::DecompressError;
use edge_wire::produced::ProducedError;
use edge_wire::record_batch::BatchError;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

/// An error for a client.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) error: ResponseError,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }

    pub(crate) fn code(&self) -> i16 {
        self.error.code()
    }

    pub(crate) fn text(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }

    pub(crate) fn unknown_partition(topic: &str, partition: i32) -> Self {
        let message = format!("there is no partition {partition} of a topic '{topic}'");
        Self::new(ResponseError::UnknownTopicOrPartition, message)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Poisoned => ResponseError::NotEnoughReplicasAfterAppend,
            Failure::ShuttingDown => ResponseError::NotLeaderOrFollower,
            Failure::Unstorable => ResponseError::MessageTooLarge,
            Failure::Full => ResponseError::KafkaStorageError,
        };
        Self::new(error, failure.to_string())
    }
}

impl From<&AppendError> for Fault {
    fn from(error: &AppendError) -> Self {
        let code = match error {
            AppendError::UnknownStream { .. } => ResponseError::UnknownTopicOrPartition,
            AppendError::TooLarge { .. } => ResponseError::MessageTooLarge,
            AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
            AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
            AppendError::Malformed { .. } | AppendError::Unsupported { .. } => {
                ResponseError::InvalidRecord
            }
            // Nothing was taken; the same batch may be taken later.
            _ => ResponseError::KafkaStorageError,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ProducedError> for Fault {
    fn from(error: ProducedError) -> Self {
        let code = match &error {
            ProducedError::Batch(BatchError::Magic { .. }) => {
                ResponseError::UnsupportedForMessageFormat
            }
            // Damage on the way: sending again helps.
            ProducedError::Batch(_) | ProducedError::Crc(_) => ResponseError::CorruptMessage,
            ProducedError::Decompress(DecompressError::TooLarge { .. }) => {
                ResponseError::MessageTooLarge
            }
            ProducedError::Timestamp { .. } => ResponseError::InvalidTimestamp,
            // The CRC was right: it was made like this and will be no better next time.
            _ => ResponseError::InvalidRecord,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&ReadError> for Fault {
    fn from(error: &ReadError) -> Self {
        let code = match error {
            ReadError::UnknownStream { .. } => ResponseError::UnknownTopicOrPartition,
            ReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
            _ => ResponseError::KafkaStorageError,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&StateError> for Fault {
    fn from(error: &StateError) -> Self {
        let code = match error {
            StateError::Failed(Failure::ShuttingDown) => ResponseError::NotController,
            StateError::Failed(_) => ResponseError::RequestTimedOut,
            _ => ResponseError::InvalidRequest,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&CreateTopicError> for Fault {
    fn from(error: &CreateTopicError) -> Self {
        let code = match error {
            CreateTopicError::Exists { .. } => ResponseError::TopicAlreadyExists,
            CreateTopicError::IllegalName { .. } => ResponseError::InvalidTopicException,
            CreateTopicError::Partitions { .. } => ResponseError::InvalidPartitions,
            CreateTopicError::UnknownLane { .. } => ResponseError::InvalidConfig,
            CreateTopicError::State(state) => return state.into(),
            _ => ResponseError::PolicyViolation,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&DeleteTopicError> for Fault {
    fn from(error: &DeleteTopicError) -> Self {
        match error {
            DeleteTopicError::State(state) => state.into(),
            _ => Self::new(ResponseError::UnknownTopicOrPartition, error.to_string()),
        }
    }
}

impl From<&AlterTopicError> for Fault {
    fn from(error: &AlterTopicError) -> Self {
        let code = match error {
            AlterTopicError::State(state) => return state.into(),
            AlterTopicError::Value(_) => ResponseError::InvalidConfig,
            _ => ResponseError::UnknownTopicOrPartition,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&DeleteRecordsError> for Fault {
    fn from(error: &DeleteRecordsError) -> Self {
        let code = match error {
            DeleteRecordsError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
            // Clients look for the leader again and then try again.
            DeleteRecordsError::State(StateError::Failed(Failure::ShuttingDown)) => {
                ResponseError::NotLeaderOrFollower
            }
            DeleteRecordsError::State(_) => ResponseError::KafkaStorageError,
            _ => ResponseError::UnknownTopicOrPartition,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&CommitOffsetsError> for Fault {
    fn from(error: &CommitOffsetsError) -> Self {
        let code = match error {
            CommitOffsetsError::MetadataTooLarge { .. } => ResponseError::OffsetMetadataTooLarge,
            // Clients try another coordinator, that is us again, until the lane is back.
            CommitOffsetsError::State(_) => ResponseError::CoordinatorNotAvailable,
            _ => ResponseError::PolicyViolation,
        };
        Self::new(code, error.to_string())
    }
}

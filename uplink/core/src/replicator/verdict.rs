//! What an error code from the upstream means for the batch that got it.

/// What to do about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in the upstream's log.
    Acknowledged,
    /// Send the same bytes again, later. `may_be_appended`: the leader may have it all the same.
    Retry {
        /// See above.
        may_be_appended: bool,
    },
    /// The sequence does not fit what the broker remembers. Harmless behind a batch that failed; otherwise a new
    /// producer id is needed.
    OutOfOrder,
    /// The producer id is of no use any more.
    NewProducer,
    /// Refused for what is in it: take it apart until the culprit is alone, then pass that by.
    TakeApart,
    /// Refused for its timestamps.
    Timestamps,
    /// The topic or partition is not there.
    TopicMissing,
    /// Somebody has to change something upstream; the other topics go on.
    Blocked,
}

/// Error codes by number (Kafka's `Errors.java`).
pub(crate) fn verdict_of(code: i16) -> Verdict {
    match code {
        // NONE, DUPLICATE_SEQUENCE_NUMBER
        0 | 46 => Verdict::Acknowledged,
        // LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, BROKER_NOT_AVAILABLE, REPLICA_NOT_AVAILABLE,
        // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR, NOT_ENOUGH_REPLICAS,
        // NOT_CONTROLLER, CONCURRENT_TRANSACTIONS, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH,
        // THROTTLING_QUOTA_EXCEEDED, LISTENER_NOT_FOUND
        5 | 6 | 8 | 9 | 14 | 15 | 16 | 19 | 41 | 51 | 56 | 72 | 74 | 75 | 89 => {
            Verdict::Retry { may_be_appended: false }
        }
        // UNKNOWN_SERVER_ERROR, REQUEST_TIMED_OUT, NETWORK_EXCEPTION, NOT_ENOUGH_REPLICAS_AFTER_APPEND
        -1 | 7 | 13 | 20 => Verdict::Retry { may_be_appended: true },
        // UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID
        3 | 100 => Verdict::TopicMissing,
        // OUT_OF_ORDER_SEQUENCE_NUMBER
        45 => Verdict::OutOfOrder,
        // INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID, PRODUCER_FENCED
        47 | 49 | 59 | 90 => Verdict::NewProducer,
        // CORRUPT_MESSAGE (also: no key in a compacted topic), MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_RECORD
        2 | 10 | 18 | 87 => Verdict::TakeApart,
        // INVALID_TIMESTAMP
        32 => Verdict::Timestamps,
        // TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED, INVALID_TOPIC, POLICY_VIOLATION,
        // INVALID_REQUIRED_ACKS, UNSUPPORTED_COMPRESSION_TYPE, ... and whatever comes after us
        _ => Verdict::Blocked,
    }
}

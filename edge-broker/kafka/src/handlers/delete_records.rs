//! DeleteRecords (KIP-107): moves the log start of partitions forward; durable before the answer.
//!
//! Offset -1 stands for the high watermark, here the durable end. What was asked for and is gone already is no error,
//! as in Kafka. The space comes back with the segments that hold the records.

use std::collections::BTreeSet;
use std::time::Duration;

use edge_engine::{DeleteRecordsError, Topic};
use edge_wire::{Offset, PartitionId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use tokio::time::{Instant, timeout_at};

use crate::fault::Fault;
use crate::session::Session;

const HIGH_WATERMARK: i64 = -1;
/// What clients are told in place of a log start when there is an error.
const NONE: i64 = -1;
/// A request's own timeout is kept within these.
const TIMEOUT_MS_RANGE: std::ops::RangeInclusive<i32> = 1..=300_000;

pub(super) async fn handle(
    session: &Session,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let timeout_ms = request.timeout_ms.clamp(*TIMEOUT_MS_RANGE.start(), *TIMEOUT_MS_RANGE.end());
    let deadline = Instant::now() + Duration::from_millis(u64::from(timeout_ms.unsigned_abs()));
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = session.engine().topic(&asked.name);
        let mut seen = BTreeSet::new();
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in asked.partitions {
            let index = partition.partition_index;
            let deleted = match &topic {
                None => Err(Fault::unknown_partition(&asked.name, index)),
                Some(_) if !seen.insert(index) => {
                    let message = format!("partition {index} is named more than once");
                    Err(Fault::new(ResponseError::InvalidRequest, message))
                }
                Some(topic) => {
                    let deleting = one(session, topic, &partition);
                    timeout_at(deadline, deleting).await.unwrap_or_else(|_elapsed| {
                        let message = "not durable within the request's timeout; it may become so";
                        Err(Fault::new(ResponseError::RequestTimedOut, message))
                    })
                }
            };
            let result = DeleteRecordsPartitionResult::default().with_partition_index(index);
            partitions.push(match deleted {
                Ok(log_start) => {
                    let log_start = i64::try_from(log_start.0).unwrap_or(i64::MAX);
                    result.with_low_watermark(log_start)
                }
                Err(fault) => {
                    let (topic, message) = (asked.name.as_str(), &fault.message);
                    tracing::debug!(topic, index, message, "kafka: records were not deleted");
                    result.with_low_watermark(NONE).with_error_code(fault.code())
                }
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions),
        );
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn one(
    session: &Session,
    topic: &Topic,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, Fault> {
    let unknown = || Fault::unknown_partition(topic.name(), asked.partition_index);
    let partition = u32::try_from(asked.partition_index).map_err(|_| unknown())?;
    let before = match asked.offset {
        HIGH_WATERMARK => None,
        offset => Some(Offset(u64::try_from(offset).map_err(|_| {
            let message = format!("offset {offset} is neither an offset nor -1");
            Fault::new(ResponseError::OffsetOutOfRange, message)
        })?)),
    };
    let deleted = session.engine().delete_records(topic, PartitionId(partition), before).await;
    deleted.map_err(|error| match error {
        DeleteRecordsError::UnknownPartition => unknown(),
        other => Fault::from(&other),
    })
}

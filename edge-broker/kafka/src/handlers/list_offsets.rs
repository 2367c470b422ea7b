//! ListOffsets: the ends of a partition, and the first record at or after a time.
//!
//! Source: KIP-79, KIP-734 (max timestamp), KIP-405 (local log start).

use std::sync::Arc;

use edge_engine::LaneHandle;
use edge_log::{ReadError, StreamBounds};
use edge_wire::{Offset, PartitionId, StreamId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::fault::Fault;
use crate::session::Session;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// From this version on the answer has a leader epoch.
const LEADER_EPOCH_FROM_VERSION: i16 = 4;

/// Every partition here is led by this node in this epoch, always.
pub(super) const LEADER_EPOCH: i32 = 0;

pub(super) async fn handle(
    session: &Session,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = session.engine().topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let stream = known.as_ref().and_then(|known| {
                let index = u32::try_from(partition.partition_index).ok()?;
                Some((session.engine().lane_of(known).clone(), known.stream(PartitionId(index))?))
            });
            let found = match stream {
                Some((lane, stream)) => one(lane, stream, &partition, version).await,
                None => Err(Fault::unknown_partition(&topic.name, partition.partition_index)),
            };
            partitions.push(answer(&partition, found, version));
        }
        topics.push(
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Refuses a request that was made for another leader's epoch (KIP-320). There is only one here, 0.
pub(super) fn check_leader_epoch(asked: i32) -> Result<(), Fault> {
    if asked > LEADER_EPOCH {
        let message = format!("leader epoch {asked}; this node knows {LEADER_EPOCH}");
        return Err(Fault::new(ResponseError::UnknownLeaderEpoch, message));
    }
    Ok(())
}

/// Offset and timestamp; both absent if there is no such record.
type Found = Option<(Offset, i64)>;

async fn one(
    lane: Arc<LaneHandle>,
    stream: StreamId,
    asked: &ListOffsetsPartition,
    version: i16,
) -> Result<Found, Fault> {
    check_leader_epoch(asked.current_leader_epoch)?;
    let reader = lane.reader();
    // The lane hears of a new stream a moment after the catalogue: until then it is empty.
    let StreamBounds { log_start, durable_end } = reader.bounds(stream).unwrap_or_default();
    match asked.timestamp {
        LATEST => Ok(Some((durable_end, -1))),
        EARLIEST => Ok(Some((log_start, -1))),
        EARLIEST_LOCAL if version >= 8 => Ok(Some((log_start, -1))),
        // Nothing is tiered here.
        LATEST_TIERED if version >= 9 => Ok(None),
        MAX_TIMESTAMP if version >= 7 => blocking(move || reader.max_timestamp(stream)).await,
        timestamp_ms if timestamp_ms >= 0 => {
            blocking(move || reader.offset_at_time(stream, timestamp_ms)).await
        }
        other => {
            let message = format!("{other} stands for nothing in version {version}");
            Err(Fault::new(ResponseError::UnsupportedVersion, message))
        }
    }
}

/// Disk reads block: they run where that is allowed.
async fn blocking(
    look: impl FnOnce() -> Result<Found, ReadError> + Send + 'static,
) -> Result<Found, Fault> {
    match tokio::task::spawn_blocking(look).await {
        Ok(Err(ReadError::UnknownStream { .. })) => Ok(None),
        Ok(found) => found.map_err(|error| Fault::from(&error)),
        Err(error) => Err(Fault::new(ResponseError::UnknownServerError, error.to_string())),
    }
}

fn answer(
    asked: &ListOffsetsPartition,
    found: Result<Found, Fault>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let leader_epoch = if version >= LEADER_EPOCH_FROM_VERSION { LEADER_EPOCH } else { -1 };
    let answer = ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_offset(-1)
        .with_timestamp(-1)
        .with_leader_epoch(-1);
    match found {
        Ok(Some((offset, timestamp_ms))) => answer
            .with_offset(i64::try_from(offset.0).unwrap_or(i64::MAX))
            .with_timestamp(timestamp_ms)
            .with_leader_epoch(leader_epoch),
        Ok(None) => answer,
        Err(fault) => answer.with_error_code(fault.code()),
    }
}

//! Fetch, ListOffsets, and a reader that follows one partition.

use bytes::Bytes;
use edge_wire::{Offset, PartitionId};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ListOffsetsRequest};

use super::admin::{millis, topic_name};
use super::error::{BrokerError, RequestError};
use super::record_stream::{FetchedRecord, RecordStream};
use super::types::{At, FetchLimits, Fetched, FoundOffset};
use super::{Client, api};

impl Client {
    /// Reads from one partition. Nothing new within `max_wait` is an answer without records.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE` below the start or beyond the end; otherwise refused or no answer.
    pub async fn fetch(
        &self,
        topic: &str,
        partition: PartitionId,
        offset: Offset,
        limits: FetchLimits,
    ) -> Result<Fetched, RequestError> {
        let range = api::FETCH;
        let node = self.leader(topic, partition).await?;
        let connection = self.cluster.node(node).await?;
        let version = connection.version::<FetchRequest>(range.name, range.min, range.max)?;
        let max_bytes = i32::try_from(limits.max_bytes).unwrap_or(i32::MAX);
        let wanted = FetchPartition::default()
            .with_partition(index(partition))
            .with_current_leader_epoch(-1)
            .with_fetch_offset(signed(offset))
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(max_bytes);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(millis(limits.max_wait))
            .with_min_bytes(i32::try_from(limits.min_bytes).unwrap_or(i32::MAX))
            .with_max_bytes(max_bytes)
            .with_isolation_level(0)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![
                FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]),
            ]);
        let response = connection.call(range.name, version, &request, limits.max_wait).await?;
        let refuse = |error| RequestError::Broker { api: range.name, error };
        BrokerError::check(response.error_code, None).map_err(refuse)?;
        let answer = response
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .find(|answer| answer.partition_index == index(partition))
            .ok_or_else(|| absent(range.name))?;
        self.check(topic, answer.error_code, range.name)?;
        Ok(Fetched {
            high_watermark: unsigned(answer.high_watermark).unwrap_or_default(),
            log_start: unsigned(answer.log_start_offset).unwrap_or_default(),
            records: answer.records.unwrap_or_else(Bytes::new),
        })
    }

    /// Looks an offset up. `None` when no record is that late.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partition: PartitionId,
        at: At,
    ) -> Result<Option<FoundOffset>, RequestError> {
        let range = api::LIST_OFFSETS;
        let node = self.leader(topic, partition).await?;
        let connection = self.cluster.node(node).await?;
        let oldest = if at == At::MaxTimestamp { 7 } else { range.min };
        let version = connection.version::<ListOffsetsRequest>(range.name, oldest, range.max)?;
        let timestamp = match at {
            At::Latest => -1,
            At::Earliest => -2,
            At::MaxTimestamp => -3,
            // Negative times are Kafka's special values; nothing is older than 1970.
            At::Time(ms) => ms.max(0),
        };
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(index(partition))
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(0)
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(vec![wanted]),
            ]);
        let response =
            connection.call(range.name, version, &request, std::time::Duration::ZERO).await?;
        let answer = response
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .find(|answer| answer.partition_index == index(partition))
            .ok_or_else(|| absent(range.name))?;
        self.check(topic, answer.error_code, range.name)?;
        Ok(unsigned(answer.offset).map(|offset| FoundOffset {
            offset,
            timestamp_ms: (answer.timestamp >= 0).then_some(answer.timestamp),
        }))
    }

    fn check(&self, topic: &str, code: i16, api: &'static str) -> Result<(), RequestError> {
        BrokerError::check(code, None).map_err(|error| {
            if error.code.is_stale_metadata() {
                self.forget_leaders(topic);
            }
            RequestError::Broker { api, error }
        })
    }
}

/// Follows one partition from an offset.
#[derive(Clone, Debug)]
pub struct PartitionReader {
    client: Client,
    topic: String,
    partition: PartitionId,
    next: Offset,
    limits: FetchLimits,
    high_watermark: Option<Offset>,
}

impl PartitionReader {
    /// A reader that starts at `from`.
    #[must_use]
    pub fn new(
        client: Client,
        topic: &str,
        partition: PartitionId,
        from: Offset,
        limits: FetchLimits,
    ) -> Self {
        Self {
            client,
            topic: topic.to_owned(),
            partition,
            next: from,
            limits,
            high_watermark: None,
        }
    }

    /// The next records; empty when nothing came within `max_wait`. After an error the same call may be repeated.
    ///
    /// # Errors
    /// As [`Client::fetch`]; a batch that cannot be read is a `Decode` error and is not passed by.
    pub async fn read(&mut self) -> Result<Vec<FetchedRecord>, RequestError> {
        let fetched =
            self.client.fetch(&self.topic, self.partition, self.next, self.limits).await?;
        self.high_watermark = Some(fetched.high_watermark);
        let mut records = Vec::new();
        let mut stream = RecordStream::new(fetched.records, self.next);
        while let Some(batch) = stream.next_batch() {
            let batch = batch.map_err(|error| RequestError::Decode {
                api: api::FETCH.name,
                reason: error.to_string(),
            });
            match batch {
                Ok(mut batch) => records.append(&mut batch),
                // What came whole before it is good.
                Err(_) if !records.is_empty() => break,
                Err(error) => return Err(error),
            }
            self.next = stream.next_offset();
        }
        Ok(records)
    }

    /// The partition that is followed.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The offset that the next read asks for.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Whether everything that the last answer knew of has been read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.high_watermark.is_some_and(|end| self.next >= end)
    }
}

fn index(partition: PartitionId) -> i32 {
    i32::try_from(partition.0).unwrap_or(i32::MAX)
}

fn signed(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

fn unsigned(offset: i64) -> Option<Offset> {
    u64::try_from(offset).ok().map(Offset)
}

fn absent(api: &'static str) -> RequestError {
    RequestError::Decode { api, reason: "the partition asked for is not in the answer".to_owned() }
}

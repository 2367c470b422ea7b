//! Produce, one batch or several, waiting or pipelined.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge_wire::{Offset, PartitionId};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::ProduceResponse;

use super::admin::{millis, topic_name};
use super::connection::Connection;
use super::error::{BrokerError, RequestError};
use super::types::{Acks, NodeId, PartitionAck, PartitionBatch, ProduceAck};
use super::{Client, api};

/// A Produce request under way; [`wait`](Self::wait) for its answer.
pub struct ProduceTicket {
    answer: Pin<Box<dyn Future<Output = Result<ProduceResponse, RequestError>> + Send>>,
}

impl ProduceTicket {
    /// One entry for each batch, in the broker's order.
    ///
    /// # Errors
    /// No answer: the batches may or may not have been appended.
    pub async fn wait(self) -> Result<Vec<PartitionAck>, RequestError> {
        Ok(acks_of(self.answer.await?))
    }
}

impl std::fmt::Debug for ProduceTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProduceTicket").finish_non_exhaustive()
    }
}

/// A connection to one broker, for Produce requests whose order matters. When it has ended, ask for a new one.
#[derive(Clone, Debug)]
pub struct ProducePipe {
    connection: Arc<Connection>,
}

impl ProducePipe {
    /// Queues one request and does not wait. Requests leave in the order of these calls. At most one batch for
    /// each partition; not for [`Acks::None`], which has no answer.
    ///
    /// # Errors
    /// The connection has ended or has too many requests in flight; nothing was sent.
    pub fn submit(
        &self,
        batches: Vec<PartitionBatch>,
        acks: Acks,
        limit: Duration,
    ) -> Result<ProduceTicket, RequestError> {
        let range = api::PRODUCE;
        let version =
            self.connection.version::<ProduceRequest>(range.name, range.min, range.max)?;
        let answer =
            self.connection.begin(range.name, version, &request_of(batches, acks, limit), limit)?;
        Ok(ProduceTicket { answer: Box::pin(answer) })
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }
}

impl Client {
    /// Appends one batch (a whole RecordBatch v2 with base offset 0) to one partition. `limit` is how long the
    /// broker may wait for its copies.
    ///
    /// # Errors
    /// Refused by the broker, or no answer (see [`RequestError::is_indefinite`]).
    pub async fn produce(
        &self,
        topic: &str,
        partition: PartitionId,
        batch: Bytes,
        acks: Acks,
        limit: Duration,
    ) -> Result<ProduceAck, RequestError> {
        let node = self.leader(topic, partition).await?;
        let batches = vec![PartitionBatch { topic: topic.to_owned(), partition, batch }];
        let mut answers = self.produce_many(node, batches, acks, limit).await?;
        let Some(answer) = answers.pop() else {
            return Ok(ProduceAck { base_offset: None });
        };
        answer.result.map_err(|error| {
            if error.code.is_stale_metadata() {
                self.forget_leaders(topic);
            }
            RequestError::Broker { api: api::PRODUCE.name, error }
        })
    }

    /// Appends batches to several partitions that one broker leads, at most one for each partition, in one
    /// request. With [`Acks::None`] the answer is empty.
    ///
    /// # Errors
    /// No answer; refusals are in the answer.
    pub async fn produce_many(
        &self,
        node: NodeId,
        batches: Vec<PartitionBatch>,
        acks: Acks,
        limit: Duration,
    ) -> Result<Vec<PartitionAck>, RequestError> {
        let range = api::PRODUCE;
        let connection = self.cluster.node(node).await?;
        let version = connection.version::<ProduceRequest>(range.name, range.min, range.max)?;
        let request = request_of(batches, acks, limit);
        if acks == Acks::None {
            connection.send_only(range.name, version, &request).await?;
            return Ok(Vec::new());
        }
        Ok(acks_of(connection.call(range.name, version, &request, limit).await?))
    }

    /// An ordered, pipelined way to one broker.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn produce_pipe(&self, node: NodeId) -> Result<ProducePipe, RequestError> {
        Ok(ProducePipe { connection: self.cluster.node(node).await? })
    }
}

fn request_of(batches: Vec<PartitionBatch>, acks: Acks, limit: Duration) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    for entry in batches {
        let data = PartitionProduceData::default()
            .with_index(i32::try_from(entry.partition.0).unwrap_or(i32::MAX))
            .with_records(Some(entry.batch));
        match topics.iter_mut().find(|topic| topic.name.as_str() == entry.topic) {
            Some(topic) => topic.partition_data.push(data),
            None => topics.push(
                TopicProduceData::default()
                    .with_name(topic_name(&entry.topic))
                    .with_partition_data(vec![data]),
            ),
        }
    }
    let acks = match acks {
        Acks::None => 0,
        Acks::Leader => 1,
        Acks::All => -1,
    };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(millis(limit)).with_topic_data(topics)
}

fn acks_of(response: ProduceResponse) -> Vec<PartitionAck> {
    let mut acks = Vec::new();
    for topic in response.responses {
        let name = topic.name.to_string();
        for partition in topic.partition_responses {
            let Ok(number) = u32::try_from(partition.index) else { continue };
            let message = partition.error_message.as_deref().map(str::to_owned).or_else(|| {
                let record = partition.record_errors.first()?;
                Some(format!(
                    "record {}: {}",
                    record.batch_index,
                    record.batch_index_error_message.as_deref().unwrap_or("refused")
                ))
            });
            acks.push(PartitionAck {
                topic: name.clone(),
                partition: PartitionId(number),
                result: BrokerError::check(partition.error_code, message.as_deref()).map(|()| {
                    ProduceAck {
                        base_offset: u64::try_from(partition.base_offset).ok().map(Offset),
                    }
                }),
            });
        }
    }
    acks
}

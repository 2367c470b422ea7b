//! A small Kafka client: what the uplink, the command line and the demo need of Kafka, and no more.
//!
//! - Works against this gateway's own listener and Apache Kafka 3.x and 4.x: versions are negotiated for each
//!   connection (KIP-35), the versions we speak are in `api.rs`.
//! - One connection for each broker, opened when first needed, with pipelining. A connection that ended is
//!   replaced by the next request; whether to wait and try again is the caller's business, every error says
//!   whether it makes sense ([`RequestError::is_retriable`]) and whether the request may have been carried out
//!   all the same ([`RequestError::is_indefinite`]).
//! - Topics are never created by asking about them.
//! - Memory: one answer is at most `frame_bytes_max`; an idle connection keeps no buffer.

mod admin;
mod alter;
mod api;
mod cluster;
mod connection;
mod error;
mod options;
mod produce;
mod read;
mod record_stream;
mod shape;
mod transport;
mod types;

use std::sync::Arc;
use std::time::Duration;

use edge_wire::PartitionId;
use kafka_protocol::protocol::Request;

pub use error::{BrokerError, ConnectError, ErrorCode, RequestError};
pub use options::ClientOptions;
pub use produce::{ProducePipe, ProduceTicket};
pub use read::PartitionReader;
pub use record_stream::{FetchedHeader, FetchedRecord, RecordRef, RecordStream, RecordStreamError};
pub use transport::{Connecting, Connector, TcpConnector, Transport, split_address};
pub use types::{
    Acks, At, Broker, FetchLimits, Fetched, FoundOffset, Metadata, NewTopic, NodeId, PartitionAck,
    PartitionBatch, PartitionDescription, PartitionMetadata, ProduceAck, ProducerIdentity,
    SettingChange, TopicConfig, TopicDescription, TopicMetadata, TopicOutcome,
};

use cluster::Cluster;

/// A client of one cluster. Cheap to clone; clones share connections and metadata.
#[derive(Clone, Debug)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl Client {
    /// Connects to the first of `bootstrap` (each `host:port`) that answers.
    ///
    /// # Errors
    /// The last broker's failure, when none of them answers.
    pub async fn connect(
        bootstrap: &[String],
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        let cluster = Cluster::connect(bootstrap, options).await?;
        Ok(Self { cluster: Arc::new(cluster) })
    }

    /// Who leads a partition, from what is known or by asking.
    ///
    /// # Errors
    /// No leader, no such topic, or no answer.
    pub async fn leader(
        &self,
        topic: &str,
        partition: PartitionId,
    ) -> Result<NodeId, RequestError> {
        if let Some(node) = self.cluster.cached_leader(topic, partition) {
            return Ok(node);
        }
        let metadata = self.metadata(Some(&[topic])).await?;
        if let Some(error) = metadata
            .topics
            .into_iter()
            .find(|found| found.name == topic)
            .and_then(|found| found.error)
        {
            return Err(RequestError::Broker { api: api::METADATA.name, error });
        }
        self.cluster
            .cached_leader(topic, partition)
            .ok_or_else(|| RequestError::NoLeader { topic: topic.to_owned(), partition })
    }

    /// Forgets who leads the partitions of a topic, so that the next call asks again.
    pub fn forget_leaders(&self, topic: &str) {
        self.cluster.forget(topic);
    }

    /// Whether any connection is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.cluster.is_connected()
    }

    /// Waits until a broker ended a connection; one that ended since the last call counts.
    pub async fn connection_ended(&self) {
        self.cluster.ended.notified().await;
    }

    /// Ends all connections; requests under way fail. The client stays usable.
    pub fn disconnect(&self) {
        self.cluster.disconnect();
    }

    /// One request to any broker.
    async fn call_any<R: Request>(
        &self,
        range: api::Range,
        request: &R,
    ) -> Result<R::Response, RequestError> {
        let connection = self.cluster.any().await?;
        let version = connection.version::<R>(range.name, range.min, range.max)?;
        connection.call(range.name, version, request, Duration::ZERO).await
    }
}

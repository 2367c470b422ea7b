//! Metadata, topics, producer ids.

use std::time::Duration;

use edge_wire::{PartitionId, ProducerId, TopicId};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponse;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    InitProducerIdRequest, MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::error::{BrokerError, RequestError};
use super::types::{
    At, Broker, Metadata, NewTopic, NodeId, PartitionDescription, PartitionMetadata,
    ProducerIdentity, TopicConfig, TopicDescription, TopicMetadata, TopicOutcome,
};
use super::{Client, api};

/// DescribeConfigs: resource type of a topic.
pub(super) const RESOURCE_TOPIC: i8 = 2;
/// DescribeConfigs: the value was set on the topic itself.
const SOURCE_TOPIC: i8 = 1;

impl Client {
    /// Asks about the named topics, or about all with `None`. Creates nothing.
    ///
    /// # Errors
    /// No broker answered.
    pub async fn metadata(&self, topics: Option<&[&str]>) -> Result<Metadata, RequestError> {
        let named = topics.map(|topics| {
            topics
                .iter()
                .map(|topic| MetadataRequestTopic::default().with_name(Some(topic_name(topic))))
                .collect()
        });
        let request =
            MetadataRequest::default().with_topics(named).with_allow_auto_topic_creation(false);
        let metadata = metadata_of(self.call_any(api::METADATA, &request).await?);
        self.cluster.learn(&metadata);
        Ok(metadata)
    }

    /// Creates topics; each has an outcome of its own. With `validate_only` nothing is created.
    ///
    /// # Errors
    /// No broker answered.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        limit: Duration,
        validate_only: bool,
    ) -> Result<Vec<TopicOutcome>, RequestError> {
        let wanted = topics
            .iter()
            .map(|topic| {
                let configs = topic
                    .configs
                    .iter()
                    .map(|(name, value)| {
                        CreatableTopicConfig::default()
                            .with_name(text(name))
                            .with_value(Some(text(value)))
                    })
                    .collect();
                CreatableTopic::default()
                    .with_name(topic_name(&topic.name))
                    .with_num_partitions(
                        topic
                            .partitions
                            .map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX)),
                    )
                    .with_replication_factor(
                        topic
                            .replication_factor
                            .map_or(-1, |count| i16::try_from(count).unwrap_or(i16::MAX)),
                    )
                    .with_configs(configs)
            })
            .collect();
        let request = CreateTopicsRequest::default()
            .with_topics(wanted)
            .with_timeout_ms(millis(limit))
            .with_validate_only(validate_only);
        let connection = self.cluster.controller().await?;
        let range = api::CREATE_TOPICS;
        let version =
            connection.version::<CreateTopicsRequest>(range.name, range.min, range.max)?;
        let response = connection.call(range.name, version, &request, limit).await?;
        Ok(response
            .topics
            .into_iter()
            .map(|topic| TopicOutcome {
                name: topic.name.to_string(),
                result: BrokerError::check(topic.error_code, topic.error_message.as_deref()),
            })
            .collect())
    }

    /// Deletes topics; each has an outcome of its own.
    ///
    /// # Errors
    /// No broker answered.
    pub async fn delete_topics(
        &self,
        topics: &[&str],
        limit: Duration,
    ) -> Result<Vec<TopicOutcome>, RequestError> {
        let connection = self.cluster.controller().await?;
        let range = api::DELETE_TOPICS;
        let version =
            connection.version::<DeleteTopicsRequest>(range.name, range.min, range.max)?;
        let request = DeleteTopicsRequest::default().with_timeout_ms(millis(limit));
        let request = if version >= 6 {
            request.with_topics(
                topics
                    .iter()
                    .map(|topic| DeleteTopicState::default().with_name(Some(topic_name(topic))))
                    .collect(),
            )
        } else {
            request.with_topic_names(topics.iter().map(|topic| topic_name(topic)).collect())
        };
        let response = connection.call(range.name, version, &request, limit).await?;
        for topic in topics {
            self.forget_leaders(topic);
        }
        Ok(response
            .responses
            .into_iter()
            .map(|topic| TopicOutcome {
                name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
                result: BrokerError::check(topic.error_code, topic.error_message.as_deref()),
            })
            .collect())
    }

    /// Asks for the identity of an idempotent producer (no transactions).
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn init_producer_id(&self) -> Result<ProducerIdentity, RequestError> {
        let range = api::INIT_PRODUCER_ID;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        let response = self.call_any(range, &request).await?;
        BrokerError::check(response.error_code, None)
            .map_err(|error| RequestError::Broker { api: range.name, error })?;
        let decode =
            |reason: &str| RequestError::Decode { api: range.name, reason: reason.to_owned() };
        let producer =
            u64::try_from(response.producer_id.0).map_err(|_| decode("a negative producer id"))?;
        if response.producer_epoch < 0 {
            return Err(decode("a negative producer epoch"));
        }
        Ok(ProducerIdentity { producer: ProducerId(producer), epoch: response.producer_epoch })
    }

    /// Partitions, offsets and configuration of one topic.
    ///
    /// # Errors
    /// No such topic, or no answer. A partition without a leader and a configuration that may not be read are
    /// left out, not errors.
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, RequestError> {
        let metadata = self.metadata(Some(&[topic])).await?;
        let found =
            metadata.topics.into_iter().find(|found| found.name == topic).ok_or_else(|| {
                RequestError::Decode {
                    api: api::METADATA.name,
                    reason: "the topic asked for is not in the answer".to_owned(),
                }
            })?;
        if let Some(error) = found.error {
            return Err(RequestError::Broker { api: api::METADATA.name, error });
        }
        let mut partitions = Vec::with_capacity(found.partitions.len());
        for partition in found.partitions {
            let number = partition.partition;
            let earliest = self
                .list_offsets(topic, number, At::Earliest)
                .await
                .ok()
                .flatten()
                .map(|found| found.offset);
            let latest = self
                .list_offsets(topic, number, At::Latest)
                .await
                .ok()
                .flatten()
                .map(|found| found.offset);
            partitions.push(PartitionDescription { metadata: partition, earliest, latest });
        }
        let configs = self.topic_configs(topic).await.unwrap_or_default();
        Ok(TopicDescription {
            name: found.name,
            topic_id: found.topic_id,
            is_internal: found.is_internal,
            partitions,
            configs,
        })
    }

    async fn topic_configs(&self, topic: &str) -> Result<Vec<TopicConfig>, RequestError> {
        let range = api::DESCRIBE_CONFIGS;
        let resource = DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(text(topic))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let response = self.call_any(range, &request).await?;
        let Some(result) = response.results.into_iter().next() else {
            return Ok(Vec::new());
        };
        BrokerError::check(result.error_code, result.error_message.as_deref())
            .map_err(|error| RequestError::Broker { api: range.name, error })?;
        Ok(result
            .configs
            .into_iter()
            .map(|config| TopicConfig {
                name: config.name.to_string(),
                value: config.value.filter(|_| !config.is_sensitive).map(|value| value.to_string()),
                is_set: config.config_source == SOURCE_TOPIC,
            })
            .collect())
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// For the wire: whole milliseconds, at most what fits.
pub(crate) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn metadata_of(response: MetadataResponse) -> Metadata {
    let node = |id: BrokerId| (id.0 >= 0).then_some(NodeId(id.0));
    let nodes = |ids: Vec<BrokerId>| ids.into_iter().map(|id| NodeId(id.0)).collect();
    Metadata {
        brokers: response
            .brokers
            .into_iter()
            .filter_map(|broker| {
                Some(Broker {
                    node: NodeId(broker.node_id.0),
                    host: broker.host.to_string(),
                    port: u16::try_from(broker.port).ok()?,
                })
            })
            .collect(),
        controller: node(response.controller_id),
        cluster_id: response.cluster_id.map(|id| id.to_string()),
        topics: response
            .topics
            .into_iter()
            .map(|topic| {
                let mut partitions: Vec<PartitionMetadata> = topic
                    .partitions
                    .into_iter()
                    .filter_map(|partition| {
                        Some(PartitionMetadata {
                            partition: PartitionId(u32::try_from(partition.partition_index).ok()?),
                            leader: node(partition.leader_id),
                            replicas: nodes(partition.replica_nodes),
                            in_sync: nodes(partition.isr_nodes),
                        })
                    })
                    .collect();
                partitions.sort_by_key(|partition| partition.partition);
                TopicMetadata {
                    name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
                    topic_id: TopicId(*topic.topic_id.as_bytes()),
                    is_internal: topic.is_internal,
                    error: BrokerError::check(topic.error_code, None).err(),
                    partitions,
                }
            })
            .collect(),
    }
}

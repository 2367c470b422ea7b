//! Metadata: this node, and the topics asked for. An unknown topic may be made on the way.

use edge_engine::{CreateTopicError, Topic, TopicConfig, TopicSpec};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::fault::Fault;
use crate::session::{Session, topic_id_of, uuid_of};

pub(super) async fn handle(
    session: &Session,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let node = BrokerId(session.options().node_id);
    let mut topics = Vec::new();
    match request.topics {
        // Version 0 has no null: an empty list asks for all.
        Some(asked) if version > 0 || !asked.is_empty() => {
            for topic in asked {
                topics.push(one(session, topic, request.allow_auto_topic_creation).await);
            }
        }
        _ => topics.extend(session.engine().topics().iter().map(|topic| found(topic, node))),
    }
    let broker = MetadataResponseBroker::default()
        .with_node_id(node)
        .with_host(session.host.clone())
        .with_port(session.port);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(session.options().cluster_id.clone())))
        .with_controller_id(node)
        .with_topics(topics)
}

async fn one(
    session: &Session,
    asked: MetadataRequestTopic,
    creation_allowed: bool,
) -> MetadataResponseTopic {
    let node = BrokerId(session.options().node_id);
    let engine = session.engine();
    let Some(name) = asked.name else {
        return match topic_id_of(asked.topic_id).and_then(|id| engine.topic_by_id(id)) {
            Some(topic) => found(&topic, node),
            None => MetadataResponseTopic::default()
                .with_topic_id(asked.topic_id)
                .with_name(None)
                .with_error_code(ResponseError::UnknownTopicId.code()),
        };
    };
    if let Some(topic) = engine.topic(&name) {
        return found(&topic, node);
    }
    let missing = MetadataResponseTopic::default().with_name(Some(name.clone()));
    if !edge_engine::state::legal_topic_name(&name) {
        return missing.with_error_code(ResponseError::InvalidTopicException.code());
    }
    if !creation_allowed || !session.options().auto_create_topics {
        return missing.with_error_code(ResponseError::UnknownTopicOrPartition.code());
    }
    let spec = TopicSpec {
        name: name.to_string(),
        partitions: session.options().partitions_default,
        lane: None,
        config: TopicConfig::default(),
    };
    match engine.create_topic(spec).await {
        Ok(topic) | Err(CreateTopicError::Exists { topic }) => found(&topic, node),
        Err(error) => {
            let fault = Fault::from(&error);
            tracing::warn!(topic = %*name, %error, "kafka: a topic could not be made");
            missing.with_error_code(fault.code())
        }
    }
}

fn found(topic: &Topic, node: BrokerId) -> MetadataResponseTopic {
    let partition = |index: u32| {
        MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(node)
            .with_leader_epoch(0)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name().to_owned()))))
        .with_topic_id(uuid_of(topic.id()))
        .with_partitions((0..topic.partition_count()).map(partition).collect())
}

//! CreateTopics; durable before the answer.

use std::collections::BTreeMap;

use edge_engine::{CreateTopicError, TopicSpec};
use edge_wire::TopicId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::fault::Fault;
use crate::session::{Session, uuid_of};
use crate::topic_config;

/// Where DescribeConfigs and this answer say a value comes from.
pub(super) const FROM_TOPIC: i8 = 1;
pub(super) const FROM_DEFAULT: i8 = 5;

/// "The broker's default" for partitions and replication factor.
const DEFAULT: i32 = -1;

pub(super) async fn handle(
    session: &Session,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut times: BTreeMap<TopicName, usize> = BTreeMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(times.len());
    for topic in &request.topics {
        match times.get(&topic.name) {
            Some(1) => results.push(one(session, topic, request.validate_only).await),
            // Answered once, as Kafka does.
            Some(_) => {
                times.remove(&topic.name);
                let message = "the topic is named more than once in one request";
                let fault = Fault::new(ResponseError::InvalidRequest, message);
                results.push(failed(&topic.name, &fault));
            }
            None => {}
        }
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn one(
    session: &Session,
    asked: &CreatableTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let spec = match spec(session, asked) {
        Ok(spec) => spec,
        Err(fault) => return failed(&asked.name, &fault),
    };
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    let made = CreatableTopicResult::default()
        .with_name(asked.name.clone())
        .with_num_partitions(partitions)
        .with_replication_factor(1);
    if validate_only {
        return match session.engine().validate_topic(&spec) {
            Ok(()) => {
                made.with_topic_id(uuid_of(TopicId::default())).with_configs(Some(Vec::new()))
            }
            Err(error) => failed(&asked.name, &Fault::from(&error)),
        };
    }
    match session.engine().create_topic(spec).await {
        Ok(topic) => {
            tracing::info!(
                topic = topic.name(),
                partitions,
                lane = topic.lane(),
                "kafka: topic made"
            );
            let settings = topic_config::describe(&topic, session.engine().default_lane());
            let configs = settings.into_iter().map(|setting| {
                CreatableTopicConfigs::default()
                    .with_name(StrBytes::from_static_str(setting.name))
                    .with_value(Some(StrBytes::from_string(setting.value)))
                    .with_config_source(if setting.is_set { FROM_TOPIC } else { FROM_DEFAULT })
            });
            made.with_topic_id(uuid_of(topic.id())).with_configs(Some(configs.collect()))
        }
        Err(error) => {
            if !matches!(error, CreateTopicError::Exists { .. }) {
                tracing::warn!(topic = %**asked.name, %error, "kafka: a topic could not be made");
            }
            failed(&asked.name, &Fault::from(&error))
        }
    }
}

fn spec(session: &Session, asked: &CreatableTopic) -> Result<TopicSpec, Fault> {
    let partitions = if asked.assignments.is_empty() {
        if asked.replication_factor != 1 && i32::from(asked.replication_factor) != DEFAULT {
            let message = format!(
                "replication factor {}: a gateway is one node, ask for 1 or -1",
                asked.replication_factor
            );
            return Err(Fault::new(ResponseError::InvalidReplicationFactor, message));
        }
        match asked.num_partitions {
            DEFAULT => session.options().partitions_default,
            partitions => u32::try_from(partitions).unwrap_or(0),
        }
    } else {
        assigned_partitions(session, asked)?
    };
    let settings = asked.configs.iter().map(|config| (&*config.name, config.value.as_deref()));
    let asked_config = topic_config::parse(settings)
        .map_err(|refusal| Fault::new(ResponseError::InvalidConfig, refusal))?;
    Ok(TopicSpec {
        name: asked.name.to_string(),
        partitions,
        lane: asked_config.lane,
        config: asked_config.config,
    })
}

/// A manual assignment may only say what is the case anyway: every partition on this node.
fn assigned_partitions(session: &Session, asked: &CreatableTopic) -> Result<u32, Fault> {
    let node = session.options().node_id;
    let mut partitions: Vec<i32> =
        asked.assignments.iter().map(|assignment| assignment.partition_index).collect();
    partitions.sort_unstable();
    let in_order = (0..).zip(&partitions).all(|(index, partition): (i32, _)| index == *partition);
    let here = asked
        .assignments
        .iter()
        .all(|assignment| matches!(&*assignment.broker_ids, [broker] if broker.0 == node));
    if asked.num_partitions != DEFAULT || i32::from(asked.replication_factor) != DEFAULT {
        let message = "with an assignment, partitions and replication factor must be -1";
        return Err(Fault::new(ResponseError::InvalidRequest, message));
    }
    if !in_order || !here {
        let message = format!("an assignment must name partitions from 0 and node {node} only");
        return Err(Fault::new(ResponseError::InvalidReplicaAssignment, message));
    }
    Ok(u32::try_from(partitions.len()).unwrap_or(u32::MAX))
}

fn failed(name: &TopicName, fault: &Fault) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(fault.code())
        .with_error_message(fault.text())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

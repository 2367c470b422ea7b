//! IncrementalAlterConfigs (KIP-339) and AlterConfigs: topic settings; durable before the answer.
//!
//! A resource changes as a whole or not at all. AlterConfigs puts every setting that it does not name back to its
//! default. The lane of a topic is fixed when it is made. Settings of this node come from its file.

use edge_engine::{TopicConfig, TopicKey, TopicValueError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Replaced;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::describe_configs::TOPIC;
use crate::fault::Fault;
use crate::session::Session;
use crate::topic_config::{LANE, Named, named};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// One change to one setting.
#[derive(Clone, Debug)]
enum Change {
    Set(TopicKey, String),
    Reset(TopicKey),
    /// To a list.
    Append(TopicKey, String),
    Subtract(TopicKey, String),
}

/// Type and name.
type Resource<'a> = (i8, &'a str);

pub(super) async fn incremental(
    session: &Session,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let named: Vec<Resource<'_>> = request
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.as_str()))
        .collect();
    let mut responses = Vec::with_capacity(request.resources.len());
    for (index, resource) in request.resources.iter().enumerate() {
        let asked = resource
            .configs
            .iter()
            .map(|config| (&*config.name, config.config_operation, config.value.as_deref()));
        let result = alter(session, &named[..=index], asked, false, request.validate_only).await;
        let answer = Altered::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match result {
            Ok(()) => answer,
            Err(fault) => answer.with_error_code(fault.code()).with_error_message(fault.text()),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

pub(super) async fn replace(
    session: &Session,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let named: Vec<Resource<'_>> = request
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.as_str()))
        .collect();
    let mut responses = Vec::with_capacity(request.resources.len());
    for (index, resource) in request.resources.iter().enumerate() {
        let asked = resource.configs.iter().map(|config| {
            let operation = if config.value.is_some() { SET } else { DELETE };
            (&*config.name, operation, config.value.as_deref())
        });
        let result = alter(session, &named[..=index], asked, true, request.validate_only).await;
        let answer = Replaced::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match result {
            Ok(()) => answer,
            Err(fault) => answer.with_error_code(fault.code()).with_error_message(fault.text()),
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes the last of `named`, if it is a topic that none of those before it is.
async fn alter<'a>(
    session: &Session,
    named: &[Resource<'_>],
    asked: impl Iterator<Item = (&'a str, i8, Option<&'a str>)>,
    replaces: bool,
    validate_only: bool,
) -> Result<(), Fault> {
    let Some((resource, earlier)) = named.split_last() else { return Ok(()) };
    only_topics(resource.0, !earlier.contains(resource))?;
    let changes = changes(session, resource.1, asked);
    apply(session, resource.1, changes, replaces, validate_only).await
}

fn only_topics(resource_type: i8, is_first: bool) -> Result<(), Fault> {
    if resource_type != TOPIC {
        let message =
            "only settings of topics can be changed; those of the gateway are in its file";
        return Err(Fault::new(ResponseError::InvalidRequest, message));
    }
    if !is_first {
        let message = "the topic is named more than once in one request";
        return Err(Fault::new(ResponseError::InvalidRequest, message));
    }
    Ok(())
}

fn changes<'a>(
    session: &Session,
    topic: &str,
    asked: impl Iterator<Item = (&'a str, i8, Option<&'a str>)>,
) -> Result<Vec<Change>, Fault> {
    let invalid = |message: String| Fault::new(ResponseError::InvalidConfig, message);
    let mut changes = Vec::new();
    let mut seen = Vec::new();
    for (name, operation, value) in asked {
        if seen.contains(&name) {
            let message = format!("{name} is named more than once");
            return Err(Fault::new(ResponseError::InvalidRequest, message));
        }
        seen.push(name);
        let value = match operation {
            DELETE => None,
            SET | APPEND | SUBTRACT => match value {
                Some(value) => Some(value),
                None => return Err(invalid(format!("{name}: a value is missing"))),
            },
            other => {
                let message = format!("{name}: there is no operation {other}");
                return Err(Fault::new(ResponseError::InvalidRequest, message));
            }
        };
        match named(name, value).map_err(invalid)? {
            Named::Ignored => {}
            Named::Lane => {
                let lane = session.engine().topic(topic).map(|topic| topic.lane().to_owned());
                if value.map(str::trim) != lane.as_deref() {
                    return Err(invalid(format!(
                        "{LANE}: a topic stays in the lane it was made in"
                    )));
                }
            }
            Named::Key(key) => changes.push(match (operation, value) {
                (APPEND | SUBTRACT, Some(_)) if key != TopicKey::CleanupPolicy => {
                    return Err(invalid(format!("{name} is not a list")));
                }
                (APPEND, Some(value)) => Change::Append(key, value.to_owned()),
                (SUBTRACT, Some(value)) => Change::Subtract(key, value.to_owned()),
                (_, Some(value)) => Change::Set(key, value.to_owned()),
                (_, None) => Change::Reset(key),
            }),
        }
    }
    Ok(changes)
}

async fn apply(
    session: &Session,
    name: &str,
    changes: Result<Vec<Change>, Fault>,
    replace: bool,
    validate_only: bool,
) -> Result<(), Fault> {
    let engine = session.engine();
    let Some(topic) = engine.topic(name) else {
        let message = format!("there is no topic '{name}'");
        return Err(Fault::new(ResponseError::UnknownTopicOrPartition, message));
    };
    let changes = changes?;
    let change = |config: &mut TopicConfig| {
        if replace {
            TopicKey::ALL.into_iter().for_each(|key| key.reset(config));
        }
        changes.iter().try_for_each(|change| change.make(config))
    };
    if validate_only {
        let made = change(&mut topic.config().clone());
        return made.map_err(|error| Fault::new(ResponseError::InvalidConfig, error.to_string()));
    }
    engine.alter_topic(name, change).await.map_err(|error| Fault::from(&error))?;
    tracing::info!(topic = name, ?changes, replace, "kafka: topic settings changed");
    Ok(())
}

impl Change {
    fn make(&self, config: &mut TopicConfig) -> Result<(), TopicValueError> {
        match self {
            Self::Set(key, value) => key.set(config, value),
            Self::Reset(key) => {
                key.reset(config);
                Ok(())
            }
            Self::Append(key, value) => {
                let all = format!("{},{value}", key.value(config));
                key.set(config, &all)
            }
            Self::Subtract(key, value) => {
                let known = key.value(config);
                let gone: Vec<_> = value.split(',').map(str::trim).collect();
                let left: Vec<_> = known.split(',').filter(|part| !gone.contains(part)).collect();
                key.set(config, &left.join(","))
            }
        }
    }
}

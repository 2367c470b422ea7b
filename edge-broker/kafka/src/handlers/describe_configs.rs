//! DescribeConfigs for topics and for this node; read-only where it is the node.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::create_topics::{FROM_DEFAULT, FROM_TOPIC};
use crate::fault::Fault;
use crate::session::Session;
use crate::topic_config::{self, Kind, Setting};

pub(super) const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const FROM_STATIC_BROKER: i8 = 4;

pub(super) fn handle(
    session: &Session,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let synonyms = request.include_synonyms;
    let results = request.resources.into_iter().map(|resource| one(session, resource, synonyms));
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn one(
    session: &Session,
    resource: DescribeConfigsResource,
    with_synonyms: bool,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    match settings(session, &resource) {
        Ok(settings) => {
            let wanted = |setting: &Setting| {
                let keys = resource.configuration_keys.as_ref();
                keys.is_none_or(|keys| keys.iter().any(|key| **key == *setting.name))
            };
            let read_only = resource.resource_type == BROKER;
            let configs = settings.into_iter().filter(wanted);
            let configs = configs.map(|setting| described(setting, read_only, with_synonyms));
            result.with_configs(configs.collect())
        }
        Err(fault) => result.with_error_code(fault.code()).with_error_message(fault.text()),
    }
}

fn settings(session: &Session, resource: &DescribeConfigsResource) -> Result<Vec<Setting>, Fault> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        TOPIC => match session.engine().topic(name) {
            Some(topic) => Ok(topic_config::describe(&topic, session.engine().default_lane())),
            None => {
                let message = format!("there is no topic '{name}'");
                Err(Fault::new(ResponseError::UnknownTopicOrPartition, message))
            }
        },
        // The empty name means the default of all nodes: there is none.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if name == session.options().node_id.to_string() => Ok(node_settings(session)),
        BROKER => {
            let message = format!("this is node {}, not '{name}'", session.options().node_id);
            Err(Fault::new(ResponseError::InvalidRequest, message))
        }
        other => {
            let message = format!("resources of type {other} have no settings here");
            Err(Fault::new(ResponseError::InvalidRequest, message))
        }
    }
}

/// What clients' tools look for on a broker, by Kafka's names.
fn node_settings(session: &Session) -> Vec<Setting> {
    let options = session.options();
    let setting = |name, value, kind| Setting { name, value, default: None, is_set: true, kind };
    vec![
        setting("auto.create.topics.enable", options.auto_create_topics.to_string(), Kind::Boolean),
        setting("default.replication.factor", "1".to_owned(), Kind::Int),
        setting("edge.lane", session.engine().default_lane().to_owned(), Kind::Text),
        setting("fetch.max.bytes", options.fetch_bytes_max.to_string(), Kind::Int),
        setting("max.connections", options.connections_max.to_string(), Kind::Int),
        setting("node.id", options.node_id.to_string(), Kind::Int),
        setting("num.partitions", options.partitions_default.to_string(), Kind::Int),
        setting("offsets.retention.minutes", i32::MAX.to_string(), Kind::Int),
        setting("socket.request.max.bytes", options.request_bytes_max.to_string(), Kind::Int),
    ]
}

fn described(
    setting: Setting,
    is_node: bool,
    with_synonyms: bool,
) -> DescribeConfigsResourceResult {
    let source = match (is_node, setting.is_set) {
        (true, _) => FROM_STATIC_BROKER,
        (false, true) => FROM_TOPIC,
        (false, false) => FROM_DEFAULT,
    };
    let name = StrBytes::from_static_str(setting.name);
    let value = Some(StrBytes::from_string(setting.value));
    let mut synonyms = Vec::new();
    if with_synonyms {
        // What counts comes first, and behind it what would count without it.
        let mut synonym = |value: Option<StrBytes>, source| {
            let one = DescribeConfigsSynonym::default().with_name(name.clone());
            synonyms.push(one.with_value(value).with_source(source));
        };
        if source != FROM_DEFAULT {
            synonym(value.clone(), source);
        }
        if let Some(default) = setting.default {
            synonym(Some(StrBytes::from_string(default)), FROM_DEFAULT);
        }
    }
    DescribeConfigsResourceResult::default()
        .with_name(name)
        .with_value(value)
        .with_read_only(is_node)
        .with_config_source(source)
        .with_synonyms(synonyms)
        .with_config_type(setting.kind as i8)
}

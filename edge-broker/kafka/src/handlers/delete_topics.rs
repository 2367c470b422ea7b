//! DeleteTopics, by name or by id; durable before the answer.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::fault::Fault;
use crate::session::{Session, topic_id_of, uuid_of};

/// From this version on topics come as structs that hold a name or an id.
const BY_ID_FROM_VERSION: i16 = 6;

pub(super) async fn handle(
    session: &Session,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let asked = if version >= BY_ID_FROM_VERSION {
        request.topics
    } else {
        let by_name = |name| DeleteTopicState::default().with_name(Some(name));
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut responses = Vec::with_capacity(asked.len());
    for topic in asked {
        responses.push(one(session, topic).await);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn one(session: &Session, asked: DeleteTopicState) -> DeletableTopicResult {
    let engine = session.engine();
    let topic = match &asked.name {
        Some(name) => engine.topic(name),
        None => topic_id_of(asked.topic_id).and_then(|id| engine.topic_by_id(id)),
    };
    let Some(topic) = topic else {
        let error = match asked.name {
            Some(_) => ResponseError::UnknownTopicOrPartition,
            None => ResponseError::UnknownTopicId,
        };
        return DeletableTopicResult::default()
            .with_name(asked.name)
            .with_topic_id(asked.topic_id)
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str("there is no such topic")));
    };
    let result = DeletableTopicResult::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name().to_owned()))))
        .with_topic_id(uuid_of(topic.id()));
    match engine.delete_topic(topic.name()).await {
        Ok(()) => {
            tracing::info!(topic = topic.name(), "kafka: topic deleted");
            result
        }
        Err(error) => {
            let fault = Fault::from(&error);
            result.with_error_code(fault.code()).with_error_message(fault.text())
        }
    }
}

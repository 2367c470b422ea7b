//! Questions to the upstream: is anybody there, a producer id, a topic.

use std::time::Duration;

use uplink_core::replicator::Failure;

use super::UplinkConfig;
use crate::client::{Client, ErrorCode, NewTopic, RequestError};

/// How long a new topic may take to get its leaders.
const LEADERS_LIMIT: Duration = Duration::from_secs(10);
const LEADERS_PAUSE: Duration = Duration::from_millis(100);

/// A client whose cluster answers right now.
pub(super) async fn connect(
    known: Option<Client>,
    config: &UplinkConfig,
) -> Result<Client, String> {
    let client = match known {
        Some(client) => client,
        None => Client::connect(&config.bootstrap, config.client.clone())
            .await
            .map_err(|error| error.to_string())?,
    };
    client.metadata(Some(&[])).await.map_err(|error| error.to_string())?;
    Ok(client)
}

/// A producer id and its epoch.
pub(super) async fn init_producer(client: Option<Client>) -> Result<(u64, i16), Failure> {
    let client = client.ok_or_else(not_connected)?;
    let identity = client.init_producer_id().await.map_err(|error| failure(&error))?;
    Ok((identity.producer.0, identity.epoch))
}

/// Number of partitions of a topic, created if it is missing and that is allowed.
pub(super) async fn ensure_topic(
    client: Option<Client>,
    topic: &str,
    partitions: u32,
    create: bool,
) -> Result<u32, Failure> {
    let client = client.ok_or_else(not_connected)?;
    match partitions_of(&client, topic).await {
        Err(failure) if failure.code == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0) => {}
        known => return known,
    }
    if !create {
        return Err(Failure {
            code: Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0),
            reason: format!(
                "topic \"{topic}\" does not exist upstream and create_topics is off; create it there"
            ),
        });
    }
    let wanted = NewTopic {
        name: topic.to_owned(),
        partitions: Some(partitions),
        replication_factor: None,
        configs: Vec::new(),
    };
    let limit = Duration::from_secs(15);
    let outcomes =
        client.create_topics(&[wanted], limit, false).await.map_err(|error| failure(&error))?;
    if let Some(Err(error)) = outcomes.into_iter().next().map(|outcome| outcome.result)
        && error.code != ErrorCode::TOPIC_ALREADY_EXISTS
    {
        return Err(Failure {
            code: Some(error.code.0),
            reason: format!(
                "topic \"{topic}\" does not exist upstream and cannot be created: {error}"
            ),
        });
    }
    tracing::info!(topic, partitions, "created the upstream topic");
    let wait_for_leaders = async {
        loop {
            match partitions_of(&client, topic).await {
                // A broker that has not heard of the new topic yet.
                Err(Failure { code: Some(_), .. }) => tokio::time::sleep(LEADERS_PAUSE).await,
                other => return other,
            }
        }
    };
    tokio::time::timeout(LEADERS_LIMIT, wait_for_leaders).await.unwrap_or_else(|_| {
        Err(Failure {
            code: Some(ErrorCode::LEADER_NOT_AVAILABLE.0),
            reason: format!("the new upstream topic \"{topic}\" has no leaders yet"),
        })
    })
}

/// An error unless every partition has a leader.
async fn partitions_of(client: &Client, topic: &str) -> Result<u32, Failure> {
    let metadata = client.metadata(Some(&[topic])).await.map_err(|error| failure(&error))?;
    let missing = || Failure {
        code: Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0),
        reason: format!("topic \"{topic}\" does not exist upstream"),
    };
    let found =
        metadata.topics.into_iter().find(|found| found.name == topic).ok_or_else(missing)?;
    if let Some(error) = found.error {
        return Err(Failure {
            code: Some(error.code.0),
            reason: format!("upstream topic \"{topic}\": {error}"),
        });
    }
    Ok(found.partitions.len() as u32)
}

fn not_connected() -> Failure {
    Failure { code: None, reason: "not connected".to_owned() }
}

fn failure(error: &RequestError) -> Failure {
    Failure { code: error.code().map(|code| code.0), reason: error.to_string() }
}

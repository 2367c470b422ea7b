//! The way from the command line to a running broker.

use std::time::Duration;

use tokio::time::Instant;
use uplink::client::{Client, ClientOptions, ErrorCode, RequestError};

use crate::args::BrokerArgs;
use crate::cli::Failure;

/// How long a broker may take to carry out what it was told.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn connect(args: &BrokerArgs) -> Result<Client, Failure> {
    let options = ClientOptions {
        client_id: "edge-broker-cli".to_owned(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: PATIENCE,
        ..ClientOptions::default()
    };
    Ok(Client::connect(&args.broker, options).await?)
}

/// The answer to a request that has no effect or the same effect when repeated: asked again while the broker says that
/// it will pass (a coordinator that loads, a leader that is being chosen).
pub(super) async fn patiently<T>(
    mut ask: impl AsyncFnMut() -> Result<T, RequestError>,
) -> Result<T, RequestError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if may_pass(&error) && Instant::now() < deadline => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Whether it makes sense to wait: somebody answers, or did a moment ago, and the topic is not simply unknown.
fn may_pass(error: &RequestError) -> bool {
    error.is_retriable() && !is_unknown_topic(error) && !matches!(error, RequestError::Connect(_))
}

/// The numbers of a topic's partitions.
pub(super) async fn partitions(client: &Client, topic: &str) -> Result<Vec<u32>, Failure> {
    let metadata = patiently(async || client.metadata(Some(&[topic])).await).await?;
    match metadata.topics.into_iter().find(|found| found.name == topic) {
        Some(found) => match found.error {
            Some(error) if error.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                Err(no_topic(topic))
            }
            Some(error) => Err(Failure::Failed(format!("topic {topic}: {error}"))),
            None => Ok(found.partitions.iter().map(|known| known.partition.0).collect()),
        },
        None => Err(no_topic(topic)),
    }
}

/// The partitions that were named, or all of them. That one does not exist is known at once; a request to its leader
/// would wait for it to get one.
pub(super) async fn chosen(
    client: &Client,
    topic: &str,
    named: &[u32],
) -> Result<Vec<u32>, Failure> {
    let mut all = partitions(client, topic).await?;
    all.sort_unstable();
    if named.is_empty() {
        return Ok(all);
    }
    match named.iter().find(|partition| !all.contains(partition)) {
        Some(partition) => Err(no_partition(topic, *partition, &all)),
        None => Ok(named.to_vec()),
    }
}

/// What to say of a partition that is not there.
pub(super) fn no_partition(topic: &str, partition: u32, all: &[u32]) -> Failure {
    let last = all.iter().max().copied().unwrap_or_default();
    Failure::Usage(format!(
        "topic {topic} has no partition {partition}; it has {}, 0 to {last}",
        all.len()
    ))
}

/// What to say of a topic that is not there.
pub(super) fn no_topic(topic: &str) -> Failure {
    Failure::Failed(format!(
        "there is no topic {topic}; see edge-broker topic list, or make it with edge-broker topic create"
    ))
}

/// Whether the broker said that there is no such topic.
pub(super) fn is_unknown_topic(error: &RequestError) -> bool {
    error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

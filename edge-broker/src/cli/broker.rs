//! The way from the command line to a running broker.

use std::time::Duration;

use uplink::client::{Client, ClientOptions, Metadata, RequestError};

use crate::args::BrokerArgs;
use crate::cli::Failure;

/// How long a broker may take to carry out what it was told.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn connect(args: &BrokerArgs) -> Result<Client, Failure> {
    let options = ClientOptions {
        client_id: "edge-broker-cli".to_owned(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: PATIENCE,
        ..ClientOptions::default()
    };
    Ok(Client::connect(&args.broker, options).await?)
}

/// The numbers of a topic's partitions.
pub(super) async fn partitions(client: &Client, topic: &str) -> Result<Vec<u32>, Failure> {
    let metadata: Metadata = client.metadata(Some(&[topic])).await?;
    let found = metadata.topics.into_iter().find(|found| found.name == topic);
    match found {
        Some(found) => match found.error {
            Some(error) => Err(Failure::Failed(format!("topic {topic}: {error}"))),
            None => Ok(found.partitions.iter().map(|known| known.partition.0).collect()),
        },
        None => {
            Err(Failure::Failed(format!("there is no topic {topic}; see edge-broker topic list")))
        }
    }
}

/// Whether the broker said that there is no such topic.
pub(super) fn is_unknown_topic(error: &RequestError) -> bool {
    error.code() == Some(uplink::client::ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}

//! `edge-broker topic create|list|describe|alter|trim|delete`

use edge_config::units::format_duration_ms;
use edge_wire::{Offset, PartitionId};
use serde::Serialize;
use uplink::client::{
    Client, ErrorCode, NewTopic, RequestError, SettingChange, TopicDescription, TopicOutcome,
};

use crate::args::{TopicAlterArgs, TopicCommand, TopicCreateArgs, TopicTrimArgs};
use crate::cli::Failure;
use crate::cli::broker::{self, PATIENCE};
use crate::cli::output::{print, print_json};
use crate::cli::table::table;

pub(super) async fn run(command: &TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create(&broker::connect(&args.broker).await?, args).await,
        TopicCommand::List(args) => list(&broker::connect(&args.broker).await?, args.json).await,
        TopicCommand::Describe(args) => {
            describe(&broker::connect(&args.broker).await?, &args.topic, args.json).await
        }
        TopicCommand::Alter(args) => alter(&broker::connect(&args.broker).await?, args).await,
        TopicCommand::Trim(args) => trim(&broker::connect(&args.broker).await?, args).await,
        TopicCommand::Delete(args) => {
            delete(&broker::connect(&args.broker).await?, &args.topics).await
        }
    }
}

/// The setting that names a topic's lane: ours, beside Kafka's.
const LANE_SETTING: &str = "edge.lane";

async fn create(client: &Client, args: &TopicCreateArgs) -> Result<(), Failure> {
    let mut configs = args.settings.clone();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            configs.push((name.to_owned(), value));
        }
    };
    set(LANE_SETTING, args.lane.clone());
    set("retention.ms", args.retention.map(|ms| ms.to_string()));
    set("retention.bytes", args.retention_bytes.map(|bytes| bytes.to_string()));
    let wanted = NewTopic {
        name: args.topic.clone(),
        partitions: args.partitions,
        replication_factor: None,
        configs,
    };
    let outcomes = client.create_topics(&[wanted], PATIENCE, false).await?;
    for TopicOutcome { name, result } in outcomes {
        match result {
            Ok(()) => print(&format!("created {name}"))?,
            Err(error) if args.if_not_exists && error.code == ErrorCode::TOPIC_ALREADY_EXISTS => {
                print(&format!("{name} exists"))?;
            }
            Err(error) => return Err(Failure::Failed(format!("topic {name}: {error}"))),
        }
    }
    Ok(())
}

async fn alter(client: &Client, args: &TopicAlterArgs) -> Result<(), Failure> {
    let own = [
        ("retention.ms", args.retention.map(|ms| ms.to_string())),
        ("retention.bytes", args.retention_bytes.map(|bytes| bytes.to_string())),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Some(value?))));
    let named = args.settings.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
    let unset = args.unset.iter().map(|name| (name.clone(), None));
    let changes: Vec<_> =
        own.chain(named).chain(unset).map(|(name, value)| SettingChange { name, value }).collect();
    let topic = &args.topic;
    match broker::patiently(async || client.alter_topic(topic, &changes).await).await {
        Ok(()) => print(&format!("altered {topic}")),
        Err(error) if broker::is_unknown_topic(&error) => Err(broker::no_topic(topic)),
        Err(RequestError::Broker { error, .. }) => {
            Err(Failure::Failed(format!("topic {topic}: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}

async fn trim(client: &Client, args: &TopicTrimArgs) -> Result<(), Failure> {
    let topic = &args.topic;
    let partitions = broker::chosen(client, topic, args.partition.as_slice()).await?;
    let before = args.before.filter(|_| !args.all).map(Offset);
    for partition in partitions {
        let at = PartitionId(partition);
        // Deleting twice deletes as much as deleting once.
        let trimmed =
            broker::patiently(async || client.delete_records(topic, at, before, PATIENCE).await);
        match trimmed.await {
            Ok(start) => print(&format!("{topic} partition {partition} starts at {start}"))?,
            Err(error) if error.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                return Err(Failure::Failed(format!(
                    "{topic} partition {partition} does not reach that offset; see edge-broker topic describe {topic}"
                )));
            }
            Err(error) if broker::is_unknown_topic(&error) => return Err(broker::no_topic(topic)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn delete(client: &Client, topics: &[String]) -> Result<(), Failure> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let outcomes = client.delete_topics(&names, PATIENCE).await?;
    let mut refused = Vec::new();
    for TopicOutcome { name, result } in outcomes {
        match result {
            Ok(()) => print(&format!("deleted {name}"))?,
            Err(error) => refused.push(format!("topic {name}: {error}")),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::Failed(refused.join("; "))) }
}

#[derive(Serialize)]
struct ListedTopic {
    topic: String,
    partitions: usize,
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let metadata = broker::patiently(async || client.metadata(None).await).await?;
    let mut topics: Vec<ListedTopic> = metadata
        .topics
        .into_iter()
        .filter(|topic| topic.error.is_none() && !topic.is_internal)
        .map(|topic| ListedTopic { topic: topic.name, partitions: topic.partitions.len() })
        .collect();
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    if json {
        return print_json(&topics);
    }
    let rows: Vec<Vec<String>> =
        topics.into_iter().map(|topic| vec![topic.topic, topic.partitions.to_string()]).collect();
    print(&table(&["topic", "partitions"], &rows))
}

#[derive(Serialize)]
struct DescribedTopic {
    topic: String,
    topic_id: String,
    partitions: Vec<DescribedPartition>,
    settings: Vec<DescribedSetting>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: u32,
    earliest: Option<u64>,
    latest: Option<u64>,
    leader: Option<i32>,
}

#[derive(Serialize)]
struct DescribedSetting {
    name: String,
    value: Option<String>,
    /// Set on this topic, not the broker's default.
    is_set: bool,
}

async fn describe(client: &Client, topic: &str, json: bool) -> Result<(), Failure> {
    let described = match broker::patiently(async || client.describe_topic(topic).await).await {
        Ok(description) => DescribedTopic::from(description),
        Err(error) if broker::is_unknown_topic(&error) => return Err(broker::no_topic(topic)),
        Err(error) => return Err(error.into()),
    };
    if json { print_json(&described) } else { print(&described.to_text()) }
}

impl From<TopicDescription> for DescribedTopic {
    fn from(description: TopicDescription) -> Self {
        let partitions = description.partitions.iter().map(|partition| DescribedPartition {
            partition: partition.metadata.partition.0,
            earliest: partition.earliest.map(|offset| offset.0),
            latest: partition.latest.map(|offset| offset.0),
            leader: partition.metadata.leader.map(|node| node.0),
        });
        let settings = description.configs.iter().map(|setting| DescribedSetting {
            name: setting.name.clone(),
            value: setting.value.clone(),
            is_set: setting.is_set,
        });
        Self {
            topic: description.name.clone(),
            topic_id: description.topic_id.to_string(),
            partitions: partitions.collect(),
            settings: settings.collect(),
        }
    }
}

impl DescribedTopic {
    fn to_text(&self) -> String {
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let rows: Vec<Vec<String>> = self
            .partitions
            .iter()
            .map(|partition| {
                let records = partition
                    .latest
                    .zip(partition.earliest)
                    .map(|(end, start)| end.saturating_sub(start));
                vec![
                    partition.partition.to_string(),
                    number(partition.earliest),
                    number(partition.latest),
                    number(records),
                ]
            })
            .collect();
        let mut text = format!("topic {} (id {})\n", self.topic, self.topic_id);
        text.push_str(&table(&["partition", "earliest", "latest", "records"], &rows));
        for setting in self.settings.iter().filter(|setting| setting.is_set) {
            let value = setting.value.as_deref().unwrap_or("(hidden)");
            let readable = match value.parse() {
                Ok(ms) if setting.name == "retention.ms" => {
                    format!(" ({})", format_duration_ms(ms))
                }
                _ => String::new(),
            };
            text.push_str(&format!("{} = {value}{readable}\n", setting.name));
        }
        let others = self.settings.iter().filter(|setting| !setting.is_set).count();
        if others > 0 {
            text.push_str(&format!(
                "{others} settings are the broker's defaults, --json shows them\n"
            ));
        }
        text
    }
}

//! Topic settings that change: IncrementalAlterConfigs, AlterConfigs, and what the change does.

use edge_wire::{Compression, RecordBatchView, TimestampType};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    alter_configs_request as replacing, incremental_alter_configs_request as changing,
};

use crate::client::{Client, batch, only, plain, text};
use crate::gateway::{Gateway, directory};

const TOPIC: i8 = 2;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Error code and message.
type Outcome = (i16, String);

async fn change(client: &mut Client, asked: &[(&str, i8, Option<&str>)]) -> Outcome {
    change_in(client, TOPIC, "t", asked, false, 1).await
}

async fn change_in(
    client: &mut Client,
    resource_type: i8,
    name: &str,
    asked: &[(&str, i8, Option<&str>)],
    validate_only: bool,
    version: i16,
) -> Outcome {
    let configs = asked.iter().map(|(name, operation, value)| {
        changing::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    let resource = changing::AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource])
        .with_validate_only(validate_only);
    let answer = only(client.call(&request, version).await.responses);
    assert_eq!((answer.resource_type, &*answer.resource_name), (resource_type, name));
    (answer.error_code, answer.error_message.unwrap_or_default().to_string())
}

async fn replace(client: &mut Client, asked: &[(&str, &str)], version: i16) -> Outcome {
    let configs = asked.iter().map(|(name, value)| {
        replacing::AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let resource = replacing::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = only(client.call(&request, version).await.responses);
    (answer.error_code, answer.error_message.unwrap_or_default().to_string())
}

/// Value and source of one setting.
async fn setting(client: &mut Client, name: &str) -> (String, i8) {
    let config = described(client, name).await;
    (config.value.unwrap().to_string(), config.config_source)
}

async fn described(client: &mut Client, name: &str) -> DescribeConfigsResourceResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text(name)]));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    only(only(client.call(&request, 4).await.results).configs)
}

const FROM_TOPIC: i8 = 1;
const FROM_DEFAULT: i8 = 5;

#[tokio::test]
async fn settings_change_one_by_one_and_survive_a_restart() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    assert_eq!(setting(&mut client, "retention.ms").await, ("-1".to_owned(), FROM_DEFAULT));
    for (version, ms) in (0..=1).zip(["1000", "2000"]) {
        let asked = [("retention.ms", SET, Some(ms)), ("delete.retention.ms", SET, Some("7"))];
        let done = change_in(&mut client, TOPIC, "t", &asked, false, version).await;
        assert_eq!(done.0, 0, "{}", done.1);
    }
    assert_eq!(change(&mut client, &[("cleanup.policy", APPEND, Some("compact"))]).await.0, 0);
    gateway.stop().await;

    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    assert_eq!(setting(&mut client, "retention.ms").await, ("2000".to_owned(), FROM_TOPIC));
    assert_eq!(setting(&mut client, "delete.retention.ms").await, ("7".to_owned(), FROM_TOPIC));
    let policy = setting(&mut client, "cleanup.policy").await;
    assert_eq!(policy, ("compact,delete".to_owned(), FROM_TOPIC));
    let config = described(&mut client, "retention.ms").await;
    let synonyms: Vec<_> = config
        .synonyms
        .iter()
        .map(|synonym| (synonym.value.as_deref().unwrap_or_default(), synonym.source))
        .collect();
    assert_eq!(synonyms, [("2000", FROM_TOPIC), ("-1", FROM_DEFAULT)]);

    assert_eq!(change(&mut client, &[("cleanup.policy", SUBTRACT, Some("delete"))]).await.0, 0);
    assert_eq!(setting(&mut client, "cleanup.policy").await.0, "compact");
    assert_eq!(change(&mut client, &[("retention.ms", DELETE, None)]).await.0, 0);
    assert_eq!(setting(&mut client, "retention.ms").await, ("-1".to_owned(), FROM_DEFAULT));
    gateway.stop().await;
}

#[tokio::test]
async fn replacing_all_settings_puts_what_is_not_named_back() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    for version in 0..=2 {
        let asked = [("retention.ms", "1000"), ("max.message.bytes", "2000")];
        assert_eq!(replace(&mut client, &asked, version).await.0, 0);
        assert_eq!(replace(&mut client, &[("retention.bytes", "9")], version).await.0, 0);
        assert_eq!(setting(&mut client, "retention.ms").await, ("-1".to_owned(), FROM_DEFAULT));
        assert_eq!(setting(&mut client, "retention.bytes").await, ("9".to_owned(), FROM_TOPIC));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_made_changes_nothing_and_says_why() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let invalid = ResponseError::InvalidConfig;
    let request = ResponseError::InvalidRequest;
    for (wrong, error) in [
        (("cleanup.policy", SET, Some("shred")), invalid),
        (("cleanup.policy", SUBTRACT, Some("delete")), invalid),
        (("retention.bytes", APPEND, Some("1")), invalid),
        (("retention.bytes", SET, None), invalid),
        (("min.insync.replicas", SET, Some("2")), invalid),
        (("no.such.setting", SET, Some("2")), invalid),
        (("edge.lane", SET, Some("bulk")), invalid),
        (("retention.bytes", 9, Some("1")), request),
        (("retention.ms", SET, Some("5")), request),
    ] {
        let asked = [("retention.ms", SET, Some("1000")), wrong];
        let (code, message) = change(&mut client, &asked).await;
        assert_eq!(code, error.code(), "{wrong:?}: {message}");
        assert!(message.contains(wrong.0), "{message}");
        assert_eq!(setting(&mut client, "retention.ms").await.1, FROM_DEFAULT, "{wrong:?}");
    }
    let asked = [("retention.ms", SET, Some("1000"))];
    let tried = change_in(&mut client, TOPIC, "t", &asked, true, 1).await;
    assert_eq!(tried.0, 0);
    assert_eq!(setting(&mut client, "retention.ms").await.1, FROM_DEFAULT, "only tried");
    let unknown = change_in(&mut client, TOPIC, "other", &asked, false, 1).await;
    assert_eq!(unknown.0, ResponseError::UnknownTopicOrPartition.code());
    let node = change_in(&mut client, 4, "1", &asked, false, 1).await;
    assert_eq!(node.0, ResponseError::InvalidRequest.code());
    gateway.stop().await;
}

#[tokio::test]
async fn a_changed_setting_counts_for_the_next_batch() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let large = "x".repeat(1_000);
    assert_eq!(client.produce("t", 0, plain(&[&large])).await.error_code, 0);
    assert_eq!(change(&mut client, &[("max.message.bytes", SET, Some("500"))]).await.0, 0);
    let refused = client.produce("t", 0, plain(&[&large])).await;
    assert_eq!(refused.error_code, ResponseError::MessageTooLarge.code());
    let packed = batch(&[&large], Compression::Zstd, None);
    assert_eq!(client.produce("t", 0, packed).await.error_code, 0, "as it is compressed");

    // Their timestamps are of 1970.
    let asked = [("message.timestamp.before.max.ms", SET, Some("3600000"))];
    assert_eq!(change(&mut client, &asked).await.0, 0);
    let refused = client.produce("t", 0, plain(&["b"])).await;
    assert_eq!(refused.error_code, ResponseError::InvalidTimestamp.code());
    assert!(refused.error_message.unwrap().contains("record 0 has timestamp 1000"));

    let asked = [("message.timestamp.type", SET, Some("LogAppendTime"))];
    assert_eq!(change(&mut client, &asked).await.0, 0);
    let stamped = client.produce("t", 0, plain(&["b"])).await;
    assert!(stamped.log_append_time_ms > 1_700_000_000_000);
    let offset = stamped.base_offset as u64;
    let fetched = client.fetch("t", 0, offset).await.records.unwrap();
    let read = RecordBatchView::parse(&fetched).unwrap();
    read.verify_crc().unwrap();
    let header = read.header();
    assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.max_timestamp, stamped.log_append_time_ms);
    let found = client.offset_of("t", 0, stamped.log_append_time_ms).await;
    assert_eq!((found.offset, found.timestamp), (offset as i64, stamped.log_append_time_ms));
    gateway.stop().await;
}

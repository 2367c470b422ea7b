//! ApiVersions, Metadata, CreateTopics, DeleteTopics, DescribeConfigs, DescribeCluster.

use edge_kafka::KafkaOptions;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, MetadataRequest,
};

use crate::client::{Client, name, only, text};
use crate::gateway::{Gateway, directory};

fn topic(topic: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
}

async fn create(client: &mut Client, topic: CreatableTopic) -> CreatableTopicResult {
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    only(client.call(&request, 7).await.topics)
}

async fn metadata(client: &mut Client, topic: &str, create: bool) -> MetadataResponseTopic {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(create);
    only(client.call(&request, 12).await.topics)
}

#[tokio::test]
async fn every_version_of_api_versions_is_answered() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    for version in 0..=4 {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request
                .with_client_software_name(text("test"))
                .with_client_software_version(text("1"));
        }
        let response = client.call(&request, version).await;
        assert_eq!(response.error_code, 0);
        let keys: Vec<_> = response.api_keys.iter().map(|api| api.api_key).collect();
        assert_eq!(keys, [0, 1, 2, 3, 8, 9, 10, 18, 19, 20, 21, 22, 32, 33, 44, 60]);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn metadata_names_this_node_at_the_address_that_was_reached() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 3).await;
    let mut client = gateway.client().await;
    for version in 0..=13 {
        let mut request = MetadataRequest::default().with_topics(None);
        if version == 0 {
            request = request.with_topics(Some(Vec::new()));
        }
        if !(8..=10).contains(&version) {
            request = request.with_include_cluster_authorized_operations(false);
        }
        let response = client.call(&request, version).await;
        let broker = only(response.brokers);
        assert_eq!((&*broker.host, broker.port), ("127.0.0.1", i32::from(gateway.address.port())));
        let topic = only(response.topics);
        assert_eq!(&**topic.name.unwrap(), "t");
        assert_eq!(topic.partitions.len(), 3);
        assert!(topic.partitions.iter().all(|p| p.leader_id == broker.node_id));
    }
    let none = MetadataRequest::default().with_topics(Some(Vec::new()));
    assert!(client.call(&none, 12).await.topics.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn an_advertised_address_is_what_clients_are_told() {
    let directory = directory();
    let options = KafkaOptions {
        advertised: Some(("gw3.plant7".to_owned(), 19_092)),
        ..KafkaOptions::default()
    };
    let gateway = Gateway::start_with(directory.path(), options).await;
    let mut client = gateway.client().await;
    let broker = only(client.call(&MetadataRequest::default(), 12).await.brokers);
    assert_eq!((&*broker.host, broker.port), ("gw3.plant7", 19_092));
    gateway.stop().await;
}

#[tokio::test]
async fn a_topic_is_found_by_its_id() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let id = metadata(&mut client, "t", false).await.topic_id;
    let asked = MetadataRequestTopic::default().with_topic_id(id).with_name(None);
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let found = only(client.call(&request, 12).await.topics);
    assert_eq!((found.error_code, found.name), (0, Some(name("t"))));
    gateway.stop().await;
}

#[tokio::test]
async fn unknown_topics_are_made_only_if_both_sides_want_it() {
    let directory = directory();
    let options = KafkaOptions { partitions_default: 3, ..KafkaOptions::default() };
    let gateway = Gateway::start_with(directory.path(), options).await;
    let mut client = gateway.client().await;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(metadata(&mut client, "new", false).await.error_code, unknown);
    let made = metadata(&mut client, "new", true).await;
    assert_eq!((made.error_code, made.partitions.len()), (0, 3));
    let illegal = metadata(&mut client, "a/b", true).await;
    assert_eq!(illegal.error_code, ResponseError::InvalidTopicException.code());
    gateway.stop().await;

    let options = KafkaOptions { auto_create_topics: false, ..KafkaOptions::default() };
    let gateway = Gateway::start_with(directory.path(), options).await;
    let mut client = gateway.client().await;
    assert_eq!(metadata(&mut client, "newer", true).await.error_code, unknown);
    assert_eq!(metadata(&mut client, "new", true).await.error_code, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_topic_keeps_its_settings_across_a_restart() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    let settings = [
        ("retention.ms", "3600000"),
        ("cleanup.policy", "compact"),
        ("max.message.bytes", "2000"),
        ("edge.lane", "bulk"),
        ("min.insync.replicas", "1"),
    ];
    let configs = settings.map(|(key, value)| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
    });
    let made = create(&mut client, topic("t", 4).with_configs(configs.to_vec())).await;
    assert_eq!(made.error_code, 0, "{:?}", made.error_message);
    assert_eq!((made.num_partitions, made.replication_factor), (4, 1));
    gateway.stop().await;

    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    assert_eq!(metadata(&mut client, "t", false).await.topic_id, made.topic_id);
    let resource =
        DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
    for version in 1..=4 {
        let resources = vec![resource.clone().with_configuration_keys(None)];
        let request = DescribeConfigsRequest::default().with_resources(resources);
        let described = only(client.call(&request, version).await.results);
        assert_eq!(described.error_code, 0);
        for (key, value) in &settings[..4] {
            let config = described.configs.iter().find(|config| *config.name == **key).unwrap();
            assert_eq!(config.value.as_deref(), Some(*value));
            assert_eq!(config.config_source, 1, "{key} was set on the topic");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_topic_that_cannot_be_made_is_refused_with_a_sentence() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("there", 1).await;
    let mut client = gateway.client().await;
    let config = |key, value| {
        let config =
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)));
        topic("t", 1).with_configs(vec![config])
    };
    for (asked, error) in [
        (topic("there", 1), ResponseError::TopicAlreadyExists),
        (topic("no/slash", 1), ResponseError::InvalidTopicException),
        (topic("t", 0), ResponseError::InvalidPartitions),
        (topic("t", -7), ResponseError::InvalidPartitions),
        (topic("t", i32::MAX), ResponseError::InvalidPartitions),
        (topic("t", 1).with_replication_factor(3), ResponseError::InvalidReplicationFactor),
        (config("retention.ms", "soon"), ResponseError::InvalidConfig),
        (config("no.such.setting", "1"), ResponseError::InvalidConfig),
        (config("edge.lane", "no-such-lane"), ResponseError::InvalidConfig),
    ] {
        let result = create(&mut client, asked).await;
        assert_eq!(result.error_code, error.code(), "{error:?} {:?}", result.error_message);
        assert!(!result.error_message.unwrap().is_empty());
    }
    let twice = CreateTopicsRequest::default().with_topics(vec![topic("t", 1); 2]);
    let result = only(client.call(&twice, 7).await.topics);
    assert_eq!(result.error_code, ResponseError::InvalidRequest.code());
    assert!(gateway.engine.topic("t").is_none());
    gateway.stop().await;
}

#[tokio::test]
async fn validate_only_changes_nothing() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic("t", -1)]).with_validate_only(true);
    for version in 2..=7 {
        let result = only(client.call(&request, version).await.topics);
        assert_eq!(result.error_code, 0);
    }
    assert!(gateway.engine.topic("t").is_none());
    gateway.stop().await;
}

#[tokio::test]
async fn topics_come_and_go_in_all_versions() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    for version in 2..=7 {
        let asked = topic("t", 2).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![asked]);
        let result = only(client.call(&request, version).await.topics);
        assert_eq!(result.error_code, 0, "version {version}");
        let result = only(client.call(&request, version).await.topics);
        assert_eq!(result.error_code, ResponseError::TopicAlreadyExists.code());
        let deletion = version.min(6) - 1;
        let request = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
        let result = only(client.call(&request, deletion).await.responses);
        assert_eq!(result.error_code, 0, "version {deletion}");
    }
    for version in 0..=1 {
        let cluster = client.call(&DescribeClusterRequest::default(), version).await;
        assert_eq!(cluster.error_code, 0, "version {version}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("a", 1).await;
    gateway.topic("b", 1).await;
    let mut client = gateway.client().await;
    let by_name = DeleteTopicsRequest::default().with_topic_names(vec![name("a"), name("zz")]);
    let results = client.call(&by_name, 4).await.responses;
    let codes: Vec<_> = results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, ResponseError::UnknownTopicOrPartition.code()]);

    let id = metadata(&mut client, "b", false).await.topic_id;
    let by_id = DeleteTopicState::default().with_name(None).with_topic_id(id);
    let request = DeleteTopicsRequest::default().with_topics(vec![by_id]);
    let result = only(client.call(&request, 6).await.responses);
    assert_eq!((result.error_code, result.name), (0, Some(name("b"))));
    assert!(gateway.engine.topics().is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn the_node_and_the_cluster_describe_themselves() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    let request = DescribeClusterRequest::default().with_endpoint_type(1);
    let cluster = client.call(&request, 1).await;
    assert_eq!((cluster.error_code, &*cluster.cluster_id), (0, "edge-broker"));
    assert_eq!(only(cluster.brokers).port, i32::from(gateway.address.port()));

    let resource = DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(text("1"))
        .with_configuration_keys(Some(vec![text("num.partitions")]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let config = only(only(client.call(&request, 4).await.results).configs);
    assert_eq!(config.value.as_deref(), Some("1"));
    assert!(config.read_only);
    gateway.stop().await;
}

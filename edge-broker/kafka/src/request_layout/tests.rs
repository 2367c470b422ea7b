use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::api_versions::{APIS, Api, find};

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name() -> TopicName {
    TopicName(text("telemetry"))
}

fn written(request: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out, version).unwrap();
    out
}

/// A request of this API and version with something in every array it has.
fn sample(key: ApiKey, version: i16) -> Vec<u8> {
    match key {
        ApiKey::Produce => {
            let partition = PartitionProduceData::default()
                .with_index(1)
                .with_records(Some(Bytes::from_static(b"not looked at here")));
            let topic = TopicProduceData::default()
                .with_name(name())
                .with_partition_data(vec![partition; 2]);
            written(
                &ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic; 2]),
                version,
            )
        }
        ApiKey::Fetch => {
            let mut topic = FetchTopic::default().with_partitions(vec![
                FetchPartition::default()
                    .with_fetch_offset(7);
                3
            ]);
            let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
            if version <= 12 {
                topic = topic.with_topic(name());
                forgotten = forgotten.with_topic(name());
            }
            let mut request = FetchRequest::default().with_topics(vec![topic; 2]);
            if version >= 7 {
                request = request.with_forgotten_topics_data(vec![forgotten]);
            }
            written(&request, version)
        }
        ApiKey::ListOffsets => {
            let topic = ListOffsetsTopic::default()
                .with_name(name())
                .with_partitions(vec![ListOffsetsPartition::default(); 2]);
            written(&ListOffsetsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::Metadata => {
            let topic = MetadataRequestTopic::default().with_name(Some(name()));
            written(&MetadataRequest::default().with_topics(Some(vec![topic; 3])), version)
        }
        ApiKey::OffsetCommit => {
            let partition = OffsetCommitRequestPartition::default()
                .with_committed_metadata(Some(text("a note")));
            let topic = OffsetCommitRequestTopic::default()
                .with_name(name())
                .with_partitions(vec![partition; 2]);
            let request = OffsetCommitRequest::default().with_group_id(GroupId(text("group")));
            written(&request.with_topics(vec![topic; 2]), version)
        }
        ApiKey::OffsetFetch => {
            if version >= 8 {
                let topic = OffsetFetchRequestTopics::default()
                    .with_name(name())
                    .with_partition_indexes(vec![0, 1]);
                let group = OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text("group")))
                    .with_topics(Some(vec![topic]));
                written(&OffsetFetchRequest::default().with_groups(vec![group; 2]), version)
            } else {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(name())
                    .with_partition_indexes(vec![0, 1]);
                let request = OffsetFetchRequest::default().with_group_id(GroupId(text("group")));
                written(&request.with_topics(Some(vec![topic])), version)
            }
        }
        ApiKey::FindCoordinator if version >= 4 => {
            let keys = vec![text("one"), text("two")];
            written(&FindCoordinatorRequest::default().with_coordinator_keys(keys), version)
        }
        ApiKey::FindCoordinator => {
            written(&FindCoordinatorRequest::default().with_key(text("one")), version)
        }
        ApiKey::ApiVersions => {
            let mut request = ApiVersionsRequest::default();
            if version >= 3 {
                request = request.with_client_software_name(text("kcat"));
            }
            written(&request, version)
        }
        ApiKey::CreateTopics => {
            let config = CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let assignment =
                CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatableTopic::default()
                .with_name(name())
                .with_assignments(vec![assignment])
                .with_configs(vec![config; 2]);
            written(&CreateTopicsRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::DeleteTopics if version >= 6 => {
            let topic = DeleteTopicState::default().with_name(Some(name()));
            written(&DeleteTopicsRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::DeleteTopics => {
            written(&DeleteTopicsRequest::default().with_topic_names(vec![name(); 2]), version)
        }
        ApiKey::InitProducerId => written(
            &InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(text("t")))),
            version,
        ),
        ApiKey::DescribeConfigs => {
            let resource = DescribeConfigsResource::default()
                .with_resource_name(text("telemetry"))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            written(&DescribeConfigsRequest::default().with_resources(vec![resource; 2]), version)
        }
        ApiKey::DeleteRecords => {
            let partitions = vec![DeleteRecordsPartition::default().with_offset(-1); 2];
            let topic = DeleteRecordsTopic::default().with_name(name()).with_partitions(partitions);
            written(&DeleteRecordsRequest::default().with_topics(vec![topic; 2]), version)
        }
        ApiKey::AlterConfigs => {
            let config = alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_name(text("telemetry"))
                .with_configs(vec![config; 2]);
            written(&AlterConfigsRequest::default().with_resources(vec![resource; 2]), version)
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = incremental_alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_name(text("telemetry"))
                .with_configs(vec![config; 2]);
            let request = IncrementalAlterConfigsRequest::default();
            written(&request.with_resources(vec![resource; 2]), version)
        }
        ApiKey::DescribeCluster => written(&DescribeClusterRequest::default(), version),
        other => panic!("no sample for {other:?}"),
    }
}

fn decodes(key: ApiKey, version: i16, bytes: &[u8]) -> bool {
    let mut body = Bytes::copy_from_slice(bytes);
    match key {
        ApiKey::Produce => ProduceRequest::decode(&mut body, version).is_ok(),
        ApiKey::Fetch => FetchRequest::decode(&mut body, version).is_ok(),
        ApiKey::ListOffsets => ListOffsetsRequest::decode(&mut body, version).is_ok(),
        ApiKey::Metadata => MetadataRequest::decode(&mut body, version).is_ok(),
        ApiKey::OffsetCommit => OffsetCommitRequest::decode(&mut body, version).is_ok(),
        ApiKey::OffsetFetch => OffsetFetchRequest::decode(&mut body, version).is_ok(),
        ApiKey::FindCoordinator => FindCoordinatorRequest::decode(&mut body, version).is_ok(),
        ApiKey::ApiVersions => ApiVersionsRequest::decode(&mut body, version).is_ok(),
        ApiKey::CreateTopics => CreateTopicsRequest::decode(&mut body, version).is_ok(),
        ApiKey::DeleteTopics => DeleteTopicsRequest::decode(&mut body, version).is_ok(),
        ApiKey::InitProducerId => InitProducerIdRequest::decode(&mut body, version).is_ok(),
        ApiKey::DescribeConfigs => DescribeConfigsRequest::decode(&mut body, version).is_ok(),
        ApiKey::DeleteRecords => DeleteRecordsRequest::decode(&mut body, version).is_ok(),
        ApiKey::AlterConfigs => AlterConfigsRequest::decode(&mut body, version).is_ok(),
        ApiKey::IncrementalAlterConfigs => {
            IncrementalAlterConfigsRequest::decode(&mut body, version).is_ok()
        }
        ApiKey::DescribeCluster => DescribeClusterRequest::decode(&mut body, version).is_ok(),
        other => panic!("{other:?} is not served"),
    }
}

fn walks(api: &Api, version: i16, bytes: &[u8]) -> bool {
    check(api.layout, version, api.is_flexible(version), bytes).is_ok()
}

fn every_version() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter()
        .flat_map(|api| (api.version_min..=api.version_max).map(move |at| (at, api)))
        .map(|(version, api)| (api, version))
}

/// The walk ends where the codec ends: layouts and codecs agree about every version served.
#[test]
fn every_request_is_walked_to_its_last_byte() {
    for (api, version) in every_version() {
        let bytes = sample(api.key, version);
        let mut walk =
            Walk { rest: &bytes, version, flexible: api.is_flexible(version), elements: 0 };
        walk.structure(api.layout).unwrap_or_else(|e| panic!("{:?} {version}: {e}", api.key));
        assert!(walk.rest.is_empty(), "{:?} {version}: {} left", api.key, walk.rest.len());
        assert!(decodes(api.key, version, &bytes), "{:?} {version}", api.key);
    }
}

#[test]
fn every_cut_is_refused() {
    for (api, version) in every_version() {
        let bytes = sample(api.key, version);
        for end in 0..bytes.len() {
            assert!(!walks(api, version, &bytes[..end]), "{:?} {version} at {end}", api.key);
        }
    }
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused() {
    // Metadata 1: an array of i32::MAX topics.
    let api = find(ApiKey::Metadata as i16).unwrap();
    assert!(!walks(api, 1, &i32::MAX.to_be_bytes()));
    // The same in a flexible version: a varint of 2^32 - 1.
    assert!(!walks(api, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]));
}

#[test]
fn elements_of_a_request_are_limited_all_together() {
    let api = find(ApiKey::Metadata as i16).unwrap();
    let request = |topics: usize| {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text("t"))));
        written(&MetadataRequest::default().with_topics(Some(vec![topic; topics])), 1)
    };
    assert!(walks(api, 1, &request(ELEMENTS_MAX)));
    assert!(!walks(api, 1, &request(ELEMENTS_MAX + 1)));
}

#[test]
fn fields_that_only_replicas_send_are_refused() {
    let api = find(ApiKey::Fetch as i16).unwrap();
    let replica = ReplicaState::default().with_replica_id(BrokerId(3));
    let request = FetchRequest::default().with_replica_state(replica);
    assert!(!walks(api, 15, &written(&request, 15)));
}

proptest! {
    /// Damage anywhere: either refused, or the codec gets through without asking for much memory (this
    /// test would be killed otherwise).
    #[test]
    fn what_passes_the_walk_is_safe_to_decode(
        pick in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let all: Vec<_> = every_version().collect();
        let (api, version) = *pick.get(&all);
        let mut bytes = sample(api.key, version);
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if walks(api, version, &bytes) {
            decodes(api.key, version, &bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(
        pick in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let all: Vec<_> = every_version().collect();
        let (api, version) = *pick.get(&all);
        if walks(api, version, &bytes) {
            decodes(api.key, version, &bytes);
        }
    }
}

//! FindCoordinator, OffsetCommit, OffsetFetch: groups without members.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest,
};

use crate::client::{Client, name, only, text};
use crate::gateway::{Gateway, directory};

fn commit(partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("a note")));
    let topic =
        OffsetCommitRequestTopic::default().with_name(name("t")).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

async fn committed(client: &mut Client, partition: i32) -> (i64, String) {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![partition]);
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let group = only(client.call(&request, 8).await.groups);
    let found = only(only(group.topics).partitions);
    assert_eq!(found.error_code, 0);
    (found.committed_offset, found.metadata.unwrap().to_string())
}

#[tokio::test]
async fn committed_offsets_survive_a_restart() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 2).await;
    let mut client = gateway.client().await;
    assert_eq!(committed(&mut client, 0).await, (-1, String::new()));
    for (offset, version) in (10..).zip(2..=9) {
        let answer = only(client.call(&commit(0, offset), version).await.topics);
        assert_eq!(only(answer.partitions).error_code, 0, "version {version}");
    }
    gateway.stop().await;
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    assert_eq!(committed(&mut client, 0).await, (17, "a note".to_owned()));
    assert_eq!(committed(&mut client, 1).await.0, -1);
    gateway.stop().await;
}

#[tokio::test]
async fn all_versions_of_offset_fetch_agree() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 2).await;
    let mut client = gateway.client().await;
    client.call(&commit(1, 5), 8).await;
    let topic =
        OffsetFetchRequestTopic::default().with_name(name("t")).with_partition_indexes(vec![1]);
    let old = OffsetFetchRequest::default().with_group_id(GroupId(text("g")));
    for version in 1..=7 {
        let asked = [Some(vec![topic.clone()]), None];
        for topics in asked.into_iter().take(if version >= 2 { 2 } else { 1 }) {
            let request = old.clone().with_topics(topics);
            let found = only(only(client.call(&request, version).await.topics).partitions);
            assert_eq!((found.partition_index, found.committed_offset), (1, 5));
        }
    }
    for version in 8..=9 {
        let group =
            OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        let group = only(client.call(&request, version).await.groups);
        assert_eq!(only(only(group.topics).partitions).committed_offset, 5);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_commit_that_claims_a_membership_is_refused() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    for (request, error) in [
        (commit(0, 1).with_member_id(text("me")), ResponseError::UnknownMemberId),
        (commit(0, 1).with_generation_id_or_member_epoch(3), ResponseError::IllegalGeneration),
        (commit(0, 1).with_group_id(GroupId(text(""))), ResponseError::InvalidGroupId),
        (commit(7, 1), ResponseError::UnknownTopicOrPartition),
        (commit(0, -5), ResponseError::InvalidRequest),
    ] {
        let answer = only(client.call(&request, 8).await.topics);
        assert_eq!(only(answer.partitions).error_code, error.code(), "{error:?}");
    }
    let mut long = commit(0, 1);
    long.topics[0].partitions[0].committed_metadata = Some(text(&"n".repeat(5_000)));
    let answer = only(client.call(&long, 8).await.topics);
    assert_eq!(only(answer.partitions).error_code, ResponseError::OffsetMetadataTooLarge.code());
    assert_eq!(committed(&mut client, 0).await.0, -1);
    gateway.stop().await;
}

#[tokio::test]
async fn this_node_coordinates_groups_and_no_transactions() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    let port = i32::from(gateway.address.port());
    for version in 0..=3 {
        let request = FindCoordinatorRequest::default().with_key(text("g"));
        let found = client.call(&request, version).await;
        assert_eq!((found.error_code, found.port), (0, port));
    }
    for version in 4..=6 {
        let keys = vec![text("g"), text("h")];
        let request = FindCoordinatorRequest::default().with_coordinator_keys(keys);
        let found = client.call(&request, version).await.coordinators;
        assert!(found.iter().all(|one| one.error_code == 0 && one.port == port));
        assert_eq!(found.len(), 2);
    }
    let request = FindCoordinatorRequest::default().with_key_type(1).with_key(text("t"));
    let found = client.call(&request, 3).await;
    assert_eq!(found.error_code, ResponseError::InvalidRequest.code());
    assert!(found.error_message.unwrap().contains("transactions"));
    gateway.stop().await;
}

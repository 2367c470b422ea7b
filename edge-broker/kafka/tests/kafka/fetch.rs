//! Fetch and ListOffsets: limits, waiting, ends, times.

use std::time::Duration;

use edge_wire::Compression;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::FetchPartition;
use uuid::Uuid;

use crate::client::{Client, batch, fetch_request, only, plain, values};
use crate::gateway::{Gateway, directory};

const LONG_MS: i32 = 60_000;

async fn fill(client: &mut Client, partition: i32, count: usize) {
    for index in 0..count {
        let value = format!("{index:0>1000}");
        assert_eq!(client.produce("t", partition, plain(&[&value])).await.error_code, 0);
    }
}

#[tokio::test]
async fn all_versions_are_answered_in_their_form() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let id = Uuid::from_bytes(gateway.engine.topic("t").unwrap().id().0);
    let mut client = gateway.client().await;
    client.produce("t", 0, plain(&["x"])).await;
    for version in 4..=17 {
        let mut request = fetch_request("t", 0, 0);
        if version >= 13 {
            request.topics[0].topic = Default::default();
            request.topics[0].topic_id = id;
        }
        let response = client.call(&request, version).await;
        let data = only(only(response.responses).partitions);
        assert_eq!(values(&data.records, 0), [(0, "x".to_owned())], "version {version}");
    }
    for version in 4..=12 {
        let response = client.call(&fetch_request("nowhere", 0, 0), version).await;
        let data = only(only(response.responses).partitions);
        assert_eq!(data.error_code, ResponseError::UnknownTopicOrPartition.code());
    }
    let mut unknown = fetch_request("t", 0, 0);
    unknown.topics[0].topic = Default::default();
    unknown.topics[0].topic_id = Uuid::from_u128(77);
    let data = only(only(client.call(&unknown, 13).await.responses).partitions);
    assert_eq!(data.error_code, ResponseError::UnknownTopicId.code());
    gateway.stop().await;
}

#[tokio::test]
async fn a_fetch_waits_for_a_record_and_is_woken_by_it() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut reader = gateway.client().await;
    let request = fetch_request("t", 0, 0).with_min_bytes(1).with_max_wait_ms(LONG_MS);
    let id = reader.send(&request, 11).await;
    let mut writer = gateway.client().await;
    writer.produce("t", 0, plain(&["late"])).await;
    let answer = tokio::time::timeout(
        Duration::from_millis(LONG_MS as u64 / 2),
        reader.receive::<FetchRequest>(11, id),
    );
    let response = answer.await.expect("long before the wait is over");
    let data = only(only(response.responses).partitions);
    assert_eq!(values(&data.records, 0), [(0, "late".to_owned())]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_fetch_waits_until_there_is_enough() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut reader = gateway.client().await;
    let request = fetch_request("t", 0, 0).with_min_bytes(3_000).with_max_wait_ms(LONG_MS);
    let id = reader.send(&request, 11).await;
    fill(&mut gateway.client().await, 0, 3).await;
    let response = reader.receive::<FetchRequest>(11, id).await;
    let data = only(only(response.responses).partitions);
    assert_eq!(data.error_code, 0);
    assert_eq!(values(&data.records, 0).len(), 3);
    gateway.stop().await;
}

#[tokio::test]
async fn a_wait_ends_by_itself_with_what_is_there() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.produce("t", 0, plain(&["little"])).await;
    let request = fetch_request("t", 0, 0).with_min_bytes(100_000).with_max_wait_ms(50);
    let data = only(only(client.call(&request, 11).await.responses).partitions);
    assert_eq!(values(&data.records, 0), [(0, "little".to_owned())]);
    gateway.stop().await;
}

#[tokio::test]
async fn limits_hold_but_the_first_batch_is_always_whole() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 2).await;
    let mut client = gateway.client().await;
    fill(&mut client, 0, 10).await;
    fill(&mut client, 1, 10).await;

    let mut request = fetch_request("t", 0, 0).with_max_bytes(1);
    let second = FetchPartition::default().with_partition(1).with_partition_max_bytes(1 << 20);
    request.topics[0].partitions.push(second);
    let found = only(client.call(&request, 11).await.responses).partitions;
    let counts: Vec<_> = found.iter().map(|data| values(&data.records, 0).len()).collect();
    assert_eq!(counts, [1, 0], "one whole batch, and nothing else");

    request.max_bytes = 6_000;
    request.topics[0].partitions[0].partition_max_bytes = 3_500;
    let found = only(client.call(&request, 11).await.responses).partitions;
    let bytes: Vec<_> = found.iter().map(|data| data.records.as_ref().unwrap().len()).collect();
    assert!(bytes[0] > 1_000 && bytes[0] <= 3_500, "{bytes:?}");
    assert!(bytes[1] > 1_000 && bytes[0] + bytes[1] <= 6_000, "{bytes:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn offsets_outside_of_the_log_are_told_with_its_ends() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.produce("t", 0, plain(&["a", "b"])).await;
    let at_end = client.fetch("t", 0, 2).await;
    assert_eq!((at_end.error_code, at_end.high_watermark), (0, 2));
    assert!(at_end.records.is_none_or(|records| records.is_empty()));
    let beyond = client.fetch("t", 0, 3).await;
    assert_eq!(beyond.error_code, ResponseError::OffsetOutOfRange.code());
    assert_eq!((beyond.log_start_offset, beyond.high_watermark), (0, 2));
    let nowhere = client.fetch("t", 9, 0).await;
    assert_eq!(nowhere.error_code, ResponseError::UnknownTopicOrPartition.code());
    gateway.stop().await;
}

#[tokio::test]
async fn zstd_is_not_given_to_consumers_that_do_not_know_it() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.produce("t", 0, batch(&["a"], Compression::Zstd, None)).await;
    let response = client.call(&fetch_request("t", 0, 0), 9).await;
    let data = only(only(response.responses).partitions);
    assert_eq!(data.error_code, ResponseError::UnsupportedCompressionType.code());
    gateway.stop().await;
}

#[tokio::test]
async fn a_fetch_session_is_not_known_here() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let request = fetch_request("t", 0, 0).with_session_id(5).with_session_epoch(2);
    let response = client.call(&request, 11).await;
    assert_eq!(response.error_code, ResponseError::FetchSessionIdNotFound.code());
    gateway.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_end_and_by_time() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    // Timestamps 1000, 1010, 1020; then the same again.
    for _ in 0..2 {
        client.produce("t", 0, batch(&["a", "b", "c"], Compression::Lz4, None)).await;
    }
    for (asked, offset, timestamp) in [
        (-1, 6, -1),
        (-2, 0, -1),
        (-4, 0, -1),
        (-5, -1, -1),
        (0, 0, 1_000),
        (1_000, 0, 1_000),
        (1_001, 1, 1_010),
        (1_020, 2, 1_020),
        (1_021, -1, -1),
    ] {
        let found = client.offset_of("t", 0, asked).await;
        let found = (found.error_code, found.offset, found.timestamp);
        assert_eq!(found, (0, offset, timestamp), "asked for {asked}");
    }
    let newest = client.offset_of("t", 0, -3).await;
    assert_eq!(newest.timestamp, 1_020);
    assert!([2, 5].contains(&newest.offset));
    let unknown = client.offset_of("t", 4, -1).await;
    assert_eq!(unknown.error_code, ResponseError::UnknownTopicOrPartition.code());
    let strange = client.offset_of("t", 0, -99).await;
    assert_eq!(strange.error_code, ResponseError::UnsupportedVersion.code());
    gateway.stop().await;
}

#[tokio::test]
async fn offsets_are_answered_in_all_versions() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.produce("t", 0, plain(&["a", "b"])).await;
    for version in 1..=10 {
        for (asked, offset) in [(-1, 2), (-2, 0), (1_005, 1), (5_000, -1)] {
            let found = client.offset_in_version("t", 0, asked, version).await;
            assert_eq!((found.error_code, found.offset), (0, offset), "{asked} in {version}");
        }
        let unknown = client.offset_in_version("t", 1, -1, version).await;
        assert_eq!(unknown.error_code, ResponseError::UnknownTopicOrPartition.code());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    fill(&mut gateway.client().await, 0, 20).await;
    gateway.stop().await;
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    let data = client.fetch("t", 0, 0).await;
    assert_eq!(values(&data.records, 0).len(), 20);
    assert_eq!(values(&client.fetch("t", 0, 13).await.records, 13).len(), 7);
    gateway.stop().await;
}

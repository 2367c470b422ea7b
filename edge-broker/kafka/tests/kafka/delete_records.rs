//! DeleteRecords: what is deleted is gone for every reader, and stays gone.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};

use crate::client::{Client, name, only, plain, values};
use crate::gateway::{Gateway, directory};

/// Error code and log start.
async fn delete(client: &mut Client, partition: i32, offset: i64, version: i16) -> (i16, i64) {
    let asked =
        DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![asked]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let result = only(only(client.call(&request, version).await.topics).partitions);
    (result.error_code, result.low_watermark)
}

#[tokio::test]
async fn deleted_records_are_gone_for_every_reader_and_after_a_restart() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.produce("t", 0, plain(&["a", "b", "c"])).await;
    client.produce("t", 0, plain(&["d"])).await;
    let versions = 0..=2;
    for (version, offset) in versions.clone().zip(0..) {
        assert_eq!(delete(&mut client, 0, offset, version).await, (0, offset));
    }
    // What is gone already is no error, and does not come back.
    assert_eq!(delete(&mut client, 0, 1, 2).await, (0, 2));
    let below = client.fetch("t", 0, 1).await;
    assert_eq!(below.error_code, ResponseError::OffsetOutOfRange.code());
    assert_eq!((below.log_start_offset, below.high_watermark), (2, 4));
    let fetched = client.fetch("t", 0, 2).await;
    assert_eq!(values(&fetched.records, 2), [(2, "c".to_owned()), (3, "d".to_owned())]);
    assert_eq!(client.offset_of("t", 0, -2).await.offset, 2);
    assert_eq!(client.offset_of("t", 0, 0).await.offset, 2, "by time as well");
    gateway.stop().await;

    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    assert_eq!(client.offset_of("t", 0, -2).await.offset, 2);
    assert_eq!(delete(&mut client, 0, -1, 2).await, (0, 4), "-1 is the high watermark");
    assert_eq!(client.offset_of("t", 0, -2).await.offset, 4);
    client.produce("t", 0, plain(&["e"])).await;
    let fetched = client.fetch("t", 0, 4).await;
    assert_eq!(values(&fetched.records, 4), [(4, "e".to_owned())]);
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_not_there_cannot_be_deleted() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.produce("t", 0, plain(&["a"])).await;
    for (partition, offset, error) in [
        (0, 2, ResponseError::OffsetOutOfRange),
        (0, -2, ResponseError::OffsetOutOfRange),
        (0, i64::MAX, ResponseError::OffsetOutOfRange),
        (1, 0, ResponseError::UnknownTopicOrPartition),
        (-1, 0, ResponseError::UnknownTopicOrPartition),
    ] {
        let refused = (error.code(), -1);
        assert_eq!(delete(&mut client, partition, offset, 2).await, refused, "{offset}");
    }
    assert_eq!(client.offset_of("t", 0, -2).await.offset, 0);
    gateway.engine.delete_topic("t").await.unwrap();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(delete(&mut client, 0, 0, 2).await, (unknown, -1));
    gateway.stop().await;
}

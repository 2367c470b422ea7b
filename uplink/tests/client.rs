//! The client against a broker over TCP.

#[path = "support/broker.rs"]
mod broker;

use std::time::Duration;

use broker::Broker;
use bytes::Bytes;
use edge_wire::{Compression, Offset, PartitionId, RecordBatchBuilder};
use uplink::client::{
    Acks, At, Client, ClientOptions, ConnectError, ErrorCode, FetchLimits, NewTopic,
    PartitionReader, RequestError,
};

fn batch(values: &[&str]) -> Bytes {
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), 1_700_000_000_000);
    for value in values {
        builder.push(1_700_000_000_000, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    let mut out = Vec::new();
    builder.finish(None, Compression::Zstd, None, &mut out).expect("zstd packs");
    Bytes::from(out)
}

fn new_topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        replication_factor: None,
        configs: Vec::new(),
    }
}

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn what_is_produced_is_fetched() {
    let broker = Broker::start().await;
    let client = Client::connect(&broker.address(), ClientOptions::default()).await.unwrap();
    let outcomes = client.create_topics(&[new_topic("t", 2)], LIMIT, false).await.unwrap();
    assert_eq!(outcomes[0].result, Ok(()));
    let again = client.create_topics(&[new_topic("t", 2)], LIMIT, false).await.unwrap();
    assert_eq!(again[0].result.as_ref().unwrap_err().code, ErrorCode::TOPIC_ALREADY_EXISTS);

    let partition = PartitionId(1);
    let ack = client.produce("t", partition, batch(&["a", "b"]), Acks::All, LIMIT).await.unwrap();
    assert_eq!(ack.base_offset, Some(Offset(0)));
    client.produce("t", partition, batch(&["c"]), Acks::None, LIMIT).await.unwrap();
    let ack = client.produce("t", partition, batch(&["d"]), Acks::Leader, LIMIT).await.unwrap();
    assert_eq!(ack.base_offset, Some(Offset(3)), "the one without an answer came first");

    let mut reader =
        PartitionReader::new(client.clone(), "t", partition, Offset(1), FetchLimits::default());
    let records = reader.read().await.unwrap();
    let values: Vec<_> =
        records.iter().map(|record| (record.offset.0, record.value.clone().unwrap())).collect();
    assert_eq!(values, [(1, Bytes::from("b")), (2, Bytes::from("c")), (3, Bytes::from("d"))]);
    assert!(reader.is_at_end() && reader.next_offset() == Offset(4));
    let latest = client.list_offsets("t", partition, At::Latest).await.unwrap().unwrap();
    assert_eq!(latest.offset, Offset(4));
    let description = client.describe_topic("t").await.unwrap();
    assert_eq!(description.partitions[1].latest, Some(Offset(4)));
}

#[tokio::test]
async fn answers_come_to_those_who_asked() {
    let broker = Broker::start().await;
    let client = Client::connect(&broker.address(), ClientOptions::default()).await.unwrap();
    client.create_topics(&[new_topic("t", 8)], LIMIT, false).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200u32 {
        let client = client.clone();
        tasks.spawn(async move {
            let value = format!("value {number}");
            let partition = PartitionId(number % 8);
            let ack =
                client.produce("t", partition, batch(&[&value]), Acks::All, LIMIT).await.unwrap();
            let offset = ack.base_offset.unwrap();
            let fetched =
                client.fetch("t", partition, offset, FetchLimits::default()).await.unwrap();
            let mut stream = uplink::client::RecordStream::new(fetched.records, offset);
            let first = stream.next_batch().unwrap().unwrap().remove(0);
            assert_eq!((first.offset, first.value.unwrap()), (offset, Bytes::from(value)));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn errors_say_whether_it_makes_sense_to_try_again() {
    let broker = Broker::start().await;
    let client = Client::connect(&broker.address(), ClientOptions::default()).await.unwrap();
    let missing =
        client.fetch("nope", PartitionId(0), Offset(0), FetchLimits::default()).await.unwrap_err();
    assert_eq!(missing.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    client.create_topics(&[new_topic("t", 1)], LIMIT, false).await.unwrap();
    let beyond =
        client.fetch("t", PartitionId(0), Offset(9), FetchLimits::default()).await.unwrap_err();
    assert!(beyond.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE) && !beyond.is_retriable());
    let no_partition =
        client.fetch("t", PartitionId(5), Offset(0), FetchLimits::default()).await.unwrap_err();
    assert!(matches!(no_partition, RequestError::NoLeader { .. }) && no_partition.is_retriable());

    broker.disk().lose_answers = 1;
    let lost =
        client.produce("t", PartitionId(0), batch(&["a"]), Acks::All, LIMIT).await.unwrap_err();
    assert!(lost.is_retriable() && lost.is_indefinite(), "{lost}");
    // The next request opens a new connection.
    let ack = client.produce("t", PartitionId(0), batch(&["b"]), Acks::All, LIMIT).await.unwrap();
    assert_eq!(ack.base_offset, Some(Offset(1)));

    let bad =
        Client::connect(&["nonsense:port".to_owned()], ClientOptions::default()).await.unwrap_err();
    assert!(matches!(bad, ConnectError::Address { .. }) && !bad.is_retriable());
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_given_up() {
    let broker = Broker::start().await;
    let options =
        ClientOptions { request_timeout: Duration::from_millis(50), ..ClientOptions::default() };
    let client = Client::connect(&broker.address(), options).await.unwrap();
    broker.disk().is_stalled = true;
    let error = client.metadata(None).await.unwrap_err();
    assert!(matches!(error, RequestError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn who_does_not_speak_kafka_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(
                &mut stream,
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
            )
            .await;
        }
    });
    let error = Client::connect(&[address], ClientOptions::default()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Negotiation { .. }), "{error}");
}

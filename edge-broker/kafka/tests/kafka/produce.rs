//! Produce: what is taken, what is refused and how, what a restart keeps.

use edge_engine::{CleanupPolicy, TimestampType, TopicConfig};
use edge_wire::record_batch::{ATTRIBUTES_AT, CRC_AT, MAGIC_AT};
use edge_wire::{Compression, ProducerId, ProducerStamp, RecordBatchView};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, TransactionalId};

use crate::client::{Client, batch, fetch_request, only, plain, produce_request, text, values};
use crate::gateway::{Gateway, directory};

const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn stamp(id: u64, base_sequence: i32) -> Option<ProducerStamp> {
    Some(ProducerStamp { id: ProducerId(id), epoch: 0, base_sequence })
}

async fn producer_id(client: &mut Client) -> u64 {
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let response = client.call(&request, 4).await;
    assert_eq!((response.error_code, response.producer_epoch), (0, 0));
    response.producer_id.0 as u64
}

#[tokio::test]
async fn every_codec_comes_back_as_it_was_sent() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 5).await;
    let mut client = gateway.client().await;
    let sent: Vec<String> = (0..200).map(|index| format!("value {index}")).collect();
    let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
    for (partition, compression) in (0..).zip(ALL) {
        let bytes = batch(&sent, compression, None);
        for round in 0..2 {
            let answer = client.produce("t", partition, bytes.clone()).await;
            assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
            assert_eq!(answer.base_offset, round * 200);
            assert_eq!((answer.log_append_time_ms, answer.log_start_offset), (-1, 0));
        }
        let data = client.fetch("t", partition, 0).await;
        let fetched = data.records.unwrap();
        let first = RecordBatchView::parse(&fetched).unwrap();
        assert_eq!(first.header().attributes.compression(), compression);
        // Everything the CRC covers is as the producer made it.
        assert_eq!(&first.bytes()[ATTRIBUTES_AT..], &bytes[ATTRIBUTES_AT..]);
        assert_eq!(data.high_watermark, 400);
        let expected: Vec<_> = (0..).zip(sent.iter().chain(&sent).map(|&v| v.to_owned())).collect();
        assert_eq!(values(&Some(fetched), 0), expected, "{}", compression.name());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn all_versions_are_answered_in_their_form() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    for (offset, version) in (0..).zip(3..=12) {
        let request = produce_request("t", 0, plain(&["x"]), 1);
        let response = client.call(&request, version).await;
        let answer = only(only(response.responses).partition_responses);
        assert_eq!((answer.error_code, answer.base_offset), (0, offset), "version {version}");
        let refused = produce_request("nowhere", 0, plain(&["x"]), 1);
        let response = client.call(&refused, version).await;
        let answer = only(only(response.responses).partition_responses);
        assert_eq!(answer.error_code, ResponseError::UnknownTopicOrPartition.code());
    }
    for version in 0..=5 {
        let response = client
            .call(&InitProducerIdRequest::default().with_transactional_id(None), version)
            .await;
        let refused = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text("mine"))));
        let error = client.call(&refused, version).await.error_code;
        assert_eq!((response.error_code, error), (0, 53), "version {version}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn acks_0_is_stored_and_not_answered() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.send(&produce_request("t", 0, plain(&["silent"]), 0), 9).await;
    // The answer that comes next is that of the next request.
    let answer = client.produce("t", 0, plain(&["loud"])).await;
    assert_eq!(answer.base_offset, 1);
    let data = client.fetch("t", 0, 0).await;
    assert_eq!(values(&data.records, 0), [(0, "silent".into()), (1, "loud".into())]);
    // What cannot be stored ends the connection: there is no other way to tell.
    client.send(&produce_request("nowhere", 0, plain(&["x"]), 0), 9).await;
    assert!(client.is_closed().await);
    gateway.stop().await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_with_code_and_sentence() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let small = TopicConfig { max_message_bytes: 100, ..TopicConfig::default() };
    gateway.topic_with("small", 1, small).await;
    let compacted =
        TopicConfig { cleanup_policy: CleanupPolicy::Compact, ..TopicConfig::default() };
    gateway.topic_with("compacted", 1, compacted).await;
    let mut client = gateway.client().await;

    let good = plain(&["one", "two"]);
    let damaged = {
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let old = {
        let mut bytes = good.clone();
        bytes[MAGIC_AT] = 1;
        bytes
    };
    let transactional = {
        let mut bytes = good.clone();
        bytes[ATTRIBUTES_AT + 1] |= 1 << 4;
        let crc = crc32c_of(&bytes);
        bytes[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let keyless = {
        let mut builder = edge_wire::RecordBatchBuilder::new();
        builder.start(edge_wire::Offset(0), 0);
        builder.push(0, None, Some(b"x"), &[]);
        let mut out = Vec::new();
        builder.finish(None, Compression::None, None, &mut out).unwrap();
        out
    };
    for (topic, partition, bytes, error) in [
        ("nowhere", 0, good.clone(), ResponseError::UnknownTopicOrPartition),
        ("t", 1, good.clone(), ResponseError::UnknownTopicOrPartition),
        ("t", -1, good.clone(), ResponseError::UnknownTopicOrPartition),
        ("t", 0, damaged, ResponseError::CorruptMessage),
        ("t", 0, Vec::new(), ResponseError::CorruptMessage),
        ("t", 0, old, ResponseError::UnsupportedForMessageFormat),
        ("t", 0, [good.clone(), good.clone()].concat(), ResponseError::InvalidRecord),
        ("t", 0, transactional, ResponseError::InvalidRecord),
        ("small", 0, good.clone(), ResponseError::MessageTooLarge),
        ("compacted", 0, keyless, ResponseError::InvalidRecord),
    ] {
        let answer = client.produce(topic, partition, bytes).await;
        assert_eq!(answer.error_code, error.code(), "{topic} {partition} {error:?}");
        assert_eq!(answer.base_offset, -1);
        assert!(!answer.error_message.unwrap().is_empty());
    }
    // Nothing of it was stored, and the connection still works.
    assert_eq!(client.produce("t", 0, good).await.base_offset, 0);
    gateway.stop().await;
}

fn crc32c_of(batch: &[u8]) -> u32 {
    // Through the crate under test's own writer: a batch that is valid but for its flags.
    let view = RecordBatchView::parse(batch).unwrap();
    view.verify_crc().unwrap_err().computed
}

#[tokio::test]
async fn a_batch_that_unpacks_to_more_than_the_limit_is_too_large() {
    let directory = directory();
    let options = edge_kafka::KafkaOptions {
        unpacked_bytes_max: 10_000,
        ..edge_kafka::KafkaOptions::default()
    };
    let gateway = Gateway::start_with(directory.path(), options).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let zeros = "0".repeat(20_000);
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let answer = client.produce("t", 0, batch(&[&zeros], compression, None)).await;
        assert_eq!(answer.error_code, ResponseError::MessageTooLarge.code());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn wrong_acks_and_transactions_are_refused() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let acks = produce_request("t", 0, plain(&["x"]), 2);
    let response = client.call(&acks, 9).await;
    let answer = only(only(response.responses).partition_responses);
    assert_eq!(answer.error_code, ResponseError::InvalidRequiredAcks.code());

    let transaction = produce_request("t", 0, plain(&["x"]), -1)
        .with_transactional_id(Some(TransactionalId(text("mine"))));
    let response = client.call(&transaction, 9).await;
    let answer = only(only(response.responses).partition_responses);
    assert_eq!(answer.error_code, ResponseError::InvalidRequest.code());
    assert!(answer.error_message.unwrap().contains("transactions"));

    let request =
        InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("mine"))));
    assert_ne!(client.call(&request, 4).await.error_code, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_second_batch_for_a_partition_in_one_request_is_refused() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 2).await;
    let mut client = gateway.client().await;
    let mut request = produce_request("t", 0, plain(&["a"]), -1);
    let more = [0, 1].map(|partition| {
        let bytes = Some(plain(&["b"]).into());
        PartitionProduceData::default().with_index(partition).with_records(bytes)
    });
    request.topic_data[0].partition_data.extend(more);
    let answers = only(client.call(&request, 9).await.responses).partition_responses;
    let codes: Vec<_> = answers.iter().map(|answer| answer.error_code).collect();
    assert_eq!(codes, [0, ResponseError::InvalidRequest.code(), 0]);
    gateway.stop().await;
}

#[tokio::test]
async fn requests_in_flight_are_answered_in_order_and_stored_in_order() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let mut ids = Vec::new();
    for index in 0..100 {
        let bytes = plain(&[&index.to_string()]);
        ids.push(client.send(&produce_request("t", 0, bytes, -1), 9).await);
    }
    for (offset, id) in (0..).zip(ids) {
        let response = client.receive::<ProduceRequest>(9, id).await;
        assert_eq!(only(only(response.responses).partition_responses).base_offset, offset);
    }
    let data = client.fetch("t", 0, 0).await;
    let expected: Vec<_> = (0..100u64).map(|index| (index, index.to_string())).collect();
    assert_eq!(values(&data.records, 0), expected);
    gateway.stop().await;
}

#[tokio::test]
async fn a_resent_batch_is_stored_once() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let id = producer_id(&mut client).await;
    let first = batch(&["a", "b"], Compression::Zstd, stamp(id, 0));
    let second = batch(&["c"], Compression::None, stamp(id, 2));
    for (bytes, base_offset) in [(&first, 0), (&second, 2), (&first, 0), (&second, 2)] {
        let answer = client.produce("t", 0, bytes.clone()).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, base_offset));
    }
    let gap = batch(&["e"], Compression::None, stamp(id, 4));
    let answer = client.produce("t", 0, gap).await;
    assert_eq!(answer.error_code, ResponseError::OutOfOrderSequenceNumber.code());
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 3);
    gateway.stop().await;
}

#[tokio::test]
async fn sequences_and_producer_ids_survive_a_restart() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    let id = producer_id(&mut client).await;
    let first = batch(&["a", "b"], Compression::Lz4, stamp(id, 0));
    assert_eq!(client.produce("t", 0, first.clone()).await.error_code, 0);
    gateway.stop().await;

    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    let answer = client.produce("t", 0, first).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    let second = batch(&["c"], Compression::Lz4, stamp(id, 2));
    assert_eq!(client.produce("t", 0, second).await.base_offset, 2);
    assert_ne!(producer_id(&mut client).await, id, "an id is never given out twice");
    let data = client.fetch("t", 0, 0).await;
    let expected = [(0, "a".to_owned()), (1, "b".to_owned()), (2, "c".to_owned())];
    assert_eq!(values(&data.records, 0), expected);
    gateway.stop().await;
}

#[tokio::test]
async fn a_topic_may_want_our_time() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let config =
        TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    gateway.topic_with("t", 1, config).await;
    let mut client = gateway.client().await;
    let answer = client.produce("t", 0, batch(&["a"], Compression::Gzip, None)).await;
    assert_eq!(answer.error_code, 0);
    assert!(answer.log_append_time_ms > 1_000_000_000_000);
    let records = client.fetch("t", 0, 0).await.records.unwrap();
    let fetched = RecordBatchView::parse(&records).unwrap();
    fetched.verify_crc().unwrap();
    assert_eq!(
        fetched.header().attributes.timestamp_type(),
        edge_wire::TimestampType::LogAppendTime
    );
    assert_eq!(fetched.header().max_timestamp, answer.log_append_time_ms);
    gateway.stop().await;
}

#[tokio::test]
async fn partitions_of_two_lanes_are_answered_together() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let spec = edge_engine::TopicSpec {
        name: "b".to_owned(),
        partitions: 1,
        lane: Some("bulk".to_owned()),
        config: TopicConfig::default(),
    };
    gateway.engine.create_topic(spec).await.unwrap();
    let mut client = gateway.client().await;
    let mut request = produce_request("t", 0, plain(&["one"]), -1);
    request.topic_data.extend(produce_request("b", 0, plain(&["two"]), -1).topic_data);
    let answers = client.call(&request, 9).await.responses;
    assert!(answers.iter().all(|topic| topic.partition_responses[0].error_code == 0));

    let mut fetch = fetch_request("t", 0, 0);
    fetch.topics.extend(fetch_request("b", 0, 0).topics);
    let topics = client.call(&fetch, 11).await.responses;
    let found: Vec<_> = topics.iter().map(|t| values(&t.partitions[0].records, 0)).collect();
    assert_eq!(found, [[(0, "one".to_owned())], [(0, "two".to_owned())]]);
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_lane_refuses_with_what_clients_retry_and_takes_records_again() {
    let directory = directory();
    let gateway = Gateway::start_small(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    // Text that does not compress well: the lane is to be full soon.
    let mut state = 88_172_645_463_325_252u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    let value: String = (0..1_024).map(|_| word()).collect();
    let id = producer_id(&mut client).await;
    let request = |sequence| {
        let batch = batch(&[&value], Compression::None, stamp(id, sequence));
        produce_request("t", 0, batch, -1).with_timeout_ms(400)
    };
    let full = ResponseError::KafkaStorageError.code();
    // Half of its timeout a batch is held, then it is given back, whether the lane had it in its hands or not.
    let mut stored = 0;
    let code = loop {
        let response = client.call(&request(stored), 9).await;
        let code = only(only(response.responses).partition_responses).error_code;
        if code != 0 {
            break code;
        }
        stored += 1;
    };
    assert_eq!(code, full);
    let lane = gateway.engine.lane_by_name("normal").unwrap();
    assert_eq!(lane.refused_records(), 1);
    // acks=0 is not held, as QoS 0 is not, and the connection goes on.
    client.send(&produce_request("t", 0, plain(&["silent"]), 0), 9).await;
    let response = client.call(&request(stored), 9).await;
    assert_eq!(only(only(response.responses).partition_responses).error_code, full);
    assert_eq!((lane.refused_records(), lane.dropped_records()), (2, 1));

    // What is there can still be read.
    let held = client.fetch("t", 0, 0).await;
    assert!(!values(&held.records, 0).is_empty());

    // Held, and then there is room: the same sequence is taken, once.
    let id = client.send(&request(stored).with_timeout_ms(30_000), 9).await;
    lane.handle_upstream(lane.reader().end());
    let response = client.receive::<ProduceRequest>(9, id).await;
    let answer = only(only(response.responses).partition_responses);
    assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(stored)));
    let response = client.call(&request(stored), 9).await;
    let again = only(only(response.responses).partition_responses);
    assert_eq!((again.error_code, again.base_offset), (0, i64::from(stored)), "recognised");
    gateway.stop().await;
}

#[tokio::test]
async fn with_an_interval_the_answer_runs_ahead_of_the_sync_and_the_sync_follows() {
    for acks in [1, -1] {
        let directory = directory();
        let gateway = Gateway::start_with_interval(directory.path(), 400).await;
        gateway.topic("t", 1).await;
        let mut client = gateway.client().await;
        let response = client.call(&produce_request("t", 0, plain(&["early"]), acks), 9).await;
        let answer = only(only(response.responses).partition_responses);
        assert_eq!((answer.error_code, answer.base_offset), (0, 0));
        // Nobody reads it before it is durable, and nothing but the interval makes it so.
        let lane = gateway.engine.lane_by_name("normal").unwrap();
        let stream = gateway.engine.topic("t").unwrap().streams()[0];
        let durable_end = || lane.reader().bounds(stream).unwrap().durable_end.0;
        let mut commits = lane.commits();
        assert_eq!(durable_end(), 0, "acks = {acks}: the answer came before the sync");
        while durable_end() == 0 {
            commits.changed().await.unwrap();
        }
        gateway.stop().await;
    }
}

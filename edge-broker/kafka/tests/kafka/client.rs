//! A Kafka client in a few lines: what it sends and receives is plain to see.

use std::net::SocketAddr;

use bytes::Bytes;
use edge_wire::{
    Compression, HeadersBuilder, Offset, ProducerStamp, RecordBatchBuilder, RecordBatchView,
    Records,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, FetchRequest, ListOffsetsRequest, ProduceRequest, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    next_id: i32,
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A request as it goes on the wire.
pub(crate) fn framed<R: Request>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    let key = ApiKey::try_from(R::KEY).unwrap();
    let mut out = vec![0; 4];
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(text("test")))
        .encode(&mut out, key.request_header_version(version))
        .unwrap();
    request.encode(&mut out, version).unwrap();
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap(), next_id: 1 }
    }

    /// Sends without waiting; gives the correlation id.
    pub(crate) async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        self.socket.write_all(&framed(request, version, id)).await.unwrap();
        id
    }

    /// The next answer; it must be that of `id`.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16, id: i32) -> R::Response {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).await.unwrap();
        let mut body = vec![0; i32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut body).await.unwrap();
        let mut body = Bytes::from(body);
        let key = ApiKey::try_from(R::KEY).unwrap();
        let header_version = key.response_header_version(version);
        let header = ResponseHeader::decode(&mut body, header_version).unwrap();
        assert_eq!(header.correlation_id, id, "answers come in the order of the requests");
        let response = R::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty());
        response
    }

    pub(crate) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version).await;
        self.receive::<R>(version, id).await
    }

    /// Whether the other side has closed the connection, all answers read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.socket.read(&mut byte).await, Ok(0) | Err(_))
    }

    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
    ) -> PartitionProduceResponse {
        let response = self.call(&produce_request(topic, partition, batch, -1), 9).await;
        only(only(response.responses).partition_responses)
    }

    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: u64,
    ) -> PartitionData {
        let response = self.call(&fetch_request(topic, partition, offset), 11).await;
        assert_eq!(response.error_code, 0);
        assert_eq!(response.session_id, 0);
        only(only(response.responses).partitions)
    }

    pub(crate) async fn offset_of(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> ListOffsetsPartitionResponse {
        self.offset_in_version(topic, partition, timestamp, 9).await
    }

    pub(crate) async fn offset_in_version(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
        version: i16,
    ) -> ListOffsetsPartitionResponse {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic =
            ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        only(only(self.call(&request, version).await.topics).partitions)
    }
}

pub(crate) fn only<T>(mut all: Vec<T>) -> T {
    assert_eq!(all.len(), 1);
    all.pop().unwrap()
}

pub(crate) fn produce_request(
    topic: &str,
    partition: i32,
    batch: Vec<u8>,
    acks: i16,
) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(Bytes::from(batch)));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

pub(crate) fn fetch_request(topic: &str, partition: i32, offset: u64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset as i64)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

/// A batch with these values, keys `k0`, `k1` and so on, one header, timestamps from 1,000 in steps of 10 ms.
pub(crate) fn batch(
    values: &[&str],
    compression: Compression,
    producer: Option<ProducerStamp>,
) -> Vec<u8> {
    let mut headers = HeadersBuilder::new();
    headers.push("mqtt.topic", Some(b"plant/1"));
    let headers = headers.finish();
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), 1_000);
    for (index, value) in values.iter().enumerate() {
        let key = format!("k{index}");
        let timestamp = 1_000 + 10 * index as i64;
        builder.push(timestamp, Some(key.as_bytes()), Some(value.as_bytes()), &headers);
    }
    let mut out = Vec::new();
    builder.finish(producer, compression, None, &mut out).unwrap();
    out
}

pub(crate) fn plain(values: &[&str]) -> Vec<u8> {
    batch(values, Compression::None, None)
}

/// Offset and value of every record from `from` on in fetched bytes; every CRC is checked.
pub(crate) fn values(records: &Option<Bytes>, from: u64) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    let mut rest: &[u8] = records.as_deref().unwrap_or_default();
    while !rest.is_empty() {
        let batch = RecordBatchView::parse(rest).unwrap();
        rest = &rest[batch.bytes().len()..];
        batch.verify_crc().unwrap();
        let mut scratch = Vec::new();
        let section = batch.unpack(1 << 24, &mut scratch).unwrap();
        for record in Records::new(section, batch.header().record_count) {
            let record = record.unwrap();
            let offset = batch.header().base_offset.0 + record.offset_delta as u64;
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            if offset >= from {
                all.push((offset, value));
            }
        }
    }
    all
}

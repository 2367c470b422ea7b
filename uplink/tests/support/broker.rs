//! A fake Kafka over real TCP: one node, topics in memory, producer state as Kafka keeps it, and faults on demand.
//! What it holds survives being stopped and started.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "support: each user takes a part, and a panic is a failed test"
)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use edge_wire::RecordBatchView;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What survives a restart.
#[derive(Default)]
pub struct Disk {
    pub topics: BTreeMap<String, Vec<Partition>>,
    next_producer: i64,
    pub duplicates: usize,
    /// Produce requests that are carried out but whose answer is lost with the connection.
    pub lose_answers: usize,
    /// Nothing is answered.
    pub is_stalled: bool,
    /// Code for topics that may not be created.
    pub create_code: i16,
    /// Code for Produce, by topic.
    pub produce_codes: HashMap<String, i16>,
}

/// One partition: batches with their final offsets.
#[derive(Default)]
pub struct Partition {
    pub batches: Vec<(u64, Bytes)>,
    pub end: u64,
    producers: HashMap<u64, VecDeque<(i32, i32)>>,
}

/// A running broker; dropping it cuts all connections.
pub struct Broker {
    pub port: u16,
    pub disk: Arc<Mutex<Disk>>,
    _tasks: JoinSet<()>,
}

impl Broker {
    /// On a free port, with nothing.
    pub async fn start() -> Self {
        Self::start_on(0, Arc::default()).await
    }

    /// On a port, with what an earlier one left.
    pub async fn start_on(port: u16, disk: Arc<Mutex<Disk>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&disk);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, port, Arc::clone(&shared)));
            }
        });
        Self { port, disk, _tasks: tasks }
    }

    pub fn address(&self) -> Vec<String> {
        vec![format!("127.0.0.1:{}", self.port)]
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
}

impl Disk {
    /// All values of a topic's partition, in order.
    pub fn values(&self, topic: &str, partition: usize) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        let Some(found) = self.topics.get(topic).and_then(|found| found.get(partition)) else {
            return values;
        };
        for (_, batch) in &found.batches {
            let view = RecordBatchView::parse(batch).unwrap();
            let mut scratch = Vec::new();
            let section = view.unpack(1 << 26, &mut scratch).unwrap();
            for record in edge_wire::Records::new(section, view.header().record_count) {
                values.push(record.unwrap().value.unwrap().to_vec());
            }
        }
        values
    }

    fn create(&mut self, topic: &str, partitions: i32) -> i16 {
        if self.create_code != 0 {
            return self.create_code;
        }
        if self.topics.contains_key(topic) {
            return 36;
        }
        let partitions = (0..partitions.max(1)).map(|_| Partition::default()).collect();
        self.topics.insert(topic.to_owned(), partitions);
        0
    }

    fn produce(&mut self, topic: &str, partition: i32, batch: &Bytes) -> (i16, i64) {
        if let Some(code) = self.produce_codes.get(topic) {
            return (*code, -1);
        }
        let Some(found) =
            self.topics.get_mut(topic).and_then(|found| found.get_mut(partition as usize))
        else {
            return (3, -1);
        };
        let view = RecordBatchView::parse(batch).unwrap();
        if view.verify_crc().is_err() || view.bytes().len() != batch.len() {
            return (2, -1);
        }
        let header = *view.header();
        if let Some(stamp) = header.producer {
            let last =
                (stamp.base_sequence as i64 + i64::from(header.record_count) - 1) as i32 & i32::MAX;
            let known = found.producers.entry(stamp.id.0).or_default();
            if known.contains(&(stamp.base_sequence, last)) {
                self.duplicates += 1;
                return (0, -1);
            }
            if known
                .back()
                .is_some_and(|(_, before)| stamp.base_sequence != before.wrapping_add(1) & i32::MAX)
            {
                return (45, -1);
            }
            known.push_back((stamp.base_sequence, last));
            if known.len() > 5 {
                known.pop_front();
            }
        }
        let base = found.end;
        let mut stored = batch.to_vec();
        edge_wire::record_batch::set_base_offset(&mut stored, edge_wire::Offset(base));
        found.batches.push((base, Bytes::from(stored)));
        found.end += u64::from(header.record_count);
        (0, base as i64)
    }
}

async fn serve(mut stream: TcpStream, port: u16, disk: Arc<Mutex<Disk>>) {
    let _ = stream.set_nodelay(true);
    loop {
        let Ok(length) = stream.read_u32().await else { return };
        let mut frame = vec![0; length as usize];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        if disk.lock().unwrap().is_stalled {
            std::future::pending::<()>().await;
        }
        match answer(Bytes::from(frame), port, &disk) {
            Some(answer) if stream.write_all(&answer).await.is_ok() => {}
            _ => return,
        }
    }
}

/// The whole answer; `None` closes the connection.
fn answer(mut frame: Bytes, port: u16, disk: &Mutex<Disk>) -> Option<Bytes> {
    let mut peek = frame.clone();
    let (key, version) = (peek.get_i16(), peek.get_i16());
    let api = ApiKey::try_from(key).unwrap();
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version)).unwrap();
    let mut disk = disk.lock().unwrap();
    let reply = Reply { correlation: header.correlation_id, version };
    Some(match api {
        ApiKey::ApiVersions => {
            let keys =
                [(0, 3, 9), (1, 4, 12), (2, 1, 7), (3, 4, 12), (18, 0, 3), (19, 2, 7), (22, 0, 4)];
            let keys = keys.map(|(key, min, max)| {
                ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
            });
            reply.encode::<ApiVersionsRequest>(
                &ApiVersionsResponse::default().with_api_keys(keys.to_vec()),
            )
        }
        ApiKey::Metadata => {
            let request = MetadataRequest::decode(&mut frame, version).unwrap();
            let names: Vec<String> = match request.topics {
                Some(topics) => {
                    topics.into_iter().map(|topic| topic.name.unwrap().to_string()).collect()
                }
                None => disk.topics.keys().cloned().collect(),
            };
            let topics = names.into_iter().map(|name| {
                let mut topic = MetadataResponseTopic::default().with_name(Some(topic_name(&name)));
                match disk.topics.get(&name) {
                    None => topic.error_code = 3,
                    Some(found) => {
                        topic.partitions = (0..found.len())
                            .map(|index| {
                                MetadataResponsePartition::default()
                                    .with_partition_index(index as i32)
                                    .with_leader_id(BrokerId(1))
                                    .with_replica_nodes(vec![BrokerId(1)])
                                    .with_isr_nodes(vec![BrokerId(1)])
                            })
                            .collect();
                    }
                }
                topic
            });
            let broker = MetadataResponseBroker::default()
                .with_node_id(BrokerId(1))
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(i32::from(port));
            let response = MetadataResponse::default()
                .with_brokers(vec![broker])
                .with_controller_id(BrokerId(1))
                .with_topics(topics.collect());
            reply.encode::<MetadataRequest>(&response)
        }
        ApiKey::CreateTopics => {
            let request = CreateTopicsRequest::decode(&mut frame, version).unwrap();
            let results = request.topics.into_iter().map(|topic| {
                let code = disk.create(&topic.name, topic.num_partitions);
                CreatableTopicResult::default().with_name(topic.name).with_error_code(code)
            });
            reply.encode::<CreateTopicsRequest>(
                &CreateTopicsResponse::default().with_topics(results.collect()),
            )
        }
        ApiKey::InitProducerId => {
            disk.next_producer += 1;
            let response =
                InitProducerIdResponse::default().with_producer_id(ProducerId(disk.next_producer));
            reply.encode::<InitProducerIdRequest>(&response)
        }
        ApiKey::Produce => {
            let request = ProduceRequest::decode(&mut frame, version).unwrap();
            let mut responses = Vec::new();
            for topic in request.topic_data {
                let partitions = topic.partition_data.into_iter().map(|data| {
                    let (code, base) =
                        disk.produce(&topic.name, data.index, &data.records.unwrap());
                    PartitionProduceResponse::default()
                        .with_index(data.index)
                        .with_error_code(code)
                        .with_base_offset(base)
                });
                let partitions = partitions.collect();
                responses.push(
                    TopicProduceResponse::default()
                        .with_name(topic.name)
                        .with_partition_responses(partitions),
                );
            }
            if disk.lose_answers > 0 {
                disk.lose_answers -= 1;
                return None;
            }
            if request.acks == 0 {
                return Some(Bytes::new());
            }
            reply.encode::<ProduceRequest>(&ProduceResponse::default().with_responses(responses))
        }
        ApiKey::ListOffsets => {
            let request = ListOffsetsRequest::decode(&mut frame, version).unwrap();
            let topics = request.topics.into_iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|wanted| {
                    let found = &disk.topics[topic.name.as_str()][wanted.partition_index as usize];
                    let offset = if wanted.timestamp == -2 { 0 } else { found.end as i64 };
                    ListOffsetsPartitionResponse::default()
                        .with_partition_index(wanted.partition_index)
                        .with_offset(offset)
                });
                let partitions = partitions.collect();
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions)
            });
            reply.encode::<ListOffsetsRequest>(
                &ListOffsetsResponse::default().with_topics(topics.collect()),
            )
        }
        ApiKey::Fetch => {
            let request = FetchRequest::decode(&mut frame, version).unwrap();
            let topics = request.topics.into_iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|wanted| {
                    let found = &disk.topics[topic.topic.as_str()][wanted.partition as usize];
                    let mut records = BytesMut::new();
                    for (base, batch) in &found.batches {
                        let view = RecordBatchView::parse(batch).unwrap();
                        if base + u64::from(view.header().record_count) > wanted.fetch_offset as u64
                        {
                            records.extend_from_slice(batch);
                        }
                    }
                    let mut data = PartitionData::default()
                        .with_partition_index(wanted.partition)
                        .with_high_watermark(found.end as i64)
                        .with_records(Some(records.freeze()));
                    if wanted.fetch_offset as u64 > found.end {
                        data.error_code = 1;
                    }
                    data
                });
                let partitions = partitions.collect();
                FetchableTopicResponse::default()
                    .with_topic(topic.topic.clone())
                    .with_partitions(partitions)
            });
            reply.encode::<FetchRequest>(&FetchResponse::default().with_responses(topics.collect()))
        }
        _ => return None,
    })
}

struct Reply {
    correlation: i32,
    version: i16,
}

impl Reply {
    fn encode<R: Request>(&self, response: &R::Response) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32(0);
        ResponseHeader::default()
            .with_correlation_id(self.correlation)
            .encode(&mut out, R::Response::header_version(self.version))
            .unwrap();
        response.encode(&mut out, self.version).unwrap();
        let length = out.len() as u32 - 4;
        out[..4].copy_from_slice(&length.to_be_bytes());
        out.freeze()
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

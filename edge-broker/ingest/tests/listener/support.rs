//! A listener on a simulated disk, and clients that speak raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_config::{Config, Host, Overrides, Router};
use edge_engine::{Engine, EngineConfig, EventOwner, Holding, LaneSetup, TopicKey};
use edge_ingest::{Carrier, Door, IngestStats, MqttOptions, MqttServer, ServerHandle};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{GroupCompression, LaneConfig, Storage};
use edge_wire::Offset;
use edge_wire::headers::HeadersView;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::gate::{Gate, GatedStorage};

/// A guard against tests that hang, never part of what is tested.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) engine: Arc<Engine>,
    pub(crate) disk: SimStorage,
    pub(crate) syncs: Arc<Gate>,
    pub(crate) stats: Arc<IngestStats>,
    pub(crate) runtime: Runtime,
    address: SocketAddr,
    websocket: SocketAddr,
    pub(crate) handle: ServerHandle,
    shutdown: watch::Sender<bool>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

struct TestHost;

impl Host for TestHost {
    fn hostname(&self) -> String {
        "test".to_owned()
    }

    fn board(&self) -> boards::Profile {
        boards::load("x86-64-generic").unwrap()
    }

    fn available_bytes(&self, _: &Path) -> Option<u64> {
        Some(1 << 34)
    }
}

pub(crate) fn options() -> MqttOptions {
    MqttOptions::default()
}

fn lane(name: &str, queue_bytes: usize) -> LaneSetup {
    let log = LaneConfig {
        name: name.to_owned(),
        budget_bytes: 16 << 20,
        segment_bytes: 2 << 20,
        commit_window_us: 0,
        sync_allowance_per_second: 10_000,
        compression: GroupCompression::None,
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes, holding: Holding::default() }
}

pub(crate) fn engine_config(queue_bytes: usize) -> EngineConfig {
    EngineConfig {
        system: lane("system", 1 << 20),
        lanes: ["alarm", "normal", "bulk"].map(|name| lane(name, queue_bytes)).to_vec(),
        default_lane: "normal".to_owned(),
        lane_retentions: Default::default(),
        flash: edge_engine::FlashSetup::default(),
    }
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with("", options())
    }

    /// `routes` is a piece of configuration file.
    pub(crate) fn with(routes: &str, options: MqttOptions) -> Self {
        Self::with_queue(routes, options, 1 << 20)
    }

    pub(crate) fn with_queue(routes: &str, options: MqttOptions, queue_bytes: usize) -> Self {
        Self::with_engine(routes, options, engine_config(queue_bytes))
    }

    pub(crate) fn with_engine(routes: &str, options: MqttOptions, engine: EngineConfig) -> Self {
        Self::on(SimStorage::new(1), routes, options, engine)
    }

    /// Starts with what `disk` holds.
    pub(crate) fn on(
        disk: SimStorage,
        routes: &str,
        options: MqttOptions,
        engine: EngineConfig,
    ) -> Self {
        let config = Config::parse(routes, "test.toml", &Overrides::default(), &TestHost).unwrap();
        let router = Arc::new(Router::new(&config));
        let syncs = Arc::new(Gate::default());
        let storage: Arc<dyn Storage> =
            Arc::new(GatedStorage { disk: disk.clone(), gate: syncs.clone() });
        let keeper = options.sessions.clone().map(|keeper| keeper as Arc<dyn EventOwner>);
        let (engine, _) = Engine::open_with_owner(&storage, engine, None, keeper).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let web = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let websocket = web.local_addr().unwrap();
        let (shutdown, stop) = watch::channel(false);
        let stats = Arc::new(IngestStats::default());
        let server = MqttServer::new(engine.clone(), router, options, stats.clone());
        let handle = server.handle();
        let doors = vec![
            Door::tcp(listener),
            Door { listener: web, tls: None, carrier: Carrier::WebSocket },
        ];
        let serving = runtime.spawn(server.serve(doors, stop));
        Self {
            engine,
            disk,
            syncs,
            stats,
            runtime,
            address,
            websocket,
            handle,
            shutdown,
            serving: Some(serving),
        }
    }

    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream }
    }

    pub(crate) fn websocket_address(&self) -> SocketAddr {
        self.websocket
    }

    /// A connected MQTT 3.1.1 client.
    pub(crate) fn v4(&self, client_id: &str) -> Client {
        let mut client = self.client();
        client.send(&connect_v4(client_id, 0));
        assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        client
    }

    /// A connected MQTT 5 client.
    pub(crate) fn v5(&self, client_id: &str) -> Client {
        let mut client = self.client();
        client.send(&connect_v5(client_id));
        let connack = client.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        client
    }

    /// An MQTT 3.1.1 client without a clean session; says whether it was resumed.
    pub(crate) fn lasting_v4(&self, client_id: &str) -> (Client, bool) {
        let mut client = self.client();
        let mut connect = connect_v4(client_id, 0);
        connect[9] = 0;
        client.send(&connect);
        let connack = client.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        (client, connack[2] == 1)
    }

    /// Publishes once to every topic and waits, so that the topics of their routes are there.
    pub(crate) fn warm_up(&self, topics: &[&str]) {
        let mut client = self.v4("warm-up");
        for topic in topics {
            client.send(&publish(topic, 1, b"warm-up"));
            assert_eq!(client.packet(), [0x40, 2, 0, 1]);
        }
        client.send(&[0xE0, 0]);
        assert!(client.closed());
    }

    /// Starts the shutdown.
    pub(crate) fn stop(&self) {
        self.shutdown.send(true).unwrap();
    }

    /// Waits until the listener has returned.
    pub(crate) fn stopped(&mut self) {
        let serving = self.serving.take().expect("stopped once");
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, serving).await });
        ended.expect("the listener ends").expect("no panic").expect("no error");
    }

    /// All records of a topic, by partition and offset.
    /// Makes a setting of a topic.
    pub(crate) fn alter(&self, topic: &str, name: &str, value: &str) {
        let key = TopicKey::from_name(name).unwrap();
        let altered = self.engine.alter_topic(topic, |config| key.set(config, value));
        self.runtime.block_on(altered).unwrap();
    }

    pub(crate) fn records(&self, topic: &str) -> Vec<Stored> {
        records_of(&self.engine, topic)
    }

    /// What a power cut at this moment would leave of a topic when nothing unsynced survives.
    pub(crate) fn values_after_power_cut(&self, topic: &str) -> Vec<Vec<u8>> {
        let storage: Arc<dyn Storage> = Arc::new(self.disk.crash_image(CrashPolicy::DropAll, 1));
        let (engine, _) = Engine::open(&storage, engine_config(1 << 20)).unwrap();
        let records = records_of(&engine, topic);
        engine.shut_down();
        records.into_iter().map(|record| record.value).collect()
    }
}

fn records_of(engine: &Engine, topic: &str) -> Vec<Stored> {
    let topic = engine.topic(topic).expect("the topic is there");
    let reader = engine.lane_of(&topic).reader();
    let mut found = Vec::new();
    for (partition, stream) in topic.streams().iter().enumerate() {
        let from = reader.bounds(*stream).map_or(Offset(0), |bounds| bounds.log_start);
        reader
            .read_batches(*stream, from, &mut |batch| {
                batch
                    .for_each_record(&mut |record| {
                        let headers = HeadersView::parse(record.headers_section).unwrap();
                        found.push(Stored {
                            partition,
                            timestamp_ms: record.timestamp_ms,
                            key: record.key.map(<[u8]>::to_vec),
                            value: record.value.unwrap_or_default().to_vec(),
                            headers: headers
                                .iter()
                                .map(|header| {
                                    let value = header.value.unwrap_or_default().to_vec();
                                    (header.key.to_owned(), value)
                                })
                                .collect(),
                        });
                    })
                    .unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    found
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.syncs.open();
        let _gone = self.shutdown.send(true);
        if let Some(serving) = self.serving.take() {
            let _ended =
                self.runtime.block_on(async { tokio::time::timeout(PATIENCE, serving).await });
        }
        self.engine.shut_down();
    }
}

/// A record as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) partition: usize,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        self.try_packet().expect("a packet, not the end")
    }

    fn try_packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0];
        self.read_exact(&mut packet)?;
        let mut length = 0_usize;
        for shift in 0.. {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            packet.push(byte[0]);
            length |= usize::from(byte[0] & 0x7F) << (7 * shift);
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.read_exact(&mut body)?;
        packet.extend_from_slice(&body);
        Some(packet)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("nothing arrived")
            }
            Err(_end) => None,
        }
    }

    /// Everything sent before this was acted on, and nothing but the answer has come back.
    pub(crate) fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.packet(), [0xD0, 0]);
    }

    /// The next packet, or nothing if the connection ends.
    pub(crate) fn rest_or_packet(&mut self) -> Vec<u8> {
        self.try_packet().unwrap_or_default()
    }

    /// Everything until the connection ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.try_packet()).flatten().collect()
    }

    /// The connection ends without another byte.
    pub(crate) fn closed(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Subscribes (3.1.1) and waits for the SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 1];
        put(&mut body, filter.as_bytes());
        body.push(qos);
        self.send(&packet(0x82, &body));
        assert_eq!(self.packet(), [0x90, 3, 0, 1, qos]);
    }

    /// Subscribes (5) and waits for the SUBACK.
    pub(crate) fn subscribe_v5(&mut self, filter: &str, options: u8, properties: &[u8]) {
        let mut body = vec![0, 1];
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend_from_slice(properties);
        put(&mut body, filter.as_bytes());
        body.push(options);
        self.send(&packet(0x82, &body));
        assert_eq!(self.packet(), [0x90, 4, 0, 1, 0, options & 3]);
    }
}

pub(crate) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

pub(crate) fn connect_v4(client_id: &str, keep_alive_s: u16) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\x02".to_vec();
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    put(&mut body, client_id.as_bytes());
    packet(0x10, &body)
}

pub(crate) fn connect_v5(client_id: &str) -> Vec<u8> {
    connect_v5_with(client_id, true, &[], None)
}

/// CONNECT of 5. The will: topic, delay in seconds, payload.
pub(crate) fn connect_v5_with(
    client_id: &str,
    clean_start: bool,
    properties: &[u8],
    will: Option<(&str, u32, &[u8])>,
) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05".to_vec();
    body.push(u8::from(clean_start) << 1 | u8::from(will.is_some()) << 2);
    body.extend_from_slice(&[0, 0, u8::try_from(properties.len()).unwrap()]);
    body.extend_from_slice(properties);
    put(&mut body, client_id.as_bytes());
    if let Some((topic, delay_s, payload)) = will {
        body.extend_from_slice(&[5, 0x18]);
        body.extend_from_slice(&delay_s.to_be_bytes());
        put(&mut body, topic.as_bytes());
        put(&mut body, payload);
    }
    packet(0x10, &body)
}

/// PUBLISH of 3.1.1 with QoS 2.
pub(crate) fn publish_qos2(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = publish(topic, packet_id, payload);
    packet[0] = 0x34;
    packet
}

/// PUBLISH of 3.1.1; packet identifier 0 means QoS 0.
pub(crate) fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, topic.as_bytes());
    if packet_id > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(if packet_id > 0 { 0x32 } else { 0x30 }, &body)
}

/// PUBLISH of 5; packet identifier 0 means QoS 0.
pub(crate) fn publish_v5(
    topic: &str,
    packet_id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, topic.as_bytes());
    if packet_id > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    packet(if packet_id > 0 { 0x32 } else { 0x30 }, &body)
}

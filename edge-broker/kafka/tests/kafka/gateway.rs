//! A gateway to test against: engine, listener, address.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use edge_engine::{Engine, EngineConfig, Holding, LaneSetup, TopicConfig, TopicSpec};
use edge_kafka::KafkaOptions;
use edge_log::{Durability, FileStorage, LaneConfig, Storage};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;

pub(crate) struct Gateway {
    pub(crate) engine: Arc<Engine>,
    pub(crate) address: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn lane(name: &str) -> LaneSetup {
    let log = LaneConfig {
        name: name.to_owned(),
        budget_bytes: 32 << 20,
        segment_bytes: 4 << 20,
        commit_window_us: 2_000,
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes: 8 << 20, holding: Holding::default() }
}

impl Gateway {
    pub(crate) async fn start(directory: &Path) -> Self {
        Self::start_with(directory, KafkaOptions::default()).await
    }

    pub(crate) async fn start_with(directory: &Path, options: KafkaOptions) -> Self {
        Self::start_with_lane(directory, options, lane("normal")).await
    }

    /// A gateway whose `normal` lane is as small as a lane can be and keeps what is not upstream.
    pub(crate) async fn start_small(directory: &Path) -> Self {
        let mut small = lane("normal");
        small.log.segment_bytes = 64 << 10;
        small.log.budget_bytes = 0;
        small.log.protect_unsent = true;
        Self::start_with_lane(directory, KafkaOptions::default(), small).await
    }

    /// A gateway that acknowledges ahead of the sync.
    pub(crate) async fn start_with_interval(directory: &Path, ms: u32) -> Self {
        let mut early = lane("normal");
        early.log.durability = Durability::Interval { ms };
        Self::start_with_lane(directory, KafkaOptions::default(), early).await
    }

    async fn start_with_lane(directory: &Path, options: KafkaOptions, normal: LaneSetup) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(directory).unwrap());
        let config = EngineConfig {
            system: lane("system"),
            lanes: vec![normal, lane("bulk")],
            default_lane: "normal".to_owned(),
            lane_retentions: Default::default(),
            flash: edge_engine::FlashSetup::default(),
        };
        let (engine, _report) = Engine::open(&storage, config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(edge_kafka::serve(listener, engine.clone(), options, stopped));
        Self { engine, address, stop, served }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) async fn topic(&self, name: &str, partitions: u32) {
        self.topic_with(name, partitions, TopicConfig::default()).await;
    }

    pub(crate) async fn topic_with(&self, name: &str, partitions: u32, config: TopicConfig) {
        let spec = TopicSpec { name: name.to_owned(), partitions, lane: None, config };
        self.engine.create_topic(spec).await.unwrap();
    }

    /// Tells the listener to stop, and waits for it; the engine keeps running.
    pub(crate) async fn stop_listening(&mut self) {
        self.stop.send(true).unwrap();
        (&mut self.served).await.unwrap().unwrap();
    }

    /// Stops all of it, in the order of a shutdown.
    pub(crate) async fn stop(mut self) {
        self.stop_listening().await;
        self.stop_engine().await;
    }

    /// Commits and closes the lanes.
    pub(crate) async fn stop_engine(&self) {
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || engine.shut_down()).await.unwrap();
    }
}

//! The engine as the uplink sees it: lanes to follow, a place for its progress.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge_config::{Compression, Config, HostPort, UplinkConfig as Settings};
use edge_engine::status::{Status, StoredValues, UplinkCounters};
use edge_engine::{Engine, LaneHandle, StoredEnds};
use edge_log::{ClockState, CopiedRead, CopiedStream, JournalPosition};
use edge_wire::{Offset, PartitionId, StreamId};
use tokio::sync::watch;
use uplink::client::{ClientOptions, Connecting, Connector, TcpConnector};
use uplink::core::naming::TopicTemplate;
use uplink::core::rebatch::{RebatchLimits, TimeLimits};
use uplink::core::replicator::{ReplicatorConfig, StreamInfo};
use uplink::core::resume::ResumeState;
use uplink::{
    LaneRead, LaneSource, ProgressStore, ReadLaneError, SaveError, SourceStream, Uplink,
    UplinkConfig, UplinkHandle, UplinkObserver,
};

/// Bytes of batches over which the link is given up unless one is acknowledged.
const WATCHDOG: Duration = Duration::from_secs(30);

/// Nothing that a gateway forwards is older than 2000-01-01T00:00:00Z: what says so comes from a sensor whose clock
/// stands at 1970, and Kafka would delete it at once.
const NO_TIME_BEFORE_MS: i64 = 946_684_800_000;
/// How far ahead of our clock a timestamp may be; Kafka takes an hour.
const AHEAD_MS_MAX: i64 = 30 * 60 * 1_000;

/// Starts the uplink, if the configuration has one. Call it inside the runtime.
pub(crate) fn start(engine: &Arc<Engine>, config: &Config) -> Option<UplinkHandle> {
    let settings = config.uplink.as_ref()?;
    // The first lane is the internal one.
    let lanes: Vec<Arc<LaneHandle>> = engine.lanes().iter().skip(1).cloned().collect();
    let park_segments_max = lanes.iter().map(|lane| park_segments_max(config, lane.name()));
    let uplink = uplink_config(settings, &config.gateway, park_segments_max.collect());
    let source = Lanes {
        engine: engine.clone(),
        lanes,
        partitions: settings.partitions,
        streams: Mutex::default(),
    };
    let store = Progress { engine: engine.clone() };
    Some(Uplink::spawn(source, store, uplink))
}

/// Adds what the uplink knows to a status.
pub(crate) fn add_status(uplink: &UplinkObserver, status: &mut Status) {
    let told = uplink.status();
    set_upstream_ends(status, &told.upstream_ends.into_iter().collect());
    told.link.clone_into(&mut status.link);
    let blocked = told.blocked.iter().map(|topic| {
        let overtaken = match topic.overtaken {
            0 => String::new(),
            streams => format!(
                "; {streams} of its streams held up half of their lane and give up their oldest unsent records"
            ),
        };
        format!("topic {}: {}{overtaken}", topic.topic, topic.reason)
    });
    status.uplink = Some(UplinkCounters {
        records: told.counters.acked_records,
        wire_bytes: told.counters.wire_bytes,
        possible_duplicates: told.counters.possible_duplicates,
        skipped: told.counters.skipped_records,
        lost: told.counters.gap_offsets,
        error: told.error.into_iter().chain(blocked).reduce(|all, one| format!("{all}; {one}")),
    });
}

/// How far the uplink had come, for streams whose lane is gone.
pub(crate) const STORED_ENDS: StoredEnds =
    StoredEnds { key: uplink::ENDS_KEY, decode: stored_ends };

fn stored_ends(bytes: &[u8]) -> Vec<(StreamId, Offset)> {
    let lanes = ResumeState::decode(bytes).map(|resume| resume.lanes).unwrap_or_default();
    let ends = lanes.iter().flat_map(|lane| &lane.ends);
    ends.map(|end| (StreamId(end.stream), Offset(end.end))).collect()
}

/// Adds how far a stopped gateway's streams are upstream, if it ever had an uplink.
pub(crate) fn add_stored(stored: &StoredValues, status: &mut Status) {
    let Some(Ok(resume)) = stored.get(uplink::ENDS_KEY).map(ResumeState::decode) else { return };
    let ends = resume.lanes.iter().flat_map(|lane| &lane.ends);
    set_upstream_ends(status, &ends.map(|end| (StreamId(end.stream), Offset(end.end))).collect());
}

fn set_upstream_ends(status: &mut Status, ends: &HashMap<StreamId, Offset>) {
    for entry in &mut status.streams {
        // Nothing was sent yet: what is there begins with offset 0.
        let end = entry.stream.and_then(|stream| ends.get(&stream)).map_or(0, |end| end.0);
        entry.upstream_end = Some(end.min(entry.durable_end));
    }
}

/// A topic that the upstream refuses may hold up half of its lane, no more.
fn park_segments_max(config: &Config, lane: &str) -> u64 {
    let half = |lane: &edge_config::Lane| lane.budget_bytes / lane.segment_bytes.max(1) / 2;
    config.lane(lane).map_or(u64::MAX, |lane| half(lane).max(1))
}

fn uplink_config(settings: &Settings, gateway: &str, park_segments_max: Vec<u64>) -> UplinkConfig {
    let (compression, level) = match settings.compression {
        Compression::None => (edge_wire::Compression::None, None),
        Compression::Zstd(level) => (edge_wire::Compression::Zstd, Some(i32::from(level))),
    };
    let limits = RebatchLimits {
        batch_bytes: settings.batch_bytes as usize,
        compression,
        level,
        ..RebatchLimits::default()
    };
    let client = ClientOptions {
        client_id: format!("edge-broker-{gateway}"),
        request_timeout: WATCHDOG,
        connector: match &settings.via {
            Some(via) => Arc::new(Via(via.clone())),
            None => Arc::new(TcpConnector),
        },
        ..ClientOptions::default()
    };
    let window_bytes = usize::try_from(settings.window_bytes).unwrap_or(usize::MAX);
    UplinkConfig {
        bootstrap: settings.bootstrap.iter().map(ToString::to_string).collect(),
        client,
        replicator: ReplicatorConfig {
            gateway: gateway.to_owned(),
            topic: TopicTemplate::parse(settings.topic.as_str())
                .expect("the configuration checks the same template"),
            create_topics: settings.create_topics,
            unacked_bytes_max: window_bytes,
            watchdog_us: u64::try_from(WATCHDOG.as_micros()).unwrap_or(u64::MAX),
            limits,
            park_segments_max,
            ..ReplicatorConfig::default()
        },
        round_bytes: window_bytes,
        linger: Duration::from_millis(u64::from(settings.linger_ms)),
    }
}

/// Reaches every broker through one address.
struct Via(HostPort);

impl Connector for Via {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> Connecting<'a> {
        TcpConnector.connect(&self.0.host, self.0.port)
    }
}

struct Lanes {
    engine: Arc<Engine>,
    lanes: Vec<Arc<LaneHandle>>,
    /// Partitions of topics that are made upstream, if not as many as here.
    partitions: Option<u32>,
    /// Looked up once; a stream never changes its topic.
    streams: Mutex<HashMap<StreamId, SourceStream>>,
}

impl LaneSource for Lanes {
    fn lanes(&self) -> Vec<String> {
        self.lanes.iter().map(|lane| lane.name().to_owned()).collect()
    }

    fn end(&self, lane: usize) -> JournalPosition {
        self.lanes.get(lane).map_or(JournalPosition::START, |lane| lane.reader().end())
    }

    fn read(
        &self,
        lane: usize,
        from: JournalPosition,
        max_bytes: usize,
    ) -> Result<LaneRead, ReadLaneError> {
        let Some(lane) = self.lanes.get(lane) else {
            return Err(ReadLaneError { reason: format!("there is no lane number {lane}") });
        };
        LaneRead::from_reader(&lane.reader(), from, max_bytes)
    }

    fn copied(&self, lane: usize, from: StreamId) -> Option<CopiedStream> {
        self.lanes.get(lane)?.reader().copied_stream(from)
    }

    fn read_copies(
        &self,
        lane: usize,
        stream: StreamId,
        range: Range<Offset>,
        max_bytes: usize,
    ) -> Result<CopiedRead, ReadLaneError> {
        let Some(lane) = self.lanes.get(lane) else {
            return Err(ReadLaneError { reason: format!("there is no lane number {lane}") });
        };
        let read = lane.reader().read_copied(stream, range, max_bytes);
        read.map_err(|error| ReadLaneError { reason: error.to_string() })
    }

    fn start(&self, lane: usize) -> JournalPosition {
        self.lanes.get(lane).map_or(JournalPosition::START, |lane| lane.reader().start())
    }

    fn commits(&self, lane: usize) -> watch::Receiver<u64> {
        match self.lanes.get(lane) {
            Some(lane) => lane.commits(),
            None => watch::channel(0).1,
        }
    }

    fn stream(&self, stream: StreamId) -> Option<SourceStream> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = streams.get(&stream) {
            return Some(known.clone());
        }
        for topic in self.engine.topics() {
            for (partition, id) in (0..).zip(topic.streams()) {
                let info = StreamInfo {
                    topic: topic.name().to_owned(),
                    partition: PartitionId(partition),
                    partition_count: self.partitions.unwrap_or(topic.partition_count()),
                };
                streams.insert(*id, SourceStream { info, is_internal: false });
            }
        }
        streams.get(&stream).cloned()
    }

    fn times(&self) -> TimeLimits {
        let now = self.engine.clock().read();
        TimeLimits {
            earliest_ms: NO_TIME_BEFORE_MS,
            // A sensor's clock may be right where ours is not yet.
            latest_ms: match now.state {
                ClockState::Unsynced => i64::MAX,
                _ => now.wall_us.div_euclid(1_000).saturating_add(AHEAD_MS_MAX),
            },
        }
    }

    fn wall_ms(&self) -> i64 {
        self.engine.clock().read().wall_us.div_euclid(1_000)
    }

    fn upstream(&self, lane: usize, through: JournalPosition) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.handle_upstream(through);
        }
    }

    fn durable_ends(&self, lane: usize) -> Vec<(StreamId, Offset)> {
        let Some(lane) = self.lanes.get(lane) else { return Vec::new() };
        let reader = lane.reader();
        let of_lane =
            |stream: &StreamId| reader.bounds(*stream).map(|bounds| (*stream, bounds.durable_end));
        let topics = self.engine.topics();
        let topics = topics.iter().filter(|topic| topic.lane() == lane.name());
        topics.flat_map(|topic| topic.streams().iter().filter_map(of_lane)).collect()
    }
}

struct Progress {
    engine: Arc<Engine>,
}

impl ProgressStore for Progress {
    async fn save(&self, key: Vec<u8>, bytes: Vec<u8>) -> Result<(), SaveError> {
        let saved = self.engine.put_value(key, bytes).await;
        saved.map_err(|error| SaveError { reason: error.to_string() })
    }

    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.engine.value(key)
    }
}

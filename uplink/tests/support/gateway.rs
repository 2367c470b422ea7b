//! A gateway for tests: one real lane in a directory, and a store in memory that survives "restarts".
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "support: each user takes a part, and a panic is a failed test"
)]

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use edge_log::{
    AppendError, ClockReading, Compaction, CopiedRead, CopiedStream, FileStorage, JournalPosition,
    Lane, LaneConfig, LaneReader, Retention, StreamDefinition, WhenFull,
};
use edge_wire::{Envelope, Offset, PartitionId, StreamId, TopicId};
use tokio::sync::watch;
use uplink::core::replicator::StreamInfo;
use uplink::{LaneRead, LaneSource, ProgressStore, ReadLaneError, SaveError, SourceStream};

/// The lane and its writer.
pub struct Gateway {
    lane: Lane,
    streams: Vec<StreamDefinition>,
    commits: watch::Sender<u64>,
    upstream: Arc<Mutex<JournalPosition>>,
    clock: AtomicU64,
    pub store: Store,
}

impl Gateway {
    pub fn open(dir: &Path, topic: &str, partitions: u32) -> Self {
        let config = LaneConfig {
            budget_bytes: 2 << 30,
            segment_bytes: 64 << 20,
            protect_unsent: true,
            ..LaneConfig::default()
        };
        Self::open_with(dir, topic, partitions, config)
    }

    /// A small lane of compacted topics; `protect_unsent`: an uplink is configured.
    pub fn open_compacted(dir: &Path, partitions: u32, protect_unsent: bool) -> Self {
        let config = LaneConfig {
            budget_bytes: 512 << 10,
            segment_bytes: 64 << 10,
            group_bytes_max: 8 << 10,
            when_full: WhenFull::DropOldest { unsent: false },
            protect_unsent,
            ..LaneConfig::default()
        };
        let mut gateway = Self::open_with(dir, "state", partitions, config);
        let compaction = Some(Compaction { tombstone_ms: 0 });
        for stream in gateway.streams.clone() {
            let retention = Retention { compaction, ..Retention::default() };
            gateway.lane.set_retention(stream.stream, retention);
        }
        gateway
    }

    fn open_with(dir: &Path, topic: &str, partitions: u32, config: LaneConfig) -> Self {
        let storage = FileStorage::open(dir).unwrap();
        let clock = ClockReading { entropy: 1, ..ClockReading::default() };
        let (mut lane, _) = Lane::open(Arc::new(storage), "lanes/normal", config, &clock).unwrap();
        let streams: Vec<_> = (0..partitions)
            .map(|partition| StreamDefinition {
                stream: StreamId(partition + 1),
                topic: topic.to_owned(),
                topic_id: TopicId([7; 16]),
                partition: PartitionId(partition),
                partition_count: partitions,
            })
            .collect();
        for stream in &streams {
            lane.define_stream(stream.clone());
        }
        Self {
            lane,
            streams,
            commits: watch::Sender::new(0),
            upstream: Arc::default(),
            clock: AtomicU64::new(1),
            store: Store::default(),
        }
    }

    /// Appends records round-robin and commits as groups fill up.
    pub fn append(&mut self, records: u64, value: impl Fn(u64) -> Vec<u8>) {
        self.append_keyed(records, |_| "machine-1".to_owned(), value);
    }

    /// The same with a key for each.
    pub fn append_keyed(
        &mut self,
        records: u64,
        key: impl Fn(u64) -> String,
        value: impl Fn(u64) -> Vec<u8>,
    ) {
        let mut envelopes: HashMap<String, Arc<Envelope>> = HashMap::new();
        // A real Kafka deletes what looks older than a week.
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        let timestamp_ms = since.as_millis() as i64;
        for number in 0..records {
            let stream = self.streams[(number % self.streams.len() as u64) as usize].stream;
            let (key, value) = (key(number), value(number));
            let made = || Arc::new(Envelope::new(Some(key.as_bytes()), &[0]));
            let envelope = Arc::clone(envelopes.entry(key.clone()).or_insert_with(made));
            loop {
                let envelope = self.lane.envelope(&envelope);
                match self.lane.append_record(stream, envelope, timestamp_ms, Some(&value)) {
                    Ok(_) => break,
                    Err(AppendError::GroupFull) => self.commit(),
                    Err(error) => panic!("{error}"),
                }
            }
            if self.lane.is_group_full() {
                self.commit();
            }
        }
        self.commit();
    }

    fn commit(&mut self) {
        let tick = self.clock.fetch_add(1, Ordering::Relaxed);
        let clock = ClockReading {
            entropy: tick.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..ClockReading::default()
        };
        self.lane.commit(&clock, tick, &mut ()).unwrap();
        while self.lane.maintain(&clock, tick).unwrap() {}
        self.commits.send_modify(|count| *count += 1);
    }

    pub fn source(&self) -> Source {
        Source {
            reader: self.lane.reader(),
            streams: self.streams.clone(),
            commits: self.commits.clone(),
            upstream: Arc::clone(&self.upstream),
        }
    }

    pub fn reader(&self) -> LaneReader {
        self.lane.reader()
    }

    pub fn end(&self) -> JournalPosition {
        self.lane.reader().end()
    }

    /// What retention has been told.
    pub fn upstream(&self) -> JournalPosition {
        *self.upstream.lock().unwrap()
    }

    pub fn durable_ends(&self) -> Vec<(StreamId, Offset)> {
        self.source().durable_ends(0)
    }
}

/// The reading side.
pub struct Source {
    reader: LaneReader,
    streams: Vec<StreamDefinition>,
    commits: watch::Sender<u64>,
    upstream: Arc<Mutex<JournalPosition>>,
}

impl LaneSource for Source {
    fn lanes(&self) -> Vec<String> {
        vec!["normal".to_owned()]
    }

    fn end(&self, _lane: usize) -> JournalPosition {
        self.reader.end()
    }

    fn read(
        &self,
        _lane: usize,
        from: JournalPosition,
        max_bytes: usize,
    ) -> Result<LaneRead, ReadLaneError> {
        LaneRead::from_reader(&self.reader, from, max_bytes)
    }

    fn copied(&self, _lane: usize, from: StreamId) -> Option<CopiedStream> {
        self.reader.copied_stream(from)
    }

    fn read_copies(
        &self,
        _lane: usize,
        stream: StreamId,
        range: Range<Offset>,
        max_bytes: usize,
    ) -> Result<CopiedRead, ReadLaneError> {
        let read = self.reader.read_copied(stream, range, max_bytes);
        read.map_err(|error| ReadLaneError { reason: error.to_string() })
    }

    fn start(&self, _lane: usize) -> JournalPosition {
        self.reader.start()
    }

    fn commits(&self, _lane: usize) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    fn stream(&self, stream: StreamId) -> Option<SourceStream> {
        let found = self.streams.iter().find(|known| known.stream == stream)?;
        let info = StreamInfo {
            topic: found.topic.clone(),
            partition: found.partition,
            partition_count: found.partition_count,
        };
        Some(SourceStream { info, is_internal: false })
    }

    fn upstream(&self, _lane: usize, through: JournalPosition) {
        let mut known = self.upstream.lock().unwrap();
        assert!(through <= self.reader.end(), "released what is not there");
        *known = through.max(*known);
    }

    fn durable_ends(&self, _lane: usize) -> Vec<(StreamId, Offset)> {
        let ends = self.streams.iter().filter_map(|known| {
            Some((known.stream, self.reader.bounds(known.stream)?.durable_end))
        });
        ends.filter(|(_, end)| end.0 > 0).collect()
    }
}

/// Survives the uplink.
#[derive(Clone, Default)]
pub struct Store {
    values: Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>,
    pub saves: Arc<AtomicU64>,
}

impl ProgressStore for Store {
    async fn save(&self, key: Vec<u8>, bytes: Vec<u8>) -> Result<(), SaveError> {
        self.saves.fetch_add(1, Ordering::Relaxed);
        self.values.lock().unwrap().insert(key, bytes);
        Ok(())
    }

    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.values.lock().unwrap().get(key).cloned()
    }
}

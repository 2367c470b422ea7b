//! A gateway for tests: one real lane in a directory, and a store in memory that survives "restarts".
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "support: each user takes a part, and a panic is a failed test"
)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use edge_log::{
    AppendError, ClockReading, FileStorage, JournalPosition, Lane, LaneConfig, LaneReader,
    StreamDefinition,
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
        let storage = FileStorage::open(dir).unwrap();
        let config = LaneConfig {
            budget_bytes: 2 << 30,
            segment_bytes: 64 << 20,
            protect_unsent: true,
            ..LaneConfig::default()
        };
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
        let envelope = Arc::new(Envelope::new(Some(b"machine-1"), &[0]));
        // A real Kafka deletes what looks older than a week.
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        let timestamp_ms = since.as_millis() as i64;
        for number in 0..records {
            let stream = self.streams[(number % self.streams.len() as u64) as usize].stream;
            let value = value(number);
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

//! Fetch: batches as stored, never past the durable end, with long polling.
//!
//! - An answer holds at most `max_bytes` of records (and our own limit), a partition at most its
//!   `partition_max_bytes`; only the first batch of an answer is given whole whatever its size, so that a
//!   consumer always gets on (KIP-74).
//! - If that is less than `min_bytes`, the request waits for commits of the lanes concerned, up to `max_wait_ms`.
//! - Fetch sessions (KIP-227) are not kept: session id 0 tells clients to name everything each time.
//! - Reading takes a share of the memory for answers first, and keeps what the answer needs until it is written.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use edge_engine::{Engine, LaneHandle, Topic};
use edge_log::{ReadError, StreamBounds, StreamRead};
use edge_wire::{Batches, Compression, LaneId, Offset, PartitionId, StreamId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::list_offsets::check_leader_epoch;
use crate::fault::Fault;
use crate::session::{Session, permits, stopped, topic_id_of};

/// From this version on topics are named by id (KIP-516).
const BY_ID_FROM_VERSION: i16 = 13;
/// From this version on consumers know zstd (KIP-110).
const ZSTD_FROM_VERSION: i16 = 10;
/// A client may ask to wait for longer; it is answered empty after this, and asks again.
const MAX_WAIT_MS_MAX: i32 = 120_000;

/// What is asked of one partition.
struct Target {
    /// Which topic of the request.
    topic: usize,
    index: i32,
    found: Result<Place, Fault>,
    max_bytes: usize,
}

struct Place {
    topic: Arc<Topic>,
    lane: Arc<LaneHandle>,
    stream: StreamId,
    offset: u64,
}

/// What one partition is answered.
struct Read {
    bounds: Option<StreamBounds>,
    records: Vec<u8>,
    fault: Option<Fault>,
}

/// The answer, and its share of the memory for answers.
pub(super) async fn handle(
    session: &Session,
    request: FetchRequest,
    version: i16,
) -> (FetchResponse, Option<OwnedSemaphorePermit>) {
    if request.session_id != 0 {
        let error = ResponseError::FetchSessionIdNotFound;
        return (FetchResponse::default().with_error_code(error.code()), None);
    }
    let max_bytes = size(request.max_bytes).min(session.options().fetch_bytes_max);
    let min_bytes = size(request.min_bytes).min(max_bytes);
    let max_wait_ms = request.max_wait_ms.clamp(0, MAX_WAIT_MS_MAX).unsigned_abs();
    let deadline = Instant::now() + Duration::from_millis(u64::from(max_wait_ms));

    let targets: Arc<[Target]> = targets(session, &request.topics, version).into();
    let mut commits = Commits::of(&targets);
    let mut shutdown = session.context.shutdown.clone();
    let mut is_last = false;
    loop {
        commits.mark_seen();
        let (reads, memory) = read_all(session, &targets, max_bytes, version).await;
        let bytes: usize = reads.iter().map(|read| read.records.len()).sum();
        let failed = reads.iter().any(|read| read.fault.is_some());
        if bytes >= min_bytes || failed || is_last {
            return (response(request.topics, &targets, reads), memory);
        }
        // Nothing is held while waiting.
        let seen: Vec<_> = reads.into_iter().map(|read| read.bounds).collect();
        drop(memory);
        loop {
            tokio::select! {
                () = commits.changed() => {}
                () = sleep_until(deadline) => is_last = true,
                () = stopped(&mut shutdown) => is_last = true,
            }
            commits.mark_seen();
            let now = targets.iter().map(|target| current_bounds(session.engine(), target));
            if is_last || now.ne(seen.iter().copied()) {
                break;
            }
        }
    }
}

fn size(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

fn targets(session: &Session, topics: &[FetchTopic], version: i16) -> Vec<Target> {
    let engine = session.engine();
    let mut targets = Vec::new();
    for (at, asked) in topics.iter().enumerate() {
        let topic = if version >= BY_ID_FROM_VERSION {
            topic_id_of(asked.topic_id).and_then(|id| engine.topic_by_id(id))
        } else {
            engine.topic(&asked.topic)
        };
        for partition in &asked.partitions {
            let place = || {
                let Some(topic) = &topic else {
                    return Err(if version >= BY_ID_FROM_VERSION {
                        Fault::new(ResponseError::UnknownTopicId, "there is no topic of this id")
                    } else {
                        Fault::unknown_partition(&asked.topic, partition.partition)
                    });
                };
                let unknown = || Fault::unknown_partition(topic.name(), partition.partition);
                let index = u32::try_from(partition.partition).map_err(|_| unknown())?;
                let stream = topic.stream(PartitionId(index)).ok_or_else(unknown)?;
                check_leader_epoch(partition.current_leader_epoch)?;
                let offset = u64::try_from(partition.fetch_offset).map_err(|_| {
                    let message = format!("offset {}", partition.fetch_offset);
                    Fault::new(ResponseError::OffsetOutOfRange, message)
                })?;
                let lane = engine.lane_of(topic).clone();
                Ok(Place { topic: topic.clone(), lane, stream, offset })
            };
            targets.push(Target {
                topic: at,
                index: partition.partition,
                found: place(),
                max_bytes: size(partition.partition_max_bytes),
            });
        }
    }
    targets
}

fn current_bounds(engine: &Engine, target: &Target) -> Option<StreamBounds> {
    bounds(engine, target.found.as_ref().ok()?)
}

/// Bounds of a partition; `None` if its topic is gone.
fn bounds(engine: &Engine, place: &Place) -> Option<StreamBounds> {
    let known = place.lane.reader().bounds(place.stream);
    // The lane hears of a new stream a moment after the catalogue: until then it is empty.
    known.or_else(|| engine.topic_by_id(place.topic.id()).map(|_| StreamBounds::default()))
}

/// Reads all partitions once. Without anything to read no thread and no memory is asked for.
async fn read_all(
    session: &Session,
    targets: &Arc<[Target]>,
    max_bytes: usize,
    version: i16,
) -> (Vec<Read>, Option<OwnedSemaphorePermit>) {
    let engine = session.context.engine.clone();
    let glances: Vec<Read> = targets.iter().map(|target| glance(&engine, target)).collect();
    let something = targets.iter().zip(&glances).any(|(target, glance)| has_data(target, glance));
    if !something {
        return (glances, None);
    }
    // Twice: the records as read, and once more as the encoded answer.
    let total = session.options().response_memory_bytes;
    let count = permits(max_bytes.saturating_mul(2), total);
    let memory = session.context.response_memory.clone().acquire_many_owned(count).await.ok();
    let shared = targets.clone();
    let read =
        tokio::task::spawn_blocking(move || read_blocking(&engine, &shared, max_bytes, version));
    let reads = read.await.unwrap_or_else(|error| {
        tracing::error!(%error, "kafka: a bug ended a read");
        let fault = Fault::new(ResponseError::UnknownServerError, "a bug ended this read");
        let failed = |_| Read { bounds: None, records: Vec::new(), fault: Some(fault.clone()) };
        targets.iter().map(failed).collect()
    });
    let bytes: usize = reads.iter().map(|read| read.records.len()).sum();
    let kept = permits(bytes.saturating_mul(2), total);
    let memory = memory.map(|mut memory| {
        let excess = memory.num_permits().saturating_sub(kept as usize);
        drop(memory.split(excess));
        memory
    });
    (reads, memory)
}

/// What can be said of a partition without reading.
fn glance(engine: &Engine, target: &Target) -> Read {
    let fault = |fault| Read { bounds: None, records: Vec::new(), fault: Some(fault) };
    let place = match &target.found {
        Ok(place) => place,
        Err(found) => return fault(found.clone()),
    };
    let Some(bounds) = bounds(engine, place) else {
        let message = "the partition was deleted";
        return fault(Fault::new(ResponseError::UnknownTopicOrPartition, message));
    };
    let range = bounds.log_start.0..=bounds.durable_end.0;
    let fault = (!range.contains(&place.offset)).then(|| {
        let message = format!(
            "offset {} is outside {}..{}",
            place.offset, bounds.log_start, bounds.durable_end
        );
        Fault::new(ResponseError::OffsetOutOfRange, message)
    });
    Read { bounds: Some(bounds), records: Vec::new(), fault }
}

fn has_data(target: &Target, glance: &Read) -> bool {
    match (&target.found, glance) {
        (Ok(place), Read { bounds: Some(bounds), fault: None, .. }) => {
            place.offset < bounds.durable_end.0
        }
        _ => false,
    }
}

fn read_blocking(engine: &Engine, targets: &[Target], max_bytes: usize, version: i16) -> Vec<Read> {
    let mut reads: Vec<Read> = targets.iter().map(|target| glance(engine, target)).collect();
    // By lane: what lies in one journal is read in one walk.
    let mut lanes: Vec<(&Arc<LaneHandle>, Vec<usize>)> = Vec::new();
    let mut waiting = 0;
    for (index, (target, read)) in targets.iter().zip(&reads).enumerate() {
        let (Ok(place), true) = (&target.found, has_data(target, read)) else { continue };
        waiting += 1;
        match lanes.iter_mut().find(|(lane, _)| lane.id() == place.lane.id()) {
            Some((_, indexes)) => indexes.push(index),
            None => lanes.push((&place.lane, vec![index])),
        }
    }
    let mut left_bytes = max_bytes;
    let mut first = true;
    for (lane, indexes) in lanes {
        // A lane's share is that of its partitions; what it leaves goes to the lanes behind it.
        let share_bytes = left_bytes * indexes.len() / waiting;
        waiting -= indexes.len();
        if !first && share_bytes == 0 {
            continue;
        }
        let wanted = indexes.iter().filter_map(|&index| stream_read(&targets[index]));
        let mut found: Vec<StreamRead> = wanted.collect();
        lane.reader().read_many(&mut found, share_bytes);
        for (index, found) in indexes.into_iter().zip(found) {
            let read = &mut reads[index];
            let limit = targets[index].max_bytes.min(left_bytes);
            fill(read, found, limit, first, version);
            left_bytes = left_bytes.saturating_sub(read.records.len());
            first &= read.records.is_empty();
        }
    }
    reads
}

fn stream_read(target: &Target) -> Option<StreamRead> {
    let place = target.found.as_ref().ok()?;
    Some(StreamRead {
        stream: place.stream,
        from: Offset(place.offset),
        max_bytes: target.max_bytes,
        out: Vec::new(),
        error: None,
    })
}

fn fill(read: &mut Read, found: StreamRead, limit: usize, first: bool, version: i16) {
    read.records = found.out;
    // Retention or a reopened lane overtook us since the glance: told with the bounds of now.
    if let Some(error) = found.error {
        if let ReadError::OutOfRange { log_start, durable_end, .. } = &error {
            read.bounds = Some(StreamBounds { log_start: *log_start, durable_end: *durable_end });
        }
        read.records.clear();
        read.fault = Some(Fault::from(&error));
    }
    // The log gives the first batch whole; here only the first of the answer may be over the limit.
    if !first && read.records.len() > limit {
        read.records = Vec::new();
    }
    if version < ZSTD_FROM_VERSION && holds_zstd(&read.records) {
        read.records = Vec::new();
        let message = format!("zstd needs Fetch version {ZSTD_FROM_VERSION}");
        read.fault = Some(Fault::new(ResponseError::UnsupportedCompressionType, message));
    }
}

fn holds_zstd(records: &[u8]) -> bool {
    let is_zstd = |compression| compression == Compression::Zstd;
    Batches::new(records).flatten().any(|batch| is_zstd(batch.header().attributes.compression()))
}

fn response(topics: Vec<FetchTopic>, targets: &[Target], reads: Vec<Read>) -> FetchResponse {
    let mut responses: Vec<_> = topics
        .into_iter()
        .map(|topic| {
            FetchableTopicResponse::default()
                .with_topic(topic.topic)
                .with_topic_id(topic.topic_id)
                .with_partitions(Vec::with_capacity(topic.partitions.len()))
        })
        .collect();
    for (target, read) in targets.iter().zip(reads) {
        if let Some(response) = responses.get_mut(target.topic) {
            response.partitions.push(partition_data(target.index, read));
        }
    }
    FetchResponse::default().with_responses(responses)
}

fn partition_data(index: i32, read: Read) -> PartitionData {
    let wire = |offset: Offset| i64::try_from(offset.0).unwrap_or(i64::MAX);
    let (log_start, end) = match read.bounds {
        Some(bounds) => (wire(bounds.log_start), wire(bounds.durable_end)),
        None => (-1, -1),
    };
    PartitionData::default()
        .with_partition_index(index)
        .with_error_code(read.fault.as_ref().map_or(0, Fault::code))
        .with_high_watermark(end)
        .with_last_stable_offset(end)
        .with_log_start_offset(log_start)
        .with_aborted_transactions(None)
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(Bytes::from(read.records)))
}

/// Commits of the lanes that a request reads from.
struct Commits {
    lanes: Vec<(LaneId, watch::Receiver<u64>)>,
}

impl Commits {
    fn of(targets: &[Target]) -> Self {
        let mut lanes: Vec<(LaneId, watch::Receiver<u64>)> = Vec::new();
        for place in targets.iter().filter_map(|target| target.found.as_ref().ok()) {
            if lanes.iter().all(|(id, _)| *id != place.lane.id()) {
                lanes.push((place.lane.id(), place.lane.commits()));
            }
        }
        Self { lanes }
    }

    fn mark_seen(&mut self) {
        for (_, commits) in &mut self.lanes {
            commits.mark_unchanged();
        }
    }

    /// Resolves after the next commit of any of the lanes.
    async fn changed(&mut self) {
        let mut changes: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
        for (_, commits) in &mut self.lanes {
            changes.push(Box::pin(async {
                if commits.changed().await.is_err() {
                    // A lane that is gone never commits again.
                    std::future::pending::<()>().await;
                }
            }));
        }
        poll_fn(|context| {
            let changed = changes.iter_mut().any(|change| change.as_mut().poll(context).is_ready());
            if changed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

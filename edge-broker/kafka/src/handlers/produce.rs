//! Produce: batches are checked, handed to their lanes, and answered once durable.
//!
//! - [`start`] runs when the request is read: consecutive requests of one connection go into the same commit
//!   group. [`Started::finish`] runs when it is this request's turn to be answered.
//! - A full lane holds batches for half of the request's own timeout, at most; then they are taken out of it again
//!   and refused with `KAFKA_STORAGE_ERROR`, which clients retry and librdkafka knows as not persisted. Half, so that
//!   the answer is there before the client, which counts the same time from when it sent, gives up, sends again, and
//!   finds the batch stored twice. Sequences of idempotent producers go back with the batch. What waits in the
//!   meantime behind it on the same connection is stored, if its lane has room, but answered in its turn.
//! - A lane that is being recovered refuses at once, with the same error.
//! - acks=0 has no answer and is not held: a full lane drops and counts it. Any other error closes the connection, as in Kafka, so that the client looks at its metadata.
//! - Not durable within the request's own timeout: `REQUEST_TIMED_OUT`. The records may become durable later;
//!   an idempotent producer's next try is then recognised.
//!
//! Source: KIP-98, KIP-467 (error messages), `KafkaApis.handleProduceRequest` of Apache Kafka.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use edge_engine::clock::boottime_us;
use edge_engine::{
    Body, CleanupPolicy, Completion, CompletionSink, Failure, LaneState, Outcome, ProducedBatch,
    RefusedReason, Submission, TimestampType, Topic, TopicConfig,
};
use edge_log::{Appended, ClockState};
use edge_wire::produced::{ProducedLimits, check_produced};
use edge_wire::{Compression, LaneId, Offset, PartitionId, StreamId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::connection::CloseReason;
use crate::fault::Fault;
use crate::session::Session;

/// From this version on clients know zstd (KIP-110).
const ZSTD_FROM_VERSION: i16 = 7;
/// A request's own timeout is kept within these.
const TIMEOUT_MS_RANGE: std::ops::RangeInclusive<i32> = 1..=300_000;
/// Unpacking memory of a thread that is kept from one batch to the next.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A Produce whose batches are with their lanes.
pub(super) struct Started {
    topics: Vec<(TopicName, Vec<Partition>)>,
    handovers: Vec<Handover>,
    /// Answered by then, whatever has become of it.
    deadline: Instant,
    /// How long a full lane may hold it.
    patience: Duration,
}

struct Partition {
    index: i32,
    state: State,
}

enum State {
    Refused(Fault),
    /// Number `batch` of what was handed to lane `lane`.
    Handed {
        lane: LaneId,
        batch: usize,
        stream: StreamId,
    },
}

/// What one lane was given, and how it tells.
struct Handover {
    lane: LaneId,
    batches: Vec<ProducedBatch>,
    outcome: Option<oneshot::Receiver<LaneOutcome>>,
    refused: Option<Fault>,
}

/// Of each batch its offset, and its time if that is ours, else -1.
type LaneOutcome = Result<Vec<Result<(Offset, i64), Fault>>, Failure>;

/// Checks a request and hands it over. `None`: no answer is wanted.
pub(super) async fn start(
    session: &Session,
    request: ProduceRequest,
    version: i16,
) -> Result<Option<Started>, CloseReason> {
    let timeout_ms = request.timeout_ms.clamp(*TIMEOUT_MS_RANGE.start(), *TIMEOUT_MS_RANGE.end());
    let timeout = Duration::from_millis(u64::from(timeout_ms.unsigned_abs()));
    let deadline = Instant::now() + timeout;
    let mut started =
        Started { topics: Vec::new(), handovers: Vec::new(), deadline, patience: timeout / 2 };
    let acks = request.acks;
    let whole = refusal(&request);
    for data in request.topic_data {
        let topic = session.engine().topic(&data.name);
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for partition in data.partition_data {
            let index = partition.index;
            let checked = match (&whole, &topic) {
                (Some(fault), _) => Err(fault.clone()),
                (None, Some(topic)) => started.take(session, topic, partition, version),
                (None, None) => Err(Fault::unknown_partition(&data.name, index)),
            };
            let state = checked.unwrap_or_else(State::Refused);
            partitions.push(Partition { index, state });
        }
        started.topics.push((data.name, partitions));
    }
    started.hand_over(session, acks != 0).await;
    if acks == 0 {
        return match started.first_fault() {
            None => Ok(None),
            Some(fault) => Err(CloseReason::SilentProduce { reason: fault.message.clone() }),
        };
    }
    Ok(Some(started))
}

/// What is wrong with a request as a whole.
fn refusal(request: &ProduceRequest) -> Option<Fault> {
    if request.transactional_id.is_some() {
        let message = "transactions are not supported by this gateway";
        return Some(Fault::new(ResponseError::InvalidRequest, message));
    }
    if !(-1..=1).contains(&request.acks) {
        let message = format!("acks = {} is not -1, 0 or 1", request.acks);
        return Some(Fault::new(ResponseError::InvalidRequiredAcks, message));
    }
    None
}

impl Started {
    /// Checks one partition's batch and puts it with the others of its lane.
    fn take(
        &mut self,
        session: &Session,
        topic: &Topic,
        data: PartitionProduceData,
        version: i16,
    ) -> Result<State, Fault> {
        let stream =
            u32::try_from(data.index).ok().and_then(|index| topic.stream(PartitionId(index)));
        let stream = stream.ok_or_else(|| Fault::unknown_partition(topic.name(), data.index))?;
        let bytes = data.records.unwrap_or_default();
        checked(session, topic, &bytes, version)?;
        let append_time = topic.config().timestamp_type == TimestampType::LogAppendTime;
        let lane = session.engine().lane_of(topic).id();
        let at = match self.handovers.iter().position(|handover| handover.lane == lane) {
            Some(at) => at,
            None => {
                let batches = Vec::new();
                self.handovers.push(Handover { lane, batches, outcome: None, refused: None });
                self.handovers.len() - 1
            }
        };
        let batches = &mut self.handovers[at].batches;
        if batches.iter().any(|batch| batch.stream == stream) {
            let message = "one batch per partition is allowed in a request";
            return Err(Fault::new(ResponseError::InvalidRequest, message));
        }
        batches.push(ProducedBatch { stream, bytes, append_time });
        Ok(State::Handed { lane, batch: batches.len() - 1, stream })
    }

    async fn hand_over(&mut self, session: &Session, answered: bool) {
        let patience_us = u64::try_from(self.patience.as_micros()).unwrap_or(u64::MAX);
        let give_back_at_us = boottime_us().saturating_add(patience_us);
        for handover in &mut self.handovers {
            let lane = session.engine().lane(handover.lane);
            if let Some(fault) = not_now(lane.name(), lane.state()) {
                handover.refused = Some(fault);
                continue;
            }
            let completion = answered.then(|| {
                let (sender, receiver) = oneshot::channel();
                handover.outcome = Some(receiver);
                Completion { sink: Arc::new(Waiter(Mutex::new(Some(sender)))), ticket: 0 }
            });
            let body = Body::Batches(std::mem::take(&mut handover.batches));
            let submission = Submission {
                body,
                completion,
                droppable: !answered,
                give_back_at_us: answered.then_some(give_back_at_us),
            };
            let records = submission.records();
            // Waiting for room in the queue is what stops this socket from being read.
            let room_until = self.deadline - self.patience;
            handover.refused = match timeout_at(room_until, lane.submit(submission)).await {
                Ok(Ok(())) => None,
                Ok(Err(refused)) => match refused.reason {
                    RefusedReason::ShuttingDown => Some(Failure::ShuttingDown.into()),
                    RefusedReason::Dropped => None,
                    RefusedReason::NoRoom => Some(busy(lane.name())),
                },
                Err(_elapsed) => {
                    lane.count_refused(records);
                    Some(busy(lane.name()))
                }
            };
        }
    }

    fn first_fault(&self) -> Option<&Fault> {
        let of_partitions = self.topics.iter().flat_map(|(_, partitions)| partitions);
        let mut refused = of_partitions.filter_map(|partition| match &partition.state {
            State::Refused(fault) => Some(fault),
            State::Handed { .. } => None,
        });
        refused.next().or_else(|| self.handovers.iter().find_map(|lane| lane.refused.as_ref()))
    }

    /// Waits for the lanes and puts the answer together.
    pub(super) async fn finish(self, session: &Session) -> ProduceResponse {
        let Self { topics, handovers, deadline, patience: _ } = self;
        let mut outcomes = Vec::with_capacity(handovers.len());
        for handover in handovers {
            outcomes.push((handover.lane, outcome(handover, deadline).await));
        }
        let outcome_of = |lane: LaneId| {
            outcomes.iter().find(|(known, _)| *known == lane).map(|(_, outcome)| outcome)
        };
        let answer = |partition: Partition| {
            let answer = PartitionProduceResponse::default().with_index(partition.index);
            let (lane, batch, stream) = match partition.state {
                State::Refused(fault) => return failed(answer, &fault),
                State::Handed { lane, batch, stream } => (lane, batch, stream),
            };
            let result = match outcome_of(lane) {
                Some(Ok(results)) => results.get(batch).cloned(),
                Some(Err(fault)) => Some(Err(fault.clone())),
                None => None,
            };
            match result.unwrap_or_else(|| Err(Failure::Poisoned.into())) {
                Ok((base_offset, append_time_ms)) => {
                    let bounds = session.engine().lane(lane).reader().bounds(stream);
                    answer
                        .with_base_offset(wire_offset(base_offset))
                        .with_log_append_time_ms(append_time_ms)
                        .with_log_start_offset(
                            bounds.map_or(-1, |known| wire_offset(known.log_start)),
                        )
                }
                Err(fault) => failed(answer, &fault),
            }
        };
        let responses = topics.into_iter().map(|(name, partitions)| {
            TopicProduceResponse::default()
                .with_name(name)
                .with_partition_responses(partitions.into_iter().map(answer).collect())
        });
        ProduceResponse::default().with_responses(responses.collect())
    }
}

/// Whether a batch may be stored.
fn checked(session: &Session, topic: &Topic, bytes: &Bytes, version: i16) -> Result<(), Fault> {
    let config = topic.config();
    if bytes.len() > config.max_message_bytes as usize {
        let message = format!(
            "a batch of {} bytes; topic '{}' takes at most {} (max.message.bytes)",
            bytes.len(),
            topic.name(),
            config.max_message_bytes
        );
        return Err(Fault::new(ResponseError::MessageTooLarge, message));
    }
    let limits = ProducedLimits {
        unpacked_bytes_max: session.options().unpacked_bytes_max,
        key_required: config.cleanup_policy != CleanupPolicy::Delete,
        timestamps_ms: timestamps_ms(session, config),
    };
    let compression = SCRATCH.with_borrow_mut(|scratch| {
        let compression = check_produced(bytes, limits, scratch)
            .map(|batch| batch.header().attributes.compression());
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT_BYTES);
        compression
    })?;
    if compression == Compression::Zstd && version < ZSTD_FROM_VERSION {
        let message = format!("zstd needs Produce version {ZSTD_FROM_VERSION}");
        return Err(Fault::new(ResponseError::UnsupportedCompressionType, message));
    }
    Ok(())
}

/// What timestamps a topic takes. Without a clock of our own that is set nobody knows what is too far from it.
fn timestamps_ms(session: &Session, config: &TopicConfig) -> Option<(i64, i64)> {
    let limits = (config.timestamp_before_max_ms, config.timestamp_after_max_ms);
    if limits == (None, None) || config.timestamp_type == TimestampType::LogAppendTime {
        return None;
    }
    let clock = session.engine().clock().read();
    if clock.state == ClockState::Unsynced {
        return None;
    }
    let now_ms = clock.wall_us.div_euclid(1_000);
    let distance = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
    let earliest = limits.0.map_or(i64::MIN, |before| now_ms.saturating_sub(distance(before)));
    let latest = limits.1.map_or(i64::MAX, |after| now_ms.saturating_add(distance(after)));
    Some((earliest, latest))
}

/// Why a lane takes nothing at the moment.
fn not_now(lane: &str, state: LaneState) -> Option<Fault> {
    let message = match state {
        LaneState::Open | LaneState::Full => return None,
        LaneState::Closed => return Some(Failure::ShuttingDown.into()),
        LaneState::Poisoned => format!("lane '{lane}' is being recovered; send again later"),
    };
    Some(Fault::new(ResponseError::KafkaStorageError, message))
}

fn busy(lane: &str) -> Fault {
    let message = format!("lane '{lane}' had no room in time; nothing was taken");
    Fault::new(ResponseError::KafkaStorageError, message)
}

async fn outcome(
    handover: Handover,
    deadline: Instant,
) -> Result<Vec<Result<(Offset, i64), Fault>>, Fault> {
    if let Some(fault) = handover.refused {
        return Err(fault);
    }
    let Some(receiver) = handover.outcome else { return Ok(Vec::new()) };
    match timeout_at(deadline, receiver).await {
        Ok(Ok(outcome)) => outcome.map_err(Fault::from),
        // The lane is gone without a word.
        Ok(Err(_closed)) => Err(Failure::Poisoned.into()),
        Err(_elapsed) => {
            let message = "not durable within the request's timeout; it may become so later";
            Err(Fault::new(ResponseError::RequestTimedOut, message))
        }
    }
}

/// Passes a lane's outcome on to the connection's task.
struct Waiter(Mutex<Option<oneshot::Sender<LaneOutcome>>>);

impl CompletionSink for Waiter {
    fn complete(&self, _ticket: u64, outcome: &Outcome<'_>) {
        let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let results = outcome.appended.iter().map(|appended| match appended {
            Ok((Appended::New { base_offset } | Appended::Duplicate { base_offset }, time_ms)) => {
                Ok((*base_offset, *time_ms))
            }
            Err(error) => Err(Fault::from(error)),
        });
        // The client may have gone away; the records stay all the same.
        let _ = sender.send(outcome.result.map(|()| results.collect()));
    }
}

fn failed(answer: PartitionProduceResponse, fault: &Fault) -> PartitionProduceResponse {
    answer
        .with_error_code(fault.code())
        .with_error_message(fault.text())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
}

/// Offsets are signed on the wire and never that large.
fn wire_offset(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

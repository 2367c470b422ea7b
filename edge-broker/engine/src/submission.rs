//! What a listener hands to a lane, and how it hears that it is durable.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use edge_log::{AppendError, Appended, Retention, StreamDefinition};
use edge_wire::{EnvelopeId, EnvelopeView, Offset, RecordBatchView, StreamId};

/// One hand-over to a lane. All of it lands in one commit group, in order.
pub struct Submission {
    /// What is to be appended.
    pub body: Body,
    /// Who hears of it. `None`: nobody waits (QoS 0, acks=0).
    pub completion: Option<Completion>,
    /// May be refused and counted rather than wait: QoS 0.
    pub droppable: bool,
    /// A full lane gives it back then ([`Failure::Full`]), by [`boottime_us`](crate::clock::boottime_us). `None`: it
    /// waits for as long as it takes.
    pub give_back_at_us: Option<u64>,
}

impl Submission {
    /// One that waits for as long as it takes.
    #[must_use]
    pub fn new(body: Body, completion: Option<Completion>) -> Self {
        Self { body, completion, droppable: false, give_back_at_us: None }
    }

    /// Records in it.
    #[must_use]
    pub fn records(&self) -> usize {
        self.body.records()
    }
}

impl Body {
    /// Records in it.
    #[must_use]
    pub fn records(&self) -> usize {
        match self {
            Self::Chunk(chunk) => chunk.records.len(),
            Self::Batches(batches) => batches.iter().map(ProducedBatch::records).sum(),
            _ => 0,
        }
    }
}

/// Tags of events from here on belong to whoever owns the listeners' state ([`EventOwner`](crate::EventOwner)).
pub const EVENT_TAGS_FROM: u16 = 256;

/// The kinds of things a lane can make durable.
pub enum Body {
    /// Records of one read from an MQTT connection.
    Chunk(Arc<RecordChunk>),
    /// Whole batches of Kafka producers, at most one per stream.
    Batches(Vec<ProducedBatch>),
    /// State events: tag and bytes.
    Events(Vec<(u16, Vec<u8>)>),
    /// Streams that later submissions will append to, and how long they keep records.
    Define(Vec<(StreamDefinition, Retention)>),
    /// Streams of a deleted topic.
    Remove(Vec<StreamId>),
    /// New log start offsets (DeleteRecords).
    LogStart(Vec<(StreamId, Offset)>),
}

/// Records that arrived together: one buffer, no allocation per record.
#[derive(Default)]
pub struct RecordChunk {
    /// The values, one after the other.
    pub data: Vec<u8>,
    /// Key and headers shared by records of one origin, one behind the other.
    pub envelope_bytes: Vec<u8>,
    /// The records, in order of arrival.
    pub records: Vec<RecordRef>,
    /// Indexed by [`RecordRef::envelope`]: which, and where it ends in `envelope_bytes`.
    envelopes: Vec<(EnvelopeId, u32)>,
    /// Events that are durable with a record or not at all, by record.
    pub events: Vec<RecordEvent>,
}

/// An event that goes into the commit group of a record of a [`RecordChunk`].
#[derive(Clone, Copy, Debug)]
pub struct RecordEvent {
    /// Index into [`RecordChunk::records`].
    pub record: u32,
    /// 256 or above: below are the engine's.
    pub tag: u16,
    /// First byte of the event in [`RecordChunk::data`].
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
}

/// One record of a [`RecordChunk`].
#[derive(Clone, Copy, Debug)]
pub struct RecordRef {
    /// Where it goes.
    pub stream: StreamId,
    /// What [`RecordChunk::push_envelope`] gave.
    pub envelope: u32,
    /// When it happened, if it says; else when it came.
    pub time: RecordTime,
    /// First byte of the value in [`RecordChunk::data`].
    pub start: u32,
    /// One past the last byte of the value.
    pub end: u32,
}

/// The time of a record: its sender's, or that of its arrival, which becomes a time of day when it is appended, or that
/// of its append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTime(i64);

/// Arrivals are kept as time since boot from here on: no timestamp is that far before 1970.
const ARRIVALS_FROM: i64 = AT_APPEND + 1;
const AT_APPEND: i64 = i64::MIN;
const ARRIVALS_TO: i64 = i64::MIN / 2;

impl RecordTime {
    /// Milliseconds since 1970, as the record says.
    #[must_use]
    pub fn given_ms(timestamp_ms: i64) -> Self {
        Self(timestamp_ms.max(ARRIVALS_TO))
    }

    /// It came this many microseconds after the machine booted ([`Clock::boottime_us`](crate::clock::Clock)).
    #[must_use]
    pub fn arrived(boottime_us: u64) -> Self {
        let since_boot = i64::try_from(boottime_us).unwrap_or(i64::MAX);
        Self(ARRIVALS_FROM.saturating_add(since_boot).min(ARRIVALS_TO - 1))
    }

    /// It gets the time when it is appended, whatever it says (LogAppendTime).
    #[must_use]
    pub fn at_append() -> Self {
        Self(AT_APPEND)
    }

    /// Which of them.
    pub(crate) fn kind(self) -> TimeKind {
        match self.0 {
            AT_APPEND => TimeKind::AtAppend,
            time if time < ARRIVALS_TO => TimeKind::ArrivedUs(time.abs_diff(ARRIVALS_FROM)),
            timestamp_ms => TimeKind::GivenMs(timestamp_ms),
        }
    }
}

impl From<i64> for RecordTime {
    fn from(timestamp_ms: i64) -> Self {
        Self::given_ms(timestamp_ms)
    }
}

/// A [`RecordTime`], taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeKind {
    GivenMs(i64),
    ArrivedUs(u64),
    AtAppend,
}

impl RecordRef {
    /// Where the value lies in [`RecordChunk::data`].
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl RecordChunk {
    /// Makes room for what is expected: envelopes, and their bytes together.
    pub fn reserve_envelopes(&mut self, count: usize, bytes: usize) {
        self.envelopes.reserve(count);
        self.envelope_bytes.reserve(bytes);
    }

    /// Envelopes that were added.
    #[must_use]
    pub fn envelope_count(&self) -> usize {
        self.envelopes.len()
    }

    /// Adds an envelope, for records to refer to. It is copied: who reads the chunk does so in one piece of memory, and
    /// no reference count goes back and forth between processors.
    #[inline]
    pub fn push_envelope(&mut self, envelope: EnvelopeView<'_>) -> u32 {
        let number = u32::try_from(self.envelopes.len()).unwrap_or(u32::MAX);
        self.envelope_bytes.extend_from_slice(envelope.as_bytes());
        let end = u32::try_from(self.envelope_bytes.len()).unwrap_or(u32::MAX);
        self.envelopes.push((envelope.id(), end));
        number
    }

    /// An envelope that was added.
    #[must_use]
    pub fn envelope(&self, number: u32) -> Option<EnvelopeView<'_>> {
        let number = number as usize;
        let (id, end) = *self.envelopes.get(number)?;
        let before = number.checked_sub(1).and_then(|before| self.envelopes.get(before));
        let start = before.map_or(0, |(_, end)| *end as usize);
        Some(EnvelopeView::new(id, self.envelope_bytes.get(start..end as usize)?))
    }

    /// Adds a record; the value is copied.
    ///
    /// A chunk holds less than 4 GiB; callers are bounded far below by their read buffers.
    pub fn push(
        &mut self,
        stream: StreamId,
        envelope: u32,
        time: impl Into<RecordTime>,
        value: &[u8],
    ) {
        let time = time.into();
        let start = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.data.extend_from_slice(value);
        let end = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.records.push(RecordRef { stream, envelope, time, start, end });
    }

    /// Adds an event that is durable with the record pushed last, or not at all. It should be small; records without
    /// an event should not be larger than a commit group with it.
    pub fn push_event(&mut self, tag: u16, bytes: &[u8]) {
        debug_assert!(tag >= EVENT_TAGS_FROM && !self.records.is_empty());
        let record = u32::try_from(self.records.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let start = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.data.extend_from_slice(bytes);
        let end = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.events.push(RecordEvent { record, tag, start, end });
    }

    /// The events that go with a record, and their bytes.
    pub(crate) fn events_of(&self, record: u32) -> impl Iterator<Item = (u16, &[u8])> {
        let from = self.events.partition_point(|event| event.record < record);
        let of_record = self.events.get(from..).unwrap_or_default().iter();
        of_record.take_while(move |event| event.record == record).map(|event| {
            let bytes = self.data.get(event.start as usize..event.end as usize);
            (event.tag, bytes.unwrap_or_default())
        })
    }

    /// The value of a record of this chunk.
    #[must_use]
    pub fn value(&self, record: &RecordRef) -> &[u8] {
        self.data.get(record.range()).unwrap_or_default()
    }
}

/// One RecordBatch v2 of a producer, checked by the listener (length, magic, CRC, records).
pub struct ProducedBatch {
    /// Where it goes.
    pub stream: StreamId,
    /// The batch as received.
    pub bytes: Bytes,
    /// It gets our time of append (LogAppendTime).
    pub append_time: bool,
}

impl ProducedBatch {
    /// Records that its header tells of.
    #[must_use]
    pub fn records(&self) -> usize {
        let view = RecordBatchView::parse(&self.bytes);
        view.map_or(0, |view| usize::try_from(view.header().record_count).unwrap_or(0))
    }
}

/// Who hears of a submission.
#[derive(Clone)]
pub struct Completion {
    /// Called once, from the lane's thread: must be quick and must not block.
    pub sink: Arc<dyn CompletionSink>,
    /// Handed back, so that one sink can serve many submissions.
    pub ticket: u64,
}

/// Receives outcomes on the lane's thread.
pub trait CompletionSink: Send + Sync {
    /// The submission with this ticket is durable, or failed. Called exactly once per submission, in
    /// the order of submission within a lane.
    fn complete(&self, ticket: u64, outcome: &Outcome<'_>);
}

/// What became of a submission.
pub struct Outcome<'a> {
    /// `Ok`: durable as the lane's `durability` promises. `Err`: nothing of it may be acknowledged.
    pub result: Result<(), Failure>,
    /// For [`Body::Batches`], one result per batch, in order; empty otherwise and on failure.
    pub appended: &'a [AppendResult],
}

/// Offset of one produced batch and the highest time of its records in ms, or why it was not taken.
pub type AppendResult = Result<(Appended, i64), AppendError>;

/// Why a submission was not made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A write or sync failed; the lane reopens through recovery. The records may or may not be
    /// there: send again.
    #[error("a write to the lane failed; it is being recovered")]
    Poisoned,
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    ShuttingDown,
    /// The lane was full for as long as the submission could wait. Nothing of it was stored, or will be.
    #[error("the lane is full; nothing was stored")]
    Full,
    /// A record names a stream the lane does not have, or is too large for it.
    #[error("the record cannot be stored")]
    Unstorable,
}

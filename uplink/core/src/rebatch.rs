//! Many small commit groups to a few large batches.
//!
//! The journal interleaves all streams of a lane, a few records each; a paid link wants large, well compressed
//! batches of one stream. A [`Rebatcher`] takes groups in journal order and [`cut`](Rebatcher::cut)s a round: for
//! every stream the batches of that round.
//!
//! - A batch holds records of one stream whose offsets have no holes (but those that cleaning left among copies), at most `batch_bytes` before compression
//!   (a larger single record has a batch of its own).
//! - A batch that a producer compressed is forwarded with its bytes if it is large enough to be worth a batch of
//!   its own; small ones are unpacked and merged.
//! - After a restart, the batches that were planned before are cut again exactly as planned, so that the broker
//!   recognises them.
//! - Memory: the open batches and the finished ones; the caller stops feeding by [`Rebatcher::held_bytes`].

mod packer;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use edge_log::JournalPosition;
use edge_log::{BatchRef, DecodedGroup, RecordRef};
use edge_wire::record_batch::{
    TimestampType, set_base_offset, set_partition_leader_epoch, set_producer,
};
use edge_wire::{Compression, Offset, RecordBatchBuilder, RecordBatchView, Records, StreamId};

/// Largest size, in bytes, that one batch may unpack to when it has to be taken apart.
const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Builders kept for the next round.
const SPARE_BUILDERS: usize = 16;
/// A builder that grew beyond this is not kept, in bytes.
const SPARE_BYTES_MAX: usize = 64 * 1024;
/// Most holes in the offsets of one batch, 64 KiB of memory.
const JUMPS_MAX: usize = 4096;

use packer::Packer;

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct RebatchLimits {
    /// Most bytes of records in one batch, before compression.
    pub batch_bytes: usize,
    /// Codec.
    pub compression: Compression,
    /// Its level, `None` for its default.
    pub level: Option<i32>,
    /// A producer-compressed batch of at least this many bytes is forwarded as it is.
    pub forward_bytes_min: usize,
}

impl Default for RebatchLimits {
    /// 900 KiB stays below Kafka's default limit of 1,048,588 bytes for a batch even when nothing compresses.
    fn default() -> Self {
        Self {
            batch_bytes: 900 * 1024,
            compression: Compression::Zstd,
            level: Some(3),
            forward_bytes_min: 16 * 1024,
        }
    }
}

/// Which timestamps may leave, ms since 1970. A record outside keeps its place and gets another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// No time of day is earlier: what is, is a sensor without a clock. It gets the time when the gateway wrote it.
    pub earliest_ms: i64,
    /// Kafka refuses what is more than an hour ahead of it (`message.timestamp.after.max.ms`).
    pub latest_ms: i64,
}

impl Default for TimeLimits {
    /// None.
    fn default() -> Self {
        Self { earliest_ms: i64::MIN, latest_ms: i64::MAX }
    }
}

impl TimeLimits {
    /// The time to send in place of this one, of a record that was written at `written_ms`.
    fn apply(self, timestamp_ms: i64, written_ms: i64) -> i64 {
        let known = if timestamp_ms < self.earliest_ms { written_ms } else { timestamp_ms };
        known.max(self.earliest_ms).min(self.latest_ms)
    }
}

/// A batch ready to be sent, but for the producer's stamp.
#[derive(Clone, Debug)]
pub struct ReadyBatch {
    /// Its stream.
    pub stream: StreamId,
    /// Edge offset of its first record.
    pub first: Offset,
    /// The offset behind its last record; among copies, behind the hole that follows it.
    pub end: Offset,
    /// Number of records.
    pub count: u32,
    /// Holes in its offsets: number of a record, and its offset. Those that follow it have none up to the next hole.
    pub jumps: Vec<(u32, Offset)>,
    /// Group that holds the first record.
    pub first_at: JournalPosition,
    /// Group that holds the last record.
    pub last_at: JournalPosition,
    /// One RecordBatch v2, base offset 0, no producer.
    pub bytes: Bytes,
}

impl ReadyBatch {
    /// The offset of a record, by its number.
    fn offset_of(&self, index: u32) -> Offset {
        let before = self.jumps.iter().rev().find(|(at, _)| *at <= index);
        let (at, offset) = before.copied().unwrap_or((0, self.first));
        offset.plus(u64::from(index - at))
    }
}

/// Offsets that were not in the log when their turn came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapSeen {
    /// The stream.
    pub stream: StreamId,
    /// First missing offset.
    pub from: Offset,
    /// First offset that is there again.
    pub to: Offset,
}

/// What one round yields.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Batches; those of one stream in offset order.
    pub batches: Vec<ReadyBatch>,
    /// Everything before it in the journal is in this round or an earlier one. Behind what was pushed only where a
    /// planned batch waits for its last records.
    pub through: JournalPosition,
    /// Holes.
    pub gaps: Vec<GapSeen>,
}

/// See the module.
#[derive(Debug)]
pub struct Rebatcher {
    streams: HashMap<StreamId, Follow>,
    /// Streams that have an open batch.
    open: Vec<StreamId>,
    sink: Sink,
}

/// A stream as it is followed.
#[derive(Debug, Default)]
struct Follow {
    /// The offset that comes next; `None` takes whatever comes first.
    next: Option<Offset>,
    is_parked: bool,
    /// Internal streams and deleted topics are not replicated.
    is_wanted: Option<bool>,
    /// Batches to be cut exactly so.
    cuts: VecDeque<Cut>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    first: Offset,
    end: Offset,
}

#[derive(Debug)]
struct Open {
    builder: RecordBatchBuilder,
    first: Offset,
    /// Behind the last record.
    end: Offset,
    jumps: Vec<(u32, Offset)>,
    first_at: JournalPosition,
    last_at: JournalPosition,
}

/// Where records that stand in copies are said to stand.
#[derive(Clone, Copy, Debug)]
struct CopyPlace {
    first_at: JournalPosition,
    last_at: JournalPosition,
}

/// Where finished batches go.
#[derive(Debug)]
struct Sink {
    packer: Packer,
    times: TimeLimits,
    /// When the group that is being taken was written.
    written_ms: i64,
    batches: Vec<ReadyBatch>,
    gaps: Vec<GapSeen>,
    spare: Vec<RecordBatchBuilder>,
    /// Copies are taken: holes in their offsets are no gaps.
    copies: Option<CopyPlace>,
    /// Bytes in open builders and finished batches.
    held_bytes: usize,
}

impl Rebatcher {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(limits: RebatchLimits) -> Self {
        let sink = Sink {
            packer: Packer::new(limits),
            times: TimeLimits::default(),
            written_ms: 0,
            batches: Vec::new(),
            gaps: Vec::new(),
            spare: Vec::new(),
            copies: None,
            held_bytes: 0,
        };
        Self { streams: HashMap::new(), open: Vec::new(), sink }
    }

    /// Records of a stream below `next` are passed by; what this round has of it is dropped and it is no longer
    /// parked.
    pub fn follow_from(&mut self, stream: StreamId, next: Offset) {
        let follow = self.streams.entry(stream).or_default();
        follow.next = Some(next);
        follow.is_parked = false;
        follow.is_wanted = None;
        follow.cuts.clear();
        self.drop_open(stream);
    }

    /// The next batch of this stream behind the earlier ones has to be exactly this one, up to `end`.
    pub fn expect_cut(&mut self, stream: StreamId, first: Offset, end: Offset) {
        let follow = self.streams.entry(stream).or_default();
        follow.next.get_or_insert(first);
        follow.cuts.push_back(Cut { first, end });
    }

    /// Passes the stream by until [`follow_from`](Self::follow_from).
    pub fn park(&mut self, stream: StreamId) {
        let follow = self.streams.entry(stream).or_default();
        follow.is_parked = true;
        follow.cuts.clear();
        self.drop_open(stream);
    }

    /// Asks again which streams are to be replicated (topics may have come or gone).
    pub fn forget_wanted(&mut self) {
        for follow in self.streams.values_mut() {
            follow.is_wanted = None;
        }
    }

    /// Records that are taken from now on leave with timestamps within these.
    pub fn set_times(&mut self, times: TimeLimits) {
        self.sink.times = times;
    }

    /// Takes a group. `is_wanted` is asked once for each stream.
    pub fn push_group(&mut self, group: &DecodedGroup, is_wanted: &dyn Fn(StreamId) -> bool) {
        let at = group.position();
        self.sink.written_ms = group.written_ms();
        for batch in group.batches() {
            let stream = batch.stream();
            let end = batch.last_offset().plus(1);
            let Some(follow) = admit(
                &mut self.streams,
                &mut self.sink,
                stream,
                batch.base_offset(),
                end,
                is_wanted,
            ) else {
                continue;
            };
            if forward(follow, &batch, at, &mut self.sink) {
                continue;
            }
            let was_open = follow.open.is_some();
            let sink = &mut self.sink;
            if batch.for_each_record(&mut |record| take(stream, follow, &record, at, sink)).is_err()
            {
                // As its producer sent it: the upstream is the judge.
                forward_verbatim(follow, &batch, at, sink);
            }
            if !was_open && follow.open.is_some() {
                self.open.push(stream);
            }
        }
    }

    /// Copies of a stream follow: its records from the start of the log to its home. `place`: where the lane is to be read
    /// again for them, and a position behind everything that may still hold older records of it. Returns the offset to
    /// read from; `None` if nothing of them is wanted.
    pub fn begin_copies(
        &mut self,
        stream: StreamId,
        (log_start, home): (Offset, Offset),
        place: (JournalPosition, JournalPosition),
        is_wanted: &dyn Fn(StreamId) -> bool,
    ) -> Option<Offset> {
        let follow = self.streams.entry(stream).or_default();
        if follow.is_parked || !*follow.is_wanted.get_or_insert_with(|| is_wanted(stream)) {
            return None;
        }
        let next = follow.next.unwrap_or(log_start);
        if next >= home {
            return None;
        }
        if next < log_start {
            self.lose_copies(stream, next, log_start);
        }
        self.sink.copies = Some(CopyPlace { first_at: place.0, last_at: place.1 });
        Some(next.max(log_start))
    }

    /// Takes the records of a copied group in `from..to`. A hole between them is what cleaning left out.
    pub fn push_copies(
        &mut self,
        group: &DecodedGroup,
        stream: StreamId,
        from: Offset,
        to: Offset,
    ) {
        self.sink.written_ms = group.written_ms();
        for batch in group.batches_of(stream) {
            if batch.end_offset() <= from || batch.base_offset() >= to {
                continue;
            }
            let Some(follow) = self.streams.get_mut(&stream) else { return };
            pop_cuts(follow);
            let (sink, at) = (&mut self.sink, group.position());
            let is_whole = batch.base_offset() >= from && batch.end_offset() <= to;
            if is_whole && forward(follow, &batch, at, sink) {
                continue;
            }
            let was_open = follow.open.is_some();
            let visited = batch.for_each_record(&mut |record| {
                if (from..to).contains(&record.offset) {
                    take(stream, follow, &record, at, sink);
                }
            });
            if visited.is_err() && is_whole {
                forward_verbatim(follow, &batch, at, sink);
            }
            if !was_open && follow.open.is_some() {
                self.open.push(stream);
            }
        }
    }

    /// Takes one copied record; for those who have no decoded group at hand.
    pub fn push_copy(&mut self, stream: StreamId, record: &RecordRef<'_>) {
        let Some(follow) = self.streams.get_mut(&stream) else { return };
        pop_cuts(follow);
        let was_open = follow.open.is_some();
        take(stream, follow, record, JournalPosition::START, &mut self.sink);
        if !was_open && follow.open.is_some() {
            self.open.push(stream);
        }
    }

    /// Copies of `from..to` cannot be read any more.
    pub fn lose_copies(&mut self, stream: StreamId, from: Offset, to: Offset) {
        let Some(follow) = self.streams.get_mut(&stream) else { return };
        let next = follow.next.unwrap_or(from).max(from);
        if next < to {
            self.sink.gaps.push(GapSeen { stream, from: next, to });
            follow.next = Some(to);
        }
        self.finish_open(stream, None);
    }

    /// The copies of a stream were taken up to `next`; there is more of them only below `home`.
    pub fn end_copies(&mut self, stream: StreamId, next: Offset, home: Offset) {
        let Some(follow) = self.streams.get_mut(&stream) else { return };
        follow.next = Some(next.max(follow.next.unwrap_or(next)));
        self.sink.copies = None;
        if next >= home {
            // The hole behind the last record belongs to it: what is found there in the journal is no news.
            self.finish_open(stream, Some(home));
        }
    }

    /// Finishes the open batch of a stream, which covers the offsets up to `end`.
    fn finish_open(&mut self, stream: StreamId, end: Option<Offset>) {
        let Some(follow) = self.streams.get_mut(&stream) else { return };
        if let Some(open) = follow.open.take() {
            self.open.retain(|open| *open != stream);
            self.sink.finish(stream, Open { end: end.unwrap_or(open.end), ..open });
            if end.is_some_and(|end| follow.cuts.front().is_some_and(|cut| cut.end <= end)) {
                follow.cuts.pop_front();
            }
        } else if let Some(end) = end
            && let Some(last) = self.sink.batches.iter_mut().rev().find(|one| one.stream == stream)
        {
            last.end = end;
        }
    }

    /// Takes one record; for those who have no decoded group at hand.
    pub fn push_record(&mut self, stream: StreamId, record: &RecordRef<'_>, at: JournalPosition) {
        let Some(follow) = admit(
            &mut self.streams,
            &mut self.sink,
            stream,
            record.offset,
            record.offset.plus(1),
            &|_| true,
        ) else {
            return;
        };
        let was_open = follow.open.is_some();
        take(stream, follow, record, at, &mut self.sink);
        if !was_open && follow.open.is_some() {
            self.open.push(stream);
        }
    }

    /// Memory held by open and finished batches.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.sink.held_bytes
    }

    /// Whether a cut would yield nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.sink.batches.is_empty() && self.sink.gaps.is_empty()
    }

    /// Finishes all open batches, but for those that were planned larger. Every group before `through` has been
    /// pushed.
    pub fn cut(&mut self, mut through: JournalPosition) -> Round {
        let mut held_bytes = 0;
        for stream in std::mem::take(&mut self.open) {
            let Some(follow) = self.streams.get_mut(&stream) else { continue };
            let Some(open) = follow.open.take() else { continue };
            let is_planned_larger = follow.cuts.front().is_some_and(|cut| cut.first <= open.first);
            if is_planned_larger {
                through = through.min(open.first_at);
                held_bytes += open.builder.len_bytes();
                follow.open = Some(open);
                self.open.push(stream);
            } else {
                self.sink.finish(stream, open);
            }
        }
        self.sink.held_bytes = held_bytes;
        self.sink.packer.rest();
        Round {
            batches: std::mem::take(&mut self.sink.batches),
            through,
            gaps: std::mem::take(&mut self.sink.gaps),
        }
    }

    fn drop_open(&mut self, stream: StreamId) {
        if let Some(follow) = self.streams.get_mut(&stream)
            && let Some(open) = follow.open.take()
        {
            self.sink.held_bytes = self.sink.held_bytes.saturating_sub(open.builder.len_bytes());
            self.sink.recycle(open.builder);
        }
        self.open.retain(|open| *open != stream);
        let sink = &mut self.sink;
        sink.batches.retain(|batch| {
            let is_kept = batch.stream != stream;
            sink.held_bytes -= if is_kept { 0 } else { batch.bytes.len().min(sink.held_bytes) };
            is_kept
        });
    }
}

/// The stream, if it needs anything of `base..end`.
fn admit<'a>(
    streams: &'a mut HashMap<StreamId, Follow>,
    sink: &mut Sink,
    stream: StreamId,
    base: Offset,
    end: Offset,
    is_wanted: &dyn Fn(StreamId) -> bool,
) -> Option<&'a mut Follow> {
    let follow = streams.entry(stream).or_default();
    if follow.is_parked || !*follow.is_wanted.get_or_insert_with(|| is_wanted(stream)) {
        return None;
    }
    if follow.next.is_some_and(|next| end <= next) {
        return None;
    }
    if let Some(next) = follow.next
        && base > next
    {
        sink.gaps.push(GapSeen { stream, from: next, to: base });
        if let Some(open) = follow.open.take() {
            sink.finish(stream, open);
        }
        follow.next = Some(base);
    }
    pop_cuts(follow);
    Some(follow)
}

/// Forgets planned batches that are behind.
fn pop_cuts(follow: &mut Follow) {
    while follow.cuts.front().is_some_and(|cut| follow.next.is_some_and(|next| next >= cut.end)) {
        follow.cuts.pop_front();
    }
}

/// Adds a record to its stream's open batch, cutting before and after it as needed.
fn take(
    stream: StreamId,
    follow: &mut Follow,
    record: &RecordRef<'_>,
    at: JournalPosition,
    sink: &mut Sink,
) {
    let next = *follow.next.get_or_insert(record.offset);
    if record.offset < next {
        return;
    }
    if record.offset > next && sink.copies.is_none() {
        sink.gaps.push(GapSeen { stream, from: next, to: record.offset });
        if let Some(open) = follow.open.take() {
            sink.finish(stream, open);
        }
    }
    if follow.cuts.front().is_some_and(|cut| cut.end <= record.offset) {
        // Planned up to a hole that ends here.
        if let Some(open) = follow.open.take() {
            sink.finish(stream, open);
        }
        follow.cuts.pop_front();
    }
    let record_bytes = record.key.map_or(0, <[u8]>::len)
        + record.value.map_or(0, <[u8]>::len)
        + record.headers_section.len()
        + 24;
    if follow.cuts.is_empty()
        && follow.open.as_ref().is_some_and(|open| {
            open.builder.len_bytes() + record_bytes > sink.packer.limits.batch_bytes
                || open.jumps.len() >= JUMPS_MAX
        })
        && let Some(open) = follow.open.take()
    {
        sink.finish(stream, open);
    }
    let timestamp_ms = sink.times.apply(record.timestamp_ms, sink.written_ms);
    let (first_at, last_at) = sink.place(at);
    let open = follow.open.get_or_insert_with(|| {
        let mut builder = sink.spare.pop().unwrap_or_default();
        builder.start(Offset(0), timestamp_ms);
        let (first, end, jumps) = (record.offset, record.offset, Vec::new());
        Open { builder, first, end, jumps, first_at, last_at }
    });
    if record.offset > open.end {
        open.jumps.push((open.builder.count(), record.offset));
    }
    let before = open.builder.len_bytes();
    open.builder.push(timestamp_ms, record.key, record.value, record.headers_section);
    open.last_at = last_at;
    sink.held_bytes += open.builder.len_bytes() - before;
    let end = record.offset.plus(1);
    follow.next = Some(end);
    open.end = end;
    let is_cut = follow.cuts.front().is_some_and(|cut| end >= cut.end);
    if is_cut {
        follow.cuts.pop_front();
        if let Some(open) = follow.open.take() {
            sink.finish(stream, open);
        }
    }
}

/// Forwards a large batch that a producer compressed, if it is wanted whole.
fn forward(
    follow: &mut Follow,
    batch: &BatchRef<'_>,
    at: JournalPosition,
    sink: &mut Sink,
) -> bool {
    if batch.compression() == Compression::None
        || batch.record_batch_bytes() < sink.packer.limits.forward_bytes_min
    {
        return false;
    }
    let times = sink.times.earliest_ms..=sink.times.latest_ms;
    if !times.contains(&batch.base_timestamp_ms()) || !times.contains(&batch.max_timestamp_ms()) {
        return false;
    }
    let base = batch.base_offset();
    let is_whole =
        follow.next.is_none_or(|next| next == base || next < base && sink.copies.is_some());
    // The open batch ends here, and so must a planned one.
    let fits_plan = match (follow.cuts.front(), &follow.open) {
        (None, _) => true,
        (Some(cut), None) => {
            let end = batch.end_offset();
            cut.first == base && (cut.end == end || sink.copies.is_some() && cut.end > end)
        }
        (Some(_), Some(_)) => false,
    };
    is_whole && fits_plan && forward_verbatim(follow, batch, at, sink)
}

fn forward_verbatim(
    follow: &mut Follow,
    batch: &BatchRef<'_>,
    at: JournalPosition,
    sink: &mut Sink,
) -> bool {
    let mut bytes = Vec::with_capacity(batch.record_batch_bytes());
    batch.write_record_batch(&mut bytes);
    let Ok(view) = RecordBatchView::parse(&bytes) else { return false };
    let header = *view.header();
    let is_plain = header.attributes.timestamp_type() == TimestampType::CreateTime
        && !header.attributes.is_transactional()
        && !header.attributes.is_control()
        && header.record_count == header.last_offset_delta + 1;
    if !is_plain {
        return false;
    }
    if let Some(open) = follow.open.take() {
        sink.finish(batch.stream(), open);
    }
    set_base_offset(&mut bytes, Offset(0));
    set_partition_leader_epoch(&mut bytes, -1);
    set_producer(&mut bytes, None);
    sink.held_bytes += bytes.len();
    let (first_at, last_at) = sink.place(at);
    follow.next = Some(batch.last_offset().plus(1));
    if follow.cuts.front().is_some_and(|cut| cut.first == batch.base_offset()) {
        follow.cuts.pop_front();
    }
    sink.batches.push(ReadyBatch {
        stream: batch.stream(),
        first: batch.base_offset(),
        end: batch.end_offset(),
        count: header.record_count,
        jumps: Vec::new(),
        first_at,
        last_at,
        bytes: Bytes::from(bytes),
    });
    true
}

impl Sink {
    /// What is said of where a record of this group stands: the first of a batch, and the last.
    fn place(&self, at: JournalPosition) -> (JournalPosition, JournalPosition) {
        self.copies.map_or((at, at), |place| (place.first_at, place.last_at))
    }

    fn finish(&mut self, stream: StreamId, open: Open) {
        let raw_bytes = open.builder.len_bytes();
        let bytes = self.packer.pack(&open.builder);
        self.held_bytes = (self.held_bytes + bytes.len()).saturating_sub(raw_bytes);
        self.batches.push(ReadyBatch {
            stream,
            first: open.first,
            end: open.end,
            count: open.builder.count(),
            jumps: open.jumps,
            first_at: open.first_at,
            last_at: open.last_at,
            bytes,
        });
        self.recycle(open.builder);
    }

    fn recycle(&mut self, builder: RecordBatchBuilder) {
        if self.spare.len() < SPARE_BUILDERS && builder.len_bytes() <= SPARE_BYTES_MAX {
            self.spare.push(builder);
        }
    }
}

/// Halves a batch; `None` if it has one record or cannot be unpacked.
#[must_use]
pub fn split(batch: &ReadyBatch, limits: &RebatchLimits) -> Option<(ReadyBatch, ReadyBatch)> {
    let left = batch.count / 2;
    if left == 0 {
        return None;
    }
    let mut builders = [RecordBatchBuilder::new(), RecordBatchBuilder::new()];
    let mut index = 0;
    each_record(batch, |timestamp_ms, record| {
        let builder = &mut builders[usize::from(index >= left)];
        if index == 0 || index == left {
            builder.start(Offset(0), timestamp_ms);
        }
        builder.push(timestamp_ms, record.key, record.value, record.headers.section());
        index += 1;
    })?;
    let mut packer = Packer::new(*limits);
    let middle = batch.offset_of(left);
    let (before, behind): (Vec<_>, Vec<_>) =
        batch.jumps.iter().filter(|(at, _)| *at != left).partition(|(at, _)| *at < left);
    let behind = behind.into_iter().map(|(at, offset)| (at - left, offset)).collect();
    let mut half = |builder: &RecordBatchBuilder, (first, end), jumps| ReadyBatch {
        first,
        end,
        count: builder.count(),
        jumps,
        bytes: packer.pack(builder),
        ..batch.clone()
    };
    let first_half = half(&builders[0], (batch.first, middle), before);
    Some((first_half, half(&builders[1], (middle, batch.end), behind)))
}

/// The batch with no timestamp later than `latest_ms`; `None` if it cannot be unpacked.
#[must_use]
pub fn clamp_timestamps(
    batch: &ReadyBatch,
    latest_ms: i64,
    limits: &RebatchLimits,
) -> Option<ReadyBatch> {
    let mut builder = RecordBatchBuilder::new();
    each_record(batch, |timestamp_ms, record| {
        let timestamp_ms = timestamp_ms.min(latest_ms);
        if builder.is_empty() {
            builder.start(Offset(0), timestamp_ms);
        }
        builder.push(timestamp_ms, record.key, record.value, record.headers.section());
    })?;
    Some(ReadyBatch { bytes: Packer::new(*limits).pack(&builder), ..batch.clone() })
}

fn each_record(
    batch: &ReadyBatch,
    mut visit: impl FnMut(i64, &edge_wire::RecordView<'_>),
) -> Option<()> {
    let view = RecordBatchView::parse(&batch.bytes).ok()?;
    let mut scratch = Vec::new();
    let section = view.unpack(UNPACKED_BYTES_MAX, &mut scratch).ok()?;
    for record in Records::new(section, view.header().record_count) {
        let record = record.ok()?;
        visit(view.header().base_timestamp.wrapping_add(record.timestamp_delta), &record);
    }
    Some(())
}

#[cfg(test)]
mod tests;

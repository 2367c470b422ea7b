//! A lane: appends, commits, maintains. Owned by one thread.
//!
//! - Appending touches memory only. A commit is one write and one sync; then the durable ends move.
//! - A failed write or sync poisons the lane: nothing is acknowledged, nothing is retried, [`Lane::open`] decides
//!   from what is on the device.
//! - Limits: the pending group by `group_bytes_max` or one larger batch, offsets in a group by 2^20, streams by
//!   what fits an eighth of a segment as definitions, a checkpoint by a quarter of a segment.

mod append;
mod commit;
mod compact;
mod copy_group;
mod damage;
mod decay;
mod discard;
mod error;
mod forward;
mod key_map;
mod maintain;
mod mend;
mod open;
mod pass;
pub(crate) mod pending;
mod retain;
mod retire;
mod roll;
mod slots;
mod stamp;
pub(crate) mod streams;
mod writer;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use edge_wire::{Envelope, EnvelopeView, Offset, StreamId};
use hashbrown::HashMap;

pub use decay::AGGREGATE_HEADER;
pub use error::{AppendError, CommitError, FullCause, LogStartError, MaintainError, OpenError};

use crate::clock::ClockReading;
use crate::committer::{CommitDecision, Committer};
use crate::config::LaneConfig;
use crate::gap::{Gap, GapReason};
use crate::journal::entry::{put_gap, put_log_start, put_stream_removed};
use crate::position::JournalPosition;
use crate::reader::LaneReader;
use crate::shared::{Shared, StreamShared};
use crate::stats::LaneState;
use crate::stream::{Retention, StreamDefinition};
use crate::stream_index::TailIndex;
use pending::{Closed, Pending};
use slots::Slots;
use stamp::Stamp;
use streams::{Stream, StreamTable};
use writer::Writer;

/// An envelope of the pending group. Valid until the next successful commit, and while nothing is pending only until
/// the next call of [`Lane::envelope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeRef(pub(crate) u32);

/// What became of a producer's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the pending group.
    New {
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// It is in the log, or in the pending group, already.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
    },
}

/// A successful commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Where the group stands. Equal to `end` if nothing was pending.
    pub position: JournalPosition,
    /// The durable end of the journal.
    pub end: JournalPosition,
    /// Offsets made durable.
    pub records: u32,
    /// Bytes written, padding and a new segment's head included.
    pub written_bytes: u32,
}

/// The owner of a lane's durable state beside the records: the engine.
pub trait SegmentOwner {
    /// Appends the owner's state as of all groups before this segment to `out`. The events of the pending
    /// group are written after it and come back from recovery as events: leave them out, or make them
    /// harmless to apply twice.
    fn checkpoint(&mut self, out: &mut Vec<u8>);
}

impl SegmentOwner for () {
    fn checkpoint(&mut self, _out: &mut Vec<u8>) {}
}

/// A lane. One thread owns it; readers come from [`Lane::reader`].
pub struct Lane {
    config: LaneConfig,
    shared: Arc<Shared>,
    streams: StreamTable,
    pending: Pending,
    /// Stamps records that bring no time.
    stamp: Stamp,
    closed: Closed,
    /// Durable ends of the streams of the group that is being published; memory that is kept.
    ends_before: Vec<Offset>,
    writer: Writer,
    slots: Slots,
    committer: RefCell<Committer>,
    identity: Identity,
    /// Everything before is upstream.
    upstream: JournalPosition,
    poisoned: bool,
    /// The next group goes into a new segment: the last one did not fit.
    must_roll: bool,
    /// Nothing may be written behind the last frame of the segment: only a new one goes on.
    tail_closed: bool,
    /// The next segment has at least this sequence.
    sequence_min: u64,
    /// Nothing was appended since it was opened: nothing is given up for the next segment yet.
    untouched: bool,
    /// The last frame is a seal.
    sealed: bool,
    last_write_us: Option<u64>,
    retention_due_us: u64,
    /// Growing failed or there was no room; until then only recycling is tried.
    grow_again_us: u64,
    /// Sealed segments whose side index is to be written or looked for.
    unwritten_sides: VecDeque<u64>,
    /// A segment that was given up with gaps that are not yet durable: its slot waits for this group.
    retiring: Option<retire::Retiring>,
    /// A segment that is gone through for what is to be copied forward.
    pass: Option<pass::Pass>,
    /// Streams that are compacted.
    compacted: BTreeSet<StreamId>,
    /// Their keys, while there are any.
    keys: Option<Box<compact::Keys>>,
    hasher: key_map::KeyHasher,
    cleaning: compact::Cleaning,
    /// Streams with a retention of their own.
    keeping: usize,
    ages: retain::Ages,
    /// Next offsets of streams whose definition was lost.
    orphans: HashMap<StreamId, Offset>,
    /// Where a stream begins that nobody knew when the lane was opened: 0, unless groups were lost blindly.
    new_stream_floor: Offset,
    /// Bytes of all definitions, for the limit on streams.
    definition_bytes: usize,
}

/// What tells this lane's segments from others.
#[derive(Clone, Copy, Debug)]
struct Identity {
    log_id: [u8; 16],
    name_hash: u64,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("name", &self.config.name)
            .field("end", &self.shared.end())
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

/// What a stream adds to a checkpoint beside its topic name, about.
const STREAM_CHECKPOINT_BYTES: usize = 64;

impl Lane {
    /// Makes a stream known. Idempotent; written at its first use in each segment.
    ///
    /// Beyond what fits an eighth of a segment nothing is defined; appends then fail with
    /// [`AppendError::UnknownStream`].
    pub fn define_stream(&mut self, definition: StreamDefinition) {
        let stream = definition.stream;
        if let Some(local) = self.streams.find(stream) {
            let known = self.streams.get_mut(local);
            if known.definition != definition {
                known.definition = definition;
                known.defined_in = 0;
            }
            return;
        }
        let bytes = definition.topic.len() + STREAM_CHECKPOINT_BYTES;
        if self.definition_bytes + bytes > self.config.segment_bytes as usize / 8 {
            tracing::warn!(
                lane = self.config.name,
                %stream,
                streams = self.streams.len(),
                "too many streams for the segment size: the stream is not defined"
            );
            return;
        }
        self.definition_bytes += bytes;
        let next = self.orphans.remove(&stream).unwrap_or(self.new_stream_floor);
        let shared = Arc::new(StreamShared::new(next, next, TailIndex::default()));
        self.shared.add_stream(stream, Arc::clone(&shared));
        self.streams.insert(Stream::new(definition, shared, next, None));
    }

    /// Offsets before `next` of a stream that this lane has lost altogether are known to have been given out: they are
    /// a gap, told by the next group, and not given out again. Of a stream that is known nothing is changed.
    pub fn begin_behind(&mut self, stream: StreamId, next: Offset, wall_us: i64) {
        let floor = self.orphans.get(&stream).map_or(Offset(0), |floor| *floor);
        if self.streams.find(stream).is_some() || next <= floor.max(self.new_stream_floor) {
            return;
        }
        self.orphans.insert(stream, next);
        let (reason, at) = (GapReason::LaneLost, self.shared.end());
        self.shared.stats().lost_records += next.0 - floor.0;
        self.tell_gaps(&[Gap { stream, from: floor, to: next, reason, at, wall_us }]);
    }

    /// Forgets a stream: its topic was deleted. Told by the next group.
    pub fn remove_stream(&mut self, stream: StreamId) {
        let Some(local) = self.streams.remove(stream) else { return };
        let topic_bytes = self.streams.get(local).definition.topic.len();
        self.definition_bytes -= (topic_bytes + STREAM_CHECKPOINT_BYTES).min(self.definition_bytes);
        self.set_retention_of(local, Retention::default());
        put_stream_removed(self.pending.state(), stream);
        self.shared.remove_stream(stream);
        self.shared.copies().forget_stream(stream);
        self.shared.gaps().forget(stream);
    }

    /// Moves the log start forward (DeleteRecords); told by the next group. Returns the log start now.
    ///
    /// # Errors
    /// The stream is unknown or the offset beyond its durable end.
    pub fn set_log_start(
        &mut self,
        stream: StreamId,
        offset: Offset,
    ) -> Result<Offset, LogStartError> {
        let local = self.streams.find(stream).ok_or(LogStartError::UnknownStream { stream })?;
        let shared = &self.streams.get(local).shared;
        let durable_end = shared.durable_end();
        if offset > durable_end {
            return Err(LogStartError::OutOfRange { offset, durable_end });
        }
        if offset.0 > 0 {
            // Written even if retention was there before: that may be forgotten in a crash.
            shared.raise_log_start(offset);
            self.shared.copies().forget_below(stream, offset);
            put_log_start(self.pending.state(), stream, offset);
        }
        Ok(shared.log_start())
    }

    /// Sets how long a stream's records are kept, and whether only the newest of each key is. Not kept in the journal: told again after every open.
    pub fn set_retention(&mut self, stream: StreamId, retention: Retention) {
        if let Some(local) = self.streams.find(stream) {
            self.set_retention_of(local, retention);
        }
    }

    fn set_retention_of(&mut self, local: u32, retention: Retention) {
        let stream = self.streams.get_mut(local);
        let before = std::mem::replace(&mut stream.retention, retention);
        let id = stream.definition.stream;
        self.keeping -= usize::from(before != Retention::default());
        self.keeping += usize::from(retention != Retention::default());
        self.note_compaction(id, retention.compaction.is_some());
    }

    /// Tells the clock that stamps records from now on. As long as records are pending that were stamped by a clock
    /// that nobody vouched for, that one goes on: a group has one.
    pub fn set_clock(&mut self, clock: &ClockReading) {
        if !self.pending.is_unvouched() {
            self.stamp = Stamp::new(clock);
        }
    }

    /// Registers an envelope for the pending group; the same one, or a clone of it, gives the same reference.
    ///
    /// What appends that failed have registered is dropped while nothing is pending: append before the next call.
    pub fn envelope(&mut self, envelope: &Envelope) -> EnvelopeRef {
        self.envelope_view(envelope.view())
    }

    /// The same for one whose bytes lie elsewhere. They are copied.
    #[inline]
    pub fn envelope_view(&mut self, envelope: EnvelopeView<'_>) -> EnvelopeRef {
        if self.pending.is_empty() {
            self.pending.drop_left_over(self.config.group_bytes_max as usize / 2);
        }
        EnvelopeRef(self.pending.envelope(envelope))
    }

    /// Uncompressed bytes in the pending group.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        if self.pending.is_empty() { 0 } else { self.pending.bytes() }
    }

    /// Whether the pending group has reached its size: commit before appending more.
    #[must_use]
    pub fn is_group_full(&self) -> bool {
        // Envelopes alone are no group: a commit would write nothing.
        self.pending_bytes() >= self.config.group_bytes_max as usize
    }

    /// What to do about the pending group.
    #[must_use]
    pub fn poll_commit(&self, now_us: u64) -> CommitDecision {
        self.committer.borrow_mut().poll(now_us, self.pending_bytes())
    }

    /// Tells how long the last commit's write and sync took, by the caller's clock: the window adapts to it.
    pub fn handle_sync_latency(&mut self, took_us: u64) {
        let written = {
            let stats = self.shared.stats();
            stats.journal_bytes + stats.other_bytes
        };
        let committer = self.committer.get_mut();
        committer.handle_latency(took_us);
        committer.handle_written(written);
        self.shared.stats().pace = committer.pace();
    }

    /// Sets what the lane should hand to the device in a day at most: its part of a budget that lanes share.
    pub fn set_wear_budget(&mut self, bytes_per_day: Option<u64>) {
        self.committer.get_mut().set_wear_budget(bytes_per_day);
    }

    /// So many pending bytes commit at once, as things are.
    #[must_use]
    pub fn commit_bytes(&self) -> usize {
        self.committer.borrow().pace().commit_bytes
    }

    /// Everything before `through` is upstream.
    pub fn handle_upstream(&mut self, through: JournalPosition) {
        self.upstream = self.upstream.max(through);
    }

    /// What the lane can do.
    #[must_use]
    pub fn state(&self) -> LaneState {
        self.shared.stats().state
    }

    /// Why a full lane is full: [`CommitError::Full`] in numbers.
    #[must_use]
    pub fn full_cause(&self) -> FullCause {
        let used_bytes = self.slots.used_bytes();
        let budget_bytes = self.config.budget_bytes;
        match self.slots.disk_short() {
            Some(short) => FullCause::Disk {
                free_bytes: short.free_bytes,
                needed_bytes: short.needed_bytes,
                used_bytes,
                budget_bytes,
            },
            None => FullCause::Budget { used_bytes, budget_bytes },
        }
    }

    /// The settings, every number inside its limits.
    #[must_use]
    pub fn config(&self) -> &LaneConfig {
        &self.config
    }

    /// A reader.
    #[must_use]
    pub fn reader(&self) -> LaneReader {
        LaneReader::new(Arc::clone(&self.shared))
    }

    /// Tells gaps: in the next group, and to whoever asks.
    fn tell_gaps(&mut self, gaps: &[Gap]) {
        let mut known = self.shared.gaps();
        for gap in gaps {
            for (from, to) in known.untold(gap.stream, gap.from, gap.to) {
                put_gap(self.pending.state(), &Gap { from, to, ..*gap });
            }
            known.add(*gap);
        }
    }

    /// After a failed write or sync.
    fn poison(
        &mut self,
        operation: &'static str,
        at: JournalPosition,
        source: std::io::Error,
    ) -> CommitError {
        self.poisoned = true;
        self.shared.stats().state = LaneState::Poisoned;
        tracing::error!(lane = self.config.name, operation, %at, error = %source, "lane poisoned");
        CommitError::Poisoned { operation, at, source: Some(source) }
    }

    fn check_poison(&self) -> Result<(), CommitError> {
        if self.poisoned {
            let at = self.shared.end();
            return Err(CommitError::Poisoned { operation: "an earlier write", at, source: None });
        }
        Ok(())
    }

    /// Sequence of the oldest live segment, as frames tell it.
    fn journal_start(&self) -> u64 {
        let oldest = self.shared.segments().front().map(|segment| segment.id.sequence);
        oldest.unwrap_or(1)
    }
}

//! Reading a lane from any thread, never past the durable end.
//!
//! - A sequential reader starts where it stopped (stream_index/hints.rs); any other asks the index for a group at
//!   or before its offset and walks on by frame headers and directories, unpacking only what holds its stream.
//! - Damage is jumped over. It is noted, and maintenance names what is lost; a reader never waits for that.
//! - A segment that is recycled under a reader shows frames with another salt: lost, not wrong.
//! - A segment is given up in this order: copies are in their table, the log start and the home are raised, the segment
//!   goes. So who finds something missing looks the other way round, at the home again and then at the table, before it
//!   is taken for a hole.

mod copies;
mod times;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use edge_wire::{Offset, StreamId};
use thiserror::Error;

use crate::clock::BootClocks;
use crate::decoded::{BatchRef, DecodedGroup, GroupKind};
use crate::gap::Gap;
use crate::journal::directory::may_hold;
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{Window, frame, header_at, own_directory, resync};
use crate::position::JournalPosition;
use crate::scrub::Scrub;
use crate::shared::{ReadCounters, Segment, Shared, StreamShared};
use crate::stats::LaneStats;
use crate::storage::StorageFile;
use crate::stream::StreamBounds;
use crate::stream_index::rebuild::side_index;
use crate::stream_index::side::SideIndex;
use copies::CopiesRead;
pub use copies::{CopiedPart, CopiedRead, CopiedStream};

/// Why nothing could be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The lane has no such stream.
    #[error("stream {stream} is not in this lane")]
    UnknownStream {
        /// The stream asked for.
        stream: StreamId,
    },
    /// The offset is below the log start or beyond the durable end.
    #[error("offset {offset} is outside {log_start}..{durable_end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// First readable offset.
        log_start: Offset,
        /// First offset that is not durable.
        durable_end: Offset,
    },
    /// The disk did not read.
    #[error("reading segment {segment} failed")]
    Io {
        /// Sequence of the segment.
        segment: u64,
        /// In the system's words.
        #[source]
        source: io::Error,
    },
}

/// How far a read came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadEnd {
    /// The offset to read next.
    pub next: Offset,
}

/// What stands at a journal position.
#[derive(Clone, Debug)]
pub enum GroupAt {
    /// A group.
    Group(Arc<DecodedGroup>),
    /// Nothing yet: it is the durable end.
    End,
    /// Damaged or recycled.
    Lost {
        /// Where to continue.
        next: JournalPosition,
    },
}

/// Reads a lane. Cheap to clone; any thread.
#[derive(Clone)]
pub struct LaneReader {
    pub(crate) shared: Arc<Shared>,
}

/// Groups without the wanted stream that are passed by their directories before the index is asked.
const SKIPS_BEFORE_INDEX: u32 = 8;

/// One reader's way through the journal.
pub(crate) struct Walk<'s> {
    pub(crate) window: Window,
    pub(crate) skipped_groups: u64,
    /// Groups passed over since the last one that was wanted.
    skipped_in_a_row: u32,
    /// The side index of the segment that is walked through.
    side: Option<(u64, Arc<SideIndex>)>,
    counters: &'s ReadCounters,
}

impl<'s> Walk<'s> {
    pub(crate) fn new(counters: &'s ReadCounters) -> Self {
        let window = Window::default();
        Self { window, skipped_groups: 0, skipped_in_a_row: 0, side: None, counters }
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        self.counters.walked(self.window.read_bytes, self.skipped_groups);
    }
}

/// Whether a group with this directory may hold what is looked for; without it every group is wanted.
pub(crate) type Wanted<'w> = Option<&'w dyn Fn(&[u8]) -> bool>;

/// What a walk found at a position.
pub(crate) enum Step {
    /// A group.
    Group(Arc<DecodedGroup>),
    /// A group that does not hold what is looked for.
    Skipped(JournalPosition),
    Lost(JournalPosition),
    End,
}

impl std::fmt::Debug for LaneReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneReader").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl LaneReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Readable range of a stream.
    #[must_use]
    pub fn bounds(&self, stream: StreamId) -> Option<StreamBounds> {
        Some(self.shared.stream(stream)?.bounds())
    }

    /// Appends whole RecordBatch v2 from the batch that holds `from` (so the first may begin below `from`),
    /// until the next would pass `max_bytes`; the first is always whole. Holes are jumped over.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(
        &self,
        stream: StreamId,
        from: Offset,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<ReadEnd, ReadError> {
        let start = out.len();
        self.read_batches(stream, from, &mut |batch| {
            let before = out.len();
            batch.write_record_batch(out);
            if before > start && out.len() - start > max_bytes {
                out.truncate(before);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
    }

    /// Visits the batches from the one that holds `from`, until the durable end or `Break`; the batch that is
    /// answered with `Break` counts as not read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_batches(
        &self,
        stream: StreamId,
        from: Offset,
        visit: &mut dyn FnMut(BatchRef<'_>) -> ControlFlow<()>,
    ) -> Result<ReadEnd, ReadError> {
        let known = self.shared.stream(stream).ok_or(ReadError::UnknownStream { stream })?;
        // The durable end before the journal's end: what the first counts, the second covers.
        let bounds = known.bounds();
        if from < bounds.log_start || from > bounds.durable_end {
            let StreamBounds { log_start, durable_end } = bounds;
            return Err(ReadError::OutOfRange { offset: from, log_start, durable_end });
        }
        let (mut next, mut at) = (from, JournalPosition::START);
        // No further than the journal reaches now: what is written meanwhile the window may show half.
        let end = self.shared.end();
        let mut walk = Walk::new(&self.shared.reads);
        while next < bounds.durable_end {
            if next < known.home() {
                match self.read_copies(&mut walk.window, stream, &known, next, visit)? {
                    CopiesRead::Through(through) => next = through,
                    CopiesRead::Stopped(next) => return Ok(ReadEnd { next }),
                }
                at = JournalPosition::START;
                continue;
            }
            if at == JournalPosition::START {
                at = self.locate(stream, &known, next)?;
            }
            let may_hold = |directory: &[u8]| may_hold(directory, stream, next);
            match self.step(&mut walk.window, at, end, Some(&may_hold))? {
                Step::Group(group) => {
                    walk.skipped_in_a_row = 0;
                    at = group.next();
                    for batch in group.batches_of(stream).filter(|batch| !batch.is_copied()) {
                        if batch.end_offset() <= next {
                            continue;
                        }
                        if known.is_copied_between(next, batch.base_offset()) {
                            at = JournalPosition::START;
                            break;
                        }
                        if batch.base_offset() >= bounds.durable_end {
                            break;
                        }
                        if visit(batch).is_break() {
                            self.shared.hints().put(stream, next, group.position());
                            return Ok(ReadEnd { next });
                        }
                        next = batch.end_offset();
                    }
                }
                Step::Skipped(further) => {
                    at = further;
                    walk.skipped_groups += 1;
                    walk.skipped_in_a_row += 1;
                    if walk.skipped_in_a_row == SKIPS_BEFORE_INDEX {
                        at = at.max(self.ahead(&mut walk, stream, &known, next, at)?);
                    }
                }
                Step::Lost(further) => at = further,
                // It was given up on the way: its copies are read.
                Step::End if next < known.home() => at = JournalPosition::START,
                // Nothing is left of what is missing: a hole up to the durable end.
                Step::End => {
                    return Ok(ReadEnd { next: next.max(bounds.durable_end) });
                }
            }
        }
        if at != JournalPosition::START {
            self.shared.hints().put(stream, next, at);
        }
        Ok(ReadEnd { next })
    }

    /// Where the journal starts.
    #[must_use]
    pub fn start(&self) -> JournalPosition {
        self.shared.start()
    }

    /// The durable end of the journal.
    #[must_use]
    pub fn end(&self) -> JournalPosition {
        self.shared.end()
    }

    /// The group at a position. [`JournalPosition::START`] and the end of a segment mean the next group there is.
    /// Groups of copies are left out: what they hold was shown where it was written first.
    ///
    /// # Errors
    /// The disk did not read.
    pub fn group(&self, at: JournalPosition) -> Result<GroupAt, ReadError> {
        // Who reads a lane in order comes again for the next group: it is in the same stretch of the file.
        let (mut window, end, mut at) = (self.shared.take_window(), self.shared.end(), at);
        let before = window.read_bytes;
        let step = loop {
            match self.step(&mut window, at, end, None) {
                Ok(Step::Group(group)) if group.header().kind == GroupKind::Copied => {
                    at = group.next();
                }
                step => break step,
            }
        };
        self.shared.reads.walked(window.read_bytes - before, 0);
        self.shared.keep_window(window);
        Ok(match step? {
            Step::Group(group) => GroupAt::Group(group),
            Step::Skipped(next) | Step::Lost(next) => GroupAt::Lost { next },
            Step::End => GroupAt::End,
        })
    }

    /// Tells when boots really began: what the gateway stamped in them before the clock was set is corrected from now
    /// on. Told again after every open.
    pub fn set_boot_clocks(&self, clocks: BootClocks) {
        self.shared.set_clocks(clocks);
    }

    /// When boots really began, as far as is known.
    #[must_use]
    pub fn boot_clocks(&self) -> BootClocks {
        self.shared.clocks().clone()
    }

    /// Counters and state.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        let mut stats = *self.shared.stats();
        self.shared.reads.tell(&mut stats);
        stats
    }

    /// A walk over the journal that checks what is on the device.
    #[must_use]
    pub fn scrub(&self) -> Scrub {
        Scrub::new(Arc::clone(&self.shared))
    }

    /// Whether both read the lane as it was opened the same time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// How many gaps are known.
    #[must_use]
    pub fn gap_count(&self) -> usize {
        self.shared.gaps().as_slice().len()
    }

    /// All gaps known.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        self.shared.gaps().as_slice().to_vec()
    }

    /// A group at or before the one that holds `from`.
    pub(crate) fn locate(
        &self,
        stream: StreamId,
        known: &StreamShared,
        from: Offset,
    ) -> Result<JournalPosition, ReadError> {
        let hint = self.shared.hints().get(stream, from);
        let (tail_segment, tail_head, tail_floor) = {
            let tail = known.tail();
            (tail.segment, tail.head, tail.floor(from))
        };
        if tail_segment != 0 && from >= tail_head {
            let at = JournalPosition { segment: tail_segment, byte: tail_floor.unwrap_or(0) };
            return Ok(hint.map_or(at, |hint| hint.max(at)));
        }
        if let Some(hint) = hint {
            return Ok(hint);
        }
        self.search(stream, tail_segment, from)
    }

    /// Where the index of the segment of `at` says that `next` may be: a stream that is in few groups is not looked for
    /// in all of them.
    fn ahead(
        &self,
        walk: &mut Walk<'_>,
        stream: StreamId,
        known: &StreamShared,
        next: Offset,
        at: JournalPosition,
    ) -> Result<JournalPosition, ReadError> {
        let (tail_segment, tail_floor) = {
            let tail = known.tail();
            (tail.segment, tail.floor(next))
        };
        if tail_segment == at.segment {
            return Ok(JournalPosition { byte: tail_floor.unwrap_or(0), ..at });
        }
        // The open segment has no side index, and this stream no place in it yet.
        if tail_segment == 0 || at.segment >= self.shared.end().segment {
            return Ok(at);
        }
        let side = match &walk.side {
            Some((segment, side)) if *segment == at.segment => Arc::clone(side),
            _ => {
                let segment = self.shared.segment_at_or_after(at.segment);
                let segment = segment.filter(|segment| segment.id.sequence == at.segment);
                let Some(segment) = segment else { return Ok(at) };
                let side = self.side(&segment)?;
                walk.side = Some((at.segment, Arc::clone(&side)));
                side
            }
        };
        Ok(match side.find(stream) {
            Some(line) if line.end <= next => JournalPosition { segment: at.segment + 1, byte: 0 },
            Some(line) => JournalPosition { byte: line.floor(next).unwrap_or(0), ..at },
            None => at,
        })
    }

    /// The same among the segments before `before`, by their side indexes.
    fn search(
        &self,
        stream: StreamId,
        before: u64,
        from: Offset,
    ) -> Result<JournalPosition, ReadError> {
        let candidates: Vec<Arc<Segment>> = {
            let segments = self.shared.segments();
            let newest = segments.back().map_or(0, |segment| segment.id.sequence);
            let before = if before == 0 { newest } else { before };
            segments.iter().filter(|segment| segment.id.sequence < before).cloned().collect()
        };
        let (mut low, mut high) = (0, candidates.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.side(&candidates[middle])?.find(stream) {
                Some(line) if line.head <= from => low = middle + 1,
                Some(_) => high = middle,
                // The segment does not know the stream: made before it, or its head was damaged. Step by step.
                None => break,
            }
        }
        for segment in candidates[..high].iter().rev() {
            if let Some(line) = self.side(segment)?.find(stream).filter(|line| line.head <= from) {
                if line.end <= from {
                    let segment = segment.id.sequence + 1;
                    return Ok(JournalPosition { segment, byte: 0 });
                }
                let byte = line.floor(from).unwrap_or(0);
                return Ok(JournalPosition { segment: segment.id.sequence, byte });
            }
        }
        Ok(JournalPosition::START)
    }

    fn side(&self, segment: &Segment) -> Result<Arc<SideIndex>, ReadError> {
        side_index(&self.shared, segment)
            .map_err(|source| ReadError::Io { segment: segment.id.sequence, source })
    }

    /// Looks at one position. With `wanted`, a group that cannot hold it is skipped without being unpacked.
    pub(crate) fn step(
        &self,
        window: &mut Window,
        at: JournalPosition,
        end: JournalPosition,
        wanted: Wanted<'_>,
    ) -> Result<Step, ReadError> {
        if at >= end {
            return Ok(Step::End);
        }
        let mut at = at;
        let segment = loop {
            let Some(segment) = self.shared.segment_at_or_after(at.segment) else {
                return Ok(Step::End);
            };
            let first = segment.first_position();
            if first.segment > at.segment {
                let fresh = at.segment == 0 || at.byte == 0;
                if !fresh {
                    return Ok(Step::Lost(first));
                }
                at = first;
            }
            at.byte = at.byte.max(first.byte);
            if at.byte < segment.end() {
                break segment;
            }
            // The end of a sealed segment; whether anything follows, the journal's end tells.
            at = JournalPosition { segment: at.segment + 1, byte: 0 };
            if at >= end {
                return Ok(Step::End);
            }
        };
        if at >= end {
            return Ok(Step::End);
        }
        let cached = self.shared.cache().get(at);
        if let Some(group) = cached.and_then(|cached| cached.group(&self.shared.clocks())) {
            return Ok(Step::Group(group));
        }
        self.read_step(window, &segment, at, wanted)
            .map_err(|source| ReadError::Io { segment: at.segment, source })
    }

    fn read_step(
        &self,
        window: &mut Window,
        segment: &Segment,
        at: JournalPosition,
        wanted: Wanted<'_>,
    ) -> io::Result<Step> {
        if window.segment != segment.id.sequence {
            window.forget();
            window.segment = segment.id.sequence;
        }
        if let Some(step) = self.try_read(window, segment, at, wanted)? {
            return Ok(step);
        }
        // Perhaps only the copy in memory is stale: it was read while the frame was on its way to the device.
        window.forget();
        segment.file.forget_cached();
        match self.try_read(window, segment, at, wanted)? {
            Some(step) => Ok(step),
            None => self.after_damage(window, segment, at),
        }
    }

    /// What stands at a place, if it is intact.
    fn try_read(
        &self,
        window: &mut Window,
        segment: &Segment,
        at: JournalPosition,
        wanted: Wanted<'_>,
    ) -> io::Result<Option<Step>> {
        let file = &segment.file;
        let HeaderAt::Frame(header) = header_at(window, file, &segment.id, at.byte)? else {
            return Ok(None);
        };
        // Copies are found by their table only.
        if wanted.is_some() && header.kind == GroupKind::Copied {
            return Ok(Some(Step::Skipped(header.end())));
        }
        if let Some(may_hold) = wanted
            && let Some(directory) = own_directory(window, file, &header)?
            && !may_hold(directory)
        {
            return Ok(Some(Step::Skipped(header.end())));
        }
        let bytes = frame(window, file, &header)?;
        let Ok(mut group) = self.shared.unpacker.decode(&header, bytes) else { return Ok(None) };
        self.shared.reads.decoded(header.body_bytes as usize + header.raw_bytes as usize);
        let clocks = self.shared.clocks();
        group.correct(&clocks);
        let group = Arc::new(group);
        self.shared.cache_group(Arc::clone(&group));
        Ok(Some(Step::Group(group)))
    }

    /// What follows a place that cannot be read.
    fn after_damage(
        &self,
        window: &mut Window,
        segment: &Segment,
        at: JournalPosition,
    ) -> io::Result<Step> {
        if segment.retired.load(Ordering::Acquire) {
            window.forget();
            return Ok(Step::Lost(
                self.shared
                    .start()
                    .max(JournalPosition { segment: segment.id.sequence + 1, byte: 0 }),
            ));
        }
        let (file, id) = (&segment.file, &segment.id);
        let from = at.byte.saturating_add(id.sector_bytes);
        let further = resync(window, file, id, from, segment.end(), 0)?;
        // What a recovery judged before is told already.
        let told = further.is_some_and(|header| {
            header.proven_end.segment == at.segment && header.proven_end <= at
        });
        if !told {
            self.shared.note_damage(at);
        }
        Ok(Step::Lost(match further {
            Some(header) => header.position,
            None => JournalPosition { segment: at.segment + 1, byte: 0 },
        }))
    }
}

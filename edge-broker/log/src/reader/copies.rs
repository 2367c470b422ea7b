//! Reading what was copied forward: by the table of copies, group by group.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use edge_wire::{Offset, StreamId};

use super::{LaneReader, ReadError, Step, Walk};
use crate::decoded::{BatchRef, DecodedGroup};
use crate::journal::scan::Window;
use crate::shared::StreamShared;

/// How often a copy that moved while it was read is looked for again.
const MOVES_MAX: usize = 3;

/// How far copies were read.
pub(super) enum CopiesRead {
    /// Everything below was shown, or is no more.
    Through(Offset),
    /// The visitor has enough.
    Stopped(Offset),
}

/// A stream whose oldest records stand in copies only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiedStream {
    /// The stream.
    pub stream: StreamId,
    /// Its first offset.
    pub log_start: Offset,
    /// The offset from which on its records are read where they were written first.
    pub home: Offset,
}

/// What stands of a stretch of a stream's copies.
#[derive(Clone, Debug)]
pub enum CopiedPart {
    /// Its records in this group, and no others of it.
    Group {
        /// The group.
        group: Arc<DecodedGroup>,
        /// First offset.
        from: Offset,
        /// The offset behind the last.
        to: Offset,
    },
    /// Damaged; maintenance names it.
    Lost {
        /// First offset.
        from: Offset,
        /// The offset behind the last.
        to: Offset,
    },
}

/// What [`LaneReader::read_copied`] found, in the order of the offsets.
#[derive(Clone, Debug)]
pub struct CopiedRead {
    /// What is between them was cleaned or thinned, or fell out of the log.
    pub parts: Vec<CopiedPart>,
    /// Where to read on.
    pub next: Offset,
}

impl LaneReader {
    /// The first stream from a number on of which anything is read from copies. Who follows the journal does not see
    /// them ([`group`](Self::group)).
    #[must_use]
    pub fn copied_stream(&self, from: StreamId) -> Option<CopiedStream> {
        let streams: Vec<StreamId> = self.shared.copies().streams_from(from).collect();
        streams.into_iter().find_map(|stream| {
            let known = self.shared.stream(stream)?;
            let bounds = known.bounds();
            let (log_start, home) = (bounds.log_start, known.home().min(bounds.durable_end));
            let first = self.shared.copies().at_or_after(stream, log_start);
            let is_read = first.is_some_and(|(base, _)| base < home);
            is_read.then_some(CopiedStream { stream, log_start, home })
        })
    }

    /// The parts of a range that were cleaned or thinned, or went with what was not worth keeping: they lie below the
    /// stream's home and stand in no copy.
    #[must_use]
    pub fn left_out(&self, stream: StreamId, range: Range<Offset>) -> Vec<Range<Offset>> {
        let Some(known) = self.shared.stream(stream) else { return Vec::new() };
        let home = known.home();
        let to = range.end.min(home);
        let parts = self.shared.copies().uncovered(stream, (range.start, to), home);
        parts.into_iter().map(|(from, to)| from..to).collect()
    }

    /// Copies of a stream, until `max_bytes` of their groups were read; one group at least. The range is not to reach
    /// over the stream's home.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_copied(
        &self,
        stream: StreamId,
        range: Range<Offset>,
        max_bytes: usize,
    ) -> Result<CopiedRead, ReadError> {
        let mut walk = Walk::new(&self.shared.reads);
        let (mut parts, mut next, mut bytes, mut moves) = (Vec::new(), range.start, 0, 0);
        while next < range.end && bytes < max_bytes && moves < MOVES_MAX {
            let found = self.shared.copies().at_or_after(stream, next);
            let Some((base, run)) = found.filter(|(base, _)| *base < range.end) else {
                next = range.end;
                break;
            };
            let (from, to) = (next.max(base), run.end.min(range.end));
            match self.step(&mut walk.window, run.at, self.shared.end(), None)? {
                Step::Group(group) if group.position() == run.at => {
                    bytes += group.memory_bytes();
                    parts.push(CopiedPart::Group { group, from, to });
                }
                // It was copied on meanwhile; else it is damaged, and that was noted.
                _ if self.shared.copies().at_or_after(stream, next) != found => {
                    moves += 1;
                    continue;
                }
                _ => parts.push(CopiedPart::Lost { from, to }),
            }
            next = to;
        }
        Ok(CopiedRead { parts, next })
    }

    /// Visits the batches of the next copied group that holds anything of a stream at or behind `next`, which is
    /// below the stream's home.
    pub(super) fn read_copies(
        &self,
        window: &mut Window,
        stream: StreamId,
        known: &StreamShared,
        next: Offset,
        visit: &mut dyn FnMut(BatchRef<'_>) -> ControlFlow<()>,
    ) -> Result<CopiesRead, ReadError> {
        let mut next = next;
        for _ in 0..MOVES_MAX {
            let home = known.home();
            let found = self.shared.copies().at_or_after(stream, next);
            let Some((base, run)) = found.filter(|(base, _)| *base < home) else {
                return Ok(CopiesRead::Through(home.max(next)));
            };
            let end = self.shared.end();
            let group = match self.step(window, run.at, end, None)? {
                Step::Group(group) if group.position() == run.at => group,
                _ => {
                    // It was copied on meanwhile, or is damaged; then that was noted.
                    let again = self.shared.copies().at_or_after(stream, next);
                    if again == Some((base, run)) {
                        return Ok(CopiesRead::Through(run.end));
                    }
                    continue;
                }
            };
            let from = next.max(base);
            let mine = group
                .batches_of(stream)
                .filter(|batch| batch.end_offset() > from && batch.base_offset() < run.end);
            for batch in mine {
                if visit(batch).is_break() {
                    return Ok(CopiesRead::Stopped(next));
                }
                next = batch.end_offset();
            }
            return Ok(CopiesRead::Through(run.end.max(next)));
        }
        // Overtaken again and again: the next call goes on.
        Ok(CopiesRead::Stopped(next))
    }

    /// The first copied record in `from..home` whose timestamp is `timestamp_ms` or later. `home` is not beyond the
    /// stream's.
    pub(super) fn copy_at_time(
        &self,
        stream: StreamId,
        (from, home): (Offset, Offset),
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let shift_ms = self.shared.clocks().shift_ms_max();
        let mut from = from;
        while from < home {
            let found = {
                let copies = self.shared.copies();
                let later = |base: Offset, end: Offset| base < home && end > from;
                let mut runs = copies.of(stream).filter(|(base, run)| later(*base, run.end));
                runs.find(|(_, run)| run.latest_ms(shift_ms) >= timestamp_ms)
                    .map(|(base, run)| (base, run.end.min(home)))
            };
            let Some((base, end)) = found else { return Ok(None) };
            let found = self.first_at_time(stream, from.max(base), timestamp_ms, end)?;
            if found.is_some() {
                return Ok(found);
            }
            from = end;
        }
        Ok(None)
    }
}

//! Reading what was copied forward: by the table of copies, group by group.

use std::ops::ControlFlow;

use edge_wire::{Offset, StreamId};

use super::{LaneReader, ReadError, Step};
use crate::decoded::BatchRef;
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

impl LaneReader {
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

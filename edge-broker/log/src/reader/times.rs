//! Reading by time: the first record from a time on, and the newest.
//!
//! Timestamps need not grow with offsets. What the indexes know are the latest ones of a segment and of a stream.

use std::ops::ControlFlow;

use edge_wire::{Offset, StreamId};

use super::{LaneReader, ReadError};
use crate::position::JournalPosition;
use crate::shared::StreamShared;

/// What came of a look.
enum Looked {
    /// The answer.
    Found(Option<(Offset, i64)>),
    /// The ring gave something up meanwhile.
    Turned,
}

impl LaneReader {
    /// The first record whose timestamp is `timestamp_ms` or later: its offset and timestamp.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_at_time(
        &self,
        stream: StreamId,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let known = self.shared.stream(stream).ok_or(ReadError::UnknownStream { stream })?;
        let mut from = known.bounds().log_start;
        loop {
            match self.look_for_time(stream, &known, &mut from, timestamp_ms) {
                Ok(Looked::Found(found)) => return Ok(found),
                Ok(Looked::Turned) => {}
                // The log start moved under it: what was looked for below is gone.
                Err(ReadError::OutOfRange { log_start, .. }) if from < log_start => {
                    from = log_start
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks at the copies from `from` on, which moves behind them, and at what follows. What the ring gave up
    /// meanwhile was perhaps not seen: it is among the copies now, and they are to be looked at first.
    fn look_for_time(
        &self,
        stream: StreamId,
        known: &StreamShared,
        from: &mut Offset,
        timestamp_ms: i64,
    ) -> Result<Looked, ReadError> {
        let home = known.home().min(known.durable_end());
        if let Some(found) = self.copy_at_time(stream, (*from, home), timestamp_ms)? {
            return Ok(Looked::Found(Some(found)));
        }
        *from = home.max(*from);
        let found = self.original_at_time(stream, known, *from, timestamp_ms)?;
        let turned = known.home().min(known.durable_end()) > *from;
        Ok(if turned { Looked::Turned } else { Looked::Found(found) })
    }

    /// The first record at or behind `from` that is not read from a copy.
    fn original_at_time(
        &self,
        stream: StreamId,
        known: &StreamShared,
        mut from: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let end = Offset(u64::MAX);
        // What was stamped before the clock was set may be later than the indexes say.
        let shift_ms = self.shared.clocks().shift_ms_max();
        let latest = |max_ms: i64, unvouched: bool| {
            if unvouched { max_ms.saturating_add(shift_ms) } else { max_ms }
        };
        let (tail_segment, tail_head, tail_max_ms) = {
            let tail = known.tail();
            (tail.segment, tail.head, latest(tail.segment_max_ms, tail.segment_unvouched))
        };
        // Without a place in the segments that were read when the lane was opened, all are looked at.
        let sealed_before = if tail_segment == 0 { u64::MAX } else { tail_segment };
        // Whole segments whose records are all older are left out.
        let mut at = JournalPosition::START;
        while let Some(segment) = self.shared.segment_at_or_after(at.segment + 1) {
            at = segment.first_position();
            if at.segment >= sealed_before || at.segment >= self.shared.end().segment {
                break;
            }
            let side = self.side(&segment)?;
            let Some(line) = side.find(stream) else { continue };
            let max_ms = latest(line.max_ms, line.unvouched);
            if line.end > line.head && max_ms >= timestamp_ms && line.end > from {
                let found = self.first_at_time(stream, from.max(line.head), timestamp_ms, end)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            from = from.max(line.end);
        }
        if tail_max_ms < timestamp_ms {
            // The tail index may have moved on meanwhile; then there is a newer maximum.
            let tail = known.tail();
            let max_ms = latest(tail.segment_max_ms, tail.segment_unvouched);
            if tail.segment == tail_segment && max_ms < timestamp_ms {
                return Ok(None);
            }
        }
        self.first_at_time(stream, from.max(tail_head), timestamp_ms, end)
    }

    pub(super) fn first_at_time(
        &self,
        stream: StreamId,
        from: Offset,
        timestamp_ms: i64,
        until: Offset,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let mut found = None;
        self.read_batches(stream, from, &mut |batch| {
            if batch.base_offset() >= until {
                return ControlFlow::Break(());
            }
            if batch.max_timestamp_ms() < timestamp_ms {
                return ControlFlow::Continue(());
            }
            // A batch that cannot be unpacked is found by its first offset.
            let unpacked = batch.for_each_record(&mut |record| {
                let fits = record.timestamp_ms >= timestamp_ms && record.offset >= from;
                if found.is_none() && fits {
                    found = Some((record.offset, record.timestamp_ms));
                }
            });
            if unpacked.is_err() && found.is_none() {
                found = Some((batch.base_offset().max(from), batch.max_timestamp_ms()));
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    /// The first record with the highest timestamp: its offset and timestamp.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn max_timestamp(&self, stream: StreamId) -> Result<Option<(Offset, i64)>, ReadError> {
        let known = self.shared.stream(stream).ok_or(ReadError::UnknownStream { stream })?;
        let bounds = known.bounds();
        // The index knows the last offset of the batch that has it.
        let (newest, unvouched) = {
            let tail = known.tail();
            (tail.newest, tail.newest_unvouched)
        };
        let sure = !unvouched || self.shared.clocks().as_slice().is_empty();
        if let (Some((last, newest_ms)), true) = (newest, sure)
            && last >= bounds.log_start
            && last < bounds.durable_end
        {
            let found = self.newest_from(stream, last, bounds.log_start, true)?;
            if found.is_some_and(|(_, found_ms)| found_ms == newest_ms) {
                return Ok(found);
            }
        }
        // It fell out of the log, or was lost: look at what is left.
        self.newest_from(stream, bounds.log_start, bounds.log_start, false)
    }

    /// The first record with the highest timestamp at or behind `log_start`, in the batch of `from` or in all from
    /// there on.
    fn newest_from(
        &self,
        stream: StreamId,
        from: Offset,
        log_start: Offset,
        one_batch: bool,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let mut newest: Option<(Offset, i64)> = None;
        self.read_batches(stream, from, &mut |batch| {
            if newest.is_none_or(|(_, newest_ms)| batch.max_timestamp_ms() > newest_ms) {
                let unpacked = batch.for_each_record(&mut |record| {
                    let later = newest.is_none_or(|(_, newest_ms)| record.timestamp_ms > newest_ms);
                    if later && record.offset >= log_start {
                        newest = Some((record.offset, record.timestamp_ms));
                    }
                });
                if unpacked.is_err() {
                    // What cannot be unpacked is known by its header.
                    newest = Some((batch.last_offset(), batch.max_timestamp_ms()));
                }
            }
            if one_batch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(newest)
    }
}

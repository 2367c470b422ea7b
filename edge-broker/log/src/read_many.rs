//! Reading many streams of a lane at once: each group is unpacked once, whatever the number of streams.
//!
//! - The walk goes through the journal in its order, from the lowest place that any of the streams needs. A place that
//!   only some of them need serves those; stretches that none needs are jumped over.
//! - Every stream gets an equal share of the whole. The stream that is named first is read first: who names them in
//!   turn, as Kafka's consumers do, gets on with every one of them, however large their batches are.

use std::sync::Arc;

use edge_wire::{Offset, StreamId};

use crate::decoded::DecodedGroup;
use crate::journal::directory::DirectoryReader;
use crate::position::JournalPosition;
use crate::reader::{LaneReader, ReadError, Step, Walk};
use crate::shared::StreamShared;
use crate::stream::StreamBounds;

/// One stream of many that are read at once.
#[derive(Debug)]
pub struct StreamRead {
    /// The stream.
    pub stream: StreamId,
    /// From the batch that holds this offset on.
    pub from: Offset,
    /// Most bytes of it.
    pub max_bytes: usize,
    /// Whole RecordBatch v2, appended.
    pub out: Vec<u8>,
    /// Why nothing could be read.
    pub error: Option<ReadError>,
}

/// A stream that wants more.
struct Open {
    /// Which of the reads.
    index: usize,
    stream: StreamId,
    known: Arc<StreamShared>,
    next: Offset,
    durable_end: Offset,
    /// What it needs next is here or behind.
    at: JournalPosition,
}

impl LaneReader {
    /// Reads many streams, together at most `total_bytes`; only the first batch of the first stream that has any may
    /// be larger than that. Holes are jumped over.
    pub fn read_many(&self, reads: &mut [StreamRead], total_bytes: usize) {
        let mut open: Vec<Open> = Vec::with_capacity(reads.len());
        for (index, read) in reads.iter_mut().enumerate() {
            match self.open(index, read) {
                Ok(Some(found)) => open.push(found),
                Ok(None) => {}
                Err(error) => read.error = Some(error),
            }
        }
        let share = total_bytes / open.len().max(1);
        let mut left = total_bytes;
        // The first by itself: nothing that the others want is in its way.
        while !open.is_empty() {
            let first = open.remove(0);
            let read = &mut reads[first.index];
            let max_bytes = read.max_bytes.min(share);
            if let Err(error) = self.read(first.stream, first.next, max_bytes, &mut read.out) {
                read.error = Some(error);
            }
            left = left.saturating_sub(read.out.len());
            if !read.out.is_empty() {
                break;
            }
        }
        // What was copied forward stands elsewhere for each of them.
        open.retain(|open| {
            let is_copied = open.next < open.known.home();
            if is_copied {
                self.read_alone(open, &mut reads[open.index], share, &mut left);
            }
            !is_copied
        });
        if !open.is_empty() && left > 0 {
            self.walk_many(&mut open, reads, share, left);
        }
    }

    fn open(&self, index: usize, read: &StreamRead) -> Result<Option<Open>, ReadError> {
        let (stream, from) = (read.stream, read.from);
        let known = self.shared.stream(stream).ok_or(ReadError::UnknownStream { stream })?;
        let StreamBounds { log_start, durable_end } = known.bounds();
        if from < log_start || from > durable_end {
            return Err(ReadError::OutOfRange { offset: from, log_start, durable_end });
        }
        if from == durable_end {
            return Ok(None);
        }
        let at = self.locate(stream, &known, from)?;
        Ok(Some(Open { index, stream, known, next: from, durable_end, at }))
    }

    /// Reads on with a stream by itself, within what is left for it.
    fn read_alone(&self, open: &Open, read: &mut StreamRead, share: usize, left: &mut usize) {
        let before = read.out.len();
        let room = read.max_bytes.min(share).saturating_sub(before).min(*left);
        if *left == 0 || (before > 0 && room == 0) {
            return;
        }
        // It was in range when this read began: what fell out of the log since then is jumped over.
        let from = open.next.max(open.known.log_start());
        if let Err(error) = self.read(open.stream, from, room, &mut read.out)
            && read.out.is_empty()
        {
            read.error = Some(error);
        }
        let bytes = read.out.len() - before;
        // The first batch comes whole: too large, it waits until its stream is the first of all.
        if bytes > *left || (before > 0 && bytes > room) {
            read.out.truncate(before);
        }
        *left -= read.out.len() - before;
    }

    fn walk_many(
        &self,
        open: &mut Vec<Open>,
        reads: &mut [StreamRead],
        share: usize,
        mut left: usize,
    ) {
        // After the durable ends were looked at: what they count, it covers.
        let end = self.shared.end();
        let mut walk = Walk::new(&self.shared.reads);
        open.sort_unstable_by_key(|open| open.stream);
        while let Some(at) = open.iter().map(|open| open.at).min() {
            let may_hold = |directory: &[u8]| holds_any(directory, open);
            let next = match self.step(&mut walk.window, at, end, Some(&may_hold)) {
                Ok(Step::Group(group)) => {
                    let next = group.next();
                    open.retain_mut(|open| {
                        open.at >= next
                            || self.serve(open, &group, &mut reads[open.index], share, &mut left)
                    });
                    next
                }
                Ok(Step::Skipped(next)) => {
                    walk.skipped_groups += 1;
                    next
                }
                Ok(Step::Lost(next)) => next,
                Ok(Step::End) => {
                    // What was given up on the way stands among the copies; else nothing is left of what is
                    // missing: a hole up to the durable end.
                    for open in open.iter().filter(|open| open.next < open.known.home()) {
                        self.read_alone(open, &mut reads[open.index], share, &mut left);
                    }
                    return;
                }
                // Told by who reads on from there; what was read is good.
                Err(_) => return,
            };
            for open in open.iter_mut() {
                open.at = open.at.max(next);
            }
            if left == 0 {
                break;
            }
        }
        let mut hints = self.shared.hints();
        for open in open.iter() {
            hints.put(open.stream, open.next, open.at);
        }
    }

    /// Gives a stream what a group holds of it. False if it wants no more.
    fn serve(
        &self,
        open: &mut Open,
        group: &Arc<DecodedGroup>,
        read: &mut StreamRead,
        share: usize,
        left: &mut usize,
    ) -> bool {
        for batch in group.batches_of(open.stream).filter(|batch| !batch.is_copied()) {
            if batch.end_offset() <= open.next {
                continue;
            }
            if open.known.is_copied_between(open.next, batch.base_offset()) {
                self.read_alone(open, read, share, left);
                return false;
            }
            if batch.base_offset() >= open.durable_end {
                return false;
            }
            let before = read.out.len();
            batch.write_record_batch(&mut read.out);
            let bytes = read.out.len() - before;
            let over_share = before > 0 && read.out.len() > share;
            if over_share || read.out.len() > read.max_bytes || bytes > *left {
                read.out.truncate(before);
                self.shared.hints().put(open.stream, open.next, group.position());
                return false;
            }
            *left -= bytes;
            open.next = batch.end_offset();
        }
        if open.next >= open.durable_end {
            self.shared.hints().put(open.stream, open.next, group.next());
            return false;
        }
        true
    }
}

/// Whether a directory names any of the streams, which are in order, with an offset that is wanted; what cannot be
/// read might.
fn holds_any(directory: &[u8], open: &[Open]) -> bool {
    let mut at = 0;
    for entry in DirectoryReader::new(directory) {
        let Ok(entry) = entry else { return true };
        while open.get(at).is_some_and(|open| open.stream < entry.stream) {
            at += 1;
        }
        match open.get(at) {
            Some(open) if open.stream == entry.stream && entry.end() > open.next => return true,
            Some(_) => {}
            None => return false,
        }
    }
    false
}

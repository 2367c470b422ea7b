//! Making the pending group durable: one write, one sync, then the durable ends move.

use std::sync::atomic::Ordering;

use edge_wire::Offset;

use super::pending::{Closed, NONE, Touched};
use super::writer::FrameFields;
use super::{Commit, CommitError, Lane, SegmentOwner};
use crate::clock::ClockReading;
use crate::config::GroupCompression;
use crate::decoded::GroupKind;
use crate::group_cache::Committed;
use crate::journal::checkpoint::PRODUCERS_MAX;
use crate::journal::frame::{FLAG_CLEAN_SHUTDOWN, FrameHeader};
use crate::position::JournalPosition;
use crate::stats::LaneState;
use crate::storage::is_of_one_file;

impl Lane {
    /// Makes the pending group durable: one write, one sync. On `Ok` the durable ends have moved.
    ///
    /// If the write fails the group goes into a new segment, once: the bytes where it failed are not known and not
    /// written again. A sync that fails is final.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn commit(
        &mut self,
        clock: &ClockReading,
        now_us: u64,
        owner: &mut dyn SegmentOwner,
    ) -> Result<Commit, CommitError> {
        self.check_poison()?;
        if self.pending.is_empty() {
            // Envelopes that nothing refers to.
            self.pending.clear();
            let end = self.shared.end();
            return Ok(Commit { position: end, end, ..Commit::default() });
        }
        let mut written_bytes = 0;
        if self.writer.current.is_none() || self.must_roll {
            written_bytes += self.roll(clock, now_us, owner)?;
        }
        let mut closed = std::mem::take(&mut self.closed);
        let mut header = self.assemble_group(clock, &mut closed);
        if !self.writer.fits(header.frame_bytes() as usize, closed.directory.len()) {
            // Remembered in case the lane is full: no need to pack the group again to find out.
            self.must_roll = true;
            match self.roll(clock, now_us, owner) {
                Ok(bytes) => written_bytes += bytes,
                Err(error) => {
                    self.closed = closed;
                    return Err(error);
                }
            }
            header = self.assemble_group(clock, &mut closed);
            if !self.writer.fits(header.frame_bytes() as usize, closed.directory.len()) {
                // The limits of checkpoint and group add up to less than a segment of 16 sectors.
                debug_assert!(false, "a group does not fit an empty segment");
                self.closed = closed;
                let bytes = header.frame_bytes() as usize;
                let max_bytes = self.config.segment_bytes as usize / 2;
                return Err(CommitError::CheckpointTooLarge { bytes, max_bytes });
            }
        }
        let mut written = self.writer.write(header.position.byte);
        if let Err(("write", error)) = &written {
            // Whatever stands there now is not written over: once, the group goes into a new segment.
            self.close_tail(header.position, error);
            match self.roll(clock, now_us, owner) {
                Ok(bytes) => written_bytes += bytes,
                Err(error) => {
                    self.closed = closed;
                    return Err(error);
                }
            }
            header = self.assemble_group(clock, &mut closed);
            written = self.writer.write(header.position.byte);
        }
        if let Err((operation, source)) = written {
            self.closed = closed;
            return Err(self.poison(operation, header.position, source));
        }
        written_bytes += header.frame_bytes() as u32;
        self.publish(&header, closed, now_us);
        self.committer.borrow_mut().handle_commit(now_us);
        Ok(Commit {
            position: header.position,
            end: header.end(),
            records: header.records,
            written_bytes,
        })
    }

    fn assemble_group(&mut self, clock: &ClockReading, closed: &mut Closed) -> FrameHeader {
        let place = self.writer.place().expect("a segment is open: it was rolled to");
        self.pending.close(&self.streams, place.position.segment, closed);
        let kind = GroupKind::Data;
        let clock = &self.stamp.header_clock(clock, self.pending.is_unvouched());
        let fields = FrameFields {
            kind,
            flags: 0,
            compression: self.config.compression,
            records: self.pending.offsets(),
            journal_start: self.journal_start(),
            clock,
        };
        self.writer.assemble(0, place, &fields, closed)
    }

    /// The group is on disk: readers may have it.
    fn publish(&mut self, header: &FrameHeader, mut closed: Closed, now_us: u64) {
        self.writer.advance(header, &closed.directory);
        self.note_told();
        let body = std::mem::replace(&mut closed.body, self.shared.unpacker.buffer());
        let raw = std::mem::take(&mut closed.raw);
        let directory = closed.directory.clone();
        self.shared.cache_committed(Committed { header: *header, directory, body, raw });
        self.closed = closed;
        let position = header.position;
        // The ends first, of all of them: so many streams are far away, and the processor fetches them side by side,
        // which it does not across a lock.
        let ends = |touched: &Touched| self.streams.get(touched.local).shared.durable_end();
        self.ends_before.clear();
        self.ends_before.extend(self.pending.touched().iter().map(ends));
        for (touched, before) in self.pending.touched().iter().zip(self.ends_before.drain(..)) {
            let stream = self.streams.get_mut(touched.local);
            stream.defined_in = position.segment;
            stream.last_draft = NONE;
            {
                let mut tail = stream.shared.tail();
                if tail.segment != position.segment {
                    tail.begin(position.segment, before);
                }
                self.pending.for_each_batch(touched, |base, count, max_ms, unvouched, bytes| {
                    tail.note(Offset(base), position.byte);
                    let last = Offset(base + u64::from(count) - 1);
                    tail.note_batch(last, max_ms, unvouched, bytes as usize);
                });
            }
        }
        for change in &self.pending.producers {
            let stream = self.streams.get_mut(change.local);
            let table = stream
                .durable
                .get_or_insert_with(|| Box::new(edge_wire::ProducerTable::new(PRODUCERS_MAX)));
            table.record(change.stamp, change.count, change.base, change.timestamp_ms);
        }
        self.publish_position(header);
        for touched in self.pending.touched() {
            let stream = self.streams.get(touched.local);
            stream.shared.publish_end(Offset(stream.next));
        }
        {
            let mut stats = self.shared.stats();
            stats.payload_bytes += self.pending.payload_bytes;
            stats.records += u64::from(header.records);
            stats.state = LaneState::Open;
        }
        self.pending.clear();
        self.streams.bury();
        self.sealed = false;
        self.last_write_us = Some(now_us);
    }

    /// Moves the end of the journal behind a frame that is on disk.
    pub(super) fn publish_position(&mut self, header: &FrameHeader) {
        if let Some(current) = &self.writer.current {
            current.segment.end.store(header.end().byte, Ordering::Release);
        }
        self.shared.publish_end(header.end());
        let mut stats = self.shared.stats();
        stats.journal_bytes += header.frame_bytes();
        stats.padding_bytes += header.frame_bytes() - header.content_bytes();
        stats.add_pages(u64::from(header.position.byte), header.frame_bytes());
        stats.syncs += 1;
        stats.groups += 1;
    }

    /// Proves the last group. `clean` makes it the clean-shutdown marker: nothing may be pending then.
    ///
    /// # Errors
    /// See [`CommitError`]. `Full` if there is no room for it, or it could not be written, which costs nothing but the
    /// marker.
    pub fn seal(&mut self, clock: &ClockReading, clean: bool) -> Result<(), CommitError> {
        self.check_poison()?;
        if clean && !self.pending.is_empty() {
            return Err(CommitError::Pending);
        }
        // A lane without a segment has nothing to prove.
        let Some(place) = self.writer.place() else { return Ok(()) };
        // Its sectors are smaller than what can be written at once, or it is not known what stands there.
        if self.tail_closed {
            return Err(CommitError::Full);
        }
        let fields = FrameFields {
            kind: GroupKind::Seal,
            flags: if clean { FLAG_CLEAN_SHUTDOWN } else { 0 },
            compression: GroupCompression::None,
            records: 0,
            journal_start: self.start_told_alone(),
            clock,
        };
        let header = self.writer.assemble(0, place, &fields, &Closed::default());
        if header.end().byte > self.segment_bytes_of_current() {
            return Err(CommitError::Full);
        }
        match self.writer.write(header.position.byte) {
            Ok(()) => {}
            Err(("write", error)) => {
                self.close_tail(header.position, &error);
                return Err(CommitError::Full);
            }
            Err((operation, source)) => {
                return Err(self.poison(operation, header.position, source));
            }
        }
        self.writer.advance(&header, &[]);
        self.publish_position(&header);
        self.sealed = true;
        Ok(())
    }

    /// A write failed: what stands at the place and behind it is not known, and only a new segment goes on.
    fn close_tail(&mut self, at: JournalPosition, error: &std::io::Error) {
        tracing::error!(lane = self.config.name, %at, %error, "a write failed: the segment is left");
        self.tail_closed = true;
        self.must_roll = true;
        if let Some(current) = &self.writer.current
            && is_of_one_file(error)
        {
            self.slots.mark_bad(current.segment.slot);
        }
    }

    fn segment_bytes_of_current(&self) -> u32 {
        self.writer.current.as_ref().map_or(0, |current| current.segment.id.segment_bytes)
    }
}

//! From a submission to the open group, and who is told when.

use edge_log::AppendError;

use super::{LaneThread, NotAppended, Pending};
use crate::lane_handle::LaneState;
use crate::submission::{
    AppendResult, Body, Failure, Outcome, ProducedBatch, RecordChunk, Submission, TimeKind,
};

/// Told for batches whose time is not ours.
const NO_TIMESTAMP: i64 = -1;

impl LaneThread {
    pub(super) fn append(&mut self, submission: Submission) {
        let Submission { body, completion, droppable, give_back_at_us } = submission;
        self.current = completion;
        self.is_split = false;
        let mut appended = Vec::new();
        let waits_for_sync = !matches!(body, Body::Define(_));
        // What somebody deleted must not come back, however records are acknowledged.
        let is_log_start = matches!(body, Body::LogStart(_));
        let mut kept = None;
        let result = match body {
            Body::Chunk(chunk) => {
                let result = self.append_chunk(&chunk);
                kept = Some(Body::Chunk(chunk));
                result
            }
            Body::Batches(batches) => {
                let result = self.append_batches(&batches, &mut appended);
                kept = Some(Body::Batches(batches));
                result
            }
            Body::Events(events) => self.append_events(events),
            Body::Define(definitions) => {
                for (definition, retention) in definitions {
                    self.define(definition, retention);
                }
                Ok(())
            }
            Body::Remove(streams) => {
                streams.into_iter().for_each(|stream| self.remove(stream));
                Ok(())
            }
            Body::LogStart(starts) => starts.into_iter().try_for_each(|(stream, offset)| {
                let moved = self.lane.set_log_start(stream, offset);
                moved.map(|_| ()).map_err(|_| NotAppended::Failed(Failure::Unstorable))
            }),
        };
        let completion = self.current.take();
        let result = match result {
            Ok(()) => Ok(()),
            Err(NotAppended::Failed(failure)) => Err(failure),
            Err(NotAppended::NoRoom) => {
                self.no_room = true;
                match kept {
                    Some(body) if !droppable => self.waiting.push_front(Submission {
                        body,
                        completion,
                        droppable,
                        give_back_at_us,
                    }),
                    body => self.handle.count_dropped(body.map_or(0, |body| body.records())),
                }
                self.hold_back();
                return;
            }
        };
        self.group_is_fixed |= self.is_split && result.is_ok();
        if droppable {
            let records = kept.map_or(0, |body| body.records());
            match result {
                Ok(()) => self.droppable_records += records,
                Err(_) => self.handle.count_dropped(records),
            }
            return;
        }
        // What is half on disk cannot be given back.
        let body = kept.filter(|_| !self.is_split);
        // With an empty group there is nothing to wait for: duplicates of what is durable, refused batches.
        let is_pending = result.is_ok() && waits_for_sync && self.lane.pending_bytes() > 0;
        // A full lane acknowledges nothing early: it is not known when there will be room.
        let is_early =
            self.acknowledge_early && !is_log_start && self.handle.state() == LaneState::Open;
        let tell_now = !is_pending || is_early;
        let mut completion = completion;
        if tell_now && let Some(told) = completion.take() {
            let appended = if result.is_ok() { appended.as_slice() } else { &[] };
            told.sink.complete(told.ticket, &Outcome { result, appended });
        }
        if is_pending && (completion.is_some() || body.is_some()) {
            let give_back_at_us = give_back_at_us.filter(|_| completion.is_some());
            self.pending.push(Pending { completion, appended, body, give_back_at_us });
        }
    }

    /// What is appended from now on gets this time, if it brings none.
    pub(super) fn read_clock(&mut self) {
        let clock = self.clock.read();
        self.lane.set_clock(&clock);
        self.appending_us = clock.boottime_us;
    }

    fn append_chunk(&mut self, chunk: &RecordChunk) -> Result<(), NotAppended> {
        // Consecutive records of a chunk mostly share an envelope: it is looked up once.
        let mut known = None;
        let mut is_begun = false;
        let has_events = !chunk.events.is_empty();
        let mut index = 0;
        let mut records = chunk.records.iter();
        let mut next = records.next();
        while let Some(record) = next {
            let envelope = match known {
                Some((index, envelope)) if index == record.envelope => envelope,
                _ => {
                    let known_by = chunk.envelope(record.envelope);
                    let known_by = known_by.ok_or(NotAppended::Failed(Failure::Unstorable))?;
                    let envelope = self.lane.envelope_view(known_by);
                    known = Some((record.envelope, envelope));
                    envelope
                }
            };
            let value = Some(chunk.value(record));
            let stream = record.stream;
            if has_events {
                let bytes_of = |(_, bytes): (u16, &[u8])| bytes.len();
                let (count, bytes) =
                    (chunk.events_of(index).count(), chunk.events_of(index).map(bytes_of).sum());
                match self.lane.check_bound(envelope, record.range().len(), count, bytes) {
                    Ok(()) => {}
                    // Neither may be durable without the other.
                    Err(AppendError::GroupFull) => {
                        self.make_room(is_begun)?;
                        known = None;
                        continue;
                    }
                    Err(error) => return Err(self.unstorable(&error)),
                }
            }
            let appended = match record.time.kind() {
                TimeKind::GivenMs(ms) => self.lane.append_record(stream, envelope, ms, value),
                TimeKind::ArrivedUs(us) => {
                    self.lane.append_stamped(stream, envelope, us, false, value)
                }
                TimeKind::AtAppend => {
                    let now_us = self.appending_us;
                    self.lane.append_stamped(stream, envelope, now_us, true, value)
                }
            };
            match appended {
                Ok(_) => {
                    is_begun = true;
                    next = records.next();
                    if has_events {
                        self.append_bound(chunk, index)?;
                        index += 1;
                    }
                }
                Err(AppendError::GroupFull) => {
                    self.make_room(is_begun)?;
                    known = None;
                }
                Err(error) => return Err(self.unstorable(&error)),
            }
        }
        Ok(())
    }

    fn append_bound(&mut self, chunk: &RecordChunk, record: u32) -> Result<(), NotAppended> {
        for (tag, bytes) in chunk.events_of(record) {
            let appended = self.lane.append_bound_event(tag, bytes);
            appended.map_err(|error| self.unstorable(&error))?;
            self.bound_events.push((tag, bytes.to_vec()));
        }
        Ok(())
    }

    fn append_batches(
        &mut self,
        batches: &[ProducedBatch],
        appended: &mut Vec<AppendResult>,
    ) -> Result<(), NotAppended> {
        for batch in batches {
            let mut result = self.append_batch(batch);
            if matches!(result, Err(AppendError::GroupFull)) {
                self.make_room(!appended.is_empty())?;
                result = self.append_batch(batch);
            }
            appended.push(result);
        }
        Ok(())
    }

    fn append_batch(&mut self, batch: &ProducedBatch) -> AppendResult {
        let (stream, bytes) = (batch.stream, &batch.bytes);
        if batch.append_time {
            return self.lane.append_batch_stamped(stream, bytes, self.appending_us);
        }
        self.lane.append_batch(stream, bytes).map(|appended| (appended, NO_TIMESTAMP))
    }

    fn append_events(&mut self, events: Vec<(u16, Vec<u8>)>) -> Result<(), NotAppended> {
        for (tag, bytes) in events {
            let mut result = self.lane.append_event(tag, &bytes);
            if matches!(result, Err(AppendError::GroupFull)) {
                // Events cannot be taken out of the group again: they wait in it.
                self.is_split = true;
                self.make_room(true)?;
                result = self.lane.append_event(tag, &bytes);
            }
            result.map_err(|error| self.unstorable(&error))?;
            self.pending_events.push((tag, bytes));
        }
        Ok(())
    }

    fn unstorable(&self, error: &AppendError) -> NotAppended {
        tracing::debug!(lane = self.handle.name(), %error, "a record cannot be stored");
        NotAppended::Failed(Failure::Unstorable)
    }
}

//! Appending to the pending group: memory only.

use edge_wire::{Compression, Offset, RecordBatchView, SequenceCheck, StreamId, TimestampType};

use super::pending::{BATCH_OVERHEAD_BYTES, ProducerBatch, ProducerChange, RECORD_OVERHEAD_BYTES};
use super::{AppendError, Appended, EnvelopeRef, Lane};
use crate::journal::batches::{Marks, ProducerFields};
use crate::journal::checkpoint::PRODUCERS_MAX;
use crate::journal::entry::put_event;
use crate::journal::format::GROUP_OFFSETS_MAX;

impl Lane {
    /// Appends one record to the pending group.
    ///
    /// # Errors
    /// See [`AppendError`]; `GroupFull` is cured by a commit.
    #[inline]
    pub fn append_record(
        &mut self,
        stream: StreamId,
        envelope: EnvelopeRef,
        timestamp_ms: i64,
        value: Option<&[u8]>,
    ) -> Result<Offset, AppendError> {
        self.append_one(stream, envelope, timestamp_ms, Marks::default(), value)
    }

    /// Appends one record that has no time of its own: it gets that of the lane's clock ([`Lane::set_clock`]) when
    /// the time since boot was `boottime_us`. With `append_time` its batch is stamped as a whole, as Kafka's
    /// LogAppendTime.
    ///
    /// # Errors
    /// As [`Lane::append_record`].
    #[inline]
    pub fn append_stamped(
        &mut self,
        stream: StreamId,
        envelope: EnvelopeRef,
        boottime_us: u64,
        append_time: bool,
        value: Option<&[u8]>,
    ) -> Result<Offset, AppendError> {
        let marks = Marks { unvouched: self.stamp.is_unvouched(), append_time };
        self.append_one(stream, envelope, self.stamp.wall_ms(boottime_us), marks, value)
    }

    #[inline]
    fn append_one(
        &mut self,
        stream: StreamId,
        envelope: EnvelopeRef,
        timestamp_ms: i64,
        marks: Marks,
        value: Option<&[u8]>,
    ) -> Result<Offset, AppendError> {
        self.untouched = false;
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let Some(local) = self.streams.find(stream) else {
            return Err(AppendError::UnknownStream { stream });
        };
        debug_assert!(self.pending.has_envelope(envelope.0), "an envelope of an older group");
        let bytes = value.map_or(0, <[u8]>::len) + RECORD_OVERHEAD_BYTES;
        if self.pending.is_empty() {
            // Only its own envelope goes with it: what failed appends left behind is not written.
            self.check_alone(bytes + self.pending.envelope_bytes(envelope.0))?;
        } else {
            self.check_room(bytes, 1)?;
        }
        let stream = self.streams.get_mut(local);
        let offset = Offset(stream.next);
        self.pending.push_record(local, stream, envelope.0, timestamp_ms, marks, value);
        Ok(offset)
    }

    /// Appends one RecordBatch v2 of a producer, whose CRC and records the caller has verified.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_batch(
        &mut self,
        stream: StreamId,
        batch: &[u8],
    ) -> Result<Appended, AppendError> {
        self.append_produced(stream, batch, None).map(|(appended, _)| appended)
    }

    /// The same with Kafka's LogAppendTime, by the lane's clock ([`Lane::set_clock`]) when the time since boot was
    /// `boottime_us`. Only the header changes; of a duplicate nothing does. Gives the time that the records have, ms.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_batch_stamped(
        &mut self,
        stream: StreamId,
        batch: &[u8],
        boottime_us: u64,
    ) -> Result<(Appended, i64), AppendError> {
        self.append_produced(stream, batch, Some(boottime_us))
    }

    fn append_produced(
        &mut self,
        stream: StreamId,
        batch: &[u8],
        stamped_at_us: Option<u64>,
    ) -> Result<(Appended, i64), AppendError> {
        self.untouched = false;
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let Some(local) = self.streams.find(stream) else {
            return Err(AppendError::UnknownStream { stream });
        };
        let view = RecordBatchView::parse(batch)?;
        let header = view.header();
        if view.bytes().len() != batch.len() {
            return Err(AppendError::Unsupported { what: "followed by other bytes" });
        }
        if header.attributes.is_transactional() || header.attributes.is_control() {
            return Err(AppendError::Unsupported { what: "transactional or a control batch" });
        }
        let span = header.last_offset_delta.saturating_add(1);
        if header.record_count == 0 || header.record_count > span {
            return Err(AppendError::Unsupported {
                what: "empty or has more records than offsets",
            });
        }
        if span > GROUP_OFFSETS_MAX {
            let (bytes, max_bytes) = (span as usize, GROUP_OFFSETS_MAX as usize);
            return Err(AppendError::TooLarge { bytes, max_bytes });
        }
        if let Some(stamp) = header.producer
            && let Some(table) = &self.streams.get(local).live
        {
            match table.check(stamp, span) {
                SequenceCheck::Accept => {}
                SequenceCheck::Duplicate { base_offset, timestamp_ms } => {
                    return Ok((Appended::Duplicate { base_offset }, timestamp_ms));
                }
                SequenceCheck::OutOfOrder { expected } => {
                    return Err(AppendError::OutOfOrderSequence { expected });
                }
                SequenceCheck::Fenced { current_epoch } => {
                    return Err(AppendError::InvalidProducerEpoch { current_epoch });
                }
            }
        }
        let records = view.records_section();
        let bytes = records.len() + BATCH_OVERHEAD_BYTES;
        if self.pending.is_empty() {
            self.check_alone(bytes)
        } else {
            self.check_room(bytes, span)
        }?;
        let (attributes, max_timestamp_ms, unvouched) = match stamped_at_us {
            Some(boottime_us) => (
                header.attributes.with_timestamp_type(TimestampType::LogAppendTime),
                self.stamp.wall_ms(boottime_us),
                self.stamp.is_unvouched(),
            ),
            None => (header.attributes, header.max_timestamp, false),
        };
        let stream = self.streams.get_mut(local);
        let base_offset = Offset(stream.next);
        self.pending.push_batch(
            local,
            stream,
            &ProducerBatch {
                fields: ProducerFields {
                    attributes: attributes.bits() as u16,
                    missing: span - header.record_count,
                    stamp: header.producer,
                },
                base_timestamp_ms: header.base_timestamp,
                max_timestamp_ms,
                marks: Marks { unvouched, append_time: false },
                span,
                packed: header.attributes.compression() != Compression::None,
                records,
            },
        );
        if let Some(stamp) = header.producer {
            let timestamp_ms = max_timestamp_ms;
            let table = stream
                .live
                .get_or_insert_with(|| Box::new(edge_wire::ProducerTable::new(PRODUCERS_MAX)));
            table.record(stamp, span, base_offset, timestamp_ms);
            let change =
                ProducerChange { local, stamp, count: span, base: base_offset, timestamp_ms };
            self.pending.producers.push(change);
        }
        Ok((Appended::New { base_offset }, max_timestamp_ms))
    }

    /// Appends an event of the owner, durable with the group.
    ///
    /// # Errors
    /// `TooLarge` or `GroupFull`.
    pub fn append_event(&mut self, tag: u16, bytes: &[u8]) -> Result<(), AppendError> {
        self.untouched = false;
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let event_bytes = bytes.len() + RECORD_OVERHEAD_BYTES;
        if self.pending.is_empty() {
            self.check_alone(event_bytes)?;
        } else {
            self.check_room(event_bytes, 0)?;
        }
        put_event(self.pending.state(), tag, bytes);
        Ok(())
    }

    /// Whether a record with a value of `value_bytes` and events of `event_bytes` in all that go with it fit the
    /// pending group: [`Lane::append_bound_event`] may follow the record then.
    ///
    /// # Errors
    /// As appending would.
    pub fn check_bound(
        &self,
        envelope: EnvelopeRef,
        value_bytes: usize,
        events: usize,
        event_bytes: usize,
    ) -> Result<(), AppendError> {
        let bytes = value_bytes + event_bytes + (events + 1) * RECORD_OVERHEAD_BYTES;
        if self.pending.is_empty() {
            self.check_alone(bytes + self.pending.envelope_bytes(envelope.0))
        } else {
            self.check_room(bytes, 1)
        }
    }

    /// Appends an event of the owner that goes with the record appended last: in the same group, and taken back with
    /// it by [`Lane::discard_records`]. [`Lane::check_bound`] has said that there is room.
    ///
    /// # Errors
    /// `Poisoned`.
    pub fn append_bound_event(&mut self, tag: u16, bytes: &[u8]) -> Result<(), AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        put_event(self.pending.bound(), tag, bytes);
        Ok(())
    }

    /// Whether so many bytes fit a group that has nothing else in it.
    fn check_alone(&self, bytes: usize) -> Result<(), AppendError> {
        let max_bytes = self.config.batch_bytes_max();
        if bytes > max_bytes { Err(AppendError::TooLarge { bytes, max_bytes }) } else { Ok(()) }
    }

    /// Whether so many bytes and offsets fit the pending group, which is not empty. Alone with state in a group, a
    /// batch may be larger.
    #[inline]
    fn check_room(&self, bytes: usize, offsets: u32) -> Result<(), AppendError> {
        let pending_bytes = self.pending.bytes();
        let group_bytes_max = self.config.group_bytes_max as usize;
        if pending_bytes + bytes <= group_bytes_max && self.pending.has_offsets(offsets) {
            return Ok(());
        }
        let max_bytes = self.config.batch_bytes_max();
        if bytes > max_bytes {
            return Err(AppendError::TooLarge { bytes, max_bytes });
        }
        let alone = self.pending.offsets() == 0 && pending_bytes + bytes <= max_bytes;
        if alone { Ok(()) } else { Err(AppendError::GroupFull) }
    }
}

//! Cleaning compacted streams ahead of the ring, so that who reads one from its beginning does not read everything
//! that was ever written to it.
//!
//! - When a segment is full, and the records of compacted streams that were not cleaned yet take as many bytes as
//!   those that were (Kafka's dirty ratio of one half), and a sixteenth of a segment, the sealed segments are gone
//!   through, the oldest first. What is the newest of its key is copied forward; from then on readers of these
//!   streams have the copies in place of the segment.
//! - Never the segment that is written to, never what is not yet upstream of a lane that protects that.

use std::collections::BTreeSet;
use std::sync::Arc;

use edge_wire::StreamId;

use super::key_map::{KeyHasher, KeyMap};
use super::pass::{Pass, PassKind, Progress, STEP_BYTES, group_of, header_from};
use super::{Lane, MaintainError};
use crate::clock::ClockReading;
use crate::journal::directory::DirectoryReader;
use crate::journal::scan::{Window, directories};
use crate::position::JournalPosition;
use crate::shared::{Segment, slot_path};

/// The keys of the compacted streams, and how far they were read.
pub(super) struct Keys {
    pub(super) map: KeyMap,
    pub(super) hasher: KeyHasher,
    window: Window,
}

/// What is to be cleaned ahead of the ring.
#[derive(Debug, Default)]
pub(super) struct Cleaning {
    /// A segment was filled since it was last looked whether there is enough to clean.
    pub(super) look: bool,
    /// Segments from here on...
    from: u64,
    /// ...and up to here are to be cleaned; 0 = none.
    through: u64,
}

impl Lane {
    /// One step of cleaning. `true`: there is more to do.
    pub(super) fn clean_step(&mut self, clock: &ClockReading) -> Result<bool, MaintainError> {
        if self.compacted.is_empty() {
            self.keys = None;
            return Ok(false);
        }
        if !self.scan_keys()? {
            return Ok(true);
        }
        if self.pass.as_ref().is_some_and(|pass| pass.kind == PassKind::Ring) {
            return Ok(false);
        }
        if self.pass.is_none() && !self.begin_cleaning()? {
            return Ok(false);
        }
        let Some(mut pass) = self.pass.take() else { return Ok(false) };
        let progress = self.step_pass(&mut pass, clock, false);
        match progress {
            Ok(Progress::Working | Progress::Waiting) | Err(_) => {
                self.pass = Some(pass);
                Ok(progress? == Progress::Working)
            }
            Ok(Progress::Done) => {
                self.end_cleaning(&pass)?;
                Ok(true)
            }
            Ok(Progress::NoRoom) => {
                // The next segment has room.
                self.cleaning = Cleaning { look: true, ..Cleaning::default() };
                Ok(false)
            }
        }
    }

    /// The ring needs a pass of its own: cleaning begins with the segment again in which it is. Were it to go on behind
    /// it, what of the segment was not copied would count as clean.
    pub(super) fn interrupt_cleaning(&mut self) {
        if let Some(pass) = self.pass.take_if(|pass| pass.kind == PassKind::Clean) {
            self.cleaning.from = self.cleaning.from.min(pass.segment.id.sequence);
        }
    }

    /// Begins the next segment that is to be cleaned, if there is one.
    fn begin_cleaning(&mut self) -> Result<bool, MaintainError> {
        if self.writer.current.is_none() {
            return Ok(false);
        }
        if self.cleaning.through == 0 && std::mem::take(&mut self.cleaning.look) {
            self.cleaning.through = self.due_through()?.unwrap_or(0);
            self.cleaning.from = 0;
        }
        while self.cleaning.from <= self.cleaning.through && self.cleaning.through > 0 {
            let segment = self.shared.segment_at_or_after(self.cleaning.from);
            let Some(segment) = segment.filter(|one| one.id.sequence <= self.cleaning.through)
            else {
                break;
            };
            self.cleaning.from = segment.id.sequence + 1;
            if self.dirty_bytes(&segment)? > 0 {
                self.pass = Some(self.new_pass(PassKind::Clean, segment, false));
                return Ok(true);
            }
        }
        if self.cleaning.through > 0 {
            self.cleaning.through = 0;
            if let Some(keys) = &mut self.keys {
                keys.map.turn_over();
            }
        }
        Ok(false)
    }

    /// The last segment to be cleaned, if there is enough to clean.
    fn due_through(&self) -> Result<Option<u64>, MaintainError> {
        let newest = self.writer.current.as_ref().map_or(0, |now| now.segment.id.sequence);
        let sealed: Vec<Arc<Segment>> = {
            let segments = self.shared.segments();
            let may = |segment: &Segment| self.is_done_with(segment);
            let sealed = segments.iter().filter(|segment| segment.id.sequence < newest);
            sealed.take_while(|segment| may(segment)).cloned().collect()
        };
        let mut dirty = 0;
        for segment in &sealed {
            dirty += self.dirty_bytes(segment)?;
        }
        let copies = self.shared.copies();
        let runs = self.compacted.iter().flat_map(|stream| copies.of(*stream));
        let clean: u64 = runs.map(|(_, run)| u64::from(run.bytes)).sum();
        let least = u64::from(self.config.segment_bytes) / 16;
        Ok(sealed.last().map(|last| last.id.sequence).filter(|_| dirty >= clean.max(least)))
    }

    /// Bytes of compacted streams in a segment that were not cleaned.
    fn dirty_bytes(&self, segment: &Segment) -> Result<u64, MaintainError> {
        let side = self.side_of(segment)?;
        let lines = self.compacted.iter().filter_map(|stream| side.find(*stream));
        let dirty = lines.filter(|line| {
            let shared = self.shared.stream(line.stream);
            let is_dirty =
                shared.is_some_and(|shared| line.end > shared.home().max(shared.log_start()));
            is_dirty && line.end > line.head
        });
        Ok(dirty.map(|line| line.bytes.max(1)).sum())
    }

    /// Readers have the copies from now on.
    fn end_cleaning(&mut self, pass: &Pass) -> Result<(), MaintainError> {
        let side = self.side_of(&pass.segment)?;
        for stream in &self.compacted {
            let Some(local) = self.streams.find(*stream) else { continue };
            let known = self.streams.get_mut(local);
            if let Some(line) = side.find(*stream) {
                let home = line.end.min(known.shared.durable_end());
                known.shared.raise_home(home);
                known.clean_home = known.clean_home.max(home);
            }
        }
        let (compacted, sequence) = (&self.compacted, pass.segment.id.sequence);
        self.shared
            .copies()
            .retain(|stream, _, run| run.at.segment != sequence || !compacted.contains(&stream));
        self.shared.stats().compacted_records += pass.compacted;
        Ok(())
    }

    /// A pass that has not begun yet.
    pub(super) fn new_pass(
        &self,
        kind: PassKind,
        segment: Arc<Segment>,
        keeps_plain: bool,
    ) -> Pass {
        let knows_all = self.keys.as_ref().is_some_and(|keys| {
            keys.map.is_complete(self.shared.start()) && keys.map.at >= self.shared.end()
        });
        let ends = self
            .compacted
            .iter()
            .filter(|_| knows_all)
            .filter_map(|stream| Some((*stream, self.shared.stream(*stream)?.durable_end())));
        Pass::new(kind, segment, keeps_plain, ends.collect(), self.shared.stats().journal_bytes)
    }

    /// Reads on for keys. `true`: all were read, or no more fit.
    pub(super) fn scan_keys(&mut self) -> Result<bool, MaintainError> {
        if self.compacted.is_empty() {
            return Ok(true);
        }
        let (bytes_max, hasher) = (self.config.compaction_bytes_max, self.hasher);
        let keys = self.keys.get_or_insert_with(|| {
            Box::new(Keys { map: KeyMap::new(bytes_max), hasher, window: Window::default() })
        });
        let end = self.shared.end();
        let mut read_bytes = 0;
        while keys.map.is_learning() && read_bytes < STEP_BYTES {
            if keys.map.at >= end {
                return Ok(true);
            }
            let Some(segment) = self.shared.segment_at_or_after(keys.map.at.segment) else {
                return Ok(true);
            };
            let at = keys.map.at.max(segment.first_position());
            if keys.window.segment != at.segment {
                keys.window.forget();
                keys.window.segment = at.segment;
            }
            let failed = |source| MaintainError::Io {
                operation: "read",
                path: slot_path(&self.shared.dir, segment.slot),
                source,
            };
            let header = header_from(&mut keys.window, &segment, at.byte, 0).map_err(failed)?;
            let Some(header) = header.filter(|header| header.end() <= end) else {
                keys.map.at = JournalPosition { segment: at.segment + 1, byte: 0 }.min(end);
                continue;
            };
            read_bytes += header.frame_bytes();
            keys.map.at = header.end();
            let is_wanted = header.kind.has_entries() && {
                let own =
                    directories(&mut keys.window, &segment.file, &header).map_err(failed)?.own;
                own.is_none_or(|own| names_any(own, &self.compacted))
            };
            if !is_wanted {
                continue;
            }
            let group =
                group_of(&self.shared, &mut keys.window, &segment, &header).map_err(failed)?;
            let Some(group) = group else { continue };
            for batch in group.batches().filter(|batch| self.compacted.contains(&batch.stream())) {
                // What cannot be unpacked is kept as it is.
                let _ = batch.for_each_record(&mut |record| {
                    let key = hasher.hash(batch.stream(), record.key);
                    keys.map.learn(key, record.offset, header.position);
                });
            }
        }
        Ok(!keys.map.is_learning() || keys.map.at >= end)
    }

    /// Cleaning begins or ends for a stream.
    pub(super) fn note_compaction(&mut self, stream: StreamId, is_compacted: bool) {
        let changed = if is_compacted {
            self.compacted.insert(stream)
        } else {
            self.compacted.remove(&stream)
        };
        if changed {
            // What is under way knows nothing of it: from the oldest segment again.
            self.pass = None;
            self.cleaning = Cleaning { look: true, ..Cleaning::default() };
        }
        if changed
            && is_compacted
            && let Some(keys) = &mut self.keys
        {
            keys.map.clear();
        }
    }
}

fn names_any(directory: &[u8], streams: &BTreeSet<StreamId>) -> bool {
    let mut entries = DirectoryReader::new(directory);
    entries.any(|entry| entry.is_ok_and(|entry| streams.contains(&entry.stream)))
}

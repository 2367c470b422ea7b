//! Frame by frame, what happened: from a checkpoint to the end of the journal.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use edge_wire::{Offset, ProducerTable, StreamId};

use super::find::FoundSegment;
use super::{FoundStream, State};
use crate::clock::{BootClock, BootClocks, ClockReading, ClockState};
use crate::copies::{CopyTable, copied_runs};
use crate::decoded::{DecodedGroup, GroupKind};
use crate::gap::{Gap, GapList, GapReason};
use crate::journal::checkpoint::{Checkpoint, PRODUCERS_MAX};
use crate::journal::directory::{DirectoryEntry, read_all};
use crate::journal::entry::Entry;
use crate::journal::format::{GROUP_OFFSETS_MAX, SECTOR_BYTES_MIN};
use crate::journal::frame::{Directories, FLAG_CLEAN_SHUTDOWN, FrameHeader, HeaderAt};
use crate::journal::scan::{SegmentId, Window, frame, header_at, next_trailer, resync};
use crate::journal::unpack::{Unpacker, is_intact};
use crate::position::JournalPosition;
use crate::recovered::SuspectTail;
use crate::stats::LaneStats;
use crate::storage::StorageFile;
use crate::stream_index::TailIndex;

/// A correction can be anything up to this, ms: ten years.
const SHIFT_UNKNOWN_MS: i64 = 10 * 366 * 86_400_000;

/// No offset jumps farther: there is as much room again behind it.
const BLIND_MAX: u64 = 1 << 62;

/// A place where a frame should be intact and is not.
#[derive(Debug)]
struct Bad {
    position: JournalPosition,
    /// Its header, if that is intact.
    header: Option<FrameHeader>,
    /// Its directory, if that is intact.
    directory: Option<Vec<DirectoryEntry>>,
    /// How many offsets it covers, if that is known without its header.
    records: Option<u32>,
}

impl Bad {
    /// Nothing is known of it but where it is.
    fn blank(position: JournalPosition) -> Self {
        Self { position, header: None, directory: None, records: None }
    }
}

/// The state as of the frames read so far.
pub(super) struct Replay<'u> {
    unpacker: &'u Unpacker,
    wall_us: i64,
    streams: BTreeMap<StreamId, FoundStream>,
    copies: CopyTable,
    lost_copies: Vec<Gap>,
    stats: LaneStats,
    upstream: JournalPosition,
    told: GapList,
    /// Losses that were found; some may have been told.
    losses: Vec<Gap>,
    pub(super) bad_slots: Vec<u32>,
    owner: Option<Vec<u8>>,
    events: Vec<(u16, Vec<u8>)>,
    lost_groups: u64,
    clean: bool,
    /// Group sequence of the last frame whose header was intact.
    group: u64,
    /// The same of the last that was intact as a whole.
    pub(super) intact_group: u64,
    proven_end: JournalPosition,
    write_at: u32,
    previous_directory: Vec<u8>,
    pub(super) told_start: u64,
    /// Damaged places behind the last intact header.
    bad: Vec<Bad>,
    suspect: Option<SuspectTail>,
    /// Whether anything was lost blindly is not sure.
    in_doubt: bool,
    /// Offsets that any stream may have lost in groups of which nothing is left.
    blind: u64,
    /// What stands at the end of the newest segment cannot be read.
    tail_closed: bool,
    boot_clocks: BootClocks,
    last_clock: Option<ClockReading>,
}

impl<'u> Replay<'u> {
    pub(super) fn new(unpacker: &'u Unpacker, wall_us: i64) -> Self {
        Self {
            unpacker,
            wall_us,
            streams: BTreeMap::new(),
            copies: CopyTable::default(),
            lost_copies: Vec::new(),
            stats: LaneStats::default(),
            upstream: JournalPosition::START,
            told: GapList::default(),
            losses: Vec::new(),
            bad_slots: Vec::new(),
            owner: None,
            events: Vec::new(),
            lost_groups: 0,
            clean: false,
            group: 0,
            intact_group: 0,
            proven_end: JournalPosition::START,
            write_at: 0,
            previous_directory: Vec::new(),
            told_start: 0,
            bad: Vec::new(),
            suspect: None,
            in_doubt: false,
            blind: 0,
            tail_closed: false,
            boot_clocks: BootClocks::default(),
            last_clock: None,
        }
    }

    /// A reading that stands on disk, intact.
    pub(super) fn note_clock(&mut self, clock: &ClockReading) {
        self.last_clock = Some(*clock);
        if clock.state == ClockState::Synced {
            // How far records are off that were stamped before is not told here.
            let shift_ms_max = SHIFT_UNKNOWN_MS;
            let (boot_id, base_us) = (clock.boot_id, clock.base_us());
            self.boot_clocks.set(BootClock { boot_id, base_us, shift_ms_max });
        }
    }

    /// Begins with a checkpoint.
    pub(super) fn start(&mut self, checkpoint: Checkpoint) {
        self.stats = checkpoint.stats;
        self.upstream = checkpoint.upstream;
        self.bad_slots = checkpoint.bad_slots;
        self.owner = checkpoint.owner;
        self.copies = checkpoint.copies;
        for gap in checkpoint.gaps {
            self.told.add(gap);
        }
        for stream in checkpoint.streams {
            let tail = TailIndex::with_newest(stream.newest);
            self.streams.insert(
                stream.definition.stream,
                FoundStream {
                    definition: Some(stream.definition),
                    next: stream.next,
                    log_start: stream.log_start,
                    producers: stream.producers,
                    tail,
                    home: stream.home,
                    keeps_start: stream.keeps_start,
                    blind_at: 0,
                },
            );
        }
    }

    /// Reads the frames of a segment. `until` is where they end, if that is known.
    pub(super) fn segment(
        &mut self,
        window: &mut Window,
        file: &dyn StorageFile,
        segment: &FoundSegment,
        until: Option<u32>,
        newest: bool,
    ) -> io::Result<()> {
        let id = &segment.id;
        let limit = until.unwrap_or(id.segment_bytes).min(id.segment_bytes);
        let mut byte = id.first_frame();
        while byte < limit {
            match header_at(window, file, id, byte)? {
                HeaderAt::Frame(header) if header.sequence > self.group => {
                    self.frame(window, file, header)?;
                    byte = header.end().byte;
                }
                found => {
                    let from = byte.saturating_add(id.sector_bytes);
                    let next = resync(window, file, id, from, limit, self.group)?;
                    let position = JournalPosition { segment: id.sequence, byte };
                    match next {
                        Some(next) => {
                            self.bad.push(Bad::blank(position));
                            byte = next.position.byte;
                        }
                        None => {
                            if newest
                                && let Some(end) = self.headless(window, file, id, position)?
                            {
                                byte = end;
                                continue;
                            }
                            // The end. What stands there is nothing, or was a header of ours; in a sealed
                            // segment something should be there.
                            // A file is always whole: where it ends early, its end was cut off.
                            let length = file.len().unwrap_or(u64::MAX);
                            let cut_off = u64::from(id.segment_bytes).saturating_sub(length);
                            let unreadable_bytes = window.unreadable_behind(byte).max(cut_off);
                            if newest && unreadable_bytes > 0 {
                                // As many groups as there are sectors; one of them is counted as bad.
                                let groups = unreadable_bytes.div_ceil(u64::from(id.sector_bytes));
                                self.lose_groups(groups - 1);
                                self.tail_closed = true;
                            }
                            if found == HeaderAt::Damaged || until.is_some() || self.tail_closed {
                                self.bad.push(Bad::blank(position));
                            }
                            break;
                        }
                    }
                }
            }
        }
        if newest {
            self.end(id, byte);
        } else {
            segment.set_end(until.unwrap_or(byte));
        }
        Ok(())
    }

    /// A frame behind the last header that has lost its own, but not its trailer. Returns where it ends.
    fn headless(
        &mut self,
        window: &mut Window,
        file: &dyn StorageFile,
        id: &SegmentId,
        at: JournalPosition,
    ) -> io::Result<Option<u32>> {
        let Some(found) = next_trailer(window, file, id, at.byte, self.group)? else {
            return Ok(None);
        };
        let position = JournalPosition { byte: found.trailer.byte, ..at };
        if position > at {
            // It proves that there was something before it.
            self.bad.push(Bad::blank(at));
        }
        let directory = found.directory.and_then(|bytes| read_all(&bytes).ok());
        let records = Some(found.trailer.records);
        self.bad.push(Bad { position, header: None, directory, records });
        self.group = found.trailer.sequence;
        Ok(Some(found.end))
    }

    /// The newest segments are in slots that cannot be read: they may have held anything.
    /// `in_doubt`: perhaps they held nothing.
    pub(super) fn lose_newest(&mut self, segments: u64, segment_bytes: u32, in_doubt: bool) {
        self.in_doubt = in_doubt;
        self.lose_groups(segments * u64::from(segment_bytes / SECTOR_BYTES_MIN));
        self.clean = false;
    }

    /// Not one checkpoint and not one intact group was read so far.
    pub(super) fn is_blank(&self) -> bool {
        self.streams.is_empty() && self.intact_group == 0
    }

    /// Segments are missing, and no checkpoint says where the streams stood behind them.
    pub(super) fn lose_segments(&mut self, segments: u64, segment_bytes: u32) {
        let groups = segments.saturating_mul(u64::from(segment_bytes / SECTOR_BYTES_MIN));
        let offsets = groups.saturating_mul(u64::from(GROUP_OFFSETS_MAX));
        self.lost_groups += u64::from(segments > 0);
        self.blind = self.blind.saturating_add(offsets).min(BLIND_MAX);
    }

    /// Groups of which nothing is known but that there may have been so many.
    fn lose_groups(&mut self, groups: u64) {
        self.group += groups;
        self.lost_groups += u64::from(groups > 0);
        self.blind += groups * u64::from(GROUP_OFFSETS_MAX);
    }

    /// A frame whose header is intact.
    fn frame(
        &mut self,
        window: &mut Window,
        file: &dyn StorageFile,
        header: FrameHeader,
    ) -> io::Result<()> {
        let bytes = frame(window, file, &header)?;
        let directories = Directories::check(&header, bytes);
        let own = directories.own.and_then(|bytes| read_all(bytes).ok());
        let previous = directories.previous.and_then(|bytes| read_all(bytes).ok());
        let group = match own {
            Some(_) if header.kind == GroupKind::Checkpoint && is_intact(&header, bytes) => {
                // The state is where replay started, or is known from the frames before.
                self.take_checkpoint(&header, bytes);
                Some(None)
            }
            Some(_) if is_intact(&header, bytes) => {
                self.unpacker.decode(&header, bytes).ok().map(Some)
            }
            _ => None,
        };
        let own_bytes = directories.own.map(<[u8]>::to_vec);
        // Whatever is bad before it was proven, or judged, when this frame was written.
        self.judge(&header, previous.as_deref(), group.is_some());
        let Some(group) = group else {
            self.group = header.sequence;
            let (position, header) = (header.position, Some(header));
            self.bad.push(Bad { position, header, directory: own, records: None });
            return Ok(());
        };
        self.group = header.sequence;
        // Only a whole group gives up a segment: what is lost with that is told by its entries.
        self.told_start = self.told_start.max(header.journal_start);
        self.intact_group = header.sequence;
        self.clean = header.flags & FLAG_CLEAN_SHUTDOWN != 0;
        self.note_clock(&header.clock);
        self.proven_end = header.end();
        self.previous_directory = own_bytes.unwrap_or_default();
        let entries = own.unwrap_or_default();
        if let Some(group) = &group {
            self.define(group);
        }
        // Offsets of copies were given out long ago.
        let fresh = if header.kind == GroupKind::Copied { &[] } else { &entries[..] };
        for entry in fresh {
            self.take_offsets(entry, header.position, GapReason::Rot);
        }
        self.stats.groups += 1;
        self.stats.syncs += 1;
        self.stats.journal_bytes += header.frame_bytes();
        if header.kind == GroupKind::Copied {
            self.stats.copied_bytes += header.frame_bytes();
        } else {
            self.stats.records += u64::from(header.records);
        }
        if let Some(group) = group {
            self.apply(&group, header.position, &entries);
            for (stream, base, run) in copied_runs(&group, header.frame_bytes()) {
                self.copies.insert(stream, base, run);
            }
            self.unpacker.recycle(group);
        }
        Ok(())
    }

    /// A checkpoint that was reached by replay knows better than groups that were lost before it.
    fn take_checkpoint(&mut self, header: &FrameHeader, bytes: &[u8]) {
        let mut body = Vec::new();
        if self.unpacker.unpack_body(header, bytes, &mut body).is_err() {
            return;
        }
        let Ok(checkpoint) = Checkpoint::decode(&body) else { return };
        if self.group == 0 {
            // Replay started with it.
            return;
        }
        for gap in checkpoint.gaps {
            self.told.add(gap);
        }
        for found in checkpoint.streams {
            let stream = found.definition.stream;
            let known = self.streams.entry(stream).or_insert_with(|| FoundStream {
                definition: None,
                next: found.next,
                log_start: found.log_start,
                producers: None,
                tail: TailIndex::with_newest(found.newest),
                home: found.home,
                keeps_start: found.keeps_start,
                blind_at: self.blind,
            });
            known.definition = Some(found.definition);
            known.log_start = known.log_start.max(found.log_start);
            known.home = known.home.max(found.home);
            known.keeps_start = found.keeps_start;
            known.producers = found.producers.or(known.producers.take());
            if found.next > known.next {
                let (from, to) = (known.next, found.next);
                known.next = to;
                self.lose(stream, from, to, header.position, GapReason::Rot);
            }
            if let Some(known) = self.streams.get_mut(&stream) {
                known.blind_at = self.blind;
            }
        }
        self.copies = checkpoint.copies;
        self.bad_slots = checkpoint.bad_slots;
        self.owner = checkpoint.owner;
        self.events.clear();
        self.lost_groups = 0;
    }

    /// The places that were bad before a frame with an intact header: proven, or judged by a recovery.
    fn judge(&mut self, next: &FrameHeader, previous: Option<&[DirectoryEntry]>, intact: bool) {
        let bad = std::mem::take(&mut self.bad);
        let Some(last) = bad.len().checked_sub(1) else { return };
        // How many groups are gone; of the places without a header one each, or what the sequences leave.
        let with_header = bad.iter().filter(|bad| bad.header.is_some()).count() as u64;
        let without_header = bad.len() as u64 - with_header;
        let between = next.sequence.saturating_sub(self.group + 1);
        for (index, place) in bad.into_iter().enumerate() {
            let same = place.position.segment == next.proven_end.segment;
            let judged = same && place.position >= next.proven_end;
            // A group that is judged but whose gap entries are lost is judged anew.
            if judged && intact {
                continue;
            }
            let position = place.position;
            if let Some(directory) = &place.directory {
                self.lost_groups += 1;
                self.lose_group(&place, directory, GapReason::Rot);
                continue;
            }
            // The next frame repeats the directory of the group that ends where it was proven.
            let repeated = previous.filter(|_| index == last && !judged);
            let groups = if place.header.is_some() {
                1
            } else {
                // What is left over the other places' one each.
                between.saturating_sub(without_header - 1).max(1)
            };
            self.lost_groups += groups;
            if let Some(repeated) = repeated {
                let copied = match &place.header {
                    Some(header) => header.kind == GroupKind::Copied,
                    None => self.were_given_out(repeated),
                };
                self.lose_entries(repeated, position, GapReason::Rot, copied);
            }
            let blind_groups = groups - u64::from(repeated.is_some());
            self.blind += match (&place.header, blind_groups) {
                (Some(header), 1) => u64::from(header.records),
                (None, 1) if place.records.is_some() => u64::from(place.records.unwrap_or(0)),
                (_, groups) => groups * u64::from(GROUP_OFFSETS_MAX),
            };
        }
    }

    /// The end of the newest segment: what is bad there is suspect.
    fn end(&mut self, id: &SegmentId, byte: u32) {
        self.write_at = byte;
        let bad = std::mem::take(&mut self.bad);
        let Some(first) = bad.first() else { return };
        self.clean = false;
        let first_position = first.position;
        let count = bad.len();
        self.lost_groups += count as u64;
        for (index, place) in bad.into_iter().enumerate() {
            // All but the last were proven by the header behind them.
            let is_last = index + 1 == count;
            let reason = if is_last { GapReason::SuspectTail } else { GapReason::Rot };
            let records = place.header.map(|header| header.records).or(place.records);
            match &place.directory {
                Some(directory) => {
                    self.lose_group(&place, directory, reason);
                }
                None => self.blind += u64::from(records.unwrap_or(GROUP_OFFSETS_MAX)),
            }
            if is_last {
                let at = place.position;
                self.suspect = Some(SuspectTail { at, records: records.unwrap_or(0) });
                if place.header.is_none() && place.records.is_none() {
                    // Its header stays where it is, so that the next recovery sees it too; its number is not
                    // used again.
                    self.write_at = place.position.byte + id.sector_bytes;
                    self.group += 1;
                }
            }
        }
        // What follows tells of everything from here on.
        self.proven_end = first_position;
    }

    /// A batch that is there.
    fn take_offsets(&mut self, entry: &DirectoryEntry, at: JournalPosition, reason: GapReason) {
        let blind = self.blind;
        let known = self.stream(entry.stream, entry.base);
        let from = known.next;
        if entry.end() > known.next {
            known.next = entry.end();
            known.blind_at = blind;
        }
        if entry.base > from {
            self.lose(entry.stream, from, entry.base, at, reason);
        }
    }

    /// A batch that was there.
    fn take_lost(&mut self, entry: &DirectoryEntry, at: JournalPosition, reason: GapReason) {
        let blind = self.blind;
        let known = self.stream(entry.stream, entry.base);
        let from = known.next.min(entry.base);
        if entry.end() > known.next {
            known.next = entry.end();
            known.blind_at = blind;
        } else {
            // An intact group behind it was read already.
            return self.lose(entry.stream, entry.base, entry.end(), at, reason);
        }
        self.lose(entry.stream, from, entry.end(), at, reason);
    }

    /// A group of which only the directory is left.
    fn lose_group(&mut self, place: &Bad, directory: &[DirectoryEntry], reason: GapReason) {
        let copied = match &place.header {
            Some(header) => header.kind == GroupKind::Copied,
            None => self.were_given_out(directory),
        };
        self.lose_entries(directory, place.position, reason, copied);
    }

    /// Without its header it is not known what a group was; if all of its offsets had been given out before it, it was
    /// one of copies.
    fn were_given_out(&self, directory: &[DirectoryEntry]) -> bool {
        let next = |stream| self.streams.get(&stream).map_or(Offset(0), |known| known.next);
        directory.iter().all(|entry| entry.end() <= next(entry.stream))
    }

    fn lose_entries(
        &mut self,
        directory: &[DirectoryEntry],
        at: JournalPosition,
        reason: GapReason,
        copied: bool,
    ) {
        let wall_us = self.wall_us;
        for entry in directory {
            if copied {
                let (stream, from, to) = (entry.stream, entry.base, entry.end());
                self.lost_copies.push(Gap { stream, from, to, reason, at, wall_us });
            } else {
                self.take_lost(entry, at, reason);
            }
        }
    }

    fn stream(&mut self, stream: StreamId, first: Offset) -> &mut FoundStream {
        let blind_at = self.blind;
        self.streams.entry(stream).or_insert_with(|| FoundStream {
            definition: None,
            next: first,
            log_start: first,
            producers: None,
            tail: TailIndex::default(),
            home: Offset(0),
            keeps_start: false,
            blind_at,
        })
    }

    fn lose(
        &mut self,
        stream: StreamId,
        from: Offset,
        to: Offset,
        at: JournalPosition,
        reason: GapReason,
    ) {
        if from < to {
            self.losses.push(Gap { stream, from, to, reason, at, wall_us: self.wall_us });
        }
    }

    /// Definitions and gaps of a group: needed before its offsets are looked at.
    fn define(&mut self, group: &DecodedGroup) {
        for entry in group.state_entries() {
            match entry {
                Entry::Definition(definition) => {
                    let blind_at = self.blind;
                    let known =
                        self.streams.entry(definition.stream).or_insert_with(|| FoundStream {
                            definition: None,
                            next: Offset(0),
                            log_start: Offset(0),
                            producers: None,
                            tail: TailIndex::default(),
                            home: Offset(0),
                            keeps_start: false,
                            blind_at,
                        });
                    known.definition = Some(definition.to_owned());
                }
                Entry::Gap(gap) => {
                    self.told.add(gap);
                    if let Some(known) = self.streams.get_mut(&gap.stream) {
                        known.next = known.next.max(gap.to);
                    }
                }
                _ => {}
            }
        }
    }

    /// What an intact group did.
    fn apply(&mut self, group: &DecodedGroup, at: JournalPosition, entries: &[DirectoryEntry]) {
        for (batch, entry) in group.batches().zip(entries) {
            if batch.is_copied() {
                // Its first place is what the index knows.
                self.stats.copied_records += u64::from(batch.count());
                continue;
            }
            self.stats.payload_bytes += batch.stored_bytes() as u64;
            let Some(known) = self.streams.get_mut(&entry.stream) else { continue };
            if known.tail.segment != at.segment {
                known.tail.begin(at.segment, entry.base);
            }
            known.tail.note(entry.base, at.byte);
            known.tail.note_batch(
                batch.last_offset(),
                batch.max_timestamp_ms(),
                batch.is_unvouched(),
                batch.stored_bytes(),
            );
            if let Some(stamp) = batch.producer() {
                let table = known
                    .producers
                    .get_or_insert_with(|| Box::new(ProducerTable::new(PRODUCERS_MAX)));
                table.record(stamp, entry.count, entry.base, batch.max_timestamp_ms());
            }
        }
        for entry in group.state_entries() {
            match entry {
                Entry::Event { tag, bytes } => self.events.push((tag, bytes.to_vec())),
                Entry::LogStart { stream, offset } => {
                    if let Some(known) = self.streams.get_mut(&stream) {
                        known.log_start = known.log_start.max(offset);
                    }
                }
                Entry::StreamRemoved(stream) => {
                    self.streams.remove(&stream);
                    self.copies.forget_stream(stream);
                    self.lost_copies.retain(|loss| loss.stream != stream);
                    self.told.forget(stream);
                    self.losses.retain(|loss| loss.stream != stream);
                }
                _ => {}
            }
        }
    }

    /// All frames are read.
    pub(super) fn finish(mut self, segments: Vec<Arc<FoundSegment>>) -> State {
        let at = self.proven_end;
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        for stream in streams {
            let blind = self.blind;
            let Some(known) = self.streams.get_mut(&stream) else { continue };
            let jump = blind - known.blind_at;
            if jump > 0 {
                let from = known.next;
                known.next = from.plus(jump);
                let to = known.next;
                let in_doubt = self.suspect.is_some() || self.in_doubt;
                let reason = if in_doubt { GapReason::SuspectTail } else { GapReason::Rot };
                self.lose(stream, from, to, at, reason);
            }
        }
        if let Some(newest) = segments.last() {
            newest.set_end(self.proven_end.byte);
        }
        let mut state = State {
            segments,
            free: Vec::new(),
            bad_slots: self.bad_slots,
            slots: Vec::new(),
            streams: self.streams,
            copies: self.copies,
            lost_copies: self.lost_copies,
            stats: self.stats,
            upstream: self.upstream,
            gaps: self.told,
            new_gaps: Vec::new(),
            owner: self.owner,
            events: self.events,
            lost_groups: self.lost_groups,
            clean_shutdown: self.clean,
            torn_tail: None,
            suspect_tail: self.suspect,
            log_id: None,
            io_mode: None,
            scanned_bytes: 0,
            proven_end: self.proven_end,
            write_at: self.write_at,
            next_group: self.group + 1,
            previous_directory: self.previous_directory,
            told_start: self.told_start,
            blind: self.blind,
            tail_closed: self.tail_closed,
            sequence_min: 0,
            unreadable_bytes: 0,
            boot_clocks: self.boot_clocks,
            last_clock: self.last_clock,
        };
        for loss in self.losses {
            state.note_gap(loss);
        }
        state
    }
}

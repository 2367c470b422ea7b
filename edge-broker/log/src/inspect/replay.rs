//! The frames of a lane in their order, each judged by itself and by those around it.

use std::io;

use super::frames::{Content, FrameSeen, Place, contradiction, look};
use super::report::{Damage, DamageKind, LOST_MAX, LaneReport};
use super::slots::{SegmentSeen, sector_zero};
use super::streams::Streams;
use super::{InspectError, Observer};
use crate::decoded::{DecodedGroup, GroupKind};
use crate::journal::directory::{DirectoryEntry, read_all};
use crate::journal::entry::Entry;
use crate::journal::format::VERSION;
use crate::journal::frame::{FLAG_CLEAN_SHUTDOWN, FrameHeader};
use crate::journal::scan::{Window, resync};
use crate::journal::segment::SectorZero;
use crate::journal::unpack::Unpacker;
use crate::position::JournalPosition;
use crate::storage::StorageFile;
use edge_wire::StreamId;

/// Damage whose consequences are known when everything was read.
pub(crate) struct Draft {
    pub(crate) damage: Damage,
    pub(crate) position: JournalPosition,
    /// What it held, as far as a directory tells; at most [`LOST_MAX`] ranges.
    pub(crate) held: Vec<(StreamId, u64, u64)>,
    /// More than that.
    pub(crate) held_more: u64,
    /// A recovery judged it and told so.
    pub(crate) judged: bool,
    /// An intact checkpoint stands behind it.
    pub(crate) superseded: bool,
}

impl Draft {
    /// More that it held; joined to what it is known to have held where they touch.
    pub(crate) fn hold(&mut self, stream: StreamId, from: u64, to: u64) {
        let of_stream = |held: &&mut (StreamId, u64, u64)| held.0 == stream;
        for held in self.held.iter_mut().filter(of_stream) {
            if held.2 == from {
                held.2 = to;
                return;
            }
            if held.1 == to {
                held.1 = from;
                return;
            }
        }
        if self.held.len() < LOST_MAX {
            self.held.push((stream, from, to));
        } else {
            self.held_more += 1;
        }
    }
}

/// A place without an intact group, whose neighbour behind is not known yet.
struct Bad {
    position: JournalPosition,
    path: String,
    until: u32,
    header: Option<FrameHeader>,
    entries: Option<Vec<DirectoryEntry>>,
    kind: DamageKind,
    what: String,
}

/// The last frame that was intact.
struct Last {
    end: JournalPosition,
    sequence: u64,
    directory: Vec<u8>,
}

/// What is known after the frames read so far.
pub(crate) struct Replay<'a> {
    pub(crate) report: LaneReport,
    pub(crate) streams: Streams,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) drafts_omitted: u64,
    unpacker: Unpacker,
    pub(crate) window: Window,
    last: Option<Last>,
    /// Group sequence of the last intact header.
    group: u64,
    bads: Vec<Bad>,
    seen_checkpoint: bool,
    /// Segments are missing before the first that was read.
    missing_first: bool,
    /// The gateway runs: what is written over meanwhile is no damage.
    live: bool,
    total_bytes: u64,
    observer: &'a mut dyn Observer,
}

/// How a segment is read.
pub(crate) struct Reading {
    /// Where its frames end, if that is known.
    pub(crate) until: Option<u32>,
    pub(crate) newest: bool,
    /// Nothing behind is looked at: the durable end that a running gateway told.
    pub(crate) limit: Option<u32>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(live: bool, total_bytes: u64, observer: &'a mut dyn Observer) -> Self {
        Self {
            report: LaneReport { used_bytes: total_bytes, ..LaneReport::default() },
            streams: Streams::default(),
            drafts: Vec::new(),
            drafts_omitted: 0,
            unpacker: Unpacker::default(),
            window: Window::forgiving(),
            last: None,
            group: 0,
            bads: Vec::new(),
            seen_checkpoint: false,
            missing_first: false,
            live,
            total_bytes,
            observer,
        }
    }

    /// Reads the frames of a segment.
    pub(crate) fn segment(
        &mut self,
        file: &dyn StorageFile,
        segment: &SegmentSeen,
        reading: &Reading,
    ) -> Result<(), InspectError> {
        let id = &segment.id;
        let io =
            |source| InspectError::Io { operation: "read", path: segment.path.clone(), source };
        self.window.forget();
        if self.live && !is_same(file, segment).map_err(io)? {
            self.recycled(segment);
            return Ok(());
        }
        self.report.segments += 1;
        self.report.segment_bytes = self.report.segment_bytes.max(id.segment_bytes);
        let until = reading.until.map(|until| until.min(id.segment_bytes));
        let limit = until.unwrap_or(id.segment_bytes).min(reading.limit.unwrap_or(u32::MAX));
        let mut byte = id.first_frame();
        while byte < limit {
            match look(&mut self.window, file, id, byte, &self.unpacker).map_err(io)? {
                Place::Newer(found) => {
                    let path = segment.path.clone();
                    return Err(InspectError::NewerFormat { path, found, supported: VERSION });
                }
                Place::Frame(seen) if seen.header.sequence > self.group => {
                    if self.live
                        && seen.content.is_err()
                        && !self.again(file, segment, byte).map_err(io)?
                    {
                        self.recycled(segment);
                        return Ok(());
                    }
                    byte = seen.header.end().byte;
                    self.frame(segment, *seen);
                }
                place => {
                    let from = byte.saturating_add(id.sector_bytes);
                    let next =
                        resync(&mut self.window, file, id, from, limit, self.group).map_err(io)?;
                    if self.live && !is_same(file, segment).map_err(io)? {
                        self.recycled(segment);
                        return Ok(());
                    }
                    let end = next.map_or(limit, |next| next.position.byte);
                    let was_ours = matches!(place, Place::Damaged);
                    // The end of the newest segment: nothing, or what was a header of ours.
                    let unreadable = self.window.unreadable_behind(byte) > 0;
                    let expected = until.is_some() || reading.limit.is_some();
                    if next.is_some() || was_ours || expected || (reading.newest && unreadable) {
                        let what = match place {
                            Place::Frame(seen) => format!(
                                "a frame of group {} stands where a later one should",
                                seen.header.sequence
                            ),
                            Place::Damaged => "the checksum of a frame header is wrong".to_owned(),
                            _ if unreadable => "the device does not read it".to_owned(),
                            _ => "no frame stands where one should".to_owned(),
                        };
                        self.bads.push(Bad {
                            position: JournalPosition { segment: id.sequence, byte },
                            path: segment.path.clone(),
                            until: end,
                            header: None,
                            entries: None,
                            kind: DamageKind::FrameHeader,
                            what,
                        });
                    }
                    match next {
                        Some(next) => byte = next.position.byte,
                        None => break,
                    }
                }
            }
            self.report.read_bytes = self.window.read_bytes;
            self.observer.progress(self.window.read_bytes, self.total_bytes);
        }
        if reading.newest {
            self.end(file, segment, byte, limit).map_err(io)?;
        }
        Ok(())
    }

    /// Whether a damaged frame of a running gateway is still there: else it was written over while it was read.
    fn again(
        &mut self,
        file: &dyn StorageFile,
        segment: &SegmentSeen,
        byte: u32,
    ) -> io::Result<bool> {
        file.forget_cached();
        self.window.forget();
        let place = look(&mut self.window, file, &segment.id, byte, &self.unpacker)?;
        Ok(matches!(place, Place::Frame(_)) && is_same(file, segment)?)
    }

    /// The slot was given up while it was read: what comes after it is not judged by what it held.
    pub(crate) fn recycled(&mut self, segment: &SegmentSeen) {
        self.report.note(&segment.path, "the segment was recycled while it was looked at");
        self.window.forget();
        self.skip();
    }

    /// Nothing is known of the frames before.
    pub(crate) fn skip(&mut self) {
        self.last = None;
        self.bads.clear();
        self.seen_checkpoint = false;
        self.streams.restart();
    }

    /// Frames are missing before the next one; what is there is kept.
    pub(crate) fn gap_in_sequence(&mut self) {
        self.missing_first |= self.report.segments == 0;
        self.last = None;
    }

    /// A frame whose header is intact.
    fn frame(&mut self, segment: &SegmentSeen, seen: FrameSeen) {
        let header = seen.header;
        let good = seen.entries.is_ok() && seen.content.is_ok();
        let follows_bad = !self.bads.is_empty();
        self.judge(&header, seen.previous.as_deref(), good);
        self.check_chain(segment, &seen, follows_bad);
        self.group = header.sequence;
        self.report.end = header.end();
        let entries = match (&seen.entries, &seen.content) {
            (Ok(entries), Ok(_)) => entries,
            (entries, content) => {
                let (kind, what) = match (entries, content) {
                    (Err(why), _) => {
                        (DamageKind::Directory, format!("the directory of the group: {why}"))
                    }
                    (_, Err(why)) if !seen.body_intact => {
                        (DamageKind::Body, format!("the body of the group: {why}"))
                    }
                    (_, Err(why)) => {
                        (DamageKind::Content, format!("the content of the group: {why}"))
                    }
                    (Ok(_), Ok(_)) => return,
                };
                self.bads.push(Bad {
                    position: header.position,
                    path: segment.path.clone(),
                    until: header.end().byte,
                    header: Some(header),
                    entries: entries.as_ref().ok().cloned(),
                    kind,
                    what,
                });
                return;
            }
        };
        self.report.frames += 1;
        self.report.clean_shutdown = header.flags & FLAG_CLEAN_SHUTDOWN != 0;
        if seen.previous.is_none() {
            let what = "the copy of the directory before: its checksum is wrong".to_owned();
            self.harmless(segment, &header, DamageKind::PreviousDirectory, what);
        }
        if !seen.padding_is_zero {
            let what = format!("byte {}: the padding of a frame is not zero", header.position.byte);
            self.report.note(&segment.path, what);
        }
        match &seen.content {
            Ok(Content::Checkpoint(checkpoint)) => {
                let first = !self.seen_checkpoint;
                let damaged = !self.drafts.is_empty() || self.drafts_omitted > 0;
                let wrong = self.streams.checkpoint(checkpoint, header.position, first, damaged);
                if first && self.missing_first {
                    self.streams.miss_before(checkpoint, header.position);
                }
                for what in wrong {
                    self.harmless(segment, &header, DamageKind::Checkpoint, what);
                }
                self.seen_checkpoint = true;
                for draft in &mut self.drafts {
                    draft.superseded |= draft.position < header.position;
                }
                self.observer.checkpoint(header.position, checkpoint.owner.as_deref());
            }
            Ok(Content::Group(group)) => self.group_seen(segment, &header, entries, group),
            _ => {
                let GroupKind::Other(kind) = header.kind else { return };
                self.report.note(
                    &segment.path,
                    format!(
                        "byte {}: a frame of kind {kind}, which a newer program wrote",
                        header.position.byte
                    ),
                );
                for entry in entries {
                    self.streams.take(
                        entry.stream,
                        (entry.base.0, entry.end().0),
                        (0, 0),
                        true,
                        header.position,
                    );
                }
            }
        }
        self.last = Some(Last {
            end: header.end(),
            sequence: header.sequence,
            directory: seen.own.unwrap_or_default(),
        });
    }

    fn group_seen(
        &mut self,
        segment: &SegmentSeen,
        header: &FrameHeader,
        entries: &[DirectoryEntry],
        group: &DecodedGroup,
    ) {
        if let Some(what) = contradiction(header, entries, group) {
            self.harmless(segment, header, DamageKind::Content, what);
        }
        let at = header.position;
        for entry in group.state_entries() {
            match entry {
                Entry::Definition(definition) => self.streams.define(definition.to_owned()),
                Entry::Gap(gap) => self.streams.tell(gap),
                _ => {}
            }
        }
        for batch in group.batches() {
            let range = (batch.base_offset().0, batch.end_offset().0);
            let size = (u64::from(batch.count()), batch.stored_bytes() as u64);
            self.streams.take(batch.stream(), range, size, batch.is_copied(), at);
        }
        for entry in group.state_entries() {
            match entry {
                Entry::Event { tag, bytes } => self.observer.event(at, tag, bytes),
                Entry::LogStart { stream, offset } => self.streams.set_log_start(stream, offset),
                Entry::StreamRemoved(stream) => {
                    self.streams.remove(stream);
                    for draft in &mut self.drafts {
                        draft.held.retain(|(held, ..)| *held != stream);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a frame follows from the one before.
    fn check_chain(&mut self, segment: &SegmentSeen, seen: &FrameSeen, follows_bad: bool) {
        let header = &seen.header;
        if header.sector_bytes != segment.id.sector_bytes {
            let what = format!(
                "its sectors have {} bytes, the segment's {}",
                header.sector_bytes, segment.id.sector_bytes
            );
            self.harmless(segment, header, DamageKind::Chain, what);
        }
        let is_first = header.position.byte == segment.id.first_frame();
        if is_first != (header.kind == GroupKind::Checkpoint) {
            let what = if is_first {
                "the first frame of a segment is no checkpoint"
            } else {
                "a checkpoint stands inside a segment"
            };
            self.harmless(segment, header, DamageKind::Chain, what.to_owned());
        }
        if is_first
            && let Some(own) = &segment.header
            && own.first_group != header.sequence
        {
            let what = format!(
                "its group is {}, the segment's header says {}",
                header.sequence, own.first_group
            );
            self.harmless(segment, header, DamageKind::Chain, what);
        }
        if header.proven_end > header.position {
            let what = format!("its proven end {} is behind it", header.proven_end);
            self.harmless(segment, header, DamageKind::Chain, what);
            return;
        }
        let Some(last) = &self.last else { return };
        if follows_bad || last.sequence != self.group {
            return;
        }
        let (end, sequence) = (last.end, last.sequence);
        // Where frames follow each other nothing is left out; the first of a segment proves the one before it.
        let follows = header.proven_end == end;
        let wrong_copy =
            follows && seen.previous.as_ref().is_some_and(|copy| *copy != last.directory);
        let claims_all = header.proven_end == header.position || is_first;
        if claims_all && follows && header.sequence != sequence + 1 {
            let what = format!("group {} follows group {sequence}", header.sequence);
            self.harmless(segment, header, DamageKind::Chain, what);
        } else if !follows && header.proven_end > end {
            let what =
                format!("its proven end is {}, the frame before ends at {end}", header.proven_end);
            self.harmless(segment, header, DamageKind::Chain, what);
        } else if wrong_copy {
            let what = "it repeats another directory than that of the frame before".to_owned();
            self.harmless(segment, header, DamageKind::Chain, what);
        }
    }

    /// Damage that costs no offsets.
    fn harmless(
        &mut self,
        segment: &SegmentSeen,
        header: &FrameHeader,
        kind: DamageKind,
        what: String,
    ) {
        self.draft(Draft {
            damage: Damage {
                kind,
                file: segment.path.clone(),
                byte: u64::from(header.position.byte),
                bytes: header.frame_bytes(),
                segment: header.position.segment,
                group: Some(header.sequence),
                what,
                ..empty(kind)
            },
            position: header.position,
            held: Vec::new(),
            held_more: 0,
            judged: false,
            superseded: false,
        });
    }

    pub(crate) fn draft(&mut self, draft: Draft) {
        if self.drafts.len() < super::report::DAMAGE_MAX {
            self.drafts.push(draft);
        } else {
            self.drafts_omitted += 1;
        }
    }

    /// What was bad before a frame with an intact header: proven by it, or judged by the recovery that wrote it.
    fn judge(&mut self, next: &FrameHeader, previous: Option<&[u8]>, intact: bool) {
        let bads = std::mem::take(&mut self.bads);
        let Some(last) = bads.len().checked_sub(1) else { return };
        let between = next.sequence.saturating_sub(self.group + 1);
        for (index, mut bad) in bads.into_iter().enumerate() {
            let same = bad.position.segment == next.proven_end.segment;
            let judged = intact && same && bad.position >= next.proven_end;
            let mut blind = bad.entries.is_none();
            if bad.entries.is_none() && index == last && !judged {
                // The next frame repeats the directory of the group that ends where it was proven.
                bad.entries = previous.and_then(|bytes| read_all(bytes).ok());
                blind = bad.entries.is_none() || bad.header.is_none() && between > 1;
            }
            let group = bad.header.map(|header| header.sequence);
            let group = group.or((between == 1 && last == 0).then_some(self.group + 1));
            // Of a place of several groups, what is missing before the last of them is missing there.
            let behind = if blind { next.position } else { bad.position };
            self.bad(bad, group, blind, judged, behind);
        }
    }

    fn bad(
        &mut self,
        bad: Bad,
        group: Option<u64>,
        blind: bool,
        judged: bool,
        behind: JournalPosition,
    ) {
        let mut held: Vec<(StreamId, u64, u64)> = Vec::new();
        let mut held_more = 0;
        for entry in bad.entries.unwrap_or_default() {
            if !judged {
                let range = (entry.base.0, entry.end().0);
                self.streams.take_lost(entry.stream, range, behind);
            }
            let (from, to) = (entry.base.0, entry.end().0);
            if let Some(last) = held.last_mut()
                && (last.0, last.2) == (entry.stream, from)
            {
                last.2 = to;
            } else if held.len() < LOST_MAX {
                held.push((entry.stream, from, to));
            } else {
                held_more += 1;
            }
        }
        self.draft(Draft {
            damage: Damage {
                kind: bad.kind,
                file: bad.path,
                byte: u64::from(bad.position.byte),
                bytes: u64::from(bad.until.saturating_sub(bad.position.byte)),
                segment: bad.position.segment,
                group,
                what: bad.what,
                blind,
                ..empty(bad.kind)
            },
            position: bad.position,
            held,
            held_more,
            judged,
            superseded: false,
        });
    }

    /// The end of the newest segment.
    fn end(
        &mut self,
        file: &dyn StorageFile,
        segment: &SegmentSeen,
        byte: u32,
        limit: u32,
    ) -> io::Result<()> {
        let bads = std::mem::take(&mut self.bads);
        let count = bads.len();
        if count == 0 {
            if !self.live {
                self.report.torn_tail = self.torn(file, segment, byte)?;
            }
            return Ok(());
        }
        // A group that is just being written is not damaged. One before the end that the gateway told is.
        if self.live && limit == segment.id.segment_bytes {
            return Ok(());
        }
        for (index, mut bad) in bads.into_iter().enumerate() {
            if index + 1 == count && !self.live {
                bad.kind = DamageKind::SuspectTail;
                bad.what =
                    format!("{}; it may have been torn by a power cut, or acknowledged", bad.what);
                self.report.suspect_tail = Some(bad.position);
                self.report.end = bad.position;
            }
            self.report.clean_shutdown = false;
            let blind = bad.entries.is_none();
            let group = bad.header.map(|header| header.sequence);
            let at = bad.position;
            self.bad(bad, group, blind, false, at);
        }
        Ok(())
    }

    /// Bytes behind the end that no older use of the slot left there.
    fn torn(
        &mut self,
        file: &dyn StorageFile,
        segment: &SegmentSeen,
        byte: u32,
    ) -> io::Result<Option<JournalPosition>> {
        let sector = segment.id.sector_bytes;
        let (mut at, mut dirty) = (byte, false);
        while at < segment.id.segment_bytes {
            let bytes = self.window.bytes(file, u64::from(at), sector as usize)?;
            if FrameHeader::read_any(bytes, at, segment.id.segment_bytes).is_some() {
                return Ok(None);
            }
            dirty |= bytes.iter().any(|byte| *byte != 0);
            at += sector;
        }
        Ok(dirty.then_some(JournalPosition { segment: segment.id.sequence, byte }))
    }
}

/// Damage of a kind, to be filled in.
pub(crate) fn empty(kind: DamageKind) -> Damage {
    Damage {
        kind,
        file: String::new(),
        byte: 0,
        bytes: 0,
        segment: 0,
        group: None,
        what: String::new(),
        lost: Vec::new(),
        lost_more: 0,
        blind: false,
        known: false,
        remedy: kind.remedy().to_owned(),
    }
}

/// Whether a slot still holds the segment that was seen in it.
fn is_same(file: &dyn StorageFile, segment: &SegmentSeen) -> io::Result<bool> {
    let Some(seen) = &segment.header else { return Ok(true) };
    file.forget_cached();
    Ok(match sector_zero(file)? {
        SectorZero::Header(header) => header == *seen,
        _ => false,
    })
}

//! The frames of a lane in their order, each judged by itself and by those around it.

mod bad;
mod chain;
mod draft;

use std::io;

use bad::Bad;
pub(crate) use draft::{Draft, empty};

use super::frames::{Content, FrameSeen, Place, contradiction, look};
use super::report::{DamageKind, LaneReport};
use super::slots::{SegmentSeen, sector_zero};
use super::streams::Streams;
use super::{InspectError, Observer};
use crate::decoded::{DecodedGroup, GroupKind};
use crate::journal::directory::DirectoryEntry;
use crate::journal::entry::Entry;
use crate::journal::format::VERSION;
use crate::journal::frame::{FLAG_CLEAN_SHUTDOWN, FrameHeader};
use crate::journal::scan::{Window, resync};
use crate::journal::segment::SectorZero;
use crate::journal::unpack::Unpacker;
use crate::position::JournalPosition;
use crate::storage::StorageFile;

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

    /// Notes a damaged place, or counts it.
    pub(crate) fn draft(&mut self, draft: Draft) {
        if self.drafts.len() < super::report::DAMAGE_MAX {
            self.drafts.push(draft);
        } else {
            self.drafts_omitted += 1;
        }
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

//! Places without an intact group: what they are is known when the frame behind them was read, or the end.

use std::io;

use edge_wire::StreamId;

use super::{Draft, Replay, empty};
use crate::inspect::report::{Damage, DamageKind, LOST_MAX};
use crate::inspect::slots::SegmentSeen;
use crate::journal::directory::{DirectoryEntry, read_all};
use crate::journal::frame::FrameHeader;
use crate::position::JournalPosition;
use crate::storage::StorageFile;

/// A place without an intact group, whose neighbour behind is not known yet.
pub(super) struct Bad {
    pub(super) position: JournalPosition,
    pub(super) path: String,
    pub(super) until: u32,
    pub(super) header: Option<FrameHeader>,
    pub(super) entries: Option<Vec<DirectoryEntry>>,
    pub(super) kind: DamageKind,
    pub(super) what: String,
}

impl Replay<'_> {
    /// What was bad before a frame with an intact header: proven by it, or judged by the recovery that wrote it.
    pub(super) fn judge(&mut self, next: &FrameHeader, previous: Option<&[u8]>, intact: bool) {
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
    pub(super) fn end(
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

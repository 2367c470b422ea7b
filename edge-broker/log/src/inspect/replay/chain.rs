//! Whether a frame follows from the one before it.

use super::{Draft, Replay, empty};
use crate::decoded::GroupKind;
use crate::inspect::frames::FrameSeen;
use crate::inspect::report::{Damage, DamageKind};
use crate::inspect::slots::SegmentSeen;
use crate::journal::frame::FrameHeader;

impl Replay<'_> {
    /// Whether a frame follows from the one before.
    pub(super) fn check_chain(
        &mut self,
        segment: &SegmentSeen,
        seen: &FrameSeen,
        follows_bad: bool,
    ) {
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
    pub(super) fn harmless(
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
}

//! A side index against the segment it is of: whatever in it would make a search miss something.

use std::collections::BTreeMap;

use super::InspectError;
use super::replay::{Draft, Replay, empty};
use super::report::{Damage, DamageKind};
use super::slots::SegmentSeen;
use crate::decoded::GroupKind;
use crate::journal::directory::{DirectoryEntry, read_all};
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{directories, header_at, resync};
use crate::position::JournalPosition;
use crate::storage::{OpenMode, Storage, StorageFile};
use crate::stream_index::side::{HEAD_BYTES, SIDE_BYTES_MAX, SideIndex, SideLine};

/// Looks at the side index of a sealed segment.
pub(crate) fn check_side(
    storage: &dyn Storage,
    file: &dyn StorageFile,
    dir: &str,
    segment: &SegmentSeen,
    may_be_torn: bool,
    replay: &mut Replay<'_>,
) -> Result<(), InspectError> {
    let path = crate::shared::side_path(dir, segment.slot);
    let damaged = match load(storage, &path, segment) {
        Ok(Some(side)) => contradiction(&side, file, segment, replay)
            .map_err(|source| InspectError::Io { operation: "read", path: path.clone(), source })?,
        Ok(None) => None,
        Err(what) if may_be_torn => {
            replay.report.note(&path, format!("{what}: torn by a power cut; it is made anew"));
            None
        }
        Err(what) => Some(what),
    };
    if let Some(what) = damaged {
        let sequence = segment.id.sequence;
        replay.draft(Draft {
            damage: Damage { file: path, segment: sequence, what, ..empty(DamageKind::SideIndex) },
            position: JournalPosition { segment: sequence, byte: u32::MAX },
            held: Vec::new(),
            held_more: 0,
            judged: false,
            superseded: false,
        });
    }
    Ok(())
}

/// The side index; `None` if it never reached the disk, or is that of an older use of the slot.
fn load(
    storage: &dyn Storage,
    path: &str,
    segment: &SegmentSeen,
) -> Result<Option<SideIndex>, String> {
    let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
    let file = storage.open(path, OpenMode::Read).map_err(unreadable)?;
    let length = file.len().map_err(unreadable)?;
    let mut bytes =
        vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(SIDE_BYTES_MAX + 4096)];
    let read = file.read_at(&mut bytes, 0).map_err(unreadable)?;
    bytes.truncate(read);
    // Written without a sync: after a power cut it may be empty, or zeros.
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let whole = bytes.len() >= HEAD_BYTES;
    let told = SideIndex::length(&bytes).filter(|told| whole && *told <= bytes.len());
    let Some(told) = told else { return Err("it is not whole".to_owned()) };
    bytes.truncate(told);
    let (sequence, salt) = SideIndex::identity(&bytes).unwrap_or_default();
    if SideIndex::is_intact(&bytes) && (sequence, salt) != (segment.id.sequence, segment.id.salt) {
        return Ok(None);
    }
    SideIndex::check(bytes, segment.id.sequence, segment.id.salt)
        .map(Some)
        .map_err(|_| "its checksum is wrong".to_owned())
}

/// Compares with the segment by the directories of its groups.
fn contradiction(
    side: &SideIndex,
    file: &dyn StorageFile,
    segment: &SegmentSeen,
    replay: &mut Replay<'_>,
) -> std::io::Result<Option<String>> {
    let id = &segment.id;
    let lines: BTreeMap<u32, SideLine> = side.lines().map(|line| (line.stream.0, line)).collect();
    let window = &mut replay.window;
    window.forget();
    let (mut byte, mut group) = (id.first_frame(), 0);
    while byte < id.segment_bytes {
        let header = match header_at(window, file, id, byte)? {
            HeaderAt::Frame(header) if header.sequence > group => header,
            _ => match resync(window, file, id, byte + id.sector_bytes, id.segment_bytes, group)? {
                Some(header) => header,
                None => break,
            },
        };
        let at = byte.max(header.position.byte);
        byte = header.end().byte;
        group = header.sequence;
        // Copies are not in an index of where a stream goes on.
        if header.kind != GroupKind::Data {
            continue;
        }
        let own = directories(window, file, &header)?.own;
        let Some(entries) = own.and_then(|own| read_all(own).ok()) else { continue };
        for entry in entries {
            if let Some(what) = misses(lines.get(&entry.stream.0), &entry, at) {
                return Ok(Some(what));
            }
        }
    }
    Ok(None)
}

/// How a line would make a search miss a batch of the group at `at`.
fn misses(line: Option<&SideLine>, entry: &DirectoryEntry, at: u32) -> Option<String> {
    let (stream, first, end) = (entry.stream, entry.base, entry.end());
    let Some(line) = line else {
        return Some(format!("stream {stream} of the segment is not in it"));
    };
    if line.head > first || line.end < end {
        return Some(format!(
            "it has stream {stream} from {} to {}, the segment has {first} to {end}",
            line.head, line.end
        ));
    }
    // A place is right if no group before it holds its offset or a later one.
    let wrong = line
        .places
        .iter()
        .find(|(delta, byte)| *byte > at && first.0 >= line.head.0 + u64::from(*delta));
    wrong.map(|(delta, byte)| {
        let offset = line.head.0 + u64::from(*delta);
        format!(
            "it has offset {offset} of stream {stream} at byte {byte}, offset {first} is at byte {at} already"
        )
    })
}

//! Which offsets a segment should hold and does not: by walking its frames.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use edge_wire::{Offset, StreamId};

use crate::decoded::GroupKind;
use crate::journal::checkpoint::Checkpoint;
use crate::journal::directory::read_all;
use crate::journal::frame::{Directories, HeaderAt};
use crate::journal::scan::{SegmentId, Window, frame, header_at, resync};
use crate::journal::unpack::{Unpacker, is_intact};
use crate::storage::StorageFile;

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Next offset of each stream behind the last intact group; those of the head where it has none.
    pub(crate) ends: BTreeMap<StreamId, Offset>,
    /// First offset of each stream in an intact group.
    pub(crate) firsts: BTreeMap<StreamId, Offset>,
    /// The segment's own checkpoint could be read: a stream that is not in `ends` was made later.
    pub(crate) has_heads: bool,
    /// Streams, offsets that are missing, and the byte of the group before which they are missing.
    pub(crate) holes: Vec<(StreamId, Offset, Offset, u32)>,
    /// Where the copied groups stand that are intact.
    pub(crate) copied: BTreeSet<u32>,
}

/// Walks the frames of a segment up to `until`. `heads`: the next offset of each stream when it began, if that is
/// known from elsewhere.
pub(crate) fn walk(
    window: &mut Window,
    file: &dyn StorageFile,
    id: &SegmentId,
    until: u32,
    unpacker: &Unpacker,
    heads: BTreeMap<StreamId, Offset>,
) -> io::Result<Walk> {
    let mut found = Walk { has_heads: !heads.is_empty(), ends: heads, ..Walk::default() };
    let mut body = Vec::new();
    let (mut byte, mut group) = (id.first_frame(), 0);
    while byte < until {
        let header = match header_at(window, file, id, byte)? {
            HeaderAt::Frame(header) => header,
            _ => match resync(window, file, id, byte + id.sector_bytes, until, group)? {
                Some(header) => header,
                None => break,
            },
        };
        byte = header.end().byte;
        group = header.sequence;
        let bytes = frame(window, file, &header)?;
        if !is_intact(&header, bytes) {
            continue;
        }
        if header.kind == GroupKind::Checkpoint {
            let unpacked = unpacker.unpack_body(&header, bytes, &mut body).is_ok();
            if let Some(checkpoint) =
                unpacked.then(|| Checkpoint::decode(&body)).and_then(Result::ok)
            {
                found.has_heads = true;
                let heads = checkpoint.streams.iter();
                found.ends.extend(heads.map(|stream| (stream.definition.stream, stream.next)));
            }
            continue;
        }
        // Offsets of copies were given out long ago.
        if header.kind == GroupKind::Copied {
            found.copied.insert(header.position.byte);
            continue;
        }
        let Some(directory) = Directories::check(&header, bytes).own else { continue };
        let Ok(entries) = read_all(directory) else { continue };
        for entry in entries {
            found.firsts.entry(entry.stream).or_insert(entry.base);
            // One that the checkpoint does not know was made later, and began with nothing.
            let first = if found.has_heads { Offset(0) } else { entry.base };
            let end = found.ends.entry(entry.stream).or_insert(first);
            if entry.base > *end {
                found.holes.push((entry.stream, *end, entry.base, header.position.byte));
            }
            *end = (*end).max(entry.end());
        }
    }
    Ok(found)
}

/// The heads of a segment: the next offset of every stream when it began, if its checkpoint can be read.
pub(crate) fn heads(
    window: &mut Window,
    file: &dyn StorageFile,
    id: &SegmentId,
    unpacker: &Unpacker,
) -> io::Result<Option<Checkpoint>> {
    let HeaderAt::Frame(header) = header_at(window, file, id, id.first_frame())? else {
        return Ok(None);
    };
    if header.kind != GroupKind::Checkpoint {
        return Ok(None);
    }
    let bytes = frame(window, file, &header)?;
    let mut body = Vec::new();
    if !is_intact(&header, bytes) || unpacker.unpack_body(&header, bytes, &mut body).is_err() {
        return Ok(None);
    }
    Ok(Checkpoint::decode(&body).ok())
}

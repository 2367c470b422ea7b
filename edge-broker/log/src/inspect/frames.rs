//! One frame, looked at from all sides.

use std::io;

use crate::decoded::{DecodedGroup, GroupKind};
use crate::journal::checkpoint::Checkpoint;
use crate::journal::directory::{DirectoryEntry, read_all};
use crate::journal::frame::{Directories, FrameHeader, HeaderAt};
use crate::journal::scan::{SegmentId, Window, header_at};
use crate::journal::unpack::{Unpacker, is_intact};
use crate::storage::StorageFile;

/// What stands at a place.
pub(crate) enum Place {
    Frame(Box<FrameSeen>),
    /// No frame of this use of the slot.
    Absent,
    /// What was a frame header of this use of the slot.
    Damaged,
    /// A frame of a newer version.
    Newer(u8),
}

/// What an intact body holds.
pub(crate) enum Content {
    Group(DecodedGroup),
    Checkpoint(Checkpoint),
    /// Nothing that this version reads.
    Other,
}

/// A frame whose header is intact.
pub(crate) struct FrameSeen {
    pub(crate) header: FrameHeader,
    /// Its directory, if the checksum is right.
    pub(crate) own: Option<Vec<u8>>,
    /// The copy of the directory before, if the checksum is right.
    pub(crate) previous: Option<Vec<u8>>,
    /// The entries of its directory.
    pub(crate) entries: Result<Vec<DirectoryEntry>, &'static str>,
    pub(crate) body_intact: bool,
    pub(crate) content: Result<Content, &'static str>,
    /// The bytes behind the raw section are zero, as they were written.
    pub(crate) padding_is_zero: bool,
}

/// Looks at a place. Everything is read and decoded once.
pub(crate) fn look(
    window: &mut Window,
    file: &dyn StorageFile,
    id: &SegmentId,
    byte: u32,
    unpacker: &Unpacker,
) -> io::Result<Place> {
    let header = match header_at(window, file, id, byte)? {
        HeaderAt::Frame(header) => header,
        HeaderAt::Absent => return Ok(Place::Absent),
        HeaderAt::Damaged => return Ok(Place::Damaged),
        HeaderAt::Newer(version) => return Ok(Place::Newer(version)),
    };
    let whole = window.bytes(file, u64::from(byte), header.frame_bytes() as usize)?;
    let directories = Directories::check(&header, whole);
    let entries = match directories.own {
        Some(bytes) => read_all(bytes).map_err(|malformed| malformed.what),
        None => Err("its checksum is wrong"),
    };
    let body_intact = is_intact(&header, whole);
    let content = if !body_intact {
        Err("its checksum is wrong")
    } else if directories.own.is_none() {
        Err("its directory is damaged")
    } else {
        content(&header, whole, unpacker)
    };
    Ok(Place::Frame(Box::new(FrameSeen {
        header,
        own: directories.own.map(<[u8]>::to_vec),
        previous: directories.previous.map(<[u8]>::to_vec),
        entries,
        body_intact,
        content,
        padding_is_zero: whole
            .get(header.raw_end()..)
            .is_some_and(|padding| padding.iter().all(|byte| *byte == 0)),
    })))
}

fn content(
    header: &FrameHeader,
    frame: &[u8],
    unpacker: &Unpacker,
) -> Result<Content, &'static str> {
    if header.kind == GroupKind::Checkpoint {
        let mut body = Vec::new();
        unpacker.unpack_body(header, frame, &mut body).map_err(|malformed| malformed.what)?;
        return Checkpoint::decode(&body)
            .map(Content::Checkpoint)
            .map_err(|malformed| malformed.what);
    }
    if let GroupKind::Other(_) = header.kind {
        return Ok(Content::Other);
    }
    unpacker.decode(header, frame).map(Content::Group).map_err(|malformed| malformed.what)
}

/// What of a decoded group contradicts itself although its checksums are right.
pub(crate) fn contradiction(
    header: &FrameHeader,
    entries: &[DirectoryEntry],
    group: &DecodedGroup,
) -> Option<String> {
    let covered: u64 = entries.iter().map(|entry| u64::from(entry.count)).sum();
    if covered != u64::from(header.records) {
        return Some(format!(
            "its header counts {} offsets, its directory {covered}",
            header.records
        ));
    }
    for batch in group.batches().filter(|batch| batch.raw_records().is_none()) {
        let (mut count, mut max_ms) = (0u32, i64::MIN);
        let walked = batch.for_each_record(&mut |record| {
            count += 1;
            max_ms = max_ms.max(record.timestamp_ms);
        });
        let at =
            || format!("the batch at offset {} of stream {}", batch.base_offset(), batch.stream());
        if walked.is_err() || count != batch.count() {
            return Some(format!("{} has {count} records, not {}", at(), batch.count()));
        }
        if max_ms != batch.max_timestamp_ms() {
            return Some(format!("{} has another highest timestamp than it says", at()));
        }
    }
    None
}

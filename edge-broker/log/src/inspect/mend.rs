//! The little of a lane's files that can be made anew from what is there. The caller has kept a copy.

use std::sync::Arc;

use super::InspectError;
use super::slots::survey;
use crate::clock::ClockReading;
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{Window, header_at};
use crate::journal::segment::{SegmentHeader, SlotUse, name_hash};
use crate::storage::{AlignedBuf, OpenMode, Storage, StorageFile};

/// Writes the headers of segments anew whose own is damaged while their frames say which segment they are. Returns
/// the files. Interrupted by a power cut it leaves a damaged header as before.
///
/// # Errors
/// [`InspectError`]; what was written before stays.
pub fn restore_headers(
    storage: &dyn Storage,
    dir: &str,
    files: &[String],
) -> Result<Vec<String>, InspectError> {
    let survey = survey(storage, dir)?;
    let known = survey.segments.iter().find_map(|segment| segment.header);
    let mut restored = Vec::new();
    for segment in survey.segments.iter().filter(|segment| segment.header.is_none()) {
        if !files.contains(&segment.path) || u64::from(segment.id.segment_bytes) != segment.length {
            continue;
        }
        let io =
            |operation, source| InspectError::Io { operation, path: segment.path.clone(), source };
        let file = storage.open(&segment.path, OpenMode::ReadWrite).map_err(|e| io("open", e))?;
        let mut window = Window::forgiving();
        let first = header_at(&mut window, &*file, &segment.id, segment.id.first_frame());
        let HeaderAt::Frame(first) = first.map_err(|error| io("read", error))? else { continue };
        let (clock, before): (ClockReading, _) = (first.clock, first.proven_end);
        let header = SegmentHeader {
            slot_use: SlotUse::Live,
            sector_bytes: segment.id.sector_bytes,
            segment_bytes: segment.id.segment_bytes,
            previous_end: segment.previous_end.unwrap_or(0),
            sequence: segment.id.sequence,
            salt: segment.id.salt,
            first_group: first.sequence,
            log_id: known.map_or([0; 16], |known| known.log_id),
            name_hash: name_hash(dir.rsplit('/').next().unwrap_or(dir)),
            journal_start: first.journal_start,
            link: if before.segment + 1 == segment.id.sequence { 0 } else { before.segment },
            clock,
        };
        write(&file, segment.id.sector_bytes, &header).map_err(|error| io("write", error))?;
        restored.push(segment.path.clone());
    }
    Ok(restored)
}

fn write(file: &Arc<dyn StorageFile>, sector: u32, header: &SegmentHeader) -> std::io::Result<()> {
    let bytes = file.io_mode().sector_bytes().max(sector) as usize;
    let mut buf = AlignedBuf::zeroed(bytes);
    // Where a write takes more than the header's sector, what stands behind it stays.
    file.read_at(&mut buf, 0)?;
    buf[..sector as usize].fill(0);
    header.encode(&mut buf[..sector as usize]);
    file.write_at(&buf, 0)?;
    file.sync_data()
}

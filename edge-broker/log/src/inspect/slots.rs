//! What the files of a lane are: looked at from outside, before any frame is read.

use std::io;

use super::InspectError;
use crate::journal::format::{SECTOR_BYTES_MIN, SEGMENT_BYTES_MAX, VERSION};
use crate::journal::scan::{SegmentId, Window};
use crate::journal::segment::{SectorZero, SegmentHeader, SlotUse, name_hash};
use crate::recovery::find::{identify, slot_number};
use crate::storage::{OpenMode, Storage, StorageFile, is_of_one_file};

/// A segment that frames can be read from.
#[derive(Clone, Debug)]
pub(crate) struct SegmentSeen {
    pub(crate) path: String,
    pub(crate) slot: u32,
    pub(crate) length: u64,
    pub(crate) id: SegmentId,
    /// Absent: its frames said which segment it is.
    pub(crate) header: Option<SegmentHeader>,
    /// Where the segment before ends, if this one knows.
    pub(crate) previous_end: Option<u32>,
    /// The segment before it; numbers between the two were never used.
    pub(crate) previous_segment: u64,
}

/// A slot that holds none.
#[derive(Clone, Debug)]
pub(crate) enum SlotUseless {
    /// It holds nothing live. The sequence is that of the segment it had.
    Free(u64),
    Blank,
    /// Neither a header nor any frame.
    Garbage,
    /// Another lane's segment.
    Foreign,
    Unreadable(String),
}

/// All files of a lane's directory.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// By sequence; one sequence may be there twice.
    pub(crate) segments: Vec<SegmentSeen>,
    pub(crate) useless: Vec<(String, u32, SlotUseless)>,
    /// Numbers of slots that have a side index.
    pub(crate) sides: Vec<u32>,
    /// Unfinished segments.
    pub(crate) unfinished: Vec<String>,
    /// What is none of ours.
    pub(crate) unknown: Vec<String>,
    pub(crate) bytes: u64,
}

/// Looks at every file of a lane.
pub(crate) fn survey(storage: &dyn Storage, dir: &str) -> Result<Survey, InspectError> {
    let io = |operation, path: &str, source| InspectError::Io {
        operation,
        path: path.to_owned(),
        source,
    };
    let mut names = storage.list(dir).map_err(|error| io("list", dir, error))?;
    names.sort_unstable();
    let lane_hash = name_hash(dir.rsplit('/').next().unwrap_or(dir));
    let mut survey = Survey::default();
    for name in names {
        let path = format!("{dir}/{name}");
        if let Some(slot) = slot_number(&name) {
            survey.look_at_slot(storage, path, slot, Some(lane_hash))?;
        } else if let Some(slot) = numbered(&name, ".idx") {
            survey.sides.push(slot);
        } else if numbered(&name, ".tmp").is_some() {
            survey.unfinished.push(path);
        } else {
            survey.unknown.push(path);
        }
    }
    survey.segments.sort_by_key(|segment| segment.id.sequence);
    Ok(survey)
}

/// Looks at one file that may be a segment of any lane.
pub(crate) fn survey_file(storage: &dyn Storage, path: &str) -> Result<Survey, InspectError> {
    let mut survey = Survey::default();
    survey.look_at_slot(storage, path.to_owned(), 0, None)?;
    Ok(survey)
}

impl Survey {
    fn look_at_slot(
        &mut self,
        storage: &dyn Storage,
        path: String,
        slot: u32,
        lane_hash: Option<u64>,
    ) -> Result<(), InspectError> {
        let opened = storage.open(&path, OpenMode::Read).and_then(|file| {
            let length = file.len()?;
            Ok((file, length))
        });
        let (file, length) = match opened {
            Ok(opened) => opened,
            Err(error) if is_of_one_file(&error) => {
                self.useless.push((path, slot, SlotUseless::Unreadable(error.to_string())));
                return Ok(());
            }
            Err(source) => return Err(InspectError::Io { operation: "open", path, source }),
        };
        self.bytes += length;
        let io = |source| InspectError::Io { operation: "read", path: path.clone(), source };
        let sector = sector_zero(&*file).map_err(io)?;
        let useless = match sector {
            SectorZero::Newer(found) => {
                return Err(InspectError::NewerFormat { path, found, supported: VERSION });
            }
            SectorZero::Header(header)
                if lane_hash.is_some_and(|expected| header.name_hash != expected) =>
            {
                SlotUseless::Foreign
            }
            SectorZero::Header(header) if header.slot_use == SlotUse::Free => {
                SlotUseless::Free(header.sequence)
            }
            SectorZero::Header(header) => {
                let id = SegmentId {
                    sequence: header.sequence,
                    salt: header.salt,
                    segment_bytes: header.segment_bytes.min(SEGMENT_BYTES_MAX),
                    sector_bytes: header.sector_bytes,
                };
                let before = header.sequence - 1;
                let previous_segment =
                    if header.link > 0 { header.link.min(before) } else { before };
                let previous_end = Some(header.previous_end);
                let header = Some(header);
                self.segments.push(SegmentSeen {
                    path,
                    slot,
                    length,
                    id,
                    header,
                    previous_end,
                    previous_segment,
                });
                return Ok(());
            }
            SectorZero::Blank | SectorZero::Damaged => {
                let mut window = Window::forgiving();
                match identify(&mut window, &*file, length).map_err(io)? {
                    Some((id, previous)) => {
                        let header = None;
                        let previous_end = previous.map(|previous| previous.byte);
                        let before = id.sequence - 1;
                        let previous_segment = previous.map_or(before, |previous| previous.segment);
                        self.segments.push(SegmentSeen {
                            path,
                            slot,
                            length,
                            id,
                            header,
                            previous_end,
                            previous_segment,
                        });
                        return Ok(());
                    }
                    None if window.unreadable_bytes > 0 => {
                        SlotUseless::Unreadable("nothing in it can be read".to_owned())
                    }
                    None if sector == SectorZero::Blank => SlotUseless::Blank,
                    None => SlotUseless::Garbage,
                }
            }
        };
        self.useless.push((path, slot, useless));
        Ok(())
    }
}

/// Judges sector 0 of an open slot; what the device does not read is damaged.
pub(crate) fn sector_zero(file: &dyn StorageFile) -> io::Result<SectorZero> {
    let mut first = [0; SECTOR_BYTES_MIN as usize];
    match file.read_at(&mut first, 0) {
        Ok(read) => Ok(SegmentHeader::read(&first[..read])),
        Err(error) if is_of_one_file(&error) => Ok(SectorZero::Damaged),
        Err(error) => Err(error),
    }
}

/// The number in `slot-0012.idx`.
fn numbered(name: &str, extension: &str) -> Option<u32> {
    slot_number(&format!("{}.seg", name.strip_suffix(extension)?))
}

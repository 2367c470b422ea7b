//! Which slot holds which segment.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::clock::ClockReading;
use crate::journal::format::{SECTOR_BYTES_MIN, SEGMENT_BYTES_MAX};
use crate::journal::frame::{FrameHeader, HeaderAt};
use crate::journal::scan::{SegmentId, Window, frame, header_at, resync};
use crate::journal::segment::{SectorZero, SegmentHeader, SlotUse, name_hash};
use crate::journal::unpack::is_intact;
use crate::lane::OpenError;
use crate::position::JournalPosition;
use crate::shared::slot_path;
use crate::storage::{IoMode, OpenMode, Storage, StorageFile, is_of_one_file};

/// From so many slots on, the disk is told in advance.
const MANY_SLOTS: usize = 64;

/// A segment that was found.
pub(crate) struct FoundSegment {
    pub(crate) id: SegmentId,
    pub(crate) slot: u32,
    /// Where the segment before ends, and which one that was, if this one knows.
    pub(crate) previous: Option<JournalPosition>,
    /// Its header says that all segments before this one were given up.
    pub(crate) gave_up: Option<u64>,
    end: AtomicU32,
}

impl FoundSegment {
    /// Where its frames end, as far as is known.
    pub(crate) fn end(&self) -> u32 {
        self.end.load(Ordering::Relaxed)
    }

    pub(crate) fn set_end(&self, end: u32) {
        self.end.store(end, Ordering::Relaxed);
    }

    /// Whether any frame header in it is intact.
    pub(crate) fn has_frames(&self, files: &Files<'_>, window: &mut Window) -> io::Result<bool> {
        window.forget();
        let file = files.open(self)?;
        let first = self.id.first_frame();
        if let HeaderAt::Frame(header) = header_at(window, &*file, &self.id, first)? {
            let frame = frame(window, &*file, &header)?;
            if is_intact(&header, frame) {
                return Ok(true);
            }
        }
        let from = first + self.id.sector_bytes;
        Ok(resync(window, &*file, &self.id, from, self.id.segment_bytes, 0)?.is_some())
    }
}

impl FoundSegment {
    /// Number of its last intact group; 0 = it has none.
    fn newest_group(&self, files: &Files<'_>, window: &mut Window) -> io::Result<u64> {
        window.forget();
        let file = files.open(self)?;
        let (mut from, mut newest) = (self.id.first_frame(), 0);
        let until = self.id.segment_bytes;
        while let Some(header) = resync(window, &*file, &self.id, from, until, newest)? {
            from = header.end().byte;
            newest = header.sequence;
        }
        Ok(newest)
    }
}

/// Where files come from. They are opened when they are needed: there may be more than can be open at once.
pub(crate) struct Files<'s> {
    pub(crate) storage: &'s dyn Storage,
    pub(crate) dir: &'s str,
    /// Open for writing too, which drops what the page cache has where that may be wrong.
    pub(crate) write: bool,
}

impl Files<'_> {
    pub(crate) fn open(&self, segment: &FoundSegment) -> io::Result<Arc<dyn StorageFile>> {
        self.open_slot(segment.slot)
    }

    fn open_slot(&self, slot: u32) -> io::Result<Arc<dyn StorageFile>> {
        let mode = if self.write { OpenMode::ReadWrite } else { OpenMode::Read };
        self.storage.open(&slot_path(self.dir, slot), mode)
    }

    pub(crate) fn error(&self, segment: &FoundSegment, source: io::Error) -> OpenError {
        OpenError::Io { operation: "read", path: slot_path(self.dir, segment.slot), source }
    }
}

/// A segment that was given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freed {
    pub(crate) sequence: u64,
    /// The last group before it was freed: what was lost with it is told by then.
    pub(crate) told_by: u64,
}

/// All slots of a directory.
pub(crate) struct Found {
    /// By sequence, each once.
    pub(crate) segments: Vec<Arc<FoundSegment>>,
    pub(crate) free: Vec<u32>,
    /// Segments that were given up.
    pub(crate) freed: Vec<Freed>,
    /// Slots that cannot be read, so that nobody knows which segments they hold.
    pub(crate) broken: Vec<u32>,
    /// Slots whose file was cut off before its first frame.
    pub(crate) unknown: Vec<u32>,
    pub(crate) slots: Vec<(u32, u64)>,
    pub(crate) log_id: Option<[u8; 16]>,
    pub(crate) io_mode: Option<IoMode>,
    /// The clock of every live segment's header, by sequence.
    pub(crate) clocks: BTreeMap<u64, ClockReading>,
}

/// Looks at sector 0 of every slot.
pub(crate) fn find(files: &Files<'_>, window: &mut Window) -> Result<Found, OpenError> {
    let Files { storage, dir, write } = *files;
    let names = match storage.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(source) => {
            return Err(OpenError::Io { operation: "list", path: dir.to_owned(), source });
        }
    };
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| slot_number(name)).collect();
    numbers.sort_unstable();
    if numbers.len() >= MANY_SLOTS {
        let paths: Vec<String> = numbers.iter().map(|slot| slot_path(dir, *slot)).collect();
        storage.will_read_heads(&paths, SECTOR_BYTES_MIN as usize);
    }
    let lane_hash = name_hash(dir.rsplit('/').next().unwrap_or(dir));
    let mut found = Found {
        segments: Vec::new(),
        free: Vec::new(),
        freed: Vec::new(),
        broken: Vec::new(),
        unknown: Vec::new(),
        slots: Vec::new(),
        log_id: None,
        io_mode: None,
        clocks: BTreeMap::new(),
    };
    for slot in numbers {
        let path = slot_path(dir, slot);
        let io = |operation, source| OpenError::Io { operation, path: path.clone(), source };
        let file = match files.open_slot(slot) {
            Ok(file) => file,
            Err(error) if is_of_one_file(&error) => {
                found.give_up(&path, slot, 0, &error);
                continue;
            }
            // Too many open files, no memory, no permission: without this slot its offsets could be given out
            // again, and next time it may be there.
            Err(error) => return Err(io("open", error)),
        };
        let length = match file.len() {
            Ok(length) => length,
            Err(error) if is_of_one_file(&error) => {
                found.give_up(&path, slot, 0, &error);
                continue;
            }
            Err(error) => return Err(io("look at", error)),
        };
        found.slots.push((slot, length));
        found.io_mode = write.then(|| file.io_mode());
        // Not through the window: of most slots this is all that is read.
        let mut first = [0; SECTOR_BYTES_MIN as usize];
        let sector = match file.read_at(&mut first, 0) {
            Ok(read) => SegmentHeader::read(&first[..read]),
            Err(error) if is_of_one_file(&error) => {
                tracing::error!(path, %error, "the head of a slot cannot be read");
                SectorZero::Damaged
            }
            Err(error) => return Err(io("read", error)),
        };
        window.forget();
        window.read_bytes += u64::from(SECTOR_BYTES_MIN);
        match sector {
            SectorZero::Newer(version) => {
                let supported = crate::journal::format::VERSION;
                return Err(OpenError::NewerFormat { path, found: version, supported });
            }
            SectorZero::Header(header) if header.name_hash != lane_hash => {
                tracing::error!(path, "the slot belongs to another lane and is left alone");
            }
            SectorZero::Header(header) if header.slot_use == SlotUse::Free => {
                found.log_id = Some(header.log_id);
                found.freed.push(Freed { sequence: header.sequence, told_by: header.link });
                found.free.push(slot);
            }
            SectorZero::Header(header) => {
                found.log_id = Some(header.log_id);
                found.clocks.insert(header.sequence, header.clock);
                let id = SegmentId {
                    sequence: header.sequence,
                    salt: header.salt,
                    segment_bytes: header.segment_bytes.min(SEGMENT_BYTES_MAX),
                    sector_bytes: header.sector_bytes,
                };
                let before = if header.link > 0 { header.link } else { header.sequence - 1 };
                let previous = JournalPosition { segment: before, byte: header.previous_end };
                let is_known = previous.byte > 0 && before < header.sequence;
                let gave_up = header.journal_start;
                found.push(id, slot, is_known.then_some(previous), Some(gave_up));
            }
            SectorZero::Blank | SectorZero::Damaged => {
                // A file is always whole: one that ends before its first frame was cut off.
                let is_lost = length < u64::from(SECTOR_BYTES_MIN) * 2;
                // Blank may also be what a lost flash page left. Few slots are: one is made ahead of use.
                let unreadable_bytes = window.unreadable_bytes;
                let identified =
                    identify(window, &*file, length).map_err(|error| io("read", error))?;
                match identified {
                    Some((id, previous)) => {
                        if is_lost
                            && !has_first_frame(window, &*file, &id)
                                .map_err(|error| io("read", error))?
                        {
                            found.unknown.push(slot);
                        }
                        found.push(id, slot, previous, None);
                    }
                    None if window.unreadable_bytes > unreadable_bytes => {
                        tracing::error!(path, "nothing of a slot that holds data can be read");
                        found.broken.push(slot);
                    }
                    None => {
                        tracing::error!(path, "nothing of ours is in a slot");
                        if is_lost {
                            found.unknown.push(slot);
                        }
                        found.free.push(slot);
                    }
                }
            }
        }
    }
    found.segments.sort_by_key(|segment| segment.id.sequence);
    found.drop_doubles(files);
    Ok(found)
}

impl Found {
    /// A broken file costs what it holds, not the start. Its name is not used again.
    fn give_up(&mut self, path: &str, slot: u32, length: u64, error: &io::Error) {
        tracing::error!(path, %error, "a slot cannot be opened");
        self.slots.push((slot, length));
        self.broken.push(slot);
    }

    fn push(
        &mut self,
        id: SegmentId,
        slot: u32,
        previous: Option<JournalPosition>,
        gave_up: Option<u64>,
    ) {
        let end = AtomicU32::new(id.segment_bytes);
        self.segments.push(Arc::new(FoundSegment { id, slot, previous, gave_up, end }));
    }

    /// Two slots with one sequence: a copied file, or a torn roll that was repeated in another slot. The one that goes
    /// on further stays.
    fn drop_doubles(&mut self, files: &Files<'_>) {
        let mut kept: Vec<Arc<FoundSegment>> = Vec::new();
        for segment in std::mem::take(&mut self.segments) {
            match kept.last_mut() {
                Some(last) if last.id.sequence == segment.id.sequence => {
                    tracing::error!(slot = segment.slot, "two slots hold the same segment");
                    let mut window = Window::forgiving();
                    let mut newest = |one: &FoundSegment| {
                        one.newest_group(files, &mut window).unwrap_or_default()
                    };
                    let better = newest(&segment) > newest(last);
                    let gone = if better { std::mem::replace(last, segment) } else { segment };
                    if window.unreadable_bytes == 0 {
                        self.free.push(gone.slot);
                    }
                }
                _ => kept.push(segment),
            }
        }
        self.segments = kept;
    }
}

fn has_first_frame(
    window: &mut Window,
    file: &dyn StorageFile,
    id: &SegmentId,
) -> io::Result<bool> {
    Ok(matches!(header_at(window, file, id, id.first_frame())?, HeaderAt::Frame(_)))
}

/// Which segment a slot holds whose header is lost: its frames say it, wherever they stand.
pub(crate) fn identify(
    window: &mut Window,
    file: &dyn StorageFile,
    length: u64,
) -> io::Result<Option<(SegmentId, Option<JournalPosition>)>> {
    let segment_bytes = length.min(u64::from(SEGMENT_BYTES_MAX)) as u32;
    let mut byte = SECTOR_BYTES_MIN;
    let mut best: Option<(SegmentId, Option<JournalPosition>)> = None;
    while byte < segment_bytes {
        let bytes = window.bytes(file, u64::from(byte), SECTOR_BYTES_MIN as usize)?;
        if let Some(header) = FrameHeader::read_any(bytes, byte, segment_bytes) {
            let id = SegmentId {
                sequence: header.position.segment,
                salt: header.salt,
                segment_bytes,
                sector_bytes: header.sector_bytes,
            };
            // The first frame proves the segment before.
            let before = header.proven_end;
            let first = byte == id.first_frame() && before.segment < header.position.segment;
            let previous = (first && before.byte > 0).then_some(before);
            // Frames of an older use may stand behind those of the latest one.
            if best.as_ref().is_none_or(|(known, _)| known.sequence < id.sequence) {
                best = Some((id, previous));
            }
        }
        byte += SECTOR_BYTES_MIN;
    }
    Ok(best)
}

/// The number in `slot-0012.seg`.
pub(crate) fn slot_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("slot-")?.strip_suffix(".seg")?;
    let plain = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

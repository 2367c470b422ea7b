//! Reading again what is on the device, before somebody needs it.
//!
//! - A range of the journal is read in steps of 64 KiB at most, through memory that the device has refilled: every
//!   checksum of every frame is computed anew (header, directory, repeated directory, body), checkpoints and seals
//!   included, and the head of every segment and its side index.
//! - What is found is noted as a reader would: maintenance of the lane names what is lost ([`GapReason::Rot`]). A
//!   side index is made anew. A damaged segment head or repeated directory costs no record: it is told.
//! - Any thread; beside the lane's own, so that no acknowledgement waits for it. The caller decides how fast.
//! - Limits: 64 KiB of memory, and 4,096 places that are known to be damaged and not told a second time.
//!
//! [`GapReason::Rot`]: crate::GapReason::Rot

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::journal::format::{FRAME_HEADER_BYTES, SECTOR_BYTES_MIN};
use crate::journal::frame::{FrameHeader, HeaderAt};
use crate::journal::scan::Window;
use crate::journal::segment::{SectorZero, SegmentHeader};
use crate::position::JournalPosition;
use crate::reader::ReadError;
use crate::shared::{Segment, Shared, side_path};
use crate::storage::{OpenMode, StorageFile};
use crate::stream_index::rebuild::load;
use crate::stream_index::side::{HEAD_BYTES, SideIndex};

/// Most bytes read by one step, side indexes excepted.
const STEP_BYTES: u32 = 64 << 10;
/// Damaged places that are remembered.
const KNOWN_MAX: usize = 4096;

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubStep {
    /// So many bytes were read; there is more.
    Read {
        /// Bytes.
        bytes: usize,
    },
    /// The end of the range was reached.
    Done,
}

/// A damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rot {
    /// Where.
    pub at: JournalPosition,
    /// What stood there, in words.
    pub what: &'static str,
}

/// Walks over a lane's journal and checks it.
pub struct Scrub {
    shared: Arc<Shared>,
    window: Window,
    /// Byte 0: the head of the segment comes next.
    at: JournalPosition,
    to: JournalPosition,
    /// The frame at `at`, as far as it was read.
    frame: Option<Frame>,
    /// Damaged from here on, up to `at`.
    lost_from: Option<JournalPosition>,
    /// The segment of which the copy in memory was let go.
    refreshed: u64,
    known: BTreeSet<JournalPosition>,
    found: Vec<Rot>,
}

/// A frame and its checksums so far.
struct Frame {
    header: FrameHeader,
    /// Bytes seen of it.
    fed: usize,
    own_crc: u32,
    previous_crc: u32,
    body_crc: u32,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub").field("at", &self.at).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Scrub {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let start = JournalPosition::START;
        Self {
            shared,
            window: Window::forgiving(),
            at: start,
            to: start,
            frame: None,
            lost_from: None,
            refreshed: 0,
            known: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    /// Goes to work on what lies between two positions, each the start or the end of a group or
    /// [`JournalPosition::START`].
    pub fn begin(&mut self, from: JournalPosition, to: JournalPosition) {
        let start = self.shared.start();
        self.known.retain(|at| at.segment >= start.segment);
        // The head of a segment belongs to its first group.
        let at_head = from <= start || from.byte == 0;
        self.at = from.max(JournalPosition { segment: start.segment, byte: 0 });
        if at_head {
            self.at.byte = 0;
        }
        self.to = to.min(self.shared.end());
        (self.frame, self.lost_from, self.refreshed) = (None, None, 0);
    }

    /// Reads and checks a piece.
    ///
    /// # Errors
    /// The disk refused, for another reason than damage: step again later, or [`skip`](Self::skip).
    pub fn step(&mut self) -> Result<ScrubStep, ReadError> {
        loop {
            let sequence = self.at.segment;
            let next = JournalPosition { segment: sequence + 1, byte: 0 };
            if self.at >= self.to {
                self.end_loss(None);
                return Ok(ScrubStep::Done);
            }
            let Some(segment) = self.shared.segment_at_or_after(sequence) else {
                (self.frame, self.lost_from) = (None, None);
                return Ok(ScrubStep::Done);
            };
            if segment.id.sequence > sequence {
                // It was recycled meanwhile.
                (self.frame, self.lost_from) = (None, None);
                self.at = segment.first_position();
                self.at.byte = 0;
                continue;
            }
            if self.refreshed != sequence {
                segment.file.forget_cached();
                self.refreshed = sequence;
            }
            let limit = if self.to.segment == sequence { self.to.byte } else { u32::MAX };
            let end = limit.min(segment.end());
            let checked = if self.at.byte == 0 {
                self.check_head(&segment)
            } else if self.at.byte >= end {
                self.end_loss(Some(&segment));
                segment.file.forget_cached();
                self.at = next;
                continue;
            } else {
                self.check_piece(&segment, end)
            };
            let bytes = checked.map_err(|source| ReadError::Io { segment: sequence, source })?;
            return Ok(ScrubStep::Read { bytes });
        }
    }

    /// Leaves the rest of this segment out.
    pub fn skip(&mut self) {
        (self.frame, self.lost_from) = (None, None);
        self.at = JournalPosition { segment: self.at.segment + 1, byte: 0 };
    }

    /// Damage that was found since the last call and was not known before.
    pub fn take_found(&mut self) -> Vec<Rot> {
        std::mem::take(&mut self.found)
    }

    /// The segment's header and its side index.
    fn check_head(&mut self, segment: &Segment) -> io::Result<usize> {
        let id = segment.id;
        self.window.forget();
        let sector = self.window.bytes(&segment.file, 0, SECTOR_BYTES_MIN as usize)?;
        let bytes = sector.len();
        let intact = matches!(
            SegmentHeader::read(sector),
            SectorZero::Header(header) if header.sequence == id.sequence && header.salt == id.salt
        );
        let at = JournalPosition { segment: id.sequence, byte: 0 };
        if !intact && !segment.retired.load(Ordering::Acquire) {
            self.tell(at, "the header of the segment");
        }
        self.at.byte = id.first_frame();
        // The newest segment has none yet.
        if id.sequence < self.shared.end().segment {
            return Ok(bytes + self.check_side(segment));
        }
        Ok(bytes)
    }

    /// A side index that is missing, of another use of the slot, or damaged is written anew by maintenance.
    fn check_side(&mut self, segment: &Segment) -> usize {
        let path = side_path(&self.shared.dir, segment.slot);
        let mut head = [0; HEAD_BYTES];
        let Ok(file) = self.shared.storage.open(&path, OpenMode::Read) else {
            self.shared.note_rebuilt(segment.id.sequence);
            return 0;
        };
        file.forget_cached();
        let count = file.read_at(&mut head, 0).unwrap_or(0);
        // Twice: a read that fails once is no rot.
        let loaded = load(&self.shared, segment).or_else(|| load(&self.shared, segment));
        if let Some(side) = loaded {
            return side.bytes().len();
        }
        if SideIndex::is_of(&head, segment.id.sequence, segment.id.salt) {
            // A place of its own: no frame begins at byte 1.
            self.tell(JournalPosition { segment: segment.id.sequence, byte: 1 }, "the side index");
        }
        self.shared.note_rebuilt(segment.id.sequence);
        count
    }

    fn check_piece(&mut self, segment: &Segment, end: u32) -> io::Result<usize> {
        let seen = self.frame.as_ref().map_or(0, |frame| frame.fed as u32);
        let from = self.at.byte + seen;
        let wanted = STEP_BYTES.min(end.saturating_sub(from)) as usize;
        let mut window = std::mem::take(&mut self.window);
        window.forget();
        let read = window.bytes(&segment.file, u64::from(from), wanted).map(|bytes| {
            self.feed(bytes, from, segment);
            bytes.len()
        });
        self.window = window;
        let read = read?;
        let stuck = self.frame.as_ref().map_or(0, |frame| frame.fed as u32) + self.at.byte == from;
        if read < wanted && stuck {
            // The file ends before the journal does.
            self.frame = None;
            self.lost_from.get_or_insert(self.at);
            self.at.byte = end;
        }
        Ok(read)
    }

    /// Takes the bytes that stand at `from`.
    fn feed(&mut self, bytes: &[u8], from: u32, segment: &Segment) {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            if let Some(frame) = &mut self.frame {
                frame.feed(rest);
                if frame.fed < frame.header.raw_end() {
                    return;
                }
                self.end_frame();
                used = (self.at.byte - from) as usize;
                continue;
            }
            if rest.len() < FRAME_HEADER_BYTES {
                return;
            }
            match FrameHeader::read(rest, &segment.id.expected(self.at.byte)) {
                HeaderAt::Frame(header) => {
                    let position = self.lost_from;
                    // What a recovery judged before is told already.
                    let told = position.is_some_and(|lost| {
                        header.proven_end.segment == lost.segment && header.proven_end <= lost
                    });
                    if told {
                        self.lost_from = None;
                    }
                    self.end_loss(Some(segment));
                    self.frame = Some(Frame::new(header));
                }
                _ => {
                    self.lost_from.get_or_insert(self.at);
                    self.at.byte += segment.id.sector_bytes;
                    used += segment.id.sector_bytes as usize;
                }
            }
        }
    }

    /// All of a frame was read.
    fn end_frame(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        let header = &frame.header;
        self.at = header.end();
        if frame.own_crc != header.directory_crc || frame.body_crc != header.body_crc {
            // Whether it was judged before, the next header says.
            self.lost_from.get_or_insert(header.position);
        } else if frame.previous_crc != header.previous_directory_crc {
            self.tell(header.position, "the repeated directory of a group");
        }
    }

    /// What was damaged ends here; `segment` is where it stands, if it is still part of the journal.
    fn end_loss(&mut self, segment: Option<&Segment>) {
        let Some(lost) = self.lost_from.take() else { return };
        let found = match segment {
            Some(segment) => !segment.retired.load(Ordering::Acquire),
            None => self
                .shared
                .segment_at_or_after(lost.segment)
                .is_some_and(|segment| segment.id.sequence == lost.segment),
        };
        if found {
            self.shared.note_damage(lost);
            self.tell(lost, "a group");
        }
    }

    fn tell(&mut self, at: JournalPosition, what: &'static str) {
        let is_new = self.known.len() >= KNOWN_MAX || self.known.insert(at);
        if is_new {
            self.found.push(Rot { at, what });
        }
    }
}

impl Frame {
    fn new(header: FrameHeader) -> Self {
        Self { header, fed: 0, own_crc: 0, previous_crc: 0, body_crc: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let header = &self.header;
        let from = self.fed;
        let to = header.raw_end().min(from + bytes.len());
        let parts = [
            (&mut self.own_crc, header.directory_at(), header.previous_directory_at()),
            (&mut self.previous_crc, header.previous_directory_at(), header.body_at()),
            (&mut self.body_crc, header.body_at(), header.raw_end()),
        ];
        for (crc, start, end) in parts {
            let (start, end) = (start.max(from), end.min(to));
            if start < end {
                *crc = crc32c::crc32c_append(*crc, &bytes[start - from..end - from]);
            }
        }
        self.fed = to;
    }
}

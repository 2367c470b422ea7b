//! Reading frames from a segment file, through a window so that many small frames take one read.
//!
//! A piece of the file that the device refuses to read counts as zeros, which no checksum accepts: a bad sector
//! costs the group it hits. Only if nothing at all of a window can be read is it an error, and for a forgiving window
//! (recovery: a start is never refused because of damage) not even then.

use std::io;

use super::format::{FRAME_HEADER_BYTES, SECTOR_BYTES_MAX};
use super::frame::{Directories, Expected, FrameHeader, HeaderAt};
use super::trailer::Trailer;
use crate::position::JournalPosition;
use crate::storage::{StorageFile, is_of_one_file};

/// What is read at once while frames are small.
const WINDOW_BYTES: usize = 64 << 10;
/// What is asked for again where a window cannot be read.
const PIECE_BYTES: usize = SECTOR_BYTES_MAX as usize;

/// Which use of which slot is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    pub(crate) segment_bytes: u32,
    pub(crate) sector_bytes: u32,
}

impl SegmentId {
    /// Where the first frame stands.
    pub(crate) fn first_frame(&self) -> u32 {
        self.sector_bytes
    }

    pub(crate) fn expected(&self, byte: u32) -> Expected {
        Expected {
            salt: self.salt,
            position: JournalPosition { segment: self.sequence, byte },
            segment_bytes: self.segment_bytes,
        }
    }
}

/// A window on a file.
#[derive(Debug, Default)]
pub(crate) struct Window {
    buf: Vec<u8>,
    start: u64,
    /// Sequence of the segment that was read, for who walks through several.
    pub(crate) segment: u64,
    /// Bytes read so far, for the report of recovery.
    pub(crate) read_bytes: u64,
    /// Zeros also where nothing at all can be read.
    forgiving: bool,
    /// Bytes that could not be read so far, and where the last of them ended in this file.
    pub(crate) unreadable_bytes: u64,
    unreadable_end: u64,
}

impl Window {
    /// For recovery.
    pub(crate) fn forgiving() -> Self {
        Self { forgiving: true, ..Self::default() }
    }

    /// The bytes `at..at + len`, fewer at the end of the file.
    pub(crate) fn bytes(
        &mut self,
        file: &dyn StorageFile,
        at: u64,
        len: usize,
    ) -> io::Result<&[u8]> {
        let inside = at >= self.start && at + len as u64 <= self.start + self.buf.len() as u64;
        if !inside {
            self.fill(file, at, len.max(WINDOW_BYTES))?;
        }
        let from = (at - self.start) as usize;
        let to = (from + len).min(self.buf.len());
        Ok(&self.buf[from.min(to)..to])
    }

    /// Forgets what was read: the file may have changed.
    pub(crate) fn forget(&mut self) {
        self.buf.clear();
        self.start = 0;
        self.unreadable_end = 0;
    }

    /// Gives back what a large frame took.
    pub(crate) fn shrink(&mut self) {
        if self.buf.capacity() > WINDOW_BYTES * 4 {
            self.forget();
            self.buf = Vec::new();
        }
    }

    /// Bytes from `byte` to the end of what could not be read since [`Self::forget`]; 0 if all behind it could.
    pub(crate) fn unreadable_behind(&self, byte: u32) -> u64 {
        self.unreadable_end.saturating_sub(u64::from(byte))
    }

    fn fill(&mut self, file: &dyn StorageFile, at: u64, len: usize) -> io::Result<()> {
        // What is there is written over: only what is new is zeroed.
        self.buf.resize(len, 0);
        self.start = at;
        let read = match file.read_at(&mut self.buf, at) {
            Ok(read) => read,
            Err(error) => match self.fill_by_pieces(file, at, error) {
                Ok(read) => read,
                Err(error) => {
                    self.forget();
                    return Err(error);
                }
            },
        };
        self.read_bytes += read as u64;
        self.buf.truncate(read);
        Ok(())
    }

    fn fill_by_pieces(
        &mut self,
        file: &dyn StorageFile,
        at: u64,
        whole: io::Error,
    ) -> io::Result<usize> {
        let (mut good, mut end) = (0, 0);
        for (index, piece) in self.buf.chunks_mut(PIECE_BYTES).enumerate() {
            match file.read_at(piece, at + (index * PIECE_BYTES) as u64) {
                Ok(read) => {
                    good += 1;
                    end = index * PIECE_BYTES + read;
                    if read < piece.len() {
                        break;
                    }
                }
                // Nothing is known of the bytes: to be tried again, not to be given up.
                Err(error) if self.forgiving && !is_of_one_file(&error) => return Err(error),
                Err(_) => {
                    piece.fill(0);
                    end = index * PIECE_BYTES + piece.len();
                    self.unreadable_bytes += piece.len() as u64;
                    self.unreadable_end = at + end as u64;
                }
            }
        }
        if good > 0 || self.forgiving { Ok(end) } else { Err(whole) }
    }
}

/// What stands at a place.
pub(crate) fn header_at(
    window: &mut Window,
    file: &dyn StorageFile,
    id: &SegmentId,
    byte: u32,
) -> io::Result<HeaderAt> {
    let end = u64::from(byte) + FRAME_HEADER_BYTES as u64;
    if end > u64::from(id.segment_bytes) {
        return Ok(HeaderAt::Absent);
    }
    let bytes = window.bytes(file, u64::from(byte), FRAME_HEADER_BYTES)?;
    Ok(FrameHeader::read(bytes, &id.expected(byte)))
}

/// The directories of a frame.
pub(crate) fn directories<'w>(
    window: &'w mut Window,
    file: &dyn StorageFile,
    header: &FrameHeader,
) -> io::Result<Directories<'w>> {
    let bytes = window.bytes(file, u64::from(header.position.byte), header.body_at())?;
    Ok(Directories::check(header, bytes))
}

/// A frame's own directory, if it is intact.
pub(crate) fn own_directory<'w>(
    window: &'w mut Window,
    file: &dyn StorageFile,
    header: &FrameHeader,
) -> io::Result<Option<&'w [u8]>> {
    let at = u64::from(header.position.byte);
    let bytes = window.bytes(file, at, header.previous_directory_at())?;
    Ok(Directories::own(header, bytes))
}

/// All bytes of a frame but its padding.
pub(crate) fn frame<'w>(
    window: &'w mut Window,
    file: &dyn StorageFile,
    header: &FrameHeader,
) -> io::Result<&'w [u8]> {
    window.bytes(file, u64::from(header.position.byte), header.raw_end())
}

/// The next intact header at or behind `from` and before `until`, whose group is later than `after_group`.
pub(crate) fn resync(
    window: &mut Window,
    file: &dyn StorageFile,
    id: &SegmentId,
    from: u32,
    until: u32,
    after_group: u64,
) -> io::Result<Option<FrameHeader>> {
    let mut byte = from.next_multiple_of(id.sector_bytes);
    while byte < until.min(id.segment_bytes) {
        if let HeaderAt::Frame(header) = header_at(window, file, id, byte)?
            && header.sequence > after_group
        {
            return Ok(Some(header));
        }
        byte += id.sector_bytes;
    }
    Ok(None)
}

/// A frame of which only the end is left.
pub(crate) struct Headless {
    pub(crate) trailer: Trailer,
    /// The group's directory, where the padding had room for it.
    pub(crate) directory: Option<Vec<u8>>,
    /// Where the frame ends.
    pub(crate) end: u32,
}

/// The next frame that begins at or behind `from` and has lost its header but not its trailer, and whose group is later
/// than `after_group`.
pub(crate) fn next_trailer(
    window: &mut Window,
    file: &dyn StorageFile,
    id: &SegmentId,
    from: u32,
    after_group: u64,
) -> io::Result<Option<Headless>> {
    let sector_bytes = id.sector_bytes;
    let mut last = from;
    while last < id.segment_bytes {
        let bytes = window.bytes(file, u64::from(last), sector_bytes as usize)?;
        if bytes.len() < sector_bytes as usize {
            break;
        }
        if let Some(trailer) = Trailer::read(bytes, id.salt)
            && trailer.sequence > after_group
            && (from..=last).contains(&trailer.byte)
            && trailer.byte.is_multiple_of(sector_bytes)
        {
            let directory = trailer.directory(bytes).map(<[u8]>::to_vec);
            return Ok(Some(Headless { trailer, directory, end: last + sector_bytes }));
        }
        last += sector_bytes;
    }
    Ok(None)
}

#[cfg(test)]
mod tests;

//! Frames on their way to the disk: assembled once, in aligned memory, written and synced.
//!
//! The buffer holds what one write takes: a frame, or a segment header and the checkpoint frame behind it.

use std::io;
use std::sync::Arc;

use crate::clock::ClockReading;
use crate::config::GroupCompression;
use crate::decoded::GroupKind;
use crate::journal::format::{FRAME_HEADER_BYTES, ZSTD_WINDOW_LOG};
use crate::journal::frame::{
    BodyCodec, FLAG_STATE, FLAG_TRAILER, FrameHeader, frame_bytes, has_trailer,
};
use crate::journal::trailer::Trailer;
use crate::lane::pending::Closed;
use crate::position::JournalPosition;
use crate::shared::Segment;
use crate::storage::{AlignedBuf, StorageFile};

/// Smaller bodies are stored as they are.
const COMPRESS_BYTES_MIN: usize = 64;
/// Memory of the buffer that is kept.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// The segment that is written to.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) segment: Arc<Segment>,
    /// For writing.
    pub(crate) file: Arc<dyn StorageFile>,
    /// Where the next frame goes.
    pub(crate) byte: u32,
}

/// What goes into a frame beside its parts.
pub(crate) struct FrameFields<'a> {
    pub(crate) kind: GroupKind,
    pub(crate) flags: u8,
    pub(crate) compression: GroupCompression,
    pub(crate) records: u32,
    pub(crate) journal_start: u64,
    pub(crate) clock: &'a ClockReading,
}

/// Where a frame will stand.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) position: JournalPosition,
    pub(crate) salt: u64,
    pub(crate) sector_bytes: u32,
    pub(crate) segment_bytes: u32,
}

/// State that goes on from frame to frame.
pub(crate) struct Writer {
    pub(crate) current: Option<Current>,
    pub(crate) next_group: u64,
    /// Directory of the group that ends at the proven end.
    pub(crate) previous_directory: Vec<u8>,
    pub(crate) proven_end: JournalPosition,
    /// The journal start that the last frame on disk tells.
    pub(crate) told_start: u64,
    pub(crate) buf: AlignedBuf,
    compressor: Option<(i32, zstd::bulk::Compressor<'static>)>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            current: None,
            next_group: 1,
            previous_directory: Vec::new(),
            proven_end: JournalPosition::START,
            told_start: 0,
            buf: AlignedBuf::new(),
            compressor: None,
        }
    }

    /// The place of the next frame in the current segment.
    pub(crate) fn place(&self) -> Option<Place> {
        let current = self.current.as_ref()?;
        let id = &current.segment.id;
        Some(Place {
            position: JournalPosition { segment: id.sequence, byte: current.byte },
            salt: id.salt,
            sector_bytes: id.sector_bytes,
            segment_bytes: id.segment_bytes,
        })
    }

    /// Whether a frame fits the current segment, and a seal with its directory behind it.
    pub(crate) fn fits(&self, frame_len: usize, directory_len: usize) -> bool {
        let Some(current) = &self.current else { return false };
        let id = &current.segment.id;
        let seal_len = frame_bytes(directory_len, id.sector_bytes);
        current.byte as usize + frame_len + seal_len <= id.segment_bytes as usize
    }

    /// Assembles a frame at `at` bytes in the buffer and returns its header. The buffer ends with the frame.
    pub(crate) fn assemble(
        &mut self,
        at: usize,
        place: Place,
        fields: &FrameFields<'_>,
        parts: &Closed,
    ) -> FrameHeader {
        let directory_at = at + FRAME_HEADER_BYTES;
        let previous_at = directory_at + parts.directory.len();
        let body_at = previous_at + self.previous_directory.len();
        self.buf.resize_dirty(body_at + parts.body.len());
        self.buf[directory_at..previous_at].copy_from_slice(&parts.directory);
        self.buf[previous_at..body_at].copy_from_slice(&self.previous_directory);
        let packed = match fields.compression {
            GroupCompression::Zstd { level } if parts.body.len() >= COMPRESS_BYTES_MIN => {
                self.compress(level, &parts.body, body_at)
            }
            _ => None,
        };
        let (codec, stored) = match packed {
            Some(stored) => (BodyCodec::Zstd, stored),
            None => {
                self.buf[body_at..].copy_from_slice(&parts.body);
                (BodyCodec::Plain, parts.body.len())
            }
        };
        let raw_at = body_at + stored;
        let end = raw_at + parts.raw.len();
        let padded = at + frame_bytes(end - at - FRAME_HEADER_BYTES, place.sector_bytes);
        self.buf.resize_dirty(padded);
        self.buf[raw_at..end].copy_from_slice(&parts.raw);
        self.buf[end..padded].fill(0);
        let state = if parts.has_state { FLAG_STATE } else { 0 };
        let has_trailer = has_trailer(end - at, place.sector_bytes);
        let trailer = if has_trailer { FLAG_TRAILER } else { 0 };
        let header = FrameHeader {
            kind: fields.kind,
            flags: fields.flags | state | trailer,
            codec,
            sector_bytes: place.sector_bytes,
            salt: place.salt,
            sequence: self.next_group,
            position: place.position,
            records: fields.records,
            proven_end: self.proven_end,
            journal_start: fields.journal_start,
            clock: *fields.clock,
            directory_bytes: parts.directory.len() as u32,
            directory_crc: crc32c::crc32c(&parts.directory),
            previous_directory_bytes: self.previous_directory.len() as u32,
            previous_directory_crc: crc32c::crc32c(&self.previous_directory),
            body_stored_bytes: stored as u32,
            body_bytes: parts.body.len() as u32,
            raw_bytes: parts.raw.len() as u32,
            body_crc: crc32c::crc32c(&self.buf[body_at..end]),
            segment_bytes: place.segment_bytes,
        };
        header.encode(&mut self.buf[at..]);
        if has_trailer {
            Trailer::put(&header, &parts.directory, end - at, &mut self.buf[at..]);
        }
        header
    }

    /// Compresses into the buffer; `None` if that would not make it smaller.
    fn compress(&mut self, level: i32, body: &[u8], at: usize) -> Option<usize> {
        if self.compressor.as_ref().is_none_or(|(known, _)| *known != level) {
            let mut fresh = zstd::bulk::Compressor::new(level).ok()?;
            fresh.set_parameter(zstd::zstd_safe::CParameter::WindowLog(ZSTD_WINDOW_LOG)).ok()?;
            self.compressor = Some((level, fresh));
        }
        let (_, compressor) = self.compressor.as_mut()?;
        let out = &mut self.buf[at..at + body.len()];
        // A destination that is too small is how incompressible data shows.
        compressor.compress_to_buffer(body, out).ok().filter(|stored| *stored < body.len())
    }

    /// Writes the buffer at the current place and syncs.
    pub(crate) fn write(&mut self, byte: u32) -> Result<(), (&'static str, io::Error)> {
        let Some(current) = &self.current else {
            return Err(("write", io::Error::other("no segment is open")));
        };
        let file = &current.file;
        file.write_at(&self.buf, u64::from(byte)).map_err(|error| ("write", error))?;
        file.sync_data().map_err(|error| ("sync", error))
    }

    /// A frame is on disk: the next one goes behind it.
    pub(crate) fn advance(&mut self, header: &FrameHeader, directory: &[u8]) {
        if let Some(current) = &mut self.current {
            current.byte = header.end().byte;
        }
        self.next_group = header.sequence + 1;
        self.proven_end = header.end();
        self.told_start = header.journal_start;
        self.previous_directory.clear();
        self.previous_directory.extend_from_slice(directory);
        self.buf.recycle(BUFFER_KEPT_BYTES);
    }
}

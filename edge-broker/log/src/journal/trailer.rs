//! The end of a frame of more than 512 bytes: it says that there was a group where the first sector is lost and nothing
//! stands behind it. Layout in format.rs.

use super::format::{TRAILER_BYTES, get_u32, get_u64, put_u32, put_u64};
use super::frame::FrameHeader;

const MAGIC: [u8; 4] = *b"EDGT";
const CRC_AT: usize = 4;
const SALT_AT: usize = CRC_AT + 4;
const SEQUENCE_AT: usize = SALT_AT + 8;
const BYTE_AT: usize = SEQUENCE_AT + 8;
const RECORDS_AT: usize = BYTE_AT + 4;
const DIRECTORY_BYTES_AT: usize = RECORDS_AT + 4;
const DIRECTORY_CRC_AT: usize = DIRECTORY_BYTES_AT + 4;
const _: () = assert!(DIRECTORY_CRC_AT + 4 == TRAILER_BYTES);

/// The trailer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) sequence: u64,
    /// Where the frame begins.
    pub(crate) byte: u32,
    pub(crate) records: u32,
    /// Bytes of the directory before it.
    pub(crate) directory_bytes: u32,
    pub(crate) directory_crc: u32,
}

impl Trailer {
    /// Puts a trailer at the end of `frame`, and the directory before it if the zeros behind `content_end` have room.
    pub(crate) fn put(
        header: &FrameHeader,
        directory: &[u8],
        content_end: usize,
        frame: &mut [u8],
    ) {
        let at = frame.len() - TRAILER_BYTES;
        let fits = !directory.is_empty() && at - content_end >= directory.len();
        if fits {
            frame[at - directory.len()..at].copy_from_slice(directory);
        }
        let trailer = &mut frame[at..];
        trailer[..4].copy_from_slice(&MAGIC);
        put_u64(trailer, SALT_AT, header.salt);
        put_u64(trailer, SEQUENCE_AT, header.sequence);
        put_u32(trailer, BYTE_AT, header.position.byte);
        put_u32(trailer, RECORDS_AT, header.records);
        if fits {
            put_u32(trailer, DIRECTORY_BYTES_AT, header.directory_bytes);
            put_u32(trailer, DIRECTORY_CRC_AT, header.directory_crc);
        }
        let crc = crc32c::crc32c(&trailer[SALT_AT..]);
        put_u32(trailer, CRC_AT, crc);
    }

    /// Reads a trailer of this use of the slot from the end of `bytes`.
    pub(crate) fn read(bytes: &[u8], salt: u64) -> Option<Self> {
        let trailer = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
        if trailer[..4] != MAGIC || get_u64(trailer, SALT_AT) != salt {
            return None;
        }
        (get_u32(trailer, CRC_AT) == crc32c::crc32c(&trailer[SALT_AT..])).then(|| Self {
            sequence: get_u64(trailer, SEQUENCE_AT),
            byte: get_u32(trailer, BYTE_AT),
            records: get_u32(trailer, RECORDS_AT),
            directory_bytes: get_u32(trailer, DIRECTORY_BYTES_AT),
            directory_crc: get_u32(trailer, DIRECTORY_CRC_AT),
        })
    }

    /// The directory in the same sector, if it was put there and is intact. `sector` ends with the trailer.
    pub(crate) fn directory<'a>(&self, sector: &'a [u8]) -> Option<&'a [u8]> {
        let end = sector.len().checked_sub(TRAILER_BYTES)?;
        let start = end.checked_sub(self.directory_bytes as usize)?;
        let directory = sector.get(start..end).filter(|_| self.directory_bytes > 0)?;
        (crc32c::crc32c(directory) == self.directory_crc).then_some(directory)
    }
}

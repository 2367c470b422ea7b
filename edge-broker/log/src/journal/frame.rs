//! The header of a frame, and what a sector that should hold one says. Layout in docs/FORMAT.md.

use super::format::{
    FRAME_HEADER_BYTES, Malformed, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN, TRAILER_BYTES, VERSION,
    get_u32, get_u64, malformed, put_u32, put_u64, round_up,
};
use crate::clock::{ClockReading, ClockState};
use crate::decoded::{GroupHeader, GroupKind};
use crate::position::JournalPosition;

const MAGIC: [u8; 4] = *b"EDGF";
const CRC_AT: usize = 4;
const VERSION_AT: usize = CRC_AT + 4;
const KIND_AT: usize = VERSION_AT + 1;
const FLAGS_AT: usize = KIND_AT + 1;
const CLOCK_STATE_AT: usize = FLAGS_AT + 1;
const CODEC_AT: usize = CLOCK_STATE_AT + 1;
const SECTOR_LOG2_AT: usize = CODEC_AT + 1;
const SALT_AT: usize = SECTOR_LOG2_AT + 3;
const SEQUENCE_AT: usize = SALT_AT + 8;
const SEGMENT_AT: usize = SEQUENCE_AT + 8;
const BYTE_AT: usize = SEGMENT_AT + 8;
const RECORDS_AT: usize = BYTE_AT + 4;
const PROVEN_SEGMENT_AT: usize = RECORDS_AT + 4;
const PROVEN_BYTE_AT: usize = PROVEN_SEGMENT_AT + 8;
const PREVIOUS_DIRECTORY_BYTES_AT: usize = PROVEN_BYTE_AT + 4;
const JOURNAL_START_AT: usize = PREVIOUS_DIRECTORY_BYTES_AT + 4;
const BOOT_ID_AT: usize = JOURNAL_START_AT + 8;
const BOOTTIME_AT: usize = BOOT_ID_AT + 8;
const WALL_AT: usize = BOOTTIME_AT + 8;
const DIRECTORY_BYTES_AT: usize = WALL_AT + 8;
const BODY_STORED_BYTES_AT: usize = DIRECTORY_BYTES_AT + 4;
const BODY_BYTES_AT: usize = BODY_STORED_BYTES_AT + 4;
const RAW_BYTES_AT: usize = BODY_BYTES_AT + 4;
const PREVIOUS_DIRECTORY_CRC_AT: usize = RAW_BYTES_AT + 4;
const DIRECTORY_CRC_AT: usize = PREVIOUS_DIRECTORY_CRC_AT + 4;
const BODY_CRC_AT: usize = DIRECTORY_CRC_AT + 4;
const ZERO_AT: usize = BODY_CRC_AT + 4;
const _: () = assert!(SALT_AT == 16 && SEGMENT_AT == 32 && PROVEN_SEGMENT_AT == 48);
const _: () = assert!(BOOT_ID_AT == 72 && DIRECTORY_BYTES_AT == 96);
const _: () = assert!(ZERO_AT + 4 == FRAME_HEADER_BYTES);

/// The last frame of an orderly stop.
pub(crate) const FLAG_CLEAN_SHUTDOWN: u8 = 1;
/// The body has more than envelopes and built batches.
pub(crate) const FLAG_STATE: u8 = 2;
/// The frame ends with a trailer.
pub(crate) const FLAG_TRAILER: u8 = 4;

/// How a body is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyCodec {
    Plain,
    Zstd,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: GroupKind,
    pub(crate) flags: u8,
    pub(crate) codec: BodyCodec,
    pub(crate) sector_bytes: u32,
    pub(crate) salt: u64,
    pub(crate) sequence: u64,
    pub(crate) position: JournalPosition,
    pub(crate) records: u32,
    pub(crate) proven_end: JournalPosition,
    pub(crate) journal_start: u64,
    pub(crate) clock: ClockReading,
    pub(crate) directory_bytes: u32,
    pub(crate) directory_crc: u32,
    pub(crate) previous_directory_bytes: u32,
    pub(crate) previous_directory_crc: u32,
    pub(crate) body_stored_bytes: u32,
    pub(crate) body_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) body_crc: u32,
    /// Of the segment it stands in; not in the header, but bounds what a group can unpack to.
    pub(crate) segment_bytes: u32,
}

/// What is known of a place before its bytes are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) salt: u64,
    pub(crate) position: JournalPosition,
    /// Bytes of the segment: a frame ends inside it.
    pub(crate) segment_bytes: u32,
}

/// What a sector that may begin a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderAt {
    Frame(FrameHeader),
    /// Nothing of this use of the slot.
    Absent,
    /// It is a header of this use of the slot, but not intact.
    Damaged,
    /// It is intact, and of a newer version.
    Newer(u8),
}

impl FrameHeader {
    /// Bytes of the frame with its padding.
    pub(crate) fn frame_bytes(&self) -> u64 {
        let trailer = if self.flags & FLAG_TRAILER == 0 { 0 } else { TRAILER_BYTES as u64 };
        let content = self.content_bytes() + trailer;
        content.next_multiple_of(u64::from(self.sector_bytes))
    }

    /// Bytes of the frame without its padding.
    pub(crate) fn content_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64
            + u64::from(self.directory_bytes)
            + u64::from(self.previous_directory_bytes)
            + u64::from(self.body_stored_bytes)
            + u64::from(self.raw_bytes)
    }

    /// Where the next frame stands.
    pub(crate) fn end(&self) -> JournalPosition {
        JournalPosition {
            segment: self.position.segment,
            byte: self.position.byte + self.frame_bytes() as u32,
        }
    }

    pub(crate) fn directory_at(&self) -> usize {
        FRAME_HEADER_BYTES
    }

    pub(crate) fn previous_directory_at(&self) -> usize {
        self.directory_at() + self.directory_bytes as usize
    }

    pub(crate) fn body_at(&self) -> usize {
        self.previous_directory_at() + self.previous_directory_bytes as usize
    }

    pub(crate) fn raw_at(&self) -> usize {
        self.body_at() + self.body_stored_bytes as usize
    }

    pub(crate) fn raw_end(&self) -> usize {
        self.raw_at() + self.raw_bytes as usize
    }

    /// The part that callers see.
    pub(crate) fn group(&self) -> GroupHeader {
        GroupHeader {
            kind: self.kind,
            sequence: self.sequence,
            boot_id: self.clock.boot_id,
            boottime_us: self.clock.boottime_us,
            wall_us: self.clock.wall_us,
            clock_state: self.clock.state,
            records: self.records,
        }
    }

    /// Writes the header to the front of `frame`.
    pub(crate) fn encode(&self, frame: &mut [u8]) {
        frame[..FRAME_HEADER_BYTES].fill(0);
        frame[..4].copy_from_slice(&MAGIC);
        frame[VERSION_AT] = VERSION;
        frame[KIND_AT] = self.kind.to_byte();
        frame[FLAGS_AT] = self.flags;
        frame[CLOCK_STATE_AT] = self.clock.state.to_byte();
        frame[CODEC_AT] = match self.codec {
            BodyCodec::Plain => 0,
            BodyCodec::Zstd => 1,
        };
        frame[SECTOR_LOG2_AT] = self.sector_bytes.trailing_zeros() as u8;
        put_u64(frame, SALT_AT, self.salt);
        put_u64(frame, SEQUENCE_AT, self.sequence);
        put_u64(frame, SEGMENT_AT, self.position.segment);
        put_u32(frame, BYTE_AT, self.position.byte);
        put_u32(frame, RECORDS_AT, self.records);
        put_u64(frame, PROVEN_SEGMENT_AT, self.proven_end.segment);
        put_u32(frame, PROVEN_BYTE_AT, self.proven_end.byte);
        put_u32(frame, PREVIOUS_DIRECTORY_BYTES_AT, self.previous_directory_bytes);
        put_u64(frame, JOURNAL_START_AT, self.journal_start);
        put_u64(frame, BOOT_ID_AT, self.clock.boot_id);
        put_u64(frame, BOOTTIME_AT, self.clock.boottime_us);
        frame[WALL_AT..DIRECTORY_BYTES_AT].copy_from_slice(&self.clock.wall_us.to_le_bytes());
        put_u32(frame, DIRECTORY_BYTES_AT, self.directory_bytes);
        put_u32(frame, BODY_STORED_BYTES_AT, self.body_stored_bytes);
        put_u32(frame, BODY_BYTES_AT, self.body_bytes);
        put_u32(frame, RAW_BYTES_AT, self.raw_bytes);
        put_u32(frame, PREVIOUS_DIRECTORY_CRC_AT, self.previous_directory_crc);
        put_u32(frame, DIRECTORY_CRC_AT, self.directory_crc);
        put_u32(frame, BODY_CRC_AT, self.body_crc);
        let crc = crc32c::crc32c(&frame[VERSION_AT..FRAME_HEADER_BYTES]);
        put_u32(frame, CRC_AT, crc);
    }

    /// Judges the bytes at a place where a frame may begin.
    pub(crate) fn read(bytes: &[u8], expected: &Expected) -> HeaderAt {
        let Some(bytes) = bytes.get(..FRAME_HEADER_BYTES) else { return HeaderAt::Absent };
        let salt_matches = get_u64(bytes, SALT_AT) == expected.salt;
        let place_matches = get_u64(bytes, SEGMENT_AT) == expected.position.segment
            && get_u32(bytes, BYTE_AT) == expected.position.byte;
        let intact = bytes[..4] == MAGIC
            && get_u32(bytes, CRC_AT) == crc32c::crc32c(&bytes[VERSION_AT..FRAME_HEADER_BYTES]);
        if !intact {
            // A header of an older use of the slot has another salt and another segment sequence. Noise has
            // neither. What has one of them was our header.
            let ours = salt_matches || place_matches;
            return if ours { HeaderAt::Damaged } else { HeaderAt::Absent };
        }
        if !(salt_matches && place_matches) {
            return HeaderAt::Absent;
        }
        if bytes[VERSION_AT] > VERSION {
            return HeaderAt::Newer(bytes[VERSION_AT]);
        }
        match Self::decode(bytes, expected) {
            Ok(header) => HeaderAt::Frame(header),
            Err(_) => HeaderAt::Damaged,
        }
    }

    /// Reads whatever intact frame header stands at the front of `bytes`, of whatever use of the slot: for a
    /// segment whose own header is lost.
    pub(crate) fn read_any(bytes: &[u8], byte: u32, segment_bytes: u32) -> Option<Self> {
        let head = bytes.get(..FRAME_HEADER_BYTES)?;
        let position = JournalPosition { segment: get_u64(head, SEGMENT_AT), byte };
        let expected = Expected { salt: get_u64(head, SALT_AT), position, segment_bytes };
        match Self::read(head, &expected) {
            HeaderAt::Frame(header) => Some(header),
            _ => None,
        }
    }

    fn decode(bytes: &[u8], expected: &Expected) -> Result<Self, Malformed> {
        let sector_bytes = 1u32.checked_shl(u32::from(bytes[SECTOR_LOG2_AT])).unwrap_or(0);
        if !(SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&sector_bytes) {
            return malformed("no such sector size");
        }
        let codec = match bytes[CODEC_AT] {
            0 => BodyCodec::Plain,
            1 => BodyCodec::Zstd,
            _ => return malformed("no such codec"),
        };
        let header = Self {
            kind: GroupKind::from_byte(bytes[KIND_AT]),
            flags: bytes[FLAGS_AT],
            codec,
            sector_bytes,
            salt: expected.salt,
            sequence: get_u64(bytes, SEQUENCE_AT),
            position: expected.position,
            records: get_u32(bytes, RECORDS_AT),
            proven_end: JournalPosition {
                segment: get_u64(bytes, PROVEN_SEGMENT_AT),
                byte: get_u32(bytes, PROVEN_BYTE_AT),
            },
            journal_start: get_u64(bytes, JOURNAL_START_AT),
            clock: ClockReading {
                boot_id: get_u64(bytes, BOOT_ID_AT),
                boottime_us: get_u64(bytes, BOOTTIME_AT),
                wall_us: get_u64(bytes, WALL_AT) as i64,
                state: ClockState::from_byte(bytes[CLOCK_STATE_AT]),
                entropy: 0,
            },
            directory_bytes: get_u32(bytes, DIRECTORY_BYTES_AT),
            directory_crc: get_u32(bytes, DIRECTORY_CRC_AT),
            previous_directory_bytes: get_u32(bytes, PREVIOUS_DIRECTORY_BYTES_AT),
            previous_directory_crc: get_u32(bytes, PREVIOUS_DIRECTORY_CRC_AT),
            body_stored_bytes: get_u32(bytes, BODY_STORED_BYTES_AT),
            body_bytes: get_u32(bytes, BODY_BYTES_AT),
            raw_bytes: get_u32(bytes, RAW_BYTES_AT),
            body_crc: get_u32(bytes, BODY_CRC_AT),
            segment_bytes: expected.segment_bytes,
        };
        let end = u64::from(expected.position.byte) + header.frame_bytes();
        if end > u64::from(expected.segment_bytes) {
            return malformed("the frame ends behind its segment");
        }
        // A body is packed only if that makes it smaller, and it is never larger than a segment.
        let packed_smaller = match codec {
            BodyCodec::Plain => header.body_bytes == header.body_stored_bytes,
            BodyCodec::Zstd => header.body_bytes >= header.body_stored_bytes,
        };
        if !packed_smaller || header.body_bytes > expected.segment_bytes {
            return malformed("impossible body sizes");
        }
        Ok(header)
    }
}

/// The directories of an intact frame header, as far as they are intact themselves.
pub(crate) struct Directories<'a> {
    pub(crate) own: Option<&'a [u8]>,
    pub(crate) previous: Option<&'a [u8]>,
}

impl<'a> Directories<'a> {
    /// The frame's own directory; `frame` begins with the header and reaches at least to the directory's end.
    pub(crate) fn own(header: &FrameHeader, frame: &'a [u8]) -> Option<&'a [u8]> {
        frame
            .get(header.directory_at()..header.previous_directory_at())
            .filter(|bytes| crc32c::crc32c(bytes) == header.directory_crc)
    }

    /// `frame` begins with the header and reaches at least to the body.
    pub(crate) fn check(header: &FrameHeader, frame: &'a [u8]) -> Self {
        let part = |from: usize, to: usize, crc: u32| {
            frame.get(from..to).filter(|bytes| crc32c::crc32c(bytes) == crc)
        };
        Self {
            own: Self::own(header, frame),
            previous: part(
                header.previous_directory_at(),
                header.body_at(),
                header.previous_directory_crc,
            ),
        }
    }
}

/// Size of a frame with these parts.
pub(crate) fn frame_bytes(parts_bytes: usize, sector_bytes: u32) -> usize {
    let content = FRAME_HEADER_BYTES + parts_bytes;
    let trailer = if has_trailer(content, sector_bytes) { TRAILER_BYTES } else { 0 };
    round_up(content + trailer, sector_bytes)
}

/// Whether a frame of so many bytes before its padding ends with a trailer: wherever it takes more than 512 bytes, so
/// that less than all of it can be lost.
pub(crate) fn has_trailer(content_bytes: usize, sector_bytes: u32) -> bool {
    content_bytes > SECTOR_BYTES_MIN as usize || sector_bytes > SECTOR_BYTES_MIN
}

#[cfg(test)]
mod tests;

//! FORMAT OF A LANE ON DISK, version 1. Everything is little-endian. Do not reorder: cards out there have it.
//!
//! # Files of a lane
//!
//! ```text
//! lanes/<name>/slot-0000.seg   a segment: fixed size, written with zeros and synced before first use, then recycled
//! lanes/<name>/slot-0000.idx   side index of the sealed segment in that slot (see stream_index/side.rs); may be missing
//! lanes/<name>/slot-0000.tmp   a segment that is being zeroed; worthless
//! ```
//!
//! A slot's name says nothing of order: the header of the segment in it does.
//!
//! # Segment
//!
//! ```text
//! sector 0        segment header (segment.rs)
//! sector 1...     frame: checkpoint (written and synced together with the header)
//! then            frames, each at the start of a sector, without space between them unless a recovery
//!                 skipped a suspect tail
//! then            zeros, or what the segment before in this slot left there
//! ```
//!
//! Segments of a lane have sequences without holes; the oldest live one is named by every frame
//! (`journal_start`). A slot is given up by writing a *free* header over sector 0 (synced), before any frame of
//! its next use is written.
//!
//! # Frame
//!
//! ```text
//! +-----------+-----------+--------------------+---------------------+-------------+---------+
//! | header    | directory | previous group's   | body: zstd or plain | raw section | zeros   |
//! | 128 bytes | own CRC   | directory, own CRC | one CRC over both               | to sector |
//! +-----------+-----------+--------------------+---------------------+-------------+---------+
//! ```
//!
//! One frame is one write and one sync, and the next frame is written only after that sync succeeded. So an
//! intact frame proves every frame before it, and only the last one can be torn.
//!
//! Why this order: the header and the directory stand in the first sectors and are not compressed, so that a
//! reader that looks for one stream skips a group without unpacking it, and a group whose body is damaged still
//! says exactly which offsets are lost. The previous group's directory says the same for a group whose first
//! sector is gone.
//!
//! ## Frame header
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `EDGF` |
//! | 4 | 4 | CRC32C of bytes 8..128 |
//! | 8 | 1 | version, 1 |
//! | 9 | 1 | kind: 1 data, 2 copied, 3 gap, 4 seal, 5 checkpoint |
//! | 10 | 1 | flags: 1 clean shutdown, 2 body has state (anything beside envelopes and built batches) |
//! | 11 | 1 | clock state: 0 unknown, 1 unsynced, 2 synced |
//! | 12 | 1 | codec of the body: 0 plain, 1 zstd |
//! | 13 | 1 | log2 of the sector size |
//! | 14 | 2 | zero |
//! | 16 | 8 | salt of the segment: tells frames of this use of the slot from older ones |
//! | 24 | 8 | group sequence |
//! | 32 | 8 | segment sequence |
//! | 40 | 4 | byte position in the segment: tells a frame that was written to the wrong place |
//! | 44 | 4 | offsets covered by all batches together |
//! | 48 | 12 | proven end: segment u64, byte u32. Everything before it was synced when this frame was written |
//! | 60 | 4 | bytes of the previous group's directory |
//! | 64 | 8 | journal start: sequence of the oldest live segment |
//! | 72 | 8 | boot id |
//! | 80 | 8 | microseconds since boot |
//! | 88 | 8 | wall clock, microseconds since 1970 |
//! | 96 | 4 | bytes of the directory |
//! | 100 | 4 | bytes of the body as stored |
//! | 104 | 4 | bytes of the body unpacked |
//! | 108 | 4 | bytes of the raw section |
//! | 112 | 4 | CRC32C of the previous group's directory |
//! | 116 | 4 | CRC32C of the directory |
//! | 120 | 4 | CRC32C of stored body and raw section |
//! | 124 | 4 | zero |
//!
//! The proven end is the frame's own position, or the end of the segment before. Where it is less, a recovery
//! judged what lies between: not part of the journal, and what may have been lost with it is told by gap entries
//! of this frame. "Previous group" is the one that ends at the proven end.
//!
//! Directory: see directory.rs. Body: see entry.rs. Kinds and entry tags that this version does not know: an
//! unknown kind is skipped but its directory counts; an entry tag of 64 and above carries its length behind the
//! tag and is skipped; an unknown tag below 64 makes the group unreadable.
//!
//! # Versions
//!
//! What an older program may skip as above keeps the version. What it would misread raises it; a program refuses
//! to open a lane of a higher version and changes nothing in it, so that rolling an image back is safe.

/// Version of segments and frames.
pub(crate) const VERSION: u8 = 1;

/// Smallest sector.
pub(crate) const SECTOR_BYTES_MIN: u32 = 512;
/// Largest sector.
pub(crate) const SECTOR_BYTES_MAX: u32 = 4096;
/// Smallest segment: what simulations use. The configuration file has a higher limit.
pub(crate) const SEGMENT_BYTES_MIN: u32 = 16 << 10;
/// Largest segment.
pub(crate) const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Fewest slots of a lane: one being written, one ready, one to read from.
pub(crate) const SLOTS_MIN: u32 = 3;
/// Most slots of a lane: they have four digits.
pub(crate) const SLOTS_MAX: u32 = 10_000;
/// What a frame adds to one large batch at most: header, directories, definition, padding.
pub(crate) const BATCH_ALLOWANCE_BYTES: u32 = 2048;
/// Most offsets that one group covers. Bounds how far offsets jump past a group of which nothing is left.
pub(crate) const GROUP_OFFSETS_MAX: u32 = 1 << 20;
/// Longest topic name (Kafka's limit).
pub(crate) const TOPIC_BYTES_MAX: usize = 249;
/// zstd window of a group: no larger than the largest group of small records.
pub(crate) const ZSTD_WINDOW_LOG: u32 = 18;
/// Most gaps that are kept at hand and in checkpoints; older ones stay in the journal until it is recycled.
pub(crate) const GAPS_MAX: usize = 1024;

pub(crate) const SEGMENT_HEADER_BYTES: usize = 128;
pub(crate) const FRAME_HEADER_BYTES: usize = 128;

const _: () = assert!(SEGMENT_HEADER_BYTES <= SECTOR_BYTES_MIN as usize);
const _: () = assert!(FRAME_HEADER_BYTES <= SECTOR_BYTES_MIN as usize);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(SECTOR_BYTES_MAX));
const _: () = assert!(BATCH_ALLOWANCE_BYTES < SEGMENT_BYTES_MIN / 4);

/// Bytes are not what the format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Malformed {
    pub(crate) what: &'static str,
}

impl From<edge_wire::DecodeError> for Malformed {
    fn from(_: edge_wire::DecodeError) -> Self {
        Self { what: "an entry ends inside a value" }
    }
}

pub(crate) fn malformed<T>(what: &'static str) -> Result<T, Malformed> {
    Err(Malformed { what })
}

/// `bytes` rounded up to whole sectors.
pub(crate) fn round_up(bytes: usize, sector_bytes: u32) -> usize {
    bytes.next_multiple_of(sector_bytes as usize)
}

pub(crate) fn put_u32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Reads a field whose place lies inside `bytes` by the constants above.
pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

/// Reads a field whose place lies inside `bytes` by the constants above.
pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

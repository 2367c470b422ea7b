//! The format of a lane on disk, version 1: its constants, and how numbers are put into it.
//!
//! **docs/FORMAT.md IS THE MAP**: every byte, the reason for the order, and what other versions do with it. A test
//! (document.rs) compares its tables with the code. Do not reorder anything: cards out there have it. What is added (a
//! tag of 64 or above, a kind, a flag, a reason) goes into the document in the same change.

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
pub(crate) const TRAILER_BYTES: usize = 40;

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

//! Format (being written).

/// Largest sector.
pub const SECTOR_BYTES_MAX: u32 = 4096;
/// Smallest segment.
pub const SEGMENT_BYTES_MIN: u32 = 64 << 10;
/// Largest segment.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Fewest slots of a lane.
pub const SLOTS_MIN: u32 = 3;
/// What a frame adds to a batch at most.
pub const BATCH_ALLOWANCE_BYTES: u32 = 4096;

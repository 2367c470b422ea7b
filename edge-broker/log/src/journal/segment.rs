//! The header of a segment: sector 0 of its slot, the rest of the sector zero.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `EDGESEG1` |
//! | 8 | 4 | CRC32C of bytes 12..128 |
//! | 12 | 1 | version, 1 |
//! | 13 | 1 | use: 1 live, 2 free |
//! | 14 | 1 | log2 of the sector size |
//! | 15 | 1 | clock state |
//! | 16 | 4 | bytes of the segment |
//! | 20 | 4 | end of the frames in the segment before; 0 in the first |
//! | 24 | 8 | segment sequence, from 1; of a free slot the sequence it had |
//! | 32 | 8 | salt |
//! | 40 | 8 | group sequence of the first frame |
//! | 48 | 16 | log id: random, made with the lane |
//! | 64 | 8 | boot id |
//! | 72 | 8 | microseconds since boot |
//! | 80 | 8 | wall clock, microseconds since 1970 |
//! | 88 | 8 | FNV-1a of the lane's name: a slot copied into another lane is told |
//! | 96 | 8 | journal start when it was written |
//! | 104 | 8 | live: sequence of the segment before, 0 = its own - 1; free: the last group before it was freed, which tells what was lost with it
//! | 112 | 16 | zero |

use super::format::{
    Malformed, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN, SEGMENT_HEADER_BYTES, VERSION, get_u32, get_u64,
    malformed, put_u32, put_u64,
};
use crate::clock::{ClockReading, ClockState};

const MAGIC: [u8; 8] = *b"EDGESEG1";
const CRC_AT: usize = 8;
const VERSION_AT: usize = CRC_AT + 4;
const USE_AT: usize = VERSION_AT + 1;
const SECTOR_LOG2_AT: usize = USE_AT + 1;
const CLOCK_STATE_AT: usize = SECTOR_LOG2_AT + 1;
const SEGMENT_BYTES_AT: usize = CLOCK_STATE_AT + 1;
const PREVIOUS_END_AT: usize = SEGMENT_BYTES_AT + 4;
const SEQUENCE_AT: usize = PREVIOUS_END_AT + 4;
const SALT_AT: usize = SEQUENCE_AT + 8;
const FIRST_GROUP_AT: usize = SALT_AT + 8;
const LOG_ID_AT: usize = FIRST_GROUP_AT + 8;
const BOOT_ID_AT: usize = LOG_ID_AT + 16;
const BOOTTIME_AT: usize = BOOT_ID_AT + 8;
const WALL_AT: usize = BOOTTIME_AT + 8;
const NAME_HASH_AT: usize = WALL_AT + 8;
const JOURNAL_START_AT: usize = NAME_HASH_AT + 8;
const LINK_AT: usize = JOURNAL_START_AT + 8;
const ZERO_AT: usize = LINK_AT + 8;
const _: () = assert!(ZERO_AT == 112 && SEGMENT_HEADER_BYTES == 128);

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotUse {
    Live,
    Free,
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) slot_use: SlotUse,
    pub(crate) sector_bytes: u32,
    pub(crate) segment_bytes: u32,
    pub(crate) previous_end: u32,
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    pub(crate) first_group: u64,
    pub(crate) log_id: [u8; 16],
    pub(crate) name_hash: u64,
    pub(crate) journal_start: u64,
    /// Live: the segment before, if that is not the one before this. Free: the group that tells the loss.
    pub(crate) link: u64,
    pub(crate) clock: ClockReading,
}

/// What sector 0 of a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectorZero {
    Header(SegmentHeader),
    /// Only zeros: never used.
    Blank,
    /// A header of a newer version.
    Newer(u8),
    /// Anything else.
    Damaged,
}

impl SegmentHeader {
    /// Writes the header to the front of `sector`, which is zero.
    pub(crate) fn encode(&self, sector: &mut [u8]) {
        sector[..8].copy_from_slice(&MAGIC);
        sector[VERSION_AT] = VERSION;
        sector[USE_AT] = match self.slot_use {
            SlotUse::Live => 1,
            SlotUse::Free => 2,
        };
        sector[SECTOR_LOG2_AT] = self.sector_bytes.trailing_zeros() as u8;
        sector[CLOCK_STATE_AT] = self.clock.state.to_byte();
        put_u32(sector, SEGMENT_BYTES_AT, self.segment_bytes);
        put_u32(sector, PREVIOUS_END_AT, self.previous_end);
        put_u64(sector, SEQUENCE_AT, self.sequence);
        put_u64(sector, SALT_AT, self.salt);
        put_u64(sector, FIRST_GROUP_AT, self.first_group);
        sector[LOG_ID_AT..BOOT_ID_AT].copy_from_slice(&self.log_id);
        put_u64(sector, BOOT_ID_AT, self.clock.boot_id);
        put_u64(sector, BOOTTIME_AT, self.clock.boottime_us);
        sector[WALL_AT..NAME_HASH_AT].copy_from_slice(&self.clock.wall_us.to_le_bytes());
        put_u64(sector, NAME_HASH_AT, self.name_hash);
        put_u64(sector, JOURNAL_START_AT, self.journal_start);
        put_u64(sector, LINK_AT, self.link);
        let crc = crc32c::crc32c(&sector[VERSION_AT..SEGMENT_HEADER_BYTES]);
        put_u32(sector, CRC_AT, crc);
    }

    /// Judges sector 0 of a slot.
    pub(crate) fn read(sector: &[u8]) -> SectorZero {
        let Some(bytes) = sector.get(..SEGMENT_HEADER_BYTES) else { return SectorZero::Damaged };
        if sector.iter().all(|byte| *byte == 0) {
            return SectorZero::Blank;
        }
        let crc = crc32c::crc32c(&bytes[VERSION_AT..]);
        if bytes[..8] != MAGIC || get_u32(bytes, CRC_AT) != crc {
            return SectorZero::Damaged;
        }
        if bytes[VERSION_AT] > VERSION {
            return SectorZero::Newer(bytes[VERSION_AT]);
        }
        Self::decode(bytes).map_or(SectorZero::Damaged, SectorZero::Header)
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let sector_bytes = 1u32.checked_shl(u32::from(bytes[SECTOR_LOG2_AT])).unwrap_or(0);
        if !(SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&sector_bytes) {
            return malformed("no such sector size");
        }
        let slot_use = match bytes[USE_AT] {
            1 => SlotUse::Live,
            2 => SlotUse::Free,
            _ => return malformed("no such use of a slot"),
        };
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&bytes[LOG_ID_AT..BOOT_ID_AT]);
        let sequence = get_u64(bytes, SEQUENCE_AT);
        if sequence == 0 || sequence > u64::from(u32::MAX) {
            return malformed("no such segment sequence");
        }
        Ok(Self {
            slot_use,
            sector_bytes,
            segment_bytes: get_u32(bytes, SEGMENT_BYTES_AT),
            previous_end: get_u32(bytes, PREVIOUS_END_AT),
            sequence,
            salt: get_u64(bytes, SALT_AT),
            first_group: get_u64(bytes, FIRST_GROUP_AT),
            log_id,
            name_hash: get_u64(bytes, NAME_HASH_AT),
            journal_start: get_u64(bytes, JOURNAL_START_AT),
            link: get_u64(bytes, LINK_AT),
            clock: ClockReading {
                boot_id: get_u64(bytes, BOOT_ID_AT),
                boottime_us: get_u64(bytes, BOOTTIME_AT),
                wall_us: get_u64(bytes, WALL_AT) as i64,
                state: ClockState::from_byte(bytes[CLOCK_STATE_AT]),
                entropy: 0,
            },
        })
    }
}

/// FNV-1a, 64 bits.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A number for a salt or an id: the entropy and what it is for, mixed (splitmix64). Never zero.
pub(crate) fn mix(entropy: u64, purpose: u64) -> u64 {
    let mut z = entropy ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).max(1)
}

#[cfg(test)]
mod tests;

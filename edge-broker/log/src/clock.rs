//! Time as the log sees it: readings come in from the caller, the log has no clock of its own.
//!
//! A gateway may boot in 1970. What orders things is the offset and the journal position; a reading only
//! describes when something happened, and says how far it can be trusted.

use serde::{Deserialize, Serialize};

/// How far the wall clock of a [`ClockReading`] can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClockState {
    /// Nobody said anything about the clock.
    #[default]
    Unknown,
    /// The clock runs but was not set by a time source since boot: 1970, or the time of the last shutdown.
    Unsynced,
    /// The clock was set by NTP, GNSS or the like since boot.
    Synced,
}

/// One reading of all clocks, taken by the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReading {
    /// Identity of this boot of the machine (from `/proc/sys/kernel/random/boot_id`, folded to 64 bits).
    pub boot_id: u64,
    /// Microseconds since boot, suspend included (`CLOCK_BOOTTIME`).
    pub boottime_us: u64,
    /// Microseconds since 1970 by the wall clock.
    pub wall_us: i64,
    /// Whether the wall clock can be trusted.
    pub state: ClockState,
    /// 64 fresh random bits. Salts of recycled segments derive from it, so it must differ from reading to
    /// reading; it needs not be secret.
    pub entropy: u64,
}

impl ClockState {
    /// The byte that stands for this state on disk.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Unsynced => 1,
            Self::Synced => 2,
        }
    }

    /// The state a byte on disk stands for; what a newer program may have written is `Unknown`.
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Unsynced,
            2 => Self::Synced,
            _ => Self::Unknown,
        }
    }
}

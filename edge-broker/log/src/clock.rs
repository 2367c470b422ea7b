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

impl ClockReading {
    /// What the wall clock showed, by this reading, when the machine booted.
    #[must_use]
    pub fn base_us(&self) -> i64 {
        self.wall_us.wrapping_sub(i64::try_from(self.boottime_us).unwrap_or(i64::MAX))
    }
}

/// Most boots whose time is remembered; the one that was told first goes first.
pub const BOOTS_MAX: usize = 64;
/// A correction of less than this is none: clocks that are being set differ by that much.
const SHIFT_MS_MIN: i64 = 1_000;

/// When a boot really began, found out once its clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootClock {
    /// The boot.
    pub boot_id: u64,
    /// The time when it began, microseconds since 1970.
    pub base_us: i64,
    /// At most so much later than they say are records that were stamped in it before the clock was set, ms.
    pub shift_ms_max: i64,
}

/// The boots of which that is known. Timestamps that the gateway gave before the clock was set are corrected by it on
/// the way out; what is on disk stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootClocks {
    boots: Vec<BootClock>,
}

impl BootClocks {
    /// Adds what is known of a boot, in place of what was known of it before.
    pub fn set(&mut self, boot: BootClock) {
        match self.boots.iter_mut().find(|known| known.boot_id == boot.boot_id) {
            Some(known) => *known = boot,
            None => {
                if self.boots.len() >= BOOTS_MAX {
                    self.boots.remove(0);
                }
                self.boots.push(boot);
            }
        }
    }

    /// What is known of a boot.
    #[must_use]
    pub fn get(&self, boot_id: u64) -> Option<&BootClock> {
        self.boots.iter().find(|known| known.boot_id == boot_id)
    }

    /// All of them, the one that was told first in front.
    #[must_use]
    pub fn as_slice(&self) -> &[BootClock] {
        &self.boots
    }

    /// How much later than it says something is that was stamped in this boot with this idea of when it began, in ms;
    /// `None` if nobody knows.
    pub(crate) fn shift_ms(&self, boot_id: u64, assumed_base_us: i64) -> Option<i64> {
        let known = self.get(boot_id)?;
        let shift_ms = known.base_us.saturating_sub(assumed_base_us).div_euclid(1_000);
        Some(if shift_ms.abs() < SHIFT_MS_MIN { 0 } else { shift_ms })
    }

    /// No correction moves anything further into the future than this, ms.
    pub(crate) fn shift_ms_max(&self) -> i64 {
        self.boots.iter().map(|boot| boot.shift_ms_max).max().unwrap_or(0).max(0)
    }
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

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

/// Most boots whose time is remembered, some 24 KiB; the one that was told first goes first.
pub const BOOTS_MAX: usize = 1024;
/// Most of them in which nothing was stamped before the clock was set: they correct nothing.
const IDLE_BOOTS_MAX: usize = 64;
/// A correction of less than this is none: clocks that are being set differ by that much.
const SHIFT_MS_MIN: i64 = 1_000;

/// When a boot really began, found out once its clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootClock {
    /// The boot.
    pub boot_id: u64,
    /// The time when it began, microseconds since 1970.
    pub base_us: i64,
    /// At most so much later than they say are records that were stamped in it before the clock was set, ms. 0: there
    /// are none.
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
        if let Some(known) = self.boots.iter_mut().find(|known| known.boot_id == boot.boot_id) {
            // The beginning is known better now. What was stamped before it was known at all is no nearer to it.
            let moved_ms = boot.base_us.saturating_sub(known.base_us).div_euclid(1_000);
            let before_ms = match known.shift_ms_max {
                0 => 0,
                shift_ms => shift_ms.saturating_add(moved_ms.max(0)),
            };
            *known = BootClock { shift_ms_max: boot.shift_ms_max.max(before_ms), ..boot };
            return;
        }
        let mut idle = (0..self.boots.len()).filter(|at| self.boots[*at].shift_ms_max == 0);
        if let (Some(first), IDLE_BOOTS_MAX..) = (idle.next(), idle.count() + 1) {
            self.boots.remove(first);
        }
        if self.boots.len() >= BOOTS_MAX {
            self.boots.remove(0);
        }
        self.boots.push(boot);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(boot_id: u64, shift_ms_max: i64) -> BootClock {
        BootClock { boot_id, base_us: boot_id.cast_signed() * 1_000_000_000, shift_ms_max }
    }

    #[test]
    fn boots_that_correct_nothing_make_room_for_those_that_do() {
        let mut clocks = BootClocks::default();
        for boot_id in 0..BOOTS_MAX as u64 * 10 {
            clocks.set(boot(boot_id, if boot_id % 100 == 0 { 5 } else { 0 }));
        }
        let kept: Vec<u64> = clocks.as_slice().iter().map(|boot| boot.boot_id).collect();
        let correcting: Vec<u64> = kept.iter().copied().filter(|id| id % 100 == 0).collect();
        assert_eq!(correcting.len(), BOOTS_MAX / 10 + 1, "all of them");
        assert_eq!(kept.len() - correcting.len(), IDLE_BOOTS_MAX);
        assert_eq!(kept.last(), Some(&(BOOTS_MAX as u64 * 10 - 1)));
        for boot_id in 0..BOOTS_MAX as u64 * 2 {
            clocks.set(boot(1_000_000 + boot_id, 5));
        }
        assert_eq!(clocks.as_slice().len(), BOOTS_MAX);
        assert_eq!(clocks.as_slice()[0].boot_id, 1_000_000 + BOOTS_MAX as u64);
    }

    #[test]
    fn less_than_a_second_is_no_correction() {
        let mut clocks = BootClocks::default();
        clocks.set(boot(7, 0));
        let base_us = boot(7, 0).base_us;
        for (ms, wanted) in
            [(0, 0), (999, 0), (1_000, 1_000), (-999, 0), (-1_000, -1_000), (90_000, 90_000)]
        {
            assert_eq!(clocks.shift_ms(7, base_us - ms * 1_000), Some(wanted));
        }
        assert_eq!(clocks.shift_ms(8, base_us), None);
    }

    #[test]
    fn a_beginning_that_is_known_better_does_not_forget_how_far_records_may_be_off() {
        let mut clocks = BootClocks::default();
        clocks.set(boot(7, 900_000));
        clocks.set(BootClock { base_us: boot(7, 0).base_us + 3_000_000, ..boot(7, 0) });
        assert_eq!(clocks.get(7).map(|boot| boot.shift_ms_max), Some(903_000));
        assert_eq!(clocks.as_slice().len(), 1);
    }
}

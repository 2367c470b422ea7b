//! The time that a lane gives to records that bring none.
//!
//! All records of a group that were stamped before the clock was set share one idea of when the machine booted, and
//! the header of the group says which. So one number corrects them all once the true time of the boot is known.

use crate::clock::{ClockReading, ClockState};

/// The clock of the pending group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    /// When the machine booted, microseconds since 1970.
    base_us: i64,
    state: ClockState,
}

impl Stamp {
    pub(crate) fn new(clock: &ClockReading) -> Self {
        Self { base_us: clock.base_us(), state: clock.state }
    }

    /// Records that are stamped now are marked: nobody vouches for the time.
    pub(crate) fn is_unvouched(self) -> bool {
        self.state != ClockState::Synced
    }

    /// The time in ms when the time since boot was so much.
    pub(crate) fn wall_ms(self, boottime_us: u64) -> i64 {
        let since_boot = i64::try_from(boottime_us).unwrap_or(i64::MAX);
        self.base_us.saturating_add(since_boot).div_euclid(1_000)
    }

    /// What the header of a group says: of a group with marked records the clock that stamped them.
    pub(crate) fn header_clock(self, now: &ClockReading, has_marked: bool) -> ClockReading {
        if !has_marked {
            return *now;
        }
        let since_boot = i64::try_from(now.boottime_us).unwrap_or(i64::MAX);
        let wall_us = self.base_us.saturating_add(since_boot);
        ClockReading { wall_us, state: self.state, ..*now }
    }
}

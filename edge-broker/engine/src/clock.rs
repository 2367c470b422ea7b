//! The gateway's clocks, read in one place, and what to believe of them.
//!
//! Boot time orders events within a boot and never jumps; wall time may be anything until somebody set it. Boards
//! without a real-time clock start in 1970, or at the time of the last shutdown.
//!
//! - **Set** (`Synced`): a time daemon says so, a battery-backed clock that shows a plausible time agrees, or a clock
//!   that was not set has been moved to a time that can be. It stays set for the rest of the boot, also when the daemon has gone; a step that no one vouches for is then not followed.
//! - **Unknown**: plausible, not before the last time that was known to be good, and nobody says anything.
//! - **Not set** (`Unsynced`): before this program was written, or before the last good time. The time that is given
//!   out is then the last good one (or that of the build) and what has passed since boot. 1970 never gets out.
//!
//! When the clock is set later in the same boot, what was given out before can be corrected (`Clock::finding`).

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_log::{BootClock, BootClocks, ClockReading, ClockState};
use rustix::time::{ClockId, clock_gettime};

/// 2026-01-01T00:00:00Z in microseconds: no build of this program is older.
pub const BUILD_FLOOR_US: i64 = 1_767_225_600_000_000;
/// A clock that was set may be slewed by this much in a boot and is still the same clock.
const SLEW_US: i64 = 60_000_000;
/// The clock has to be off by this much before what is known of the boot is told anew.
const STEP_US: i64 = 2_000_000;
/// A battery-backed clock agrees if it is no further off: it counts whole seconds.
const RTC_DISTANCE_S: i64 = 5;

/// What the machine's clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawTime {
    /// Microseconds since boot, suspended time included.
    pub boottime_us: u64,
    /// The wall clock, microseconds since 1970.
    pub wall_us: i64,
    /// Somebody who should know says that the wall clock is right.
    pub is_vouched: bool,
}

/// Where time comes from. The machine's, or a test's.
pub trait ClockSource: Send + Sync {
    /// Which boot this is.
    fn boot_id(&self) -> u64;
    /// All clocks at once.
    fn now(&self) -> RawTime;
    /// Microseconds since boot alone.
    fn boottime_us(&self) -> u64 {
        self.now().boottime_us
    }
}

/// Reads clocks and decides what to believe.
pub struct Clock {
    source: Box<dyn ClockSource>,
    belief: Mutex<Belief>,
    entropy: AtomicU64,
}

/// What is known so far.
#[derive(Clone, Copy, Debug, Default)]
struct Belief {
    /// The last time that was known to be good, microseconds since 1970.
    good_us: i64,
    /// When this boot began, if the clock was set in it.
    set_base_us: Option<i64>,
    /// When this boot began as far as is assumed, since the clock was found not to be set.
    assumed_base_us: Option<i64>,
    /// The earliest that was given out as the beginning of this boot while nobody vouched for it.
    earliest_base_us: Option<i64>,
}

/// From one reading to the next: odd, so that all 2^64 values come before one comes again.
const ENTROPY_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Clock {
    /// The clocks of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::with_source(Box::new(Machine::new()))
    }

    /// Clocks of another kind.
    #[must_use]
    pub fn with_source(source: Box<dyn ClockSource>) -> Self {
        Self { source, belief: Mutex::default(), entropy: AtomicU64::new(random_u64()) }
    }

    /// Tells what is on disk: when earlier boots began, and the clock as of the last frames that were written.
    pub(crate) fn learn(&self, boots: &BootClocks, last: impl Iterator<Item = ClockReading>) {
        let boot_id = self.source.boot_id();
        let mut belief = self.belief();
        // Read before, to open the lanes, and nothing was stamped with it.
        *belief = Belief::default();
        if let Some(known) = boots.get(boot_id) {
            belief.set_base_us = Some(known.base_us);
        }
        for reading in last {
            // What was invented goes on from there, so that time does not stand still from boot to boot.
            if reading.state != ClockState::Unknown {
                belief.good_us = belief.good_us.max(reading.wall_us);
            }
            if reading.boot_id == boot_id && reading.state == ClockState::Unsynced {
                belief.assumed_base_us = Some(reading.base_us());
            }
            if reading.boot_id == boot_id && reading.state != ClockState::Synced {
                let earliest = belief.earliest_base_us.unwrap_or(i64::MAX);
                belief.earliest_base_us = Some(earliest.min(reading.base_us()));
            }
        }
    }

    /// All clocks at once. The wall clock is what is to be believed of it.
    #[must_use]
    pub fn read(&self) -> ClockReading {
        let raw = self.source.now();
        let (base_us, state) = self.belief().judge(&raw);
        ClockReading {
            boot_id: self.source.boot_id(),
            boottime_us: raw.boottime_us,
            wall_us: base_us.saturating_add(signed(raw.boottime_us)),
            state,
            entropy: self.entropy.fetch_add(ENTROPY_STEP, Ordering::Relaxed),
        }
    }

    /// Microseconds since boot. Monotonic.
    #[must_use]
    pub fn boottime_us(&self) -> u64 {
        self.source.boottime_us()
    }

    /// What has been found out about this boot and `known` does not have yet.
    pub(crate) fn finding(&self, known: &BootClocks) -> Option<BootClock> {
        let reading = self.read();
        if reading.state != ClockState::Synced {
            return None;
        }
        let base_us = reading.base_us();
        let told = known.get(reading.boot_id);
        if told.is_some_and(|told| (told.base_us - base_us).abs() < STEP_US) {
            return None;
        }
        let shift_ms_max = match self.belief().earliest_base_us {
            Some(earliest_us) => base_us.saturating_sub(earliest_us).max(0).div_euclid(1_000) + 1,
            // Nothing was stamped before.
            None => 0,
        };
        Some(BootClock { boot_id: reading.boot_id, base_us, shift_ms_max })
    }

    fn belief(&self) -> MutexGuard<'_, Belief> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Belief {
    /// When the boot began, and how far that can be trusted.
    fn judge(&mut self, raw: &RawTime) -> (i64, ClockState) {
        let base_us = raw.wall_us.saturating_sub(signed(raw.boottime_us));
        let is_plausible = raw.wall_us >= BUILD_FLOOR_US;
        if raw.is_vouched && is_plausible {
            self.set_base_us = Some(base_us);
            self.good_us = raw.wall_us;
            return (base_us, ClockState::Synced);
        }
        if let Some(set_base_us) = self.set_base_us {
            let is_slewed = base_us.saturating_sub(set_base_us).saturating_abs() <= SLEW_US;
            let base_us = if is_slewed { base_us } else { set_base_us };
            self.good_us = base_us.saturating_add(signed(raw.boottime_us));
            return (base_us, ClockState::Synced);
        }
        if self.assumed_base_us.is_some_and(|assumed_us| base_us >= assumed_us + STEP_US)
            && is_plausible
        {
            // It was behind what is assumed, and no longer is: that takes somebody who set it.
            self.set_base_us = Some(base_us);
            self.good_us = raw.wall_us;
            return (base_us, ClockState::Synced);
        }
        let is_assumed = self.assumed_base_us.is_some();
        let state = match is_plausible && raw.wall_us >= self.good_us && !is_assumed {
            true => ClockState::Unknown,
            false => ClockState::Unsynced,
        };
        let base_us = match state {
            ClockState::Unsynced => {
                *self.assumed_base_us.get_or_insert(self.good_us.max(BUILD_FLOOR_US))
            }
            _ => base_us,
        };
        let earliest_us = self.earliest_base_us.get_or_insert(base_us);
        *earliest_us = base_us.min(*earliest_us);
        (base_us, state)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("belief", &*self.belief()).finish_non_exhaustive()
    }
}

/// The clocks of this machine.
struct Machine {
    boot_id: u64,
    look: Mutex<Look>,
}

/// The last look at who vouches for the clock.
#[derive(Default)]
struct Look {
    at_us: Option<u64>,
    is_vouched: bool,
}

/// How often it is looked for: a look is some system calls.
const LOOK_EVERY_US: u64 = 1_000_000;

/// Files that are there once the clock was set: of systemd-timesyncd(8), and one for whoever sets it otherwise.
const SYNCED_MARKERS: [&str; 2] =
    ["/run/systemd/timesync/synchronized", "/run/edge-broker/clock-synced"];
/// The time of the battery-backed clock, in seconds.
const RTC: &str = "/sys/class/rtc/rtc0/since_epoch";

impl Machine {
    /// Finds out which boot this is.
    fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        let boot_id = u64::from_str_radix(&digits, 16).unwrap_or_else(|_| {
            // Without /proc the boot is named by when it was, to the second.
            let uptime = Duration::from_micros(boottime_us());
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.saturating_sub(uptime).as_secs()
        });
        Self { boot_id, look: Mutex::default() }
    }
}

impl ClockSource for Machine {
    fn boot_id(&self) -> u64 {
        self.boot_id
    }

    fn now(&self) -> RawTime {
        let (boottime_us, wall_us) = (boottime_us(), wall_us());
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if look.at_us.is_none_or(|at_us| boottime_us.saturating_sub(at_us) > LOOK_EVERY_US) {
            look.at_us = Some(boottime_us);
            look.is_vouched = SYNCED_MARKERS.iter().any(|path| Path::new(path).exists())
                || rtc_agrees(wall_us.div_euclid(1_000_000));
        }
        RawTime { boottime_us, wall_us, is_vouched: look.is_vouched }
    }

    fn boottime_us(&self) -> u64 {
        boottime_us()
    }
}

/// Whether there is a battery-backed clock that shows this time. One without a battery shows 1970 or so.
fn rtc_agrees(wall_s: i64) -> bool {
    let rtc_s = std::fs::read_to_string(RTC).ok().and_then(|text| text.trim().parse::<i64>().ok());
    rtc_s.is_some_and(|rtc_s| {
        rtc_s >= BUILD_FLOOR_US / 1_000_000 && (rtc_s - wall_s).abs() <= RTC_DISTANCE_S
    })
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// Microseconds since boot, suspended time included. Monotonic.
#[must_use]
pub fn boottime_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanos / 1_000
}

/// Microseconds since 1970 by the wall clock, negative before.
#[must_use]
pub fn wall_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    }
}

/// Milliseconds since 1970 by the wall clock, whatever it shows.
#[must_use]
pub fn wall_ms() -> i64 {
    wall_us().div_euclid(1_000)
}

/// 64 bits from the kernel; of boot time where it has none to give.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        _ => boottime_us() ^ wall_us().cast_unsigned().rotate_left(32),
    }
}

#[cfg(test)]
mod tests;

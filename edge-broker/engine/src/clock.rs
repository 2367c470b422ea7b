//! The gateway's clocks, read in one place.
//!
//! Boot time orders events within a boot and never jumps; wall time may be anything until somebody set
//! it. A wall clock before the build of this program is certainly wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_log::{ClockReading, ClockState};
use rustix::time::{ClockId, clock_gettime};

/// 2026-01-01T00:00:00Z in microseconds: no build of this program is older.
const BUILD_FLOOR_US: i64 = 1_767_225_600_000_000;

/// Reads the clocks of this machine.
#[derive(Debug)]
pub struct Clock {
    boot_id: u64,
    synced: AtomicBool,
    looked_at_us: AtomicU64,
    entropy: AtomicU64,
}

/// From one reading to the next: odd, so that all 2^64 values come before one comes again.
const ENTROPY_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How often the markers of time daemons are looked for: a look is a system call.
const LOOK_EVERY_US: u64 = 1_000_000;

impl Clock {
    /// Finds out which boot this is.
    #[must_use]
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        let boot_id = u64::from_str_radix(&digits, 16).unwrap_or_else(|_| {
            // Without /proc the boot is named by when it was, to the second.
            let uptime = Duration::from_micros(boottime_us());
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since.saturating_sub(uptime).as_secs()
        });
        Self {
            boot_id,
            synced: AtomicBool::new(false),
            looked_at_us: AtomicU64::new(0),
            entropy: AtomicU64::new(random_u64()),
        }
    }

    /// All clocks at once.
    #[must_use]
    pub fn read(&self) -> ClockReading {
        let wall_us = wall_us();
        let boottime_us = boottime_us();
        ClockReading {
            boot_id: self.boot_id,
            boottime_us,
            wall_us,
            state: self.state(wall_us, boottime_us),
            entropy: self.entropy.fetch_add(ENTROPY_STEP, Ordering::Relaxed),
        }
    }

    fn state(&self, wall_us: i64, boottime_us: u64) -> ClockState {
        if wall_us < BUILD_FLOOR_US {
            return ClockState::Unsynced;
        }
        let looked_at = self.looked_at_us.load(Ordering::Relaxed);
        if looked_at == 0 || boottime_us.saturating_sub(looked_at) > LOOK_EVERY_US {
            let synced = SYNCED_MARKERS.iter().any(|path| std::path::Path::new(path).exists());
            self.synced.store(synced, Ordering::Relaxed);
            self.looked_at_us.store(boottime_us, Ordering::Relaxed);
        }
        if self.synced.load(Ordering::Relaxed) { ClockState::Synced } else { ClockState::Unknown }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
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

/// Milliseconds since 1970 by the wall clock: what records are stamped with.
#[must_use]
pub fn wall_ms() -> i64 {
    wall_us().div_euclid(1_000)
}

/// Files that time daemons make once they have set the clock (systemd-timesyncd(8)).
const SYNCED_MARKERS: [&str; 1] = ["/run/systemd/timesync/synchronized"];

/// 64 bits from the kernel; of boot time where it has none to give.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        _ => boottime_us() ^ wall_us().cast_unsigned().rotate_left(32),
    }
}

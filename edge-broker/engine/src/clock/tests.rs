use std::sync::Arc;

use super::*;

const SECOND_US: i64 = 1_000_000;
const NOW_US: i64 = BUILD_FLOOR_US + 300 * 86_400 * SECOND_US;

/// A clock that shows what it is told.
#[derive(Clone)]
struct Told(Arc<Mutex<RawTime>>);

impl ClockSource for Told {
    fn boot_id(&self) -> u64 {
        7
    }

    fn now(&self) -> RawTime {
        *self.0.lock().unwrap()
    }
}

struct Rig {
    clock: Clock,
    told: Told,
}

impl Rig {
    fn new(good_us: Option<i64>) -> Self {
        let time = RawTime { boottime_us: 0, wall_us: 0, is_vouched: false };
        let told = Told(Arc::new(Mutex::new(time)));
        let clock = Clock::with_source(Box::new(told.clone()));
        let last = good_us.map(|wall_us| ClockReading {
            boot_id: 6,
            wall_us,
            state: ClockState::Synced,
            ..ClockReading::default()
        });
        clock.learn(&BootClocks::default(), last.into_iter());
        Self { clock, told }
    }

    /// What is believed `seconds` after boot.
    fn at(&self, seconds: i64, wall_us: i64, is_vouched: bool) -> (i64, ClockState) {
        let boottime_us = (seconds * SECOND_US).cast_unsigned();
        *self.told.0.lock().unwrap() = RawTime { boottime_us, wall_us, is_vouched };
        let reading = self.clock.read();
        (reading.wall_us, reading.state)
    }
}

#[test]
fn a_clock_of_1970_gives_the_build_or_the_last_good_time_and_what_has_passed() {
    let rig = Rig::new(None);
    let expected = (BUILD_FLOOR_US + 5 * SECOND_US, ClockState::Unsynced);
    assert_eq!(rig.at(5, 5 * SECOND_US, false), expected);
    assert_eq!(rig.at(5, 5 * SECOND_US, true), expected, "nobody can vouch for 1970");
    let rig = Rig::new(Some(NOW_US));
    let expected = (NOW_US + 5 * SECOND_US, ClockState::Unsynced);
    assert_eq!(rig.at(5, 5 * SECOND_US, false), expected);
    // Whoever moves it from there to a time that can be has set it.
    assert_eq!(
        rig.at(6, NOW_US + SECOND_US, false),
        (NOW_US + 6 * SECOND_US, ClockState::Unsynced)
    );
    let later = NOW_US + 3_600 * SECOND_US;
    assert_eq!(rig.at(7, later, false), (later, ClockState::Synced));
    // An hour behind the last good time, as fake-hwclock leaves it.
    let rig = Rig::new(Some(NOW_US));
    assert_eq!(rig.at(5, NOW_US - 3_600 * SECOND_US, false), expected);
}

#[test]
fn a_plausible_clock_is_taken_until_somebody_knows_better() {
    let rig = Rig::new(Some(NOW_US));
    assert_eq!(rig.at(1, NOW_US + 1, false), (NOW_US + 1, ClockState::Unknown));
    assert!(rig.clock.finding(&BootClocks::default()).is_none());
    let later = NOW_US + 900 * SECOND_US;
    assert_eq!(rig.at(2, later, true), (later, ClockState::Synced));
    let found = rig.clock.finding(&BootClocks::default()).unwrap();
    assert_eq!((found.boot_id, found.base_us), (7, later - 2 * SECOND_US));
    assert!((899_000..=900_000).contains(&found.shift_ms_max), "{found:?}");
    let mut known = BootClocks::default();
    known.set(found);
    assert!(rig.clock.finding(&known).is_none(), "told once");
}

#[test]
fn once_set_the_clock_is_not_moved_by_steps_that_nobody_vouches_for() {
    let rig = Rig::new(None);
    assert_eq!(rig.at(10, NOW_US, true).1, ClockState::Synced);
    let year = 365 * 86_400 * SECOND_US;
    for (seconds, wall_us) in [(11, 5), (12, NOW_US + 10 * year), (13, NOW_US - year)] {
        let expected = NOW_US + (seconds - 10) * SECOND_US;
        assert_eq!(rig.at(seconds, wall_us, false), (expected, ClockState::Synced));
    }
    // A second of slewing is followed.
    let slewed = NOW_US + 21 * SECOND_US;
    assert_eq!(rig.at(30, slewed, false), (slewed, ClockState::Synced));
    // Who vouches is followed wherever the step goes.
    assert_eq!(rig.at(31, NOW_US + year, true), (NOW_US + year, ClockState::Synced));
}

#[test]
fn a_program_that_starts_again_goes_on_where_it_was() {
    let first = Rig::new(Some(NOW_US));
    first.at(100, 100 * SECOND_US, false);
    let last = first.clock.read();
    let second = Rig::new(None);
    second.clock.learn(&BootClocks::default(), [last].into_iter());
    let expected = (NOW_US + 200 * SECOND_US, ClockState::Unsynced);
    assert_eq!(second.at(200, 200 * SECOND_US, false), expected);

    // Set in this boot, by an earlier run of the program.
    let mut boots = BootClocks::default();
    let base_us = NOW_US - 60 * SECOND_US;
    boots.set(BootClock { boot_id: 7, base_us, shift_ms_max: 1 });
    let third = Rig::new(None);
    third.clock.learn(&boots, std::iter::empty());
    assert_eq!(third.at(60, 5, false), (NOW_US, ClockState::Synced));
}

#[test]
fn the_machine_has_a_clock_that_runs() {
    let clock = Clock::new();
    let (first, second) = (clock.read(), clock.read());
    assert!(first.wall_us >= BUILD_FLOOR_US && second.boottime_us >= first.boottime_us);
    assert_eq!(first.boot_id, second.boot_id);
    assert_ne!(first.entropy, second.entropy);
}

//! A share of the proofs of `tests/log-proofs`, so that the crate's own tests notice what these notice: one test for each
//! load and proof, quick enough for every run. The whole proofs take minutes and are run beside the tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use log_proofs::{cases, crash, iofault, rot};

/// Distinct disks after a power cut, of each load.
const IMAGES: u64 = 800;
/// One in so many of a load's cases, so that the images are spread over all of it.
const THIN: u64 = 24;
/// Damaged disks, of each load.
const INJECTIONS: u64 = 480;
/// Failing calls that strike, of each seed.
const FAULTS: u64 = 160;

fn power_cuts(load: &'static str) {
    let options = crash::Options {
        images: IMAGES,
        doubles: IMAGES / 4,
        seed: 11,
        time: Duration::from_secs(3600),
        threads: 1,
        failures_max: 1,
        thin: THIN,
        load: Some(load),
    };
    let report = crash::run(&options);
    assert_eq!(report.failures, []);
    assert!(report.distinct_images() >= IMAGES);
}

fn rot_of(load: &'static str) {
    let options = rot::Options {
        injections: INJECTIONS,
        seed: 11,
        threads: 1,
        failures_max: 1,
        load: Some(load),
    };
    let report = rot::run(&options);
    assert_eq!(report.failures, []);
    assert!(report.sum().named > 0);
}

fn failing_calls(seed: u64) {
    let dir = std::env::temp_dir().join(format!("log-faults-{}-{seed}", std::process::id()));
    let options = iofault::Options { injections: FAULTS, seed, threads: 1, failures_max: 1 };
    let report = iofault::run(&options, &dir);
    // Leftovers in a scratch folder harm nobody.
    let _ = std::fs::remove_dir_all(&dir);
    assert_eq!(report.failures, []);
}

/// Replays the cases of a load that failed once.
fn failed_once(load: &str) {
    let of_load = |case: &&&str| case.split(':').next() == Some(load);
    for case in cases::CUTS.iter().filter(of_load) {
        assert_eq!(crash::replay(&case.parse().unwrap()), Ok(()), "{case}");
    }
    for case in cases::ROTS.iter().filter(of_load) {
        assert_eq!(rot::replay(case), Ok(()), "{case}");
    }
}

macro_rules! of_each_load {
    ($($module:ident $load:literal)*) => {
        $(mod $module {
            #[test]
            fn power_cuts_lose_nothing_that_was_acknowledged() {
                super::power_cuts($load);
            }

            #[test]
            fn rot_costs_what_it_hits_and_is_named() {
                super::rot_of($load);
            }

            #[test]
            fn what_failed_once_holds() {
                super::failed_once($load);
            }
        })*
    };
}

of_each_load! {
    ring "ring"
    packed "packed"
    uplink "uplink"
    drop_oldest "drop-oldest"
    topics "topics"
    restarts "restarts"
    growing "growing"
    tiny_groups "tiny-groups"
    large_sectors "large-sectors"
}

#[test]
fn failing_calls_lose_nothing() {
    failing_calls(11);
}

#[test]
fn more_failing_calls_lose_nothing() {
    failing_calls(12);
}

#[test]
fn what_a_failing_call_cost_once_it_costs_no_more() {
    for case in cases::FAULTS {
        assert_eq!(iofault::replay(case), Ok(()), "{case}");
    }
}

//! A share of the proofs, small enough for every run of the tests, and the cases that failed once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use log_proofs::{cases, crash, iofault, rot};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let options = crash::Options {
        images: 20_000,
        doubles: 2_500,
        seed: 7,
        time: HOUR,
        threads: 2,
        failures_max: 1,
        thin: 12,
        load: None,
    };
    let report = crash::run(&options);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.distinct_images() >= options.images);
}

#[test]
fn rot_costs_what_it_hits_and_is_named() {
    let options =
        rot::Options { injections: 2_000, seed: 7, threads: 2, failures_max: 1, load: None };
    let report = rot::run(&options);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.sum().named > 1_000);
}

#[test]
fn failing_calls_lose_nothing_and_the_lane_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = iofault::Options { injections: 400, seed: 7, threads: 2, failures_max: 1 };
    let report = iofault::run(&options, dir.path());
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn what_failed_once_holds() {
    for case in cases::CUTS {
        assert_eq!(crash::replay(&case.parse().unwrap()), Ok(()), "{case}");
    }
    for case in cases::ROTS {
        assert_eq!(rot::replay(case), Ok(()), "{case}");
    }
    for case in cases::FAULTS {
        assert_eq!(iofault::replay(case), Ok(()), "{case}");
    }
}

//! The short form of `cargo xtask powercut`. Without root and `/dev/fuse` it is left out, and says so.

use std::io::Write as _;

use anyhow::Result;
use powercut::campaign::{self, Plan};
use powercut::fuse;
use powercut::variation::CARELESS;

/// Straight to the terminal: the test runner keeps what a passing test prints to itself.
#[test]
fn left_out_power_cuts_are_told_in_one_line() {
    if let Err(reason) = fuse::possible() {
        let line = format!("left out: power cuts on a file system of our own: {reason}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
    }
}

#[test]
fn acknowledged_records_survive_power_cuts_and_rot_is_named() -> Result<()> {
    if fuse::possible().is_err() {
        return Ok(());
    }
    let outcome = campaign::run(&Plan { cycles: 6, rot_cycles: 2, ..Plan::default() }, |_| ())?;
    assert_eq!((outcome.cuts.cycles, outcome.rot.cycles), (6, 2), "{}", outcome.table);
    assert!(outcome.cuts.acked > 4_000, "{}", outcome.table);
    Ok(())
}

#[test]
fn a_gateway_that_acknowledges_before_the_sync_is_found_out() -> Result<()> {
    if fuse::possible().is_err() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let plan = Plan { keep: folder.path().to_owned(), ..Plan::default() };
    let error = campaign::run_one(&plan, &CARELESS, 10).expect_err("it loses what it acknowledged");
    let told = format!("{error:#}");
    // Gone without a word, or told as lost by the gateway itself: by where the cut came.
    let losses = ["acknowledged and gone", "is gone", "acknowledged records are lost"];
    assert!(losses.iter().any(|loss| told.contains(loss)), "{told}");
    let kept = std::fs::read_dir(folder.path())?.count();
    assert_eq!(kept, 1, "the files of the failure are kept");
    Ok(())
}

//! A disk that fails: at every operation, in every way. Nothing is acknowledged that is not durable, nothing that
//! was acknowledged is lost, and the lane comes back when the disk does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crate::common::{Model, Random, Rig, STREAMS, check_after_crash, records};
use edge_log::storage::{CrashPolicy, Fault, FaultKind, SimOperation, SimStorage};
use edge_log::{CommitError, Lane, LaneConfig, LaneState, OpenError};
use edge_wire::StreamId;

const OPERATIONS: [SimOperation; 8] = [
    SimOperation::Create,
    SimOperation::Open,
    SimOperation::Read,
    SimOperation::Write,
    SimOperation::Sync,
    SimOperation::Rename,
    SimOperation::Remove,
    SimOperation::SyncDir,
];

fn starts(rig: &Rig) -> Vec<u64> {
    let reader = rig.lane.reader();
    (0..STREAMS).map(|stream| reader.bounds(StreamId(stream)).unwrap().log_start.0).collect()
}

/// Runs a load with a fault on its way. Returns whether it struck.
fn run(seed: u64, fault: Fault) -> bool {
    let storage = SimStorage::new(seed);
    let mut random = Random(seed);
    let mut model = Model::default();
    let mut rig = Rig::open(&storage, 1);
    for _ in 0..20 {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    storage.inject(fault);
    let mut struck = false;
    for _ in 0..60 {
        if rig.lane.state() == LaneState::Poisoned {
            // By a housekeeping frame.
            break;
        }
        rig.append_group(&mut random, &mut model);
        match rig.commit() {
            Ok(()) => rig.acknowledge(&mut model),
            Err(CommitError::Full) => {
                // No segment could be prepared. The group waits, and goes in when the disk is well.
                struck = true;
                storage.heal();
                rig.commit().unwrap();
                rig.acknowledge(&mut model);
            }
            Err(CommitError::Poisoned { .. }) => {
                struck = true;
                assert_eq!(rig.lane.state(), LaneState::Poisoned);
                assert!(rig.commit().is_err(), "a poisoned lane stays so");
                break;
            }
            Err(error) => panic!("{error}"),
        }
        loop {
            match rig.lane.maintain(&crate::common::clock(rig.tick), rig.tick << 20) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    struck = true;
                    break;
                }
            }
        }
    }
    storage.heal();
    let log_starts = starts(&rig);
    // Whoever opens it again, in this process or after a power cut, finds all that was acknowledged.
    let image = storage.crash_image(CrashPolicy::DropAll, seed);
    check_after_crash(&image, &model, &log_starts, 1 << 40);
    let mut again = check_after_crash(&storage, &model, &log_starts, 1 << 41);
    for _ in 0..20 {
        let envelope = std::sync::Arc::new(edge_wire::Envelope::new(None, &[]));
        let envelope = again.lane.envelope(&envelope);
        let offset = again.lane.append_record(StreamId(1), envelope, 1, Some(b"again")).unwrap();
        again.commit().unwrap();
        again.maintain();
        let found = records(&again.lane.reader(), 1);
        assert_eq!(found.last(), Some(&(offset.0, b"again".to_vec())));
    }
    struck
}

#[test]
fn no_fault_loses_what_was_acknowledged() {
    let mut struck = 0;
    for operation in OPERATIONS {
        for kind in [FaultKind::Device, FaultKind::NoSpace] {
            let step = if crate::common::scale() > 1 { 1 } else { 4 };
            for after in (0..24).step_by(step).chain((24..120).step_by(step * 6)) {
                for sticky in [false, true] {
                    let fault = Fault { operation, after, kind, sticky };
                    let seed = after * 7 + u64::from(sticky);
                    let ran = std::panic::catch_unwind(|| run(seed, fault));
                    struck += u32::from(ran.unwrap_or_else(|_| panic!("{fault:?}, seed {seed}")));
                }
            }
        }
    }
    // A single write that fails is not noticed: the group goes into the next segment.
    assert!(struck > 80, "{struck} faults struck");
}

#[test]
fn a_lane_opens_whatever_fails_or_says_why() {
    let storage = SimStorage::new(3);
    let mut random = Random(3);
    let mut model = Model::default();
    let mut rig = Rig::open(&storage, 1);
    for _ in 0..100 {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    let log_starts = starts(&rig);
    for operation in OPERATIONS {
        for after in (0..40).step_by(3) {
            let image = storage.crash_image(CrashPolicy::KeepAll, 0);
            image.inject(Fault { operation, after, kind: FaultKind::Device, sticky: false });
            let opened = Lane::open(
                std::sync::Arc::new(image.clone()),
                crate::common::DIR,
                crate::common::config(),
                &crate::common::clock(9),
            );
            match opened {
                Ok(_) => {}
                Err(OpenError::Io { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            // And when the disk is well again nothing is missing.
            image.heal();
            check_after_crash(&image, &model, &log_starts, 1 << 40);
        }
    }
}

#[test]
fn a_full_disk_stops_growth_and_nothing_else() {
    // Room for three segments of the five that the budget allows.
    let storage = SimStorage::new(4);
    storage.set_free_bytes((4 << 20) + (48 << 10));
    let mut random = Random(4);
    let mut model = Model::default();
    let mut rig = Rig::open(&storage, 1);
    for _ in 0..200 {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    let stats = rig.lane.reader().stats();
    assert!(stats.segments_recycled > 5, "{stats:?}");
    assert!(stats.used_bytes < 80 << 10, "{stats:?}");
    let log_starts = starts(&rig);
    // A start on a disk that is full to the last byte.
    let image = storage.crash_image(CrashPolicy::DropAll, 0);
    image.set_free_bytes(0);
    let again = check_after_crash(&image, &model, &log_starts, 1 << 40);
    crate::common::check_goes_on(again, &image, 1);
}

#[test]
fn a_disk_without_room_for_the_first_segment_refuses_until_there_is_some() {
    let storage = SimStorage::new(4);
    storage.set_free_bytes(1000);
    let mut model = Model::default();
    let mut rig = Rig::open_with(&storage, 1, LaneConfig::default());
    rig.append_group(&mut Random(1), &mut model);
    assert!(matches!(rig.commit(), Err(CommitError::Full)));
    storage.set_free_bytes(1 << 30);
    rig.commit().unwrap();
    rig.acknowledge(&mut model);
    assert!(model.streams.values().any(|known| known.acked > 0));
}

//! Power cuts at every operation: what was acknowledged is there, once and in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{Arc, Mutex};

use crate::common::{DIR, Model, Random, Rig, STREAMS, check_after_crash, check_goes_on};
use edge_log::LaneReader;
use edge_log::storage::{CrashPolicy, SimOperation, SimStorage};
use edge_wire::StreamId;

/// Upper bounds of log starts: what is below may have been given up.
fn log_starts(reader: &LaneReader) -> Vec<u64> {
    (0..STREAMS)
        .map(|stream| reader.bounds(StreamId(stream)).map_or(0, |bounds| bounds.log_start.0))
        .collect()
}

/// Runs a load of `groups` and looks at the disk before every operation.
fn enumerate(seed: u64, groups: u64, images_each: u64, second_crash: bool) -> u64 {
    let storage = SimStorage::new(seed);
    let mut random = Random(seed);
    let mut rig = Rig::open(&storage, seed << 32);
    let model = Arc::new(Mutex::new(Model::default()));
    let count = Arc::new(Mutex::new(0u64));
    let (seen, counted) = (Arc::clone(&model), Arc::clone(&count));
    let reader = rig.lane.reader();
    storage.on_operation(Box::new(move |_: SimOperation, storage: &SimStorage| {
        let model = seen.lock().unwrap().clone();
        let starts = log_starts(&reader);
        let mut count = counted.lock().unwrap();
        for image in 0..images_each {
            let policy = CrashPolicy::ALL[(*count % CrashPolicy::ALL.len() as u64) as usize];
            let seed = seed ^ *count << 8 ^ image;
            *count += 1;
            let image = storage.crash_image(policy, seed);
            let rig = check_after_crash(&image, &model, &starts, *count << 20);
            if second_crash {
                crash_again(rig, &image, seed);
            } else {
                check_goes_on(rig, &image, seed);
            }
        }
    }));
    for _ in 0..groups {
        rig.append_group(&mut random, &mut model.lock().unwrap());
        rig.commit().unwrap();
        rig.acknowledge(&mut model.lock().unwrap());
        rig.maintain();
        if random.below(9) == 0 {
            let clean = random.below(2) == 0;
            rig.lane.seal(&crate::common::clock(rig.tick), clean).unwrap();
        }
    }
    let count = *count.lock().unwrap();
    assert!(rig.lane.reader().stats().segments_recycled > 0, "the ring went round");
    count
}

/// The power goes again at any operation of what follows: what recovery adopted was served, so it stays.
fn crash_again(mut rig: Rig, image: &SimStorage, seed: u64) {
    let reader = rig.lane.reader();
    let adopted: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let end = reader.bounds(StreamId(stream)).unwrap().durable_end.0;
            (end, crate::common::records(&reader, stream))
        })
        .collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let images = Arc::clone(&seen);
    let mut random = Random(seed);
    image.on_operation(Box::new(move |_, storage: &SimStorage| {
        let policy = CrashPolicy::ALL[random.below(CrashPolicy::ALL.len() as u64) as usize];
        images.lock().unwrap().push(storage.crash_image(policy, random.next()));
    }));
    let envelope = Arc::new(edge_wire::Envelope::new(None, &[]));
    for stream in 0..STREAMS {
        let envelope = rig.lane.envelope(&envelope);
        let value = seed.to_le_bytes();
        rig.lane.append_record(StreamId(stream), envelope, 1, Some(&value)).unwrap();
    }
    rig.commit().unwrap();
    for image in seen.lock().unwrap().iter() {
        let second = Rig::open(image, rig.tick + 77);
        let reader = second.lane.reader();
        for (stream, (end, expected)) in (0..STREAMS).zip(&adopted) {
            let bounds = reader.bounds(StreamId(stream)).unwrap();
            assert!(bounds.log_start.0 <= *end);
            assert!(bounds.durable_end.0 >= *end, "an offset could be given out twice");
            let found = crate::common::records(&reader, stream);
            for record in expected.iter().filter(|(at, _)| *at >= bounds.log_start.0) {
                assert!(found.contains(record), "stream {stream}: {} is lost", record.0);
            }
        }
    }
}

#[test]
fn acknowledged_records_survive_a_power_cut_at_any_operation() {
    let mut images = 0;
    for seed in 1..=2 * crate::common::scale() {
        images += enumerate(seed, 100, 3, false);
    }
    assert!(images > 1500, "{images} images");
}

#[test]
fn a_power_cut_during_what_follows_a_power_cut_loses_nothing() {
    for seed in 11..11 + crate::common::scale() {
        assert!(enumerate(seed, 75, 2, true) > 300);
    }
}

#[test]
fn a_killed_process_loses_nothing_and_leaves_no_gap() {
    let storage = SimStorage::new(5);
    let mut random = Random(5);
    let mut model = Model::default();
    let mut rig = Rig::open(&storage, 1);
    for round in 0..60 {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        let starts = log_starts(&rig.lane.reader());
        let image = storage.crash_image(CrashPolicy::KeepAll, round);
        let again = check_after_crash(&image, &model, &starts, 1000 + round);
        assert!(again.recovery.gaps.is_empty());
        assert_eq!(again.recovery.suspect_tail, None);
    }
}

#[test]
fn what_recovery_adopts_is_durable_before_it_is_served() {
    let storage = SimStorage::new(8);
    let mut random = Random(8);
    let mut model = Model::default();
    let mut rig = Rig::open(&storage, 1);
    let images = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&images);
    storage.on_operation(Box::new(move |operation, storage: &SimStorage| {
        if operation == SimOperation::Sync {
            taken.lock().unwrap().push(storage.kill_image());
        }
    }));
    for _ in 0..40 {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    let mut adopted_some = false;
    for (index, image) in images.lock().unwrap().iter().enumerate() {
        let unsynced = image.crash_image(CrashPolicy::DropAll, 0);
        let before = Rig::open(&unsynced, 500).recovery.end;
        let opened = Rig::open(image, 1000 + index as u64);
        adopted_some |= opened.recovery.end > before;
        // The power goes before anything else is written.
        let after = Rig::open(&image.crash_image(CrashPolicy::DropAll, 1), 5000);
        assert_eq!(after.recovery.streams, opened.recovery.streams);
    }
    assert!(adopted_some);
}

#[test]
fn a_lane_directory_is_where_it_was_made() {
    let storage = SimStorage::new(1);
    let mut rig = Rig::open(&storage, 1);
    let mut model = Model::default();
    rig.append_group(&mut Random(1), &mut model);
    rig.commit().unwrap();
    assert!(storage.files().iter().all(|(path, _)| path.starts_with(DIR)));
}

//! The replicator against a hostile network, by seed: cuts, crashes, lost answers, moving leaders.
//!
//! Checked in every run: nothing is missing, every stream keeps its order, retention is never told too early, and
//! as long as the broker keeps its producer state every record is there exactly once. A failing seed is printed.

#[path = "sim/broker.rs"]
mod broker;
#[path = "sim/gateway.rs"]
mod gateway;

use std::panic::{AssertUnwindSafe, catch_unwind};

use broker::{Broker, Seen};
use edge_wire::{Offset, StreamId};
use gateway::{Disk, Faults, Gateway, Rng, SEGMENT_GROUPS, config, run};
use uplink_core::replicator::ReplicatorConfig;

const TOPICS: &[(&str, u32)] = &[("telemetry", 3), ("alarm", 1), ("vehicle", 2)];

fn by_seed(seeds: u64, test: impl Fn(u64)) {
    // SIM_SEED=n runs one seed alone, SIM_TIMES=n runs n times as many.
    let times = std::env::var("SIM_TIMES").ok().and_then(|times| times.parse::<u64>().ok());
    let seeds = seeds * times.unwrap_or(1);
    let only = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in only.map_or(1..=seeds, |seed| seed..=seed) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// What the upstream has of a stream, over all partitions; the stream lives in one of them.
fn upstream(broker: &Broker, stream: usize) -> Vec<Seen> {
    let all = broker.topics.values().flatten().flat_map(|partition| &partition.records);
    all.filter(|(id, _)| *id as usize == stream).copied().collect()
}

fn assert_exactly_once(disk: &Disk, broker: &Broker) {
    for stream in 0..disk.streams.len() {
        assert_eq!(upstream(broker, stream), disk.expected(stream), "stream {stream}");
    }
}

#[test]
fn every_record_arrives_exactly_once_and_in_order_whatever_breaks() {
    let faults = Faults {
        cut: 3,
        crash: 2,
        leader_moves: 10,
        late_timeout: 10,
        persist_fails: 10,
        forget_producers: 0,
    };
    by_seed(300, |seed| {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut disk = Disk::new(TOPICS);
        disk.fill(80, &mut rng);
        let mut broker = Broker::new();
        // Sometimes the upstream has fewer partitions than the gateway.
        if seed % 3 == 0 {
            broker.create("telemetry", 2);
        }
        let config = config([120, 400, 4000][(seed % 3) as usize]);
        let gateway = run(&mut disk, &mut broker, &config, &mut rng, faults, 2500);
        assert_exactly_once(&disk, &broker);
        let totals = gateway.replicator.status().totals;
        assert_eq!(
            (totals.possible_duplicates, totals.skipped_records, totals.gap_offsets),
            (0, 0, 0)
        );
    });
}

/// An uplink that begins when much of what was written stands in copies only, with holes where cleaning went.
#[test]
fn what_stands_in_copies_goes_first_exactly_once_whatever_breaks() {
    let faults = Faults {
        cut: 3,
        crash: 2,
        leader_moves: 10,
        late_timeout: 10,
        persist_fails: 10,
        forget_producers: 0,
    };
    by_seed(300, |seed| {
        let mut rng = Rng(seed.wrapping_mul(0xa076_1d64_78bd_642f));
        let mut disk = Disk::new(TOPICS);
        disk.copy_beginnings(&mut rng);
        disk.fill(40, &mut rng);
        let mut broker = Broker::new();
        if seed % 3 == 0 {
            broker.create("telemetry", 2);
        }
        let config = config([120, 400, 4000][(seed % 3) as usize]);
        let gateway = run(&mut disk, &mut broker, &config, &mut rng, faults, 2500);
        let totals = gateway.replicator.status().totals;
        assert_exactly_once(&disk, &broker);
        assert_eq!(
            (totals.possible_duplicates, totals.skipped_records, totals.gap_offsets),
            (0, 0, 0)
        );
    });
}

#[test]
fn a_copy_that_is_too_large_is_passed_by_and_named_under_its_own_offset() {
    by_seed(60, |seed| {
        let mut rng = Rng(seed.wrapping_mul(0xe703_7ed1_a0b4_28db));
        let mut disk = Disk::new(&[("t", 2)]);
        disk.copy_beginnings(&mut rng);
        disk.fill(20, &mut rng);
        for stream in 0..2 {
            let mut all = disk.expected(stream).into_iter().step_by(7);
            disk.large.extend(all.nth(2).map(|(id, offset)| (StreamId(id), offset)));
        }
        let mut broker = Broker::new();
        broker.value_bytes_max = Some(1000);
        let faults = Faults { cut: 2, leader_moves: 5, late_timeout: 5, ..Faults::default() };
        let gateway = run(&mut disk, &mut broker, &config(4000), &mut rng, faults, 1000);
        for stream in 0..2 {
            let mut expected = disk.expected(stream);
            expected.retain(|(id, offset)| !disk.large.contains(&(StreamId(*id), *offset)));
            assert_eq!(upstream(&broker, stream), expected);
        }
        let status = gateway.replicator.status();
        assert_eq!((status.totals.skipped_records, status.totals.gap_offsets), (2, 0));
        let mut named: Vec<_> =
            status.skipped.iter().map(|range| (range.stream, range.from.0)).collect();
        named.sort();
        assert_eq!(named, disk.large);
    });
}

#[test]
fn a_crash_at_any_step_among_copies_loses_nothing_and_repeats_nothing() {
    for crash_at in 0..1_500 {
        let mut rng = Rng(78);
        let mut disk = Disk::new(TOPICS);
        disk.copy_beginnings(&mut rng);
        disk.fill(15, &mut rng);
        let mut broker = Broker::new();
        let config = config(150);
        let mut gateway = Gateway::start(&disk, &config, 0, 1);
        let mut is_done = false;
        for _ in 0..crash_at {
            assert!(gateway.step(&mut disk, &mut broker, &mut rng, Faults::default()));
            is_done |= gateway.is_done(&disk);
        }
        let crash = Faults { crash: 100, ..Faults::default() };
        assert!(!gateway.step(&mut disk, &mut broker, &mut rng, crash));
        run(&mut disk, &mut broker, &config, &mut rng, Faults::default(), 0);
        assert_exactly_once(&disk, &broker);
        if is_done {
            return;
        }
    }
    panic!("the run is longer than the crash points tried");
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_repeats_nothing() {
    for crash_at in 0..900 {
        let mut rng = Rng(77);
        let mut disk = Disk::new(TOPICS);
        disk.fill(25, &mut rng);
        let mut broker = Broker::new();
        let config = config(150);
        let mut gateway = Gateway::start(&disk, &config, 0, 1);
        let mut is_done = false;
        for _ in 0..crash_at {
            assert!(gateway.step(&mut disk, &mut broker, &mut rng, Faults::default()));
            is_done |= gateway.is_done(&disk);
        }
        let crash = Faults { crash: 100, ..Faults::default() };
        assert!(!gateway.step(&mut disk, &mut broker, &mut rng, crash));
        run(&mut disk, &mut broker, &config, &mut rng, Faults::default(), 0);
        assert_exactly_once(&disk, &broker);
        if is_done {
            return;
        }
    }
    panic!("the run is longer than the crash points tried");
}

#[test]
fn when_the_broker_forgets_its_producers_nothing_is_missing_and_repeats_are_counted() {
    let faults = Faults {
        cut: 4,
        crash: 0,
        leader_moves: 5,
        late_timeout: 10,
        persist_fails: 0,
        forget_producers: 1,
    };
    let repeats_seen = std::cell::Cell::new(0);
    by_seed(100, |seed| {
        let mut rng = Rng(seed.wrapping_mul(0xd134_2543_de82_ef95));
        let mut disk = Disk::new(TOPICS);
        disk.fill(60, &mut rng);
        let mut broker = Broker::new();
        run(&mut disk, &mut broker, &config(150), &mut rng, faults, 2500);
        for stream in 0..disk.streams.len() {
            let got = upstream(&broker, stream);
            let mut distinct = got.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct, disk.expected(stream), "stream {stream}");
            repeats_seen.set(repeats_seen.get() + got.len() - distinct.len());
        }
    });
    assert!(repeats_seen.get() > 0, "the fault does not bite");
}

#[test]
fn a_new_producer_id_names_what_may_be_upstream_twice() {
    let mut rng = Rng(5);
    let mut disk = Disk::new(&[("t", 1)]);
    disk.fill(40, &mut rng);
    let mut broker = Broker::new();
    let config = config(150);
    let mut gateway = Gateway::start(&disk, &config, 0, 1);
    // The broker appends and does not say so; then it refuses the old producer.
    let late = Faults { late_timeout: 100, ..Faults::default() };
    while broker.appended_batches < 1 || gateway.replicator.in_flight() > 0 {
        gateway.step(&mut disk, &mut broker, &mut rng, late);
    }
    broker.refused.insert("t".to_owned(), 59);
    for _ in 0..200 {
        gateway.step(&mut disk, &mut broker, &mut rng, Faults::default());
    }
    broker.refused.clear();
    while !gateway.is_done(&disk) {
        gateway.step(&mut disk, &mut broker, &mut rng, Faults::default());
    }
    let got = upstream(&broker, 0);
    let expected = disk.expected(0);
    let status = gateway.replicator.status();
    let repeats = (got.len() - expected.len()) as u64;
    assert!(
        status.totals.possible_duplicates >= repeats && repeats > 0,
        "{repeats} {:?}",
        status.totals
    );
    for (_, offset) in &expected {
        let times = got.iter().filter(|(_, found)| found == offset).count();
        let is_named = status
            .possible_duplicates
            .iter()
            .any(|range| range.from <= Offset(*offset) && Offset(*offset) < range.to);
        assert!(times == 1 || is_named, "offset {offset} is there {times} times and not named");
    }
}

#[test]
fn a_refused_topic_does_not_hold_up_the_others_and_catches_up_in_order() {
    by_seed(40, |seed| {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut disk = Disk::new(TOPICS);
        disk.fill(150, &mut rng);
        let mut broker = Broker::new();
        broker.refused.insert("telemetry".to_owned(), 29);
        let config = config(200);
        let mut gateway = Gateway::start(&disk, &config, 0, seed);
        let calm = Faults { cut: 1, leader_moves: 5, late_timeout: 5, ..Faults::default() };
        let faults = |step| match step {
            0..4000 if seed % 2 == 0 => Faults { crash: 1, ..calm },
            _ => calm,
        };
        let others_done = |broker: &Broker, disk: &Disk| {
            (0..disk.streams.len())
                .filter(|stream| disk.streams[*stream].topic != "telemetry")
                .all(|stream| upstream(broker, stream).len() == disk.expected(stream).len())
        };
        for step in 0.. {
            if !gateway.step(&mut disk, &mut broker, &mut rng, faults(step)) {
                gateway = Gateway::start(&disk, &config, gateway.now_us, rng.next());
            }
            if others_done(&broker, &disk) {
                break;
            }
            assert!(step < 100_000, "the others wait: {:?}", gateway.replicator.status());
        }
        let told = gateway.replicator.status().blocked;
        // One that has just started does not know yet.
        assert!(seed % 2 == 0 || told.iter().any(|blocked| blocked.topic == "telemetry"));
        broker.refused.clear();
        for step in 0.. {
            if !gateway.step(&mut disk, &mut broker, &mut rng, faults(step)) {
                gateway = Gateway::start(&disk, &config, gateway.now_us, rng.next());
            }
            if gateway.is_done(&disk) {
                break;
            }
            assert!(step < 200_000, "it does not catch up: {:?}", gateway.replicator.status());
        }
        assert_exactly_once(&disk, &broker);
        assert!(gateway.replicator.status().blocked.is_empty());
    });
}

#[test]
fn a_refused_topic_gives_up_its_own_oldest_records_counted_and_nobody_elses() {
    by_seed(60, |seed| {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut disk = Disk::new(TOPICS);
        disk.fill(20 * SEGMENT_GROUPS, &mut rng);
        let mut broker = Broker::new();
        broker.refused.insert("telemetry".to_owned(), 29);
        let config = ReplicatorConfig { park_segments_max: vec![3], ..config(200) };
        let crashes = seed % 2 == 0;
        let faults = Faults { cut: 1, crash: u64::from(crashes), ..Faults::default() };
        let mut gateway = Gateway::start(&disk, &config, 0, seed);
        let step = |gateway: &mut Gateway, disk: &mut Disk, broker: &mut Broker, rng: &mut Rng| {
            if !gateway.step(disk, broker, rng, faults) {
                *gateway = Gateway::start(disk, &config, gateway.now_us, rng.next());
            }
        };
        // The ring follows: what was released is gone.
        for steps in 0.. {
            step(&mut gateway, &mut disk, &mut broker, &mut rng);
            let told = gateway.replicator.status().blocked;
            if disk.journal_start >= 15 * SEGMENT_GROUPS
                && told.iter().any(|topic| topic.topic == "telemetry" && topic.overtaken > 0)
            {
                break;
            }
            assert!(steps < 200_000, "the lane is held up: {:?}", gateway.replicator.status());
        }
        broker.refused.clear();
        for steps in 0.. {
            step(&mut gateway, &mut disk, &mut broker, &mut rng);
            if gateway.is_done(&disk) {
                break;
            }
            assert!(steps < 400_000, "it does not catch up: {:?}", gateway.replicator.status());
        }
        let mut missing = 0;
        for stream in 0..disk.streams.len() {
            let (there, all) = (upstream(&broker, stream), disk.expected(stream));
            if disk.streams[stream].topic != "telemetry" {
                assert_eq!(there, all, "stream {stream}");
                continue;
            }
            // What is there is the newest, in order, once.
            assert!(all.ends_with(&there) && !there.is_empty(), "stream {stream}");
            missing += (all.len() - there.len()) as u64;
        }
        let counted = gateway.replicator.status().totals.gap_offsets;
        assert!(missing > 0 && counted >= missing, "{missing} missing, {counted} counted");
        assert!(crashes || counted == missing, "{missing} missing, {counted} counted");
    });
}

#[test]
fn a_record_that_is_too_large_is_passed_by_and_named() {
    by_seed(60, |seed| {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut disk = Disk::new(&[("t", 2)]);
        disk.fill(60, &mut rng);
        disk.large = vec![(StreamId(0), 7), (StreamId(1), 0), (StreamId(1), 20)];
        let mut broker = Broker::new();
        broker.value_bytes_max = Some(1000);
        let faults = Faults { cut: 2, leader_moves: 5, late_timeout: 5, ..Faults::default() };
        let gateway = run(&mut disk, &mut broker, &config(4000), &mut rng, faults, 1000);
        for stream in 0..2 {
            let mut expected = disk.expected(stream);
            expected.retain(|(id, offset)| !disk.large.contains(&(StreamId(*id), *offset)));
            assert_eq!(upstream(&broker, stream), expected);
        }
        let status = gateway.replicator.status();
        assert_eq!(status.totals.skipped_records, 3);
        let mut named: Vec<_> =
            status.skipped.iter().map(|range| (range.stream, range.from.0)).collect();
        named.sort();
        assert_eq!(named, disk.large);
    });
}

#[test]
fn a_missing_topic_that_may_not_be_created_is_told_and_waits() {
    let mut rng = Rng(9);
    let mut disk = Disk::new(&[("t", 1)]);
    disk.fill(20, &mut rng);
    let mut broker = Broker::new();
    broker.can_create = false;
    let config = config(4000);
    let mut gateway = Gateway::start(&disk, &config, 0, 1);
    for _ in 0..500 {
        gateway.step(&mut disk, &mut broker, &mut rng, Faults::default());
    }
    assert_eq!(gateway.replicator.status().blocked[0].reason, "t does not exist");
    broker.create("t", 1);
    while !gateway.is_done(&disk) {
        gateway.step(&mut disk, &mut broker, &mut rng, Faults::default());
    }
    assert_exactly_once(&disk, &broker);
}

#[test]
fn a_link_without_progress_is_given_up() {
    let mut rng = Rng(3);
    let mut disk = Disk::new(&[("t", 1)]);
    disk.fill(20, &mut rng);
    let mut broker = Broker::new();
    let config = config(4000);
    let mut gateway = Gateway::start(&disk, &config, 0, 1);
    while gateway.replicator.in_flight() == 0 {
        gateway.step(&mut disk, &mut broker, &mut rng, Faults::default());
    }
    gateway.now_us += 31_000_000;
    // The next look at the clock drops the connection, and the same batches go again.
    while !gateway.is_done(&disk) {
        gateway.step(&mut disk, &mut broker, &mut rng, Faults::default());
    }
    assert_exactly_once(&disk, &broker);
}

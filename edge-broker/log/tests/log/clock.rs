//! Time on a board without a clock: what was stamped before it was set is corrected on the way out, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ops::ControlFlow;
use std::sync::Arc;

use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    BootClock, BootClocks, CLOCK_HEADER, ClockReading, ClockState, GroupAt, JournalPosition, Lane,
    LaneReader, Recovery, Retention,
};
use edge_wire::{
    Batches, Compression, Envelope, HeadersView, Offset, ProducerId, ProducerStamp, StreamId,
    TimestampType,
};

use crate::common::{DIR, Random, config, definition, producer_batch, scale};

const S: StreamId = StreamId(0);
const HOUR_MS: i64 = 3_600_000;
/// What is assumed before the clock is set, and what is true: eleven months later.
const ASSUMED_MS: i64 = 1_767_225_600_000;
const TRUE_MS: i64 = ASSUMED_MS + 8_000 * HOUR_MS;

fn at(boot_id: u64, since_boot_ms: i64, base_ms: i64, state: ClockState) -> ClockReading {
    ClockReading {
        boot_id,
        boottime_us: since_boot_ms.cast_unsigned() * 1_000,
        wall_us: (base_ms + since_boot_ms) * 1_000,
        state,
        entropy: Random(since_boot_ms.cast_unsigned()).next(),
    }
}

fn unset(boot_id: u64, since_boot_ms: i64) -> ClockReading {
    at(boot_id, since_boot_ms, ASSUMED_MS, ClockState::Unsynced)
}

fn set(boot_id: u64, since_boot_ms: i64) -> ClockReading {
    at(boot_id, since_boot_ms, TRUE_MS, ClockState::Synced)
}

fn open(disk: &SimStorage, clock: &ClockReading) -> (Lane, Recovery) {
    let (mut lane, recovery) = Lane::open(Arc::new(disk.clone()), DIR, config(), clock).unwrap();
    lane.define_stream(definition(0));
    (lane, recovery)
}

/// One record with the lane's time, one with its own.
fn put(lane: &mut Lane, clock: &ClockReading, own_ms: Option<i64>) {
    lane.set_clock(clock);
    let envelope = lane.envelope(&Arc::new(Envelope::new(Some(b"key"), &[0])));
    match own_ms {
        Some(ms) => lane.append_record(S, envelope, ms, Some(b"v")),
        None => lane.append_stamped(S, envelope, clock.boottime_us, false, Some(b"v")),
    }
    .unwrap();
}

fn commit(lane: &mut Lane, clock: &ClockReading) {
    lane.commit(clock, clock.boottime_us, &mut ()).unwrap();
}

/// Timestamp of every record, and whether it is flagged. The batches as a consumer gets them say the same.
fn times(reader: &LaneReader) -> Vec<(i64, bool)> {
    let mut times = Vec::new();
    let start = reader.bounds(S).unwrap().log_start;
    reader
        .read_batches(S, start, &mut |batch| {
            let from = times.len();
            batch
                .for_each_record(&mut |record| {
                    let headers = HeadersView::parse(record.headers_section).unwrap();
                    times.push((record.timestamp_ms, headers.last(CLOCK_HEADER).is_some()));
                })
                .unwrap();
            let mut bytes = Vec::new();
            batch.write_record_batch(&mut bytes);
            assert_eq!(bytes.len(), batch.record_batch_bytes());
            let view = Batches::new(&bytes).next().unwrap().unwrap();
            view.verify_crc().unwrap();
            let latest = times[from..].iter().map(|(ms, _)| *ms).max().unwrap();
            assert_eq!(view.header().max_timestamp, latest);
            if view.header().attributes.timestamp_type() == TimestampType::CreateTime {
                assert_eq!(view.header().base_timestamp, times[from].0);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    times
}

fn truth(boot_id: u64) -> BootClocks {
    let mut clocks = BootClocks::default();
    let shift_ms_max = TRUE_MS - ASSUMED_MS;
    clocks.set(BootClock { boot_id, base_us: TRUE_MS * 1_000, shift_ms_max });
    clocks
}

#[test]
fn what_was_stamped_before_the_clock_was_set_is_corrected_and_nothing_else_is() {
    let disk = SimStorage::new(1);
    let (mut lane, _) = open(&disk, &unset(7, 0));
    let own_ms = 5_000;
    put(&mut lane, &unset(7, 10), None);
    put(&mut lane, &unset(7, 20), Some(own_ms));
    // The clock is set while the group is open: it keeps the one it has.
    put(&mut lane, &set(7, 30), None);
    commit(&mut lane, &set(7, 40));
    put(&mut lane, &set(7, 50), None);
    commit(&mut lane, &set(7, 60));
    let reader = lane.reader();
    let told: Vec<_> = times(&reader);
    let expected =
        [(ASSUMED_MS + 10, true), (own_ms, false), (ASSUMED_MS + 30, true), (TRUE_MS + 50, false)];
    assert_eq!(told, expected);

    reader.set_boot_clocks(truth(7));
    let corrected = [10, 30].map(|ms| TRUE_MS + ms);
    let expected =
        [(corrected[0], false), (own_ms, false), (corrected[1], false), (TRUE_MS + 50, false)];
    assert_eq!(times(&reader), expected);
    // By time as well: nothing is passed by because of what the index was told.
    assert_eq!(reader.offset_at_time(S, TRUE_MS).unwrap(), Some((Offset(0), corrected[0])));
    assert_eq!(reader.offset_at_time(S, TRUE_MS + 11).unwrap(), Some((Offset(2), corrected[1])));
    assert_eq!(reader.offset_at_time(S, TRUE_MS + 51).unwrap(), None);
    assert_eq!(reader.max_timestamp(S).unwrap(), Some((Offset(3), TRUE_MS + 50)));
}

#[test]
fn a_restart_finds_the_truth_in_the_frames_that_were_written_once_it_was_known() {
    let disk = SimStorage::new(2);
    let (mut lane, _) = open(&disk, &unset(7, 0));
    put(&mut lane, &unset(7, 10), None);
    commit(&mut lane, &unset(7, 20));
    let before = disk.crash_image(CrashPolicy::DropAll, 1);
    put(&mut lane, &set(7, 30), None);
    commit(&mut lane, &set(7, 40));
    let after = disk.crash_image(CrashPolicy::DropAll, 1);

    let (lane, recovery) = open(&before, &unset(8, 0));
    assert!(recovery.boot_clocks.as_slice().is_empty());
    assert_eq!(recovery.last_clock.map(|clock| clock.wall_us), Some((ASSUMED_MS + 20) * 1_000));
    assert_eq!(times(&lane.reader()), [(ASSUMED_MS + 10, true)], "nobody will ever know");

    let (lane, recovery) = open(&after, &unset(8, 0));
    assert_eq!(recovery.boot_clocks.get(7).map(|boot| boot.base_us), Some(TRUE_MS * 1_000));
    assert_eq!(times(&lane.reader()), [(TRUE_MS + 10, false), (TRUE_MS + 30, false)]);
    let found = lane.reader().offset_at_time(S, TRUE_MS).unwrap();
    assert_eq!(found, Some((Offset(0), TRUE_MS + 10)));
}

#[test]
fn batches_get_the_time_of_append_without_a_look_into_them() {
    for codec in [Compression::None, Compression::Zstd] {
        let disk = SimStorage::new(3);
        let (mut lane, _) = open(&disk, &unset(7, 0));
        let stamp = ProducerStamp { id: ProducerId(5), epoch: 0, base_sequence: 0 };
        let batch = producer_batch(stamp, codec, &[b"a".to_vec(), b"b".to_vec()]);
        lane.set_clock(&unset(7, 10));
        let (_, told_ms) = lane.append_batch_stamped(S, &batch, 10_000).unwrap();
        assert_eq!(told_ms, ASSUMED_MS + 10);
        let envelope = lane.envelope(&Arc::new(Envelope::new(None, &[0])));
        for since_boot_us in [11_000, 14_000] {
            lane.append_stamped(S, envelope, since_boot_us, true, Some(b"c")).unwrap();
        }
        commit(&mut lane, &unset(7, 20));
        let (_, again_ms) = lane.append_batch_stamped(S, &batch, 90_000).unwrap();
        assert_eq!(again_ms, told_ms, "of a duplicate it is that of the first");
        let reader = lane.reader();
        reader
            .read_batches(S, Offset(0), &mut |batch| {
                assert_eq!(batch.attributes().timestamp_type(), TimestampType::LogAppendTime);
                ControlFlow::Continue(())
            })
            .unwrap();
        let flagged = [false, false, true, true];
        let expected = |base_ms: i64| [10, 10, 11, 11].map(|ms| base_ms + ms);
        let (found, flags): (Vec<_>, Vec<_>) = times(&reader).into_iter().unzip();
        assert_eq!((found, flags), (expected(ASSUMED_MS).to_vec(), flagged.to_vec()));
        reader.set_boot_clocks(truth(7));
        let (found, flags): (Vec<_>, Vec<_>) = times(&reader).into_iter().unzip();
        assert_eq!((found, flags), (expected(TRUE_MS).to_vec(), vec![false; 4]));
    }
}

#[test]
fn what_only_looks_old_is_not_deleted_by_age_once_the_clock_is_set() {
    let week = Retention { age_ms: Some(7 * 24 * HOUR_MS as u64), ..Retention::default() };
    for is_known in [true, false] {
        let disk = SimStorage::new(4);
        let (mut lane, _) = open(&disk, &unset(7, 0));
        let mut since_ms = 0;
        let mut write = |lane: &mut Lane, clock: fn(u64, i64) -> ClockReading, groups: u32| {
            for _ in 0..groups {
                since_ms += 1;
                put(lane, &clock(7, since_ms), None);
                commit(lane, &clock(7, since_ms));
            }
            since_ms
        };
        write(&mut lane, unset, 40);
        let at_ms = write(&mut lane, set, 30);
        assert!(lane.reader().end().segment >= 3, "several segments are sealed");
        if is_known {
            lane.reader().set_boot_clocks(truth(7));
        }
        lane.set_retention(S, week);
        for hour in 0..3 {
            let now = set(7, at_ms + hour * HOUR_MS);
            while lane.maintain(&now, now.boottime_us).unwrap() {}
        }
        let log_start = lane.reader().bounds(S).unwrap().log_start;
        // Without the truth the invented times are all there is: the control of this test.
        assert_eq!(log_start == Offset(0), is_known, "log start {log_start}");
    }
}

/// Boots with and without a clock, one after the other, over many segments; the clock jumps about. Offsets order
/// everything; whatever was stamped in a boot whose clock was set in the end is right in the end.
#[test]
fn whatever_the_clock_does_the_order_stays_and_the_truth_comes_out() {
    for seed in 0..250 * scale() {
        let mut random = Random(seed);
        let disk = SimStorage::new(seed);
        let mut truth: Vec<i64> = Vec::new();
        let mut settled: Vec<bool> = Vec::new();
        let mut clocks = BootClocks::default();
        let mut power_on_ms = TRUE_MS;
        for boot_id in 1..=1 + random.below(4) {
            let boot = |since_ms, base_ms, state| at(boot_id, since_ms, base_ms, state);
            let set_at_ms = (random.below(3) > 0).then(|| random.below(600) as i64);
            let jump_ms = [-365 * 24, 0, 1, 10 * 365 * 24][random.below(4) as usize] * HOUR_MS;
            let clock = |since_ms: i64| match set_at_ms {
                Some(set_at_ms) if since_ms >= set_at_ms => {
                    boot(since_ms, power_on_ms, ClockState::Synced)
                }
                // Plausible or not, it may be anything, and not the same all the time.
                _ if since_ms % 7 < 3 => boot(since_ms, power_on_ms + jump_ms, ClockState::Unknown),
                _ => boot(since_ms, ASSUMED_MS, ClockState::Unsynced),
            };
            let mut lane = open(&disk, &clock(0)).0;
            let mut since_ms = 1;
            for _ in 0..10 + random.below(60) {
                since_ms += random.below(25) as i64;
                put(&mut lane, &clock(since_ms), None);
                truth.push(power_on_ms + since_ms);
                settled.push(set_at_ms.is_some_and(|at_ms| since_ms >= at_ms));
                if random.below(3) == 0 {
                    commit(&mut lane, &clock(since_ms));
                    while lane.maintain(&clock(since_ms), since_ms as u64 * 1_000).unwrap() {}
                }
            }
            commit(&mut lane, &clock(since_ms));
            if set_at_ms.is_some_and(|at_ms| since_ms >= at_ms) {
                let base_us = power_on_ms * 1_000;
                let shift_ms_max = 20 * 366 * 24 * HOUR_MS;
                clocks.set(BootClock { boot_id, base_us, shift_ms_max });
                mark_boot(&mut settled, &truth, power_on_ms);
            }
            power_on_ms += since_ms + random.below(100_000_000) as i64;
        }
        check(&open(&disk, &unset(99, 0)).0.reader(), &clocks, &truth, &settled, seed);
    }
}

/// All that was written since the boot is settled.
fn mark_boot(settled: &mut [bool], truth: &[i64], power_on_ms: i64) {
    for (settled, at_ms) in settled.iter_mut().zip(truth) {
        *settled |= *at_ms >= power_on_ms;
    }
}

fn check(reader: &LaneReader, clocks: &BootClocks, truth: &[i64], settled: &[bool], seed: u64) {
    reader.set_boot_clocks(clocks.clone());
    let start = usize::try_from(reader.bounds(S).unwrap().log_start.0).unwrap();
    let found = times(reader);
    assert_eq!(start + found.len(), truth.len(), "seed {seed}: every record, once, in its place");
    for (index, (found_ms, _)) in found.iter().enumerate() {
        if settled[start + index] {
            // A correction of less than a second is none.
            let off_ms = (found_ms - truth[start + index]).abs();
            assert!(off_ms < 1_000, "seed {seed}, record {index}: off by {off_ms} ms");
        }
    }
    for (index, (found_ms, _)) in found.iter().enumerate().step_by(17) {
        let (offset, at_ms) = reader.offset_at_time(S, *found_ms).unwrap().unwrap();
        let first = found.iter().position(|(ms, _)| ms >= found_ms).unwrap();
        assert_eq!(
            (offset.0 as usize, at_ms),
            (start + first, found[first].0),
            "seed {seed}, {index}"
        );
    }
    let latest = found.iter().map(|(ms, _)| *ms).max().unwrap();
    let first = found.iter().position(|(ms, _)| *ms == latest).unwrap();
    let newest = reader.max_timestamp(S).unwrap();
    assert_eq!(newest, Some((Offset((start + first) as u64), latest)), "seed {seed}");
    let group = reader.group(JournalPosition::START).unwrap();
    assert!(matches!(group, GroupAt::Group(_)));
}

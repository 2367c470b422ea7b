//! Copies and time: what was stamped before the clock was set is corrected wherever it was copied to, and a lookup by
//! time passes nothing by while the ring turns.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    BootClock, BootClocks, CLOCK_HEADER, ClockReading, ClockState, Compaction, Decay, Lane,
    LaneConfig, LaneReader, Retention, WhenFull,
};
use edge_wire::{Compression, Envelope, HeadersView, Offset, ProducerId, ProducerStamp, StreamId};

use crate::common::{DIR, Random, config, definition, producer_batch};

const S: StreamId = StreamId(0);
const FILLER: StreamId = StreamId(1);
const ASSUMED_MS: i64 = 1_767_225_600_000;
const TRUE_MS: i64 = ASSUMED_MS + 8_000 * 3_600_000;
const KEYS: i64 = 10;

fn at(boot_id: u64, since_ms: i64, base_ms: i64, state: ClockState) -> ClockReading {
    ClockReading {
        boot_id,
        boottime_us: since_ms.cast_unsigned() * 1_000,
        wall_us: (base_ms + since_ms) * 1_000,
        state,
        entropy: Random(boot_id << 32 | since_ms.cast_unsigned()).next(),
    }
}

fn unset(boot_id: u64, since_ms: i64) -> ClockReading {
    at(boot_id, since_ms, ASSUMED_MS, ClockState::Unsynced)
}

/// How the records of a stream come to be copied.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    Compacted,
    Kept,
    Sampled,
    Aggregated,
}

fn open(disk: &SimStorage, why: Why, clock: &ClockReading) -> Lane {
    let config = LaneConfig {
        when_full: WhenFull::DropOldest { unsent: true },
        decay: match why {
            Why::Sampled => Some(Decay::KeepEvery { records: 2 }),
            Why::Aggregated => Some(Decay::Aggregate { seconds: 3_600 }),
            _ => None,
        },
        ..config()
    };
    let mut lane = Lane::open(Arc::new(disk.clone()), DIR, config, clock).unwrap().0;
    lane.define_stream(definition(0));
    lane.define_stream(definition(1));
    lane.set_retention(
        S,
        match why {
            Why::Compacted => Retention {
                compaction: Some(Compaction { tombstone_ms: u64::MAX }),
                ..Retention::default()
            },
            Why::Kept => Retention { bytes: Some(1 << 30), ..Retention::default() },
            _ => Retention::default(),
        },
    );
    lane
}

fn commit(lane: &mut Lane, clock: &ClockReading) {
    lane.commit(clock, clock.boottime_us, &mut ()).unwrap();
    while lane.maintain(clock, clock.boottime_us).unwrap() {}
}

/// A few records with the lane's time, one with its own, and a producer's batch with the time of append.
fn write(lane: &mut Lane, why: Why, boot_id: u64) {
    for since_ms in 1..=KEYS {
        let clock = unset(boot_id, since_ms);
        lane.set_clock(&clock);
        let key = format!("key {boot_id} {since_ms}");
        let envelope = lane.envelope(&Arc::new(Envelope::new(Some(key.as_bytes()), &[0])));
        if since_ms == 4 {
            lane.append_record(S, envelope, 4_000, Some(b"{}")).unwrap();
        } else {
            lane.append_stamped(S, envelope, clock.boottime_us, false, Some(b"{}")).unwrap();
        }
        // Its record has no key: only where all is kept is it sure to be there.
        if since_ms == 7 && why == Why::Kept {
            let stamp = ProducerStamp { id: ProducerId(boot_id), epoch: 0, base_sequence: 0 };
            let batch = producer_batch(stamp, Compression::Zstd, &[b"a".to_vec()]);
            lane.append_batch_stamped(S, &batch, clock.boottime_us).unwrap();
        }
        if since_ms % 3 == 0 {
            commit(lane, &clock);
        }
    }
    commit(lane, &unset(boot_id, KEYS));
}

/// Turns the ring until nothing that is there now stands where it did.
fn turn(lane: &mut Lane, boot_id: u64, since_ms: i64) {
    let start = lane.reader().end().segment;
    let mut random = Random(boot_id);
    let mut ms = since_ms;
    while lane.reader().start().segment <= start {
        ms += 1;
        let clock = unset(boot_id, ms);
        let value: Vec<u8> = (0..1_500).map(|_| random.next() as u8).collect();
        let envelope = lane.envelope(&Arc::new(Envelope::new(Some(&ms.to_le_bytes()), &[0])));
        lane.append_record(FILLER, envelope, 1, Some(&value)).unwrap();
        commit(lane, &clock);
    }
}

/// Offset and timestamp of every record, and whether it is flagged.
fn times(reader: &LaneReader) -> Vec<(u64, i64, bool)> {
    let mut times = Vec::new();
    let start = reader.bounds(S).unwrap().log_start;
    reader
        .read_batches(S, start, &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    let headers = HeadersView::parse(record.headers_section).unwrap();
                    let flagged = headers.last(CLOCK_HEADER).is_some();
                    times.push((record.offset.0, record.timestamp_ms, flagged));
                })
                .unwrap();
            let mut bytes = Vec::new();
            batch.write_record_batch(&mut bytes);
            assert_eq!(bytes.len(), batch.record_batch_bytes());
            ControlFlow::Continue(())
        })
        .unwrap();
    times
}

fn truth(boots: &[u64]) -> BootClocks {
    let mut clocks = BootClocks::default();
    for boot_id in boots {
        let shift_ms_max = TRUE_MS - ASSUMED_MS;
        clocks.set(BootClock { boot_id: *boot_id, base_us: TRUE_MS * 1_000, shift_ms_max });
    }
    clocks
}

/// As they should be read: those of boots that are known are right, the others say that they are not.
fn expected(why: Why, written: &[u64], known: &[u64]) -> Vec<(i64, bool)> {
    let mut all = Vec::new();
    for boot_id in written {
        let is_known = known.contains(boot_id);
        let base_ms = if is_known { TRUE_MS } else { ASSUMED_MS };
        for since_ms in 1..=KEYS {
            match since_ms {
                4 => all.push((4_000, false)),
                _ => all.push((base_ms + since_ms, !is_known)),
            }
            // A batch keeps its bytes.
            if since_ms == 7 && why == Why::Kept {
                all.push((base_ms + since_ms, false));
            }
        }
    }
    all
}

#[test]
fn what_was_stamped_before_the_clock_was_set_is_corrected_wherever_it_was_copied_to() {
    for why in [Why::Compacted, Why::Kept, Why::Sampled, Why::Aggregated] {
        let disk = SimStorage::new(7);
        let mut lane = open(&disk, why, &unset(7, 0));
        write(&mut lane, why, 7);
        turn(&mut lane, 7, KEYS);
        let disk = disk.crash_image(CrashPolicy::DropAll, 1);
        let mut lane = open(&disk, why, &unset(8, 0));
        let reader = lane.reader();
        assert!(reader.stats().copied_records > 0, "{why:?}");
        let look = |reader: &LaneReader, known: &[u64], written: &[u64]| {
            let found: Vec<_> = times(reader).into_iter().map(|(_, ms, flag)| (ms, flag)).collect();
            assert_eq!(found, expected(why, written, known), "{why:?}, known {known:?}");
        };
        look(&reader, &[], &[7]);
        // A second boot writes, and copies the copies on.
        write(&mut lane, why, 8);
        turn(&mut lane, 8, KEYS);
        let reader = lane.reader();
        look(&reader, &[], &[7, 8]);
        reader.set_boot_clocks(truth(&[8]));
        look(&reader, &[8], &[7, 8]);
        reader.set_boot_clocks(truth(&[7, 8]));
        look(&reader, &[7, 8], &[7, 8]);
        let found = reader.offset_at_time(S, TRUE_MS + 2).unwrap().unwrap();
        let second = times(&reader).into_iter().find(|(_, ms, _)| *ms >= TRUE_MS + 2);
        assert_eq!(Some((found.0.0, found.1)), second.map(|(offset, ms, _)| (offset, ms)));
        // As they are copied on now, they are corrected for good.
        drop(lane);
        let disk = disk.crash_image(CrashPolicy::DropAll, 2);
        let mut lane = open(&disk, why, &unset(9, 0));
        lane.reader().set_boot_clocks(truth(&[7, 8]));
        look(&lane.reader(), &[7, 8], &[7, 8]);
        turn(&mut lane, 9, 0);
        lane.reader().set_boot_clocks(BootClocks::default());
        look(&lane.reader(), &[7, 8], &[7, 8]);
    }
}

/// A reader asks by time while records move from where they were written to their copies. Whatever it is told, no
/// record that it asked for and that is still there comes before it.
#[test]
fn a_lookup_by_time_passes_nothing_by_while_the_ring_turns() {
    const RECORDS: u64 = 4_000;
    const LIVE: u64 = 100;
    let disk = SimStorage::new(3);
    let mut lane = open(&disk, Why::Compacted, &unset(7, 0));
    let reader = lane.reader();
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (reader, stop, asked) = (&reader, &stop, &asked);
            scope.spawn(move || {
                let mut random = Random(thread);
                while !stop.load(Ordering::Acquire) {
                    let end = reader.bounds(S).unwrap().durable_end.0;
                    if end <= LIVE {
                        continue;
                    }
                    // The newest of its key, and for a while yet.
                    let offset = end - 1 - random.below(LIVE - 10);
                    let found = reader.offset_at_time(S, offset.cast_signed()).unwrap();
                    let (found, _) = found.expect("the newest record is late enough");
                    let mut first = None;
                    reader
                        .read_batches(S, Offset(offset), &mut |batch| {
                            let _ = batch.for_each_record(&mut |record| {
                                if record.offset.0 >= offset {
                                    first.get_or_insert(record.offset);
                                }
                            });
                            match first {
                                Some(_) => ControlFlow::Break(()),
                                None => ControlFlow::Continue(()),
                            }
                        })
                        .unwrap();
                    let first = first.expect("the newest record is there");
                    assert!(found <= first, "asked for {offset}: {found}, but {first} is there");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = Random(9);
        for offset in 0..RECORDS {
            let clock = unset(7, offset.cast_signed());
            let key = format!("key {}", offset % LIVE);
            let envelope = lane.envelope(&Arc::new(Envelope::new(Some(key.as_bytes()), &[0])));
            let value: Vec<u8> = (0..200).map(|_| random.next() as u8).collect();
            lane.append_record(S, envelope, offset.cast_signed(), Some(&value)).unwrap();
            let envelope = lane.envelope(&Arc::new(Envelope::new(None, &[0])));
            let value: Vec<u8> = (0..600).map(|_| random.next() as u8).collect();
            lane.append_record(FILLER, envelope, 1, Some(&value)).unwrap();
            commit(&mut lane, &clock);
        }
        stop.store(true, Ordering::Release);
    });
    assert!(reader.start().segment > 20, "the ring turned");
    assert!(asked.load(Ordering::Relaxed) > 0);
}

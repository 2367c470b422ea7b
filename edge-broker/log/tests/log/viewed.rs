//! A card from a dead gateway whose topics were compacted, kept beyond the ring, thinned, trimmed, and stamped without a
//! clock: an inspection finds it sound, and who reads it without a gateway reads exactly what a consumer of the gateway
//! reads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ops::ControlFlow;
use std::sync::Arc;

use edge_log::inspect::{LaneReport, VerifyOptions, verify_lane};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    BootClock, BootClocks, ClockReading, ClockState, Compaction, Decay, Lane, LaneConfig,
    LaneReader, Retention, WhenFull,
};
use edge_wire::{Compression, Envelope, Offset, ProducerId, ProducerStamp, StreamId};

use crate::common::{DIR, Random, config, definition, producer_batch};

const STREAMS: u32 = 4;
const ASSUMED_MS: i64 = 1_767_225_600_000;
const TRUE_MS: i64 = ASSUMED_MS + 8_000 * 3_600_000;

fn clock(boot_id: u64, tick: u64, is_set: bool) -> ClockReading {
    let (base_ms, state) = match is_set {
        true => (TRUE_MS + boot_id.cast_signed() * 1_000_000, ClockState::Synced),
        false => (ASSUMED_MS, ClockState::Unsynced),
    };
    ClockReading {
        boot_id,
        boottime_us: tick * 1_000,
        wall_us: (base_ms + tick.cast_signed()) * 1_000,
        state,
        entropy: Random(boot_id << 32 | tick).next(),
    }
}

/// Plain, compacted, kept beyond the ring, compacted and kept by bytes.
fn retention(stream: u32) -> Retention {
    let compaction = Some(Compaction { tombstone_ms: 0 });
    match stream {
        0 => Retention::default(),
        1 => Retention { compaction, ..Retention::default() },
        2 => Retention { bytes: Some(1 << 30), ..Retention::default() },
        _ => Retention { bytes: Some(20 << 10), compaction, ..Retention::default() },
    }
}

/// Everything of a record that a consumer sees, and the batches byte for byte.
type Record = (u64, i64, Option<Vec<u8>>, Vec<u8>, Option<Vec<u8>>);

fn read(reader: &LaneReader, stream: StreamId) -> (Vec<Record>, Vec<u8>) {
    let (mut records, mut batches) = (Vec::new(), Vec::new());
    let Some(bounds) = reader.bounds(stream) else { return (records, batches) };
    reader
        .read_batches(stream, bounds.log_start, &mut |batch| {
            batch.write_record_batch(&mut batches);
            batch
                .for_each_record(&mut |record| {
                    records.push((
                        record.offset.0,
                        record.timestamp_ms,
                        record.key.map(<[u8]>::to_vec),
                        record.headers_section.to_vec(),
                        record.value.map(<[u8]>::to_vec),
                    ));
                })
                .unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    (records, batches)
}

struct Card {
    disk: SimStorage,
    clocks: BootClocks,
    decay: Option<Decay>,
}

impl Card {
    fn open(&self, clock: &ClockReading) -> Lane {
        let config = LaneConfig {
            when_full: WhenFull::DropOldest { unsent: true },
            decay: self.decay,
            ..config()
        };
        let mut lane = Lane::open(Arc::new(self.disk.clone()), DIR, config, clock).unwrap().0;
        for stream in 0..STREAMS {
            lane.define_stream(definition(stream));
            lane.set_retention(StreamId(stream), retention(stream));
        }
        lane.reader().set_boot_clocks(self.clocks.clone());
        lane
    }

    /// Boots one after the other, most of them without a clock at first; each ends in a power cut or in order.
    fn fill(seed: u64) -> Self {
        let mut random = Random(seed);
        let decay = match seed % 3 {
            0 => None,
            1 => Some(Decay::KeepEvery { records: 3 }),
            _ => Some(Decay::Aggregate { seconds: 60 }),
        };
        let mut card = Self { disk: SimStorage::new(seed), clocks: BootClocks::default(), decay };
        let mut sequence = 0;
        for boot_id in 1..=3u64 {
            let set_at = random.below(250);
            let is_set = |tick: u64| tick >= set_at && !boot_id.is_multiple_of(3);
            let mut lane = card.open(&clock(boot_id, 0, false));
            let mut tick = 0;
            for _ in 0..90 + random.below(60) {
                tick += 1;
                let now = clock(boot_id, tick, is_set(tick));
                lane.set_clock(&now);
                for _ in 0..=random.below(4) {
                    let stream = random.below(u64::from(STREAMS)) as u32;
                    write(&mut lane, StreamId(stream), &now, &mut random, &mut sequence);
                }
                lane.commit(&now, now.boottime_us, &mut ()).unwrap();
                while lane.maintain(&now, now.boottime_us).unwrap() {}
                if random.below(40) == 0 {
                    let bounds = lane.reader().bounds(StreamId(1)).unwrap();
                    let back = random.below(200).min(bounds.durable_end.0);
                    lane.set_log_start(StreamId(1), Offset(bounds.durable_end.0 - back)).unwrap();
                }
            }
            if is_set(tick) {
                let base_us = (TRUE_MS + boot_id.cast_signed() * 1_000_000) * 1_000;
                let shift_ms_max = 2 * (TRUE_MS - ASSUMED_MS);
                card.clocks.set(BootClock { boot_id, base_us, shift_ms_max });
            }
            if random.below(2) == 0 {
                lane.commit(&clock(boot_id, tick, false), 0, &mut ()).unwrap();
                lane.seal(&clock(boot_id, tick, is_set(tick)), true).unwrap();
            }
            drop(lane);
            // All of what a side index is written for may be lost; the next start looks after it.
            card.disk = card.disk.crash_image(CrashPolicy::KeepAll, random.next());
        }
        card
    }

    fn verify(&self) -> LaneReport {
        verify_lane(&self.disk, DIR, &VerifyOptions::default(), &mut ()).unwrap()
    }

    /// As a tool sees it.
    fn view(&self) -> LaneReader {
        let (reader, _) = Lane::view(Arc::new(self.disk.clone()), DIR, 1 << 20).unwrap();
        reader.set_boot_clocks(self.clocks.clone());
        reader
    }
}

fn write(
    lane: &mut Lane,
    stream: StreamId,
    now: &ClockReading,
    random: &mut Random,
    sequence: &mut i32,
) {
    if random.below(12) == 0 {
        let stamp = ProducerStamp { id: ProducerId(7), epoch: 0, base_sequence: *sequence };
        *sequence += 2;
        let codec = if random.below(2) == 0 { Compression::None } else { Compression::Zstd };
        let batch = producer_batch(stamp, codec, &[b"a".to_vec(), b"b".to_vec()]);
        match random.below(2) {
            0 => drop(lane.append_batch(stream, &batch)),
            _ => drop(lane.append_batch_stamped(stream, &batch, now.boottime_us)),
        }
        return;
    }
    let key = format!("key {}", random.below(12));
    let envelope = lane.envelope(&Arc::new(Envelope::new(Some(key.as_bytes()), &[0])));
    let value = format!(r#"{{"t":{},"pad":"{:0400}"}}"#, random.below(1_000), random.next());
    let value = (random.below(9) > 0).then_some(value.as_bytes());
    if random.below(4) == 0 {
        lane.append_record(stream, envelope, random.below(90_000).cast_signed(), value).unwrap();
    } else {
        lane.append_stamped(stream, envelope, now.boottime_us, false, value).unwrap();
    }
}

#[test]
fn a_card_is_sound_and_reads_as_its_gateway_did() {
    let (mut copied, mut holes) = (0, 0);
    for seed in 0..9 {
        let card = Card::fill(seed);
        let report = card.verify();
        assert!(report.is_sound(), "seed {seed}: {:#?}", report.damage);
        let viewed = card.view();
        let lane = card.open(&clock(9, 0, false));
        let gateway = lane.reader();
        assert_eq!(report.end, gateway.end(), "seed {seed}");
        for stream in (0..STREAMS).map(StreamId) {
            let (expected, expected_batches) = read(&gateway, stream);
            let (found, batches) = read(&viewed, stream);
            assert!(expected.is_sorted_by_key(|record| record.0), "seed {seed}: in order");
            assert!(expected.windows(2).all(|two| two[0].0 < two[1].0), "seed {seed}: once");
            assert_eq!(found, expected, "seed {seed}, stream {stream}");
            assert!(batches == expected_batches, "seed {seed}, stream {stream}: the same batches");
            let (seen, told) = (viewed.bounds(stream), gateway.bounds(stream));
            assert_eq!(seen, told, "seed {seed}, stream {stream}");
            let told = report.streams.iter().find(|seen| seen.stream == stream.0).unwrap();
            assert_eq!(told.end, seen.unwrap().durable_end.0, "seed {seed}, stream {stream}");
            // What was cleaned or thinned is not named as missing without a reason.
            let untold: Vec<_> = told.missing.iter().filter(|hole| !hole.told).collect();
            assert!(untold.is_empty(), "seed {seed}, stream {stream}: {untold:?}");
            for (asked, ms, ..) in expected.iter().step_by(29) {
                let found = viewed.offset_at_time(stream, *ms).unwrap();
                let first = expected.iter().find(|record| record.1 >= *ms).unwrap();
                assert_eq!(found, Some((Offset(first.0), first.1)), "seed {seed}, {asked}");
            }
            let (first, last) = (expected.first(), expected.last());
            let span = first.zip(last).map_or(0, |(first, last)| last.0 - first.0 + 1);
            holes += span - expected.len() as u64;
        }
        copied += gateway.stats().copied_records;
    }
    assert!(copied > 500 && holes > 500, "{copied} copies, {holes} holes: the test is too kind");
}

//! Damage to bytes that were synced: found, named, and no larger than the group it hit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use crate::common::{Model, Random, Rig, STREAMS, clock, config, records};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{GroupAt, JournalPosition, LaneConfig};
use edge_wire::StreamId;

const SECTOR: u64 = 512;

/// What is done to a sector.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    FlipBit,
    Zero,
    Garbage,
    /// The sector reads as the one before it.
    Repeat,
}

const DAMAGES: [Damage; 4] = [Damage::FlipBit, Damage::Zero, Damage::Garbage, Damage::Repeat];

fn damage(storage: &SimStorage, path: &str, sector: u64, how: Damage, random: &mut Random) {
    let start = sector * SECTOR;
    match how {
        Damage::FlipBit => {
            let (byte, bit) = (random.below(SECTOR) as usize, random.below(8));
            storage.damage(path, start, |bytes| bytes[byte] ^= 1 << bit, SECTOR as usize);
        }
        Damage::Zero => storage.damage(path, start, |bytes| bytes.fill(0), SECTOR as usize),
        Damage::Garbage => {
            let noise = |bytes: &mut [u8]| bytes.iter_mut().for_each(|b| *b = random.next() as u8);
            storage.damage(path, start, noise, SECTOR as usize);
        }
        Damage::Repeat => {
            let before = start.saturating_sub(SECTOR);
            let twice = |bytes: &mut [u8]| {
                let half = SECTOR as usize;
                if bytes.len() == 2 * half {
                    bytes.copy_within(..half, half);
                }
            };
            storage.damage(path, before, twice, 2 * SECTOR as usize);
        }
    }
}

/// A lane of several segments, and where its groups stand.
struct Sample {
    storage: SimStorage,
    model: Model,
    log_starts: Vec<u64>,
    /// Position and end of every frame, in order.
    frames: Vec<(JournalPosition, JournalPosition)>,
    config: LaneConfig,
    sealed: bool,
}

fn sample(seed: u64, groups: u64, sealed: bool, budget_bytes: u64) -> Sample {
    let storage = SimStorage::new(seed);
    let mut random = Random(seed);
    let mut model = Model::default();
    let config = LaneConfig { budget_bytes, ..config() };
    let mut rig = Rig::open_with(&storage, 1, config.clone());
    for _ in 0..groups {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    if sealed {
        rig.lane.seal(&clock(1 << 30), false).unwrap();
    }
    let reader = rig.lane.reader();
    let mut frames = Vec::new();
    let mut at = JournalPosition::START;
    while let GroupAt::Group(group) = reader.group(at).unwrap() {
        frames.push((group.position(), group.next()));
        at = group.next();
    }
    let log_starts =
        (0..STREAMS).map(|stream| reader.bounds(StreamId(stream)).unwrap().log_start.0).collect();
    Sample { storage, model, log_starts, frames, config, sealed }
}

/// Opens, reads everything, lets maintenance name what was found, and checks. Returns how many groups are lost.
fn check(sample: &Sample, image: &SimStorage, may_lose_silently: bool, what: &str) -> usize {
    let mut rig = Rig::open_with(image, 1 << 40, sample.config.clone());
    for stream in 0..STREAMS {
        records(&rig.lane.reader(), stream);
    }
    rig.maintain();
    let reader = rig.lane.reader();
    let gaps = reader.gaps();
    let mut lost_groups = BTreeSet::new();
    for stream in 0..STREAMS {
        let known = &sample.model.streams[&stream];
        let bounds = reader.bounds(StreamId(stream)).unwrap();
        let found = records(&reader, stream);
        let named = |offset: u64| {
            gaps.iter()
                .any(|gap| gap.stream.0 == stream && (gap.from.0..gap.to.0).contains(&offset))
        };
        for (offset, value) in &found {
            assert_eq!(known.attempted.get(offset).map(|(value, _)| value), Some(value), "{what}");
            assert!(!named(*offset), "{what}: stream {stream}: {offset} is there and a gap");
        }
        let there: BTreeSet<u64> = found.iter().map(|(offset, _)| *offset).collect();
        let start = sample.log_starts[stream as usize];
        for offset in start..known.acked {
            if !there.contains(&offset) {
                assert!(
                    named(offset) || may_lose_silently,
                    "{what}: stream {stream}: {offset} is lost and nobody says so: {gaps:?}, {:?}",
                    rig.recovery
                );
                lost_groups.insert(known.attempted[&offset].1);
            }
        }
        assert!(
            bounds.durable_end.0 >= known.acked || may_lose_silently,
            "{what}: stream {stream}: an offset could be given out twice"
        );
    }
    // What was told stays told, and the lane goes on.
    let copy = image.crash_image(CrashPolicy::KeepAll, 0);
    crate::common::check_goes_on(Rig::open_with(&copy, 1 << 41, sample.config.clone()), &copy, 1);
    lost_groups.len()
}

#[test]
fn a_damaged_sector_costs_at_most_its_group_and_is_named() {
    let mut random = Random(4);
    let (mut hits, mut lost) = (0u64, 0);
    let scale = crate::common::scale();
    for round in 0..3 * scale {
        let (seed, sealed) = (round + 1, round % 3 != 1);
        let budget = if round % 3 == 2 { 64 << 10 } else { 1 << 20 };
        let sample = sample(seed, 90, sealed, budget);
        assert!(sample.frames.len() > 15);
        let files: Vec<_> =
            sample.storage.files().into_iter().filter(|(_, len)| *len > 0).collect();
        let last = sample.frames[sample.frames.len() - 1];
        for _ in 0..80 {
            let (path, len) = &files[random.below(files.len() as u64) as usize];
            let sector = random.below(len / SECTOR);
            let how = DAMAGES[random.below(4) as usize];
            let image = sample.storage.crash_image(CrashPolicy::KeepAll, seed);
            damage(&image, path, sector, how, &mut random);
            // A last frame whose first sector is no header of ours any more cannot be told from one that was
            // never written, as long as nothing behind it proves it.
            let header = how != Damage::FlipBit && sector * SECTOR == u64::from(last.0.byte);
            let groups = check(
                &sample,
                &image,
                header && !sample.sealed,
                &format!("{how:?} in {path}, sector {sector}"),
            );
            assert!(groups <= 1, "{how:?} in {path}, sector {sector} costs {groups} groups");
            hits += 1;
            lost += groups;
        }
    }
    assert!(hits == 240 * scale && lost > 40, "{lost} groups lost by {hits} hits");
}

#[test]
fn every_frame_can_lose_its_header() {
    let sample = sample(7, 60, true, 1 << 20);
    let mut random = Random(1);
    for (position, _) in &sample.frames {
        for how in DAMAGES {
            let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
            let path = format!("lanes/normal/slot-{:04}.seg", position.segment - 1);
            damage(&image, &path, u64::from(position.byte) / SECTOR, how, &mut random);
            // The seal itself proves nothing about itself, and holds nothing.
            assert!(check(&sample, &image, false, &format!("{how:?} at {position}")) <= 1);
        }
    }
}

#[test]
fn neighbours_that_are_lost_together_are_named_too() {
    let sample = sample(9, 80, true, 1 << 20);
    let mut random = Random(2);
    for run in 2..5 {
        for start in (0..sample.frames.len() - run).rev().step_by(if run == 2 { 2 } else { 5 }) {
            let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
            let hit = &sample.frames[start..start + run];
            for (position, _) in hit {
                let path = format!("lanes/normal/slot-{:04}.seg", position.segment - 1);
                let sector = u64::from(position.byte) / SECTOR;
                damage(&image, &path, sector, Damage::Garbage, &mut random);
            }
            let lost = check(&sample, &image, false, &format!("frames {start}..{}", start + run));
            assert!(lost <= run);
        }
    }
}

#[test]
fn a_missing_or_cut_off_segment_is_a_gap() {
    let sample = sample(12, 120, true, 1 << 20);
    let segments = sample.frames[sample.frames.len() - 1].0.segment;
    assert!(segments >= 4);
    for segment in 1..segments {
        for keep in [0u64, 512, 4096] {
            let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
            let path = format!("lanes/normal/slot-{:04}.seg", segment - 1);
            image.truncate(&path, keep);
            let lost = check(&sample, &image, false, &format!("{path} cut to {keep}"));
            assert!(lost > 0);
        }
    }
}

#[test]
fn what_stands_behind_rot_is_read_though_the_segment_behind_is_gone() {
    let sample = sample(12, 120, true, 1 << 20);
    let groups_of = |segment: u64| {
        sample.frames.iter().filter(move |(position, _)| position.segment == segment)
    };
    let segments = sample.frames[sample.frames.len() - 1].0.segment;
    for segment in 1..segments - 1 {
        // Not the first, which is the checkpoint.
        let (rotten, _) = groups_of(segment).nth(2).expect("a segment of several groups");
        let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
        let path = |segment: u64| format!("lanes/normal/slot-{:04}.seg", segment - 1);
        image.damage(&path(segment), u64::from(rotten.byte), |bytes| bytes.fill(0), 512);
        image.truncate(&path(segment + 1), 0);
        let what = format!("{rotten} and segment {}", segment + 1);
        let lost = check(&sample, &image, false, &what);
        // The one, and those of the segment without its checkpoint; nothing else.
        assert!(lost <= groups_of(segment + 1).count(), "{what}: {lost} groups");
    }
}

#[test]
fn recovery_tells_where_the_journal_starts_and_ends() {
    let storage = SimStorage::new(3);
    let mut rig = Rig::open(&storage, 1);
    let new = rig.recovery.start;
    assert_eq!(new, rig.recovery.end, "nothing is there yet");
    let (mut random, mut model) = (Random(3), Model::default());
    for _ in 0..20 {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    let end = rig.lane.reader().end();
    drop(rig);
    let again = Rig::open(&storage, 1 << 30).recovery;
    assert_eq!(again.start, JournalPosition { segment: 1, byte: SECTOR as u32 });
    assert_eq!(again.end, end);
}

/// A lane whose last frame is plainly ours and not intact: its ends, its image, where the frame is.
fn suspect_lane(sample: &Sample) -> (Rig, SimStorage, Vec<u64>, String) {
    let last = sample.frames[sample.frames.len() - 1].0;
    let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
    let path = format!("lanes/normal/slot-{:04}.seg", last.segment - 1);
    image.damage(&path, u64::from(last.byte), |bytes| bytes[90] ^= 1, 512);
    let rig = Rig::open_with(&image, 1 << 40, sample.config.clone());
    assert_eq!(rig.recovery.suspect_tail.clone().expect("it is reported").at, last);
    let ends = ends(&rig);
    for (stream, end) in (0..STREAMS).zip(&ends) {
        assert!(*end >= sample.model.streams[&stream].acked);
    }
    (rig, image, ends, path)
}

fn ends(rig: &Rig) -> Vec<u64> {
    let reader = rig.lane.reader();
    (0..STREAMS).map(|stream| reader.bounds(StreamId(stream)).unwrap().durable_end.0).collect()
}

fn put(rig: &mut Rig, stream: u32) {
    let envelope = std::sync::Arc::new(edge_wire::Envelope::new(None, &[]));
    let envelope = rig.lane.envelope(&envelope);
    rig.lane.append_record(StreamId(stream), envelope, 0, Some(b"x")).unwrap();
    rig.commit().unwrap();
}

#[test]
fn a_suspect_tail_is_not_overwritten_and_judged_once() {
    let sample = sample(13, 40, false, 1 << 20);
    let last = sample.frames[sample.frames.len() - 1].0;
    let (mut rig, image, _, path) = suspect_lane(&sample);
    put(&mut rig, 1);
    let after = ends(&rig);
    for round in 0..3 {
        let again = Rig::open_with(&image, (1 << 41) + round, sample.config.clone());
        assert_eq!(ends(&again), after, "offsets do not jump a second time");
        assert_eq!(again.recovery.suspect_tail, None);
    }
    // The bit flips back: what follows is as it was.
    image.damage(&path, u64::from(last.byte), |bytes| bytes[90] ^= 1, 512);
    let again = Rig::open_with(&image, 1 << 42, sample.config.clone());
    assert_eq!(ends(&again), after);
}

#[test]
fn a_suspect_tail_stays_suspect_if_the_power_goes_again() {
    let sample = sample(13, 40, false, 1 << 20);
    let (mut rig, image, before, _) = suspect_lane(&sample);
    let images = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let taken = std::sync::Arc::clone(&images);
    image.on_operation(Box::new(move |_, storage: &SimStorage| {
        for policy in CrashPolicy::ALL {
            for seed in 0..10 {
                taken.lock().unwrap().push(storage.crash_image(policy, seed));
            }
        }
    }));
    put(&mut rig, 1);
    let images = images.lock().unwrap();
    assert!(images.len() > 100);
    for image in images.iter() {
        let again = Rig::open_with(image, 1 << 43, sample.config.clone());
        for (end, before) in ends(&again).iter().zip(&before) {
            assert!(end >= before, "an offset could be given out twice");
        }
    }
}

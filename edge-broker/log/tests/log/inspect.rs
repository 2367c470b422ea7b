//! An inspection finds every damaged byte, names what it cost, and says nothing of a lane that is whole.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use edge_log::inspect::{
    Damage, DamageKind, LaneReport, Lost, VerifyOptions, verify_lane, verify_segment,
};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{JournalPosition, LaneConfig, OpenMode, Storage};

use crate::common::{self, DIR, Model, Random, Rig, STREAMS, clock, config, records};

fn look(storage: &SimStorage) -> LaneReport {
    verify_lane(storage, DIR, &VerifyOptions::default(), &mut ()).unwrap()
}

struct Sample {
    storage: SimStorage,
    model: Model,
    config: LaneConfig,
}

fn sample(seed: u64, groups: u64, sealed: bool, budget_bytes: u64) -> Sample {
    let storage = SimStorage::new(seed);
    let mut random = Random(seed);
    let mut model = Model::default();
    let config = LaneConfig {
        budget_bytes,
        when_full: edge_log::WhenFull::DropOldest { unsent: true },
        ..config()
    };
    let mut rig = Rig::open_with(&storage, 1, config.clone());
    for _ in 0..groups {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    if sealed {
        rig.lane.seal(&clock(1 << 30), true).unwrap();
    }
    Sample { storage, model, config }
}

/// Offsets of a stream that a report says are there.
fn there(report: &LaneReport, stream: u32) -> BTreeSet<u64> {
    let Some(stream) = report.streams.iter().find(|found| found.stream == stream) else {
        return BTreeSet::new();
    };
    (stream.first..stream.end)
        .filter(|offset| !stream.missing.iter().any(|hole| (hole.from..hole.to).contains(offset)))
        .collect()
}

#[test]
fn a_whole_lane_is_sound_and_every_record_is_counted() {
    for (seed, sealed, budget) in
        [(1, true, 1 << 20), (2, false, 1 << 20), (3, true, 64 << 10), (4, false, 48 << 10)]
    {
        let sample = sample(seed, 120, sealed, budget);
        let report = look(&sample.storage);
        assert!(report.is_sound(), "seed {seed}: {:#?}", report.damage);
        assert_eq!(report.clean_shutdown, sealed);
        assert_eq!((report.suspect_tail, report.torn_tail), (None, None));
        let rig = Rig::open_with(&sample.storage, 1 << 40, sample.config.clone());
        assert_eq!(report.end, rig.recovery.end);
        assert_eq!(report.start, rig.recovery.start);
        for stream in 0..STREAMS {
            let found = records(&rig.lane.reader(), stream);
            let offsets: BTreeSet<u64> = found.iter().map(|(offset, _)| *offset).collect();
            let seen = report.streams.iter().find(|seen| seen.stream == stream).unwrap();
            assert!(there(&report, stream).is_superset(&offsets), "seed {seed}, stream {stream}");
            assert_eq!(seen.end, sample.model.streams[&stream].acked);
            assert_eq!(seen.topic.as_deref(), Some(format!("topic-{stream}").as_str()));
        }
    }
}

#[test]
fn a_crash_is_no_damage() {
    let storage = SimStorage::new(5);
    let (mut random, mut model) = (Random(5), Model::default());
    let mut rig = Rig::open(&storage, 1);
    for _ in 0..40 {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
        for policy in CrashPolicy::ALL {
            let image = storage.crash_image(policy, random.next());
            let mut report = look(&image);
            // The simulated disk may tear what was written long ago; a real one has written it back.
            report.damage.retain(|damage| damage.kind != DamageKind::SideIndex);
            assert!(report.is_sound(), "{policy:?}: {:#?}", report.damage);
        }
    }
}

#[test]
fn every_damaged_sector_is_found_and_what_it_cost_is_named() {
    let mut random = Random(8);
    let mut kinds: BTreeMap<DamageKind, u32> = BTreeMap::new();
    for round in 0..4u64 {
        let sample =
            sample(20 + round, 70, round != 1, if round == 2 { 64 << 10 } else { 1 << 20 });
        let files: Vec<_> = sample
            .storage
            .files()
            .into_iter()
            .filter(|(path, _)| !path.ends_with(".tmp"))
            .collect();
        let before = look(&sample.storage);
        for _ in 0..100 {
            let (path, length) = &files[random.below(files.len() as u64) as usize];
            let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
            let sector = if random.below(8) == 0 { 0 } else { random.below(length / 512) * 512 };
            let mut changed = false;
            let flip = random.below(2) == 0;
            image.damage(
                path,
                sector,
                |bytes| {
                    let old = bytes.to_vec();
                    if flip {
                        bytes[random.below(512) as usize] ^= 1 << random.below(8);
                    } else {
                        bytes.fill(0);
                    }
                    changed = old != bytes;
                },
                512,
            );
            if !changed {
                continue;
            }
            let report = look(&image);
            for damage in &report.damage {
                *kinds.entry(damage.kind).or_default() += 1;
                assert_eq!(&damage.file, path, "{damage:?}");
                let end = damage.byte + damage.bytes.max(512);
                let inside = damage.kind == DamageKind::SideIndex
                    || (damage.byte..end).contains(&sector)
                    || damage.kind == DamageKind::SegmentHeader && sector == 0;
                assert!(inside, "sector {sector}: {damage:?}");
                assert!(!damage.remedy.is_empty() && !damage.what.is_empty());
            }
            // What it says is lost is exactly what cannot be read.
            for stream in 0..STREAMS {
                let lost: BTreeSet<u64> = report
                    .damage
                    .iter()
                    .flat_map(|damage| &damage.lost)
                    .filter(|lost| lost.stream == stream)
                    .flat_map(|lost| lost.from..lost.to)
                    .collect();
                let gone: BTreeSet<u64> =
                    there(&before, stream).difference(&there(&report, stream)).copied().collect();
                let tail = report.damage.iter().any(|damage| damage.blind);
                assert!(
                    gone == lost || tail,
                    "{path} {sector}: {gone:?}, {lost:?} {:#?}",
                    report.damage
                );
            }
            if report.is_sound() {
                // Only what no checksum covers: padding, and what no frame stands in.
                let (mut whole, mut hurt) = (before.clone(), report);
                whole.notes.clear();
                hurt.notes.clear();
                hurt.torn_tail = None;
                whole.read_bytes = hurt.read_bytes;
                let unsealed_header = hurt.end < whole.end;
                assert!(whole == hurt || unsealed_header, "{path} {sector}");
            }
        }
    }
    for kind in [DamageKind::Body, DamageKind::FrameHeader, DamageKind::SegmentHeader] {
        assert!(kinds.get(&kind).is_some_and(|count| *count > 3), "{kinds:?}");
    }
}

impl Sample {
    /// Byte of some frames in the first slot.
    fn frames(&self) -> Vec<(JournalPosition, JournalPosition)> {
        let rig = Rig::open_with(
            &self.storage.crash_image(CrashPolicy::KeepAll, 0),
            1 << 40,
            self.config.clone(),
        );
        let reader = rig.lane.reader();
        let mut frames = Vec::new();
        let mut at = JournalPosition::START;
        while let edge_log::GroupAt::Group(group) = reader.group(at).unwrap() {
            frames.push((group.position(), group.next()));
            at = group.next();
        }
        frames
    }
}

#[test]
fn a_large_hole_is_named_as_a_whole() {
    for (budget, sealed) in [(1 << 20, true), (64 << 10, false)] {
        let sample = sample(31, 90, sealed, budget);
        let files: Vec<_> =
            sample.storage.files().into_iter().filter(|(path, _)| path.ends_with(".seg")).collect();
        for (path, length) in &files {
            for (from, sectors) in [(2, 9), (3, 30), (8, 24), (4, length / 512)] {
                let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
                let until = (*length).min((from + sectors) * 512);
                for sector in (from * 512..until).step_by(512) {
                    image.damage(path, sector, |bytes| bytes.fill(0), 512);
                }
                let report = look(&image);
                for stream in &report.streams {
                    let told: Vec<(u64, u64)> = report
                        .damage
                        .iter()
                        .flat_map(|damage| &damage.lost)
                        .filter(|lost| lost.stream == stream.stream)
                        .map(|lost| (lost.from, lost.to))
                        .collect();
                    let named: BTreeSet<u64> =
                        told.iter().flat_map(|(from, to)| *from..*to).collect();
                    let missing: BTreeSet<u64> =
                        stream.missing.iter().flat_map(|hole| hole.from..hole.to).collect();
                    assert_eq!(
                        named, missing,
                        "{path}, sectors {from}+{sectors}, stream {}: {:#?}",
                        stream.stream, report.damage
                    );
                    let bytes: u64 = told.iter().map(|(from, to)| to - from).sum();
                    assert_eq!(bytes, named.len() as u64, "nothing is named twice: {told:?}");
                }
            }
        }
    }
}

#[test]
fn a_torn_tail_a_suspect_tail_and_rot_are_told_apart() {
    let sample = sample(31, 20, false, 1 << 20);
    let frames = sample.frames();
    let (last, end) = frames[frames.len() - 1];
    let path = format!("{DIR}/slot-{:04}.seg", last.segment - 1);
    let image = || sample.storage.crash_image(CrashPolicy::KeepAll, 0);

    let torn = image();
    torn.damage(&path, u64::from(end.byte) + 512, |bytes| bytes.fill(7), 512);
    let report = look(&torn);
    assert!(report.is_sound() && report.torn_tail == Some(end), "{report:#?}");

    let suspect = image();
    suspect.damage(&path, u64::from(last.byte) + 200, |bytes| bytes[0] ^= 1, 8);
    let report = look(&suspect);
    assert!(!report.is_sound());
    assert_eq!(report.suspect_tail, Some(last));
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].kind, DamageKind::SuspectTail);

    let rot = image();
    let (middle, _) = frames[frames.len() - 3];
    rot.damage(&path, u64::from(middle.byte) + 200, |bytes| bytes[0] ^= 1, 8);
    let report = look(&rot);
    assert!(!report.is_sound() && report.suspect_tail.is_none());
    let damage = &report.damage[0];
    assert_eq!((damage.segment, damage.byte), (middle.segment, u64::from(middle.byte)));
    assert!(matches!(damage.kind, DamageKind::Body | DamageKind::Directory), "{damage:?}");
    assert!(!damage.lost.is_empty() && damage.lost.iter().all(|lost| lost.topic.is_some()));
}

#[test]
fn what_a_start_told_is_known_afterwards() {
    let sample = sample(33, 20, false, 1 << 20);
    let frames = sample.frames();
    for (index, (position, _)) in frames.iter().enumerate() {
        let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
        let path = format!("{DIR}/slot-{:04}.seg", position.segment - 1);
        image.damage(&path, u64::from(position.byte) + 132, |bytes| bytes[0] ^= 1, 8);
        let report = look(&image);
        assert!(!report.is_sound(), "{position}");
        let lost: u64 = report
            .damage
            .iter()
            .flat_map(|damage| &damage.lost)
            .map(|lost| lost.to - lost.from)
            .sum();
        let mut rig = Rig::open_with(&image, 1 << 41, sample.config.clone());
        rig.lane.note_damage(*position);
        rig.maintain();
        rig.commit().unwrap();
        rig.tick += 1;
        let mut owner = common::Owner(0);
        rig.lane.start_segment(&clock(rig.tick), rig.tick, &mut owner).unwrap();
        rig.lane.seal(&clock(rig.tick), true).unwrap();
        drop(rig);
        let report = look(&image);
        let told: u64 = report.gaps.iter().map(|gap| gap.range.to - gap.range.from).sum();
        if report.damage.iter().any(|damage| damage.blind) {
            // Nobody knows what it held: every stream goes on behind what it may have been.
            assert!(told > lost);
        } else {
            assert_eq!(told, lost, "{position}: {:#?}", report.gaps);
        }
        let all_known = report.damage.iter().all(|damage| damage.known || damage.lost.is_empty());
        assert!(all_known, "frame {index}: {:#?}", report.damage);
    }
}

#[test]
fn a_tail_that_a_start_told_is_named_by_its_gap() {
    let sample = sample(33, 20, false, 1 << 20);
    let frames = sample.frames();
    let (last, _) = frames[frames.len() - 1];
    let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
    let path = format!("{DIR}/slot-{:04}.seg", last.segment - 1);
    // Its header: how long its directory is, and with it what it held, is not known any more.
    image.damage(&path, u64::from(last.byte) + 100, |bytes| bytes[0] ^= 1, 8);
    let before = look(&image);
    let tail = before.damage.iter().find(|damage| damage.kind == DamageKind::SuspectTail).unwrap();
    assert!(tail.blind && tail.lost.is_empty() && !tail.known, "{tail:#?}");

    let mut rig = Rig::open_with(&image, 1 << 41, sample.config.clone());
    rig.commit().unwrap();
    rig.lane.seal(&clock(rig.tick), true).unwrap();
    drop(rig);
    let after = look(&image);
    assert!(after.is_sound(), "{:#?}", after.damage);
    let place =
        |damage: &&Damage| (damage.segment, damage.byte) == (last.segment, u64::from(last.byte));
    let known = after.damage.iter().find(place).unwrap();
    assert!(known.known && known.what.contains("told as a gap: suspect tail"), "{known:#?}");
    let ranges = |lost: &mut dyn Iterator<Item = &Lost>| -> BTreeSet<(u32, u64, u64)> {
        lost.map(|lost| (lost.stream, lost.from, lost.to)).collect()
    };
    let told = ranges(&mut after.gaps.iter().map(|gap| &gap.range));
    assert!(!told.is_empty());
    assert_eq!(ranges(&mut known.lost.iter()), told);
}

#[test]
fn lost_slots_doubles_and_strangers_are_named() {
    let sample = sample(41, 100, true, 1 << 20);
    let image = |change: &dyn Fn(&SimStorage)| {
        let image = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
        change(&image);
        look(&image)
    };
    let copy = |image: &SimStorage, from: &str, to: &str| {
        let from = image.open(from, OpenMode::Read).unwrap();
        let mut bytes = vec![0; from.len().unwrap() as usize];
        from.read_at(&mut bytes, 0).unwrap();
        let to = image.open(to, OpenMode::Create).unwrap();
        to.write_at(&bytes, 0).unwrap();
        to.sync_data().unwrap();
    };
    let report = image(&|image| image.remove(&format!("{DIR}/slot-0002.seg")).unwrap());
    let missing = report.damage.iter().find(|d| d.kind == DamageKind::MissingSegment).unwrap();
    assert_eq!(missing.segment, 3);
    let lost: u64 = missing.lost.iter().map(|lost| lost.to - lost.from).sum();
    assert!(lost > 20, "{missing:?}");
    assert!(!missing.known);

    let path = |slot: u32| format!("{DIR}/slot-{slot:04}.seg");
    let report = image(&|image| copy(image, &path(1), &path(77)));
    assert_eq!(report.damage.len(), 1, "{:#?}", report.damage);
    assert_eq!(report.damage[0].kind, DamageKind::DoubleSegment);
    assert_eq!(report.damage[0].file, path(77));

    let report = image(&|image| {
        image.create_dir("lanes/other").unwrap();
        copy(image, &path(1), "lanes/other/slot-0000.seg");
    });
    assert!(report.is_sound());
    let other = sample.storage.crash_image(CrashPolicy::KeepAll, 0);
    other.create_dir("lanes/other").unwrap();
    copy(&other, &path(1), "lanes/other/slot-0000.seg");
    let report = verify_lane(&other, "lanes/other", &VerifyOptions::default(), &mut ()).unwrap();
    assert_eq!(report.damage[0].kind, DamageKind::ForeignSegment);

    let report = image(&|image| {
        for name in ["notes.txt", "slot-0099.tmp"] {
            image.open(&format!("{DIR}/{name}"), OpenMode::Create).unwrap();
        }
    });
    assert!(report.is_sound());
    assert!(report.notes.iter().any(|note| note.file.ends_with("notes.txt")));
    assert!(report.notes.iter().any(|note| note.file.ends_with("slot-0099.tmp")));

    let report = image(&|image| image.truncate(&path(1), 8 << 10));
    assert!(report.damage.iter().any(|damage| damage.kind == DamageKind::Length), "{report:#?}");
    assert!(!report.is_sound());
}

#[test]
fn a_segment_is_understood_alone() {
    let sample = sample(51, 60, true, 1 << 20);
    let whole = look(&sample.storage);
    let mut found: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for slot in 0..whole.segments {
        let path = format!("{DIR}/slot-{slot:04}.seg");
        let alone = SimStorage::new(0);
        let file = sample.storage.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        alone.open("copy.bin", OpenMode::Create).unwrap().write_at(&bytes, 0).unwrap();
        let report =
            verify_segment(&alone, "copy.bin", &VerifyOptions::default(), &mut ()).unwrap();
        assert!(report.is_sound(), "{:#?}", report.damage);
        for stream in &report.streams {
            assert!(stream.topic.is_some());
            if stream.records > 0 {
                found.entry(stream.stream).or_default().extend(stream.first..stream.end);
            }
        }
    }
    for stream in 0..STREAMS {
        assert_eq!(found[&stream], there(&whole, stream));
    }
    let alone = SimStorage::new(0);
    alone.open("noise", OpenMode::Create).unwrap().write_at(&[5; 4096], 0).unwrap();
    let error = verify_segment(&alone, "noise", &VerifyOptions::default(), &mut ()).unwrap_err();
    assert!(error.to_string().contains("not a segment"));
}

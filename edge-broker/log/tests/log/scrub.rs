//! The scrub finds rot that nobody reads, names it, and takes nothing else for rot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use edge_log::storage::{Fault, FaultKind, SimOperation, SimStorage, Storage};
use edge_log::{
    Commit, GapReason, JournalPosition, LaneConfig, LaneReader, Rot, ScrubStep, WhenFull,
};
use edge_wire::{Compression, ProducerId, ProducerStamp, StreamId};

use crate::common::{Model, Random, Rig, clock, config, producer_batch};

/// Bytes of a frame's header.
const HEADER: u64 = 128;

/// A lane of a few segments and where its groups stand.
fn written(groups: u64) -> (Rig, SimStorage, Vec<Commit>, Model) {
    let storage = SimStorage::new(3);
    let config = LaneConfig { budget_bytes: 1 << 20, ..config() };
    let mut rig = Rig::open_with(&storage, 1, config);
    let (mut random, mut model) = (Random(9), Model::default());
    let mut commits = Vec::new();
    for _ in 0..groups {
        rig.append_group(&mut random, &mut model);
        commits.push(commit(&mut rig));
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    assert!(commits[commits.len() - 1].position.segment >= 2);
    (rig, storage, commits, model)
}

fn commit(rig: &mut Rig) -> Commit {
    rig.tick += 1;
    rig.lane.commit(&clock(rig.tick), rig.tick, &mut rig.owner).unwrap()
}

fn path(at: JournalPosition) -> String {
    format!("lanes/normal/slot-{:04}.seg", at.segment - 1)
}

/// One pass over the whole journal; returns what was found and the bytes read.
fn pass(reader: &LaneReader) -> (Vec<Rot>, usize) {
    let mut scrub = reader.scrub();
    scrub.begin(JournalPosition::START, reader.end());
    let mut read = 0;
    while let ScrubStep::Read { bytes } = scrub.step().unwrap() {
        assert!(bytes <= 64 << 10, "{bytes} bytes in one step");
        read += bytes;
    }
    (scrub.take_found(), read)
}

#[test]
fn an_intact_journal_passes_and_is_read_whole() {
    let (rig, _, commits, _) = written(120);
    let (found, read) = pass(&rig.lane.reader());
    assert_eq!(found, []);
    let frames: u32 = commits.iter().map(|commit| commit.end.byte - commit.position.byte).sum();
    assert!(read >= frames as usize, "{read} of {frames} bytes");
}

#[test]
fn rot_is_found_without_any_reader_and_named_by_offset() {
    let (_, storage, commits, model) = written(120);
    for victim in (0..commits.len() - 1).step_by(7) {
        let image = storage.kill_image();
        let mut rig =
            Rig::open_with(&image, 1 << 40, LaneConfig { budget_bytes: 1 << 20, ..config() });
        rig.maintain();
        let at = commits[victim].position;
        // The middle of the frame is in its body, however small it is.
        let middle = HEADER + u64::from(commits[victim].end.byte - at.byte - 512) / 2;
        image.damage(&path(at), u64::from(at.byte) + middle, |bytes| bytes[0] ^= 0x10, 1);
        let reader = rig.lane.reader();
        let (found, _) = pass(&reader);
        let is_first = found.first().is_some_and(|rot| rot.at == at);
        // The flipped bit may be padding, or a repeated directory; both cost nothing.
        let costs = found.iter().any(|rot| rot.what == "a group");
        assert!(found.len() <= 1 && (found.is_empty() || is_first), "{found:?} for {at}");
        rig.maintain();
        let gaps = reader.gaps();
        assert_eq!(gaps.is_empty(), !costs, "{gaps:?}");
        for (stream, known) in &model.streams {
            let group = victim as u64 + 1;
            let lost: Vec<u64> = known
                .attempted
                .iter()
                .filter(|(_, (_, of))| *of == group && costs)
                .map(|(offset, _)| *offset)
                .collect();
            let told: Vec<u64> = gaps
                .iter()
                .filter(|gap| gap.stream == StreamId(*stream) && gap.reason == GapReason::Rot)
                .flat_map(|gap| gap.from.0..gap.to.0)
                .collect();
            assert_eq!(told, lost, "stream {stream}");
        }
        // Told once, and for ever.
        assert_eq!(reader.stats().lost_records > 0, costs);
        commit(&mut rig);
        let again = Rig::open_with(&image.kill_image(), 1 << 41, config());
        assert_eq!(again.recovery.gaps.len(), gaps.len());
    }
}

#[test]
fn every_part_of_a_frame_is_checked() {
    let (_, storage, commits, _) = written(40);
    let victim = commits[20].position;
    let mut kinds = [0; 3];
    for byte in 0..u64::from(commits[20].end.byte - victim.byte) {
        let image = storage.kill_image();
        let rig = Rig::open_with(&image, 1 << 40, config());
        image.damage(&path(victim), u64::from(victim.byte) + byte, |bytes| bytes[0] ^= 1, 1);
        let (found, _) = pass(&rig.lane.reader());
        match found.as_slice() {
            [] => kinds[0] += 1,
            [Rot { at, what: "a group" }] if *at == victim => kinds[1] += 1,
            [Rot { at, what: "the repeated directory of a group" }] if *at == victim => {
                kinds[2] += 1;
            }
            other => panic!("{other:?} for byte {byte}"),
        }
        assert!(byte >= HEADER || found.len() == 1, "byte {byte} of the header");
    }
    // Only padding is not checked.
    let [unseen, group, directory] = kinds;
    assert!(unseen < 512 && group > 128 && directory > 4, "{kinds:?}");
}

#[test]
fn heads_and_side_indexes_are_checked() {
    let (mut rig, storage, _, _) = written(120);
    rig.maintain();
    storage.damage("lanes/normal/slot-0001.seg", 40, |bytes| bytes[0] ^= 1, 1);
    storage.damage("lanes/normal/slot-0002.idx", 50, |bytes| bytes[0] ^= 1, 1);
    storage.remove("lanes/normal/slot-0000.idx").unwrap();
    let reader = rig.lane.reader();
    let (found, _) = pass(&reader);
    let told: Vec<(u64, &str)> = found.iter().map(|rot| (rot.at.segment, rot.what)).collect();
    assert_eq!(told, [(2, "the header of the segment"), (3, "the side index")]);
    rig.maintain();
    assert!(reader.gaps().is_empty(), "no record is lost");
    let (found, _) = pass(&reader);
    assert_eq!(found.len(), 1, "the indexes are whole again: {found:?}");
    assert!(storage.files().iter().any(|(name, _)| name == "lanes/normal/slot-0000.idx"));
}

#[test]
fn a_checkpoint_is_checked() {
    let (mut rig, storage, _, _) = written(120);
    storage.damage("lanes/normal/slot-0001.seg", 512 + 150, |bytes| bytes[0] ^= 1, 1);
    let reader = rig.lane.reader();
    let (found, _) = pass(&reader);
    assert_eq!(found, [Rot { at: JournalPosition { segment: 2, byte: 512 }, what: "a group" }]);
    rig.maintain();
    assert!(reader.gaps().is_empty(), "no record is lost");
}

#[test]
fn a_file_that_was_cut_off_is_damage_up_to_its_end() {
    let (mut rig, storage, commits, _) = written(120);
    storage.truncate("lanes/normal/slot-0001.seg", 4096);
    let reader = rig.lane.reader();
    let (found, _) = pass(&reader);
    let first =
        commits.iter().map(|commit| commit.position).find(|at| at.segment == 2 && at.byte >= 4096);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].at.segment == 2 && found[0].at <= first.unwrap());
    rig.maintain();
    assert!(!reader.gaps().is_empty());
}

#[test]
fn what_is_found_twice_is_told_once() {
    let (rig, storage, commits, _) = written(60);
    let at = commits[30].position;
    storage.damage(&path(at), u64::from(at.byte) + 200, |bytes| bytes.fill(0xff), 64);
    let reader = rig.lane.reader();
    let mut scrub = reader.scrub();
    for expected in [1, 0] {
        scrub.begin(JournalPosition::START, reader.end());
        while scrub.step().unwrap() != ScrubStep::Done {}
        assert_eq!(scrub.take_found().len(), expected);
    }
}

#[test]
fn a_range_is_checked_and_no_more() {
    let (rig, storage, commits, _) = written(120);
    for victim in [20, 100] {
        let at = commits[victim].position;
        storage.damage(&path(at), u64::from(at.byte) + 4, |bytes| bytes[0] ^= 1, 1);
    }
    let reader = rig.lane.reader();
    let mut scrub = reader.scrub();
    let mut found_in = |from, to| {
        scrub.begin(from, to);
        while scrub.step().unwrap() != ScrubStep::Done {}
        scrub.take_found().iter().map(|rot| rot.at).collect::<Vec<_>>()
    };
    let upstream = commits[60].position;
    assert_eq!(found_in(upstream, reader.end()), [commits[100].position]);
    assert_eq!(found_in(JournalPosition::START, upstream), [commits[20].position]);
}

#[test]
fn a_ring_that_turns_under_the_scrub_is_not_rot() {
    let storage = SimStorage::new(4);
    let mut rig = Rig::open_with(
        &storage,
        1,
        LaneConfig { when_full: WhenFull::DropOldest { unsent: true }, ..config() },
    );
    let (mut random, mut model) = (Random(5), Model::default());
    let mut scrub = rig.lane.reader().scrub();
    let (mut passes, mut turned) = (0, 0);
    for round in 0..600 {
        rig.append_group(&mut random, &mut model);
        commit(&mut rig);
        rig.acknowledge(&mut model);
        rig.maintain();
        if round % 3 == 0 && scrub.step().unwrap() == ScrubStep::Done {
            let reader = rig.lane.reader();
            scrub.begin(JournalPosition::START, reader.end());
            passes += 1;
        }
        turned = rig.lane.reader().stats().segments_recycled;
    }
    assert_eq!(scrub.take_found(), []);
    assert!(passes > 3 && turned > 10, "{passes} passes over {turned} recycled segments");
    assert!(rig.lane.reader().gaps().is_empty());
}

#[test]
fn a_read_that_fails_once_is_not_rot() {
    let (rig, storage, _, _) = written(60);
    let reader = rig.lane.reader();
    for after in 0..20 {
        storage.inject(Fault {
            operation: SimOperation::Read,
            after,
            kind: FaultKind::Device,
            sticky: false,
        });
        assert_eq!(pass(&reader).0, [], "the read {after} reads away");
        storage.heal();
    }
}

#[test]
fn a_batch_larger_than_a_step_is_checked_in_pieces() {
    let storage = SimStorage::new(6);
    let config = LaneConfig { budget_bytes: 8 << 20, segment_bytes: 1 << 20, ..config() };
    let mut rig = Rig::open_with(&storage, 1, config);
    let mut random = Random(1);
    let value: Vec<u8> = (0..300 << 10).map(|_| random.next() as u8).collect();
    let stamp = ProducerStamp { id: ProducerId(1), epoch: 0, base_sequence: 0 };
    rig.lane
        .append_batch(StreamId(0), &producer_batch(stamp, Compression::None, &[value]))
        .unwrap();
    let large = commit(&mut rig);
    let reader = rig.lane.reader();
    assert_eq!(pass(&reader).0, []);
    storage.damage(&path(large.position), 250 << 10, |bytes| bytes[0] ^= 1, 1);
    assert_eq!(pass(&reader).0, [Rot { at: large.position, what: "a group" }]);
}

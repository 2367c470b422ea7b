//! A lane that is full, and one that fails.

use super::*;

#[test]
fn a_full_lane_refuses_and_goes_on_when_the_uplink_has_caught_up() {
    let mut rig = Rig::new(LaneConfig { protect_unsent: true, ..small() });
    let mut written = 0u64;
    let error = loop {
        rig.append(1, &format!("{written:0>200}"));
        match rig.commit() {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Full), "{error}");
    assert_eq!(rig.lane.state(), crate::stats::LaneState::Full);
    assert!(matches!(rig.commit(), Err(CommitError::Full)));
    assert_eq!(rig.values(1).len() as u64, written, "nothing is lost");
    // The oldest segment is upstream: there is room again, and the group that waited goes in.
    let reader = rig.lane.reader();
    rig.lane.handle_upstream(JournalPosition { segment: reader.start().segment + 1, byte: 0 });
    rig.commit().unwrap();
    assert_eq!(rig.end(1), written + 1);
    assert_eq!(rig.lane.state(), crate::stats::LaneState::Open);
    assert!(rig.lane.reader().gaps().is_empty());
}

#[test]
fn what_a_full_lane_gives_back_leaves_no_trace() {
    let mut rig = Rig::new(LaneConfig { protect_unsent: true, ..small() });
    let mut written = 0u64;
    while rig.lane.state() != crate::stats::LaneState::Full {
        rig.append(1, &format!("{written:0>200}"));
        written += u64::from(rig.commit().is_ok());
    }
    let stamp = ProducerStamp { id: ProducerId(5), epoch: 0, base_sequence: 0 };
    let batch = producer_batch(Compression::None, Some(stamp), &["held"]);
    assert!(matches!(rig.lane.append_batch(StreamId(2), &batch), Ok(Appended::New { .. })));
    assert!(matches!(rig.lane.append_batch(StreamId(2), &batch), Ok(Appended::Duplicate { .. })));
    let log_start = rig.lane.set_log_start(StreamId(1), Offset(1)).unwrap();
    rig.lane.discard_records();

    // Offsets and sequences are given out again, and what is not a record is still to be written.
    let again = rig.lane.append_batch(StreamId(2), &batch).unwrap();
    assert_eq!(again, Appended::New { base_offset: Offset(0) });
    assert!(matches!(rig.commit(), Err(CommitError::Full)));
    rig.lane.discard_records();
    assert!(rig.lane.pending_bytes() > 0, "the log start");
    let reader = rig.lane.reader();
    rig.lane.handle_upstream(JournalPosition { segment: reader.start().segment + 1, byte: 0 });
    rig.append(1, "after");
    rig.commit().unwrap();
    assert_eq!((rig.end(1), rig.end(2)), (written + 1, 0));
    let rig = rig.reopen(CrashPolicy::DropAll, 1);
    assert_eq!((rig.end(1), rig.end(2)), (written + 1, 0));
    assert_eq!(rig.values(1).last().map(|(_, value)| value.as_str()), Some("after"));
    assert!(rig.lane.reader().bounds(StreamId(1)).unwrap().log_start >= log_start);
}

#[test]
fn dropping_what_was_not_upstream_leaves_a_gap() {
    let when_full = WhenFull::DropOldest { unsent: true };
    let mut rig = Rig::new(LaneConfig { protect_unsent: true, when_full, ..small() });
    for index in 0..1000 {
        rig.put(1, &format!("{index:0>100}"));
    }
    let bounds = rig.lane.reader().bounds(StreamId(1)).unwrap();
    let check = |rig: &Rig| {
        let gaps = rig.lane.reader().gaps();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!((gaps[0].from, gaps[0].reason), (Offset(0), GapReason::DroppedOldest));
        assert_eq!(gaps[0].to, bounds.log_start);
    };
    check(&rig);
    assert_eq!(rig.lane.reader().stats().dropped_records, bounds.log_start.0);
    let rig = rig.reopen(CrashPolicy::DropAll, 0);
    check(&rig);
}

#[test]
fn a_failed_write_takes_the_group_into_the_next_segment() {
    let mut rig = Rig::new(small());
    rig.put(1, "a");
    rig.maintain();
    let operation = SimOperation::Write;
    for value in ["b", "c"] {
        rig.storage.inject(Fault { operation, after: 0, kind: FaultKind::Device, sticky: false });
        let segment = rig.lane.reader().end().segment;
        rig.put(1, value);
        assert_eq!(rig.lane.reader().end().segment, segment + 1);
        rig.maintain();
    }
    let values = rig.values(1);
    assert_eq!(values.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let rig = rig.reopen(CrashPolicy::DropAll, 1);
    assert_eq!(rig.values(1), values);
    assert!(rig.lane.reader().gaps().is_empty());
}

#[test]
fn a_failed_sync_or_a_device_that_takes_nothing_poisons_the_lane() {
    for (operation, sticky) in [(SimOperation::Write, true), (SimOperation::Sync, false)] {
        let mut rig = Rig::new(small());
        rig.put(1, "a");
        rig.storage.inject(Fault { operation, after: 0, kind: FaultKind::Device, sticky });
        rig.append(1, "b");
        assert!(matches!(rig.commit(), Err(CommitError::Poisoned { source: Some(_), .. })));
        assert!(matches!(rig.commit(), Err(CommitError::Poisoned { source: None, .. })));
        assert_eq!(rig.end(1), 1);
        let envelope = rig.lane.envelope(&Arc::new(Envelope::new(None, &[])));
        assert!(matches!(
            rig.lane.append_record(StreamId(1), envelope, 0, None),
            Err(AppendError::Poisoned)
        ));
        rig.storage.heal();
        // Opened again it goes on; what was never acknowledged may be there or not, what was is.
        let mut rig = Rig::on(rig.storage.clone(), small(), 50);
        assert_eq!(rig.values(1)[0].1, "a");
        let end = rig.end(1);
        assert!((1..=2).contains(&end), "{end}");
        assert_eq!(rig.put(1, "c").0, end);
        assert_eq!(rig.values(1).last().unwrap().1, "c");
    }
}

#[test]
fn opening_a_full_lane_gives_nothing_up() {
    let drops = LaneConfig { when_full: WhenFull::DropOldest { unsent: true }, ..small() };
    let mut rig = Rig::new(drops.clone());
    for index in 0..300 {
        rig.put(1, &format!("{index:0>200}"));
    }
    // Stopped when its last slot had just been taken: a crash, or a repair that needed it.
    while rig.lane.slots.has_ready() {
        rig.append(1, &"x".repeat(200));
        rig.lane.commit(&clock(rig.tick), rig.tick, &mut ()).unwrap();
        rig.tick += 1;
    }
    let values = rig.values(1);
    let mut rig = rig.reopen(CrashPolicy::DropAll, 1);
    for _ in 0..3 {
        rig.tick += 1_000_000;
        rig.maintain();
    }
    assert_eq!(rig.values(1), values);
    // The same with a budget that has become smaller, as behind a repair that added a slot.
    let less =
        LaneConfig { budget_bytes: drops.budget_bytes - u64::from(drops.segment_bytes), ..drops };
    let image = rig.storage.crash_image(CrashPolicy::KeepAll, 2);
    let mut rig = Rig::on(image, less.clone(), rig.tick + 1_000_000);
    rig.maintain();
    assert_eq!(rig.values(1), values);
    // What is given up is given up for what comes in.
    for index in 0..300 {
        rig.put(1, &format!("{index:0>200}"));
    }
    assert!(rig.lane.shared.stats().used_bytes <= less.budget_bytes);
    assert_eq!(
        rig.values(1).last().map(|(_, value)| value.clone()),
        Some(format!("{:0>200}", 299))
    );
}

//! What is too large, and what gives way where room ends.

use super::*;

#[test]
fn records_too_large_are_refused_and_large_ones_go_alone() {
    let mut rig = Rig::new(small());
    let max = rig.lane.config().batch_bytes_max();
    rig.append(1, "small");
    let envelope = rig.lane.envelope(&Arc::new(Envelope::new(None, &[])));
    let value = vec![7u8; 5000];
    let mut append = |len: usize| {
        let value = &vec![7u8; len][..];
        rig.lane.append_record(StreamId(1), envelope, 0, Some(value))
    };
    assert!(matches!(append(5000), Err(AppendError::GroupFull)));
    assert!(matches!(append(max), Err(AppendError::TooLarge { .. })));
    rig.commit().unwrap();
    let envelope = rig.lane.envelope(&Arc::new(Envelope::new(None, &[])));
    rig.lane.append_record(StreamId(1), envelope, 0, Some(&value)).unwrap();
    assert!(rig.lane.is_group_full());
    rig.commit().unwrap();
    assert_eq!(rig.end(1), 2);
}

#[test]
fn envelopes_of_failed_appends_never_block_the_lane() {
    let mut rig = Rig::new(small());
    let max = rig.lane.config().batch_bytes_max();
    let too_large = vec![7u8; max];
    let fail = |rig: &mut Rig, index: usize| {
        let key = format!("{index:0>200}");
        let envelope = rig.lane.envelope(&Arc::new(Envelope::new(Some(key.as_bytes()), &[])));
        let appended = rig.lane.append_record(StreamId(1), envelope, 0, Some(&too_large));
        assert!(matches!(appended, Err(AppendError::TooLarge { .. })));
        assert!(!rig.lane.is_group_full());
        assert_eq!(rig.lane.pending_bytes(), 0);
        assert_eq!(rig.lane.poll_commit(0), CommitDecision::Idle);
    };
    for index in 0..100 {
        fail(&mut rig, index);
        // What is kept of them is bounded.
        assert!(rig.lane.pending.bytes() <= (1 << 10) + 300, "{}", rig.lane.pending.bytes());
    }
    // They do not take the room of the largest record there can be, and none is taken for its envelope.
    let envelope = Arc::new(Envelope::new(None, &[]));
    let room = max - RECORD_OVERHEAD_BYTES * 2 - envelope.encoded_len();
    let envelope = rig.lane.envelope(&envelope);
    rig.lane.append_record(StreamId(1), envelope, 0, Some(&too_large[..room])).unwrap();
    rig.commit().unwrap();
    fail(&mut rig, 1);
    rig.put(1, "after");
    let image = rig.storage.crash_image(CrashPolicy::DropAll, 0);
    let rig = Rig::on(image, small(), 1000);
    let values = rig.values(1);
    assert_eq!((values[0].1.len(), &*values[1].1), (room, "after"));
    rig.lane
        .reader()
        .read_batches(StreamId(1), Offset(1), &mut |batch| {
            batch
                .for_each_record(&mut |record| assert_eq!(record.key, Some(&b"key-1"[..])))
                .unwrap();
            ControlFlow::Break(())
        })
        .unwrap();
}

#[test]
fn names_that_a_killed_process_left_are_synced_before_anything_rests_on_them() {
    // The power goes after every operation of a process that was killed before its names were synced.
    let storage = SimStorage::new(3);
    let mut rig = Rig::on(storage.clone(), small(), 1);
    storage.inject(Fault {
        operation: SimOperation::SyncDir,
        after: 0,
        kind: FaultKind::Device,
        sticky: true,
    });
    rig.append(1, "lost with its name");
    assert!(rig.commit().is_err());
    drop(rig);
    let mut rig = Rig::on(storage.kill_image(), small(), 1000);
    rig.append(1, "acknowledged");
    // Without maintenance, which would make another slot and sync the names.
    rig.lane.commit(&clock(1001), 1001, &mut ()).unwrap();
    let values = rig.values(1);
    let rig = rig.reopen(CrashPolicy::DropAll, 0);
    assert_eq!(rig.values(1), values);
}

#[test]
fn a_checkpoint_that_does_not_fit_forgets_the_longest_idle_producers() {
    let config = LaneConfig { compression: GroupCompression::None, ..small() };
    let mut rig = Rig::new(config.clone());
    let stamp = |id| ProducerStamp { id: ProducerId(id), epoch: 0, base_sequence: 0 };
    let batch = |id| producer_batch(Compression::None, Some(stamp(id)), &["value"]);
    // More than a quarter of a segment of them, stream by stream.
    let ids = 600;
    for id in 0..ids {
        let stream = StreamId(1 + (id % 3) as u32);
        rig.lane.append_batch(stream, &batch(id)).unwrap();
        rig.commit().unwrap();
    }
    assert!(rig.lane.reader().end().segment > 3);
    let again = |rig: &mut Rig, id: u64| {
        rig.lane.append_batch(StreamId(1 + (id % 3) as u32), &batch(id)).unwrap()
    };
    assert!(matches!(again(&mut rig, ids - 1), Appended::Duplicate { .. }));
    let image = rig.storage.crash_image(CrashPolicy::DropAll, 0);
    let mut rig = Rig::on(image, config, 1 << 20);
    for id in ids - 30..ids {
        assert!(matches!(again(&mut rig, id), Appended::Duplicate { .. }), "{id}");
    }
}

#[test]
fn the_oldest_gaps_give_way_in_a_checkpoint() {
    let mut rig = Rig::new(LaneConfig { compression: GroupCompression::None, ..small() });
    rig.put(1, "a");
    {
        let mut gaps = rig.lane.shared.gaps();
        for index in 0..GAPS_MAX as u64 {
            let from = Offset((1 << 40) + index * 10);
            gaps.add(Gap {
                stream: StreamId(1),
                from,
                to: from.plus(1),
                reason: GapReason::Rot,
                at: JournalPosition { segment: 1, byte: 512 },
                wall_us: i64::MAX,
            });
        }
    }
    let whole = rig.lane.checkpoint_body(&[], 0).len();
    assert!(whole > rig.lane.config().segment_bytes as usize / 4, "{whole}");
    for index in 0..100 {
        rig.put(1, &format!("{index:0>200}"));
    }
    assert!(rig.lane.reader().end().segment > 1);
    let bodies: Vec<_> =
        (0..=roll::SHRINK_MAX).map(|shrink| rig.lane.checkpoint_body(&[], shrink).len()).collect();
    assert!(bodies.is_sorted_by(|a, b| a >= b) && bodies[bodies.len() - 1] < 1000, "{bodies:?}");
}

#[test]
fn a_slot_that_cannot_be_freed_is_left_alone_and_the_next_is_used() {
    let mut rig = Rig::new(small());
    while rig.lane.retiring.is_none() {
        rig.append(1, &"x".repeat(200));
        rig.lane.commit(&clock(rig.tick), rig.tick, &mut ()).unwrap();
        rig.tick += 1;
        // One step: a segment that is given up is not freed in the same one.
        if !rig.lane.slots.has_ready() {
            rig.lane.prepare_slot(&clock(rig.tick), rig.tick, false).unwrap();
        }
    }
    rig.storage.inject(Fault {
        operation: SimOperation::Write,
        after: 0,
        kind: FaultKind::Device,
        sticky: false,
    });
    rig.lane.prepare_slot(&clock(rig.tick), rig.tick, false).unwrap();
    rig.storage.heal();
    assert_eq!(rig.lane.slots.quarantined, 1);
    for index in 0..300 {
        rig.put(1, &format!("{index:0>200}"));
    }
    let values = rig.values(1);
    assert_eq!(values.last().unwrap().1, format!("{:0>200}", 299));
    let rig = rig.reopen(CrashPolicy::DropAll, 1);
    assert_eq!(rig.values(1), values);
    assert!(rig.recovery.gaps.is_empty());
}

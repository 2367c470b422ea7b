//! Rounds from records pushed by hand.

use super::*;

const S: StreamId = StreamId(1);
const T: StreamId = StreamId(2);

fn at(byte: u32) -> JournalPosition {
    JournalPosition { segment: 1, byte }
}

fn push(rebatcher: &mut Rebatcher, stream: StreamId, offset: u64, value: &[u8], byte: u32) {
    let record = RecordRef {
        offset: Offset(offset),
        timestamp_ms: 1_000_000 + offset as i64,
        key: Some(b"key"),
        headers_section: &[0],
        value: Some(value),
    };
    rebatcher.push_record(stream, &record, at(byte));
}

fn ranges(round: &Round) -> Vec<(u32, u64, u32)> {
    round.batches.iter().map(|batch| (batch.stream.0, batch.first.0, batch.count)).collect()
}

fn values(batch: &ReadyBatch) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    each_record(batch, |_, record| out.push(record.value.unwrap().to_vec())).unwrap();
    out
}

#[test]
fn records_of_a_stream_merge_and_keep_their_order() {
    let mut rebatcher = Rebatcher::new(RebatchLimits::default());
    for offset in 0..100 {
        push(&mut rebatcher, S, offset, &offset.to_le_bytes(), offset as u32);
        push(&mut rebatcher, T, 1000 + offset, b"t", offset as u32);
    }
    let round = rebatcher.cut(at(100));
    assert_eq!(ranges(&round), [(1, 0, 100), (2, 1000, 100)]);
    let expected: Vec<_> = (0..100u64).map(|offset| offset.to_le_bytes().to_vec()).collect();
    assert_eq!(values(&round.batches[0]), expected);
    assert_eq!((round.batches[0].first_at, round.batches[0].last_at), (at(0), at(99)));
    assert!(rebatcher.is_empty() && rebatcher.held_bytes() == 0);
    let view = RecordBatchView::parse(&round.batches[0].bytes).unwrap();
    assert!(view.verify_crc().is_ok() && view.header().base_offset == Offset(0));
    assert_eq!(view.header().attributes.compression(), Compression::Zstd);
}

#[test]
fn a_full_batch_is_closed_and_a_large_record_has_its_own() {
    let limits = RebatchLimits { batch_bytes: 1000, ..RebatchLimits::default() };
    let mut rebatcher = Rebatcher::new(limits);
    for offset in 0..10 {
        let size = if offset == 5 { 5000 } else { 300 };
        push(&mut rebatcher, S, offset, &vec![7; size], 0);
    }
    assert_eq!(
        ranges(&rebatcher.cut(at(1))),
        [(1, 0, 2), (1, 2, 2), (1, 4, 1), (1, 5, 1), (1, 6, 2), (1, 8, 2)]
    );
}

#[test]
fn a_hole_is_told_and_never_inside_a_batch() {
    let mut rebatcher = Rebatcher::new(RebatchLimits::default());
    push(&mut rebatcher, S, 4, b"a", 0);
    push(&mut rebatcher, S, 5, b"b", 0);
    push(&mut rebatcher, S, 9, b"c", 0);
    let round = rebatcher.cut(at(1));
    assert_eq!(ranges(&round), [(1, 4, 2), (1, 9, 1)]);
    assert_eq!(round.gaps, [GapSeen { stream: S, from: Offset(6), to: Offset(9) }]);
}

#[test]
fn what_was_seen_is_not_taken_twice() {
    let mut rebatcher = Rebatcher::new(RebatchLimits::default());
    rebatcher.follow_from(S, Offset(2));
    for offset in 0..4 {
        push(&mut rebatcher, S, offset, b"x", 0);
    }
    assert_eq!(ranges(&rebatcher.cut(at(1))), [(1, 2, 2)]);
    for offset in 0..6 {
        push(&mut rebatcher, S, offset, b"x", 0);
    }
    assert_eq!(ranges(&rebatcher.cut(at(2))), [(1, 4, 2)]);
}

#[test]
fn planned_batches_are_cut_as_planned_whatever_the_limits_say() {
    let mut rebatcher =
        Rebatcher::new(RebatchLimits { batch_bytes: 100, ..RebatchLimits::default() });
    rebatcher.expect_cut(S, Offset(10), Offset(13));
    rebatcher.expect_cut(S, Offset(13), Offset(14));
    for offset in 8..18 {
        push(&mut rebatcher, S, offset, &[1; 60], 0);
    }
    assert_eq!(
        ranges(&rebatcher.cut(at(1))),
        [(1, 10, 3), (1, 13, 1), (1, 14, 1), (1, 15, 1), (1, 16, 1), (1, 17, 1)]
    );
}

#[test]
fn a_parked_stream_is_passed_by_until_it_is_followed_again() {
    let mut rebatcher = Rebatcher::new(RebatchLimits::default());
    push(&mut rebatcher, S, 0, b"x", 0);
    push(&mut rebatcher, T, 0, b"x", 0);
    rebatcher.park(S);
    push(&mut rebatcher, S, 1, b"x", 0);
    assert_eq!(ranges(&rebatcher.cut(at(1))), [(2, 0, 1)]);
    rebatcher.follow_from(S, Offset(0));
    for offset in 0..3 {
        push(&mut rebatcher, S, offset, b"x", 0);
        push(&mut rebatcher, T, offset, b"x", 0);
    }
    assert_eq!(ranges(&rebatcher.cut(at(2))), [(1, 0, 3), (2, 1, 2)]);
}

#[test]
fn halves_hold_what_the_whole_held() {
    let limits = RebatchLimits::default();
    let mut rebatcher = Rebatcher::new(limits);
    for offset in 50..57 {
        push(&mut rebatcher, S, offset, &[offset as u8; 40], 0);
    }
    let whole = rebatcher.cut(at(1)).batches.remove(0);
    let (left, right) = split(&whole, &limits).unwrap();
    assert_eq!((left.first, left.count, right.first, right.count), (Offset(50), 3, Offset(53), 4));
    let mut both = values(&left);
    both.append(&mut values(&right));
    assert_eq!(both, values(&whole));
    let (single, _) = split(&left, &limits).unwrap();
    assert!(split(&single, &limits).is_none());
}

#[test]
fn clamping_touches_only_what_is_too_late() {
    let limits = RebatchLimits::default();
    let mut rebatcher = Rebatcher::new(limits);
    for offset in 0..4 {
        push(&mut rebatcher, S, offset, b"x", 0);
    }
    let batch = rebatcher.cut(at(1)).batches.remove(0);
    let clamped = clamp_timestamps(&batch, 1_000_002, &limits).unwrap();
    let mut times = Vec::new();
    each_record(&clamped, |timestamp_ms, _| times.push(timestamp_ms)).unwrap();
    assert_eq!(times, [1_000_000, 1_000_001, 1_000_002, 1_000_002]);
}

#[test]
fn no_timestamp_leaves_that_is_no_time_of_day_or_that_kafka_refuses() {
    let mut rebatcher = Rebatcher::new(RebatchLimits::default());
    rebatcher.set_times(TimeLimits { earliest_ms: 1_000_001, latest_ms: 1_000_003 });
    for offset in 0..6 {
        push(&mut rebatcher, S, offset, b"x", 0);
    }
    let batch = rebatcher.cut(at(1)).batches.remove(0);
    let mut times = Vec::new();
    each_record(&batch, |timestamp_ms, _| times.push(timestamp_ms)).unwrap();
    let expected = [1_000_001, 1_000_001, 1_000_002, 1_000_003, 1_000_003, 1_000_003];
    assert_eq!(times, expected);
}

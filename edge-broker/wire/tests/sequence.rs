//! Idempotent producers: what is accepted, what is a duplicate, what is fenced.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use edge_wire::sequence::sequence_plus;
use edge_wire::{Offset, ProducerId, ProducerStamp, ProducerTable, SequenceCheck};
use proptest::prelude::*;

fn stamp(id: u64, epoch: i16, base_sequence: i32) -> ProducerStamp {
    ProducerStamp { id: ProducerId(id), epoch, base_sequence }
}

fn append(table: &mut ProducerTable, stamp: ProducerStamp, count: u32, offset: u64) {
    assert_eq!(table.check(stamp, count), SequenceCheck::Accept);
    table.record(stamp, count, Offset(offset), 1_000);
}

#[test]
fn a_resent_batch_is_answered_with_its_first_offset() {
    let mut table = ProducerTable::new(10);
    for index in 0..7u64 {
        append(&mut table, stamp(1, 0, index as i32 * 10), 10, index * 10);
    }
    for index in 2..7u64 {
        let duplicate =
            SequenceCheck::Duplicate { base_offset: Offset(index * 10), timestamp_ms: 1_000 };
        assert_eq!(table.check(stamp(1, 0, index as i32 * 10), 10), duplicate);
    }
    // Older than the last five, or cut differently: it cannot be told where it went.
    assert_eq!(table.check(stamp(1, 0, 10), 10), SequenceCheck::OutOfOrder { expected: 70 });
    assert_eq!(table.check(stamp(1, 0, 60), 5), SequenceCheck::OutOfOrder { expected: 70 });
}

#[test]
fn a_missing_batch_is_noticed() {
    let mut table = ProducerTable::new(10);
    append(&mut table, stamp(1, 0, 0), 3, 0);
    assert_eq!(table.check(stamp(1, 0, 4), 1), SequenceCheck::OutOfOrder { expected: 3 });
}

#[test]
fn an_unknown_producer_may_go_on_where_it_was() {
    assert_eq!(ProducerTable::new(1).check(stamp(9, 3, 1_234), 1), SequenceCheck::Accept);
}

#[test]
fn an_old_epoch_is_fenced_and_a_new_one_starts_at_zero() {
    let mut table = ProducerTable::new(10);
    append(&mut table, stamp(1, 5, 0), 3, 0);
    assert_eq!(table.check(stamp(1, 4, 3), 1), SequenceCheck::Fenced { current_epoch: 5 });
    assert_eq!(table.check(stamp(1, 6, 3), 1), SequenceCheck::OutOfOrder { expected: 0 });
    append(&mut table, stamp(1, 6, 0), 1, 3);
    assert_eq!(table.check(stamp(1, 6, 1), 1), SequenceCheck::Accept);
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(sequence_plus(i32::MAX, 1), 0);
    assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
    let mut table = ProducerTable::new(10);
    append(&mut table, stamp(1, 0, i32::MAX - 1), 2, 0);
    append(&mut table, stamp(1, 0, 0), 1, 2);
    // A batch may wrap inside.
    let mut table = ProducerTable::new(10);
    append(&mut table, stamp(1, 0, i32::MAX - 1), 4, 0);
    append(&mut table, stamp(1, 0, 2), 1, 4);
}

#[test]
fn the_longest_idle_producer_is_forgotten_first() {
    let mut table = ProducerTable::new(2);
    append(&mut table, stamp(1, 0, 0), 1, 0);
    append(&mut table, stamp(2, 0, 0), 1, 1);
    append(&mut table, stamp(1, 0, 1), 1, 2);
    append(&mut table, stamp(3, 0, 0), 1, 3);
    let known: Vec<_> = table.producers().collect();
    assert_eq!(known, [ProducerId(1), ProducerId(3)]);
}

#[test]
fn idle_producers_can_be_forgotten_by_time() {
    let mut table = ProducerTable::new(5);
    table.record(stamp(1, 0, 0), 1, Offset(0), 100);
    table.record(stamp(2, 0, 0), 1, Offset(1), 200);
    table.forget_idle(150);
    assert_eq!(table.producers().collect::<Vec<_>>(), [ProducerId(2)]);
}

proptest! {
    #[test]
    fn a_checkpoint_keeps_every_answer(
        appends in prop::collection::vec((0u64..6, 1u32..50), 0..60),
        probe in (0u64..7, 0i16..2, 0i32..500, 1u32..50),
    ) {
        let mut table = ProducerTable::new(4);
        let mut next = [0i32; 6];
        let mut offset = 0;
        for (id, count) in appends {
            table.record(stamp(id, 0, next[id as usize]), count, Offset(offset), offset as i64);
            next[id as usize] = sequence_plus(next[id as usize], count);
            offset += u64::from(count);
        }
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        let mut input = &bytes[..];
        let again = ProducerTable::decode(&mut input, 4).unwrap();
        prop_assert!(input.is_empty());
        let (id, epoch, sequence, count) = probe;
        let probe = stamp(id, epoch, sequence);
        prop_assert_eq!(again.check(probe, count), table.check(probe, count));
        let mut bytes_again = Vec::new();
        again.encode(&mut bytes_again);
        prop_assert_eq!(bytes_again, bytes);
    }
}

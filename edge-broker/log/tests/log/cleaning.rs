//! Cleaning of compacted topics that takes longer than the ring waits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use edge_log::storage::SimStorage;
use edge_log::{Compaction, GroupCompression, Lane, LaneConfig, Retention};
use edge_wire::{Envelope, Offset, StreamId};

use crate::common::{self, DIR, clock, definition};

const COMPACTED: StreamId = StreamId(1);

/// Offsets of the newest record of each key, as a reader from the beginning sees them.
fn newest(lane: &Lane) -> BTreeMap<Vec<u8>, Offset> {
    let mut found = BTreeMap::new();
    lane.reader()
        .read_batches(COMPACTED, Offset(0), &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    found.insert(record.key.unwrap().to_vec(), record.offset);
                })
                .unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// Segments of 1 MiB take several steps to clean, one step for each commit: the ring needs the oldest one meanwhile.
#[test]
fn the_newest_of_each_key_outlives_a_cleaning_that_the_ring_cuts_short() {
    let storage = SimStorage::new(0);
    let config = LaneConfig {
        budget_bytes: 8 << 20,
        segment_bytes: 1 << 20,
        group_bytes_max: 64 << 10,
        compression: GroupCompression::None,
        ..common::config()
    };
    let (mut lane, _) = Lane::open(Arc::new(storage), DIR, config, &clock(1)).unwrap();
    lane.define_stream(definition(0));
    lane.define_stream(definition(COMPACTED.0));
    let compaction = Some(Compaction { tombstone_ms: 1 << 40 });
    lane.set_retention(COMPACTED, Retention { compaction, ..Retention::default() });
    let mut random = common::Random(1);
    let mut written = BTreeMap::new();
    let (mut tick, mut looked) = (1, 0);
    let filler = vec![7; 1_000];
    while looked < 24 {
        tick += 50_000;
        for _ in 0..50 {
            let is_compacted = random.below(3) == 0;
            let is_rare = random.below(4) == 0;
            let key = if is_rare { random.below(1_500) } else { 100_000 + random.below(4) };
            let key = key.to_le_bytes();
            let envelope = lane.envelope(&Arc::new(Envelope::new(Some(&key), &[])));
            let stream = if is_compacted { COMPACTED } else { StreamId(0) };
            let offset = lane.append_record(stream, envelope, 0, Some(&filler)).unwrap();
            if is_compacted {
                written.insert(key.to_vec(), offset);
            }
        }
        lane.commit(&clock(tick), tick, &mut ()).unwrap();
        lane.maintain(&clock(tick), tick).unwrap();
        let recycled = lane.reader().stats().segments_recycled;
        if recycled == looked {
            continue;
        }
        looked = recycled;
        assert!(lane.reader().gaps().is_empty(), "there is room for the newest of each key");
        assert_eq!(newest(&lane), written, "after {recycled} segments were recycled");
    }
}

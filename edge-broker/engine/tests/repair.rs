//! A repair and the start behind it agree: what the repair left readable stays.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_engine::tools::{LaneRepair, repair_lane};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{
    ClockReading, ClockState, GroupCompression, Lane, LaneConfig, Storage, StreamDefinition,
    WhenFull,
};
use edge_wire::envelope::Envelope;
use edge_wire::{Offset, PartitionId, StreamId, TopicId};

const DIR: &str = "lanes/normal";
const SEGMENT_BYTES: u32 = 64 << 10;
const STREAM: StreamId = StreamId(1);

fn config() -> LaneConfig {
    LaneConfig {
        name: "normal".to_owned(),
        budget_bytes: 6 * u64::from(SEGMENT_BYTES),
        segment_bytes: SEGMENT_BYTES,
        when_full: WhenFull::DropOldest { unsent: true },
        commit_window_us: 0,
        compression: GroupCompression::None,
        ..LaneConfig::default()
    }
}

fn clock() -> ClockReading {
    static TICK: AtomicU64 = AtomicU64::new(1);
    let tick = TICK.fetch_add(1, Ordering::Relaxed);
    ClockReading {
        boot_id: 1,
        boottime_us: tick,
        wall_us: 1_800_000_000_000_000,
        state: ClockState::Synced,
        entropy: tick.wrapping_mul(0x9E37_79B9_7F4A_7C15),
    }
}

fn open(disk: &SimStorage) -> Lane {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut lane = Lane::open(storage, DIR, config(), &clock()).expect("it opens").0;
    lane.define_stream(StreamDefinition {
        stream: STREAM,
        topic: "t".to_owned(),
        partition: PartitionId(0),
        partition_count: 1,
        topic_id: TopicId([7; 16]),
    });
    lane
}

fn put(lane: &mut Lane, value: &str) {
    let envelope = lane.envelope(&Arc::new(Envelope::new(None, &[])));
    lane.append_record(STREAM, envelope, 1, Some(value.as_bytes())).expect("it fits");
    lane.commit(&clock(), 2, &mut ()).expect("the disk works");
    while lane.maintain(&clock(), 2).expect("the disk works") {}
}

fn offsets(lane: &Lane) -> Vec<u64> {
    let reader = lane.reader();
    let from = reader.bounds(STREAM).map_or(Offset(0), |bounds| bounds.log_start);
    let mut found = Vec::new();
    reader
        .read_batches(STREAM, from, &mut |batch| {
            found.extend(batch.base_offset().0.max(from.0)..batch.end_offset().0);
            ControlFlow::Continue(())
        })
        .expect("it can be read");
    found
}

#[test]
fn the_start_behind_a_repair_of_a_full_lane_gives_nothing_up() {
    let disk = SimStorage::new(3);
    let mut lane = open(&disk);
    // More than the ring holds.
    for index in 0..700_u64 {
        put(&mut lane, &format!("{index:0>600}"));
    }
    drop(lane);
    let disk = disk.crash_image(CrashPolicy::KeepAll, 1);
    let files = disk.files();
    let slots: Vec<_> = files.iter().filter(|(path, _)| path.ends_with(".seg")).collect();
    let used_bytes: u64 = slots.iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(used_bytes, config().budget_bytes, "the lane is full");
    let newest = Lane::inspect(&disk, DIR).expect("it can be read").end.segment;
    // Somewhere in a segment that is neither the oldest nor the newest.
    let damaged = newest - 2;
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let repair = LaneRepair {
        lane: "normal".to_owned(),
        segment_bytes: SEGMENT_BYTES,
        used_bytes,
        segments: vec![damaged],
        indexes_only: false,
    };
    repair_lane(&storage, &repair, None).expect("it can be repaired");
    let (reader, _) = Lane::view(storage.clone(), DIR, 1 << 20).expect("it can be read");
    let mut left = Vec::new();
    let from = reader.bounds(STREAM).expect("the stream is there").log_start;
    reader
        .read_batches(STREAM, from, &mut |batch| {
            left.extend(batch.base_offset().0.max(from.0)..batch.end_offset().0);
            ControlFlow::Continue(())
        })
        .expect("it can be read");
    assert!(left.len() > 100, "{}", left.len());

    let mut lane = open(&disk);
    while lane.maintain(&clock(), 3).expect("the disk works") {}
    assert_eq!(offsets(&lane), left);
    // And goes on within its budget.
    for index in 0..400 {
        put(&mut lane, &format!("{index:0>400}"));
    }
    let used: u64 = disk
        .files()
        .iter()
        .filter(|(path, _)| path.ends_with(".seg"))
        .map(|(_, bytes)| bytes)
        .sum();
    assert!(used <= config().budget_bytes, "{used}");
}

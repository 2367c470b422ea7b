//! Many streams read at once are what they are when read one by one, and cost one walk.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use edge_log::{Lane, LaneConfig, LaneReader, SimStorage, StreamRead};
use edge_wire::{Envelope, Offset, StreamId};

use super::common::{Random, clock, definition};

const STREAMS: u32 = 16;
const GROUPS: u64 = 150;

/// A lane of many small groups in several segments, opened anew so that nothing of it is in memory.
fn written() -> Lane {
    let storage = SimStorage::new(5);
    let config = LaneConfig {
        budget_bytes: 1 << 20,
        segment_bytes: 32 << 10,
        commit_window_us: 0,
        // Less than a group: every look at one unpacks it.
        decoded_cache_bytes: 1,
        ..LaneConfig::default()
    };
    let open = |tick| {
        let storage = Arc::new(storage.clone());
        let (mut lane, _) =
            Lane::open(storage, "lanes/many", config.clone(), &clock(tick)).unwrap();
        (0..STREAMS).for_each(|stream| lane.define_stream(definition(stream)));
        lane
    };
    let (mut lane, mut random) = (open(1), Random(3));
    let key = Arc::new(Envelope::new(Some(b"key"), &[]));
    for tick in 2..2 + GROUPS {
        for _ in 0..1 + random.below(12) {
            let envelope = lane.envelope(&key);
            // The last stream is in few groups only.
            let stream = match random.below(40) {
                0 => STREAMS - 1,
                _ => random.below(u64::from(STREAMS) - 1) as u32,
            };
            let value = vec![b'v'; 1 + random.below(60) as usize];
            lane.append_record(StreamId(stream), envelope, tick as i64, Some(&value)).unwrap();
        }
        lane.commit(&clock(tick), tick, &mut ()).unwrap();
        while lane.maintain(&clock(tick), tick).unwrap() {}
    }
    drop(lane);
    open(100_000)
}

fn alone(reader: &LaneReader, stream: u32) -> Vec<u8> {
    let mut out = Vec::new();
    reader.read(StreamId(stream), Offset(0), usize::MAX, &mut out).unwrap();
    out
}

fn wanted(reader: &LaneReader, from: &[Offset], max_bytes: usize) -> Vec<StreamRead> {
    let end = |stream| reader.bounds(StreamId(stream)).unwrap().durable_end;
    (0..STREAMS)
        .filter(|stream| from[*stream as usize] < end(*stream))
        .map(|stream| StreamRead {
            stream: StreamId(stream),
            from: from[stream as usize],
            max_bytes,
            out: Vec::new(),
            error: None,
        })
        .collect()
}

#[test]
fn many_streams_at_once_are_what_they_are_alone_and_each_group_is_unpacked_once() {
    let lane = written();
    let reader = lane.reader();
    let before = reader.stats().decoded_groups;
    let mut reads = wanted(&reader, &vec![Offset(0); STREAMS as usize], usize::MAX);
    reader.read_many(&mut reads, usize::MAX);
    let unpacked = reader.stats().decoded_groups - before;
    // Once by the stream that is read first, once by all the others together.
    assert!(unpacked <= 2 * GROUPS, "{unpacked} of {GROUPS} groups");
    for read in reads {
        assert!(read.error.is_none());
        assert_eq!(read.out, alone(&reader, read.stream.0), "stream {}", read.stream);
    }
}

#[test]
fn whoever_takes_turns_at_being_first_gets_all_of_every_stream_within_the_limits() {
    let lane = written();
    let reader = lane.reader();
    for (max_bytes, total_bytes) in [(100, 300), (1, 1), (usize::MAX, 1000), (500, usize::MAX)] {
        let mut next = vec![Offset(0); STREAMS as usize];
        let mut got = vec![Vec::new(); STREAMS as usize];
        let mut turn = 0;
        loop {
            let mut reads = wanted(&reader, &next, max_bytes);
            if reads.is_empty() {
                break;
            }
            let count = reads.len();
            reads.rotate_left(turn % count);
            turn += 1;
            reader.read_many(&mut reads, total_bytes);
            let sum: usize = reads.iter().map(|read| read.out.len()).sum();
            assert!(sum > 0, "nothing came");
            let first = reads[0].out.len();
            assert!(sum <= total_bytes.max(first), "{sum} bytes of {total_bytes}");
            for (index, read) in reads.iter().enumerate() {
                assert!(index == 0 || read.out.len() <= max_bytes);
                let slot = read.stream.0 as usize;
                for batch in edge_wire::Batches::new(&read.out) {
                    let batch = batch.unwrap();
                    assert_eq!(batch.header().base_offset, next[slot]);
                    next[slot] = next[slot].plus(u64::from(batch.header().last_offset_delta) + 1);
                }
                got[slot].extend_from_slice(&read.out);
            }
        }
        for stream in 0..STREAMS {
            assert_eq!(got[stream as usize], alone(&reader, stream), "stream {stream}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_told_and_does_not_stop_the_others() {
    let lane = written();
    let reader = lane.reader();
    let mut reads = wanted(&reader, &vec![Offset(0); STREAMS as usize], usize::MAX);
    reads[0].from = Offset(1 << 40);
    reads[1].stream = StreamId(999);
    reader.read_many(&mut reads, usize::MAX);
    assert!(reads[0].error.is_some() && reads[0].out.is_empty());
    assert!(reads[1].error.is_some() && reads[1].out.is_empty());
    assert!(reads[2..].iter().all(|read| read.error.is_none() && !read.out.is_empty()));
}

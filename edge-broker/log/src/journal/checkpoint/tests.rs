use edge_wire::{PartitionId, ProducerId, ProducerStamp, TopicId};

use super::*;
use crate::gap::GapReason;

fn definition(stream: u32) -> StreamDefinition {
    StreamDefinition {
        stream: StreamId(stream),
        topic: format!("topic-{stream}"),
        topic_id: TopicId([7; 16]),
        partition: PartitionId(stream),
        partition_count: 6,
    }
}

fn stats() -> LaneStats {
    LaneStats {
        payload_bytes: 1,
        journal_bytes: 2,
        other_bytes: 3,
        syncs: 4,
        groups: 5,
        records: 6,
        segments_recycled: 7,
        dropped_records: 8,
        lost_records: 9,
        ..LaneStats::default()
    }
}

#[test]
fn a_checkpoint_is_read_as_it_was_written() {
    let upstream = JournalPosition { segment: 300, byte: 70_000 };
    let mut producers = ProducerTable::new(PRODUCERS_MAX);
    let stamp = ProducerStamp { id: ProducerId(5), epoch: 1, base_sequence: 0 };
    producers.record(stamp, 3, Offset(40), 1_000);
    let definitions = [definition(1), definition(4)];
    let gap = Gap {
        stream: StreamId(4),
        from: Offset(10),
        to: Offset(20),
        reason: GapReason::Rot,
        at: upstream,
        wall_us: -1,
    };
    let (mut out, mut scratch) = (Vec::new(), Vec::new());
    put_lane(&mut out, &mut scratch, upstream, &stats());
    let first = StreamLine {
        home: Offset(0),
        keeps_start: false,
        definition: &definitions[0],
        next: Offset(100),
        log_start: Offset(50),
        newest: Some((Offset(0), -7)),
        producers: Some(&producers),
    };
    let second = StreamLine {
        home: Offset(0),
        keeps_start: false,
        definition: &definitions[1],
        next: Offset(9),
        log_start: Offset(9),
        newest: None,
        producers: Some(&ProducerTable::new(PRODUCERS_MAX)),
    };
    put_stream(&mut out, &mut scratch, &first);
    put_stream(&mut out, &mut scratch, &second);
    put_gaps(&mut out, &[gap]);
    put_owner(&mut out, b"owner");
    let read = Checkpoint::decode(&out).unwrap();
    assert_eq!((read.upstream, read.stats), (upstream, stats()));
    assert_eq!((read.gaps, read.owner), (vec![gap], Some(b"owner".to_vec())));
    let [one, two] = &read.streams[..] else { panic!("two streams") };
    assert_eq!(
        (&one.definition, one.next, one.log_start),
        (&definitions[0], Offset(100), Offset(50))
    );
    assert_eq!(one.newest, Some((Offset(0), -7)));
    assert_eq!(one.producers.as_ref().map(|table| table.len()), Some(1));
    assert_eq!((&two.definition, two.next, two.log_start), (&definitions[1], Offset(9), Offset(9)));
    assert_eq!(two.newest, None);
    assert!(two.producers.is_none(), "an empty table is not written");
}

#[test]
fn fields_that_a_newer_program_added_are_skipped_and_absent_ones_are_zero() {
    let mut fields = Vec::new();
    put_unsigned(&mut fields, 300);
    put_unsigned(&mut fields, 70_000);
    put_unsigned(&mut fields, 1);
    let lane = |fields: &[u8]| {
        let mut body = vec![LANE_STATE];
        put_bytes(&mut body, fields);
        Checkpoint::decode(&body)
    };
    let short = lane(&fields).unwrap();
    assert_eq!(short.upstream, JournalPosition { segment: 300, byte: 70_000 });
    assert_eq!(short.stats, LaneStats { payload_bytes: 1, ..LaneStats::default() });
    fields.extend([2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0, 99, 99]);
    assert_eq!(lane(&fields).unwrap().stats, stats());
    let mut wide = Vec::new();
    put_unsigned(&mut wide, 1);
    put_unsigned(&mut wide, 1 << 32);
    assert!(lane(&wide).is_err(), "a byte position has 32 bits");
}

#[test]
fn the_state_of_a_stream_follows_its_definition() {
    let state = |of: u32, after: Option<u32>| {
        let mut body = Vec::new();
        if let Some(after) = after {
            put_definition(&mut body, &definition(after));
        }
        body.push(STREAM_STATE);
        put_bytes(&mut body, &[of as u8, 5, 2, 0, 0]);
        Checkpoint::decode(&body)
    };
    assert_eq!(state(1, Some(1)).unwrap().streams[0].next, Offset(5));
    assert!(state(2, Some(1)).is_err());
    assert!(state(1, None).is_err());
}

//! Groups as they are built are read; altered ones never panic.

use std::sync::Arc;

use edge_wire::{
    Attributes, BATCH_HEADER_BYTES, Compression, Envelope, Offset, RecordBatchBuilder,
};
use proptest::prelude::*;

use super::*;
use crate::journal::batches::{Marks, ProducerFields};
use crate::journal::frame::BodyCodec;
use crate::lane::pending::{Closed, Pending};
use crate::lane::streams::{Stream, StreamTable};
use crate::shared::StreamShared;
use crate::stream_index::TailIndex;

pub(crate) fn header() -> FrameHeader {
    FrameHeader {
        kind: GroupKind::Data,
        flags: FLAG_STATE,
        codec: BodyCodec::Plain,
        sector_bytes: 512,
        salt: 1,
        sequence: 1,
        position: JournalPosition { segment: 1, byte: 512 },
        records: 0,
        proven_end: JournalPosition { segment: 1, byte: 512 },
        journal_start: 1,
        clock: crate::ClockReading::default(),
        directory_bytes: 0,
        directory_crc: 0,
        previous_directory_bytes: 0,
        previous_directory_crc: 0,
        body_stored_bytes: 0,
        body_bytes: 0,
        raw_bytes: 0,
        body_crc: 0,
        segment_bytes: 1 << 20,
    }
}

/// A group with every kind of entry.
fn sample() -> Closed {
    let mut streams = StreamTable::default();
    let mut pending = Pending::default();
    for id in 0..3u32 {
        let shared = Arc::new(StreamShared::new(Offset(0), Offset(0), TailIndex::default()));
        let definition = StreamDefinition {
            stream: StreamId(id),
            topic: format!("topic {id}"),
            topic_id: edge_wire::TopicId([3; 16]),
            partition: edge_wire::PartitionId(id),
            partition_count: 3,
        };
        streams.insert(Stream::new(definition, shared, Offset(u64::from(id) * 100), None));
    }
    let envelope = Arc::new(Envelope::new(Some(b"key"), &[]));
    for index in 0..20u32 {
        let envelope = pending.envelope(envelope.view());
        let value = index.to_le_bytes();
        let stream = streams.get_mut(index % 2);
        let marks = Marks { unvouched: index % 2 == 1, append_time: index % 2 == 1 };
        pending.push_record(index % 2, stream, envelope, i64::from(index), marks, Some(&value));
    }
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), 5);
    builder.push(5, None, Some(b"produced"), &[0]);
    for packed in [false, true] {
        let mut batch = Vec::new();
        let codec = if packed { Compression::Zstd } else { Compression::None };
        builder.finish(None, codec, None, &mut batch).unwrap();
        let records = &batch[BATCH_HEADER_BYTES..];
        let fields = ProducerFields {
            attributes: Attributes::new(codec).bits() as u16,
            missing: 0,
            stamp: None,
        };
        let batch = crate::lane::pending::ProducerBatch {
            fields,
            base_timestamp_ms: 5,
            max_timestamp_ms: 5,
            span: 1,
            packed,
            marks: Marks { unvouched: packed, append_time: false },
            records,
        };
        pending.push_batch(2, streams.get_mut(2), &batch);
    }
    crate::journal::entry::put_event(pending.state(), 7, b"event");
    let mut closed = Closed::default();
    pending.close(&streams, 1, &mut closed);
    closed
}

fn read_all(group: &DecodedGroup) -> usize {
    let mut out = Vec::new();
    for batch in group.batches() {
        let _ = batch.for_each_record(&mut |record| out.push(record.offset.0 as u8));
        batch.write_record_batch(&mut out);
        out.resize(out.len() + batch.record_batch_bytes().min(10), 0);
    }
    out.len() + group.events().count() + group.definitions().len() + group.gaps().len()
}

#[test]
fn a_group_has_what_was_put_into_it() {
    let closed = sample();
    let group = DecodedGroup::parse(&header(), &closed.directory, closed.body, closed.raw).unwrap();
    let bases: Vec<_> =
        group.batches().map(|b| (b.stream().0, b.base_offset().0, b.count())).collect();
    assert_eq!(bases, [(0, 0, 10), (1, 100, 10), (2, 200, 1), (2, 201, 1)]);
    assert_eq!(group.batches_of(StreamId(2)).len(), 2);
    assert_eq!(group.events().collect::<Vec<_>>(), [(7, &b"event"[..])]);
    assert_eq!(group.definitions().len(), 3);
    assert!(read_all(&group) > 0);
}

fn parse(header: &FrameHeader) -> DecodedGroup {
    let Closed { directory, body, raw, .. } = sample();
    DecodedGroup::parse(header, &directory, body, raw).unwrap()
}

#[test]
fn only_groups_with_entries_are_looked_into() {
    for (kind, has_entries) in [
        (GroupKind::Data, true),
        (GroupKind::Copied, true),
        (GroupKind::Gap, true),
        (GroupKind::Seal, false),
        (GroupKind::Checkpoint, false),
        (GroupKind::Other(9), false),
    ] {
        assert_eq!(kind.has_entries(), has_entries, "{kind:?}");
        assert_eq!(GroupKind::from_byte(kind.to_byte()), kind);
        let group = parse(&FrameHeader { kind, ..header() });
        assert_eq!(group.batches().len(), if has_entries { 4 } else { 0 }, "{kind:?}");
        assert_eq!(group.events().count(), usize::from(has_entries), "{kind:?}");
    }
    assert_eq!(parse(&FrameHeader { flags: 0, ..header() }).events().count(), 0);
}

#[test]
fn gaps_are_told() {
    let gap = Gap {
        stream: StreamId(4),
        from: edge_wire::Offset(3),
        to: edge_wire::Offset(9),
        reason: crate::GapReason::Thinned { keep_every: 5 },
        at: JournalPosition { segment: 1, byte: 512 },
        wall_us: 77,
    };
    let mut body = Vec::new();
    crate::journal::entry::put_gap(&mut body, &gap);
    let group = DecodedGroup::parse(&header(), &[], body, Vec::new()).unwrap();
    assert_eq!(group.gaps(), [gap]);
}

#[test]
fn what_a_group_takes_in_memory_is_all_that_it_holds() {
    let Closed { directory, body, raw, .. } = sample();
    let (body_bytes, raw_bytes) = (body.capacity(), raw.capacity());
    let mut group = DecodedGroup::parse(&header(), &directory, body, raw).unwrap();
    let tables = group.batches.memory_bytes() + group.envelopes.memory_bytes();
    assert!(tables > 4 * size_of::<BatchSlot>());
    let known = size_of::<DecodedGroup>() + body_bytes + raw_bytes + tables;
    assert_eq!(group.memory_bytes(), known);
    group.stamps.reserve_exact(3);
    let stamps = group.stamps.capacity() * size_of::<Stamped>();
    assert_eq!(group.memory_bytes(), known + stamps);
    let flagged = group.envelopes.with_header(CLOCK_HEADER, CLOCK_UNSYNCED);
    let flagged_bytes = flagged.memory_bytes();
    group.flagged = Some(flagged);
    assert_eq!(group.memory_bytes(), known + stamps + flagged_bytes);
    let [body, raw] = group.into_buffers();
    assert_eq!((body.capacity(), raw.capacity()), (body_bytes, raw_bytes));
}

#[test]
fn the_time_of_writing_is_corrected_if_the_clock_was_not_set() {
    let with = |wall_us, state| {
        let clock =
            crate::ClockReading { boot_id: 5, boottime_us: 1000, wall_us, state, entropy: 0 };
        parse(&FrameHeader { clock, ..header() })
    };
    assert_eq!(with(-1_500, ClockState::Synced).written_ms(), -2);
    assert_eq!(with(2_999, ClockState::Synced).written_ms(), 2);
    let mut clocks = BootClocks::default();
    clocks.set(crate::BootClock { boot_id: 5, base_us: 90_000_000, shift_ms_max: 0 });
    for (state, wanted) in [(ClockState::Synced, 2), (ClockState::Unsynced, 90_001)] {
        let mut group = with(2_000, state);
        group.correct(&clocks);
        assert_eq!(group.written_ms(), wanted, "{state:?}");
    }
}

#[test]
fn batches_that_touch_are_one_run_of_a_copied_group() {
    assert!(crate::copies::copied_runs(&parse(&header()), 1000).is_empty(), "no copies");
    let group = parse(&FrameHeader { kind: GroupKind::Copied, ..header() });
    let bytes: Vec<_> = group.batches().map(|batch| batch.stored_bytes() as u32).collect();
    let [first, second, third, fourth] = bytes[..] else { panic!("{bytes:?}") };
    let whole = first + second + third + fourth;
    let share = |bytes: u32| 1_000_003 * bytes / whole;
    let runs: Vec<_> = crate::copies::copied_runs(&group, 1_000_003)
        .into_iter()
        .map(|(stream, base, run)| {
            assert_eq!(run.at, group.position());
            (stream.0, base.0, run.end.0, run.bytes, run.frame_bytes, run.unvouched)
        })
        .collect();
    assert_eq!(
        runs,
        [
            (0, 0, 10, first, share(first), false),
            (1, 100, 110, second, share(second), true),
            (2, 200, 202, third + fourth, share(third + fourth), true),
        ]
    );
}

proptest! {
    /// Behind a CRC that fits: a program that is broken, or someone who wants to break this one.
    #[test]
    fn altered_groups_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        part in 0..4u8,
    ) {
        let mut closed = sample();
        for (at, value) in changes {
            let target = match part {
                0 => &mut closed.directory,
                1 => &mut closed.raw,
                _ => &mut closed.body,
            };
            let at = at.index(target.len());
            target[at] = value;
        }
        if part == 3 {
            let at = cut.index(closed.body.len());
            closed.body.truncate(at);
        }
        let Closed { directory, body, raw, .. } = closed;
        if let Ok(group) = DecodedGroup::parse(&header(), &directory, body, raw) {
            read_all(&group);
        }
    }
}

use edge_log::BootClock;

use super::*;

fn topic(name: &str, id: u8, streams: &[u32]) -> TopicRecord {
    TopicRecord {
        name: name.into(),
        id: [id; 16],
        lane: "normal".into(),
        streams: streams.to_vec(),
        config: TopicConfig::default(),
    }
}

const BOOT: BootClock = BootClock { boot_id: 5, base_us: -7, shift_ms_max: 9 };

fn committed(offset: u64) -> CommittedOffset {
    CommittedOffset { offset, metadata: "m".into(), leader_epoch: -1 }
}

fn sample() -> State {
    let mut state = State::default();
    state.apply(StateEvent::TopicCreated(topic("a", 1, &[0, 1])));
    state.apply(StateEvent::TopicCreated(topic("b", 2, &[2])));
    state.apply(StateEvent::OffsetsCommitted {
        group: "g".into(),
        entries: vec![OffsetEntry { topic: "a".into(), partition: 1, committed: committed(7) }],
    });
    state.apply(StateEvent::ProducerIdsReserved { next: 1_000 });
    state.apply(StateEvent::ClockSet { boot: BOOT });
    state.apply(StateEvent::ValueSet { key: b"uplink".to_vec(), bytes: vec![1, 2, 3] });
    state
}

#[test]
fn a_checkpoint_gives_back_what_was_applied() {
    let mut bytes = Vec::new();
    sample().encode(&mut bytes);
    let state = State::decode(&bytes).unwrap().0;
    assert_eq!(state.topic("a").unwrap().streams(), [StreamId(0), StreamId(1)]);
    assert_eq!(state.topic_by_id(TopicId([2; 16])).unwrap().name(), "b");
    assert_eq!(state.committed("g", "a", 1), Some(&committed(7)));
    assert_eq!(state.next_stream(), StreamId(3));
    assert_eq!(state.next_producer_id(), 1_000);
    assert_eq!(state.clocks().get(5), Some(&BOOT));
    assert_eq!(state.value(b"uplink"), Some(&[1, 2, 3][..]));
}

#[test]
fn events_may_be_replayed_over_a_checkpoint_that_has_them() {
    let event = StateEvent::TopicCreated(topic("a", 1, &[0, 1]));
    let mut state = sample();
    state.apply(StateEvent::decode(&event.encode()).unwrap());
    assert_eq!(state.topics().count(), 2);
    assert_eq!(state.next_stream(), StreamId(3));
}

#[test]
fn stream_ids_are_not_given_out_again_after_a_delete() {
    let mut state = sample();
    state.apply(StateEvent::TopicDeleted { id: [2; 16] });
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    let state = State::decode(&bytes).unwrap().0;
    assert!(state.topic("b").is_none());
    assert_eq!(state.next_stream(), StreamId(3));
}

#[test]
fn deleting_a_topic_forgets_its_committed_offsets() {
    let mut state = sample();
    state.apply(StateEvent::TopicDeleted { id: [1; 16] });
    assert!(state.committed_all("g").is_empty());
}

#[test]
fn a_newer_version_is_refused_by_name() {
    assert_eq!(
        State::decode(&[9, 0, 0]).err(),
        Some(StateDecodeError::Version { found: 9, known: VERSION })
    );
    assert!(matches!(StateEvent::decode(&[]), Err(StateDecodeError::Malformed { .. })));
}

#[test]
fn every_cut_of_a_checkpoint_is_an_error_not_a_panic() {
    let mut bytes = Vec::new();
    sample().encode(&mut bytes);
    let clocks = postcard::to_stdvec(sample().clocks()).unwrap().len();
    // Where the clocks begin, the checkpoints of the first programs end.
    for end in (1..bytes.len()).filter(|end| *end != bytes.len() - clocks) {
        assert!(State::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
}

use edge_log::JournalPosition;
use proptest::prelude::*;

use super::*;
use crate::event::Cursor;
use crate::session::Options;

const LANE: &str = "normal";

fn place(segment: u64, record: u32) -> Place {
    Place { group: JournalPosition { segment, byte: 512 }, record }
}

fn made(id: u64, client: &str) -> SessionEvent {
    let (session, client) = (SessionId(id), client.to_owned());
    SessionEvent::Made { session, client, user: None, expiry_s: 60 }
}

fn subscribed(id: u64, filter: &str, start: Place) -> SessionEvent {
    SessionEvent::Subscribed {
        session: SessionId(id),
        filter: filter.to_owned(),
        options: Options { qos: 1, ..Options::default() },
        starts: [(LANE.to_owned(), start)].into(),
    }
}

fn moved(id: u64, place: Place) -> SessionEvent {
    let session = SessionId(id);
    SessionEvent::Moved { cursors: vec![Cursor { session, place, missed: 0 }] }
}

/// What a store is when all its lanes are opened again from their checkpoints.
fn reopened(store: &Store) -> Store {
    let mut again = Store::new(*store.limits());
    for lane in [SYSTEM, LANE] {
        let mut checkpoint = Vec::new();
        store.checkpoint(lane, &mut checkpoint);
        again.recover(lane, &checkpoint, std::iter::empty()).expect("our own bytes");
    }
    again.settle();
    again
}

fn end() -> JournalPosition {
    place(9, 0).group
}

#[test]
fn a_session_is_found_again_with_its_subscriptions_and_its_place() {
    let mut store = Store::new(Limits::default());
    let id = store.next_id();
    store.apply(SYSTEM, made(id.0, "c"));
    store.apply(SYSTEM, subscribed(id.0, "a/#", place(3, 4)));
    let again = reopened(&store);
    let (found, session) = again.of_client("c").expect("it is there");
    assert_eq!((found, session.subscriptions.len()), (id, 1));
    assert_eq!(again.cursor(id, LANE, end()), place(3, 4), "where its subscription begins");
    store.apply(LANE, moved(id.0, place(5, 1)));
    let again = reopened(&store);
    assert_eq!(again.cursor(id, LANE, end()), place(5, 1));
    assert_eq!(again.session(id).map(|s| s.subscriptions["a/#"].starts.len()), Some(0));
}

#[test]
fn a_new_session_of_a_client_has_nothing_of_the_old_one() {
    let mut store = Store::new(Limits::default());
    store.apply(SYSTEM, made(1, "c"));
    store.apply(LANE, SessionEvent::Received { session: SessionId(1), id: 7 });
    store.apply(SYSTEM, made(2, "c"));
    store.apply(LANE, SessionEvent::Received { session: SessionId(1), id: 8 });
    let again = reopened(&store);
    assert_eq!(again.of_client("c").map(|(id, _)| id), Some(SessionId(2)));
    assert_eq!(again.inherited(SessionId(2)), Inherited::default());
    assert_eq!(again.inherited(SessionId(1)), Inherited::default(), "what came late is left aside");
}

#[test]
fn a_subscription_that_is_made_again_begins_where_it_began() {
    let mut store = Store::new(Limits::default());
    let events = [made(1, "c"), subscribed(1, "#", place(1, 0)), subscribed(1, "#", place(2, 0))];
    events.into_iter().for_each(|event| store.apply(SYSTEM, event));
    assert_eq!(store.cursor(SessionId(1), LANE, end()), place(1, 0));
    let filter = "#".to_owned();
    store.apply(SYSTEM, SessionEvent::Unsubscribed { session: SessionId(1), filter });
    store.apply(SYSTEM, subscribed(1, "#", place(2, 0)));
    assert_eq!(store.cursor(SessionId(1), LANE, end()), place(2, 0));
}

#[test]
fn a_system_lane_that_is_opened_again_leaves_the_other_lanes_as_they_are() {
    let mut store = Store::new(Limits::default());
    let events = [made(1, "c"), made(2, "c"), made(3, "d")];
    events.iter().for_each(|event| store.apply(SYSTEM, event.clone()));
    store.apply(LANE, SessionEvent::Received { session: SessionId(2), id: 7 });
    let events: Vec<Vec<u8>> = events.iter().map(SessionEvent::encode).collect();
    store.recover(SYSTEM, &[], events.iter().map(Vec::as_slice)).expect("our own bytes");
    let ids: Vec<_> = store.sessions().map(|(id, _)| id.0).collect();
    assert_eq!((ids, store.inherited(SessionId(2)).received.len()), (vec![2, 3], 1));
}

#[test]
fn a_number_that_any_lane_has_seen_is_not_given_out_again() {
    let mut store = Store::new(Limits::default());
    let event = SessionEvent::Received { session: SessionId(41), id: 7 }.encode();
    store.recover(SYSTEM, &[], std::iter::empty()).expect("empty");
    store.recover(LANE, &[], [event.as_slice()].into_iter()).expect("our own bytes");
    store.settle();
    assert_eq!(store.next_id(), SessionId(42));
    assert_eq!(store.inherited(SessionId(41)), Inherited::default(), "its session was not made");
}

#[test]
fn a_delivery_that_is_over_is_remembered_until_everything_before_it_is() {
    let mut store = Store::new(Limits::default());
    store.apply(SYSTEM, made(1, "c"));
    let session = SessionId(1);
    let sent =
        |order, place, id| SessionEvent::Sent { session, order, deliveries: vec![(place, id)] };
    store.apply(LANE, sent(1, place(1, 0), 10));
    store.apply(LANE, sent(2, place(1, 1), 11));
    store.apply(LANE, SessionEvent::Confirmed { session, places: vec![place(1, 1)] });
    store.apply(LANE, SessionEvent::Completed { session, places: vec![place(1, 1)] });
    let states = |store: &Store| -> Vec<(u16, OutboundState)> {
        let all = store.inherited(session).outbound;
        all.iter().map(|(_, _, one)| (one.id, one.state)).collect()
    };
    let expected = [(10, OutboundState::Sent), (11, OutboundState::Done)];
    assert_eq!(states(&reopened(&store)), expected, "or it would be delivered twice");
    store.apply(LANE, moved(1, place(1, 2)));
    assert_eq!(states(&reopened(&store)), []);
}

#[test]
fn of_two_deliveries_with_a_packet_id_in_two_lanes_the_later_one_has_it() {
    let mut store = Store::new(Limits::default());
    store.apply(SYSTEM, made(1, "c"));
    let session = SessionId(1);
    let deliveries = vec![(place(1, 0), 10)];
    store.apply(LANE, SessionEvent::Sent { session, order: 1, deliveries: deliveries.clone() });
    store.apply(LANE, SessionEvent::Confirmed { session, places: vec![place(1, 0)] });
    // PUBCOMP came, and was not written yet when the id was used again.
    store.apply("bulk", SessionEvent::Sent { session, order: 2, deliveries });
    let all = store.inherited(session).outbound;
    let states: Vec<_> = all.iter().map(|(lane, _, one)| (lane.as_str(), one.state)).collect();
    assert_eq!(states, [(LANE, OutboundState::Done), ("bulk", OutboundState::Sent)]);
}

#[test]
fn time_without_power_ages_no_session() {
    let mut store = Store::new(Limits::default());
    store.apply(SYSTEM, made(1, "c"));
    assert!(store.over(u64::MAX).is_empty(), "it is connected");
    store.apply(SYSTEM, SessionEvent::Left { session: SessionId(1), expiry_s: 60, at_s: 1_000 });
    let again = reopened(&store);
    assert_eq!(again.powered_s(), 1_000, "the count goes on where it was");
    assert!(again.over(1_059).is_empty());
    assert_eq!(again.over(1_060), [SessionId(1)]);
}

#[test]
fn a_place_that_the_lane_has_lost_is_its_end() {
    let mut store = Store::new(Limits::default());
    store.apply(SYSTEM, made(1, "c"));
    store.apply(SYSTEM, subscribed(1, "#", place(12, 0)));
    assert_eq!(store.cursor(SessionId(1), LANE, end()), Place::of_group(end()));
    let lane = LANE.to_owned();
    store.apply(SYSTEM, SessionEvent::LaneReborn { lane });
    assert_eq!(store.cursor(SessionId(1), LANE, end()), Place::START);
}

#[test]
fn limits_hold() {
    let limits = Limits { sessions_max: 1, state_bytes_max: 100, ..Limits::default() };
    let mut store = Store::new(limits);
    assert_eq!(store.admits(1, 50), Admission::Granted);
    assert_eq!(store.admits(1, 101), Admission::Refused);
    store.apply(SYSTEM, made(1, "c"));
    assert_eq!(store.admits(1, 1), Admission::Refused);
    assert_eq!(store.admits(0, 100), Admission::Refused);
}

#[test]
fn foreign_bytes_are_refused_by_name() {
    let mut store = Store::new(Limits::default());
    let newer = EventDecodeError::Version { found: 9, known: VERSION };
    assert_eq!(store.recover(LANE, &[9], std::iter::empty()), Err(newer));
    let event = [VERSION, 255];
    let malformed = EventDecodeError::Malformed { bytes: 2 };
    assert_eq!(store.recover(LANE, &[], [event.as_slice()].into_iter()), Err(malformed));
}

fn any_event() -> impl Strategy<Value = (bool, SessionEvent)> {
    let session = (1u64..4).prop_map(SessionId);
    let at = (1u64..4, 0u32..3).prop_map(|(segment, record)| place(segment, record));
    let id = 1u16..4;
    prop_oneof![
        (session.clone(), id.clone())
            .prop_map(|(session, id)| (false, SessionEvent::Received { session, id })),
        (session.clone(), id.clone())
            .prop_map(|(session, id)| (false, SessionEvent::Released { session, ids: vec![id] })),
        (session.clone(), at.clone()).prop_map(|(id, at)| (false, moved(id.0, at))),
        (session.clone(), at).prop_map(|(id, at)| (true, subscribed(id.0, "#", at))),
        session.clone().prop_map(|session| (true, SessionEvent::Discarded { session })),
        (session.clone(), 0u64..9).prop_map(|(session, at_s)| {
            (true, SessionEvent::Left { session, expiry_s: 5, at_s })
        }),
        session.prop_map(|session| (true, SessionEvent::Attached { session, expiry_s: 7 })),
    ]
}

proptest! {
    /// A checkpoint may have events already that are replayed over it.
    #[test]
    fn events_that_are_applied_again_change_nothing(
        events in proptest::collection::vec(any_event(), 0..40),
        from in 0usize..40,
    ) {
        let mut all = vec![(true, made(1, "a")), (true, made(2, "b")), (true, made(3, "a"))];
        all.extend(events);
        let lane_of = |is_system: bool| if is_system { SYSTEM } else { LANE };
        let mut store = Store::new(Limits::default());
        for (is_system, event) in &all {
            store.apply(lane_of(*is_system), event.clone());
        }
        let mut once = [Vec::new(), Vec::new()];
        store.checkpoint(SYSTEM, &mut once[0]);
        store.checkpoint(LANE, &mut once[1]);
        let mut again = Store::new(Limits::default());
        for (index, lane) in [SYSTEM, LANE].into_iter().enumerate() {
            let replayed: Vec<Vec<u8>> = all
                .iter()
                .skip(from)
                .filter(|(is_system, _)| lane_of(*is_system) == lane)
                .map(|(_, event)| event.encode())
                .collect();
            let events = replayed.iter().map(Vec::as_slice);
            again.recover(lane, &once[index], events).expect("our own bytes");
        }
        again.settle();
        let mut twice = [Vec::new(), Vec::new()];
        again.checkpoint(SYSTEM, &mut twice[0]);
        again.checkpoint(LANE, &mut twice[1]);
        prop_assert_eq!(once, twice);
    }
}

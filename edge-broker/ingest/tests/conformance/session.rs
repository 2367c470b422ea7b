//! Sessions: sections 3.1.2.4, 3.1.2.11, 4.1 and 4.5 of both standards.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::Rig;

fn resumed(version: Version) {
    let rig = Rig::new();
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    assert_eq!(subscriber.subscribe("t", 1), 1);
    subscriber.disconnect();
    let (mut subscriber, connack) = Peer::connect(&rig, &persistent(version, "s"));
    assert!(connack.present);
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(1));
    assert_eq!(subscriber.take().payload(), "x", "its subscription is there");
}

fn kept_while_away(version: Version) {
    let rig = Rig::new();
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    assert_eq!(subscriber.subscribe("t/+", 2), 2);
    subscriber.disconnect();
    let mut publisher = Peer::new(&rig, version, "publisher");
    for (number, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        publisher.publish(&message("t/1", &number.to_string()).qos(qos));
    }
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    for (number, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        let found = subscriber.take();
        assert_eq!((found.payload(), found.qos), (&*number.to_string(), qos));
        assert!(!found.dup && !found.retain);
    }
    subscriber.is_served();
}

fn clean_start_discards(version: Version) {
    let rig = Rig::new();
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    subscriber.subscribe("t", 1);
    subscriber.disconnect();
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "missed").qos(1));
    let (mut subscriber, connack) = Peer::connect(&rig, &connect(version, "s"));
    assert!(!connack.present);
    publisher.publish(&message("t", "too").qos(1));
    subscriber.is_served();
    subscriber.disconnect();
    // And what is clean leaves nothing to resume.
    let (mut subscriber, connack) = Peer::connect(&rig, &persistent(version, "s"));
    assert!(!connack.present);
    subscriber.is_served();
}

fn by_client_id(version: Version) {
    let rig = Rig::new();
    let (mut one, _) = Peer::connect(&rig, &persistent(version, "one"));
    one.subscribe("t", 1);
    one.disconnect();
    let (other, connack) = Peer::connect(&rig, &persistent(version, "One"));
    assert!(!connack.present, "another identifier, another session");
    other.disconnect();
    let (_, connack) = Peer::connect(&rig, &persistent(version, "one"));
    assert!(connack.present);
}

fn as_long_as_the_connection(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 1);
    let mut publisher = Peer::new(&rig, version, "publisher");
    for number in 0..50 {
        publisher.publish(&message("t", &number.to_string()).qos(1));
        assert_eq!(subscriber.take().payload(), number.to_string());
    }
}

fn every_matching_session(version: Version) {
    let rig = Rig::new();
    let mut subscribers: Vec<_> = (0..5)
        .map(|number| {
            let mut peer = Peer::new(&rig, version, &format!("s{number}"));
            peer.subscribe(["t", "+", "#", "t/#", "u"][number], 1);
            peer
        })
        .collect();
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(1));
    for subscriber in &mut subscribers[..4] {
        assert_eq!(subscriber.take().payload(), "x");
    }
    subscribers[4].is_served();
}

both! {
    mqtt5_3_1_2_5_a_session_is_resumed, mqtt311_3_1_2_4_a_session_is_resumed => resumed;
    mqtt5_3_1_2_4_a_clean_start_discards, mqtt311_3_1_2_6_a_clean_session_discards
        => clean_start_discards;
    mqtt5_3_1_2_23_a_session_is_kept_while_away, mqtt311_3_1_2_5_messages_are_kept_while_away
        => kept_while_away;
    mqtt5_3_1_3_2_sessions_go_by_client_id, mqtt311_3_1_3_2_sessions_go_by_client_id => by_client_id;
    mqtt5_3_1_4_4_clean_start_is_processed, mqtt311_3_1_4_3_clean_session_is_processed => |version| {
        clean_start_discards(version);
        resumed(version);
    };
    mqtt5_4_1_0_1_a_session_lasts_as_long_as_its_connection,
    mqtt311_4_1_0_2_a_session_lasts_as_long_as_its_connection => as_long_as_the_connection;
    mqtt5_4_5_0_1_every_matching_session_gets_it, mqtt311_4_5_0_1_every_matching_session_gets_it
        => every_matching_session;
}

#[test]
fn mqtt311_4_1_0_1_a_session_is_kept_for_its_whole_duration() {
    kept_while_away(V311);
}

#[test]
fn mqtt5_4_1_0_2_a_session_ends_with_its_expiry() {
    let rig = Rig::new();
    let short = connect(V5, "s").unclean().with(&four(property::SESSION_EXPIRY, 1));
    let (mut subscriber, _) = Peer::connect(&rig, &short);
    subscriber.subscribe("t", 1);
    subscriber.disconnect();
    // The clock has to go on for this one.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    let (_, connack) = Peer::connect(&rig, &short);
    assert!(!connack.present);
}

#[test]
fn mqtt5_3_1_2_23_without_an_expiry_nothing_is_kept() {
    let rig = Rig::new();
    Peer::connect(&rig, &connect(V5, "s").unclean()).0.disconnect();
    let (_, connack) = Peer::connect(&rig, &connect(V5, "s").unclean());
    assert!(!connack.present);
}

#[test]
fn mqtt5_3_14_2_a_disconnect_may_change_the_expiry() {
    let rig = Rig::new();
    let (mut peer, _) = Peer::connect(&rig, &persistent(V5, "s"));
    peer.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    peer.is_closed();
    let (_, connack) = Peer::connect(&rig, &persistent(V5, "s"));
    assert!(!connack.present, "the expiry was 0");
    // But not from 0 to something.
    let mut peer = Peer::new(&rig, V5, "zero");
    peer.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]);
    peer.is_refused(&[0x82]);
}

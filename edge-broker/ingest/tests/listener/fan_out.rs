//! What live subscribers get, and when.

use std::sync::atomic::Ordering;

use edge_log::storage::{Fault, FaultKind, SimOperation};

use crate::support::{Rig, options, publish, publish_v5};

#[test]
fn qos_1_reaches_subscribers_only_when_it_is_durable() {
    let rig = Rig::new();
    rig.warm_up(&["a"]);
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("#", 1);
    let mut publisher = rig.v4("p");
    rig.syncs.close();
    publisher.send(&publish("a", 7, b"x"));
    publisher.ping();
    subscriber.ping();
    rig.syncs.open();
    assert_eq!(subscriber.packet(), publish("a", 1, b"x"));
    assert_eq!(publisher.packet(), [0x40, 2, 0, 7]);
}

#[test]
fn qos_0_reaches_subscribers_at_once_whatever_the_lane_does() {
    let rig = Rig::new();
    rig.warm_up(&["a"]);
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("+", 1);
    let mut publisher = rig.v4("p");
    rig.syncs.close();
    publisher.send(&publish("a", 0, b"while the lane syncs"));
    assert_eq!(subscriber.packet(), publish("a", 0, b"while the lane syncs"));

    let fault =
        Fault { operation: SimOperation::Sync, after: 0, kind: FaultKind::Device, sticky: true };
    rig.disk.inject(fault);
    // Nor can the lane be opened again for now.
    rig.disk.inject(Fault { operation: SimOperation::Open, ..fault });
    rig.syncs.open();
    let lane = rig.engine.lane_by_name("normal").unwrap();
    // The sync that waited may have been past its fault: what comes next finds it.
    while lane.state() == edge_engine::LaneState::Open {
        publisher.send(&publish("not/subscribed", 0, b"x"));
        publisher.ping();
    }
    publisher.send(&publish("a", 0, b"while it is poisoned"));
    assert_eq!(subscriber.packet(), publish("a", 0, b"while it is poisoned"));
    publisher.ping();
    assert!(rig.stats.records_dropped.load(Ordering::Relaxed) >= 1, "counted");
    rig.disk.heal();
}

#[test]
fn versions_meet_on_one_port() {
    let rig = Rig::new();
    let mut old = rig.v4("old");
    old.subscribe("t/+", 1);
    let mut new = rig.v5("new");
    // Retain As Published and identifier 7.
    new.subscribe_v5("t/#", 0x09, &[0x0B, 7]);
    let properties = b"\x26\x00\x01k\x00\x01v\x03\x00\x04json";
    new.send(&publish_v5("t/ü", 9, properties, b"x"));
    let mut acknowledged = false;
    let mut expected = b"\x0b\x07".to_vec();
    expected.extend_from_slice(properties);
    for _ in 0..2 {
        let packet = new.packet();
        if packet == [0x40, 2, 0, 9] {
            acknowledged = true;
        } else {
            assert_eq!(packet, publish_v5("t/ü", 1, &expected, b"x"));
        }
    }
    assert!(acknowledged);
    assert_eq!(old.packet(), publish("t/ü", 1, b"x"));

    old.send(&publish("t/1", 0, b"y"));
    assert_eq!(new.packet(), publish_v5("t/1", 0, b"\x0b\x07", b"y"));
    assert_eq!(old.packet(), publish("t/1", 0, b"y"));
}

#[test]
fn no_local_and_unsubscribe_are_honoured() {
    let rig = Rig::new();
    let mut client = rig.v5("c");
    client.subscribe_v5("a", 0x04, &[]);
    client.send(&publish_v5("a", 0, &[], b"mine"));
    client.ping();
    let mut other = rig.v4("o");
    other.send(&publish("a", 0, b"yours"));
    assert_eq!(client.packet(), publish_v5("a", 0, &[], b"yours"));
    client.send(b"\xa2\x06\x00\x02\x00\x00\x01a");
    assert_eq!(client.packet(), [0xB0, 4, 0, 2, 0, 0]);
    other.send(&publish("a", 0, b"nobody"));
    other.ping();
    client.ping();
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a/#", 0);
    subscriber.subscribe("a/+", 1);
    let mut publisher = rig.v4("p");
    publisher.send(&publish("a/b", 5, b"x"));
    assert_eq!(publisher.packet(), [0x40, 2, 0, 5]);
    assert_eq!(subscriber.packet(), publish("a/b", 1, b"x"));
    subscriber.ping();
}

#[test]
fn a_topic_that_begins_with_a_multibyte_character_harms_nobody() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("#", 0);
    let mut publisher = rig.v4("p");
    publisher.send(&publish("ü", 1, b"x"));
    assert_eq!(publisher.packet(), [0x40, 2, 0, 1]);
    assert_eq!(subscriber.packet(), publish("ü", 0, b"x"));
    publisher.send(&publish("a", 0, b"y"));
    assert_eq!(subscriber.packet(), publish("a", 0, b"y"));
}

#[test]
fn order_per_topic_is_kept_to_a_subscriber() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a", 1);
    let mut publisher = rig.v4("p");
    for id in 1..=200_u16 {
        publisher.send(&publish("a", id, &id.to_be_bytes()));
    }
    for id in 1..=200_u16 {
        assert_eq!(subscriber.packet(), publish("a", id, &id.to_be_bytes()));
        let [high, low] = id.to_be_bytes();
        subscriber.send(&[0x40, 2, high, low]);
    }
}

#[test]
fn a_slow_subscriber_loses_the_newest_and_it_is_counted() {
    let mut options = options();
    options.session.deliveries_in_flight_max = 1;
    options.session.deliveries_queued_bytes_max = 1_000;
    let rig = Rig::with("", options);
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a", 1);
    let mut publisher = rig.v4("p");
    for id in 1..=100_u16 {
        publisher.send(&publish("a", id, &[b'x'; 100]));
        let [high, low] = id.to_be_bytes();
        assert_eq!(publisher.packet(), [0x40, 2, high, low]);
    }
    assert_eq!(subscriber.packet(), publish("a", 1, &[b'x'; 100]));
    let dropped = || rig.stats.deliveries_dropped.load(Ordering::Relaxed);
    subscriber.ping();
    assert!(dropped() > 0);
    for id in 1..=100 - u16::try_from(dropped()).unwrap() {
        let [high, low] = id.to_be_bytes();
        subscriber.send(&[0x40, 2, high, low]);
        if u64::from(id) < 100 - dropped() {
            assert_eq!(subscriber.packet(), publish("a", id + 1, &[b'x'; 100]));
        }
    }
    subscriber.ping();
}

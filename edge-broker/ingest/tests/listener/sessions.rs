//! QoS 2 both ways, and sessions that outlive their connection.

use crate::support::{Rig, connect_v5_with, publish, publish_qos2};

#[test]
fn mqtt_4_3_3_10_a_qos_2_publish_is_stored_once_however_often_it_is_sent() {
    let rig = Rig::new();
    rig.warm_up(&["a"]);
    let (mut client, _) = rig.lasting_v4("p");
    rig.syncs.close();
    client.send(&publish_qos2("a", 7, b"once"));
    let mut again = publish_qos2("a", 7, b"once");
    again[0] |= 8;
    client.send(&again);
    client.ping();
    rig.syncs.open();
    // The second waited for the first.
    assert_eq!(client.packet(), [0x50, 2, 0, 7]);
    assert_eq!(client.packet(), [0x50, 2, 0, 7]);
    drop(client);

    let (mut client, resumed) = rig.lasting_v4("p");
    assert!(resumed);
    client.send(&again);
    assert_eq!(client.packet(), [0x50, 2, 0, 7]);
    client.send(&[0x62, 2, 0, 7]);
    assert_eq!(client.packet(), [0x70, 2, 0, 7]);
    client.send(&publish_qos2("a", 7, b"another"));
    assert_eq!(client.packet(), [0x50, 2, 0, 7]);
    let values: Vec<_> = rig.records("mqtt").into_iter().map(|record| record.value).collect();
    assert_eq!(values.iter().filter(|value| **value == b"once").count(), 1);
    assert_eq!(values.iter().filter(|value| **value == b"another").count(), 1);
}

#[test]
fn a_client_that_left_before_the_sync_of_its_qos_2_publish_gets_its_session_back() {
    let rig = Rig::new();
    rig.warm_up(&["a"]);
    let (mut client, _) = rig.lasting_v4("p");
    rig.syncs.close();
    client.send(&publish_qos2("a", 7, b"once"));
    // It was read: its answer stands behind it.
    client.ping();
    drop(client);
    rig.syncs.open();
    let (mut client, resumed) = rig.lasting_v4("p");
    assert!(resumed);
    let mut again = publish_qos2("a", 7, b"once");
    again[0] |= 8;
    client.send(&again);
    assert_eq!(client.packet(), [0x50, 2, 0, 7]);
    client.send(&[0x62, 2, 0, 7]);
    assert_eq!(client.packet(), [0x70, 2, 0, 7]);
    let values: Vec<_> = rig.records("mqtt").into_iter().map(|record| record.value).collect();
    assert_eq!(values.iter().filter(|value| **value == b"once").count(), 1);
}

#[test]
fn mqtt_4_3_3_a_subscriber_gets_qos_2_in_four_steps() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a", 2);
    let mut publisher = rig.v4("p");
    publisher.send(&publish_qos2("a", 9, b"x"));
    assert_eq!(publisher.packet(), [0x50, 2, 0, 9]);
    assert_eq!(subscriber.packet(), publish_qos2("a", 1, b"x"));
    subscriber.send(&[0x50, 2, 0, 1]);
    assert_eq!(subscriber.packet(), [0x62, 2, 0, 1]);
    subscriber.send(&[0x70, 2, 0, 1]);
    publisher.send(&[0x62, 2, 0, 9]);
    assert_eq!(publisher.packet(), [0x70, 2, 0, 9]);
}

#[test]
fn mqtt_3_8_4_8_deliveries_never_have_a_higher_qos_than_was_published() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a", 2);
    let mut publisher = rig.v4("p");
    publisher.send(&publish("a", 0, b"0"));
    assert_eq!(subscriber.packet(), publish("a", 0, b"0"));
    publisher.send(&publish("a", 3, b"1"));
    assert_eq!(subscriber.packet(), publish("a", 1, b"1"));
}

#[test]
fn mqtt_4_4_0_1_what_was_not_acknowledged_comes_again_and_what_came_meanwhile_behind_it() {
    let rig = Rig::new();
    let (mut subscriber, resumed) = rig.lasting_v4("s");
    assert!(!resumed);
    subscriber.subscribe("a", 2);
    let mut publisher = rig.v4("p");
    publisher.send(&publish("a", 1, b"1"));
    publisher.send(&publish_qos2("a", 2, b"2"));
    publisher.send(&publish_qos2("a", 3, b"3"));
    assert_eq!(subscriber.packet(), publish("a", 1, b"1"));
    assert_eq!(subscriber.packet(), publish_qos2("a", 2, b"2"));
    assert_eq!(subscriber.packet(), publish_qos2("a", 3, b"3"));
    subscriber.send(&[0x50, 2, 0, 2]);
    assert_eq!(subscriber.packet(), [0x62, 2, 0, 2]);
    drop(subscriber);
    for _ in 0..3 {
        publisher.packet();
    }
    // The session is away when the next one is told so.
    let (mut subscriber, resumed) = rig.lasting_v4("s");
    assert!(resumed);
    subscriber.send(&[0xE0, 0]);
    assert!(!subscriber.rest().is_empty());
    publisher.send(&publish("a", 0, b"not kept"));
    publisher.send(&publish("a", 4, b"4"));
    assert_eq!(publisher.packet(), [0x40, 2, 0, 4]);

    let (mut subscriber, resumed) = rig.lasting_v4("s");
    assert!(resumed);
    let again = |mut packet: Vec<u8>| {
        packet[0] |= 8;
        packet
    };
    assert_eq!(subscriber.packet(), again(publish("a", 1, b"1")));
    assert_eq!(subscriber.packet(), [0x62, 2, 0, 2]);
    assert_eq!(subscriber.packet(), again(publish_qos2("a", 3, b"3")));
    assert_eq!(subscriber.packet(), publish("a", 4, b"4"));
    subscriber.ping();
}

#[test]
fn mqtt_3_1_4_3_a_take_over_is_told_and_goes_on_with_the_session() {
    let rig = Rig::new();
    let mut old = rig.client();
    old.send(&connect_v5_with("c", true, b"\x11\0\0\0\x3c", None));
    assert_eq!(old.packet()[3], 0);
    old.subscribe_v5("a", 1, &[]);
    let mut new = rig.client();
    new.send(&connect_v5_with("c", false, b"\x11\0\0\0\x3c", None));
    assert_eq!(old.packet()[2], 0x8E);
    assert!(old.closed());
    assert_eq!(new.packet()[2..4], [1, 0], "session present");
    let mut publisher = rig.v4("p");
    publisher.send(&publish("a", 1, b"x"));
    assert_eq!(new.packet()[..2], [0x32, 7]);
}

#[test]
fn mqtt_3_1_3_9_a_will_with_delay_is_kept_back_while_its_client_returns() {
    let rig = Rig::new();
    let mut watcher = rig.v4("w");
    watcher.subscribe("will/#", 0);
    let expiry = b"\x11\0\0\0\x3c";
    let mut client = rig.client();
    client.send(&connect_v5_with("c", true, expiry, Some(("will/late", 1, b"x"))));
    assert_eq!(client.packet()[3], 0);
    drop(client);
    let mut client = rig.client();
    client.send(&connect_v5_with("c", false, expiry, Some(("will/late", 1, b"y"))));
    assert_eq!(client.packet()[2..4], [1, 0]);
    drop(client);
    // The first to arrive is the second will: the first was cancelled.
    assert_eq!(watcher.packet(), publish("will/late", 0, b"y"));
}

#[test]
fn mqtt_3_14_4_a_disconnect_may_end_a_session_that_would_have_lasted() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.send(&connect_v5_with("c", true, b"\x11\0\0\0\x3c", None));
    assert_eq!(client.packet()[3], 0);
    client.send(b"\xe0\x07\x00\x05\x11\0\0\0\0");
    assert!(client.closed());
    let mut client = rig.client();
    client.send(&connect_v5_with("c", false, b"\x11\0\0\0\x3c", None));
    assert_eq!(client.packet()[2..4], [0, 0]);
}

fn retained(mut publish: Vec<u8>) -> Vec<u8> {
    publish[0] |= 1;
    publish
}

#[test]
fn mqtt_3_3_1_9_a_new_subscriber_gets_what_is_retained_with_the_flag() {
    let rig = Rig::new();
    let mut publisher = rig.v4("p");
    publisher.send(&retained(publish("a/1", 1, b"old")));
    publisher.send(&retained(publish("a/1", 2, b"new")));
    publisher.send(&retained(publish("a/2", 0, b"other")));
    publisher.send(&retained(publish("a/3", 0, b"gone")));
    publisher.send(&retained(publish("a/3", 0, b"")));
    for id in 1..=2 {
        assert_eq!(publisher.packet(), [0x40, 2, 0, id]);
    }
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a/+", 1);
    assert_eq!(subscriber.packet(), retained(publish("a/1", 1, b"new")));
    assert_eq!(subscriber.packet(), retained(publish("a/2", 0, b"other")));
    subscriber.ping();
    // To a subscription that was there before, the flag is not set.
    publisher.send(&retained(publish("a/2", 0, b"live")));
    assert_eq!(subscriber.packet(), publish("a/2", 0, b"live"));
}

#[test]
fn mqtt_3_3_1_10_and_11_retain_handling_says_when_it_is_sent() {
    let rig = Rig::new();
    let mut publisher = rig.v4("p");
    publisher.send(&retained(publish("a", 0, b"x")));
    publisher.ping();
    let mut client = rig.v5("c");
    // 2: never.
    client.subscribe_v5("a", 0x20, &[]);
    client.ping();
    // 1: only if it is new.
    client.subscribe_v5("a", 0x10, &[]);
    client.ping();
    client.subscribe_v5("+", 0x10, &[]);
    assert_eq!(client.packet(), b"\x31\x05\x00\x01a\x00x");
    // 0: always.
    client.subscribe_v5("a", 0, &[]);
    assert_eq!(client.packet(), b"\x31\x05\x00\x01a\x00x");
}

#[test]
fn what_is_retained_is_sent_as_fast_as_it_is_acknowledged() {
    let mut options = crate::support::options();
    options.session.deliveries_in_flight_max = 2;
    options.session.deliveries_queued_bytes_max = 0;
    let rig = Rig::with("", options);
    let mut publisher = rig.v4("p");
    for id in 1..=9_u16 {
        publisher.send(&retained(publish(&format!("a/{id}"), id, &[b'x'; 100])));
        publisher.packet();
    }
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("#", 1);
    for id in 1..=9_u16 {
        assert_eq!(subscriber.packet(), retained(publish(&format!("a/{id}"), id, &[b'x'; 100])));
        subscriber.send(&[0x40, 2, 0, id.to_be_bytes()[1]]);
    }
}

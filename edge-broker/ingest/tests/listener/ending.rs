//! How connections end: take-over, wills, keep-alive, shutdown.

use std::sync::atomic::Ordering;

use crate::support::{Rig, packet, publish, put};

fn connect_with_will(client_id: &str, qos: u8) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(0x06 | qos << 3);
    body.extend_from_slice(&[0, 0]);
    put(&mut body, client_id.as_bytes());
    put(&mut body, b"will/topic");
    put(&mut body, b"gone");
    packet(0x10, &body)
}

#[test]
fn a_client_id_belongs_to_the_newest_connection() {
    let rig = Rig::new();
    let mut first = rig.v5("same");
    let mut second = rig.v5("same");
    assert_eq!(first.rest(), [0xE0, 1, 0x8E]);
    second.ping();
    let mut third = rig.v4("same");
    assert_eq!(second.rest(), [0xE0, 1, 0x8E]);
    third.ping();
    assert_eq!(rig.stats.take_overs.load(Ordering::Relaxed), 2);
}

#[test]
fn a_will_is_stored_and_delivered_when_the_connection_is_lost() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("will/#", 1);
    for qos in [0, 1] {
        let mut client = rig.client();
        client.send(&connect_with_will("c", qos));
        assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        drop(client);
        let id = u16::from(qos);
        assert_eq!(subscriber.packet(), publish("will/topic", id, b"gone"));
    }
    let mut client = rig.client();
    client.send(&connect_with_will("c", 1));
    assert_eq!(client.packet(), [0x20, 2, 0, 0]);
    client.send(&[0xE0, 0]);
    assert!(client.closed());
    let mut client = rig.v4("other");
    client.send(&publish("will/last", 1, b"x"));
    assert_eq!(subscriber.packet(), publish("will/last", 2, b"x"), "no will before it");
    let wills = rig.records("mqtt").into_iter().filter(|record| record.value == b"gone").count();
    assert_eq!(wills, 2);
}

#[test]
fn a_publish_and_a_disconnect_in_one_segment_are_both_honoured() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a", 1);
    let mut client = rig.v4("c");
    let mut bytes = publish("a", 0, b"zero");
    bytes.extend(publish("a", 1, b"one"));
    bytes.extend_from_slice(&[0xE0, 0]);
    client.send(&bytes);
    assert_eq!(subscriber.packet(), publish("a", 0, b"zero"));
    assert_eq!(subscriber.packet(), publish("a", 1, b"one"));
    assert_eq!(rig.records("mqtt").len(), 2);
}

#[test]
fn silence_beyond_keep_alive_ends_the_connection() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.send(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x01\x00\x00\x01c");
    assert_eq!(client.packet()[0], 0x20);
    assert_eq!(client.rest(), [0xE0, 1, 0x8D]);
}

#[test]
fn shutdown_acknowledges_what_was_sent_and_says_good_bye() {
    let mut rig = Rig::new();
    rig.warm_up(&["a"]);
    let mut client = rig.v5("c");
    let mut idle = rig.v5("idle");
    rig.syncs.close();
    client.send(b"\x32\x07\x00\x01a\x00\x07\x00x");
    client.ping();
    rig.stop();
    assert_eq!(idle.rest(), [0xE0, 1, 0x8B]);
    rig.syncs.open();
    assert_eq!(client.rest(), [0x40, 2, 0, 7, 0xE0, 1, 0x8B]);
    rig.stopped();
    assert_eq!(rig.stats.connections_open.load(Ordering::Relaxed), 0);
}

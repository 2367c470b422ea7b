//! Bytes that a client must not send: that connection ends with the right reason, nobody else
//! notices.

use std::sync::atomic::Ordering;

use crate::support::{Rig, connect_v5, packet, publish, publish_v5};

#[test]
fn before_connect_nothing_but_connect_is_listened_to() {
    let rig = Rig::new();
    let mut bystander = rig.v4("bystander");
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff\xff",
        b"\x40\x02\x00\x01",         // PUBACK first
        b"\x20\x02\x00\x00",         // CONNACK to a broker
        b"\x10\xff\xff\xff\x7f",     // a length of 256 MB
        b"\x10\xff\xff\xff\xff\x01", // a length of five bytes
        b"\x10\x0d\x00\x04MQTX\x04\x02\x00\x00\x00\x01c",
    ] {
        let mut client = rig.client();
        client.send(bytes);
        assert!(client.closed(), "{bytes:x?}");
        bystander.ping();
    }
    let mut client = rig.client();
    client.send(b"\x10\x0d\x00\x04MQTT\x07\x02\x00\x00\x00\x01c");
    assert_eq!(client.rest(), [0x20, 2, 0, 1], "unacceptable protocol version");
    let mut client = rig.client();
    client.send(b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00");
    assert_eq!(client.rest(), [0x20, 3, 0, 0x81, 0], "reserved connect flag");
    assert_eq!(rig.stats.panics.load(Ordering::Relaxed), 0);
}

#[test]
fn half_a_connect_and_silence_ends_at_the_deadline() {
    let mut options = crate::support::options();
    options.session.connect_deadline = std::time::Duration::from_millis(50);
    let rig = Rig::with("", options);
    let mut client = rig.client();
    client.send(&connect_v5("c")[..7]);
    assert!(client.closed());
    assert_eq!(rig.stats.timeouts.load(Ordering::Relaxed), 1);
}

#[test]
fn after_connect_v5_is_told_the_reason() {
    let rig = Rig::new();
    let mut bystander = rig.v4("bystander");
    bystander.subscribe("#", 0);
    for (bytes, reason) in [
        (&b"\x20\x02\x00\x00"[..], 0x82),
        (b"\x90\x03\x00\x01\x00", 0x82),
        (b"\xb0\x02\x00\x01", 0x82),
        (b"\xd0\x00", 0x82),
        (b"\xf0\x00", 0x82), // AUTH, and none was begun
        (b"\x00\x00", 0x81),
        (b"\x30\xff\xff\xff\x7f", 0x95),
        (b"\x30\xff\xff\xff\xff", 0x81),
        (b"\x30\x05\x00\x02a\x00\x00", 0x81),    // NUL
        (b"\x30\x05\x00\x02\xc3\x28\x00", 0x81), // not UTF-8
        (b"\x30\x06\x00\x03a/#\x00", 0x90),      // wildcard in a topic name
        (b"\x30\x06\x00\x03a/+\x00", 0x90),
        (b"\x30\x03\x00\x00\x00", 0x82), // empty topic
        (b"\x30\x07\x00\x01a\x03\x23\x00\x11", 0x94),
        (b"\x30\x06\x00\x00\x03\x23\x00\x01", 0x82), // an alias that was not set
        (b"\x82\x09\x00\x01\x00\x00\x03a#b\x00", 0x8F),
        (b"\x82\x03\x00\x01\x00", 0x82),
        (b"\x80\x07\x00\x01\x00\x00\x01a\x00", 0x81),
        (b"\xc0\x01\x00", 0x81),
    ] {
        let mut client = rig.v5("c");
        client.send(bytes);
        assert_eq!(client.rest(), [0xE0, 1, reason], "{bytes:x?}");
        bystander.ping();
    }
    let violations = &rig.stats.violations;
    for counter in [
        &violations.malformed,
        &violations.protocol_error,
        &violations.packet_too_large,
        &violations.topic_invalid,
    ] {
        assert!(counter.load(Ordering::Relaxed) > 0);
    }
    assert_eq!(rig.stats.panics.load(Ordering::Relaxed), 0);
}

#[test]
fn what_came_before_the_violation_counts() {
    let rig = Rig::new();
    rig.warm_up(&["a"]);
    let mut client = rig.v4("c");
    let mut bytes = publish("a", 0, b"good");
    bytes.extend_from_slice(&[0xF0, 0]);
    bytes.extend(publish("a", 0, b"after"));
    client.send(&bytes);
    assert!(client.closed());
    let mut other = rig.v4("o");
    other.send(&publish("a", 1, b"last"));
    assert_eq!(other.packet(), [0x40, 2, 0, 1]);
    let values: Vec<_> = rig.records("mqtt").into_iter().map(|record| record.value).collect();
    assert_eq!(values[1..], [b"good".to_vec(), b"last".to_vec()]);
}

#[test]
fn thousands_of_user_properties_are_refused() {
    let rig = Rig::new();
    let mut client = rig.v5("c");
    let mut body = b"\x00\x01a".to_vec();
    let properties = b"\x26\x00\x00\x00\x00".repeat(5_000);
    body.extend_from_slice(&packet(0, &properties)[1..]);
    client.send(&packet(0x30, &body));
    assert_eq!(client.rest(), [0xE0, 1, 0x97]);
    let mut client = rig.v5("c");
    client.send(&publish_v5("a", 1, b"\x26\x00\x00\x00\x00", b"x"));
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
}

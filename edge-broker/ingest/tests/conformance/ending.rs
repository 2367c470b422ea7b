//! PINGREQ, DISCONNECT and errors: sections 3.12 to 3.14, 4.8 and 4.13.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::Rig;

fn ping(version: Version) {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, version, "c");
    peer.send(&[0xC0, 0, 0xC0, 0]);
    assert_eq!(peer.packet(), [0xD0, 0]);
    assert_eq!(peer.packet(), [0xD0, 0]);
}

fn disconnect_flags(version: Version) {
    for first in [0xE1, 0xE2, 0xE8] {
        refused(version, &[first, 0], &[0x81]);
    }
}

fn closes_after_disconnect(version: Version) {
    let rig = Rig::new();
    let mut watcher = subscriber(&rig, version, "t", 0);
    let mut peer = Peer::new(&rig, version, "c");
    peer.send(&[&[0xE0, 0][..], &message("t", "after").bytes(version)].concat());
    peer.is_closed();
    watcher.gets_nothing(&mut Peer::new(&rig, version, "publisher"));
}

fn violations_close(version: Version) {
    for bytes in [
        vec![0x20, 2, 0, 0],
        vec![0x90, 3, 0, 1, 0],
        vec![0xB0, 2, 0, 1],
        vec![0xD0, 0],
        vec![0x00, 0],
        vec![0xC0, 1, 0],
        vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
    ] {
        refused(version, &bytes, &[0x81, 0x82]);
    }
}

both! {
    mqtt5_3_12_4_1_a_ping_is_answered, mqtt311_3_12_4_1_a_ping_is_answered => ping;
    mqtt5_3_14_1_1_disconnect_with_reserved_bits_closes,
    mqtt311_3_14_1_1_disconnect_with_reserved_bits_closes => disconnect_flags;
    mqtt5_3_14_4_1_nothing_after_a_disconnect_is_done,
    mqtt311_3_14_4_2_nothing_after_a_disconnect_is_done => closes_after_disconnect;
    mqtt5_4_13_1_1_violations_close, mqtt311_4_8_0_1_violations_close => violations_close;
}

#[test]
fn mqtt311_2_0_auth_does_not_exist() {
    refused(V311, &[0xF0, 0], &[]);
}

#[test]
fn mqtt5_3_14_0_1_no_disconnect_before_connack() {
    let rig = Rig::new();
    for bytes in
        [&[0xE0, 0][..], b"\x30\x03\x00\x01t", b"\x10\x02\x00", &[0xF0, 0], b"GET / HTTP/1.1\r\n"]
    {
        let mut peer = Peer::open(&rig, V5);
        peer.send(bytes);
        if bytes == b"\x10\x02\x00" {
            peer.send(b"\x04");
        }
        let rest = peer.client.rest();
        assert!(rest.is_empty() || rest[0] == CONNACK, "{rest:x?}");
    }
}

#[test]
fn mqtt5_3_14_2_1_disconnect_uses_its_reason_codes() {
    // A client's: 0x8E is for servers, 0x03 for nobody.
    for reason in [0x03, 0x8E, 0x89, 0x05] {
        refused(V5, &[0xE0, 1, reason], &[0x81, 0x82]);
    }
    let rig = Rig::new();
    for reason in
        [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]
    {
        let mut peer = Peer::new(&rig, V5, "c");
        peer.send(&[0xE0, 1, reason]);
        peer.is_closed();
    }
}

#[test]
fn mqtt5_3_14_2_2_no_session_expiry_comes_from_us() {
    let rig = Rig::new();
    let (mut first, _) = Peer::connect(&rig, &persistent(V5, "same"));
    let _second = Peer::connect(&rig, &persistent(V5, "same"));
    let told = first.client.rest();
    assert_eq!(told[0], DISCONNECT);
    assert!(told.len() == 3 || !told[3..].contains(&property::SESSION_EXPIRY), "{told:x?}");
}

#[test]
fn mqtt5_3_14_2_3_a_disconnect_keeps_to_the_clients_packet_size() {
    let rig = Rig::new();
    let wanted = connect(V5, "same").with(&four(property::MAXIMUM_PACKET_SIZE, 100));
    let (mut first, _) = Peer::connect(&rig, &wanted);
    let _second = Peer::new(&rig, V5, "same");
    let told = first.client.rest();
    assert!(told[0] == DISCONNECT && told.len() <= 100, "{told:x?}");
}

#[test]
fn mqtt5_3_14_4_2_after_our_disconnect_the_connection_closes() {
    refused(V5, &[0x20, 2, 0, 0], &[0x82]);
}

#[test]
fn mqtt5_4_13_2_1_an_error_code_means_a_close() {
    refused(V5, &message("a/#", "x").bytes(V5), &[0x90]);
    connect_refused(&connect(V5, "c").with(&[0x17, 9]), &[0x82, 0x81]);
}

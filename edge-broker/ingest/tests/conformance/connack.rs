//! CONNACK: section 3.2 of both standards, and enhanced authentication (5.0 section 4.12).

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::Rig;

fn new_session(version: Version) {
    let rig = Rig::new();
    let (_, connack) = Peer::connect(&rig, &connect(version, "c"));
    assert!(!connack.present);
    // Also where there was one.
    Peer::connect(&rig, &persistent(version, "p")).0.disconnect();
    let (_, connack) = Peer::connect(&rig, &connect(version, "p"));
    assert!(!connack.present);
}

fn session_present(version: Version) {
    let rig = Rig::new();
    let (peer, connack) = Peer::connect(&rig, &persistent(version, "c"));
    assert!(!connack.present, "there was none");
    peer.disconnect();
    let (_, connack) = Peer::connect(&rig, &persistent(version, "c"));
    assert!(connack.present);
}

fn no_session(version: Version) {
    let rig = Rig::new();
    let (_, connack) = Peer::connect(&rig, &connect(version, "c").unclean());
    assert!(!connack.present);
}

/// `connect_refused` looks at session present and at the close behind it.
fn refusals(version: Version) {
    let mut wanted = persistent(version, "c");
    wanted.level = 9;
    wanted.version = V311;
    connect_refused(&wanted, &[1, 0x84]);
}

both! {
    mqtt5_3_2_2_2_a_clean_start_has_no_session, mqtt311_3_2_2_1_a_clean_session_has_none_before
        => new_session;
    mqtt5_3_2_2_3_a_session_that_is_there_is_told, mqtt311_3_2_2_2_a_session_that_is_there_is_told
        => session_present;
    mqtt5_3_1_2_6_without_a_session_there_is_a_new_one,
    mqtt311_3_2_2_3_without_a_session_none_is_told => no_session;
    mqtt5_3_2_2_6_a_refusal_has_no_session, mqtt311_3_2_2_4_a_refusal_has_no_session => refusals;
    mqtt5_3_2_2_7_a_refusal_closes, mqtt311_3_2_2_5_a_refusal_closes => refusals;
}

#[test]
fn mqtt311_3_2_2_6_without_a_fitting_code_it_closes_without_connack() {
    let mut wanted = connect(V311, "c");
    wanted.name = b"HTTP".to_vec();
    connect_refused(&wanted, &[]);
}

#[test]
fn mqtt5_3_2_0_2_there_is_one_connack() {
    refused(V5, &connect(V5, "offender").bytes(), &[0x82]);
}

#[test]
fn mqtt5_3_2_2_1_the_reserved_bits_of_connack_are_0() {
    let rig = Rig::new();
    // `connack` looks at them.
    Peer::connect(&rig, &persistent(V5, "c")).0.disconnect();
    Peer::connect(&rig, &persistent(V5, "c"));
}

#[test]
fn mqtt5_3_2_2_8_refusals_use_the_codes_of_the_table() {
    let good = [
        0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
        0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    let bad_will = message("a/#", "x");
    for wanted in [
        connect(V5, &"x".repeat(10_000)),
        connect(V5, "c").with(&text(property::AUTHENTICATION_METHOD, b"DREAM")),
        connect(V5, "c").with(&two(property::RECEIVE_MAXIMUM, 0)),
        connect(V5, "c").with(&four(property::MAXIMUM_PACKET_SIZE, 0)),
        connect(V5, "c").with(&[0x17, 2]),
        connect(V5, "c").with(&two(property::RECEIVE_MAXIMUM, 1)).with(&two(0x21, 1)),
        connect(V5, "c").will(bad_will, &[]),
    ] {
        connect_refused(&wanted, &good);
    }
}

#[test]
fn mqtt5_3_2_2_9_qos_1_and_2_are_supported_or_the_maximum_is_told() {
    let rig = Rig::new();
    let (mut peer, connack) = Peer::connect(&rig, &connect(V5, "c"));
    let maximum = connack.number(0x24).unwrap_or(2);
    assert_eq!(peer.publish(&message("t", "x").qos(1)), 0);
    if maximum == 2 {
        assert_eq!(peer.publish(&message("t", "x").qos(2)), 0);
    }
}

#[test]
fn mqtt5_3_2_2_10_subscriptions_ask_for_any_qos() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V5, "c");
    for qos in 0..=2 {
        assert!(peer.subscribe("t", qos) <= qos);
    }
}

#[test]
fn mqtt5_3_2_2_12_a_will_of_any_supported_qos_is_taken() {
    let rig = Rig::new();
    for qos in 0..=2 {
        let wanted = connect(V5, "c").will(message("w", "x").qos(qos), &[]);
        let (_, connack) = Peer::try_connect(&rig, &wanted);
        let maximum = connack.number(0x24).unwrap_or(2);
        assert_eq!(connack.code, if u32::from(qos) <= maximum { 0 } else { 0x9B });
    }
}

#[test]
fn mqtt5_3_2_2_13_a_retained_will_is_taken_where_retain_is_available() {
    let rig = Rig::new();
    let wanted = connect(V5, "c").will(message("w", "x").retain(), &[]);
    let (_, connack) = Peer::try_connect(&rig, &wanted);
    let available = connack.number(0x25) != Some(0);
    assert_eq!(connack.code, if available && connack.code == 0 { 0 } else { 0x9A });
}

#[test]
fn mqtt5_3_2_2_16_an_assigned_client_id_is_new() {
    let rig = Rig::new();
    let mut seen = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..5 {
        let (peer, connack) = Peer::connect(&rig, &connect(V5, ""));
        let id = connack.properties(property::ASSIGNED_CLIENT_ID);
        assert!(id.len() == 1 && !seen.contains(&id), "{id:?}");
        seen.push(id);
        peers.push(peer);
    }
    // And only where none was brought.
    let (_, connack) = Peer::connect(&rig, &connect(V5, "mine"));
    assert!(connack.properties(property::ASSIGNED_CLIENT_ID).is_empty());
}

#[test]
fn mqtt5_3_2_2_19_and_20_connack_keeps_to_the_clients_packet_size() {
    let rig = Rig::new();
    for size in [20, 40, 60, 100] {
        let mut peer = Peer::open(&rig, V5);
        peer.send(&connect(V5, "c").with(&four(property::MAXIMUM_PACKET_SIZE, size)).bytes());
        let connack = peer.client.rest_or_packet();
        assert!(connack.len() <= usize::try_from(size).unwrap(), "{connack:x?}");
    }
}

#[test]
fn mqtt5_3_2_2_22_the_keep_alive_of_the_client_is_used_where_no_other_is_told() {
    let rig = Rig::new();
    let (mut peer, connack) = Peer::connect(&rig, &connect(V5, "c").keep_alive(1));
    assert_eq!(connack.number(property::SERVER_KEEP_ALIVE), None);
    peer.is_refused(&[0x8D]);
}

#[test]
fn mqtt5_4_12_0_1_an_unknown_authentication_method_closes() {
    let wanted = connect(V5, "c").with(&text(property::AUTHENTICATION_METHOD, b"DREAM"));
    connect_refused(&wanted, &[0x8C, 0x87]);
    let with_data = wanted.with(&text(0x16, b"data"));
    connect_refused(&with_data, &[0x8C, 0x87]);
    // Data without a method is a Protocol Error.
    connect_refused(&connect(V5, "c").with(&text(0x16, b"data")), &[0x82, 0x8C]);
}

#[test]
fn mqtt5_4_12_0_6_no_authentication_unasked() {
    let rig = Rig::new();
    let (_, connack) = Peer::connect(&rig, &connect(V5, "c"));
    assert!(connack.properties(property::AUTHENTICATION_METHOD).is_empty());
}

#[test]
fn mqtt5_4_12_0_7_auth_without_a_method_closes() {
    refused(V5, &[0xF0, 0], &[0x82]);
    refused(V5, &[0xF0, 2, 0x19, 0], &[0x82]);
}

#[test]
fn mqtt5_3_15_1_1_auth_with_reserved_flags_closes() {
    refused(V5, &[0xF1, 0], &[0x81, 0x82]);
}

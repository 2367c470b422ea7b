//! CONNECT: section 3.1 of both standards, but for wills and sessions.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::{Rig, packet, put};

fn first_packet(version: Version) {
    let rig = Rig::new();
    for bytes in [
        message("t", "x").bytes(version),
        vec![0xC0, 0],
        subscribe(version, 1, &[("t", 0)], &[]),
        vec![0xE0, 0],
        vec![0x40, 2, 0, 1],
    ] {
        let mut peer = Peer::open(&rig, version);
        peer.send(&bytes);
        peer.is_closed();
    }
}

fn second_connect(version: Version) {
    refused(version, &connect(version, "again").bytes(), &[0x82]);
}

fn protocol_name(version: Version) {
    for name in [&b"MQTX"[..], b"mqtt", b"", b"MQTT\0", b"MQIsdp"] {
        let mut wanted = connect(version, "c");
        wanted.name = name.to_vec();
        connect_refused(&wanted, if name == b"MQIsdp" { &[1] } else { &[] });
    }
}

fn protocol_level(_: Version) {
    for level in [0, 2, 6, 255] {
        let mut wanted = connect(V311, "c");
        wanted.level = level;
        connect_refused(&wanted, &[1, 0x84]);
    }
}

fn reserved_flag(version: Version) {
    let mut wanted = connect(version, "c");
    wanted.flags_changed = 1;
    connect_refused(&wanted, if version == V5 { &[0x81, 0x82] } else { &[] });
}

/// A flag says that a field is there which is not, or the other way round.
fn field_against_flag(version: Version, flag: u8) {
    let codes: &[u8] = if version == V5 { &[0x81, 0x82] } else { &[] };
    let mut wanted = connect(version, "c");
    wanted.username = Some(b"u".to_vec());
    wanted.password = Some(b"p".to_vec());
    wanted.flags_changed = flag;
    connect_refused(&wanted, codes);
    let mut wanted = connect(version, "c");
    if flag == 0x40 && version == V311 {
        wanted.username = Some(b"u".to_vec());
    }
    wanted.flags_changed = flag;
    connect_refused(&wanted, codes);
}

fn silence(version: Version) {
    let rig = Rig::new();
    let wanted = connect(version, "c").keep_alive(1).will(message("gone", "w"), &[]);
    let mut watcher = subscriber(&rig, version, "gone", 0);
    let (mut peer, _) = Peer::connect(&rig, &wanted);
    peer.is_refused(&[0x8D]);
    assert_eq!(watcher.take().payload(), "w", "as if the network had failed");
}

fn field_order(version: Version) {
    let rig = Rig::new();
    let mut watcher = subscriber(&rig, version, "will/topic", 0);
    let mut wanted = connect(version, "id").will(message("will/topic", "will payload"), &[]);
    wanted.username = Some(b"name".to_vec());
    wanted.password = Some(b"password".to_vec());
    drop(Peer::connect(&rig, &wanted));
    assert_eq!(watcher.take().payload(), "will payload");
}

fn client_id_first(version: Version) {
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend_from_slice(&[if version == V5 { 5 } else { 4 }, 2, 0, 0]);
    if version == V5 {
        body.push(0);
    }
    let rig = Rig::new();
    let mut peer = Peer::open(&rig, version);
    peer.send(&packet(0x10, &body));
    let rest = peer.client.rest();
    assert!(rest.is_empty() || (version == V5 && rest[3] == 0x81), "{rest:x?}");
}

fn client_ids(version: Version) {
    let rig = Rig::new();
    for id in ["0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
        Peer::new(&rig, version, id).is_served();
    }
}

fn empty_client_id(version: Version) {
    let rig = Rig::new();
    // Two at once: each has its own, so neither takes over the other.
    let mut first = Peer::new(&rig, version, "");
    let mut second = Peer::new(&rig, version, "");
    first.is_served();
    second.is_served();
    first.subscribe("t", 0);
    second.publish(&message("t", "x"));
    assert_eq!(first.take().payload(), "x");
}

fn username_is_text(version: Version) {
    let mut wanted = connect(version, "c");
    wanted.username = Some(b"\xC3\x28".to_vec());
    connect_refused(&wanted, if version == V5 { &[0x81] } else { &[] });
}

fn malformed(version: Version) {
    let whole = connect(version, "client").bytes();
    let (length, rig) = (whole.len(), Rig::new());
    // Cut at every place, with a length that fits.
    for end in 3..length {
        let mut peer = Peer::open(&rig, version);
        peer.send(&packet(0x10, &whole[2..end]));
        let rest = peer.client.rest();
        let told = version == V5 && rest.len() == 5 && rest[0] == CONNACK && rest[3] >= 0x80;
        assert!(rest.is_empty() || told, "{end}: {rest:x?}");
    }
    // And with a byte too many.
    let mut peer = Peer::open(&rig, version);
    peer.send(&packet(0x10, &[&whole[2..], b"x"].concat()));
    let rest = peer.client.rest();
    assert!(rest.is_empty() || (version == V5 && rest[3] >= 0x80), "{rest:x?}");
}

fn take_over(version: Version) {
    let rig = Rig::new();
    let mut first = Peer::new(&rig, version, "same");
    let mut second = Peer::new(&rig, version, "same");
    first.is_refused(&[0x8E]);
    second.is_served();
}

fn accepted(version: Version) {
    let rig = Rig::new();
    let (_, connack) = Peer::connect(&rig, &connect(version, "c"));
    assert_eq!(connack.code, 0);
}

fn nothing_after_a_refusal(version: Version) {
    let rig = Rig::new();
    let mut watcher = subscriber(&rig, version, "t", 0);
    let mut wanted = connect(version, "c");
    wanted.level = 7;
    let mut peer = Peer::open(&rig, version);
    peer.send(&[wanted.bytes(), message("t", "x").bytes(version)].concat());
    peer.client.rest();
    watcher.gets_nothing(&mut Peer::new(&rig, version, "publisher"));
}

fn pipelined(version: Version) {
    let rig = Rig::new();
    let mut peer = Peer::open(&rig, version);
    let publish = message("t", "x").qos(1).bytes(version);
    peer.send(&[connect(version, "c").bytes(), publish].concat());
    assert_eq!(peer.packet()[0], CONNACK, "CONNACK comes first");
    assert_eq!(peer.acknowledgement(PUBACK, 1), 0);
}

both! {
    mqtt5_3_1_0_1_nothing_but_connect_comes_first, mqtt311_3_1_0_1_nothing_but_connect_comes_first
        => first_packet;
    mqtt5_3_1_0_2_a_second_connect_closes, mqtt311_3_1_0_2_a_second_connect_closes => second_connect;
    mqtt5_3_1_2_1_another_protocol_name_closes, mqtt311_3_1_2_1_another_protocol_name_closes
        => protocol_name;
    mqtt5_3_1_2_2_another_level_is_told_and_closed, mqtt311_3_1_2_2_another_level_is_told_and_closed
        => protocol_level;
    mqtt5_3_1_2_3_the_reserved_flag_closes, mqtt311_3_1_2_3_the_reserved_flag_closes => reserved_flag;
    mqtt5_3_1_2_16_a_user_name_without_flag_closes, mqtt311_3_1_2_18_a_user_name_without_flag_closes
        => |version| field_against_flag(version, 0x80);
    mqtt5_3_1_2_17_a_flag_without_user_name_closes, mqtt311_3_1_2_19_a_flag_without_user_name_closes
        => |version| field_against_flag(version, 0x80);
    mqtt5_3_1_2_18_a_password_without_flag_closes, mqtt311_3_1_2_20_a_password_without_flag_closes
        => |version| field_against_flag(version, 0x40);
    mqtt5_3_1_2_19_a_flag_without_password_closes, mqtt311_3_1_2_21_a_flag_without_password_closes
        => |version| field_against_flag(version, 0x40);
    mqtt5_3_1_2_22_silence_ends_the_connection, mqtt311_3_1_2_24_silence_ends_the_connection => silence;
    mqtt5_3_1_3_1_fields_are_read_in_their_order, mqtt311_3_1_3_1_fields_are_read_in_their_order
        => field_order;
    mqtt5_3_1_3_3_a_connect_without_client_id_closes, mqtt311_3_1_3_3_a_connect_without_client_id_closes
        => client_id_first;
    mqtt5_3_1_3_4_a_client_id_is_text, mqtt311_3_1_3_4_a_client_id_is_text => |version| {
        let mut wanted = connect(version, "");
        wanted.client_id = b"\xE2\x28".to_vec();
        connect_refused(&wanted, if version == V5 { &[0x81, 0x85] } else { &[] });
    };
    mqtt5_3_1_3_5_client_ids_of_23_letters_and_digits_are_taken,
    mqtt311_3_1_3_5_client_ids_of_23_letters_and_digits_are_taken => client_ids;
    mqtt5_3_1_3_6_an_empty_client_id_becomes_one_of_its_own,
    mqtt311_3_1_3_6_an_empty_client_id_becomes_one_of_its_own => empty_client_id;
    mqtt5_3_1_3_12_a_user_name_is_text, mqtt311_3_1_3_11_a_user_name_is_text => username_is_text;
    mqtt5_3_1_4_1_a_malformed_connect_closes, mqtt311_3_1_4_1_a_malformed_connect_closes => malformed;
    mqtt5_3_1_4_3_a_second_connection_takes_over, mqtt311_3_1_4_2_a_second_connection_takes_over
        => take_over;
    mqtt5_3_1_4_5_a_good_connect_is_acknowledged, mqtt311_3_1_4_4_a_good_connect_is_acknowledged
        => accepted;
    mqtt5_3_1_4_6_nothing_after_a_refused_connect_is_done,
    mqtt311_3_1_4_5_nothing_after_a_refused_connect_is_done => nothing_after_a_refusal;
    mqtt5_3_2_0_1_connack_comes_first, mqtt311_3_2_0_1_connack_comes_first => pipelined;
}

#[test]
fn mqtt311_3_1_2_22_a_password_without_user_name_closes() {
    let mut wanted = connect(V311, "c");
    wanted.password = Some(b"p".to_vec());
    connect_refused(&wanted, &[]);
}

#[test]
fn mqtt5_3_1_2_19_a_password_alone_is_well_formed() {
    let rig = Rig::new();
    let mut wanted = connect(V5, "c");
    wanted.password = Some(b"\xFF\0".to_vec());
    // Nobody has this password, so it is refused; but as that, and not as malformed.
    let (_, connack) = Peer::try_connect(&rig, &wanted);
    assert!(matches!(connack.code, 0 | 0x86 | 0x87), "{connack:?}");
}

#[test]
fn mqtt311_3_1_3_8_an_empty_client_id_without_clean_session_is_told_and_closed() {
    connect_refused(&connect(V311, "").unclean(), &[2]);
}

#[test]
fn mqtt311_3_1_3_7_an_empty_client_id_needs_clean_session() {
    connect_refused(&connect(V311, "").unclean(), &[2]);
}

#[test]
fn mqtt311_3_1_3_9_a_client_id_that_is_not_accepted_is_told_and_closed() {
    connect_refused(&connect(V311, &"x".repeat(10_000)), &[2]);
}

#[test]
fn mqtt5_3_1_3_8_a_client_id_that_is_not_accepted_is_told_and_closed() {
    connect_refused(&connect(V5, &"x".repeat(10_000)), &[0x85]);
}

#[test]
fn mqtt5_3_1_2_20_pings_keep_a_connection() {
    let rig = Rig::new();
    let (mut peer, _) = Peer::connect(&rig, &connect(V5, "c").keep_alive(65_535));
    peer.is_served();
}

#[test]
fn mqtt5_3_1_2_24_no_packet_exceeds_what_the_client_takes() {
    let rig = Rig::new();
    let small = connect(V5, "small").with(&four(property::MAXIMUM_PACKET_SIZE, 40));
    let mut peer = Peer::open(&rig, V5);
    peer.send(&small.bytes());
    // CONNACK as well, and what it leaves out is not needed.
    assert!(peer.client.rest_or_packet().len() <= 40);
}

#[test]
fn mqtt5_3_1_2_25_what_is_too_large_is_left_out_and_the_rest_goes_on() {
    let rig = Rig::new();
    let limited = connect(V5, "small").with(&four(property::MAXIMUM_PACKET_SIZE, 200));
    let (mut small, _) = Peer::connect(&rig, &limited);
    for qos in 0..=2 {
        assert_eq!(small.subscribe(&format!("t/{qos}"), qos), qos);
    }
    let mut publisher = Peer::new(&rig, V5, "publisher");
    for qos in 0..=2_u8 {
        let topic = format!("t/{qos}");
        publisher.publish(&message(&topic, &"x".repeat(300)).qos(qos));
        publisher.publish(&message(&topic, "fits").qos(qos));
        assert_eq!(small.take().payload(), "fits", "QoS {qos}");
    }
    small.is_served();
}

#[test]
fn mqtt5_3_1_2_27_without_an_alias_maximum_no_alias_is_sent() {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "t", 0);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    for _ in 0..5 {
        publisher.publish(&message("t", "x"));
        let found = subscriber.take();
        assert_eq!((found.topic(), found.properties(property::TOPIC_ALIAS).len()), ("t", 0));
    }
}

#[test]
fn mqtt5_3_1_2_26_no_alias_above_the_clients_maximum_is_sent() {
    let rig = Rig::new();
    let wanted = connect(V5, "c").with(&two(property::TOPIC_ALIAS_MAXIMUM, 2));
    let (mut subscriber, _) = Peer::connect(&rig, &wanted);
    subscriber.subscribe("a/+", 0);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    let mut names = std::collections::HashMap::new();
    for round in 0..30 {
        let topic = format!("a/{}", round % 5);
        publisher.publish(&message(&topic, "x"));
        let found = subscriber.take();
        let alias = found.properties(property::TOPIC_ALIAS);
        let name = match alias.first() {
            None => found.topic().to_owned(),
            Some(alias) => {
                let number = u16::from_be_bytes([alias[1], alias[2]]);
                assert!((1..=2).contains(&number), "alias {number}");
                if !found.topic.is_empty() {
                    names.insert(number, found.topic().to_owned());
                }
                names[&number].clone()
            }
        };
        assert_eq!(name, topic);
    }
}

#[test]
fn mqtt5_3_1_2_28_response_information_is_not_sent_unasked() {
    let rig = Rig::new();
    let (_, connack) = Peer::connect(&rig, &connect(V5, "c"));
    assert!(connack.properties(0x1A).is_empty());
    let (_, connack) = Peer::connect(&rig, &connect(V5, "c").with(&[0x19, 0]));
    assert!(connack.properties(0x1A).is_empty());
}

#[test]
fn mqtt5_3_1_2_29_no_reason_strings_for_who_does_not_want_them() {
    let rig = Rig::new();
    let (mut peer, _) = Peer::connect(&rig, &connect(V5, "c").with(&[0x17, 0]));
    peer.send(&subscribe(V5, 7, &[("a/b", 1)], &[]));
    assert_eq!(peer.packet(), [0x90, 4, 0, 7, 0, 1]);
    peer.send(&unsubscribe(V5, 8, &["nothing"]));
    assert_eq!(peer.packet(), [0xB0, 4, 0, 8, 0, 0x11]);
    peer.send(&message("t", "x").qos(1).bytes(V5));
    assert!(peer.packet().len() <= 6, "a reason and an empty section at most");
}

#[test]
fn mqtt5_3_1_3_7_the_assigned_client_id_is_told() {
    let rig = Rig::new();
    let (_, connack) = Peer::connect(&rig, &connect(V5, ""));
    let told = connack.properties(property::ASSIGNED_CLIENT_ID);
    assert_eq!(told.len(), 1);
    // It is this session's: whoever comes with it takes over.
    let id = std::str::from_utf8(&told[0][3..]).unwrap();
    assert!(!id.is_empty());
}

#[test]
fn mqtt5_3_1_4_2_what_the_listener_does_not_allow_closes() {
    // An authentication method that nobody knows: [MQTT-4.12.0-1] says the same.
    let wanted = connect(V5, "c").with(&text(property::AUTHENTICATION_METHOD, b"DREAM"));
    connect_refused(&wanted, &[0x8C, 0x87]);
}

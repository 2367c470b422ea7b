//! PUBLISH: section 3.3 of both standards, but for retained messages.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::{Rig, packet};

fn dup_at_qos_0(version: Version) {
    refused(version, &message("t", "x").dup().bytes(version), &[0x81, 0x82]);
}

fn dup_is_not_passed_on(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 2);
    let mut publisher = Peer::new(&rig, version, "publisher");
    for qos in 1..=2 {
        publisher.publish(&message("t", "x").qos(qos).dup());
        let found = subscriber.take();
        assert_eq!((found.qos, found.dup), (qos, false));
    }
}

fn qos_3(version: Version) {
    let mut bytes = message("t", "x").qos(1).bytes(version);
    bytes[0] |= 0x06;
    refused(version, &bytes, &[0x81]);
}

fn topic_first(version: Version) {
    refused(version, &packet(0x30, &[]), &[0x81]);
    refused(version, &packet(0x30, &[0]), &[0x81]);
    refused(version, &packet(0x30, &[0, 5, b'a']), &[0x81]);
}

fn wildcards(version: Version) {
    for topic in ["#", "+", "a/#", "a/+", "+/a", "a#", "a+b"] {
        refused(version, &message(topic, "x").bytes(version), &[0x81, 0x82, 0x90]);
    }
}

fn topic_matches_the_filter(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "a/+/c", 0);
    let mut publisher = Peer::new(&rig, version, "publisher");
    for topic in ["a/b/c", "a/b", "a//c", "A/b/c", "a/b/c/d"] {
        publisher.publish(&message(topic, topic));
    }
    for topic in ["a/b/c", "a//c"] {
        let found = subscriber.take();
        assert_eq!((found.topic(), found.payload()), (topic, topic));
    }
    subscriber.gets_nothing(&mut publisher);
}

fn answered_by_qos(version: Version) {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, version, "c");
    peer.send(&message("t", "x").bytes(version));
    peer.is_served();
    peer.send(&message("t", "x").qos(1).id(5).bytes(version));
    assert_eq!(peer.packet()[..2], [0x40, 2]);
    peer.send(&message("t", "x").qos(2).id(6).bytes(version));
    assert_eq!(peer.packet()[..2], [0x50, 2]);
}

fn overlapping(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "a/#", 1);
    assert_eq!(subscriber.subscribe("a/+", 2), 2);
    assert_eq!(subscriber.subscribe("a/b", 0), 0);
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("a/b", "x").qos(2));
    // One copy, or one for each subscription: in both the best has the highest QoS.
    let mut best = 0;
    let mut count = 0;
    publisher.publish(&message("fence", "").qos(1));
    loop {
        let found = subscriber.take();
        if found.topic() == "fence" {
            break;
        }
        count += 1;
        best = best.max(found.qos);
    }
    assert!(best == 2 && (1..=3).contains(&count), "{count} copies, best QoS {best}");
}

both! {
    mqtt5_3_3_1_2_dup_at_qos_0_closes, mqtt311_3_3_1_2_dup_at_qos_0_closes => dup_at_qos_0;
    mqtt5_3_3_1_3_dup_is_not_passed_on, mqtt311_3_3_1_3_dup_is_not_passed_on => dup_is_not_passed_on;
    mqtt5_3_3_1_4_both_qos_bits_close, mqtt311_3_3_1_4_both_qos_bits_close => qos_3;
    mqtt5_3_3_2_1_the_topic_comes_first, mqtt311_3_3_2_1_the_topic_comes_first => topic_first;
    mqtt5_3_3_2_2_wildcards_in_a_topic_name_close, mqtt311_3_3_2_2_wildcards_in_a_topic_name_close
        => wildcards;
    mqtt5_3_3_2_3_topics_match_the_filter, mqtt311_3_3_2_3_topics_match_the_filter
        => topic_matches_the_filter;
    mqtt5_3_3_4_1_the_answer_is_that_of_the_qos, mqtt311_3_3_4_1_the_answer_is_that_of_the_qos
        => answered_by_qos;
    mqtt5_3_3_4_2_overlapping_filters_give_the_highest_qos,
    mqtt311_3_3_5_1_overlapping_filters_give_the_highest_qos => overlapping;
}

/// What is sent with this property comes with the same bytes.
fn unaltered(id: u8, property: &[u8]) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "t", 2);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    for qos in 0..=2 {
        publisher.publish(&message("t", "x").qos(qos).with(property));
        assert_eq!(subscriber.take().properties(id).concat(), property, "QoS {qos}");
    }
}

#[test]
fn mqtt5_3_3_2_4_the_payload_format_is_passed_on() {
    unaltered(property::PAYLOAD_FORMAT, &[property::PAYLOAD_FORMAT, 1]);
    unaltered(property::PAYLOAD_FORMAT, &[property::PAYLOAD_FORMAT, 0]);
}

#[test]
fn mqtt5_3_3_2_15_the_response_topic_is_passed_on() {
    unaltered(property::RESPONSE_TOPIC, &text(property::RESPONSE_TOPIC, "a/\u{fc}".as_bytes()));
}

#[test]
fn mqtt5_3_3_2_16_the_correlation_data_is_passed_on() {
    unaltered(property::CORRELATION_DATA, &text(property::CORRELATION_DATA, b"\0\xFF\x01"));
    unaltered(property::CORRELATION_DATA, &text(property::CORRELATION_DATA, b""));
}

#[test]
fn mqtt5_3_3_2_17_user_properties_are_passed_on() {
    unaltered(property::USER, &user("k", "v"));
    unaltered(property::USER, &user("", ""));
}

#[test]
fn mqtt5_3_3_2_18_user_properties_keep_their_order() {
    unaltered(
        property::USER,
        &[user("b", "1"), user("a", "2"), user("b", "1"), user("a", "0")].concat(),
    );
}

#[test]
fn mqtt5_3_3_2_20_the_content_type_is_passed_on() {
    unaltered(property::CONTENT_TYPE, &text(property::CONTENT_TYPE, b"text/plain"));
}

#[test]
fn mqtt5_3_3_2_13_a_response_topic_is_text() {
    let bad = text(property::RESPONSE_TOPIC, b"\xC3\x28");
    refused(V5, &message("t", "x").with(&bad).bytes(V5), &[0x81]);
}

#[test]
fn mqtt5_3_3_2_14_a_response_topic_has_no_wildcards() {
    for topic in [&b"a/#"[..], b"+"] {
        let bad = text(property::RESPONSE_TOPIC, topic);
        refused(V5, &message("t", "x").with(&bad).bytes(V5), &[0x81, 0x82, 0x90]);
    }
}

#[test]
fn mqtt5_3_3_2_19_a_content_type_is_text() {
    let bad = text(property::CONTENT_TYPE, b"\xFF");
    refused(V5, &message("t", "x").with(&bad).bytes(V5), &[0x81]);
}

#[test]
fn mqtt5_3_3_2_6_the_expiry_that_is_left_is_told() {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "t", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(1).with(&four(property::MESSAGE_EXPIRY, 1_000)));
    let told = subscriber.take().properties(property::MESSAGE_EXPIRY);
    let [_, rest @ ..] = &told[0][..] else { panic!("{told:?}") };
    let left = rest.iter().fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
    assert!((900..=1_000).contains(&left), "{left} s");
}

#[test]
fn mqtt5_3_3_2_5_an_expired_message_is_not_delivered() {
    let rig = Rig::new();
    let wanted = connect(V5, "slow").with(&two(property::RECEIVE_MAXIMUM, 1));
    let (mut slow, _) = Peer::connect(&rig, &wanted);
    slow.subscribe("t", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "first").qos(1));
    publisher.publish(&message("t", "expires").qos(1).with(&four(property::MESSAGE_EXPIRY, 1)));
    publisher.publish(&message("t", "last").qos(1));
    let first = slow.message();
    // The clock has to go on for this one.
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    slow.acknowledge(&first);
    assert_eq!(slow.take().payload(), "last");
}

#[test]
fn mqtt5_3_3_2_7_aliases_end_with_the_connection() {
    let rig = Rig::new();
    let alias = two(property::TOPIC_ALIAS, 1);
    let (mut peer, connack) = Peer::connect(&rig, &persistent(V5, "c"));
    assert!(connack.number(property::TOPIC_ALIAS_MAXIMUM).unwrap_or(0) >= 1, "aliases are offered");
    assert_eq!(peer.publish(&message("t", "x").qos(1).with(&alias)), 0);
    peer.disconnect();
    let (mut peer, _) = Peer::connect(&rig, &persistent(V5, "c"));
    peer.send(&message("", "x").qos(1).with(&alias).bytes(V5));
    peer.is_refused(&[0x82, 0x94]);
}

#[test]
fn mqtt5_3_3_2_8_alias_0_closes() {
    let alias = two(property::TOPIC_ALIAS, 0);
    refused(V5, &message("t", "x").with(&alias).bytes(V5), &[0x94, 0x82]);
}

#[test]
fn mqtt5_3_3_2_9_an_alias_above_the_maximum_closes() {
    let rig = Rig::new();
    let (mut peer, connack) = Peer::connect(&rig, &connect(V5, "c"));
    let maximum = connack.number(property::TOPIC_ALIAS_MAXIMUM).unwrap_or(0);
    let above = two(property::TOPIC_ALIAS, u16::try_from(maximum + 1).unwrap());
    peer.send(&message("t", "x").with(&above).bytes(V5));
    peer.is_refused(&[0x94]);
}

#[test]
fn mqtt5_3_3_2_12_every_alias_up_to_the_maximum_is_taken() {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "a/+", 0);
    let (mut peer, connack) = Peer::connect(&rig, &connect(V5, "c"));
    let maximum = connack.number(property::TOPIC_ALIAS_MAXIMUM).unwrap_or(0);
    for number in 1..=maximum {
        let alias = two(property::TOPIC_ALIAS, u16::try_from(number).unwrap());
        peer.publish(&message(&format!("a/{number}"), "new").with(&alias));
        peer.publish(&message("", "known").with(&alias));
        for payload in ["new", "known"] {
            let found = subscriber.take();
            assert_eq!((found.topic(), found.payload()), (&*format!("a/{number}"), payload));
        }
    }
    // It can be given another meaning.
    if maximum > 0 {
        let alias = two(property::TOPIC_ALIAS, 1);
        peer.publish(&message("a/again", "x").with(&alias));
        peer.publish(&message("", "y").with(&alias));
        assert_eq!(subscriber.take().topic(), "a/again");
        assert_eq!(subscriber.take().topic(), "a/again");
    }
}

#[test]
fn mqtt5_3_3_2_10_an_unknown_alias_without_topic_closes() {
    let alias = two(property::TOPIC_ALIAS, 1);
    refused(V5, &message("", "x").with(&alias).bytes(V5), &[0x82, 0x94]);
    refused(V5, &message("", "x").bytes(V5), &[0x82, 0x90]);
}

#[test]
fn mqtt5_3_3_4_3_identifiers_of_subscriptions_are_told() {
    let rig = Rig::new();
    let mut subscriber = Peer::new(&rig, V5, "subscriber");
    subscriber.subscribe_all(&[("t", 0)], &[property::SUBSCRIPTION_ID, 0xFF, 0xFF, 0xFF, 0x7F]);
    Peer::new(&rig, V5, "publisher").publish(&message("t", "x"));
    let told = subscriber.take().properties(property::SUBSCRIPTION_ID);
    assert_eq!(told, [[property::SUBSCRIPTION_ID, 0xFF, 0xFF, 0xFF, 0x7F]]);
}

#[test]
fn mqtt5_3_3_4_4_one_copy_has_all_identifiers() {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "a/#", 0);
    subscriber.subscribe_all(&[("a/b", 0)], &[property::SUBSCRIPTION_ID, 1]);
    subscriber.subscribe_all(&[("a/+", 0)], &[property::SUBSCRIPTION_ID, 2]);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("a/b", "x"));
    publisher.publish(&message("fence", "").qos(1));
    let mut told = Vec::new();
    loop {
        let found = subscriber.take();
        if found.topic() == "fence" {
            break;
        }
        told.extend(found.properties(property::SUBSCRIPTION_ID));
    }
    told.sort();
    assert_eq!(told, [[property::SUBSCRIPTION_ID, 1], [property::SUBSCRIPTION_ID, 2]]);
}

#[test]
fn mqtt5_3_3_4_6_a_client_sends_no_subscription_identifier() {
    let id = [property::SUBSCRIPTION_ID, 1];
    refused(V5, &message("t", "x").with(&id).bytes(V5), &[0x81, 0x82]);
}

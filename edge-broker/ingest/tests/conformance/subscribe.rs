//! SUBSCRIBE and UNSUBSCRIBE: sections 3.8 to 3.11 of both standards.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::{Rig, packet};

fn flags(version: Version) {
    for first in [0x80, 0x81, 0x83, 0x86, 0x8A] {
        let mut bytes = subscribe(version, 1, &[("t", 0)], &[]);
        bytes[0] = first;
        refused(version, &bytes, &[0x81]);
    }
}

fn unsubscribe_flags(version: Version) {
    for first in [0xA0, 0xA1, 0xA3, 0xA6, 0xAA] {
        let mut bytes = unsubscribe(version, 1, &["t"]);
        bytes[0] = first;
        refused(version, &bytes, &[0x81]);
    }
}

fn filter_is_text(version: Version) {
    let none: &[u8] = if version == V5 { b"\0\x01\0\0\x01\xFF\0" } else { b"\0\x01\0\x01\xFF\0" };
    refused(version, &packet(0x82, none), &[0x81]);
    let none: &[u8] = if version == V5 { b"\0\x01\0\0\x01\xFF" } else { b"\0\x01\0\x01\xFF" };
    refused(version, &packet(0xA2, none), &[0x81]);
}

fn without_filter(version: Version) {
    refused(version, &subscribe(version, 1, &[], &[]), &[0x81, 0x82]);
}

fn unsubscribe_without_filter(version: Version) {
    refused(version, &unsubscribe(version, 1, &[]), &[0x81, 0x82]);
}

fn reserved_bits(version: Version) {
    let bad: &[u8] =
        if version == V5 { &[0x40, 0x80, 0xC1, 0x30, 3] } else { &[4, 8, 0x10, 0x80, 3] };
    for options in bad {
        refused(version, &subscribe(version, 1, &[("t", *options)], &[]), &[0x81, 0x82]);
    }
}

fn replaces(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 0);
    assert_eq!(subscriber.subscribe("t", 1), 1);
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "x").qos(1));
    assert_eq!(subscriber.take().qos, 1);
    subscriber.gets_nothing(&mut publisher);
    assert_eq!(subscriber.subscribe("t", 0), 0);
    publisher.publish(&message("t", "x").qos(1));
    assert_eq!(subscriber.take().qos, 0);
    subscriber.unsubscribe(&["t"]);
    publisher.publish(&message("t", "x").qos(1));
    subscriber.gets_nothing(&mut publisher);
}

fn many_in_one(version: Version) {
    let rig = Rig::new();
    let mut subscriber = Peer::new(&rig, version, "subscriber");
    let codes = subscriber.subscribe_all(&[("a", 2), ("b", 0), ("c", 1), ("fence", 1)], &[]);
    assert_eq!(codes, [2, 0, 1, 1], "one answer each, in their order");
    let mut publisher = Peer::new(&rig, version, "publisher");
    for (topic, qos) in [("a", 2), ("b", 0), ("c", 1)] {
        publisher.publish(&message(topic, "x").qos(2));
        let found = subscriber.take();
        assert_eq!((found.topic(), found.qos), (topic, qos));
    }
    let codes = subscriber.unsubscribe(&["a", "none", "c"]);
    assert_eq!(codes, if version == V5 { &[0, 0x11, 0][..] } else { &[] });
    for topic in ["a", "b", "c"] {
        publisher.publish(&message(topic, "x"));
    }
    assert_eq!(subscriber.take().topic(), "b");
    subscriber.gets_nothing(&mut publisher);
}

fn lowest_qos(version: Version) {
    let rig = Rig::new();
    let mut subscriber = Peer::new(&rig, version, "subscriber");
    for granted in 0..=2 {
        subscriber.subscribe(&format!("t/{granted}"), granted);
    }
    let mut publisher = Peer::new(&rig, version, "publisher");
    for granted in 0..=2_u8 {
        for published in 0..=2_u8 {
            publisher.publish(&message(&format!("t/{granted}"), "x").qos(published));
            assert_eq!(subscriber.take().qos, granted.min(published));
        }
    }
}

fn unsubscribe_is_exact(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "a/+", 1);
    let mut publisher = Peer::new(&rig, version, "publisher");
    for other in ["a/b", "a/#", "A/+", "+/+", "#"] {
        let codes = subscriber.unsubscribe(&[other]);
        assert_eq!(codes, if version == V5 { &[0x11][..] } else { &[] });
    }
    publisher.publish(&message("a/b", "x").qos(1));
    assert_eq!(subscriber.take().topic(), "a/b");
    subscriber.unsubscribe(&["a/+"]);
    publisher.publish(&message("a/b", "x").qos(1));
    subscriber.gets_nothing(&mut publisher);
}

fn deliveries_are_completed(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 2);
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(2));
    let found = subscriber.message();
    subscriber.unsubscribe(&["t"]);
    subscriber.send_id(0x50, found.id);
    assert_eq!(subscriber.acknowledgement(PUBREL, found.id), 0);
    subscriber.send_id(0x70, found.id);
    subscriber.is_served();
}

fn answers(version: Version) {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, version, "c");
    peer.send(&subscribe(version, 515, &[("t", 1)], &[]));
    let expected: &[u8] = if version == V5 { &[0x90, 4, 2, 3, 0, 1] } else { &[0x90, 3, 2, 3, 1] };
    assert_eq!(peer.packet(), expected);
    peer.send(&unsubscribe(version, 516, &["none"]));
    let expected: &[u8] = if version == V5 { &[0xB0, 4, 2, 4, 0, 0x11] } else { &[0xB0, 2, 2, 4] };
    assert_eq!(peer.packet(), expected);
}

fn codes(version: Version) {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, version, "c");
    let good: &[u8] = match version {
        V5 => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        _ => &[0, 1, 2, 0x80],
    };
    // More than any session may have.
    for batch in 0..6 {
        let names: Vec<String> = (0..100).map(|number| format!("{batch}/{number}")).collect();
        let filters: Vec<(&str, u8)> = names.iter().map(|name| (&**name, 1)).collect();
        let codes = peer.subscribe_all(&filters, &[]);
        assert_eq!(codes.len(), 100);
        assert!(codes.iter().all(|code| good.contains(code)), "{codes:x?}");
    }
}

both! {
    mqtt5_3_8_1_1_subscribe_with_other_flags_closes, mqtt311_3_8_1_1_subscribe_with_other_flags_closes
        => flags;
    mqtt5_3_8_3_1_filters_are_text, mqtt311_3_8_3_1_filters_are_text => filter_is_text;
    mqtt5_3_8_3_2_subscribe_without_filter_closes, mqtt311_3_8_3_3_subscribe_without_filter_closes
        => without_filter;
    mqtt5_3_8_3_5_reserved_option_bits_close, mqtt311_3_8_3_4_reserved_option_bits_close
        => reserved_bits;
    mqtt5_3_8_4_1_subscribe_is_answered, mqtt311_3_8_4_1_subscribe_is_answered => answers;
    mqtt5_3_8_4_2_suback_has_the_identifier, mqtt311_3_8_4_2_suback_has_the_identifier => answers;
    mqtt5_3_8_4_3_the_same_filter_replaces, mqtt311_3_8_4_3_the_same_filter_replaces => replaces;
    mqtt5_3_8_4_5_many_filters_are_as_many_subscribes, mqtt311_3_8_4_4_many_filters_are_as_many_subscribes
        => many_in_one;
    mqtt5_3_8_4_6_each_filter_has_its_code, mqtt311_3_8_4_5_each_filter_has_its_code => many_in_one;
    mqtt5_3_8_4_7_codes_tell_the_qos_or_the_failure, mqtt311_3_9_3_2_codes_are_those_of_the_table
        => codes;
    mqtt5_3_8_4_8_deliveries_have_the_lower_qos, mqtt311_3_8_4_6_deliveries_have_the_lower_qos
        => lowest_qos;
    mqtt5_3_9_3_1_codes_are_in_the_order_of_filters, mqtt311_3_9_3_1_codes_are_in_the_order_of_filters
        => many_in_one;
    mqtt5_3_10_1_1_unsubscribe_with_other_flags_closes,
    mqtt311_3_10_1_1_unsubscribe_with_other_flags_closes => unsubscribe_flags;
    mqtt5_3_10_3_1_filters_to_remove_are_text, mqtt311_3_10_3_1_filters_to_remove_are_text
        => filter_is_text;
    mqtt5_3_10_3_2_unsubscribe_without_filter_closes, mqtt311_3_10_3_2_unsubscribe_without_filter_closes
        => unsubscribe_without_filter;
    mqtt5_3_10_4_1_filters_are_compared_exactly, mqtt311_3_10_4_1_filters_are_compared_exactly
        => unsubscribe_is_exact;
    mqtt5_3_10_4_2_nothing_new_after_unsubscribe, mqtt311_3_10_4_2_nothing_new_after_unsubscribe
        => unsubscribe_is_exact;
    mqtt5_3_10_4_3_what_began_is_completed, mqtt311_3_10_4_3_what_began_is_completed
        => deliveries_are_completed;
    mqtt5_3_10_4_4_unsubscribe_is_answered, mqtt311_3_10_4_4_unsubscribe_is_answered => answers;
    mqtt5_3_10_4_5_also_where_nothing_was_there, mqtt311_3_10_4_5_also_where_nothing_was_there
        => answers;
    mqtt5_3_10_4_6_many_filters_are_as_many_unsubscribes,
    mqtt311_3_10_4_6_many_filters_are_as_many_unsubscribes => many_in_one;
}

#[test]
fn mqtt5_3_8_3_3_no_local_keeps_own_messages_away() {
    let rig = Rig::new();
    let mut both = Peer::new(&rig, V5, "both");
    assert_eq!(both.subscribe("t", 0x05), 1);
    assert_eq!(both.subscribe("fence", 1), 1);
    assert_eq!(both.publish(&message("t", "own").qos(1)), 0);
    let mut other = Peer::new(&rig, V5, "other");
    other.publish(&message("t", "theirs").qos(1));
    assert_eq!(both.take().payload(), "theirs");
    both.gets_nothing(&mut other);
}

#[test]
fn mqtt5_3_9_3_2_suback_uses_its_reason_codes() {
    codes(V5);
}

#[test]
fn mqtt5_3_11_3_1_unsuback_codes_are_in_the_order_of_filters() {
    many_in_one(V5);
}

#[test]
fn mqtt5_3_11_3_2_unsuback_uses_its_reason_codes() {
    unsubscribe_is_exact(V5);
}

#[test]
fn mqtt5_3_8_2_1_2_subscription_identifier_0_closes() {
    refused(V5, &subscribe(V5, 1, &[("t", 0)], &[0x0B, 0]), &[0x82]);
}

#[test]
fn mqtt5_3_9_2_1_suback_keeps_to_the_clients_packet_size() {
    let rig = Rig::new();
    let wanted = connect(V5, "c").with(&four(property::MAXIMUM_PACKET_SIZE, 120));
    let (mut peer, _) = Peer::connect(&rig, &wanted);
    peer.send(&subscribe(V5, 1, &[("t", 1)], &[]));
    assert_eq!(peer.packet(), [0x90, 4, 0, 1, 0, 1]);
    peer.send(&unsubscribe(V5, 1, &["t"]));
    assert_eq!(peer.packet(), [0xB0, 4, 0, 1, 0, 0]);
}

#[test]
fn mqtt311_3_8_3_2_filters_with_wildcards_are_taken() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V311, "c");
    let filters = [("#", 0), ("+", 1), ("a/+/b", 2), ("a/#", 0)];
    assert_eq!(peer.subscribe_all(&filters, &[]), [0, 1, 2, 0]);
}

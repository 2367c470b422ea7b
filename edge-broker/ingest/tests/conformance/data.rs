//! Sections 1.5 and 2 of 5.0, 1.5 and 2 of 3.1.1: data types, fixed header, packet identifiers.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::{Rig, packet, put};

fn ill_formed(version: Version) {
    for bad in [&b"a\xC3\x28"[..], b"a\xED\xA0\x80", b"\xFF", b"a\xC0\x80", b"a\xF4\x90\x80\x80"] {
        let mut publish = message("", "x");
        publish.topic = bad.to_vec();
        refused(version, &publish.bytes(version), &[0x81]);
        let mut filter = vec![0, 1];
        if version == V5 {
            filter.push(0);
        }
        put(&mut filter, bad);
        refused(version, &packet(0x82, &[&filter[..], &[0]].concat()), &[0x81]);
        refused(version, &packet(0xA2, &filter), &[0x81]);
        let mut wanted = connect(version, "");
        wanted.client_id = bad.to_vec();
        connect_refused(&wanted, if version == V5 { &[0x81] } else { &[] });
    }
}

fn nul(version: Version) {
    refused(version, &message("a\0b", "x").bytes(version), &[0x81, 0x90]);
    refused(version, &subscribe(version, 1, &[("a\0", 0)], &[]), &[0x81, 0x8F]);
    refused(version, &unsubscribe(version, 1, &["\0"]), &[0x81, 0x8F]);
    connect_refused(&connect(version, "c\0"), if version == V5 { &[0x81, 0x85] } else { &[] });
}

fn byte_order_mark(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "\u{FEFF}a", 1);
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("a", "without").qos(1));
    publisher.publish(&message("\u{FEFF}a", "with").qos(1));
    let found = subscriber.take();
    assert_eq!((found.topic(), found.payload()), ("\u{FEFF}a", "with"));
}

fn reserved_flags(version: Version) {
    for first in [0x41, 0x58, 0x60, 0x71, 0x80, 0x83, 0xA0, 0xC1, 0xE1] {
        refused(version, &[first, 0], &[0x81]);
    }
}

fn zero_identifiers(version: Version) {
    for bytes in [
        message("a", "x").qos(1).id(0).bytes(version),
        message("a", "x").qos(2).id(0).bytes(version),
        subscribe(version, 0, &[("a", 0)], &[]),
        unsubscribe(version, 0, &["a"]),
    ] {
        refused(version, &bytes, &[0x81, 0x82]);
    }
}

fn own_identifiers(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 1);
    let mut publisher = Peer::new(&rig, version, "publisher");
    let mut open = Vec::new();
    for round in 0..20 {
        publisher.publish(&message("t", "x").qos(1));
        let found = subscriber.message();
        assert!(found.id != 0 && !open.contains(&found.id), "{} of {open:?}", found.id);
        // Some stay open, some are free again.
        if round % 3 == 0 {
            subscriber.acknowledge(&found);
        } else {
            open.push(found.id);
        }
    }
}

fn acknowledgements_repeat_the_identifier(version: Version) {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, version, "c");
    for id in [1, 255, 256, 65_535] {
        assert_eq!(peer.publish(&message("t", "x").qos(1).id(id)), 0);
        assert_eq!(peer.publish(&message("t", "x").qos(2).id(id)), 0);
    }
}

fn subscribe_acknowledgements_repeat_the_identifier(version: Version) {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, version, "c");
    for id in [1, 256, 65_535] {
        peer.send(&subscribe(version, id, &[("a", 1)], &[]));
        assert_eq!(peer.codes(SUBACK, id), [1]);
        peer.send(&unsubscribe(version, id, &["a"]));
        assert_eq!(peer.codes(UNSUBACK, id), if version == V5 { &[0][..] } else { &[] });
    }
}

fn qos_0_has_no_identifier(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 2);
    Peer::new(&rig, version, "publisher").publish(&message("t", "\u{1}\u{2}x"));
    assert_eq!(subscriber.take().payload(), "\u{1}\u{2}x");
}

both! {
    mqtt5_1_5_4_1_ill_formed_utf8_closes, mqtt311_1_5_3_1_ill_formed_utf8_closes => ill_formed;
    mqtt5_1_5_4_2_nul_closes, mqtt311_1_5_3_2_nul_closes => nul;
    mqtt5_1_5_4_3_a_byte_order_mark_is_kept, mqtt311_1_5_3_3_a_byte_order_mark_is_kept
        => byte_order_mark;
    mqtt5_2_1_3_1_reserved_flags_close, mqtt311_2_2_2_2_reserved_flags_close => reserved_flags;
    mqtt5_2_2_1_2_qos_0_goes_without_identifier, mqtt311_2_3_1_5_qos_0_goes_without_identifier
        => qos_0_has_no_identifier;
    mqtt5_2_2_1_3_identifier_0_closes, mqtt311_2_3_1_1_identifier_0_closes => zero_identifiers;
    mqtt5_2_2_1_4_own_identifiers_are_unused, mqtt311_2_3_1_4_own_identifiers_are_unused
        => own_identifiers;
    mqtt5_2_2_1_5_acknowledgements_repeat_the_identifier,
    mqtt311_2_3_1_6_acknowledgements_repeat_the_identifier
        => acknowledgements_repeat_the_identifier;
    mqtt5_2_2_1_6_suback_and_unsuback_repeat_the_identifier,
    mqtt311_2_3_1_7_suback_and_unsuback_repeat_the_identifier
        => subscribe_acknowledgements_repeat_the_identifier;
}

#[test]
fn mqtt5_1_5_5_1_lengths_are_in_their_shortest_form() {
    refused(V5, &[0x30, 0x84, 0x00, 0, 1, b't', 0], &[0x81]);
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "t", 0);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    // Around 127 and 128, for the packet and for its properties: `body` and `take_section` look.
    for length in 110..=130 {
        publisher.publish(&message("t", &"x".repeat(length)));
        publisher.publish(&message("t", "").with(&user("k", &"x".repeat(length))));
        assert_eq!(subscriber.take().payload.len(), length);
        assert_eq!(subscriber.take().properties.len(), length + 6);
    }
}

#[test]
fn mqtt5_1_5_7_1_both_strings_of_a_pair_are_checked() {
    for (name, value) in
        [(&b"\xFF"[..], &b"v"[..]), (b"k", b"\xC3\x28"), (b"\0", b"v"), (b"k", b"\0")]
    {
        let mut property = text(property::USER, name);
        put(&mut property, value);
        refused(V5, &message("t", "x").with(&property).bytes(V5), &[0x81]);
    }
}

#[test]
fn mqtt5_2_2_2_1_no_properties_are_a_length_of_0() {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "t", 0);
    Peer::new(&rig, V5, "publisher").publish(&message("t", "x"));
    assert_eq!(subscriber.packet(), b"\x30\x05\x00\x01t\x00x");
    // And one that leaves it away is malformed.
    refused(V5, b"\x30\x03\x00\x01t", &[0x81]);
}

#[test]
fn mqtt311_2_2_2_1_own_packets_have_the_reserved_flags() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V311, "c");
    peer.send(&subscribe(V311, 1, &[("t", 1)], &[]));
    assert_eq!(peer.packet()[0], 0x90);
    peer.send(&message("other", "x").qos(1).bytes(V311));
    assert_eq!(peer.packet()[0], 0x40);
    peer.send(&unsubscribe(V311, 2, &["t"]));
    assert_eq!(peer.packet()[0], 0xB0);
    peer.send(&[0xC0, 0]);
    assert_eq!(peer.packet(), [0xD0, 0]);
}

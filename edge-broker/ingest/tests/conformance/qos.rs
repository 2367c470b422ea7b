//! Acknowledgements: sections 3.4 to 3.7, 4.3, 4.4 and 4.6 of both standards.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::Rig;

fn pubrel_flags(version: Version) {
    for first in [0x60, 0x61, 0x63, 0x66, 0x6A] {
        refused(version, &[first, 2, 0, 1], &[0x81]);
    }
}

fn qos_0_once(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 0);
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "x").qos(1));
    let found = subscriber.take();
    assert_eq!((found.qos, found.dup), (0, false));
    subscriber.gets_nothing(&mut publisher);
}

fn first_send(version: Version, qos: u8) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", qos);
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(qos));
    let found = subscriber.message();
    assert_eq!((found.qos, found.dup, found.id != 0), (qos, false, true));
}

/// What is not acknowledged comes again with the session, the same identifier and DUP.
fn redelivered(version: Version, qos: u8) {
    let rig = Rig::new();
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    assert_eq!(subscriber.subscribe("t", qos), qos);
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "1").qos(qos));
    publisher.publish(&message("t", "2").qos(qos));
    let (first, second) = (subscriber.message(), subscriber.message());
    drop(subscriber);
    let (mut subscriber, connack) = Peer::connect(&rig, &persistent(version, "s"));
    assert!(connack.present);
    for sent in [first, second] {
        assert_eq!(subscriber.take(), Message { dup: true, ..sent }, "in order, same identifier");
    }
    subscriber.is_served();
    // And acknowledged it does not come again.
    subscriber.disconnect();
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    subscriber.is_served();
}

fn acknowledged_is_new(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 1);
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "1").qos(1).id(7));
    publisher.publish(&message("t", "2").qos(1).id(7).dup());
    assert_eq!(subscriber.take().payload(), "1");
    assert_eq!(subscriber.take().payload(), "2");
}

fn pubrel_follows(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 2);
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(2));
    let found = subscriber.message();
    subscriber.send_id(0x50, found.id);
    assert_eq!(subscriber.acknowledgement(PUBREL, found.id), 0);
    subscriber.send_id(0x70, found.id);
    subscriber.is_served();
}

/// After PUBREC it is PUBREL that comes again, not PUBLISH.
fn pubrel_again(version: Version) {
    let rig = Rig::new();
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    subscriber.subscribe("t", 2);
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(2));
    let found = subscriber.message();
    subscriber.send_id(0x50, found.id);
    assert_eq!(subscriber.acknowledgement(PUBREL, found.id), 0);
    drop(subscriber);
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(version, "s"));
    let next = subscriber.packet();
    assert_eq!(next[0], 0x62, "{next:x?}");
    subscriber.send_id(0x70, found.id);
    subscriber.is_served();
}

fn exactly_once(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 2);
    let mut publisher = Peer::new(&rig, version, "publisher");
    let twice = message("t", "once").qos(2).id(9);
    publisher.send(&twice.bytes(version));
    assert_eq!(publisher.acknowledgement(PUBREC, 9), 0);
    publisher.send(&twice.dup().bytes(version));
    let again = publisher.acknowledgement(PUBREC, 9);
    assert!(again == 0 || again == 0x91, "{again:x}");
    publisher.send_id(0x62, 9);
    assert_eq!(publisher.acknowledgement(PUBCOMP, 9), 0);
    assert_eq!(subscriber.take().payload(), "once");
    subscriber.gets_nothing(&mut publisher);
    assert_eq!(
        rig.records("mqtt").iter().filter(|record| record.value == b"once").count(),
        1,
        "and once in the log"
    );
}

/// The same across a connection that breaks.
fn exactly_once_in_the_session(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 2);
    let (mut publisher, _) = Peer::connect(&rig, &persistent(version, "publisher"));
    let twice = message("t", "once").qos(2).id(9);
    publisher.send(&twice.bytes(version));
    assert_eq!(publisher.acknowledgement(PUBREC, 9), 0);
    drop(publisher);
    let (mut publisher, connack) = Peer::connect(&rig, &persistent(version, "publisher"));
    assert!(connack.present);
    publisher.send(&twice.dup().bytes(version));
    assert_eq!(publisher.acknowledgement(PUBREC, 9), 0);
    publisher.send_id(0x62, 9);
    assert_eq!(publisher.acknowledgement(PUBCOMP, 9), 0);
    assert_eq!(subscriber.take().payload(), "once");
    subscriber.gets_nothing(&mut publisher);
}

fn completed_is_new(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t", 2);
    let mut publisher = Peer::new(&rig, version, "publisher");
    for payload in ["1", "2"] {
        publisher.publish(&message("t", payload).qos(2).id(9));
        assert_eq!(subscriber.take().payload(), payload);
    }
}

fn pubcomp_follows(version: Version) {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.send(&message("t", "x").qos(2).id(513).bytes(version));
    assert_eq!(publisher.acknowledgement(PUBREC, 513), 0);
    publisher.send_id(0x62, 513);
    assert_eq!(publisher.acknowledgement(PUBCOMP, 513), 0);
    // Sent again, because the answer may have been lost: answered again.
    publisher.send_id(0x62, 513);
    let again = publisher.acknowledgement(PUBCOMP, 513);
    assert!(again == 0 || again == 0x92, "{again:x}");
}

fn order(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "t/+", 2);
    let mut publisher = Peer::new(&rig, version, "publisher");
    for qos in [0, 1, 2] {
        let mut bytes = Vec::new();
        for number in 1..=50_u16 {
            let message = message("t/1", &number.to_string()).qos(qos);
            let id = if qos > 0 { number } else { 0 };
            bytes.extend(message.id(id).bytes(version));
        }
        publisher.send(&bytes);
        for number in 1..=50 {
            assert_eq!(subscriber.take().payload(), number.to_string(), "QoS {qos}");
        }
        for number in 1..=50 {
            match qos {
                0 => {}
                1 => assert_eq!(publisher.acknowledgement(PUBACK, number), 0),
                _ => {
                    assert_eq!(publisher.acknowledgement(PUBREC, number), 0);
                    publisher.send_id(0x62, number);
                    assert_eq!(publisher.acknowledgement(PUBCOMP, number), 0);
                }
            }
        }
    }
}

fn puback_after_durable(version: Version) {
    let rig = Rig::new();
    rig.warm_up(&["t"]);
    let mut publisher = Peer::new(&rig, version, "publisher");
    for qos in 1..=2 {
        assert_eq!(publisher.publish(&message("t", &format!("owned {qos}")).qos(qos)), 0);
        let kept = rig.values_after_power_cut("mqtt");
        assert!(kept.contains(&format!("owned {qos}").into_bytes()), "acknowledged, so on disk");
    }
}

both! {
    mqtt5_3_6_1_1_pubrel_with_other_flags_closes, mqtt311_3_6_1_1_pubrel_with_other_flags_closes
        => pubrel_flags;
    mqtt5_4_3_1_1_qos_0_is_sent_once_without_dup, mqtt311_4_3_1_1_qos_0_is_sent_once_without_dup
        => qos_0_once;
    mqtt5_4_3_2_1_qos_1_has_an_identifier_and_no_dup,
    mqtt311_4_3_2_1_qos_1_has_an_identifier_and_no_dup => |version| first_send(version, 1);
    mqtt5_4_3_2_3_qos_1_is_open_until_puback, mqtt311_3_3_1_1_what_comes_again_has_dup
        => |version| redelivered(version, 1);
    mqtt5_4_3_2_4_puback_means_owned, mqtt311_4_3_2_2_puback_means_owned => puback_after_durable;
    mqtt5_4_3_2_5_after_puback_an_identifier_is_new,
    mqtt311_4_3_2_2_after_puback_an_identifier_is_new => acknowledged_is_new;
    mqtt5_4_3_3_2_qos_2_has_an_identifier_and_no_dup,
    mqtt311_4_3_3_1_qos_2_has_an_identifier_and_no_dup => |version| first_send(version, 2);
    mqtt5_4_3_3_3_qos_2_is_open_until_pubrec, mqtt311_4_3_3_1_qos_2_is_open_until_pubrec
        => |version| redelivered(version, 2);
    mqtt5_4_3_3_4_pubrel_follows_pubrec, mqtt311_4_3_3_1_pubrel_follows_pubrec => pubrel_follows;
    mqtt5_4_3_3_6_after_pubrel_the_publish_does_not_come_again,
    mqtt311_4_3_3_1_after_pubrel_the_publish_does_not_come_again => pubrel_again;
    mqtt5_4_3_3_10_the_same_identifier_is_not_delivered_twice,
    mqtt311_4_3_3_2_the_same_identifier_is_not_delivered_twice => exactly_once;
    mqtt5_4_3_3_10_nor_after_a_broken_connection, mqtt311_4_3_3_2_nor_after_a_broken_connection
        => exactly_once_in_the_session;
    mqtt5_4_3_3_11_pubrel_is_answered, mqtt311_4_3_3_2_pubrel_is_answered => pubcomp_follows;
    mqtt5_4_3_3_12_after_pubcomp_an_identifier_is_new,
    mqtt311_4_3_3_2_after_pubcomp_an_identifier_is_new => completed_is_new;
    mqtt5_4_4_0_1_open_publishes_come_again_with_the_session,
    mqtt311_4_4_0_1_open_publishes_come_again_with_the_session => |version| {
        redelivered(version, 1);
        pubrel_again(version);
    };
    mqtt5_4_6_0_5_order_of_a_topic_is_kept, mqtt311_4_6_0_6_order_of_a_topic_is_kept => order;
    mqtt5_4_6_0_1_what_comes_again_keeps_its_order, mqtt311_4_6_0_1_what_comes_again_keeps_its_order
        => |version| redelivered(version, 1);
}

#[test]
fn mqtt5_3_3_1_1_what_comes_again_has_dup() {
    redelivered(V5, 1);
    redelivered(V5, 2);
}

#[test]
fn mqtt5_4_3_3_8_pubrec_means_owned() {
    puback_after_durable(V5);
}

#[test]
fn mqtt5_4_3_3_5_pubrel_is_open_until_pubcomp() {
    pubrel_again(V5);
}

#[test]
fn mqtt5_4_3_3_7_what_was_sent_does_not_expire() {
    let rig = Rig::new();
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(V5, "s"));
    subscriber.subscribe("t", 2);
    let expires = message("t", "x").qos(2).with(&four(property::MESSAGE_EXPIRY, 1));
    Peer::new(&rig, V5, "publisher").publish(&expires);
    let found = subscriber.message();
    drop(subscriber);
    // The clock has to go on for this one.
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    let (mut subscriber, _) = Peer::connect(&rig, &persistent(V5, "s"));
    let again = subscriber.take();
    assert_eq!((again.id, again.payload()), (found.id, "x"));
}

#[test]
fn mqtt5_4_3_3_13_the_handshake_goes_on_after_expiry() {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, V5, "publisher");
    let expires = message("t", "x").qos(2).id(3).with(&four(property::MESSAGE_EXPIRY, 1));
    publisher.send(&expires.bytes(V5));
    assert_eq!(publisher.acknowledgement(PUBREC, 3), 0);
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    publisher.send_id(0x62, 3);
    assert_eq!(publisher.acknowledgement(PUBCOMP, 3), 0);
}

#[test]
fn mqtt5_4_4_0_2_what_a_client_refuses_does_not_come_again() {
    let rig = Rig::new();
    for (qos, refusal) in [(1, 0x40), (2, 0x50)] {
        let (mut subscriber, _) = Peer::connect(&rig, &persistent(V5, "s"));
        subscriber.subscribe("t", qos);
        Peer::new(&rig, V5, "publisher").publish(&message("t", "x").qos(qos));
        let found = subscriber.message();
        let [high, low] = found.id.to_be_bytes();
        subscriber.send(&[refusal, 3, high, low, 0x80]);
        subscriber.is_served();
        subscriber.disconnect();
        let (mut subscriber, _) = Peer::connect(&rig, &persistent(V5, "s"));
        subscriber.is_served();
        subscriber.disconnect();
    }
}

#[test]
fn mqtt5_3_4_2_1_puback_uses_its_reason_codes() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V5, "c");
    let reason = peer.publish(&message("nobody/listens", "x").qos(1));
    assert!(reason == 0 || reason == 0x10, "{reason:x}");
    // And a client's has to as well.
    refused(V5, &[0x40, 3, 0, 1, 0x02], &[0x81, 0x82]);
}

#[test]
fn mqtt5_3_5_2_1_pubrec_uses_its_reason_codes() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V5, "c");
    let reason = peer.publish(&message("nobody/listens", "x").qos(2));
    assert!(reason == 0 || reason == 0x10, "{reason:x}");
    refused(V5, &[0x50, 3, 0, 1, 0x02], &[0x81, 0x82]);
}

#[test]
fn mqtt5_3_6_2_1_pubrel_uses_its_reason_codes() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V5, "c");
    // PUBREC for what was never sent.
    peer.send_id(0x50, 77);
    assert_eq!(peer.acknowledgement(PUBREL, 77), 0x92);
    refused(V5, &[0x62, 3, 0, 1, 0x80], &[0x81, 0x82]);
}

#[test]
fn mqtt5_3_7_2_1_pubcomp_uses_its_reason_codes() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V5, "c");
    // PUBREL for what never came.
    peer.send_id(0x62, 77);
    assert_eq!(peer.acknowledgement(PUBCOMP, 77), 0x92);
    refused(V5, &[0x70, 3, 0, 1, 0x80], &[0x81, 0x82]);
}

#[test]
fn mqtt311_4_3_3_2_pubrel_of_an_unknown_identifier_is_answered() {
    let rig = Rig::new();
    let mut peer = Peer::new(&rig, V311, "c");
    peer.send_id(0x62, 77);
    assert_eq!(peer.packet(), [0x70, 2, 0, 77]);
}

//! Retained messages: section 3.3.1.3 of both standards.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::Rig;

fn stored_and_replaced(version: Version) {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, version, "publisher");
    for qos in 0..=2 {
        publisher.publish(&message("t", "old").qos(qos).retain());
        publisher.publish(&message("t", &format!("new {qos}")).qos(qos).retain());
        let mut late = Peer::new(&rig, version, "late");
        assert_eq!(late.subscribe("t", 2), 2);
        let found = late.take();
        assert_eq!((found.payload(), found.qos), (&*format!("new {qos}"), qos));
        assert!(found.retain, "sent because of the new subscription");
        late.is_served();
    }
}

fn last_of_each_topic(version: Version) {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, version, "publisher");
    for topic in ["r/a", "r/b", "r/b/c", "other"] {
        publisher.publish(&message(topic, topic).qos(1).retain());
    }
    let mut late = Peer::new(&rig, version, "late");
    late.subscribe("r/#", 1);
    let mut found: Vec<_> = (0..3).map(|_| late.take().topic().to_owned()).collect();
    found.sort();
    assert_eq!(found, ["r/a", "r/b", "r/b/c"]);
    late.is_served();
}

fn empty_removes(version: Version) {
    let rig = Rig::new();
    let mut live = subscriber(&rig, version, "t", 1);
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "x").qos(1).retain());
    publisher.publish(&message("t", "").qos(1).retain());
    assert_eq!(live.take().payload(), "x");
    assert_eq!(live.take().payload(), "", "processed as any other");
    let mut late = Peer::new(&rig, version, "late");
    late.subscribe("t", 1);
    late.is_served();
}

fn empty_is_not_stored(version: Version) {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "").qos(1).retain());
    let mut late = Peer::new(&rig, version, "late");
    late.subscribe("#", 1);
    late.is_served();
}

fn without_the_flag(version: Version) {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "kept").qos(1).retain());
    publisher.publish(&message("t", "passing").qos(1));
    publisher.publish(&message("t", "").qos(1));
    publisher.publish(&message("u", "never kept").qos(1));
    let mut late = Peer::new(&rig, version, "late");
    late.subscribe("t", 1);
    assert_eq!(late.take().payload(), "kept");
    late.subscribe("u", 1);
    late.is_served();
}

fn live_has_no_flag(version: Version) {
    let rig = Rig::new();
    let mut live = subscriber(&rig, version, "t", 1);
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(1).retain());
    assert!(!live.take().retain);
}

fn outlive_their_session(version: Version) {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, version, "publisher");
    publisher.publish(&message("t", "x").qos(1).retain());
    publisher.disconnect();
    let mut late = Peer::new(&rig, version, "late");
    late.subscribe("t", 0);
    assert_eq!(late.take().payload(), "x");
}

fn sent_again(version: Version) {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, version, "none", 0);
    Peer::new(&rig, version, "publisher").publish(&message("t", "x").qos(1).retain());
    for _ in 0..2 {
        subscriber.subscribe("t", 1);
        assert_eq!(subscriber.take().payload(), "x");
    }
}

both! {
    mqtt5_3_3_1_5_a_retained_message_is_stored_and_replaced,
    mqtt311_3_3_1_5_a_retained_message_is_stored_with_its_qos => stored_and_replaced;
    mqtt5_3_3_1_6_an_empty_one_removes, mqtt311_3_3_1_10_an_empty_one_removes => empty_removes;
    mqtt5_3_3_1_7_an_empty_one_is_not_stored, mqtt311_3_3_1_11_an_empty_one_is_not_stored
        => empty_is_not_stored;
    mqtt5_3_3_1_8_without_the_flag_nothing_is_stored_or_removed,
    mqtt311_3_3_1_12_without_the_flag_nothing_is_stored_or_removed => without_the_flag;
    mqtt5_3_3_1_9_a_new_subscription_gets_them, mqtt311_3_3_1_6_a_new_subscription_gets_them
        => last_of_each_topic;
    mqtt5_3_3_1_12_a_live_message_has_no_retain_flag,
    mqtt311_3_3_1_9_a_live_message_has_no_retain_flag => live_has_no_flag;
    mqtt5_3_8_4_4_a_repeated_subscription_gets_them_again,
    mqtt311_3_8_4_3_a_repeated_subscription_gets_them_again => sent_again;
    mqtt5_4_1_0_2_retained_messages_outlive_a_session,
    mqtt311_3_1_2_7_retained_messages_outlive_a_session => outlive_their_session;
}

#[test]
fn mqtt311_3_3_1_7_a_retained_qos_0_replaces() {
    stored_and_replaced(V311);
}

#[test]
fn mqtt311_3_3_1_8_a_message_for_a_new_subscription_has_the_retain_flag() {
    stored_and_replaced(V311);
}

#[test]
fn mqtt5_3_3_1_10_retain_handling_1_is_for_new_subscriptions() {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(1).retain());
    let mut subscriber = Peer::new(&rig, V5, "subscriber");
    subscriber.subscribe("t", 0x11);
    assert_eq!(subscriber.take().payload(), "x");
    subscriber.subscribe("t", 0x11);
    subscriber.is_served();
    subscriber.unsubscribe(&["t"]);
    subscriber.subscribe("t", 0x11);
    assert_eq!(subscriber.take().payload(), "x");
}

#[test]
fn mqtt5_3_3_1_11_retain_handling_2_sends_none() {
    let rig = Rig::new();
    Peer::new(&rig, V5, "publisher").publish(&message("t", "x").qos(1).retain());
    let mut subscriber = Peer::new(&rig, V5, "subscriber");
    subscriber.subscribe("t", 0x21);
    subscriber.is_served();
}

#[test]
fn mqtt5_3_3_1_13_retain_as_published_keeps_the_flag() {
    let rig = Rig::new();
    let mut subscriber = subscriber(&rig, V5, "t", 0x09);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(1).retain());
    assert!(subscriber.take().retain);
    publisher.publish(&message("t", "x").qos(1));
    assert!(!subscriber.take().retain);
}

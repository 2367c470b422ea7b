//! Wills: sections 3.1.2.5 to 3.1.2.7 and 3.1.3.2 of both standards.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::{Rig, packet, put};

fn watcher(rig: &Rig, version: Version) -> Peer {
    let mut peer = Peer::new(rig, version, "watcher");
    peer.subscribe_all(&[("w", 2), ("fence", 1)], &[]);
    peer
}

fn published(version: Version) {
    let rig = Rig::new();
    let mut watcher = watcher(&rig, version);
    for qos in 0..=2 {
        let will = message("w", &format!("gone {qos}")).qos(qos);
        drop(Peer::connect(&rig, &connect(version, "c").will(will, &[])));
        let found = watcher.take();
        assert_eq!((found.payload(), found.qos), (&*format!("gone {qos}"), qos));
    }
    // After an error of the client's as well.
    let wanted = connect(version, "c").will(message("w", "error"), &[]);
    let (mut peer, _) = Peer::connect(&rig, &wanted);
    peer.send(&[0x80, 0]);
    assert_eq!(watcher.take().payload(), "error");
}

fn removed(version: Version) {
    let rig = Rig::new();
    let mut watcher = watcher(&rig, version);
    let wanted = connect(version, "c").will(message("w", "gone").qos(1), &[]);
    Peer::connect(&rig, &wanted).0.disconnect();
    watcher.gets_nothing(&mut Peer::new(&rig, version, "publisher"));
    // Once published it is gone.
    drop(Peer::connect(&rig, &wanted));
    assert_eq!(watcher.take().payload(), "gone");
    let (peer, _) = Peer::connect(&rig, &connect(version, "c"));
    drop(peer);
    watcher.gets_nothing(&mut Peer::new(&rig, version, "publisher"));
}

fn none_without_flag(version: Version) {
    let rig = Rig::new();
    let mut peer = subscriber(&rig, version, "#", 0);
    drop(Peer::connect(&rig, &connect(version, "c")));
    peer.gets_nothing(&mut Peer::new(&rig, version, "publisher"));
}

/// Flags of a will without one, or QoS 3.
fn bad_flags(version: Version, changed: u8) {
    let codes: &[u8] = if version == V5 { &[0x81, 0x82] } else { &[] };
    let mut wanted = connect(version, "c");
    wanted.flags_changed = changed;
    connect_refused(&wanted, codes);
}

fn qos_3(version: Version) {
    let codes: &[u8] = if version == V5 { &[0x81, 0x82] } else { &[] };
    connect_refused(&connect(version, "c").will(message("w", "x").qos(3), &[]), codes);
}

fn fields_missing(version: Version) {
    // The flag is set; topic and payload are not there.
    let codes: &[u8] = if version == V5 { &[0x81, 0x82] } else { &[] };
    let mut wanted = connect(version, "c");
    wanted.flags_changed = 0x04;
    connect_refused(&wanted, codes);
    // They are there; the flag is not set.
    let mut wanted = connect(version, "c").will(message("w", "x"), &[]);
    wanted.flags_changed = 0x04;
    connect_refused(&wanted, codes);
}

fn retain(version: Version) {
    let rig = Rig::new();
    let mut live = watcher(&rig, version);
    let not = message("w", "not retained").qos(1);
    drop(Peer::connect(&rig, &connect(version, "c").will(not, &[])));
    assert_eq!(live.take().payload(), "not retained");
    let mut late = Peer::new(&rig, version, "late");
    late.subscribe("w", 1);
    late.is_served();
    let kept = message("w", "retained").qos(1).retain();
    drop(Peer::connect(&rig, &connect(version, "c").will(kept, &[])));
    assert_eq!(live.take().payload(), "retained");
    let mut late = Peer::new(&rig, version, "later");
    late.subscribe("w", 1);
    let found = late.take();
    assert_eq!((found.payload(), found.retain), ("retained", true));
}

fn topic_is_text(version: Version) {
    let mut will = message("", "x");
    will.topic = b"\xC3\x28".to_vec();
    connect_refused(
        &connect(version, "c").will(will, &[]),
        if version == V5 { &[0x81] } else { &[] },
    );
}

both! {
    mqtt5_3_1_2_7_a_will_is_stored, mqtt311_3_1_2_8_a_will_is_stored_and_published => published;
    mqtt5_3_1_2_8_a_will_is_published, mqtt311_3_1_2_9_qos_and_topic_of_a_will_are_used => published;
    mqtt5_3_1_2_9_the_fields_of_a_will_are_there, mqtt311_3_1_2_11_no_fields_without_a_will
        => fields_missing;
    mqtt5_3_1_2_10_a_will_is_removed, mqtt311_3_1_2_10_a_will_is_removed => removed;
    mqtt5_3_1_2_11_without_a_will_its_qos_is_0, mqtt311_3_1_2_13_without_a_will_its_qos_is_0
        => |version| { bad_flags(version, 0x08); bad_flags(version, 0x10); };
    mqtt5_3_1_2_12_the_qos_of_a_will_is_not_3, mqtt311_3_1_2_14_the_qos_of_a_will_is_not_3 => qos_3;
    mqtt5_3_1_2_13_without_a_will_its_retain_is_0, mqtt311_3_1_2_15_without_a_will_its_retain_is_0
        => |version| bad_flags(version, 0x20);
    mqtt5_3_1_2_14_a_will_without_retain_is_not_retained,
    mqtt311_3_1_2_16_a_will_without_retain_is_not_retained => retain;
    mqtt5_3_1_2_15_a_will_with_retain_is_retained, mqtt311_3_1_2_17_a_will_with_retain_is_retained
        => retain;
    mqtt5_3_1_3_11_the_topic_of_a_will_is_text, mqtt311_3_1_3_10_the_topic_of_a_will_is_text
        => topic_is_text;
    mqtt5_3_14_4_3_a_disconnect_discards_the_will, mqtt311_3_14_4_3_a_disconnect_discards_the_will
        => removed;
}

#[test]
fn mqtt311_3_1_2_12_without_the_flag_there_is_no_will() {
    none_without_flag(V311);
}

#[test]
fn mqtt5_3_1_2_10_a_disconnect_with_will_publishes_it() {
    let rig = Rig::new();
    let mut watcher = watcher(&rig, V5);
    let (mut peer, _) = Peer::connect(&rig, &connect(V5, "c").will(message("w", "asked"), &[]));
    peer.send(&[0xE0, 1, 0x04]);
    assert_eq!(watcher.take().payload(), "asked");
}

#[test]
fn mqtt5_3_1_3_9_a_new_connection_within_the_delay_cancels_the_will() {
    let rig = Rig::new();
    let mut watcher = watcher(&rig, V5);
    let delayed = four(property::WILL_DELAY, 1);
    let wanted = persistent(V5, "c").will(message("w", "delayed").qos(1), &delayed);
    drop(Peer::connect(&rig, &wanted));
    let (mut peer, connack) = Peer::connect(&rig, &persistent(V5, "c"));
    assert!(connack.present);
    // Longer than the delay: the clock has to go on for this one.
    std::thread::sleep(std::time::Duration::from_millis(2_200));
    watcher.gets_nothing(&mut peer);
}

#[test]
fn mqtt5_3_1_2_8_a_delayed_will_is_published_after_its_delay() {
    let rig = Rig::new();
    let mut watcher = watcher(&rig, V5);
    let delayed = four(property::WILL_DELAY, 1);
    let wanted = persistent(V5, "c").will(message("w", "delayed").qos(1), &delayed);
    let began = std::time::Instant::now();
    drop(Peer::connect(&rig, &wanted));
    assert_eq!(watcher.take().payload(), "delayed");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
}

#[test]
fn mqtt5_3_1_2_8_the_end_of_the_session_comes_before_the_delay() {
    let rig = Rig::new();
    let mut watcher = watcher(&rig, V5);
    let delayed = four(property::WILL_DELAY, 3_600);
    let wanted = connect(V5, "c").will(message("w", "at once").qos(1), &delayed);
    drop(Peer::connect(&rig, &wanted));
    assert_eq!(watcher.take().payload(), "at once");
}

#[test]
fn mqtt5_3_1_3_2_the_properties_of_a_will_are_passed_on() {
    let rig = Rig::new();
    let mut watcher = watcher(&rig, V5);
    let will = message("w", "x")
        .with(&[property::PAYLOAD_FORMAT, 1])
        .with(&text(property::CONTENT_TYPE, b"text"))
        .with(&text(property::RESPONSE_TOPIC, b"r"))
        .with(&text(property::CORRELATION_DATA, b"c"))
        .with(&user("k", "v"));
    let sent = will.properties.clone();
    drop(Peer::connect(&rig, &connect(V5, "c").will(will, &[])));
    assert_eq!(watcher.take().properties, sent);
}

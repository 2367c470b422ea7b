//! Shared subscriptions: 5.0 section 4.8.2.

use edge_mqtt::Version::{V5, V311};

use crate::peer::*;
use crate::support::Rig;

fn member(rig: &Rig, id: &str, filter: &str, qos: u8) -> Peer {
    let mut peer = Peer::new(rig, V5, id);
    assert_eq!(peer.subscribe(filter, qos), qos);
    assert_eq!(peer.subscribe("fence", 1), 1);
    peer
}

/// What comes until the fence.
fn until_fence(peer: &mut Peer) -> Vec<Message> {
    let mut found = Vec::new();
    loop {
        let message = peer.take();
        if message.topic() == "fence" {
            return found;
        }
        found.push(message);
    }
}

#[test]
fn mqtt5_4_8_2_1_a_share_has_a_name() {
    for filter in ["$share//t", "$share/", "$share"] {
        let bytes = subscribe(V5, 1, &[(filter, 0)], &[]);
        let rig = Rig::new();
        let mut peer = Peer::new(&rig, V5, "c");
        peer.send(&bytes);
        // Either the packet or the filter is refused.
        let answer = peer.packet();
        match answer[0] {
            SUBACK => assert!(filter == "$share" || *answer.last().unwrap() >= 0x80, "{filter}"),
            DISCONNECT => assert!(matches!(answer[2], 0x81 | 0x82 | 0x8F), "{answer:x?}"),
            _ => panic!("{answer:x?}"),
        }
    }
}

#[test]
fn mqtt5_4_8_2_2_a_share_name_has_no_wildcard_and_a_filter_follows() {
    for filter in ["$share/g+/t", "$share/#/t", "$share/g", "$share/g/", "$share/g/a#"] {
        let rig = Rig::new();
        let mut peer = Peer::new(&rig, V5, "c");
        peer.send(&subscribe(V5, 1, &[(filter, 0)], &[]));
        let answer = peer.packet();
        match answer[0] {
            SUBACK => assert!(*answer.last().unwrap() >= 0x80, "{filter}"),
            DISCONNECT => assert!(matches!(answer[2], 0x81 | 0x82 | 0x8F), "{answer:x?}"),
            _ => panic!("{answer:x?}"),
        }
    }
}

#[test]
fn mqtt5_4_8_2_each_message_goes_to_one_member() {
    let rig = Rig::new();
    let mut members: Vec<_> =
        (0..3).map(|number| member(&rig, &format!("m{number}"), "$share/g/t/+", 1)).collect();
    let mut alone = member(&rig, "alone", "t/#", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    for number in 0..30 {
        publisher.publish(&message("t/1", &number.to_string()).qos(1));
    }
    publisher.publish(&message("fence", "").qos(1));
    let mut all: Vec<u32> = Vec::new();
    for member in &mut members {
        let found = until_fence(member);
        assert!(!found.is_empty(), "everybody has a share");
        all.extend(found.iter().map(|found| found.payload().parse::<u32>().unwrap()));
    }
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<_>>());
    assert_eq!(until_fence(&mut alone).len(), 30, "others are not concerned");
}

#[test]
fn mqtt5_4_8_2_3_the_qos_that_was_granted_is_respected() {
    let rig = Rig::new();
    for qos in 0..=2 {
        let mut only = member(&rig, "only", "$share/g/t", qos);
        let mut publisher = Peer::new(&rig, V5, "publisher");
        publisher.publish(&message("t", "x").qos(2));
        assert_eq!(only.take().qos, qos);
        only.disconnect();
    }
}

#[test]
fn mqtt5_4_8_2_4_a_qos_2_delivery_that_began_ends_at_the_same_member() {
    let rig = Rig::new();
    let (mut first, _) = Peer::connect(&rig, &persistent(V5, "first"));
    assert_eq!(first.subscribe("$share/g/t", 2), 2);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(2));
    let begun = first.message();
    let mut second = member(&rig, "second", "$share/g/t", 2);
    drop(first);
    second.gets_nothing(&mut publisher);
    let (mut first, connack) = Peer::connect(&rig, &persistent(V5, "first"));
    assert!(connack.present);
    let again = first.take();
    assert_eq!((again.id, again.payload()), (begun.id, "x"));
}

#[test]
fn mqtt5_4_8_2_6_what_a_member_refuses_goes_to_nobody_else() {
    let rig = Rig::new();
    let mut first = member(&rig, "first", "$share/g/t", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(1));
    let found = first.message();
    let mut second = member(&rig, "second", "$share/g/t", 1);
    let [high, low] = found.id.to_be_bytes();
    first.send(&[0x40, 3, high, low, 0x80]);
    first.is_served();
    second.gets_nothing(&mut publisher);
}

#[test]
fn mqtt5_3_8_3_4_no_local_on_a_share_closes() {
    refused(V5, &subscribe(V5, 1, &[("$share/g/t", 4)], &[]), &[0x82]);
}

#[test]
fn mqtt5_4_8_2_a_share_gets_no_retained_messages() {
    let rig = Rig::new();
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(1).retain());
    let mut only = member(&rig, "only", "$share/g/t", 1);
    only.gets_nothing(&mut publisher);
}

#[test]
fn mqtt5_4_8_2_what_is_not_acknowledged_goes_to_another_member_when_the_session_ends() {
    let rig = Rig::new();
    let mut first = member(&rig, "first", "$share/g/t", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(1));
    assert_eq!(first.message().payload(), "x");
    let mut second = member(&rig, "second", "$share/g/t", 1);
    drop(first);
    assert_eq!(second.take().payload(), "x");
}

#[test]
fn mqtt5_4_8_2_5_a_qos_2_delivery_that_began_ends_with_its_session() {
    let rig = Rig::new();
    let mut first = member(&rig, "first", "$share/g/t", 2);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(2));
    assert_eq!(first.message().payload(), "x");
    let mut second = member(&rig, "second", "$share/g/t", 2);
    first.disconnect();
    second.gets_nothing(&mut publisher);
}

#[test]
fn mqtt5_4_8_2_a_member_that_is_here_comes_before_one_that_is_away() {
    let rig = Rig::new();
    let (mut away, _) = Peer::connect(&rig, &persistent(V5, "away"));
    assert_eq!(away.subscribe("$share/g/t", 1), 1);
    away.disconnect();
    let mut here = member(&rig, "here", "$share/g/t", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    for payload in ["1", "2", "3"] {
        publisher.publish(&message("t", payload).qos(1));
        assert_eq!(here.take().payload(), payload);
    }
    here.disconnect();
    publisher.publish(&message("t", "4").qos(1));
    let (mut back, _) = Peer::connect(&rig, &persistent(V5, "away"));
    assert_eq!(back.take().payload(), "4");
}

#[test]
fn mqtt311_clients_are_members_too() {
    let rig = Rig::new();
    let mut old = Peer::new(&rig, V311, "old");
    assert_eq!(old.subscribe("$share/g/t", 1), 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "x").qos(1));
    assert_eq!(old.take().payload(), "x");
    old.unsubscribe(&["$share/g/t"]);
    publisher.publish(&message("t", "y").qos(1));
    old.is_served();
}

#[test]
fn mqtt5_3_2_2_3_13_connack_says_that_they_are_available() {
    let rig = Rig::new();
    let (_peer, connack) = Peer::connect(&rig, &connect(V5, "c"));
    assert_eq!(connack.number(0x2A), Some(1));
}

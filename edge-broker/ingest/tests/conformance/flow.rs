//! Receive Maximum and the send quota: 5.0 sections 3.3.4 and 4.9.

use edge_mqtt::Version::V5;

use crate::peer::*;
use crate::support::Rig;

fn limited(rig: &Rig, maximum: u16) -> Peer {
    let wanted = connect(V5, "limited").with(&two(property::RECEIVE_MAXIMUM, maximum));
    Peer::connect(rig, &wanted).0
}

#[test]
fn mqtt5_3_3_4_9_no_more_than_receive_maximum_is_sent() {
    let rig = Rig::new();
    let mut subscriber = limited(&rig, 2);
    subscriber.subscribe("t", 2);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    for (number, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        publisher.publish(&message("t", &number.to_string()).qos(qos));
    }
    let (first, second) = (subscriber.message(), subscriber.message());
    subscriber.is_served();
    subscriber.acknowledge(&first);
    let third = subscriber.message();
    subscriber.is_served();
    // PUBREC alone makes no room, PUBCOMP does.
    subscriber.send_id(0x50, second.id);
    assert_eq!(subscriber.acknowledgement(PUBREL, second.id), 0);
    subscriber.is_served();
    subscriber.send_id(0x70, second.id);
    let fourth = subscriber.message();
    let payloads = [&first, &second, &third, &fourth].map(|found| found.payload().to_owned());
    assert_eq!(payloads, ["0", "1", "2", "3"]);
}

#[test]
fn mqtt5_4_9_0_1_and_2_a_quota_of_1_is_kept() {
    let rig = Rig::new();
    let mut subscriber = limited(&rig, 1);
    subscriber.subscribe("t", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    for number in 0..10 {
        publisher.publish(&message("t", &number.to_string()).qos(1));
    }
    for number in 0..10 {
        let found = subscriber.message();
        subscriber.is_served();
        assert_eq!(found.payload(), number.to_string());
        subscriber.acknowledge(&found);
    }
}

#[test]
fn mqtt5_3_3_4_10_and_4_9_0_3_other_packets_do_not_wait_for_the_quota() {
    let rig = Rig::new();
    let mut subscriber = limited(&rig, 1);
    subscriber.subscribe("t", 1);
    let mut publisher = Peer::new(&rig, V5, "publisher");
    publisher.publish(&message("t", "1").qos(1));
    publisher.publish(&message("t", "2").qos(1));
    subscriber.message();
    assert_eq!(subscriber.subscribe("zero", 0), 0);
    publisher.publish(&message("zero", "at QoS 0"));
    assert_eq!(subscriber.take().payload(), "at QoS 0");
    assert_eq!(subscriber.publish(&message("own", "x").qos(1)), 0);
    assert_eq!(subscriber.unsubscribe(&["zero"]), [0]);
    subscriber.is_served();
}

#[test]
fn mqtt5_3_3_4_7_beyond_our_receive_maximum_a_client_is_refused() {
    let rig = Rig::new();
    rig.warm_up(&["t"]);
    let (mut peer, connack) = Peer::connect(&rig, &connect(V5, "c"));
    let maximum = connack.number(property::RECEIVE_MAXIMUM).unwrap_or(65_535);
    // PUBREC leaves an exchange open, so this needs no race with the disk.
    let mut bytes = Vec::new();
    for id in 1..=maximum + 1 {
        let id = u16::try_from(id).unwrap();
        bytes.extend(message("t", "x").qos(2).id(id).bytes(V5));
    }
    peer.send(&bytes);
    loop {
        let packet = peer.client.packet();
        if packet[0] == DISCONNECT {
            assert_eq!(packet[2], 0x93);
            break;
        }
        assert_eq!(packet[0], PUBREC);
    }
}

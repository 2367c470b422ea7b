//! What one client may cost.

use std::sync::atomic::Ordering;

use crate::support::{Rig, connect_v4, options, publish, publish_v5};

#[test]
fn beyond_the_connection_limit_new_connections_are_closed() {
    let mut options = options();
    options.connections_max = 2;
    let rig = Rig::with("", options);
    let mut first = rig.v4("1");
    let mut second = rig.v4("2");
    assert!(rig.client().closed());
    first.ping();
    second.ping();
    second.send(&[0xE0, 0]);
    assert!(second.closed());
    while rig.stats.connections_open.load(Ordering::Relaxed) > 1 {
        std::thread::yield_now();
    }
    let mut third = loop {
        // The slot is free a moment after the connection has ended.
        let mut client = rig.client();
        client.send(&connect_v4("3", 0));
        let mut first = [0];
        if std::io::Read::read(&mut client.stream, &mut first).is_ok_and(|count| count == 1) {
            break client;
        }
    };
    let mut rest = [0; 3];
    std::io::Read::read_exact(&mut third.stream, &mut rest).unwrap();
    third.ping();
}

#[test]
fn large_packets_arrive_whole_and_larger_ones_are_refused() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a", 0);
    let mut client = rig.v4("c");
    let payload: Vec<u8> = (0..=255).cycle().take(256 * 1024 - 16).collect();
    client.send(&publish("a", 1, &payload));
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
    assert_eq!(subscriber.packet(), publish("a", 0, &payload));
    client.send(&publish("a", 2, b"next"));
    assert_eq!(client.packet(), [0x40, 2, 0, 2]);
    assert_eq!(subscriber.packet(), publish("a", 0, b"next"));

    let mut client = rig.v5("c5");
    client.send(&publish("a", 1, &vec![0; 256 * 1024])[..8]);
    assert_eq!(client.rest(), [0xE0, 1, 0x95]);
}

#[test]
fn packets_may_arrive_in_any_pieces() {
    let rig = Rig::new();
    let mut client = rig.client();
    let mut bytes = connect_v4("c", 0);
    for id in 1..=20 {
        bytes.extend(publish("a/b", id, &vec![b'x'; usize::from(id) * 37]));
    }
    for (index, piece) in bytes.chunks(61).enumerate() {
        client.send(piece);
        if index == 1 {
            assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        }
    }
    for id in 1..=20 {
        assert_eq!(client.packet(), [0x40, 2, 0, id]);
    }
}

#[test]
fn more_topics_than_the_cache_holds_are_no_problem() {
    let mut options = options();
    options.route_cache_entries_max = 1;
    let rig = Rig::with("", options);
    let mut client = rig.v4("c");
    for round in 0..3_u16 {
        for topic in 0..100_u16 {
            client.send(&publish(&format!("t/{topic}"), round * 100 + topic + 1, b"x"));
        }
    }
    for id in 1..=300_u16 {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low]);
    }
    assert_eq!(rig.records("mqtt").len(), 300);
}

#[test]
fn a_topic_takes_no_record_beyond_its_own_limit_as_it_is_now() {
    let rig = Rig::new();
    let mut client = rig.v4("c");
    client.send(&publish("a", 1, &[b'x'; 2_000]));
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
    rig.alter("mqtt", "max.message.bytes", "1000");
    // The connections hear of it with the next look at the catalogue.
    let mut id = 1;
    let refused = loop {
        let mut client = rig.v5("c5");
        id += 1;
        client.send(&publish_v5("a", id, &[], &[b'x'; 2_000]));
        let answer = client.packet();
        if answer[0] == 0xE0 {
            break answer;
        }
    };
    assert_eq!(refused, [0xE0, 1, 0x95]);
    client.send(&publish("a", 2, &[b'x'; 500]));
    assert_eq!(client.packet(), [0x40, 2, 0, 2], "smaller ones are taken");
}

//! Who is connected, and who is sent away by hand.

use crate::support::{Rig, options, publish};

#[test]
fn who_is_connected_is_listed_and_can_be_sent_away() {
    let rig = Rig::new();
    let mut old = rig.v4("old");
    let mut new = rig.v5("new");
    let listed: Vec<_> = rig.handle.clients().into_iter().map(|client| client.client_id).collect();
    assert_eq!(listed, ["old", "new"]);
    assert_eq!(rig.handle.clients()[0].transport, "tcp");
    assert_eq!(rig.handle.kick("nobody"), 0);
    assert_eq!(rig.handle.kick("new"), 1);
    assert_eq!(new.rest(), [0xE0, 1, 0x98]);
    assert_eq!(rig.handle.kick("old"), 1);
    assert!(old.closed());
    while !rig.handle.clients().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn without_memory_new_connections_are_refused_and_the_others_go_on() {
    let mut options = options();
    options.memory_bytes_max = 6 * 1024;
    let rig = Rig::with("", options);
    let mut first = rig.v4("1");
    first.ping();
    let mut second = rig.v4("2");
    second.ping();
    assert!(rig.client().closed(), "the budget is used up");
    first.ping();
    second.ping();
    let counted = |name: &str| rig.handle.counters().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!(counted("connections_refused_memory"), 1);
    assert!(counted("memory_waits") > 0);
}

#[test]
fn what_waits_for_a_slow_subscriber_counts_against_the_memory_of_all() {
    let mut options = options();
    options.memory_bytes_max = 512 * 1024;
    options.output_bytes_max = 16 * 1024;
    options.delivery_queue_bytes_max = 4 << 20;
    let rig = Rig::with("", options);
    rig.warm_up(&["a/b"]);
    let mut slow = rig.v4("slow");
    slow.subscribe("a/b", 0);
    let mut publisher = rig.v4("publisher");
    let counted = |name: &str| rig.handle.counters().find(|(known, _)| *known == name).unwrap().1;
    let mut sent = 0;
    while counted("memory_waits") == 0 {
        sent += 1;
        publisher.send(&publish("a/b", sent, &[b'x'; 16 * 1024]));
        assert_eq!(publisher.packet()[0], 0x40);
        assert_eq!(counted("deliveries_dropped"), 0, "the queue was full before the memory was");
    }
    assert!(rig.client().closed(), "the budget is used up");
    for _ in 0..sent {
        assert_eq!(slow.packet()[0] & 0xF0, 0x30);
    }
    slow.ping();
    rig.v4("new").ping();
}

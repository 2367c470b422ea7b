//! When a PUBACK leaves, and when it does not.

use edge_log::storage::{Fault, FaultKind, SimOperation};

use edge_log::Durability;

use crate::support::{Rig, engine_config, options, publish};

#[test]
fn puback_leaves_only_after_the_sync() {
    let rig = Rig::new();
    rig.warm_up(&["a"]);
    let mut client = rig.v4("c");
    rig.syncs.close();
    client.send(&publish("a", 7, b"x"));
    client.send(&publish("a", 8, b"y"));
    client.ping();
    rig.syncs.open();
    assert_eq!(client.packet(), [0x40, 2, 0, 7]);
    assert_eq!(client.packet(), [0x40, 2, 0, 8]);
    let values: Vec<_> = rig.records("mqtt").into_iter().map(|record| record.value).collect();
    assert_eq!(values, [b"warm-up".to_vec(), b"x".to_vec(), b"y".to_vec()]);
}

#[test]
fn pubacks_of_different_lanes_leave_in_order_of_arrival() {
    let routes = "
        [[route]]
        filter = \"alarm/#\"
        topic = \"alarms\"
        lane = \"alarm\"
        partitions = 1
        [[route]]
        filter = \"#\"
        topic = \"rest\"
        lane = \"bulk\"
        partitions = 1
    ";
    let rig = Rig::with(routes, options());
    rig.warm_up(&["alarm/1", "a"]);
    let mut client = rig.v4("c");
    rig.syncs.close();
    let mut burst = Vec::new();
    for id in 1..=40 {
        let topic = if id % 3 == 0 { "alarm/1" } else { "a" };
        burst.extend(publish(topic, id, b"x"));
    }
    client.send(&burst);
    client.ping();
    rig.syncs.open();
    for id in 1..=40_u16 {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low]);
    }
    assert_eq!(rig.records("alarms").len(), 14);
    assert_eq!(rig.records("rest").len(), 28);
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_the_client_sends_again() {
    let rig = Rig::new();
    rig.warm_up(&["a"]);
    let mut other = rig.v4("other");
    let mut client = rig.v5("c");
    rig.syncs.close();
    client.send(b"\x32\x07\x00\x01a\x00\x07\x00x");
    client.ping();
    // Until healed: one fault alone may meet the sync of another file, and this one succeeds.
    let fault =
        Fault { operation: SimOperation::Sync, after: 0, kind: FaultKind::Device, sticky: true };
    rig.disk.inject(fault);
    rig.syncs.open();
    assert_eq!(client.rest(), [0xE0, 1, 0x89], "DISCONNECT, server busy, and no PUBACK");

    rig.disk.heal();
    let mut again = rig.v4("c");
    again.send(&publish("a", 7, b"x"));
    assert_eq!(again.packet(), [0x40, 2, 0, 7]);
    other.ping();
    let values: Vec<_> = rig.records("mqtt").into_iter().map(|record| record.value).collect();
    assert!(values.ends_with(&[b"x".to_vec()]));
}

#[test]
fn a_lane_without_room_stops_reading_and_loses_nothing() {
    let rig = Rig::with_queue("", options(), 2_048);
    rig.warm_up(&["a"]);
    let mut client = rig.v4("c");
    rig.syncs.close();
    let mut sender = client.stream.try_clone().unwrap();
    let publishes = std::thread::spawn(move || {
        for id in 1..=2_000_u16 {
            std::io::Write::write_all(&mut sender, &publish("a", id, &[b'x'; 200])).unwrap();
        }
    });
    // Something waits for room: only then the disk goes on.
    while rig.stats.lane_waits.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    rig.syncs.open();
    for id in 1..=2_000_u16 {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low]);
    }
    publishes.join().unwrap();
    assert_eq!(rig.records("mqtt").len(), 2_001);
}

#[test]
fn a_route_that_stores_nothing_acknowledges_at_once() {
    let rig = Rig::with("[[route]]\nfilter = \"live/#\"\nstore = false\n", options());
    rig.warm_up(&["a"]);
    rig.syncs.close();
    let mut client = rig.v4("c");
    client.send(&publish("live/1", 3, b"x"));
    assert_eq!(client.packet(), [0x40, 2, 0, 3]);
}

#[test]
fn receive_maximum_holds_back_a_3_1_1_client_until_acknowledged() {
    let mut options = options();
    options.session.receive_maximum = 4;
    let rig = Rig::with("", options);
    let mut client = rig.v4("c");
    let mut burst = Vec::new();
    for id in 1..=100 {
        burst.extend(publish("a", id, b"x"));
    }
    client.send(&burst);
    for id in 1..=100_u16 {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low]);
    }
}

#[test]
fn acknowledged_publishes_survive_a_power_cut_at_once() {
    let rig = Rig::new();
    let mut client = rig.v4("c");
    for id in 1..=50_u16 {
        client.send(&publish("a", id, &id.to_be_bytes()));
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low]);
        if id % 10 == 0 {
            let expected: Vec<_> = (1..=id).map(|id| id.to_be_bytes().to_vec()).collect();
            assert_eq!(rig.values_after_power_cut("mqtt"), expected);
        }
    }
}

#[test]
fn with_an_interval_the_puback_runs_ahead_of_the_sync_and_the_sync_follows() {
    let mut engine = engine_config(1 << 20);
    for lane in &mut engine.lanes {
        lane.log.durability = Durability::Interval { ms: 300 };
    }
    let rig = Rig::with_engine("", options(), engine);
    rig.warm_up(&["a"]);
    let mut client = rig.v4("c");
    rig.syncs.close();
    client.send(&publish("a", 7, b"x"));
    assert_eq!(client.packet(), [0x40, 2, 0, 7], "before any sync");
    rig.syncs.open();
    // Nothing else is published: it is the interval that makes it durable.
    while !rig.values_after_power_cut("mqtt").contains(&b"x".to_vec()) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    client.ping();
}

//! What can never be stored where it belongs, and `$SYS`.

use std::time::Duration;

use edge_config::{HeaderSelection, KeyTemplate, StoreTarget, TimestampSource};

use crate::support::{Rig, options, publish};

fn with_dead_letters() -> Rig {
    let mut options = options();
    options.dead_letter = Some(StoreTarget {
        topic: "edge.dead-letter".into(),
        lane: "normal".into(),
        partitions: 1,
        key: KeyTemplate::MqttTopic,
        headers: HeaderSelection::ALL,
        timestamp: TimestampSource::Now,
    });
    Rig::with("", options)
}

#[test]
fn what_is_too_large_for_its_topic_is_kept_with_the_reason_and_acknowledged() {
    let rig = with_dead_letters();
    rig.warm_up(&["a/b"]);
    rig.alter("mqtt", "max.message.bytes", "1000");
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a/#", 0);
    let mut client = rig.v4("c");
    // The connections hear of the limit with the next look at the catalogue.
    let mut id = 0;
    while rig.engine.topic("edge.dead-letter").is_none() {
        id += 1;
        client.send(&publish("a/b", id, &[b'x'; 2_000]));
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low]);
        assert_eq!(subscriber.packet()[0] & 0xF0, 0x30);
    }
    let mut bytes = publish("a/b", id + 1, b"small");
    bytes.extend(publish("a/c", id + 2, &[b'y'; 3_000]));
    bytes.extend(publish("a/b", id + 3, b"small as well"));
    client.send(&bytes);
    for id in id + 1..=id + 3 {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low], "in order");
    }
    let dead = rig.records("edge.dead-letter");
    assert_eq!(dead.len(), 2);
    let last = &dead[1];
    assert_eq!((last.key.as_deref(), last.value.len()), (Some(b"a/c".as_slice()), 3_000));
    let header = |name: &str| {
        last.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    assert_eq!(header("edge-dead-letter"), Some(b"too-large".to_vec()));
    assert_eq!(header("mqtt.topic"), Some(b"a/c".to_vec()));
    assert_eq!(header("mqtt.client"), Some(b"c".to_vec()));
    let stored = rig.records("mqtt");
    assert!(stored.iter().any(|record| record.value == b"small as well"));
}

#[test]
fn sys_topics_go_to_who_asks_for_them_and_to_nobody_else() {
    let mut options = options();
    options.sys_interval = Duration::from_millis(100);
    let rig = Rig::with("", options);
    let mut everything = rig.v4("all");
    everything.subscribe("#", 0);
    let mut curious = rig.v4("curious");
    curious.subscribe("$SYS/broker/clients/#", 0);
    let mut seen = String::new();
    while !seen.contains("$SYS/broker/clients/connected2") {
        seen.push_str(&String::from_utf8_lossy(&curious.packet()[2..]).replace("\0", ""));
    }
    assert!(!seen.contains("uptime"));
    everything.ping();
}

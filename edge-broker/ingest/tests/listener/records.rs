//! What a PUBLISH becomes in the log.

use edge_mqtt::origin::Rebuilt;
use edge_wire::partitioner::partition_for_key;

use crate::support::{Rig, Stored, options, publish, publish_v5};

fn headers(record: &Stored) -> Vec<(&str, &[u8])> {
    record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

#[test]
fn the_default_route_keeps_topic_client_qos_and_retain() {
    let rig = Rig::new();
    let mut client = rig.v4("sensor-7");
    client.send(&publish("plant/1/ü", 1, b"21.5"));
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
    // Retained, QoS 1.
    let mut retained = publish("plant/1/ü", 2, b"22");
    retained[0] |= 1;
    client.send(&retained);
    assert_eq!(client.packet(), [0x40, 2, 0, 2]);
    let records = rig.records("mqtt");
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].key.as_deref(), Some("plant/1/ü".as_bytes()));
    assert_eq!(records[0].value, b"21.5");
    let partition = partition_for_key("plant/1/ü".as_bytes(), 4).0 as usize;
    assert!(records.iter().all(|record| record.partition == partition));
    let expected = |retain: &'static [u8]| {
        vec![
            ("mqtt.topic", "plant/1/ü".as_bytes()),
            ("mqtt.client", b"sensor-7"),
            ("mqtt.qos", b"1"),
            ("mqtt.retain", retain),
        ]
    };
    assert_eq!(headers(&records[0]), expected(b"0"));
    assert_eq!(headers(&records[1]), expected(b"1"));
    assert!(records[0].timestamp_ms > 1_600_000_000_000);
}

#[test]
fn routes_decide_topic_key_lane_headers_and_timestamp() {
    let routes = "
        [[route]]
        filter = \"plant/+/+/telemetry\"
        topic = \"telemetry\"
        key = \"{3}\"
        lane = \"bulk\"
        partitions = 6
        headers = [\"mqtt.topic\"]
        timestamp = { field = \"ts\", unit = \"ms\" }
    ";
    let rig = Rig::with(routes, options());
    let mut client = rig.v4("c");
    client.send(&publish("plant/l1/m7/telemetry", 1, br#"{"ts":1700000000123}"#));
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
    client.send(&publish("other", 2, b"x"));
    assert_eq!(client.packet(), [0x40, 2, 0, 2]);
    let records = rig.records("telemetry");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key.as_deref(), Some(b"m7".as_slice()));
    assert_eq!(records[0].timestamp_ms, 1_700_000_000_123);
    assert_eq!(headers(&records[0]), [("mqtt.topic", b"plant/l1/m7/telemetry".as_slice())]);
    assert_eq!(rig.engine.topic("telemetry").unwrap().lane(), "bulk");
    assert_eq!(rig.records("mqtt").len(), 1, "what matches no route is in the default one");
}

#[test]
fn keyless_records_are_spread_over_the_partitions() {
    let routes = "[[route]]\nfilter = \"#\"\ntopic = \"spread\"\nkey = \"\"\npartitions = 3\n";
    let rig = Rig::with(routes, options());
    let mut client = rig.v4("c");
    for id in 1..=30_u16 {
        client.send(&publish("a", id, b"x"));
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 2, high, low]);
    }
    let records = rig.records("spread");
    assert!(records.iter().all(|record| record.key.is_none()));
    for partition in 0..3 {
        let here = records.iter().filter(|record| record.partition == partition).count();
        assert_eq!(here, 10, "one hand-over, one partition, in turn");
    }
}

#[test]
fn a_publish_can_be_rebuilt_from_its_record() {
    let rig = Rig::new();
    let mut client = rig.v5("c");
    let properties = b"\x01\x01\x02\x00\x00\x0e\x10\x03\x00\x04json\x08\x00\x01r\x09\x00\x02\x00\xff\
        \x26\x00\x01b\x00\x011\x26\x00\x01a\x00\x012\x26\x00\x01b\x00\x011\x26\x00\x0amqtt.topic\x00\x01x";
    client.send(&publish_v5("t", 1, properties, b"\x00\x01"));
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
    // The same properties again come from the cache; others do not.
    client.send(&publish_v5("t", 2, properties, b"two"));
    client.send(&publish_v5("t", 3, b"\x26\x00\x01z\x00\x01z", b"three"));
    client.send(&publish_v5("t", 4, b"", b"four"));
    for id in 2..=4 {
        assert_eq!(client.packet(), [0x40, 2, 0, id]);
    }
    let records = rig.records("mqtt");
    let rebuilt: Vec<_> = records
        .iter()
        .map(|record| Rebuilt::from_headers(headers(record).into_iter()).expect("from MQTT"))
        .collect();
    assert_eq!(rebuilt[0].properties_raw, properties);
    assert_eq!(rebuilt[1].properties_raw, properties);
    assert_eq!(rebuilt[2].properties_raw, b"\x26\x00\x01z\x00\x01z");
    assert_eq!(rebuilt[3].properties_raw, b"");
    assert_eq!((rebuilt[0].topic.as_str(), rebuilt[0].client_id.as_str()), ("t", "c"));
    assert_eq!(records[0].value, b"\x00\x01");
}

#[test]
fn a_deleted_topic_comes_back_with_the_next_publish() {
    let rig = Rig::new();
    let mut client = rig.v4("c");
    client.send(&publish("a", 1, b"x"));
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
    rig.runtime.block_on(rig.engine.delete_topic("mqtt")).unwrap();
    // The connection may learn of it by a refusal; then it is closed and comes again.
    let mut id = 2;
    loop {
        let mut client = rig.v4("c");
        client.send(&publish("a", id, b"y"));
        if client.rest_or_packet() == [0x40, 2, 0, u8::try_from(id).unwrap()] {
            break;
        }
        id += 1;
    }
    assert!(rig.records("mqtt").iter().all(|record| record.value == b"y"));
}

#[test]
fn the_first_publish_of_a_new_gateway_is_stored() {
    // It meets the topic while that is being made; again and again, to meet it at every moment.
    for _ in 0..40 {
        let rig = Rig::new();
        let mut client = rig.v4("c");
        let mut bytes = publish("a", 0, b"zero");
        bytes.extend(publish("a", 1, b"one"));
        client.send(&bytes);
        assert_eq!(client.packet(), [0x40, 2, 0, 1]);
        let mut values: Vec<_> = rig.records("mqtt").into_iter().map(|it| it.value).collect();
        values.sort();
        assert_eq!(values, [b"one".to_vec(), b"zero".to_vec()]);
    }
}

#[test]
fn a_publish_without_a_key_is_never_acknowledged_for_a_compacted_topic() {
    let rig = Rig::with("[[route]]\nfilter = \"k/#\"\ntopic = \"t\"\nkey = \"\"", options());
    rig.warm_up(&["k/warm"]);
    let before = rig.records("t").len();
    rig.alter("t", "cleanup.policy", "compact");
    // The listener looks for changed settings by itself: what it took before it saw this one is of before.
    let mut client = rig.v5("c");
    let mut taken = 0;
    let refused = loop {
        client.send(&publish_v5("k/a", 1, &[], b"x"));
        let puback = client.packet();
        match puback.get(4) {
            None | Some(0) => taken += 1,
            Some(reason) => break *reason,
        }
    };
    assert_eq!(refused, 0x83, "it may not be acknowledged as stored");
    client.ping();
    // QoS 0 goes on live; a 3.1.1 client is told by the end of its connection.
    client.send(&publish_v5("k/a", 0, &[], b"x"));
    client.ping();
    let mut old = rig.v4("old");
    old.send(&publish("k/a", 1, b"x"));
    assert_eq!(old.rest_or_packet(), Vec::<u8>::new());
    assert_eq!(rig.records("t").len(), before + taken);
    let told = rig.stats.publishes_unstorable.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(told, 3);
}

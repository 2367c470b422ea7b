//! A lane that is full: what waits, what goes on, and how it ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use edge_engine::{EngineConfig, Holding, LaneHandle, LaneState};
use edge_log::WhenFull;

use crate::support::{Client, Rig, engine_config, options, publish, publish_v5};

const ROUTES: &str = "
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
const PAYLOAD_BYTES: usize = 4_000;

/// `bulk` has 256 KiB and gives nothing up that is not upstream.
fn small_bulk(holding: Holding) -> EngineConfig {
    let mut config = engine_config(64 << 10);
    for lane in config.lanes.iter_mut().filter(|lane| lane.log.name == "bulk") {
        lane.log.budget_bytes = 256 << 10;
        lane.log.segment_bytes = 64 << 10;
        lane.log.protect_unsent = true;
        lane.log.when_full = WhenFull::Refuse;
        lane.holding = holding;
    }
    config
}

fn rig(holding: Holding) -> Rig {
    let rig = Rig::with_engine(ROUTES, options(), small_bulk(holding));
    rig.warm_up(&["alarm/1", "a"]);
    rig
}

fn bulk(rig: &Rig) -> &LaneHandle {
    rig.engine.lane_by_name("bulk").unwrap()
}

fn payload(id: u16) -> Vec<u8> {
    format!("{id:0>PAYLOAD_BYTES$}").into_bytes()
}

/// Publishes to the lane until it is full; what is not acknowledged, and what is next.
fn fill(rig: &Rig, client: &mut Client, v5: bool) -> (Vec<u16>, u16) {
    let mut id = 0;
    let mut waiting = Vec::new();
    while bulk(rig).state() != LaneState::Full {
        id += 1;
        let value = payload(id);
        client.send(&if v5 { publish_v5("a", id, &[], &value) } else { publish("a", id, &value) });
        waiting.push(id);
        // Either its PUBACK comes or the lane is full.
        while waiting.len() == 1 && bulk(rig).state() != LaneState::Full {
            client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut first = [0; 4];
            if client.stream.peek(&mut first).is_ok_and(|count| count == 4) {
                assert_eq!(client.packet(), puback(id));
                waiting.clear();
            }
        }
        client.stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    }
    (waiting, id + 1)
}

fn puback(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0x40, 2, high, low]
}

/// Tells the lane that everything is upstream, again and again, until it takes records.
fn lift(rig: &Rig) {
    let lane = bulk(rig);
    while lane.state() == LaneState::Full {
        lane.handle_upstream(lane.reader().end());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Keeps everything upstream while `wait` goes on.
fn lifted<T: Send>(rig: &Rig, wait: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(wait);
        while !waiting.is_finished() {
            bulk(rig).handle_upstream(bulk(rig).reader().end());
            std::thread::sleep(Duration::from_millis(1));
        }
        waiting.join().unwrap()
    })
}

/// The numbers in the last records of the topic, which must be without holes or repeats.
fn stored(rig: &Rig) -> Vec<u16> {
    let records = rig.records("rest");
    let number = |value: &[u8]| std::str::from_utf8(value).unwrap().parse().ok();
    let ids: Vec<u16> = records.iter().filter_map(|record| number(&record.value)).collect();
    assert!(ids.is_sorted_by(|a, b| a + 1 == *b), "{ids:?}");
    ids
}

#[test]
fn one_lane_of_a_connection_goes_on_while_another_is_full_and_everything_is_there_once() {
    let rig = rig(Holding::default());
    let mut client = rig.v4("c");
    let (mut waiting, mut next) = fill(&rig, &mut client, false);
    // More than the queue of the lane takes: the connection parks the rest and is read on.
    for _ in 0..40 {
        client.send(&publish("a", next, &payload(next)));
        waiting.push(next);
        next += 1;
    }
    for alarm in 60_000..60_020 {
        client.send(&publish("alarm/1", alarm, b"!"));
        assert_eq!(client.packet(), puback(alarm), "while {} are held", waiting.len());
    }
    client.ping();
    assert_eq!(rig.records("alarms").len(), 21);
    assert!(rig.stats.lane_waits.load(Ordering::Relaxed) > 0);
    let held = bulk(&rig).in_flight();
    assert_eq!(held.publishes.load(Ordering::Relaxed), waiting.len() as u64);
    // Payloads, and once for each hand-over key and headers, which are smaller than one payload.
    let (bytes, payloads) = (held.bytes.load(Ordering::Relaxed), waiting.len() * PAYLOAD_BYTES);
    assert!((payloads + 1..payloads * 2).contains(&(bytes as usize)), "{bytes} of {payloads}");
    assert_eq!(held.clients.load(Ordering::Relaxed), 1);

    let (client, waiting) = lifted(&rig, move || {
        for id in &waiting {
            assert_eq!(client.packet(), puback(*id));
        }
        (client, waiting)
    });
    assert_eq!(stored(&rig).last(), waiting.last());
    assert_eq!(held.publishes.load(Ordering::Relaxed), 0);
    assert_eq!(held.clients.load(Ordering::Relaxed), 0);
    drop(client);
}

#[test]
fn a_client_beyond_its_limit_in_a_full_lane_is_not_read_and_loses_nothing() {
    let holding = Holding { client_bytes_max: 16 << 10, ..Holding::default() };
    let rig = rig(holding);
    let mut client = rig.v4("c");
    let (mut waiting, next) = fill(&rig, &mut client, false);
    let mut burst = Vec::new();
    for id in next..next + 60 {
        burst.extend(publish("a", id, &payload(id)));
        waiting.push(id);
    }
    burst.extend(publish("alarm/1", 60_000, b"!"));
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &burst));
    // Another client has its own limit, and its own lanes.
    let mut other = rig.v4("other");
    other.send(&publish("alarm/1", 1, b"other"));
    assert_eq!(other.packet(), puback(1));
    // One read may go beyond the limit, no more.
    let held = bulk(&rig).in_flight().bytes.load(Ordering::Relaxed);
    assert!(held <= (16 << 10) + (64 << 10) + PAYLOAD_BYTES as u64, "{held} bytes held");

    let waiting = lifted(&rig, move || {
        // The alarm may overtake what its lane did not hold; the others keep their order.
        let mut pubacks: Vec<_> = (0..=waiting.len()).map(|_| client.packet()).collect();
        let alarm = pubacks.iter().position(|packet| *packet == puback(60_000));
        pubacks.remove(alarm.expect("the alarm is acknowledged"));
        assert_eq!(pubacks, waiting.iter().map(|id| puback(*id)).collect::<Vec<_>>());
        waiting
    });
    sending.join().unwrap().unwrap();
    assert_eq!(stored(&rig).last(), waiting.last());
    assert_eq!(rig.records("alarms").len(), 3);
}

#[test]
fn qos_0_to_a_full_lane_is_delivered_live_and_counted_and_waits_for_nothing() {
    let rig = rig(Holding::default());
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("live", 0);
    let mut client = rig.v4("c");
    let (_, next) = fill(&rig, &mut client, false);
    client.send(&publish("a", next, &payload(next)));
    client.send(&publish("live", 0, b"now"));
    assert_eq!(subscriber.packet(), publish("live", 0, b"now"));
    client.ping();
    assert_eq!(bulk(&rig).dropped_records(), 1);
    lift(&rig);
}

#[test]
fn after_refuse_after_an_mqtt_5_client_is_told_0x97_and_nothing_of_it_is_stored() {
    let holding = Holding { refuse_after: Some(Duration::from_millis(300)), ..Holding::default() };
    let rig = rig(holding);
    let mut client = rig.v5("c");
    let (mut waiting, next) = fill(&rig, &mut client, true);
    for id in next..next + 40 {
        client.send(&publish_v5("a", id, &[], &payload(id)));
        waiting.push(id);
    }
    let count = waiting.len() as u64;
    for id in &waiting {
        let [high, low] = id.to_be_bytes();
        assert_eq!(client.packet(), [0x40, 3, high, low, 0x97]);
    }
    assert_eq!(bulk(&rig).refused_records(), count);
    assert_eq!(bulk(&rig).in_flight().publishes.load(Ordering::Relaxed), 0);
    let before = rig.records("rest").len();

    // The connection is as good as before, and there is room again without anybody's help.
    lift(&rig);
    assert_eq!(rig.records("rest").iter().filter(|r| r.value.len() == 1).count(), 0);
    client.send(&publish_v5("a", 50_000, &[], b"z"));
    assert_eq!(client.packet(), [0x40, 2, 0xC3, 0x50]);
    let records = rig.records("rest");
    assert_eq!(records.last().map(|record| record.value.as_slice()), Some(&b"z"[..]));
    assert!(records.len() <= before + 1, "nothing that was refused has come back");
}

#[test]
fn after_refuse_after_a_3_1_1_client_is_disconnected_and_sends_again() {
    let holding = Holding { refuse_after: Some(Duration::from_millis(300)), ..Holding::default() };
    let rig = rig(holding);
    let mut client = rig.v4("c");
    let (waiting, _) = fill(&rig, &mut client, false);
    assert!(client.closed(), "without a PUBACK");
    lift(&rig);
    let mut again = rig.v4("c");
    for id in &waiting {
        again.send(&publish("a", *id, &payload(*id)));
    }
    let again = lifted(&rig, move || {
        for id in &waiting {
            assert_eq!(again.packet(), puback(*id));
        }
        again
    });
    stored(&rig);
    drop(again);
}

//! The whole uplink: a real lane on disk, real TCP, a broker that dies, stalls and loses answers.

#[path = "support/broker.rs"]
mod broker;
#[path = "support/gateway.rs"]
mod gateway;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use broker::Broker;
use edge_wire::{Offset, StreamId};
use gateway::Gateway;
use uplink::client::ClientOptions;
use uplink::core::backoff::BackoffPolicy;
use uplink::core::rebatch::RebatchLimits;
use uplink::core::replicator::ReplicatorConfig;
use uplink::{Uplink, UplinkConfig, UplinkHandle, UplinkStatus};

fn config(bootstrap: Vec<String>) -> UplinkConfig {
    UplinkConfig {
        bootstrap,
        client: ClientOptions {
            request_timeout: Duration::from_secs(2),
            ..ClientOptions::default()
        },
        replicator: ReplicatorConfig {
            gateway: "gw1".to_owned(),
            watchdog_us: 500_000,
            progress_flush_us: 10_000,
            limits: RebatchLimits { batch_bytes: 8 * 1024, ..RebatchLimits::default() },
            unacked_bytes_max: 256 * 1024,
            link_backoff: BackoffPolicy { first_us: 5_000, cap_us: 50_000, stable_us: 1_000_000 },
            ..ReplicatorConfig::default()
        },
        round_bytes: 64 * 1024,
        linger: Duration::from_millis(5),
    }
}

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(100, (number % 7) as u8);
    value
}

async fn until(handle: &UplinkHandle, what: &str, is_so: impl Fn(&UplinkStatus) -> bool) {
    let wait = async {
        while !is_so(&handle.status()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
        panic!("never: {what}; {:?}", handle.status());
    }
}

fn is_upstream(gateway: &Gateway, status: &UplinkStatus) -> bool {
    gateway.durable_ends().iter().all(|end| status.upstream_ends.contains(end))
}

fn assert_once_and_in_order(gateway: &Gateway, broker: &Broker, topic: &str, records: u64) {
    let partitions = gateway.durable_ends().len();
    for partition in 0..partitions {
        let got = broker.disk().values(topic, partition);
        let expected: Vec<_> =
            (0..records).filter(|n| *n as usize % partitions == partition).map(value).collect();
        assert!(
            got == expected,
            "partition {partition}: {} records instead of {}",
            got.len(),
            expected.len()
        );
    }
}

#[tokio::test]
async fn a_backlog_and_what_comes_after_it_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::open(dir.path(), "telemetry", 3);
    gateway.append(5_000, value);
    let broker = Broker::start().await;
    let mut config = config(broker.address());
    config.replicator.topic =
        uplink::core::naming::TopicTemplate::parse("{gateway}.{topic}").unwrap();
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config);
    until(&handle, "the backlog is upstream", |status| is_upstream(&gateway, status)).await;
    assert_once_and_in_order(&gateway, &broker, "gw1.telemetry", 5_000);
    // The lane may forget it.
    while gateway.upstream() < gateway.end() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    gateway.append(3, |number| value(number + 5_000));
    until(&handle, "live records are upstream", |status| is_upstream(&gateway, status)).await;
    let status = handle.status();
    assert_eq!((status.link, status.error.as_deref()), ("up", None));
    assert_eq!(status.counters.acked_records, 5_003);
    assert!(status.counters.wire_bytes > 0 && status.counters.possible_duplicates == 0);
    handle.shutdown().await;
}

#[tokio::test]
async fn an_upstream_that_dies_and_comes_back_gets_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::open(dir.path(), "telemetry", 2);
    let mut broker = Broker::start().await;
    let (port, disk) = (broker.port, Arc::clone(&broker.disk));
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config(broker.address()));
    let mut written = 0;
    for round in 0..6 {
        gateway.append(3_000, |number| value(number + written));
        written += 3_000;
        disk.lock().unwrap().lose_answers = round % 3;
        let seen = handle.status().counters.acked_records;
        until(&handle, "some progress", |status| status.counters.acked_records > seen).await;
        drop(broker);
        until(&handle, "the outage is noticed", |status| status.link == "down").await;
        assert!(handle.status().error.is_some());
        broker = Broker::start_on(port, Arc::clone(&disk)).await;
    }
    // Nothing is published any more: it goes on by itself.
    until(&handle, "all is upstream", |status| is_upstream(&gateway, status)).await;
    assert_once_and_in_order(&gateway, &broker, "telemetry", written);
    assert_eq!(handle.status().counters.possible_duplicates, 0);
    handle.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_dies_at_any_moment_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::open(dir.path(), "telemetry", 2);
    let broker = Broker::start().await;
    let mut written = 0;
    for round in 0..12u64 {
        gateway.append(2_000, |number| value(number + written));
        written += 2_000;
        broker.disk().lose_answers = (round % 2) as usize;
        let handle =
            Uplink::spawn(gateway.source(), gateway.store.clone(), config(broker.address()));
        let seen = handle.status().counters.acked_records;
        let some = 1 + round * 150;
        until(&handle, "some progress", |status| status.counters.acked_records > seen + some).await;
        // As kill -9: no last save.
        drop(handle);
    }
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config(broker.address()));
    until(&handle, "all is upstream", |status| is_upstream(&gateway, status)).await;
    assert_once_and_in_order(&gateway, &broker, "telemetry", written);
    assert!(
        broker.disk().duplicates > 0,
        "the broker had nothing to recognise: the test is too kind"
    );
    handle.shutdown().await;
}

#[tokio::test]
async fn after_a_clean_stop_idle_streams_are_known_to_be_upstream() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::open(dir.path(), "telemetry", 4);
    gateway.append(1_000, value);
    let broker = Broker::start().await;
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config(broker.address()));
    until(&handle, "all is upstream", |status| is_upstream(&gateway, status)).await;
    handle.shutdown().await;
    drop(broker);
    // No upstream now, and still the answer is known.
    let handle = Uplink::spawn(
        gateway.source(),
        gateway.store.clone(),
        config(vec!["127.0.0.1:1".to_owned()]),
    );
    assert!(is_upstream(&gateway, &handle.status()));
    assert_eq!(handle.upstream_end(StreamId(1)).unwrap().0, 250);
    handle.shutdown().await;
}

#[tokio::test]
async fn a_link_that_only_looks_alive_is_noticed_by_its_lack_of_progress() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::open(dir.path(), "telemetry", 1);
    let broker = Broker::start().await;
    let mut config = config(broker.address());
    config.client.request_timeout = Duration::from_secs(3600);
    config.client.connect_timeout = Duration::from_millis(100);
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config);
    gateway.append(10, value);
    until(&handle, "the first records are upstream", |status| is_upstream(&gateway, status)).await;
    broker.disk().is_stalled = true;
    gateway.append(10, |number| value(number + 10));
    until(&handle, "the stall is noticed", |status| {
        status
            .error
            .as_deref()
            .is_some_and(|error| error.contains("acknowledged") || error.contains("answer"))
    })
    .await;
    broker.disk().is_stalled = false;
    until(&handle, "all is upstream", |status| is_upstream(&gateway, status)).await;
    assert_once_and_in_order(&gateway, &broker, "telemetry", 20);
    handle.shutdown().await;
}

#[tokio::test]
async fn a_topic_that_may_not_be_created_is_told_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::open(dir.path(), "telemetry", 1);
    gateway.append(10, value);
    let broker = Broker::start().await;
    let mut config = config(broker.address());
    config.replicator.create_topics = false;
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config);
    until(&handle, "it is told", |status| !status.blocked.is_empty()).await;
    let reason = handle.status().blocked[0].reason.clone();
    assert!(reason.contains("telemetry") && reason.contains("create_topics"), "{reason}");
    handle.shutdown().await;
}

/// What a consumer of the gateway reads of a partition, from an offset on.
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
fn consumed(gateway: &Gateway, partition: usize, from: Offset) -> Vec<Vec<u8>> {
    let (stream, reader) = (StreamId(partition as u32 + 1), gateway.reader());
    let mut values = Vec::new();
    let start = reader.bounds(stream).unwrap().log_start;
    reader
        .read_batches(stream, start, &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    if record.offset >= from {
                        values.extend(record.value.map(<[u8]>::to_vec));
                    }
                })
                .unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    values
}

/// Kills the uplink again and again until everything is upstream.
async fn send_all_with_kills(gateway: &Gateway, broker: &Broker, config: &UplinkConfig) {
    for round in 0..8u64 {
        broker.disk().lose_answers = (round % 2) as usize;
        let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config.clone());
        let seen = handle.status().counters.acked_records;
        let is_further = |status: &UplinkStatus| {
            status.counters.acked_records > seen + round * 20 || is_upstream(gateway, status)
        };
        until(&handle, "some progress", is_further).await;
        // As kill -9: no last save.
        drop(handle);
    }
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config.clone());
    until(&handle, "all is upstream", |status| is_upstream(gateway, status)).await;
    let counters = handle.status().counters;
    assert_eq!((counters.possible_duplicates, counters.gap_offsets), (0, 0));
    handle.shutdown().await;
}

/// Bytes that do not compress, so that the ring turns.
fn noise(number: u64) -> Vec<u8> {
    let mut state = number;
    let mut bytes = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state ^ (state >> 29)).to_le_bytes()
    };
    (0..13).flat_map(|_| bytes()).collect()
}

#[tokio::test]
async fn an_uplink_that_comes_later_sends_what_stands_in_copies_exactly_once_over_kills() {
    const KEYS: u64 = 600;
    let key = |number: u64| format!("key {}", number.wrapping_mul(7_919) % KEYS);
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start().await;
    let mut config = config(broker.address());
    config.replicator.limits.batch_bytes = 1024;
    config.replicator.unacked_bytes_max = 8 * 1024;
    config.round_bytes = 4 * 1024;
    // Without an uplink the ring turns, and what is the newest of its key moves along.
    let mut gateway = Gateway::open_compacted(dir.path(), 2, false);
    gateway.append_keyed(12_000, key, noise);
    gateway.append_keyed(3_000, |_| "busy".to_owned(), noise);
    assert!(gateway.reader().start().segment > 3, "the ring turned");
    assert!(gateway.reader().stats().copied_records > 0);
    drop(gateway);
    // It is configured.
    let gateway = Gateway::open_compacted(dir.path(), 2, true);
    let sent: Vec<_> = (0..2).map(|partition| consumed(&gateway, partition, Offset(0))).collect();
    send_all_with_kills(&gateway, &broker, &config).await;
    for (partition, sent) in sent.iter().enumerate() {
        assert!(broker.disk().values("state", partition) == *sent, "partition {partition}");
    }
    assert!(broker.disk().duplicates > 0, "the test is too kind");

    // It is removed, the ring turns, and it is configured again: it goes on where it was, with copies first.
    let (ends, store) = (gateway.durable_ends(), gateway.store.clone());
    drop(gateway);
    let mut gateway = Gateway::open_compacted(dir.path(), 2, false);
    gateway.append_keyed(6_000, key, |number| noise(number + 100_000));
    gateway.append_keyed(3_000, |_| "busy".to_owned(), noise);
    drop(gateway);
    let mut gateway = Gateway::open_compacted(dir.path(), 2, true);
    gateway.store = store;
    let more: Vec<_> =
        ends.iter().enumerate().map(|(at, (_, end))| consumed(&gateway, at, *end)).collect();
    send_all_with_kills(&gateway, &broker, &config).await;
    for partition in 0..2 {
        let all = [&sent[partition][..], &more[partition][..]].concat();
        assert!(broker.disk().values("state", partition) == all, "partition {partition}");
    }
}

#[tokio::test]
async fn what_may_be_sent_again_from_copies_after_a_crash_is_counted() {
    const SENT: u64 = 500;
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start().await;
    let config = config(broker.address());
    let mut gateway = Gateway::open_compacted(dir.path(), 2, true);
    gateway.append_keyed(SENT, |number| format!("key {}", number % 300), noise);
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config.clone());
    until(&handle, "all is upstream", |status| is_upstream(&gateway, status)).await;
    // The plan says so; how far each stream had come is stored only now and then, and then the power goes.
    while gateway.upstream() < gateway.end() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(handle);
    let store = gateway.store.clone();
    drop(gateway);

    // It starts without its uplink, the ring goes past what was sent, and what is still wanted moves along.
    let mut gateway = Gateway::open_compacted(dir.path(), 2, false);
    gateway.append_keyed(9_000, |_| "busy".to_owned(), |number| noise(number + 100_000));
    assert!(gateway.reader().stats().copied_records > 0);
    drop(gateway);
    let mut gateway = Gateway::open_compacted(dir.path(), 2, true);
    gateway.store = store;
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config.clone());
    until(&handle, "the rest is upstream", |status| is_upstream(&gateway, status)).await;
    let values: Vec<_> =
        (0..2).flat_map(|partition| broker.disk().values("state", partition)).collect();
    let repeated = values.len() - values.iter().collect::<BTreeSet<_>>().len();
    assert!(repeated > 0, "the test is too kind");
    let told = handle.status().counters.possible_duplicates;
    assert!((repeated as u64..=SENT).contains(&told), "{repeated} are there twice, {told} told");
    handle.shutdown().await;

    // After an orderly stop everything is known: nothing is counted again.
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config);
    until(&handle, "it is still upstream", |status| is_upstream(&gateway, status)).await;
    assert_eq!(handle.status().counters.possible_duplicates, told);
    handle.shutdown().await;
}

//! The harness's own Kafka: it starts, answers its own tools, survives `kill -9`, and goes away.

use std::time::Duration;

use anyhow::Result;
use system_tests::clients;
use system_tests::faulty_link::FaultyLink;
use system_tests::gate::{self, Peer};
use system_tests::kafka::{self, Kafka, Membership};

#[test]
fn real_kafka_keeps_records_across_kill_and_restart_and_is_reached_through_a_link() -> Result<()> {
    if !gate::run_with(&[Peer::Kafka, Peer::Kcat]) {
        return Ok(());
    }
    let mut node = Kafka::prepare()?;
    let link = FaultyLink::to(node.link_address())?;
    node.start_behind(link.address())?;
    kafka::create_topic(node.address(), "probe", 2)?;
    let lines: Vec<String> = (0..100).map(|n| format!("k{}\tv{n}", n % 7)).collect();
    clients::kcat_produce(link.address(), "probe", &["-X", "acks=all"], &lines)?;
    assert!(link.bytes_carried().0 > 500, "the records went around the link");

    node.kill_now()?;
    node.start_again()?;
    assert_eq!(clients::kcat_count(node.address(), "probe", 2)?, 100);
    let records = clients::kcat_read_all(node.address(), "probe")?;
    let faults = system_tests::ledger::offset_faults(&records);
    assert_eq!((records.len(), faults), (100, vec![]));
    assert!(records.iter().all(|record| record.key.is_some() && record.timestamp_ms > 0));
    let read = kafka::console_consume(
        node.address(),
        "probe",
        Membership::Group,
        100,
        Duration::from_secs(20),
    )?;
    assert_eq!(read.len(), 100, "records for the console consumer");
    Ok(())
}

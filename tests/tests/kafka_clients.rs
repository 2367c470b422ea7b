//! The Kafka clients that people have work against the gateway unchanged: kcat (librdkafka) and
//! Kafka's own Java console tools.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use system_tests::clients;
use system_tests::compare::assert_same;
use system_tests::gate::{self, Peer};
use system_tests::gateway::Gateway;
use system_tests::kafka::{self, Membership};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn lines(codec: &str) -> Vec<String> {
    (0..1_000).map(|n| format!("k{:02}\t{codec} value {n} {}", n % 17, "pad ".repeat(20))).collect()
}

#[test]
fn kcat_reads_back_what_it_wrote_with_every_codec() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    for codec in CODECS {
        let topic = format!("codec-{codec}");
        let lines = lines(codec);
        clients::kcat_produce(gateway.kafka_address(), &topic, &["-z", codec], &lines)?;
        let records = clients::kcat_read_all(gateway.kafka_address(), &topic)?;
        let mut read: Vec<String> = records
            .iter()
            .map(|record| format!("{}\t{}", record.key.as_deref().unwrap_or(""), record.value))
            .collect();
        let mut wrote = lines;
        read.sort_unstable();
        wrote.sort_unstable();
        assert_same(codec, &read, &wrote);
    }
    Ok(())
}

#[test]
fn kcat_produces_idempotently_and_a_restart_forgets_no_sequence() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat]) {
        return Ok(());
    }
    let mut gateway = Gateway::start()?;
    let extra = ["-X", "enable.idempotence=true", "-X", "acks=all", "-z", "zstd"];
    clients::kcat_produce(gateway.kafka_address(), "idempotent", &extra, &lines("first"))?;
    gateway.kill_now()?;
    gateway.start_again()?;
    clients::kcat_produce(gateway.kafka_address(), "idempotent", &extra, &lines("second"))?;
    let records = clients::kcat_read_all(gateway.kafka_address(), "idempotent")?;
    for word in ["first", "second"] {
        let count = records.iter().filter(|record| record.value.starts_with(word)).count();
        assert_eq!(count, 1_000, "{word}");
    }
    Ok(())
}

#[test]
fn kcat_finds_offsets_by_time_and_reads_from_the_middle() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    let address = gateway.kafka_address();
    let one = |word: &str| vec![format!("same-key\t{word}")];
    clients::kcat_produce(address, "times", &[], &one("a"))?;
    let first = clients::kcat_read_all(address, "times")?.remove(0);
    // The next record gets a later millisecond.
    std::thread::sleep(Duration::from_millis(20));
    clients::kcat_produce(address, "times", &[], &one("b"))?;
    let records = clients::kcat_read_all(address, "times")?;
    let partition = u32::try_from(first.partition)?;
    let second = &records[1];
    assert_eq!(clients::kcat_offset(address, "times", partition, second.timestamp_ms)?, 1);
    assert_eq!(clients::kcat_offset(address, "times", partition, first.timestamp_ms)?, 0);
    assert_eq!(clients::kcat_offset(address, "times", partition, -1)?, 2);
    assert_eq!(clients::kcat_offset(address, "times", partition, -2)?, 0);
    Ok(())
}

/// The consumer takes its partition itself: consumer groups with members (JoinGroup and so on) are
/// not offered by this version, and FindCoordinator alone does not make a group.
#[test]
fn java_console_tools_create_write_and_read_with_every_codec() -> Result<()> {
    if !gate::run_with(&[Peer::Kafka]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    let address = gateway.kafka_address();
    kafka::create_topic(address, "java", 1)?;
    let folder = tempfile::tempdir()?;
    let mut wrote = Vec::new();
    for codec in CODECS {
        let input = folder.path().join(codec);
        let some = &lines(codec)[..200];
        fs::write(&input, some.join("\n") + "\n")?;
        kafka::console_produce(address, "java", codec, &input)?;
        wrote.extend_from_slice(some);
    }
    // One more than expected is asked for: a duplicate would come.
    let alone = Membership::Partition(0);
    let read =
        kafka::console_consume(address, "java", alone, wrote.len() + 1, Duration::from_secs(5))?;
    let read: Vec<&str> = read.iter().map(|line| key_and_value(line)).collect();
    assert_same("console consumer", &read, &wrote);
    Ok(())
}

#[test]
fn java_tools_change_settings_and_delete_records() -> Result<()> {
    if !gate::run_with(&[Peer::Kafka, Peer::Kcat]) {
        return Ok(());
    }
    let mut gateway = Gateway::start()?;
    let address = gateway.kafka_address();
    kafka::create_topic(address, "java", 1)?;
    clients::kcat_produce(address, "java", &[], &lines("none")[..100])?;

    kafka::alter_topic(
        address,
        "java",
        &[("--add-config", "retention.ms=3600000,cleanup.policy=[compact,delete]")],
    )?;
    let refused = kafka::alter_topic(address, "java", &[("--add-config", "min.insync.replicas=2")]);
    let refusal = format!("{:#}", refused.expect_err("a gateway is one node"));
    assert!(refusal.contains("min.insync.replicas"), "{refusal}");
    let told = kafka::describe_topic_settings(address, "java")?;
    assert!(told.contains("retention.ms=3600000") && told.contains("compact,delete"), "{told}");
    kafka::alter_topic(address, "java", &[("--delete-config", "retention.ms")])?;
    let told = kafka::describe_topic_settings(address, "java")?;
    assert!(!told.contains("retention.ms=3600000"), "{told}");

    let told = kafka::delete_records(address, "java", 40)?;
    assert!(told.contains("low_watermark: 40"), "{told}");
    let told = kafka::delete_records(address, "java", 101)?;
    assert!(told.contains("OffsetOutOfRange") || told.contains("error"), "{told}");
    gateway.kill_now()?;
    gateway.start_again()?;
    assert_eq!(clients::kcat_offset(address, "java", 0, -2)?, 40);
    let records = clients::kcat_read_all(address, "java")?;
    assert_eq!(records.iter().map(|record| record.offset).min(), Some(40));
    assert_eq!(records.len(), 60);
    let told = kafka::delete_records(address, "java", -1)?;
    assert!(told.contains("low_watermark: 100"), "{told}");
    assert!(clients::kcat_read_all(address, "java")?.is_empty());
    Ok(())
}

/// What is left of a console consumer's line without timestamp, partition, offset and headers.
fn key_and_value(line: &str) -> &str {
    line.splitn(5, '\t').last().unwrap_or_default()
}

#[test]
fn metadata_names_this_node_and_its_topics() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    clients::kcat_produce(gateway.kafka_address(), "seen", &[], &lines("x")[..1])?;
    let metadata = clients::kcat_metadata(gateway.kafka_address())?;
    assert_eq!(metadata["brokers"][0]["name"], gateway.kafka_address().to_string());
    let topics = metadata["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(topics.iter().any(|topic| topic["topic"] == "seen"), "{metadata}");
    Ok(())
}

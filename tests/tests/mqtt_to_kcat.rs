//! 10,000 rows from `mosquitto_pub` at QoS 1: kcat reads each once, as routed; so does the console
//! consumer of the real Kafka upstream.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use system_tests::clients::{self, Record};
use system_tests::compare::assert_same;
use system_tests::gate::{self, Peer};
use system_tests::gateway::{Gateway, GatewayOptions};
use system_tests::kafka::{self, Kafka, Membership};
use system_tests::mqtt::Version;
use system_tests::telemetry::Telemetry;
use system_tests::wait;

const ROWS: usize = 10_000;
const TOPIC: &str = "plant/line1/m007/telemetry";
const CLIENT: &str = "milling-7";
const PARTITIONS: u32 = 6;
const CONFIG: &str = "\
gateway = \"plant7-gw3\"

[[route]]
filter = \"plant/+/+/telemetry\"
topic = \"telemetry\"
key = \"{3}\"
lane = \"normal\"
partitions = 6
";

/// Rows of the published data set where `EDGE_TEST_DATA` names its folder, else generated ones.
fn rows() -> Result<Vec<String>> {
    let Some(folder) = std::env::var_os("EDGE_TEST_DATA") else {
        let mut telemetry = Telemetry::new(1, 10);
        return Ok((0..ROWS).map(|_| telemetry.reading().payload).collect());
    };
    let path = PathBuf::from(folder).join("ai4i2020.csv");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.lines().skip(1).take(ROWS).map(str::to_owned).collect())
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

fn publish(gateway: &Gateway, version: Version, rows: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("rows");
    fs::write(&input, rows.join("\n") + "\n")?;
    clients::mosquitto_pub_lines(gateway.mqtt_address(), version, CLIENT, TOPIC, &input)
}

fn values(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.value.as_str()).collect()
}

#[test]
fn ten_thousand_rows_reach_kcat_once_in_order_with_key_headers_and_timestamp() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients, Peer::Kcat]) {
        return Ok(());
    }
    let rows = rows()?;
    for version in Version::BOTH {
        let gateway = Gateway::start_configured(CONFIG)?;
        let before = now_ms();
        publish(&gateway, version, &rows)?;
        let after = now_ms();
        let records = clients::kcat_read_all(gateway.kafka_address(), "telemetry")?;
        // One key is one partition, so that log order is publishing order.
        assert_same("values for kcat", &values(&records), &rows);
        for record in &records {
            assert_eq!(record.key.as_deref(), Some("m007"), "{record:?}");
            assert_eq!(record.header("mqtt.topic"), Some(TOPIC), "{record:?}");
            assert_eq!(record.header("mqtt.client"), Some(CLIENT), "{record:?}");
            assert_eq!(record.header("mqtt.qos"), Some("1"), "{record:?}");
            assert!((before..=after).contains(&record.timestamp_ms), "{record:?}");
            assert_eq!(record.partition, records[0].partition, "{record:?}");
        }
        let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
        assert_same("offsets", &offsets, &(0..rows.len() as i64).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn ten_thousand_rows_reach_the_real_kafka_upstream_once() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients, Peer::Kcat, Peer::Kafka]) {
        return Ok(());
    }
    let rows = rows()?;
    let upstream = Kafka::start()?;
    let gateway = Gateway::start_with(GatewayOptions {
        config: Some(CONFIG.to_owned()),
        upstream: Some(upstream.address()),
        ..GatewayOptions::default()
    })?;
    publish(&gateway, Version::V5, &rows)?;
    wait::until("every row upstream", Duration::from_secs(60), || {
        let count = clients::kcat_count(upstream.address(), "telemetry", PARTITIONS);
        Ok(count.ok().filter(|&count| count >= rows.len() as u64))
    })
    .with_context(|| gateway.log_tail())?;

    // One more than expected is asked for: a duplicate would come.
    let lines = kafka::console_consume(
        upstream.address(),
        "telemetry",
        Membership::Group,
        rows.len() + 1,
        Duration::from_secs(5),
    )?;
    let told: Vec<&str> = lines.iter().filter_map(|line| line.splitn(6, '\t').nth(5)).collect();
    assert_same("values for the console consumer", &told, &rows);
    for line in &lines {
        let fields: Vec<&str> = line.splitn(6, '\t').collect();
        let [time, _partition, _offset, headers, key, _value] = fields[..] else {
            panic!("not six fields: {line:?}");
        };
        assert_eq!(key, "m007", "{line}");
        assert!(headers.contains(&format!("mqtt.topic:{TOPIC}")), "{line}");
        assert!(time.starts_with("CreateTime:1"), "{line}");
    }
    // The upstream copies are those of the edge, record for record.
    let edge = clients::kcat_read_all(gateway.kafka_address(), "telemetry")?;
    let centre = clients::kcat_read_all(upstream.address(), "telemetry")?;
    assert_same("records upstream", &centre, &edge);
    Ok(())
}

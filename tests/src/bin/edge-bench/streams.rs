//! Syncs a second for 1, 64 and 1,024 streams at 1,000 messages a second: they do not grow.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::gateway::sum_over_streams;
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::telemetry::Telemetry;

use crate::Options;
use crate::ingest::{start_gateway, syncs};
use crate::paced::{pace, take_pubacks};
use crate::report::{json_line, table};

const STREAMS: [u64; 3] = [1, 64, 1_024];
const RATE: f64 = 1_000.0;

pub(crate) fn run(options: &Options) -> Result<()> {
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for partitions in STREAMS {
        let config = format!(
            "[[route]]\nfilter = \"bench/+\"\ntopic = \"bench\"\nkey = \"{{2}}\"\n\
             lane = \"normal\"\npartitions = {partitions}\n"
        );
        let gateway = start_gateway(Some(config))?;
        let options_of_client = ConnectOptions::new(Version::V311, "streams");
        let mut client = MqttClient::connect(gateway.mqtt_address(), &options_of_client)?;
        let mut telemetry = Telemetry::new(64, 1);
        // Eight keys for each partition: a hash then leaves hardly one of them empty.
        let keys = if partitions == 1 { 1 } else { partitions * 8 };
        publish(&mut client, keys, keys, 4_000.0, Duration::from_secs(600), &mut telemetry)?;

        let (first, began) = (syncs(&gateway.status()?)?, Instant::now());
        let sent = publish(&mut client, u64::MAX, keys, RATE, options.measure, &mut telemetry)?;
        let elapsed = began.elapsed().as_secs_f64();
        let status = gateway.status()?;
        let rate = (syncs(&status)? - first) as f64 / elapsed;
        let used = status["streams"].as_array().context("status has no list `streams`")?;
        let used = used
            .iter()
            .filter(|s| s["topic"] == "bench" && s["durable_end"].as_u64() > Some(0))
            .count();
        let stored = sum_over_streams(&status, "bench", "durable_end")?;
        ensure!(stored >= sent, "{stored} records for {sent} PUBACKs");
        let per_second = sent as f64 / elapsed;
        rows.push(vec![
            used.to_string(),
            format!("{per_second:.0}"),
            format!("{rate:.1}"),
            format!("{:.1}", per_second / rate.max(0.001)),
        ]);
        figures.push(json!({
            "streams": used,
            "messages_per_second": per_second,
            "syncs_per_second": rate,
        }));
    }
    table(&["streams", "msg/s", "syncs/s", "msg/sync"], &rows);
    json_line(&json!({"bench": "streams", "figures": figures}));
    Ok(())
}

/// Publishes at most `count` messages round the keys at `rate`, and waits for every PUBACK.
fn publish(
    client: &mut MqttClient,
    count: u64,
    keys: u64,
    rate: f64,
    length: Duration,
    telemetry: &mut Telemetry,
) -> Result<u64> {
    let length = length.min(Duration::from_secs_f64(count as f64 / rate));
    let mut acked = 0;
    let cell = std::cell::RefCell::new(client);
    let sent = pace(
        rate,
        length,
        |number, _| {
            let topic = format!("bench/k{}", number % keys);
            let payload = telemetry.reading().payload;
            cell.borrow_mut().publish(&topic, payload.as_bytes(), 1).map(drop)
        },
        |left| {
            acked += take_pubacks(&mut cell.borrow_mut(), left)?;
            Ok(())
        },
    )?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while acked < sent {
        ensure!(Instant::now() < deadline, "{acked} PUBACKs for {sent} messages");
        acked += take_pubacks(&mut cell.borrow_mut(), Duration::from_millis(100))?;
    }
    Ok(sent)
}

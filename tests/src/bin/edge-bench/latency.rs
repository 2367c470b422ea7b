//! From publish to subscriber, QoS 0 and 1, beside Mosquitto.
//!
//! One publisher and one subscriber in one process, at 10 and at 1,000 messages a second. The clock
//! starts when a message was due, so that a broker that holds the publisher up is not let off. At
//! QoS 1 ours has synced the record to the device before the subscriber sees it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use system_tests::mosquitto::Mosquitto;
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::telemetry::Telemetry;

use crate::Options;
use crate::ingest::start_gateway;
use crate::paced::{pace, take_pubacks};
use crate::report::{json_line, table};

const RATES: [f64; 2] = [10.0, 1_000.0];

pub(crate) fn run(options: &Options) -> Result<()> {
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for rate in RATES {
        for qos in [0, 1] {
            let mut sides = Vec::new();
            if options.gateway {
                let gateway = start_gateway(None)?;
                let latencies = measure(gateway.mqtt_address(), qos, rate, options.measure);
                sides.push(("edge-broker", latencies.with_context(|| gateway.log_tail())?));
            }
            if options.peer {
                let mosquitto = Mosquitto::start_for_latency()?;
                let latencies = measure(mosquitto.address(), qos, rate, options.measure)?;
                sides.push(("mosquitto", latencies));
            }
            for (broker, latencies) in sides {
                let (p50, p99) = (percentile(&latencies, 0.50), percentile(&latencies, 0.99));
                let max = percentile(&latencies, 1.0);
                rows.push(vec![
                    broker.to_owned(),
                    format!("{rate:.0}"),
                    qos.to_string(),
                    format!("{p50:.2}"),
                    format!("{p99:.2}"),
                    format!("{max:.2}"),
                ]);
                figures.push(json!({
                    "broker": broker,
                    "messages_per_second": rate,
                    "qos": qos,
                    "p50_ms": p50,
                    "p99_ms": p99,
                    "max_ms": max,
                    "messages": latencies.len(),
                }));
            }
        }
    }
    table(&["broker", "msg/s", "QoS", "p50 ms", "p99 ms", "max ms"], &rows);
    json_line(&json!({"bench": "latency", "figures": figures}));
    Ok(())
}

/// Latencies in milliseconds, ascending.
fn measure(address: SocketAddr, qos: u8, rate: f64, length: Duration) -> Result<Vec<f64>> {
    let connect = |name| MqttClient::connect(address, &ConnectOptions::new(Version::V311, name));
    let mut subscriber = connect("latency-subscriber")?;
    subscriber.subscribe("bench/latency", qos)?;
    let mut publisher = connect("latency-publisher")?;
    let origin = Instant::now();
    let expected = (rate * length.as_secs_f64()) as usize;

    let receiving = std::thread::spawn(move || -> Result<Vec<f64>> {
        let mut latencies = Vec::with_capacity(expected);
        // The publisher's last message carries no time: nothing comes after it.
        loop {
            let message = subscriber.receive_publish(Duration::from_secs(30))?;
            let payload = message.context("no message within 30 s")?.payload;
            let Some(due) = payload.first_chunk::<8>().map(|due| u64::from_le_bytes(*due)) else {
                return Ok(latencies);
            };
            latencies.push((origin.elapsed().as_nanos() as u64).saturating_sub(due) as f64 / 1e6);
        }
    });

    let mut telemetry = Telemetry::new(1, 1);
    let cell = std::cell::RefCell::new(&mut publisher);
    let sent = pace(
        rate,
        length,
        |_, due| {
            let due = due.saturating_duration_since(origin).as_nanos() as u64;
            let mut payload = due.to_le_bytes().to_vec();
            telemetry.compact(&mut payload);
            cell.borrow_mut().publish("bench/latency", &payload, qos).map(drop)
        },
        |left| {
            if qos == 0 {
                std::thread::sleep(left);
            } else {
                take_pubacks(&mut cell.borrow_mut(), left)?;
            }
            Ok(())
        },
    )?;
    publisher.publish("bench/latency", b"end", qos)?;
    let mut latencies = match receiving.join() {
        Ok(latencies) => latencies?,
        Err(_) => anyhow::bail!("the subscriber panicked"),
    };
    ensure!(latencies.len() as u64 == sent, "{} of {sent} messages came", latencies.len());
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

fn percentile(ascending: &[f64], part: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    ascending.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

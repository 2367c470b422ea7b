//! Publish, kill, restart, consume: the smoke test of a binary, native or under an emulator.
//!
//! `EDGE_BROKER_BIN` names the binary and `EDGE_BROKER_RUNNER` the emulator. Every command of the
//! program that is used here runs under it, the consumer included.

use anyhow::{Result, ensure};
use system_tests::compare;
use system_tests::gateway::Gateway;
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};

const MESSAGES: usize = 200;
const TOPIC: &str = "smoke/m1";

fn main() -> Result<()> {
    let mut gateway = Gateway::start()?;
    publish(&gateway, Version::V311, 0)?;
    gateway.kill_now()?;
    gateway.start_again()?;
    publish(&gateway, Version::V5, MESSAGES)?;

    let records = gateway.consume("mqtt")?;
    let values: Vec<&str> = records.iter().map(|record| record.value.as_str()).collect();
    let expected: Vec<String> = (0..2 * MESSAGES).map(|number| format!("value {number}")).collect();
    compare::assert_same("values consumed", &values, &expected);
    ensure!(
        records.iter().all(|record| record.key.as_deref() == Some(TOPIC)),
        "keys are not the MQTT topic"
    );
    let status = gateway.terminate()?;
    ensure!(status.success(), "SIGTERM: {status}\n{}", gateway.log_tail());
    println!("{} messages published, killed in between, all consumed in order", values.len());
    Ok(())
}

fn publish(gateway: &Gateway, version: Version, first: usize) -> Result<()> {
    let options = ConnectOptions::new(version, "smoke");
    let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
    for number in first..first + MESSAGES {
        client.publish_and_wait(TOPIC, format!("value {number}").as_bytes())?;
    }
    client.disconnect()
}

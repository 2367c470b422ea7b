//! The harness's own load and clients, held against a broker that is not ours.

use std::time::Duration;

use anyhow::{Context, Result};
use system_tests::clients::{self, MosquittoSub};
use system_tests::gate::{self, Peer};
use system_tests::ledger;
use system_tests::load::{Load, LoadPlan};
use system_tests::mosquitto::Mosquitto;
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};

#[test]
fn books_of_the_load_agree_with_what_mosquitto_delivered() -> Result<()> {
    if !gate::run_with(&[Peer::Mosquitto]) {
        return Ok(());
    }
    let mosquitto = Mosquitto::start()?;
    let options = ConnectOptions::new(Version::V311, "reader");
    let mut reader = MqttClient::connect(mosquitto.address(), &options)?;
    // QoS 0: Mosquitto drops QoS 1 messages beyond its queue of 1,000.
    reader.subscribe("books/#", 0)?;
    let load = Load::start(LoadPlan {
        address: mosquitto.address(),
        clients: 4,
        window: 10,
        rate: Some(250),
        topic_prefix: "books/".to_owned(),
    })?;
    load.wait_for_acks(1_000, Duration::from_secs(30))?;
    let ledgers = load.finish()?;
    let sent: u64 = ledgers.iter().map(|ledger| ledger.sent).sum();
    let mut values = Vec::new();
    for number in 0..sent {
        let message = reader.receive_publish(Duration::from_secs(10))?;
        let message = message.with_context(|| format!("message {number} of {sent}"))?;
        values.push(String::from_utf8(message.payload)?);
    }
    let findings = ledger::compare(values.iter().map(String::as_str), &ledgers)?;
    assert!(findings.are_none(), "{findings}");
    Ok(())
}

#[test]
fn mosquitto_clients_are_understood() -> Result<()> {
    if !gate::run_with(&[Peer::Mosquitto, Peer::MosquittoClients]) {
        return Ok(());
    }
    let mosquitto = Mosquitto::start()?;
    for version in Version::BOTH {
        let mut subscriber = MosquittoSub::subscribe(mosquitto.address(), version, "a/+", 1)?;
        clients::mosquitto_pub(mosquitto.address(), version, "a/b", 1, "one two")?;
        let messages = subscriber.messages(1, Duration::from_secs(10))?;
        assert_eq!(messages, ["1 a/b one two"]);
    }
    Ok(())
}

//! SIGTERM and SIGINT: what was taken is synced, the exit code is 0, and the next start is clean.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use system_tests::gateway::Gateway;
use system_tests::load::{Load, LoadPlan};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};

#[test]
fn sigterm_under_load_exits_0_and_keeps_every_acked_publish() -> Result<()> {
    let mut gateway = Gateway::start()?;
    let load = Load::start(LoadPlan {
        address: gateway.mqtt_address(),
        clients: 4,
        window: 20,
        rate: None,
        topic_prefix: "plant/".to_owned(),
    })?;
    load.wait_for_acks(1_000, Duration::from_secs(60))?;
    let status = gateway.terminate()?;
    assert_eq!(status.code(), Some(0), "{}", gateway.log_tail());
    let ledgers = load.finish()?;
    let acked: u64 = ledgers.iter().map(|ledger| ledger.acked.len() as u64).sum();
    let sent: u64 = ledgers.iter().map(|ledger| ledger.sent).sum();
    // Of a stopped gateway, and again of one that has started.
    for _ in 0..2 {
        let stored = gateway.durable_records("mqtt")?;
        assert!((acked..=sent).contains(&stored), "{stored} stored, {acked} acked, {sent} sent");
        if gateway.server().is_err() {
            gateway.start_again()?;
        }
    }
    Ok(())
}

#[test]
fn sigint_exits_0() -> Result<()> {
    let mut gateway = Gateway::start()?;
    gateway.server()?.signal(Signal::INT)?;
    let status = gateway.server()?.wait_for_exit(Duration::from_secs(30))?;
    assert_eq!(status.code(), Some(0), "{}", gateway.log_tail());
    Ok(())
}

#[test]
fn mqtt_5_clients_are_told_that_the_server_shuts_down() -> Result<()> {
    let mut gateway = Gateway::start()?;
    let options = ConnectOptions::new(Version::V5, "waiting");
    let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
    client.publish_and_wait("plant/x", b"before")?;
    assert_eq!(gateway.terminate()?.code(), Some(0));
    let last = client.receive_until_closed(Duration::from_secs(10))?;
    let last = last.last().map(|packet| (packet.kind(), packet.reason()));
    assert_eq!(last, Some((14, 0x8B)));
    Ok(())
}

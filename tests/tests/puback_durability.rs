//! `kill -9` at random moments under load: what was acknowledged is there, in order, once.

use std::time::Duration;

use anyhow::Result;
use system_tests::clients::{self, Record};
use system_tests::compare;
use system_tests::gate::{self, Peer};
use system_tests::gateway::Gateway;
use system_tests::ledger::{self, Ledger};
use system_tests::load::{Load, LoadPlan};
use system_tests::random::Random;

const SEED: u64 = 0x5EED_0001;

#[test]
fn acked_publishes_survive_kill_at_random_moments() -> Result<()> {
    let kills = if gate::full() { 50 } else { 5 };
    let mut random = Random::seeded(SEED);
    let mut gateway = Gateway::start()?;
    let load = Load::start(plan(&gateway, 4, 50))?;
    for _ in 0..kills {
        // Counted in acknowledgements and then in microseconds, so that it falls anywhere between
        // two of them, on a fast machine and on a slow one.
        load.wait_for_acks(200 + random.below(4_000), Duration::from_secs(60))?;
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        gateway.kill_now()?;
        gateway.start_again()?;
    }
    load.wait_for_acks(200, Duration::from_secs(60))?;
    let ledgers = load.finish()?;
    gateway.kill_now()?;
    gateway.start_again()?;
    check(&gateway, &ledgers)
}

#[test]
fn acked_publishes_of_many_clients_with_small_windows_survive_kill() -> Result<()> {
    let mut gateway = Gateway::start()?;
    let load = Load::start(plan(&gateway, 24, 1))?;
    for _ in 0..3 {
        load.wait_for_acks(300, Duration::from_secs(60))?;
        gateway.kill_now()?;
        gateway.start_again()?;
    }
    let ledgers = load.finish()?;
    check(&gateway, &ledgers)
}

fn plan(gateway: &Gateway, clients: usize, window: usize) -> LoadPlan {
    LoadPlan {
        address: gateway.mqtt_address(),
        clients,
        window,
        rate: None,
        topic_prefix: "plant/line1/".to_owned(),
    }
}

fn check(gateway: &Gateway, ledgers: &[Ledger]) -> Result<()> {
    // An independent reader where there is one.
    let records = if gate::run_with(&[Peer::Kcat]) {
        clients::kcat_read_all(gateway.kafka_address(), "mqtt")?
    } else {
        gateway.consume("mqtt")?
    };
    compare::assert_same("offsets with holes or repeats", &ledger::offset_faults(&records), &[]);
    let findings = ledger::compare(records.iter().map(|r| r.value.as_str()), ledgers)?;
    assert!(findings.are_none(), "{findings}\n{}", gateway.log_tail());
    let acked: usize = ledgers.iter().map(|ledger| ledger.acked.len()).sum();
    assert!(acked >= 500, "{acked} PUBACKs prove little");
    assert_eq!(wrongly_keyed(&records), None);
    Ok(())
}

/// The first record whose key is not its MQTT topic, as the default route promises.
fn wrongly_keyed(records: &[Record]) -> Option<&Record> {
    records.iter().find(|record| {
        let client = record.value.split(' ').next().unwrap_or_default();
        record.key.as_deref() != Some(&format!("plant/line1/{client}"))
            || record.key.as_deref() != record.header("mqtt.topic")
    })
}

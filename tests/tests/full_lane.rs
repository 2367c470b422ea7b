//! A lane that is full, because its budget is used or because the disk is: what is published is held, other lanes go on,
//! and when there is room everything flows again by itself, once and in order.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::clients;
use system_tests::faulty_link::FaultyLink;
use system_tests::gate::{self, Peer};
use system_tests::gateway::{Gateway, GatewayOptions};
use system_tests::ledger;
use system_tests::load::{Load, LoadPlan};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::small_disk::SmallDisk;
use system_tests::wait;

/// "By itself" means: within this time of the room coming back, on a loaded machine.
const BY_ITSELF: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
const DISK_BYTES: u64 = 96 << 20;

/// Small segments, so that lanes fill soon; `rest` is what else `normal` says.
fn config(normal: &str, tables: &str) -> String {
    format!(
        "[[route]]\nfilter = \"alarm/#\"\ntopic = \"alarms\"\nlane = \"alarm\"\npartitions = 1\n\
         [lane.alarm]\nbudget = \"2MiB\"\nsegment = \"512KiB\"\n\
         [lane.normal]\nsegment = \"512KiB\"\ncompression = \"none\"\n{normal}\n{tables}"
    )
}

fn load(address: SocketAddr) -> Result<Load> {
    let topic_prefix = "plant/".to_owned();
    Load::start(LoadPlan { address, clients: 4, window: 20, rate: None, topic_prefix })
}

fn lane(gateway: &Gateway, name: &str) -> Result<Value> {
    Ok(gateway.status()?["lanes"][name].clone())
}

/// Waits until the lane says that it is full and holds something.
fn full(gateway: &Gateway) -> Result<Value> {
    wait::until("lane normal is full", PATIENCE, || {
        let lane = lane(gateway, "normal")?;
        let holds = lane["held"]["publishes"].as_u64().unwrap_or(0) > 0;
        Ok((lane["state"] == "full" && holds).then_some(lane))
    })
    .with_context(|| gateway.log_tail())
}

/// One connection: a publish that is held, then one to a lane that has room.
struct TwoLanes(MqttClient);

impl TwoLanes {
    fn connect(gateway: &Gateway) -> Result<Self> {
        let options = ConnectOptions::new(Version::V311, "two-lanes");
        let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
        // The lane has its segment, the topic is there.
        client.publish_and_wait("alarm/1", b"before")?;
        Ok(Self(client))
    }

    fn alarm_passes_what_is_held(&mut self) -> Result<()> {
        let held = self.0.publish("plant/two-lanes", b"two-lanes 0 held", 1)?;
        self.0.publish_and_wait("alarm/1", b"fire").context("an alarm waits for a full lane")?;
        ensure!(held.is_some());
        Ok(())
    }

    fn held_is_acknowledged(&mut self) -> Result<()> {
        let answer = self.0.receive(BY_ITSELF)?.context("no PUBACK of what was held")?;
        ensure!(answer.kind() == 4 && answer.reason() == 0, "{answer:?}");
        Ok(())
    }
}

#[test]
fn a_disk_full_of_somebody_elses_files_holds_publishes_until_there_is_room() -> Result<()> {
    let Some(disk) = SmallDisk::make(DISK_BYTES)? else { return Ok(()) };
    let config = config("budget = \"1GiB\"\nwhen_full = \"refuse\"", "");
    let gateway = Gateway::start_with(GatewayOptions {
        config: Some(config),
        data_dir: Some(disk.path().join("data")),
        ..GatewayOptions::default()
    })?;
    let mut two_lanes = TwoLanes::connect(&gateway)?;
    let load = load(gateway.mqtt_address())?;
    load.wait_for_acks(2_000, PATIENCE)?;
    disk.fill()?;
    let held = full(&gateway)?;
    ensure!(held["held"]["clients"].as_u64() >= Some(1), "{held}");
    two_lanes.alarm_passes_what_is_held()?;

    disk.make_room()?;
    let since = Instant::now();
    load.wait_for_acks(1_000, BY_ITSELF).with_context(|| gateway.log_tail())?;
    two_lanes.held_is_acknowledged()?;
    println!("flowed again after {:?}", since.elapsed());
    let ledgers = load.finish()?;
    let records = gateway.consume("mqtt")?;
    let ours = records.iter().filter(|record| !record.value.starts_with("two-lanes "));
    let findings = ledger::compare(ours.map(|record| record.value.as_str()), &ledgers)?;
    ensure!(findings.are_none(), "{findings}\n{}", gateway.log_tail());
    let held = records.iter().filter(|record| record.value == "two-lanes 0 held");
    ensure!(held.count() == 1);
    ensure!(lane(&gateway, "normal")?["held"].is_null(), "nothing is held any more");
    Ok(())
}

#[test]
fn a_gateway_starts_on_a_full_disk_and_takes_records_when_there_is_room() -> Result<()> {
    let Some(disk) = SmallDisk::make(DISK_BYTES)? else { return Ok(()) };
    let data_dir = disk.path().join("data");
    // A data directory that was in use: its disk has run full since.
    let config = config("budget = \"1GiB\"\nwhen_full = \"refuse\"", "");
    let mut gateway = Gateway::start_with(GatewayOptions {
        config: Some(config),
        data_dir: Some(data_dir),
        ..GatewayOptions::default()
    })?;
    let mut options = ConnectOptions::new(Version::V5, "c");
    MqttClient::connect(gateway.mqtt_address(), &options)?.publish_and_wait("a", b"c 0 ")?;
    gateway.kill_now()?;
    disk.fill()?;
    gateway.start_again()?;
    disk.fill()?;
    ensure!(gateway.consume("mqtt")?.len() == 1, "what is there can be read");
    let load = load(gateway.mqtt_address())?;
    full(&gateway)?;
    // Live data flows without a log.
    options.client_id = "s".to_owned();
    let mut subscriber = MqttClient::connect(gateway.mqtt_address(), &options)?;
    subscriber.subscribe("live", 0)?;
    options.client_id = "p".to_owned();
    let mut publisher = MqttClient::connect(gateway.mqtt_address(), &options)?;
    publisher.publish("live", b"now", 0)?;
    let live = subscriber.receive_publish(PATIENCE)?.context("QoS 0 is delivered live")?;
    ensure!(live.payload == b"now");

    disk.make_room()?;
    load.wait_for_acks(1_000, BY_ITSELF).with_context(|| gateway.log_tail())?;
    let ledgers = load.finish()?;
    let records = gateway.consume("mqtt")?;
    let ours = records.iter().map(|record| record.value.as_str());
    let findings = ledger::compare(ours.filter(|v| *v != "c 0 " && *v != "now"), &ledgers)?;
    ensure!(findings.are_none(), "{findings}\n{}", gateway.log_tail());
    Ok(())
}

/// A gateway whose uplink, another gateway, is behind a link; `normal` has room for 2 MiB.
struct Site {
    hub: Gateway,
    link: FaultyLink,
    edge: Gateway,
}

impl Site {
    fn start(normal: &str) -> Result<Self> {
        let hub = Gateway::start()?;
        let link = FaultyLink::to(hub.kafka_address())?;
        let uplink = format!(
            "[uplink]\nbootstrap = [\"{0}\"]\nvia = \"{0}\"\nlinger_ms = 10",
            link.address()
        );
        let edge =
            Gateway::start_configured(&config(&format!("budget = \"2MiB\"\n{normal}"), &uplink))?;
        Ok(Self { hub, link, edge })
    }
}

fn uplink_away_holds_and_uplink_back_lifts(normal: &str) -> Result<()> {
    let Site { hub, link, edge } = Site::start(normal)?;
    let mut two_lanes = TwoLanes::connect(&edge)?;
    let load = load(edge.mqtt_address())?;
    load.wait_for_acks(200, PATIENCE)?;
    link.cut();
    let held = full(&edge)?;
    ensure!(held["refused_records"] == 0 && held["dropped_records"] == 0, "{held}");
    two_lanes.alarm_passes_what_is_held()?;

    link.mend();
    load.wait_for_acks(2_000, PATIENCE).with_context(|| edge.log_tail())?;
    two_lanes.held_is_acknowledged()?;
    let ledgers = load.finish()?;
    let sent: u64 = ledgers.iter().map(|ledger| ledger.acked.len() as u64).sum();
    wait::until("everything upstream", PATIENCE, || {
        Ok(hub.durable_records("mqtt").ok().filter(|&count| count > sent))
    })
    .with_context(|| edge.log_tail())?;
    let records = hub.consume("mqtt")?;
    let ours = records.iter().filter(|record| !record.value.starts_with("two-lanes "));
    let findings = ledger::compare(ours.map(|record| record.value.as_str()), &ledgers)?;
    ensure!(findings.are_none(), "{findings}\n{}", edge.log_tail());
    ensure!(edge.status()?["gaps"].as_array().is_some_and(Vec::is_empty), "nothing was given up");
    Ok(())
}

#[test]
fn refuse_holds_while_the_uplink_is_away_and_everything_arrives_once() -> Result<()> {
    uplink_away_holds_and_uplink_back_lifts("when_full = \"refuse\"")
}

#[test]
fn drop_oldest_does_not_give_up_what_is_not_upstream() -> Result<()> {
    uplink_away_holds_and_uplink_back_lifts("when_full = \"drop-oldest\"")
}

#[test]
fn drop_unsent_goes_on_and_tells_the_gap() -> Result<()> {
    let Site { hub: _hub, link, edge } =
        Site::start("when_full = \"drop-oldest\"\ndrop_unsent = true")?;
    let load = load(edge.mqtt_address())?;
    load.wait_for_acks(200, PATIENCE)?;
    link.cut();
    wait::until("a gap is told", PATIENCE, || {
        load.wait_for_acks(100, PATIENCE)?;
        let status = edge.status()?;
        let gaps = status["gaps"].as_array().cloned().unwrap_or_default();
        Ok(gaps.iter().any(|gap| gap["reason"] == "dropped oldest").then_some(()))
    })?;
    ensure!(lane(&edge, "normal")?["state"] == "open");
    load.finish().map(drop)
}

#[test]
fn refuse_after_is_told_to_mqtt_5_and_ends_3_1_1() -> Result<()> {
    let Site { hub: _hub, link, edge } =
        Site::start("when_full = \"refuse\"\nrefuse_after = \"2s\"")?;
    let load = load(edge.mqtt_address())?;
    load.wait_for_acks(200, PATIENCE)?;
    link.cut();
    full(&edge)?;
    let refused = wait::until("publishes are refused", PATIENCE, || {
        Ok(lane(&edge, "normal")?["refused_records"].as_u64().filter(|&count| count > 0))
    })?;
    ensure!(refused > 0);
    let mut client =
        MqttClient::connect(edge.mqtt_address(), &ConnectOptions::new(Version::V5, "c5"))?;
    client.publish("plant/c5", b"two-lanes 1 refused", 1)?;
    let answer = client.receive(PATIENCE)?.context("an answer")?;
    ensure!(answer.kind() == 4 && answer.reason() == 0x97, "{answer:?}");
    let mut client =
        MqttClient::connect(edge.mqtt_address(), &ConnectOptions::new(Version::V311, "c4"))?;
    client.publish("plant/c4", b"two-lanes 2 refused", 1)?;
    ensure!(client.receive_until_closed(PATIENCE)?.is_empty());
    link.mend();
    drop(load);
    Ok(())
}

#[test]
fn kcat_and_mosquitto_pub_wait_for_room_and_lose_nothing() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat, Peer::MosquittoClients]) {
        return Ok(());
    }
    let Site { hub, link, edge } = Site::start("when_full = \"refuse\"")?;
    let load = load(edge.mqtt_address())?;
    load.wait_for_acks(200, PATIENCE)?;
    link.cut();
    full(&edge)?;
    let lines: Vec<String> = (0..300).map(|index| format!("k{index}\tkcat {index} x")).collect();
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("lines");
    let values: String = (0..300).map(|index| format!("pub {index} x\n")).collect();
    std::fs::write(&input, values)?;
    let (kafka, mqtt) = (edge.kafka_address(), edge.mqtt_address());
    let fast = ["-X", "request.timeout.ms=2000", "-X", "enable.idempotence=true"];
    std::thread::scope(|scope| -> Result<()> {
        let kcat = scope.spawn(|| clients::kcat_produce(kafka, "mqtt", &fast, &lines));
        let publisher = scope.spawn(|| {
            clients::mosquitto_pub_lines(mqtt, Version::V311, "pub", "plant/pub", &input)
        });
        wait::until("kcat was told to try again", PATIENCE, || {
            Ok(lane(&edge, "normal")?["refused_records"].as_u64().filter(|&count| count > 0))
        })?;
        ensure!(!kcat.is_finished() && !publisher.is_finished(), "nothing can be through yet");
        link.mend();
        kcat.join().expect("no panic")?;
        publisher.join().expect("no panic")
    })
    .with_context(|| edge.log_tail())?;
    let ledgers = load.finish()?;
    let sent: u64 = ledgers.iter().map(|ledger| ledger.acked.len() as u64).sum();
    wait::until("everything upstream", PATIENCE, || {
        Ok(hub.durable_records("mqtt").ok().filter(|&count| count >= sent + 600))
    })?;
    let records = hub.consume("mqtt")?;
    for of in ["kcat ", "pub "] {
        let mut found: Vec<&str> =
            records.iter().map(|r| r.value.as_str()).filter(|v| v.starts_with(of)).collect();
        ensure!(found.len() == 300, "{} of {of}", found.len());
        found.sort_unstable();
        found.dedup();
        ensure!(found.len() == 300, "{of}: some are there twice");
    }
    Ok(())
}

//! The upstream dies under load, the gateway dies meanwhile, the link lies: everything arrives.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use system_tests::clients;
use system_tests::compare::brief_line;
use system_tests::faulty_link::FaultyLink;
use system_tests::gate::{self, Peer};
use system_tests::gateway::{Gateway, GatewayOptions};
use system_tests::kafka::Kafka;
use system_tests::ledger::{self, Ledger};
use system_tests::load::{Load, LoadPlan};
use system_tests::wait;

const PARTITIONS: u32 = 4;

struct Site {
    upstream: Kafka,
    link: FaultyLink,
    gateway: Gateway,
    load: Load,
}

impl Site {
    /// A gateway under load whose upstream is a real Kafka behind a link.
    fn start() -> Result<Self> {
        let mut upstream = Kafka::prepare()?;
        let link = FaultyLink::to(upstream.link_address())?;
        upstream.start_behind(link.address())?;
        let gateway = Gateway::start_with(GatewayOptions {
            upstream: Some(link.address()),
            gateway: Some("gw1".to_owned()),
            ..GatewayOptions::default()
        })?;
        let load = Load::start(LoadPlan {
            address: gateway.mqtt_address(),
            clients: 4,
            window: 100,
            rate: Some(500),
            topic_prefix: "plant/".to_owned(),
        })?;
        let site = Self { upstream, link, gateway, load };
        site.wait_until_upstream_has(1_000)?;
        Ok(site)
    }

    fn wait_until_upstream_has(&self, records: u64) -> Result<()> {
        let address = self.upstream.address();
        let what = format!("{records} records upstream");
        wait::until(&what, Duration::from_secs(180), || {
            let count = clients::kcat_count(address, "mqtt", PARTITIONS);
            Ok(count.ok().filter(|&count| count >= records).map(drop))
        })
        .with_context(|| format!("{}\n{}", brief_status(&self.gateway), self.gateway.log_tail()))
    }

    /// Ends the load, waits for the rest, and holds the upstream against the ledgers.
    fn finish(self) -> Result<()> {
        let Self { upstream, link, gateway, load } = self;
        let ledgers: Vec<Ledger> = load.finish()?;
        let edge = clients::kcat_read_all(gateway.kafka_address(), "mqtt")?;
        let findings = ledger::compare(edge.iter().map(|r| r.value.as_str()), &ledgers)?;
        assert!(findings.are_none(), "at the edge: {findings}\n{}", gateway.log_tail());

        let address = upstream.address();
        let goal = edge.len() as u64;
        let arrived = wait::until("the backlog upstream", Duration::from_secs(180), || {
            let count = clients::kcat_count(address, "mqtt", PARTITIONS);
            Ok(count.ok().filter(|&count| count >= goal))
        });
        arrived.with_context(|| format!("{}\n{}", brief_status(&gateway), gateway.log_tail()))?;
        let centre = clients::kcat_read_all(address, "mqtt")?;
        let findings = ledger::compare(centre.iter().map(|r| r.value.as_str()), &ledgers)?;
        // The upstream kept its producer state, so that a batch sent twice is stored once.
        assert!(
            findings.are_none(),
            "upstream: {findings}\n{}\n{}",
            brief_status(&gateway),
            gateway.log_tail()
        );
        // Whatever was durable at the edge arrived, whether its client saw the PUBACK or not.
        assert_eq!(centre.len(), edge.len(), "records upstream");
        assert!(link.bytes_carried().0 > 0, "the uplink went around the link");
        Ok(())
    }
}

/// The streams and the link of `status --json`, a line each.
fn brief_status(gateway: &Gateway) -> String {
    let Ok(status) = gateway.status() else { return "no status".to_owned() };
    let streams = status["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = streams.iter().chain([&status["link"]]).map(|line| brief_line(&line.to_string()));
    lines.collect::<Vec<_>>().join("\n")
}

fn outage() -> Duration {
    Duration::from_secs(if gate::full() { 60 } else { 5 })
}

/// Lets the load go on for the length of an outage; fails if its acknowledgements stop.
fn load_goes_on(load: &Load, length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        load.wait_for_acks(200, Duration::from_secs(30))?;
    }
    Ok(())
}

#[test]
fn everything_arrives_after_upstream_and_gateway_were_killed_under_load() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat, Peer::Kafka]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    site.upstream.kill_now()?;
    load_goes_on(&site.load, outage() / 2)?;
    site.gateway.kill_now()?;
    site.gateway.start_again()?;
    load_goes_on(&site.load, outage() / 2)?;
    site.upstream.start_again()?;
    load_goes_on(&site.load, Duration::from_secs(3))?;
    // Again while it drains: a plan may be on its way.
    site.gateway.kill_now()?;
    site.gateway.start_again()?;
    load_goes_on(&site.load, Duration::from_secs(2))?;
    site.finish()
}

#[test]
fn everything_arrives_after_the_link_was_cut_and_stalled_under_load() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat, Peer::Kafka]) {
        return Ok(());
    }
    let site = Site::start()?;
    for _ in 0..3 {
        site.link.cut();
        load_goes_on(&site.load, outage() / 5)?;
        site.link.mend();
        load_goes_on(&site.load, Duration::from_secs(1))?;
    }
    site.link.stall();
    load_goes_on(&site.load, outage())?;
    site.link.mend();
    site.finish()
}

#[test]
fn the_gateway_is_killed_again_and_again_while_it_sends() -> Result<()> {
    if !gate::run_with(&[Peer::Kcat, Peer::Kafka]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    for _ in 0..if gate::full() { 20 } else { 4 } {
        load_goes_on(&site.load, Duration::from_millis(700))?;
        site.gateway.kill_now()?;
        site.gateway.start_again()?;
    }
    site.finish()
}

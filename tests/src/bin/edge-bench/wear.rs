//! Bytes to the block device for each payload byte, and syncs a second: the whole program on an ext4 of its own.
//!
//! The load: 64 machines, 1,000 messages a second in all of about 207 bytes of JSON ([`Telemetry`]), each machine with
//! a connection and a topic of its own, QoS 1; the record has a key and four headers. It runs in real time: a ring is
//! filled once (the first lap, told apart), then the steady state is measured. Beside it, on filesystems made the same
//! way, NATS JetStream that syncs before it acknowledges, and SQLite; what a machine lacks is named and left out.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use system_tests::gate::find_program;
use system_tests::gateway::{Gateway, GatewayOptions};
use system_tests::telemetry::Telemetry;

use crate::Options;
use crate::fleet::{Fleet, Message, Paced};
use crate::ingest::storage;
use crate::nats::{self, Nats};
use crate::page_trace::PageTrace;
use crate::report::{json_line, mib, table};
use crate::sqlite::{self, Commit};
use crate::volume::{DeviceCounters, MOUNT_OPTIONS, SyncLatency, Volume};

const MACHINES: usize = 64;
const RATE: f64 = 1_000.0;
const WINDOWS_MS: [u64; 2] = [50, 250];
const VOLUME_BYTES: u64 = 1 << 30;
/// A ring that comes round within a minute or two of this load.
const BUDGET: &str = "3MiB";
const SEGMENT: &str = "768KiB";
/// The first lap ends when as much was written as the ring holds; not later than this.
const FIRST_LAP_MAX: Duration = Duration::from_secs(600);
const FIRST_LAP_STEP: Duration = Duration::from_secs(5);
/// A peer's figure settles sooner: it has no ring.
const PEER_PART: u32 = 6;

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(missing) = Volume::missing() {
        println!("left out: {missing}");
        json_line(&json!({"bench": "wear", "left_out": missing}));
        return Ok(());
    }
    let mut sides = Vec::new();
    if options.gateway {
        for window_ms in WINDOWS_MS {
            sides.extend(gateway(window_ms, options.measure)?);
        }
    }
    if options.peer {
        let measure = options.measure / PEER_PART;
        sides.extend(told("NATS", nats(measure))?);
        sides.extend(told("SQLite", sqlite("SQLite, a commit a message", Commit::Each, measure))?);
        let every = Commit::Every(Duration::from_millis(50));
        sides.extend(told("SQLite", sqlite("SQLite, a commit every 50 ms", every, measure))?);
    }
    println!("ext4 ({MOUNT_OPTIONS}) on a loop device each; {RATE} msg/s, {MACHINES} topics");
    table(
        &[
            "side",
            "msg/s",
            "syncs/s",
            "flushes/s",
            "writes/s",
            "B/payload B",
            "in 16 KiB pages",
            "PUBACK p50",
            "p99",
            "sync p50",
            "p99",
            "RSS max",
        ],
        &sides.iter().map(Side::row).collect::<Vec<_>>(),
    );
    let figures: Vec<Value> = sides.iter().map(Side::json).collect();
    json_line(&json!({"bench": "wear", "rate": RATE, "streams": MACHINES, "figures": figures}));
    Ok(())
}

/// One row.
struct Side {
    name: String,
    paced: Paced,
    device: DeviceCounters,
    page_bytes: Option<u64>,
    /// Syncs as the program counts them.
    syncs: Option<u64>,
    journal_bytes: Option<u64>,
    latency: Option<(Duration, Duration)>,
    sync: SyncLatency,
    rss_bytes_max: Option<u64>,
}

impl Side {
    fn per_payload_byte(&self, bytes: u64) -> f64 {
        bytes as f64 / self.paced.payload_bytes.max(1) as f64
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.paced.elapsed.as_secs_f64()
    }

    fn row(&self) -> Vec<String> {
        let dash = || "-".to_owned();
        let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        vec![
            self.name.clone(),
            format!("{:.0}", self.paced.rate()),
            self.syncs.map_or_else(dash, |syncs| format!("{:.1}", self.per_second(syncs))),
            format!("{:.1}", self.per_second(self.device.flushes)),
            format!("{:.1}", self.per_second(self.device.writes)),
            format!("{:.3}", self.per_payload_byte(self.device.written_bytes)),
            self.page_bytes
                .map_or_else(dash, |bytes| format!("{:.2}", self.per_payload_byte(bytes))),
            self.latency.map_or_else(dash, |(p50, _)| ms(p50)),
            self.latency.map_or_else(dash, |(_, p99)| ms(p99)),
            ms(self.sync.p50),
            ms(self.sync.p99),
            self.rss_bytes_max.map_or_else(dash, mib),
        ]
    }

    fn json(&self) -> Value {
        let us = |time: Duration| time.as_micros() as u64;
        json!({
            "side": self.name,
            "seconds": self.paced.elapsed.as_secs_f64(),
            "messages_per_second": self.paced.rate(),
            "payload_bytes": self.paced.payload_bytes,
            "syncs_per_second": self.syncs.map(|syncs| self.per_second(syncs)),
            "flushes_per_second": self.per_second(self.device.flushes),
            "writes_per_second": self.per_second(self.device.writes),
            "device_bytes_per_payload_byte": self.per_payload_byte(self.device.written_bytes),
            "journal_bytes_per_payload_byte":
                self.journal_bytes.map(|bytes| self.per_payload_byte(bytes)),
            "page_bytes_per_payload_byte": self.page_bytes.map(|bytes| self.per_payload_byte(bytes)),
            "puback_p50_us": self.latency.map(|(p50, _)| us(p50)),
            "puback_p99_us": self.latency.map(|(_, p99)| us(p99)),
            "sync_p50_us": us(self.sync.p50),
            "sync_p99_us": us(self.sync.p99),
            "rss_bytes_max": self.rss_bytes_max,
        })
    }
}

/// The load, the same for every side.
struct Load {
    telemetry: Telemetry,
    count: usize,
}

impl Load {
    fn new() -> Self {
        Self { telemetry: Telemetry::new(MACHINES, 1), count: 0 }
    }

    fn next(&mut self, message: &mut Message) {
        let reading = self.telemetry.reading();
        message.client = self.count % MACHINES;
        self.count += 1;
        message.topic = reading.topic;
        message.payload = reading.payload.into_bytes();
    }
}

/// A measurement that begins.
struct Measure<'v> {
    volume: &'v Volume,
    before: DeviceCounters,
    trace: Option<PageTrace>,
}

impl<'v> Measure<'v> {
    fn begin(volume: &'v Volume) -> Result<Self> {
        // What the filesystem still holds back belongs to what was before.
        volume.sync()?;
        let trace = PageTrace::start(volume.device());
        let trace = trace.map_err(|error| println!("16 KiB pages left out: {error:#}")).ok();
        Ok(Self { volume, before: volume.counters()?, trace })
    }

    /// Device counters and page bytes.
    fn end(self) -> Result<(DeviceCounters, Option<u64>)> {
        self.volume.sync()?;
        let device = self.volume.counters()?.since(self.before);
        Ok((device, self.trace.map(|trace| trace.bytes())))
    }
}

fn gateway(window_ms: u64, length: Duration) -> Result<Vec<Side>> {
    let volume = Volume::make(VOLUME_BYTES)?;
    let sync = volume.sync_latency()?;
    let mut config = format!(
        "[lane.normal]\nbudget = \"{BUDGET}\"\nsegment = \"{SEGMENT}\"\ncommit_window_ms = {window_ms}\n"
    );
    for machine in 0..MACHINES {
        let topic = Telemetry::topic_of(machine);
        config += &format!(
            "[[route]]\nfilter = \"{topic}\"\ntopic = \"m{machine:03}\"\nlane = \"normal\"\npartitions = 1\n"
        );
    }
    let base = Some(volume.path());
    let mut gateway =
        Gateway::start_with(GatewayOptions { base, config: Some(config), ..Default::default() })?;
    let mut load = Load::new();
    let mut fleet =
        Fleet::connect(gateway.mqtt_address(), MACHINES, |machine| format!("m{machine:03}"))?;

    let begin =
        |gateway: &Gateway| -> Result<_> { Ok((Measure::begin(&volume)?, Lane::of(gateway)?)) };
    let end = |gateway: &mut Gateway,
               name: &str,
               mut paced: Paced,
               (measure, before): (Measure<'_>, Lane)| {
        let after = Lane::of(gateway)?;
        let (device, page_bytes) = measure.end()?;
        let latency = Some((paced.latency(50.0), paced.latency(99.0)));
        anyhow::Ok(Side {
            name: format!("edge-broker, {window_ms} ms{name}"),
            device,
            page_bytes,
            syncs: Some(after.syncs - before.syncs),
            journal_bytes: Some(after.journal_bytes - before.journal_bytes),
            latency,
            sync,
            rss_bytes_max: Some(gateway.server()?.usage()?.rss_bytes_max),
            paced,
        })
    };
    let began = begin(&gateway)?;
    let mut lap = Paced::default();
    loop {
        let step = fleet.publish(RATE, FIRST_LAP_STEP, &mut |_, message| load.next(message));
        lap.add(step.with_context(|| gateway.log_tail())?);
        let lane = Lane::of(&gateway)?;
        // Round once: every slot of the ring was used.
        if lane.journal_bytes > lane.budget_bytes * 11 / 10 || lap.elapsed > FIRST_LAP_MAX {
            break;
        }
    }
    let first = end(&mut gateway, ", first lap", lap, began)?;
    let began = begin(&gateway)?;
    let steady = fleet.publish(RATE, length, &mut |_, message| load.next(message));
    let steady = steady.with_context(|| gateway.log_tail())?;
    let steady = end(&mut gateway, "", steady, began)?;
    drop(gateway);
    Ok(vec![steady, first])
}

/// What the gateway counts; `journal_bytes` of the lane that takes the load, syncs of all.
struct Lane {
    journal_bytes: u64,
    budget_bytes: u64,
    syncs: u64,
}

impl Lane {
    fn of(gateway: &Gateway) -> Result<Self> {
        let status = gateway.status()?;
        let lane = &status["lanes"]["normal"];
        let number = |name: &str| lane[name].as_u64().with_context(|| name.to_owned());
        Ok(Self {
            journal_bytes: number("journal_bytes")?,
            budget_bytes: number("budget_bytes")?,
            syncs: storage(&status)?.syncs,
        })
    }
}

fn nats(length: Duration) -> Result<Option<Side>> {
    let Some(program) = nats::program() else {
        println!(
            "NATS left out: nats-server is not on the path, and there is no go to build it with"
        );
        return Ok(None);
    };
    let volume = Volume::make(VOLUME_BYTES)?;
    let sync = volume.sync_latency()?;
    let nats = Nats::start(&program, &volume.path())?;
    let measure = Measure::begin(&volume)?;
    let mut load = Load::new();
    let mut paced = nats.publish(RATE, length, &mut |_, message| load.next(message))?;
    let (device, page_bytes) = measure.end()?;
    Ok(Some(Side {
        name: format!("{}, sync always", Nats::version(&program)),
        device,
        page_bytes,
        syncs: None,
        journal_bytes: None,
        latency: Some((paced.latency(50.0), paced.latency(99.0))),
        sync,
        rss_bytes_max: Some(nats.server().usage()?.rss_bytes_max),
        paced,
    }))
}

fn sqlite(name: &str, commit: Commit, length: Duration) -> Result<Option<Side>> {
    let Some(program) = find_program("sqlite3") else {
        println!("SQLite left out: sqlite3 is not installed; apt-get install sqlite3");
        return Ok(None);
    };
    let volume = Volume::make(VOLUME_BYTES)?;
    let sync = volume.sync_latency()?;
    let measure = Measure::begin(&volume)?;
    let mut load = Load::new();
    let folder = volume.path();
    let paced = sqlite::insert(&program, &folder, commit, RATE, length, &mut |_, message| {
        load.next(message)
    })?;
    let (device, page_bytes) = measure.end()?;
    Ok(Some(Side {
        name: name.to_owned(),
        paced,
        device,
        page_bytes,
        syncs: None,
        journal_bytes: None,
        latency: None,
        sync,
        rss_bytes_max: None,
    }))
}

/// A peer that fails is told and left out.
fn told(name: &str, side: Result<Option<Side>>) -> Result<Option<Side>> {
    Ok(side.unwrap_or_else(|error| {
        println!("{name} left out: {error:#}");
        None
    }))
}

//! `edge-broker demo`: the whole way of a record, with the link cut in the middle.
//!
//! A gateway and a plant hub (two instances of this program), a simulated production line and a few vehicles that
//! publish real MQTT over loopback, and a link between the two that is cut, lets a backlog grow, is mended, and
//! drains. It ends with a verdict on every acknowledged record. With `--upstream` a real Kafka takes the place
//! of the hub; with `--replay` a table takes the place of the plant.

mod instance;
mod link;
mod plant;
mod publisher;
mod replay;
mod verdict;
mod view;

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use edge_engine::status::Status;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use uplink::client::{Client, ClientOptions, FetchLimits, RecordStream};

use instance::Instance;
use link::Link;
use publisher::{Ledger, Publisher};
use replay::Replay;
use verdict::Verdict;
use view::{Scene, View, totals};

/// What the command line says.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// How long devices publish.
    pub(crate) seconds: u64,
    /// Publishes a second, all devices together.
    pub(crate) rate: u32,
    /// A table whose rows are published instead of the plant's reports.
    pub(crate) replay: Option<PathBuf>,
    /// A Kafka (`HOST:PORT`) in place of the hub.
    pub(crate) upstream: Option<String>,
    /// Leave the data directories behind.
    pub(crate) keep: bool,
    /// Where to put them; a directory below the system's temporary one unless given.
    pub(crate) data_dir: Option<PathBuf>,
}

const MACHINES: usize = 24;
const VEHICLES: usize = 4;
const PARTITIONS: u32 = 4;
/// The link is cut after this share of the time, and mended after that one.
const CUT_AT: f64 = 0.3;
const MEND_AT: f64 = 0.6;
/// How long the backlog may take to drain without any progress, and the last acknowledgements to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the demo; true if every acknowledged record is upstream exactly once and in order.
///
/// # Errors
/// It could not be run at all: a port, a file, a gateway that does not start.
pub(crate) async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    let (root, ours) = make_root(options.data_dir.as_deref())?;
    let outcome = run_in(&options, &root).await;
    if options.keep {
        println!("kept: {}", root.display());
    } else if ours {
        std::fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    } else {
        for part in ["gateway", "hub"] {
            let _ = std::fs::remove_dir_all(root.join(part));
        }
    }
    outcome
}

async fn run_in(options: &DemoOptions, root: &Path) -> anyhow::Result<bool> {
    let mut view = View::new();
    if let Some(path) = &options.replay {
        let read = Replay::open(path).and_then(|mut table| table.next(0));
        if read.with_context(|| format!("--replay {}", path.display()))?.is_none() {
            bail!("--replay {}: there are no rows in it", path.display());
        }
    }
    let topic = format!("demo-{}", std::process::id());

    let (hub, upstream) = match &options.upstream {
        Some(address) => {
            // A demo that waits for a Kafka that is not there shows nothing.
            let tried = Client::connect(std::slice::from_ref(address), ClientOptions::default());
            tried.await.with_context(|| format!("--upstream {address}"))?;
            (None, address.clone())
        }
        None => {
            let (mqtt, kafka) = (free_port()?, free_port()?);
            let hub = Instance::start(root, "hub", &hub_config(root, mqtt, kafka)).await?;
            (Some(hub), format!("127.0.0.1:{kafka}"))
        }
    };
    let link = Link::open(upstream.clone()).await.context("opening the link")?;
    let (mqtt, kafka) = (free_port()?, free_port()?);
    let config = gateway_config(root, mqtt, kafka, &topic, &upstream, &link);
    let gateway = Instance::start(root, "gateway", &config).await?;
    view.say(&format!(
        "gateway: MQTT 127.0.0.1:{mqtt}, Kafka 127.0.0.1:{kafka}, topic {topic}; upstream: {} {upstream}",
        if hub.is_some() { "the plant hub at" } else { "Kafka at" },
    ));

    let ledger = Arc::new(Ledger::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mqtt = format!("127.0.0.1:{mqtt}");
    let publishing = publish(options, &mqtt, &ledger, &stop);
    let watching = watch(options, &gateway, &link, &ledger, &stop, &mut view);
    let (published, watched) = tokio::join!(publishing, watching);
    published.context("publishing")?;
    watched?;

    let drained = drain(&gateway, &link, &ledger, &mut view).await?;
    if !drained {
        view.say("the backlog does not drain any more; judging what is upstream");
    }
    let (good, text) = judge(&upstream, &topic, &ledger).await.context("reading the upstream")?;
    gateway.stop().await?;
    if let Some(hub) = hub {
        hub.stop().await?;
    }
    view.say(&format!("verdict: {text}"));
    Ok(good)
}

/// Cuts and mends the link at its times, and shows what happens until the devices have stopped.
async fn watch(
    options: &DemoOptions,
    gateway: &Instance,
    link: &Link,
    ledger: &Ledger,
    stop: &AtomicBool,
    view: &mut View,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let whole = Duration::from_secs(options.seconds);
    let (cut, mend) = (whole.mul_f64(CUT_AT), whole.mul_f64(MEND_AT));
    let (mut was_cut, mut was_mended) = (false, false);
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (start, 0);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let elapsed = start.elapsed();
        if !was_cut && elapsed >= cut {
            was_cut = true;
            link.cut();
            view.say("-- the link is cut: the gateway goes on, the backlog grows");
        }
        if !was_mended && elapsed >= mend {
            was_mended = true;
            link.mend();
            view.say("-- the link is mended: the backlog drains behind the live data");
        }
        show(gateway, link, ledger, start, &mut before, view).await?;
        if elapsed >= whole {
            stop.store(true, Ordering::Relaxed);
        }
    }
    link.mend();
    Ok(())
}

/// Waits until everything durable is upstream. False if there is no progress for a while.
async fn drain(
    gateway: &Instance,
    link: &Link,
    ledger: &Ledger,
    view: &mut View,
) -> anyhow::Result<bool> {
    view.say("-- the devices have stopped: waiting for the rest of the backlog");
    let start = Instant::now();
    let mut before = (start, ledger.total());
    let mut progress = (0, start);
    loop {
        let status = show(gateway, link, ledger, start, &mut before, view).await?;
        let (durable, upstream) = totals(&status);
        if upstream >= durable && durable >= ledger.total() {
            return Ok(true);
        }
        if upstream > progress.0 {
            progress = (upstream, Instant::now());
        } else if progress.1.elapsed() > PATIENCE {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn show(
    gateway: &Instance,
    link: &Link,
    ledger: &Ledger,
    start: Instant,
    before: &mut (Instant, u64),
    view: &mut View,
) -> anyhow::Result<Status> {
    let status = gateway.status().await.context("asking the gateway for its status")?;
    let (now, acknowledged) = (Instant::now(), ledger.total());
    let took = now.duration_since(before.0).as_secs_f64().max(0.001);
    let rate = (acknowledged.saturating_sub(before.1)) as f64 / took;
    *before = (now, acknowledged);
    view.draw(&Scene {
        elapsed_s: start.elapsed().as_secs(),
        acknowledged,
        rate: rate.round() as u64,
        link_up: link.is_up(),
        status: &status,
    });
    Ok(status)
}

/// Publishes until `stop`, or to the end of the table.
async fn publish(
    options: &DemoOptions,
    mqtt: &str,
    ledger: &Arc<Ledger>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let result = match &options.replay {
        Some(path) => publish_table(path, options.rate, mqtt, ledger, stop).await,
        None => publish_plant(options.rate, mqtt, ledger, stop).await,
    };
    stop.store(true, Ordering::Relaxed);
    result
}

async fn publish_plant(
    rate: u32,
    mqtt: &str,
    ledger: &Arc<Ledger>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    let every = pace(rate, MACHINES + VEHICLES);
    for mut device in plant::devices(MACHINES, VEHICLES, 1) {
        let (mqtt, ledger, stop) = (mqtt.to_owned(), ledger.clone(), stop.clone());
        tasks.spawn(async move {
            let mut publisher = Publisher::connect(&mqtt, device.name(), ledger).await?;
            let (mut report, mut due) = (String::new(), Instant::now());
            let topic = device.topic().to_owned();
            while !stop.load(Ordering::Relaxed) {
                device.report(edge_engine::clock::wall_ms(), &mut report);
                publisher.publish(&topic, report.as_bytes()).await?;
                due += every;
                sleep_until(due).await;
            }
            publisher.finish(PATIENCE).await
        });
    }
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = joined.context("a device's task").and_then(|sent| Ok(sent?)) {
            stop.store(true, Ordering::Relaxed);
            return Err(error);
        }
    }
    Ok(())
}

async fn publish_table(
    path: &Path,
    rate: u32,
    mqtt: &str,
    ledger: &Arc<Ledger>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut table = Replay::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut publisher = Publisher::connect(mqtt, table.name(), ledger.clone()).await?;
    let topic = format!("replay/{}/telemetry", table.name());
    let every = pace(rate, 1);
    let (mut due, mut sequence) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let row = table.next(sequence).with_context(|| format!("reading {}", path.display()))?;
        let Some(row) = row else { break };
        publisher.publish(&topic, row.as_bytes()).await?;
        sequence += 1;
        due += every;
        sleep_until(due).await;
    }
    publisher.finish(PATIENCE).await?;
    Ok(())
}

/// Time between two publishes of one device.
fn pace(rate: u32, devices: usize) -> Duration {
    Duration::from_secs_f64(devices as f64 / f64::from(rate.max(1)))
}

/// Reads the whole upstream topic and judges it.
async fn judge(upstream: &str, topic: &str, ledger: &Ledger) -> anyhow::Result<(bool, String)> {
    let client = Client::connect(&[upstream.to_owned()], ClientOptions::default()).await?;
    let described = client.describe_topic(topic).await?;
    let limits = FetchLimits { max_wait: Duration::from_millis(100), ..FetchLimits::default() };
    let mut verdict = Verdict::default();
    for partition in described.partitions {
        let mut next = partition.earliest.unwrap_or_default();
        let end = partition.latest.unwrap_or_default();
        while next < end {
            let fetched = client.fetch(topic, partition.metadata.partition, next, limits).await?;
            let mut records = RecordStream::new(fetched.records, next);
            records.for_each(|record| verdict.record(record.value.unwrap_or_default()))?;
            if records.next_offset() == next {
                bail!("the upstream gives nothing at offset {next} of {topic}");
            }
            next = records.next_offset();
        }
    }
    Ok(verdict.conclude(&ledger.by_device()))
}

fn hub_config(root: &Path, mqtt: u16, kafka: u16) -> String {
    format!(
        "gateway = \"plant-hub\"\ndata_dir = {:?}\n\n[mqtt]\nlisten = \"127.0.0.1:{mqtt}\"\n\n\
         [kafka]\nlisten = \"127.0.0.1:{kafka}\"\n",
        root.join("hub"),
    )
}

fn gateway_config(
    root: &Path,
    mqtt: u16,
    kafka: u16,
    topic: &str,
    upstream: &str,
    link: &Link,
) -> String {
    format!(
        "gateway = \"demo-gateway\"\ndata_dir = {:?}\n\n[mqtt]\nlisten = \"127.0.0.1:{mqtt}\"\n\n\
         [kafka]\nlisten = \"127.0.0.1:{kafka}\"\n\n\
         [[route]]\nfilter = \"#\"\ntopic = \"{topic}\"\npartitions = {PARTITIONS}\n\n\
         [uplink]\nbootstrap = [\"{upstream}\"]\nvia = \"{}\"\ntopic = \"{{topic}}\"\n",
        root.join("gateway"),
        link.address(),
    )
}

/// Where the instances live, and whether the directory was made for them.
fn make_root(asked: Option<&Path>) -> anyhow::Result<(PathBuf, bool)> {
    let (root, ours) = match asked {
        Some(path) => (path.to_owned(), false),
        None => {
            let name = format!("edge-broker-demo-{}", std::process::id());
            (std::env::temp_dir().join(name), true)
        }
    };
    for part in ["gateway", "hub"] {
        if root.join(part).exists() {
            bail!(
                "{} is there already; remove it or give another --data-dir",
                root.join(part).display()
            );
        }
    }
    std::fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    let root = root.canonicalize().with_context(|| format!("finding {}", root.display()))?;
    Ok((root, ours))
}

/// A port nobody listens on. Another process may take it before the gateway does; then the gateway says so.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

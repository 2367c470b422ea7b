//! A real Apache Kafka: one KRaft node that is broker and controller, from Maven artifacts.
//!
//! The jars are fetched once to `target/kafka/lib` (about 100 jars, 125 MB). A node takes about
//! 0.4 GB of memory and 3 s to start. It has two client listeners: `PLAINTEXT` for the test's own
//! tools, and `LINK`, whose advertised address may be a [`crate::faulty_link::FaultyLink`], so
//! that a client sent there stays behind the link when it asks for the cluster's addresses.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::gateway::{ask_kafka, workspace};
use crate::ports::ReservedPort;
use crate::process::Server;
use crate::wait;

/// Any 16 bytes will do; a node is never joined to another.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
const START_WITHIN: Duration = Duration::from_secs(120);

/// A Kafka node, running or killed. Dropping it ends the process and removes its data.
#[derive(Debug)]
pub struct Kafka {
    folder: TempDir,
    plain: ReservedPort,
    link: ReservedPort,
    controller: ReservedPort,
    server: Option<Server>,
}

impl Kafka {
    /// Formats and starts a node whose `LINK` listener advertises itself.
    ///
    /// # Errors
    /// When Java or Maven fail, or the node does not answer in time.
    pub fn start() -> Result<Self> {
        let mut kafka = Self::prepare()?;
        kafka.format(None)?;
        kafka.start_again()?;
        Ok(kafka)
    }

    /// Reserves its ports, so that a link to [`Kafka::link_address`] can be made before it starts.
    ///
    /// # Errors
    /// When there is no free port or no room for files.
    pub fn prepare() -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
            plain: ReservedPort::reserve()?,
            link: ReservedPort::reserve()?,
            controller: ReservedPort::reserve()?,
            server: None,
        })
    }

    /// Formats and starts a prepared node whose `LINK` listener advertises `address`.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn start_behind(&mut self, address: SocketAddr) -> Result<()> {
        self.format(Some(address))?;
        self.start_again()
    }

    /// Where the test's own tools connect.
    pub fn address(&self) -> SocketAddr {
        self.plain.address()
    }

    /// Where the `LINK` listener listens.
    pub fn link_address(&self) -> SocketAddr {
        self.link.address()
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_now(&mut self) -> Result<()> {
        self.server.take().context("Kafka does not run")?.kill_now()
    }

    /// Starts it again on the same ports and data, and waits until it has named itself alive.
    ///
    /// # Errors
    /// When it runs already, ends, or does not answer in time.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("Kafka runs already");
        }
        let mut java = java(&["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])?;
        java.arg("kafka.Kafka").arg(self.properties_path()).current_dir(self.folder.path());
        let mut server = Server::spawn("kafka", &mut java, &self.folder.path().join("log"))?;
        let address = self.address();
        server.wait_until_ready(START_WITHIN, || knows_a_live_broker(address))?;
        self.server = Some(server);
        Ok(())
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When the tool fails.
    pub fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        let mut tool = java(&[])?;
        tool.args(["org.apache.kafka.tools.TopicCommand", "--create", "--topic", topic]);
        tool.args(["--bootstrap-server", &self.address().to_string()]);
        tool.args(["--partitions", &partitions.to_string(), "--replication-factor", "1"]);
        wait::text_within(&mut tool, Duration::from_secs(60)).map(drop)
    }

    fn format(&self, advertised: Option<SocketAddr>) -> Result<()> {
        fs::write(self.properties_path(), self.properties(advertised))?;
        let mut java = java(&["-XX:TieredStopAtLevel=1"])?;
        java.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
        java.arg(self.properties_path());
        wait::text_within(&mut java, Duration::from_secs(60)).map(drop)
    }

    fn properties(&self, advertised: Option<SocketAddr>) -> String {
        let (plain, link) = (self.plain.address(), self.link.address());
        let advertised = advertised.unwrap_or(link);
        let controller = self.controller.address();
        let logs = self.folder.path().join("logs").display().to_string();
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@{controller}\n\
             listeners=PLAINTEXT://{plain},LINK://{link},CONTROLLER://{controller}\n\
             advertised.listeners=PLAINTEXT://{plain},LINK://{advertised}\n\
             listener.security.protocol.map=\
             PLAINTEXT:PLAINTEXT,LINK:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             log.dirs={logs}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=2\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=2\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             broker.heartbeat.interval.ms=500\n\
             broker.session.timeout.ms=3000\n\
             auto.create.topics.enable=false\n"
        )
    }

    fn properties_path(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }
}

/// Reads a topic with Kafka's own console consumer: `max_messages` records, or as many as come
/// until it has waited `idle` for the next one. One line a record, as [`CONSOLE_FORMAT`] says.
///
/// # Errors
/// When the consumer cannot be run.
pub fn console_consume(
    address: SocketAddr,
    topic: &str,
    max_messages: usize,
    idle: Duration,
) -> Result<Vec<String>> {
    let mut tool = java(&["-XX:TieredStopAtLevel=1"])?;
    tool.arg("org.apache.kafka.tools.consumer.ConsoleConsumer");
    tool.args(["--bootstrap-server", &address.to_string(), "--topic", topic, "--from-beginning"]);
    tool.args(["--max-messages", &max_messages.to_string()]);
    tool.args(["--timeout-ms", &idle.as_millis().to_string()]);
    for property in ["timestamp", "partition", "offset", "key", "headers"] {
        tool.arg("--formatter-property").arg(format!("print.{property}=true"));
    }
    let output = wait::output_within(&mut tool, idle + Duration::from_secs(120))?;
    // Running into --timeout-ms is an error exit to the tool, and a plain end to us.
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// What a line of [`console_consume`] reads like: tab-separated
/// `CreateTime:MS`, `Partition:P`, `Offset:O`, `name:value,...`, key, value.
pub const CONSOLE_FORMAT: &str = "CreateTime, Partition, Offset, headers, key, value";

/// Writes lines `key TAB value` with Kafka's own console producer.
///
/// # Errors
/// When it fails; it waits for the acknowledgement of every line before it ends.
pub fn console_produce(
    address: SocketAddr,
    topic: &str,
    compression: &str,
    input: &Path,
) -> Result<()> {
    let mut tool = java(&["-XX:TieredStopAtLevel=1"])?;
    tool.arg("org.apache.kafka.tools.ConsoleProducer");
    tool.args(["--bootstrap-server", &address.to_string(), "--topic", topic, "--sync"]);
    tool.args(["--reader-property", "parse.key=true"]);
    tool.arg(format!("--compression-codec={compression}"));
    let mut child = tool
        .stdin(fs::File::open(input)?)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let status = wait::until("the console producer to end", Duration::from_secs(120), || {
        Ok(child.try_wait()?)
    });
    if status.is_err() {
        child.kill()?;
    }
    let told = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&told.stderr);
    if !told.status.success() || stderr.contains("ERROR") {
        bail!("console producer: {}: {stderr}", told.status);
    }
    Ok(())
}

/// A command that runs Java with Kafka's jars.
fn java(flags: &[&str]) -> Result<Command> {
    let mut classpath = jars()?.into_os_string();
    classpath.push("/*");
    let mut java = Command::new("java");
    java.args(flags).arg("-cp").arg(classpath);
    Ok(java)
}

/// The folder with the jars, fetched with Maven if need be.
///
/// # Errors
/// When Maven cannot fetch them.
pub fn jars() -> Result<PathBuf> {
    // Threads of one process wait here; Cargo runs test processes one after the other.
    static FETCH: Mutex<()> = Mutex::new(());
    let _turn = FETCH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pom = workspace().join("tests/kafka/pom.xml");
    let folder = target_folder().join("kafka");
    let (lib, stamp) = (folder.join("lib"), folder.join("complete"));
    let wanted = fs::read_to_string(&pom)?;
    // The stamp holds the pom: another version is another set of jars.
    if fs::read_to_string(&stamp).is_ok_and(|fetched| fetched == wanted) {
        return Ok(lib);
    }
    if lib.exists() {
        fs::remove_dir_all(&lib)?;
    }
    fs::create_dir_all(&lib)?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
    maven.arg(format!("-DoutputDirectory={}", lib.display()));
    wait::text_within(&mut maven, Duration::from_secs(600)).context("fetching Kafka's jars")?;
    fs::write(&stamp, wanted)?;
    Ok(lib)
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Metadata v1 for no topics: a KRaft node names itself only once it serves.
fn knows_a_live_broker(address: SocketAddr) -> bool {
    const METADATA_V1: &[u8] = &[0, 3, 0, 1, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 0];
    ask_kafka(address, METADATA_V1).is_ok_and(|answer| {
        let brokers = answer.get(4..8).and_then(|bytes| bytes.try_into().ok());
        brokers.is_some_and(|bytes| i32::from_be_bytes(bytes) > 0)
    })
}

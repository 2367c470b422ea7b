//! A real Apache Kafka: one KRaft node that is broker and controller, from Maven artifacts.
//!
//! The jars are fetched once to `target/kafka/lib` (about 100 jars, 125 MB). A node takes about
//! 0.4 GB of memory and 3 s to start. It has two client listeners: `PLAINTEXT` for the test's own
//! tools, and `LINK`, whose advertised address may be a [`crate::faulty_link::FaultyLink`], so
//! that a client sent there stays behind the link when it asks for the cluster's addresses.

use std::ffi::OsString;
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
use crate::process::{self, Server};
use crate::wait;

/// Any 16 bytes will do; a node is never joined to another.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
const START_WITHIN: Duration = Duration::from_secs(120);
/// A tool takes 2 s on an idle machine; ample for a loaded one.
const TOOL_WITHIN: Duration = Duration::from_secs(120);

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

    fn format(&self, advertised: Option<SocketAddr>) -> Result<()> {
        fs::write(self.properties_path(), self.properties(advertised))?;
        let mut java = tool("kafka.tools.StorageTool")?;
        java.args(["format", "-t", CLUSTER_ID, "-c"]);
        java.arg(self.properties_path());
        wait::text_within(&mut java, TOOL_WITHIN).map(drop)
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

/// How a console consumer comes by its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// As member of a consumer group that has all partitions to itself.
    Group,
    /// This partition without a group: the group protocol is not asked for.
    Partition(u32),
}

/// Reads a topic from its beginning with Kafka's own console consumer: `max_messages` records, or
/// as many as come until it has waited `idle` for the next one. A line a record, tab-separated:
/// `CreateTime:MS`, `Partition:P`, `Offset:O`, `name:value,...`, key, value.
///
/// # Errors
/// When the consumer cannot be run, or prints something else.
pub fn console_consume(
    address: SocketAddr,
    topic: &str,
    membership: Membership,
    max_messages: usize,
    idle: Duration,
) -> Result<Vec<String>> {
    let mut consumer = tool("org.apache.kafka.tools.consumer.ConsoleConsumer")?;
    consumer.args(["--bootstrap-server", &address.to_string(), "--topic", topic]);
    match membership {
        Membership::Group => consumer.arg("--from-beginning"),
        Membership::Partition(number) => {
            consumer.args(["--partition", &number.to_string(), "--offset", "earliest"])
        }
    };
    consumer.args(["--max-messages", &max_messages.to_string()]);
    consumer.args(["--timeout-ms", &idle.as_millis().to_string()]);
    for property in ["timestamp", "partition", "offset", "key", "headers"] {
        consumer.arg("--formatter-property").arg(format!("print.{property}=true"));
    }
    // Running into --timeout-ms is an error exit to the tool, and a plain end to us.
    let output = wait::output_within(&mut consumer, idle + TOOL_WITHIN)?;
    let stdout = String::from_utf8(output.stdout)?;
    let lines: Vec<String> = stdout.lines().map(str::to_owned).collect();
    if let Some(other) = lines.iter().find(|line| !line.starts_with("CreateTime:")) {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("the console consumer printed {other:?}, no record\n{}", wait::tail(&stderr));
    }
    Ok(lines)
}

/// Writes lines `key TAB value` with Kafka's own console producer, in batches as large as it likes.
///
/// # Errors
/// When it does not end, or complains about a record.
pub fn console_produce(
    address: SocketAddr,
    topic: &str,
    compression: &str,
    input: &Path,
) -> Result<()> {
    let mut producer = tool("org.apache.kafka.tools.ConsoleProducer")?;
    producer.args(["--bootstrap-server", &address.to_string(), "--topic", topic]);
    producer.args(["--reader-property", "parse.key=true"]);
    producer.args(["--command-property", "acks=all"]);
    producer.arg(format!("--compression-codec={compression}"));
    let output = wait::output_from_within(&mut producer, fs::File::open(input)?, TOOL_WITHIN)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // It ends well even where a record was refused, and then says so.
    if !output.status.success() || stderr.contains(" ERROR ") {
        bail!("console producer: {}: {}", output.status, wait::tail(&stderr));
    }
    Ok(())
}

/// Creates a topic with Kafka's own tool.
///
/// # Errors
/// When the tool fails.
pub fn create_topic(address: SocketAddr, topic: &str, partitions: u32) -> Result<()> {
    let mut create = tool("org.apache.kafka.tools.TopicCommand")?;
    create.args(["--bootstrap-server", &address.to_string(), "--create", "--topic", topic]);
    create.args(["--partitions", &partitions.to_string(), "--replication-factor", "1"]);
    wait::text_within(&mut create, TOOL_WITHIN).map(drop)
}

/// Changes settings of a topic with Kafka's own `kafka-configs`: `--add-config` and `--delete-config`.
///
/// # Errors
/// When the tool fails; its words are in the error.
pub fn alter_topic(address: SocketAddr, topic: &str, changes: &[(&str, &str)]) -> Result<()> {
    let mut configs = tool("kafka.admin.ConfigCommand")?;
    configs.args(["--bootstrap-server", &address.to_string(), "--alter"]);
    configs.args(["--entity-type", "topics", "--entity-name", topic]);
    for (flag, value) in changes {
        configs.args([flag, value]);
    }
    wait::text_within(&mut configs, TOOL_WITHIN).map(drop)
}

/// The settings of a topic as `kafka-configs --describe` prints them.
///
/// # Errors
/// When the tool fails.
pub fn describe_topic_settings(address: SocketAddr, topic: &str) -> Result<String> {
    let mut configs = tool("kafka.admin.ConfigCommand")?;
    configs.args(["--bootstrap-server", &address.to_string(), "--describe"]);
    configs.args(["--entity-type", "topics", "--entity-name", topic]);
    wait::text_within(&mut configs, TOOL_WITHIN)
}

/// Deletes the records of partition 0 below an offset with Kafka's own `kafka-delete-records`; -1 is everything. What
/// the tool prints.
///
/// # Errors
/// When the tool fails.
pub fn delete_records(address: SocketAddr, topic: &str, before: i64) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("offsets.json");
    let partition = format!(r#"{{"topic":"{topic}","partition":0,"offset":{before}}}"#);
    fs::write(&file, format!(r#"{{"partitions":[{partition}],"version":1}}"#))?;
    let mut delete = tool("org.apache.kafka.tools.DeleteRecordsCommand")?;
    delete.args(["--bootstrap-server", &address.to_string(), "--offset-json-file"]).arg(&file);
    wait::text_within(&mut delete, TOOL_WITHIN)
}

/// What Kafka's own tool prints of a log file, record by record, with each batch's checksum judged.
///
/// # Errors
/// When the tool fails.
pub fn dump_log(file: &Path) -> Result<String> {
    let mut dump = tool("org.apache.kafka.tools.DumpLogSegments")?;
    dump.arg("--deep-iteration").arg("--files").arg(file);
    wait::text_within(&mut dump, TOOL_WITHIN)
}

/// A command that runs one of Kafka's tools, whose log goes to standard error.
fn tool(class: &str) -> Result<Command> {
    let mut log = OsString::from("-Dlog4j2.configurationFile=");
    log.push(workspace().join("tests/kafka/log4j2.properties"));
    let mut java = java(&["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m"])?;
    java.arg(log).arg(class);
    Ok(java)
}

/// A command that runs Java with Kafka's jars; the flags come before the class.
fn java(flags: &[&str]) -> Result<Command> {
    let mut classpath = jars()?.into_os_string();
    classpath.push("/*");
    let mut java = process::command("java");
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
    let mut maven = process::command("mvn");
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

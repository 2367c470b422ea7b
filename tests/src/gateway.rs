//! The program under test: `edge-broker run` on reserved ports with its own data directory.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::Record;
use crate::mqtt::{ConnectOptions, MqttClient, Version};
use crate::ports::ReservedPort;
use crate::process::{self, Server};
use crate::wait;

/// Ample for a loaded two-core machine and for an emulator.
const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// What a gateway is started with besides its ports and its data directory.
#[derive(Debug, Clone, Default)]
pub struct GatewayOptions {
    /// The text of a config file; without it there is no `--config`.
    pub config: Option<String>,
    /// `--upstream`.
    pub upstream: Option<SocketAddr>,
    /// `--gateway`.
    pub gateway: Option<String>,
    /// Where the data directory is made; the system's temporary directory without it.
    pub base: Option<PathBuf>,
    /// The data directory itself, when it lies elsewhere than log and config.
    pub data_dir: Option<PathBuf>,
}

/// A gateway, running or killed. Dropping it ends the process and removes its data.
#[derive(Debug)]
pub struct Gateway {
    folder: TempDir,
    data_dir: PathBuf,
    mqtt: ReservedPort,
    kafka: ReservedPort,
    arguments: Vec<OsString>,
    server: Option<Server>,
}

impl Gateway {
    /// A gateway with no config at all.
    ///
    /// # Errors
    /// When it does not answer on both ports in time.
    pub fn start() -> Result<Self> {
        Self::start_with(GatewayOptions::default())
    }

    /// A gateway with a config file of this text.
    ///
    /// # Errors
    /// When it does not answer on both ports in time.
    pub fn start_configured(config: &str) -> Result<Self> {
        Self::start_with(GatewayOptions { config: Some(config.to_owned()), ..Default::default() })
    }

    /// A gateway with these options.
    ///
    /// # Errors
    /// When it does not answer on both ports in time.
    pub fn start_with(options: GatewayOptions) -> Result<Self> {
        let mut gateway = Self::prepare(options)?;
        gateway.start_again()?;
        Ok(gateway)
    }

    /// Ports and directory of a gateway that is not started yet.
    ///
    /// # Errors
    /// When there is no free port or no room for files.
    pub fn prepare(options: GatewayOptions) -> Result<Self> {
        let folder = match &options.base {
            Some(base) => tempfile::tempdir_in(base)?,
            None => tempfile::tempdir()?,
        };
        let (mqtt, kafka) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
        let mut arguments: Vec<OsString> = vec!["run".into()];
        if let Some(text) = &options.config {
            let path = folder.path().join("edge-broker.toml");
            std::fs::write(&path, text)?;
            arguments.extend(["--config".into(), path.into()]);
        }
        let data_dir = options.data_dir.unwrap_or_else(|| folder.path().join("data"));
        arguments.extend(["--data-dir".into(), data_dir.clone().into()]);
        arguments.extend(["--mqtt".into(), mqtt.address().to_string().into()]);
        arguments.extend(["--kafka".into(), kafka.address().to_string().into()]);
        if let Some(upstream) = options.upstream {
            arguments.extend(["--upstream".into(), upstream.to_string().into()]);
        }
        if let Some(name) = options.gateway {
            arguments.extend(["--gateway".into(), name.into()]);
        }
        Ok(Self { folder, data_dir, mqtt, kafka, arguments, server: None })
    }

    /// Starts it, or starts it again on the same ports and data, and waits until both ports speak.
    ///
    /// # Errors
    /// When it runs already, ends, or does not answer in time.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            bail!("the gateway runs already");
        }
        let mut command = command()?;
        command.args(&self.arguments).current_dir(self.folder.path());
        let mut server = Server::spawn("edge-broker", &mut command, &self.log_path())?;
        let (mqtt, kafka) = (self.mqtt_address(), self.kafka_address());
        server.wait_until_ready(START_WITHIN, || mqtt_answers(mqtt) && kafka_answers(kafka))?;
        self.server = Some(server);
        Ok(())
    }

    /// Where MQTT clients connect.
    pub fn mqtt_address(&self) -> SocketAddr {
        self.mqtt.address()
    }

    /// Where Kafka clients connect.
    pub fn kafka_address(&self) -> SocketAddr {
        self.kafka.address()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// The config file, if there is one; read at every start.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("edge-broker.toml")
    }

    /// The log of all its lives.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The running process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("the gateway does not run")
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it does not run, or had ended by itself before.
    pub fn kill_now(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the gateway does not run")?;
        if let Some(status) = server.exited()? {
            bail!("the gateway had ended by itself: {status}\n{}", server.log_tail());
        }
        server.kill_now()
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Errors
    /// When it does not run or does not end in time.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let mut server = self.server.take().context("the gateway does not run")?;
        server.terminate(STOP_WITHIN)
    }

    /// `status --json` of its data directory.
    ///
    /// # Errors
    /// When the command fails or does not print JSON.
    pub fn status(&self) -> Result<Value> {
        let mut status = command()?;
        status.args(["status", "--json", "--data-dir"]).arg(self.data_dir());
        let text = wait::text_within(&mut status, Duration::from_secs(30))?;
        serde_json::from_str(&text).with_context(|| format!("status printed {text:?}"))
    }

    /// The sum of the durable ends of a topic's partitions, from `status --json`.
    ///
    /// # Errors
    /// When the status has not the documented shape.
    pub fn durable_records(&self, topic: &str) -> Result<u64> {
        sum_over_streams(&self.status()?, topic, "durable_end")
    }

    /// Everything a topic holds, read with the program's own `consume`.
    ///
    /// # Errors
    /// When the command fails or does not print JSON lines.
    pub fn consume(&self, topic: &str) -> Result<Vec<Record>> {
        let mut consume = command()?;
        consume.args(["consume", topic, "--json", "--broker"]);
        consume.arg(self.kafka_address().to_string());
        let text = wait::text_within(&mut consume, Duration::from_secs(120))?;
        text.lines().map(parse_record).collect()
    }

    /// The tail of its log, for error messages.
    pub fn log_tail(&self) -> String {
        self.server.as_ref().map_or_else(
            || std::fs::read_to_string(self.log_path()).unwrap_or_default(),
            Server::log_tail,
        )
    }
}

/// A line of `consume --json`.
fn parse_record(line: &str) -> Result<Record> {
    let json: Value =
        serde_json::from_str(line).with_context(|| format!("consume printed {line:?}"))?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let headers = json["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(Record {
        partition: json["partition"].as_i64().context("no partition")?,
        offset: json["offset"].as_i64().context("no offset")?,
        timestamp_ms: json["timestamp_ms"].as_i64().context("no timestamp_ms")?,
        key: text(&json["key"]),
        value: text(&json["value"]).unwrap_or_default(),
        headers: headers
            .iter()
            .map(|header| {
                let value = text(&header["value"]).unwrap_or_default();
                (text(&header["name"]).unwrap_or_default(), value)
            })
            .collect(),
    })
}

/// Adds up one number of every stream of a topic in a `status --json` document.
///
/// # Errors
/// When `streams` is not a list or the number is missing.
pub fn sum_over_streams(status: &Value, topic: &str, number: &str) -> Result<u64> {
    let streams = status["streams"].as_array().context("status has no list `streams`")?;
    streams
        .iter()
        .filter(|stream| stream["topic"] == topic)
        .map(|stream| {
            stream[number].as_u64().with_context(|| format!("no number `{number}` in {stream}"))
        })
        .sum()
}

/// A command that runs the program under test, behind the runner if there is one.
///
/// # Errors
/// When the program cannot be found or built.
pub fn command() -> Result<Command> {
    let runner = std::env::var("EDGE_BROKER_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let binary = binary()?;
    Ok(match words.next() {
        Some(program) => {
            let mut command = process::command(program);
            command.args(words).arg(binary);
            command
        }
        None => process::command(binary),
    })
}

/// Runs the program with arguments to its end.
///
/// # Errors
/// When it cannot be run or does not end in time.
pub fn run_cli(arguments: &[&str], within: Duration) -> Result<Output> {
    wait::output_within(command()?.args(arguments), within)
}

/// The binary under test: `EDGE_BROKER_BIN`, or the dev profile, built once for this process.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow!("no edge-broker to test: {error}"))
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("EDGE_BROKER_BIN") {
        let path = PathBuf::from(path);
        return path.canonicalize().with_context(|| path.display().to_string());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "edge-broker", "--bin", "edge-broker"]);
    build.args(["--message-format", "json-render-diagnostics"]).current_dir(workspace());
    // Minutes on a cold machine, and other cargo commands may hold the lock.
    let messages = wait::text_within(&mut build, Duration::from_secs(1_800))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built edge-broker without naming its executable")
}

/// The top of the checkout.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

fn mqtt_answers(address: SocketAddr) -> bool {
    let options = ConnectOptions::new(Version::V311, "is-it-there");
    MqttClient::connect(address, &options).and_then(MqttClient::disconnect).is_ok()
}

fn kafka_answers(address: SocketAddr) -> bool {
    ask_kafka(address, API_VERSIONS_V0).is_ok_and(|answer| answer.len() > 6)
}

/// ApiVersions v0, correlation id 1, no client id.
const API_VERSIONS_V0: &[u8] = &[0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF];

/// Sends one request without its length and returns the answer without its length.
///
/// # Errors
/// When nobody answers within 10 s, or the answer is longer than 16 MiB.
pub fn ask_kafka(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut frame = (request.len() as u32).to_be_bytes().to_vec();
    frame.extend(request);
    stream.write_all(&frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > 16 << 20 {
        bail!("an answer of {length} bytes");
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

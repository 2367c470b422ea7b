//! Other people's clients: `mosquitto_pub`, `mosquitto_sub`, `kcat`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::mqtt::Version;
use crate::{process, wait};

/// One record as kcat saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition.
    pub partition: i64,
    /// Offset.
    pub offset: i64,
    /// Timestamp in milliseconds.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<String>,
    /// Value.
    pub value: String,
    /// Headers in order, duplicates kept.
    pub headers: Vec<(String, String)>,
}

impl Record {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Everything a topic holds now, read with kcat from the beginning of every partition.
///
/// # Errors
/// When kcat fails or does not end within two minutes.
pub fn kcat_read_all(broker: SocketAddr, topic: &str) -> Result<Vec<Record>> {
    let mut kcat = kcat(broker);
    kcat.args(["-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J"]);
    let text = wait::text_within(&mut kcat, Duration::from_secs(120))?;
    text.lines().map(parse_record).collect()
}

/// How many records a topic holds: the sum of its partitions' latest minus earliest offsets.
///
/// # Errors
/// When kcat fails; so also while the topic or its leader is not there.
pub fn kcat_count(broker: SocketAddr, topic: &str, partitions: u32) -> Result<u64> {
    let sum = |time: i64| -> Result<u64> {
        let mut kcat = kcat(broker);
        kcat.arg("-Q");
        for partition in 0..partitions {
            kcat.args(["-t", &format!("{topic}:{partition}:{time}")]);
        }
        let text = wait::text_within(&mut kcat, Duration::from_secs(30))?;
        let offsets = text.lines().map(parse_offset).collect::<Result<Vec<u64>>>()?;
        if offsets.len() != partitions as usize {
            bail!("kcat -Q said {text:?} of {partitions} partitions");
        }
        Ok(offsets.iter().sum())
    };
    // In this order what arrives meanwhile cannot make the difference negative.
    let earliest = sum(-2)?;
    Ok(sum(-1)?.saturating_sub(earliest))
}

/// The offset for a time (milliseconds; -1 latest, -2 earliest), by kcat's query mode.
///
/// # Errors
/// When kcat fails.
pub fn kcat_offset(broker: SocketAddr, topic: &str, partition: u32, time: i64) -> Result<u64> {
    let mut kcat = kcat(broker);
    kcat.args(["-Q", "-t", &format!("{topic}:{partition}:{time}")]);
    let text = wait::text_within(&mut kcat, Duration::from_secs(30))?;
    parse_offset(text.trim())
}

/// A line of `kcat -Q`: "telemetry [0] offset 42".
fn parse_offset(line: &str) -> Result<u64> {
    let last = line.rsplit(' ').next().unwrap_or_default();
    last.parse().with_context(|| format!("kcat -Q said {line:?}"))
}

/// Writes `lines` (`key TAB value`) with kcat and these extra arguments.
///
/// # Errors
/// When kcat fails or says that something was not delivered.
pub fn kcat_produce(
    broker: SocketAddr,
    topic: &str,
    extra: &[&str],
    lines: &[String],
) -> Result<()> {
    let mut command = kcat(broker);
    command.args(["-P", "-t", topic, "-K", "\t"]).args(extra);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start kcat")?;
    let mut stdin = child.stdin.take().context("kcat has a standard input")?;
    for line in lines {
        writeln!(stdin, "{line}")?;
    }
    drop(stdin);
    finish(child, Duration::from_secs(120))
}

/// `kcat -L`: brokers and topics as JSON.
///
/// # Errors
/// When kcat fails.
pub fn kcat_metadata(broker: SocketAddr) -> Result<Value> {
    let text = wait::text_within(kcat(broker).args(["-L", "-J"]), Duration::from_secs(30))?;
    Ok(serde_json::from_str(&text)?)
}

fn kcat(broker: SocketAddr) -> Command {
    let mut kcat = process::command("kcat");
    kcat.args(["-b", &broker.to_string(), "-X", "socket.timeout.ms=30000"]);
    kcat.args(["-X", "topic.metadata.refresh.interval.ms=1000"]);
    kcat
}

fn parse_record(line: &str) -> Result<Record> {
    let json: Value = serde_json::from_str(line).with_context(|| format!("kcat said {line:?}"))?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let headers = json["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(Record {
        partition: json["partition"].as_i64().context("no partition")?,
        offset: json["offset"].as_i64().context("no offset")?,
        timestamp_ms: json["ts"].as_i64().unwrap_or(-1),
        key: text(&json["key"]),
        value: text(&json["payload"]).unwrap_or_default(),
        headers: headers
            .chunks_exact(2)
            .map(|pair| (text(&pair[0]).unwrap_or_default(), text(&pair[1]).unwrap_or_default()))
            .collect(),
    })
}

/// Publishes every line of a file as one message at QoS 1 with `mosquitto_pub -l`.
///
/// # Errors
/// When it fails; it ends only when every message was acknowledged.
pub fn mosquitto_pub_lines(
    broker: SocketAddr,
    version: Version,
    client_id: &str,
    topic: &str,
    input: &Path,
) -> Result<()> {
    let child = process::command("mosquitto_pub")
        .args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()])
        .args(["-V", version.mosquitto_name(), "-q", "1", "-i", client_id, "-t", topic, "-l"])
        .stdin(File::open(input)?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start mosquitto_pub")?;
    finish(child, Duration::from_secs(120))
}

/// Publishes one message with `mosquitto_pub`.
///
/// # Errors
/// When it fails.
pub fn mosquitto_pub(
    broker: SocketAddr,
    version: Version,
    topic: &str,
    qos: u8,
    message: &str,
) -> Result<()> {
    let mut publisher = process::command("mosquitto_pub");
    publisher.args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()]).args([
        "-V",
        version.mosquitto_name(),
        "-q",
        &qos.to_string(),
        "-t",
        topic,
        "-m",
        message,
    ]);
    wait::text_within(&mut publisher, Duration::from_secs(30)).map(drop)
}

/// A running `mosquitto_sub`. Dropping it ends it.
#[derive(Debug)]
pub struct MosquittoSub {
    child: Child,
    lines: Receiver<String>,
}

impl MosquittoSub {
    /// Subscribes, and returns once the broker has granted it.
    ///
    /// # Errors
    /// When it is not granted within 10 s.
    pub fn subscribe(broker: SocketAddr, version: Version, filter: &str, qos: u8) -> Result<Self> {
        // It buffers whole blocks into a pipe unless told otherwise.
        let mut child = process::command("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args(["-h", &broker.ip().to_string(), "-p", &broker.port().to_string()])
            .args(["-V", version.mosquitto_name(), "-q", &qos.to_string(), "-t", filter, "-d"])
            .args(["-F", "message %q %t %p"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start mosquitto_sub")?;
        let stdout = child.stdout.take().context("mosquitto_sub has a standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut this = Self { child, lines };
        this.line_with("Subscribed", Duration::from_secs(10))
            .with_context(|| format!("mosquitto_sub -t {filter}"))?;
        Ok(this)
    }

    /// The next `count` messages, each as `QOS TOPIC PAYLOAD`.
    ///
    /// # Errors
    /// When they do not come within `within`.
    pub fn messages(&mut self, count: usize, within: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + within;
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .line_with("message ", left)
                .with_context(|| format!("{} of {count} messages", messages.len()))?;
            messages.push(line["message ".len()..].to_owned());
        }
        Ok(messages)
    }

    fn line_with(&mut self, start: &str, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.starts_with(start) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("no line {start:?} within {within:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("ended before it said {start:?}"),
            }
        }
    }
}

impl Drop for MosquittoSub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finish(mut child: Child, within: Duration) -> Result<()> {
    let ended = wait::until("a client to end", within, || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let failed = !output.status.success() || stderr.contains("ERROR");
    if ended.is_err() || failed || stderr.contains("Delivery failed") {
        bail!("the client ended with {}: {}", output.status, wait::tail(&stderr));
    }
    Ok(())
}

//! The gateway's process on the mounted disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use system_tests::gateway::{self, ask_kafka};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::ports::ReservedPort;
use system_tests::process::Server;
use system_tests::wait;
use tempfile::TempDir;

use crate::fuse::Mounted;

const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// ApiVersions v0, correlation id 1, no client id.
const API_VERSIONS_V0: &[u8] = &[0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF];

/// Where a gateway lives: everything but its data is outside of the disk.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    mqtt: ReservedPort,
    kafka: ReservedPort,
}

/// A running gateway.
#[derive(Debug)]
pub struct Process {
    server: Server,
}

/// What came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Both ports answered after this time.
    Ready(Duration),
    /// The power went off.
    Cut,
}

impl Site {
    /// A site with this config.
    ///
    /// # Errors
    /// No room for files, or no free ports.
    pub fn new(config: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("disk"))?;
        std::fs::write(folder.path().join("edge-broker.toml"), config)?;
        Ok(Self { folder, mqtt: ReservedPort::reserve()?, kafka: ReservedPort::reserve()? })
    }

    /// Where the disk is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Where MQTT clients connect.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt.address()
    }

    /// Where Kafka clients connect.
    pub fn kafka(&self) -> SocketAddr {
        self.kafka.address()
    }

    fn data_dir(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    /// What the gateway has said in all its lives.
    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts the gateway and waits until both ports answer, or the power goes off.
    ///
    /// # Errors
    /// It ended by itself while the power was on, or answers nothing for a minute.
    pub fn start(&self, disk: &Mounted) -> Result<(Process, Start)> {
        let mut command = gateway::command()?;
        command.arg("run").arg("--config").arg(self.folder.path().join("edge-broker.toml"));
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--mqtt").arg(self.mqtt().to_string());
        command.arg("--kafka").arg(self.kafka().to_string());
        let began = Instant::now();
        let mut server = Server::spawn("edge-broker", &mut command, &self.log_path())?;
        loop {
            if disk.is_off() {
                return Ok((Process { server }, Start::Cut));
            }
            if self.answers() {
                return Ok((Process { server }, Start::Ready(began.elapsed())));
            }
            // Looked at again: the cut may have ended it a moment ago.
            if let Some(status) = server.exited()?
                && !disk.is_off()
            {
                bail!("the gateway does not start: {status}\n{}", server.log_tail());
            }
            if began.elapsed() > START_WITHIN {
                bail!("the gateway is not ready after {START_WITHIN:?}\n{}", server.log_tail());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn answers(&self) -> bool {
        let options = ConnectOptions::new(Version::V311, "is-it-there");
        let mqtt = MqttClient::connect(self.mqtt(), &options).and_then(MqttClient::disconnect);
        mqtt.is_ok() && ask_kafka(self.kafka(), API_VERSIONS_V0).is_ok_and(|a| a.len() > 6)
    }

    /// `status --json`.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let mut status = gateway::command()?;
        status.args(["status", "--json", "--data-dir"]).arg(self.data_dir());
        let text = wait::text_within(&mut status, Duration::from_secs(30))?;
        serde_json::from_str(&text).with_context(|| format!("status printed {text:?}"))
    }
}

impl Process {
    /// `kill -9`; and what it waits for from the disk fails, so that it can end.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(mut self, disk: &Mounted) -> Result<()> {
        // It may have ended by itself, over a disk that was gone.
        let _ = self.server.signal(Signal::KILL);
        disk.let_go();
        self.server.wait_for_exit(STOP_WITHIN).map(drop)
    }

    /// The tail of its log, for error messages.
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }

    /// SIGTERM, and the end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.server.terminate(STOP_WITHIN)
    }
}

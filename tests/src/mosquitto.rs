//! The machine's Mosquitto on a port of its own, with the defaults that it ships: no persistence.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::gate;
use crate::mqtt::{ConnectOptions, MqttClient, Version};
use crate::ports::ReservedPort;
use crate::process::{self, Server};

/// A running Mosquitto. Dropping it ends it.
#[derive(Debug)]
pub struct Mosquitto {
    _folder: TempDir,
    port: ReservedPort,
    server: Server,
}

impl Mosquitto {
    /// Starts it as it ships: many small packets to one client are put together by TCP, which is
    /// its best for throughput.
    ///
    /// # Errors
    /// When it is not installed or does not answer within 10 s.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// Starts it with `set_tcp_nodelay`: its best for latency.
    ///
    /// # Errors
    /// When it is not installed or does not answer within 10 s.
    pub fn start_for_latency() -> Result<Self> {
        Self::start_with("set_tcp_nodelay true\n")
    }

    fn start_with(settings: &str) -> Result<Self> {
        let program = gate::find_program("mosquitto").context("mosquitto is not installed")?;
        let folder = tempfile::tempdir()?;
        let port = ReservedPort::reserve()?;
        let config = folder.path().join("mosquitto.conf");
        // It drops root's rights unless told who to be; a test's directory is the caller's.
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nuser root\n{settings}",
            port.number()
        );
        fs::write(&config, text)?;
        let mut command = process::command(program);
        command.arg("-c").arg(&config);
        let mut server = Server::spawn("mosquitto", &mut command, &folder.path().join("log"))?;
        let address = port.address();
        server.wait_until_ready(Duration::from_secs(10), || {
            let options = ConnectOptions::new(Version::V311, "is-it-there");
            MqttClient::connect(address, &options).and_then(MqttClient::disconnect).is_ok()
        })?;
        Ok(Self { _folder: folder, port, server })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its process.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

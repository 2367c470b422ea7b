//! A gateway of the demo: the same program, run as a child process with a configuration of its own.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use edge_engine::status::Status;

use crate::control_socket;

/// How long a gateway may take until it answers, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running child.
pub(crate) struct Instance {
    child: Child,
    data_dir: PathBuf,
    log: PathBuf,
}

impl Instance {
    /// Writes `config` next to the data directory and runs the program with it, until it answers.
    pub(crate) async fn start(root: &Path, name: &str, config: &str) -> anyhow::Result<Self> {
        let file = root.join(format!("{name}.toml"));
        std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        let log = root.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let child = Command::new(std::env::current_exe().context("finding this program")?)
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .context("starting a gateway")?;
        let mut instance = Self { child, data_dir: root.join(name), log };
        instance.wait_until_it_answers(name).await?;
        Ok(instance)
    }

    /// One look at it.
    pub(crate) async fn status(&self) -> io::Result<Status> {
        let dir = self.data_dir.clone();
        let asked = tokio::task::spawn_blocking(move || control_socket::ask_status(&dir)).await;
        asked.map_err(io::Error::other)??.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Asks it to stop (SIGTERM) and waits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            rustix::process::kill_process(id, rustix::process::Signal::TERM)
                .context("stopping a gateway")?;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("a gateway ended with {status}; see {}", self.log.display());
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("a gateway did not stop; see {}", self.log.display())
    }

    async fn wait_until_it_answers(&mut self, name: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the {name} ended with {status}: {}", said.trim());
            }
            if self.data_dir.exists() && self.status().await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the {name} does not answer; see {}", self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // After an error: nothing may be left running. A stopped child is not there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

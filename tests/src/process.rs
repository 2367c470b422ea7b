//! A server process: its log, its signals, what it costs, its end.
//!
//! A handle kills its process when it is dropped. That does not help where the test process itself
//! is killed (a time limit, an impatient Ctrl-C), so every process is started by [`command`], which
//! has the kernel end it together with the thread that started it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{compare, gate, wait};

/// Lines of a log that an error message shows.
const LOG_LINES_SHOWN: usize = 20;

/// A running child whose output goes to a log file. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Memory resident now.
    pub rss_bytes: u64,
    /// The most memory that was ever resident.
    pub rss_bytes_max: u64,
    /// User and system time.
    pub cpu: Duration,
    /// Bytes it caused to be sent to the block layer.
    pub written_bytes: u64,
    /// Threads it has.
    pub threads: u64,
    /// File descriptors it has open.
    pub descriptors: u64,
}

/// A command whose process ends when the calling thread ends, however that comes about.
///
/// `setpriv` of util-linux asks the kernel for that (PR_SET_PDEATHSIG) and then becomes `program`,
/// so the process id is the program's own. Where it is not installed, only the handles end it.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let Some(setpriv) = gate::find_program("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

impl Server {
    /// Starts `command`; both of its outputs are appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if it has ended.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill_now(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it does not end within `within`; the error carries the tail of its log.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_for_exit(within)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is not there.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id() as i32).context("a child has a process id")?;
        kill_process(pid, signal).with_context(|| format!("signal to {}", self.name))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not come within `within`.
    pub fn wait_for_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let exit = wait::until(&what, within, || Ok(self.child.try_wait()?));
        exit.with_context(|| self.log_tail())
    }

    /// Waits until `ready` answers; fails at once when the process ends before that.
    ///
    /// # Errors
    /// When it ends or is not ready within `within`; the error carries the tail of its log.
    pub fn wait_until_ready(
        &mut self,
        within: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let what = format!("{} to answer", self.name);
        let answer = wait::until(&what, within, || {
            if ready() {
                return Ok(Some(()));
            }
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended before it was ready: {status}", self.name);
            }
            Ok(None)
        });
        answer.with_context(|| self.log_tail())
    }

    /// Everything it has said.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines it has said, for error messages.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        let tail: Vec<String> = tail.iter().map(|line| compare::brief_line(line)).collect();
        format!("log of {}:\n{}", self.name, tail.join("\n"))
    }

    /// What it has used so far, from /proc.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing else can be done about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used so far, from /proc.
///
/// # Errors
/// When there is no such process or its /proc files read otherwise than documented in proc(5).
pub fn usage_of(pid: u32) -> Result<Usage> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(folder.join("status"))?;
    let stat = fs::read_to_string(folder.join("stat"))?;
    // The second field is the name in brackets and may hold anything; count from behind it.
    let after_name = stat.rsplit_once(')').context("stat holds a name in brackets")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|&at| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0))
        .sum();
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    // Another user's /proc/PID/io may not be read; then the figure is 0.
    let io = fs::read_to_string(folder.join("io")).unwrap_or_default();
    Ok(Usage {
        rss_bytes: number_after(&status, "VmRSS:") * 1024,
        rss_bytes_max: number_after(&status, "VmHWM:") * 1024,
        cpu: Duration::from_micros(ticks * 1_000_000 / ticks_per_second.max(1)),
        written_bytes: number_after(&io, "\nwrite_bytes:"),
        threads: number_after(&status, "Threads:"),
        descriptors: fs::read_dir(folder.join("fd")).map_or(0, |entries| entries.count() as u64),
    })
}

fn number_after(text: &str, label: &str) -> u64 {
    let rest = text.split_once(label).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_ourselves_is_plausible() {
        let usage = usage_of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 100_000, "{usage:?}");
        assert!(usage.rss_bytes_max >= usage.rss_bytes, "{usage:?}");
        assert!(usage.threads >= 1 && usage.descriptors >= 3, "{usage:?}");
    }

    #[test]
    fn a_server_that_ends_too_early_is_told_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = command("sh");
        shell.args(["-c", "echo port 1883 is taken >&2; exit 2"]);
        let mut server = Server::spawn("sh", &mut shell, &folder.path().join("log")).unwrap();
        let error = server.wait_until_ready(Duration::from_secs(10), || false).unwrap_err();
        assert!(format!("{error:#}").contains("port 1883 is taken"), "{error:#}");
        assert!(format!("{error:#}").contains("ended before"), "{error:#}");
    }
    #[test]
    fn a_process_ends_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            let child = command("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
            // Until it has become what it shall be, the kernel has not been asked yet.
            let name = format!("/proc/{}/comm", child.id());
            wait::until("sleep to run", Duration::from_secs(10), || {
                Ok((fs::read_to_string(&name)? == "sleep\n").then_some(()))
            })
            .unwrap();
            child
        });
        let mut child = started.join().unwrap();
        let status =
            wait::until("the end of sleep", Duration::from_secs(10), || Ok(child.try_wait()?));
        assert!(!status.unwrap().success());
    }
}

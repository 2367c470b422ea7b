//! Waiting for a fact with a deadline, instead of sleeping and hoping.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::compare;

/// Asks `poll` until it answers, or fails with `what` after `within`.
///
/// # Errors
/// When the deadline passes; the error names `what`.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut poll: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = poll()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} in vain: {what}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Runs a command to its end, or kills it after `within`.
///
/// # Errors
/// When it cannot be started, or does not end in time.
pub fn output_within(command: &mut Command, within: Duration) -> Result<Output> {
    output_from_within(command, Stdio::null(), within)
}

/// Like [`output_within`], with something to read for the command.
///
/// # Errors
/// As [`output_within`].
pub fn output_from_within(
    command: &mut Command,
    stdin: impl Into<Stdio>,
    within: Duration,
) -> Result<Output> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            let stderr = stderr.join().unwrap_or_default();
            let told = tail(&String::from_utf8_lossy(&stderr));
            bail!("{name} did not end within {within:?}; it said: {told}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

/// Like [`output_within`], and the command has to succeed; its standard output as text.
///
/// # Errors
/// Also when the exit code is not 0; the error carries what the command said.
pub fn text_within(command: &mut Command, within: Duration) -> Result<String> {
    let shown = format!("{command:?}");
    let output = output_within(command, within)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown}: {}\n{}\n{}", output.status, tail(&stdout), tail(&stderr));
    }
    Ok(stdout)
}

/// The last lines of what a program said.
pub fn tail(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(compare::brief_line).collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A killed child closes the pipe; what came before that is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

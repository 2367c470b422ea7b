//! SQLite beside us: its own command line program, write-ahead log, `synchronous=FULL`.
//!
//! Statements go into its standard input at the rate of the bench; it takes each as it comes. How long one takes is
//! not measured: the program has no way to say.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use system_tests::process;

use crate::fleet::{Message, Paced};

/// When a transaction ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Commit {
    /// With every message.
    Each,
    /// After so long.
    Every(Duration),
}

/// Inserts `rate` messages a second for `length`; ends when the last is committed.
///
/// # Errors
/// When the program ends early or says that something failed.
pub(crate) fn insert(
    program: &Path,
    folder: &Path,
    commit: Commit,
    rate: f64,
    length: Duration,
    next: &mut dyn FnMut(u64, &mut Message),
) -> Result<Paced> {
    let mut child = start(program, folder)?;
    let mut input = child.stdin.take().context("sqlite3 has a standard input")?;
    input.write_all(
        b"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;\n\
          CREATE TABLE log(offset INTEGER PRIMARY KEY, topic TEXT, key TEXT, client TEXT, value BLOB);\n",
    )?;
    let (began, mut result) = (Instant::now(), Paced::default());
    let mut message = Message::default();
    let mut open_since = None;
    loop {
        let due = began + Duration::from_secs_f64(result.messages as f64 / rate);
        if due.duration_since(began) >= length {
            break;
        }
        if let Some(left) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(left);
        }
        if let Commit::Every(window) = commit {
            if open_since.is_some_and(|since: Instant| since.elapsed() >= window) {
                input.write_all(b"COMMIT;\n")?;
                open_since = None;
            }
            if open_since.is_none() {
                input.write_all(b"BEGIN;\n")?;
                open_since = Some(Instant::now());
            }
        }
        next(result.messages, &mut message);
        let value = std::str::from_utf8(&message.payload)?;
        ensure!(!value.contains('\''), "the value would have to be quoted");
        let (topic, client) = (&message.topic, message.client);
        writeln!(
            input,
            "INSERT INTO log(topic,key,client,value) VALUES('{topic}','{topic}','m{client:03}','{value}');"
        )
        .context("sqlite3 has ended")?;
        result.note(message.payload.len());
    }
    if open_since.is_some() {
        input.write_all(b"COMMIT;\n")?;
    }
    writeln!(input, "SELECT count(*) FROM log;\n.quit")?;
    drop(input);
    let done = child.wait_with_output()?;
    result.elapsed = began.elapsed();
    let said = String::from_utf8_lossy(&done.stdout);
    let count = said.lines().last().and_then(|line| line.parse::<u64>().ok());
    let complaint = String::from_utf8_lossy(&done.stderr);
    ensure!(count == Some(result.messages), "sqlite3 holds {count:?}: {said} {complaint}");
    Ok(result)
}

fn start(program: &Path, folder: &Path) -> Result<Child> {
    let mut command: Command = process::command(program);
    command.arg("-batch").arg(folder.join("log.sqlite"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot start sqlite3")
}

//! Standard output: buffered, and quiet about a reader that went away.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use crate::cli::Failure;

/// Standard output. What is in it at the end is written by [`finish`](Self::finish), not by dropping it.
pub(super) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(super) fn new() -> Self {
        Self(BufWriter::with_capacity(64 * 1024, io::stdout().lock()))
    }

    /// One line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(|error| failure(&error))
    }

    /// Shows what was written so far.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(|error| failure(&error))
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.flush()
    }
}

/// Prints `text`, which ends in a newline or not.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut output = Output::new();
    output.write(text.as_bytes())?;
    if !text.ends_with('\n') {
        output.write(b"\n")?;
    }
    output.finish()
}

/// Prints a value as one line of JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
    print(&text)
}

fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("cannot write to standard output: {error}")),
    }
}

/// One line on standard error. That nobody reads it is no reason to stop.
pub(crate) fn tell(message: &str) {
    let _ = writeln!(io::stderr(), "edge-broker: {}", message.replace('\n', " "));
}

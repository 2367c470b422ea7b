//! How far a long command is: one line that changes on a terminal, a line every few seconds elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use edge_config::units::human_bytes;
use edge_log::inspect::Observer;

/// Between two lines of a log.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two changes on a terminal.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Progress on standard error.
pub(super) struct Progress {
    what: String,
    told: Instant,
    terminal: bool,
    drawn: bool,
}

impl Progress {
    pub(super) fn new(what: impl Into<String>) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { what: what.into(), told: Instant::now(), terminal, drawn: false }
    }

    /// Shows `text` if it is time to.
    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        let every = if self.terminal { REDRAW_EVERY } else { LINE_EVERY };
        if self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let line = format!("{}: {}", self.what, text());
        // That nobody reads it is no reason to stop.
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
            self.drawn = true;
        } else {
            let _ = writeln!(io::stderr(), "edge-broker: {line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Observer for Progress {
    fn progress(&mut self, bytes: u64, of_bytes: u64) {
        self.tell(|| format!("{} of {}", human_bytes(bytes), human_bytes(of_bytes)));
    }
}

//! The demo's live view: one line that is redrawn on a terminal, one line a second elsewhere.

use std::io::{IsTerminal as _, Write as _};

use edge_engine::status::Status;

/// What is on show at one moment.
pub(crate) struct Scene<'a> {
    pub(crate) elapsed_s: u64,
    pub(crate) acknowledged: u64,
    pub(crate) rate: u64,
    pub(crate) link_up: bool,
    pub(crate) status: &'a Status,
}

/// Draws scenes.
pub(crate) struct View {
    terminal: bool,
    columns_told: bool,
}

impl View {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), columns_told: false }
    }

    /// A line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A view nobody looks at (a closed pipe) must not end the demo.
        let _ =
            if self.terminal { writeln!(out, "\r\x1b[K{text}") } else { writeln!(out, "{text}") };
        let _ = out.flush();
    }

    /// The moving line.
    pub(crate) fn draw(&mut self, scene: &Scene<'_>) {
        if !self.columns_told {
            self.columns_told = true;
            self.say("   time   acked/s      acked  durable end  upstream end      lag  link");
        }
        let line = line(scene);
        let mut out = std::io::stdout().lock();
        let _ = if self.terminal { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }
}

/// Records that are durable here, and upstream, over all streams.
pub(crate) fn totals(status: &Status) -> (u64, u64) {
    let durable = status.streams.iter().map(|stream| stream.durable_end).sum();
    let upstream = status.streams.iter().filter_map(|stream| stream.upstream_end).sum();
    (durable, upstream)
}

fn line(scene: &Scene<'_>) -> String {
    let (durable, upstream) = totals(scene.status);
    let cable = if scene.link_up { "" } else { " (cut)" };
    format!(
        "{:>6}s {:>9} {:>10} {:>12} {:>13} {:>8}  {}{cable}",
        scene.elapsed_s,
        scene.rate,
        scene.acknowledged,
        durable,
        upstream,
        durable.saturating_sub(upstream),
        scene.status.link,
    )
}

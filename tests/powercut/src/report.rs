//! What a campaign has counted: a table for people, one JSON line for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// The counts of one variation.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Loads that were run and cut.
    pub cycles: u64,
    /// Power cuts of all kinds.
    pub cuts: u64,
    /// Of them while the gateway started.
    pub cuts_at_start: u64,
    /// Of them after a clean stop.
    pub clean_stops: u64,
    /// Sectors that rotted.
    pub rotten: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records read back, after each cut anew.
    pub read: u64,
    /// Acknowledged, read, and then given up by a full lane as its rule is.
    pub given_up: u64,
    /// Acknowledged and lost to rot, named by a gap.
    pub named: u64,
    /// From start to both ports answering, of every start that was not cut.
    pub ready: Vec<Duration>,
}

impl Row {
    /// The counts of a variation that has not begun.
    pub fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn ready_ms(&self, of_hundred: usize) -> f64 {
        let mut sorted = self.ready.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * of_hundred / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(0.0, |ready| ready.as_secs_f64() * 1_000.0)
    }

    fn add(&mut self, other: &Self) {
        self.cycles += other.cycles;
        self.cuts += other.cuts;
        self.cuts_at_start += other.cuts_at_start;
        self.clean_stops += other.clean_stops;
        self.rotten += other.rotten;
        self.acked += other.acked;
        self.read += other.read;
        self.given_up += other.given_up;
        self.named += other.named;
        self.ready.extend(&other.ready);
    }

    fn cells(&self) -> [String; 11] {
        [
            self.name.to_owned(),
            self.cycles.to_string(),
            self.cuts.to_string(),
            self.cuts_at_start.to_string(),
            self.clean_stops.to_string(),
            self.rotten.to_string(),
            self.acked.to_string(),
            self.read.to_string(),
            self.given_up.to_string(),
            self.named.to_string(),
            format!("{:.0} / {:.0}", self.ready_ms(50), self.ready_ms(100)),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "cycles": self.cycles,
            "cuts": self.cuts,
            "cuts_at_start": self.cuts_at_start,
            "clean_stops": self.clean_stops,
            "rotten_sectors": self.rotten,
            "acked": self.acked,
            "read_back": self.read,
            "given_up_by_rule": self.given_up,
            "lost_to_rot_and_named": self.named,
            "ready_ms_p50": self.ready_ms(50),
            "ready_ms_p99": self.ready_ms(99),
            "ready_ms_max": self.ready_ms(100),
        })
    }
}

/// The sum of rows.
pub fn total(name: &'static str, rows: &[Row]) -> Row {
    let mut total = Row::new(name);
    rows.iter().for_each(|row| total.add(row));
    total
}

/// The table. Every row in it has lost nothing silently: a campaign ends where one does.
pub fn table(rows: &[Row]) -> String {
    const HEADING: [&str; 11] = [
        "variation",
        "cycles",
        "cuts",
        "at start",
        "clean stop",
        "rotten",
        "acked",
        "read back",
        "given up",
        "lost, named",
        "ready ms p50 / max",
    ];
    let mut lines = vec![HEADING.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADING.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let padded =
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            shown.push_str(&padded);
            shown.push_str("  ");
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

/// One line of JSON. `cuts` and `rot` are the sums.
pub fn json_line(seed: u64, cuts: &Row, rot: &Row, rows: &[Row]) -> String {
    let variations: Vec<Value> = rows.iter().map(Row::json).collect();
    json!({
        "bench": "powercut",
        "seed": seed,
        "cycles": cuts.cycles,
        "cuts": cuts.cuts,
        "acked": cuts.acked,
        "lost": 0,
        "ready_ms_p50": cuts.ready_ms(50),
        "ready_ms_max": cuts.ready_ms(100),
        "rot_cycles": rot.cycles,
        "rot_acked": rot.acked,
        "rot_lost_and_named": rot.named,
        "rot_lost_silently": 0,
        "variations": variations,
    })
    .to_string()
}

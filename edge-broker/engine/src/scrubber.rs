//! Which lane is scrubbed when, and how fast.
//!
//! - One pass a lane and `every_s` of powered-on time, first over what is not upstream yet in all lanes, then over the
//!   rest of all lanes. When a pass ended is kept with the wear record, so that a gateway that restarts often does not
//!   begin anew each time.
//! - All lanes together read at most `bytes_per_s`, in steps of 64 KiB, on the keeper's thread, which has a low priority.
//! - What is found is told in the log and counted; the lane's own thread names what is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_log::{JournalPosition, LaneReader, Scrub, ScrubStep};
use serde::{Deserialize, Serialize};

use crate::lane_handle::LaneHandle;

/// After so many failed reads in a row the rest of the segment is left out of this pass.
const FAILURES_MAX: u32 = 3;
const FAILURE_PAUSE_US: u64 = 5_000_000;
/// Between two lanes.
const BETWEEN_US: u64 = 10_000;
/// How often it is looked whether a pass is due.
const LOOK_EVERY_US: u64 = 60_000_000;

/// How the scrub goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSetup {
    /// Bytes a second, all lanes together; 0: no scrub.
    pub bytes_per_s: u64,
    /// A pass begins no sooner than this after the one before ended, in seconds of powered-on time.
    pub every_s: u64,
    /// Nor sooner than this after the start.
    pub first_after_s: u64,
}

impl Default for ScrubSetup {
    fn default() -> Self {
        Self { bytes_per_s: 1 << 20, every_s: 86_400, first_after_s: 60 }
    }
}

/// What the scrub of one lane has done since the program started.
#[derive(Debug, Default)]
pub(crate) struct ScrubCounters {
    bytes: AtomicU64,
    passes: AtomicU64,
    errors: AtomicU64,
    /// Seconds of powered-on time + 1; 0: never.
    finished_s: AtomicU64,
}

/// The same for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Bytes read again since the program started.
    pub bytes: u64,
    /// Whole passes over the lane since the program started.
    pub passes: u64,
    /// Damaged places found since the program started.
    pub errors: u64,
    /// When the last whole pass ended, in seconds of powered-on time (`wear.powered_on_s`); `None`: never yet.
    pub finished_at_powered_on_s: Option<u64>,
}

impl ScrubCounters {
    pub(crate) fn status(&self) -> ScrubStatus {
        ScrubStatus {
            bytes: self.bytes.load(Ordering::Relaxed),
            passes: self.passes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            finished_at_powered_on_s: self.finished_s(),
        }
    }

    pub(crate) fn finished_s(&self) -> Option<u64> {
        self.finished_s.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(crate) fn set_finished_s(&self, powered_on_s: u64) {
        self.finished_s.store(powered_on_s.saturating_add(1), Ordering::Relaxed);
    }
}

/// A part of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Unsent,
    Rest,
}

pub(crate) struct Scrubber {
    setup: ScrubSetup,
    lanes: Vec<Arc<LaneHandle>>,
    queue: VecDeque<(usize, Part)>,
    /// By lane: what was upstream when the pass began.
    upstream: Vec<JournalPosition>,
    /// One for each lane, for as long as the lane is not reopened: it knows what was told already.
    scrubs: Vec<Option<(LaneReader, Scrub)>>,
    /// The front of the queue is being read.
    is_working: bool,
    failures: u32,
    due_us: u64,
}

impl Scrubber {
    pub(crate) fn new(setup: ScrubSetup, lanes: &[Arc<LaneHandle>], now_us: u64) -> Self {
        Self {
            setup,
            lanes: lanes.to_vec(),
            queue: VecDeque::new(),
            upstream: vec![JournalPosition::START; lanes.len()],
            scrubs: lanes.iter().map(|_| None).collect(),
            is_working: false,
            failures: 0,
            due_us: now_us.saturating_add(setup.first_after_s.saturating_mul(1_000_000)),
        }
    }

    /// Reads a piece if it is time. Returns when to come again; `None`: never.
    pub(crate) fn step(&mut self, now_us: u64, powered_on_s: u64) -> Option<u64> {
        if self.setup.bytes_per_s == 0 {
            return None;
        }
        if now_us < self.due_us {
            return Some(self.due_us);
        }
        self.due_us = match self.queue.front().copied() {
            Some((index, part)) => self.read(index, part, now_us, powered_on_s),
            None if self.begin(powered_on_s) => now_us,
            None => now_us.saturating_add(LOOK_EVERY_US),
        };
        Some(self.due_us)
    }

    /// Plans a pass over the lanes that are due. `true` if there are any.
    fn begin(&mut self, powered_on_s: u64) -> bool {
        let is_due = |lane: &LaneHandle| {
            let finished_s = lane.scrub().finished_s();
            finished_s.is_none_or(|at| powered_on_s >= at.saturating_add(self.setup.every_s))
        };
        let due: Vec<usize> =
            (0..self.lanes.len()).filter(|index| is_due(&self.lanes[*index])).collect();
        for index in &due {
            self.upstream[*index] = self.lanes[*index].upstream().unwrap_or(JournalPosition::START);
        }
        self.queue.extend(due.iter().map(|index| (*index, Part::Unsent)));
        self.queue.extend(due.iter().map(|index| (*index, Part::Rest)));
        !due.is_empty()
    }

    fn read(&mut self, index: usize, part: Part, now_us: u64, powered_on_s: u64) -> u64 {
        let lane = &self.lanes[index];
        let reader = lane.reader();
        let known = self.scrubs[index].take().filter(|(of, _)| of.is_same(&reader));
        if known.is_none() {
            // The lane was opened anew: what is left is read from the beginning of the part.
            self.is_working = false;
        }
        let (reader, mut scrub) = known.unwrap_or_else(|| {
            let scrub = reader.scrub();
            (reader, scrub)
        });
        if !std::mem::replace(&mut self.is_working, true) {
            let upstream = self.upstream[index];
            match part {
                Part::Unsent => scrub.begin(upstream, reader.end()),
                Part::Rest => scrub.begin(JournalPosition::START, upstream),
            }
        }
        let step = scrub.step();
        let found = scrub.take_found();
        for rot in &found {
            tracing::error!(lane = lane.name(), at = %rot.at, what = rot.what, "scrub: damage found");
        }
        let counters = lane.scrub();
        counters.errors.fetch_add(found.len() as u64, Ordering::Relaxed);
        if !found.is_empty() {
            // It names what is lost.
            lane.queue().nudge();
        }
        let due_us = match step {
            Ok(ScrubStep::Read { bytes }) => {
                self.failures = 0;
                counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                let pause_us = (bytes as u64).saturating_mul(1_000_000) / self.setup.bytes_per_s;
                now_us.saturating_add(pause_us)
            }
            Ok(ScrubStep::Done) => {
                self.failures = 0;
                self.is_working = false;
                self.queue.pop_front();
                if part == Part::Rest {
                    counters.passes.fetch_add(1, Ordering::Relaxed);
                    counters.set_finished_s(powered_on_s);
                }
                now_us.saturating_add(BETWEEN_US)
            }
            Err(error) => {
                self.failures += 1;
                if self.failures >= FAILURES_MAX {
                    tracing::warn!(lane = lane.name(), %error, "scrub: a segment could not be read");
                    self.failures = 0;
                    scrub.skip();
                }
                now_us.saturating_add(FAILURE_PAUSE_US)
            }
        };
        self.scrubs[index] = Some((reader, scrub));
        due_us
    }
}

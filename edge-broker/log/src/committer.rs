//! When a group closes and is synced. Pure: numbers in, a decision out.
//!
//! - A token bucket holds the sync allowance. While it has a token a commit starts at once, so a lone writer does
//!   not wait. It refills at the allowance, but no faster than one token a window: under steady load the window
//!   alone decides how often the device is synced.
//! - Beyond the allowance a record waits for company, at most for the window.
//! - **A slow card is left alone**: the window is never shorter than four times the measured time of a write and sync,
//!   so that the device is busy with us a fifth of the time at most, unless more bytes come than that. It is never
//!   longer than `commit_window_max_us` because of that.
//! - So many pending bytes commit at once. A window of 0 turns all waiting off.
//! - **A wear budget** (wear.rs): once it is spent, window and byte trigger are doubled step by step up to
//!   `commit_window_max_us` and `group_bytes_max`, and small groups are not spared the window meanwhile. Groups of
//!   `commit_bytes` whose senders wait for us go at once as ever: they would only be throttled.
//! - Senders that wait for their acknowledgement before they send more do not wait out the window (echo.rs). On a
//!   device so slow that it stretches the window they wait until it has rested as long as it worked.
//! - With `durability = "interval"` nobody waits for the sync: it comes once an interval, or when a group is full.

mod echo;
mod wear;

#[cfg(test)]
mod tests;

use crate::config::{Durability, LaneConfig};
use echo::Echo;
use wear::WearPace;

/// The window is at least so many times the latency of a commit.
const LATENCY_FACTOR: u64 = 4;
/// The window that `commit_bytes` is meant for.
const USUAL_WINDOW_US: u64 = 50_000;
/// Longest latency that is believed.
const LATENCY_US_MAX: u64 = 60_000_000;
/// A token, in the unit of the bucket: the bucket fills by `rate` of them a microsecond.
const TOKEN: u64 = 1_000_000_000;

/// What to do about the pending group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitDecision {
    /// Nothing is pending.
    Idle,
    /// Wait for more until then, then ask again.
    Wait {
        /// In the caller's `now_us`.
        until_us: u64,
    },
    /// Commit.
    Now,
}

/// How commits are paced at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitPace {
    /// How long a record may wait for company.
    pub window_us: u64,
    /// So many pending bytes commit at once.
    pub commit_bytes: usize,
    /// Smoothed time of a write and sync.
    pub latency_us: u64,
    /// Running average over ten minutes of what the lane hands to the device.
    pub bytes_per_day: u64,
    /// The wear budget is spent: window and bytes are doubled so many times.
    pub widened: u32,
    /// The wear budget is exceeded although nothing can be widened further.
    pub over_budget: bool,
}

/// The state behind the decisions.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    window_us: u64,
    window_us_max: u64,
    commit_bytes: usize,
    commit_bytes_max: usize,
    /// Thousandths of a token a second.
    allowed: u64,
    burst: u64,
    tokens: u64,
    filled_us: u64,
    /// When the first pending byte was noticed.
    pending_since_us: Option<u64>,
    /// Smoothed time of one write and sync.
    latency_us: u64,
    echo: Echo,
    wear: WearPace,
    /// All the bytes written so far, as last told.
    written_total: Option<u64>,
}

impl Committer {
    pub(crate) fn new(config: &LaneConfig) -> Self {
        let mut committer = Self {
            window_us: config.commit_window_us,
            window_us_max: config.commit_window_max_us.max(config.commit_window_us),
            commit_bytes: commit_bytes(config),
            commit_bytes_max: config.group_bytes_max as usize,
            allowed: u64::from(config.sync_allowance_per_second) * 1000,
            burst: u64::from(config.sync_burst) * TOKEN,
            tokens: 0,
            filled_us: 0,
            pending_since_us: None,
            latency_us: 0,
            echo: Echo::default(),
            wear: WearPace::default(),
            written_total: None,
        };
        if let Durability::Interval { ms } = config.durability {
            committer.window_us = (u64::from(ms) * 1000).max(1);
            committer.window_us_max = committer.window_us_max.max(committer.window_us);
            committer.commit_bytes = committer.commit_bytes_max;
            (committer.allowed, committer.burst) = (0, 0);
        }
        committer.tokens = committer.burst;
        committer.echo = Echo::new(committer.allowed);
        let steps = committer.steps_max();
        committer.wear = WearPace::new(config.wear_bytes_per_day, steps);
        committer
    }

    /// Doublings that take both the window and the byte trigger to their bounds.
    fn steps_max(&self) -> u32 {
        // A window of 0 means that nobody ever waits.
        if self.window_us == 0 {
            return 0;
        }
        let doublings = |from: u64, to: u64| to.div_ceil(from.max(1)).next_power_of_two().ilog2();
        let bytes = doublings(self.commit_bytes as u64, self.commit_bytes_max as u64);
        doublings(self.window_us, self.window_us_max).max(bytes)
    }

    /// Decides. `pending_bytes` is what the group holds now.
    pub(crate) fn poll(&mut self, now_us: u64, pending_bytes: usize) -> CommitDecision {
        if pending_bytes == 0 {
            self.pending_since_us = None;
            return CommitDecision::Idle;
        }
        let since_us = *self.pending_since_us.get_or_insert(now_us);
        self.fill(now_us);
        self.echo.look(now_us, pending_bytes);
        let narrow = self.wear.steps() == 0;
        if self.window_us == 0
            || pending_bytes >= self.commit_bytes_now()
            || narrow && self.tokens >= TOKEN
        {
            return CommitDecision::Now;
        }
        let mut until_us = since_us.saturating_add(self.window_us_now());
        if narrow {
            until_us = until_us.min(self.spared_us(now_us, pending_bytes));
        } else if pending_bytes >= self.commit_bytes
            && let Some(answered_us) = self.echo.answered_us(now_us, pending_bytes)
        {
            until_us = until_us.min(answered_us);
        }
        if until_us <= now_us { CommitDecision::Now } else { CommitDecision::Wait { until_us } }
    }

    /// When the pending bytes need not wait any longer although the window is not over, or when to look again.
    fn spared_us(&self, now_us: u64, pending_bytes: usize) -> u64 {
        let rate = self.rate();
        let missing = TOKEN.saturating_sub(self.tokens);
        let token_in_us = if rate == 0 { u64::MAX } else { missing.div_ceil(rate) };
        let slow = self.latency_us * LATENCY_FACTOR > self.window_us;
        let rest_us = if slow { self.latency_us } else { 0 };
        let echo_us = match self.echo.due_us(now_us, pending_bytes, rest_us) {
            Some(due_us) => due_us,
            // A look at the end of what counts as soon, so that what comes later is seen to come later.
            None => self.echo.soon_over_us(now_us).unwrap_or(u64::MAX),
        };
        now_us.saturating_add(token_in_us).min(echo_us)
    }

    /// A commit was made.
    pub(crate) fn handle_commit(&mut self, now_us: u64) {
        self.fill(now_us);
        let window_over = self
            .pending_since_us
            .is_none_or(|since_us| now_us.saturating_sub(since_us) >= self.window_us_now());
        let was_cut_short = self.window_us > 0 && self.tokens < TOKEN && !window_over;
        self.echo.handle_commit(now_us, was_cut_short);
        self.tokens = self.tokens.saturating_sub(TOKEN);
        self.pending_since_us = None;
        self.wear.look(now_us);
    }

    pub(crate) fn handle_latency(&mut self, took_us: u64) {
        self.echo.handle_latency(took_us);
        let took_us = took_us.min(LATENCY_US_MAX);
        // An eighth of the difference: a few slow syncs count, one does not.
        let smoothed = (self.latency_us * 7 + took_us) / 8;
        self.latency_us = if self.latency_us == 0 { took_us } else { smoothed };
    }

    /// What was handed to the device since the lane was made.
    pub(crate) fn handle_written(&mut self, total_bytes: u64) {
        let before = self.written_total.replace(total_bytes).unwrap_or(total_bytes);
        self.wear.handle_written(total_bytes.saturating_sub(before));
    }

    /// Sets the wear budget, bytes a day.
    pub(crate) fn set_wear_budget(&mut self, bytes_per_day: Option<u64>) {
        self.wear.set_budget(bytes_per_day);
    }

    pub(crate) fn pace(&self) -> CommitPace {
        CommitPace {
            window_us: self.window_us_now(),
            commit_bytes: self.commit_bytes_now(),
            latency_us: self.latency_us,
            bytes_per_day: self.wear.bytes_per_day(),
            widened: self.wear.steps(),
            over_budget: self.wear.is_exceeded(),
        }
    }

    /// The window, adapted to the device and to the wear budget.
    fn window_us_now(&self) -> u64 {
        if self.window_us == 0 {
            return 0;
        }
        let widened = self.window_us.saturating_mul(1 << self.wear.steps());
        widened.max(self.latency_us * LATENCY_FACTOR).min(self.window_us_max)
    }

    fn commit_bytes_now(&self) -> usize {
        self.commit_bytes.saturating_mul(1 << self.wear.steps()).min(self.commit_bytes_max)
    }

    /// Tokens a microsecond: no faster than one a window, and a little less than allowed, because beginning a segment
    /// takes syncs of its own.
    fn rate(&self) -> u64 {
        let rate = self.allowed.min(TOKEN.checked_div(self.window_us_now()).unwrap_or(u64::MAX));
        if rate == u64::MAX { rate } else { rate - rate / 50 }
    }

    fn fill(&mut self, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.filled_us);
        self.filled_us = self.filled_us.max(now_us);
        let gained = passed_us.saturating_mul(self.rate());
        self.tokens = self.tokens.saturating_add(gained).min(self.burst);
    }
}

/// The byte trigger. It is meant for the usual window; who sets a longer one asks for larger groups.
fn commit_bytes(config: &LaneConfig) -> usize {
    let windows = config.commit_window_us.div_ceil(USUAL_WINDOW_US).max(1);
    let bytes = u64::from(config.commit_bytes).saturating_mul(windows);
    bytes.min(u64::from(config.group_bytes_max)) as usize
}

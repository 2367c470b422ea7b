//! When a group closes and is synced. Pure: numbers in, a decision out.
//!
//! - A token bucket holds the sync allowance. While it has a token a commit starts at once, so a lone writer does
//!   not wait. It refills at the allowance, but no faster than one token a window: under steady load the window
//!   alone decides how often the device is synced.
//! - Beyond the allowance a record waits for company, at most for the window. The window is never shorter than four
//!   times the measured sync latency (a slow card gets larger groups), and never longer than [`WINDOW_US_MAX`]
//!   because of that.
//! - So many pending bytes commit at once. A window of 0 turns all waiting off.

use crate::config::LaneConfig;

/// A measured latency stretches the window to this at most.
const WINDOW_US_MAX: u64 = 1_000_000;
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

/// The state behind the decisions.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    window_us: u64,
    commit_bytes: usize,
    /// Thousandths of a token a second.
    rate: u64,
    burst: u64,
    tokens: u64,
    filled_us: u64,
    /// When the first pending byte was noticed.
    pending_since_us: Option<u64>,
    /// Smoothed time of one write and sync.
    latency_us: u64,
}

impl Committer {
    pub(crate) fn new(config: &LaneConfig) -> Self {
        let allowed = u64::from(config.sync_allowance_per_second) * 1000;
        // No faster than one token a window.
        let rate = allowed.min(TOKEN.checked_div(config.commit_window_us).unwrap_or(u64::MAX));
        let burst = u64::from(config.sync_burst) * TOKEN;
        Self {
            window_us: config.commit_window_us,
            commit_bytes: config.commit_bytes as usize,
            rate,
            burst,
            tokens: burst,
            filled_us: 0,
            pending_since_us: None,
            latency_us: 0,
        }
    }

    /// Decides. `pending_bytes` is what the group holds now.
    pub(crate) fn poll(&mut self, now_us: u64, pending_bytes: usize) -> CommitDecision {
        if pending_bytes == 0 {
            self.pending_since_us = None;
            return CommitDecision::Idle;
        }
        let since_us = *self.pending_since_us.get_or_insert(now_us);
        self.fill(now_us);
        if self.window_us == 0 || pending_bytes >= self.commit_bytes || self.tokens >= TOKEN {
            return CommitDecision::Now;
        }
        let window_end_us = since_us.saturating_add(self.adapted_window_us());
        let token_at_us = if self.rate == 0 {
            u64::MAX
        } else {
            now_us.saturating_add((TOKEN - self.tokens).div_ceil(self.rate))
        };
        let until_us = window_end_us.min(token_at_us);
        if until_us <= now_us { CommitDecision::Now } else { CommitDecision::Wait { until_us } }
    }

    /// A commit was made.
    pub(crate) fn handle_commit(&mut self, now_us: u64) {
        self.fill(now_us);
        self.tokens = self.tokens.saturating_sub(TOKEN);
        self.pending_since_us = None;
    }

    pub(crate) fn handle_latency(&mut self, took_us: u64) {
        // An eighth of the difference: a few slow syncs count, one does not.
        let smoothed = (self.latency_us * 7 + took_us.min(WINDOW_US_MAX)) / 8;
        self.latency_us = if self.latency_us == 0 { took_us.min(WINDOW_US_MAX) } else { smoothed };
    }

    fn adapted_window_us(&self) -> u64 {
        self.window_us.max((self.latency_us * 4).min(WINDOW_US_MAX))
    }

    fn fill(&mut self, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.filled_us);
        self.filled_us = self.filled_us.max(now_us);
        self.tokens =
            self.tokens.saturating_add(passed_us.saturating_mul(self.rate)).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committer(change: impl FnOnce(&mut LaneConfig)) -> Committer {
        let mut config = LaneConfig { sync_burst: 3, ..LaneConfig::default() };
        change(&mut config);
        Committer::new(&config)
    }

    /// Commits in `seconds` when a byte arrives every millisecond.
    fn commits_under_load(committer: &mut Committer, seconds: u64) -> u64 {
        let (mut commits, mut pending) = (0, 0);
        for now_us in (0..seconds * 1_000_000).step_by(1000) {
            pending += 1;
            if committer.poll(now_us, pending) == CommitDecision::Now {
                committer.handle_commit(now_us);
                (commits, pending) = (commits + 1, 0);
            }
        }
        commits
    }

    #[test]
    fn a_lone_writer_does_not_wait() {
        let mut committer = committer(|_| {});
        for second in 0..100u64 {
            let now_us = second * 100_000;
            assert_eq!(committer.poll(now_us, 10), CommitDecision::Now);
            committer.handle_commit(now_us);
            assert_eq!(committer.poll(now_us, 0), CommitDecision::Idle);
        }
    }

    #[test]
    fn steady_load_syncs_once_a_window() {
        let with_window = |window_us| {
            commits_under_load(&mut committer(|config| config.commit_window_us = window_us), 100)
        };
        assert!((1950..=2010).contains(&with_window(50_000)), "{}", with_window(50_000));
        assert!((395..=410).contains(&with_window(250_000)), "{}", with_window(250_000));
    }

    #[test]
    fn waiting_ends_with_the_window_or_enough_bytes() {
        let mut committer = committer(|config| config.sync_allowance_per_second = 0);
        for _ in 0..3 {
            assert_eq!(committer.poll(0, 1), CommitDecision::Now);
            committer.handle_commit(0);
        }
        assert_eq!(committer.poll(1000, 1), CommitDecision::Wait { until_us: 51_000 });
        assert_eq!(committer.poll(50_999, 2), CommitDecision::Wait { until_us: 51_000 });
        assert_eq!(committer.poll(2000, 32 << 10), CommitDecision::Now);
        assert_eq!(committer.poll(51_000, 2), CommitDecision::Now);
    }

    #[test]
    fn a_slow_device_stretches_the_window() {
        let mut committer = committer(|config| config.sync_allowance_per_second = 0);
        for _ in 0..50 {
            committer.handle_commit(0);
            committer.handle_latency(100_000);
        }
        assert_eq!(committer.poll(0, 1), CommitDecision::Wait { until_us: 400_000 });
        for _ in 0..50 {
            committer.handle_latency(10_000_000);
        }
        assert_eq!(committer.poll(0, 1), CommitDecision::Wait { until_us: 1_000_000 });
    }

    #[test]
    fn a_window_of_zero_never_waits() {
        let mut committer = committer(|config| config.commit_window_us = 0);
        for _ in 0..1000 {
            assert_eq!(committer.poll(5, 1), CommitDecision::Now);
            committer.handle_commit(5);
        }
    }
}

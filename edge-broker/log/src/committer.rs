//! When a group closes and is synced. Pure: numbers in, a decision out.
//!
//! - A token bucket holds the sync allowance. While it has a token a commit starts at once, so a lone writer does
//!   not wait. It refills at the allowance, but no faster than one token a window: under steady load the window
//!   alone decides how often the device is synced.
//! - Beyond the allowance a record waits for company, at most for the window. The window is never shorter than four
//!   times the measured sync latency (a slow card gets larger groups), and never longer than 1 s
//!   because of that.
//! - So many pending bytes commit at once. A window of 0 turns all waiting off.
//! - Senders that wait for their acknowledgement before they send more (a client with a small window) answer every
//!   commit with the same few records and then fall silent: waiting out the window would only slow them down. Once
//!   that was seen twice, their records commit when as much has come as last time, or after a short silence. That
//!   is paid from a saved-up allowance of its own (five minutes of it), so that it cannot wear out a card.

use crate::config::LaneConfig;

/// A measured latency stretches the window to this at most.
const WINDOW_US_MAX: u64 = 1_000_000;
/// A token, in the unit of the bucket: the bucket fills by `rate` of them a microsecond.
const TOKEN: u64 = 1_000_000_000;

/// What comes this soon after a commit was caused by it, as far as we can tell.
const ECHO_SOON_US: u64 = 3_000;
/// Silence after which no more of an echo is expected.
const ECHO_SILENCE_US: u64 = 1_000;
/// Groups that have to look like an echo before they are treated as one.
const ECHOES_MIN: u32 = 2;
/// Seconds of the sync allowance that echoes may have saved up.
const ECHO_SAVED_S: u64 = 300;

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
    echo: Echo,
}

/// Whether those who send wait for us.
#[derive(Clone, Debug, Default)]
struct Echo {
    /// When the last commit ended.
    acked_us: u64,
    /// What was pending at the last look, and since when.
    seen_bytes: usize,
    grown_us: u64,
    /// Bytes of the last group.
    last_bytes: usize,
    /// Groups in a row that came soon after a commit and then fell silent.
    count: u32,
    /// Saved-up allowance, its limit, and what it gains a microsecond.
    tokens: u64,
    burst: u64,
    rate: u64,
    filled_us: u64,
}

impl Echo {
    fn look(&mut self, now_us: u64, pending_bytes: usize) {
        if pending_bytes != self.seen_bytes {
            (self.seen_bytes, self.grown_us) = (pending_bytes, now_us);
        }
        let passed_us = now_us.saturating_sub(self.filled_us);
        self.filled_us = self.filled_us.max(now_us);
        self.tokens =
            self.tokens.saturating_add(passed_us.saturating_mul(self.rate)).min(self.burst);
    }

    /// All that is pending came soon after the last commit.
    fn is_prompt(&self) -> bool {
        self.grown_us.saturating_sub(self.acked_us) <= ECHO_SOON_US
    }

    /// When the pending bytes should be committed, if they are an echo.
    fn due_us(&self, now_us: u64, pending_bytes: usize) -> Option<u64> {
        if self.count < ECHOES_MIN || self.tokens < TOKEN || !self.is_prompt() {
            return None;
        }
        let whole = pending_bytes >= self.last_bytes;
        Some(if whole { now_us } else { self.grown_us.saturating_add(ECHO_SILENCE_US) })
    }

    fn handle_commit(&mut self, now_us: u64, was_cut_short: bool) {
        let fell_silent = now_us.saturating_sub(self.grown_us) >= ECHO_SILENCE_US;
        if !self.is_prompt() {
            self.count = 0;
        } else if fell_silent || self.count >= ECHOES_MIN {
            self.count = self.count.saturating_add(1);
        }
        if was_cut_short {
            self.tokens = self.tokens.saturating_sub(TOKEN);
        }
        (self.last_bytes, self.seen_bytes) = (self.seen_bytes, 0);
        // Corrected by the latency, which is told next.
        self.acked_us = now_us;
    }
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
            echo: Echo {
                tokens: allowed * ECHO_SAVED_S * (TOKEN / 1000),
                burst: allowed * ECHO_SAVED_S * (TOKEN / 1000),
                rate: allowed,
                ..Echo::default()
            },
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
        self.echo.look(now_us, pending_bytes);
        if self.window_us == 0 || pending_bytes >= self.commit_bytes || self.tokens >= TOKEN {
            return CommitDecision::Now;
        }
        let window_end_us = since_us.saturating_add(self.adapted_window_us());
        let token_at_us = if self.rate == 0 {
            u64::MAX
        } else {
            now_us.saturating_add((TOKEN - self.tokens).div_ceil(self.rate))
        };
        let mut until_us = window_end_us.min(token_at_us);
        if let Some(due_us) = self.echo.due_us(now_us, pending_bytes) {
            until_us = until_us.min(due_us);
        } else {
            // A look at the end of what counts as soon, so that what comes later is seen to come later.
            let soon_us = self.echo.acked_us.saturating_add(ECHO_SOON_US);
            if self.echo.burst > 0 && soon_us > now_us {
                until_us = until_us.min(soon_us);
            }
        }
        if until_us <= now_us { CommitDecision::Now } else { CommitDecision::Wait { until_us } }
    }

    /// A commit was made.
    pub(crate) fn handle_commit(&mut self, now_us: u64) {
        self.fill(now_us);
        let window_over = self
            .pending_since_us
            .is_none_or(|since_us| now_us.saturating_sub(since_us) >= self.adapted_window_us());
        let was_cut_short = self.window_us > 0 && self.tokens < TOKEN && !window_over;
        self.echo.handle_commit(now_us, was_cut_short);
        self.tokens = self.tokens.saturating_sub(TOKEN);
        self.pending_since_us = None;
    }

    pub(crate) fn handle_latency(&mut self, took_us: u64) {
        self.echo.acked_us = self.echo.acked_us.saturating_add(took_us);
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

    /// Commits in a second when `clients` answer each commit `after_us` later with ten bytes each.
    fn commits_of_waiting_clients(committer: &mut Committer, clients: u64, after_us: u64) -> u64 {
        let (mut commits, mut now_us, mut acked_us, mut pending) = (0, 0, 0, 0);
        while now_us < 1_000_000 {
            let arrived =
                (1..=clients).filter(|client| acked_us + after_us + 20 * client <= now_us);
            pending = pending.max(10 * arrived.count());
            if committer.poll(now_us, pending) == CommitDecision::Now {
                committer.handle_commit(now_us);
                committer.handle_latency(500);
                now_us += 500;
                (commits, pending, acked_us) = (commits + 1, 0, now_us);
            }
            now_us += 10;
        }
        commits
    }

    #[test]
    fn who_waits_for_us_does_not_wait_out_the_window() {
        for clients in [1, 20] {
            let commits = commits_of_waiting_clients(&mut committer(|_| {}), clients, 100);
            assert!(commits > 500, "{commits} commits of {clients} clients");
        }
    }

    #[test]
    fn who_waits_for_us_cannot_wear_out_the_card() {
        let mut committer = committer(|_| {});
        let saved = committer.echo.tokens / TOKEN;
        let commits: u64 =
            (0..60).map(|_| commits_of_waiting_clients(&mut committer, 1, 100)).sum();
        // The simulated clock starts anew with every round: nothing is gained back in between.
        assert!(commits <= saved + 60 * 21, "{commits} commits with {saved} saved up");
    }

    #[test]
    fn slow_answers_are_no_echo() {
        let commits = commits_of_waiting_clients(&mut committer(|_| {}), 20, 10_000);
        assert!(commits <= 25, "{commits}");
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

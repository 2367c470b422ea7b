//! Senders that wait for their acknowledgement before they send more.
//!
//! They answer every commit with the same few records and then fall silent: waiting out the window would only slow
//! them down. Once that was seen twice, their records commit when as much has come as last time, or after a short
//! silence. It is paid from a saved-up allowance of its own (five minutes of it), so that it cannot wear out a card.

use super::TOKEN;

/// What comes this soon after a commit was caused by it, as far as we can tell.
const SOON_US: u64 = 3_000;
/// Silence after which no more of an echo is expected.
const SILENCE_US: u64 = 1_000;
/// Groups that have to look like an echo before they are treated as one.
const COUNT_MIN: u32 = 2;
/// Seconds of the sync allowance that may be saved up.
const SAVED_S: u64 = 300;

/// Whether those who send wait for us.
#[derive(Clone, Debug, Default)]
pub(super) struct Echo {
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
    pub(super) tokens: u64,
    burst: u64,
    rate: u64,
    filled_us: u64,
}

impl Echo {
    /// `allowed`: thousandths of a sync a second. 0: nobody is treated as an echo.
    pub(super) fn new(allowed: u64) -> Self {
        let burst = allowed * SAVED_S * (TOKEN / 1000);
        Self { tokens: burst, burst, rate: allowed, ..Self::default() }
    }

    pub(super) fn look(&mut self, now_us: u64, pending_bytes: usize) {
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
        self.grown_us.saturating_sub(self.acked_us) <= SOON_US
    }

    /// When the pending bytes should be committed, if they are an echo: not before the device has rested for
    /// `rest_us` since the last commit.
    pub(super) fn due_us(&self, now_us: u64, pending_bytes: usize, rest_us: u64) -> Option<u64> {
        if self.count < COUNT_MIN || self.tokens < TOKEN || !self.is_prompt() {
            return None;
        }
        let whole = pending_bytes >= self.last_bytes;
        let due_us = if whole { now_us } else { self.grown_us.saturating_add(SILENCE_US) };
        Some(due_us.max(self.acked_us.saturating_add(rest_us)))
    }

    /// When a large group whose records all answered the last commit should go, whatever the allowance says: those who
    /// send wait for us, and waiting for more of them would only throttle them.
    pub(super) fn answered_us(&self, now_us: u64, pending_bytes: usize) -> Option<u64> {
        let whole = pending_bytes >= self.last_bytes;
        let due_us = if whole { now_us } else { self.grown_us.saturating_add(SILENCE_US) };
        self.is_prompt().then_some(due_us)
    }

    /// When it is clear that what comes is no echo, if that is still ahead.
    pub(super) fn soon_over_us(&self, now_us: u64) -> Option<u64> {
        let soon_us = self.acked_us.saturating_add(SOON_US);
        (self.burst > 0 && soon_us > now_us).then_some(soon_us)
    }

    pub(super) fn handle_commit(&mut self, now_us: u64, was_cut_short: bool) {
        let fell_silent = now_us.saturating_sub(self.grown_us) >= SILENCE_US;
        if !self.is_prompt() {
            self.count = 0;
        } else if fell_silent || self.count >= COUNT_MIN {
            self.count = self.count.saturating_add(1);
        }
        if was_cut_short {
            self.tokens = self.tokens.saturating_sub(TOKEN);
        }
        (self.last_bytes, self.seen_bytes) = (self.seen_bytes, 0);
        // Corrected by the latency, which is told next.
        self.acked_us = now_us;
    }

    /// The last commit took this long.
    pub(super) fn handle_latency(&mut self, took_us: u64) {
        self.acked_us = self.acked_us.saturating_add(took_us);
    }
}

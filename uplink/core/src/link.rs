//! Whether the upstream can be reached, and whether it only looks so.
//!
//! TCP says nothing about a half-dead link for many minutes. What counts is progress: while batches wait for an
//! acknowledgement, one has to come every `watchdog_us`; otherwise the link is given up and built anew.

use crate::backoff::{Backoff, BackoffPolicy};

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Waiting for the next attempt.
    Down {
        /// When, in microseconds of the caller's clock.
        retry_at_us: u64,
    },
    /// An attempt is under way.
    Connecting,
    /// A broker answers.
    Up,
}

impl LinkState {
    /// One word for status: `down`, `connecting` or `up`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Down { .. } => "down",
            Self::Connecting => "connecting",
            Self::Up => "up",
        }
    }
}

/// The link and its watchdog.
#[derive(Clone, Debug)]
pub struct Link {
    state: LinkState,
    backoff: Backoff,
    watchdog_us: u64,
    /// Since when something has been waiting without progress.
    waiting_since_us: Option<u64>,
    last_error: Option<String>,
}

impl Link {
    /// Down, with an attempt due at once.
    #[must_use]
    pub fn new(policy: BackoffPolicy, watchdog_us: u64) -> Self {
        Self {
            state: LinkState::Down { retry_at_us: 0 },
            backoff: Backoff::new(policy),
            watchdog_us,
            waiting_since_us: None,
            last_error: None,
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// Whether a broker answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    /// The last failure, kept until the first acknowledgement after it.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// True once when an attempt is due; the caller makes it.
    pub fn poll_connect(&mut self, now_us: u64) -> bool {
        match self.state {
            LinkState::Down { retry_at_us } if now_us >= retry_at_us => {
                self.state = LinkState::Connecting;
                true
            }
            _ => false,
        }
    }

    /// A broker answered.
    pub fn handle_connected(&mut self, now_us: u64) {
        self.state = LinkState::Up;
        self.backoff.handle_success(now_us);
        self.waiting_since_us = None;
    }

    /// An attempt failed, or the link is given up.
    pub fn handle_failed(&mut self, error: String, now_us: u64, random: u64) {
        self.state = LinkState::Down { retry_at_us: self.backoff.handle_failure(now_us, random) };
        self.last_error = Some(error);
        self.waiting_since_us = None;
    }

    /// A request got no answer. That may be one broker of many: ask another whether the cluster is there, at once.
    pub fn handle_doubt(&mut self, error: String, now_us: u64) {
        self.last_error = Some(error);
        if self.state == LinkState::Up {
            self.state = LinkState::Down { retry_at_us: now_us };
        }
    }

    /// Something was acknowledged. `is_waiting`: more is outstanding.
    pub fn handle_progress(&mut self, now_us: u64, is_waiting: bool) {
        self.last_error = None;
        self.waiting_since_us = is_waiting.then_some(now_us);
    }

    /// Something was sent.
    pub fn handle_sent(&mut self, now_us: u64) {
        self.waiting_since_us.get_or_insert(now_us);
    }

    /// Nothing is outstanding any more.
    pub fn handle_idle(&mut self) {
        self.waiting_since_us = None;
    }

    /// Whether the watchdog has run out.
    #[must_use]
    pub fn is_stalled(&self, now_us: u64) -> bool {
        self.waiting_since_us.is_some_and(|since| now_us.saturating_sub(since) >= self.watchdog_us)
    }

    /// When to poll again at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let attempt = match self.state {
            LinkState::Down { retry_at_us } => Some(retry_at_us),
            LinkState::Connecting | LinkState::Up => None,
        };
        let watchdog = self.waiting_since_us.map(|since| since.saturating_add(self.watchdog_us));
        attempt.into_iter().chain(watchdog).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_keep_the_watchdog_quiet_and_sends_alone_do_not() {
        let mut link = Link::new(BackoffPolicy::LINK, 30);
        assert!(link.poll_connect(0) && !link.poll_connect(0));
        link.handle_connected(0);
        link.handle_sent(0);
        link.handle_sent(20);
        assert!(!link.is_stalled(29) && link.is_stalled(30));
        link.handle_progress(29, true);
        assert!(!link.is_stalled(58) && link.is_stalled(59));
        link.handle_progress(58, false);
        assert!(!link.is_stalled(1_000_000));
    }

    #[test]
    fn doubt_asks_at_once_and_failure_waits() {
        let mut link = Link::new(BackoffPolicy::LINK, 30);
        assert!(link.poll_connect(0));
        link.handle_connected(0);
        link.handle_doubt("gone".to_owned(), 5);
        assert!(link.poll_connect(5));
        link.handle_failed("refused".to_owned(), 6, 0);
        assert!(!link.poll_connect(6));
        assert_eq!(link.last_error(), Some("refused"));
        let at = link.poll_timeout().unwrap();
        assert!(link.poll_connect(at));
    }
}

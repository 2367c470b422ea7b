//! How long to wait before the next attempt: exponential, with jitter, capped.
//!
//! - The delay doubles with each failure in a row, from `first_us` up to `cap_us`; the wait is drawn from the
//!   upper half of the delay, so that a fleet of gateways does not come back in step.
//! - Coming up once does not reset it: only a link that stayed up for `stable_us` does. A link that comes up and
//!   dies at once keeps its long delay.
//! - Time and randomness come in as arguments.

/// The figures of a [`Backoff`], in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Delay after the first failure.
    pub first_us: u64,
    /// Longest delay.
    pub cap_us: u64,
    /// How long it has to stay up before failures are forgotten.
    pub stable_us: u64,
}

impl BackoffPolicy {
    /// For the link: 200 ms up to 30 s, forgotten after 60 s. 30 s bounds how late a mended link is noticed.
    pub const LINK: Self = Self { first_us: 200_000, cap_us: 30_000_000, stable_us: 60_000_000 };
    /// For one upstream partition: 100 ms (a leader election) up to 10 s, forgotten at the first success.
    pub const PARTITION: Self = Self { first_us: 100_000, cap_us: 10_000_000, stable_us: 0 };
    /// For a topic that is refused: 5 s up to 5 min; somebody has to change something upstream.
    pub const TOPIC: Self = Self { first_us: 5_000_000, cap_us: 300_000_000, stable_us: 0 };
}

/// Failures in a row, and what follows from them.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    failures: u32,
    up_since_us: Option<u64>,
}

impl Backoff {
    /// Without failures.
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, failures: 0, up_since_us: None }
    }

    /// It failed (or went down); returns when to try again. `random` is any number.
    pub fn handle_failure(&mut self, now_us: u64, random: u64) -> u64 {
        if let Some(since) = self.up_since_us.take()
            && now_us.saturating_sub(since) >= self.policy.stable_us
        {
            self.failures = 0;
        }
        let delay = self
            .policy
            .first_us
            .checked_shl(self.failures.min(40))
            .filter(|delay| *delay <= self.policy.cap_us && *delay >= self.policy.first_us)
            .unwrap_or(self.policy.cap_us);
        self.failures = self.failures.saturating_add(1);
        let half = delay / 2;
        now_us.saturating_add(half).saturating_add(random % (delay - half + 1))
    }

    /// It came up (or worked).
    pub fn handle_success(&mut self, now_us: u64) {
        self.up_since_us.get_or_insert(now_us);
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackoffPolicy = BackoffPolicy { first_us: 100, cap_us: 1000, stable_us: 5000 };

    #[test]
    fn delays_double_up_to_the_cap_and_jitter_stays_in_the_upper_half() {
        for random in [0, 1, 77, u64::MAX] {
            let mut backoff = Backoff::new(POLICY);
            for delay in [100, 200, 400, 800, 1000, 1000] {
                let wait = backoff.handle_failure(10_000, random) - 10_000;
                assert!((delay / 2..=delay).contains(&wait), "{wait} of {delay}");
            }
        }
    }

    #[test]
    fn a_link_that_dies_at_once_keeps_its_long_delay() {
        let mut backoff = Backoff::new(POLICY);
        for _ in 0..10 {
            backoff.handle_failure(0, 0);
        }
        backoff.handle_success(1000);
        assert!(backoff.handle_failure(1000 + 4999, 0) - 5999 >= 500);
    }

    #[test]
    fn a_link_that_stayed_up_starts_afresh() {
        let mut backoff = Backoff::new(POLICY);
        for _ in 0..10 {
            backoff.handle_failure(0, 0);
        }
        backoff.handle_success(1000);
        backoff.handle_success(5000);
        assert!(backoff.handle_failure(6000, 0) - 6000 <= 100);
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut backoff = Backoff::new(BackoffPolicy::LINK);
        for _ in 0..1000 {
            let at = backoff.handle_failure(0, u64::MAX);
            assert!(at <= BackoffPolicy::LINK.cap_us);
        }
        assert_eq!(backoff.handle_failure(u64::MAX, 3), u64::MAX);
    }
}

//! When a group closes and is synced. Pure: numbers in, a decision out.

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

//! What strangers can cause at any rate is told now and then, with how often it was not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often one kind of line is written at most.
const EVERY: Duration = Duration::from_secs(5);

/// One kind of line in the log.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told_at: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Whether to tell it now: with how many were passed over since the last time.
    pub(crate) fn turn(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told_at.is_some_and(|told_at| now.saturating_duration_since(told_at) < EVERY) {
            state.untold += 1;
            return None;
        }
        state.told_at = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_its_size_is_told_by_the_next() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.turn(start), Some(0));
        assert!((0..1_000).all(|_| seldom.turn(start + EVERY / 2).is_none()));
        assert_eq!(seldom.turn(start + EVERY), Some(1_000));
        assert_eq!(seldom.turn(start + EVERY * 2), Some(0));
    }
}

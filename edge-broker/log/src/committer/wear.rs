//! Holding a lane to what it may write in a day.
//!
//! - Unspent budget is saved up, an hour's worth at most; a start begins with ten minutes' worth, so that a gateway
//!   that restarts often gains nothing by it. A debt is remembered up to an hour's worth as well.
//! - Looked at every 10 s of powered-on time. When nothing is saved and the last look's bytes were more than their
//!   share of the day, the window and the byte trigger are doubled, a step a look, up to their bounds. Larger groups
//!   have less padding, headers and directories a record, and compress better.
//! - A step is taken back when half of what may be saved is saved, or when the bytes of the last look were at most
//!   half of their share: even twice as many groups would be within the budget.
//! - What remains over the budget at the last step are the records themselves: [`WearPace::is_exceeded`] says so.

const DAY_US: u64 = 86_400_000_000;
const LOOK_US: u64 = 10_000_000;
const SAVED_US: u64 = 3_600_000_000;
const SAVED_AT_START_US: u64 = 600_000_000;
/// Time constant of the running average.
const AVERAGE_US: u64 = 600_000_000;

/// The state behind the steps. Pure: bytes and time in, steps out.
#[derive(Clone, Debug, Default)]
pub(super) struct WearPace {
    budget_per_day: Option<u64>,
    steps: u32,
    steps_max: u32,
    /// Saved up, or owed.
    credit_bytes: i64,
    /// Since the last look.
    written_bytes: u64,
    looked_us: Option<u64>,
    /// Running average.
    bytes_per_day: u64,
    is_over: bool,
}

impl WearPace {
    pub(super) fn new(budget_per_day: Option<u64>, steps_max: u32) -> Self {
        let credit_bytes = budget_per_day.map_or(0, |budget| worth(budget, SAVED_AT_START_US));
        Self { budget_per_day, steps_max, credit_bytes, ..Self::default() }
    }

    /// The budget has changed: another lane needs more or less than before.
    pub(super) fn set_budget(&mut self, budget_per_day: Option<u64>) {
        if self.budget_per_day.is_none() {
            self.credit_bytes = budget_per_day.map_or(0, |budget| worth(budget, SAVED_AT_START_US));
        }
        self.budget_per_day = budget_per_day;
        if budget_per_day.is_none() {
            (self.steps, self.is_over) = (0, false);
        }
    }

    /// By how many doublings window and byte trigger are widened now.
    pub(super) fn steps(&self) -> u32 {
        self.steps
    }

    /// Running average of what is written, over about ten minutes.
    pub(super) fn bytes_per_day(&self) -> u64 {
        self.bytes_per_day
    }

    /// The budget is exceeded with everything widened as far as it may be.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_over && self.steps == self.steps_max
    }

    pub(super) fn handle_written(&mut self, bytes: u64) {
        self.written_bytes = self.written_bytes.saturating_add(bytes);
    }

    pub(super) fn look(&mut self, now_us: u64) {
        let looked_us = *self.looked_us.get_or_insert(now_us);
        let passed_us = now_us.saturating_sub(looked_us);
        if passed_us < LOOK_US {
            return;
        }
        let written = std::mem::take(&mut self.written_bytes);
        self.looked_us = Some(now_us);
        self.average(written, passed_us);
        let Some(budget) = self.budget_per_day else { return };
        let (share, saved_max) = (worth(budget, passed_us), worth(budget, SAVED_US));
        let written = i64::try_from(written).unwrap_or(i64::MAX);
        self.credit_bytes = self
            .credit_bytes
            .saturating_add(share)
            .saturating_sub(written)
            .clamp(-saved_max, saved_max);
        self.is_over = self.credit_bytes <= 0 && written > share;
        if self.is_over {
            self.steps = (self.steps + 1).min(self.steps_max);
        } else if self.credit_bytes >= saved_max / 2 || written <= share / 2 {
            let looks = u32::try_from(passed_us / LOOK_US).unwrap_or(u32::MAX);
            self.steps = self.steps.saturating_sub(looks);
        }
    }

    fn average(&mut self, written: u64, passed_us: u64) {
        let rate = u128::from(written) * u128::from(DAY_US) / u128::from(passed_us);
        let (old, weight) = (u128::from(self.bytes_per_day), u128::from(AVERAGE_US));
        let mixed =
            (old * weight + rate * u128::from(passed_us)) / (weight + u128::from(passed_us));
        self.bytes_per_day = u64::try_from(mixed).unwrap_or(u64::MAX);
    }
}

/// What a budget allows in a time.
fn worth(budget_per_day: u64, time_us: u64) -> i64 {
    let bytes = u128::from(budget_per_day) * u128::from(time_us) / u128::from(DAY_US);
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

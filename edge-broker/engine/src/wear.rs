//! What is written to flash, how much that is in a day, and what it leaves of the card.
//!
//! - Time is powered-on time: a gateway that is off wears nothing out.
//! - The running average follows the last day; before a day has passed it is the average of all.
//! - "Long term" reaches over restarts. It is kept in the state of the `system` lane: an event at most once an hour,
//!   ten minutes after a start at the earliest, and none while nothing was written. A power cut costs up to an hour of
//!   counting.
//! - Sums, not promises: the device's counter holds what everybody wrote, our own counters only what lanes wrote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) const KEY: &[u8] = b"wear";
const VERSION: u8 = 1;
pub(crate) const DAY_S: u64 = 86_400;
/// Between two records, and before the first of a start.
const STORE_EVERY_S: u64 = 3_600;
const STORE_FIRST_S: u64 = 600;
/// Less than this is nothing: no record is made because of it.
const STORE_BYTES_MIN: u64 = 1 << 20;
/// A rate over less time than this says nothing.
const RATE_MIN_S: u64 = 60;
/// Before so much powered-on time has passed, what new segments cost once outweighs the rest: no rate is told.
const TELL_AFTER_S: u64 = 600;
/// And nothing is foretold.
const FORETELL_AFTER_S: u64 = 3_600;

/// Counters of all lanes together, and of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Bytes of values, as appended.
    pub payload_bytes: u64,
    /// Bytes written to journals, padding included.
    pub journal_bytes: u64,
    /// The padding in it: what fills frames up to whole sectors.
    pub padding_bytes: u64,
    /// Bytes written beside the journals: zeroing of new segments, side indexes.
    pub other_bytes: u64,
    /// All of these writes, each rounded up to the 16 KiB pages that it touches: what many cards write inside.
    pub page_bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Bytes that the kernel wrote to the device, for everybody; `None`: unknown.
    pub device_bytes: Option<u64>,
}

impl Written {
    /// Journals and what stands beside them.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.journal_bytes + self.other_bytes
    }

    fn minus(&self, before: &Self) -> Self {
        let device = self.device_bytes.zip(before.device_bytes);
        Self {
            payload_bytes: self.payload_bytes.saturating_sub(before.payload_bytes),
            journal_bytes: self.journal_bytes.saturating_sub(before.journal_bytes),
            padding_bytes: self.padding_bytes.saturating_sub(before.padding_bytes),
            other_bytes: self.other_bytes.saturating_sub(before.other_bytes),
            page_bytes: self.page_bytes.saturating_sub(before.page_bytes),
            syncs: self.syncs.saturating_sub(before.syncs),
            device_bytes: device.map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

/// Bytes a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerDay {
    /// Of values.
    pub payload: u64,
    /// What lanes wrote.
    pub own: u64,
    /// The same in 16 KiB pages.
    pub pages: u64,
    /// What everybody wrote to the device; `None`: unknown.
    pub device: Option<u64>,
}

impl PerDay {
    fn of(written: &Written, seconds: u64) -> Option<Self> {
        if seconds < RATE_MIN_S {
            return None;
        }
        let a_day = |bytes: u64| {
            let bytes = u128::from(bytes) * u128::from(DAY_S) / u128::from(seconds);
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        Some(Self {
            payload: a_day(written.payload_bytes),
            own: a_day(written.own_bytes()),
            pages: a_day(written.page_bytes),
            device: written.device_bytes.map(a_day),
        })
    }

    /// Moves `part` of the way to a newer rate.
    fn approach(&mut self, newer: &Self, part: f64) {
        let mix = |old: u64, new: u64| (old as f64 + (new as f64 - old as f64) * part) as u64;
        self.payload = mix(self.payload, newer.payload);
        self.own = mix(self.own, newer.own);
        self.pages = mix(self.pages, newer.pages);
        self.device = match (self.device, newer.device) {
            (Some(old), Some(new)) => Some(mix(old, new)),
            (old, new) => new.or(old),
        };
    }
}

/// What is kept over restarts. Fields are positional: a change is a new version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LongTerm {
    pub(crate) powered_on_s: u64,
    pub(crate) written: Written,
    average: PerDay,
    /// By lane: when the last pass of its scrub ended, in seconds of powered-on time.
    pub(crate) scrubbed_s: BTreeMap<String, u64>,
}

impl LongTerm {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(postcard::to_stdvec(self).expect("a record of plain data always serialises"));
        out
    }

    /// Nothing that can be read is nothing known.
    pub(crate) fn decode(bytes: Option<&[u8]>) -> Self {
        match bytes.and_then(<[u8]>::split_first) {
            Some((&VERSION, body)) => postcard::from_bytes(body).unwrap_or_default(),
            _ => Self::default(),
        }
    }
}

/// The wear as `status` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WearStatus {
    /// Seconds since this program started.
    pub since_start_s: u64,
    /// Written since then.
    pub since_start: Written,
    /// Seconds of powered-on time that were counted, over all starts.
    pub powered_on_s: u64,
    /// Written in that time.
    pub long_term: Written,
    /// Bytes a day: the running average of the last day of powered-on time. `None`: too early to say.
    pub per_day: Option<PerDay>,
    /// Bytes a day over all the powered-on time that was counted.
    pub long_term_per_day: Option<PerDay>,
    /// What should be written in a day at most; `None`: no budget.
    pub budget_bytes_per_day: Option<u64>,
    /// What the card can take, as the operator says.
    pub card_endurance_bytes: Option<u64>,
    /// Days of powered-on time until then, at the running average. By the device's counter, or where it is unknown by
    /// our own in 16 KiB pages.
    pub remaining_days: Option<u64>,
}

/// Turns counters into rates. Pure: counters and time in.
#[derive(Clone, Debug)]
pub(crate) struct WearMeter {
    before: LongTerm,
    started_us: u64,
    base: Written,
    seen_us: u64,
    seen: Written,
    average: PerDay,
    stored_s: u64,
    stored_own_bytes: u64,
    pub(crate) budget_bytes_per_day: Option<u64>,
    pub(crate) card_endurance_bytes: Option<u64>,
}

impl WearMeter {
    pub(crate) fn new(before: LongTerm, now_us: u64, written: Written) -> Self {
        Self {
            average: before.average,
            before,
            started_us: now_us,
            base: written,
            seen_us: now_us,
            seen: written,
            stored_s: 0,
            stored_own_bytes: written.own_bytes(),
            budget_bytes_per_day: None,
            card_endurance_bytes: None,
        }
    }

    /// Powered-on time so far, earlier starts included.
    pub(crate) fn powered_on_s(&self, now_us: u64) -> u64 {
        self.before.powered_on_s + self.since_start_s(now_us)
    }

    fn since_start_s(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.started_us) / 1_000_000
    }

    /// The counters as they are now.
    pub(crate) fn observe(&mut self, now_us: u64, written: Written) {
        let passed_s = now_us.saturating_sub(self.seen_us) / 1_000_000;
        if passed_s < RATE_MIN_S {
            return;
        }
        let delta = written.minus(&self.seen);
        (self.seen_us, self.seen) = (now_us, written);
        if let Some(rate) = PerDay::of(&delta, passed_s) {
            let known_s = self.powered_on_s(now_us).clamp(passed_s, DAY_S);
            self.average.approach(&rate, passed_s as f64 / known_s as f64);
        }
    }

    fn long_term(&self, written: &Written) -> Written {
        let (before, now) = (&self.before.written, written.minus(&self.base));
        Written {
            payload_bytes: before.payload_bytes + now.payload_bytes,
            journal_bytes: before.journal_bytes + now.journal_bytes,
            padding_bytes: before.padding_bytes + now.padding_bytes,
            other_bytes: before.other_bytes + now.other_bytes,
            page_bytes: before.page_bytes + now.page_bytes,
            syncs: before.syncs + now.syncs,
            device_bytes: match (before.device_bytes, now.device_bytes) {
                (Some(before), Some(now)) => Some(before + now),
                (before, now) => now.or(before),
            },
        }
    }

    pub(crate) fn status(&self, now_us: u64, written: &Written) -> WearStatus {
        let powered_on_s = self.powered_on_s(now_us);
        let long_term = self.long_term(written);
        let per_day = (powered_on_s >= TELL_AFTER_S).then_some(self.average);
        let since_start_s = self.since_start_s(now_us);
        WearStatus {
            since_start_s,
            since_start: written.minus(&self.base),
            powered_on_s,
            long_term,
            per_day,
            long_term_per_day: PerDay::of(&long_term, powered_on_s).filter(|_| per_day.is_some()),
            budget_bytes_per_day: self.budget_bytes_per_day,
            card_endurance_bytes: self.card_endurance_bytes,
            remaining_days: self
                .card_endurance_bytes
                .zip(per_day)
                .filter(|_| powered_on_s >= FORETELL_AFTER_S)
                .and_then(|(endurance, rate)| remaining_days(endurance, &long_term, &rate)),
        }
    }

    /// The record to store now, if it is time and there is something to tell.
    pub(crate) fn record_due(
        &mut self,
        now_us: u64,
        written: &Written,
        scrubbed_s: impl FnOnce() -> BTreeMap<String, u64>,
    ) -> Option<LongTerm> {
        let since_start_s = self.since_start_s(now_us);
        let wait_s = if self.stored_s == 0 { STORE_FIRST_S } else { STORE_EVERY_S };
        let is_quiet = written.own_bytes() < self.stored_own_bytes + STORE_BYTES_MIN;
        if since_start_s < self.stored_s + wait_s || is_quiet {
            return None;
        }
        (self.stored_s, self.stored_own_bytes) = (since_start_s, written.own_bytes());
        Some(LongTerm {
            powered_on_s: self.powered_on_s(now_us),
            written: self.long_term(written),
            average: self.average,
            scrubbed_s: scrubbed_s(),
        })
    }
}

/// The wear of a gateway that does not run, from what it has stored.
pub(crate) fn stored_status(stored: &LongTerm) -> WearStatus {
    WearStatus {
        powered_on_s: stored.powered_on_s,
        long_term: stored.written,
        per_day: (stored.powered_on_s >= TELL_AFTER_S).then_some(stored.average),
        long_term_per_day: PerDay::of(&stored.written, stored.powered_on_s),
        ..WearStatus::default()
    }
}

fn remaining_days(endurance: u64, written: &Written, rate: &PerDay) -> Option<u64> {
    let (spent, a_day) = match (written.device_bytes, rate.device) {
        (Some(spent), Some(a_day)) => (spent, a_day),
        _ => (written.page_bytes, rate.pages),
    };
    endurance.saturating_sub(spent).checked_div(a_day)
}

/// Divides a budget: who needs less than an even part gets what it needs and a quarter more, what is left goes to the
/// others evenly. `None` is a lane that takes whatever it gets.
pub(crate) fn divide(budget: u64, demands: &[Option<u64>]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    let demand =
        |index: usize| demands[index].map_or(u64::MAX, |bytes| bytes.saturating_add(bytes / 4));
    order.sort_by_key(|index| demand(*index));
    let mut parts = vec![0; demands.len()];
    let mut left = budget;
    for (done, index) in order.iter().enumerate() {
        let even = left / (order.len() - done) as u64;
        parts[*index] = demand(*index).min(even);
        left -= parts[*index];
    }
    // Nobody asked for it: whoever begins to write may have it until the next look.
    let spare = left / demands.len().max(1) as u64;
    parts.iter_mut().for_each(|part| *part += spare);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: u64 = 3_600_000_000;

    fn written(mib: u64) -> Written {
        Written {
            payload_bytes: mib << 22,
            journal_bytes: mib << 20,
            page_bytes: mib << 21,
            syncs: mib,
            device_bytes: Some((mib << 20) + (1 << 40)),
            ..Written::default()
        }
    }

    #[test]
    fn rates_are_of_powered_on_time_and_survive_a_restart() {
        let mut meter = WearMeter::new(LongTerm::default(), 0, written(7));
        assert_eq!(meter.status(1_000_000, &written(8)).per_day, None, "too early to say");
        for hour in 1..=24u64 {
            meter.observe(hour * HOUR_US, written(7 + hour * 10));
        }
        let status = meter.status(24 * HOUR_US, &written(247));
        let per_day = status.per_day.unwrap();
        assert_eq!(status.since_start.journal_bytes, 240 << 20);
        assert_eq!((per_day.own, per_day.device), (240 << 20, Some(240 << 20)));
        assert_eq!(per_day.pages, 480 << 20);
        // Off for whatever time; then half a day with nothing written.
        let record = meter.record_due(24 * HOUR_US, &written(247), BTreeMap::new).unwrap();
        let stored = LongTerm::decode(Some(&record.encode()));
        assert_eq!(stored, record);
        let mut meter = WearMeter::new(stored, 0, written(0));
        meter.observe(12 * HOUR_US, written(0));
        let status = meter.status(12 * HOUR_US, &written(0));
        assert_eq!(status.powered_on_s, 36 * 3_600);
        assert_eq!(status.long_term_per_day.unwrap().own, 160 << 20);
        assert_eq!(status.per_day.unwrap().own, 120 << 20);
        assert_eq!(status.since_start, Written { device_bytes: Some(0), ..Written::default() });
    }

    #[test]
    fn nothing_is_stored_in_a_quiet_system_and_once_an_hour_in_a_busy_one() {
        let mut meter = WearMeter::new(LongTerm::default(), 0, written(0));
        let stored = |meter: &mut WearMeter, minute: u64, mib: u64| {
            meter.record_due(minute * 60_000_000, &written(mib), BTreeMap::new).is_some()
        };
        for minute in 0..600 {
            assert!(!stored(&mut meter, minute, 0));
        }
        let busy: Vec<u64> = (600..780).filter(|at| stored(&mut meter, *at, *at * 10)).collect();
        assert_eq!(busy, [600, 660, 720]);
        let mut meter = WearMeter::new(LongTerm::default(), 0, written(0));
        let first: Vec<u64> = (0..71).filter(|at| stored(&mut meter, *at, *at * 10)).collect();
        assert_eq!(first, [10, 70]);
    }

    #[test]
    fn the_rest_of_a_card_is_told() {
        let mut meter = WearMeter::new(LongTerm::default(), 0, written(0));
        meter.card_endurance_bytes = Some(101 << 30);
        meter.observe(24 * HOUR_US, written(1 << 10));
        let status = meter.status(24 * HOUR_US, &written(1 << 10));
        assert_eq!(status.remaining_days, Some(100));
        // Without the device's counter, by 16 KiB pages.
        let unknown = |mib| Written { device_bytes: None, ..written(mib) };
        let mut meter = WearMeter::new(LongTerm::default(), 0, unknown(0));
        meter.card_endurance_bytes = Some(102 << 30);
        meter.observe(24 * HOUR_US, unknown(1 << 10));
        let status = meter.status(24 * HOUR_US, &unknown(1 << 10));
        assert_eq!((status.remaining_days, status.per_day.unwrap().device), (Some(50), None));
    }

    #[test]
    fn a_foreign_or_damaged_record_is_nothing_known() {
        for bytes in [None, Some(&b""[..]), Some(&b"\x02abc"[..]), Some(&b"\x01\xff"[..])] {
            assert_eq!(LongTerm::decode(bytes), LongTerm::default());
        }
    }

    #[test]
    fn a_budget_is_divided_by_need() {
        assert!(divide(1_000, &[]).is_empty());
        // Nobody needs much: all may grow.
        assert_eq!(divide(1_000, &[Some(80), Some(0), Some(80)]), [366, 266, 366]);
        // A hungry lane gets what the others leave.
        assert_eq!(divide(1_000, &[Some(80), None, Some(160)]), [100, 700, 200]);
        // Two of them share it.
        assert_eq!(divide(1_000, &[None, Some(160), None]), [400, 200, 400]);
        // A small one is never squeezed by large ones.
        assert_eq!(divide(900, &[Some(10_000), Some(8), Some(10_000)]), [445, 10, 445]);
    }
}

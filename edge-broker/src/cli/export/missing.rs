//! What was asked for and is not there: lost, or left out by a rule of its lane or topic.

use edge_log::BatchRef;
use serde::Serialize;

use super::source::{Part, Source, Why};

/// Most ranges that are listed for a partition.
const LISTED_MAX: usize = 4096;

/// A range of offsets that could not be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) why: String,
}

/// Records that are not there because a rule says so: thinning, compaction, a full lane that drops its oldest. No
/// damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LeftOut {
    pub(super) rule: String,
    /// How many.
    pub(super) records: u64,
    /// They stood from this offset on, and below that one; others between may be there.
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What is not there of one partition.
#[derive(Debug, Default)]
pub(super) struct NotThere {
    /// In the order of the offsets.
    pub(super) missing: Vec<Missing>,
    /// Ranges beyond those listed.
    pub(super) missing_more: u64,
    /// One for each rule.
    pub(super) left_out: Vec<LeftOut>,
}

/// Finds out about one partition.
pub(super) struct MissingList<'s> {
    source: &'s Source,
    part: &'s Part,
    end: u64,
    found: NotThere,
}

impl<'s> MissingList<'s> {
    pub(super) fn new(source: &'s Source, part: &'s Part, end: u64) -> Self {
        Self { source, part, end, found: NotThere::default() }
    }

    /// Nothing was found at offsets `from..to`.
    pub(super) fn expect(&mut self, from: u64, to: u64) {
        let to = to.min(self.end);
        if from < to {
            self.note(self.source.why_missing(self.part, from, to));
        }
    }

    /// Offsets `from..to` lie before the log start.
    pub(super) fn before_start(&mut self, from: u64, to: u64) {
        self.note(self.source.dropped(self.part, from, to));
    }

    /// A batch may have holes: what cleaning left out between its records.
    pub(super) fn within(&mut self, batch: &BatchRef<'_>, from: u64) {
        let (base, end) = (batch.base_offset().0, batch.end_offset().0);
        if u64::from(batch.count()) == end - base {
            return;
        }
        let (mut next, to) = (base.max(from), end.min(self.end));
        let mut holes = Vec::new();
        let unpacked = batch.for_each_record(&mut |record| {
            let offset = record.offset.0;
            if next < offset.min(to) {
                holes.push((next, offset.min(to)));
            }
            next = next.max(offset + 1);
        });
        // What cannot be unpacked is told when it is written.
        if unpacked.is_err() {
            return;
        }
        if next < to {
            holes.push((next, to));
        }
        for (from, to) in holes {
            self.note(self.source.rules(self.part, from, to));
        }
    }

    fn note(&mut self, parts: Vec<(u64, u64, Why)>) {
        for (from, to, why) in parts {
            match why {
                Why::Damage(why) => self.add(from, to, why),
                Why::Rule(rule) => self.leave_out(from, to, rule),
            }
        }
    }

    /// They are lost.
    pub(super) fn add(&mut self, from: u64, to: u64, why: String) {
        if from >= to {
            return;
        }
        if self.found.missing.len() < LISTED_MAX {
            self.found.missing.push(Missing { from, to, why });
        } else {
            self.found.missing_more += 1;
        }
    }

    fn leave_out(&mut self, from: u64, to: u64, rule: String) {
        let known = self.found.left_out.iter_mut().find(|known| known.rule == rule);
        if let Some(known) = known {
            known.records += to - from;
            (known.from, known.to) = (known.from.min(from), known.to.max(to));
        } else {
            self.found.left_out.push(LeftOut { rule, records: to - from, from, to });
        }
    }

    pub(super) fn finish(self) -> NotThere {
        self.found
    }
}

//! What was asked for and is not there.

use serde::Serialize;

use super::source::{Part, Source};

/// Most ranges that are listed for a partition.
const LISTED_MAX: usize = 4096;

/// A range of offsets that could not be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) why: String,
}

/// The ranges of one partition, in order.
pub(super) struct MissingList<'s> {
    source: &'s Source,
    part: &'s Part,
    end: u64,
    list: Vec<Missing>,
    more: u64,
}

impl<'s> MissingList<'s> {
    pub(super) fn new(source: &'s Source, part: &'s Part, end: u64) -> Self {
        Self { source, part, end, list: Vec::new(), more: 0 }
    }

    /// Offsets `from..to` were left out.
    pub(super) fn expect(&mut self, from: u64, to: u64) {
        let to = to.min(self.end);
        for (from, to, why) in self.source.why_missing(self.part, from, to) {
            self.add(from, to, why);
        }
    }

    pub(super) fn add(&mut self, from: u64, to: u64, why: String) {
        if from >= to {
            return;
        }
        if self.list.len() < LISTED_MAX {
            self.list.push(Missing { from, to, why });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn finish(self) -> (Vec<Missing>, u64) {
        (self.list, self.more)
    }
}

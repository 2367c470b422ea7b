//! A place in a lane: a record of a commit group.

use std::fmt;

use edge_log::JournalPosition;
use serde::{Deserialize, Serialize};

/// Where a reader of a lane stands: before this record. Orders as the lane does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// The commit group.
    pub group: JournalPosition,
    /// Index of the record inside the group, by the order of its batches.
    pub record: u32,
}

impl Place {
    /// Before everything.
    pub const START: Self = Self { group: JournalPosition::START, record: 0 };

    /// Before the first record of a group.
    #[must_use]
    pub fn of_group(group: JournalPosition) -> Self {
        Self { group, record: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.group, self.record)
    }
}

//! What is wrong with a file, all of it: a value that is wrong is noted and its default stands in for it, so that the
//! rest is looked at as well.

use super::values::Checked;
use crate::error::Fault;

/// What is wrong, and what is legal and probably not meant.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// What follows from the file and is worth knowing.
    pub(super) notes: Vec<Fault>,
}

impl Findings {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn warn(&mut self, fault: Fault) {
        self.warnings.push(fault);
    }

    /// A value that may be absent; absent as well if it is wrong.
    pub(super) fn take<T>(&mut self, checked: Checked<Option<T>>) -> Option<T> {
        self.or(checked, None)
    }

    /// A value, or `instead` of it if it is wrong.
    pub(super) fn or<T>(&mut self, checked: Checked<T>, instead: T) -> T {
        checked.unwrap_or_else(|fault| {
            self.faults.push(fault);
            instead
        })
    }

    /// Notes what a check of a relation finds.
    pub(super) fn check(&mut self, checked: Checked<()>) {
        self.or(checked, ());
    }
}

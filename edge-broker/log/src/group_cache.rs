//! The pool of decoded groups that all readers of a lane share.
//!
//! Bounded in bytes; the least recently read group goes first. What a reader still holds after that is its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::decoded::DecodedGroup;
use crate::position::JournalPosition;

/// Decoded groups by position.
#[derive(Debug)]
pub(crate) struct GroupCache {
    groups: HashMap<JournalPosition, Slot>,
    /// Position by last use, the longest ago first.
    by_use: BTreeMap<u64, JournalPosition>,
    clock: u64,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Slot {
    group: Arc<DecodedGroup>,
    bytes: usize,
    used: u64,
}

impl GroupCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { groups: HashMap::new(), by_use: BTreeMap::new(), clock: 0, bytes: 0, bytes_max }
    }

    pub(crate) fn get(&mut self, at: JournalPosition) -> Option<Arc<DecodedGroup>> {
        self.clock += 1;
        let slot = self.groups.get_mut(&at)?;
        self.by_use.remove(&slot.used);
        slot.used = self.clock;
        self.by_use.insert(self.clock, at);
        Some(Arc::clone(&slot.group))
    }

    /// Adds a group. Returns those that had to go.
    pub(crate) fn insert(&mut self, group: Arc<DecodedGroup>) -> Vec<Arc<DecodedGroup>> {
        let at = group.position();
        let bytes = group.memory_bytes();
        self.clock += 1;
        let mut gone = Vec::new();
        gone.extend(self.remove(at));
        self.groups.insert(at, Slot { group, bytes, used: self.clock });
        self.by_use.insert(self.clock, at);
        self.bytes += bytes;
        while self.bytes > self.bytes_max
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = *oldest;
            gone.extend(self.remove(oldest));
        }
        gone
    }

    /// Forgets all groups before a position.
    pub(crate) fn forget_before(&mut self, start: JournalPosition) {
        let old: Vec<_> = self.groups.keys().filter(|at| **at < start).copied().collect();
        for at in old {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: JournalPosition) -> Option<Arc<DecodedGroup>> {
        let slot = self.groups.remove(&at)?;
        self.by_use.remove(&slot.used);
        self.bytes -= slot.bytes;
        Some(slot.group)
    }
}

//! Where sequential readers stopped: so that the next read starts there without a search.
//!
//! A small table, direct-mapped: a collision or a stale entry costs a lookup in the index, nothing else.

use edge_wire::{Offset, StreamId};

use crate::position::JournalPosition;

const HINTS: usize = 512;

/// Places by stream and next offset.
#[derive(Debug)]
pub(crate) struct Hints {
    slots: Box<[Hint; HINTS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hint {
    stream: u32,
    next: u64,
    at: JournalPosition,
}

impl Default for Hints {
    fn default() -> Self {
        Self { slots: Box::new([Hint::default(); HINTS]) }
    }
}

impl Hints {
    /// A group at or before the one that holds `next`.
    pub(crate) fn get(&self, stream: StreamId, next: Offset) -> Option<JournalPosition> {
        let hint = self.slots[slot(stream, next)];
        let same = hint.stream == stream.0 && hint.next == next.0 && hint.at.segment != 0;
        same.then_some(hint.at)
    }

    pub(crate) fn put(&mut self, stream: StreamId, next: Offset, at: JournalPosition) {
        self.slots[slot(stream, next)] = Hint { stream: stream.0, next: next.0, at };
    }
}

fn slot(stream: StreamId, next: Offset) -> usize {
    let mixed = (u64::from(stream.0) << 32 ^ next.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 55) as usize % HINTS
}

//! The pool of commit groups in memory that all readers of a lane share.
//!
//! - Bounded in bytes; the least recently read group goes first. What a reader still holds after that is its own.
//! - A group that was just committed comes in as it went to the disk, not taken apart: the first reader does that.
//!   Where nobody follows the tail, nobody pays for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hashbrown::HashMap;

use crate::clock::BootClocks;
use crate::decoded::DecodedGroup;
use crate::journal::frame::FrameHeader;
use crate::position::JournalPosition;

/// What an entry of the directory becomes in memory, at most.
const BATCH_BYTES: usize = 64;

/// A group that was committed: what its frame holds, unpacked.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) header: FrameHeader,
    pub(crate) directory: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) raw: Vec<u8>,
}

/// A group in the pool.
#[derive(Debug)]
pub(crate) struct CachedGroup {
    /// Until the first reader comes.
    committed: Mutex<Option<Committed>>,
    group: OnceLock<Option<Arc<DecodedGroup>>>,
}

impl CachedGroup {
    fn committed(group: Committed) -> Self {
        Self { committed: Mutex::new(Some(group)), group: OnceLock::new() }
    }

    fn decoded(group: Arc<DecodedGroup>) -> Self {
        Self { committed: Mutex::new(None), group: OnceLock::from(Some(group)) }
    }

    /// The group, taken apart now if nobody has yet. `None`: it is not what it should be; the disk will say the same.
    pub(crate) fn group(&self, clocks: &BootClocks) -> Option<Arc<DecodedGroup>> {
        let decode = || {
            let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            let Committed { header, directory, body, raw } = committed;
            let decoded = DecodedGroup::parse(&header, &directory, body, raw);
            debug_assert!(decoded.is_ok(), "a group that was just built is malformed");
            decoded.ok().map(|mut group| {
                group.correct(clocks);
                Arc::new(group)
            })
        };
        self.group.get_or_init(decode).clone()
    }

    /// Takes the large buffers out, for use by another group, if no reader holds them.
    pub(crate) fn into_buffers(self) -> Option<[Vec<u8>; 2]> {
        let committed = self.committed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(Committed { body, raw, .. }) = committed {
            return Some([body, raw]);
        }
        let group = self.group.into_inner().flatten()?;
        Arc::into_inner(group).map(DecodedGroup::into_buffers)
    }
}

/// Groups by position.
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
    group: Arc<CachedGroup>,
    bytes: usize,
    used: u64,
}

impl GroupCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { groups: HashMap::new(), by_use: BTreeMap::new(), clock: 0, bytes: 0, bytes_max }
    }

    pub(crate) fn get(&mut self, at: JournalPosition) -> Option<Arc<CachedGroup>> {
        self.clock += 1;
        let slot = self.groups.get_mut(&at)?;
        self.by_use.remove(&slot.used);
        slot.used = self.clock;
        self.by_use.insert(self.clock, at);
        Some(Arc::clone(&slot.group))
    }

    /// Adds a group that was read. Returns those that had to go.
    pub(crate) fn insert(&mut self, group: Arc<DecodedGroup>) -> Vec<Arc<CachedGroup>> {
        let (at, bytes) = (group.position(), group.memory_bytes());
        self.put(at, bytes, CachedGroup::decoded(group))
    }

    /// Adds a group that was committed. Returns those that had to go.
    pub(crate) fn insert_committed(&mut self, group: Committed) -> Vec<Arc<CachedGroup>> {
        // What it takes once it is taken apart: an entry of the directory has a byte at least, and envelopes do not
        // grow beyond the body that they come from by much.
        let apart = group.directory.len() * BATCH_BYTES + size_of::<DecodedGroup>();
        let bytes = group.body.capacity() + group.raw.capacity() + group.directory.len() + apart;
        self.put(group.header.position, bytes, CachedGroup::committed(group))
    }

    fn put(
        &mut self,
        at: JournalPosition,
        bytes: usize,
        group: CachedGroup,
    ) -> Vec<Arc<CachedGroup>> {
        self.clock += 1;
        let mut gone = Vec::new();
        gone.extend(self.remove(at));
        self.groups.insert(at, Slot { group: Arc::new(group), bytes, used: self.clock });
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

    fn remove(&mut self, at: JournalPosition) -> Option<Arc<CachedGroup>> {
        let slot = self.groups.remove(&at)?;
        self.by_use.remove(&slot.used);
        self.bytes -= slot.bytes;
        Some(slot.group)
    }
}

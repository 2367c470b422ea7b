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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoded::GroupKind;
    use crate::decoded::tests::header;

    fn at(byte: u32) -> JournalPosition {
        JournalPosition { segment: 1, byte }
    }

    fn frame(byte: u32) -> FrameHeader {
        FrameHeader { kind: GroupKind::Seal, position: at(byte), ..header() }
    }

    fn group(byte: u32) -> Arc<DecodedGroup> {
        let body = Vec::with_capacity(100);
        Arc::new(DecodedGroup::parse(&frame(byte), &[], body, Vec::new()).unwrap())
    }

    fn committed(byte: u32) -> Committed {
        let (body, raw) = (Vec::with_capacity(100), Vec::with_capacity(50));
        Committed { header: frame(byte), directory: vec![0; 10], body, raw }
    }

    fn there(cache: &mut GroupCache) -> Vec<u32> {
        (0..10).filter(|byte| cache.get(at(*byte)).is_some()).collect()
    }

    #[test]
    fn the_least_recently_read_group_goes_first() {
        let bytes = group(0).memory_bytes();
        let mut cache = GroupCache::new(3 * bytes);
        for byte in 0..3 {
            assert!(cache.insert(group(byte)).is_empty(), "{byte} fits");
        }
        assert!(cache.get(at(0)).is_some());
        let gone = cache.insert(group(3));
        let gone: Vec<_> = gone.iter().map(|gone| gone.group(&BootClocks::default())).collect();
        assert_eq!(gone.len(), 1);
        assert!(gone[0].as_ref().is_some_and(|group| group.position() == at(1)));
        assert_eq!(there(&mut cache), [0, 2, 3]);
        assert_eq!(cache.insert(group(2)).len(), 1, "it takes its own place");
        assert_eq!(there(&mut cache), [0, 2, 3]);
    }

    #[test]
    fn what_is_before_the_start_is_forgotten_and_leaves_room() {
        let mut cache = GroupCache::new(3 * group(0).memory_bytes());
        (0..3).for_each(|byte| assert!(cache.insert(group(byte)).is_empty()));
        cache.forget_before(at(2));
        assert_eq!(there(&mut cache), [2]);
        (3..5).for_each(|byte| assert!(cache.insert(group(byte)).is_empty()));
        assert_eq!(there(&mut cache), [2, 3, 4]);
        assert_eq!(cache.insert(group(5)).len(), 1);
    }

    #[test]
    fn a_group_that_was_committed_counts_as_much_as_it_may_take() {
        let bytes = 100 + 50 + 10 + 10 * BATCH_BYTES + size_of::<DecodedGroup>();
        assert!(GroupCache::new(bytes).insert_committed(committed(1)).is_empty());
        assert_eq!(GroupCache::new(bytes - 1).insert_committed(committed(1)).len(), 1);
    }

    #[test]
    fn buffers_come_back_unless_somebody_reads_them() {
        let mut cache = GroupCache::new(0);
        let mut buffers = |group| {
            let gone = cache.insert_committed(group).remove(0);
            Arc::into_inner(gone).and_then(CachedGroup::into_buffers)
        };
        let [body, raw] = buffers(committed(1)).unwrap();
        assert_eq!((body.capacity(), raw.capacity()), (100, 50));
        let gone = cache.insert(group(2)).remove(0);
        let [body, _] = Arc::into_inner(gone).unwrap().into_buffers().unwrap();
        assert_eq!(body.capacity(), 100);
        let read = group(3);
        let gone = cache.insert(Arc::clone(&read)).remove(0);
        assert!(Arc::into_inner(gone).unwrap().into_buffers().is_none());
    }

    #[test]
    fn the_first_reader_takes_a_committed_group_apart() {
        let directory = Vec::new();
        let group = CachedGroup::committed(Committed { directory, ..committed(4) });
        for _ in 0..2 {
            let read = group.group(&BootClocks::default()).unwrap();
            assert_eq!(read.position(), at(4));
        }
        assert!(group.into_buffers().is_some());
    }
}

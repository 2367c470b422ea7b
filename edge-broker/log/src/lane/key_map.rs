//! Which offset is the newest of each key, for cleaning compacted streams.
//!
//! - Made by reading the journal once, from its start to its end and then what is committed; nothing is written.
//!   After a start it is made anew, in the background.
//! - Limit: `compaction_bytes_max`, some 36 bytes a key. Once it is full it learns no new keys: a key that it does
//!   not know is kept. When a segment was cleaned with a full map it goes on where it stopped learning, as Kafka's
//!   cleaner does: cleaning in parts.
//! - A key is known by 128 bits of a keyed hash, so that no client can make two keys look alike.

use std::hash::Hasher;

use edge_wire::{Offset, StreamId};
use hashbrown::HashMap;

use crate::position::JournalPosition;

/// Memory of a key: its hash, its offset, a control byte.
const ENTRY_BYTES: usize = size_of::<(KeyHash, u64)>() + 1;

/// A stream and a key.
pub(crate) type KeyHash = [u64; 2];

/// Hashes keys of one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHasher {
    secret: [u8; 16],
}

impl KeyHasher {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    pub(crate) fn hash(&self, stream: StreamId, key: Option<&[u8]>) -> KeyHash {
        [0u8, 1].map(|half| {
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write(&self.secret);
            hasher.write_u8(half | u8::from(key.is_some()) << 1);
            hasher.write_u32(stream.0);
            hasher.write(key.unwrap_or(&[]));
            hasher.finish()
        })
    }
}

/// The newest offset of each key.
#[derive(Debug)]
pub(crate) struct KeyMap {
    newest: HashMap<KeyHash, u64>,
    keys_max: usize,
    /// Where the next group to be read stands.
    pub(crate) at: JournalPosition,
    /// Where it stopped learning.
    full_at: Option<JournalPosition>,
    /// Where it began to learn.
    since: JournalPosition,
}

impl KeyMap {
    pub(crate) fn new(bytes_max: usize) -> Self {
        // Tables double, and are filled to seven eighths.
        let slots = (bytes_max / ENTRY_BYTES).max(16);
        let keys_max = (1 << slots.ilog2()) / 8 * 7;
        Self {
            newest: HashMap::new(),
            keys_max,
            at: JournalPosition::START,
            full_at: None,
            since: JournalPosition::START,
        }
    }

    /// Learns a record of the group at `at`.
    pub(crate) fn learn(&mut self, key: KeyHash, offset: Offset, at: JournalPosition) {
        if self.newest.len() >= self.keys_max && !self.newest.contains_key(&key) {
            self.full_at.get_or_insert(at);
            return;
        }
        let newest = self.newest.entry(key).or_insert(offset.0);
        *newest = offset.0.max(*newest);
    }

    pub(crate) fn newest(&self, key: &KeyHash) -> Option<Offset> {
        self.newest.get(key).copied().map(Offset)
    }

    /// It learns all keys that are read.
    pub(crate) fn is_learning(&self) -> bool {
        self.full_at.is_none()
    }

    /// It knows all keys of a journal that starts at `start`, up to where it has read.
    pub(crate) fn is_complete(&self, start: JournalPosition) -> bool {
        self.is_learning() && self.since <= start
    }

    /// Something was cleaned: a full map goes on where it stopped.
    pub(crate) fn turn_over(&mut self) {
        if let Some(at) = self.full_at.take() {
            self.newest.clear();
            self.at = at;
            self.since = at;
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            newest: HashMap::new(),
            at: JournalPosition::START,
            full_at: None,
            since: JournalPosition::START,
            ..*self
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_streams_and_null_keys_are_told_apart() {
        let hasher = KeyHasher::new([9; 16]);
        let hash = |stream, key: Option<&[u8]>| hasher.hash(StreamId(stream), key);
        assert_ne!(hash(1, Some(b"a")), hash(2, Some(b"a")));
        assert_ne!(hash(1, Some(b"")), hash(1, None));
        assert_ne!(hash(1, Some(b"a")), hash(1, Some(b"b")));
        assert_eq!(hash(1, Some(b"a")), hash(1, Some(b"a")));
        assert_ne!(hash(1, Some(b"a")), KeyHasher::new([8; 16]).hash(StreamId(1), Some(b"a")));
    }

    #[test]
    fn a_full_map_knows_what_it_knew_and_goes_on_where_it_stopped() {
        let mut map = KeyMap::new(0);
        let at = |segment| JournalPosition { segment, byte: 0 };
        for key in 0..20u64 {
            map.learn([key, 0], Offset(key), at(key));
        }
        assert!(!map.is_learning());
        map.learn([0, 0], Offset(100), at(21));
        assert_eq!(map.newest(&[0, 0]), Some(Offset(100)));
        assert_eq!(map.newest(&[14, 0]), None);
        map.turn_over();
        assert_eq!((map.at, map.is_learning()), (at(14), true));
        assert!(!map.is_complete(at(1)), "keys before were forgotten");
        assert!(map.is_complete(at(14)));
        assert_eq!(map.newest(&[0, 0]), None);
    }
}

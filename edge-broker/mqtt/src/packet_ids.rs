//! A set of packet identifiers.
//!
//! Limits: 1,024 words of 64 bits at most, whatever is put in; identifiers in use are neighbours, so a
//! set mostly has one or two.

use std::num::NonZeroU16;

use hashbrown::HashMap;

/// A set of packet identifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketIds {
    words: HashMap<u16, u64>,
    len: usize,
}

fn place(id: NonZeroU16) -> (u16, u64) {
    (id.get() >> 6, 1 << (id.get() & 63))
}

impl PacketIds {
    /// How many are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `id` is in it.
    #[must_use]
    pub fn contains(&self, id: NonZeroU16) -> bool {
        let (word, bit) = place(id);
        self.words.get(&word).is_some_and(|bits| bits & bit != 0)
    }

    /// Puts `id` in; false if it was.
    pub fn insert(&mut self, id: NonZeroU16) -> bool {
        let (word, bit) = place(id);
        let bits = self.words.entry(word).or_default();
        let is_new = *bits & bit == 0;
        *bits |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes `id` out; false if it was not in it.
    pub fn remove(&mut self, id: NonZeroU16) -> bool {
        let (word, bit) = place(id);
        let Some(bits) = self.words.get_mut(&word) else { return false };
        if *bits & bit == 0 {
            return false;
        }
        *bits &= !bit;
        if *bits == 0 {
            self.words.remove(&word);
        }
        self.len -= 1;
        if self.len == 0 {
            self.words = HashMap::new();
        }
        true
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU16> + '_ {
        self.words.iter().flat_map(|(&word, &bits)| {
            (0..64_u16)
                .filter(move |bit| bits & (1 << bit) != 0)
                .filter_map(move |bit| NonZeroU16::new((word << 6) | bit))
        })
    }
}

impl FromIterator<NonZeroU16> for PacketIds {
    fn from_iter<T: IntoIterator<Item = NonZeroU16>>(ids: T) -> Self {
        let mut set = Self::default();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let id = |value| NonZeroU16::new(value).expect("not zero");
        let mut ids = PacketIds::default();
        for value in [1, 63, 64, 65_535] {
            assert!(ids.insert(id(value)));
        }
        assert!(!ids.insert(id(64)));
        assert_eq!(ids.len(), 4);
        let mut all: Vec<_> = ids.iter().map(NonZeroU16::get).collect();
        all.sort_unstable();
        assert_eq!(all, [1, 63, 64, 65_535]);
        assert!(ids.contains(id(63)) && !ids.contains(id(62)));
        assert!(ids.remove(id(63)) && !ids.remove(id(63)) && !ids.remove(id(999)));
        for value in all {
            ids.remove(id(value));
        }
        assert!(ids.is_empty() && ids.words.is_empty());
        let every: PacketIds = (1..=u16::MAX).filter_map(NonZeroU16::new).collect();
        assert_eq!((every.len(), every.words.len()), (65_535, 1_024));
    }
}

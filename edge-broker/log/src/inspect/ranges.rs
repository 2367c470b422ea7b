//! A set of offsets as ranges.

/// Most ranges of one set. Beyond it the two oldest become one: a hole between them is no longer seen.
const PARTS_MAX: usize = 1 << 16;

/// Ranges `from..to`: ascending, none empty, none touching another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    parts: Vec<(u64, u64)>,
    /// Ranges were joined that should not have been.
    pub(crate) inexact: bool,
}

impl Ranges {
    /// Adds a range. Returns how many offsets of it are new.
    pub(crate) fn insert(&mut self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        match self.parts.last_mut() {
            Some(last) if last.1 == from => {
                last.1 = to;
                return to - from;
            }
            Some(last) if last.1 > from => return self.insert_inside(from, to),
            _ => self.parts.push((from, to)),
        }
        if self.parts.len() > PARTS_MAX {
            self.parts[1].0 = self.parts[0].0;
            self.parts.remove(0);
            self.inexact = true;
        }
        to - from
    }

    fn insert_inside(&mut self, from: u64, to: u64) -> u64 {
        let first = self.parts.partition_point(|part| part.1 < from);
        let behind = self.parts.partition_point(|part| part.0 <= to);
        if first == behind {
            self.parts.insert(first, (from, to));
            return to - from;
        }
        let known: u64 = self.parts[first..behind]
            .iter()
            .map(|part| part.1.min(to).saturating_sub(part.0.max(from)))
            .sum();
        let joined = (from.min(self.parts[first].0), to.max(self.parts[behind - 1].1));
        self.parts.splice(first..behind, [joined]);
        to - from - known
    }

    /// The parts of `from..to` that are not in the set.
    pub(crate) fn missing(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = from;
        let first = self.parts.partition_point(|part| part.1 <= from);
        for part in &self.parts[first..] {
            if at >= to || part.0 >= to {
                break;
            }
            if part.0 > at {
                missing.push((at, part.0));
            }
            at = at.max(part.1);
        }
        if at < to {
            missing.push((at, to));
        }
        missing
    }

    /// The first range that ends behind `from`.
    pub(crate) fn first_from(&self, from: u64) -> Option<(u64, u64)> {
        let first = self.parts.partition_point(|part| part.1 <= from);
        self.parts.get(first).map(|part| (part.0.max(from), part.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(raw in prop::collection::vec((0u64..60, 0u64..12), 0..40)) {
            let (mut ranges, mut set) = (Ranges::default(), std::collections::BTreeSet::new());
            for (from, count) in raw {
                let new = (from..from + count).filter(|offset| set.insert(*offset)).count() as u64;
                prop_assert_eq!(ranges.insert(from, from + count), new);
            }
            prop_assert!(ranges.parts.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let count: u64 = ranges.parts.iter().map(|part| part.1 - part.0).sum();
            prop_assert_eq!(count, set.len() as u64);
            let missing: Vec<u64> =
                ranges.missing(3, 50).into_iter().flat_map(|(from, to)| from..to).collect();
            let expected: Vec<u64> = (3..50).filter(|offset| !set.contains(offset)).collect();
            prop_assert_eq!(missing, expected);
            let first = ranges.first_from(7).map(|part| part.0);
            prop_assert_eq!(first, set.range(7..).next().copied());
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut ranges = Ranges::default();
        for index in 0..PARTS_MAX as u64 + 10 {
            ranges.insert(index * 2, index * 2 + 1);
        }
        assert_eq!(ranges.parts.len(), PARTS_MAX);
        assert!(ranges.inexact);
    }
}

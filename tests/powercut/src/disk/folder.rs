//! A folder: the names in it now, the durable ones, and the changes in between.

use std::collections::BTreeMap;

use system_tests::random::Random;

use super::survival::NameSurvival;

/// Names that change together: what they stand for now, or nothing.
type Change = Vec<(String, Option<u64>)>;

/// The names of a folder.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    now: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<Change>,
}

fn apply(change: &Change, names: &mut BTreeMap<String, u64>) {
    for (name, number) in change {
        match number {
            Some(number) => names.insert(name.clone(), *number),
            None => names.remove(name),
        };
    }
}

impl Folder {
    /// The inode behind a name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.now.get(name).copied()
    }

    /// Whether no name is in it.
    pub fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    /// Names and inodes, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.now.iter().map(|(name, number)| (name.as_str(), *number))
    }

    pub(super) fn change(&mut self, change: Change) {
        apply(&change, &mut self.now);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.now);
    }

    pub(super) fn cut(&mut self, survival: NameSurvival, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        let prefix = random.below(pending.len() as u64 + 1) as usize;
        for (index, change) in pending.iter().enumerate() {
            let survives = match survival {
                NameSurvival::Nothing => false,
                NameSurvival::Everything => true,
                NameSurvival::Prefix => index < prefix,
                NameSurvival::Some => random.below(2) == 0,
            };
            if survives {
                apply(change, &mut self.durable);
            }
        }
        self.now.clone_from(&self.durable);
    }
}

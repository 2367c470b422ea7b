//! What survives a power cut of what was not synced.

use std::fmt;

use system_tests::random::Random;

/// The rule of one cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing that was not synced.
    Nothing,
    /// All of it: the device had written it just before.
    Everything,
    /// For each file the first changes, the last of them torn; likewise for names.
    Prefix,
    /// For each file only the newest changes: written in another order. Names: any.
    Reordered,
    /// Any subset of sectors; of names any subset.
    Sectors,
    /// The same, and what did not survive may have become garbage.
    Garbage,
    /// Lengths of files, and nothing of their data; all names.
    Lengths,
    /// Data, but no name.
    NamesLost,
    /// Something else for each file and folder.
    Mixed,
}

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSurvival {
    Nothing,
    Everything,
    Prefix,
    Suffix,
    Sectors { garbage: bool },
    Length,
}

/// What happens to the names in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameSurvival {
    Nothing,
    Everything,
    Prefix,
    Some,
}

impl Survival {
    /// Every rule.
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Everything,
        Self::Prefix,
        Self::Reordered,
        Self::Sectors,
        Self::Garbage,
        Self::Lengths,
        Self::NamesLost,
        Self::Mixed,
    ];

    /// One of them.
    pub fn any(random: &mut Random) -> Self {
        Self::ALL[random.below(Self::ALL.len() as u64) as usize]
    }

    pub(super) fn of_file(self, random: &mut Random) -> FileSurvival {
        match self {
            Self::Nothing => FileSurvival::Nothing,
            Self::Everything | Self::NamesLost => FileSurvival::Everything,
            Self::Prefix => FileSurvival::Prefix,
            Self::Reordered => FileSurvival::Suffix,
            Self::Sectors => FileSurvival::Sectors { garbage: false },
            Self::Garbage => FileSurvival::Sectors { garbage: true },
            Self::Lengths => FileSurvival::Length,
            Self::Mixed => Self::simple(random).of_file(random),
        }
    }

    pub(super) fn of_names(self, random: &mut Random) -> NameSurvival {
        match self {
            Self::Nothing | Self::NamesLost => NameSurvival::Nothing,
            Self::Everything | Self::Lengths => NameSurvival::Everything,
            Self::Prefix => NameSurvival::Prefix,
            Self::Reordered | Self::Sectors | Self::Garbage => NameSurvival::Some,
            Self::Mixed => Self::simple(random).of_names(random),
        }
    }

    /// Any but the mixture.
    fn simple(random: &mut Random) -> Self {
        Self::ALL[random.below(Self::ALL.len() as u64 - 1) as usize]
    }
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Everything => "everything",
            Self::Prefix => "a prefix",
            Self::Reordered => "the newest only",
            Self::Sectors => "some sectors",
            Self::Garbage => "some sectors, others garbage",
            Self::Lengths => "lengths only",
            Self::NamesLost => "data without names",
            Self::Mixed => "a mixture",
        })
    }
}

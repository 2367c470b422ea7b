//! The disks that a power cut may leave: every way in which unsynced changes survive, each with a number.
//!
//! The file that was written last is enumerated (every subset of its sectors up to 2^8, sampled beyond); what else is
//! in doubt at that moment survives or not by the seed of the case.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Change, Content, FileState, NameChange, SECTOR_BYTES, Sector, Snapshot};
use crate::random::{Random, seed_of};

/// What survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// Nothing that was not synced.
    Drop,
    /// Everything: a killed process.
    Keep,
    /// The first so many sectors, and the first so many bytes.
    Prefix,
    /// Any subset of sectors.
    Sectors,
    /// Any subset of bytes.
    Bytes,
    /// Whole writes, any of them, in any order.
    Reorder,
    /// Any subset of sectors; the others read as zeros.
    ZeroFill,
    /// Any subset of sectors; the others read as noise.
    GarbageFill,
    /// Lengths, no data.
    LengthOnly,
    /// Data as far as the old length reaches.
    DataOnly,
    /// All data; any subset of new names.
    LostEntry,
    /// All data; renames are lost.
    LostRename,
    /// Any of the above, and one durable sector is damaged afterwards.
    Rot,
}

/// Sectors whose subsets are enumerated.
const ENUMERATED_MAX: usize = 8;
/// Cases of one moment beyond that, by policy.
const SUBSETS: u64 = 1 << ENUMERATED_MAX;
const FILLS: u64 = 64;
const BYTES: u64 = 40;
const ROTS: u64 = 12;

impl Policy {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Drop,
        Self::Keep,
        Self::Prefix,
        Self::Sectors,
        Self::Bytes,
        Self::Reorder,
        Self::ZeroFill,
        Self::GarbageFill,
        Self::LengthOnly,
        Self::DataOnly,
        Self::LostEntry,
        Self::LostRename,
        Self::Rot,
    ];

    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Keep => "keep",
            Self::Prefix => "prefix",
            Self::Sectors => "sectors",
            Self::Bytes => "bytes",
            Self::Reorder => "reorder",
            Self::ZeroFill => "zero-fill",
            Self::GarbageFill => "garbage-fill",
            Self::LengthOnly => "length-without-data",
            Self::DataOnly => "data-without-length",
            Self::LostEntry => "lost-entry",
            Self::LostRename => "lost-rename",
            Self::Rot => "rot-after",
        }
    }

    /// The policy of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }

    /// How many cases it has at a moment. Some of them may be the same disk.
    #[must_use]
    pub fn cases(self, at: &Snapshot) -> u64 {
        let in_doubt = at.files.iter().any(|file| !file.pending.is_empty());
        let names = at.pending_names.len() as u32;
        let sectors = focus_sectors(at);
        let subsets = |max: u64| if sectors <= 6 { 1 << sectors } else { max };
        match self {
            Self::Drop | Self::Keep => 1,
            Self::Rot => ROTS,
            _ if !in_doubt && names == 0 => 0,
            Self::LostEntry => (1 << names.min(6)) * u64::from(names > 0),
            Self::LostRename => 2 * u64::from(names > 0),
            _ if !in_doubt => 0,
            Self::Prefix => 2 * sectors as u64 + 1,
            Self::Sectors if sectors <= ENUMERATED_MAX => 1 << sectors,
            Self::Sectors => SUBSETS,
            Self::Bytes => BYTES,
            Self::Reorder => 8,
            Self::ZeroFill | Self::GarbageFill => subsets(FILLS),
            Self::LengthOnly | Self::DataOnly => 2,
        }
    }

    /// The disk of a case.
    #[must_use]
    pub fn image(self, at: &Snapshot, case: u64, seed: u64) -> Snapshot {
        let mut random = Random(seed_of(&[seed, self as u64, case]));
        if self == Self::Rot {
            let under =
                [Self::Drop, Self::Keep, Self::Prefix, Self::Sectors][random.below(4) as usize];
            let case = random.below(under.cases(at).max(1));
            let mut image = if under.cases(at) == 0 {
                Self::Drop.image(at, 0, seed)
            } else {
                under.image(at, case, seed)
            };
            rot(&mut image, &mut random);
            return image;
        }
        let mut after = Snapshot { dirs: Arc::clone(&at.dirs), ..Snapshot::default() };
        let names = self.names(at, case, &mut random);
        after.names = Arc::new(names);
        after.durable_names = Arc::clone(&after.names);
        let focus = focus(at);
        after.files = at
            .files
            .iter()
            .enumerate()
            .map(|(index, file)| {
                let content = if file.pending.is_empty() {
                    Arc::clone(&file.durable)
                } else {
                    Arc::new(self.survivor(file, index == focus, case, &mut random))
                };
                FileState { visible: Arc::clone(&content), durable: content, pending: Vec::new() }
            })
            .collect();
        after
    }

    fn names(self, at: &Snapshot, case: u64, random: &mut Random) -> BTreeMap<String, usize> {
        let mut names = (*at.durable_names).clone();
        for (index, change) in at.pending_names.iter().enumerate() {
            let survives = match self {
                Self::Drop => false,
                Self::Keep => true,
                Self::LostEntry => case >> index & 1 == 1,
                Self::LostRename => !matches!(change, NameChange::Rename(..)),
                _ => random.one_in(2),
            };
            if survives {
                change.apply(&mut names);
            }
        }
        names
    }

    fn survivor(self, file: &FileState, focus: bool, case: u64, random: &mut Random) -> Content {
        if matches!(self, Self::Keep | Self::LostEntry) || self == Self::LostRename && case == 0 {
            return (*file.visible).clone();
        }
        let mut after = (*file.durable).clone();
        if self == Self::Drop {
            return after;
        }
        if self == Self::Reorder {
            let mut order: Vec<&Change> = file.pending.iter().collect();
            for last in (1..order.len()).rev() {
                order.swap(last, random.below(last as u64 + 1) as usize);
            }
            for change in order {
                if random.one_in(2) {
                    change.apply(&mut after);
                }
            }
            return after;
        }
        let total: usize = file.pending.iter().map(sectors_of).sum();
        let old_len = after.len();
        // Which sectors survive: by the number of the case where that is enumerated.
        let enumerated = focus && total <= ENUMERATED_MAX && case < 1 << total;
        let mut number = 0;
        let mut keep = |random: &mut Random| {
            let keeps = if enumerated { case >> number & 1 == 1 } else { random.one_in(2) };
            number += 1;
            keeps
        };
        let mut left = match self {
            Self::Prefix if focus => case as usize * SECTOR_BYTES / 2,
            _ => random.below((total * SECTOR_BYTES) as u64 + 1) as usize,
        };
        if self == Self::Prefix && focus && case % 2 == 1 {
            left = (left + random.below(SECTOR_BYTES as u64 / 2) as usize).max(1);
        }
        for change in &file.pending {
            let Change::Write { at, sectors } = change else {
                let survives = match self {
                    Self::LengthOnly => true,
                    Self::DataOnly => false,
                    Self::Prefix => left > 0,
                    _ => random.one_in(2),
                };
                if survives {
                    change.apply(&mut after);
                }
                continue;
            };
            for (index, sector) in sectors.iter().enumerate() {
                let place = at + index;
                match self {
                    Self::Prefix => {
                        let count = left.min(SECTOR_BYTES);
                        left -= count;
                        if count > 0 {
                            splice(&mut after, place, sector, |byte| byte < count);
                        }
                    }
                    Self::Bytes => {
                        // Now single bytes, now runs of them.
                        let run = 1usize << random.below(8);
                        let noise: Vec<u64> =
                            (0..SECTOR_BYTES.div_ceil(run * 64)).map(|_| random.next()).collect();
                        splice(&mut after, place, sector, |byte| {
                            let bit = byte / run;
                            noise[bit / 64] >> (bit % 64) & 1 == 1
                        });
                    }
                    Self::LengthOnly => {
                        let end = ((place + 1) * SECTOR_BYTES) as u64;
                        if end > after.len() {
                            after.set_len(end);
                        }
                    }
                    Self::DataOnly if ((place + 1) * SECTOR_BYTES) as u64 > old_len => {}
                    Self::DataOnly => after.put(place, Arc::clone(sector)),
                    _ if keep(random) => after.put(place, Arc::clone(sector)),
                    Self::ZeroFill => after.put(place, Sector::zero()),
                    Self::GarbageFill => after.put(place, Arc::new(noise(random))),
                    _ => {}
                }
            }
        }
        after
    }
}

fn sectors_of(change: &Change) -> usize {
    match change {
        Change::Write { sectors, .. } => sectors.len(),
        Change::SetLen(_) => 0,
    }
}

/// The file whose survival is enumerated.
fn focus(at: &Snapshot) -> usize {
    let last = at.written_last;
    let in_doubt = |index: &usize| at.files.get(*index).is_some_and(|f| !f.pending.is_empty());
    Some(last).filter(in_doubt).or_else(|| (0..at.files.len()).find(in_doubt)).unwrap_or(last)
}

fn focus_sectors(at: &Snapshot) -> usize {
    at.files.get(focus(at)).map_or(0, |file| file.pending.iter().map(sectors_of).sum())
}

fn noise(random: &mut Random) -> Sector {
    let mut bytes = [0; SECTOR_BYTES];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes());
    }
    Sector::new(bytes)
}

/// The bytes of `sector` that are chosen, over what stands there.
fn splice(content: &mut Content, place: usize, sector: &Sector, chosen: impl Fn(usize) -> bool) {
    let mut bytes = content.sectors().get(place).map_or([0; SECTOR_BYTES], |old| *old.bytes());
    for (index, byte) in bytes.iter_mut().enumerate() {
        if chosen(index) {
            *byte = sector.bytes()[index];
        }
    }
    content.put(place, Arc::new(Sector::new(bytes)));
}

/// How a sector is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Damage {
    /// One bit is the other way round.
    Flip,
    /// It reads as zeros.
    Zero,
    /// It reads as noise.
    Garbage,
    /// It reads as the one before it.
    Repeat,
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Flip, Self::Zero, Self::Garbage, Self::Repeat];

    /// The sector at `place` after it.
    #[must_use]
    pub fn of(self, content: &Content, place: usize, random: &mut Random) -> Arc<Sector> {
        match self {
            Self::Flip => {
                let mut bytes = *content.sectors()[place].bytes();
                bytes[random.below(SECTOR_BYTES as u64) as usize] ^= 1 << random.below(8);
                Arc::new(Sector::new(bytes))
            }
            Self::Zero => Sector::zero(),
            Self::Garbage => Arc::new(noise(random)),
            Self::Repeat => Arc::clone(&content.sectors()[place.saturating_sub(1)]),
        }
    }
}

/// Damages one sector of any file.
fn rot(image: &mut Snapshot, random: &mut Random) {
    let names: Vec<String> = image
        .durable_names
        .iter()
        .filter(|(_, file)| !image.files[**file].durable.is_empty())
        .map(|(name, _)| name.clone())
        .collect();
    if names.is_empty() {
        return;
    }
    let path = &names[random.below(names.len() as u64) as usize];
    image.damage(path, |content| {
        let place = random.below(content.sectors().len() as u64) as usize;
        let how = Damage::ALL[random.below(4) as usize];
        let sector = how.of(content, place, random);
        content.put(place, sector);
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use edge_log::{OpenMode, Storage};

    use super::*;
    use crate::disk::Disk;

    #[test]
    fn every_subset_of_a_write_is_an_image_and_nothing_synced_is_ever_touched() {
        let disk = Disk::new(Snapshot::default(), 512);
        disk.create_dir("d").unwrap();
        let file = disk.open("d/a", OpenMode::Create).unwrap();
        file.write_at(&[1; 4096], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("d").unwrap();
        let data: Vec<u8> = (0..5 * 512).map(|at| (at / 512 + 10) as u8).collect();
        file.write_at(&data, 1024).unwrap();
        let at = disk.snapshot();
        let mut all = BTreeSet::new();
        for policy in Policy::ALL {
            let mut distinct = BTreeSet::new();
            for case in 0..policy.cases(&at) {
                let image = policy.image(&at, case, 7);
                distinct.insert(image.fingerprint());
                assert_eq!(image.fingerprint(), policy.image(&at, case, 7).fingerprint());
                if policy != Policy::Rot {
                    let bytes = image.durable("d/a").unwrap();
                    let mut synced = [0; 1024];
                    bytes.read(&mut synced, 0);
                    assert_eq!(synced, [1; 1024]);
                }
            }
            if policy == Policy::Sectors {
                assert_eq!(distinct.len(), 32, "every subset of five sectors");
            }
            all.extend(distinct);
        }
        assert!(all.len() > 120, "{} images", all.len());
        // What the process wrote is all there if it was only killed.
        let kept = Policy::Keep.image(&at, 0, 1);
        let mut bytes = vec![0; data.len()];
        kept.durable("d/a").unwrap().read(&mut bytes, 1024);
        assert_eq!(bytes, data);
    }
}

//! What a power cut leaves of unsynced changes.

use super::disk::{Bytes, Disk, File, SECTOR_BYTES, Unsynced};

/// Which unsynced changes survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// None.
    DropAll,
    /// All: a killed process, not a power cut.
    KeepAll,
    /// The first so many bytes of them, in order.
    Prefix,
    /// Any subset of their sectors, lengths as they were set.
    SectorSubset,
    /// Any subset of their bytes.
    ByteSubset,
    /// Sectors that did not survive read as zeros.
    ZeroFill,
    /// Sectors that did not survive read as noise.
    GarbageFill,
    /// Lengths survive, data does not.
    LengthWithoutData,
    /// Data survives as far as the old length reaches.
    DataWithoutLength,
}

impl CrashPolicy {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::DropAll,
        Self::KeepAll,
        Self::Prefix,
        Self::SectorSubset,
        Self::ByteSubset,
        Self::ZeroFill,
        Self::GarbageFill,
        Self::LengthWithoutData,
        Self::DataWithoutLength,
    ];
}

/// Numbers from a seed (splitmix64): the simulated disk must not depend on anything else.
#[derive(Clone, Debug)]
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

/// The disk after a power cut.
pub(super) fn image(disk: &Disk, policy: CrashPolicy, noise: &mut Noise) -> Disk {
    let mut after =
        Disk { names: disk.durable_names.clone(), dirs: disk.dirs.clone(), ..Disk::default() };
    for change in &disk.unsynced_names {
        let survives = match policy {
            CrashPolicy::DropAll => false,
            CrashPolicy::KeepAll => true,
            _ => noise.coin(),
        };
        if survives {
            change.apply(&mut after.names);
        }
    }
    after.durable_names = after.names.clone();
    after.files = disk.files.iter().map(|file| survivor(file, policy, noise)).collect();
    after
}

/// One file after a power cut.
pub(super) fn survivor(file: &File, policy: CrashPolicy, noise: &mut Noise) -> File {
    let bytes = match policy {
        CrashPolicy::DropAll => file.durable.clone(),
        CrashPolicy::KeepAll => file.visible.clone(),
        _ => torn(file, policy, noise),
    };
    File { visible: bytes.clone(), durable: bytes, unsynced: Vec::new() }
}

fn torn(file: &File, policy: CrashPolicy, noise: &mut Noise) -> Bytes {
    let mut after = file.durable.clone();
    let total: u64 = file
        .unsynced
        .iter()
        .map(|change| match change {
            Unsynced::Write { bytes, .. } => bytes.len() as u64,
            Unsynced::SetLen(_) => 0,
        })
        .sum();
    let mut left = noise.below(total + 1);
    for change in &file.unsynced {
        match change {
            Unsynced::SetLen(len) => {
                let survives = match policy {
                    CrashPolicy::LengthWithoutData | CrashPolicy::SectorSubset => true,
                    CrashPolicy::DataWithoutLength => false,
                    CrashPolicy::Prefix => left > 0,
                    _ => noise.coin(),
                };
                if survives {
                    after.set_len(*len);
                }
            }
            Unsynced::Write { position, bytes } => match policy {
                CrashPolicy::Prefix => {
                    let count = left.min(bytes.len() as u64) as usize;
                    if count > 0 {
                        after.write(&bytes[..count], *position);
                    }
                    left -= count as u64;
                }
                CrashPolicy::LengthWithoutData => {
                    let end = position + bytes.len() as u64;
                    if end > after.len() {
                        after.set_len(end);
                    }
                }
                CrashPolicy::DataWithoutLength => {
                    let room = after.len().saturating_sub(*position).min(bytes.len() as u64);
                    after.write_inside(&bytes[..room as usize], *position);
                }
                CrashPolicy::ByteSubset => {
                    for (index, byte) in bytes.iter().enumerate() {
                        if noise.coin() {
                            after.write(&[*byte], position + index as u64);
                        }
                    }
                }
                _ => sectors(&mut after, *position, bytes, policy, noise),
            },
        }
    }
    after
}

fn sectors(after: &mut Bytes, position: u64, bytes: &[u8], policy: CrashPolicy, noise: &mut Noise) {
    for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        let at = position + (index * SECTOR_BYTES) as u64;
        if noise.coin() {
            after.write(sector, at);
        } else if policy == CrashPolicy::ZeroFill {
            after.write(&vec![0; sector.len()], at);
        } else if policy == CrashPolicy::GarbageFill {
            let garbage: Vec<u8> = sector.iter().map(|_| noise.next() as u8).collect();
            after.write(&garbage, at);
        }
    }
}

impl Bytes {
    /// Writes what fits without growing.
    fn write_inside(&mut self, bytes: &[u8], position: u64) {
        if !bytes.is_empty() {
            self.write(bytes, position);
        }
    }
}

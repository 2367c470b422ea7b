//! A file: what is read, what is durable, and the changes in between.

use system_tests::random::Random;

use super::survival::FileSurvival;

/// What a device writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// The bytes of a file.
#[derive(Debug, Clone, Default)]
pub struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, the oldest first.
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { position, bytes } => put(to, *position, bytes),
            Self::SetLen(len) => to.resize(*len, 0),
        }
    }
}

fn put(to: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    let end = position + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[position..end].copy_from_slice(bytes);
}

impl Content {
    /// Its length now.
    pub fn len(&self) -> u64 {
        self.now.len() as u64
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    /// Up to `len` bytes from `position`.
    pub fn read(&self, position: u64, len: usize) -> &[u8] {
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(self.now.len());
        &self.now[from..from.saturating_add(len).min(self.now.len())]
    }

    /// What would be there if everything that was not synced were lost.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        self.push(Change::Write { position: position as usize, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.push(Change::SetLen(len as usize));
    }

    fn push(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn cut(&mut self, survival: FileSurvival, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        let durable = &mut self.durable;
        let some = random.below(pending.len() as u64 + 1) as usize;
        match survival {
            FileSurvival::Nothing => {}
            FileSurvival::Everything => pending.iter().for_each(|change| change.apply(durable)),
            FileSurvival::Prefix => {
                pending[..some].iter().for_each(|change| change.apply(durable));
                if let Some(Change::Write { position, bytes }) = pending.get(some) {
                    let sectors = sectors(*position, bytes.len()).collect::<Vec<_>>();
                    let kept = random.below(sectors.len() as u64 + 1) as usize;
                    for (from, to) in &sectors[..kept] {
                        put(durable, position + from, &bytes[*from..*to]);
                    }
                }
            }
            FileSurvival::Suffix => {
                pending[some..].iter().for_each(|change| change.apply(durable));
            }
            FileSurvival::Sectors { garbage } => {
                // Few, half, or most.
                let of_eight = 1 + random.below(7);
                for change in &pending {
                    let Change::Write { position, bytes } = change else {
                        if random.below(2) == 0 {
                            change.apply(durable);
                        }
                        continue;
                    };
                    for (from, to) in sectors(*position, bytes.len()) {
                        if random.below(8) < of_eight {
                            put(durable, position + from, &bytes[from..to]);
                        } else if garbage && random.below(2) == 0 {
                            put(durable, position + from, &random.bytes(to - from));
                        }
                    }
                }
            }
            FileSurvival::Length => durable.resize(self.now.len(), 0),
        }
        self.now.clone_from(&self.durable);
    }

    /// First bytes of the durable sectors that are not all zeros.
    pub(super) fn used_sectors(&self) -> impl Iterator<Item = u64> {
        let sectors = self.durable.chunks(SECTOR_BYTES).enumerate();
        sectors
            .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
            .map(|(index, _)| (index * SECTOR_BYTES) as u64)
    }

    /// Spoils a durable sector that has bytes.
    pub(super) fn rot(&mut self, position: u64, random: &mut Random) -> &'static str {
        let from = position as usize;
        let to = (from + SECTOR_BYTES).min(self.durable.len());
        let how = match random.below(3) {
            0 => {
                self.durable[from..to].fill(0);
                "zeroed"
            }
            1 => {
                let bit = random.below(((to - from) * 8) as u64) as usize;
                self.durable[from + bit / 8] ^= 1 << (bit % 8);
                "a bit flipped"
            }
            _ => {
                let garbage = random.bytes(to - from);
                self.durable[from..to].copy_from_slice(&garbage);
                "garbage"
            }
        };
        self.now.clone_from(&self.durable);
        how
    }
}

/// The pieces of a write of `len` bytes at `position` that lie in one sector each, as ranges of the bytes written.
fn sectors(position: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let to = (from + SECTOR_BYTES - (position + from) % SECTOR_BYTES).min(len);
        let piece = (from < len).then_some((from, to));
        from = to;
        piece
    })
}

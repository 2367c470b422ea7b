//! Bytes of simulated files: sectors that all copies share until one of them writes, each with its hash, so that an
//! image costs what it differs in.

use std::sync::Arc;

use crate::random::mix;

/// What a device writes at once.
pub const SECTOR_BYTES: usize = 512;

/// One sector and its hash.
#[derive(Clone, Debug)]
pub struct Sector {
    bytes: [u8; SECTOR_BYTES],
    hash: u64,
}

thread_local! {
    static ZERO: Arc<Sector> = Arc::new(Sector::new([0; SECTOR_BYTES]));
}

impl Sector {
    /// A sector of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; SECTOR_BYTES]) -> Self {
        let (chunks, _) = bytes.as_chunks::<8>();
        let hash = chunks.iter().fold(0x1234_5678_9abc_def1_u64, |hash, chunk| {
            let word = u64::from_le_bytes(*chunk);
            (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29)
        });
        Self { bytes, hash: mix(hash) }
    }

    /// A sector of zeros, shared.
    #[must_use]
    pub fn zero() -> Arc<Self> {
        ZERO.with(Arc::clone)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; SECTOR_BYTES] {
        &self.bytes
    }

    /// The sectors of a whole number of sectors of bytes.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Vec<Arc<Self>> {
        let (sectors, _) = bytes.as_chunks::<SECTOR_BYTES>();
        sectors.iter().map(|sector| Arc::new(Self::new(*sector))).collect()
    }
}

/// The bytes of one file.
#[derive(Clone, Debug, Default)]
pub struct Content {
    sectors: Vec<Arc<Sector>>,
    len: u64,
}

impl Content {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sectors it has, the last one padded with zeros.
    #[must_use]
    pub fn sectors(&self) -> &[Arc<Sector>] {
        &self.sectors
    }

    /// Reads; fewer bytes at the end.
    pub fn read(&self, buf: &mut [u8], position: u64) -> usize {
        let available = self.len.saturating_sub(position).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < available {
            let at = position as usize + done;
            let (sector, inside) = (at / SECTOR_BYTES, at % SECTOR_BYTES);
            let count = (SECTOR_BYTES - inside).min(available - done);
            buf[done..done + count]
                .copy_from_slice(&self.sectors[sector].bytes[inside..inside + count]);
            done += count;
        }
        available
    }

    /// Replaces a sector, growing if it has to.
    pub fn put(&mut self, index: usize, sector: Arc<Sector>) {
        let end = ((index + 1) * SECTOR_BYTES) as u64;
        if end > self.len {
            self.set_len(end);
        }
        self.sectors[index] = sector;
    }

    /// Sets the length; what is new reads as zeros.
    pub fn set_len(&mut self, len: u64) {
        let count = (len as usize).div_ceil(SECTOR_BYTES);
        let inside = len as usize % SECTOR_BYTES;
        if len < self.len && inside != 0 {
            let mut bytes = self.sectors[count - 1].bytes;
            bytes[inside..].fill(0);
            self.sectors[count - 1] = Arc::new(Sector::new(bytes));
        }
        self.sectors.resize_with(count, Sector::zero);
        self.len = len;
    }

    /// A number that tells it from others.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let sectors = self.sectors.iter().enumerate();
        sectors.fold(mix(self.len), |sum, (index, sector)| {
            sum.wrapping_add(mix(sector.hash ^ (index as u64) << 40))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_copies_are_told_apart() {
        let mut content = Content::default();
        let sectors = Sector::split(&[[7; SECTOR_BYTES], [8; SECTOR_BYTES]].concat());
        content.put(2, Arc::clone(&sectors[0]));
        assert_eq!(content.len(), 1536);
        let mut copy = content.clone();
        assert_eq!(copy.fingerprint(), content.fingerprint());
        copy.put(0, Arc::clone(&sectors[0]));
        copy.put(2, Sector::zero());
        assert_ne!(copy.fingerprint(), content.fingerprint(), "the place counts");
        let mut buf = [1; 100];
        assert_eq!(content.read(&mut buf, 1000), 100);
        assert_eq!((buf[23], buf[24], buf[99]), (0, 7, 7));
        content.set_len(1030);
        assert_eq!(content.read(&mut buf, 1000), 30);
        content.set_len(1536);
        content.read(&mut buf, 1000);
        assert_eq!((buf[29], buf[30]), (7, 0), "what was cut off is gone");
    }
}

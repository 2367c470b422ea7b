//! Memory for writes past the page cache: its address is a multiple of the sector, without `unsafe`.

use std::ops::{Deref, DerefMut};

/// A growable buffer whose bytes start at a multiple of [`AlignedBuf::ALIGNMENT_BYTES`].
///
/// A plain vector, over-allocated; the bytes start where its memory is aligned. Growing moves the bytes.
#[derive(Debug, Default)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// The largest sector there is.
    pub const ALIGNMENT_BYTES: usize = 4096;

    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `len` zeros.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::new();
        buf.resize(len);
        buf
    }

    /// Forgets the bytes, keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Forgets the bytes, and the memory if it is larger than `max_bytes`.
    pub fn recycle(&mut self, max_bytes: usize) {
        self.len = 0;
        if self.memory.len() > max_bytes + Self::ALIGNMENT_BYTES {
            *self = Self::new();
        }
    }

    /// Sets the length; bytes that were never written before read as zeros, others as whatever they were.
    pub fn resize_dirty(&mut self, len: usize) {
        self.reserve(len);
        self.len = len;
    }

    /// Sets the length; what is new is zero.
    pub fn resize(&mut self, len: usize) {
        let old = self.len;
        self.resize_dirty(len);
        if len > old {
            self[old..].fill(0);
        }
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let old = self.len;
        self.resize_dirty(old + bytes.len());
        self[old..].copy_from_slice(bytes);
    }

    fn reserve(&mut self, len: usize) {
        if self.start + len <= self.memory.len() {
            return;
        }
        // Doubling, so that a sequence of appends copies each byte a constant number of times.
        let capacity = len.max(self.len * 2).max(Self::ALIGNMENT_BYTES);
        let memory = vec![0u8; capacity + Self::ALIGNMENT_BYTES];
        let start = memory.as_ptr().align_offset(Self::ALIGNMENT_BYTES);
        // `align_offset` may in principle give up; an unaligned buffer is then copied by the storage.
        let start = if start > Self::ALIGNMENT_BYTES { 0 } else { start };
        let mut grown = Self { memory, start, len: self.len };
        grown.copy_from_slice(self);
        *self = grown;
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_growth_and_stay_aligned() {
        let mut buf = AlignedBuf::new();
        let mut expected = Vec::new();
        for chunk in 0..200u32 {
            let bytes = vec![chunk as u8; 97];
            buf.extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            assert_eq!(buf.as_ptr().align_offset(512), 0);
        }
        assert_eq!(&buf[..], &expected[..]);
        buf.clear();
        buf.resize(5000);
        assert!(buf.iter().all(|byte| *byte == 0));
    }
}

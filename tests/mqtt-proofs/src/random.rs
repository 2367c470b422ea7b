//! Inputs for `cargo test`: the same on every run and every machine.

/// xorshift64*: no cryptography, only the same numbers again.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Different seeds, different numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() >> 33).unwrap_or(0) % bound
    }

    /// An input: new bytes, or one of `corpus` with a few changes.
    pub fn input(&mut self, corpus: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        if corpus.is_empty() || self.below(3) == 0 {
            let length = self.below(bytes_max.min(256));
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes);
        }
        bytes.truncate(bytes_max);
        bytes
    }

    fn byte(&mut self) -> u8 {
        self.number().to_be_bytes()[0]
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(4) {
            0 => bytes.insert(at, self.byte()),
            1 => bytes.truncate(at),
            _ if at == bytes.len() => bytes.push(self.byte()),
            2 => bytes[at] = self.byte(),
            _ => bytes[at] ^= 1 << self.below(8),
        }
    }
}

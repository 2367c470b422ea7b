//! What the gateway is told about the flash it writes to.

/// `[flash]`, all values filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlashConfig {
    /// What all lanes together should write in a day at most; none: no budget. By default the board's.
    pub wear_bytes_per_day: Option<u64>,
    /// What the card can take before it wears out (TBW), if its maker says.
    pub card_endurance_bytes: Option<u64>,
    /// Bytes a second that the scrub reads; 0: off.
    pub scrub_bytes_per_s: u64,
    /// Powered-on time between two passes of the scrub, seconds.
    pub scrub_every_s: u64,
    /// What is kept for metadata and recovery on a full disk; 0: nothing.
    pub reserve: ReserveConfig,
}

/// The space reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveConfig {
    /// The board's, less on a small file system.
    Board(u64),
    /// As the file says; 0: none.
    Chosen(u64),
}

impl ReserveConfig {
    /// Its size, at most.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Board(bytes) | Self::Chosen(bytes) => bytes,
        }
    }
}

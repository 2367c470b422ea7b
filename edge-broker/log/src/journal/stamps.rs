//! Whose clocks stamped the unvouched batches of a copied group. They come from many groups, of other boots than the
//! one that copied them; of any other group the header says it.
//!
//! ```text
//! number of clocks, then each: boot id (8 bytes), zigzag the time when it began as was assumed, microseconds since
//! 1970, state (byte, as in the frame header)
//! for each unvouched batch of the group, in order: its clock, from 0
//! ```

use edge_wire::varint::{
    get_byte, get_slice, get_unsigned, get_varlong, put_unsigned, put_varlong,
};

use super::entry::{STAMPS, get_u32_varint, put_bytes};
use super::format::{Malformed, malformed};
use crate::clock::{BootClocks, ClockState};

/// What stamped a batch while nobody vouched for the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StampClock {
    pub(crate) boot_id: u64,
    /// When the boot began, as was assumed then, microseconds since 1970.
    pub(crate) base_us: i64,
    state: u8,
}

impl StampClock {
    pub(crate) fn new(boot_id: u64, base_us: i64, state: ClockState) -> Self {
        Self { boot_id, base_us, state: state.to_byte() }
    }

    /// How much later than it says is what it stamped, ms; `None` if nobody knows.
    pub(crate) fn shift_ms(&self, clocks: &BootClocks) -> Option<i64> {
        clocks.shift_ms(self.boot_id, self.base_us)
    }

    /// The times are invented. A clock that nobody vouches for may still be right; one that is not set is not.
    pub(crate) fn is_invented(&self) -> bool {
        ClockState::from_byte(self.state) == ClockState::Unsynced
    }
}

/// The clocks of a group that is being made.
#[derive(Debug, Default)]
pub(crate) struct StampWriter {
    clocks: Vec<StampClock>,
    batches: Vec<u32>,
}

impl StampWriter {
    /// The next unvouched batch.
    pub(crate) fn push(&mut self, clock: StampClock) {
        let known = self.clocks.iter().position(|known| *known == clock);
        let number = known.unwrap_or_else(|| {
            self.clocks.push(clock);
            self.clocks.len() - 1
        });
        self.batches.push(number as u32);
    }

    /// Appends the entry, if there is anything to say.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        if self.batches.is_empty() {
            return;
        }
        let mut fields = Vec::new();
        put_unsigned(&mut fields, self.clocks.len() as u64);
        for clock in &self.clocks {
            fields.extend_from_slice(&clock.boot_id.to_le_bytes());
            put_varlong(&mut fields, clock.base_us);
            fields.push(clock.state);
        }
        for number in &self.batches {
            put_unsigned(&mut fields, u64::from(*number));
        }
        out.push(STAMPS);
        put_bytes(out, &fields);
    }
}

/// The clocks of a group.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    pub(crate) clocks: Vec<StampClock>,
    /// Of each unvouched batch.
    pub(crate) batches: Vec<u32>,
}

impl Stamps {
    pub(crate) fn get(mut fields: &[u8]) -> Result<Self, Malformed> {
        let input = &mut fields;
        let count = get_unsigned(input)?;
        let mut stamps = Self::default();
        for _ in 0..count {
            let mut boot_id = [0; 8];
            boot_id.copy_from_slice(get_slice(input, 8)?);
            let (boot_id, base_us) = (u64::from_le_bytes(boot_id), get_varlong(input)?);
            stamps.clocks.push(StampClock { boot_id, base_us, state: get_byte(input)? });
        }
        while !input.is_empty() {
            let number = get_u32_varint(input)?;
            if number as usize >= stamps.clocks.len() {
                return malformed("a batch was stamped by no clock");
            }
            stamps.batches.push(number);
        }
        Ok(stamps)
    }
}

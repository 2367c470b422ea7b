//! A commit group in memory, ready to be read.
//!
//! Limits: a group takes its unpacked body, its raw section and a table of some 48 bytes a batch. Groups are
//! shared by all readers and never change. What is stored reducible to RecordBatch v2 becomes one here, bit for
//! bit: the frame's CRC was checked when the group was read, the batch's CRC is computed anew.

mod batch;
#[cfg(test)]
pub(crate) mod tests;

use edge_wire::StreamId;

use crate::clock::{BootClocks, ClockState};
use crate::gap::Gap;
use crate::journal::batches::{BatchSlot, BatchTable};
use crate::journal::entry::{Entries, Entry};
use crate::journal::envelopes::{EnvelopeTable, get_envelopes};
use crate::journal::format::{Malformed, malformed};
use crate::journal::frame::{FLAG_STATE, FrameHeader};
use crate::journal::stamps::{StampClock, Stamps};
use crate::position::JournalPosition;
use crate::stream::StreamDefinition;

pub use batch::{BatchRef, RecordRef, UNPACKED_BATCH_BYTES_MAX, UnpackError};

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupKind {
    /// Records, events, changes.
    Data,
    /// Records that stand in an older segment too and were copied forward; never sent upstream twice.
    Copied,
    /// Only gap entries.
    Gap,
    /// Nothing: it proves the group before it.
    Seal,
    /// The state of the lane at the head of a segment.
    Checkpoint,
    /// A kind that a newer program wrote.
    Other(u8),
}

impl GroupKind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Copied => 2,
            Self::Gap => 3,
            Self::Seal => 4,
            Self::Checkpoint => 5,
            Self::Other(byte) => byte,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Data,
            2 => Self::Copied,
            3 => Self::Gap,
            4 => Self::Seal,
            5 => Self::Checkpoint,
            byte => Self::Other(byte),
        }
    }

    /// Whether the body has entries for readers.
    pub(crate) fn has_entries(self) -> bool {
        matches!(self, Self::Data | Self::Copied | Self::Gap)
    }
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// What it is for.
    pub kind: GroupKind,
    /// Counts the groups of the lane. A number is left out where a recovery skipped a suspect tail.
    pub sequence: u64,
    /// Boot in which it was written.
    pub boot_id: u64,
    /// Time since that boot.
    pub boottime_us: u64,
    /// Wall clock.
    pub wall_us: i64,
    /// How far the wall clock can be trusted.
    pub clock_state: ClockState,
    /// Number of offsets that all its batches cover.
    pub records: u32,
}

impl GroupHeader {
    fn base_us(&self) -> i64 {
        self.wall_us.wrapping_sub(i64::try_from(self.boottime_us).unwrap_or(i64::MAX))
    }
}

impl Stamped {
    fn of(header: &GroupHeader) -> Self {
        let clock = StampClock::new(header.boot_id, header.base_us(), header.clock_state);
        Self { clock, shift_ms: None }
    }
}

/// A decoded commit group.
#[derive(Debug)]
pub struct DecodedGroup {
    header: GroupHeader,
    position: JournalPosition,
    next: JournalPosition,
    has_state: bool,
    body: Vec<u8>,
    raw: Vec<u8>,
    batches: BatchTable,
    envelopes: EnvelopeTable,
    /// The clock in the header.
    own_stamp: Stamped,
    /// Of a copied group: the clocks that its unvouched batches name.
    stamps: Vec<Stamped>,
    /// The envelopes with [`CLOCK_HEADER`] behind the other headers, for what has an invented time.
    flagged: Option<EnvelopeTable>,
}

/// A clock that nobody vouched for, and what is known of it by now.
#[derive(Clone, Copy, Debug, Default)]
struct Stamped {
    clock: StampClock,
    /// Added to what it stamped, if anybody knows how much that is.
    shift_ms: Option<i64>,
}

/// Header of records that the gateway stamped while its clock was not set, as long as nobody knows better.
pub const CLOCK_HEADER: &str = "edge-clock";
/// Its value.
pub const CLOCK_UNSYNCED: &str = "unsynced";

impl DecodedGroup {
    /// Reads the tables of a group whose CRCs were checked. `body` is unpacked.
    pub(crate) fn parse(
        header: &FrameHeader,
        directory: &[u8],
        body: Vec<u8>,
        raw: Vec<u8>,
    ) -> Result<Self, Malformed> {
        let mut group = Self {
            header: header.group(),
            position: header.position,
            next: header.end(),
            has_state: header.flags & FLAG_STATE != 0 && header.kind.has_entries(),
            body,
            raw,
            batches: BatchTable::default(),
            envelopes: EnvelopeTable::default(),
            own_stamp: Stamped::of(&header.group()),
            stamps: Vec::new(),
            flagged: None,
        };
        if header.kind.has_entries() {
            group.parse_entries(directory, header.segment_bytes as usize / 2)?;
        }
        Ok(group)
    }

    fn parse_entries(&mut self, directory: &[u8], bytes_max: usize) -> Result<(), Malformed> {
        let mut has_batches = false;
        let mut stamps = Stamps::default();
        for entry in Entries::new(&self.body) {
            match entry? {
                Entry::Stamps(fields) => stamps = Stamps::get(fields)?,
                Entry::Envelopes(mut columns) => {
                    self.envelopes = get_envelopes(&mut columns, bytes_max)?;
                }
                Entry::Batches(mut columns) => {
                    // An entry reaches from where it stands to the end of the body.
                    let at = self.body.len() - columns.len();
                    self.batches = BatchTable::get(
                        &mut columns,
                        at,
                        &self.body,
                        directory,
                        self.raw.len(),
                        self.envelopes.slots.len(),
                    )?;
                    has_batches = true;
                }
                _ => {}
            }
        }
        if !has_batches && !directory.is_empty() {
            return malformed("a directory without batches");
        }
        let mut numbers = stamps.batches.iter();
        for slot in self.batches.slots.iter_mut().filter(|slot| slot.marks.unvouched) {
            slot.stamp = numbers.next().map_or(0, |number| number + 1);
        }
        let stamped = |clock| Stamped { clock, shift_ms: None };
        self.stamps = stamps.clocks.into_iter().map(stamped).collect();
        Ok(())
    }

    /// Corrects what we stamped before the clock was set, or flags it if nobody knows yet what time it was.
    pub(crate) fn correct(&mut self, clocks: &BootClocks) {
        let any_unvouched = self.batches.slots.iter().any(|slot| slot.marks.unvouched);
        if !any_unvouched && self.header.clock_state == ClockState::Synced {
            return;
        }
        if self.header.clock_state != ClockState::Synced {
            self.own_stamp.shift_ms = self.own_stamp.clock.shift_ms(clocks);
        }
        for stamped in &mut self.stamps {
            stamped.shift_ms = stamped.clock.shift_ms(clocks);
        }
        let is_invented = |slot: &BatchSlot| {
            let stamped = self.stamp_of(slot);
            stamped.is_some_and(|stamp| stamp.shift_ms.is_none() && stamp.clock.is_invented())
        };
        if self.batches.slots.iter().any(is_invented) {
            self.flagged = Some(self.envelopes.with_header(CLOCK_HEADER, CLOCK_UNSYNCED));
        }
    }

    /// The clock that stamped a batch while nobody vouched for it.
    fn stamp_of(&self, slot: &BatchSlot) -> Option<&Stamped> {
        if !slot.marks.unvouched {
            return None;
        }
        match slot.stamp.checked_sub(1) {
            None => Some(&self.own_stamp),
            Some(number) => self.stamps.get(number as usize),
        }
    }

    /// When it was written, by the wall clock, ms: corrected if that clock was not set and it is known by how much.
    #[must_use]
    pub fn written_ms(&self) -> i64 {
        self.header.wall_us.div_euclid(1_000).saturating_add(self.own_stamp.shift_ms.unwrap_or(0))
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> JournalPosition {
        self.position
    }

    /// Where the next group stands or will stand.
    #[must_use]
    pub fn next(&self) -> JournalPosition {
        self.next
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &GroupHeader {
        &self.header
    }

    /// Its batches: by stream id, those of one stream in offset order.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = BatchRef<'_>> {
        self.batches.slots.iter().map(|slot| BatchRef { group: self, slot })
    }

    /// The batches of one stream, in offset order.
    pub fn batches_of(&self, stream: StreamId) -> impl ExactSizeIterator<Item = BatchRef<'_>> {
        let slots = &self.batches.slots;
        let start = slots.partition_point(|slot| slot.stream < stream);
        let count = slots[start..].partition_point(|slot| slot.stream == stream);
        slots[start..start + count].iter().map(|slot| BatchRef { group: self, slot })
    }

    /// The owner's events, in order.
    pub fn events(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.state_entries().filter_map(|entry| match entry {
            Entry::Event { tag, bytes } => Some((tag, bytes)),
            _ => None,
        })
    }

    /// Stream definitions.
    #[must_use]
    pub fn definitions(&self) -> Vec<StreamDefinition> {
        self.state_entries()
            .filter_map(|entry| match entry {
                Entry::Definition(definition) => Some(definition.to_owned()),
                _ => None,
            })
            .collect()
    }

    /// Gaps told by this group.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        self.state_entries()
            .filter_map(|entry| match entry {
                Entry::Gap(gap) => Some(gap),
                _ => None,
            })
            .collect()
    }

    /// Entries that are neither batches nor envelopes, if there are any.
    pub(crate) fn state_entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let body: &[u8] = if self.has_state { &self.body } else { &[] };
        // The body was walked when the group was parsed, so there is no error to miss.
        Entries::new(body).map_while(Result::ok)
    }

    /// Memory it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.body.capacity()
            + self.raw.capacity()
            + self.batches.memory_bytes()
            + self.envelopes.memory_bytes()
            + self.stamps.capacity() * size_of::<Stamped>()
            + self.flagged.as_ref().map_or(0, EnvelopeTable::memory_bytes)
    }

    /// Takes the large buffers out, for use by another group.
    pub(crate) fn into_buffers(self) -> [Vec<u8>; 2] {
        [self.body, self.raw]
    }
}

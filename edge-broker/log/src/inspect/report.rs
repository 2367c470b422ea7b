//! What an inspection found: for people and, through serde, for programs.

use serde::Serialize;

use crate::position::JournalPosition;

/// Most damaged places that are listed; more are counted.
pub const DAMAGE_MAX: usize = 4096;
/// Most ranges listed as lost with one damaged place.
pub const LOST_MAX: usize = 256;
/// Most gaps, and most holes of one stream, that are listed.
pub const LISTED_MAX: usize = 4096;

/// What is wrong with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DamageKind {
    /// Sector 0 of a slot is not a header. Its frames may still say which segment it is.
    SegmentHeader,
    /// A file is not as long as its header says.
    Length,
    /// A segment that the journal needs is in no slot.
    MissingSegment,
    /// The directory of a lane that the catalogue has topics in is gone, or nothing is left in it.
    MissingLane,
    /// Two slots hold the same segment.
    DoubleSegment,
    /// A slot of another lane.
    ForeignSegment,
    /// A slot cannot be opened or read at all.
    Unreadable,
    /// No intact frame header where a frame stands.
    FrameHeader,
    /// The checksum of a group's directory, or the directory itself.
    Directory,
    /// The checksum of the copy of the directory before.
    PreviousDirectory,
    /// The checksum of a group's body.
    Body,
    /// The checksum is right and the content is not.
    Content,
    /// Sequence, position, proven end or directory do not follow from the frame before.
    Chain,
    /// A checkpoint does not say what the frames before it say.
    Checkpoint,
    /// The last group before an unclean stop: torn, or acknowledged and rotten.
    SuspectTail,
    /// Offsets are missing and nothing says why.
    Hole,
    /// A side index whose checksum fails or that does not fit its segment. Costs nothing but time.
    SideIndex,
    /// Recovery and the frames do not come to the same result.
    Recovery,
    /// An event or a checkpoint of the owner cannot be decoded.
    OwnerState,
}

/// Offsets of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The stream.
    pub stream: u32,
    /// Its topic, if a definition was found.
    pub topic: Option<String>,
    /// Its partition.
    pub partition: Option<u32>,
    /// First offset.
    pub from: u64,
    /// First offset behind.
    pub to: u64,
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What is wrong.
    pub kind: DamageKind,
    /// File below the data directory.
    pub file: String,
    /// Where in the file.
    pub byte: u64,
    /// How many bytes may be meant; 0 = not known.
    pub bytes: u64,
    /// Sequence of the segment; 0 = not known.
    pub segment: u64,
    /// Sequence of the group, if it is known.
    pub group: Option<u64>,
    /// In words.
    pub what: String,
    /// Offsets that cannot be read because of it.
    pub lost: Vec<Lost>,
    /// Ranges beyond [`LOST_MAX`] that are not listed.
    pub lost_more: u64,
    /// What it held is not known: neither its directory nor the copy of it is left.
    pub blind: bool,
    /// It was dealt with: the journal tells what is lost, for ever.
    pub known: bool,
    /// What to do.
    pub remedy: String,
}

/// Offsets that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// First offset.
    pub from: u64,
    /// First offset behind.
    pub to: u64,
    /// Whether a gap in the journal tells of it.
    pub told: bool,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// Its id.
    pub stream: u32,
    /// Its topic, if a definition was found.
    pub topic: Option<String>,
    /// Its partition.
    pub partition: Option<u32>,
    /// First offset that readers are given.
    pub log_start: u64,
    /// First offset that is there.
    pub first: u64,
    /// First offset behind the last.
    pub end: u64,
    /// Records that are there.
    pub records: u64,
    /// Their bytes, before the compression of the group.
    pub bytes: u64,
    /// What is missing between `first` and `end`, at most [`LISTED_MAX`] ranges.
    pub missing: Vec<Missing>,
}

/// A gap as the journal tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToldGap {
    /// The offsets.
    #[serde(flatten)]
    pub range: Lost,
    /// Why.
    pub reason: String,
    /// A rule of the lane asked for it; nothing was damaged.
    pub policy: bool,
    /// Where in the journal the loss happened.
    pub at: JournalPosition,
    /// Wall clock when the loss was found, microseconds since 1970.
    pub wall_us: i64,
}

/// Something worth knowing that is no damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// File below the data directory.
    pub file: String,
    /// In words.
    pub what: String,
}

/// A lane, or one segment of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneReport {
    /// Its name.
    pub lane: String,
    /// Segments read.
    pub segments: u64,
    /// Bytes of the largest segment.
    pub segment_bytes: u32,
    /// Bytes of all slots together.
    pub used_bytes: u64,
    /// Intact frames.
    pub frames: u64,
    /// Bytes of segment files read.
    pub read_bytes: u64,
    /// Where the journal starts.
    pub start: JournalPosition,
    /// Where it ends.
    pub end: JournalPosition,
    /// The last frame says that the stop was orderly.
    pub clean_shutdown: bool,
    /// Bytes of a write that never became a frame, at the end: not acknowledged.
    pub torn_tail: Option<JournalPosition>,
    /// A damaged last group.
    pub suspect_tail: Option<JournalPosition>,
    /// By id.
    pub streams: Vec<StreamReport>,
    /// What the journal tells of losses, at most [`LISTED_MAX`].
    pub gaps: Vec<ToldGap>,
    /// In the order of the journal.
    pub damage: Vec<Damage>,
    /// Damaged places beyond [`DAMAGE_MAX`].
    pub damage_omitted: u64,
    /// What else was seen, at most [`LISTED_MAX`].
    pub notes: Vec<Note>,
}

impl LaneReport {
    /// Nothing is damaged but what the journal tells of already.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage_omitted == 0 && self.damage.iter().all(|damage| damage.known)
    }

    /// Adds damage, or counts it.
    pub fn add(&mut self, damage: Damage) {
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(damage);
        } else {
            self.damage_omitted += 1;
        }
    }

    pub(crate) fn note(&mut self, file: &str, what: impl Into<String>) {
        if self.notes.len() < LISTED_MAX {
            self.notes.push(Note { file: file.to_owned(), what: what.into() });
        }
    }
}

impl DamageKind {
    /// What an operator does about it.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::SegmentHeader => {
                "stop the gateway and run edge-broker repair: it writes the header anew from the frames"
            }
            Self::SideIndex => {
                "edge-broker repair, or the next start, makes it anew; nothing is lost"
            }
            Self::SuspectTail => {
                "the next start, or edge-broker repair, tells it as a gap and goes on behind it"
            }
            Self::ForeignSegment | Self::DoubleSegment => {
                "stop the gateway and run edge-broker repair: it moves the file aside"
            }
            Self::Unreadable => {
                "read the card with ddrescue onto a new one, then edge-broker repair"
            }
            _ => {
                "edge-broker export what can be read if you need it now; stop the gateway and run edge-broker repair: it tells the loss as a gap"
            }
        }
    }
}

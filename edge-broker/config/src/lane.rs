//! What a lane is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Retention;

/// The lane that holds the broker's own state. No topic may be put into it.
pub const SYSTEM_LANE: &str = "system";

/// One lane, all values filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its name, also the name of its directory.
    pub name: Arc<str>,
    /// What it may take of the disk; at least three segments.
    pub budget_bytes: u64,
    /// Size of one segment file: 64 KiB to 1 GiB, a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// What happens when the budget is used up.
    pub when_full: WhenFull,
    /// With `drop-oldest` and an uplink: give up also what is not upstream yet, and tell it as a gap. Otherwise the
    /// lane then refuses.
    pub drop_unsent: bool,
    /// With `drop-oldest`: what would go is thinned first, and kept in at most a quarter of the budget.
    pub decay: Option<Decay>,
    /// A publish that waited so long for room is refused; none: it waits until there is room.
    pub refuse_after: Option<Duration>,
    /// Payload bytes of one MQTT client that may wait unacknowledged in this lane.
    pub inflight_bytes: u64,
    /// The same for all clients together.
    pub inflight_total_bytes: u64,
    /// When records may go, for topics of this lane that say nothing themselves.
    pub retention: Retention,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// How long a commit group may wait for more records once the sync allowance is used up; 0: the allowance and
    /// the window are off, every commit starts at once. Not used with [`Durability::Interval`], where nobody waits.
    pub commit_window_ms: u32,
    /// How far a slow card or a spent wear budget may stretch the window.
    pub commit_window_max_ms: u32,
    /// How many syncs start without waiting for the window.
    pub sync_allowance: SyncAllowance,
    /// How commit groups are compressed.
    pub compression: Compression,
    /// Records taken over that wait for their commit group, bytes.
    pub queue_bytes: u64,
}

/// What happens when a lane's budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// New records wait (publishers are not read from) until there is room: nothing is lost.
    Refuse,
    /// The oldest segment is given up, as long as what it holds is upstream or there is no uplink; see
    /// [`Lane::drop_unsent`].
    DropOldest,
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The record is on the device.
    Sync,
    /// The gateway has the record in memory; it is written and synced within this time. A power cut, or the end of
    /// the program without a stop, loses that much.
    Interval {
        /// Longest time from an acknowledgement to its sync.
        interval_ms: u32,
    },
}

/// A token bucket of syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncAllowance {
    /// Tokens a second.
    pub per_second: u32,
    /// Tokens that may be saved up.
    pub burst: u32,
}

/// Compression of what is stored or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// Zstandard at this level, 1 to 22.
    Zstd(u8),
}

impl Compression {
    /// Reads `none`, `zstd` (level 3) or `zstd:LEVEL`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let remedy = "write \"none\" or \"zstd:3\" (level 1 to 22)";
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "zstd" => Ok(Self::Zstd(3)),
            Some(("zstd", level)) => match level.parse::<u8>() {
                Ok(level @ 1..=22) => Ok(Self::Zstd(level)),
                _ => Err(format!("not a zstd level; {remedy}")),
            },
            _ => Err(format!("not a compression; {remedy}")),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// How old records are thinned before they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// `keep-every:10`: of each key one of so many records stays.
    KeepEvery(u32),
    /// `aggregate:60s`: of each key and so many seconds one record stays.
    Aggregate(u32),
}

impl Decay {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let remedy = "write \"keep-every:10\" (2 to 1000000) or \"aggregate:60s\" (1 s to 86400 s)";
        let wrong = || Err(format!("no way to thin; {remedy}"));
        match text.split_once(':') {
            Some(("keep-every", records)) => match records.parse() {
                Ok(records @ 2..=1_000_000) => Ok(Self::KeepEvery(records)),
                _ => wrong(),
            },
            Some(("aggregate", time)) => match time.strip_suffix('s').map(str::parse) {
                Some(Ok(seconds @ 1..=86_400)) => Ok(Self::Aggregate(seconds)),
                _ => wrong(),
            },
            _ => wrong(),
        }
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepEvery(records) => write!(f, "keep-every:{records}"),
            Self::Aggregate(seconds) => write!(f, "aggregate:{seconds}s"),
        }
    }
}

impl WhenFull {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "drop-oldest" => Ok(Self::DropOldest),
            _ => Err("write \"refuse\" or \"drop-oldest\"".to_owned()),
        }
    }
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::DropOldest => "drop-oldest",
        })
    }
}

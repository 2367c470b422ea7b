//! What a lane is told once, when it is opened.

use crate::journal::format;

/// What happens when a lane has used its byte budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// New data waits until the oldest segment is upstream. Nothing is lost.
    Refuse,
    /// The oldest segment goes. Never below what is not yet upstream, unless `unsent`, and then with a gap.
    DropOldest {
        /// Also drop what is not yet upstream.
        unsent: bool,
    },
}

/// How old records are thinned before they are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Of each key the first record of a segment stays, then every so many-th.
    KeepEvery {
        /// One of so many stays, at least 2.
        records: u32,
    },
    /// Of each key and time one record stays that says what the others said.
    Aggregate {
        /// How much time one record covers, at least 1.
        seconds: u32,
    },
}

/// When an acknowledgement may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the sync. On power loss nothing acknowledged is lost.
    Sync,
    /// At once, from memory; the write and its sync follow. On power loss, or when the program is killed, the
    /// acknowledged records of up to that time are lost.
    Interval {
        /// Milliseconds from a record to its sync, at most (more bytes than a group holds sync earlier).
        ms: u32,
    },
}

/// How the body of a commit group is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupCompression {
    /// Stored as it is.
    None,
    /// One zstd frame per group.
    Zstd {
        /// 1 (fast) to 22.
        level: i32,
    },
}

/// Settings of one lane. [`LaneConfig::normalized`] brings every number into its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneConfig {
    /// The lane's name: letters, digits, `-`, `_`; the directory is the caller's.
    pub name: String,
    /// Bytes of all segment files together.
    pub budget_bytes: u64,
    /// Bytes of one segment file; at least 16 sectors, or nothing much fits behind the checkpoint.
    pub segment_bytes: u32,
    /// What happens when the budget is used.
    pub when_full: WhenFull,
    /// An uplink exists: what it has not confirmed with `handle_upstream` is protected from plain retention.
    pub protect_unsent: bool,
    /// Retention and compaction leave alone what is protected: somebody will send it. Without an uplink they need not
    /// wait for one.
    pub retention_waits: bool,
    /// What would be dropped is thinned and copied forward first, into at most a quarter of the budget. For lanes
    /// that drop the oldest.
    pub decay: Option<Decay>,
    /// Memory for the newest offset of each key of compacted streams; more keys are cleaned in parts.
    pub compaction_bytes_max: usize,
    /// When an acknowledgement may leave.
    pub durability: Durability,
    /// Longest time a record waits for company, beyond the allowance. 0 = commit at once, always.
    pub commit_window_us: u64,
    /// The window grows to this at most, for a slow device or a spent wear budget.
    pub commit_window_max_us: u64,
    /// What the lane should hand to the device in a day at most: beyond it, the window and `commit_bytes` grow.
    pub wear_bytes_per_day: Option<u64>,
    /// Syncs a second that start at once.
    pub sync_allowance_per_second: u32,
    /// Allowance that can be saved up.
    pub sync_burst: u32,
    /// So many pending bytes commit at once, whatever the window says; as many times more as the window is longer than
    /// 50 ms.
    pub commit_bytes: u32,
    /// Most uncompressed bytes in one group, unless a single batch is larger.
    pub group_bytes_max: u32,
    /// Compression of the group.
    pub compression: GroupCompression,
    /// Bound of the pool of decoded groups that all readers share.
    pub decoded_cache_bytes: usize,
    /// Quiet time after which the last group is proven by a seal frame.
    pub quiet_seal_us: u64,
    /// Make all segments that the budget allows at once, not as they are needed: what the lane may write, it can
    /// write on a full disk as well.
    pub preallocate: bool,
    /// No segment is made that would leave less than this free on the file system.
    pub keep_free_bytes: u64,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            name: "normal".to_owned(),
            budget_bytes: 512 << 20,
            segment_bytes: 16 << 20,
            when_full: WhenFull::Refuse,
            protect_unsent: false,
            retention_waits: true,
            decay: None,
            compaction_bytes_max: 4 << 20,
            durability: Durability::Sync,
            commit_window_us: 50_000,
            commit_window_max_us: 1_000_000,
            wear_bytes_per_day: None,
            sync_allowance_per_second: 20,
            sync_burst: 20,
            commit_bytes: 32 << 10,
            group_bytes_max: 256 << 10,
            compression: GroupCompression::Zstd { level: 1 },
            decoded_cache_bytes: 4 << 20,
            quiet_seal_us: 1_000_000,
            preallocate: false,
            keep_free_bytes: 4 << 20,
        }
    }
}

impl LaneConfig {
    /// The same settings with every number inside its limits.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        let sector = format::SECTOR_BYTES_MAX;
        self.segment_bytes =
            self.segment_bytes.clamp(format::SEGMENT_BYTES_MIN, format::SEGMENT_BYTES_MAX);
        self.segment_bytes -= self.segment_bytes % sector;
        let floor = u64::from(self.segment_bytes) * u64::from(format::SLOTS_MIN);
        self.budget_bytes = self.budget_bytes.max(floor);
        self.group_bytes_max = self.group_bytes_max.clamp(1 << 10, self.segment_bytes / 4);
        self.commit_bytes = self.commit_bytes.clamp(1, self.group_bytes_max);
        if let Durability::Interval { ms } = &mut self.durability {
            *ms = (*ms).clamp(1, 60_000);
            self.commit_bytes = self.group_bytes_max;
        }
        self.commit_window_us = self.commit_window_us.min(60_000_000);
        self.commit_window_max_us = self.commit_window_max_us.min(60_000_000);
        self.sync_burst = self.sync_burst.max(1);
        match &mut self.decay {
            Some(Decay::KeepEvery { records }) => *records = (*records).max(2),
            Some(Decay::Aggregate { seconds }) => *seconds = (*seconds).clamp(1, 86_400),
            None => {}
        }
        if !matches!(self.when_full, WhenFull::DropOldest { .. }) {
            self.decay = None;
        }
        if let GroupCompression::Zstd { level } = &mut self.compression {
            *level = (*level).clamp(1, 22);
        }
        self
    }

    /// Most bytes that one record or one producer batch may have in this lane.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        // A checkpoint may take a quarter of a segment; a batch with its frame takes at most half.
        (self.segment_bytes / 2) as usize - format::BATCH_ALLOWANCE_BYTES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(change: impl FnOnce(&mut LaneConfig)) -> LaneConfig {
        let mut config = LaneConfig::default();
        change(&mut config);
        config.normalized()
    }

    #[test]
    fn the_usual_settings_are_inside_their_limits() {
        let usual = LaneConfig::default();
        assert_eq!(format!("{:?}", usual.clone().normalized()), format!("{usual:?}"));
        assert_eq!(usual.batch_bytes_max(), (8 << 20) - 2048);
    }

    #[test]
    fn segments_are_whole_sectors_and_a_budget_holds_three_of_them() {
        for (segment_bytes, budget_bytes, wanted, floor) in [
            (0, 0, 16 << 10, 48 << 10),
            (20_000, 0, 16_384, 49_152),
            (20_480, 61_439, 20_480, 61_440),
            (24_575, 1 << 20, 20_480, 1 << 20),
            (u32::MAX, 0, 1 << 30, 3 << 30),
        ] {
            let config = normalized(|config| {
                (config.segment_bytes, config.budget_bytes) = (segment_bytes, budget_bytes);
            });
            assert_eq!((config.segment_bytes, config.budget_bytes), (wanted, floor));
        }
    }

    #[test]
    fn a_group_is_a_quarter_of_a_segment_at_most_and_a_commit_no_more_than_a_group() {
        for (group, commit, wanted) in [
            (0, 0, (1024, 1)),
            (1023, 2000, (1024, 1024)),
            (5000, 4000, (5000, 4000)),
            (u32::MAX, u32::MAX, (4096, 4096)),
        ] {
            let config = normalized(|config| {
                config.segment_bytes = if group == 5000 { 32 << 10 } else { 16 << 10 };
                (config.group_bytes_max, config.commit_bytes) = (group, commit);
            });
            assert_eq!((config.group_bytes_max, config.commit_bytes), wanted, "{group} {commit}");
        }
    }

    #[test]
    fn an_interval_commits_when_it_is_over_or_the_group_is_full() {
        for (ms, wanted) in [(0, 1), (200, 200), (90_000, 60_000)] {
            let config = normalized(|config| config.durability = Durability::Interval { ms });
            assert_eq!(config.durability, Durability::Interval { ms: wanted });
            assert_eq!(config.commit_bytes, 256 << 10);
        }
    }

    #[test]
    fn only_what_drops_decays_and_within_limits() {
        let decay = |when_full, decay| {
            normalized(|config| (config.when_full, config.decay) = (when_full, Some(decay))).decay
        };
        let drops = WhenFull::DropOldest { unsent: false };
        assert_eq!(decay(WhenFull::Refuse, Decay::KeepEvery { records: 9 }), None);
        for (records, wanted) in [(0, 2), (2, 2), (9, 9)] {
            let wanted = Some(Decay::KeepEvery { records: wanted });
            assert_eq!(decay(drops, Decay::KeepEvery { records }), wanted);
        }
        for (seconds, wanted) in [(0, 1), (60, 60), (100_000, 86_400)] {
            let wanted = Some(Decay::Aggregate { seconds: wanted });
            assert_eq!(decay(drops, Decay::Aggregate { seconds }), wanted);
        }
    }

    #[test]
    fn windows_bursts_and_levels_have_limits() {
        let config = normalized(|config| {
            (config.commit_window_us, config.commit_window_max_us) = (u64::MAX, u64::MAX);
            config.sync_burst = 0;
            config.compression = GroupCompression::Zstd { level: 99 };
        });
        assert_eq!(
            (config.commit_window_us, config.commit_window_max_us),
            (60_000_000, 60_000_000)
        );
        assert_eq!(config.sync_burst, 1);
        assert_eq!(config.compression, GroupCompression::Zstd { level: 22 });
    }
}

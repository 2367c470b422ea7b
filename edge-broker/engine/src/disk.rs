//! How full the file system of the data directory is.

use std::path::Path;

use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};

/// From which share of the file system, in per cent, it is worth a word, and how urgent a word.
const LEVELS: [(u8, DiskLevel); 3] =
    [(95, DiskLevel::Critical), (90, DiskLevel::High), (80, DiskLevel::Warn)];

/// How urgent it is to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskLevel {
    /// Below 80 %.
    #[default]
    Ok,
    /// From 80 %.
    Warn,
    /// From 90 %.
    High,
    /// From 95 %.
    Critical,
}

/// The file system of the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// All of it.
    pub total_bytes: u64,
    /// Free for us.
    pub free_bytes: u64,
    /// Used, of what users can have.
    pub used_percent: u8,
    /// How urgent it is to make room.
    pub level: DiskLevel,
    /// What is kept for metadata and recovery.
    pub reserve_bytes: u64,
    /// Whether it is there: it is given back while the disk is full.
    pub reserve_held: bool,
}

/// Looks at the file system of a directory; `None` if it does not tell.
pub(crate) fn look(data_dir: &Path) -> Option<DiskStatus> {
    let disk = statvfs(data_dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    // As df counts: what only root may have is neither used nor free.
    let used_percent = percent(used, used + disk.f_bavail);
    Some(DiskStatus {
        total_bytes: bytes(disk.f_blocks),
        free_bytes: bytes(disk.f_bavail),
        used_percent,
        level: level(used_percent),
        ..DiskStatus::default()
    })
}

/// Rounded up, so that a full disk is told as full and one that has a little room is not told as empty.
fn percent(part: u64, whole: u64) -> u8 {
    let percent = (u128::from(part) * 100).div_ceil(u128::from(whole.max(1)));
    u8::try_from(percent).unwrap_or(100).min(100)
}

fn level(used_percent: u8) -> DiskLevel {
    let reached = LEVELS.iter().find(|(from, _)| used_percent >= *from);
    reached.map_or(DiskLevel::Ok, |(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_where_they_say() {
        let levels = [0, 79, 80, 89, 90, 94, 95, 100].map(level);
        use DiskLevel::{Critical, High, Ok, Warn};
        assert_eq!(levels, [Ok, Ok, Warn, Warn, High, High, Critical, Critical]);
        assert!(Ok < Warn && High < Critical);
        assert_eq!([percent(0, 0), percent(1, 1_000), percent(999, 1_000)], [0, 1, 100]);
    }

    #[test]
    fn this_disk_adds_up() {
        let disk = look(&std::env::temp_dir()).unwrap();
        assert!(disk.total_bytes >= disk.free_bytes && disk.used_percent <= 100);
        assert_eq!(look(Path::new("/not/there")), None);
    }
}

//! Bytes to the block device, as the kernel counts them.
//!
//! - A partition, a loop device or a device-mapper volume has counters of its own (`/sys/dev/block/MAJOR:MINOR/stat`,
//!   the seventh number: sectors of 512 bytes written since the machine started, by everybody). Of a partition, and of
//!   a volume on a single device, the whole disk is told as well: that is what wears out.
//! - btrfs and other file systems whose files have a device number of their own are found by their mount
//!   (`/proc/self/mountinfo`), an overlay by its upper directory.
//! - What has no block device (tmpfs, network file systems) or cannot be found out is unknown, with the reason.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor, stat};
use serde::{Deserialize, Serialize};

/// Overlays may lie on overlays, volumes on volumes.
const DEPTH_MAX: u32 = 4;
/// Unit of the kernel's counters, whatever the device's sectors are.
const SECTOR_BYTES: u64 = 512;

/// A device and what was written to it since the machine started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCount {
    /// The kernel's name of it: `mmcblk0p2`.
    pub name: String,
    /// Bytes written, by everybody.
    pub written_bytes: u64,
}

/// The device below a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What the file system lies on.
    pub volume: DeviceCount,
    /// The disk that the volume is a part of, if it is a part.
    pub disk: Option<DeviceCount>,
}

impl Device {
    /// What wears out, as far as it is known.
    #[must_use]
    pub fn outermost(&self) -> &DeviceCount {
        self.disk.as_ref().unwrap_or(&self.volume)
    }
}

/// Bytes a thread of this process sent to the storage layer so far (`write_bytes` of
/// `/proc/PID/task/TID/io`, proc(5)). A lane writes from one thread of its own, so this is the lane's.
/// `None` where the kernel keeps no such account.
pub(crate) fn thread_write_bytes(thread_id: u64) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread_id}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.trim().parse().ok()
}

/// The device that holds `path`.
///
/// # Errors
/// Why it is unknown, in words.
pub(crate) fn device_below(path: &Path) -> Result<Device, String> {
    let number = device_number(path, DEPTH_MAX)?;
    let entry = Path::new("/sys/dev/block").join(format!("{}:{}", number.0, number.1));
    let entry = fs::canonicalize(&entry)
        .map_err(|_| format!("the kernel tells nothing of device {}:{}", number.0, number.1))?;
    read_device(&entry)
}

/// The same from the device's directory under `/sys/devices`.
fn read_device(entry: &Path) -> Result<Device, String> {
    let volume = count(entry)?;
    let disk = disk_of(entry, DEPTH_MAX).and_then(|entry| count(&entry).ok());
    Ok(Device { volume, disk })
}

fn count(entry: &Path) -> Result<DeviceCount, String> {
    let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stat = fs::read_to_string(entry.join("stat")).unwrap_or_default();
    let sectors = stat.split_whitespace().nth(6).and_then(|number| number.parse::<u64>().ok());
    match sectors {
        Some(sectors) => {
            Ok(DeviceCount { name, written_bytes: sectors.saturating_mul(SECTOR_BYTES) })
        }
        None => Err(format!("the kernel keeps no statistics of {name}")),
    }
}

/// The disk of a partition, or of a volume that lies on a single device.
fn disk_of(entry: &Path, depth: u32) -> Option<PathBuf> {
    let below = if entry.join("partition").exists() {
        entry.parent()?.to_owned()
    } else {
        let mut slaves = fs::read_dir(entry.join("slaves")).ok()?.flatten();
        let only = slaves.next()?;
        if slaves.next().is_some() {
            return None;
        }
        fs::canonicalize(only.path()).ok()?
    };
    let further = if depth > 1 { disk_of(&below, depth - 1) } else { None };
    Some(further.unwrap_or(below))
}

/// Major and minor number of the block device that holds `path`.
fn device_number(path: &Path, depth: u32) -> Result<(u32, u32), String> {
    let found = stat(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let device = found.st_dev;
    if major(device) != 0 {
        return Ok((major(device), minor(device)));
    }
    // A number without a driver behind it: the mount knows more.
    let absolute = fs::canonicalize(path).map_err(|error| error.to_string())?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let number = (major(device), minor(device));
    let mount = find_mount(&mounts, number, &absolute)
        .ok_or_else(|| "its mount is not in /proc/self/mountinfo".to_owned())?;
    if let Some(upper) = mount.upper {
        if depth > 1 && upper.is_dir() {
            return device_number(&upper, depth - 1);
        }
        return Err("an overlay whose upper directory cannot be seen from here".to_owned());
    }
    let source = Path::new(mount.source);
    match stat(source) {
        Ok(node) if source.is_absolute() && major(node.st_rdev) != 0 => {
            Ok((major(node.st_rdev), minor(node.st_rdev)))
        }
        _ => Err(format!("a {} file system has no block device of its own", mount.kind)),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    kind: &'a str,
    source: &'a str,
    /// Of an overlay.
    upper: Option<PathBuf>,
}

/// The mount of a device number that is nearest above `path` (proc(5), `mountinfo`).
fn find_mount<'a>(text: &'a str, number: (u32, u32), path: &Path) -> Option<Mount<'a>> {
    let wanted = format!("{}:{}", number.0, number.1);
    let mounts = text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let (device, point) = (left.next()?, left.nth(1)?);
        let point = PathBuf::from(unescape(point));
        if device != wanted || !path.starts_with(&point) {
            return None;
        }
        let mut right = right.splitn(3, ' ');
        let (kind, source) = (right.next()?, right.next()?);
        let options = right.next().unwrap_or_default();
        let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="));
        let upper = upper.map(|upper| PathBuf::from(unescape(upper)));
        Some((point.components().count(), Mount { kind, source, upper }))
    });
    // Of several mounts at one place the last one counts.
    mounts.max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
}

/// Blanks and the like stand as octal numbers.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "  100 0 800 5 200 0 1600 7 0 3 12 0 0 0 0 0 0\n";

    fn device(root: &Path, path: &str) -> PathBuf {
        let entry = root.join(path);
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("stat"), STAT).unwrap();
        entry
    }

    #[test]
    fn a_partition_is_told_with_its_disk() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "mmcblk0");
        let part = device(root.path(), "mmcblk0/mmcblk0p2");
        fs::write(part.join("partition"), "2\n").unwrap();
        let found = read_device(&part).unwrap();
        assert_eq!(
            found.volume,
            DeviceCount { name: "mmcblk0p2".into(), written_bytes: 1600 * 512 }
        );
        assert_eq!(found.outermost().name, "mmcblk0");
    }

    #[test]
    fn a_volume_on_one_partition_is_told_with_its_disk_and_one_on_two_is_not() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "sda");
        let part = device(root.path(), "sda/sda3");
        fs::write(part.join("partition"), "3\n").unwrap();
        let volume = device(root.path(), "dm-0");
        fs::create_dir(volume.join("slaves")).unwrap();
        std::os::unix::fs::symlink(&part, volume.join("slaves/sda3")).unwrap();
        assert_eq!(read_device(&volume).unwrap().outermost().name, "sda");
        let other = device(root.path(), "sdb");
        std::os::unix::fs::symlink(&other, volume.join("slaves/sdb")).unwrap();
        assert_eq!(read_device(&volume).unwrap().disk, None);
    }

    #[test]
    fn a_loop_device_stands_for_itself() {
        let root = tempfile::tempdir().unwrap();
        let found = read_device(&device(root.path(), "loop0")).unwrap();
        assert_eq!((found.outermost().name.as_str(), found.disk.is_none()), ("loop0", true));
        fs::remove_file(root.path().join("loop0/stat")).unwrap();
        assert!(read_device(&root.path().join("loop0")).unwrap_err().contains("loop0"));
    }

    #[test]
    fn the_nearest_mount_is_found() {
        let text = "\
22 1 0:20 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/up\\040per,workdir=/w
30 22 0:31 /sub /data rw,noatime shared:1 - btrfs /dev/nvme0n1p3 rw,ssd
31 22 0:32 / /data/ram rw - tmpfs tmpfs rw
32 22 0:31 /other /data/inner rw - btrfs /dev/nvme0n1p4 rw
";
        let find = |number, path: &str| find_mount(text, number, Path::new(path));
        let upper = find((0, 20), "/var/lib").unwrap().upper;
        assert_eq!(upper, Some(PathBuf::from("/up per")));
        assert_eq!(find((0, 31), "/data/x").unwrap().source, "/dev/nvme0n1p3");
        assert_eq!(find((0, 31), "/data/inner/x").unwrap().source, "/dev/nvme0n1p4");
        assert_eq!(find((0, 32), "/data/ram").unwrap().kind, "tmpfs");
        assert_eq!(find((0, 99), "/data/ram"), None);
    }

    #[test]
    fn this_machine_is_told_or_the_reason_why_not() {
        match device_below(Path::new("/")) {
            Ok(device) => assert!(!device.volume.name.is_empty()),
            Err(why) => assert!(!why.is_empty()),
        }
        // The process file system is on no device.
        let why = device_below(Path::new("/proc/self")).unwrap_err();
        assert!(why.contains("proc"), "{why}");
    }
}

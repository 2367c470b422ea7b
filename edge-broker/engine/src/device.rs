//! Bytes to the block device, as the kernel counts them.

use std::path::Path;

/// Bytes a thread of this process sent to the storage layer so far (`write_bytes` of
/// `/proc/PID/task/TID/io`, proc(5)). A lane writes from one thread of its own, so this is the lane's.
/// `None` where the kernel keeps no such account.
pub(crate) fn thread_write_bytes(thread_id: u64) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.trim().parse().ok()
}

/// Bytes written to the block device below `path` since the machine started, by everybody
/// (`/sys/dev/block/MAJOR:MINOR/stat`, in sectors of 512 bytes). `None` without such a device.
pub(crate) fn device_written_bytes(path: &Path) -> Option<u64> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

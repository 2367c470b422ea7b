//! A filesystem of its own for one side of a comparison: ext4 on a loop device, so that the kernel's counters of
//! that device tell every byte, the filesystem's own journal and metadata included.
//!
//! Needs root, `losetup`, `mkfs.ext4` and `mount`. The image lies in `EDGE_BENCH_DIR` (else `target/bench`), is
//! allocated at once, and goes when the value is dropped. Mounted `noatime` with ext4's defaults otherwise
//! (`data=ordered`, a commit every 5 s).

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fdatasync};
use system_tests::gate::find_program;
use tempfile::TempDir;

use crate::ingest::bench_folder;

/// How every side is mounted.
pub(crate) const MOUNT_OPTIONS: &str = "noatime";
const SECTOR_BYTES: u64 = 512;
const PROBE_SYNCS: usize = 400;
const PROBE_BYTES: usize = 4096;

/// A mounted filesystem.
#[derive(Debug)]
pub(crate) struct Volume {
    device: String,
    mounted: bool,
    /// Holds the image and the mount point; removed last.
    folder: TempDir,
}

/// What the kernel counts for a block device.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeviceCounters {
    /// Bytes written.
    pub(crate) written_bytes: u64,
    /// Write requests.
    pub(crate) writes: u64,
    /// Cache flushes: what a sync ends in.
    pub(crate) flushes: u64,
    /// Bytes read.
    pub(crate) read_bytes: u64,
}

impl DeviceCounters {
    /// What was added since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            written_bytes: self.written_bytes - before.written_bytes,
            writes: self.writes - before.writes,
            flushes: self.flushes - before.flushes,
            read_bytes: self.read_bytes - before.read_bytes,
        }
    }
}

/// How long one write and one sync take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SyncLatency {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Volume {
    /// What this machine lacks for it, as a sentence; `None` if nothing.
    pub(crate) fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("a filesystem of its own needs root (losetup, mount)".to_owned());
        }
        ["losetup", "mkfs.ext4", "mount", "umount"]
            .into_iter()
            .find(|program| find_program(program).is_none())
            .map(|program| format!("{program} is not installed"))
    }

    /// Makes one of `bytes` and mounts it.
    ///
    /// # Errors
    /// When one of the programs fails or there is no room.
    pub(crate) fn make(bytes: u64) -> Result<Self> {
        let folder = tempfile::tempdir_in(bench_folder()?)?;
        let image = folder.path().join("image");
        let file = File::create(&image)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes).context("room for the image")?;
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let mut volume = Self { device: device.trim().to_owned(), mounted: false, folder };
        fs::create_dir(volume.path())?;
        output(
            Command::new("mkfs.ext4")
                .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
                .arg(&volume.device),
        )?;
        output(
            Command::new("mount")
                .args(["-o", MOUNT_OPTIONS])
                .arg(&volume.device)
                .arg(volume.path()),
        )?;
        volume.mounted = true;
        Ok(volume)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// The block device, `/dev/loopN`.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// Has the filesystem write all it holds back.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(File::open(self.path())?)?;
        Ok(())
    }

    /// The device's counters.
    ///
    /// # Errors
    /// When the kernel shows them otherwise than documented in its `block/stat`.
    pub(crate) fn counters(&self) -> Result<DeviceCounters> {
        let name = self.device.trim_start_matches("/dev/");
        let text = fs::read_to_string(Path::new("/sys/block").join(name).join("stat"))?;
        let fields: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(fields.len() >= 7, "{text:?}");
        Ok(DeviceCounters {
            read_bytes: fields[2] * SECTOR_BYTES,
            writes: fields[4],
            written_bytes: fields[6] * SECTOR_BYTES,
            // Since Linux 5.5.
            flushes: fields.get(15).copied().unwrap_or(0),
        })
    }

    /// Measures a direct write of one page into space that was written before, and its sync: the least that an
    /// acknowledgement after a sync takes here.
    ///
    /// # Errors
    /// When the disk does not do it.
    pub(crate) fn sync_latency(&self) -> Result<SyncLatency> {
        let path = self.path().join("probe");
        fs::write(&path, vec![0; PROBE_BYTES * 64])?;
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(OFlags::DIRECT.bits() as i32);
        let file = options.open(&path)?;
        file.sync_all()?;
        // Memory for direct writes has to be aligned: look for an aligned page in a buffer of two.
        let buffer = vec![7; PROBE_BYTES * 2];
        let from = buffer.as_ptr().align_offset(PROBE_BYTES);
        let page = &buffer[from..from + PROBE_BYTES];
        let mut took = Vec::with_capacity(PROBE_SYNCS);
        for index in 0..PROBE_SYNCS {
            let began = Instant::now();
            file.write_all_at(page, (index % 64 * PROBE_BYTES) as u64)?;
            fdatasync(&file)?;
            took.push(began.elapsed());
        }
        fs::remove_file(&path)?;
        took.sort_unstable();
        Ok(SyncLatency { p50: took[PROBE_SYNCS / 2], p99: took[PROBE_SYNCS * 99 / 100] })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // A process that was just killed may still hold it for a moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.mounted {
            self.mounted = output(Command::new("umount").arg(self.path())).is_err();
            if self.mounted && Instant::now() > deadline {
                eprintln!("cannot unmount {}; left there", self.path().display());
                break;
            }
            if self.mounted {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        if let Err(error) = output(Command::new("losetup").arg("--detach").arg(&self.device)) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a program to its end; what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {} {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

//! The real disk.
//!
//! - Writes go past the page cache (`O_DIRECT`) where the file system allows it, in the steps that
//!   `statx(STATX_DIOALIGN)` names; a kernel that does not say (before 6.1) gets 4,096-byte steps. Reads go
//!   through the page cache by a second descriptor: a direct write invalidates what it covers there.
//! - Where `O_DIRECT` is refused (tmpfs, some FUSE and network file systems) writes go through the page cache in
//!   4,096-byte steps, because that is what the kernel writes back: with less, a page that holds acknowledged
//!   bytes would be written again. Opening such a file drops its clean pages, so that what recovery reads is
//!   what the device has, not what a failed sync left behind in memory.
//! - Interrupted calls are made again, short reads and writes completed (calls.rs). Nothing else is tried twice.
//! - `fdatasync` makes data and length durable (POSIX: metadata needed to read the data back).

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Advice, AtFlags, OFlags, StatxFlags, fadvise, statvfs, statx};

use super::calls::{Kernel, SystemCalls, read_full, uninterrupted, write_full};
use super::{AlignedBuf, IoMode, OpenMode, Storage, StorageFile};

/// Threads that read heads of files.
const HEAD_READERS: usize = 8;
const HEAD_READER_STACK_BYTES: usize = 64 << 10;
/// Sector assumed where nobody says.
const SECTOR_BYTES_DEFAULT: u32 = 4096;

/// A data directory on a real file system.
#[derive(Clone)]
pub struct FileStorage {
    root: PathBuf,
    direct: bool,
    calls: Arc<dyn SystemCalls>,
}

impl std::fmt::Debug for FileStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStorage").field("root", &self.root).finish_non_exhaustive()
    }
}

impl FileStorage {
    /// Opens the data directory, which must exist.
    ///
    /// # Errors
    /// It does not exist or is no directory.
    pub fn open(root: &Path) -> io::Result<Self> {
        Self::with_calls(root, true, Arc::new(Kernel))
    }

    /// The same, but never past the page cache.
    ///
    /// # Errors
    /// It does not exist or is no directory.
    pub fn open_buffered(root: &Path) -> io::Result<Self> {
        Self::with_calls(root, false, Arc::new(Kernel))
    }

    /// The same by other system calls: what a kernel may do, a test makes happen.
    ///
    /// # Errors
    /// It does not exist or is no directory.
    pub fn with_calls(root: &Path, direct: bool, calls: Arc<dyn SystemCalls>) -> io::Result<Self> {
        if !std::fs::metadata(root)?.is_dir() {
            return Err(io::Error::new(ErrorKind::NotADirectory, "the data directory is a file"));
        }
        Ok(Self { root: root.to_owned(), direct, calls })
    }

    /// Paths come from our own code; one that leaves the data directory is our mistake, told as an error.
    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        let relative = Path::new(path);
        let inside = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if inside {
            Ok(self.root.join(relative))
        } else {
            Err(io::Error::new(ErrorKind::InvalidInput, "the path leaves the data directory"))
        }
    }
}

impl Storage for FileStorage {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.resolve(dir)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.resolve(dir)?)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let path = self.resolve(path)?;
        Ok(Arc::new(OpenFile::open(&path, mode, self.direct, &self.calls)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        uninterrupted(|| self.calls.rename(&from, &to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.resolve(path)?;
        uninterrupted(|| self.calls.unlink(&path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.resolve(dir)?;
        let mut options = OpenOptions::new();
        let dir = uninterrupted(|| self.calls.open(options.read(true), &path))?;
        uninterrupted(|| self.calls.fsync(&dir))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let free = statvfs(&self.root)?;
        Ok(free.f_bavail.saturating_mul(free.f_frsize))
    }

    /// Reads them now, several at a time and nothing behind them: one by one, a cold disk makes us wait for every single
    /// one, and reads ahead what nobody asks for.
    fn will_read_heads(&self, paths: &[String], bytes: usize) {
        let next = AtomicUsize::new(0);
        let read = || {
            let mut head = vec![0; bytes];
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Whatever is wrong with a file is told by who reads it in earnest.
                let Ok(file) = self.resolve(path).and_then(File::open) else { continue };
                let _ = fadvise(&file, 0, None, Advice::Random);
                let _ = file.read_at(&mut head, 0);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..HEAD_READERS {
                let thread = std::thread::Builder::new().stack_size(HEAD_READER_STACK_BYTES);
                let _ = thread.spawn_scoped(scope, read);
            }
        });
    }
}

struct OpenFile {
    calls: Arc<dyn SystemCalls>,
    /// Buffered; for reading, and for writing where `direct` is absent.
    buffered: File,
    direct: Option<File>,
    io_mode: IoMode,
}

impl OpenFile {
    fn open(
        path: &Path,
        mode: OpenMode,
        try_direct: bool,
        calls: &Arc<dyn SystemCalls>,
    ) -> io::Result<Self> {
        let write = mode != OpenMode::Read;
        let mut options = OpenOptions::new();
        options.read(true).write(write);
        if mode == OpenMode::Create {
            options.create(true).truncate(true);
        }
        let buffered = uninterrupted(|| calls.open(&options, path))?;
        let direct =
            if write && try_direct { Self::open_direct(path, &buffered, &**calls)? } else { None };
        let (direct, io_mode) = match direct {
            Some((file, sector_bytes)) => (Some(file), IoMode::Direct { sector_bytes }),
            None => (None, IoMode::Buffered { sector_bytes: SECTOR_BYTES_DEFAULT }),
        };
        let opened = Self { calls: Arc::clone(calls), buffered, direct, io_mode };
        if write && opened.direct.is_none() {
            opened.forget_cached();
        }
        Ok(opened)
    }

    fn open_direct(
        path: &Path,
        buffered: &File,
        calls: &dyn SystemCalls,
    ) -> io::Result<Option<(File, u32)>> {
        let known = statx(buffered, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
            .ok()
            .filter(|stat| stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
        let sector_bytes = match known {
            // Zero: this file cannot be written directly.
            Some(stat) if stat.stx_dio_offset_align == 0 => return Ok(None),
            Some(stat) => stat.stx_dio_offset_align.max(512),
            None => SECTOR_BYTES_DEFAULT,
        };
        let memory_bytes = known.map_or(0, |stat| stat.stx_dio_mem_align);
        if !sector_bytes.is_power_of_two()
            || sector_bytes > SECTOR_BYTES_DEFAULT
            || memory_bytes as usize > AlignedBuf::ALIGNMENT_BYTES
        {
            return Ok(None);
        }
        let flags = OFlags::DIRECT.bits() as i32;
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags);
        match uninterrupted(|| calls.open(&options, path)) {
            Ok(file) => Ok(Some((file, sector_bytes))),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl StorageFile for OpenFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        read_full(&*self.calls, &self.buffered, buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        let sector = self.io_mode.sector_bytes() as usize;
        debug_assert!(position.is_multiple_of(sector as u64) && buf.len().is_multiple_of(sector));
        let Some(direct) = &self.direct else {
            return write_full(&*self.calls, &self.buffered, buf, position, sector);
        };
        if buf.as_ptr().align_offset(sector) == 0 {
            return write_full(&*self.calls, direct, buf, position, sector);
        }
        let mut aligned = AlignedBuf::new();
        aligned.extend_from_slice(buf);
        write_full(&*self.calls, direct, &aligned, position, sector)
    }

    fn sync_data(&self) -> io::Result<()> {
        let file = self.direct.as_ref().unwrap_or(&self.buffered);
        // Interrupted it has not failed: what was written is still to be synced.
        uninterrupted(|| self.calls.fdatasync(file))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.buffered.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.buffered.set_len(len)
    }

    fn io_mode(&self) -> IoMode {
        self.io_mode
    }

    fn forget_cached(&self) {
        // Advice only: where it is not understood, nothing is lost but the precaution.
        let _ = fadvise(&self.buffered, 0, None, Advice::DontNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_paths_stay_inside() {
        let dir = std::env::temp_dir().join(format!("edge-log-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for storage in [FileStorage::open(&dir).unwrap(), FileStorage::open_buffered(&dir).unwrap()]
        {
            storage.create_dir("a/b").unwrap();
            let file = storage.open("a/b/one", OpenMode::Create).unwrap();
            let sector = file.io_mode().sector_bytes() as usize;
            let unaligned = vec![7u8; sector * 2 + 1];
            file.write_at(&unaligned[1..], 0).unwrap();
            file.sync_data().unwrap();
            let mut buf = vec![0u8; sector * 3];
            assert_eq!(file.read_at(&mut buf, 0).unwrap(), sector * 2);
            assert_eq!(&buf[..sector * 2], &unaligned[1..]);
            storage.rename("a/b/one", "a/b/two").unwrap();
            storage.sync_dir("a/b").unwrap();
            assert_eq!(storage.list("a/b").unwrap(), ["two"]);
            assert!(storage.free_bytes().unwrap() > 0);
            storage.remove("a/b/two").unwrap();
            assert!(storage.open("../x", OpenMode::Create).is_err());
            assert!(storage.open("/etc/hostname", OpenMode::Read).is_err());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

//! Room that is kept for metadata and recovery on a disk that is otherwise full.
//!
//! - A file `reserve` in the data directory holds the blocks (allocated, not written: it costs no wear). When a group
//!   of the `system` lane waits for a segment, or a side index finds no room, its blocks are given back; once there is
//!   room again they are taken again, before lanes for records may grow.
//! - While they are given back, lanes for records leave that much free: what was kept for metadata is not eaten by
//!   records.
//! - Size: as configured; by default the board's, at most a 32nd of the file system, at least 4 MiB.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use edge_log::{IoMode, OpenMode, Storage, StorageFile};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

const FILE: &str = "reserve";
/// How side indexes end: they can be written anew at any time.
const INDEX: &str = ".idx";
/// Smallest reserve: three segments of the system lane and its indexes.
pub(crate) const RESERVE_BYTES_MIN: u64 = 4 << 20;
/// By default no more than this part of the file system.
const PART: u64 = 32;
/// Stays free beside the reserve when it is taken.
const MARGIN_BYTES: u64 = 4 << 20;
const STEP_BYTES: usize = 64 << 10;

/// What a reserve is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveSize {
    /// So many bytes; 0: none.
    Exactly(u64),
    /// At most so many bytes, less on a small file system.
    AtMost(u64),
}

/// The reserve of a data directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    held: AtomicBool,
    /// Held while the file is changed.
    change: Mutex<()>,
}

impl Reserve {
    /// Finds out what is there; takes nothing yet.
    pub(crate) fn open(data_dir: &Path, size: ReserveSize) -> Self {
        let bytes = match size {
            ReserveSize::Exactly(bytes) => bytes,
            ReserveSize::AtMost(bytes) => {
                let total = statvfs(data_dir).map_or(0, |disk| disk.f_blocks * disk.f_frsize);
                bytes.min(total / PART).max(RESERVE_BYTES_MIN)
            }
        };
        let path = data_dir.join(FILE);
        let held = std::fs::metadata(&path).is_ok_and(|file| file.blocks() * 512 >= bytes);
        Self { path, bytes, held: AtomicBool::new(held && bytes > 0), change: Mutex::new(()) }
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether its blocks are taken.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// What others have to leave free for it.
    pub(crate) fn missing_bytes(&self) -> u64 {
        if self.is_held() { 0 } else { self.bytes }
    }

    /// Gives its blocks back. `true` if there were any.
    pub(crate) fn release(&self, why: &str) -> bool {
        let _changing = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.held.swap(false, Ordering::AcqRel) {
            return false;
        }
        match OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(0)) {
            Ok(()) => {
                tracing::warn!(
                    bytes = self.bytes,
                    why,
                    "the disk is full: the reserve is given back"
                );
                true
            }
            Err(error) => {
                tracing::error!(%error, "the reserve could not be given back");
                false
            }
        }
    }

    /// Takes the blocks if there is room for them. `true` if they are held now.
    ///
    /// # Errors
    /// The file system refused although it has room.
    pub(crate) fn take(&self) -> io::Result<bool> {
        let _changing = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_held() || self.bytes == 0 {
            return Ok(self.is_held());
        }
        let dir = self.path.parent().unwrap_or(Path::new("."));
        if free_bytes(dir)? < self.bytes + MARGIN_BYTES {
            return Ok(false);
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&self.path)?;
        match allocate(&file, self.bytes) {
            Ok(()) => {
                self.held.store(true, Ordering::Release);
                Ok(true)
            }
            Err(error) => {
                // Half a reserve is none.
                let _ = file.set_len(0);
                if error.kind() == ErrorKind::StorageFull { Ok(false) } else { Err(error) }
            }
        }
    }
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let disk = statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // A file system that cannot: then with zeros, once.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; STEP_BYTES];
            let mut at = 0;
            while at < bytes {
                let count = STEP_BYTES.min((bytes - at) as usize);
                file.write_all_at(&zeros[..count], at)?;
                at += count as u64;
            }
            file.sync_data()
        }
        Err(error) => Err(error.into()),
    }
}

/// The data directory as one lane sees it: with the reserve for those that may use it, without for the others.
pub(crate) struct ReservedStorage {
    inner: Arc<dyn Storage>,
    reserve: Arc<Reserve>,
    /// The lane holds metadata.
    is_metadata: bool,
}

impl ReservedStorage {
    /// For the lane that holds metadata, or for one that holds records.
    pub(crate) fn of_lane(
        inner: Arc<dyn Storage>,
        reserve: Arc<Reserve>,
        is_metadata: bool,
    ) -> Arc<dyn Storage> {
        Arc::new(Self { inner, reserve, is_metadata })
    }

    fn may_use_reserve(&self, path: &str) -> bool {
        self.is_metadata || path.ends_with(INDEX)
    }
}

impl Storage for ReservedStorage {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        match self.inner.create_dir(dir) {
            Err(error) if is_full(&error) && self.reserve.release("a directory") => {
                self.inner.create_dir(dir)
            }
            other => other,
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let may = mode != OpenMode::Read && self.may_use_reserve(path);
        let file = match self.inner.open(path, mode) {
            Err(error) if may && is_full(&error) && self.reserve.release(path) => {
                self.inner.open(path, mode)?
            }
            other => other?,
        };
        // A write into a segment is never tried again.
        if !may || !path.ends_with(INDEX) {
            return Ok(file);
        }
        let (reserve, path) = (Arc::clone(&self.reserve), path.to_owned());
        Ok(Arc::new(ReservedFile { file, reserve, path }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let free = self.inner.free_bytes()?;
        // Metadata may have all there is; its lane asks for the reserve when a group waits.
        let kept = if self.is_metadata { 0 } else { self.reserve.missing_bytes() };
        Ok(free.saturating_sub(kept))
    }

    fn will_read_heads(&self, paths: &[String], bytes: usize) {
        self.inner.will_read_heads(paths, bytes);
    }
}

/// A side index, whose writes may have the reserve.
struct ReservedFile {
    file: Arc<dyn StorageFile>,
    reserve: Arc<Reserve>,
    path: String,
}

impl StorageFile for ReservedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        match self.file.write_at(buf, position) {
            Err(error) if is_full(&error) && self.reserve.release(&self.path) => {
                self.file.write_at(buf, position)
            }
            other => other,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn io_mode(&self) -> IoMode {
        self.file.io_mode()
    }

    fn forget_cached(&self) {
        self.file.forget_cached();
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use edge_log::SimStorage;

    use super::*;

    #[test]
    fn a_reserve_is_held_given_back_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(dir.path(), ReserveSize::Exactly(5 << 20));
        assert_eq!((reserve.is_held(), reserve.missing_bytes()), (false, 5 << 20));
        assert!(reserve.take().unwrap());
        let blocks = || std::fs::metadata(dir.path().join(FILE)).unwrap().blocks() * 512;
        assert!(blocks() >= 5 << 20);
        assert!(Reserve::open(dir.path(), ReserveSize::Exactly(5 << 20)).is_held());
        assert!(reserve.release("a test"));
        assert!(!reserve.release("a test"));
        assert_eq!((blocks(), reserve.missing_bytes()), (0, 5 << 20));
        assert!(reserve.take().unwrap());
        assert_eq!(reserve.missing_bytes(), 0);
    }

    #[test]
    fn a_reserve_larger_than_the_disk_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(dir.path(), ReserveSize::Exactly(1 << 50));
        assert!(!reserve.take().unwrap());
        assert!(!dir.path().join(FILE).exists());
        // By default it is a small part of the disk.
        let reserve = Reserve::open(dir.path(), ReserveSize::AtMost(1 << 50));
        let total = statvfs(dir.path()).map(|disk| disk.f_blocks * disk.f_frsize).unwrap();
        assert_eq!(reserve.bytes(), (total / PART).max(RESERVE_BYTES_MIN));
    }

    #[test]
    fn records_leave_room_for_a_reserve_that_was_given_back_and_metadata_may_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimStorage::new(1);
        disk.set_free_bytes(6 << 20);
        let reserve = Arc::new(Reserve::open(dir.path(), ReserveSize::Exactly(5 << 20)));
        assert!(reserve.take().unwrap());
        let of_lane = |is_metadata| {
            ReservedStorage::of_lane(Arc::new(disk.clone()), reserve.clone(), is_metadata)
        };
        let (records, metadata) = (of_lane(false), of_lane(true));
        assert_eq!(records.free_bytes().unwrap(), 6 << 20);
        assert!(reserve.release("a test"));
        assert_eq!(records.free_bytes().unwrap(), 1 << 20);
        assert_eq!(metadata.free_bytes().unwrap(), 6 << 20);
    }

    #[test]
    fn a_side_index_gets_room_from_the_reserve_and_a_segment_of_records_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimStorage::new(1);
        disk.create_dir("lanes/normal").unwrap();
        let reserve = Arc::new(Reserve::open(dir.path(), ReserveSize::Exactly(4 << 20)));
        assert!(reserve.take().unwrap());
        let records = ReservedStorage::of_lane(Arc::new(disk.clone()), reserve.clone(), false);
        let fault = |after| edge_log::storage::Fault {
            operation: edge_log::storage::SimOperation::Write,
            after,
            kind: edge_log::storage::FaultKind::NoSpace,
            sticky: false,
        };
        disk.inject(fault(0));
        let segment = records.open("lanes/normal/slot-0000.tmp", OpenMode::Create).unwrap();
        assert!(segment.write_at(&[0; 512], 0).is_err());
        assert!(reserve.is_held());
        disk.inject(fault(0));
        let index = records.open("lanes/normal/slot-0000.idx", OpenMode::Create).unwrap();
        index.write_at(&[0; 512], 0).unwrap();
        assert!(!reserve.is_held());
    }
}

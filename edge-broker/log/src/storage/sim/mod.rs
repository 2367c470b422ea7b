//! The simulated disk: what programs see, what a power cut would leave, and faults on demand.
//!
//! - A write is visible at once and durable after a successful `sync_data` of its file; a name after a successful
//!   `sync_dir` of its directory. [`SimStorage::crash_image`] makes the disk that a power cut at this moment would
//!   leave; which unsynced changes survive is decided by a [`CrashPolicy`] and a seed.
//! - A failed sync leaves a random part of the unsynced sectors on the device and forgets the rest, as a kernel
//!   that marks pages clean after an error does. A second sync then succeeds and proves nothing.
//! - [`SimStorage::on_operation`] calls back before each operation that changes something: the crash enumerator
//!   takes its images there.
//! - Nothing depends on time or on anything but seeds.

mod crash;
mod disk;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crash::CrashPolicy;
use crash::Noise;
use disk::{Disk, NameChange, SECTOR_BYTES, Unsynced, parent};

use super::{IoMode, OpenMode, Storage, StorageFile};

/// An operation of the simulated disk, as faults name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimOperation {
    /// `open` with `Create`.
    Create,
    /// `open` of an existing file.
    Open,
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `sync_data`.
    Sync,
    /// `set_len`.
    SetLen,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `sync_dir`.
    SyncDir,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The device fails (EIO). A write leaves a random part of its sectors behind, a sync is a failed sync.
    Device,
    /// No space is left (ENOSPC); a write leaves a prefix behind.
    NoSpace,
}

/// One fault: the operation that is `after` operations of its kind away fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which kind of operation.
    pub operation: SimOperation,
    /// How many operations of this kind succeed before.
    pub after: u64,
    /// How it fails.
    pub kind: FaultKind,
    /// Whether all later ones fail too.
    pub sticky: bool,
}

/// Called before an operation that changes something.
pub type OperationHook = Box<dyn FnMut(SimOperation, &SimStorage) + Send>;

struct State {
    disk: Disk,
    faults: Vec<Fault>,
    noise: Noise,
    operations: u64,
    free_bytes: u64,
    written_bytes: u64,
    syncs: u64,
    io_mode: IoMode,
}

/// A data directory in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimStorage {
    state: Arc<Mutex<State>>,
    hook: Arc<Mutex<Option<OperationHook>>>,
}

impl std::fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimStorage").field("operations", &self.operations()).finish()
    }
}

impl Default for SimStorage {
    fn default() -> Self {
        Self::new(0)
    }
}

impl SimStorage {
    /// An empty disk. The seed decides what faults leave behind.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_disk(Disk::default(), seed)
    }

    fn with_disk(disk: Disk, seed: u64) -> Self {
        let state = State {
            disk,
            faults: Vec::new(),
            noise: Noise(seed),
            operations: 0,
            free_bytes: 1 << 40,
            written_bytes: 0,
            syncs: 0,
            io_mode: IoMode::Direct { sector_bytes: SECTOR_BYTES as u32 },
        };
        Self { state: Arc::new(Mutex::new(state)), hook: Arc::new(Mutex::new(None)) }
    }

    /// The disk that a power cut now would leave. The same policy and seed give the same disk.
    #[must_use]
    pub fn crash_image(&self, policy: CrashPolicy, seed: u64) -> Self {
        let state = self.lock();
        let image = crash::image(&state.disk, policy, &mut Noise(seed));
        let io_mode = state.io_mode;
        drop(state);
        let after = Self::with_disk(image, seed);
        after.lock().io_mode = io_mode;
        after
    }

    /// The disk as a killed process leaves it: what it wrote is visible, synced or not, and a power cut may
    /// still take what is not.
    #[must_use]
    pub fn kill_image(&self) -> Self {
        let state = self.lock();
        let (disk, io_mode) = (state.disk.clone(), state.io_mode);
        drop(state);
        let after = Self::with_disk(disk, 0);
        after.lock().io_mode = io_mode;
        after
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Sets what `free_bytes` answers. Files growing beyond it fail with ENOSPC.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.lock().free_bytes = free_bytes;
    }

    /// Sets how files say they are written.
    pub fn set_io_mode(&self, io_mode: IoMode) {
        self.lock().io_mode = io_mode;
    }

    /// Calls `hook` before each operation that changes something.
    pub fn on_operation(&self, hook: OperationHook) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }

    /// Operations so far that changed something.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.lock().written_bytes
    }

    /// Successful `sync_data` calls so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Overwrites durable bytes behind everybody's back: rot.
    ///
    /// # Panics
    /// There is no such file.
    pub fn damage(&self, path: &str, position: u64, change: impl FnOnce(&mut [u8]), len: usize) {
        let mut state = self.lock();
        let file = *state.disk.names.get(path).expect("the test names an existing file");
        let file = &mut state.disk.files[file];
        let mut bytes = vec![0; len];
        let count = file.visible.read(&mut bytes, position);
        bytes.truncate(count);
        change(&mut bytes);
        file.visible.write(&bytes, position);
        file.durable.write(&bytes, position);
    }

    /// Cuts a file off behind everybody's back.
    ///
    /// # Panics
    /// There is no such file.
    pub fn truncate(&self, path: &str, len: u64) {
        let mut state = self.lock();
        let file = *state.disk.names.get(path).expect("the test names an existing file");
        let file = &mut state.disk.files[file];
        file.visible.set_len(len);
        file.durable.set_len(len);
    }

    /// All files and their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.lock();
        let disk = &state.disk;
        disk.names
            .iter()
            .map(|(name, file)| (name.clone(), disk.files[*file].visible.len()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, tells the hook, and says whether it fails.
    fn begin(&self, operation: SimOperation) -> Option<FaultKind> {
        if !matches!(operation, SimOperation::Read | SimOperation::Open) {
            // Taken out while it runs: the hook looks at this very disk.
            let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(mut hook) = hook {
                hook(operation, self);
                let mut slot = self.hook.lock().unwrap_or_else(PoisonError::into_inner);
                slot.get_or_insert(hook);
            }
            self.lock().operations += 1;
        }
        let mut state = self.lock();
        let mut hit = None;
        for fault in state.faults.iter_mut().filter(|fault| fault.operation == operation) {
            if fault.after > 0 && fault.after != u64::MAX {
                fault.after -= 1;
            } else if fault.after == 0 {
                hit = Some(fault.kind);
                if !fault.sticky {
                    // Spent.
                    fault.after = u64::MAX;
                }
                break;
            }
        }
        hit
    }

    fn begin_or_fail(&self, operation: SimOperation) -> io::Result<()> {
        self.begin(operation).map_or(Ok(()), |kind| Err(kind.error()))
    }
}

impl FaultKind {
    fn error(self) -> io::Error {
        match self {
            Self::Device => io::Error::other("simulated device error"),
            Self::NoSpace => io::Error::new(ErrorKind::StorageFull, "simulated full disk"),
        }
    }
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("no file {path}"))
}

impl Storage for SimStorage {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.lock();
        let mut whole = dir;
        while !whole.is_empty() {
            state.disk.dirs.insert(whole.to_owned());
            whole = parent(whole);
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.lock();
        if !state.disk.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let names: BTreeSet<String> = state
            .disk
            .names
            .keys()
            .chain(&state.disk.dirs)
            .filter(|path| parent(path) == dir && path.len() > dir.len())
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect();
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let operation =
            if mode == OpenMode::Create { SimOperation::Create } else { SimOperation::Open };
        self.begin_or_fail(operation)?;
        let mut state = self.lock();
        let io_mode = state.io_mode;
        let disk = &mut state.disk;
        let file = match (disk.names.get(path), mode) {
            (Some(&file), OpenMode::Create) => {
                disk.files[file].visible.set_len(0);
                disk.files[file].unsynced.push(Unsynced::SetLen(0));
                file
            }
            (Some(&file), _) => file,
            (None, OpenMode::Create) => {
                disk.files.push(disk::File::default());
                let file = disk.files.len() - 1;
                disk.change_names(NameChange::Create { path: path.to_owned(), file });
                file
            }
            (None, _) => return Err(not_found(path)),
        };
        Ok(Arc::new(SimFile { storage: self.clone(), file, io_mode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin_or_fail(SimOperation::Rename)?;
        let mut state = self.lock();
        if !state.disk.names.contains_key(from) {
            return Err(not_found(from));
        }
        state.disk.change_names(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.begin_or_fail(SimOperation::Remove)?;
        let mut state = self.lock();
        if !state.disk.names.contains_key(path) {
            return Err(not_found(path));
        }
        state.disk.change_names(NameChange::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.begin_or_fail(SimOperation::SyncDir)?;
        self.lock().disk.sync_dir(dir);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.lock().free_bytes)
    }

    /// Nothing is far away.
    fn will_read_heads(&self, _paths: &[String], _bytes: usize) {}
}

struct SimFile {
    storage: SimStorage,
    file: usize,
    io_mode: IoMode,
}

impl SimFile {
    fn apply(state: &mut State, file: usize, bytes: &[u8], position: u64) -> io::Result<()> {
        let old_len = state.disk.files[file].visible.len();
        let growth = (position + bytes.len() as u64).saturating_sub(old_len);
        if growth > state.free_bytes {
            return Err(FaultKind::NoSpace.error());
        }
        state.free_bytes -= growth;
        state.written_bytes += bytes.len() as u64;
        let file = &mut state.disk.files[file];
        file.visible.write(bytes, position);
        file.unsynced.push(Unsynced::Write { position, bytes: bytes.into() });
        Ok(())
    }
}

impl StorageFile for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.storage.begin_or_fail(SimOperation::Read)?;
        let state = self.storage.lock();
        Ok(state.disk.files[self.file].visible.read(buf, position))
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        let sector = self.io_mode.sector_bytes() as usize;
        assert!(
            position.is_multiple_of(sector as u64) && buf.len().is_multiple_of(sector),
            "writes are whole sectors"
        );
        let fault = self.storage.begin(SimOperation::Write);
        let mut state = self.storage.lock();
        match fault {
            None => Self::apply(&mut state, self.file, buf, position),
            Some(FaultKind::NoSpace) => {
                let sectors = state.noise.below((buf.len() / SECTOR_BYTES) as u64) as usize;
                Self::apply(&mut state, self.file, &buf[..sectors * SECTOR_BYTES], position)?;
                Err(FaultKind::NoSpace.error())
            }
            Some(FaultKind::Device) => {
                for (index, sector) in buf.chunks(SECTOR_BYTES).enumerate() {
                    if state.noise.next() & 1 == 0 {
                        let at = position + (index * SECTOR_BYTES) as u64;
                        Self::apply(&mut state, self.file, sector, at)?;
                    }
                }
                Err(FaultKind::Device.error())
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let fault = self.storage.begin(SimOperation::Sync);
        let mut state = self.storage.lock();
        let state = &mut *state;
        let file = &mut state.disk.files[self.file];
        if let Some(kind) = fault {
            *file = crash::survivor(file, CrashPolicy::SectorSubset, &mut state.noise);
            return Err(kind.error());
        }
        file.sync();
        state.syncs += 1;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.storage.lock().disk.files[self.file].visible.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.begin_or_fail(SimOperation::SetLen)?;
        let mut state = self.storage.lock();
        let file = &mut state.disk.files[self.file];
        file.visible.set_len(len);
        file.unsynced.push(Unsynced::SetLen(len));
        Ok(())
    }

    fn io_mode(&self) -> IoMode {
        self.io_mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(storage: &SimStorage, path: &str) -> Option<Vec<u8>> {
        let file = storage.open(path, OpenMode::Read).ok()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        let storage = SimStorage::new(1);
        storage.create_dir("d").unwrap();
        let file = storage.open("d/a", OpenMode::Create).unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(read(&storage.crash_image(CrashPolicy::DropAll, 1), "d/a"), None);
        storage.sync_dir("d").unwrap();
        file.write_at(&[2; 1024], 512).unwrap();
        let mut seen = BTreeSet::new();
        for policy in CrashPolicy::ALL {
            for seed in 0..8 {
                let bytes = read(&storage.crash_image(policy, seed), "d/a").unwrap();
                assert_eq!(bytes[..512], [1; 512], "{policy:?}");
                assert_eq!(Some(&bytes), read(&storage.crash_image(policy, seed), "d/a").as_ref());
                seen.insert(bytes);
            }
        }
        assert!(seen.len() > 8, "policies and seeds differ");
    }

    #[test]
    fn a_second_sync_after_a_failed_one_proves_nothing() {
        let lost = (0..16).any(|seed| {
            let storage = SimStorage::new(seed);
            let file = storage.open("a", OpenMode::Create).unwrap();
            storage.sync_dir("").unwrap();
            file.write_at(&[3; 2048], 0).unwrap();
            storage.inject(Fault {
                operation: SimOperation::Sync,
                after: 0,
                kind: FaultKind::Device,
                sticky: false,
            });
            assert!(file.sync_data().is_err());
            assert!(file.sync_data().is_ok());
            let after = storage.crash_image(CrashPolicy::DropAll, 0);
            read(&after, "a").unwrap() != vec![3; 2048]
        });
        assert!(lost);
    }
}

//! A data directory in memory: what programs see, what a power cut may take, and faults where a test wants them.
//!
//! - A write is visible at once and durable after a successful `sync_data`; a name after a successful `sync_dir`.
//! - A [`Snapshot`] is all of that at one moment, and cheap: sectors are shared. `survive.rs` makes of it the disks
//!   that a power cut at that moment may leave.
//! - Of a file that is never synced (side indexes) only the last few writes are in doubt: a kernel writes the others
//!   back some time.
//! - A write that fails leaves a random part of its sectors behind. A sync that fails makes a random part durable and
//!   forgets the rest, as a kernel does that marks pages clean after an error.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use content::{Content, SECTOR_BYTES, Sector};
use edge_log::{IoMode, OpenMode, Storage, StorageFile};

use crate::random::{Random, mix};

/// Changes of one file that stay in doubt.
const PENDING_MAX: usize = 3;

/// Something that was not yet synced.
#[derive(Clone, Debug)]
pub enum Change {
    /// Whole sectors.
    Write {
        /// The first of them.
        at: usize,
        /// Their bytes.
        sectors: Arc<[Arc<Sector>]>,
    },
    /// A new length.
    SetLen(u64),
}

/// One file.
#[derive(Clone, Debug, Default)]
pub struct FileState {
    /// What programs see.
    pub visible: Arc<Content>,
    /// What the device surely has.
    pub durable: Arc<Content>,
    /// The changes in between, in order.
    pub pending: Vec<Change>,
}

/// A change of names that no directory sync has covered yet.
#[derive(Clone, Debug)]
pub enum NameChange {
    /// A new name for a file.
    Create(String, usize),
    /// From, to.
    Rename(String, String),
    /// A name that is gone.
    Remove(String),
}

/// A disk at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All files, named or not.
    pub files: Vec<FileState>,
    /// What programs see.
    pub names: Arc<BTreeMap<String, usize>>,
    /// What the device surely has.
    pub durable_names: Arc<BTreeMap<String, usize>>,
    /// The changes in between, in order.
    pub pending_names: Vec<NameChange>,
    /// Directories; they survive always: a lane makes its own once, and syncs it at every open.
    pub dirs: Arc<BTreeSet<String>>,
    /// The file that was written last.
    pub written_last: usize,
}

/// Calls that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "named after the calls")]
pub enum Site {
    CreateDir,
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDir,
    FreeBytes,
    Read,
    Write,
    Sync,
    Len,
}

impl Site {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::CreateDir,
        Self::List,
        Self::Create,
        Self::Open,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::FreeBytes,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Len,
    ];
}

/// A call about to be made.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Which.
    pub site: Site,
    /// On which path.
    pub path: &'a str,
    /// Where in the file, if that matters.
    pub position: u64,
    /// How many bytes, if that matters.
    pub len: usize,
}

/// Decides which calls fail: the errno, or none.
pub type Faults = Box<dyn FnMut(&Call<'_>) -> Option<rustix::io::Errno> + Send>;
/// Called before each operation that changes something.
pub type Observer = Box<dyn FnMut(&Snapshot) + Send>;

#[derive(Default)]
struct Inner {
    now: Snapshot,
    noise: u64,
    handles: u64,
    /// A handle whose sync failed and then succeeded, if there was one.
    sync_retried: Option<String>,
    failed_syncs: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
    observer: Arc<Mutex<Option<Observer>>>,
    faults: Arc<Mutex<Option<Faults>>>,
    sector_bytes: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(path: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("no file {path}"))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl NameChange {
    /// Makes the change.
    pub fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn dir(&self) -> &str {
        match self {
            Self::Create(path, _) | Self::Remove(path) | Self::Rename(_, path) => parent(path),
        }
    }
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { at, sectors } => {
                for (index, sector) in sectors.iter().enumerate() {
                    content.put(at + index, Arc::clone(sector));
                }
            }
            Self::SetLen(len) => content.set_len(*len),
        }
    }
}

impl Snapshot {
    /// A number that tells the durable part of this disk from others.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.durable_names.iter().fold(1, |sum: u64, (name, file)| {
            let name = name.bytes().fold(7, |hash: u64, byte| mix(hash ^ u64::from(byte)));
            sum.wrapping_add(mix(name ^ self.files[*file].durable.fingerprint()))
        })
    }

    /// The bytes that the device surely has of a file.
    #[must_use]
    pub fn durable(&self, path: &str) -> Option<&Content> {
        let file = self.durable_names.get(path)?;
        Some(&self.files[*file].durable)
    }

    /// Changes the bytes of a file behind everybody's back.
    pub fn damage(&mut self, path: &str, change: impl FnOnce(&mut Content)) {
        let Some(file) = self.durable_names.get(path) else { return };
        let file = &mut self.files[*file];
        change(Arc::make_mut(&mut file.durable));
        file.visible = Arc::clone(&file.durable);
    }
}

impl Disk {
    /// A disk in this state.
    #[must_use]
    pub fn new(now: Snapshot, sector_bytes: u32) -> Self {
        let inner = Inner { now, noise: 1, ..Inner::default() };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            observer: Arc::default(),
            faults: Arc::default(),
            sector_bytes,
        }
    }

    /// The disk now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        lock(&self.inner).now.clone()
    }

    /// Calls `observer` before each operation that changes something.
    pub fn observe(&self, observer: Observer) {
        *lock(&self.observer) = Some(observer);
    }

    /// Takes the observer away.
    pub fn stop_observing(&self) {
        *lock(&self.observer) = None;
    }

    /// Lets `faults` decide which calls fail.
    pub fn fail(&self, faults: Faults) {
        *lock(&self.faults) = Some(faults);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        *lock(&self.faults) = None;
    }

    /// The seed of what failed operations leave behind.
    pub fn set_noise(&self, seed: u64) {
        lock(&self.inner).noise = seed;
    }

    /// Syncs that failed so far.
    #[must_use]
    pub fn failed_syncs(&self) -> u64 {
        lock(&self.inner).failed_syncs
    }

    /// The path of a handle on which a sync succeeded after one had failed.
    #[must_use]
    pub fn sync_retried(&self) -> Option<String> {
        lock(&self.inner).sync_retried.clone()
    }

    fn begin(&self, site: Site, path: &str, position: u64, len: usize) -> io::Result<()> {
        let changes = !matches!(
            site,
            Site::List | Site::Open | Site::FreeBytes | Site::Read | Site::Len | Site::CreateDir
        );
        if changes && let Some(observer) = &mut *lock(&self.observer) {
            let now = self.snapshot();
            observer(&now);
        }
        let fault = lock(&self.faults)
            .as_mut()
            .and_then(|faults| faults(&Call { site, path, position, len }));
        fault.map_or(Ok(()), |errno| Err(errno.into()))
    }
}

impl Storage for Disk {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.begin(Site::CreateDir, dir, 0, 0)?;
        let mut inner = lock(&self.inner);
        let dirs = Arc::make_mut(&mut inner.now.dirs);
        let mut whole = dir;
        while !whole.is_empty() {
            dirs.insert(whole.to_owned());
            whole = parent(whole);
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.begin(Site::List, dir, 0, 0)?;
        let inner = lock(&self.inner);
        if !inner.now.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let here = inner.now.names.keys().filter(|path| parent(path) == dir);
        Ok(here.map(|path| path[dir.len() + 1..].to_owned()).collect())
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let create = mode == OpenMode::Create;
        self.begin(if create { Site::Create } else { Site::Open }, path, 0, 0)?;
        let mut inner = lock(&self.inner);
        inner.handles += 1;
        let now = &mut inner.now;
        let file = match (now.names.get(path).copied(), create) {
            (Some(file), true) => {
                let state = &mut now.files[file];
                state.visible = Arc::default();
                state.pending.push(Change::SetLen(0));
                file
            }
            (Some(file), false) => file,
            (None, true) => {
                let file = now.files.len();
                now.files.push(FileState::default());
                Arc::make_mut(&mut now.names).insert(path.to_owned(), file);
                now.pending_names.push(NameChange::Create(path.to_owned(), file));
                file
            }
            (None, false) => return Err(not_found(path)),
        };
        Ok(Arc::new(File {
            disk: self.clone(),
            file,
            path: path.to_owned(),
            sync_failed: Mutex::new(false),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin(Site::Rename, from, 0, 0)?;
        let mut inner = lock(&self.inner);
        if !inner.now.names.contains_key(from) {
            return Err(not_found(from));
        }
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        change.apply(Arc::make_mut(&mut inner.now.names));
        inner.now.pending_names.push(change);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.begin(Site::Remove, path, 0, 0)?;
        let mut inner = lock(&self.inner);
        if !inner.now.names.contains_key(path) {
            return Err(not_found(path));
        }
        let change = NameChange::Remove(path.to_owned());
        change.apply(Arc::make_mut(&mut inner.now.names));
        inner.now.pending_names.push(change);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.begin(Site::SyncDir, dir, 0, 0)?;
        let mut inner = lock(&self.inner);
        let now = &mut inner.now;
        for change in std::mem::take(&mut now.pending_names) {
            if change.dir() == dir {
                change.apply(Arc::make_mut(&mut now.durable_names));
            } else {
                now.pending_names.push(change);
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.begin(Site::FreeBytes, "", 0, 0)?;
        Ok(1 << 40)
    }

    /// Nothing is far away.
    fn will_read_heads(&self, _paths: &[String], _bytes: usize) {}
}

/// An open file.
struct File {
    disk: Disk,
    file: usize,
    path: String,
    sync_failed: Mutex<bool>,
}

impl Inner {
    fn write(&mut self, file: usize, at: usize, sectors: Arc<[Arc<Sector>]>) {
        self.now.written_last = file;
        let state = &mut self.now.files[file];
        let change = Change::Write { at, sectors };
        change.apply(Arc::make_mut(&mut state.visible));
        state.pending.push(change);
        if state.pending.len() > PENDING_MAX {
            state.pending.remove(0).apply(Arc::make_mut(&mut state.durable));
        }
    }

    fn random(&mut self) -> Random {
        self.noise = mix(self.noise.wrapping_add(0x9e37));
        Random(self.noise)
    }
}

impl StorageFile for File {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.begin(Site::Read, &self.path, position, buf.len())?;
        Ok(lock(&self.disk.inner).now.files[self.file].visible.read(buf, position))
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        let sector = self.disk.sector_bytes as usize;
        assert!(
            position.is_multiple_of(sector as u64) && buf.len().is_multiple_of(sector),
            "writes are whole sectors"
        );
        let sectors = Sector::split(buf);
        let at = position as usize / SECTOR_BYTES;
        let begun = self.disk.begin(Site::Write, &self.path, position, buf.len());
        let mut inner = lock(&self.disk.inner);
        if let Err(error) = begun {
            let mut random = inner.random();
            for (index, sector) in sectors.into_iter().enumerate() {
                if random.one_in(2) {
                    inner.write(self.file, at + index, [sector].into());
                }
            }
            return Err(error);
        }
        inner.write(self.file, at, sectors.into());
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let begun = self.disk.begin(Site::Sync, &self.path, 0, 0);
        let mut inner = lock(&self.disk.inner);
        let mut random = inner.random();
        let mut failed = lock(&self.sync_failed);
        if begun.is_err() {
            *failed = true;
            inner.failed_syncs += 1;
            let state = &mut inner.now.files[self.file];
            let durable = Arc::make_mut(&mut state.durable);
            for change in std::mem::take(&mut state.pending) {
                match change {
                    Change::Write { at, sectors } => {
                        for (index, sector) in sectors.iter().enumerate() {
                            if random.one_in(2) {
                                durable.put(at + index, Arc::clone(sector));
                            }
                        }
                    }
                    Change::SetLen(len) => durable.set_len(len),
                }
            }
            state.visible = Arc::clone(&state.durable);
            return begun;
        }
        if *failed {
            inner.sync_retried = Some(self.path.clone());
        }
        let state = &mut inner.now.files[self.file];
        state.durable = Arc::clone(&state.visible);
        state.pending.clear();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.begin(Site::Len, &self.path, 0, 0)?;
        Ok(lock(&self.disk.inner).now.files[self.file].visible.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.begin(Site::Write, &self.path, len, 0)?;
        let mut inner = lock(&self.disk.inner);
        let state = &mut inner.now.files[self.file];
        let change = Change::SetLen(len);
        change.apply(Arc::make_mut(&mut state.visible));
        state.pending.push(change);
        Ok(())
    }

    fn io_mode(&self) -> IoMode {
        IoMode::Direct { sector_bytes: self.disk.sector_bytes }
    }
}

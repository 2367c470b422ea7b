//! A disk whose syncs can be held, all of them, whichever thread they come from.
//!
//! The simulated disk's own hook does not serve here: it is taken out while it runs, so that syncs of
//! other lanes pass while one lane is held in it.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use edge_log::storage::SimStorage;
use edge_log::{IoMode, OpenMode, Storage, StorageFile};

use crate::support::PATIENCE;

/// Holds every sync while it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().unwrap();
        let (_open, timeout) =
            self.changed.wait_timeout_while(closed, PATIENCE, |closed| *closed).unwrap();
        assert!(!timeout.timed_out(), "a test left the gate closed");
    }
}

/// A simulated disk behind a gate.
pub(crate) struct GatedStorage {
    pub(crate) disk: SimStorage,
    pub(crate) gate: Arc<Gate>,
}

struct GatedFile {
    file: Arc<dyn StorageFile>,
    gate: Arc<Gate>,
}

impl Storage for GatedStorage {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(GatedFile { file, gate: self.gate.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn will_read_heads(&self, paths: &[String], bytes: usize) {
        self.disk.will_read_heads(paths, bytes);
    }
}

impl StorageFile for GatedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.file.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
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
}

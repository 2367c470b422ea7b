//! The simulated disk.

use std::io;
use std::sync::Arc;

use super::{OpenMode, Storage, StorageFile};

/// A data directory in memory that knows what would survive a power cut.
#[derive(Debug, Default)]
pub struct SimStorage {}

impl Storage for SimStorage {
    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        todo!()
    }
    fn list(&self, _dir: &str) -> io::Result<Vec<String>> {
        todo!()
    }
    fn open(&self, _path: &str, _mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        todo!()
    }
    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        todo!()
    }
    fn remove(&self, _path: &str) -> io::Result<()> {
        todo!()
    }
    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        todo!()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        todo!()
    }
}

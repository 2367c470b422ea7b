//! The real disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{OpenMode, Storage, StorageFile};

/// A data directory on a real file system.
#[derive(Debug)]
pub struct FileStorage {
    root: PathBuf,
}

impl FileStorage {
    /// Opens the data directory, which must exist.
    ///
    /// # Errors
    /// It does not exist or is no directory.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.to_owned() })
    }
}

impl Storage for FileStorage {
    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        let _ = &self.root;
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

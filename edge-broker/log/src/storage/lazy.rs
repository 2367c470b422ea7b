//! Files that are opened when they are read, and closed when others are: a lane has more segments than a process
//! may have open files.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{IoMode, OpenMode, Storage, StorageFile};

type Handle = Mutex<Option<Arc<dyn StorageFile>>>;

/// How many files of one pool stay open.
const OPEN_MAX: usize = 16;

/// The files of one lane that are open for reading, the longest open first.
#[derive(Default)]
pub(crate) struct FilePool {
    open: Mutex<VecDeque<Arc<Handle>>>,
}

/// A file that is only read.
pub(crate) struct LazyFile {
    storage: Arc<dyn Storage>,
    pool: Arc<FilePool>,
    path: String,
    handle: Arc<Handle>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LazyFile {
    pub(crate) fn new(storage: Arc<dyn Storage>, pool: Arc<FilePool>, path: String) -> Self {
        Self { storage, pool, path, handle: Arc::default() }
    }

    fn file(&self) -> io::Result<Arc<dyn StorageFile>> {
        let mut handle = lock(&self.handle);
        if let Some(file) = &*handle {
            return Ok(Arc::clone(file));
        }
        let file = self.storage.open(&self.path, OpenMode::Read)?;
        *handle = Some(Arc::clone(&file));
        drop(handle);
        let closed = {
            let mut open = lock(&self.pool.open);
            open.push_back(Arc::clone(&self.handle));
            if open.len() > OPEN_MAX { open.pop_front() } else { None }
        };
        if let Some(closed) = closed
            && !Arc::ptr_eq(&closed, &self.handle)
        {
            *lock(&closed) = None;
        }
        Ok(file)
    }
}

impl StorageFile for LazyFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file()?.read_at(buf, position)
    }

    fn write_at(&self, _buf: &[u8], _position: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn io_mode(&self) -> IoMode {
        IoMode::Buffered { sector_bytes: 4096 }
    }

    fn forget_cached(&self) {
        if let Ok(file) = self.file() {
            file.forget_cached();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimStorage;

    #[test]
    fn many_files_are_read_and_few_are_open() {
        let storage: Arc<dyn Storage> = Arc::new(SimStorage::new(0));
        let pool = Arc::new(FilePool::default());
        let files: Vec<_> = (0..100u8)
            .map(|index| {
                let path = format!("f{index}");
                let file = storage.open(&path, OpenMode::Create).unwrap();
                file.write_at(&[index; 512], 0).unwrap();
                LazyFile::new(Arc::clone(&storage), Arc::clone(&pool), path)
            })
            .collect();
        for _ in 0..3 {
            for (index, file) in files.iter().enumerate() {
                let mut byte = [0];
                file.read_at(&mut byte, 7).unwrap();
                assert_eq!(byte[0] as usize, index);
            }
            let open = files.iter().filter(|file| lock(&file.handle).is_some()).count();
            assert!(open <= OPEN_MAX, "{open} are open");
        }
    }
}

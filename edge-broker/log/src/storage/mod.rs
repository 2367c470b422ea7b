//! The only door to the disk.
//!
//! Paths are relative to the data directory, `/` separated. Nothing in this crate reaches the file system
//! another way, so that the simulated disk sees every operation that can fail or be lost.
//!
//! What callers may rely on after a power cut: bytes written and then covered by a successful
//! [`StorageFile::sync_data`]; names created, renamed or removed and then covered by a successful
//! [`Storage::sync_dir`] of their directory. Nothing else, in any order, in whole sectors at best.

mod aligned;
mod calls;
mod file;
pub(crate) mod lazy;
mod sim;

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

pub use aligned::AlignedBuf;
pub use calls::{Kernel, SystemCalls};
pub use file::FileStorage;
pub use sim::{CrashPolicy, Fault, FaultKind, OperationHook, SimOperation, SimStorage};

/// Whether an error tells of damage to the one file, not of a system that is short of something, or otherwise set up:
/// only the former can be worked around by going without the file.
pub(crate) fn is_of_one_file(error: &io::Error) -> bool {
    const DAMAGE: [Errno; 6] =
        [Errno::IO, Errno::NODATA, Errno::BADMSG, Errno::UCLEAN, Errno::NXIO, Errno::REMOTEIO];
    match error.raw_os_error() {
        Some(code) => DAMAGE.iter().any(|errno| errno.raw_os_error() == code),
        // The simulated disk's device error.
        None => error.kind() == io::ErrorKind::Other,
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It exists and is only read.
    Read,
    /// It exists; it is read and written.
    ReadWrite,
    /// It is created, or emptied if it exists; read and written.
    Create,
}

/// How writes reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMode {
    /// `O_DIRECT`: past the page cache, in whole sectors.
    Direct {
        /// What positions and lengths of writes are multiples of.
        sector_bytes: u32,
    },
    /// Through the page cache; the sector is what we assume the device to write at once.
    Buffered {
        /// What positions and lengths of writes are multiples of.
        sector_bytes: u32,
    },
}

impl IoMode {
    /// What positions and lengths of writes are multiples of.
    #[must_use]
    pub fn sector_bytes(self) -> u32 {
        match self {
            Self::Direct { sector_bytes } | Self::Buffered { sector_bytes } => sector_bytes,
        }
    }
}

/// A data directory.
pub trait Storage: Send + Sync + 'static {
    /// Creates a directory with its parents. The caller syncs the parents.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Names in a directory, in no order.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Opens a file.
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;
    /// Renames a file, over an existing one too. Durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir`.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Free bytes for us on the file system.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The first `bytes` of each of these files will be read soon, one after the other. Changes nothing but how long
    /// that takes. No default: what stands in front of a disk would forget to pass it on, and only a cold start tells.
    fn will_read_heads(&self, paths: &[String], bytes: usize);
}

/// An open file. All methods take positions: there is no shared cursor.
pub trait StorageFile: Send + Sync {
    /// Reads; a short read means end of file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `buf`; position, length and memory aligned to [`IoMode::sector_bytes`]
    /// (memory: see [`AlignedBuf`]; a buffer that is not is copied).
    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()>;
    /// Makes written bytes and the length durable. After an error the written bytes are in an unknown
    /// state: never call it again on this handle and take it for success.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Sets the length; what is new reads as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// How writes reach the device.
    fn io_mode(&self) -> IoMode;
    /// Lets go of what is cached of the file in memory, if that is possible: the next read shows what the device
    /// has. Called before bytes are taken for damaged.
    fn forget_cached(&self) {}
}

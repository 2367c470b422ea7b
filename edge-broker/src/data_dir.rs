//! The data directory: made if need be, and held by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// File whose lock means that a gateway runs here. It holds that process's id.
const LOCK_FILE: &str = "lock";

/// The lock on a data directory; given back when dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// It is not there and cannot be made, or may not be read or written.
    #[error("{place}: {source}; {}", remedy(source))]
    Unusable {
        /// Where its name stands.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "{place}: in use by process {holder}; stop it or give another directory with --data-dir"
    )]
    InUse {
        /// Where its name stands.
        place: String,
        /// Process id as that process wrote it, or `?`.
        holder: String,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "a file stands there; give a directory with --data-dir"
        }
        io::ErrorKind::StorageFull => "free some space or give another directory with --data-dir",
        _ => "make it writable for this user or give another directory with --data-dir",
    }
}

impl DataDir {
    /// Makes the directory if need be (readable for its owner and group only) and locks it. `place` is where its name
    /// stands, for messages.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub(crate) fn open(path: &Path, place: &str) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { place: place.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(unusable)?;
        sync_way_to(path).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path.join(LOCK_FILE))
            .map_err(unusable)?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            let mut holder = String::new();
            // Who holds it is a courtesy: the lock is what counts.
            let _ = lock.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "?".to_owned(),
                id => id.to_owned(),
            };
            return Err(DataDirError::InUse { place: place.to_owned(), holder });
        }
        // A full disk must not keep the gateway from starting: the id is only a courtesy.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory's own name durable, and those of the directories above it on the same file system: a power cut
/// would otherwise take the whole data directory with all that was synced in it. Also where they were there before,
/// since the start that made them may have been cut off before it came to this.
fn sync_way_to(path: &Path) -> io::Result<()> {
    let absolute = path.canonicalize()?;
    let file_system = absolute.metadata()?.dev();
    for above in absolute.ancestors().skip(1) {
        let dir = match File::open(above) {
            // Not ours to read, so not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            opened => opened?,
        };
        if dir.metadata()?.dev() != file_system {
            return Ok(());
        }
        match dir.sync_all() {
            // A file system that cannot sync directories has nothing to make durable that way.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Whether a process holds the lock of a data directory; looks only, on a read-only file system too.
///
/// # Errors
/// The lock cannot be looked at.
pub(crate) fn is_held(path: &Path) -> io::Result<bool> {
    let lock = match File::open(path.join(LOCK_FILE)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Bytes that this user may still write below `path`, or below the nearest parent that exists.
#[must_use]
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|candidate| candidate.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "c.toml:1: data_dir = \"d\"";

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let held = DataDir::open(&path, PLACE).unwrap();
        let error = DataDir::open(&path, PLACE).unwrap_err();
        assert!(
            matches!(&error, DataDirError::InUse { holder, .. } if *holder == std::process::id().to_string())
        );
        assert!(is_held(&path).unwrap());
        drop(held);
        assert!(!is_held(&path).unwrap());
        DataDir::open(&path, PLACE).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let text = DataDir::open(&path, PLACE).unwrap_err().to_string();
        assert!(text.starts_with(PLACE) && text.contains("a file stands there"), "{text}");
    }

    #[test]
    fn free_space_is_known_before_the_directory_is_there() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(&dir.path().join("not/yet/there")).is_some_and(|bytes| bytes > 0));
    }
}

//! Copies of what a repair touches: made, synced, and only then is anything changed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::cli::card::BACKUP_PREFIX;
use crate::data_dir::free_bytes;

/// Read at once; what cannot be read of it is tried in sectors.
const PIECE_BYTES: usize = 64 << 10;
const SECTOR_BYTES: usize = 512;
/// Left free beside a copy.
const RESERVE_BYTES: u64 = 1 << 20;

/// A folder of copies; made when the first one is.
pub(super) struct Backup {
    data_dir: PathBuf,
    path: PathBuf,
    copied: BTreeSet<String>,
    folders: BTreeSet<PathBuf>,
}

impl Backup {
    pub(super) fn new(data_dir: &Path, path: Option<&Path>) -> Self {
        let path = path.map_or_else(|| next_free(data_dir), Path::to_owned);
        let (copied, folders) = (BTreeSet::new(), BTreeSet::new());
        Self { data_dir: data_dir.to_owned(), path, copied, folders }
    }

    /// Where the copies are, if there are any.
    pub(super) fn path(&self) -> Option<PathBuf> {
        (!self.copied.is_empty()).then(|| self.path.clone())
    }

    /// Keeps a copy of a file; what is not a file needs none.
    pub(super) fn copy(&mut self, file: &str) -> Result<(), Failure> {
        let from = self.data_dir.join(file);
        if self.copied.contains(file) || !from.is_file() {
            return Ok(());
        }
        let failed = |error: io::Error| self.failed(file, &error);
        let bytes = fs::metadata(&from).map_err(failed)?.len();
        let to = self.place_of(file).map_err(|error| self.failed(file, &error))?;
        if free_bytes(&self.path).is_some_and(|free| free < bytes + RESERVE_BYTES) {
            return Err(Failure::Failed(format!(
                "{}: no room for a copy of {file} ({bytes} bytes); name a folder elsewhere with --backup, nothing was changed",
                self.path.display()
            )));
        }
        copy_what_is_readable(&from, &to).map_err(|error| self.failed(file, &error))?;
        self.copied.insert(file.to_owned());
        Ok(())
    }

    /// Moves a file into the folder: nothing of it need be readable.
    pub(super) fn move_aside(&mut self, file: &str) -> Result<(), Failure> {
        let from = self.data_dir.join(file);
        let to = self.place_of(file).map_err(|error| self.failed(file, &error))?;
        if fs::rename(&from, &to).is_err() {
            // Another file system.
            self.copy(file)?;
            return self.remove(file);
        }
        self.copied.insert(file.to_owned());
        sync_folder(&from).map_err(|error| self.failed(file, &error))
    }

    /// Removes a file of which a copy was kept, or that is worthless.
    pub(super) fn remove(&mut self, file: &str) -> Result<(), Failure> {
        let from = self.data_dir.join(file);
        let removed = fs::remove_file(&from).and_then(|()| sync_folder(&from));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(file, &error)),
            _ => Ok(()),
        }
    }

    /// Makes the names of the copies durable.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        for folder in &self.folders {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| self.failed(&folder.display().to_string(), &error))?;
        }
        Ok(())
    }

    fn place_of(&mut self, file: &str) -> io::Result<PathBuf> {
        let to = self.path.join(file);
        let folder = to.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder)?;
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.path)) {
            self.folders.insert(folder.to_owned());
        }
        if let Some(parent) = self.path.parent().filter(|parent| parent.is_dir()) {
            self.folders.insert(parent.to_owned());
        }
        Ok(to)
    }

    fn failed(&self, file: &str, error: &io::Error) -> Failure {
        Failure::Failed(format!("{file}: no copy in {}: {error}", self.path.display()))
    }
}

fn next_free(data_dir: &Path) -> PathBuf {
    let mut number = 1u32;
    loop {
        let path = data_dir.join(format!("{BACKUP_PREFIX}{number}"));
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// What the device does not read is zeros in the copy.
fn copy_what_is_readable(from: &Path, to: &Path) -> io::Result<()> {
    let (source, mut copy) = (File::open(from)?, File::create(to)?);
    let length = source.metadata()?.len();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < length {
        let wanted = PIECE_BYTES.min(usize::try_from(length - at).unwrap_or(PIECE_BYTES));
        let piece = &mut piece[..wanted];
        if source.read_exact_at(piece, at).is_err() {
            for (index, sector) in piece.chunks_mut(SECTOR_BYTES).enumerate() {
                if source.read_exact_at(sector, at + (index * SECTOR_BYTES) as u64).is_err() {
                    sector.fill(0);
                }
            }
        }
        copy.write_all(piece)?;
        at += wanted as u64;
    }
    copy.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_exact_and_folders_are_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lanes/a")).unwrap();
        let bytes: Vec<u8> = (0..200_001u32).map(|byte| byte as u8).collect();
        fs::write(dir.path().join("lanes/a/slot"), &bytes).unwrap();
        fs::write(dir.path().join("lanes/a/aside"), b"x").unwrap();
        for round in 1..3 {
            let mut backup = Backup::new(dir.path(), None);
            assert_eq!(backup.path(), None);
            backup.copy("lanes/a/slot").unwrap();
            backup.copy("lanes/a").unwrap();
            backup.settle().unwrap();
            let path = backup.path().unwrap();
            assert!(path.ends_with(format!("repair-{round}")));
            assert_eq!(fs::read(path.join("lanes/a/slot")).unwrap(), bytes);
        }
        let mut backup = Backup::new(dir.path(), Some(&dir.path().join("else/where")));
        backup.move_aside("lanes/a/aside").unwrap();
        assert!(!dir.path().join("lanes/a/aside").exists());
        assert_eq!(fs::read(dir.path().join("else/where/lanes/a/aside")).unwrap(), b"x");
    }
}

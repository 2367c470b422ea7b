//! A small filesystem of its own: ext4 on a loop device, so that it can be full without harm to anybody.
//!
//! Needs root, `losetup`, `mkfs.ext4` and `mount`. Where that is not to be had, [`SmallDisk::make`] says why, in one
//! line on standard error, and gives nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::gate::find_program;

const FILLER_BYTES: usize = 64 << 10;

/// A mounted filesystem; unmounted and removed when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    device: String,
    is_mounted: bool,
    folder: TempDir,
}

impl SmallDisk {
    /// Makes one of so many bytes; `None` where the machine does not allow it.
    ///
    /// # Errors
    /// When there is no room for the image.
    pub fn make(bytes: u64) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(bytes)?;
        fs::create_dir(folder.path().join("mnt"))?;
        match Self::mount(folder, &image) {
            Ok(disk) => Ok(Some(disk)),
            Err(reason) => {
                let line =
                    format!("left out: a test on a small filesystem of its own: {reason:#}\n");
                std::io::stderr().write_all(line.as_bytes())?;
                Ok(None)
            }
        }
    }

    fn mount(folder: TempDir, image: &Path) -> Result<Self> {
        for program in ["losetup", "mkfs.ext4", "mount", "umount"] {
            find_program(program)
                .or_else(|| Some(Path::new("/sbin").join(program)).filter(|path| path.is_file()))
                .with_context(|| format!("{program} is not installed"))?;
        }
        // Without the reserve for root: full is full for everybody.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image))?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        let mut disk = Self { device: device.trim().to_owned(), is_mounted: false, folder };
        run(Command::new("mount").args(["-o", "noatime"]).arg(&disk.device).arg(disk.path()))?;
        disk.is_mounted = true;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    /// Takes all the room that is left with a file of somebody else's. Call it again for what has become free.
    ///
    /// # Errors
    /// When something else fails than the lack of room.
    pub fn fill(&self) -> Result<()> {
        let mut options = File::options();
        let mut file = options.create(true).append(true).open(self.filler())?;
        let mut bytes = vec![b'x'; FILLER_BYTES];
        while !bytes.is_empty() {
            match file.write_all(&bytes).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    bytes.truncate(bytes.len() / 2);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When there is none.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.path().join("somebody-elses")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_mounted && run(Command::new("umount").arg(self.path())).is_err() {
            // Somebody still has a file open: it goes when they close it.
            let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
        }
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}", command.get_program().display(), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! The system calls by which the real disk is reached, as the kernel gives them: they may be interrupted, and move
//! fewer bytes than asked for. A test puts its own in their place.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::fdatasync;

/// How often an interrupted or stuck call is tried before that is an error.
const TRIES_MAX: u32 = 100;

/// System calls on files and names. The defaults are the real ones.
pub trait SystemCalls: Send + Sync + 'static {
    /// `open`.
    fn open(&self, options: &OpenOptions, path: &Path) -> io::Result<File> {
        options.open(path)
    }
    /// `pread`: may read less.
    fn pread(&self, file: &File, buf: &mut [u8], position: u64) -> io::Result<usize> {
        file.read_at(buf, position)
    }
    /// `pwrite`: may write less.
    fn pwrite(&self, file: &File, buf: &[u8], position: u64) -> io::Result<usize> {
        file.write_at(buf, position)
    }
    /// `fdatasync`.
    fn fdatasync(&self, file: &File) -> io::Result<()> {
        Ok(fdatasync(file)?)
    }
    /// `fsync`, of a directory.
    fn fsync(&self, directory: &File) -> io::Result<()> {
        directory.sync_all()
    }
    /// `rename`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
    /// `unlink`.
    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// The real ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl SystemCalls for Kernel {}

/// Calls again what was interrupted before it did anything.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted && tries < TRIES_MAX => tries += 1,
            result => return result,
        }
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(
    calls: &dyn SystemCalls,
    file: &File,
    buf: &mut [u8],
    position: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        let rest = &mut buf[filled..];
        match uninterrupted(|| calls.pread(file, rest, position + filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Writes everything. After a short write it goes on at the last whole `step`: a direct write begins at a sector.
pub(super) fn write_full(
    calls: &dyn SystemCalls,
    file: &File,
    buf: &[u8],
    position: u64,
    step: usize,
) -> io::Result<()> {
    let (mut written, mut stuck) = (0, 0);
    while written < buf.len() {
        let rest = &buf[written..];
        let count = uninterrupted(|| calls.pwrite(file, rest, position + written as u64))?;
        if count == rest.len() {
            break;
        }
        let whole = count - count % step;
        written += whole;
        stuck = if whole > 0 { 0 } else { stuck + 1 };
        if stuck == TRIES_MAX {
            return Err(io::Error::new(ErrorKind::WriteZero, "the device takes no whole sector"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Interrupts every other call and moves at most so many bytes.
    struct Halting {
        bytes_max: usize,
        calls: Mutex<Vec<(u64, usize)>>,
    }

    impl Halting {
        fn pass(&self, position: u64, len: usize) -> io::Result<usize> {
            let mut calls = self.calls.lock().unwrap();
            calls.push((position, len));
            if calls.len() % 2 == 1 {
                Err(ErrorKind::Interrupted.into())
            } else {
                Ok(len.min(self.bytes_max))
            }
        }
    }

    impl SystemCalls for Halting {
        fn pread(&self, file: &File, buf: &mut [u8], position: u64) -> io::Result<usize> {
            let len = self.pass(position, buf.len())?;
            file.read_at(&mut buf[..len], position)
        }

        fn pwrite(&self, file: &File, buf: &[u8], position: u64) -> io::Result<usize> {
            let len = self.pass(position, buf.len())?;
            file.write_at(&buf[..len], position)
        }
    }

    #[test]
    fn interrupted_and_short_calls_are_completed_at_sector_bounds() {
        let path = std::env::temp_dir().join(format!("edge-log-calls-{}", std::process::id()));
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let data: Vec<u8> = (0..5000u32).map(|at| (at * 7) as u8).collect();
        let halting = |bytes_max| Halting { bytes_max, calls: Mutex::default() };
        let calls = halting(1300);
        write_full(&calls, &file, &data[..4096], 512, 512).unwrap();
        assert!(calls.calls.lock().unwrap().iter().all(|(at, _)| at.is_multiple_of(512)));
        let mut back = vec![0; 4096];
        assert_eq!(read_full(&halting(999), &file, &mut back, 512).unwrap(), 4096);
        assert_eq!(back, data[..4096]);
        // A device that never takes a whole sector is an error, not a loop.
        assert!(write_full(&halting(100), &file, &data[..512], 0, 512).is_err());
        std::fs::remove_file(path).unwrap();
    }
}

//! A [`Disk`] as a mounted file system, with a power switch.
//!
//! One thread reads requests from `/dev/fuse` and answers them one after the other. Mounting needs root and nothing
//! else: no libfuse, no fusermount. Dropping the mount unmounts it.
//!
//! The power goes off *at* an operation, counted from when the switch was set: a write, a sync, or a change of a
//! length or a name. That one and all later requests get no answer until the process that waits for them is killed
//! ([`Mounted::let_go`]); then they fail with EIO, and nothing reaches the disk any more, neither what the kernel
//! still has of the dead process nor what unmounting writes back.
//!
//! Source: linux/fuse.h, protocol 7.31.

mod requests;
mod wire;

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::disk::Disk;
use wire::Request;

/// The longest write that the kernel sends at once.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// What a request adds to that.
const REQUEST_HEAD_BYTES: usize = 4096;

/// How the kernel's page cache stands between process and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// `O_DIRECT` works; what is not opened so is cached for reading and written through.
    Direct,
    /// Nothing is cached, however it is opened; `O_DIRECT` works.
    Off,
    /// `O_DIRECT` is refused; writes go through the cache at once.
    WriteThrough,
    /// `O_DIRECT` is refused; the kernel keeps dirty pages until a sync (or until it likes to write them).
    WriteBack,
}

/// What the switch has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    /// Off at the operation that makes this zero; on for ever without a number.
    On { operations_left: Option<u64> },
    /// Nothing is answered.
    Off,
    /// Everything fails.
    Gone,
}

/// What the serving thread and its owner share.
#[derive(Debug)]
struct Device {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    disk: Disk,
    power: Power,
    /// Whether a sync at which the power goes off has still reached the disk.
    last_sync_counts: bool,
    cache: Cache,
}

/// A mounted disk. Unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    device: Arc<Device>,
    path: PathBuf,
    server: Option<JoinHandle<()>>,
}

/// Whether a disk can be mounted here, and if not, why.
///
/// # Errors
/// The reason, in words.
pub fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting needs root".to_owned());
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    match Mounted::mount(Disk::default(), Cache::Direct, folder.path()) {
        Ok(mounted) => mounted.unmount().map(drop).map_err(|error| format!("{error:#}")),
        Err(error) => Err(format!("{error:#}")),
    }
}

impl Mounted {
    /// Mounts on a folder that exists.
    ///
    /// # Errors
    /// No `/dev/fuse`, or no right to mount.
    pub fn mount(disk: Disk, cache: Cache, path: &Path) -> Result<Self> {
        let pipe = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let pipe = pipe.context("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", pipe.as_raw_fd());
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        mount("powercut", path, "fuse.powercut", flags, options.as_c_str())
            .with_context(|| format!("mounting on {}", path.display()))?;
        let power = Power::On { operations_left: None };
        let state = State { disk, power, last_sync_counts: false, cache };
        let device = Arc::new(Device { state: Mutex::new(state), changed: Condvar::new() });
        let served = Arc::clone(&device);
        let server = std::thread::Builder::new().name("fuse".to_owned());
        let server = server.spawn(move || served.serve(pipe))?;
        Ok(Self { device, path: path.to_owned(), server: Some(server) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the switch: the power goes off at the operation after the next `operations`. If that is a sync,
    /// `last_sync_counts` says whether it has reached the disk, though nobody is told.
    pub fn cut_after(&self, operations: u64, last_sync_counts: bool) {
        let mut state = self.device.lock();
        if state.power == (Power::On { operations_left: None }) {
            state.power = Power::On { operations_left: Some(operations) };
            state.last_sync_counts = last_sync_counts;
        }
    }

    /// The power goes off now.
    pub fn cut_now(&self) {
        self.device.lock().set_power(Power::Off, &self.device);
    }

    /// Waits until the power is off; false if it is still on after `within`.
    pub fn wait_until_off(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.device.lock();
        while matches!(state.power, Power::On { .. }) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let waited = self.device.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        !matches!(self.device.lock().power, Power::On { .. })
    }

    /// Fails what waits for an answer, and everything from now on. The process that waits must have been killed.
    pub fn let_go(&self) {
        self.device.lock().set_power(Power::Gone, &self.device);
    }

    /// Unmounts: nothing of it stays in the kernel. The disk as the last operation left it.
    ///
    /// # Errors
    /// Somebody still uses it.
    pub fn unmount(mut self) -> Result<Disk> {
        self.end()?;
        let mut state = self.device.lock();
        Ok(std::mem::take(&mut state.disk))
    }

    fn end(&mut self) -> Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let deadline = Instant::now() + Duration::from_secs(10);
        // The kernel closes the files of a killed process a moment after it is gone.
        while let Err(error) = unmount(&self.path, UnmountFlags::empty()) {
            if error != Errno::BUSY || Instant::now() > deadline {
                self.let_go();
                let _ = unmount(&self.path, UnmountFlags::DETACH);
                bail!("unmounting {}: {error}", self.path.display());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if server.join().is_err() {
            bail!("the file system's thread panicked");
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // An error is told by `unmount`; here somebody has given up already.
        let _ = self.end();
    }
}

impl State {
    fn set_power(&mut self, power: Power, device: &Device) {
        self.power = power;
        device.changed.notify_all();
    }

    /// Counts an operation; true if the power goes off at it.
    fn count(&mut self) -> bool {
        match &mut self.power {
            Power::On { operations_left: Some(0) } => true,
            Power::On { operations_left: Some(left) } => {
                *left -= 1;
                false
            }
            _ => false,
        }
    }
}

impl Device {
    /// Every change of the state is whole: a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut pipe: File) {
        let mut buffer = vec![0; WRITE_BYTES_MAX + REQUEST_HEAD_BYTES];
        loop {
            let length = match pipe.read(&mut buffer) {
                Ok(length) => length,
                // Interrupted, or the request was taken back.
                Err(error) if matches!(errno(&error), Some(Errno::INTR | Errno::NOENT)) => continue,
                // ENODEV: unmounted.
                Err(_) => return,
            };
            let Some(request) = Request::parse(&buffer[..length]) else { return };
            let answer = self.answer(&request);
            if let Some(answer) = answer {
                let frame = wire::answer_frame(request.unique, answer);
                // ENOENT: nobody waits for it any more.
                let _ = pipe.write_all(&frame);
            }
        }
    }

    /// `None`: the request has no answer.
    fn answer(&self, request: &Request<'_>) -> Option<Result<Vec<u8>, Errno>> {
        if request.is_unanswered() {
            return None;
        }
        let mut state = self.lock();
        if matches!(state.power, Power::On { .. }) {
            let last = request.changes_the_disk() && state.count();
            let lost = last && request.is_sync() && !state.last_sync_counts;
            let answer = if lost { Err(Errno::IO) } else { state.handle(request) };
            if !last {
                return Some(answer);
            }
            state.set_power(Power::Off, self);
        }
        while state.power == Power::Off {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Some(Err(Errno::IO))
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

#[cfg(test)]
mod tests;

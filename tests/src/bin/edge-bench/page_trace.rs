//! What a card would program: the write requests of a block device, each rounded up to the pages it touches.
//!
//! Cards and eMMC write inside in pages larger than a sector; 16 KiB is common. The kernel's event `block_rq_issue`
//! tells place and length of every request. Needs root and tracefs; without it the figure is left out.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{OFlags, major, minor};

use crate::volume::output;

/// The page that is assumed.
pub(crate) const PAGE_BYTES: u64 = 16 << 10;
const SECTOR_BYTES: u64 = 512;

/// A running count.
#[derive(Debug)]
pub(crate) struct PageTrace {
    instance: PathBuf,
    stop: Arc<AtomicBool>,
    pages: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl PageTrace {
    /// Begins to count the requests of `device`.
    ///
    /// # Errors
    /// When the kernel does not offer it.
    pub(crate) fn start(device: &str) -> Result<Self> {
        let root = tracefs()?;
        let instance = root.join("instances").join(format!("edge-bench-{}", std::process::id()));
        if !instance.exists() {
            fs::create_dir(&instance).context("tracefs has no room for an instance")?;
        }
        let number = rustix::fs::stat(device)?.st_rdev;
        // As the kernel packs it: 12 bits and 20.
        let number = u64::from(major(number)) << 20 | u64::from(minor(number));
        let event = instance.join("events/block/block_rq_issue");
        fs::write(event.join("filter"), format!("dev == {number}"))?;
        fs::write(event.join("enable"), "1")?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
        let pipe = options.open(instance.join("trace_pipe"))?;
        let (stop, pages) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = {
            let (stop, pages) = (Arc::clone(&stop), Arc::clone(&pages));
            std::thread::spawn(move || count(pipe, &stop, &pages))
        };
        Ok(Self { instance, stop, pages, thread: Some(thread) })
    }

    /// Bytes of the pages that were touched so far.
    pub(crate) fn bytes(&self) -> u64 {
        // The events of the last moment are on their way.
        std::thread::sleep(Duration::from_millis(300));
        self.pages.load(Ordering::Relaxed) * PAGE_BYTES
    }
}

impl Drop for PageTrace {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::write(self.instance.join("events/block/block_rq_issue/enable"), "0");
        let _ = fs::remove_dir(&self.instance);
    }
}

fn count(pipe: File, stop: &AtomicBool, pages: &AtomicU64) {
    let mut lines = BufReader::new(pipe);
    let mut line = String::new();
    while !stop.load(Ordering::Relaxed) {
        match lines.read_line(&mut line) {
            Ok(count) if count > 0 && line.ends_with('\n') => {
                pages.fetch_add(pages_of(&line).unwrap_or(0), Ordering::Relaxed);
                line.clear();
            }
            // Nothing now, or half a line: the rest is added to it.
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// `... block_rq_issue: 7,0 WS 4096 () 123456 + 8 none,0,0 [name]`
fn pages_of(line: &str) -> Option<u64> {
    let (_, event) = line.split_once("block_rq_issue: ")?;
    let mut words = event.split_whitespace();
    if !words.nth(1)?.contains('W') {
        return None;
    }
    let words: Vec<&str> = words.collect();
    let plus = words.iter().position(|word| *word == "+")?;
    let first: u64 = words.get(plus.checked_sub(1)?)?.parse().ok()?;
    let sectors: u64 = words.get(plus + 1)?.parse().ok()?;
    let per_page = PAGE_BYTES / SECTOR_BYTES;
    (sectors > 0).then(|| (first + sectors).div_ceil(per_page) - first / per_page)
}

/// Where tracefs is mounted; mounts it if nobody has.
fn tracefs() -> Result<PathBuf> {
    for path in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        if Path::new(path).join("instances").exists() {
            return Ok(path.into());
        }
    }
    let path = Path::new("/sys/kernel/tracing");
    output(std::process::Command::new("mount").args(["-t", "tracefs", "none"]).arg(path))
        .context("the kernel has no tracefs")?;
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_every_page_it_touches() {
        let line = |rest: &str| format!("a-1 [000] d 1.0: block_rq_issue: 7,0 {rest} none,0,0 [a]");
        assert_eq!(pages_of(&line("WFS 4096 () 64 + 8")), Some(1));
        assert_eq!(pages_of(&line("WS 4096 () 60 + 8")), Some(2));
        assert_eq!(pages_of(&line("WS 16384 () 64 + 32")), Some(1));
        assert_eq!(pages_of(&line("W 16384 () 65 + 32")), Some(2));
        assert_eq!(pages_of(&line("FF 0 () 0 + 0")), None);
        assert_eq!(pages_of(&line("R 4096 () 64 + 8")), None);
    }
}

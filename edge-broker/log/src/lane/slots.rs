//! The slot files of a lane: made, zeroed one ahead of use, recycled, never on the path of an acknowledgement.
//!
//! - A new slot is written with zeros under a `.tmp` name, synced, renamed, and its directory synced: a `.seg`
//!   file is always whole.
//! - A slot that is given up gets a *free* header, synced, before anything of its next use is written.
//! - A slot that takes no write is not used again until the next start, and then after all others: checkpoints name it.
//! - The sum of all slots never passes the lane's budget, except where a budget was made smaller: then slots are
//!   removed as they become free.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::error::MaintainError;
use crate::journal::format::SLOTS_MAX;
use crate::shared::{blank_path, side_path, slot_path};
use crate::storage::{AlignedBuf, OpenMode, Storage, StorageFile, is_of_one_file};

/// Zeros written by one step.
const STEP_BYTES: usize = 512 << 10;

/// What is made ahead of need leaves at least this free.
const AHEAD_KEEP_FREE_BYTES: u64 = 4 << 20;

/// A slot that is ready for use.
#[derive(Clone)]
pub(crate) struct FreeSlot {
    pub(crate) slot: u32,
    pub(crate) file: Arc<dyn StorageFile>,
}

struct Zeroing {
    free: FreeSlot,
    written: u64,
}

/// All slots of a lane.
pub(crate) struct Slots {
    storage: Arc<dyn Storage>,
    dir: String,
    segment_bytes: u32,
    budget_bytes: u64,
    /// Left free on the file system for everything that is not a segment.
    keep_free_bytes: u64,
    /// Why no slot can be made although the budget allows it.
    disk_short: Option<DiskShort>,
    /// Every slot file there is, and its bytes.
    files: std::collections::BTreeMap<u32, u64>,
    /// Slots that hold nothing live; the last is used first.
    free: Vec<u32>,
    /// Slots that are not used.
    bad: BTreeSet<u32>,
    /// Slots that are used last.
    doubtful: BTreeSet<u32>,
    ready: Option<FreeSlot>,
    zeroing: Option<Zeroing>,
    /// Slots that took no free header; they count as used.
    pub(super) quarantined: usize,
    zeros: AlignedBuf,
    /// Bytes written by zeroing since last asked.
    pub(crate) zeroed_bytes: u64,
}

/// There is less room on the disk than a slot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskShort {
    pub(crate) free_bytes: u64,
    pub(crate) needed_bytes: u64,
}

/// What a step of preparation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// A slot is ready.
    Ready,
    /// Something was done; there is more to do.
    Working,
    /// Only recycling can help.
    AtBudget,
}

impl Slots {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        dir: &str,
        segment_bytes: u32,
        budget_bytes: u64,
        keep_free_bytes: u64,
    ) -> Self {
        Self {
            storage,
            dir: dir.to_owned(),
            segment_bytes,
            budget_bytes,
            keep_free_bytes,
            disk_short: None,
            files: std::collections::BTreeMap::new(),
            free: Vec::new(),
            bad: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            ready: None,
            zeroing: None,
            quarantined: 0,
            zeros: AlignedBuf::new(),
            zeroed_bytes: 0,
        }
    }

    /// A slot that was found.
    pub(crate) fn add(&mut self, slot: u32, bytes: u64) {
        self.files.insert(slot, bytes);
    }

    /// A slot that holds nothing live (any more).
    pub(crate) fn add_free(&mut self, slot: u32) {
        if self.bad.contains(&slot) || self.doubtful.contains(&slot) {
            self.free.insert(0, slot);
        } else {
            self.free.push(slot);
        }
    }

    /// A slot that an earlier run could not read or write: it is used after all others.
    pub(crate) fn doubt(&mut self, slot: u32) {
        self.doubtful.insert(slot);
    }

    /// What a checkpoint tells of slots.
    pub(crate) fn bad(&self) -> Vec<u32> {
        self.bad.union(&self.doubtful).copied().collect()
    }

    /// A slot that takes no writes is not used again until the next start, unless there are too many.
    pub(crate) fn mark_bad(&mut self, slot: u32) {
        if self.bad.len() < (self.files.len() / 4).max(1) {
            self.bad.insert(slot);
        }
        if let Some(index) = self.free.iter().position(|free| *free == slot) {
            self.free.remove(index);
            self.free.insert(0, slot);
        }
    }

    /// A free slot that took no write: others first.
    pub(crate) fn set_aside(&mut self, slot: u32, error: &io::Error) {
        self.free.insert(0, slot);
        if is_of_one_file(error) {
            self.mark_bad(slot);
        }
    }

    /// Counts a slot that is not used again. `false` if there were too many: then it is not the file but the device,
    /// and giving up more would only throw away what can still be read.
    pub(crate) fn quarantine(&mut self) -> bool {
        let may = self.quarantined < (self.files.len() / 4).max(1);
        self.quarantined += usize::from(may);
        may
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.files.values().sum()
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.ready.is_some()
    }

    pub(crate) fn take_ready(&mut self) -> Option<FreeSlot> {
        self.ready.take()
    }

    /// Gives back what `take_ready` gave: it was not written to.
    pub(crate) fn give_back(&mut self, free: FreeSlot) {
        self.ready = Some(free);
    }

    /// The disk has no room for another slot.
    pub(crate) fn disk_short(&self) -> Option<DiskShort> {
        self.disk_short
    }

    /// One step towards having all slots that the budget allows.
    pub(crate) fn preallocate(&mut self) -> Result<Prepared, MaintainError> {
        if self.zeroing.is_none() {
            return self.start_zeroing(self.keep_free_bytes.max(AHEAD_KEEP_FREE_BYTES));
        }
        let before = self.ready.take();
        let stepped = self.prepare();
        if let Some(before) = before
            && let Some(new) = self.ready.replace(before)
        {
            self.free.push(new.slot);
        }
        stepped
    }

    /// One step towards a ready slot.
    pub(crate) fn prepare(&mut self) -> Result<Prepared, MaintainError> {
        if self.ready.is_some() {
            return Ok(Prepared::Ready);
        }
        if self.zeroing.is_some() {
            let stepped = self.zero_step();
            if let Err(MaintainError::Io { source, .. }) = &stepped
                && let Some(failed) = self.zeroing.take()
            {
                if source.kind() == io::ErrorKind::StorageFull {
                    let needed_bytes = u64::from(self.segment_bytes) + self.keep_free_bytes;
                    let free_bytes = self.storage.free_bytes().unwrap_or(0);
                    self.disk_short = Some(DiskShort { free_bytes, needed_bytes });
                }
                // Make room for others; that this fails too changes nothing.
                let _ = self.storage.remove(&blank_path(&self.dir, failed.free.slot));
            }
            return stepped;
        }
        // A new slot is better than one that is bad, and so is the oldest that is in use.
        let usable = self.free.iter().rposition(|slot| !self.bad.contains(slot));
        if let Some(slot) = usable.map(|index| self.free.remove(index)) {
            let bytes = self.files.get(&slot).copied().unwrap_or(0);
            let over_budget = self.used_bytes() > self.budget_bytes;
            if over_budget || bytes != u64::from(self.segment_bytes) {
                self.remove(slot)?;
                return Ok(Prepared::Working);
            }
            let path = slot_path(&self.dir, slot);
            let file = match self.storage.open(&path, OpenMode::ReadWrite) {
                Ok(file) => file,
                Err(source) => {
                    self.set_aside(slot, &source);
                    return Err(MaintainError::Io { operation: "open", path, source });
                }
            };
            self.ready = Some(FreeSlot { slot, file });
            return Ok(Prepared::Ready);
        }
        self.start_zeroing(self.keep_free_bytes)
    }

    fn start_zeroing(&mut self, keep_free_bytes: u64) -> Result<Prepared, MaintainError> {
        let bytes = u64::from(self.segment_bytes);
        self.disk_short = None;
        if self.used_bytes() + bytes > self.budget_bytes {
            return Ok(Prepared::AtBudget);
        }
        let failed = |operation, path: &str, source| MaintainError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        let free_bytes =
            self.storage.free_bytes().map_err(|error| failed("statvfs", &self.dir, error))?;
        let needed_bytes = bytes + keep_free_bytes;
        if free_bytes < needed_bytes {
            self.disk_short = Some(DiskShort { free_bytes, needed_bytes });
            return Ok(Prepared::AtBudget);
        }
        let Some(slot) = (0..SLOTS_MAX).find(|slot| !self.files.contains_key(slot)) else {
            return Ok(Prepared::AtBudget);
        };
        let path = blank_path(&self.dir, slot);
        let file = self
            .storage
            .open(&path, OpenMode::Create)
            .map_err(|error| failed("create", &path, error))?;
        self.zeroing = Some(Zeroing { free: FreeSlot { slot, file }, written: 0 });
        Ok(Prepared::Working)
    }

    fn zero_step(&mut self) -> Result<Prepared, MaintainError> {
        let Some(zeroing) = &mut self.zeroing else { return Ok(Prepared::Working) };
        let slot = zeroing.free.slot;
        let (blank, path) = (blank_path(&self.dir, slot), slot_path(&self.dir, slot));
        let failed = |operation, path: &str, source: io::Error| MaintainError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        let left = u64::from(self.segment_bytes) - zeroing.written;
        if left > 0 {
            let count = left.min(STEP_BYTES as u64) as usize;
            self.zeros.clear();
            self.zeros.resize(count);
            zeroing
                .free
                .file
                .write_at(&self.zeros, zeroing.written)
                .map_err(|error| failed("zero", &blank, error))?;
            zeroing.written += count as u64;
            self.zeroed_bytes += count as u64;
            return Ok(Prepared::Working);
        }
        self.zeros = AlignedBuf::new();
        zeroing.free.file.sync_data().map_err(|error| failed("sync", &blank, error))?;
        self.storage.rename(&blank, &path).map_err(|error| failed("rename", &blank, error))?;
        self.storage
            .sync_dir(&self.dir)
            .map_err(|error| failed("sync directory", &self.dir, error))?;
        self.files.insert(slot, u64::from(self.segment_bytes));
        self.ready = self.zeroing.take().map(|zeroing| zeroing.free);
        Ok(Prepared::Ready)
    }

    fn remove(&mut self, slot: u32) -> Result<(), MaintainError> {
        self.files.remove(&slot);
        let path = slot_path(&self.dir, slot);
        // The index is worthless without it; a leftover is overwritten.
        let _ = self.storage.remove(&side_path(&self.dir, slot));
        let removed = self.storage.remove(&path).and_then(|()| self.storage.sync_dir(&self.dir));
        removed.map_err(|source| MaintainError::Io { operation: "remove", path, source })
    }
}

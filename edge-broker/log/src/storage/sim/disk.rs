//! Files of the simulated disk: pages shared between copies, and which of them would survive a power cut.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Page of a simulated file. Copies of a disk share the pages that neither has written.
pub(super) const PAGE_BYTES: usize = 4096;
/// What a device writes at once.
pub(super) const SECTOR_BYTES: usize = 512;

/// The bytes of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes {
    pages: Vec<Arc<[u8; PAGE_BYTES]>>,
    len: u64,
}

impl Bytes {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, buf: &mut [u8], position: u64) -> usize {
        let available = self.len.saturating_sub(position).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < available {
            let at = position as usize + done;
            let (page, inside) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let count = (PAGE_BYTES - inside).min(available - done);
            buf[done..done + count].copy_from_slice(&self.pages[page][inside..inside + count]);
            done += count;
        }
        available
    }

    pub(super) fn write(&mut self, bytes: &[u8], position: u64) {
        let end = position + bytes.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = position as usize + done;
            let (page, inside) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let count = (PAGE_BYTES - inside).min(bytes.len() - done);
            Arc::make_mut(&mut self.pages[page])[inside..inside + count]
                .copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let pages = (len as usize).div_ceil(PAGE_BYTES);
        if len < self.len {
            self.pages.truncate(pages);
            let inside = len as usize % PAGE_BYTES;
            if inside != 0 {
                Arc::make_mut(&mut self.pages[pages - 1])[inside..].fill(0);
            }
        } else if pages > self.pages.len() {
            let zero = Arc::new([0; PAGE_BYTES]);
            self.pages.resize(pages, zero);
        }
        self.len = len;
    }
}

/// A change of a file that no sync has covered yet.
#[derive(Clone, Debug)]
pub(super) enum Unsynced {
    Write { position: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

/// One file: what programs see, what the device surely has, and the changes in between.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) visible: Bytes,
    pub(super) durable: Bytes,
    pub(super) unsynced: Vec<Unsynced>,
}

impl File {
    pub(super) fn sync(&mut self) {
        self.durable = self.visible.clone();
        self.unsynced.clear();
    }
}

/// A change of names that no directory sync has covered yet.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create { path: String, file: usize },
    Rename { from: String, to: String },
    Remove { path: String },
}

impl NameChange {
    pub(super) fn touches_dir(&self, dir: &str) -> bool {
        let path = match self {
            Self::Create { path, .. } | Self::Remove { path } => path,
            Self::Rename { to, .. } => to,
        };
        parent(path) == dir
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

/// The whole disk. Directories survive always: the log makes them once, before anything else.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) files: Vec<File>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) unsynced_names: Vec<NameChange>,
    pub(super) dirs: std::collections::BTreeSet<String>,
}

impl Disk {
    pub(super) fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    pub(super) fn sync_dir(&mut self, dir: &str) {
        let changes = std::mem::take(&mut self.unsynced_names);
        for change in changes {
            if change.touches_dir(dir) {
                change.apply(&mut self.durable_names);
            } else {
                self.unsynced_names.push(change);
            }
        }
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

//! A disk in memory that knows what would survive a power cut.
//!
//! Files hold what a reader sees now and what is durable, folders likewise; in between are the changes since the
//! last sync, in order. Syncing a file makes its bytes and its length durable, not its name. Syncing a folder makes
//! the names in it durable. Nothing else makes anything durable, and anything else may be lost in any combination.
//!
//! Limits: [`CAPACITY_BYTES`] over all files, 255 bytes a name. Renames stay within one folder.

mod content;
mod folder;
mod survival;

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;
use system_tests::random::Random;

pub use content::{Content, SECTOR_BYTES};
pub use folder::Folder;
pub use survival::Survival;

/// What the disk has room for.
pub const CAPACITY_BYTES: u64 = 1 << 30;
/// The inode of the top folder.
pub const ROOT: u64 = 1;
const NAME_BYTES_MAX: usize = 255;

/// A file, a folder, or something that has only a name.
#[derive(Debug, Clone)]
pub enum Node {
    /// A regular file.
    File(Content),
    /// A folder.
    Folder(Folder),
    /// A socket: what it is ends with the process.
    Socket,
}

/// What stands behind an inode number.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Type and permissions, as stat(2) has them.
    pub mode: u32,
    /// What it is.
    pub node: Node,
}

/// The disk.
#[derive(Debug, Clone)]
pub struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
}

/// Where rot was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotten {
    /// Path below the top.
    pub path: String,
    /// First byte of the sector.
    pub position: u64,
    /// What happened to it.
    pub how: &'static str,
}

const MODE_FOLDER: u32 = 0o040_755;
const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_SOCKET: u32 = 0o140_000;

impl Default for Disk {
    fn default() -> Self {
        let root = Inode { mode: MODE_FOLDER, node: Node::Folder(Folder::default()) };
        Self { inodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1 }
    }
}

impl Disk {
    /// What stands behind a number.
    ///
    /// # Errors
    /// `ESTALE`: nothing.
    pub fn inode(&self, number: u64) -> Result<&Inode, Errno> {
        self.inodes.get(&number).ok_or(Errno::STALE)
    }

    fn inode_mut(&mut self, number: u64) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&number).ok_or(Errno::STALE)
    }

    /// A folder.
    ///
    /// # Errors
    /// `ENOTDIR`, `ESTALE`.
    pub fn folder(&self, number: u64) -> Result<&Folder, Errno> {
        match &self.inode(number)?.node {
            Node::Folder(folder) => Ok(folder),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn folder_mut(&mut self, number: u64) -> Result<&mut Folder, Errno> {
        match &mut self.inode_mut(number)?.node {
            Node::Folder(folder) => Ok(folder),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// A file's content.
    ///
    /// # Errors
    /// `EISDIR`, `ESTALE`.
    pub fn file(&self, number: u64) -> Result<&Content, Errno> {
        match &self.inode(number)?.node {
            Node::File(content) => Ok(content),
            _ => Err(Errno::ISDIR),
        }
    }

    fn file_mut(&mut self, number: u64) -> Result<&mut Content, Errno> {
        match &mut self.inode_mut(number)?.node {
            Node::File(content) => Ok(content),
            _ => Err(Errno::ISDIR),
        }
    }

    /// The number behind a name.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn lookup(&self, folder: u64, name: &str) -> Result<u64, Errno> {
        self.folder(folder)?.get(name).ok_or(Errno::NOENT)
    }

    /// Makes a file, folder or socket.
    ///
    /// # Errors
    /// `EEXIST`, `ENAMETOOLONG`, `EPERM` for other types.
    pub fn create(&mut self, folder: u64, name: &str, mode: u32) -> Result<u64, Errno> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if self.folder(folder)?.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        let node = match mode & TYPE_MASK {
            TYPE_FILE => Node::File(Content::default()),
            TYPE_SOCKET => Node::Socket,
            kind if kind == MODE_FOLDER & TYPE_MASK => Node::Folder(Folder::default()),
            _ => return Err(Errno::PERM),
        };
        let number = self.next;
        self.next += 1;
        self.inodes.insert(number, Inode { mode, node });
        self.folder_mut(folder)?.change(vec![(name.to_owned(), Some(number))]);
        Ok(number)
    }

    /// Changes the permissions.
    ///
    /// # Errors
    /// `ESTALE`.
    pub fn set_mode(&mut self, number: u64, mode: u32) -> Result<(), Errno> {
        let inode = self.inode_mut(number)?;
        inode.mode = (inode.mode & TYPE_MASK) | (mode & !TYPE_MASK);
        Ok(())
    }

    /// Removes a name. What was behind it stays for those that have it open.
    ///
    /// # Errors
    /// `ENOENT`; `ENOTEMPTY` for a folder with names in it.
    pub fn remove(&mut self, folder: u64, name: &str) -> Result<(), Errno> {
        let number = self.lookup(folder, name)?;
        if let Node::Folder(inner) = &self.inode(number)?.node
            && !inner.is_empty()
        {
            return Err(Errno::NOTEMPTY);
        }
        self.folder_mut(folder)?.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    /// Renames within a folder, over what is there: happens whole or not at all.
    ///
    /// # Errors
    /// `ENOENT`; `EXDEV` between folders.
    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> Result<(), Errno> {
        if from.0 != to.0 {
            return Err(Errno::XDEV);
        }
        let number = self.lookup(from.0, from.1)?;
        if from.1 != to.1 {
            let names = vec![(from.1.to_owned(), None), (to.1.to_owned(), Some(number))];
            self.folder_mut(from.0)?.change(names);
        }
        Ok(())
    }

    /// Writes.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn write(&mut self, number: u64, position: u64, bytes: &[u8]) -> Result<(), Errno> {
        let end = position.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        self.want_room(number, end)?;
        self.file_mut(number)?.write(position, bytes);
        Ok(())
    }

    /// Cuts a file off or lengthens it.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn set_len(&mut self, number: u64, len: u64) -> Result<(), Errno> {
        self.want_room(number, len)?;
        self.file_mut(number)?.set_len(len);
        Ok(())
    }

    /// Makes a file's bytes and length durable, or a folder's names.
    ///
    /// # Errors
    /// `ESTALE`, `EINVAL` for a socket.
    pub fn sync(&mut self, number: u64) -> Result<(), Errno> {
        match &mut self.inode_mut(number)?.node {
            Node::File(content) => content.sync(),
            Node::Folder(folder) => folder.sync(),
            Node::Socket => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.files().map(|(_, content)| content.len()).sum()
    }

    fn want_room(&self, number: u64, end: u64) -> Result<(), Errno> {
        let more = end.saturating_sub(self.file(number)?.len());
        let full = more > 0 && self.used_bytes() + more > CAPACITY_BYTES;
        if full { Err(Errno::NOSPC) } else { Ok(()) }
    }

    fn files(&self) -> impl Iterator<Item = (u64, &Content)> {
        self.inodes.iter().filter_map(|(number, inode)| match &inode.node {
            Node::File(content) => Some((*number, content)),
            _ => None,
        })
    }

    /// The power fails: of what is not durable there survives what `survival` and `random` say.
    pub fn cut(&mut self, survival: Survival, random: &mut Random) {
        for inode in self.inodes.values_mut() {
            match &mut inode.node {
                Node::File(content) => content.cut(survival.of_file(random), random),
                Node::Folder(folder) => folder.cut(survival.of_names(random), random),
                Node::Socket => {}
            }
        }
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(number) = next.pop() {
            if reached.insert(number)
                && let Ok(folder) = self.folder(number)
            {
                next.extend(folder.iter().map(|(_, inner)| inner));
            }
        }
        self.inodes.retain(|number, _| reached.contains(number));
    }

    /// Spoils one durable sector of a file whose path contains `part`, of those that are not all zeros.
    pub fn rot(&mut self, part: &str, random: &mut Random) -> Option<Rotten> {
        let mut sectors = Vec::new();
        for (path, number) in self.paths() {
            if let (true, Ok(content)) = (path.contains(part), self.file(number)) {
                sectors.extend(content.used_sectors().map(|at| (path.clone(), number, at)));
            }
        }
        let chosen = random.below(sectors.len() as u64) as usize;
        let (path, number, position) = sectors.into_iter().nth(chosen)?;
        let how = self.file_mut(number).ok()?.rot(position, random);
        Some(Rotten { path, position, how })
    }

    /// All paths below the top, and their numbers.
    pub fn paths(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let mut next = vec![(String::new(), ROOT)];
        while let Some((path, number)) = next.pop() {
            let Ok(folder) = self.folder(number) else { continue };
            for (name, inner) in folder.iter() {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                found.push((path.clone(), inner));
                next.push((path, inner));
            }
        }
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests;

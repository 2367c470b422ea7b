//! What is done for each request.

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::wire::{self, Body, Out, Request, SETATTR_SIZE};
use super::{Cache, State, WRITE_BYTES_MAX};
use crate::disk::{CAPACITY_BYTES, Node, ROOT};

const MINOR: u32 = 31;
const ASYNC_READ: u32 = 1;
const ATOMIC_TRUNCATE: u32 = 1 << 3;
const BIG_WRITES: u32 = 1 << 5;
const WRITEBACK_CACHE: u32 = 1 << 16;
const MAX_PAGES: u32 = 1 << 22;

const OPEN_DIRECT: u32 = 1;
const SETATTR_MODE: u32 = 1;
const RENAME_NOREPLACE: u32 = 1;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_FOLDER: u32 = 0o040_000;
const BLOCK_BYTES: u32 = 4096;
const PAGE_BYTES: usize = 4096;

impl State {
    pub(super) fn handle(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let mut body = request.body;
        let node = request.node;
        match request.opcode {
            wire::INIT => self.init(&mut body),
            wire::LOOKUP => self.entry(self.disk.lookup(node, body.name()?)?),
            wire::GETATTR => self.attributes_answer(node),
            wire::SETATTR => self.set_attributes(node, &mut body),
            wire::MKNOD => {
                let mode = body.u32()?;
                body.skip(12)?;
                let made = self.disk.create(node, body.name()?, mode)?;
                self.entry(made)
            }
            wire::MKDIR => {
                let mode = body.u32()? & 0o7777 | TYPE_FOLDER;
                body.skip(4)?;
                let made = self.disk.create(node, body.name()?, mode)?;
                self.entry(made)
            }
            wire::UNLINK | wire::RMDIR => self.disk.remove(node, body.name()?).map(|()| Vec::new()),
            wire::RENAME | wire::RENAME2 => self.rename(request),
            wire::OPEN => {
                let flags = body.u32()?;
                self.open(node, flags)
            }
            wire::CREATE => self.create(node, &mut body),
            wire::READ => {
                let (_handle, position, len) = (body.u64()?, body.u64()?, body.u32()?);
                Ok(self.disk.file(node)?.read(position, len as usize).to_vec())
            }
            wire::WRITE => {
                let (_handle, position, len) = (body.u64()?, body.u64()?, body.u32()?);
                body.skip(20)?;
                self.disk.write(node, position, body.bytes(len as usize)?)?;
                Ok(Out::default().u32(len).u32(0).done())
            }
            wire::FSYNC | wire::FSYNCDIR => self.disk.sync(node).map(|()| Vec::new()),
            wire::STATFS => Ok(self.statfs()),
            wire::OPENDIR => {
                self.disk.folder(node)?;
                Ok(Out::default().zeros(16).done())
            }
            wire::READDIR => self.read_folder(node, &mut body),
            wire::RELEASE | wire::RELEASEDIR | wire::FLUSH | wire::ACCESS | wire::DESTROY => {
                Ok(Vec::new())
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn init(&self, body: &mut Body<'_>) -> Result<Vec<u8>, Errno> {
        let (major, _minor, readahead, offered) =
            (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
        if major != 7 {
            return Err(Errno::PROTO);
        }
        let mut wanted = ASYNC_READ | ATOMIC_TRUNCATE | BIG_WRITES | MAX_PAGES;
        if self.cache == Cache::WriteBack {
            wanted |= WRITEBACK_CACHE;
        }
        let mut out = Out::default();
        out.u32(7).u32(MINOR).u32(readahead).u32(wanted & offered);
        out.u16(64).u16(48).u32(WRITE_BYTES_MAX as u32).u32(1);
        out.u16((WRITE_BYTES_MAX / PAGE_BYTES) as u16).u16(0);
        Ok(out.zeros(32).done())
    }

    fn set_attributes(&mut self, node: u64, body: &mut Body<'_>) -> Result<Vec<u8>, Errno> {
        let valid = body.u32()?;
        body.skip(12)?;
        let size = body.u64()?;
        // Lock owner, three times and their fractions.
        body.skip(8 + 24 + 12)?;
        let mode = body.u32()?;
        if valid & SETATTR_SIZE != 0 {
            self.disk.set_len(node, size)?;
        }
        if valid & SETATTR_MODE != 0 {
            self.disk.set_mode(node, mode)?;
        }
        self.attributes_answer(node)
    }

    fn rename(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        let mut body = request.body;
        let to_folder = body.u64()?;
        let flags = if request.opcode == wire::RENAME2 {
            let flags = body.u32()?;
            body.skip(4)?;
            flags
        } else {
            0
        };
        let (from, to) = (body.name()?, body.name()?);
        if flags & !RENAME_NOREPLACE != 0 {
            return Err(Errno::INVAL);
        }
        if flags & RENAME_NOREPLACE != 0 && self.disk.lookup(to_folder, to).is_ok() {
            return Err(Errno::EXIST);
        }
        self.disk.rename((request.node, from), (to_folder, to))?;
        Ok(Vec::new())
    }

    fn create(&mut self, folder: u64, body: &mut Body<'_>) -> Result<Vec<u8>, Errno> {
        let (flags, mode) = (body.u32()?, body.u32()?);
        body.skip(8)?;
        let name = body.name()?;
        let open = self.open_answer(flags)?;
        let number = match self.disk.lookup(folder, name) {
            Ok(number) => number,
            Err(_) => self.disk.create(folder, name, mode & 0o7777 | TYPE_FILE)?,
        };
        self.truncate_if_asked(number, flags)?;
        let mut out = self.entry(number)?;
        out.extend(open);
        Ok(out)
    }

    fn open(&mut self, number: u64, flags: u32) -> Result<Vec<u8>, Errno> {
        self.disk.file(number)?;
        let answer = self.open_answer(flags)?;
        self.truncate_if_asked(number, flags)?;
        Ok(answer)
    }

    fn truncate_if_asked(&mut self, number: u64, flags: u32) -> Result<(), Errno> {
        if flags & OFlags::TRUNC.bits() != 0 && !self.disk.file(number)?.is_empty() {
            self.disk.set_len(number, 0)?;
        }
        Ok(())
    }

    fn open_answer(&self, flags: u32) -> Result<Vec<u8>, Errno> {
        let direct = flags & OFlags::DIRECT.bits() != 0;
        if direct && matches!(self.cache, Cache::WriteThrough | Cache::WriteBack) {
            return Err(Errno::INVAL);
        }
        let open_flags = if self.cache == Cache::Off { OPEN_DIRECT } else { 0 };
        Ok(Out::default().u64(0).u32(open_flags).u32(0).done())
    }

    /// A name's inode with its attributes; the kernel may keep both as long as it likes.
    fn entry(&self, number: u64) -> Result<Vec<u8>, Errno> {
        let mut out = Out::default();
        out.u64(number).u64(0).u64(VALID_SECONDS).u64(VALID_SECONDS).u32(0).u32(0);
        self.put_attributes(number, &mut out)?;
        Ok(out.done())
    }

    fn attributes_answer(&self, number: u64) -> Result<Vec<u8>, Errno> {
        let mut out = Out::default();
        out.u64(VALID_SECONDS).u32(0).u32(0);
        self.put_attributes(number, &mut out)?;
        Ok(out.done())
    }

    fn put_attributes(&self, number: u64, out: &mut Out) -> Result<(), Errno> {
        let inode = self.disk.inode(number)?;
        let size = if let Node::File(content) = &inode.node { content.len() } else { 0 };
        out.u64(number).u64(size).u64(size.div_ceil(512));
        // Times: nobody asks for them.
        out.zeros(24 + 12);
        out.u32(inode.mode).u32(1).u32(0).u32(0).u32(0).u32(BLOCK_BYTES).u32(0);
        Ok(())
    }

    fn statfs(&self) -> Vec<u8> {
        let block = u64::from(BLOCK_BYTES);
        let free = CAPACITY_BYTES.saturating_sub(self.disk.used_bytes()) / block;
        let mut out = Out::default();
        out.u64(CAPACITY_BYTES / block).u64(free).u64(free).u64(1 << 20).u64(1 << 20);
        out.u32(BLOCK_BYTES).u32(255).u32(BLOCK_BYTES);
        out.zeros(28).done()
    }

    fn read_folder(&self, number: u64, body: &mut Body<'_>) -> Result<Vec<u8>, Errno> {
        let (_handle, from, room) = (body.u64()?, body.u64()?, body.u32()? as usize);
        let folder = self.disk.folder(number)?;
        let dots = [(".", number), ("..", ROOT)];
        let mut out = Out::default();
        for (at, (name, inner)) in (1..).zip(dots.into_iter().chain(folder.iter())) {
            let entry_bytes = (24 + name.len()).next_multiple_of(8);
            if at <= from {
                continue;
            }
            if out.0.len() + entry_bytes > room {
                break;
            }
            let kind = self.disk.inode(inner).map_or(0, |inode| inode.mode >> 12);
            out.u64(inner).u64(at).u32(name.len() as u32).u32(kind);
            out.0.extend(name.as_bytes());
            out.0.resize(out.0.len().next_multiple_of(8), 0);
        }
        Ok(out.done())
    }
}

/// Nobody but the kernel that asks changes anything.
const VALID_SECONDS: u64 = 3_600;

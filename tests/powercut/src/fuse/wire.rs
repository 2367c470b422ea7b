//! The bytes of requests and answers.
//!
//! Numbers are in the machine's order; little-endian machines only.

use rustix::io::Errno;

/// A request: its head, and the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    pub(super) body: Body<'a>,
}

pub(super) const LOOKUP: u32 = 1;
pub(super) const FORGET: u32 = 2;
pub(super) const GETATTR: u32 = 3;
pub(super) const SETATTR: u32 = 4;
pub(super) const MKNOD: u32 = 8;
pub(super) const MKDIR: u32 = 9;
pub(super) const UNLINK: u32 = 10;
pub(super) const RMDIR: u32 = 11;
pub(super) const RENAME: u32 = 12;
pub(super) const OPEN: u32 = 14;
pub(super) const READ: u32 = 15;
pub(super) const WRITE: u32 = 16;
pub(super) const STATFS: u32 = 17;
pub(super) const RELEASE: u32 = 18;
pub(super) const FSYNC: u32 = 20;
pub(super) const FLUSH: u32 = 25;
pub(super) const INIT: u32 = 26;
pub(super) const OPENDIR: u32 = 27;
pub(super) const READDIR: u32 = 28;
pub(super) const RELEASEDIR: u32 = 29;
pub(super) const FSYNCDIR: u32 = 30;
pub(super) const ACCESS: u32 = 34;
pub(super) const CREATE: u32 = 35;
pub(super) const INTERRUPT: u32 = 36;
pub(super) const DESTROY: u32 = 38;
pub(super) const BATCH_FORGET: u32 = 42;
pub(super) const RENAME2: u32 = 45;

/// In SETATTR: there is a new length.
pub(super) const SETATTR_SIZE: u32 = 1 << 3;

/// Bytes of a request's head, and of an answer's.
const REQUEST_HEAD: usize = 40;
const ANSWER_HEAD: usize = 16;

impl<'a> Request<'a> {
    /// `None`: shorter than a head.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(REQUEST_HEAD)?;
        let mut head = Body(head);
        let (_length, opcode) = (head.u32().ok()?, head.u32().ok()?);
        let (unique, node) = (head.u64().ok()?, head.u64().ok()?);
        Some(Self { opcode, unique, node, body: Body(body) })
    }

    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.opcode, FORGET | BATCH_FORGET | INTERRUPT)
    }

    pub(super) fn is_sync(&self) -> bool {
        matches!(self.opcode, FSYNC | FSYNCDIR)
    }

    pub(super) fn changes_the_disk(&self) -> bool {
        const CHANGES: [u32; 8] = [MKNOD, MKDIR, UNLINK, RMDIR, RENAME, WRITE, CREATE, RENAME2];
        // The kernel sets times now and then; there are none here.
        let mut body = self.body;
        let mut sets_size = || body.u32().is_ok_and(|valid| valid & SETATTR_SIZE != 0);
        self.is_sync() || CHANGES.contains(&self.opcode) || (self.opcode == SETATTR && sets_size())
    }
}

/// What is left of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Errno> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Errno> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(super) fn skip(&mut self, bytes: usize) -> Result<(), Errno> {
        self.0 = self.0.get(bytes..).ok_or(Errno::INVAL)?;
        Ok(())
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Up to a zero byte.
    pub(super) fn name(&mut self) -> Result<&'a str, Errno> {
        let len = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
        let name = std::str::from_utf8(self.bytes(len)?).map_err(|_| Errno::ILSEQ)?;
        self.skip(1)?;
        Ok(name)
    }
}

/// An answer as the kernel reads it.
pub(super) fn answer_frame(unique: u64, answer: Result<Vec<u8>, Errno>) -> Vec<u8> {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(error) => (-error.raw_os_error(), Vec::new()),
    };
    let mut frame = Vec::with_capacity(ANSWER_HEAD + body.len());
    frame.extend(((ANSWER_HEAD + body.len()) as u32).to_le_bytes());
    frame.extend(error.to_le_bytes());
    frame.extend(unique.to_le_bytes());
    frame.extend(body);
    frame
}

/// Builds the body of an answer.
#[derive(Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn zeros(&mut self, bytes: usize) -> &mut Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    pub(super) fn done(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

//! The limit of `ingest`: one thread that takes MQTT apart, appends, syncs and acknowledges, and does nothing else.
//!
//! `plain` writes the payloads as they came with a CRC32C over all of them. `batches` builds a Kafka record batch of
//! each topic (key, two headers) and compresses the group as a lane does (zstd, level 1). What came in one turn of
//! poll(2) is one group: one write of whole sectors into a file that was zeroed before, past the page cache where
//! the file system allows it, one fdatasync, one write of PUBACKs to each connection. It keeps nothing, reads nothing
//! back, knows no other packet, checks no topic: no broker can be as fast as `plain`.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use edge_wire::{Compression, Envelope, HeadersBuilder, Offset, RecordBatchBuilder};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

use crate::ingest::bench_folder;

const FILE_BYTES: u64 = 64 << 20;
const SECTOR_BYTES: usize = 4096;
const READ_BYTES: usize = 64 << 10;
const LEVEL: i32 = 1;

/// What the loop makes of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Their payloads.
    Plain,
    /// Record batches, compressed.
    Batches,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Batches => "batches",
        }
    }
}

/// The loop in a process of its own.
pub(crate) struct BareLoop {
    child: Child,
    pub(crate) address: SocketAddr,
    path: PathBuf,
}

impl BareLoop {
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let path = bench_folder()?.join(format!("bare-loop-{}", std::process::id()));
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bare-loop", kind.name()])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("the loop's output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
        let address = line.trim().parse().context("the loop says where it listens")?;
        Ok(Self { child, address, path })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for BareLoop {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The process: listens, says where, and serves for ever.
pub(crate) fn serve(kind: &str, path: &Path) -> Result<()> {
    let kind = match kind {
        "plain" => Kind::Plain,
        "batches" => Kind::Batches,
        _ => bail!("plain or batches"),
    };
    let mut disk = Disk::create(path)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let mut group = Group::new(kind)?;
    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut fds = vec![PollFd::new(&listener, PollFlags::IN)];
        fds.extend(
            clients
                .iter()
                .map(|client| PollFd::from_borrowed_fd(client.stream.as_fd(), PollFlags::IN)),
        );
        poll(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (client, _) in clients.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            client.read(&mut buffer, &mut group)?;
        }
        if !group.is_empty() {
            disk.write(group.close()?)?;
        }
        for client in &mut clients {
            client.answer();
        }
        clients.retain(|client| !client.gone);
        if ready[0] {
            while let Ok((stream, _)) = listener.accept() {
                clients.push(Client::new(stream)?);
            }
        }
    }
}

struct Client {
    stream: TcpStream,
    tail: Vec<u8>,
    answers: Vec<u8>,
    gone: bool,
}

impl Client {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, tail: Vec::new(), answers: Vec::new(), gone: false })
    }

    fn read(&mut self, buffer: &mut [u8], group: &mut Group) -> Result<()> {
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        let count = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => {
                self.gone = true;
                return Ok(());
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => {
                self.gone = true;
                return Ok(());
            }
        };
        let mut rest = &buffer[..kept + count];
        while let Some((packet, body, behind)) = split(rest)? {
            rest = behind;
            match packet >> 4 {
                1 => self.answers.extend_from_slice(&[0x20, 2, 0, 0]),
                3 => {
                    let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    ensure!(body.len() >= topic_end + 2, "a PUBLISH that is too short");
                    let (topic, behind) = (&body[2..topic_end], &body[topic_end..]);
                    self.answers.extend_from_slice(&[0x40, 2, behind[0], behind[1]]);
                    group.add(topic, &behind[2..])?;
                }
                _ => {}
            }
        }
        ensure!(rest.len() < READ_BYTES / 2, "a packet that is too large");
        self.tail.clear();
        self.tail.extend_from_slice(rest);
        Ok(())
    }

    /// A client that does not take its PUBACKs at once is none of ours.
    fn answer(&mut self) {
        if !self.answers.is_empty() {
            self.gone |= self.stream.write_all(&self.answers).is_err();
            self.answers.clear();
        }
    }
}

/// First byte, body and what follows.
type Packet<'a> = (u8, &'a [u8], &'a [u8]);

/// The first packet, if it is whole.
fn split(input: &[u8]) -> Result<Option<Packet<'_>>> {
    let (mut length, mut shift) = (0usize, 0);
    for (at, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let Some(packet) = input.get(at + 2..at + 2 + length) else { return Ok(None) };
            return Ok(Some((input[0], packet, &input[at + 2 + length..])));
        }
    }
    ensure!(input.len() < 5, "a remaining length that is none");
    Ok(None)
}

/// What was read and is not synced.
struct Group {
    kind: Kind,
    bytes: Vec<u8>,
    streams: HashMap<Vec<u8>, Stream>,
    compressor: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
    now_ms: i64,
}

struct Stream {
    envelope: Envelope,
    builder: RecordBatchBuilder,
    next: u64,
}

impl Group {
    fn new(kind: Kind) -> Result<Self> {
        Ok(Self {
            kind,
            bytes: Vec::new(),
            streams: HashMap::new(),
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
            packed: Vec::new(),
            now_ms: 0,
        })
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.streams.values().all(|stream| stream.builder.is_empty())
    }

    fn add(&mut self, topic: &[u8], payload: &[u8]) -> Result<()> {
        if self.kind == Kind::Plain {
            self.bytes.extend_from_slice(payload);
            return Ok(());
        }
        if !self.streams.contains_key(topic) {
            let mut headers = HeadersBuilder::new();
            headers.push("mqtt.topic", Some(topic));
            headers.push("mqtt.qos", Some(b"1"));
            let envelope = Envelope::new(Some(topic), &headers.finish());
            let stream = Stream { envelope, builder: RecordBatchBuilder::new(), next: 0 };
            self.streams.insert(topic.to_vec(), stream);
        }
        let stream = self.streams.get_mut(topic).context("a stream that was just made")?;
        stream.next += 1;
        stream.builder.push_enveloped(self.now_ms, &stream.envelope, Some(payload));
        Ok(())
    }

    /// The bytes to write; the group is empty again.
    fn close(&mut self) -> Result<&[u8]> {
        self.now_ms += 1;
        for stream in self.streams.values_mut().filter(|stream| !stream.builder.is_empty()) {
            stream.builder.finish(None, Compression::None, None, &mut self.bytes)?;
            stream.builder.start(Offset(stream.next), self.now_ms);
        }
        if self.kind == Kind::Batches {
            self.packed.resize(zstd::zstd_safe::compress_bound(self.bytes.len()), 0);
            let bytes = self.compressor.compress_to_buffer(&self.bytes, &mut self.packed[..])?;
            self.packed.truncate(bytes);
            std::mem::swap(&mut self.bytes, &mut self.packed);
        }
        self.packed.clear();
        self.packed.extend_from_slice(&crc32c::crc32c(&self.bytes).to_le_bytes());
        self.packed.append(&mut self.bytes);
        Ok(&self.packed)
    }
}

/// A file of zeros that is written round and round.
pub(crate) struct Disk {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Disk {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path)?;
        for piece in 0..FILE_BYTES >> 20 {
            file.write_all_at(&[0; 1 << 20], piece << 20)?;
        }
        file.sync_all()?;
        let direct = OFlags::DIRECT.bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(direct).open(path);
        let file = match file {
            Ok(file) => file,
            Err(_) => OpenOptions::new().write(true).open(path)?,
        };
        Ok(Self { file, at: 0, buffer: Vec::new() })
    }

    /// Writes whole sectors and syncs.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let padded = bytes.len().next_multiple_of(SECTOR_BYTES);
        self.buffer.resize((padded + SECTOR_BYTES).max(self.buffer.len()), 0);
        let start = self.buffer.as_ptr().align_offset(SECTOR_BYTES);
        let aligned = &mut self.buffer[start..start + padded];
        aligned[..bytes.len()].copy_from_slice(bytes);
        aligned[bytes.len()..].fill(0);
        if self.at + padded as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(aligned, self.at)?;
        self.at += padded as u64;
        self.file.sync_data().context("fdatasync")
    }
}

//! A Kafka consumer with nothing in it: Fetch version 4 (topics by name, no sessions), and the headers of the batches
//! that come back. So that what is measured is the gateway, not a client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const FETCH: i16 = 1;
const VERSION: i16 = 4;
/// Fixed part of a RecordBatch v2.
const BATCH_HEADER_BYTES: usize = 61;

/// One partition that is read.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The offset to read next.
    pub(crate) offset: i64,
    /// The durable end as last told.
    pub(crate) end: i64,
}

/// What reading has brought.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fetched {
    pub(crate) records: u64,
    /// Bytes of the batches, headers of batches and records included.
    pub(crate) wire_bytes: u64,
    pub(crate) fetches: u64,
}

impl Fetched {
    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.wire_bytes += other.wire_bytes;
        self.fetches += other.fetches;
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Consumer {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Consumer {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// One Fetch of all these partitions; moves them on.
    ///
    /// # Errors
    /// When the broker answers with an error or not as the protocol says.
    pub(crate) fn fetch(
        &mut self,
        cursors: &mut [Cursor],
        max_bytes: i32,
        partition_max_bytes: i32,
    ) -> Result<Fetched> {
        let request = request(cursors, max_bytes, partition_max_bytes);
        self.stream.write_all(&request)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("no answer to a Fetch")?;
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length < 256 << 20, "an answer of {length} bytes");
        self.answer.resize(length, 0);
        self.stream.read_exact(&mut self.answer)?;
        let mut fetched = Fetched { fetches: 1, ..Fetched::default() };
        // Correlation id, throttle time.
        let mut input = Input(self.answer.get(8..).context("a short answer")?);
        for _ in 0..input.i32()? {
            let name_bytes = input.i16()?;
            let topic = std::str::from_utf8(input.take(name_bytes as usize)?)?;
            for _ in 0..input.i32()? {
                let (partition, error) = (input.i32()?, input.i16()?);
                ensure!(error == 0, "{topic}/{partition}: error {error}");
                let end = input.i64()?;
                let _stable_end = input.i64()?;
                for _ in 0..input.i32()?.max(0) {
                    input.take(16)?;
                }
                let record_bytes = input.i32()?.max(0) as usize;
                let records = input.take(record_bytes)?;
                let cursor = cursors
                    .iter_mut()
                    .find(|cursor| cursor.partition == partition && cursor.topic == topic)
                    .context("a partition that was not asked for")?;
                cursor.end = end;
                fetched.wire_bytes += record_bytes as u64;
                fetched.records += walk(records, cursor)?;
            }
        }
        Ok(fetched)
    }
}

/// Walks over batch headers; how many records at and behind the cursor they have.
fn walk(mut batches: &[u8], cursor: &mut Cursor) -> Result<u64> {
    let mut count = 0;
    while batches.len() >= BATCH_HEADER_BYTES {
        let base = i64::from_be_bytes(batches[..8].try_into()?);
        let length = 12 + i32::from_be_bytes(batches[8..12].try_into()?) as usize;
        if length > batches.len() {
            break;
        }
        ensure!(batches[16] == 2, "a batch of magic {}", batches[16]);
        let last_delta = i32::from_be_bytes(batches[23..27].try_into()?);
        let records = i32::from_be_bytes(batches[57..61].try_into()?);
        let next = base + i64::from(last_delta) + 1;
        ensure!(next > cursor.offset, "a batch that ends before the offset asked for");
        // A batch may begin before what was asked for.
        count += (i64::from(records) - (cursor.offset - base).max(0)).max(0) as u64;
        cursor.offset = next;
        batches = &batches[length..];
    }
    Ok(count)
}

fn request(cursors: &[Cursor], max_bytes: i32, partition_max_bytes: i32) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(FETCH.to_be_bytes());
    out.extend(VERSION.to_be_bytes());
    out.extend(7_i32.to_be_bytes());
    out.extend((-1_i16).to_be_bytes());
    // Replica, longest wait, least bytes, most bytes, isolation level.
    for number in [-1, 100, 1, max_bytes] {
        out.extend(i32::to_be_bytes(number));
    }
    out.push(0);
    out.extend((cursors.len() as i32).to_be_bytes());
    for cursor in cursors {
        out.extend((cursor.topic.len() as i16).to_be_bytes());
        out.extend(cursor.topic.as_bytes());
        out.extend(1_i32.to_be_bytes());
        out.extend(cursor.partition.to_be_bytes());
        out.extend(cursor.offset.to_be_bytes());
        out.extend(partition_max_bytes.to_be_bytes());
    }
    let length = out.len() as u32 - 4;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            bail!("an answer that ends inside a value");
        };
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }
}

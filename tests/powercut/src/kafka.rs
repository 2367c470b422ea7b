//! A Kafka client that can do two things: produce with `acks=-1`, and fetch.
//!
//! Produce v3 and Fetch v4: no tags, no sessions. Blocking; every wait has an end.
//!
//! Source: <https://kafka.apache.org/protocol>.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_wire::{Batches, Compression, Offset, RecordBatchBuilder, Records};

const PRODUCE: (i16, i16) = (0, 3);
const FETCH: (i16, i16) = (1, 4);
const FETCH_BYTES_MAX: i32 = 4 << 20;
const ANSWER_BYTES_MAX: usize = 64 << 20;
const UNPACKED_BYTES_MAX: usize = 64 << 20;

/// A connection.
#[derive(Debug)]
pub struct Kafka {
    stream: TcpStream,
    correlation: i32,
}

/// A record as fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its offset.
    pub offset: u64,
    /// Its value.
    pub value: Vec<u8>,
}

/// The answer to one fetch of one partition.
#[derive(Debug, Clone, Default)]
pub struct FetchAnswer {
    /// Kafka's error code; 0 is none.
    pub error: i16,
    /// The end of what can be read.
    pub high_watermark: u64,
    /// What came, from the offset that was asked for.
    pub records: Vec<Fetched>,
}

impl Kafka {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, correlation: 0 })
    }

    /// Produces one batch with `acks=-1` and waits. Kafka's error code and the first offset.
    ///
    /// # Errors
    /// The connection ended.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: u32,
        batch: &[u8],
    ) -> Result<(i16, Option<u64>)> {
        let mut body = Vec::new();
        body.extend((-1_i16).to_be_bytes());
        body.extend((-1_i16).to_be_bytes());
        body.extend(30_000_i32.to_be_bytes());
        put_topic(&mut body, topic, partition);
        put_bytes(&mut body, batch);
        let answer = self.ask(PRODUCE, &body)?;
        let mut answer = Fields(&answer);
        answer.topic_and_partition()?;
        let error = answer.i16()?;
        Ok((error, u64::try_from(answer.i64()?).ok()))
    }

    /// Fetches from one partition; waits at most `wait_ms` for something to be there.
    ///
    /// # Errors
    /// The connection ended, or the answer cannot be read.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: u32,
        from: u64,
        wait_ms: i32,
    ) -> Result<FetchAnswer> {
        let mut body = Vec::new();
        body.extend((-1_i32).to_be_bytes());
        body.extend(wait_ms.to_be_bytes());
        body.extend(1_i32.to_be_bytes());
        body.extend(FETCH_BYTES_MAX.to_be_bytes());
        body.push(0);
        put_topic(&mut body, topic, partition);
        body.extend((from as i64).to_be_bytes());
        body.extend(FETCH_BYTES_MAX.to_be_bytes());
        let answer = self.ask(FETCH, &body)?;
        let mut answer = Fields(&answer);
        answer.i32()?;
        answer.topic_and_partition()?;
        let error = answer.i16()?;
        let high_watermark = u64::try_from(answer.i64()?).unwrap_or(0);
        answer.i64()?;
        let aborted = answer.i32()?;
        answer.take(16 * usize::try_from(aborted).unwrap_or(0))?;
        let length = usize::try_from(answer.i32()?).unwrap_or(0);
        let records = unpack(answer.take(length)?, from)?;
        Ok(FetchAnswer { error, high_watermark, records })
    }

    fn ask(&mut self, (key, version): (i16, i16), body: &[u8]) -> Result<Vec<u8>> {
        self.correlation += 1;
        let mut frame = vec![0; 4];
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(self.correlation.to_be_bytes());
        put_string(&mut frame, "powercut");
        frame.extend(body);
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > ANSWER_BYTES_MAX {
            bail!("an answer of {length} bytes");
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        let mut fields = Fields(&answer);
        let correlation = fields.i32()?;
        if correlation != self.correlation {
            bail!("the answer to {correlation} where that to {} was next", self.correlation);
        }
        Ok(answer.split_off(4))
    }
}

/// One batch of records without keys.
///
/// # Errors
/// The codec refused.
pub fn batch(values: &[Vec<u8>], timestamp_ms: i64, compression: Compression) -> Result<Vec<u8>> {
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), timestamp_ms);
    for value in values {
        builder.push(timestamp_ms, None, Some(value), &[]);
    }
    let mut out = Vec::new();
    builder.finish(None, compression, None, &mut out)?;
    Ok(out)
}

fn unpack(bytes: &[u8], from: u64) -> Result<Vec<Fetched>> {
    let mut records = Vec::new();
    let mut scratch = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch?;
        batch.verify_crc()?;
        let header = *batch.header();
        let section = batch.unpack(UNPACKED_BYTES_MAX, &mut scratch)?;
        for record in Records::new(section, header.record_count) {
            let record = record?;
            let offset = header.base_offset.0 + u64::from(record.offset_delta.unsigned_abs());
            // A batch is answered whole, from before the offset that was asked for.
            if offset >= from {
                let value = record.value.context("a record without a value")?.to_vec();
                records.push(Fetched { offset, value });
            }
        }
    }
    Ok(records)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as i32).to_be_bytes());
    out.extend(bytes);
}

/// A list with one topic, of it a list with one partition.
fn put_topic(out: &mut Vec<u8>, topic: &str, partition: u32) {
    out.extend(1_i32.to_be_bytes());
    put_string(out, topic);
    out.extend(1_i32.to_be_bytes());
    out.extend((partition as i32).to_be_bytes());
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len).context("the answer is too short")?;
        self.0 = rest;
        Ok(field)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>().context("the answer is too short")?;
        self.0 = rest;
        Ok(*field)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.fixed()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    /// One topic and one partition of it, as was asked for.
    fn topic_and_partition(&mut self) -> Result<()> {
        let topics = self.i32()?;
        let name = self.i16()?;
        self.take(usize::try_from(name).unwrap_or(0))?;
        let partitions = self.i32()?;
        self.i32()?;
        if (topics, partitions) != (1, 1) {
            bail!("{topics} topics and {partitions} partitions where 1 and 1 were asked for");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_unpacked_from_the_offset_that_was_asked_for() {
        let values = vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        for compression in [Compression::None, Compression::Zstd] {
            let bytes = batch(&values, 1, compression).unwrap();
            let fetched = unpack(&bytes, 1).unwrap();
            let offsets: Vec<u64> = fetched.iter().map(|record| record.offset).collect();
            assert_eq!(offsets, [1, 2]);
            assert_eq!(fetched[0].value, b"b");
        }
    }
}

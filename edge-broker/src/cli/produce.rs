//! `edge-broker produce`: values or lines to records.
//!
//! Batches carry a producer id and sequences (KIP-98), so a batch that is sent again because its answer got lost is
//! stored once. Lines are read ahead by at most two chunks; what is typed goes out with every line.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use edge_wire::{
    Compression, HeadersBuilder, Offset, PartitionId, ProducerStamp, RecordBatchBuilder,
    partition_for_key,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uplink::client::{Acks, Client, ErrorCode, ProducerIdentity};

use crate::args::{Codec, ProduceArgs};
use crate::cli::Failure;
use crate::cli::broker::{self, PATIENCE, RETRY_PAUSE};
use crate::cli::output::tell;

const CHUNK_BYTES: usize = 256 * 1024;
const CHUNK_LINES: usize = 4_096;
/// Kafka's default limit for a batch, with room for key and headers.
const LINE_BYTES_MAX: usize = 1_000_000;
/// The broker has this batch already (Kafka's protocol guide, error codes).
const DUPLICATE_SEQUENCE_NUMBER: ErrorCode = ErrorCode(46);

type Lines = Vec<Vec<u8>>;

pub(super) async fn run(args: &ProduceArgs) -> Result<(), Failure> {
    let client = broker::connect(&args.broker).await?;
    let partitions = broker::partitions(&client, &args.topic).await?;
    if partitions.is_empty() {
        return Err(Failure::Failed(format!("topic {} has no partitions", args.topic)));
    }
    if let Some(partition) = args.partition.filter(|wanted| !partitions.contains(wanted)) {
        return Err(broker::no_partition(&args.topic, partition, &partitions));
    }
    let mut producer = Producer {
        identity: broker::patiently(async || client.init_producer_id().await).await?,
        client,
        args,
        partitions,
        headers: headers(args),
        sequences: BTreeMap::new(),
        turn: 0,
        acknowledged: 0,
    };
    let result = producer.send_all().await;
    let count = producer.acknowledged;
    match result {
        Ok(()) => {
            tell(&format!("{count} record{} acknowledged", if count == 1 { "" } else { "s" }));
            Ok(())
        }
        Err(Failure::Failed(message)) => {
            Err(Failure::Failed(format!("{message}; {count} records were acknowledged before")))
        }
        Err(other) => Err(other),
    }
}

struct Producer<'a> {
    client: Client,
    args: &'a ProduceArgs,
    partitions: Vec<u32>,
    headers: Vec<u8>,
    identity: ProducerIdentity,
    /// Next sequence number by partition.
    sequences: BTreeMap<u32, i32>,
    /// Whose turn it is to take records without keys.
    turn: usize,
    acknowledged: u64,
}

impl Producer<'_> {
    async fn send_all(&mut self) -> Result<(), Failure> {
        if !self.args.values.is_empty() {
            let values = self.args.values.iter().map(|value| value.clone().into_bytes());
            return self.send(values.collect()).await;
        }
        let (sender, mut chunks) = mpsc::channel(1);
        std::thread::spawn(move || read_lines(io::stdin().lock(), &sender));
        while let Some(chunk) = chunks.recv().await {
            self.send(chunk?).await?;
        }
        Ok(())
    }

    /// Writes the records of one chunk and waits until they are acknowledged.
    async fn send(&mut self, lines: Lines) -> Result<(), Failure> {
        let now_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        self.turn += 1;
        let mut builders: BTreeMap<u32, RecordBatchBuilder> = BTreeMap::new();
        for line in &lines {
            let (key, value) = self.split(line);
            let builder = builders.entry(self.partition_of(key)).or_insert_with(|| {
                let mut builder = RecordBatchBuilder::new();
                builder.start(Offset(0), now_ms);
                builder
            });
            builder.push(now_ms, key, Some(value), &self.headers);
        }
        let mut under_way = JoinSet::new();
        for (partition, builder) in builders {
            let count = builder.count();
            let batch = self.finish(partition, &builder)?;
            let (client, topic) = (self.client.clone(), self.args.topic.clone());
            under_way.spawn(async move {
                deliver(&client, &topic, PartitionId(partition), batch).await.map(|()| count)
            });
        }
        while let Some(delivered) = under_way.join_next().await {
            let delivered = delivered.map_err(|error| Failure::Failed(error.to_string()))?;
            self.acknowledged += u64::from(delivered?);
        }
        Ok(())
    }

    fn split<'l>(&'l self, line: &'l [u8]) -> (Option<&'l [u8]>, &'l [u8]) {
        if let Some(key) = &self.args.key {
            return (Some(key.as_bytes()), line);
        }
        let separator = self.args.key_separator.as_deref().unwrap_or_default().as_bytes();
        split_at(line, separator)
    }

    fn partition_of(&self, key: Option<&[u8]>) -> u32 {
        match (self.args.partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, self.partitions.len() as u32).0,
            (None, None) => self.partitions[self.turn % self.partitions.len()],
        }
    }

    fn finish(&mut self, partition: u32, builder: &RecordBatchBuilder) -> Result<Bytes, Failure> {
        let base_sequence = self.sequences.entry(partition).or_insert(0);
        let stamp = ProducerStamp {
            id: self.identity.producer,
            epoch: self.identity.epoch,
            base_sequence: *base_sequence,
        };
        // After the largest number comes 0.
        *base_sequence = base_sequence.wrapping_add_unsigned(builder.count()) & i32::MAX;
        let mut batch = Vec::new();
        builder
            .finish(Some(stamp), codec(self.args.compression), None, &mut batch)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        Ok(Bytes::from(batch))
    }
}

/// Sends a batch until it is stored; sent twice it is stored once.
async fn deliver(
    client: &Client,
    topic: &str,
    partition: PartitionId,
    batch: Bytes,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.produce(topic, partition, batch.clone(), Acks::All, PATIENCE).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(DUPLICATE_SEQUENCE_NUMBER) => return Ok(()),
            // A broker that restarts is waited for: records are under way.
            Err(error) if error.is_retriable() && Instant::now() < deadline => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads lines until the end, a mistake, or until nobody takes them any more.
fn read_lines(input: impl Read, chunks: &mpsc::Sender<Result<Lines, Failure>>) {
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let mut number = 0_u64;
    loop {
        let mut chunk = Lines::new();
        let mut bytes = 0;
        // Waits for one line, then takes along what has arrived.
        while chunk.is_empty()
            || (bytes < CHUNK_BYTES && chunk.len() < CHUNK_LINES && input.buffer().contains(&b'\n'))
        {
            number += 1;
            let mut line = Vec::new();
            let read = (&mut input).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
            let failure = match read {
                Ok(0) if chunk.is_empty() => return,
                Ok(0) => break,
                Ok(_) if line.len() <= LINE_BYTES_MAX || line.ends_with(b"\n") => None,
                Ok(_) => Some(format!("line {number} has more than {LINE_BYTES_MAX} bytes")),
                Err(error) => Some(format!("cannot read standard input: {error}")),
            };
            if let Some(message) = failure {
                // What came before it still goes out.
                let _ = chunks.blocking_send(Ok(chunk));
                let _ = chunks.blocking_send(Err(Failure::Failed(message)));
                return;
            }
            if line.ends_with(b"\n") {
                line.pop();
            }
            bytes += line.len();
            chunk.push(line);
        }
        if chunks.blocking_send(Ok(chunk)).is_err() {
            return;
        }
    }
}

/// Key and value of a line; no key without a separator in it.
fn split_at<'l>(line: &'l [u8], separator: &[u8]) -> (Option<&'l [u8]>, &'l [u8]) {
    if separator.is_empty() {
        return (None, line);
    }
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
        None => (None, line),
    }
}

fn headers(args: &ProduceArgs) -> Vec<u8> {
    let mut headers = HeadersBuilder::default();
    for (name, value) in &args.headers {
        headers.push(name, Some(value.as_bytes()));
    }
    headers.finish()
}

fn codec(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(input: &[u8]) -> Vec<Result<Lines, Failure>> {
        let (sender, mut chunks) = mpsc::channel(1_000);
        read_lines(input, &sender);
        drop(sender);
        std::iter::from_fn(|| chunks.blocking_recv()).collect()
    }

    fn all(input: &[u8]) -> Lines {
        lines_of(input).into_iter().flat_map(|chunk| chunk.unwrap()).collect()
    }

    #[test]
    fn every_line_is_a_value_whatever_its_bytes() {
        assert_eq!(all(b""), Lines::new());
        assert_eq!(all(b"a\n\nb\r\n\xff"), [&b"a"[..], b"", b"b\r", b"\xff"]);
        let many = b"0123456789\n".repeat(100_000);
        assert_eq!(all(&many).len(), 100_000);
        assert!(lines_of(&many).iter().all(|chunk| chunk.as_ref().unwrap().len() <= CHUNK_LINES));
    }

    #[test]
    fn a_line_too_long_is_named_and_what_came_before_is_kept() {
        let mut input = b"good\n".to_vec();
        input.extend(vec![b'x'; LINE_BYTES_MAX + 1]);
        let chunks = lines_of(&input);
        assert_eq!(chunks[0].as_ref().unwrap(), &[b"good".to_vec()]);
        let last = chunks.last().unwrap();
        assert!(matches!(last, Err(Failure::Failed(message)) if message.starts_with("line 2 ")));
        let mut longest = vec![b'x'; LINE_BYTES_MAX];
        longest.push(b'\n');
        assert_eq!(all(&longest)[0].len(), LINE_BYTES_MAX);
    }

    #[test]
    fn a_line_splits_at_its_first_separator() {
        assert_eq!(split_at(b"k\tv\tw", b"\t"), (Some(&b"k"[..]), &b"v\tw"[..]));
        assert_eq!(split_at(b"k::v", b"::"), (Some(&b"k"[..]), &b"v"[..]));
        assert_eq!(split_at(b"v", b"\t"), (None, &b"v"[..]));
        assert_eq!(split_at(b"", b"\t"), (None, &b""[..]));
        assert_eq!(split_at(b"\tv", b"\t"), (Some(&b""[..]), &b"v"[..]));
    }
}

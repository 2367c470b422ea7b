//! A consumer that reads along during the load: what it has seen may never be taken back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, bail};

use crate::books::{Books, Partition, Read, Told};
use crate::kafka::{Fetched, Kafka};
use crate::variation::TOPICS;

/// How long one fetch waits for a record.
const WAIT_MS: i32 = 5;
/// Kafka's error code.
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// A consumer of all partitions. It ends with the gateway.
#[derive(Debug)]
pub struct Follower {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<Partition, Vec<Fetched>>>,
}

impl Follower {
    /// Reads on from the ends that were told.
    ///
    /// # Errors
    /// The gateway cannot be connected to.
    pub fn start(address: SocketAddr, told: &Told) -> Result<Self> {
        let mut kafka = Kafka::connect(address)?;
        let mut next: BTreeMap<Partition, u64> =
            told.bounds.iter().map(|(partition, bounds)| (*partition, bounds.1)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("follower".to_owned());
        let thread = thread.spawn(move || {
            let mut seen: BTreeMap<Partition, Vec<Fetched>> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for (partition, from) in &mut next {
                    let (topic, number) = (TOPICS[partition.0].0, partition.1);
                    let Ok(answer) = kafka.fetch(topic, number, *from, WAIT_MS) else {
                        return seen;
                    };
                    if let Some(last) = answer.records.last() {
                        *from = last.offset + 1;
                    }
                    seen.entry(*partition).or_default().extend(answer.records);
                }
            }
            seen
        })?;
        Ok(Self { stop, thread })
    }

    /// Enters what it has seen into the books; after the load's own accounts.
    ///
    /// # Errors
    /// It has seen what nobody sent.
    pub fn finish(self, books: &mut Books) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(seen) = self.thread.join() else { bail!("the follower panicked") };
        let seen = recognise(seen, books)?;
        books.add_read(seen);
        Ok(())
    }
}

/// Reads every partition from its start to its end. `None`: a start has moved on meanwhile.
///
/// # Errors
/// Something there was not sent, or the end is not reached.
pub fn read_everything(
    address: SocketAddr,
    told: &Told,
    books: &Books,
) -> Result<Option<BTreeMap<Partition, Vec<Read>>>> {
    let mut kafka = Kafka::connect(address)?;
    let mut found = BTreeMap::new();
    for (partition, (start, end)) in &told.bounds {
        let (topic, number) = (TOPICS[partition.0].0, partition.1);
        let mut records: Vec<Fetched> = Vec::new();
        let mut from = *start;
        // Nothing comes where the rest of the partition is a gap, and no error either.
        while from < *end {
            let answer = kafka.fetch(topic, number, from, 0)?;
            if answer.error == OFFSET_OUT_OF_RANGE {
                return Ok(None);
            }
            if answer.error != 0 {
                bail!("{topic} {number} from {from}: Kafka's error {}", answer.error);
            }
            let Some(last) = answer.records.last() else { break };
            from = last.offset + 1;
            records.extend(answer.records);
        }
        found.insert(*partition, records);
    }
    recognise(found, books).map(Some)
}

fn recognise(
    fetched: BTreeMap<Partition, Vec<Fetched>>,
    books: &Books,
) -> Result<BTreeMap<Partition, Vec<Read>>> {
    let of_partition = |records: Vec<Fetched>| -> Result<Vec<Read>> {
        let read = |record: Fetched| {
            let (source, number) = books.recognise(&record.value)?;
            Ok(Read { offset: record.offset, source, number })
        };
        records.into_iter().map(read).collect()
    };
    fetched
        .into_iter()
        .map(|(partition, records)| Ok((partition, of_partition(records)?)))
        .collect()
}

//! A fake upstream that keeps Kafka's promises about idempotent producers, and nothing more.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "support: a panic is a failed test")]

use std::collections::{BTreeMap, HashMap, VecDeque};

use edge_wire::{RecordBatchView, Records};

/// A record as the tests know it: stream and edge offset.
pub type Seen = (u32, u64);

#[derive(Default)]
pub struct Broker {
    pub topics: BTreeMap<String, Vec<Partition>>,
    /// Topics that answer with this code.
    pub refused: HashMap<String, i16>,
    /// Largest record value that is taken.
    pub value_bytes_max: Option<usize>,
    pub can_create: bool,
    next_producer: u64,
    pub appended_batches: usize,
    pub duplicate_batches: usize,
}

#[derive(Default)]
pub struct Partition {
    pub records: Vec<Seen>,
    producers: HashMap<u64, VecDeque<(i32, i32)>>,
}

impl Broker {
    pub fn new() -> Self {
        Self { can_create: true, ..Self::default() }
    }

    pub fn create(&mut self, topic: &str, partitions: u32) {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        self.topics.insert(topic.to_owned(), partitions);
    }

    pub fn init_producer(&mut self) -> u64 {
        self.next_producer += 1;
        self.next_producer
    }

    /// As after `producer.id.expiration.ms`.
    pub fn forget_producers(&mut self) {
        for partition in self.topics.values_mut().flatten() {
            partition.producers.clear();
        }
    }

    /// Kafka's rules: `UnifiedLog.analyzeAndValidateProducerState`, `ProducerAppendInfo.checkSequence`.
    pub fn produce(&mut self, topic: &str, partition: u32, batch: &[u8]) -> i16 {
        if let Some(code) = self.refused.get(topic) {
            return *code;
        }
        let Some(partition) =
            self.topics.get_mut(topic).and_then(|found| found.get_mut(partition as usize))
        else {
            return 3;
        };
        let view = RecordBatchView::parse(batch).expect("a whole batch");
        view.verify_crc().expect("an intact batch");
        assert_eq!(view.header().base_offset.0, 0, "forwarded batches start at 0");
        assert_eq!(view.header().record_count, view.header().last_offset_delta + 1);
        let mut scratch = Vec::new();
        let section = view.unpack(1 << 24, &mut scratch).expect("unpacks");
        let mut records = Vec::new();
        for record in Records::new(section, view.header().record_count) {
            let value = record.expect("a record").value.expect("a value");
            if self.value_bytes_max.is_some_and(|max| value.len() > max) {
                return 10;
            }
            let stream = u32::from_le_bytes(value[..4].try_into().unwrap());
            records.push((stream, u64::from_le_bytes(value[4..12].try_into().unwrap())));
        }
        let stamp = view.header().producer.expect("an idempotent producer");
        crate::gateway::trace(|| format!("broker {topic} {stamp:?} {records:?}"));
        let first = stamp.base_sequence;
        let last = ((i64::from(first) + records.len() as i64 - 1) & i64::from(i32::MAX)) as i32;
        let known = partition.producers.entry(stamp.id.0).or_default();
        if known.contains(&(first, last)) {
            self.duplicate_batches += 1;
            return 0;
        }
        // A producer that is not known may start anywhere.
        if let Some((_, before)) = known.back() {
            let next = ((i64::from(*before) + 1) & i64::from(i32::MAX)) as i32;
            if first != next {
                return 45;
            }
        }
        known.push_back((first, last));
        if known.len() > 5 {
            known.pop_front();
        }
        partition.records.extend(records);
        self.appended_batches += 1;
        0
    }
}

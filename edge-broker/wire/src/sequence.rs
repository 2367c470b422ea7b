//! Sequence checks for idempotent producers (KIP-98): the state of one stream.
//!
//! Limits: the last five batches of a producer are remembered (a client has at most five in flight), and at
//! most `producers_max` producers; the one idle for longest is forgotten first. A forgotten producer may go on
//! with any sequence, as Kafka allows an unknown one (KIP-360).
//!
//! Nothing here is durable by itself: it is rebuilt from the journal plus a checkpoint ([`ProducerTable::encode`]).
//!
//! Source: `ProducerStateEntry` and `ProducerAppendInfo` of Apache Kafka.

use std::collections::BTreeMap;

use crate::ids::{Offset, ProducerId};
use crate::record_batch::ProducerStamp;
use crate::varint::{
    DecodeError, get_byte, get_unsigned, get_varint, get_varlong, put_unsigned, put_varint,
    put_varlong,
};

/// How many batches of a producer are remembered.
pub const BATCHES_REMEMBERED: usize = 5;

const VERSION: u8 = 1;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Append it, then call [`ProducerTable::record`].
    Accept,
    /// It is in the log already; answer with this offset and timestamp.
    Duplicate {
        /// Where it was appended.
        base_offset: Offset,
        /// Its max timestamp in ms when it was appended.
        timestamp_ms: i64,
    },
    /// A batch is missing before it.
    OutOfOrder {
        /// The sequence that would be right.
        expected: i32,
    },
    /// A newer instance of the producer has been here.
    Fenced {
        /// The epoch that is valid.
        current_epoch: i16,
    },
}

/// One batch as remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: Offset,
    timestamp_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Oldest first, 1 to [`BATCHES_REMEMBERED`].
    batches: Vec<Remembered>,
    /// Larger is later.
    last_used: u64,
}

/// The idempotent producers of one stream.
#[derive(Clone, Debug)]
pub struct ProducerTable {
    producers: BTreeMap<u64, Producer>,
    producers_max: usize,
    clock: u64,
}

impl ProducerTable {
    /// An empty table for at most `producers_max` (at least one) producers.
    #[must_use]
    pub fn new(producers_max: usize) -> Self {
        Self { producers: BTreeMap::new(), producers_max: producers_max.max(1), clock: 0 }
    }

    /// Number of producers remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges a batch of `count` records. Changes nothing.
    #[must_use]
    pub fn check(&self, stamp: ProducerStamp, count: u32) -> SequenceCheck {
        let Some(known) = self.producers.get(&stamp.id.0) else { return SequenceCheck::Accept };
        if stamp.epoch < known.epoch {
            return SequenceCheck::Fenced { current_epoch: known.epoch };
        }
        if stamp.epoch > known.epoch {
            // A new epoch starts its sequences anew.
            return if stamp.base_sequence == 0 {
                SequenceCheck::Accept
            } else {
                SequenceCheck::OutOfOrder { expected: 0 }
            };
        }
        let last_sequence = sequence_plus(stamp.base_sequence, count.saturating_sub(1));
        let duplicate = known.batches.iter().rev().find(|batch| {
            batch.first_sequence == stamp.base_sequence && batch.last_sequence == last_sequence
        });
        if let Some(batch) = duplicate {
            return SequenceCheck::Duplicate {
                base_offset: batch.base_offset,
                timestamp_ms: batch.timestamp_ms,
            };
        }
        let expected =
            known.batches.last().map_or(0, |batch| sequence_plus(batch.last_sequence, 1));
        if stamp.base_sequence == expected {
            SequenceCheck::Accept
        } else {
            SequenceCheck::OutOfOrder { expected }
        }
    }

    /// Remembers a batch that was appended (or found in the journal, in its order).
    pub fn record(
        &mut self,
        stamp: ProducerStamp,
        count: u32,
        base_offset: Offset,
        timestamp_ms: i64,
    ) {
        self.clock += 1;
        let last_used = self.clock;
        let batch = Remembered {
            first_sequence: stamp.base_sequence,
            last_sequence: sequence_plus(stamp.base_sequence, count.saturating_sub(1)),
            base_offset,
            timestamp_ms,
        };
        if let Some(known) = self.producers.get_mut(&stamp.id.0) {
            known.last_used = last_used;
            if known.epoch != stamp.epoch {
                known.epoch = stamp.epoch;
                known.batches.clear();
            }
            if known.batches.len() == BATCHES_REMEMBERED {
                known.batches.remove(0);
            }
            known.batches.push(batch);
            return;
        }
        if self.producers.len() >= self.producers_max {
            self.forget_oldest();
        }
        let producer = Producer { epoch: stamp.epoch, batches: vec![batch], last_used };
        self.producers.insert(stamp.id.0, producer);
    }

    /// Forgets the producers whose last batch is older than `before_ms`.
    pub fn forget_idle(&mut self, before_ms: i64) {
        self.producers.retain(|_, producer| {
            producer.batches.last().is_some_and(|batch| batch.timestamp_ms >= before_ms)
        });
    }

    /// The producers known here.
    pub fn producers(&self) -> impl Iterator<Item = ProducerId> + '_ {
        self.producers.keys().map(|id| ProducerId(*id))
    }

    /// Appends the table: version, number of producers, then each from the longest idle to the latest.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_unsigned(out, self.producers.len() as u64);
        let mut ordered: Vec<_> = self.producers.iter().collect();
        ordered.sort_unstable_by_key(|(_, producer)| producer.last_used);
        for (id, producer) in ordered {
            put_unsigned(out, *id);
            put_varint(out, i32::from(producer.epoch));
            put_unsigned(out, producer.batches.len() as u64);
            for batch in &producer.batches {
                put_varint(out, batch.first_sequence);
                put_varint(out, batch.last_sequence);
                put_unsigned(out, batch.base_offset.0);
                put_varlong(out, batch.timestamp_ms);
            }
        }
    }

    /// Takes a table from the front of `input`; of more than `producers_max` producers the latest are kept.
    ///
    /// # Errors
    /// The bytes are not a table of a version known here.
    pub fn decode(input: &mut &[u8], producers_max: usize) -> Result<Self, DecodeError> {
        let version = get_byte(input)?;
        if version != VERSION {
            return Err(DecodeError::Length { found: i64::from(version) });
        }
        let mut table = Self::new(producers_max);
        for _ in 0..get_unsigned(input)? {
            let id = get_unsigned(input)?;
            let epoch = i16::try_from(get_varint(input)?).map_err(|_| DecodeError::Overflow)?;
            let count = get_unsigned(input)?;
            if count == 0 || count > BATCHES_REMEMBERED as u64 {
                return Err(DecodeError::Length { found: count as i64 });
            }
            let mut batches = Vec::with_capacity(count as usize);
            for _ in 0..count {
                batches.push(Remembered {
                    first_sequence: get_varint(input)?,
                    last_sequence: get_varint(input)?,
                    base_offset: Offset(get_unsigned(input)?),
                    timestamp_ms: get_varlong(input)?,
                });
            }
            if table.producers.len() >= table.producers_max {
                table.forget_oldest();
            }
            table.clock += 1;
            let last_used = table.clock;
            table.producers.insert(id, Producer { epoch, batches, last_used });
        }
        Ok(table)
    }

    fn forget_oldest(&mut self) {
        let oldest =
            self.producers.iter().min_by_key(|(_, producer)| producer.last_used).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.producers.remove(&id);
        }
    }
}

/// The sequence `count` further on; 0 follows `i32::MAX`.
#[must_use]
pub fn sequence_plus(sequence: i32, count: u32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX)) as i32
}

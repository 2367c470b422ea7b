//! One upstream partition: its queue, its sequences, its five batches under way.

use std::collections::VecDeque;

use bytes::BytesMut;
use edge_wire::record_batch::set_producer;
use edge_wire::{ProducerId, ProducerStamp};

use super::TopicIndex;
use super::verdict::Verdict;
use crate::backoff::{Backoff, BackoffPolicy};
use crate::rebatch::ReadyBatch;

/// Batches of one producer and partition that a broker remembers (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`):
/// more may never be in doubt at once.
pub(crate) const WINDOW: usize = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) topic: TopicIndex,
    pub(crate) partition: u32,
    /// In the order they are to stand upstream. Acknowledged ones leave at the front.
    pub(crate) queue: VecDeque<Item>,
    /// Sequence of the first record of the queue's first batch.
    pub(crate) head_sequence: i32,
    pub(crate) in_flight: usize,
    pub(crate) mode: Mode,
    pub(crate) backoff: Backoff,
    /// The broker has acknowledged a batch of this producer since the last failure. Until then one batch goes at a
    /// time: a broker that does not know a producer takes any first sequence, so the second batch could get in
    /// where the first was refused (`ProducerAppendInfo.checkSequence`).
    pub(crate) is_primed: bool,
    /// Refused: give the queue up as soon as nothing is in flight.
    pub(crate) is_to_be_parked: bool,
    /// Its sequences are those of an earlier run, and known.
    pub(crate) is_resumed: bool,
    /// Already in the list of targets to be looked at.
    pub(crate) is_woken: bool,
}

/// How a target sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As fast as the window allows.
    Flow,
    /// Something failed: wait until nothing is in flight and the time has come, then send again from the front.
    Recover {
        /// Earliest time, in microseconds.
        retry_at_us: u64,
    },
}

/// A batch in a queue.
#[derive(Debug)]
pub(crate) struct Item {
    /// Lane it came from.
    pub(crate) lane: usize,
    pub(crate) batch: ReadyBatch,
    /// Valid once planned.
    pub(crate) sequence: i32,
    /// The plan that holds it; it may leave when that plan is durable.
    pub(crate) plan: Option<u64>,
    pub(crate) state: ItemState,
    /// What has to be done to it before it is sent again.
    pub(crate) verdict: Option<Verdict>,
    /// It may be in the upstream's log although nobody said so.
    pub(crate) may_be_appended: bool,
    /// It comes from the plan of an earlier run.
    pub(crate) is_resumed: bool,
    /// Its timestamps have been corrected once.
    pub(crate) is_clamped: bool,
    /// Producer id, epoch and sequence that its bytes carry.
    stamp: Option<(u64, i16, i32)>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemState {
    Idle,
    InFlight(u64),
    Acknowledged,
}

impl Item {
    pub(crate) fn new(lane: usize, batch: ReadyBatch) -> Self {
        Self {
            lane,
            batch,
            sequence: 0,
            plan: None,
            state: ItemState::Idle,
            verdict: None,
            may_be_appended: false,
            is_resumed: false,
            is_clamped: false,
            stamp: None,
        }
    }

    /// From the plan of an earlier run: it may have been sent.
    pub(crate) fn resumed(lane: usize, batch: ReadyBatch, sequence: i32, plan: u64) -> Self {
        Self {
            sequence,
            plan: Some(plan),
            may_be_appended: true,
            is_resumed: true,
            ..Self::new(lane, batch)
        }
    }

    /// The same place in the queue with other bytes.
    pub(crate) fn changed(item: Self) -> Self {
        Self { stamp: None, plan: None, verdict: None, state: ItemState::Idle, ..item }
    }

    /// The bytes to send.
    pub(crate) fn stamped(&mut self, producer: (u64, i16)) -> bytes::Bytes {
        let stamp = (producer.0, producer.1, self.sequence);
        if self.stamp != Some(stamp) {
            let bytes = std::mem::take(&mut self.batch.bytes);
            let mut bytes =
                bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            set_producer(
                &mut bytes,
                Some(ProducerStamp {
                    id: ProducerId(stamp.0),
                    epoch: stamp.1,
                    base_sequence: stamp.2,
                }),
            );
            self.batch.bytes = bytes.freeze();
            self.stamp = Some(stamp);
        }
        self.batch.bytes.clone()
    }

    /// The sequence behind its last record.
    pub(crate) fn next_sequence(&self) -> i32 {
        advance(self.sequence, self.batch.count)
    }
}

/// Kafka's sequences count records and wrap from 2^31 - 1 to 0.
pub(crate) fn advance(sequence: i32, records: u32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX)) as i32
}

impl Target {
    pub(crate) fn new(topic: TopicIndex, partition: u32) -> Self {
        Self {
            topic,
            partition,
            queue: VecDeque::new(),
            head_sequence: 0,
            in_flight: 0,
            mode: Mode::Flow,
            backoff: Backoff::new(BackoffPolicy::PARTITION),
            is_primed: false,
            is_to_be_parked: false,
            is_resumed: false,
            is_woken: false,
        }
    }

    /// Whether a batch inside the window has no plan yet.
    pub(crate) fn wants_plan(&self) -> bool {
        self.queue.iter().take(WINDOW).any(|item| item.plan.is_none())
    }

    /// The item that was sent under this number.
    pub(crate) fn item_in_flight(&mut self, send: u64) -> Option<usize> {
        self.queue.iter().position(|item| item.state == ItemState::InFlight(send))
    }

    /// Whether everything before this item is acknowledged.
    pub(crate) fn is_head(&self, index: usize) -> bool {
        self.queue.iter().take(index).all(|item| item.state == ItemState::Acknowledged)
    }

    /// Gives sequences to the window, from the front, and returns whether something new was planned. `room` is how
    /// many batches may still enter the plan.
    pub(crate) fn plan(&mut self, plan: u64, room: usize) -> usize {
        let mut sequence = self.head_sequence;
        let mut planned = 0;
        for item in self.queue.iter_mut().take(WINDOW) {
            if item.plan.is_none() {
                if planned >= room {
                    break;
                }
                item.sequence = sequence;
                item.plan = Some(plan);
                planned += 1;
            }
            debug_assert!(
                item.is_resumed || item.sequence == sequence,
                "sequences follow the queue"
            );
            sequence = item.next_sequence();
        }
        planned
    }

    /// The next batch to send, if one may leave now.
    pub(crate) fn next_to_send(&self, durable_plan: u64, in_flight_max: usize) -> Option<usize> {
        let in_flight_max = if self.is_primed { in_flight_max } else { 1 };
        if self.mode != Mode::Flow || self.is_to_be_parked || self.in_flight >= in_flight_max {
            return None;
        }
        let index = self.queue.iter().position(|item| item.state == ItemState::Idle)?;
        (index < WINDOW && self.queue[index].plan.is_some_and(|plan| plan <= durable_plan))
            .then_some(index)
    }

    /// Something failed: back off once, not for every batch of the window.
    pub(crate) fn recover(&mut self, now_us: u64, random: u64) {
        self.is_primed = false;
        if self.mode == Mode::Flow {
            self.mode = Mode::Recover { retry_at_us: self.backoff.handle_failure(now_us, random) };
        }
    }

    /// As [`recover`](Self::recover), without a wait.
    pub(crate) fn recover_at_once(&mut self, now_us: u64) {
        self.is_primed = false;
        if self.mode == Mode::Flow {
            self.mode = Mode::Recover { retry_at_us: now_us };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::advance;

    #[test]
    fn sequences_wrap_to_zero_behind_the_last() {
        assert_eq!(advance(0, 5), 5);
        assert_eq!(advance(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 2, 10), 7);
    }
}

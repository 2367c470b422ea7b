//! One seed: a load, several cuts, and what must be true in the end.

use std::collections::{BTreeMap, VecDeque};

use edge_log::storage::{CrashPolicy, SimStorage};
use log_proofs::random::Random;

use crate::clients::{Answer, Message, Publisher, Subscriber, ToGateway};
use crate::front::{Front, Leaves};

/// Publishes under way at a time.
const WINDOW: usize = 12;
const TOPICS: u64 = 4;

/// What a seed met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Power cuts.
    pub cuts: u64,
    /// Messages published.
    pub messages: u64,
    /// Of QoS 1, those that were delivered more than once.
    pub repeated: u64,
}

struct World {
    random: Random,
    publisher: Publisher,
    subscriber: Subscriber,
    /// SUBACK has left.
    is_subscribed: bool,
    /// The number of messages that had been published when it left: from there on all must come.
    subscribed_at: usize,
}

/// Plays a seed.
///
/// # Errors
/// What is not true.
pub fn run(seed: u64) -> Result<Met, String> {
    let mut world = World {
        random: Random(seed),
        publisher: Publisher::default(),
        subscriber: Subscriber::default(),
        is_subscribed: false,
        subscribed_at: 0,
    };
    let mut met = Met::default();
    let mut disk = SimStorage::new(seed);
    let cuts = 2 + world.random.below(4);
    for cut in 0..=cuts {
        let mut front = Front::open(disk).map_err(|error| format!("start {cut}: {error}"))?;
        if world.is_subscribed && !front.has_subscription() {
            return Err(format!("start {cut}: the subscription is gone"));
        }
        if cut < cuts {
            let policy =
                CrashPolicy::ALL[world.random.below(CrashPolicy::ALL.len() as u64) as usize];
            let operations = 1 + world.random.below(60);
            front.cut_after(operations, policy, world.random.next());
            world.play(&mut front, 400).map_err(|error| format!("life {cut}: {error}"))?;
            met.cuts += u64::from(front.is_cut());
        } else {
            world.play(&mut front, 30).map_err(|error| format!("last life: {error}"))?;
            world.finish(&mut front).map_err(|error| format!("the end: {error}"))?;
            let log = front.log()?;
            met.messages = world.publisher.published.len() as u64;
            met.repeated = world.check(&log)?;
        }
        disk = front.close();
    }
    Ok(met)
}

impl World {
    /// Plays until the power goes or `steps` are over.
    fn play(&mut self, front: &mut Front, steps: u64) -> Result<(), String> {
        self.connect(front)?;
        for _ in 0..steps {
            if front.is_cut() {
                return Ok(());
            }
            match self.random.below(10) {
                0..4 => {
                    let (topic, qos) =
                        (self.random.below(TOPICS) as u8, 1 + self.random.below(2) as u8);
                    if let Some(packet) = self.publisher.publish(topic, qos, WINDOW) {
                        self.send(front, [packet])?;
                    }
                }
                4 if self.random.one_in(8) => {
                    // The connection goes, the gateway stays.
                    let again = self.publisher.again();
                    self.send(front, again)?;
                }
                5 if !self.is_subscribed => front.subscribe()?,
                6 => front.flush()?,
                7 => self.deliver(front)?,
                wait => {
                    let leaves = front.hear(wait > 7)?;
                    self.take(front, leaves)?;
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, front: &mut Front) -> Result<(), String> {
        // A client that is told that its session is gone sends nothing of it again: it waits for CONNACK.
        while !front.is_connected() {
            if front.is_cut() {
                return Ok(());
            }
            front.hear(true)?;
        }
        if !self.is_subscribed {
            front.subscribe()?;
        }
        let again = self.publisher.again();
        self.send(front, again)?;
        let resumed = front.resume();
        self.take(front, resumed.into_iter().map(Leaves::ToSubscriber).collect())
    }

    fn send(
        &mut self,
        front: &mut Front,
        packets: impl IntoIterator<Item = ToGateway>,
    ) -> Result<(), String> {
        let mut packets: VecDeque<ToGateway> = packets.into_iter().collect();
        while let Some(packet) = packets.pop_front() {
            let leaves = front.handle(packet)?;
            // What leaves at once has to be durable: with the power it would not leave.
            if !front.is_cut() {
                self.take(front, leaves.into_iter().collect())?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, front: &mut Front) -> Result<(), String> {
        let packets = front.deliver()?;
        self.take(front, packets.into_iter().map(Leaves::ToSubscriber).collect())
    }

    fn take(&mut self, front: &mut Front, leaves: Vec<Leaves>) -> Result<(), String> {
        let mut leaves = VecDeque::from(leaves);
        while let Some(packet) = leaves.pop_front() {
            if front.is_cut() {
                return Ok(());
            }
            match packet {
                Leaves::Puback(id) | Leaves::Pubcomp(id) => self.publisher.completed(id),
                Leaves::Pubrec(id) => {
                    let release = self.publisher.received(id);
                    leaves.extend(front.handle(release)?);
                }
                Leaves::Suback if !self.is_subscribed => {
                    self.is_subscribed = true;
                    self.subscribed_at = self.publisher.published.len();
                }
                Leaves::Suback => {}
                Leaves::ToSubscriber(packet) => {
                    let answer = self.subscriber.take(packet);
                    // An answer may be on the way when the power goes.
                    let is_lost = self.random.one_in(16) && matches!(answer, Answer::Completed(_));
                    if !is_lost || !front.is_cut() {
                        front.answer(answer)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Until everything is over.
    fn finish(&mut self, front: &mut Front) -> Result<(), String> {
        for _ in 0..100_000 {
            self.deliver(front)?;
            front.flush()?;
            let leaves = front.hear(true)?;
            self.take(front, leaves)?;
            if !self.publisher.waits() && !front.is_busy() {
                self.deliver(front)?;
                if !front.is_busy() {
                    return Ok(());
                }
            }
        }
        Err("it does not come to an end".to_owned())
    }

    /// Returns how many QoS 1 messages were delivered more than once.
    fn check(&self, log: &[Message]) -> Result<u64, String> {
        let count = |all: &[Message]| {
            let mut counts: BTreeMap<Message, u64> = BTreeMap::new();
            all.iter().for_each(|message| *counts.entry(*message).or_default() += 1);
            counts
        };
        let (stored, got) = (count(log), count(&self.subscriber.got));
        for (index, message) in self.publisher.published.iter().enumerate() {
            let times = stored.get(message).copied().unwrap_or(0);
            if times == 0 || message.qos == 2 && times != 1 {
                return Err(format!("{message:?} is {times} times in the log"));
            }
            let times = got.get(message).copied().unwrap_or(0);
            let is_due = index >= self.subscribed_at;
            if is_due && times == 0 || message.qos == 2 && times > 1 {
                return Err(format!("{message:?} came {times} times"));
            }
        }
        in_order(log).map_err(|error| format!("log: {error}"))?;
        in_order(&self.subscriber.got).map_err(|error| format!("subscriber: {error}"))?;
        Ok(got.iter().filter(|(message, times)| message.qos == 1 && **times > 1).count() as u64)
    }
}

/// Of a topic and a QoS, what comes for the first time comes in its order.
fn in_order(all: &[Message]) -> Result<(), String> {
    let mut last: BTreeMap<(u8, u8), u32> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for message in all {
        if !seen.insert(*message) {
            continue;
        }
        let last = last.entry((message.topic, message.qos)).or_default();
        if message.number < *last {
            return Err(format!("{message:?} comes after number {last}"));
        }
        *last = message.number;
    }
    Ok(())
}

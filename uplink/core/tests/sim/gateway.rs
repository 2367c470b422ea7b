//! A gateway around the replicator: a log in memory, a store, a connection. What survives a crash is `Disk`.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "support: a panic is a failed test")]

use std::collections::VecDeque;

use edge_log::{JournalPosition, RecordRef};
use edge_wire::{Offset, PartitionId, StreamId};
use uplink_core::rebatch::{RebatchLimits, Rebatcher};
use uplink_core::replicator::{
    Action, Answer, Failure, Now, Replicator, ReplicatorConfig, StreamInfo,
};
use uplink_core::resume::ResumeState;

use crate::broker::Broker;

pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What survives a crash.
pub struct Disk {
    /// Groups of records.
    pub journal: Vec<Vec<(StreamId, u64)>>,
    /// Groups before this one are recycled.
    pub journal_start: usize,
    pub stored: Option<Vec<u8>>,
    pub streams: Vec<StreamInfo>,
    /// Extra bytes in the value of these records.
    pub large: Vec<(StreamId, u64)>,
    pub acked_through: JournalPosition,
    /// By stream: the offsets that stand in copies only, and the home below which they do.
    pub copies: Vec<(Vec<u64>, u64)>,
}

impl Disk {
    pub fn new(topics: &[(&str, u32)]) -> Self {
        let mut streams = Vec::new();
        for (topic, count) in topics {
            for partition in 0..*count {
                streams.push(StreamInfo {
                    topic: (*topic).to_owned(),
                    partition: PartitionId(partition),
                    partition_count: *count,
                });
            }
        }
        let copies = vec![(Vec::new(), 0); streams.len()];
        Self {
            copies,
            journal: Vec::new(),
            journal_start: 0,
            stored: None,
            streams,
            large: Vec::new(),
            acked_through: JournalPosition::START,
        }
    }

    /// Appends groups of a few records of random streams.
    pub fn fill(&mut self, groups: usize, rng: &mut Rng) {
        let mut next: Vec<u64> = self.copies.iter().map(|(_, home)| *home).collect();
        for (stream, offset) in self.journal.iter().flatten() {
            next[stream.0 as usize] = offset + 1;
        }
        for _ in 0..groups {
            let mut group = Vec::new();
            for _ in 0..=rng.below(6) {
                let stream = rng.below(self.streams.len() as u64) as usize;
                for _ in 0..=rng.below(3) {
                    group.push((StreamId(stream as u32), next[stream]));
                    next[stream] += 1;
                }
            }
            group.sort();
            self.journal.push(group);
        }
    }

    /// Moves the beginnings of most streams into copies, with holes; what was cleaned may still be in the journal.
    pub fn copy_beginnings(&mut self, rng: &mut Rng) {
        assert!(self.journal.is_empty(), "before anything else");
        let mut dead = Vec::new();
        for (stream, (copies, home)) in self.copies.iter_mut().enumerate() {
            *home = rng.below(90);
            copies.extend((0..*home).filter(|_| rng.chance(40)));
            if copies.is_empty() || rng.chance(10) {
                copies.clear();
                *home = 0;
                continue;
            }
            let from = *home - rng.below(*home + 1);
            dead.extend((from..*home).map(|offset| (StreamId(stream as u32), offset)));
        }
        self.journal.push(dead);
    }

    pub fn expected(&self, stream: usize) -> Vec<(u32, u64)> {
        let (copies, home) = &self.copies[stream];
        let all = self.journal.iter().flatten();
        let written = all.filter(|(id, offset)| id.0 as usize == stream && offset >= home);
        let written = written.map(|(_, offset)| offset);
        copies.iter().chain(written).map(|offset| (stream as u32, *offset)).collect()
    }

    fn end(&self) -> JournalPosition {
        at(self.journal.len())
    }
}

/// Groups in one segment.
pub const SEGMENT_GROUPS: usize = 32;

fn at(group: usize) -> JournalPosition {
    let segment = 1 + (group / SEGMENT_GROUPS) as u64;
    JournalPosition { segment, byte: (group % SEGMENT_GROUPS) as u32 }
}

fn group_at(position: JournalPosition) -> usize {
    // Before the journal there are the copies.
    if position.segment == 0 {
        return 0;
    }
    position.segment.saturating_sub(1) as usize * SEGMENT_GROUPS + position.byte as usize
}

fn value_of(disk: &Disk, stream: StreamId, offset: u64) -> Vec<u8> {
    let mut value = stream.0.to_le_bytes().to_vec();
    value.extend_from_slice(&offset.to_le_bytes());
    if disk.large.contains(&(stream, offset)) {
        value.resize(2000, 0);
    }
    value
}

fn record(offset: u64, value: &[u8]) -> RecordRef<'_> {
    RecordRef {
        offset: Offset(offset),
        timestamp_ms: 1_700_000_000_000,
        key: Some(b"k"),
        headers_section: &[0],
        value: Some(value),
    }
}

/// A request on its way, or its answer.
struct Packet {
    send: u64,
    topic: String,
    partition: u32,
    batch: bytes::Bytes,
}

pub struct Gateway {
    pub replicator: Replicator,
    rebatcher: Rebatcher,
    cursor: usize,
    /// The copies of the streams from this one on are read, before the journal.
    copying: Option<u32>,
    to_broker: VecDeque<Packet>,
    to_gateway: VecDeque<(u64, i16)>,
    persisting: Option<(u64, Vec<u8>)>,
    asked: VecDeque<Action>,
    pub now_us: u64,
}

/// What may go wrong, in percent of the steps.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub cut: u64,
    pub crash: u64,
    pub leader_moves: u64,
    pub late_timeout: u64,
    pub persist_fails: u64,
    pub forget_producers: u64,
}

impl Gateway {
    pub fn start(disk: &Disk, config: &ReplicatorConfig, now_us: u64, seed: u64) -> Self {
        let resume =
            disk.stored.as_ref().map(|bytes| ResumeState::decode(bytes).expect("readable"));
        let mut rng = Rng(seed | 1);
        let replicator = Replicator::new(
            config.clone(),
            &[("normal".to_owned(), disk.end())],
            resume,
            Box::new(move || rng.next()),
        );
        Self {
            replicator,
            rebatcher: Rebatcher::new(config.limits),
            cursor: 0,
            copying: Some(0),
            to_broker: VecDeque::new(),
            to_gateway: VecDeque::new(),
            persisting: None,
            asked: VecDeque::new(),
            now_us,
        }
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, wall_ms: 1_700_000_000_000 }
    }

    /// One thing happens. Returns false when the gateway crashed.
    pub fn step(
        &mut self,
        disk: &mut Disk,
        broker: &mut Broker,
        rng: &mut Rng,
        faults: Faults,
    ) -> bool {
        if rng.chance(faults.crash) {
            // Requests that left before the crash may still arrive; the plan under way may have reached the disk.
            for _ in 0..rng.below(self.to_broker.len() as u64 + 1) {
                let packet = self.to_broker.pop_front().expect("counted");
                broker.produce(&packet.topic, packet.partition, &packet.batch);
            }
            if let Some((_, bytes)) = self.persisting.take()
                && rng.chance(50)
            {
                disk.stored = Some(bytes);
            }
            trace(|| "crash".to_owned());
            return false;
        }
        if rng.chance(faults.forget_producers) {
            broker.forget_producers();
        }
        if rng.chance(faults.cut) {
            self.cut_connection(broker, rng);
        }
        match rng.below(6) {
            0 => self.read(disk, rng),
            1 => self.persist(disk, rng, faults),
            2 => self.deliver(broker, rng, faults),
            3 => self.answer(),
            4 => self.ask(broker, rng),
            _ => self.now_us += rng.below(400_000),
        }
        self.drain(disk);
        true
    }

    fn drain(&mut self, disk: &mut Disk) {
        while let Some(action) = self.replicator.poll_action(self.now()) {
            trace(|| format!("{action:?}"));
            match action {
                Action::Connect | Action::InitProducer | Action::EnsureTopic { .. } => {
                    self.asked.push_back(action)
                }
                Action::Disconnect => self.fail_all(),
                Action::Persist { plan, bytes } => {
                    assert!(self.persisting.is_none(), "one plan at a time");
                    self.persisting = Some((plan, bytes));
                }
                Action::Send { send, topic, partition, batch } => {
                    self.to_broker.push_back(Packet {
                        send,
                        topic: topic.to_string(),
                        partition: partition.0,
                        batch,
                    });
                }
                Action::Released { through, .. } => {
                    assert!(through >= disk.acked_through, "released twice");
                    disk.acked_through = through;
                    // Retention takes it at once.
                    disk.journal_start = disk.journal_start.max(group_at(through));
                }
            }
        }
    }

    fn read(&mut self, disk: &Disk, rng: &mut Rng) {
        if !self.replicator.can_read(0) {
            return;
        }
        let commands = self.replicator.take_commands(0);
        if let Some(seek) = commands.seek {
            self.cursor = group_at(seek).max(disk.journal_start);
            self.copying = (seek.segment == 0).then_some(seek.byte);
        }
        trace(|| {
            format!(
                "seek {:?} commands {:?} cursor {}",
                commands.seek, commands.commands, self.cursor
            )
        });
        for command in commands.commands {
            command.apply(&mut self.rebatcher);
        }
        for _ in 0..=rng.below(12) {
            if let Some(stream) = self.copying {
                self.read_copies(disk, stream, rng);
                continue;
            }
            let Some(group) = disk.journal.get(self.cursor) else { break };
            for (stream, offset) in group {
                let value = value_of(disk, *stream, *offset);
                self.rebatcher.push_record(*stream, &record(*offset, &value), at(self.cursor));
            }
            self.cursor += 1;
        }
        let through = match self.copying {
            Some(byte) => JournalPosition { segment: 0, byte },
            None => at(self.cursor),
        };
        let round = self.rebatcher.cut(through);
        trace(|| {
            format!(
                "round {:?} gaps {:?} {:?}",
                round.through,
                round.gaps,
                round.batches.iter().map(|b| (b.stream.0, b.first.0, b.count)).collect::<Vec<_>>()
            )
        });
        let now = self.now();
        let info = |stream: StreamId| disk.streams.get(stream.0 as usize).cloned();
        self.replicator.handle_round(0, commands.generation, round, &info, now);
    }

    fn read_copies(&mut self, disk: &Disk, stream: u32, rng: &mut Rng) {
        let Some((copies, home)) = disk.copies.get(stream as usize) else {
            self.copying = None;
            return;
        };
        let (id, home) = (StreamId(stream), Offset(*home));
        let place = (JournalPosition { segment: 0, byte: stream }, disk.end());
        // Streams without copies begin where their journal does.
        let from = match copies.is_empty() {
            true => None,
            false => self.rebatcher.begin_copies(id, (Offset(0), home), place, &|_| true),
        };
        let Some(from) = from else {
            self.copying = Some(stream + 1);
            return;
        };
        let mut left = copies.iter().filter(|offset| **offset >= from.0).peekable();
        let mut next = from;
        for _ in 0..=rng.below(20) {
            let Some(offset) = left.next() else { break };
            let value = value_of(disk, id, *offset);
            self.rebatcher.push_copy(id, &record(*offset, &value));
            next = Offset(offset + 1);
        }
        if left.peek().is_none() {
            next = home;
            self.copying = Some(stream + 1);
        }
        self.rebatcher.end_copies(id, next, home);
    }

    fn persist(&mut self, disk: &mut Disk, rng: &mut Rng, faults: Faults) {
        let Some((plan, bytes)) = self.persisting.take() else { return };
        let result = if rng.chance(faults.persist_fails) {
            Err("disk".to_owned())
        } else {
            disk.stored = Some(bytes);
            Ok(())
        };
        trace(|| format!("persisted {plan} {result:?}"));
        self.replicator.handle_persisted(plan, result, self.now());
    }

    fn deliver(&mut self, broker: &mut Broker, rng: &mut Rng, faults: Faults) {
        let Some(packet) = self.to_broker.pop_front() else { return };
        let code = if rng.chance(faults.leader_moves) {
            6
        } else {
            let code = broker.produce(&packet.topic, packet.partition, &packet.batch);
            if code == 0 && rng.chance(faults.late_timeout) { 7 } else { code }
        };
        self.to_gateway.push_back((packet.send, code));
    }

    fn answer(&mut self) {
        let Some((send, code)) = self.to_gateway.pop_front() else { return };
        let answer = match code {
            0 => Answer::Acknowledged,
            code => Answer::Refused { code, reason: format!("code {code}") },
        };
        trace(|| format!("answer {send} {answer:?}"));
        self.replicator.handle_answer(send, answer, self.now());
    }

    fn ask(&mut self, broker: &mut Broker, rng: &mut Rng) {
        let Some(action) = self.asked.pop_front() else { return };
        let now = self.now();
        match action {
            Action::Connect if rng.chance(5) => {
                self.replicator.handle_connect_failed("refused".to_owned(), now)
            }
            Action::Connect => self.replicator.handle_connected(now),
            Action::InitProducer => {
                self.replicator.handle_producer(Ok((broker.init_producer(), 0)), now)
            }
            Action::EnsureTopic { topic, partitions, create } => {
                let result = match broker.topics.get(&topic) {
                    Some(found) => Ok(found.len() as u32),
                    None if create && broker.can_create => {
                        broker.create(&topic, partitions);
                        Ok(partitions)
                    }
                    None => {
                        Err(Failure { code: Some(3), reason: format!("{topic} does not exist") })
                    }
                };
                self.replicator.handle_topic(&topic, result, now);
            }
            _ => unreachable!("only questions are asked"),
        }
    }

    /// The connection ends: some of what was under way still arrives, no answer does.
    fn cut_connection(&mut self, broker: &mut Broker, rng: &mut Rng) {
        for _ in 0..rng.below(self.to_broker.len() as u64 + 1) {
            let packet = self.to_broker.pop_front().expect("counted");
            broker.produce(&packet.topic, packet.partition, &packet.batch);
            self.to_gateway.push_back((packet.send, 0));
        }
        self.fail_all();
    }

    fn fail_all(&mut self) {
        let now = self.now();
        let lost: Vec<u64> = self
            .to_gateway
            .drain(..)
            .map(|(send, _)| send)
            .chain(self.to_broker.drain(..).map(|packet| packet.send))
            .collect();
        for send in lost {
            self.replicator.handle_answer(send, Answer::Unknown { reason: "cut".to_owned() }, now);
        }
    }

    /// Everything read, everything acknowledged, everything durable.
    pub fn is_done(&self, disk: &Disk) -> bool {
        self.cursor == disk.journal.len()
            && self.copying.is_none()
            && self.replicator.is_settled(0)
            && disk.acked_through == disk.end()
    }
}

pub fn config(batch_bytes: usize) -> ReplicatorConfig {
    ReplicatorConfig {
        limits: RebatchLimits { batch_bytes, ..RebatchLimits::default() },
        unacked_bytes_max: 4096,
        ..ReplicatorConfig::default()
    }
}

/// Runs until done. Crashes start a new gateway on the same disk.
pub fn run(
    disk: &mut Disk,
    broker: &mut Broker,
    config: &ReplicatorConfig,
    rng: &mut Rng,
    faults: Faults,
    faulty_steps: usize,
) -> Gateway {
    let mut gateway = Gateway::start(disk, config, 0, rng.next());
    for step in 0..200_000 {
        let faults = if step < faulty_steps { faults } else { Faults::default() };
        if !gateway.step(disk, broker, rng, faults) {
            let now_us = gateway.now_us;
            gateway = Gateway::start(disk, config, now_us, rng.next());
        }
        if step >= faulty_steps && gateway.is_done(disk) {
            return gateway;
        }
    }
    panic!("not done: {gateway:?} {:?}", gateway.replicator.status(), gateway = gateway.replicator);
}

/// With SIM_TRACE set, what happens is printed.
pub fn trace(line: impl Fn() -> String) {
    if std::env::var_os("SIM_TRACE").is_some() {
        eprintln!("{}", line());
    }
}

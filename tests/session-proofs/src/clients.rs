//! Clients with a store of their own that no power cut of the gateway touches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A message: topic, number inside the topic, QoS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// Topic.
    pub topic: u8,
    /// Ascends inside the topic.
    pub number: u32,
    /// 1 or 2.
    pub qos: u8,
}

impl Message {
    /// As the value of a record.
    #[must_use]
    pub fn to_value(self) -> Vec<u8> {
        format!("{} {} {}", self.topic, self.number, self.qos).into_bytes()
    }

    /// From the value of a record.
    #[must_use]
    pub fn from_value(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut fields = text.split(' ').map(str::parse);
        let mut next = || fields.next()?.ok();
        let (topic, number, qos): (u32, u32, u32) = (next()?, next()?, next()?);
        Some(Self { topic: topic.try_into().ok()?, number, qos: qos.try_into().ok()? })
    }
}

/// A packet of a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToGateway {
    /// PUBLISH.
    Publish(u16, Message),
    /// PUBREL.
    Release(u16),
}

/// Publishes, keeps what is not acknowledged, and sends it again after a connection.
#[derive(Debug, Default)]
pub struct Publisher {
    /// In the order of sending: the packet id, the message, and whether PUBREC has come.
    outbox: VecDeque<(u16, Message, bool)>,
    numbers: BTreeMap<u8, u32>,
    last_id: u16,
    /// Everything that was ever published.
    pub published: Vec<Message>,
}

impl Publisher {
    /// Not everything is acknowledged.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Makes a message and sends it, if fewer than `window` are under way.
    pub fn publish(&mut self, topic: u8, qos: u8, window: usize) -> Option<ToGateway> {
        if self.outbox.len() >= window {
            return None;
        }
        let number = self.numbers.entry(topic).or_default();
        *number += 1;
        let message = Message { topic, number: *number, qos };
        // A small space, so that packet ids are used again soon.
        let id = (1..=64).map(|step| (self.last_id + step - 1) % 64 + 1);
        let id = id.into_iter().find(|id| self.outbox.iter().all(|(used, ..)| used != id))?;
        self.last_id = id;
        self.published.push(message);
        self.outbox.push_back((id, message, false));
        Some(ToGateway::Publish(id, message))
    }

    /// PUBACK or PUBCOMP.
    pub fn completed(&mut self, id: u16) {
        self.outbox.retain(|(used, ..)| *used != id);
    }

    /// PUBREC; the answer.
    pub fn received(&mut self, id: u16) -> ToGateway {
        if let Some(entry) = self.outbox.iter_mut().find(|(used, ..)| *used == id) {
            entry.2 = true;
        }
        ToGateway::Release(id)
    }

    /// What is sent after a connection.
    #[must_use]
    pub fn again(&self) -> Vec<ToGateway> {
        let again = self.outbox.iter().map(|(id, message, received)| match received {
            true => ToGateway::Release(*id),
            false => ToGateway::Publish(*id, *message),
        });
        again.collect()
    }
}

/// A packet to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToSubscriber {
    /// PUBLISH.
    Publish(u16, Message),
    /// PUBREL.
    Release(u16),
}

/// What a subscriber answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// PUBACK.
    Acknowledged(u16),
    /// PUBREC.
    Received(u16),
    /// PUBCOMP.
    Completed(u16),
}

/// Takes messages and remembers QoS 2 packet ids.
#[derive(Debug, Default)]
pub struct Subscriber {
    ids: BTreeSet<u16>,
    /// Everything that was handed to the application.
    pub got: Vec<Message>,
}

impl Subscriber {
    /// Takes a packet.
    pub fn take(&mut self, packet: ToSubscriber) -> Answer {
        match packet {
            ToSubscriber::Publish(id, message) if message.qos == 2 => {
                if self.ids.insert(id) {
                    self.got.push(message);
                }
                Answer::Received(id)
            }
            ToSubscriber::Publish(id, message) => {
                self.got.push(message);
                Answer::Acknowledged(id)
            }
            ToSubscriber::Release(id) => {
                self.ids.remove(&id);
                Answer::Completed(id)
            }
        }
    }
}

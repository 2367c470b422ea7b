//! A message on its way to subscribers: shared bytes, encoded for each of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::Version;
use crate::property::{self, MESSAGE_EXPIRY_INTERVAL, SUBSCRIPTION_IDENTIFIER};
use crate::publish::{Publish, Qos};

/// One published message, shared by all its subscribers without copies.
#[derive(Clone, Debug)]
pub struct Message {
    /// Topic, properties and payload, one after the other.
    bytes: Bytes,
    topic_bytes: usize,
    properties_bytes: usize,
    /// QoS it was published with.
    pub qos: Qos,
    /// Retain flag it was published with.
    pub retain: bool,
    /// Message expiry interval in seconds, and since when it counts.
    expiry_s: Option<u32>,
    received: Instant,
}

impl Message {
    /// Copies a publish into `arena`, from which many messages share one allocation.
    pub fn copy(publish: &Publish<'_>, received: Instant, arena: &mut BytesMut) -> Self {
        arena.reserve(publish.topic.len() + publish.properties_raw.len() + publish.payload.len());
        arena.put_slice(publish.topic.as_bytes());
        arena.put_slice(publish.properties_raw);
        arena.put_slice(publish.payload);
        Self {
            bytes: arena.split().freeze(),
            topic_bytes: publish.topic.len(),
            properties_bytes: publish.properties_raw.len(),
            qos: publish.qos,
            retain: publish.retain,
            expiry_s: publish.expiry_s,
            received,
        }
    }

    /// Bytes it counts for in a queue.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.bytes.len() + 64
    }

    /// Topic name.
    #[must_use]
    pub fn topic(&self) -> &[u8] {
        &self.bytes[..self.topic_bytes]
    }

    fn properties_raw(&self) -> &[u8] {
        &self.bytes[self.topic_bytes..self.topic_bytes + self.properties_bytes]
    }

    /// Application message.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.topic_bytes + self.properties_bytes..]
    }

    /// The same message in memory of its own, for keeping: a copy shares its allocation with others.
    #[must_use]
    pub fn compact(&self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), ..self.clone() }
    }

    /// Whether its message expiry interval is over.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expiry_left_s(now) == Some(0)
    }

    /// Seconds left of the message expiry interval; `Some(0)` when it is over.
    fn expiry_left_s(&self, now: Instant) -> Option<u32> {
        let waited = now.saturating_duration_since(self.received).as_secs();
        self.expiry_s.map(|expiry| expiry.saturating_sub(u32::try_from(waited).unwrap_or(u32::MAX)))
    }
}

/// How one subscriber gets a message.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Lower of published and granted.
    pub qos: Qos,
    /// Retain flag as this subscriber wants it.
    pub retain: bool,
    /// Subscription identifiers, MQTT 5 only. Usually none: no allocation.
    pub subscription_ids: Vec<NonZeroU32>,
    /// Of the listener's: it is told when this was delivered
    /// ([`SessionSink::delivered`](crate::SessionSink::delivered)). 0: it does not care.
    pub tag: u64,
    /// The shared subscription (`$share/...`) through which it came: unacknowledged it goes to another
    /// member when this one leaves.
    pub share: Option<Arc<str>>,
}

impl Delivery {
    /// A delivery of a message as it was just published.
    #[must_use]
    pub fn live(message: Message, qos: Qos) -> Self {
        let subscription_ids = Vec::new();
        Self { message, qos, retain: false, subscription_ids, tag: 0, share: None }
    }
}

/// How the PUBLISH of a delivery is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) version: Version,
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    /// Sent before.
    pub(crate) dup: bool,
    pub(crate) alias: Alias,
    pub(crate) packet_bytes_max: usize,
}

/// What becomes of the topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alias {
    None,
    /// It is written, and this alias stands for it from now on.
    Set(u16),
    /// The alias stands for it.
    Instead(u16),
}

/// Why a delivery was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotWritten {
    /// Its message expiry interval is over.
    Expired,
    /// Larger than the client's Maximum Packet Size.
    TooLarge,
}

/// Appends the PUBLISH of a delivery to `out`.
pub(crate) fn write(
    delivery: &Delivery,
    form: Form,
    now: Instant,
    out: &mut Vec<u8>,
) -> Result<(), NotWritten> {
    let Form { version, packet_id, dup, alias, packet_bytes_max } = form;
    let message = &delivery.message;
    let mut own_properties = Vec::new();
    let mut expiry_left_s = message.expiry_left_s(now);
    if message.expiry_s.is_some_and(|at_first| at_first > 0) && expiry_left_s == Some(0) {
        if !dup {
            return Err(NotWritten::Expired);
        }
        // It was on its way already, and has to be seen through (4.4).
        expiry_left_s = Some(1);
    }
    let mut properties_bytes = 0;
    if version.is_v5() {
        if let Alias::Set(alias) | Alias::Instead(alias) = alias {
            own_properties.push(property::TOPIC_ALIAS);
            own_properties.extend_from_slice(&alias.to_be_bytes());
        }
        for id in &delivery.subscription_ids {
            own_properties.push(SUBSCRIPTION_IDENTIFIER);
            property::put_varint(&mut own_properties, id.get());
        }
        properties_bytes = own_properties.len() + message.properties_bytes;
    }

    let topic = if matches!(alias, Alias::Instead(_)) { &[] } else { message.topic() };
    let id_bytes = if delivery.qos == Qos::AtMostOnce { 0 } else { 2 };
    let section_bytes =
        if version.is_v5() { property::varint_len(properties_bytes) + properties_bytes } else { 0 };
    let remaining = 2 + topic.len() + id_bytes + section_bytes + message.payload().len();
    let total = 1 + property::varint_len(remaining) + remaining;
    if total > packet_bytes_max {
        return Err(NotWritten::TooLarge);
    }
    out.reserve(total);
    let dup = u8::from(dup) << 3;
    out.push(0x30 | dup | (delivery.qos.byte() << 1) | u8::from(delivery.retain));
    // The sum of parts of packets below 256 MiB; a larger one was refused just above.
    property::put_varint(out, u32::try_from(remaining).unwrap_or(u32::MAX));
    property::put_binary(out, topic);
    if id_bytes != 0 {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version.is_v5() {
        property::put_varint(out, u32::try_from(properties_bytes).unwrap_or(u32::MAX));
        out.extend_from_slice(&own_properties);
        let at = out.len();
        out.extend_from_slice(message.properties_raw());
        if let Some(left_s) = expiry_left_s {
            patch_expiry(&mut out[at..], left_s);
        }
    }
    out.extend_from_slice(message.payload());
    Ok(())
}

/// Puts the time left into validated properties (MQTT 5.0 section 3.3.2.3.3).
fn patch_expiry(raw: &mut [u8], left_s: u32) {
    let mut at = None;
    let whole = raw.len();
    let mut reader = crate::reader::Reader::new(crate::frame::PacketType::Publish, raw);
    while let Ok(id) = reader.byte() {
        if id == MESSAGE_EXPIRY_INTERVAL {
            at = Some(whole - reader.clone().rest().len());
            break;
        }
        // Sizes only: everything was validated when it arrived.
        let skipped = match id {
            property::PAYLOAD_FORMAT_INDICATOR => reader.take(1).map(|_| ()),
            property::USER_PROPERTY => reader.binary().and_then(|_| reader.binary()).map(|_| ()),
            _ => reader.binary().map(|_| ()),
        };
        if skipped.is_err() {
            return;
        }
    }
    if let Some(field) = at.and_then(|at| raw.get_mut(at..at + 4)) {
        field.copy_from_slice(&left_s.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn delivery(publish: &Publish<'_>, received: Instant) -> Delivery {
        let message = Message::copy(publish, received, &mut BytesMut::new());
        Delivery::live(message, publish.qos)
    }

    fn publish() -> Publish<'static> {
        Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: "ü",
            packet_id: None,
            properties_raw: b"\x26\x00\x01k\x00\x01v\x02\x00\x00\x00\x3c",
            topic_alias: None,
            expiry_s: Some(60),
            payload: b"hi",
        }
    }

    fn form(version: Version, packet_bytes_max: usize) -> Form {
        Form { version, packet_id: 9, dup: false, alias: Alias::None, packet_bytes_max }
    }

    #[test]
    fn each_version_gets_its_own_form() {
        let now = Instant::now();
        let mut out = Vec::new();
        write(&delivery(&publish(), now), form(Version::V311, 100), now, &mut out)
            .expect("written");
        assert_eq!(out, b"\x32\x08\x00\x02\xc3\xbc\x00\x09hi");

        let mut delivery = delivery(&publish(), now);
        delivery.subscription_ids = vec![NonZeroU32::new(200).expect("not zero")];
        out.clear();
        write(&delivery, form(Version::V5, 100), now, &mut out).expect("written");
        let expected = b"\x32\x18\x00\x02\xc3\xbc\x00\x09\x0f\x0b\xc8\x01\
            \x26\x00\x01k\x00\x01v\x02\x00\x00\x00\x3chi";
        assert_eq!(out, expected);
    }

    #[test]
    fn waiting_shortens_the_expiry_and_ends_the_message() {
        let start = Instant::now();
        let delivery = delivery(&publish(), start);
        let mut out = Vec::new();
        let later = start + Duration::from_secs(10);
        write(&delivery, form(Version::V5, 100), later, &mut out).expect("written");
        assert!(out.ends_with(b"\x02\x00\x00\x00\x32hi"));
        out.clear();
        let too_late = start + Duration::from_secs(60);
        let outcome = write(&delivery, form(Version::V5, 100), too_late, &mut out);
        assert_eq!(outcome, Err(NotWritten::Expired));
        assert!(out.is_empty());
    }

    #[test]
    fn a_client_never_gets_more_than_its_maximum_packet_size() {
        let now = Instant::now();
        let mut out = Vec::new();
        let outcome = write(&delivery(&publish(), now), form(Version::V311, 9), now, &mut out);
        assert_eq!(outcome, Err(NotWritten::TooLarge));
        assert!(out.is_empty());
    }
}

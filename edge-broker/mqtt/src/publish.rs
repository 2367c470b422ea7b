//! PUBLISH from a client, parsed in place: the hot path.
//!
//! Ours and not the codec's, because `rumqttd` 0.20 copies topic and payload, checks neither UTF-8
//! nor wildcards, and keeps packet identifier, QoS and DUP to itself.
//!
//! Limits: topic names as in [`topic_filter`](crate::topic_filter); at most
//! [`USER_PROPERTIES_MAX`](crate::USER_PROPERTIES_MAX) user properties. A payload format indicator
//! of 1 is recorded, the payload is not scanned for UTF-8 (MQTT 5.0 section 3.3.2.3.2 says MAY).
//!
//! Source: MQTT 5.0 section 3.3, 3.1.1 section 3.3.

use std::num::NonZeroU16;

use crate::frame::{Frame, PacketType, Version};
use crate::property::{self, MESSAGE_EXPIRY_INTERVAL, TOPIC_ALIAS};
use crate::reader::Reader;
use crate::topic_filter::validate_topic;
use crate::violation::Violation;

/// Delivery guarantees that this broker offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// The number on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }
}

/// A PUBLISH that passed every check. Borrows from the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, perhaps.
    pub dup: bool,
    /// Delivery guarantee.
    pub qos: Qos,
    /// The retain flag as sent.
    pub retain: bool,
    /// Topic name: no wildcard. That it may begin with `$` is for the sink to forbid. Empty only as it comes out of
    /// [`parse`](Self::parse) and only with an alias, which the session then looks up.
    pub topic: &'a str,
    /// With QoS 1 and 2.
    pub packet_id: Option<NonZeroU16>,
    /// MQTT 5 properties without their length, validated; empty for 3.1.1. Never holds a
    /// subscription identifier, nor a topic alias once the session has looked it up.
    pub properties_raw: &'a [u8],
    /// A topic alias that is still in the properties. Not 0.
    pub topic_alias: Option<NonZeroU16>,
    /// Message expiry interval in seconds, if the properties have one.
    pub expiry_s: Option<u32>,
    /// Application message.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Parses and checks.
    ///
    /// # Errors
    /// The first rule that the packet breaks.
    #[inline]
    pub fn parse(frame: &Frame<'a>, version: Version) -> Result<Self, Violation> {
        let dup = frame.flags & 0b1000 != 0;
        let retain = frame.flags & 0b0001 != 0;
        let qos = match frame.flags & 0b0110 {
            0b0000 if dup => return Err(Violation::DupAtQos0),
            0b0000 => Qos::AtMostOnce,
            0b0010 => Qos::AtLeastOnce,
            0b0100 => Qos::ExactlyOnce,
            _ => return Err(Violation::Qos3),
        };

        let mut reader = Reader::new(PacketType::Publish, frame.body);
        let topic = reader.utf8()?;
        let packet_id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce | Qos::ExactlyOnce => Some(
                NonZeroU16::new(reader.two()?)
                    .ok_or(Violation::PacketIdZero { packet: PacketType::Publish })?,
            ),
        };
        let (mut expiry_s, mut topic_alias) = (None, None);
        let properties_raw = if version.is_v5() {
            let raw = reader.section()?;
            if !raw.is_empty() {
                (expiry_s, topic_alias) = check_properties(raw)?;
            }
            raw
        } else {
            &[]
        };
        if topic_alias.is_none() || !topic.is_empty() {
            check_topic(topic)?;
        }
        Ok(Self {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties_raw,
            topic_alias,
            expiry_s,
            payload: reader.rest(),
        })
    }
}

/// Checks a topic that a client publishes to, in a PUBLISH or as its will.
pub(crate) fn check_topic(topic: &str) -> Result<(), Violation> {
    if topic.is_empty() {
        return Err(Violation::TopicEmpty);
    }
    validate_topic(topic).map_err(Violation::Topic)
}

#[cold]
fn check_properties(raw: &[u8]) -> Result<(Option<u32>, Option<NonZeroU16>), Violation> {
    let (mut expiry_s, mut alias) = (None, None);
    property::walk(PacketType::Publish, raw, property::IN_PUBLISH, |id, value| {
        match id {
            MESSAGE_EXPIRY_INTERVAL => expiry_s = Some(value.number()),
            TOPIC_ALIAS => {
                let found = u16::try_from(value.number()).unwrap_or(u16::MAX);
                alias = Some(NonZeroU16::new(found).ok_or(Violation::TopicAlias { found })?);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((expiry_s, alias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Split, split};
    use crate::topic_filter::TopicError;
    use crate::violation::ReasonCode;

    fn parse(bytes: &[u8], version: Version) -> Result<Publish<'_>, Violation> {
        match split(bytes, true, 4_096)? {
            Split::Frame(frame) => Publish::parse(&frame, version),
            Split::Incomplete { .. } => panic!("a whole packet expected"),
        }
    }

    #[test]
    fn a_publish_is_read_in_place() {
        let bytes = b"\x3b\x0b\x00\x05a/\xc3\xbcb\x01\x02hi";
        let publish = parse(bytes, Version::V311).expect("valid");
        assert_eq!((publish.topic, publish.payload), ("a/üb", b"hi".as_slice()));
        assert_eq!((publish.dup, publish.retain, publish.qos), (true, true, Qos::AtLeastOnce));
        assert_eq!(publish.packet_id.map(NonZeroU16::get), Some(0x0102));
        assert!(publish.properties_raw.is_empty());
    }

    #[test]
    fn an_empty_payload_is_a_message() {
        let publish = parse(b"\x30\x03\x00\x01a", Version::V311).expect("valid");
        assert_eq!(publish.payload, b"");
        let publish = parse(b"\x30\x04\x00\x01a\x00", Version::V5).expect("valid");
        assert_eq!(publish.payload, b"");
    }

    #[test]
    fn v5_properties_are_validated() {
        let good = b"\x30\x11\x00\x01a\x0d\x01\x01\x02\x00\x00\x00\x3c\x26\x00\x01k\x00\x00";
        let publish = parse(good, Version::V5);
        // Length byte counts: topic 3, property length 1, properties 13.
        let publish = publish.expect("valid");
        assert_eq!(publish.expiry_s, Some(60));
        assert_eq!(publish.properties_raw.len(), 13);
    }

    #[test]
    fn each_rule_has_its_reason_code() {
        let v4 = Version::V311;
        let v5 = Version::V5;
        let cases: &[(&[u8], Version, ReasonCode)] = &[
            (b"\x38\x03\x00\x01a", v4, ReasonCode::MalformedPacket), // DUP at QoS 0
            (b"\x36\x05\x00\x01a\x00\x01", v4, ReasonCode::MalformedPacket), // QoS 3
            (b"\x32\x05\x00\x01a\x00\x00", v4, ReasonCode::ProtocolError), // id 0
            (b"\x32\x04\x00\x01a\x00", v4, ReasonCode::MalformedPacket), // half an id
            (b"\x30\x00", v4, ReasonCode::MalformedPacket),
            (b"\x30\x02\x00\x00", v4, ReasonCode::ProtocolError), // empty topic
            (b"\x30\x03\x00\x05a", v4, ReasonCode::MalformedPacket),
            (b"\x30\x04\x00\x02a\x00", v4, ReasonCode::MalformedPacket), // NUL
            (b"\x30\x04\x00\x02\xc3\x28", v4, ReasonCode::MalformedPacket), // not UTF-8
            (b"\x30\x05\x00\x03\xed\xa0\x80", v4, ReasonCode::MalformedPacket), // surrogate
            (b"\x30\x05\x00\x03a/+", v4, ReasonCode::TopicNameInvalid),
            (b"\x30\x03\x00\x01#", v4, ReasonCode::TopicNameInvalid),
            (b"\x30\x07\x00\x01a\x03\x23\x00\x00", v5, ReasonCode::TopicAliasInvalid),
            (b"\x30\x06\x00\x01a\x02\x0b\x01", v5, ReasonCode::MalformedPacket), // client sub id
            (b"\x30\x06\x00\x01a\x02\x01\x02", v5, ReasonCode::ProtocolError),   // indicator 2
            (b"\x30\x08\x00\x01a\x04\x01\x01\x01\x01", v5, ReasonCode::ProtocolError), // twice
            (b"\x30\x05\x00\x01a\x01\x7f", v5, ReasonCode::MalformedPacket),     // unknown id
            (b"\x30\x05\x00\x01a\x05\x01", v5, ReasonCode::MalformedPacket),     // short section
            (b"\x30\x08\x00\x01a\x04\x08\x00\x01#", v5, ReasonCode::ProtocolError),
            (b"\x30\x03\x00\x01a", v5, ReasonCode::MalformedPacket), // no property length
        ];
        for (bytes, version, reason) in cases {
            let violation = parse(bytes, *version).expect_err("must be refused");
            assert_eq!(violation.reason(), *reason, "{bytes:x?}: {violation}");
        }
    }

    #[test]
    fn user_properties_are_bounded() {
        let mut properties = Vec::new();
        for _ in 0..=property::USER_PROPERTIES_MAX {
            properties.extend_from_slice(b"\x26\x00\x00\x00\x00");
        }
        let mut body = b"\x00\x01a".to_vec();
        property::put_varint(&mut body, u32::try_from(properties.len()).expect("small"));
        body.extend_from_slice(&properties);
        let mut bytes = vec![0x30];
        property::put_varint(&mut bytes, u32::try_from(body.len()).expect("small"));
        bytes.extend_from_slice(&body);
        let violation = parse(&bytes, Version::V5).expect_err("too many");
        assert_eq!(violation.reason(), ReasonCode::QuotaExceeded);
    }

    #[test]
    fn a_topic_beyond_the_limits_is_refused() {
        let mut body = 1_025_u16.to_be_bytes().to_vec();
        body.extend_from_slice(&[b'a'; 1_025]);
        let mut bytes = vec![0x30];
        property::put_varint(&mut bytes, u32::try_from(body.len()).expect("small"));
        bytes.extend_from_slice(&body);
        assert_eq!(
            parse(&bytes, Version::V311),
            Err(Violation::Topic(TopicError::TooLong { found: 1_025 }))
        );
    }
}

//! CONNECT: parsed and checked in one pass.
//!
//! Ours and not the codec's, because `rumqttd` 0.20 refuses MQTT 3.1 (`MQIsdp`), refuses passwords
//! that are not UTF-8 (the standard says binary data), wants the version before it can be known, and
//! ignores reserved flags; checking first and decoding after would have been the same walk twice.
//!
//! Limits: client id [`CLIENT_ID_BYTES_MAX`]; the packet as a whole as in
//! [`frame`](crate::frame::PACKET_BYTES_MAX_BEFORE_CONNECT).
//!
//! Source: MQTT 5.0 section 3.1, 3.1.1 section 3.1, MQTT 3.1 section 3.1.

use std::fmt;

use crate::frame::{PacketType, Version};
use crate::property;
use crate::publish::{Publish, Qos, check_topic};
use crate::reader::Reader;
use crate::violation::Violation;

/// Longest client id, in bytes. It becomes a record header.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// A CONNECT that passed every check. Borrows from the receive buffer, but for the will.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol of the connection.
    pub version: Version,
    /// As sent; may be empty where the standard lets the broker choose.
    pub client_id: &'a str,
    /// Clean session (3.1.1), clean start (5).
    pub clean_start: bool,
    /// Seconds; 0 turns keep-alive off.
    pub keep_alive_s: u16,
    /// Session Expiry Interval asked for, in seconds. Before MQTT 5 0 with a clean session, without
    /// one [`u32::MAX`], which means for ever.
    pub session_expiry_s: u32,
    /// QoS 1 and 2 publishes the client takes unacknowledged. 65,535 where it does not say.
    pub receive_maximum: u16,
    /// Topic aliases the client takes.
    pub topic_alias_max: u16,
    /// It wants reason strings and user properties, not in CONNACK and DISCONNECT only.
    pub wants_problem_information: bool,
    /// It wants to be told where responses may go.
    pub wants_response_information: bool,
    /// Largest packet the client takes, in bytes.
    pub packet_bytes_max: Option<u32>,
    /// What to publish if the connection ends badly.
    pub will: Option<Will>,
    /// For whoever decides on access.
    pub username: Option<&'a str>,
    /// For whoever decides on access; never logged.
    pub password: Option<&'a [u8]>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("will", &self.will.is_some())
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "(hidden)"))
            .finish_non_exhaustive()
    }
}

/// The will of a connection, kept until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Topic name, checked as that of a PUBLISH.
    pub topic: String,
    /// Application message.
    pub payload: Vec<u8>,
    /// Properties that a PUBLISH may carry; the delay is left out.
    pub properties_raw: Vec<u8>,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Delivery guarantee.
    pub qos: Qos,
    /// The retain flag as sent.
    pub retain: bool,
}

impl Will {
    /// The PUBLISH that the broker makes of it.
    #[must_use]
    pub fn publish(&self) -> Publish<'_> {
        Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: None,
            properties_raw: &self.properties_raw,
            topic_alias: None,
            expiry_s: self.expiry_s,
            payload: &self.payload,
        }
    }
}

/// A CONNECT that was refused, with the version as far as it could be read: it decides in which
/// words the refusal is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRefused {
    /// `None`: the protocol could not be read, close without a word.
    pub version: Option<Version>,
    /// What is wrong.
    pub violation: Violation,
}

impl<'a> Connect<'a> {
    /// Parses and checks the body of a CONNECT.
    ///
    /// # Errors
    /// [`ConnectRefused`].
    pub fn parse(body: &'a [u8]) -> Result<Self, ConnectRefused> {
        let mut reader = Reader::new(PacketType::Connect, body);
        let version = match protocol(&mut reader) {
            Ok(version) => version,
            Err(violation @ Violation::ProtocolLevel { .. }) => {
                // The answer in the form of 3.1.1, which every client can read.
                return Err(ConnectRefused { version: Some(Version::V311), violation });
            }
            Err(violation) => return Err(ConnectRefused { version: None, violation }),
        };
        Self::after_protocol(reader, version)
            .map_err(|violation| ConnectRefused { version: Some(version), violation })
    }

    fn after_protocol(mut reader: Reader<'a>, version: Version) -> Result<Self, Violation> {
        let flags = reader.byte()?;
        let will_qos = check_flags(flags, version)?;
        let clean_start = flags & 0x02 != 0;
        let mut connect = Connect {
            version,
            client_id: "",
            clean_start,
            keep_alive_s: reader.two()?,
            session_expiry_s: if version.is_v5() || clean_start { 0 } else { u32::MAX },
            receive_maximum: u16::MAX,
            topic_alias_max: 0,
            wants_problem_information: true,
            wants_response_information: false,
            packet_bytes_max: None,
            will: None,
            username: None,
            password: None,
        };
        if version.is_v5() {
            connect.read_properties(reader.section()?)?;
        }
        connect.client_id = reader.string()?;
        let id_bytes = connect.client_id.len();
        let may_be_empty = match version {
            Version::V31 => false,
            Version::V311 => connect.clean_start,
            Version::V5 => true,
        };
        if id_bytes > CLIENT_ID_BYTES_MAX || (id_bytes == 0 && !may_be_empty) {
            return Err(Violation::ClientId { found_bytes: id_bytes });
        }
        if flags & WILL != 0 {
            connect.will = Some(read_will(&mut reader, version, flags, will_qos)?);
        }
        if flags & USERNAME != 0 {
            connect.username = Some(reader.string()?);
        }
        if flags & PASSWORD != 0 {
            connect.password = Some(reader.binary()?);
        }
        reader.finish()?;
        Ok(connect)
    }

    fn read_properties(&mut self, raw: &[u8]) -> Result<(), Violation> {
        property::walk(PacketType::Connect, raw, property::IN_CONNECT, |id, value| {
            match id {
                property::SESSION_EXPIRY_INTERVAL => self.session_expiry_s = value.number(),
                property::RECEIVE_MAXIMUM => {
                    self.receive_maximum = u16::try_from(value.number()).unwrap_or(u16::MAX);
                }
                property::MAXIMUM_PACKET_SIZE => self.packet_bytes_max = Some(value.number()),
                property::TOPIC_ALIAS_MAXIMUM => {
                    self.topic_alias_max = u16::try_from(value.number()).unwrap_or(u16::MAX);
                }
                property::REQUEST_PROBLEM_INFORMATION => {
                    self.wants_problem_information = value.number() == 1;
                }
                property::REQUEST_RESPONSE_INFORMATION => {
                    self.wants_response_information = value.number() == 1;
                }
                property::AUTHENTICATION_METHOD => return Err(Violation::AuthenticationMethod),
                // Data without a method is a protocol error; with one we have refused already,
                // unless it comes first.
                property::AUTHENTICATION_DATA => return Err(Violation::AuthenticationMethod),
                _ => {}
            }
            Ok(())
        })
    }
}

fn protocol(reader: &mut Reader<'_>) -> Result<Version, Violation> {
    let name = reader.binary()?;
    let level = reader.byte()?;
    match (name, level) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQIsdp", 3) => Ok(Version::V31),
        // Bit 7 of the level marks a bridge connection of some brokers; refused with the rest.
        (b"MQTT" | b"MQIsdp", found) => Err(Violation::ProtocolLevel { found }),
        _ => Err(Violation::ProtocolName),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<Qos, Violation> {
    let will = flags & WILL != 0;
    let reserved = flags & 0x01 != 0 && version != Version::V31;
    let will_parts_without_will = !will && flags & 0x38 != 0;
    let password_alone = version == Version::V311 && flags & PASSWORD != 0 && flags & USERNAME == 0;
    if reserved || will_parts_without_will || password_alone {
        return Err(Violation::ConnectFlags { found: flags });
    }
    match (flags >> 3) & 0x03 {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        _ => Err(Violation::ConnectFlags { found: flags }),
    }
}

fn read_will(
    reader: &mut Reader<'_>,
    version: Version,
    flags: u8,
    qos: Qos,
) -> Result<Will, Violation> {
    let retain = flags & WILL_RETAIN != 0;
    let mut properties_raw = Vec::new();
    let (mut expiry_s, mut delay_s) = (None, 0);
    if version.is_v5() {
        let raw = reader.section()?;
        property::walk(PacketType::Connect, raw, property::IN_WILL, |id, value| {
            match id {
                property::WILL_DELAY_INTERVAL => {
                    delay_s = value.number();
                    return Ok(());
                }
                property::MESSAGE_EXPIRY_INTERVAL => expiry_s = Some(value.number()),
                _ => {}
            }
            property::put(&mut properties_raw, id, &value);
            Ok(())
        })?;
    }
    let topic = reader.utf8()?;
    check_topic(topic)?;
    let payload = reader.binary()?.to_vec();
    Ok(Will { topic: topic.to_owned(), payload, properties_raw, expiry_s, delay_s, qos, retain })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violation::ReasonCode;

    fn refused(body: &[u8]) -> (Option<Version>, ReasonCode) {
        let refused = Connect::parse(body).expect_err("must be refused");
        (refused.version, refused.violation.reason())
    }

    #[test]
    fn the_three_protocols_are_told_apart() {
        let old = Connect::parse(b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01c").expect("3.1");
        assert_eq!((old.version, old.client_id, old.keep_alive_s), (Version::V31, "c", 60));
        let v4 = Connect::parse(b"\x00\x04MQTT\x04\x02\x00\x00\x00\x00").expect("3.1.1");
        assert_eq!((v4.version, v4.client_id, v4.clean_start), (Version::V311, "", true));
        let v5 = Connect::parse(b"\x00\x04MQTT\x05\x00\x00\x0a\x00\x00\x00").expect("5");
        assert_eq!((v5.version, v5.receive_maximum), (Version::V5, 65_535));
    }

    #[test]
    fn unknown_protocols_are_answered_as_far_as_they_can_be_read() {
        assert_eq!(
            refused(b"\x00\x04MQTT\x06\x02\x00\x00\x00\x00"),
            (Some(Version::V311), ReasonCode::UnsupportedProtocolVersion)
        );
        assert_eq!(
            refused(b"\x00\x04mqtt\x04\x02\x00\x00\x00\x00"),
            (None, ReasonCode::MalformedPacket)
        );
        assert_eq!(refused(b""), (None, ReasonCode::MalformedPacket));
    }

    #[test]
    fn flags_that_contradict_are_refused() {
        for flags in [0x03, 0x0A, 0x22, 0x1E, 0x42] {
            let mut body = b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01c\x00\x01t\x00\x00".to_vec();
            body[7] = flags;
            assert_eq!(refused(&body).1, ReasonCode::MalformedPacket, "{flags:#x}");
        }
    }

    #[test]
    fn an_empty_client_id_needs_a_clean_session_before_mqtt_5() {
        assert_eq!(
            refused(b"\x00\x04MQTT\x04\x00\x00\x00\x00\x00"),
            (Some(Version::V311), ReasonCode::ClientIdNotValid)
        );
    }

    #[test]
    fn properties_of_connect_and_will_are_kept_and_checked() {
        let body = b"\x00\x04MQTT\x05\xc6\x00\x00\x0d\x11\x00\x00\x00\x05\x21\x00\x07\x27\x00\x00\x01\x00\
            \x00\x01c\x0e\x18\x00\x00\x00\x09\x01\x01\x26\x00\x01k\x00\x01v\x00\x01t\x00\x02by\x00\x01u\x00\x02\xff\xfe";
        let connect = Connect::parse(body).expect("valid");
        assert_eq!((connect.session_expiry_s, connect.receive_maximum), (5, 7));
        assert_eq!(connect.packet_bytes_max, Some(256));
        assert_eq!(connect.username, Some("u"));
        assert_eq!(connect.password, Some(b"\xff\xfe".as_slice()));
        assert!(!format!("{connect:?}").contains("255"), "the password stays out of logs");
        let will = connect.will.expect("a will");
        assert_eq!((will.topic.as_str(), will.payload.as_slice()), ("t", b"by".as_slice()));
        assert_eq!(will.properties_raw, b"\x01\x01\x26\x00\x01k\x00\x01v");
        assert_eq!(will.delay_s, 9);
    }

    #[test]
    fn connect_properties_outside_their_range_are_refused() {
        let with = |properties: &[u8]| {
            let mut body = b"\x00\x04MQTT\x05\x02\x00\x00".to_vec();
            body.push(u8::try_from(properties.len()).expect("short"));
            body.extend_from_slice(properties);
            body.extend_from_slice(b"\x00\x01c");
            refused(&body).1
        };
        assert_eq!(with(b"\x21\x00\x00"), ReasonCode::ProtocolError);
        assert_eq!(with(b"\x27\x00\x00\x00\x00"), ReasonCode::ProtocolError);
        assert_eq!(with(b"\x17\x02"), ReasonCode::ProtocolError);
        assert_eq!(with(b"\x15\x00\x01x"), ReasonCode::BadAuthenticationMethod);
        assert_eq!(with(b"\x01\x01"), ReasonCode::MalformedPacket);
        assert_eq!(with(b"\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01"), ReasonCode::ProtocolError);
    }

    #[test]
    fn bytes_behind_the_last_field_are_refused() {
        assert_eq!(
            refused(b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01cX").1,
            ReasonCode::MalformedPacket
        );
    }

    #[test]
    fn wills_are_held_to_the_rules_of_publish() {
        assert_eq!(
            refused(b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01c\x00\x01#\x00\x00").1,
            ReasonCode::TopicNameInvalid
        );
        let old = Connect::parse(b"\x00\x04MQTT\x04\x16\x00\x00\x00\x01c\x00\x01t\x00\x00");
        assert_eq!(old.expect("valid").will.expect("a will").qos, Qos::ExactlyOnce);
        let new = Connect::parse(b"\x00\x04MQTT\x05\x26\x00\x00\x00\x00\x01c\x00\x00\x01t\x00\x00");
        assert!(new.expect("valid").will.expect("a will").retain);
    }
}

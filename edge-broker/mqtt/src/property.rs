//! The properties of MQTT 5: which packet may carry which, of what type, how often.
//!
//! Limits: [`USER_PROPERTIES_MAX`] user properties per packet. All other properties appear at most
//! once. Values are checked against their ranges here, once, for every packet.
//!
//! Source: MQTT 5.0 section 2.2.2 and table 2-4.

use crate::frame::PacketType;
use crate::reader::Reader;
use crate::violation::Violation;

/// Most user properties in one packet; each becomes a record header.
pub const USER_PROPERTIES_MAX: usize = 64;

pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
pub(crate) const CONTENT_TYPE: u8 = 0x03;
pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
pub(crate) const CORRELATION_DATA: u8 = 0x09;
pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(crate) const WILL_DELAY_INTERVAL: u8 = 0x18;
pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
pub(crate) const REASON_STRING: u8 = 0x1F;
pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(crate) const TOPIC_ALIAS: u8 = 0x23;
pub(crate) const USER_PROPERTY: u8 = 0x26;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;

/// A set of property identifiers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed(u64);

impl Allowed {
    const fn of(ids: &[u8]) -> Self {
        let mut mask = 0_u64;
        let mut index = 0;
        while index < ids.len() {
            mask |= 1 << ids[index];
            index += 1;
        }
        Self(mask)
    }
}

pub(crate) const IN_CONNECT: Allowed = Allowed::of(&[
    SESSION_EXPIRY_INTERVAL,
    AUTHENTICATION_METHOD,
    AUTHENTICATION_DATA,
    REQUEST_PROBLEM_INFORMATION,
    REQUEST_RESPONSE_INFORMATION,
    RECEIVE_MAXIMUM,
    TOPIC_ALIAS_MAXIMUM,
    USER_PROPERTY,
    MAXIMUM_PACKET_SIZE,
]);
pub(crate) const IN_WILL: Allowed = Allowed::of(&[
    PAYLOAD_FORMAT_INDICATOR,
    MESSAGE_EXPIRY_INTERVAL,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    WILL_DELAY_INTERVAL,
    USER_PROPERTY,
]);
/// A subscription identifier is for brokers only.
pub(crate) const IN_PUBLISH: Allowed = Allowed::of(&[
    PAYLOAD_FORMAT_INDICATOR,
    MESSAGE_EXPIRY_INTERVAL,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    TOPIC_ALIAS,
    USER_PROPERTY,
]);
pub(crate) const IN_SUBSCRIBE: Allowed = Allowed::of(&[SUBSCRIPTION_IDENTIFIER, USER_PROPERTY]);
pub(crate) const IN_UNSUBSCRIBE: Allowed = Allowed::of(&[USER_PROPERTY]);
pub(crate) const IN_PUBACK: Allowed = Allowed::of(&[REASON_STRING, USER_PROPERTY]);
pub(crate) const IN_DISCONNECT: Allowed =
    Allowed::of(&[SESSION_EXPIRY_INTERVAL, REASON_STRING, USER_PROPERTY]);

/// The value of one property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Varint(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl Value<'_> {
    /// Integers of every width; 0 for anything else.
    pub(crate) fn number(&self) -> u32 {
        match *self {
            Self::Byte(value) => u32::from(value),
            Self::Two(value) => u32::from(value),
            Self::Four(value) | Self::Varint(value) => value,
            Self::Text(_) | Self::Binary(_) | Self::Pair(..) => 0,
        }
    }
}

/// Calls `each` for every property of `raw` in order, or says which rule `raw` breaks.
pub(crate) fn walk<'a>(
    packet: PacketType,
    raw: &'a [u8],
    allowed: Allowed,
    mut each: impl FnMut(u8, Value<'a>) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let mut reader = Reader::new(packet, raw);
    let mut seen = 0_u64;
    let mut user_properties = 0_usize;
    while !reader.is_empty() {
        let id = reader.varint()?;
        let id = u8::try_from(id)
            .ok()
            .filter(|&id| id < 64 && allowed.0 & (1 << id) != 0)
            .ok_or(Violation::PropertyNotAllowed { packet, id })?;
        if id == USER_PROPERTY {
            user_properties += 1;
            if user_properties > USER_PROPERTIES_MAX {
                return Err(Violation::TooManyUserProperties {
                    packet,
                    limit: USER_PROPERTIES_MAX,
                });
            }
        } else if seen & (1 << id) != 0 {
            return Err(Violation::PropertyRepeated { packet, id });
        }
        seen |= 1 << id;
        let value = read_value(&mut reader, id)?;
        check_range(packet, id, &value)?;
        each(id, value)?;
    }
    Ok(())
}

fn read_value<'a>(reader: &mut Reader<'a>, id: u8) -> Result<Value<'a>, Violation> {
    Ok(match id {
        PAYLOAD_FORMAT_INDICATOR | REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION => {
            Value::Byte(reader.byte()?)
        }
        RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => Value::Two(reader.two()?),
        MESSAGE_EXPIRY_INTERVAL
        | SESSION_EXPIRY_INTERVAL
        | WILL_DELAY_INTERVAL
        | MAXIMUM_PACKET_SIZE => Value::Four(reader.four()?),
        SUBSCRIPTION_IDENTIFIER => Value::Varint(reader.varint()?),
        CONTENT_TYPE | RESPONSE_TOPIC | AUTHENTICATION_METHOD | REASON_STRING => {
            Value::Text(reader.string()?)
        }
        CORRELATION_DATA | AUTHENTICATION_DATA => Value::Binary(reader.binary()?),
        USER_PROPERTY => Value::Pair(reader.string()?, reader.string()?),
        other => {
            return Err(Violation::PropertyNotAllowed {
                packet: reader.packet(),
                id: u32::from(other),
            });
        }
    })
}

fn check_range(packet: PacketType, id: u8, value: &Value<'_>) -> Result<(), Violation> {
    let good = match id {
        PAYLOAD_FORMAT_INDICATOR | REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION => {
            value.number() <= 1
        }
        RECEIVE_MAXIMUM | MAXIMUM_PACKET_SIZE | SUBSCRIPTION_IDENTIFIER => value.number() != 0,
        RESPONSE_TOPIC => {
            matches!(value, Value::Text(text) if !text.is_empty() && !text.contains(['+', '#']))
        }
        _ => true,
    };
    if good { Ok(()) } else { Err(Violation::PropertyValue { packet, id }) }
}

/// Appends one property that [`walk`] gave out, in the same encoding.
pub(crate) fn put(out: &mut Vec<u8>, id: u8, value: &Value<'_>) {
    out.push(id);
    match *value {
        Value::Byte(value) => out.push(value),
        Value::Two(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Four(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Varint(value) => put_varint(out, value),
        Value::Text(text) => put_binary(out, text.as_bytes()),
        Value::Binary(bytes) => put_binary(out, bytes),
        Value::Pair(name, text) => {
            put_binary(out, name.as_bytes());
            put_binary(out, text.as_bytes());
        }
    }
}

/// Appends `bytes` with a two-byte length. Longer than 65,535 cannot come from a packet; it is cut.
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

/// Appends a variable byte integer. Values above 268,435,455 cannot come from a packet.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    debug_assert!(value <= 268_435_455, "a variable byte integer has 28 bits");
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Bytes that [`put_varint`] takes for `value`.
pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

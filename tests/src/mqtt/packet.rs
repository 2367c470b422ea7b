//! Packets by hand: OASIS MQTT 3.1.1 chapter 3 and MQTT 5.0 chapter 3.

use anyhow::{Context, Result, bail};

/// The protocol level a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Version {
    /// Both, for tests that hold for either.
    pub const BOTH: [Version; 2] = [Version::V311, Version::V5];

    /// What `mosquitto_pub -V` calls it.
    pub fn mosquitto_name(self) -> &'static str {
        match self {
            Version::V311 => "311",
            Version::V5 => "5",
        }
    }

    fn level(self) -> u8 {
        match self {
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }
}

/// A packet as it came: first byte and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Packet type and flags.
    pub first: u8,
    /// What follows the remaining length.
    pub body: Vec<u8>,
}

/// A PUBLISH that came from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Topic name.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// The packet identifier, where the QoS has one.
    pub packet_id: Option<u16>,
    /// The raw properties of MQTT 5.
    pub properties: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Incoming {
    /// The packet type, 1 to 15.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The reason or return code of a CONNACK, PUBACK, SUBACK or DISCONNECT.
    ///
    /// An absent one means 0 (MQTT 5.0 sections 3.4.2.1 and 3.14.2.1).
    pub fn reason(&self) -> u8 {
        let at = match self.kind() {
            2 => 1,
            4..=7 => 2,
            9 | 11 => self.body.len().saturating_sub(1),
            _ => 0,
        };
        self.body.get(at).copied().unwrap_or(0)
    }

    /// The packet identifier of an acknowledgement.
    pub fn packet_id(&self) -> u16 {
        match self.body[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }

    /// Reads it as a PUBLISH.
    ///
    /// # Errors
    /// When it is none, or ends too early.
    pub fn publish(&self, version: Version) -> Result<Received> {
        if self.kind() != 3 {
            bail!("expected a PUBLISH, got {self:?}");
        }
        let mut rest = &self.body[..];
        let topic = take_string(&mut rest)?;
        let qos = (self.first >> 1) & 3;
        let packet_id = if qos > 0 { Some(take_u16(&mut rest)?) } else { None };
        let mut properties = Vec::new();
        if version == Version::V5 {
            let length = take_varint(&mut rest)?;
            properties = rest.get(..length).context("properties end too early")?.to_vec();
            rest = &rest[length..];
        }
        let retain = self.first & 1 == 1;
        Ok(Received { topic, qos, retain, packet_id, properties, payload: rest.to_vec() })
    }
}

/// A whole CONNECT. `keep_alive` in seconds.
pub fn connect_frame(version: Version, client_id: &str, clean: bool, keep_alive: u16) -> Vec<u8> {
    let mut body = Vec::new();
    put_string(&mut body, b"MQTT");
    body.push(version.level());
    body.push(if clean { 2 } else { 0 });
    body.extend(keep_alive.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    put_string(&mut body, client_id.as_bytes());
    frame(0x10, &body)
}

/// Appends a whole PUBLISH; `packet_id` decides between QoS 0 and 1. `topic` may be any bytes.
pub fn put_publish(
    out: &mut Vec<u8>,
    version: Version,
    topic: &[u8],
    payload: &[u8],
    packet_id: Option<u16>,
    retain: bool,
) {
    let qos = u8::from(packet_id.is_some());
    let properties = usize::from(version == Version::V5);
    let id_bytes = if packet_id.is_some() { 2 } else { 0 };
    out.push(0x30 | (qos << 1) | u8::from(retain));
    out.extend(remaining_length(2 + topic.len() + id_bytes + properties + payload.len()));
    put_string(out, topic);
    if let Some(id) = packet_id {
        out.extend(id.to_be_bytes());
    }
    if properties == 1 {
        out.push(0);
    }
    out.extend(payload);
}

/// A whole SUBSCRIBE with one filter.
pub fn subscribe_frame(version: Version, packet_id: u16, filter: &[u8], qos: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    put_string(&mut body, filter);
    body.push(qos);
    frame(0x82, &body)
}

/// A remaining length in the standard's variable byte form.
pub fn remaining_length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4);
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return bytes;
        }
    }
}

/// Cuts one whole packet off the front of `bytes`; `None` while it is not all there.
pub(super) fn cut(bytes: &mut Vec<u8>) -> Result<Option<Incoming>> {
    let mut length = 0_usize;
    let mut at = 1;
    loop {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 4 {
            bail!("the broker sent a remaining length of more than 4 bytes");
        }
    }
    if bytes.len() < at + length {
        return Ok(None);
    }
    let incoming = Incoming { first: bytes[0], body: bytes[at..at + length].to_vec() };
    bytes.drain(..at + length);
    Ok(Some(incoming))
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(remaining_length(body.len()));
    out.extend(body);
    out
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

fn take_u16(rest: &mut &[u8]) -> Result<u16> {
    let (head, tail) = rest.split_first_chunk::<2>().context("the packet ends too early")?;
    *rest = tail;
    Ok(u16::from_be_bytes(*head))
}

fn take_string(rest: &mut &[u8]) -> Result<String> {
    let length = usize::from(take_u16(rest)?);
    let bytes = rest.get(..length).context("the packet ends too early")?;
    *rest = &rest[length..];
    Ok(std::str::from_utf8(bytes).context("a topic that is not UTF-8")?.to_owned())
}

fn take_varint(rest: &mut &[u8]) -> Result<usize> {
    let mut value = 0_usize;
    for shift in [0, 7, 14, 21] {
        let (&byte, tail) = rest.split_first().context("the packet ends too early")?;
        *rest = tail;
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a variable byte integer of more than 4 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_back() {
        for version in Version::BOTH {
            let mut bytes = Vec::new();
            put_publish(&mut bytes, version, b"a/b", &[7; 300], Some(513), true);
            let incoming = cut(&mut bytes).unwrap().unwrap();
            assert!(bytes.is_empty());
            let received = incoming.publish(version).unwrap();
            assert_eq!(received.topic, "a/b");
            assert_eq!((received.qos, received.retain), (1, true));
            assert_eq!(received.packet_id, Some(513));
            assert_eq!(received.payload, [7; 300]);
        }
    }

    #[test]
    fn remaining_lengths_follow_the_standards_table() {
        assert_eq!(remaining_length(0), [0]);
        assert_eq!(remaining_length(127), [0x7F]);
        assert_eq!(remaining_length(128), [0x80, 0x01]);
        assert_eq!(remaining_length(16_383), [0xFF, 0x7F]);
        assert_eq!(remaining_length(268_435_455), [0xFF, 0xFF, 0xFF, 0x7F]);
    }
}

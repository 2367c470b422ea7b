//! Packets that the broker sends, but for PUBACK and its kin ([`puback`](crate::puback)) and PUBLISH
//! ([`message`](crate::message)).
//!
//! Ours and not the codec's: that of `rumqttd` 0.20 writes a DISCONNECT one byte short, loses reason codes of
//! SUBACK, and a CONNACK with it cannot be held to the client's Maximum Packet Size.

use crate::connect::Connect;
use crate::frame::Version;
use crate::property::{self, Value};
use crate::publish::Qos;
use crate::session::{Accepted, SessionLimits, keep_alive_s};
use crate::violation::ReasonCode;

pub(crate) const PINGRESP: [u8; 2] = [0xD0, 0];

/// User property of CONNACK with the number of messages that the session lost.
const MISSED: &str = "edge-missed";

/// CONNACK of a connection that was accepted. What is not said has the default of the standard.
pub(crate) struct Connack {
    version: Version,
    session_present: bool,
    /// MQTT 5 properties that the client has to know.
    needed: Vec<u8>,
    /// Those that it can do without.
    welcome: Vec<u8>,
}

impl Connack {
    /// `asked_s`: the session expiry that the client asked for.
    pub(crate) fn new(
        connect: &Connect<'_>,
        asked_s: u32,
        limits: &SessionLimits,
        accepted: &Accepted,
        assigned: Option<String>,
    ) -> Self {
        let (mut needed, mut welcome) = (Vec::new(), Vec::new());
        let mut put = |id, value| property::put(&mut needed, id, &value);
        if asked_s != connect.session_expiry_s {
            put(property::SESSION_EXPIRY_INTERVAL, Value::Four(connect.session_expiry_s));
        }
        put(property::RECEIVE_MAXIMUM, Value::Two(limits.receive_maximum));
        let packet_bytes_max = u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX);
        put(property::MAXIMUM_PACKET_SIZE, Value::Four(packet_bytes_max));
        if let Some(assigned) = &assigned {
            put(property::ASSIGNED_CLIENT_IDENTIFIER, Value::Text(assigned));
        }
        if limits.topic_aliases_max > 0 {
            put(property::TOPIC_ALIAS_MAXIMUM, Value::Two(limits.topic_aliases_max));
        }
        let keep_alive_s = keep_alive_s(connect, limits);
        if keep_alive_s != connect.keep_alive_s {
            put(property::SERVER_KEEP_ALIVE, Value::Two(keep_alive_s));
        }
        put(property::SHARED_SUBSCRIPTION_AVAILABLE, Value::Byte(1));
        if accepted.missed > 0 {
            let missed = accepted.missed.to_string();
            property::put(&mut welcome, property::USER_PROPERTY, &Value::Pair(MISSED, &missed));
        }
        if connect.wants_response_information
            && let Some(information) = &accepted.response_information
        {
            let value = Value::Text(information);
            property::put(&mut welcome, property::RESPONSE_INFORMATION, &value);
        }
        let version = connect.version;
        // MQTT 3.1 has no such flag.
        let session_present = accepted.resumed.is_some() && version != Version::V31;
        Self { version, session_present, needed, welcome }
    }

    /// False, and nothing is written: the client takes no packet of that size.
    pub(crate) fn write(self, packet_bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let present = u8::from(self.session_present);
        let mut body = vec![present, 0];
        if self.version.is_v5() {
            let mut properties = self.needed;
            // Flags, reason, both lengths and the first byte: less than 16.
            if properties.len() + self.welcome.len() + 16 <= packet_bytes_max {
                properties.extend_from_slice(&self.welcome);
            }
            put_section(&mut body, &properties);
        }
        let packet = packet(0x20, &body);
        let fits = packet.len() <= packet_bytes_max;
        if fits {
            out.extend_from_slice(&packet);
        }
        fits
    }
}

fn put_section(out: &mut Vec<u8>, section: &[u8]) {
    property::put_varint(out, u32::try_from(section.len()).unwrap_or(0));
    out.extend_from_slice(section);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(5 + body.len());
    packet.push(first);
    put_section(&mut packet, body);
    packet
}

/// CONNACK that refuses, in the words of the version; nothing where it has none.
pub(crate) fn connack_refused(version: Version, reason: ReasonCode, out: &mut Vec<u8>) {
    if version.is_v5() {
        out.extend_from_slice(&[0x20, 3, 0, reason.byte(), 0]);
    } else if let Some(code) = reason.return_code_v3() {
        out.extend_from_slice(&[0x20, 2, 0, code]);
    }
}

/// SUBACK: one answer per filter, in order.
pub(crate) fn suback(
    version: Version,
    packet_id: u16,
    answers: &[Result<Qos, ReasonCode>],
) -> Vec<u8> {
    let codes = answers.iter().map(|answer| match answer {
        Ok(qos) => qos.byte(),
        Err(reason) if version.is_v5() => reason.byte(),
        Err(_) => ReasonCode::UnspecifiedError.byte(),
    });
    acknowledgement(0x90, version, packet_id, codes)
}

/// UNSUBACK: one answer per filter, in order (MQTT 5; before, an UNSUBACK says nothing).
pub(crate) fn unsuback(version: Version, packet_id: u16, existed: &[bool]) -> Vec<u8> {
    let codes = existed.iter().filter(|_| version.is_v5()).map(|existed| match existed {
        true => ReasonCode::Success.byte(),
        false => ReasonCode::NoSubscriptionExisted.byte(),
    });
    acknowledgement(0xB0, version, packet_id, codes)
}

fn acknowledgement(
    first: u8,
    version: Version,
    packet_id: u16,
    codes: impl Iterator<Item = u8>,
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        body.push(0);
    }
    body.extend(codes);
    packet(first, &body)
}

/// DISCONNECT with a reason (MQTT 5). Older versions have none from the broker: nothing is written.
pub(crate) fn disconnect(version: Version, reason: ReasonCode, out: &mut Vec<u8>) {
    if version.is_v5() {
        out.extend_from_slice(&[0xE0, 1, reason.byte()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_bytes_of_the_standard() {
        let mut out = Vec::new();
        connack_refused(Version::V311, ReasonCode::UnsupportedProtocolVersion, &mut out);
        assert_eq!(out, [0x20, 2, 0, 1]);
        out.clear();
        connack_refused(Version::V311, ReasonCode::MalformedPacket, &mut out);
        assert!(out.is_empty());
        connack_refused(Version::V5, ReasonCode::MalformedPacket, &mut out);
        assert_eq!(out, [0x20, 3, 0, 0x81, 0]);
        out.clear();
        let answers = [
            Ok(Qos::AtMostOnce),
            Ok(Qos::AtLeastOnce),
            Ok(Qos::ExactlyOnce),
            Err(ReasonCode::QuotaExceeded),
        ];
        assert_eq!(suback(Version::V311, 258, &answers), [0x90, 6, 1, 2, 0, 1, 2, 0x80]);
        assert_eq!(suback(Version::V5, 258, &answers), [0x90, 7, 1, 2, 0, 0, 1, 2, 0x97]);
        assert_eq!(unsuback(Version::V311, 258, &[true, false]), [0xB0, 2, 1, 2]);
        assert_eq!(unsuback(Version::V5, 258, &[true, false]), [0xB0, 5, 1, 2, 0, 0, 0x11]);
        disconnect(Version::V311, ReasonCode::ProtocolError, &mut out);
        assert!(out.is_empty());
        disconnect(Version::V5, ReasonCode::SessionTakenOver, &mut out);
        assert_eq!(out, [0xE0, 1, 0x8E]);
    }
}

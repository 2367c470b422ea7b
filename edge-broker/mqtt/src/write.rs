//! Packets that the broker sends, but for PUBACK ([`puback`](crate::puback)) and PUBLISH
//! ([`message`](crate::message)).
//!
//! CONNACK, SUBACK and UNSUBACK are encoded by `rumqttd::protocol`. DISCONNECT is ours: the codec of
//! 0.20 writes a length that is one short.

use bytes::BytesMut;
use rumqttd::protocol::{
    self as codec, ConnAckProperties, Packet, Protocol, SubscribeReasonCode, UnsubAckReason,
};

use crate::frame::Version;
use crate::publish::Qos;
use crate::violation::ReasonCode;

pub(crate) const PINGRESP: [u8; 2] = [0xD0, 0];

/// CONNACK of a connection that was accepted. `properties` are for MQTT 5.
pub(crate) fn connack(version: Version, properties: ConnAckProperties, out: &mut Vec<u8>) {
    let packet = codec::ConnAck {
        // Sessions do not outlive connections yet.
        session_present: false,
        code: codec::ConnectReturnCode::Success,
    };
    encode(version, Packet::ConnAck(packet, Some(properties)), out);
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
    out: &mut Vec<u8>,
) {
    let return_codes = answers
        .iter()
        .map(|answer| match answer {
            Ok(Qos::AtMostOnce) => SubscribeReasonCode::QoS0,
            Ok(Qos::AtLeastOnce) => SubscribeReasonCode::QoS1,
            Err(_) if !version.is_v5() => SubscribeReasonCode::Failure,
            Err(ReasonCode::SharedSubscriptionsNotSupported) => {
                SubscribeReasonCode::SharedSubscriptionsNotSupported
            }
            Err(ReasonCode::QuotaExceeded) => SubscribeReasonCode::QuotaExceeded,
            Err(ReasonCode::NotAuthorized) => SubscribeReasonCode::NotAuthorized,
            Err(ReasonCode::TopicFilterInvalid) => SubscribeReasonCode::TopicFilterInvalid,
            Err(_) => SubscribeReasonCode::Unspecified,
        })
        .collect();
    encode(version, Packet::SubAck(codec::SubAck { pkid: packet_id, return_codes }, None), out);
}

/// UNSUBACK: one answer per filter, in order (MQTT 5; before, an UNSUBACK says nothing).
pub(crate) fn unsuback(version: Version, packet_id: u16, existed: &[bool], out: &mut Vec<u8>) {
    let reasons = existed
        .iter()
        .map(|existed| match existed {
            true => UnsubAckReason::Success,
            false => UnsubAckReason::NoSubscriptionExisted,
        })
        .collect();
    encode(version, Packet::UnsubAck(codec::UnsubAck { pkid: packet_id, reasons }, None), out);
}

/// DISCONNECT with a reason (MQTT 5). Older versions have none from the broker: nothing is written.
pub(crate) fn disconnect(version: Version, reason: ReasonCode, out: &mut Vec<u8>) {
    if version.is_v5() {
        out.extend_from_slice(&[0xE0, 1, reason.byte()]);
    }
}

fn encode(version: Version, packet: Packet, out: &mut Vec<u8>) {
    let mut bytes = BytesMut::new();
    let written = if version.is_v5() {
        codec::v5::V5.write(packet, &mut bytes)
    } else {
        codec::v4::V4.write(packet, &mut bytes)
    };
    // The codec only refuses packets above 256 MiB; ours have at most a few hundred bytes.
    debug_assert!(written.is_ok(), "an answer is small");
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_bytes_of_the_standard() {
        let mut out = Vec::new();
        connack(Version::V311, ConnAckProperties::default(), &mut out);
        assert_eq!(out, [0x20, 2, 0, 0]);
        out.clear();
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
            Err(ReasonCode::SharedSubscriptionsNotSupported),
        ];
        suback(Version::V311, 258, &answers, &mut out);
        assert_eq!(out, [0x90, 5, 1, 2, 0, 1, 0x80]);
        out.clear();
        suback(Version::V5, 258, &answers, &mut out);
        assert_eq!(out, [0x90, 6, 1, 2, 0, 0, 1, 0x9E]);
        out.clear();
        unsuback(Version::V311, 258, &[true, false], &mut out);
        assert_eq!(out, [0xB0, 2, 1, 2]);
        out.clear();
        unsuback(Version::V5, 258, &[true, false], &mut out);
        assert_eq!(out, [0xB0, 5, 1, 2, 0, 0, 0x11]);
        out.clear();
        disconnect(Version::V311, ReasonCode::ProtocolError, &mut out);
        assert!(out.is_empty());
        disconnect(Version::V5, ReasonCode::SessionTakenOver, &mut out);
        assert_eq!(out, [0xE0, 1, 0x8E]);
    }
}

//! Cuts a byte stream into packets and refuses, as early as the bytes allow, what a client must
//! not send.
//!
//! Limits: the size of a whole packet (fixed header included) is bounded by the caller; a packet
//! that is too large is refused when its length is known, before its body arrives. The packet type
//! and its flags are refused on the first byte.
//!
//! Source: MQTT 5.0 section 2.1, 3.1.1 section 2.2 (the same but for AUTH).

use std::fmt;

use crate::violation::Violation;

/// Size limit before CONNECT was accepted, in bytes.
pub const PACKET_BYTES_MAX_BEFORE_CONNECT: usize = 16 * 1024;

/// The DUP flag in the first byte.
pub const DUP: u8 = 0b1000;

/// Control packet types (MQTT 5.0 table 2-1), reserved ones left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// The protocol a connection speaks, from its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3. Differs from 3.1.1 only in CONNECT.
    V31,
    /// MQTT 3.1.1, level 4.
    V311,
    /// MQTT 5.0, level 5.
    V5,
}

impl Version {
    /// Whether packets carry properties and reason codes.
    #[must_use]
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }
}

/// One whole packet inside the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Packet type, one that a client may send (AUTH with MQTT 5 only).
    pub packet: PacketType,
    /// Lower four bits of the first byte, validated.
    pub flags: u8,
    /// Everything behind the fixed header.
    pub body: &'a [u8],
    /// The whole packet.
    pub bytes: &'a [u8],
}

/// What [`split`] found at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A packet that is complete.
    Frame(Frame<'a>),
    /// Not yet: the packet needs this many bytes in all, as far as is known.
    Incomplete {
        /// A lower bound until the length is complete, exact after.
        needed_bytes: usize,
    },
}

/// Takes one packet off the front of `bytes`.
///
/// # Errors
/// The rule that the fixed header breaks; nothing can be read after it.
#[inline]
pub fn split(
    bytes: &[u8],
    connected: bool,
    packet_bytes_max: usize,
) -> Result<Split<'_>, Violation> {
    let Some(&first) = bytes.first() else {
        return Ok(Split::Incomplete { needed_bytes: 2 });
    };
    let packet = check_first_byte(first, connected)?;

    let mut remaining = 0_usize;
    let mut header_bytes = 1_usize;
    loop {
        let Some(&byte) = bytes.get(header_bytes) else {
            return Ok(Split::Incomplete { needed_bytes: header_bytes + 1 });
        };
        remaining |= usize::from(byte & 0x7F) << (7 * (header_bytes - 1));
        header_bytes += 1;
        if byte & 0x80 == 0 {
            if byte == 0 && header_bytes > 2 {
                return Err(Violation::VarintNotMinimal);
            }
            break;
        }
        if header_bytes == 5 {
            return Err(Violation::VarintTooLong);
        }
    }

    let total = header_bytes + remaining;
    if total > packet_bytes_max {
        return Err(Violation::PacketTooLarge {
            found_bytes: total,
            limit_bytes: packet_bytes_max,
        });
    }
    match bytes.get(..total) {
        Some(whole) => Ok(Split::Frame(Frame {
            packet,
            flags: first & 0x0F,
            body: &whole[header_bytes..],
            bytes: whole,
        })),
        None => Ok(Split::Incomplete { needed_bytes: total }),
    }
}

#[inline]
fn check_first_byte(first: u8, connected: bool) -> Result<PacketType, Violation> {
    let number = first >> 4;
    let flags = first & 0x0F;
    if !connected && number != PacketType::Connect as u8 {
        return Err(Violation::FirstPacketNotConnect { found: number });
    }
    let (packet, flags_wanted) = match number {
        1 if connected => return Err(Violation::SecondConnect),
        1 => (PacketType::Connect, 0),
        // DUP, QoS and RETAIN: judged with the packet.
        3 => return Ok(PacketType::Publish),
        4 => (PacketType::Puback, 0),
        5 => (PacketType::Pubrec, 0),
        6 => (PacketType::Pubrel, 2),
        7 => (PacketType::Pubcomp, 0),
        8 => (PacketType::Subscribe, 2),
        10 => (PacketType::Unsubscribe, 2),
        12 => (PacketType::Pingreq, 0),
        14 => (PacketType::Disconnect, 0),
        15 => (PacketType::Auth, 0),
        2 => return Err(Violation::BrokerOnlyPacket { packet: PacketType::Connack }),
        9 => return Err(Violation::BrokerOnlyPacket { packet: PacketType::Suback }),
        11 => return Err(Violation::BrokerOnlyPacket { packet: PacketType::Unsuback }),
        13 => return Err(Violation::BrokerOnlyPacket { packet: PacketType::Pingresp }),
        found => return Err(Violation::PacketTypeNotAccepted { found }),
    };
    // MQTT 3.1 knows DUP on the packets that ask for an answer; the session refuses it for others.
    if flags != flags_wanted && (flags_wanted == 0 || flags != flags_wanted | DUP) {
        return Err(Violation::HeaderFlags { packet, found: flags });
    }
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8], connected: bool) -> Violation {
        split(bytes, connected, 1_000).expect_err("must be refused")
    }

    #[test]
    fn packets_only_a_broker_sends_are_refused_on_their_first_byte() {
        for (first, packet) in [
            (0x20, PacketType::Connack),
            (0x90, PacketType::Suback),
            (0xB0, PacketType::Unsuback),
            (0xD0, PacketType::Pingresp),
        ] {
            assert_eq!(refused(&[first], true), Violation::BrokerOnlyPacket { packet });
        }
    }

    #[test]
    fn nothing_but_connect_may_come_first() {
        for first in (0..=255_u8).filter(|first| first >> 4 != 1) {
            assert_eq!(
                refused(&[first], false),
                Violation::FirstPacketNotConnect { found: first >> 4 }
            );
        }
        // A TLS hello looks like CONNECT with flags, an HTTP GET like PUBACK.
        assert_eq!(
            refused(b"\x16\x03\x01", false),
            Violation::HeaderFlags { packet: PacketType::Connect, found: 6 }
        );
        assert_eq!(refused(b"GET /", false), Violation::FirstPacketNotConnect { found: 4 });
        assert_eq!(refused(&[0x10], true), Violation::SecondConnect);
    }

    #[test]
    fn reserved_flags_and_types_are_refused() {
        for first in [0x41, 0x58, 0x60, 0x71, 0x80, 0x83, 0xA0, 0xC1, 0xE1, 0xF8] {
            assert!(matches!(refused(&[first], true), Violation::HeaderFlags { .. }), "{first:#x}");
        }
        assert_eq!(refused(&[0x00], true), Violation::PacketTypeNotAccepted { found: 0 });
    }

    #[test]
    fn lengths_are_short_minimal_and_bounded() {
        assert_eq!(refused(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], true), Violation::VarintTooLong);
        assert_eq!(refused(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], true), Violation::VarintTooLong);
        assert_eq!(refused(&[0x30, 0x80, 0x00], true), Violation::VarintNotMinimal);
        assert_eq!(
            refused(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F], false),
            Violation::PacketTooLarge { found_bytes: 268_435_460, limit_bytes: 1_000 }
        );
        assert_eq!(split(&[], true, 9), Ok(Split::Incomplete { needed_bytes: 2 }));
        assert_eq!(split(&[0x30], true, 9), Ok(Split::Incomplete { needed_bytes: 2 }));
        assert_eq!(split(&[0x30, 0x80], true, 9), Ok(Split::Incomplete { needed_bytes: 3 }));
        assert_eq!(split(&[0x30, 5, 1], true, 9), Ok(Split::Incomplete { needed_bytes: 7 }));
        let bytes = [0xC0, 0, 0xC0, 0];
        let Ok(Split::Frame(frame)) = split(&bytes, true, 2) else { panic!("a whole PINGREQ") };
        assert_eq!((frame.packet, frame.bytes.len()), (PacketType::Pingreq, 2));
    }
}

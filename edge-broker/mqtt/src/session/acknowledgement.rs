//! PUBACK, PUBREC, PUBREL and PUBCOMP from a client. Ours for speed: one comes for every QoS 1 delivery.
//!
//! Source: MQTT 5.0 sections 3.4 to 3.7; 3.1.1 the same, without reason and properties.

use std::num::NonZeroU16;

use crate::frame::{Frame, PacketType, Version};
use crate::property;
use crate::reader::Reader;
use crate::violation::Violation;

/// The identifier and the reason code, 0 where there is none.
pub(super) fn parse(frame: &Frame<'_>, version: Version) -> Result<(NonZeroU16, u8), Violation> {
    let packet = frame.packet;
    let mut reader = Reader::new(packet, frame.body);
    let packet_id = NonZeroU16::new(reader.two()?).ok_or(Violation::PacketIdZero { packet })?;
    let mut reason = 0;
    if version.is_v5() && !reader.is_empty() {
        reason = reader.byte()?;
        let is_known = match packet {
            PacketType::Puback | PacketType::Pubrec => {
                matches!(reason, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            _ => matches!(reason, 0x00 | 0x92),
        };
        if !is_known {
            return Err(Violation::ReasonCodeNotAllowed { packet, found: reason });
        }
        if !reader.is_empty() {
            property::walk(packet, reader.section()?, property::IN_PUBACK, |_, _| Ok(()))?;
        }
    }
    reader.finish()?;
    Ok((packet_id, reason))
}

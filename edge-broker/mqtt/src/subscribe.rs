//! SUBSCRIBE and UNSUBSCRIBE: strict checks here, then decoding by `rumqttd::protocol`.
//!
//! The codec alone would accept empty filters, misplaced wildcards, NUL, reserved option bits and
//! repeated properties, and reads past subscription identifiers by one. Nothing reaches it that was
//! not walked here from the first to the last byte; if it refuses all the same, the packet is
//! refused ([`Violation::Codec`]).
//!
//! Limits: [`FILTERS_MAX`] filters per packet.
//!
//! Source: MQTT 5.0 sections 3.8, 3.10; 3.1.1 sections 3.8, 3.10.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;
use rumqttd::protocol::{self as codec, Packet, Protocol, RetainForwardRule};

use crate::frame::{Frame, PacketType, Version};
use crate::property;
use crate::publish::Qos;
use crate::reader::Reader;
use crate::subscriptions::SubscriptionOptions;
use crate::topic_filter::{FilterError, SHARE_PREFIX, split_share, validate_filter};
use crate::violation::Violation;

/// Most topic filters in one SUBSCRIBE or UNSUBSCRIBE.
pub const FILTERS_MAX: usize = 256;

/// A SUBSCRIBE that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Goes back in the SUBACK.
    pub packet_id: NonZeroU16,
    /// What is asked for, in order.
    pub filters: Vec<RequestedFilter>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedFilter {
    /// A valid topic filter, or a valid `$share/NAME/FILTER`.
    pub filter: String,
    /// Options as asked for.
    pub options: SubscriptionOptions,
}

/// An UNSUBSCRIBE that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Goes back in the UNSUBACK.
    pub packet_id: NonZeroU16,
    /// Filters to remove, in order.
    pub filters: Vec<String>,
}

impl Subscribe {
    /// Checks and decodes.
    ///
    /// # Errors
    /// The first rule that the packet breaks.
    pub fn parse(frame: &Frame<'_>, version: Version) -> Result<Self, Violation> {
        let packet = PacketType::Subscribe;
        let subscription_id = validate(packet, frame.body, version)?;
        let Packet::Subscribe(decoded, _) = decode(frame, version)? else {
            return Err(Violation::Codec { packet });
        };
        let packet_id = NonZeroU16::new(decoded.pkid).ok_or(Violation::PacketIdZero { packet })?;
        let filters = decoded
            .filters
            .into_iter()
            .map(|filter| RequestedFilter {
                options: SubscriptionOptions {
                    qos: match filter.qos {
                        codec::QoS::AtMostOnce => Qos::AtMostOnce,
                        codec::QoS::AtLeastOnce => Qos::AtLeastOnce,
                        codec::QoS::ExactlyOnce => Qos::ExactlyOnce,
                    },
                    no_local: filter.nolocal,
                    retain_as_published: filter.preserve_retain,
                    retain_handling: match filter.retain_forward_rule {
                        RetainForwardRule::OnEverySubscribe => 0,
                        RetainForwardRule::OnNewSubscribe => 1,
                        RetainForwardRule::Never => 2,
                    },
                    subscription_id,
                },
                filter: filter.path,
            })
            .collect();
        Ok(Self { packet_id, filters })
    }
}

impl Unsubscribe {
    /// Checks and decodes.
    ///
    /// # Errors
    /// The first rule that the packet breaks.
    pub fn parse(frame: &Frame<'_>, version: Version) -> Result<Self, Violation> {
        let packet = PacketType::Unsubscribe;
        validate(packet, frame.body, version)?;
        let Packet::Unsubscribe(decoded, _) = decode(frame, version)? else {
            return Err(Violation::Codec { packet });
        };
        let packet_id = NonZeroU16::new(decoded.pkid).ok_or(Violation::PacketIdZero { packet })?;
        Ok(Self { packet_id, filters: decoded.filters })
    }
}

fn decode(frame: &Frame<'_>, version: Version) -> Result<Packet, Violation> {
    let mut bytes = BytesMut::from(frame.bytes);
    let decoded = if version.is_v5() {
        codec::v5::V5.read_mut(&mut bytes, frame.bytes.len())
    } else {
        codec::v4::V4.read_mut(&mut bytes, frame.bytes.len())
    };
    decoded.map_err(|_| Violation::Codec { packet: frame.packet })
}

/// Walks the whole body. Returns the subscription identifier.
fn validate(
    packet: PacketType,
    body: &[u8],
    version: Version,
) -> Result<Option<NonZeroU32>, Violation> {
    let mut reader = Reader::new(packet, body);
    if reader.two()? == 0 {
        return Err(Violation::PacketIdZero { packet });
    }
    let mut subscription_id = None;
    if version.is_v5() {
        let allowed = match packet {
            PacketType::Subscribe => property::IN_SUBSCRIBE,
            _ => property::IN_UNSUBSCRIBE,
        };
        property::walk(packet, reader.section()?, allowed, |id, value| {
            if id == property::SUBSCRIPTION_IDENTIFIER {
                subscription_id = NonZeroU32::new(value.number());
            }
            Ok(())
        })?;
    }
    let mut count = 0_usize;
    while !reader.is_empty() {
        count += 1;
        if count > FILTERS_MAX {
            return Err(Violation::TooManyFilters { packet, limit: FILTERS_MAX });
        }
        let filter = reader.utf8()?;
        validate_filter(filter).map_err(Violation::Filter)?;
        if filter.starts_with(SHARE_PREFIX) && split_share(filter).is_none() {
            return Err(Violation::Filter(FilterError::Share));
        }
        if packet == PacketType::Subscribe {
            check_options(reader.byte()?, version, filter)?;
        }
    }
    if count == 0 {
        return Err(Violation::NoFilter { packet });
    }
    Ok(subscription_id)
}

fn check_options(options: u8, version: Version, filter: &str) -> Result<(), Violation> {
    let reserved = if version.is_v5() { 0xC0 } else { 0xFC };
    if options & reserved != 0 {
        return Err(Violation::SubscriptionOptions { found: options });
    }
    if options & 0x03 == 0x03 {
        return Err(Violation::Qos3);
    }
    let no_local_on_shared = options & 0x04 != 0 && filter.starts_with(SHARE_PREFIX);
    if options & 0x30 == 0x30 || no_local_on_shared {
        return Err(Violation::SubscriptionOptionsValue { found: options });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Split, split};
    use crate::violation::ReasonCode;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        match split(bytes, true, 4_096) {
            Ok(Split::Frame(frame)) => frame,
            other => panic!("a whole packet expected, {other:?}"),
        }
    }

    #[test]
    fn filters_and_options_are_read() {
        let bytes = b"\x82\x0c\x00\x07\x00\x03a/+\x01\x00\x01#\x00";
        let subscribe = Subscribe::parse(&frame(bytes), Version::V311).expect("valid");
        assert_eq!(subscribe.packet_id.get(), 7);
        assert_eq!(subscribe.filters[0].filter, "a/+");
        assert_eq!(subscribe.filters[0].options.qos, Qos::AtLeastOnce);
        assert_eq!(subscribe.filters[1].options.qos, Qos::AtMostOnce);

        // Subscription identifier 300 behind a user property, No Local, Retain As Published.
        let bytes = b"\x82\x14\x00\x01\x0a\x26\x00\x01k\x00\x01v\x0b\xac\x02\x00\x04\xc3\xbc/#\x1e";
        let subscribe = Subscribe::parse(&frame(bytes), Version::V5).expect("valid");
        let options = subscribe.filters[0].options;
        assert_eq!(subscribe.filters[0].filter, "ü/#");
        assert_eq!(options.subscription_id.map(NonZeroU32::get), Some(300));
        assert!(options.no_local && options.retain_as_published);
        assert_eq!((options.qos, options.retain_handling), (Qos::ExactlyOnce, 1));
    }

    #[test]
    fn the_identifier_may_stand_in_front_of_other_properties() {
        let bytes = b"\x82\x0f\x00\x01\x09\x0b\x05\x26\x00\x01k\x00\x01v\x00\x01a\x00";
        let bytes = [&[0x82, 0x10], &bytes[2..]].concat();
        let subscribe = Subscribe::parse(&frame(&bytes), Version::V5).expect("valid");
        assert_eq!(subscribe.filters[0].options.subscription_id.map(NonZeroU32::get), Some(5));
    }

    #[test]
    fn a_share_has_a_name_and_a_filter() {
        let parse = |filter: &str| {
            let length = u8::try_from(filter.len()).expect("short");
            let head = [0x82, length + 5, 0, 1, 0, length];
            let bytes = [&head, filter.as_bytes(), &[0]].concat();
            Subscribe::parse(&frame(&bytes), Version::V311).map(|_| ())
        };
        for filter in ["$share/g/t", "$share/g//", "$share/g/#", "$share"] {
            assert_eq!(parse(filter), Ok(()), "{filter}");
        }
        for filter in ["$share/", "$share/g", "$share/g/", "$share//t", "$share/+/t"] {
            assert_eq!(parse(filter), Err(Violation::Filter(FilterError::Share)), "{filter}");
        }
    }

    #[test]
    fn each_rule_has_its_reason_code() {
        let v4 = Version::V311;
        let v5 = Version::V5;
        let cases: &[(&[u8], Version, ReasonCode)] = &[
            (b"\x82\x06\x00\x00\x00\x01a\x00", v4, ReasonCode::ProtocolError), // id 0
            (b"\x82\x02\x00\x01", v4, ReasonCode::ProtocolError),              // no filter
            (b"\x82\x05\x00\x01\x00\x01a", v4, ReasonCode::MalformedPacket),   // no options
            (b"\x82\x06\x00\x01\x00\x01a\x03", v4, ReasonCode::MalformedPacket), // QoS 3
            (b"\x82\x06\x00\x01\x00\x01a\x04", v4, ReasonCode::MalformedPacket), // reserved
            (b"\x82\x07\x00\x01\x00\x00\x01a\x40", v5, ReasonCode::MalformedPacket),
            (b"\x82\x07\x00\x01\x00\x00\x01a\x30", v5, ReasonCode::ProtocolError),
            (b"\x82\x05\x00\x01\x00\x00\x00", v4, ReasonCode::TopicFilterInvalid), // empty
            (b"\x82\x07\x00\x01\x00\x02a#\x00", v4, ReasonCode::TopicFilterInvalid),
            (b"\x82\x0a\x00\x01\x00\x05a/#/b\x00", v4, ReasonCode::TopicFilterInvalid),
            (b"\x82\x07\x00\x01\x00\x02a\x00\x00", v4, ReasonCode::MalformedPacket), // NUL
            (b"\x82\x06\x00\x01\x00\x01\xff\x00", v4, ReasonCode::MalformedPacket),  // not UTF-8
            (b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", v5, ReasonCode::ProtocolError),
            (b"\x82\x0b\x00\x01\x04\x0b\x01\x0b\x01\x00\x01a\x00", v5, ReasonCode::ProtocolError),
        ];
        for (bytes, version, reason) in cases {
            let violation = Subscribe::parse(&frame(bytes), *version).expect_err("refused");
            assert_eq!(violation.reason(), *reason, "{bytes:x?}: {violation}");
        }
    }

    #[test]
    fn unsubscribe_is_read_and_checked() {
        let bytes = b"\xa2\x08\x00\x05\x00\x01a\x00\x01b";
        let unsubscribe = Unsubscribe::parse(&frame(bytes), Version::V311).expect("valid");
        assert_eq!(unsubscribe.filters, ["a", "b"]);
        let bytes = b"\xa2\x02\x00\x05";
        assert!(Unsubscribe::parse(&frame(bytes), Version::V311).is_err());
        let bytes = b"\xa2\x09\x00\x05\x00\x00\x01a\x00\x01+";
        let unsubscribe = Unsubscribe::parse(&frame(bytes), Version::V5).expect("valid");
        assert_eq!(unsubscribe.filters, ["a", "+"]);
    }
}

//! What of a PUBLISH becomes headers of its record, and how the PUBLISH is rebuilt from them.
//!
//! | header | value |
//! |---|---|
//! | `mqtt.topic`, `mqtt.client` | UTF-8 |
//! | `mqtt.qos` | `0`, `1` or `2` |
//! | `mqtt.retain` | `0` or `1` |
//! | `mqtt.payload_format_indicator`, `mqtt.message_expiry_interval` | decimal digits |
//! | `mqtt.content_type`, `mqtt.response_topic` | UTF-8 |
//! | `mqtt.correlation_data` | the bytes |
//! | user property | name and value; order and duplicates are kept |
//!
//! A user property whose name is `mqtt.`... with any number of `user.` in front gets one more
//! `user.`, so that it can neither be taken for one of ours nor be confused with another.
//!
//! Kept: topic, payload, QoS, retain, every property. Not kept: DUP and the packet identifier, which
//! belong to one transmission; the order of properties of different kinds, which means nothing
//! (MQTT 5.0 section 2.2.2.2). The order of user properties is kept.

use std::borrow::Cow;

use crate::frame::PacketType;
use crate::property::{self, Value};
use crate::publish::{Publish, Qos};
use crate::topic_filter::validate_topic;

/// Header with the MQTT topic.
pub const TOPIC: &str = "mqtt.topic";
/// Header with the client id of the publisher.
pub const CLIENT: &str = "mqtt.client";
/// Header with the QoS of the PUBLISH.
pub const QOS: &str = "mqtt.qos";
/// Header with the retain flag of the PUBLISH.
pub const RETAIN: &str = "mqtt.retain";
/// Header of MQTT 5's Payload Format Indicator.
pub const PAYLOAD_FORMAT_INDICATOR: &str = "mqtt.payload_format_indicator";
/// Header of MQTT 5's Message Expiry Interval, in seconds.
pub const MESSAGE_EXPIRY_INTERVAL: &str = "mqtt.message_expiry_interval";
/// Header of MQTT 5's Content Type.
pub const CONTENT_TYPE: &str = "mqtt.content_type";
/// Header of MQTT 5's Response Topic.
pub const RESPONSE_TOPIC: &str = "mqtt.response_topic";
/// Header of MQTT 5's Correlation Data.
pub const CORRELATION_DATA: &str = "mqtt.correlation_data";

const OURS: &str = "mqtt.";
const ESCAPE: &str = "user.";

/// Calls `put` with name and value of every header of the record of `publish`, in order.
pub fn headers(publish: &Publish<'_>, client_id: &str, mut put: impl FnMut(&str, &[u8])) {
    put(TOPIC, publish.topic.as_bytes());
    put(CLIENT, client_id.as_bytes());
    put(QOS, &[b'0' + publish.qos.byte()]);
    put(RETAIN, if publish.retain { b"1" } else { b"0" });
    if publish.properties_raw.is_empty() {
        return;
    }
    let walked =
        property::walk(PacketType::Publish, publish.properties_raw, property::IN_PUBLISH, {
            |id, value| {
                put_property(id, &value, &mut put);
                Ok(())
            }
        });
    debug_assert!(walked.is_ok(), "properties were validated when they arrived");
}

fn put_property(id: u8, value: &Value<'_>, put: &mut impl FnMut(&str, &[u8])) {
    match (id, *value) {
        (property::PAYLOAD_FORMAT_INDICATOR, Value::Byte(number)) => {
            put(PAYLOAD_FORMAT_INDICATOR, number.to_string().as_bytes());
        }
        (property::MESSAGE_EXPIRY_INTERVAL, Value::Four(number)) => {
            put(MESSAGE_EXPIRY_INTERVAL, number.to_string().as_bytes());
        }
        (property::CONTENT_TYPE, Value::Text(text)) => put(CONTENT_TYPE, text.as_bytes()),
        (property::RESPONSE_TOPIC, Value::Text(text)) => put(RESPONSE_TOPIC, text.as_bytes()),
        (property::CORRELATION_DATA, Value::Binary(bytes)) => put(CORRELATION_DATA, bytes),
        (_, Value::Pair(name, text)) => put(&escape(name), text.as_bytes()),
        _ => {}
    }
}

/// A PUBLISH rebuilt from the headers and the value of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Topic name.
    pub topic: String,
    /// Client id of the publisher.
    pub client_id: String,
    /// QoS as published.
    pub qos: Qos,
    /// Retain flag as published.
    pub retain: bool,
    /// MQTT 5 properties: the user properties in their order, behind the others.
    pub properties_raw: Vec<u8>,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
}

impl Rebuilt {
    /// Reads the headers of a record. `None` when it did not come over MQTT: a header that every
    /// such record has is missing or cannot be read.
    pub fn from_headers<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> Option<Self> {
        let (mut topic, mut client_id, mut qos, mut retain) = (None, None, None, None);
        let mut expiry_s = None;
        let mut properties_raw = Vec::new();
        let mut user_properties = Vec::new();
        let text = |value: &'h [u8]| std::str::from_utf8(value).ok();
        let mut put = |id, value: Value<'_>| property::put(&mut properties_raw, id, &value);
        for (name, value) in headers {
            match name {
                TOPIC => topic = text(value).filter(|topic| validate_topic(topic).is_ok()),
                CLIENT => client_id = text(value),
                QOS => {
                    qos = match value {
                        b"0" => Some(Qos::AtMostOnce),
                        b"1" => Some(Qos::AtLeastOnce),
                        b"2" => Some(Qos::ExactlyOnce),
                        _ => None,
                    }
                }
                RETAIN => retain = Some(value == b"1"),
                PAYLOAD_FORMAT_INDICATOR => {
                    let number = text(value)?.parse().ok()?;
                    put(property::PAYLOAD_FORMAT_INDICATOR, Value::Byte(number));
                }
                MESSAGE_EXPIRY_INTERVAL => {
                    let number = text(value)?.parse().ok()?;
                    expiry_s = Some(number);
                    put(property::MESSAGE_EXPIRY_INTERVAL, Value::Four(number));
                }
                CONTENT_TYPE => put(property::CONTENT_TYPE, Value::Text(text(value)?)),
                RESPONSE_TOPIC => put(property::RESPONSE_TOPIC, Value::Text(text(value)?)),
                CORRELATION_DATA => put(property::CORRELATION_DATA, Value::Binary(value)),
                name => {
                    let pair = Value::Pair(unescape(name), text(value)?);
                    property::put(&mut user_properties, property::USER_PROPERTY, &pair);
                }
            }
        }
        properties_raw.extend_from_slice(&user_properties);
        Some(Self {
            topic: topic?.to_owned(),
            client_id: client_id?.to_owned(),
            qos: qos?,
            retain: retain?,
            properties_raw,
            expiry_s,
        })
    }

    /// The PUBLISH, with the value of the record as its payload.
    #[must_use]
    pub fn publish<'a>(&'a self, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: None,
            properties_raw: &self.properties_raw,
            topic_alias: None,
            expiry_s: self.expiry_s,
            payload,
        }
    }
}

/// Whether `name`, without any `user.` in front, begins with `mqtt.`.
fn is_guarded(name: &str) -> bool {
    let mut rest = name;
    while let Some(shorter) = rest.strip_prefix(ESCAPE) {
        rest = shorter;
    }
    rest.starts_with(OURS)
}

fn escape(name: &str) -> Cow<'_, str> {
    if is_guarded(name) { Cow::Owned(format!("{ESCAPE}{name}")) } else { Cow::Borrowed(name) }
}

fn unescape(name: &str) -> &str {
    match name.strip_prefix(ESCAPE) {
        Some(inner) if is_guarded(inner) => inner,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(publish: &Publish<'_>) -> Vec<(String, Vec<u8>)> {
        let mut kept = Vec::new();
        headers(publish, "sensor-7", |name, value| kept.push((name.to_owned(), value.to_vec())));
        kept
    }

    fn round_trip(properties_raw: &[u8], expiry_s: Option<u32>) -> Rebuilt {
        let publish = Publish {
            dup: true,
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "plant/ü/t",
            packet_id: None,
            properties_raw,
            topic_alias: None,
            expiry_s,
            payload: b"\x00\xff",
        };
        let kept = kept(&publish);
        let rebuilt =
            Rebuilt::from_headers(kept.iter().map(|(name, value)| (name.as_str(), &value[..])))
                .expect("from MQTT");
        assert_eq!(rebuilt.client_id, "sensor-7");
        assert_eq!(
            rebuilt.publish(b"\x00\xff"),
            Publish { dup: false, properties_raw: &rebuilt.properties_raw, ..publish }
        );
        rebuilt
    }

    #[test]
    fn a_publish_can_be_rebuilt_from_its_record() {
        let mut raw = Vec::new();
        raw.extend_from_slice(b"\x01\x01");
        raw.extend_from_slice(b"\x02\x00\x00\x0e\x10");
        raw.extend_from_slice(b"\x03\x00\x10application/json");
        raw.extend_from_slice(b"\x08\x00\x05reply");
        raw.extend_from_slice(b"\x09\x00\x03\x00\xff\x01");
        for (name, value) in [
            ("b", "2"),
            ("a", "1"),
            ("b", "2"),
            ("", ""),
            ("mqtt.topic", "x"),
            ("user.mqtt.q", "y"),
        ] {
            property::put(&mut raw, property::USER_PROPERTY, &Value::Pair(name, value));
        }
        let rebuilt = round_trip(&raw, Some(3_600));
        assert_eq!(rebuilt.properties_raw, raw, "same properties, same user property order");
        assert_eq!(round_trip(b"", None).properties_raw, b"");
    }

    #[test]
    fn user_properties_cannot_pretend_to_be_ours() {
        let mut raw = Vec::new();
        for name in ["mqtt.client", "user.mqtt.client", "user.x", "mqttx"] {
            property::put(&mut raw, property::USER_PROPERTY, &Value::Pair(name, "v"));
        }
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties_raw: &raw,
            topic_alias: None,
            expiry_s: None,
            payload: b"",
        };
        let names: Vec<_> = kept(&publish).into_iter().map(|(name, _)| name).collect();
        let ours = [TOPIC, CLIENT, QOS, RETAIN];
        let theirs = ["user.mqtt.client", "user.user.mqtt.client", "user.x", "mqttx"];
        assert_eq!(names, [ours, theirs].concat());
    }

    #[test]
    fn a_record_that_did_not_come_over_mqtt_is_not_taken_for_one() {
        let headers = [("k", b"v".as_slice()), (TOPIC, b"t")];
        assert_eq!(Rebuilt::from_headers(headers.into_iter()), None);
    }
}

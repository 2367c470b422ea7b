//! The file as it is written: every key optional, every value with its place. Meaning is given to it in `build`.

use std::collections::BTreeMap;
use std::fmt;

use boards::units::{Bytes, Millis};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

pub(crate) type Text = Option<Spanned<String>>;
pub(crate) type Number = Option<Spanned<Whole>>;
pub(crate) type Size = Option<Spanned<Bytes>>;
pub(crate) type Time = Option<Spanned<Millis>>;
pub(crate) type Switch = Option<Spanned<bool>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    pub(crate) gateway: Text,
    pub(crate) data_dir: Text,
    pub(crate) board: Text,
    #[serde(default)]
    pub(crate) mqtt: RawMqtt,
    #[serde(default)]
    pub(crate) kafka: RawKafka,
    #[serde(default)]
    pub(crate) route: Vec<Spanned<RawRoute>>,
    #[serde(default)]
    pub(crate) topic: Vec<Spanned<RawTopic>>,
    #[serde(default)]
    pub(crate) lane: BTreeMap<Spanned<String>, Spanned<RawLane>>,
    pub(crate) uplink: Option<Spanned<RawUplink>>,
    #[serde(default)]
    pub(crate) flash: RawFlash,
    #[serde(default)]
    pub(crate) tls: RawTls,
    #[serde(default)]
    pub(crate) auth: RawAuth,
    #[serde(default)]
    pub(crate) log: RawLog,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFlash {
    pub(crate) wear_budget: Text,
    pub(crate) card_endurance: Text,
    pub(crate) scrub: Text,
    pub(crate) scrub_every: Time,
    pub(crate) reserve: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTls {
    pub(crate) cert: Text,
    pub(crate) key: Text,
    pub(crate) client_ca: Text,
    pub(crate) client_certificate: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAuth {
    pub(crate) file: Text,
    pub(crate) anonymous: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMqtt {
    pub(crate) listen: Text,
    pub(crate) tls_listen: Text,
    pub(crate) ws_listen: Text,
    pub(crate) wss_listen: Text,
    pub(crate) denied_publish_v3: Text,
    pub(crate) max_packet_bytes: Size,
    pub(crate) max_connections: Number,
    pub(crate) max_connections_per_address: Number,
    pub(crate) max_connections_per_identity: Number,
    pub(crate) connect_deadline: Time,
    pub(crate) accept_rate: Number,
    pub(crate) max_handshakes: Number,
    pub(crate) ban_after: Number,
    pub(crate) ban: Time,
    pub(crate) memory: Size,
    pub(crate) receive_maximum: Number,
    pub(crate) max_subscriptions: Number,
    pub(crate) sys_interval: Time,
    pub(crate) dead_letter: Text,
    pub(crate) insecure_remote: Switch,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawKafka {
    pub(crate) listen: Text,
    pub(crate) advertised: Text,
    pub(crate) auto_create_topics: Switch,
    pub(crate) default_partitions: Number,
    pub(crate) default_lane: Text,
    pub(crate) max_connections: Number,
    pub(crate) max_request_bytes: Size,
    pub(crate) max_batch_bytes: Size,
    pub(crate) insecure_remote: Switch,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRoute {
    pub(crate) filter: Text,
    pub(crate) topic: Text,
    pub(crate) key: Text,
    pub(crate) lane: Text,
    pub(crate) partitions: Number,
    pub(crate) headers: Option<Spanned<RawHeaders>>,
    pub(crate) store: Switch,
    pub(crate) timestamp: Option<Spanned<RawTimestamp>>,
    pub(crate) retention: Time,
    pub(crate) retention_ms: Number,
    pub(crate) retention_bytes: Size,
    pub(crate) cleanup: Text,
    pub(crate) delete_retention: Time,
    pub(crate) max_message_bytes: Size,
    pub(crate) timestamps: Text,
    pub(crate) timestamp_before_max: Time,
    pub(crate) timestamp_after_max: Time,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTopic {
    pub(crate) name: Text,
    pub(crate) lane: Text,
    pub(crate) partitions: Number,
    pub(crate) retention: Time,
    pub(crate) retention_ms: Number,
    pub(crate) retention_bytes: Size,
    pub(crate) cleanup: Text,
    pub(crate) delete_retention: Time,
    pub(crate) max_message_bytes: Size,
    pub(crate) timestamps: Text,
    pub(crate) timestamp_before_max: Time,
    pub(crate) timestamp_after_max: Time,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLane {
    pub(crate) budget: Size,
    pub(crate) segment: Size,
    pub(crate) when_full: Text,
    pub(crate) drop_unsent: Switch,
    pub(crate) decay: Text,
    pub(crate) refuse_after: Time,
    pub(crate) inflight_bytes: Size,
    pub(crate) inflight_total_bytes: Size,
    pub(crate) retention: Time,
    pub(crate) retention_ms: Number,
    pub(crate) retention_bytes: Size,
    pub(crate) durability: Text,
    pub(crate) interval_ms: Number,
    pub(crate) commit_window_ms: Number,
    pub(crate) commit_window_max_ms: Number,
    pub(crate) syncs_per_second: Number,
    pub(crate) sync_burst: Number,
    pub(crate) compression: Text,
    pub(crate) queue_bytes: Size,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawUplink {
    pub(crate) bootstrap: Option<Spanned<Vec<Spanned<String>>>>,
    pub(crate) via: Text,
    pub(crate) topic: Text,
    pub(crate) create_topics: Switch,
    pub(crate) partitions: Number,
    pub(crate) compression: Text,
    pub(crate) batch_bytes: Size,
    pub(crate) linger_ms: Number,
    pub(crate) window_bytes: Size,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLog {
    pub(crate) format: Text,
    pub(crate) level: Text,
}

/// A whole number; its range is checked where its meaning is known.
#[derive(Clone, Copy)]
pub(crate) struct Whole(pub(crate) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number without quotes")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Whole, E> {
                Ok(Whole(value))
            }
        }
        deserializer.deserialize_any(WholeVisitor)
    }
}

/// `"all"`, `"none"` or a list of names.
pub(crate) enum RawHeaders {
    Word(String),
    List(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for RawHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;
        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = RawHeaders;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\", \"none\" or a list of header names")
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<RawHeaders, E> {
                Ok(RawHeaders::Word(word.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawHeaders, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(RawHeaders::List(names))
            }
        }
        deserializer.deserialize_any(HeadersVisitor)
    }
}

/// `"now"` or `{ field = "ts", unit = "ms" }`.
pub(crate) enum RawTimestamp {
    Word(String),
    Field(RawTimestampField),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTimestampField {
    pub(crate) field: Text,
    pub(crate) unit: Text,
}

impl<'de> Deserialize<'de> for RawTimestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimestampVisitor;
        impl<'de> Visitor<'de> for TimestampVisitor {
            type Value = RawTimestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"now\" or { field = \"ts\", unit = \"ms\" }")
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<RawTimestamp, E> {
                Ok(RawTimestamp::Word(word.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawTimestamp, A::Error> {
                RawTimestampField::deserialize(MapAccessDeserializer::new(map))
                    .map(RawTimestamp::Field)
            }
        }
        deserializer.deserialize_any(TimestampVisitor)
    }
}

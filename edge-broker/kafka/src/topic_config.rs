//! Topic settings by their Kafka names: ours ([`TopicKey`]), the lane, and what is done about the rest of Kafka's.
//!
//! - Settings that promise something a gateway of one node does not do are refused, unless they are asked for with
//!   the value that says what is the case anyway (`min.insync.replicas = 1`).
//! - Settings that only tune how Kafka stores its segments (`segment.bytes`, `flush.messages`) are accepted and
//!   ignored: whatever they say, a lane stores as it stores, and Kafka Streams and Connect send them always.
//! - Any other name is an error.

use edge_engine::{Topic, TopicConfig, TopicKey};

pub(crate) const LANE: &str = "edge.lane";

/// What tunes segment files, indexes and the cleaner of a Kafka broker.
const STORAGE_HINTS: &[&str] = &[
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "min.cleanable.dirty.ratio",
    "preallocate",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
];

/// What may only be asked for as it is.
const FIXED: &[(&str, &[&str])] = &[
    ("compression.type", &["producer"]),
    ("follower.replication.throttled.replicas", &[""]),
    ("leader.replication.throttled.replicas", &[""]),
    ("local.retention.bytes", &["-2"]),
    ("local.retention.ms", &["-2"]),
    ("max.compaction.lag.ms", &["9223372036854775807"]),
    ("message.downconversion.enable", &["true", "false"]),
    ("min.compaction.lag.ms", &["0"]),
    ("min.insync.replicas", &["1"]),
    ("remote.storage.enable", &["false"]),
    ("unclean.leader.election.enable", &["false"]),
];

/// What a client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) config: TopicConfig,
    pub(crate) lane: Option<String>,
}

/// One setting as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    /// Its value where nobody sets it, if there is such a value.
    pub(crate) default: Option<String>,
    pub(crate) is_set: bool,
    pub(crate) kind: Kind,
}

/// The type of a setting, as DescribeConfigs numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    List = 7,
}

/// Why settings are refused: a sentence for the client.
pub(crate) type Refusal = String;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Key(TopicKey),
    Lane,
    /// Nothing to be done, whatever the value.
    Ignored,
}

/// Understands a name and, unless it is to be put back to its default, looks whether the value is one that can be
/// had here. Values of [`TopicKey`]s are read where they are set.
pub(crate) fn named(name: &str, value: Option<&str>) -> Result<Named, Refusal> {
    if let Some(key) = TopicKey::from_name(name) {
        return Ok(Named::Key(key));
    }
    if name == LANE {
        return Ok(Named::Lane);
    }
    if STORAGE_HINTS.contains(&name) {
        return Ok(Named::Ignored);
    }
    let Some((_, possible)) = FIXED.iter().find(|(fixed, _)| *fixed == name) else {
        let mut known: Vec<&str> = TopicKey::ALL.into_iter().map(TopicKey::name).collect();
        known.push(LANE);
        known.sort_unstable();
        return Err(format!("there is no topic setting '{name}'; there are {}", known.join(", ")));
    };
    match value {
        Some(value) if !possible.contains(&value.trim()) => Err(format!(
            "{name} = '{value}': this gateway only has {}",
            possible.first().map_or("nothing", |only| if only.is_empty() { "none" } else { only })
        )),
        _ => Ok(Named::Ignored),
    }
}

/// From names and values; a null value means the default.
pub(crate) fn parse<'a>(
    settings: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<Asked, Refusal> {
    let mut asked = Asked::default();
    for (name, value) in settings {
        match (named(name, value)?, value) {
            (Named::Key(key), Some(value)) => {
                key.set(&mut asked.config, value).map_err(|error| error.to_string())?;
            }
            (Named::Lane, Some(value)) => asked.lane = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    Ok(asked)
}

/// All settings of a topic.
pub(crate) fn describe(topic: &Topic, lane_default: &str) -> Vec<Setting> {
    let config = topic.config();
    let default = TopicConfig::default();
    let lane = Setting {
        name: LANE,
        value: topic.lane().to_owned(),
        default: Some(lane_default.to_owned()),
        is_set: topic.lane() != lane_default,
        kind: Kind::Text,
    };
    let keys = TopicKey::ALL.into_iter().map(|key| Setting {
        name: key.name(),
        value: key.value(config),
        default: Some(key.value(&default)),
        is_set: key.is_set(config),
        kind: kind(key),
    });
    let mut settings: Vec<_> = std::iter::once(lane).chain(keys).collect();
    settings.sort_by_key(|setting| setting.name);
    settings
}

fn kind(key: TopicKey) -> Kind {
    match key {
        TopicKey::CleanupPolicy => Kind::List,
        TopicKey::MaxMessageBytes => Kind::Int,
        TopicKey::TimestampType => Kind::Text,
        _ => Kind::Long,
    }
}

#[cfg(test)]
mod tests {
    use edge_engine::{CleanupPolicy, TimestampType};

    use super::*;

    fn asked(settings: &[(&str, Option<&str>)]) -> Result<Asked, Refusal> {
        parse(settings.iter().copied())
    }

    #[test]
    fn settings_of_kafka_are_understood() {
        let asked = asked(&[
            ("retention.ms", Some("60000")),
            ("retention.bytes", Some("-1")),
            ("cleanup.policy", Some("compact,delete")),
            ("max.message.bytes", Some("5000")),
            ("message.timestamp.type", Some("LogAppendTime")),
            ("edge.lane", Some("bulk")),
            ("min.insync.replicas", Some("1")),
            ("segment.bytes", Some("52428800")),
            ("segment.ms", None),
        ])
        .unwrap();
        assert_eq!(asked.lane.as_deref(), Some("bulk"));
        let config = &asked.config;
        assert_eq!((config.retention_ms, config.retention_bytes), (Some(60_000), None));
        assert_eq!(config.cleanup_policy, CleanupPolicy::CompactDelete);
        assert_eq!(config.max_message_bytes, 5_000);
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        assert!(config.set.has(TopicKey::RetentionBytes), "asked for, though it is the default");
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        for (name, value) in [
            ("retention.ms", "-2"),
            ("cleanup.policy", "shred"),
            ("min.insync.replicas", "2"),
            ("compression.type", "zstd"),
            ("remote.storage.enable", "true"),
            ("unclean.leader.election.enable", "true"),
            ("min.compaction.lag.ms", "1000"),
            ("message.format.version", "2.8"),
            ("retention.sm", "1"),
        ] {
            let refusal = asked(&[(name, Some(value))]).unwrap_err();
            assert!(refusal.contains(name), "{refusal}");
        }
        let refusal = asked(&[("retention", Some("1"))]).unwrap_err();
        assert!(
            refusal.contains("there are cleanup.policy, delete.retention.ms, edge.lane, "),
            "{refusal}"
        );
        assert!(refusal.contains("retention.bytes, retention.ms"), "{refusal}");
    }
}

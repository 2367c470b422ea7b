//! Topic settings by their Kafka names.
//!
//! Kept and obeyed: `retention.ms`, `retention.bytes`, `cleanup.policy`, `max.message.bytes`,
//! `message.timestamp.type`, and our own `edge.lane`. Settings that Kafka has and that mean nothing on a gateway
//! with one replica and lanes for storage are accepted and ignored, so that tools that always send them (Kafka
//! Streams, Connect) work; any other name is an error.

use edge_engine::{CleanupPolicy, TimestampType, Topic, TopicConfig};

pub(crate) const RETENTION_MS: &str = "retention.ms";
pub(crate) const RETENTION_BYTES: &str = "retention.bytes";
pub(crate) const CLEANUP_POLICY: &str = "cleanup.policy";
pub(crate) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub(crate) const TIMESTAMP_TYPE: &str = "message.timestamp.type";
pub(crate) const LANE: &str = "edge.lane";

/// What Kafka knows and a gateway has no use for.
const IGNORED: &[&str] = &[
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.difference.max.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.storage.enable",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
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
    pub(crate) is_default: bool,
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

/// From names and values; a null value means the default.
pub(crate) fn parse<'a>(
    settings: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<Asked, Refusal> {
    let mut asked = Asked::default();
    for (name, value) in settings {
        let Some(value) = value.map(str::trim) else { continue };
        let config = &mut asked.config;
        match name {
            RETENTION_MS => config.retention_ms = unlimited_or(name, value)?,
            RETENTION_BYTES => config.retention_bytes = unlimited_or(name, value)?,
            CLEANUP_POLICY => config.cleanup_policy = cleanup_policy(value)?,
            MAX_MESSAGE_BYTES => {
                config.max_message_bytes = value
                    .parse::<u32>()
                    .ok()
                    .filter(|bytes| i32::try_from(*bytes).is_ok())
                    .ok_or_else(|| format!("{name} = '{value}' is not a number of bytes"))?;
            }
            TIMESTAMP_TYPE => config.timestamp_type = timestamp_type(value)?,
            LANE => asked.lane = Some(value.to_owned()),
            other if IGNORED.contains(&other) => {}
            other => return Err(format!("there is no topic setting '{other}'")),
        }
    }
    Ok(asked)
}

/// All settings of a topic.
pub(crate) fn describe(topic: &Topic, lane_default: &str) -> Vec<Setting> {
    let config = topic.config();
    let default = TopicConfig::default();
    let setting = |name, value, is_default, kind| Setting { name, value, is_default, kind };
    vec![
        setting(
            CLEANUP_POLICY,
            cleanup_policy_name(config.cleanup_policy).to_owned(),
            config.cleanup_policy == default.cleanup_policy,
            Kind::List,
        ),
        setting(LANE, topic.lane().to_owned(), topic.lane() == lane_default, Kind::Text),
        setting(
            MAX_MESSAGE_BYTES,
            config.max_message_bytes.to_string(),
            config.max_message_bytes == default.max_message_bytes,
            Kind::Int,
        ),
        setting(
            TIMESTAMP_TYPE,
            timestamp_type_name(config.timestamp_type).to_owned(),
            config.timestamp_type == default.timestamp_type,
            Kind::Text,
        ),
        setting(
            RETENTION_BYTES,
            limit_name(config.retention_bytes),
            config.retention_bytes == default.retention_bytes,
            Kind::Long,
        ),
        setting(
            RETENTION_MS,
            limit_name(config.retention_ms),
            config.retention_ms == default.retention_ms,
            Kind::Long,
        ),
    ]
}

/// Kafka writes "no limit" as -1.
fn unlimited_or(name: &str, value: &str) -> Result<Option<u64>, Refusal> {
    match value.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(limit) if limit >= 0 => Ok(Some(limit.unsigned_abs())),
        _ => Err(format!("{name} = '{value}' is neither -1 nor a number")),
    }
}

fn limit_name(limit: Option<u64>) -> String {
    limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string())
}

fn cleanup_policy(value: &str) -> Result<CleanupPolicy, Refusal> {
    let (mut delete, mut compact) = (false, false);
    for part in value.split(',') {
        match part.trim() {
            "delete" => delete = true,
            "compact" => compact = true,
            _ => return Err(format!("{CLEANUP_POLICY} = '{value}' is not delete or compact")),
        }
    }
    Ok(match (delete, compact) {
        (true, true) => CleanupPolicy::CompactDelete,
        (false, true) => CleanupPolicy::Compact,
        _ => CleanupPolicy::Delete,
    })
}

fn cleanup_policy_name(policy: CleanupPolicy) -> &'static str {
    match policy {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
        CleanupPolicy::CompactDelete => "compact,delete",
    }
}

fn timestamp_type(value: &str) -> Result<TimestampType, Refusal> {
    match value {
        "CreateTime" => Ok(TimestampType::CreateTime),
        "LogAppendTime" => Ok(TimestampType::LogAppendTime),
        _ => Err(format!("{TIMESTAMP_TYPE} = '{value}' is not CreateTime or LogAppendTime")),
    }
}

fn timestamp_type_name(timestamp_type: TimestampType) -> &'static str {
    match timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

#[cfg(test)]
mod tests {
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
            ("min.insync.replicas", Some("2")),
            ("segment.ms", None),
        ])
        .unwrap();
        assert_eq!(asked.lane.as_deref(), Some("bulk"));
        assert_eq!(
            asked.config,
            TopicConfig {
                retention_ms: Some(60_000),
                retention_bytes: None,
                cleanup_policy: CleanupPolicy::CompactDelete,
                max_message_bytes: 5_000,
                timestamp_type: TimestampType::LogAppendTime,
            }
        );
    }

    #[test]
    fn a_wrong_value_is_refused_by_name() {
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.bytes", "many"),
            ("cleanup.policy", "shred"),
            ("max.message.bytes", "-1"),
            ("max.message.bytes", "4294967295"),
            ("message.timestamp.type", "Yesterday"),
            ("retention.sm", "1"),
        ] {
            let refusal = asked(&[(name, Some(value))]).unwrap_err();
            assert!(refusal.contains(name), "{refusal}");
        }
    }
}

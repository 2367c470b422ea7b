//! The settings of a topic by their Kafka names: how each is read, written, and put back to its default.
//!
//! Everything here is obeyed; what Kafka has beyond it is the listener's to refuse or to ignore.

use serde::{Deserialize, Serialize};

use super::topic::{CleanupPolicy, TimestampType, TopicConfig};

/// A setting. Numbered by its order, which is on disk: add at the end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TopicKey {
    /// `retention.ms`
    RetentionMs,
    /// `retention.bytes`
    RetentionBytes,
    /// `cleanup.policy`
    CleanupPolicy,
    /// `delete.retention.ms`
    DeleteRetentionMs,
    /// `max.message.bytes`
    MaxMessageBytes,
    /// `message.timestamp.type`
    TimestampType,
    /// `message.timestamp.before.max.ms`
    TimestampBeforeMaxMs,
    /// `message.timestamp.after.max.ms`
    TimestampAfterMaxMs,
}

/// A set of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicKeys(u16);

/// A value that a setting cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} = '{value}': {expected}")]
pub struct TopicValueError {
    /// Kafka's name of the setting.
    pub name: String,
    /// The value asked for.
    pub value: String,
    /// What it may be, as a sentence.
    pub expected: &'static str,
}

/// "As far as they like", as Kafka writes it.
const FOR_EVER: &str = "9223372036854775807";

impl TopicKeys {
    /// Whether the setting is one of them.
    #[must_use]
    pub fn has(self, key: TopicKey) -> bool {
        self.0 & key.bit() != 0
    }

    /// Adds one.
    pub fn insert(&mut self, key: TopicKey) {
        self.0 |= key.bit();
    }

    fn remove(&mut self, key: TopicKey) {
        self.0 &= !key.bit();
    }
}

impl TopicKey {
    /// All of them, by name.
    pub const ALL: [Self; 8] = [
        Self::CleanupPolicy,
        Self::DeleteRetentionMs,
        Self::MaxMessageBytes,
        Self::TimestampAfterMaxMs,
        Self::TimestampBeforeMaxMs,
        Self::TimestampType,
        Self::RetentionBytes,
        Self::RetentionMs,
    ];

    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetentionMs => "retention.ms",
            Self::RetentionBytes => "retention.bytes",
            Self::CleanupPolicy => "cleanup.policy",
            Self::DeleteRetentionMs => "delete.retention.ms",
            Self::MaxMessageBytes => "max.message.bytes",
            Self::TimestampType => "message.timestamp.type",
            Self::TimestampBeforeMaxMs => "message.timestamp.before.max.ms",
            Self::TimestampAfterMaxMs => "message.timestamp.after.max.ms",
        }
    }

    /// The setting of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// The value, as Kafka writes it.
    #[must_use]
    pub fn value(self, config: &TopicConfig) -> String {
        let limit = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |ms| ms.to_string());
        let distance = |limit: Option<u64>| {
            limit.map_or_else(|| FOR_EVER.to_owned(), |limit| limit.to_string())
        };
        match self {
            Self::RetentionMs => limit(config.retention_ms),
            Self::RetentionBytes => limit(config.retention_bytes),
            Self::CleanupPolicy => config.cleanup_policy.name().to_owned(),
            Self::DeleteRetentionMs => config.delete_retention_ms.to_string(),
            Self::MaxMessageBytes => config.max_message_bytes.to_string(),
            Self::TimestampType => config.timestamp_type.name().to_owned(),
            Self::TimestampBeforeMaxMs => distance(config.timestamp_before_max_ms),
            Self::TimestampAfterMaxMs => distance(config.timestamp_after_max_ms),
        }
    }

    /// Whether somebody made the setting, or it differs from the default all the same.
    #[must_use]
    pub fn is_set(self, config: &TopicConfig) -> bool {
        config.set.has(self) || self.value(config) != self.value(&TopicConfig::default())
    }

    /// Makes the setting.
    ///
    /// # Errors
    /// The value is not one of its values; nothing is changed.
    pub fn set(self, config: &mut TopicConfig, value: &str) -> Result<(), TopicValueError> {
        let value = value.trim();
        let expected = match self {
            Self::RetentionMs | Self::RetentionBytes => "neither -1 nor a number",
            Self::CleanupPolicy => "neither delete, compact nor both with a comma between",
            Self::TimestampType => "neither CreateTime nor LogAppendTime",
            Self::MaxMessageBytes => "not a number of bytes",
            _ => "not a number of milliseconds",
        };
        let wrong =
            || TopicValueError { name: self.name().to_owned(), value: value.to_owned(), expected };
        let number = || value.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
        let limit = || if value == "-1" { Some(None) } else { number().map(Some) };
        let distance = || number().map(|ms| (ms < i64::MAX.unsigned_abs()).then_some(ms));
        match self {
            Self::RetentionMs => config.retention_ms = limit().ok_or_else(wrong)?,
            Self::RetentionBytes => config.retention_bytes = limit().ok_or_else(wrong)?,
            Self::CleanupPolicy => {
                config.cleanup_policy = CleanupPolicy::from_name(value).ok_or_else(wrong)?;
            }
            Self::DeleteRetentionMs => config.delete_retention_ms = number().ok_or_else(wrong)?,
            Self::MaxMessageBytes => {
                let bytes = value.parse::<i32>().ok().and_then(|bytes| u32::try_from(bytes).ok());
                config.max_message_bytes = bytes.ok_or_else(wrong)?;
            }
            Self::TimestampType => {
                config.timestamp_type = TimestampType::from_name(value).ok_or_else(wrong)?;
            }
            Self::TimestampBeforeMaxMs => {
                config.timestamp_before_max_ms = distance().ok_or_else(wrong)?;
            }
            Self::TimestampAfterMaxMs => {
                config.timestamp_after_max_ms = distance().ok_or_else(wrong)?;
            }
        }
        config.set.insert(self);
        Ok(())
    }

    /// Puts the setting back to its default.
    pub fn reset(self, config: &mut TopicConfig) {
        let TopicConfig {
            retention_ms,
            retention_bytes,
            cleanup_policy,
            delete_retention_ms,
            max_message_bytes,
            timestamp_type,
            timestamp_before_max_ms,
            timestamp_after_max_ms,
            set: _,
        } = TopicConfig::default();
        match self {
            Self::RetentionMs => config.retention_ms = retention_ms,
            Self::RetentionBytes => config.retention_bytes = retention_bytes,
            Self::CleanupPolicy => config.cleanup_policy = cleanup_policy,
            Self::DeleteRetentionMs => config.delete_retention_ms = delete_retention_ms,
            Self::MaxMessageBytes => config.max_message_bytes = max_message_bytes,
            Self::TimestampType => config.timestamp_type = timestamp_type,
            Self::TimestampBeforeMaxMs => config.timestamp_before_max_ms = timestamp_before_max_ms,
            Self::TimestampAfterMaxMs => config.timestamp_after_max_ms = timestamp_after_max_ms,
        }
        config.set.remove(self);
    }
}

impl CleanupPolicy {
    /// As Kafka writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }

    /// What Kafka writes so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (mut delete, mut compact) = (false, false);
        for part in name.split(',') {
            match part.trim() {
                "delete" => delete = true,
                "compact" => compact = true,
                _ => return None,
            }
        }
        Some(match (delete, compact) {
            (true, true) => Self::CompactDelete,
            (false, true) => Self::Compact,
            _ => Self::Delete,
        })
    }
}

impl TimestampType {
    /// As Kafka writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }

    /// What Kafka writes so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::CreateTime, Self::LogAppendTime].into_iter().find(|one| one.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reads_what_it_writes_and_goes_back_to_its_default() {
        let values =
            ["compact,delete", "5", "5000", "3600000", "86400000", "LogAppendTime", "-1", "60000"];
        for (key, value) in TopicKey::ALL.into_iter().zip(values) {
            let mut config = TopicConfig::default();
            key.set(&mut config, value).unwrap();
            assert_eq!((key.value(&config).as_str(), key.is_set(&config)), (value, true));
            assert_eq!(TopicKey::from_name(key.name()), Some(key));
            key.reset(&mut config);
            assert_eq!(config, TopicConfig::default(), "{}", key.name());
            assert!(!key.is_set(&config));
        }
    }

    #[test]
    fn a_setting_made_to_its_default_is_set() {
        let mut config = TopicConfig::default();
        TopicKey::CleanupPolicy.set(&mut config, "delete").unwrap();
        assert!(TopicKey::CleanupPolicy.is_set(&config) && !TopicKey::RetentionMs.is_set(&config));
    }

    #[test]
    fn a_wrong_value_changes_nothing_and_names_the_setting() {
        for (key, value) in [
            (TopicKey::RetentionMs, "-2"),
            (TopicKey::RetentionBytes, "many"),
            (TopicKey::CleanupPolicy, "shred"),
            (TopicKey::CleanupPolicy, ""),
            (TopicKey::DeleteRetentionMs, "-1"),
            (TopicKey::MaxMessageBytes, "-1"),
            (TopicKey::MaxMessageBytes, "4294967295"),
            (TopicKey::TimestampType, "Yesterday"),
            (TopicKey::TimestampAfterMaxMs, "-5"),
        ] {
            let mut config = TopicConfig::default();
            let error = key.set(&mut config, value).unwrap_err();
            assert!(error.to_string().contains(key.name()), "{error}");
            assert_eq!(config, TopicConfig::default());
        }
    }
}

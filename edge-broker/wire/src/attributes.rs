//! The attributes of a record batch: codec, timestamp type, flags.
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>.

use crate::compression::Compression;

/// Meaning of the timestamps in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// Given by the producer.
    #[default]
    CreateTime,
    /// Given by the broker: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch; the codec in them is a known one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(i16);

impl Attributes {
    pub(crate) const CODEC_MASK: i16 = 0b111;
    pub(crate) const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    pub(crate) const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// From the field in a header; `None` if the codec is not a known one.
    #[must_use]
    pub const fn from_bits(bits: i16) -> Option<Self> {
        match Compression::from_bits((bits & Self::CODEC_MASK) as u8) {
            Some(_) => Some(Self(bits)),
            None => None,
        }
    }

    /// With this codec and nothing else.
    #[must_use]
    pub const fn new(compression: Compression) -> Self {
        Self(compression.bits() as i16)
    }

    /// The field in a header, bits unknown to us included.
    #[must_use]
    pub const fn bits(self) -> i16 {
        self.0
    }

    /// How the records are packed.
    #[must_use]
    pub const fn compression(self) -> Compression {
        match Compression::from_bits((self.0 & Self::CODEC_MASK) as u8) {
            Some(compression) => compression,
            // Not constructible: every constructor checks.
            None => Compression::None,
        }
    }

    /// Who gave the timestamps.
    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// The same with another timestamp type.
    #[must_use]
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Self(self.0 & !Self::LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Self(self.0 | Self::LOG_APPEND_TIME),
        }
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds markers, not data.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is a delete horizon.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

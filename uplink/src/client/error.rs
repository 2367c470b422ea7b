//! What can go wrong, by operation, and whether trying again makes sense.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use edge_wire::PartitionId;
use kafka_protocol::error::ResponseError;

/// Why no broker could be reached.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The bootstrap list is empty or holds something that is not `host:port`. Permanent.
    #[error("\"{address}\" is not a broker address; write it as host:port")]
    Address {
        /// What was given.
        address: String,
    },
    /// The name did not resolve, nobody listened, or the network is down. Worth retrying.
    #[error("cannot connect to {address}: {source}")]
    Io {
        /// Broker that was tried.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Connecting or negotiating took longer than `connect_timeout`. Worth retrying.
    #[error("{address} did not answer within {after:?}")]
    Timeout {
        /// Broker that was tried.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// Connected, but whoever listens there does not speak Kafka as we need it.
    #[error("{address} does not speak a Kafka protocol we know: {reason}")]
    Negotiation {
        /// Broker that was tried.
        address: String,
        /// What was wrong.
        reason: String,
    },
}

impl ConnectError {
    /// Whether the same call may succeed later without anybody changing the settings.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        !matches!(self, Self::Address { .. })
    }
}

/// Why a request has no (good) answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection to the broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before the answer came. The request may or may not have been carried out.
    #[error("connection to {address} ended during {api}: {reason}")]
    Disconnected {
        /// Broker.
        address: String,
        /// Name of the request.
        api: &'static str,
        /// Why the connection ended.
        reason: String,
    },
    /// No answer in time; the connection has been closed. The request may or may not have been carried out.
    #[error("{address} did not answer {api} within {after:?}")]
    Timeout {
        /// Broker.
        address: String,
        /// Name of the request.
        api: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The broker answered with an error.
    #[error("{api}: {error}")]
    Broker {
        /// Name of the request.
        api: &'static str,
        /// Code and the broker's own words.
        error: BrokerError,
    },
    /// The broker has no version of this request that we speak. Permanent.
    #[error("{address} does not support {api} in versions {min} to {max}")]
    Unsupported {
        /// Broker.
        address: String,
        /// Name of the request.
        api: &'static str,
        /// Oldest version we speak.
        min: i16,
        /// Newest version we speak.
        max: i16,
    },
    /// The partition has no leader at the moment, or the topic has no such partition.
    #[error("no leader known for {topic}/{partition}")]
    NoLeader {
        /// Topic.
        topic: String,
        /// Partition.
        partition: PartitionId,
    },
    /// The request could not be put into bytes (a name too long, a batch too large). Permanent.
    #[error("cannot encode {api}: {reason}")]
    Encode {
        /// Name of the request.
        api: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// The answer could not be read. The connection has been closed.
    #[error("cannot read the answer to {api}: {reason}")]
    Decode {
        /// Name of the request.
        api: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// More requests are waiting on this connection than `in_flight_max`; only from calls that do not wait.
    #[error("too many requests in flight to {address}")]
    Busy {
        /// Broker.
        address: String,
    },
}

impl RequestError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retriable(),
            Self::Broker { error, .. } => error.code.is_retriable(),
            Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::NoLeader { .. }
            | Self::Decode { .. }
            | Self::Busy { .. } => true,
            Self::Unsupported { .. } | Self::Encode { .. } => false,
        }
    }

    /// The broker's error code, where the broker did answer.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { error, .. } => Some(error.code),
            _ => None,
        }
    }

    /// Whether the request may have been carried out although no answer came.
    #[must_use]
    pub fn is_indefinite(&self) -> bool {
        matches!(self, Self::Disconnected { .. } | Self::Timeout { .. } | Self::Decode { .. })
    }
}

/// An error code of the protocol, with the broker's own words if it sent any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerError {
    /// The code.
    pub code: ErrorCode,
    /// What the broker added.
    pub message: Option<String>,
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) if !message.is_empty() => write!(f, "{}: {message}", self.code),
            _ => self.code.fmt(f),
        }
    }
}

impl std::error::Error for BrokerError {}

impl BrokerError {
    /// `Err` unless the code is 0.
    pub(crate) fn check(code: i16, message: Option<&str>) -> Result<(), Self> {
        if code == 0 {
            return Ok(());
        }
        Err(Self { code: ErrorCode(code), message: message.map(str::to_owned) })
    }
}

/// A Kafka error code other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i16);

impl ErrorCode {
    /// The offset is outside what the partition holds.
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    /// No such topic or partition.
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    /// Leader election is under way.
    pub const LEADER_NOT_AVAILABLE: Self = Self(5);
    /// The broker is not the leader.
    pub const NOT_LEADER_OR_FOLLOWER: Self = Self(6);
    /// The topic exists already.
    pub const TOPIC_ALREADY_EXISTS: Self = Self(36);
    /// The request version is not supported.
    pub const UNSUPPORTED_VERSION: Self = Self(35);

    /// Whether Kafka says that the request may be sent again.
    #[must_use]
    pub fn is_retriable(self) -> bool {
        ResponseError::try_from_code(self.0).is_some_and(|error| error.is_retriable())
    }

    /// Whether the answer means that our picture of the cluster is old.
    #[must_use]
    pub fn is_stale_metadata(self) -> bool {
        // also REPLICA_NOT_AVAILABLE, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, UNKNOWN_TOPIC_ID
        matches!(
            self,
            Self::UNKNOWN_TOPIC_OR_PARTITION
                | Self::LEADER_NOT_AVAILABLE
                | Self::NOT_LEADER_OR_FOLLOWER
        ) || matches!(self.0, 9 | 74 | 75 | 100)
    }
}

impl fmt::Display for ErrorCode {
    /// Kafka's own spelling and the number: `NOT_LEADER_OR_FOLLOWER (6)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ResponseError::try_from_code(self.0) {
            None => write!(f, "NONE (0)"),
            Some(ResponseError::Unknown(code)) => write!(f, "unknown error code {code}"),
            Some(error) => {
                let name = error.to_string();
                let mut out = String::with_capacity(name.len() + 8);
                for (index, letter) in name.chars().enumerate() {
                    if index > 0 && letter.is_ascii_uppercase() {
                        out.push('_');
                    }
                    out.push(letter.to_ascii_uppercase());
                }
                write!(f, "{out} ({})", self.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_print_as_kafka_spells_them() {
        assert_eq!(ErrorCode::NOT_LEADER_OR_FOLLOWER.to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
        assert_eq!(ErrorCode(30_000).to_string(), "unknown error code 30000");
        assert!(ErrorCode::LEADER_NOT_AVAILABLE.is_retriable());
        assert!(!ErrorCode::TOPIC_ALREADY_EXISTS.is_retriable());
    }
}

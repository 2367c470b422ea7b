//! Why a connection ends.

use thiserror::Error;

use crate::violation::{ReasonCode, Violation};

/// Why a connection ends. Decides on the last packet and on the will.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Close {
    /// The client sent DISCONNECT.
    #[error("the client disconnected")]
    Disconnected {
        /// It asked for its will to be published (MQTT 5, reason code 0x04 or an error).
        with_will: bool,
    },
    /// The client broke a rule.
    #[error("{0}")]
    Violation(Violation),
    /// No complete CONNECT in time.
    #[error("no CONNECT arrived in time")]
    ConnectTimeout,
    /// Nothing arrived for 1.5 keep-alive intervals.
    #[error("nothing arrived for one and a half keep-alive intervals")]
    KeepAliveTimeout,
    /// The rest of a packet did not arrive.
    #[error("the rest of a packet did not arrive in time")]
    StalledPacket,
    /// The listener ended it: refused CONNECT, taken over, lane failed, shutting down.
    #[error("closed by the broker, reason code {:#04x}", .0.byte())]
    Broker(ReasonCode),
    /// The socket ended or failed.
    #[error("the connection was lost")]
    ConnectionLost,
}

impl Close {
    /// What an MQTT 5 client is told; `None`: nothing (it left by itself).
    #[must_use]
    pub fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Disconnected { .. } | Self::ConnectionLost => None,
            Self::Violation(violation) => Some(violation.reason()),
            Self::ConnectTimeout => Some(ReasonCode::UnspecifiedError),
            Self::KeepAliveTimeout | Self::StalledPacket => Some(ReasonCode::KeepAliveTimeout),
            Self::Broker(reason) => Some(*reason),
        }
    }

    /// Whether the will is published. A broker that shuts down keeps it to itself: nothing happened
    /// to the device.
    #[must_use]
    pub fn publishes_will(&self) -> bool {
        match self {
            Self::Disconnected { with_will } => *with_will,
            Self::Broker(ReasonCode::ServerShuttingDown) => false,
            _ => true,
        }
    }
}

//! What a peer did wrong, and the reason code that tells it so.
//!
//! MQTT 5 sends the code in CONNACK or DISCONNECT before the connection is closed. MQTT 3.1 and
//! 3.1.1 have a return code in CONNACK for few of them ([`ReasonCode::return_code_v3`]); otherwise
//! the connection is just closed, as the standard demands (3.1.1 section 4.8).
//!
//! Source: MQTT 5.0 section 2.4 (codes), 4.13 (errors), 2.2.2.2 (properties).

use thiserror::Error;

use crate::frame::PacketType;
use crate::topic_filter::{FilterError, TopicError};

/// Reason codes of MQTT 5 that this broker sends or understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ReasonCode {
    /// Success, normal disconnection, granted QoS 0.
    Success = 0x00,
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// The sender does not wish to say more.
    UnspecifiedError = 0x80,
    /// Bytes that cannot be parsed according to the standard.
    MalformedPacket = 0x81,
    /// Well-formed, but not allowed here or now.
    ProtocolError = 0x82,
    /// Valid, and refused by this broker.
    ImplementationSpecific = 0x83,
    /// CONNECT with a protocol level that is not 3, 4 or 5.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is not accepted.
    ClientIdNotValid = 0x85,
    /// User name or password refused.
    BadUserNameOrPassword = 0x86,
    /// Refused by policy.
    NotAuthorized = 0x87,
    /// The broker cannot serve now.
    ServerUnavailable = 0x88,
    /// Too busy to go on with this client.
    ServerBusy = 0x89,
    /// The broker is stopping.
    ServerShuttingDown = 0x8B,
    /// Extended authentication is not offered.
    BadAuthenticationMethod = 0x8C,
    /// Nothing arrived for 1.5 keep-alive intervals.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the same client id now.
    SessionTakenOver = 0x8E,
    /// A topic filter is not acceptable.
    TopicFilterInvalid = 0x8F,
    /// A topic name is not acceptable.
    TopicNameInvalid = 0x90,
    /// PUBREL or PUBCOMP for an identifier that is not in use.
    PacketIdNotFound = 0x92,
    /// More unacknowledged QoS 1 and 2 publishes than Receive Maximum.
    ReceiveMaximumExceeded = 0x93,
    /// A topic alias above Topic Alias Maximum.
    TopicAliasInvalid = 0x94,
    /// Larger than Maximum Packet Size.
    PacketTooLarge = 0x95,
    /// A limit of this broker was exceeded.
    QuotaExceeded = 0x97,
    /// An operator ended the connection.
    AdministrativeAction = 0x98,
    /// Shared subscriptions are not offered.
    SharedSubscriptionsNotSupported = 0x9E,
}

impl ReasonCode {
    /// The byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 that says the same, where there is one.
    #[must_use]
    pub fn return_code_v3(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdNotValid => Some(2),
            Self::ServerUnavailable | Self::ServerBusy | Self::QuotaExceeded => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized => Some(5),
            _ => None,
        }
    }
}

/// A rule of the standard, or a limit of this broker, that a peer broke. Permanent for the
/// connection: the only answer is the reason code and a close.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Something other than CONNECT came first.
    #[error("the first packet must be CONNECT, found packet type {found}")]
    FirstPacketNotConnect {
        /// Upper four bits of the first byte.
        found: u8,
    },
    /// CONNECT on a connection that is connected.
    #[error("a second CONNECT on the same connection")]
    SecondConnect,
    /// Packet type 0, and before MQTT 5 also 15.
    #[error("packet type {found} is not accepted")]
    PacketTypeNotAccepted {
        /// The packet type.
        found: u8,
    },
    /// CONNACK, SUBACK, UNSUBACK, PINGRESP.
    #[error("only a broker may send {packet}")]
    BrokerOnlyPacket {
        /// The packet type.
        packet: PacketType,
    },
    /// AUTH on a connection whose CONNECT named no authentication method.
    #[error("AUTH without an authentication method in CONNECT")]
    AuthenticationNotStarted,
    /// Reserved bits of the first byte.
    #[error("{packet} with header flags {found:#06b}")]
    HeaderFlags {
        /// The packet type.
        packet: PacketType,
        /// Lower four bits of the first byte.
        found: u8,
    },
    /// A variable byte integer of more than four bytes.
    #[error("a variable byte integer has more than four bytes")]
    VarintTooLong,
    /// A variable byte integer that could be shorter.
    #[error("a variable byte integer is not in its shortest form")]
    VarintNotMinimal,
    /// Larger than the packet-size limit of the moment.
    #[error("a packet of {found_bytes} bytes, the limit is {limit_bytes}")]
    PacketTooLarge {
        /// Size of the whole packet.
        found_bytes: usize,
        /// What is accepted.
        limit_bytes: usize,
    },
    /// A field reaches beyond the end of its packet.
    #[error("a field of {packet} reaches beyond its end")]
    Truncated {
        /// The packet type.
        packet: PacketType,
    },
    /// Bytes behind the last field.
    #[error("{packet} has bytes behind its last field")]
    TrailingBytes {
        /// The packet type.
        packet: PacketType,
    },
    /// A string that is not UTF-8 (surrogates included).
    #[error("a string in {packet} is not UTF-8")]
    NotUtf8 {
        /// The packet type.
        packet: PacketType,
    },
    /// A string with U+0000.
    #[error("a string in {packet} contains U+0000")]
    NulInString {
        /// The packet type.
        packet: PacketType,
    },
    /// Packet identifier 0.
    #[error("{packet} with packet identifier 0")]
    PacketIdZero {
        /// The packet type.
        packet: PacketType,
    },
    /// QoS 3.
    #[error("QoS 3 does not exist")]
    Qos3,
    /// DUP on a QoS 0 PUBLISH.
    #[error("DUP is set on a QoS 0 PUBLISH")]
    DupAtQos0,
    /// An empty topic name without an alias.
    #[error("an empty topic name")]
    TopicEmpty,
    /// A topic name that is not acceptable.
    #[error("{0}")]
    Topic(TopicError),
    /// Topic alias 0, or one above the maximum announced.
    #[error("topic alias {found} is 0 or above the maximum announced")]
    TopicAlias {
        /// The alias.
        found: u16,
    },
    /// A topic alias instead of a topic name, but none was set.
    #[error("topic alias {found} was not set on this connection")]
    TopicAliasUnknown {
        /// The alias.
        found: u16,
    },
    /// A property that the packet must not carry, or that does not exist.
    #[error("{packet} must not carry property {id:#04x}")]
    PropertyNotAllowed {
        /// The packet type.
        packet: PacketType,
        /// Property identifier.
        id: u32,
    },
    /// A property given twice.
    #[error("property {id:#04x} is given twice in {packet}")]
    PropertyRepeated {
        /// The packet type.
        packet: PacketType,
        /// Property identifier.
        id: u8,
    },
    /// A property value outside its range.
    #[error("property {id:#04x} in {packet} has a value that is not allowed")]
    PropertyValue {
        /// The packet type.
        packet: PacketType,
        /// Property identifier.
        id: u8,
    },
    /// More user properties than the limit.
    #[error("more than {limit} user properties in {packet}")]
    TooManyUserProperties {
        /// The packet type.
        packet: PacketType,
        /// What is accepted.
        limit: usize,
    },
    /// SUBSCRIBE or UNSUBSCRIBE without a filter.
    #[error("{packet} without a topic filter")]
    NoFilter {
        /// The packet type.
        packet: PacketType,
    },
    /// A topic filter that is not acceptable.
    #[error("{0}")]
    Filter(FilterError),
    /// More filters in one packet than the limit.
    #[error("more than {limit} topic filters in one {packet}")]
    TooManyFilters {
        /// The packet type.
        packet: PacketType,
        /// What is accepted.
        limit: usize,
    },
    /// Reserved bits in the options of a filter.
    #[error("reserved bits are set in subscription options {found:#04x}")]
    SubscriptionOptions {
        /// The options byte.
        found: u8,
    },
    /// Retain handling 3, or No Local on a shared subscription.
    #[error("subscription options {found:#04x} are not allowed")]
    SubscriptionOptionsValue {
        /// The options byte.
        found: u8,
    },
    /// More unacknowledged QoS 1 and 2 publishes than announced.
    #[error("more than {limit} unacknowledged QoS 1 and 2 publishes")]
    ReceiveMaximumExceeded {
        /// The Receive Maximum we announced.
        limit: u16,
    },
    /// The protocol name is neither `MQTT` nor `MQIsdp`.
    #[error("the protocol name is neither MQTT nor MQIsdp")]
    ProtocolName,
    /// A protocol level that is not 3, 4 or 5.
    #[error("protocol level {found} is not supported")]
    ProtocolLevel {
        /// The level.
        found: u8,
    },
    /// CONNECT flags that contradict each other or the standard.
    #[error("CONNECT flags {found:#04x} are not allowed")]
    ConnectFlags {
        /// The flags byte.
        found: u8,
    },
    /// A client id that is too long, or empty where it may not be.
    #[error("the client identifier ({found_bytes} bytes) is not accepted")]
    ClientId {
        /// Its length.
        found_bytes: usize,
    },
    /// Extended authentication.
    #[error("extended authentication is not offered")]
    AuthenticationMethod,
    /// A reason code that the packet must not carry.
    #[error("{packet} with reason code {found:#04x}")]
    ReasonCodeNotAllowed {
        /// The packet type.
        packet: PacketType,
        /// The code.
        found: u8,
    },
    /// A CONNECT without session expiry cannot gain one in its DISCONNECT.
    #[error("DISCONNECT sets a session expiry that CONNECT did not ask for")]
    SessionExpiryAtDisconnect,
    /// Validation and codec disagree: refused, never trusted.
    #[error("{packet} was refused by the codec")]
    Codec {
        /// The packet type.
        packet: PacketType,
    },
}

impl Violation {
    /// The MQTT 5 reason code for it.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::PacketTypeNotAccepted { .. }
            | Self::HeaderFlags { .. }
            | Self::VarintTooLong
            | Self::VarintNotMinimal
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::NotUtf8 { .. }
            | Self::NulInString { .. }
            | Self::Qos3
            | Self::DupAtQos0
            | Self::PropertyNotAllowed { .. }
            | Self::SubscriptionOptions { .. }
            | Self::ConnectFlags { .. }
            | Self::ProtocolName
            | Self::Codec { .. } => ReasonCode::MalformedPacket,
            Self::FirstPacketNotConnect { .. }
            | Self::SecondConnect
            | Self::BrokerOnlyPacket { .. }
            | Self::AuthenticationNotStarted
            | Self::TopicAliasUnknown { .. }
            | Self::PacketIdZero { .. }
            | Self::TopicEmpty
            | Self::PropertyRepeated { .. }
            | Self::PropertyValue { .. }
            | Self::NoFilter { .. }
            | Self::SubscriptionOptionsValue { .. }
            | Self::ReasonCodeNotAllowed { .. }
            | Self::SessionExpiryAtDisconnect => ReasonCode::ProtocolError,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::Topic(TopicError::Nul) | Self::Filter(FilterError::Nul) => {
                ReasonCode::MalformedPacket
            }
            Self::Topic(_) => ReasonCode::TopicNameInvalid,
            Self::Filter(_) => ReasonCode::TopicFilterInvalid,
            Self::TopicAlias { .. } => ReasonCode::TopicAliasInvalid,
            Self::TooManyUserProperties { .. } | Self::TooManyFilters { .. } => {
                ReasonCode::QuotaExceeded
            }
            Self::ReceiveMaximumExceeded { .. } => ReasonCode::ReceiveMaximumExceeded,
            Self::ProtocolLevel { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientId { .. } => ReasonCode::ClientIdNotValid,
            Self::AuthenticationMethod => ReasonCode::BadAuthenticationMethod,
        }
    }
}

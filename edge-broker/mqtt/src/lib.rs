//! MQTT 3.1, 3.1.1 and 5 without sockets, clock or tokio: bytes, events and `now` in; bytes, calls and
//! deadlines out.
//!
//! The way of a packet: [`frame`] cuts it off the stream, [`publish`], [`connect`] or [`subscribe`]
//! checks it to the last byte, [`session`] acts on it, [`puback`] alone acknowledges it.
//!
//! Built on `rumqttd::protocol` for SUBSCRIBE and UNSUBSCRIBE, behind our own validation; each piece that is
//! ours instead says why in its module.

pub mod connect;
pub mod frame;
pub mod message;
pub mod origin;
pub mod packet_ids;
mod property;
pub mod puback;
pub mod publish;
mod reader;
pub mod session;
pub mod subscribe;
pub mod subscriptions;
pub mod topic_filter;
pub mod violation;
pub mod websocket;
mod write;

pub use connect::{Connect, Will};
pub use frame::Version;
pub use message::{Delivery, Message};
pub use packet_ids::PacketIds;
pub use property::USER_PROPERTIES_MAX;
pub use puback::{PubackGate, Reply, Ticket};
pub use publish::{Publish, Qos};
pub use session::{
    Accepted, Close, ConnectVerdict, DeliveriesLost, Ending, InFlight, Progress, PublishVerdict,
    Session, SessionLimits, SessionSink, SessionState, Stage, Stopped, Unsubscribed,
};
pub use subscriptions::{
    Match, Share, SubscriberId, SubscriptionLimits, SubscriptionOptions, Subscriptions,
};
pub use topic_filter::{
    FilterError, TopicError, matches, split_share, validate_filter, validate_topic,
};
pub use violation::{ReasonCode, Violation};

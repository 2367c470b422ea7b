//! What the session asks of the listener around it.
//!
//! Many answers are a ticket: the packet that promises something leaves when the listener has reported that
//! ticket durable ([`Session::handle_durable`](super::Session::handle_durable)). `None`: it may leave at once, in
//! its turn.

use std::num::NonZeroU16;

use super::state::SessionState;
use crate::connect::Connect;
use crate::puback::Ticket;
use crate::publish::Publish;
use crate::subscriptions::SubscriptionOptions;
use crate::violation::ReasonCode;

/// The listener, as one connection sees it. Access control is decided here: every method may refuse.
pub trait SessionSink {
    /// A CONNECT that passed every check; `client_id` is the assigned one where the client left the
    /// choice to us, and the session expiry is cut to what is granted. An older connection with the same id
    /// is taken over in here. May be asked more than once: see [`ConnectVerdict::NotNow`].
    ///
    /// # Errors
    /// The reason that goes into CONNACK.
    fn connect(
        &mut self,
        connect: &Connect<'_>,
        client_id: &str,
    ) -> Result<ConnectVerdict, ReasonCode>;

    /// A PUBLISH that passed every check. With QoS 2 it is asked once for each packet identifier: what the
    /// client sends again before its PUBREL stays in the session.
    fn publish(&mut self, publish: &Publish<'_>) -> PublishVerdict;

    /// PUBREL: this identifier of a QoS 2 publish is free again. PUBCOMP waits for the ticket.
    fn release(&mut self, packet_id: NonZeroU16) -> Option<Ticket>;

    /// A subscription. The QoS granted is that of `options`. SUBACK waits for the ticket; of several filters
    /// in one packet, for the last ticket given.
    ///
    /// # Errors
    /// The reason that goes into SUBACK.
    fn subscribe(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<Option<Ticket>, ReasonCode>;

    /// Ends a subscription. UNSUBACK waits for the ticket, as above.
    fn unsubscribe(&mut self, filter: &str) -> Unsubscribed;

    /// A QoS 2 delivery with this tag is about to be sent under this identifier: its PUBLISH waits. Asked
    /// again when the next connection sends it again.
    fn sending(&mut self, packet_id: NonZeroU16, tag: u64) -> Option<Ticket>;

    /// The client has the QoS 2 delivery with this tag: PUBREL waits. Asked again when the client says so
    /// again, and when the next connection sends PUBREL again.
    fn received(&mut self, packet_id: NonZeroU16, tag: u64) -> Option<Ticket>;

    /// The delivery with this tag, which is not 0, is done: acknowledged, refused by the client, or of a kind
    /// that it cannot get (too large, expired).
    fn delivered(&mut self, tag: u64);
}

/// What becomes of a CONNECT.
#[derive(Debug)]
pub enum ConnectVerdict {
    /// Welcome.
    Accepted(Box<Accepted>),
    /// Not known yet. The packet is not consumed; the session stops and is given the same bytes again.
    NotNow,
}

/// How a CONNECT was accepted. The default is a session that is new.
#[derive(Debug, Default)]
pub struct Accepted {
    /// The session goes on.
    pub resumed: Option<Box<SessionState>>,
    /// CONNACK waits for it.
    pub ticket: Option<Ticket>,
    /// Where the client may let responses be sent, if it asks.
    pub response_information: Option<String>,
    /// Messages that the session lost while the client was away: told as user property `edge-missed`.
    pub missed: u64,
}

/// What becomes of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishVerdict {
    /// Goes to a lane with this hand-over; a PUBACK or PUBREC waits for it.
    Stored(Ticket),
    /// Not stored: a QoS 1 or 2 publish is acknowledged in its turn.
    LiveOnly,
    /// Not now. The packet is not consumed; the session stops and is given the same bytes again.
    NotNow,
    /// Not allowed: not stored, not delivered. An MQTT 5 client is told with its PUBACK or PUBREC, an older
    /// one is disconnected.
    Denied,
    /// Can never be stored, however often it is sent: not stored, not delivered. An MQTT 5 client is told with its
    /// PUBACK, an older one is disconnected.
    Unstorable(ReasonCode),
    /// Refused: the connection ends.
    Refused(ReasonCode),
}

/// What became of an unsubscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribed {
    /// There was such a subscription.
    pub existed: bool,
    /// UNSUBACK waits for it.
    pub ticket: Option<Ticket>,
}

//! What the session asks of the listener around it.

use crate::connect::Connect;
use crate::puback::Ticket;
use crate::publish::Publish;
use crate::subscriptions::SubscriptionOptions;
use crate::violation::ReasonCode;

/// The listener, as one connection sees it. Access control is decided here: every method may refuse.
pub trait SessionSink {
    /// A CONNECT that passed every check; `client_id` is the assigned one where the client left the
    /// choice to us. An older connection with the same id is taken over in here. May be asked more than
    /// once: see [`ConnectVerdict::NotNow`].
    ///
    /// # Errors
    /// The reason that goes into CONNACK.
    fn connect(
        &mut self,
        connect: &Connect<'_>,
        client_id: &str,
    ) -> Result<ConnectVerdict, ReasonCode>;

    /// A PUBLISH that passed every check.
    fn publish(&mut self, publish: &Publish<'_>) -> PublishVerdict;

    /// A subscription. The QoS granted is that of `options`.
    ///
    /// # Errors
    /// The reason that goes into SUBACK.
    fn subscribe(&mut self, filter: &str, options: SubscriptionOptions) -> Result<(), ReasonCode>;

    /// Ends a subscription; false when there was none.
    fn unsubscribe(&mut self, filter: &str) -> bool;
}

/// What becomes of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectVerdict {
    /// Welcome.
    Accepted,
    /// Not known yet. The packet is not consumed; the session stops and is given the same bytes again.
    NotNow,
}

/// What becomes of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishVerdict {
    /// Goes to a lane with this hand-over; a PUBACK waits for it.
    Stored(Ticket),
    /// Not stored: a QoS 1 publish is acknowledged in its turn.
    LiveOnly,
    /// Not now. The packet is not consumed; the session stops and is given the same bytes again.
    NotNow,
    /// Not allowed: not stored, not delivered. An MQTT 5 client is told with its PUBACK, an older one is
    /// disconnected.
    Denied,
    /// Can never be stored, however often it is sent: not stored, not delivered. An MQTT 5 client is told with its
    /// PUBACK, an older one is disconnected.
    Unstorable(ReasonCode),
    /// Refused: the connection ends.
    Refused(ReasonCode),
}

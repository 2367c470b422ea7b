//! Publishes of the client: its Receive Maximum, QoS 2 identifiers, what the sink says.

use std::num::NonZeroU16;

use super::{Close, PublishVerdict, SessionLimits, SessionSink, Stopped};
use crate::frame::Version;
use crate::packet_ids::PacketIds;
use crate::puback::{PubackGate, Reply};
use crate::publish::{Publish, Qos};
use crate::violation::{ReasonCode, Violation};

#[derive(Debug)]
pub(super) struct Incoming {
    version: Version,
    receive_maximum: u16,
    /// Publishes with QoS 1 and 2 that an MQTT 5 client may still send (4.9).
    quota: u16,
    /// QoS 2 publishes whose PUBREL has not come.
    pub(super) received: PacketIds,
}

impl Incoming {
    pub(super) fn new(version: Version, limits: &SessionLimits, received: PacketIds) -> Self {
        let receive_maximum = limits.receive_maximum;
        Self { version, receive_maximum, quota: receive_maximum, received }
    }

    /// Hands a PUBLISH to the sink and holds its answer.
    #[inline]
    pub(super) fn admit(
        &mut self,
        publish: &Publish<'_>,
        limits: &SessionLimits,
        gate: &mut PubackGate,
        sink: &mut impl SessionSink,
    ) -> Result<Option<Stopped>, Close> {
        let is_v5 = self.version.is_v5();
        if let Some(packet_id) = publish.packet_id {
            if publish.qos == Qos::ExactlyOnce && self.received.contains(packet_id) {
                return Ok(self.received_again(packet_id, gate));
            }
            if is_v5 && self.quota == 0 {
                let limit = self.receive_maximum;
                return Err(Close::Violation(Violation::ReceiveMaximumExceeded { limit }));
            }
            if !is_v5 && gate.len() >= usize::from(self.receive_maximum) {
                return Ok(Some(Stopped::GateFull));
            }
        }
        let ticket = match sink.publish(publish) {
            PublishVerdict::Stored(ticket) => Some(ticket),
            PublishVerdict::LiveOnly => None,
            PublishVerdict::NotNow => return Ok(Some(Stopped::SinkBusy)),
            PublishVerdict::Denied if is_v5 => {
                self.deny(publish, ReasonCode::NotAuthorized, gate);
                return Ok(None);
            }
            PublishVerdict::Unstorable(reason) if is_v5 => {
                self.deny(publish, reason, gate);
                return Ok(None);
            }
            PublishVerdict::Denied if limits.denied_publish_v3_is_acknowledged => None,
            PublishVerdict::Denied => return Err(Close::Broker(ReasonCode::NotAuthorized)),
            PublishVerdict::Unstorable(reason) | PublishVerdict::Refused(reason) => {
                return Err(Close::Broker(reason));
            }
        };
        if let Some(packet_id) = publish.packet_id {
            self.quota = self.quota.saturating_sub(1);
            if publish.qos == Qos::ExactlyOnce {
                self.received.insert(packet_id);
            }
            gate.hold_reply(reply_to(publish.qos), ticket, packet_id);
        }
        Ok(None)
    }

    /// Nothing can be said about a QoS 0 publish but by ending the connection.
    #[cold]
    fn deny(&mut self, publish: &Publish<'_>, reason: ReasonCode, gate: &mut PubackGate) {
        if let Some(packet_id) = publish.packet_id {
            self.quota = self.quota.saturating_sub(1);
            gate.deny(reply_to(publish.qos), packet_id, reason);
        }
    }

    /// The same QoS 2 PUBLISH once more ([MQTT-4.3.3-10]): the answer again, and nothing else.
    #[cold]
    fn received_again(&self, packet_id: NonZeroU16, gate: &mut PubackGate) -> Option<Stopped> {
        if gate.len() >= 2 * usize::from(self.receive_maximum) {
            return Some(Stopped::GateFull);
        }
        gate.hold_pubrec_again(packet_id);
        None
    }

    /// PUBREL. An identifier that is not known was released already, or never was: PUBCOMP tells an MQTT 5
    /// client so, and lets an older one go on.
    pub(super) fn release(
        &mut self,
        packet_id: NonZeroU16,
        gate: &mut PubackGate,
        sink: &mut impl SessionSink,
    ) {
        if self.received.remove(packet_id) {
            let ticket = sink.release(packet_id);
            gate.hold_reply(Reply::Pubcomp, ticket, packet_id);
        } else if self.version.is_v5() {
            gate.deny(Reply::Pubcomp, packet_id, ReasonCode::PacketIdNotFound);
        } else {
            gate.hold_reply(Reply::Pubcomp, None, packet_id);
        }
    }

    /// Answers have left the gate.
    #[inline]
    pub(super) fn settle(&mut self, gate: &mut PubackGate) {
        let left = gate.take_left();
        let completed = u16::try_from(left.completed).unwrap_or(u16::MAX);
        self.quota = self.quota.saturating_add(completed).min(self.receive_maximum);
        for packet_id in left.refused {
            self.received.remove(packet_id);
        }
    }
}

#[inline]
fn reply_to(qos: Qos) -> Reply {
    match qos {
        Qos::AtMostOnce | Qos::AtLeastOnce => Reply::Puback,
        Qos::ExactlyOnce => Reply::Pubrec,
    }
}

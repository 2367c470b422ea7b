//! What can never be stored where it belongs: kept in a topic of its own, with the reason, and acknowledged.
//!
//! A client that must not lose a message sends it again until it is acknowledged; refusing what will never fit would keep
//! it from sending anything else. The record has every header that a record can have, `edge-dead-letter` with the reason,
//! and the MQTT topic as its key. A payload that is too large for this topic as well is cut; `edge-original-bytes` says
//! how long it was. Of QoS 0 nothing is kept: nobody sends it again.

use edge_config::HeaderSelection;
use edge_engine::RecordTime;
use edge_mqtt::{Publish, PublishVerdict, ReasonCode, origin};
use edge_wire::envelope::Envelope;

use crate::intake::{Blocked, Held, Intake, RECORD_BYTES, copy};
use crate::mailbox::ticket;
use crate::stats::count;

/// Header with the reason.
pub(crate) const REASON: &str = "edge-dead-letter";
/// Header with the length of a payload that was cut.
const ORIGINAL_BYTES: &str = "edge-original-bytes";

impl Intake {
    /// Keeps a publish that its route cannot take.
    pub(crate) fn dead_letter(&mut self, publish: &Publish<'_>, reason: &str) -> PublishVerdict {
        let target = match self.shared.targets.dead_letter() {
            Ok(Some(target)) => target,
            Ok(None) => return PublishVerdict::Refused(ReasonCode::PacketTooLarge),
            Err(route) => {
                let verdict = self.without_topic(publish, route);
                if verdict == PublishVerdict::NotNow {
                    self.uncount(publish);
                }
                return verdict;
            }
        };
        let lane = target.lane.id();
        if self.used_up & (1 << lane.0) != 0 {
            self.uncount(publish);
            self.blocked = Some(Blocked::Lane(usize::from(lane.0)));
            return PublishVerdict::NotNow;
        }
        let Some(stream) = target.stream_of_key(publish.topic.as_bytes()) else {
            return PublishVerdict::Refused(ReasonCode::ImplementationSpecific);
        };
        let original_bytes = publish.payload.len();
        let mut envelope = self.dead_envelope(publish, reason, None);
        let room = target
            .record_bytes_max()
            .saturating_sub(envelope.view().as_bytes().len() + RECORD_BYTES);
        let mut payload = publish.payload;
        if payload.len() > room {
            // The header with the length takes room as well.
            envelope = self.dead_envelope(publish, reason, Some(original_bytes));
            let room = target
                .record_bytes_max()
                .saturating_sub(envelope.view().as_bytes().len() + RECORD_BYTES);
            payload = payload.get(..room).unwrap_or_default();
        }
        let recipients = match self.subscriptions_of {
            0 => None,
            _ => Some(self.recipients_of(publish.topic)).filter(|found| !found.is_empty()),
        };
        let held = (publish.retain || recipients.is_some()).then(|| Held {
            message: copy(publish, self.now, &mut self.arena),
            recipients: recipients.unwrap_or_default(),
            retained_as: if publish.retain { self.shared.retained.next_order() } else { 0 },
            // The payload may be cut there.
            is_in_log: false,
        });
        let arrived_us = self.arrived_us;
        let Some(slot) = self.slot_for(&target, publish.qos) else {
            return PublishVerdict::Refused(ReasonCode::UnspecifiedError);
        };
        let index = slot.chunk.push_envelope(envelope.view());
        let sequence = slot.sequence;
        slot.chunk.push(stream, index, RecordTime::arrived(arrived_us), payload);
        slot.held.extend(held);
        count(&self.shared.stats.dead_letters, 1);
        PublishVerdict::Stored(ticket(sequence, lane.0))
    }

    fn dead_envelope(
        &mut self,
        publish: &Publish<'_>,
        reason: &str,
        original_bytes: Option<usize>,
    ) -> Envelope {
        let client_id = self.client_id.as_deref().unwrap_or_default();
        let headers = &mut self.headers;
        headers.clear();
        origin::headers(publish, client_id, |name, value| {
            headers.push(name, Some(value));
        });
        headers.push(REASON, Some(reason.as_bytes()));
        if let Some(bytes) = original_bytes {
            headers.push(ORIGINAL_BYTES, Some(bytes.to_string().as_bytes()));
        }
        Envelope::new(Some(publish.topic.as_bytes()), &headers.finish())
    }
}

/// A publish whose record looks like a dead letter: it has a user property with that name.
pub(crate) fn looks_dead(publish: &Publish<'_>, selection: HeaderSelection) -> bool {
    let mut found = false;
    if selection.user_properties && !publish.properties_raw.is_empty() {
        origin::headers(publish, "", |name, _| found |= name == REASON);
    }
    found
}

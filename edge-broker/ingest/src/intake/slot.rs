//! Chunks that are being filled, one for each lane and whether somebody waits.

use std::sync::Arc;

use edge_config::RouteIndex;
use edge_engine::RecordChunk;
use edge_mqtt::{Publish, Qos};
use edge_wire::StreamId;

use super::{Held, Intake};
use crate::registry::Recipients;
use crate::route_cache::Stored;
use crate::targets::Target;

/// A chunk that is being filled.
pub(crate) struct Slot {
    pub(crate) sequence: u64,
    pub(super) target: Arc<Target>,
    /// QoS 1 and 2: somebody waits for it.
    pub(super) is_awaited: bool,
    pub(crate) chunk: RecordChunk,
    pub(crate) held: Vec<Held>,
    /// Where records without a key of this route go, as long as this chunk is filled.
    pub(super) sticky: Option<(RouteIndex, StreamId)>,
}

impl Intake {
    /// A publish that is offered again is counted then.
    pub(crate) fn uncount(&mut self, publish: &Publish<'_>) {
        match publish.qos {
            Qos::AtMostOnce => self.counted.qos0 -= 1,
            Qos::AtLeastOnce => self.counted.qos1 -= 1,
            Qos::ExactlyOnce => self.counted.qos2 -= 1,
        }
        self.counted.payload_bytes -= publish.payload.len() as u64;
    }

    /// Who gets what this client publishes to a topic.
    pub(crate) fn recipients_of(&self, topic: &str) -> Recipients {
        self.shared.registry.recipients(topic, self.publisher, &self.access)
    }

    /// The chunk for records of this QoS in the lane of `target`.
    pub(crate) fn slot_for(&mut self, target: &Arc<Target>, qos: Qos) -> Option<&mut Slot> {
        let lane = target.lane.id();
        let is_awaited = qos != Qos::AtMostOnce;
        let known = |slot: &Slot| slot.is_awaited == is_awaited && slot.target.lane.id() == lane;
        let place = self.slots.iter().position(known).unwrap_or_else(|| {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            self.slots.push(Slot {
                sequence,
                target: target.clone(),
                is_awaited,
                chunk: RecordChunk::default(),
                held: Vec::new(),
                sticky: None,
            });
            self.slots.len() - 1
        });
        self.slots.get_mut(place)
    }
}

/// Records without a key stay with one partition for a chunk, then move on: fuller batches than one
/// partition per record.
pub(super) fn sticky_stream(stored: &Stored, slot: &mut Slot) -> Option<StreamId> {
    if let Some((route, stream)) = slot.sticky
        && route == stored.route
    {
        return Some(stream);
    }
    let stream = stored.target.next_stream()?;
    slot.sticky = Some((stored.route, stream));
    Some(stream)
}

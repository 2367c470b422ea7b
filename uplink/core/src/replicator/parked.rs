//! Parked streams: what is dropped from memory, where each goes on, and how far one may hold up its lane.
//!
//! A parked stream holds its place in the journal: what stands behind it is not released, so that it can be read
//! again. It does so for at most [`park_segments_max`](super::ReplicatorConfig::park_segments_max) segments of its
//! lane. Beyond, its place moves along behind the others: the ring may take its oldest records, and what it took is
//! counted as missing when the stream is followed again. A topic that nobody mends costs its own records, not
//! those of its neighbours.

use std::collections::BTreeMap;

use edge_log::JournalPosition;
use edge_wire::StreamId;

use super::idempotent::{Parked, Piece, Replicator};
use super::target::{Item, ItemState, Mode};
use super::topics::TopicState;
use super::{LaneCommand, Now, TargetIndex};

/// How long a partition that failed for long is left alone, in microseconds.
const PARTITION_REST_US: u64 = 30_000_000;

impl Replicator {
    /// Gives the queue of a refused target back to the journal.
    pub(super) fn park_target(&mut self, target: TargetIndex, now: Now) {
        let entry = &mut self.targets[target.0];
        entry.is_to_be_parked = false;
        entry.mode = Mode::Flow;
        if let Some(first) = entry.queue.front()
            && first.plan.is_some()
        {
            entry.head_sequence = first.sequence;
        }
        let topic = entry.topic;
        let dropped: Vec<Item> = entry.queue.drain(..).collect();
        self.active.remove(&target);
        self.unplanned.remove(&target);
        self.recovering.remove(&target);
        let streams = self.park(dropped);
        if !matches!(self.topics[topic.0].state, TopicState::Refused { .. }) {
            // Only this partition is unwell (or gone): nobody will open the topic again for it.
            let at = now.mono_us + PARTITION_REST_US;
            self.resting.extend(streams.into_iter().map(|stream| (at, stream)));
        }
    }

    /// Follows the streams again whose partition had a rest.
    pub(super) fn wake_resting(&mut self, now: Now) {
        while let Some((at, stream)) = self.resting.first().copied()
            && at <= now.mono_us
        {
            self.resting.pop_first();
            self.unpark(stream);
        }
    }

    /// Drops batches and remembers, for each of their streams, where to go on. Returns the streams.
    pub(super) fn park(&mut self, dropped: Vec<Item>) -> Vec<StreamId> {
        let mut first: BTreeMap<StreamId, (usize, Parked)> = BTreeMap::new();
        for item in dropped {
            self.unacked_bytes -= item.batch.bytes.len();
            if item.is_resumed
                && let Some(resume) = &mut self.resume
            {
                resume.unsettled = resume.unsettled.saturating_sub(1);
            }
            if item.state == ItemState::Acknowledged {
                continue;
            }
            let entry = first.entry(item.batch.stream).or_insert_with(|| {
                let parked = Parked {
                    at: item.batch.first_at,
                    next: item.batch.first,
                    cuts: Vec::new(),
                    in_doubt: 0,
                    is_overtaken: false,
                };
                (item.lane, parked)
            });
            let (first, end, count) = (item.batch.first, item.batch.end, item.batch.count);
            entry.1.cuts.push(Piece { first, end, count });
            if item.may_be_appended {
                entry.1.in_doubt = entry.1.cuts.len();
            }
        }
        let streams = first.keys().copied().collect();
        for (id, (lane, parked)) in first {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            // What waited behind the dropped batches is read again with them.
            for item in stream.waiting.drain(..) {
                self.unacked_bytes -= item.batch.bytes.len();
            }
            stream.target = None;
            if stream.parked.as_ref().is_none_or(|known| parked.next < known.next) {
                stream.parked = Some(parked);
            }
            self.lanes[lane].commands.push(LaneCommand::Park(id));
        }
        self.finish_resume_if_settled();
        streams
    }

    /// Follows a parked stream again from where it stopped.
    pub(super) fn unpark(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(parked) = stream.parked.take() else { return };
        let lane = &mut self.lanes[stream.lane];
        stream.from_generation = lane.generation + 1;
        lane.commands.push(LaneCommand::FollowFrom(id, parked.next));
        // What may be upstream already has to be the same batches again.
        stream.in_doubt = parked.cuts.iter().take(parked.in_doubt).copied().collect();
        lane.commands.extend(
            stream.in_doubt.iter().map(|cut| LaneCommand::ExpectCut(id, cut.first, cut.end)),
        );
        lane.seek_back(parked.at);
    }

    /// Lets go of the places of parked streams that hold up too much of their lane.
    pub(super) fn overtake_parked(&mut self) {
        for stream in self.streams.values_mut() {
            let Some(parked) = &mut stream.parked else { continue };
            let through = self.lanes[stream.lane].through;
            let oldest = through.segment.saturating_sub(self.config.park_segments_max(stream.lane));
            if parked.at.segment < oldest {
                parked.at = JournalPosition { segment: oldest, byte: 0 };
                parked.is_overtaken = true;
            }
        }
    }
}

//! What one lane holds of one session.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::place::Place;

/// A QoS 2 delivery that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbound {
    /// Packet id.
    pub id: u16,
    /// Of two deliveries with one packet id the one with the higher order has it.
    pub order: u64,
    /// How far it has come.
    pub state: OutboundState,
}

/// How far a QoS 2 delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboundState {
    /// The PUBLISH may have been sent: sent again with the same packet id.
    Sent,
    /// The client has the message: PUBREL may have been sent, PUBLISH is not sent any more.
    Confirmed,
    /// It is over; kept until everything before it is done too.
    Done,
}

/// One lane's part of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Everything before it is done; `None`: nothing was done yet.
    pub(crate) cursor: Option<Place>,
    /// Messages that went before they were read.
    pub(crate) missed: u64,
    /// QoS 2 packet ids of the client whose message is in the lane and which it has not released.
    pub(crate) received: BTreeSet<u16>,
    /// QoS 2 deliveries to the client by the place of their record.
    pub(crate) outbound: BTreeMap<Place, Outbound>,
}

impl Part {
    /// Everything before `place` is done.
    pub(crate) fn move_to(&mut self, place: Place) {
        let cursor = self.cursor.map_or(place, |cursor| cursor.max(place));
        self.cursor = Some(cursor);
        // What was confirmed still needs its PUBCOMP, wherever the cursor stands.
        self.outbound.retain(|at, one| *at >= cursor || one.state == OutboundState::Confirmed);
    }

    pub(crate) fn sent(&mut self, place: Place, id: u16, order: u64) {
        if self.cursor.is_some_and(|cursor| place < cursor) {
            return;
        }
        let known = self.outbound.get(&place);
        if known.is_none_or(|known| known.order < order) {
            // A packet id is only used again when its last delivery is over.
            self.outbound
                .values_mut()
                .filter(|one| one.id == id && one.order < order)
                .for_each(|one| one.state = OutboundState::Done);
            let state = OutboundState::Sent;
            self.outbound.insert(place, Outbound { id, order, state });
            self.drop_done();
        }
    }

    pub(crate) fn confirmed(&mut self, place: Place) {
        if let Some(one) = self.outbound.get_mut(&place)
            && one.state == OutboundState::Sent
        {
            one.state = OutboundState::Confirmed;
        }
    }

    pub(crate) fn completed(&mut self, place: Place) {
        if let Some(one) = self.outbound.get_mut(&place) {
            one.state = OutboundState::Done;
        }
        self.drop_done();
    }

    fn drop_done(&mut self) {
        let Some(cursor) = self.cursor else { return };
        self.outbound.retain(|at, one| *at >= cursor || one.state != OutboundState::Done);
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

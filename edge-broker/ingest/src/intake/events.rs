//! Events of a session that outlives its connection, on their way to the lanes.
//!
//! They are collected for a read, one submission a lane, and what they promise waits for its ticket.

use edge_mqtt::{Connect, Ticket};
use edge_sessions::{EVENT_TAG, SessionEvent, SessionId};

use super::{Intake, SYSTEM_LANE};
use crate::inbox::Inbox;
use crate::mailbox::ticket;

/// Events of the session on their way to a lane.
pub(super) struct Told {
    pub(super) lane: usize,
    pub(super) ticket: Ticket,
    pub(super) events: Vec<(u16, Vec<u8>)>,
}

impl Intake {
    /// An event of the session goes to a lane; what it promises waits for the ticket.
    pub(super) fn tell(&mut self, (lane, event): (usize, SessionEvent)) -> Option<Ticket> {
        let event = (EVENT_TAG, event.encode());
        if let Some(told) = self.told.iter_mut().find(|told| told.lane == lane) {
            told.events.push(event);
            return Some(told.ticket);
        }
        let ticket = ticket(self.next_sequence, u8::try_from(lane).ok()?);
        self.next_sequence += 1;
        self.told.push(Told { lane, ticket, events: vec![event] });
        Some(ticket)
    }

    /// What CONNACK waits for; and a session that outlives its connection is one from here on.
    pub(super) fn keep_session(
        &mut self,
        connect: &Connect<'_>,
        client_id: &str,
        inbox: &Inbox,
        ended: Vec<SessionId>,
    ) -> Option<Ticket> {
        let shared = self.shared.clone();
        let durable = shared.durable.as_ref()?;
        let expiry_s = connect.session_expiry_s;
        let mut ticket = None;
        for session in ended {
            ticket = self.tell((SYSTEM_LANE, SessionEvent::Discarded { session }));
        }
        match inbox.lasting() {
            Some(lasting) => {
                let session = lasting.id();
                self.tell((SYSTEM_LANE, SessionEvent::Attached { session, expiry_s }));
            }
            None if expiry_s > 0 => {
                let user = self.identity.owner();
                match durable.begin(client_id, user.as_deref(), expiry_s) {
                    Some((lasting, made)) => {
                        inbox.last(lasting);
                        ticket = self.tell((SYSTEM_LANE, made));
                    }
                    None => tracing::warn!(
                        client = client_id,
                        "there is no room for one more session: this one does not survive a restart"
                    ),
                }
            }
            None => {}
        }
        ticket
    }
}

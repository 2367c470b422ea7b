//! All sessions that outlive their connection, as far as they are durable.
//!
//! One part for each lane, found by its name; the sessions themselves are in the part of the `system` lane. Every part
//! is replaced as a whole when its lane is opened ([`Store::recover`]), changes by the events of its lane
//! ([`Store::apply`]), and goes into the checkpoints of its lane ([`Store::checkpoint`]).
//!
//! Events may be applied twice, as recovery replays them over a checkpoint that has some of them already: applying all
//! events of a lane from any point on over a later state gives that later state.

use std::collections::BTreeMap;

use edge_log::JournalPosition;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::event::{EventDecodeError, SessionEvent, VERSION, versioned};
use crate::limits::Limits;
use crate::part::{Outbound, OutboundState, Part};
use crate::place::Place;
use crate::session::{Session, SessionId, Subscription};

/// Name of the lane that holds the sessions.
pub const SYSTEM: &str = "system";

/// The durable state of all sessions.
#[derive(Debug, Default)]
pub struct Store {
    limits: Limits,
    sessions: BTreeMap<SessionId, Session>,
    by_client: HashMap<String, SessionId>,
    /// The highest number that `system` has seen.
    last_made: SessionId,
    /// The next to be given out.
    next: u64,
    /// Powered-on seconds, as far as is durable.
    powered_s: u64,
    /// By name of the lane, then by session.
    lanes: BTreeMap<String, BTreeMap<SessionId, Part>>,
}

/// Whether there is room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is.
    Granted,
    /// A limit is reached.
    Refused,
}

/// What a session has of its former connections, over all lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// QoS 2 packet ids of the client that it has not released, and the lane that holds each.
    pub received: Vec<(u16, String)>,
    /// QoS 2 deliveries to the client that are under way: the lane, the place of the record, and what is known.
    pub outbound: Vec<(String, Place, Outbound)>,
    /// Messages that went before they were read.
    pub missed: u64,
}

/// The `system` lane's checkpoint, in front of its part. Fields are positional.
#[derive(Serialize, Deserialize)]
struct SessionsRecord {
    sessions: Vec<(SessionId, Session)>,
    last_made: SessionId,
    powered_s: u64,
}

impl Store {
    /// Without sessions.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, next: 1, ..Self::default() }
    }

    /// Takes what a lane was found to hold: its newest checkpoint, and the events behind it. `system` first.
    ///
    /// # Errors
    /// Something cannot be decoded; what can be is taken.
    pub fn recover<'e>(
        &mut self,
        lane: &str,
        checkpoint: &[u8],
        events: impl Iterator<Item = &'e [u8]>,
    ) -> Result<(), EventDecodeError> {
        let mut outcome = self.take_checkpoint(lane, checkpoint);
        for bytes in events {
            match SessionEvent::decode(bytes) {
                Ok(event) => self.apply(lane, event),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn take_checkpoint(&mut self, lane: &str, bytes: &[u8]) -> Result<(), EventDecodeError> {
        self.lanes.insert(lane.to_owned(), BTreeMap::new());
        if lane == SYSTEM {
            self.sessions.clear();
            self.by_client.clear();
            self.last_made = SessionId::default();
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let malformed = |_| EventDecodeError::Malformed { bytes: bytes.len() };
        let mut body = versioned(bytes)?;
        if lane == SYSTEM {
            let (record, rest): (SessionsRecord, _) =
                postcard::take_from_bytes(body).map_err(malformed)?;
            body = rest;
            self.powered_s = self.powered_s.max(record.powered_s);
            self.saw(record.last_made);
            self.last_made = record.last_made;
            for (id, session) in record.sessions {
                self.by_client.insert(session.client.clone(), id);
                self.sessions.insert(id, session);
            }
        }
        let parts: Vec<(SessionId, Part)> = postcard::from_bytes(body).map_err(malformed)?;
        for (id, _) in &parts {
            self.saw(*id);
        }
        self.lanes.insert(lane.to_owned(), parts.into_iter().collect());
        Ok(())
    }

    /// After all lanes were opened: drops parts of sessions that are gone.
    pub fn settle(&mut self) {
        let sessions = &self.sessions;
        for parts in self.lanes.values_mut() {
            parts.retain(|id, _| sessions.contains_key(id));
        }
    }

    fn saw(&mut self, id: SessionId) {
        self.next = self.next.max(id.0 + 1);
    }

    /// Applies a change that has just become durable in `lane`, in its order.
    pub fn apply(&mut self, lane: &str, event: SessionEvent) {
        match event {
            SessionEvent::Made { session, client, user, expiry_s } => {
                self.make(session, client, user, expiry_s);
            }
            SessionEvent::Discarded { session } => self.discard(session),
            SessionEvent::Attached { session, expiry_s } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    (session.expiry_s, session.left_at_s) = (expiry_s, None);
                }
            }
            SessionEvent::Left { session, expiry_s, at_s } => {
                self.powered_s = self.powered_s.max(at_s);
                if let Some(session) = self.sessions.get_mut(&session) {
                    (session.expiry_s, session.left_at_s) = (expiry_s, Some(at_s));
                }
            }
            SessionEvent::Subscribed { session, filter, options, starts } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    // What is made again begins where it began: nothing that waits for it is lost.
                    let known = session.subscriptions.entry(filter);
                    known
                        .and_modify(|known| known.options = options)
                        .or_insert(Subscription { options, starts });
                }
            }
            SessionEvent::Unsubscribed { session, filter } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.subscriptions.remove(&filter);
                }
            }
            SessionEvent::WillSet { session, will } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.will = will;
                }
            }
            SessionEvent::Passed { at_s } => self.powered_s = self.powered_s.max(at_s),
            SessionEvent::LaneReborn { lane } => {
                for session in self.sessions.values_mut() {
                    for subscription in session.subscriptions.values_mut() {
                        subscription.starts.remove(&lane);
                    }
                }
            }
            SessionEvent::Received { session, id } => {
                if let Some(part) = self.part(lane, session) {
                    part.received.insert(id);
                }
            }
            SessionEvent::Released { session, ids } => {
                if let Some(part) = self.part(lane, session) {
                    part.received.retain(|id| !ids.contains(id));
                }
            }
            SessionEvent::Moved { cursors } => {
                for cursor in cursors {
                    if let Some(part) = self.part(lane, cursor.session) {
                        part.move_to(cursor.place);
                        part.missed = part.missed.max(cursor.missed);
                    }
                }
            }
            SessionEvent::Sent { session, order, deliveries } => {
                if let Some(part) = self.part(lane, session) {
                    for (place, id) in deliveries {
                        part.sent(place, id, order);
                    }
                }
            }
            SessionEvent::Confirmed { session, places } => {
                if let Some(part) = self.part(lane, session) {
                    places.into_iter().for_each(|place| part.confirmed(place));
                }
            }
            SessionEvent::Completed { session, places } => {
                if let Some(part) = self.part(lane, session) {
                    places.into_iter().for_each(|place| part.completed(place));
                }
            }
        }
    }

    fn make(&mut self, id: SessionId, client: String, user: Option<String>, expiry_s: u32) {
        self.saw(id);
        self.last_made = self.last_made.max(id);
        let known = self.by_client.get(&client).copied();
        // Replayed over a state that has it, or a later one of the client.
        if known.is_some_and(|known| known >= id) {
            return;
        }
        if let Some(older) = known {
            self.discard(older);
        }
        let (subscriptions, will) = (BTreeMap::new(), None);
        let session = Session {
            client: client.clone(),
            user,
            expiry_s,
            left_at_s: None,
            subscriptions,
            will,
        };
        self.by_client.insert(client, id);
        self.sessions.insert(id, session);
    }

    fn discard(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id)
            && self.by_client.get(&session.client) == Some(&id)
        {
            self.by_client.remove(&session.client);
        }
        for parts in self.lanes.values_mut() {
            parts.remove(&id);
        }
    }

    /// A session that was not made yet may have events in a lane; one that has ended may not have a part any more.
    fn part(&mut self, lane: &str, id: SessionId) -> Option<&mut Part> {
        self.saw(id);
        if id <= self.last_made && !self.sessions.contains_key(&id) {
            return None;
        }
        if !self.lanes.contains_key(lane) {
            self.lanes.insert(lane.to_owned(), BTreeMap::new());
        }
        Some(self.lanes.get_mut(lane)?.entry(id).or_default())
    }

    /// Appends a lane's part, as of all events applied so far.
    pub fn checkpoint(&self, lane: &str, out: &mut Vec<u8>) {
        let parts = self.lanes.get(lane).into_iter().flatten();
        let parts: Vec<(&SessionId, &Part)> = parts.filter(|(_, part)| !part.is_empty()).collect();
        if parts.is_empty() && (lane != SYSTEM || self.is_untouched()) {
            return;
        }
        out.push(VERSION);
        let mut put = |bytes: Vec<u8>| out.extend(bytes);
        if lane == SYSTEM {
            let sessions = self.sessions.iter();
            let record = SessionsRecord {
                sessions: sessions.map(|(id, session)| (*id, self.trimmed(*id, session))).collect(),
                last_made: self.last_made,
                powered_s: self.powered_s,
            };
            put(postcard::to_stdvec(&record).expect("plain data always serialises"));
        }
        put(postcard::to_stdvec(&parts).expect("plain data always serialises"));
    }

    /// Nobody ever asked for a session that outlives its connection.
    fn is_untouched(&self) -> bool {
        self.last_made == SessionId::default() && self.powered_s == 0
    }

    /// Without the start positions that the session has passed; where it stands is durable in the lane.
    fn trimmed(&self, id: SessionId, session: &Session) -> Session {
        let mut session = session.clone();
        for subscription in session.subscriptions.values_mut() {
            subscription.starts.retain(|lane, start| {
                let cursor = self.lanes.get(lane).and_then(|parts| parts.get(&id)?.cursor);
                cursor.is_none_or(|cursor| *start > cursor)
            });
        }
        session
    }

    /// A number for a new session.
    pub fn next_id(&mut self) -> SessionId {
        self.next += 1;
        SessionId(self.next - 1)
    }

    /// Whether one more session, or so many more bytes of it, fit.
    #[must_use]
    pub fn admits(&self, sessions: usize, bytes: usize) -> Admission {
        let known: usize = self.sessions.values().map(Session::bytes).sum();
        let fits = self.sessions.len() + sessions <= self.limits.sessions_max
            && known + bytes <= self.limits.state_bytes_max;
        if fits { Admission::Granted } else { Admission::Refused }
    }

    /// Whether a lane takes one more QoS 2 packet id.
    #[must_use]
    pub fn admits_received(&self, lane: &str) -> Admission {
        let parts = self.lanes.get(lane).into_iter().flat_map(BTreeMap::values);
        let held: usize = parts.map(|part| part.received.len()).sum();
        if held < self.limits.received_max { Admission::Granted } else { Admission::Refused }
    }

    /// The session of a client.
    #[must_use]
    pub fn of_client(&self, client: &str) -> Option<(SessionId, &Session)> {
        let id = self.by_client.get(client)?;
        Some((*id, self.sessions.get(id)?))
    }

    /// A session by its number.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// All sessions, by age.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// Sessions whose time is over.
    #[must_use]
    pub fn over(&self, now_s: u64) -> Vec<SessionId> {
        let over = self.sessions.iter().filter(|(_, session)| session.is_over(now_s));
        over.map(|(id, _)| *id).collect()
    }

    /// Powered-on seconds, as far as is durable.
    #[must_use]
    pub fn powered_s(&self) -> u64 {
        self.powered_s
    }

    /// Where a session goes on reading a lane: at its cursor, or where its first subscription begins. A place that
    /// the lane does not reach (`end`) means that its last groups were lost: it goes on at the end.
    #[must_use]
    pub fn cursor(&self, id: SessionId, lane: &str, end: JournalPosition) -> Place {
        let part = self.lanes.get(lane).and_then(|parts| parts.get(&id));
        let place = part.and_then(|part| part.cursor).unwrap_or_else(|| {
            let subscriptions =
                self.sessions.get(&id).map(|session| session.subscriptions.values());
            subscriptions
                .into_iter()
                .flatten()
                .map(|subscription| subscription.start(lane))
                .min()
                .unwrap_or(Place::of_group(end))
        });
        place.min(Place::of_group(end))
    }

    /// What a session has of its former connections.
    #[must_use]
    pub fn inherited(&self, id: SessionId) -> Inherited {
        let mut inherited = Inherited::default();
        for (lane, parts) in &self.lanes {
            let Some(part) = parts.get(&id) else { continue };
            inherited.missed += part.missed;
            inherited.received.extend(part.received.iter().map(|id| (*id, lane.clone())));
            let outbound = part.outbound.iter();
            inherited.outbound.extend(outbound.map(|(at, one)| (lane.clone(), *at, *one)));
        }
        // Of two that use a packet id the earlier one is over: the id would not have been given out again.
        let mut latest: HashMap<u16, u64> = HashMap::new();
        for (_, _, one) in &inherited.outbound {
            let order = latest.entry(one.id).or_default();
            *order = one.order.max(*order);
        }
        for (_, _, one) in &mut inherited.outbound {
            if latest.get(&one.id).is_some_and(|order| one.order < *order) {
                one.state = OutboundState::Done;
            }
        }
        inherited.outbound.sort_by_key(|(_, _, one)| one.order);
        inherited
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

#[cfg(test)]
mod tests;

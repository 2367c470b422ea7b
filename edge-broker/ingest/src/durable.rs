//! Sessions and the log: what is told to lanes, and what they hold after a restart.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_engine::{Body, LaneHandle, Submission};
use edge_mqtt::{InFlight, SessionState, Stage};
use edge_sessions::{Admission, EVENT_TAG, Session, SessionEvent, SessionId};

use crate::lasting::Lasting;
use crate::session_keeper::SessionKeeper;

/// What a session takes of a checkpoint before it has subscriptions, at most.
const SESSION_BYTES: usize = 128;

/// What connections need to make promises about sessions.
pub(crate) struct Durable {
    pub(crate) keeper: Arc<SessionKeeper>,
    lanes: Arc<[Arc<LaneHandle>]>,
    started: Instant,
    /// Powered-on seconds as of the start.
    powered_s: u64,
}

impl Durable {
    pub(crate) fn new(keeper: Arc<SessionKeeper>, lanes: Arc<[Arc<LaneHandle>]>) -> Self {
        let powered_s = keeper.with(|store| store.powered_s());
        let durable = Self { keeper, lanes, started: Instant::now(), powered_s };
        let to_tell = durable.keeper.settle();
        if !to_tell.is_empty() {
            durable.submit(0, to_tell);
        }
        durable
    }

    /// Powered-on seconds.
    pub(crate) fn now_s(&self, now: Instant) -> u64 {
        self.powered_s + now.saturating_duration_since(self.started).as_secs()
    }

    /// A new session of a client, if there is room for it. Gives what CONNACK waits for.
    pub(crate) fn begin(
        &self,
        client_id: &str,
        user: Option<&str>,
        expiry_s: u32,
    ) -> Option<(Arc<Lasting>, SessionEvent)> {
        let bytes = SESSION_BYTES + client_id.len() + user.map_or(0, str::len);
        let session = self.keeper.with(|store| match store.admits(1, bytes) {
            Admission::Granted => Some(store.next_id()),
            Admission::Refused => None,
        })?;
        let client = client_id.to_owned();
        let made = SessionEvent::Made { session, client, user: user.map(str::to_owned), expiry_s };
        Some((Arc::new(Lasting::new(session, client_id, self.lanes.clone())), made))
    }

    /// Whether a subscription fits.
    pub(crate) fn admits(&self, filter: &str) -> bool {
        let names: usize = self.lanes.iter().map(|lane| lane.name().len() + 20).sum();
        let bytes = filter.len() + 16 + names;
        self.keeper.with(|store| store.admits(0, bytes)) == Admission::Granted
    }

    /// A connection has ended, its session waits.
    pub(crate) fn left(&self, lasting: &Lasting, expiry_s: u32, now: Instant) {
        let (session, at_s) = (lasting.id(), self.now_s(now));
        self.tell(0, &[SessionEvent::Left { session, expiry_s, at_s }]);
        self.flush(lasting, true);
    }

    /// A session has ended.
    pub(crate) fn discard(&self, session: SessionId) {
        self.tell(0, &[SessionEvent::Discarded { session }]);
    }

    /// Where a session stands rides on the next group of each lane.
    pub(crate) fn flush(&self, lasting: &Lasting, ends: bool) {
        for lane in 1..self.lanes.len() {
            let events = lasting.take_owed(lane, ends);
            if !events.is_empty() {
                self.tell(lane, &events);
            }
        }
    }

    fn tell(&self, lane: usize, events: &[SessionEvent]) {
        self.submit(lane, events.iter().map(|event| (EVENT_TAG, event.encode())).collect());
    }

    /// Nobody waits for it: if it does not get there, a client gets again what it has, or a session ends later.
    fn submit(&self, lane: usize, events: Vec<(u16, Vec<u8>)>) {
        let Some(lane) = self.lanes.get(lane) else { return };
        if lane.try_submit(Submission::new(Body::Events(events), None)).is_err() {
            tracing::debug!(lane = lane.name(), "the state of a session is told later");
        }
    }
}

/// A session as it is taken up again after a restart.
pub(crate) struct Restored {
    pub(crate) session: Session,
    pub(crate) lasting: Arc<Lasting>,
    /// Powered-on time that is left of it.
    pub(crate) expires_in: Duration,
    pub(crate) state: SessionState,
}

/// A session that does not expire is kept for as long as anybody may wait.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl Durable {
    /// The sessions that the lanes hold, with what was under way.
    pub(crate) fn restored(&self, now: Instant) -> Vec<Restored> {
        let sessions: Vec<(SessionId, Session)> = self
            .keeper
            .with(|store| store.sessions().map(|(id, session)| (id, session.clone())).collect());
        let restore = |(id, session): (SessionId, Session)| {
            let inherited = self.keeper.with(|store| store.inherited(id));
            let cursor = |lane: &LaneHandle| {
                let end = lane.reader().end();
                self.keeper.with(|store| store.cursor(id, lane.name(), end))
            };
            let lasting = Lasting::new(id, &session.client, self.lanes.clone()).restored(
                session.subscriptions.clone(),
                &inherited,
                cursor,
            );
            let received = inherited.received.iter().filter_map(|(id, _)| NonZeroU16::new(*id));
            let mut state =
                SessionState { received: received.collect(), ..SessionState::default() };
            for (packet_id, tag, delivery) in lasting.under_way(now) {
                let Some(packet_id) = NonZeroU16::new(packet_id) else { continue };
                let stage = delivery.map_or(Stage::Released { tag }, Stage::Published);
                state.last_packet_id = packet_id.get();
                state.in_flight.push_back(InFlight { packet_id, stage });
            }
            let left_s = session.left_at_s.unwrap_or(self.powered_s);
            let expires_in = match session.expiry_s {
                u32::MAX => FOR_EVER,
                expiry_s => {
                    let over_s = left_s + u64::from(expiry_s);
                    Duration::from_secs(over_s.saturating_sub(self.powered_s))
                }
            };
            Restored { session, lasting: Arc::new(lasting), expires_in, state }
        };
        sessions.into_iter().map(restore).collect()
    }
}

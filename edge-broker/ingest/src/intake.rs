//! From PUBLISH to lane: what one connection hands over.
//!
//! All publishes of one read are collected into one chunk per lane and QoS and handed over together:
//! one lock of the lane's queue per read, whatever the number of messages. QoS 0 goes to live
//! subscribers at once and may be dropped by the lane; QoS 1 and 2 go to them when they are durable.

mod envelope;
mod events;
mod hand_over;
mod login;
mod retained;
mod slot;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use edge_auth::{Access, Action, Identity, PendingCheck};
use edge_config::{KeyKind, RouteIndex};
use edge_engine::{Body, Completion, RecordChunk, RecordTime, Submission};
use edge_mqtt::{
    Accepted, Connect, ConnectVerdict, Message, Publish, PublishVerdict, Qos, ReasonCode,
    SessionSink, SubscriberId, SubscriptionOptions, Ticket, Unsubscribed, split_share,
};
use edge_sessions::EVENT_TAG;
use edge_wire::headers::HeadersBuilder;

use self::envelope::{forget_large, ready};
use self::events::Told;
pub(crate) use self::hand_over::{HandOver, Held, Waits};
pub(crate) use self::retained::WantsRetained;
use self::slot::{Slot, sticky_stream};
use crate::clients::{Entry, IdentityFull};
use crate::dead_letter::looks_dead;
use crate::inbox::Inbox;
use crate::lasting::Lasting;
use crate::mailbox::{Mailbox, ticket};
use crate::registry::{Recipients, fan_out};
use crate::route_cache::{RouteCache, Stored};
use crate::sessions::{LateWill, Opened, Request};
use crate::shared::Shared;
use crate::stats::count;

/// Messages for live subscribers share allocations of this size.
const ARENA_BYTES: usize = 8 * 1024;

/// What a record takes beside its value and its envelope, at most.
pub(crate) const RECORD_BYTES: usize = 64;

/// Index of the lane that knows the sessions.
const SYSTEM_LANE: usize = 0;
/// How filters of shared subscriptions begin: they belong to nobody's session.
const SHARED: &str = "$share/";

/// Why a publish cannot go on.
pub(crate) enum Blocked {
    /// The topic of this route does not exist yet.
    NoTopic(RouteIndex),
    /// The client has as much waiting in this lane as it may.
    Lane(usize),
    /// Its password has to be hashed first.
    Login(PendingCheck),
    /// Another connection has its session.
    Session,
}

/// The sink of one connection's session.
pub(crate) struct Intake {
    pub(crate) shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    pub(crate) client_id: Option<Box<str>>,
    /// Its session, from CONNECT on.
    pub(crate) inbox: Option<Arc<Inbox>>,
    /// No Local: who publishes. Its own session, or that of the will.
    publisher: Option<SubscriberId>,
    /// What is in force, as of the last read.
    access: Arc<Access>,
    access_of: u64,
    identity: Identity,
    /// Where it comes from, and over what.
    place: (SocketAddr, &'static str),
    entry: Option<Entry>,
    /// Names in its certificate.
    certificate: Vec<String>,
    is_local: bool,
    /// The credentials were right.
    is_known: bool,
    /// It has waited for its session for too long.
    pub(crate) has_waited: bool,
    /// At most one for each subscription.
    pub(crate) wants_retained: VecDeque<WantsRetained>,
    /// Wills of the session that it ended with its CONNECT.
    pub(crate) wills: Vec<LateWill>,
    /// What came of the hash of its password.
    login: Option<Option<Identity>>,
    cache: RouteCache,
    cache_of: u64,
    /// At most two per lane: few enough to search.
    slots: Vec<Slot>,
    next_sequence: u64,
    /// At most one per lane.
    told: Vec<Told>,
    pub(crate) arena: BytesMut,
    pub(crate) headers: HeadersBuilder,
    key: Vec<u8>,
    /// Set for each read.
    pub(crate) now: Instant,
    /// Microseconds since boot.
    pub(crate) arrived_us: u64,
    input_bytes: usize,
    /// Records of the last chunk: the next is about as long.
    records_expected: usize,
    /// Envelopes of the last chunk, and their bytes.
    envelopes_expected: (usize, usize),
    pub(crate) subscriptions_of: u64,
    counted: Counted,
    /// Lanes in which the client has as much waiting as it may, a bit each. Set for each read.
    pub(crate) used_up: u32,
    pub(crate) blocked: Option<Blocked>,
    /// The next publish was already given to live subscribers, then had to wait for its topic.
    fanned_out: bool,
    /// Topics that could not be made: not tried again before then.
    unavailable: Option<(RouteIndex, Instant)>,
}

/// Counted here and added to the shared counters once per read.
#[derive(Default)]
struct Counted {
    qos0: u64,
    qos1: u64,
    qos2: u64,
    payload_bytes: u64,
    delivered: u64,
    not_delivered: u64,
    dropped: u64,
}

impl Intake {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox>,
        certificate: Vec<String>,
        is_local: bool,
        place: (SocketAddr, &'static str),
        now: Instant,
    ) -> Self {
        let cache =
            RouteCache::new(shared.cache_entries.clone(), shared.options.route_cache_entries_max);
        let cache_of = shared.targets.generation();
        let access_of = shared.options.access.generation();
        Self {
            access: shared.options.access.get(),
            access_of,
            identity: Identity::default(),
            place,
            entry: None,
            certificate,
            is_local,
            is_known: false,
            has_waited: false,
            wants_retained: VecDeque::new(),
            wills: Vec::new(),
            login: None,
            used_up: 0,
            shared,
            mailbox,
            client_id: None,
            inbox: None,
            publisher: None,
            cache,
            cache_of,
            slots: Vec::new(),
            next_sequence: 1,
            told: Vec::new(),
            arena: BytesMut::new(),
            headers: HeadersBuilder::new(),
            key: Vec::new(),
            now,
            arrived_us: 0,
            input_bytes: 0,
            records_expected: 0,
            envelopes_expected: (0, 0),
            subscriptions_of: 0,
            counted: Counted::default(),
            blocked: None,
            fanned_out: false,
            unavailable: None,
        }
    }

    /// For the will of a client that is gone.
    pub(crate) fn of_will(
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox>,
        identity: Identity,
        session: SubscriberId,
    ) -> Self {
        let nowhere = (SocketAddr::from(([0, 0, 0, 0], 0)), "none");
        let mut intake = Self::new(shared, mailbox, Vec::new(), false, nowhere, Instant::now());
        intake.client_id = Some((&*identity.client_id).into());
        intake.identity = identity;
        intake.publisher = Some(session);
        intake
    }

    /// Call before the session is given `input_bytes` of input. `used_up`: a bit for each lane that takes
    /// no more of this client.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        arrived_us: u64,
        input_bytes: usize,
        used_up: u32,
    ) {
        self.now = now;
        self.arrived_us = arrived_us;
        self.input_bytes = input_bytes;
        self.used_up = used_up;
        self.subscriptions_of = self.shared.registry.generation();
        let targets_of = self.shared.targets.generation();
        if self.cache_of != targets_of {
            self.cache_of = targets_of;
            self.cache.clear();
        }
        let access_of = self.shared.options.access.generation();
        if self.access_of != access_of {
            self.access_of = access_of;
            self.access = self.shared.options.access.get();
            // Who may publish, and who may get it, is decided anew.
            self.cache.clear();
        }
    }

    /// The hash of the password is there. The CONNECT is offered again.
    pub(crate) fn finish_login(&mut self, check: PendingCheck, is_right: bool) {
        self.login = Some(self.access.finish(check, is_right));
    }

    /// Call after. Gives out what is to be handed over, in order.
    pub(crate) fn finish(&mut self, mut hand_over: impl FnMut(HandOver)) {
        for slot in self.slots.drain(..) {
            self.records_expected = slot.chunk.records.len();
            self.envelopes_expected =
                (slot.chunk.envelope_count(), slot.chunk.envelope_bytes.len());
            let waits = slot.is_awaited.then(|| Waits {
                ticket: ticket(slot.sequence, slot.target.lane.id().0),
                publishes: slot.chunk.records.len(),
                // Keys and headers too: a client can put more into them than into payloads.
                bytes: slot.chunk.data.len() + slot.chunk.envelope_bytes.len(),
                held: slot.held,
            });
            let completion = waits
                .as_ref()
                .map(|waits| Completion { sink: self.mailbox.clone(), ticket: waits.ticket.0 });
            let submission = Submission {
                body: Body::Chunk(Arc::new(slot.chunk)),
                droppable: completion.is_none(),
                give_back_at_us: waits.as_ref().and_then(|_| slot.target.give_back_at_us()),
                completion,
            };
            hand_over(HandOver { lane: slot.target.lane.clone(), submission, waits });
        }
        for told in self.told.drain(..) {
            let Some(lane) = self.shared.lanes.get(told.lane) else { continue };
            let completion = Completion { sink: self.mailbox.clone(), ticket: told.ticket.0 };
            let submission = Submission::new(Body::Events(told.events), Some(completion));
            let waits = Waits { ticket: told.ticket, publishes: 0, bytes: 0, held: Vec::new() };
            hand_over(HandOver { lane: lane.clone(), submission, waits: Some(waits) });
        }
        let counted = std::mem::take(&mut self.counted);
        let stats = &self.shared.stats;
        for (counter, by) in [
            (&stats.publishes_qos0, counted.qos0),
            (&stats.publishes_qos1, counted.qos1),
            (&stats.publishes_qos2, counted.qos2),
            (&stats.payload_bytes, counted.payload_bytes),
            (&stats.deliveries, counted.delivered),
            (&stats.deliveries_dropped, counted.not_delivered),
            (&stats.records_dropped, counted.dropped),
        ] {
            if by > 0 {
                count(counter, by);
            }
        }
    }

    /// The topic of a route could not be made: publishes to it are not held up again before `until`.
    pub(crate) fn set_unavailable(&mut self, route: RouteIndex, until: Instant) {
        self.unavailable = Some((route, until));
    }

    /// Something waits to be handed over.
    pub(crate) fn has_events(&self) -> bool {
        !self.told.is_empty()
    }

    fn lasting(&self) -> Option<Arc<Lasting>> {
        self.inbox.as_ref()?.lasting().cloned()
    }

    /// The session is given back: client id and inbox.
    pub(crate) fn leave(&mut self) -> Option<(Box<str>, Arc<Inbox>)> {
        Some((self.client_id.clone()?, self.inbox.take()?))
    }

    /// Memory that is only needed while publishes come in.
    pub(crate) fn shrink(&mut self) {
        self.arena = BytesMut::new();
        self.slots = Vec::new();
    }

    fn entry_of(&mut self, topic: &str) -> Result<usize, RouteIndex> {
        if let Some(index) = self.cache.find(topic) {
            return Ok(index);
        }
        // Topics that begin with `$` are the broker's own.
        let is_ours = topic.starts_with('$');
        if is_ours || !self.access.topic(&self.identity, Action::Publish, topic).is_allowed() {
            let index = self.cache.insert(topic, None);
            if let Some((entry, _)) = self.cache.entry(index) {
                entry.is_denied = true;
            }
            return Ok(index);
        }
        let router = &self.shared.router;
        let route = router.resolve(topic);
        let Some(store) = router.route(route).store() else {
            return Ok(self.cache.insert(topic, None));
        };
        let target = self.shared.targets.get(route, store).ok_or(route)?;
        self.key.clear();
        let client_id = self.client_id.as_deref().unwrap_or_default();
        let key = match router.render_key(route, topic, client_id, &mut self.key) {
            KeyKind::Keyless => None,
            KeyKind::Keyed => Some(self.key.as_slice()),
        };
        let stored = Stored {
            route,
            stream: key.and_then(|key| target.stream_of_key(key)),
            key: key.map(Into::into),
            target,
            plain: [const { None }; 6],
            special: None,
        };
        Ok(self.cache.insert(topic, Some(stored)))
    }

    /// The topic is not there: wait for it, or go on without the log.
    pub(crate) fn without_topic(
        &mut self,
        publish: &Publish<'_>,
        route: RouteIndex,
    ) -> PublishVerdict {
        let given_up =
            self.unavailable.is_some_and(|(known, until)| known == route && self.now < until);
        if publish.qos == Qos::AtMostOnce {
            if !self.fanned_out && (publish.retain || self.subscriptions_of != 0) {
                let registry = &self.shared.registry;
                let recipients = registry.recipients(publish.topic, self.publisher, &self.access);
                self.deliver_now(publish, &recipients);
            }
            if given_up {
                self.fanned_out = false;
                self.counted.qos0 += 1;
                self.counted.dropped += 1;
                return PublishVerdict::LiveOnly;
            }
            self.fanned_out = true;
        } else if given_up {
            return PublishVerdict::Refused(ReasonCode::ServerBusy);
        }
        self.blocked = Some(Blocked::NoTopic(route));
        PublishVerdict::NotNow
    }

    fn deliver_now(&mut self, publish: &Publish<'_>, recipients: &Recipients) {
        if recipients.is_empty() && !publish.retain {
            return;
        }
        let message = copy(publish, self.now, &mut self.arena);
        if publish.retain {
            self.shared.retain(self.shared.retained.next_order(), &message, self.now);
        }
        let (taken, dropped) = fan_out(&message, recipients);
        self.counted.delivered += taken;
        self.counted.not_delivered += dropped;
    }
}

impl SessionSink for Intake {
    fn connect(
        &mut self,
        connect: &Connect<'_>,
        client_id: &str,
    ) -> Result<ConnectVerdict, ReasonCode> {
        if !self.is_known {
            match self.log_in(connect, client_id)? {
                Some(identity) => self.identity = identity,
                None => return Ok(ConnectVerdict::NotNow),
            }
            let entered = self.shared.clients.enter(
                &self.mailbox,
                &self.identity,
                self.place,
                self.shared.options.connections_per_identity_max,
            );
            self.entry = Some(entered.map_err(|IdentityFull| {
                count(&self.shared.stats.connections_refused_identity, 1);
                ReasonCode::QuotaExceeded
            })?);
            self.is_known = true;
            self.certificate = Vec::new();
            self.mailbox.identify(self.identity.clone(), self.is_local);
        }
        if self.has_waited {
            return Err(ReasonCode::ServerBusy);
        }
        let request = Request {
            client_id,
            clean_start: connect.clean_start,
            lasts: connect.session_expiry_s > 0,
            identity: &self.identity,
            mailbox: &self.mailbox,
        };
        let (opened, aftermath) = self.shared.sessions.open(&request, self.now);
        let ended =
            aftermath.ended.iter().filter_map(|inbox| Some(inbox.lasting()?.id())).collect();
        self.wills.extend(self.shared.clear_up(aftermath));
        let (inbox, resumed, missed) = match opened? {
            Opened::Session { inbox, resumed, missed } => (inbox, resumed, missed),
            Opened::Wait => {
                self.blocked = Some(Blocked::Session);
                return Ok(ConnectVerdict::NotNow);
            }
        };
        let waits_for = self.keep_session(connect, client_id, &inbox, ended);
        let missed = missed + inbox.lasting().map_or(0, |lasting| lasting.take_missed());
        self.shared.registry.enter(&inbox);
        self.publisher = Some(inbox.id());
        self.inbox = Some(inbox);
        self.client_id = Some(client_id.into());
        let response_topics = &self.shared.options.response_topics;
        let accepted = Accepted {
            resumed,
            missed,
            response_information: response_topics
                .as_ref()
                .map(|prefix| format!("{prefix}/{client_id}")),
            ticket: waits_for,
        };
        Ok(ConnectVerdict::Accepted(Box::new(accepted)))
    }

    #[inline]
    fn publish(&mut self, publish: &Publish<'_>) -> PublishVerdict {
        let index = match self.entry_of(publish.topic) {
            Ok(index) => index,
            Err(route) => return self.without_topic(publish, route),
        };
        let fanned_out = std::mem::take(&mut self.fanned_out);
        let Some((entry, bytes)) = self.cache.entry(index) else {
            return PublishVerdict::Refused(ReasonCode::UnspecifiedError);
        };
        if entry.is_denied {
            count(&self.shared.stats.publishes_denied, 1);
            return PublishVerdict::Denied;
        }
        if entry.recipients_of != self.subscriptions_of {
            entry.recipients = match self.subscriptions_of {
                0 => Recipients::default(),
                _ => {
                    let registry = &self.shared.registry;
                    registry.recipients(publish.topic, self.publisher, &self.access)
                }
            };
            entry.recipients_of = self.subscriptions_of;
        }
        if self.used_up != 0
            && publish.qos != Qos::AtMostOnce
            && let Some(stored) = &entry.stored
        {
            let lane = usize::from(stored.target.lane.id().0);
            if self.used_up & (1 << lane) != 0 {
                self.blocked = Some(Blocked::Lane(lane));
                return PublishVerdict::NotNow;
            }
        }
        match publish.qos {
            Qos::AtMostOnce => self.counted.qos0 += 1,
            Qos::AtLeastOnce => self.counted.qos1 += 1,
            Qos::ExactlyOnce => self.counted.qos2 += 1,
        }
        self.counted.payload_bytes += publish.payload.len() as u64;

        let live_now = entry.stored.is_none() || publish.qos == Qos::AtMostOnce;
        if live_now && !fanned_out && (publish.retain || !entry.recipients.is_empty()) {
            let message = copy(publish, self.now, &mut self.arena);
            if publish.retain {
                self.shared.retain(self.shared.retained.next_order(), &message, self.now);
            }
            let (taken, dropped) = fan_out(&message, &entry.recipients);
            self.counted.delivered += taken;
            self.counted.not_delivered += dropped;
        }
        let Some(stored) = &mut entry.stored else { return PublishVerdict::LiveOnly };
        if stored.key.is_none() && stored.target.needs_key() {
            stored.target.tell_keyless(publish.topic);
            count(&self.shared.stats.publishes_unstorable, 1);
            if publish.qos == Qos::AtMostOnce {
                self.counted.dropped += 1;
                return PublishVerdict::LiveOnly;
            }
            return PublishVerdict::Unstorable(ReasonCode::ImplementationSpecific);
        }

        let lane = stored.target.lane.id();
        let is_awaited = publish.qos != Qos::AtMostOnce;
        let place = self
            .slots
            .iter()
            .position(|slot| slot.is_awaited == is_awaited && slot.target.lane.id() == lane);
        let place = place.unwrap_or_else(|| {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            let mut chunk = RecordChunk::default();
            chunk.data.reserve(self.input_bytes);
            chunk.records.reserve(self.records_expected);
            let (envelopes, envelope_bytes) = self.envelopes_expected;
            chunk.reserve_envelopes(envelopes, envelope_bytes);
            self.slots.push(Slot {
                sequence,
                target: stored.target.clone(),
                is_awaited,
                chunk,
                held: Vec::new(),
                sticky: None,
            });
            self.slots.len() - 1
        });
        let Some(slot) = self.slots.get_mut(place) else {
            return PublishVerdict::Refused(ReasonCode::UnspecifiedError);
        };

        let Some(stream) = stored.stream.or_else(|| sticky_stream(stored, slot)) else {
            return PublishVerdict::Refused(ReasonCode::ImplementationSpecific);
        };
        let Some(route) = self.shared.router.route(stored.route).store() else {
            return PublishVerdict::Refused(ReasonCode::UnspecifiedError);
        };
        let record_bytes_max = stored.target.record_bytes_max();
        let time = match stored.target.stamps_at_append() {
            true => RecordTime::at_append(),
            false => match route.timestamp.read_ms(publish.payload) {
                Some(timestamp_ms) => RecordTime::given_ms(timestamp_ms),
                None => RecordTime::arrived(self.arrived_us),
            },
        };
        let client_id = self.client_id.as_deref().unwrap_or_default();
        let (envelope, in_chunk) =
            ready(stored, bytes, publish, client_id, route.headers, &mut self.headers);
        let record_bytes = publish.payload.len() + envelope.as_bytes().len() + RECORD_BYTES;
        if record_bytes > record_bytes_max {
            forget_large(stored);
            if publish.qos == Qos::AtMostOnce {
                self.counted.dropped += 1;
                return PublishVerdict::LiveOnly;
            }
            let is_empty = slot.chunk.records.is_empty();
            if is_empty {
                self.slots.remove(place);
            }
            return self.dead_letter(publish, "too-large");
        }
        if in_chunk.0 != slot.sequence {
            *in_chunk = (slot.sequence, slot.chunk.push_envelope(envelope));
        }
        slot.chunk.push(stream, in_chunk.1, time, publish.payload);
        forget_large(stored);
        let mut stale = None;
        if publish.qos == Qos::ExactlyOnce
            && let Some(packet_id) = publish.packet_id
            && let Some(lasting) = self.inbox.as_ref().and_then(|inbox| inbox.lasting())
        {
            // In the commit group of the record: neither is there without the other.
            let (received, other) = lasting.receive(packet_id.get(), usize::from(lane.0));
            slot.chunk.push_event(EVENT_TAG, &received.encode());
            stale = other;
        }

        if is_awaited && (publish.retain || !entry.recipients.is_empty()) {
            let message = copy(publish, self.now, &mut self.arena);
            let recipients = entry.recipients.clone();
            let is_in_log = route.headers.rebuilds() && !looks_dead(publish, route.headers);
            let retained_as = if publish.retain { self.shared.retained.next_order() } else { 0 };
            slot.held.push(Held { message, recipients, retained_as, is_in_log });
        }
        let stored = ticket(slot.sequence, lane.0);
        if let Some(stale) = stale {
            self.tell(stale);
        }
        PublishVerdict::Stored(stored)
    }

    fn release(&mut self, packet_id: NonZeroU16) -> Option<Ticket> {
        let released = self.lasting()?.release(packet_id.get())?;
        self.tell(released)
    }

    fn subscribe(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<Option<Ticket>, ReasonCode> {
        let share = split_share(filter);
        let matched = share.map_or(filter, |(_, matched)| matched);
        if !self.access.filter(&self.identity, matched).is_allowed() {
            count(&self.shared.stats.subscriptions_denied, 1);
            return Err(ReasonCode::NotAuthorized);
        }
        let Some(inbox) = &self.inbox else { return Err(ReasonCode::UnspecifiedError) };
        let lasting = inbox.lasting().filter(|_| share.is_none()).cloned();
        if let (Some(_), Some(durable)) = (&lasting, &self.shared.durable)
            && !durable.admits(filter)
        {
            return Err(ReasonCode::QuotaExceeded);
        }
        // From here on: what is stored behind it is meant.
        let subscribed = lasting.map(|lasting| (SYSTEM_LANE, lasting.subscribe(filter, &options)));
        let is_new = self.shared.registry.subscribe(inbox.id(), filter, options)?;
        self.wants_retained.retain(|wanted| *wanted.filter != *filter);
        // Retain Handling: always, if new, never (3.8.3.1). A shared subscription gets none (4.8.2).
        let wants = options.retain_handling == 0 || (options.retain_handling == 1 && is_new);
        if wants && share.is_none() {
            let wanted = WantsRetained { filter: filter.into(), options, after: None };
            self.wants_retained.push_back(wanted);
        }
        // Own publishes behind it in the same read are meant, too.
        self.subscriptions_of = self.shared.registry.generation();
        Ok(subscribed.and_then(|subscribed| self.tell(subscribed)))
    }

    fn unsubscribe(&mut self, filter: &str) -> Unsubscribed {
        self.wants_retained.retain(|wanted| *wanted.filter != *filter);
        let registry = &self.shared.registry;
        let inbox = self.inbox.as_ref();
        let existed = inbox.is_some_and(|inbox| registry.unsubscribe(inbox.id(), filter));
        self.subscriptions_of = registry.generation();
        let lasting = self.lasting().filter(|_| existed && !filter.starts_with(SHARED));
        let ended = lasting.map(|lasting| (SYSTEM_LANE, lasting.unsubscribe(filter)));
        Unsubscribed { existed, ticket: ended.and_then(|ended| self.tell(ended)) }
    }

    fn sending(&mut self, packet_id: NonZeroU16, tag: u64) -> Option<Ticket> {
        let sending = self.lasting()?.sending(packet_id.get(), tag)?;
        self.tell(sending)
    }

    fn received(&mut self, _packet_id: NonZeroU16, tag: u64) -> Option<Ticket> {
        let confirmed = self.lasting()?.confirmed(tag)?;
        self.tell(confirmed)
    }

    fn delivered(&mut self, tag: u64) {
        if let Some(lasting) = self.lasting() {
            lasting.delivered(tag);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Still here: the connection ended in a way that is not foreseen.
        if let (Some(client_id), Some(inbox)) = (&self.client_id, self.inbox.take()) {
            let aftermath = self.shared.sessions.abandon(client_id, &inbox);
            let _wills = self.shared.clear_up(aftermath);
        }
    }
}

pub(crate) fn copy(publish: &Publish<'_>, now: Instant, arena: &mut BytesMut) -> Message {
    if arena.capacity() == 0 {
        arena.reserve(ARENA_BYTES);
    }
    Message::copy(publish, now, arena)
}

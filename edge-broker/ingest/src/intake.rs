//! From PUBLISH to lane: what one connection hands over.
//!
//! All publishes of one read are collected into one chunk per lane and QoS and handed over together:
//! one lock of the lane's queue per read, whatever the number of messages. QoS 0 goes to live
//! subscribers at once and may be dropped by the lane; QoS 1 and 2 go to them when they are durable.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use edge_auth::{Access, Action, Credentials, Identity, Login, PendingCheck};
use edge_config::{HeaderSelection, KeyKind, RouteIndex};
use edge_engine::{Body, Completion, RecordChunk, RecordTime, Submission};
use edge_mqtt::{
    Accepted, Connect, ConnectVerdict, Delivery, Message, Publish, PublishVerdict, Qos, ReasonCode,
    SessionSink, SubscriberId, SubscriptionOptions, Ticket, Unsubscribed, origin, split_share,
};
use edge_wire::envelope::Envelope;
use edge_wire::headers::HeadersBuilder;
use edge_wire::{EnvelopeView, StreamId};

use crate::clients::{Entry, IdentityFull};
use crate::inbox::Inbox;
use crate::mailbox::{Mailbox, ticket};
use crate::registry::{Recipients, fan_out};
use crate::route_cache::{Bytes, RouteCache, Special, Stored};
use crate::sessions::{LateWill, Opened, Request};
use crate::shared::Shared;
use crate::stats::count;
use crate::targets::Target;

/// Messages for live subscribers share allocations of this size.
const ARENA_BYTES: usize = 8 * 1024;

/// What a record takes beside its value and its envelope, at most.
pub(crate) const RECORD_BYTES: usize = 64;

/// A QoS 1 or 2 message and who gets it once it is durable.
pub(crate) struct Held {
    pub(crate) message: Message,
    pub(crate) recipients: Recipients,
    /// Its place among those that are retained; 0: it is not.
    pub(crate) retained_as: u64,
}

/// Retained messages that a subscription asks for.
pub(crate) struct WantsRetained {
    pub(crate) filter: Box<str>,
    pub(crate) options: SubscriptionOptions,
    /// The topic of the last one that was given.
    pub(crate) after: Option<Box<str>>,
}

/// One chunk on its way to a lane.
pub(crate) struct HandOver {
    pub(crate) target: Arc<Target>,
    pub(crate) submission: Submission,
    /// `None`: QoS 0, nobody waits.
    pub(crate) waits: Option<Waits>,
}

/// What happens when a hand-over is durable.
pub(crate) struct Waits {
    pub(crate) ticket: Ticket,
    pub(crate) publishes: usize,
    pub(crate) bytes: usize,
    pub(crate) held: Vec<Held>,
}

/// A chunk that is being filled.
pub(crate) struct Slot {
    pub(crate) sequence: u64,
    target: Arc<Target>,
    /// QoS 1 and 2: somebody waits for it.
    is_awaited: bool,
    pub(crate) chunk: RecordChunk,
    pub(crate) held: Vec<Held>,
    /// Where records without a key of this route go, as long as this chunk is filled.
    sticky: Option<(RouteIndex, StreamId)>,
}

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
                bytes: slot.chunk.data.len(),
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
            hand_over(HandOver { target: slot.target, submission, waits });
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

    /// The next retained message that a subscription asks for, if this client may get it.
    pub(crate) fn next_retained(&mut self, now: Instant) -> Option<Delivery> {
        while let Some(wanted) = self.wants_retained.front_mut() {
            let next = self.shared.retained.next(&wanted.filter, &mut wanted.after, now);
            let Some(message) = next else {
                self.wants_retained.pop_front();
                continue;
            };
            let topic = wanted.after.as_deref().unwrap_or_default();
            if !self.access.topic(&self.identity, Action::Subscribe, topic).is_allowed() {
                continue;
            }
            let qos = wanted.options.qos.min(message.qos);
            let subscription_ids = wanted.options.subscription_id.into_iter().collect();
            return Some(Delivery {
                retain: true,
                subscription_ids,
                ..Delivery::live(message, qos)
            });
        }
        self.wants_retained = VecDeque::new();
        None
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

    /// `None`: the password has to be hashed first.
    fn log_in(
        &mut self,
        connect: &Connect<'_>,
        client_id: &str,
    ) -> Result<Option<Identity>, ReasonCode> {
        let identity = match self.login.take() {
            Some(checked) => checked.ok_or("wrong user name or password"),
            None => {
                let given = Credentials {
                    user: connect.username,
                    password: connect.password,
                    certificate: &self.certificate,
                    client_id,
                    is_local: self.is_local,
                };
                match self.access.login(&given) {
                    Login::Granted(identity) => Ok(identity),
                    Login::Refused { reason } => Err(reason),
                    Login::Check(check) => {
                        self.blocked = Some(Blocked::Login(check));
                        return Ok(None);
                    }
                }
            }
        };
        identity.map(Some).map_err(|reason| {
            count(&self.shared.stats.logins_refused, 1);
            tracing::info!(client = client_id, user = connect.username, reason, "login refused");
            match connect.username {
                Some(_) => ReasonCode::BadUserNameOrPassword,
                None => ReasonCode::NotAuthorized,
            }
        })
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
        self.wills.extend(self.shared.clear_up(aftermath));
        let (inbox, resumed, missed) = match opened? {
            Opened::Session { inbox, resumed, missed } => (inbox, resumed, missed),
            Opened::Wait => {
                self.blocked = Some(Blocked::Session);
                return Ok(ConnectVerdict::NotNow);
            }
        };
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
            ticket: None,
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

        if is_awaited && (publish.retain || !entry.recipients.is_empty()) {
            let message = copy(publish, self.now, &mut self.arena);
            let retained_as = if publish.retain { self.shared.retained.next_order() } else { 0 };
            slot.held.push(Held { message, recipients: entry.recipients.clone(), retained_as });
        }
        PublishVerdict::Stored(ticket(slot.sequence, lane.0))
    }

    fn release(&mut self, _: NonZeroU16) -> Option<Ticket> {
        None
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
        Ok(None)
    }

    fn unsubscribe(&mut self, filter: &str) -> Unsubscribed {
        self.wants_retained.retain(|wanted| *wanted.filter != *filter);
        let registry = &self.shared.registry;
        let inbox = self.inbox.as_ref();
        let existed = inbox.is_some_and(|inbox| registry.unsubscribe(inbox.id(), filter));
        self.subscriptions_of = registry.generation();
        Unsubscribed { existed, ticket: None }
    }

    fn sending(&mut self, _: NonZeroU16, _: u64) -> Option<Ticket> {
        None
    }

    fn received(&mut self, _: NonZeroU16, _: u64) -> Option<Ticket> {
        None
    }

    fn delivered(&mut self, _: u64) {}
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

/// Records without a key stay with one partition for a chunk, then move on: fuller batches than one
/// partition per record.
fn sticky_stream(stored: &Stored, slot: &mut Slot) -> Option<StreamId> {
    if let Some((route, stream)) = slot.sticky
        && route == stored.route
    {
        return Some(stream);
    }
    let stream = stored.target.next_stream()?;
    slot.sticky = Some((stored.route, stream));
    Some(stream)
}

/// The envelope of a publish, from the cache or made and kept there, and where it is in a chunk.
fn ready<'s>(
    stored: &'s mut Stored,
    bytes: &'s mut Bytes,
    publish: &Publish<'_>,
    client_id: &str,
    selection: HeaderSelection,
    headers: &mut HeadersBuilder,
) -> (EnvelopeView<'s>, &'s mut (u64, u32)) {
    let key = stored.key.as_deref();
    let variant = usize::from(publish.qos.byte()) * 2 + usize::from(publish.retain);
    let mut make = || envelope(key, publish, client_id, selection, headers);
    if publish.properties_raw.is_empty() {
        let ready = stored.plain[variant.min(5)].get_or_insert_with(|| bytes.keep(&make()));
        return (bytes.envelope(ready), &mut ready.in_chunk);
    }
    let fits = stored.special.as_ref().is_some_and(|special| {
        *special.properties == *publish.properties_raw && special.variant == variant
    });
    if !fits {
        stored.special = None;
    }
    let special = stored.special.get_or_insert_with(|| {
        let properties = publish.properties_raw.into();
        Box::new(Special { properties, variant, envelope: make(), in_chunk: (0, 0) })
    });
    (special.envelope.view(), &mut special.in_chunk)
}

fn envelope(
    key: Option<&[u8]>,
    publish: &Publish<'_>,
    client_id: &str,
    selection: HeaderSelection,
    headers: &mut HeadersBuilder,
) -> Envelope {
    headers.clear();
    origin::headers(publish, client_id, |name, value| {
        let wanted = match name {
            origin::TOPIC => selection.topic,
            origin::CLIENT => selection.client,
            origin::QOS => selection.qos,
            origin::RETAIN => selection.retain,
            name if name.starts_with("mqtt.") => selection.properties,
            _ => selection.user_properties,
        };
        if wanted {
            headers.push(name, Some(value));
        }
    });
    Envelope::new(key, &headers.finish())
}

pub(crate) fn copy(publish: &Publish<'_>, now: Instant, arena: &mut BytesMut) -> Message {
    if arena.capacity() == 0 {
        arena.reserve(ARENA_BYTES);
    }
    Message::copy(publish, now, arena)
}

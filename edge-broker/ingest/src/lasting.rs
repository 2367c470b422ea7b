//! A session that outlives its connection: its way through the lanes.
//!
//! It is a cursor, while its client is here as well as while it is away: what is stored with QoS 1 and 2 is read from
//! the lanes, below the durable end, in the order of the journal; memory holds what is under way. What is promised
//! about it is an event ([`edge_sessions::SessionEvent`]) that the promise waits for; where it stands rides on the
//! next group of its lane ([`Durable::flush`](crate::durable::Durable::flush)).
//!
//! Limits: [`WINDOW`] places between the cursor and what is read next in each lane, [`GROUPS_MAX`] groups in one go.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use edge_engine::LaneHandle;
use edge_engine::clock::wall_ms;
use edge_mqtt::origin::{self, Rebuilt};
use edge_mqtt::{Delivery, Message, Qos, SubscriptionOptions, matches};
use edge_sessions::{
    Cursor, Follow, Inherited, Options, Outbound, OutboundState, Place, ReadStep, RecordRef,
    SessionEvent, SessionId, Subscription, Visit, read_group,
};
use edge_wire::headers::HeadersView;
use hashbrown::HashMap;

use crate::dead_letter::REASON;

/// Places between what is done and what is read next, in each lane.
const WINDOW: usize = 1_024;
/// Groups that are read before others have their turn.
const GROUPS_MAX: usize = 16;
/// Deliveries that are made ready in one go.
const READY_MAX: usize = 32;
/// Index of the lane that holds no records.
const SYSTEM_LANE: usize = 0;

/// One per session.
pub(crate) struct Lasting {
    id: SessionId,
    client_id: Box<str>,
    lanes: Arc<[Arc<LaneHandle>]>,
    way: Mutex<Way>,
}

#[derive(Debug, Default)]
struct Way {
    /// By lane.
    follows: Vec<Option<Follow>>,
    subscriptions: BTreeMap<String, Subscription>,
    /// What was handed over and is not done, by tag.
    tags: HashMap<u64, Tagged>,
    last_tag: u64,
    /// QoS 2 deliveries that are over and not told to the log, by lane.
    completed: Vec<Vec<Place>>,
    /// QoS 2 deliveries of an earlier life of the program.
    inherited: BTreeMap<(usize, Place), Outbound>,
    order: u64,
    /// QoS 2 packet ids of the client, and the lane that holds each.
    received: HashMap<u16, usize>,
    /// Messages that went before they were read, by lane: at least so many.
    missed: Vec<u64>,
    /// Of these, told to the client.
    told_missed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Tagged {
    lane: usize,
    place: Place,
    qos: Qos,
}

/// How a session wants a message.
struct Wanted {
    qos: Qos,
    retain_as_published: bool,
    subscription_ids: Vec<NonZeroU32>,
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lasting").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Lasting {
    /// A session that begins.
    pub(crate) fn new(id: SessionId, client_id: &str, lanes: Arc<[Arc<LaneHandle>]>) -> Self {
        let count = lanes.len();
        let way = Way {
            follows: vec![None; count],
            completed: vec![Vec::new(); count],
            missed: vec![0; count],
            order: 1,
            ..Way::default()
        };
        Self { id, client_id: client_id.into(), lanes, way: Mutex::new(way) }
    }

    /// One of an earlier life of the program. `cursor` gives where it stands in a lane.
    pub(crate) fn restored(
        self,
        subscriptions: BTreeMap<String, Subscription>,
        inherited: &Inherited,
        cursor: impl Fn(&LaneHandle) -> Place,
    ) -> Self {
        {
            let way = &mut *self.way();
            let lane_of = |name: &str| self.lanes.iter().position(|lane| lane.name() == name);
            for (id, lane) in &inherited.received {
                way.received.extend(lane_of(lane).map(|lane| (*id, lane)));
            }
            for (lane, place, one) in &inherited.outbound {
                way.order = way.order.max(one.order + 1);
                way.inherited.extend(lane_of(lane).map(|lane| ((lane, *place), *one)));
            }
            if !subscriptions.is_empty() {
                for (index, lane) in self.lanes.iter().enumerate().skip(SYSTEM_LANE + 1) {
                    way.follows[index] = Some(Follow::new(cursor(lane), WINDOW));
                }
            }
            way.subscriptions = subscriptions;
            way.missed[SYSTEM_LANE] = inherited.missed;
            way.told_missed = 0;
        }
        self
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A subscription, from the durable ends on. Gives what is to be made durable in `system`.
    pub(crate) fn subscribe(&self, filter: &str, options: &SubscriptionOptions) -> SessionEvent {
        let records = || self.lanes.iter().enumerate().skip(SYSTEM_LANE + 1);
        let starts: BTreeMap<String, Place> = records()
            .map(|(_, lane)| (lane.name().to_owned(), Place::of_group(lane.reader().end())))
            .collect();
        let options = stored_options(options);
        let mut way = self.way();
        let is_first = way.subscriptions.is_empty();
        for (index, lane) in records() {
            let start = starts.get(lane.name()).copied().unwrap_or_default();
            let follow = way.follows.get_mut(index).filter(|follow| {
                follow.is_none() || is_first && follow.as_ref().is_some_and(|f| f.in_flight() == 0)
            });
            if let Some(follow) = follow {
                *follow = Some(Follow::new(start, WINDOW));
            }
        }
        let kept = Subscription { options, starts: starts.clone() };
        way.subscriptions
            .entry(filter.to_owned())
            .and_modify(|known| known.options = options)
            .or_insert(kept);
        SessionEvent::Subscribed { session: self.id, filter: filter.to_owned(), options, starts }
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&self, filter: &str) -> SessionEvent {
        self.way().subscriptions.remove(filter);
        SessionEvent::Unsubscribed { session: self.id, filter: filter.to_owned() }
    }

    /// A QoS 2 PUBLISH goes into a lane. Gives the event that goes with it, and one for another lane that still has
    /// the packet id.
    pub(crate) fn receive(
        &self,
        id: u16,
        lane: usize,
    ) -> (SessionEvent, Option<(usize, SessionEvent)>) {
        let session = self.id;
        let before = self.way().received.insert(id, lane).filter(|before| *before != lane);
        let stale = before.map(|lane| (lane, SessionEvent::Released { session, ids: vec![id] }));
        (SessionEvent::Received { session, id }, stale)
    }

    /// The client has released a packet id: the lane, and what is to be made durable in it. The id is kept: the next
    /// PUBLISH with it replaces it.
    pub(crate) fn release(&self, id: u16) -> Option<(usize, SessionEvent)> {
        let lane = self.way().received.get(&id).copied()?;
        Some((lane, SessionEvent::Released { session: self.id, ids: vec![id] }))
    }

    /// A QoS 2 delivery is about to be sent.
    pub(crate) fn sending(&self, id: u16, tag: u64) -> Option<(usize, SessionEvent)> {
        let mut way = self.way();
        let Tagged { lane, place, .. } = *way.tags.get(&tag)?;
        let order = way.order;
        way.order += 1;
        let deliveries = vec![(place, id)];
        Some((lane, SessionEvent::Sent { session: self.id, order, deliveries }))
    }

    /// The client has a QoS 2 delivery.
    pub(crate) fn confirmed(&self, tag: u64) -> Option<(usize, SessionEvent)> {
        let Tagged { lane, place, .. } = *self.way().tags.get(&tag)?;
        Some((lane, SessionEvent::Confirmed { session: self.id, places: vec![place] }))
    }

    /// A delivery is done.
    pub(crate) fn delivered(&self, tag: u64) {
        let mut way = self.way();
        let Some(Tagged { lane, place, qos }) = way.tags.remove(&tag) else { return };
        if let Some(Some(follow)) = way.follows.get_mut(lane) {
            follow.done(place);
        }
        if let Some(one) = way.inherited.get_mut(&(lane, place)) {
            one.state = OutboundState::Done;
        }
        if qos == Qos::ExactlyOnce
            && let Some(completed) = way.completed.get_mut(lane)
        {
            completed.push(place);
        }
    }

    /// These were made ready and not sent: they are read again.
    pub(crate) fn take_back(&self, deliveries: impl Iterator<Item = u64>) {
        let mut way = self.way();
        for tag in deliveries {
            let Some(Tagged { lane, place, .. }) = way.tags.remove(&tag) else { continue };
            if let Some(Some(follow)) = way.follows.get_mut(lane) {
                follow.take_back(place);
            }
        }
    }

    /// What is to be made durable of it in a lane; `ends`: the connection has ended.
    pub(crate) fn take_owed(&self, lane: usize, ends: bool) -> Vec<SessionEvent> {
        let mut way = self.way();
        let session = self.id;
        let mut events = Vec::new();
        if let Some(completed) = way.completed.get_mut(lane).filter(|places| !places.is_empty()) {
            let places = std::mem::take(completed);
            events.push(SessionEvent::Completed { session, places });
        }
        let missed = way.missed.get(lane).copied().unwrap_or(0);
        if let Some(Some(follow)) = way.follows.get_mut(lane) {
            let moved = follow.take_moved().or_else(|| follow.untold().filter(|_| ends));
            let cursors = |place| vec![Cursor { session, place, missed }];
            events.extend(moved.map(|place| SessionEvent::Moved { cursors: cursors(place) }));
        }
        events
    }

    /// Messages that it missed since its client was last told: at least so many.
    pub(crate) fn take_missed(&self) -> u64 {
        let mut way = self.way();
        let all: u64 = way.missed.iter().sum();
        all - std::mem::replace(&mut way.told_missed, all)
    }

    /// What was under way when the program ended: packet id, tag, and the message if it has to be sent again.
    pub(crate) fn under_way(&self, now: Instant) -> Vec<(u16, u64, Option<Delivery>)> {
        let inherited: Vec<_> = self.way().inherited.iter().map(|(at, one)| (*at, *one)).collect();
        let mut under_way = Vec::new();
        for ((lane, place), one) in inherited {
            if one.state == OutboundState::Done {
                continue;
            }
            let delivery = match one.state {
                OutboundState::Sent => match self.read_again(lane, place, now) {
                    Some(delivery) => Some(delivery),
                    None => {
                        // Recycled: there is nothing to send again.
                        self.forget(lane, place);
                        continue;
                    }
                },
                _ => None,
            };
            let tag = self.way().tag(Tagged { lane, place, qos: Qos::ExactlyOnce });
            let delivery = delivery.map(|delivery| Delivery { tag, ..delivery });
            under_way.push((one.order, (one.id, tag, delivery)));
        }
        under_way.sort_by_key(|(order, _)| *order);
        under_way.into_iter().map(|(_, one)| one).collect()
    }

    fn forget(&self, lane: usize, place: Place) {
        let mut way = self.way();
        if let Some(one) = way.inherited.get_mut(&(lane, place)) {
            one.state = OutboundState::Done;
        }
        if let Some(missed) = way.missed.get_mut(lane) {
            *missed += 1;
        }
    }

    fn read_again(&self, lane: usize, place: Place, now: Instant) -> Option<Delivery> {
        let reader = self.lanes.get(lane)?.reader();
        let mut found = None;
        let mut follow = Follow::new(place, 1);
        let way = self.way();
        let visit = &mut |at: Place, record: &RecordRef<'_>| {
            if at == place {
                let rebuilt = rebuilt(record);
                found = rebuilt.and_then(|rebuilt| {
                    let wanted = way.wanted(&rebuilt.topic, None, &self.client_id, &rebuilt)?;
                    Some(delivery(&rebuilt, record, &wanted, now, &mut BytesMut::new()))
                });
                return Visit::HandOver;
            }
            Visit::Stop
        };
        read_group(&reader, &mut follow, visit).ok()?;
        found
    }

    /// Makes the next deliveries ready, in the order of the lanes. True if there may be more.
    pub(crate) fn read(
        &self,
        may_get: &dyn Fn(&str) -> bool,
        now: Instant,
        arena: &mut BytesMut,
        into: &mut VecDeque<Delivery>,
    ) -> bool {
        let mut way = self.way();
        if way.subscriptions.is_empty() {
            return false;
        }
        let mut groups = 0;
        for (index, lane) in self.lanes.iter().enumerate().skip(SYSTEM_LANE + 1) {
            let Some(mut follow) = way.follows.get_mut(index).and_then(Option::take) else {
                continue;
            };
            let reader = lane.reader();
            let end = Place::of_group(reader.end());
            let mut is_full = false;
            while follow.next() < end && groups < GROUPS_MAX && !is_full {
                groups += 1;
                let step = read_group(&reader, &mut follow, &mut |place, record| {
                    if into.len() >= READY_MAX {
                        return Visit::Stop;
                    }
                    match way.inherited.get(&(index, place)).map(|one| one.state) {
                        Some(OutboundState::Done) => return Visit::Skip,
                        // The machine has it already.
                        Some(_) => return Visit::HandOver,
                        None => {}
                    }
                    let Some(rebuilt) = rebuilt(record) else { return Visit::Skip };
                    let at = Some((lane.name(), place));
                    let wanted = way.wanted(&rebuilt.topic, at, &self.client_id, &rebuilt);
                    let Some(wanted) = wanted.filter(|_| may_get(&rebuilt.topic)) else {
                        return Visit::Skip;
                    };
                    let made = delivery(&rebuilt, record, &wanted, now, arena);
                    if made.qos == Qos::AtMostOnce {
                        return Visit::Skip;
                    }
                    let tag = way.tag(Tagged { lane: index, place, qos: made.qos });
                    into.push_back(Delivery { tag, ..made });
                    Visit::HandOver
                });
                match step {
                    Ok(ReadStep::Group) => {}
                    Ok(ReadStep::Lost { .. }) => {
                        if let Some(missed) = way.missed.get_mut(index) {
                            *missed += 1;
                        }
                    }
                    Ok(ReadStep::Stopped) => is_full = true,
                    Ok(ReadStep::End) => break,
                    Err(error) => {
                        tracing::warn!(lane = lane.name(), %error, "a session cannot read on");
                        break;
                    }
                }
            }
            if let Some(slot) = way.follows.get_mut(index) {
                *slot = Some(follow);
            }
            if is_full {
                return true;
            }
        }
        groups >= GROUPS_MAX
    }
}

impl Way {
    fn tag(&mut self, tagged: Tagged) -> u64 {
        self.last_tag += 1;
        self.tags.insert(self.last_tag, tagged);
        self.last_tag
    }

    /// How the session wants a message that stands at a place.
    fn wanted(
        &self,
        topic: &str,
        at: Option<(&str, Place)>,
        client_id: &str,
        rebuilt: &Rebuilt,
    ) -> Option<Wanted> {
        let mut wanted: Option<Wanted> = None;
        for (filter, subscription) in &self.subscriptions {
            let options = &subscription.options;
            let is_before = at.is_some_and(|(lane, place)| place < subscription.start(lane));
            if is_before
                || !matches(filter, topic)
                || options.no_local && rebuilt.client_id == client_id
            {
                continue;
            }
            let wanted = wanted.get_or_insert(Wanted {
                qos: Qos::AtMostOnce,
                retain_as_published: false,
                subscription_ids: Vec::new(),
            });
            wanted.qos = wanted.qos.max(qos(options.qos));
            wanted.retain_as_published |= options.retain_as_published;
            wanted.subscription_ids.extend(NonZeroU32::new(options.identifier));
        }
        wanted
    }
}

fn qos(number: u8) -> Qos {
    match number {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}

fn stored_options(options: &SubscriptionOptions) -> Options {
    Options {
        qos: options.qos.byte(),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        identifier: options.subscription_id.map_or(0, NonZeroU32::get),
    }
}

/// Options as they were asked for; retained messages were sent then.
pub(crate) fn asked_options(options: &Options) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(options.qos),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: 2,
        subscription_id: NonZeroU32::new(options.identifier),
    }
}

/// The PUBLISH of a record; `None` if it did not come over MQTT, or is a dead letter: that may be cut.
fn rebuilt(record: &RecordRef<'_>) -> Option<Rebuilt> {
    let headers = HeadersView::parse(record.headers_section).ok()?;
    let text = |(name, value): (_, Option<_>)| Some((std::str::from_utf8(name).ok()?, value?));
    let has = |wanted: &str| headers.iter_bytes().any(|(name, _)| name == wanted.as_bytes());
    (has(origin::TOPIC) && !has(REASON))
        .then(|| Rebuilt::from_headers(headers.iter_bytes().filter_map(text)))?
}

fn delivery(
    rebuilt: &Rebuilt,
    record: &RecordRef<'_>,
    wanted: &Wanted,
    now: Instant,
    arena: &mut BytesMut,
) -> Delivery {
    // Its expiry counts from when it came.
    let age_ms = u64::try_from(wall_ms().saturating_sub(record.timestamp_ms)).unwrap_or(0);
    let received = match rebuilt.expiry_s {
        Some(_) => now.checked_sub(Duration::from_millis(age_ms)).unwrap_or(now),
        None => now,
    };
    let publish = rebuilt.publish(record.value.unwrap_or_default());
    Delivery {
        qos: wanted.qos.min(publish.qos),
        retain: publish.retain && wanted.retain_as_published,
        subscription_ids: wanted.subscription_ids.clone(),
        message: Message::copy(&publish, received, arena),
        tag: 0,
        share: None,
    }
}

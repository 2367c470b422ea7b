//! Sessions by client id: who has them, and what they keep while their client is away.
//!
//! A session belongs to one connection at a time. A connection that takes it over waits until the one before has
//! given it back ([`Opened::Wait`]), so that no exchange is ever in two hands; that one gives back as soon as it is
//! closed, or, if QoS 2 publishes are on their way to a lane, when it is known what became of them.
//!
//! Limits: [`sessions_max`](crate::MqttOptions::sessions_max) sessions that outlive their connection; what waits for
//! them is bounded by their [`Inbox`]. Time is that of [`Instant`]: powered on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edge_auth::Identity;
use edge_mqtt::{Delivery, Ending, Qos, ReasonCode, SessionState, Stage, SubscriberId, Will};
use hashbrown::HashMap;

use crate::inbox::{Inbox, OfflineBytes};
use crate::mailbox::Mailbox;

#[derive(Debug)]
pub(crate) struct Sessions {
    table: Mutex<Table>,
    limits: Limits,
    offline: Arc<OfflineBytes>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) sessions_max: usize,
    pub(crate) queue_bytes_max: usize,
    pub(crate) offline_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_client: HashMap<Box<str>, Entry>,
    /// Those that outlive their connection.
    lasting: usize,
}

#[derive(Debug)]
struct Entry {
    inbox: Arc<Inbox>,
    user: Option<Arc<str>>,
    lasts: bool,
    place: Place,
}

/// Where a session is.
#[derive(Debug)]
enum Place {
    /// A connection has it; another one may wait for it.
    Held { by: Arc<Mailbox>, waiting: Option<Arc<Mailbox>> },
    /// Its client is away.
    Away { state: Box<SessionState>, expires_at: Instant, will: Option<(Will, Instant)> },
}

/// A connection asks for the session of its client.
pub(crate) struct Request<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) clean_start: bool,
    /// It outlives the connection.
    pub(crate) lasts: bool,
    pub(crate) identity: &'a Identity,
    pub(crate) mailbox: &'a Arc<Mailbox>,
}

pub(crate) enum Opened {
    /// Here it is.
    Session { inbox: Arc<Inbox>, resumed: Option<Box<SessionState>>, missed: u64 },
    /// The connection before has not given it back: the mailbox is woken when it has.
    Wait,
}

/// A will whose time has come.
#[derive(Debug)]
pub(crate) struct LateWill {
    pub(crate) will: Will,
    pub(crate) identity: Identity,
    pub(crate) session: SubscriberId,
}

/// What has to be done about sessions that changed: subscriptions to forget, wills to publish.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    pub(crate) ended: Vec<Arc<Inbox>>,
    pub(crate) wills: Vec<LateWill>,
    /// Of shared subscriptions, not acknowledged: for other members.
    pub(crate) orphans: Vec<Delivery>,
}

impl Aftermath {
    fn end(&mut self, entry: Entry) {
        let unseen = entry.inbox.close();
        if let Place::Away { state, will, .. } = entry.place {
            self.orphan(*state, VecDeque::new());
            if let Some((will, _)) = will {
                self.publish(will, &entry.inbox);
            }
        }
        self.orphans.extend(unseen.into_iter().filter(|delivery| delivery.share.is_some()));
        self.ended.push(entry.inbox);
    }

    /// What a session leaves to other members of its shared subscriptions. QoS 2 that was sent ends with the session
    /// ([MQTT-4.8.2-5]).
    fn orphan(&mut self, state: SessionState, not_sent: VecDeque<Delivery>) {
        let sent = state.in_flight.into_iter().filter_map(|sent| match sent.stage {
            Stage::Published(delivery) if delivery.qos == Qos::AtLeastOnce => Some(delivery),
            _ => None,
        });
        let all = sent.chain(state.queue).chain(not_sent);
        self.orphans.extend(all.filter(|delivery| delivery.share.is_some()));
    }

    fn publish(&mut self, will: Will, inbox: &Inbox) {
        let identity = inbox.with_identity(Identity::clone);
        self.wills.push(LateWill { will, identity, session: inbox.id() });
    }
}

impl Sessions {
    pub(crate) fn new(limits: Limits) -> Self {
        let offline = Arc::new(OfflineBytes::new(limits.offline_bytes_max));
        Self { table: Mutex::default(), limits, offline }
    }

    /// Gives a connection the session of its client, new or as it was left. An older connection is told to go.
    ///
    /// # Errors
    /// [`ReasonCode::QuotaExceeded`]: too many sessions.
    pub(crate) fn open(
        &self,
        request: &Request<'_>,
        now: Instant,
    ) -> (Result<Opened, ReasonCode>, Aftermath) {
        let mut aftermath = Aftermath::default();
        let mut table = self.table();
        let Request { client_id, clean_start, lasts, identity, mailbox } = *request;
        if let Some(entry) = table.by_client.get_mut(client_id) {
            let is_over = match &mut entry.place {
                Place::Held { by, waiting } => {
                    by.order(ReasonCode::SessionTakenOver);
                    if let Some(other) = waiting.take().filter(|other| other.id() != mailbox.id()) {
                        other.order(ReasonCode::SessionTakenOver);
                    }
                    false
                }
                Place::Away { expires_at, .. } => now >= *expires_at,
            };
            // A session belongs to a user or a certificate; another one with the same client id finds none.
            if clean_start || is_over || entry.user != identity.owner() {
                table.remove(client_id, &mut aftermath);
            } else if let Place::Held { waiting, .. } = &mut entry.place {
                *waiting = Some(mailbox.clone());
                return (Ok(Opened::Wait), aftermath);
            }
        }
        let lasted = table.by_client.get(client_id).is_some_and(|entry| entry.lasts);
        if lasts && !lasted && table.lasting >= self.limits.sessions_max {
            return (Err(ReasonCode::QuotaExceeded), aftermath);
        }
        table.lasting = table.lasting + usize::from(lasts) - usize::from(lasted);
        let held = Place::Held { by: mailbox.clone(), waiting: None };
        let (inbox, resumed) = match table.by_client.get_mut(client_id) {
            Some(entry) => {
                entry.lasts = lasts;
                // A will that waits is not published: its client is back ([MQTT-3.1.3-9]).
                let state = match std::mem::replace(&mut entry.place, held) {
                    Place::Away { state, .. } => state,
                    Place::Held { .. } => Box::default(),
                };
                (entry.inbox.clone(), Some(state))
            }
            None => {
                let (bytes_max, offline) = (self.limits.queue_bytes_max, self.offline.clone());
                let id = SubscriberId(mailbox.id());
                let inbox = Arc::new(Inbox::new(id, identity.clone(), bytes_max, offline));
                let (user, place) = (identity.owner(), held);
                let entry = Entry { inbox: inbox.clone(), user, lasts, place };
                table.by_client.insert(client_id.into(), entry);
                (inbox, None)
            }
        };
        let missed = inbox.attach(mailbox.clone(), identity.clone());
        (Ok(Opened::Session { inbox, resumed, missed }), aftermath)
    }

    /// A session of an earlier life of the program.
    pub(crate) fn restore(
        &self,
        id: SubscriberId,
        client_id: &str,
        user: Option<Arc<str>>,
        state: SessionState,
        expires_at: Instant,
    ) -> Arc<Inbox> {
        let identity =
            Identity { user: user.clone(), client_id: client_id.into(), ..Identity::default() };
        let (bytes_max, offline) = (self.limits.queue_bytes_max, self.offline.clone());
        let inbox = Arc::new(Inbox::new(id, identity, bytes_max, offline));
        let place = Place::Away { state: Box::new(state), expires_at, will: None };
        let entry = Entry { inbox: inbox.clone(), user, lasts: true, place };
        let mut table = self.table();
        table.by_client.insert(client_id.into(), entry);
        table.lasting += 1;
        inbox
    }

    /// The connection has ended: its session waits for the client, or ends. `not_sent` are deliveries that it had
    /// taken out of `inbox`.
    pub(crate) fn give_back(
        &self,
        client_id: &str,
        inbox: &Arc<Inbox>,
        ending: Ending,
        not_sent: VecDeque<Delivery>,
        now: Instant,
    ) -> Aftermath {
        let mut aftermath = Aftermath::default();
        let Ending { will, session_expiry_s, state } = ending;
        let mut table = self.table();
        let entry = table.by_client.get_mut(client_id);
        let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.inbox, inbox)) else {
            // A connection that wanted a clean start has ended the session.
            aftermath.orphan(state, not_sent);
            if let Some(will) = will {
                aftermath.publish(will, inbox);
            }
            return aftermath;
        };
        let waiting = match &mut entry.place {
            Place::Held { waiting, .. } => waiting.take(),
            Place::Away { .. } => None,
        };
        if session_expiry_s == 0 {
            if let Some(will) = will {
                aftermath.publish(will, inbox);
            }
            aftermath.orphan(state, not_sent);
            table.remove(client_id, &mut aftermath);
        } else {
            let lasts = Duration::from_secs(u64::from(session_expiry_s));
            let will = match will {
                Some(will) if will.delay_s > 0 => {
                    let due = now + lasts.min(Duration::from_secs(u64::from(will.delay_s)));
                    Some((will, due))
                }
                Some(will) => {
                    aftermath.publish(will, inbox);
                    None
                }
                None => None,
            };
            inbox.detach(not_sent);
            entry.place = Place::Away { state: Box::new(state), expires_at: now + lasts, will };
            let lasted = std::mem::replace(&mut entry.lasts, true);
            table.lasting += usize::from(!lasted);
        }
        drop(table);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        aftermath
    }

    /// The connection is gone without a word: so is its session.
    pub(crate) fn abandon(&self, client_id: &str, inbox: &Arc<Inbox>) -> Aftermath {
        let ending = Ending { will: None, session_expiry_s: 0, state: SessionState::default() };
        let mut aftermath =
            self.give_back(client_id, inbox, ending, VecDeque::new(), Instant::now());
        aftermath.wills.clear();
        aftermath
    }

    /// Sessions whose time is over, and wills whose delay is.
    pub(crate) fn expire(&self, now: Instant) -> Aftermath {
        let mut aftermath = Aftermath::default();
        let mut table = self.table();
        let mut over: Vec<Box<str>> = Vec::new();
        for (client_id, entry) in &mut table.by_client {
            let Place::Away { expires_at, will, .. } = &mut entry.place else { continue };
            if now >= *expires_at {
                over.push(client_id.clone());
            } else if let Some((will, _)) = will.take_if(|(_, due)| now >= *due) {
                aftermath.publish(will, &entry.inbox);
            }
        }
        for client_id in over {
            table.remove(&client_id, &mut aftermath);
        }
        aftermath
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, client_id: &str, aftermath: &mut Aftermath) {
        if let Some(entry) = self.by_client.remove(client_id) {
            self.lasting -= usize::from(entry.lasts);
            aftermath.end(entry);
        }
    }
}

#[cfg(test)]
mod tests;

//! One connection: a socket around a [`Session`].
//!
//! A hand-written poll loop rather than `select!`: on the hot path it is one read, one hand-over per
//! lane and one write, with no future made or dropped in between.
//!
//! - **Reading** fills a buffer that belongs to the worker thread, so an idle connection holds none;
//!   what is left of a packet is kept until the rest comes.
//! - **Reading stops** while a lane that works has no room, the topic of a route is being made, too much
//!   is in flight, or the client does not take what we write. Keep-alive is paused meanwhile. A lane
//!   that is full stops it only when the client has as much waiting there as it may (`parked`).
//! - **Writing**: PUBACKs and deliveries of one wake-up leave in one write.
//! - **A hand-over that fails** ends the connection without a PUBACK: the client sends again.
//! - **At the end** the session is given back, the will is published, and what is still on its way to be durable is
//!   delivered to its subscribers when it is.

mod ending;
mod input;
mod output;
mod parked;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use edge_auth::PendingCheck;
use edge_config::RouteIndex;
use edge_engine::Failure;
use edge_mqtt::{Close, Delivery, Ending, ReasonCode, Session, Stopped, Ticket};
use tokio::time::Sleep;

use parked::Parked;

use crate::budget::{self, Share};
use crate::in_flight::InFlightBytes;
use crate::inbox::Inbox;
use crate::intake::{Held, Intake};
use crate::mailbox::{Fate, Mailbox};
use crate::registry::fan_out_all;
use crate::shared::Shared;
use crate::stats::count;
use crate::transport::Transport;

/// Turns of the loop before other tasks get theirs.
const ROUNDS_MAX: usize = 8;
/// How long a client may take to read the last packet of a connection that we end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the end of a connection waits for what is on its way to a lane.
const LAST_HAND_OVERS: Duration = Duration::from_secs(30);

pub(crate) struct Connection {
    shared: Arc<Shared>,
    stream: Transport,
    peer: SocketAddr,
    session: Session,
    intake: Intake,
    mailbox: Arc<Mailbox>,
    /// Input that could not be used yet, and why.
    tail: Vec<u8>,
    stopped: Stopped,
    out: Vec<u8>,
    written: usize,
    look_for_deliveries: bool,
    deliveries: VecDeque<Delivery>,
    /// Read from the log for it.
    ready: VecDeque<Delivery>,
    /// There may be more in the log.
    reads_on: bool,
    deliveries_bytes: usize,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: InFlightBytes,
    /// Hand-overs that lanes had no room for, by lane.
    parked: Vec<Parked>,
    /// The next publish would go beyond what the client may have waiting in this lane.
    used_up_lane: Option<usize>,
    /// A lane may turn out to be full without a word: look again then.
    look_again_at: Option<Instant>,
    creating: Option<Creating>,
    login: Option<Hashing>,
    /// Another connection has its session, and has not given it back.
    waits_for_session: bool,
    session_deadline: Option<Instant>,
    /// What the session left, until it is given back.
    ending: Option<Ending>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The socket takes nothing since then.
    write_stalled: Option<Instant>,
    draining_until: Option<Instant>,
    closing_until: Option<Instant>,
    /// What it holds of the memory budget.
    share: Share,
    /// It is not read because memory is short, since then.
    short_since: Option<Instant>,
    /// The socket is of no use any more.
    lost: bool,
}

/// A hand-over that is not durable yet.
struct InFlight {
    ticket: Ticket,
    publishes: usize,
    bytes: usize,
    held: Vec<Held>,
}

/// A password is being hashed.
type Hashing = Pin<Box<dyn Future<Output = Option<(PendingCheck, bool)>> + Send>>;

/// The topic of a route is being made.
struct Creating {
    route: RouteIndex,
    made: Pin<Box<dyn Future<Output = bool> + Send>>,
}

/// Who is at the other end, as far as is known before CONNECT.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Names in its certificate, which was verified.
    pub(crate) certificate: Vec<String>,
    /// A program on this machine.
    pub(crate) is_local: bool,
    pub(crate) accepted_at: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.registry.remove(&self.mailbox);
        self.shared.stats.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a peer is on this machine.
pub(crate) fn is_local(peer: &SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: Transport,
        peer: Peer,
        mailbox: Arc<Mailbox>,
        seed: u64,
    ) -> Self {
        let Peer { address: peer, certificate, is_local, accepted_at: now } = peer;
        let budget = shared.budget.clone();
        let place = (peer, stream.name());
        shared.stats.connections_open.fetch_add(1, Ordering::Relaxed);
        shared.registry.add(mailbox.clone());
        Self {
            session: Session::new(shared.options.session, seed, now),
            in_flight_bytes: InFlightBytes::new(shared.lanes.clone()),
            intake: Intake::new(shared.clone(), mailbox.clone(), certificate, is_local, place, now),
            shared,
            stream,
            peer,
            mailbox,
            tail: Vec::new(),
            stopped: Stopped::NeedsBytes(2),
            out: Vec::new(),
            written: 0,
            look_for_deliveries: false,
            deliveries_bytes: 0,
            deliveries: VecDeque::new(),
            ready: VecDeque::new(),
            reads_on: false,
            in_flight: VecDeque::new(),
            parked: Vec::new(),
            used_up_lane: None,
            look_again_at: None,
            creating: None,
            login: None,
            waits_for_session: false,
            session_deadline: None,
            ending: None,
            timer: None,
            write_stalled: None,
            draining_until: None,
            closing_until: None,
            share: Share::new(budget),
            short_since: None,
            lost: false,
        }
    }

    /// Serves the connection until it ends, and what has to be done after.
    pub(crate) async fn run(mut self) {
        poll_fn(|cx| {
            let polled = self.poll(cx);
            self.share.set(self.held_bytes());
            polled
        })
        .await;
        let close = self.session.closed().cloned().unwrap_or(Close::ConnectionLost);
        self.shared.stats.closed(&close);
        match &close {
            Close::Violation(violation) => {
                tracing::info!(peer = %self.peer, reason = %violation, "connection refused");
                self.shared.failed(&self.peer);
            }
            Close::Broker(ReasonCode::BadUserNameOrPassword) => self.shared.failed(&self.peer),
            close => tracing::debug!(peer = %self.peer, reason = %close, "connection ended"),
        }
        let left_by_itself =
            matches!(close, Close::Disconnected { .. } | Close::ConnectionLost) || self.lost;
        if !left_by_itself {
            self.linger().await;
        }
        let end = tokio::time::Instant::now() + LAST_HAND_OVERS;
        let _timed_out = tokio::time::timeout_at(end, self.finish()).await;
        self.settle().await;
    }

    /// Memory that grows with what the client does.
    fn held_bytes(&self) -> usize {
        let transport = if self.stream.is_tls() { budget::TLS_BYTES } else { budget::PLAIN_BYTES };
        // Not looked for: nothing came since all of it was taken.
        let inbox = self.intake.inbox.as_deref().filter(|_| self.look_for_deliveries);
        let waiting = inbox.map_or(0, Inbox::bytes) + self.deliveries_bytes;
        transport + self.tail.capacity() + self.out.capacity() + waiting
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.mailbox.register(cx.waker());
        for _ in 0..ROUNDS_MAX {
            let now = Instant::now();
            if self.mailbox.look() {
                (self.look_for_deliveries, self.reads_on) = (true, true);
                self.waits_for_session = false;
                self.handle_completions(now);
            }
            self.handle_orders(now);
            self.poll_waiting(cx, now);
            self.overtake_full_lanes(now);
            let read = self.poll_input(cx, now);
            self.write_deliveries(now);
            self.write_stored(now);
            if self.intake.has_events() {
                self.hand_over();
            }
            let wrote = self.poll_output(cx, now);
            if self.session.closed().is_some() {
                self.leave(now);
                let out_of_time = self.closing_until.is_some_and(|until| now >= until);
                if self.out.is_empty() || self.lost || out_of_time {
                    return Poll::Ready(());
                }
                self.closing_until.get_or_insert(now + CLOSE_TIMEOUT);
            }
            if !read && !wrote && self.poll_timer(cx, now).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Lanes have news: acknowledge and deliver what is durable, end on failure.
    fn handle_completions(&mut self, now: Instant) {
        let mut index = 0;
        let mut pubacks = 0;
        while let Some(first) = self.in_flight.get(index) {
            let fate = self.mailbox.fate(first.ticket);
            if fate == Fate::Open {
                index += 1;
                continue;
            }
            let Some(done) = self.in_flight.remove(index) else { break };
            if let Some(ending) = &mut self.ending {
                ending.state.settle(done.ticket, fate == Fate::Durable);
            }
            if fate == Fate::Refused {
                self.refuse(&done);
                continue;
            }
            self.in_flight_bytes.release(done.ticket, done.publishes, done.bytes);
            pubacks +=
                self.session.handle_durable(done.ticket, now, &mut self.intake, &mut self.out);
            fan_out_all(&self.shared, &done.held);
        }
        if pubacks > 0 {
            count(&self.shared.stats.pubacks, pubacks as u64);
        }
        if self.session.closed().is_none()
            && let Some(failure) = self.mailbox.failure()
        {
            count(&self.shared.stats.store_failures, 1);
            let reason = match failure {
                Failure::Poisoned => ReasonCode::ServerBusy,
                Failure::ShuttingDown => ReasonCode::ServerShuttingDown,
                Failure::Unstorable => ReasonCode::ImplementationSpecific,
                Failure::Full => ReasonCode::QuotaExceeded,
            };
            tracing::warn!(%failure, "publishes cannot be made durable; the client has to send again");
            self.shared.targets.refresh();
            self.session.close(Close::Broker(reason), &mut self.out);
        }
    }

    fn handle_orders(&mut self, now: Instant) {
        match self.mailbox.ordered() {
            None => {}
            Some(ReasonCode::ServerShuttingDown) => {
                let until = *self
                    .draining_until
                    .get_or_insert_with(|| now + self.shared.options.drain_timeout);
                if self.session.unacknowledged() == 0 || now >= until {
                    let reason = ReasonCode::ServerShuttingDown;
                    self.session.close(Close::Broker(reason), &mut self.out);
                }
            }
            Some(reason) => self.session.close(Close::Broker(reason), &mut self.out),
        }
    }

    /// Lanes that had no room, and the topic that is being made.
    fn poll_waiting(&mut self, cx: &mut Context<'_>, now: Instant) {
        if !self.parked.is_empty() {
            self.poll_parked(cx, now);
        }
        if let Some(creating) = &mut self.creating
            && let Poll::Ready(made) = creating.made.as_mut().poll(cx)
        {
            if !made {
                let until = now + self.shared.options.create_topic_timeout;
                self.intake.set_unavailable(creating.route, until);
            }
            self.creating = None;
        }
        if let Some(login) = &mut self.login
            && let Poll::Ready(checked) = login.as_mut().poll(cx)
        {
            self.login = None;
            match checked {
                Some((check, is_right)) => self.intake.finish_login(check, is_right),
                None => {
                    let reason = ReasonCode::ServerBusy;
                    self.session.close(Close::Broker(reason), &mut self.out);
                }
            }
        }
    }

    /// Ready: a deadline was over and something was done about it.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let stalled = self.write_stalled.map(|since| since + self.shared.options.write_timeout);
        let deadlines = match self.session.closed() {
            None => [
                self.session.poll_timeout(),
                stalled,
                self.draining_until,
                self.look_again_at,
                self.session_deadline.filter(|_| self.waits_for_session),
            ],
            Some(_) => [self.closing_until, stalled, None, None, None],
        };
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            self.timer = None;
            return Poll::Pending;
        };
        let deadline = tokio::time::Instant::from_std(deadline);
        // A timer that is early costs less than one that is moved with every packet.
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if deadline > tokio::time::Instant::now() {
                timer.as_mut().reset(deadline);
                continue;
            }
            timer.as_mut().reset(deadline + Duration::from_millis(1));
            self.look_again_at = None;
            if self.waits_for_session && self.session_deadline.is_some_and(|until| now >= until) {
                self.waits_for_session = false;
                self.intake.has_waited = true;
            }
            self.session.handle_timeout(Instant::now(), &mut self.out);
            if stalled.is_some_and(|stalled| now >= stalled) {
                count(&self.shared.stats.timeouts, 1);
                self.lost = true;
                self.session.close(Close::ConnectionLost, &mut self.out);
            }
            if self.tail.is_empty() {
                self.intake.shrink();
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

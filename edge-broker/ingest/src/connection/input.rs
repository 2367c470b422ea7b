//! Input: from the socket through the session to the lanes.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use edge_auth::PendingCheck;
use edge_config::RouteIndex;
use edge_engine::{LaneState, Refused, RefusedReason};
use edge_mqtt::{Close, ReasonCode, Stopped};
use tokio::io::{AsyncRead, ReadBuf};

use super::{Connection, Creating, InFlight, parked};
use crate::budget::PATIENCE;
use crate::intake::{Blocked, HandOver, Waits};
use crate::stats::count;
use crate::wills;

/// Read buffer of a worker thread.
const READ_BYTES: usize = 64 * 1024;
/// With less free space than this behind the rest of a packet, the packet is collected on its own.
const READ_SPACE_MIN: usize = 16 * 1024;

/// Between two reads while memory is short.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// A read of this size may be the first packet of a burst that the client holds back.
const SMALL_READ_BYTES: usize = 1_024;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Connection {
    /// Reads and acts on what was read. True when something was done.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let blocked = self.is_blocked(now);
        self.session.pause(blocked, now);
        if blocked || self.session.closed().is_some() || self.lost {
            return false;
        }
        if !matches!(self.stopped, Stopped::NeedsBytes(_)) {
            let tail = std::mem::take(&mut self.tail);
            let consumed = self.handle_input(&tail, now);
            self.keep(tail, consumed);
            // Something was used, or there is a new reason to wait: look again.
            return true;
        }
        let read = READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.is_empty() {
                buffer.resize(READ_BYTES, 0);
            }
            self.poll_read(cx, now, buffer)
        });
        match read {
            Poll::Pending => false,
            Poll::Ready(Ok(true)) => true,
            Poll::Ready(Ok(false) | Err(_)) => {
                self.lost = true;
                self.session.close(Close::ConnectionLost, &mut self.out);
                true
            }
        }
    }

    /// One read. `Ok(false)`: the client closed.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<bool>> {
        let kept = self.tail.len();
        if kept + READ_SPACE_MIN <= buffer.len() {
            // The rest of a packet and what follows it, side by side.
            let (head, space) = buffer.split_at_mut(kept);
            head.copy_from_slice(&self.tail);
            let mut space = ReadBuf::new(space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
            let read_bytes = space.filled().len();
            if read_bytes == 0 {
                return Poll::Ready(Ok(false));
            }
            count(&self.shared.stats.bytes_received, read_bytes as u64);
            let Some(input) = buffer.get(..kept + read_bytes) else {
                return Poll::Ready(Ok(false));
            };
            let consumed = self.handle_input(input, now);
            self.hurry_nagle(read_bytes);
            let rest = input.get(consumed..).unwrap_or_default();
            if rest.is_empty() {
                self.tail = Vec::new();
            } else {
                self.tail.clear();
                self.tail.extend_from_slice(rest);
            }
            return Poll::Ready(Ok(true));
        }
        let mut space = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        if space.filled().is_empty() {
            return Poll::Ready(Ok(false));
        }
        count(&self.shared.stats.bytes_received, space.filled().len() as u64);
        let mut tail = std::mem::take(&mut self.tail);
        tail.extend_from_slice(space.filled());
        let complete = !matches!(self.stopped, Stopped::NeedsBytes(needed) if tail.len() < needed);
        let consumed = if complete {
            self.handle_input(&tail, now)
        } else {
            self.session.handle_part(now);
            0
        };
        self.keep(tail, consumed);
        Poll::Ready(Ok(true))
    }

    /// A client without TCP_NODELAY (Mosquitto's) sends the first packet of a burst and holds the others back until it
    /// is acknowledged (RFC 896), while our kernel holds that acknowledgement back for up to 40 ms because the PUBACK
    /// that could carry it waits for a sync. After a small read with publishes under way it is sent at once (tcp(7),
    /// TCP_QUICKACK, which has to be set anew each time).
    fn hurry_nagle(&self, read_bytes: usize) {
        if read_bytes <= SMALL_READ_BYTES && self.session.unacknowledged() > 0 {
            // Where the socket does not know it, all that is lost is time.
            let _ = rustix::net::sockopt::set_tcp_quickack(self.stream.tcp(), true);
        }
    }

    pub(super) fn keep(&mut self, mut tail: Vec<u8>, consumed: usize) {
        tail.drain(..consumed);
        self.tail = if tail.is_empty() { Vec::new() } else { tail };
    }

    /// Gives input to the session and hands over what came of it. Returns the bytes used.
    pub(super) fn handle_input(&mut self, input: &[u8], now: Instant) -> usize {
        self.used_up_lane = None;
        let used_up = self.in_flight_bytes.used_up(&self.shared.lanes);
        self.intake.begin(now, self.shared.targets.boottime_us(), input.len(), used_up);
        let progress = self.session.handle_input(input, now, &mut self.intake, &mut self.out);
        self.stopped = progress.stopped;
        self.hand_over();
        // Of the session that a clean start ended.
        for will in self.intake.wills.drain(..) {
            tokio::spawn(wills::publish(self.shared.clone(), will));
        }
        match self.intake.blocked.take() {
            None => {}
            Some(Blocked::Lane(lane)) => self.used_up_lane = Some(lane),
            Some(Blocked::NoTopic(route)) => self.create_topic(route),
            Some(Blocked::Login(check)) => self.hash(check),
            Some(Blocked::Session) => self.wait_for_session(now),
        }
        progress.consumed
    }

    fn create_topic(&mut self, route: RouteIndex) {
        let shared = self.shared.clone();
        let made = Box::pin(async move {
            let limit = shared.options.create_topic_timeout;
            match tokio::time::timeout(limit, shared.targets.create(route)).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the topic of a route cannot be made");
                    false
                }
                Err(_timeout) => {
                    tracing::warn!("the topic of a route could not be made in time");
                    false
                }
            }
        });
        self.creating = Some(Creating { route, made });
    }

    /// Whoever has the session wakes us when it is given back.
    fn wait_for_session(&mut self, now: Instant) {
        self.waits_for_session = true;
        self.session_deadline.get_or_insert(now + self.shared.options.session_wait);
    }

    fn hash(&mut self, check: PendingCheck) {
        let permits = self.shared.hashes.clone();
        self.login = Some(Box::pin(async move {
            let _permit = permits.acquire_owned().await.ok()?;
            let hashed = tokio::task::spawn_blocking(move || {
                let is_right = check.run();
                (check, is_right)
            });
            hashed.await.ok()
        }));
    }

    pub(super) fn hand_over(&mut self) {
        let mut refused = false;
        let Self { intake, shared, in_flight, in_flight_bytes, parked, .. } = self;
        intake.finish(|HandOver { lane, submission, waits }| {
            let lane = &lane;
            let ticket = waits.as_ref().map(|waits| waits.ticket);
            // What came before it and waits goes before it.
            let is_behind = ticket.is_some() && parked.iter().any(|parked| parked.is_of(lane));
            let submitted = if is_behind {
                Err(Refused { reason: RefusedReason::NoRoom, submission })
            } else {
                lane.try_submit(submission)
            };
            match submitted {
                Ok(()) => {}
                Err(Refused { reason: RefusedReason::Dropped, submission }) => {
                    count(&shared.stats.records_dropped, submission.records() as u64);
                }
                Err(Refused { reason: RefusedReason::NoRoom, submission }) => {
                    count(&shared.stats.lane_waits, 1);
                    parked::park(parked, lane, ticket, submission);
                }
                Err(Refused { reason: RefusedReason::ShuttingDown, .. }) => refused = true,
            }
            if let Some(Waits { ticket, publishes, bytes, held }) = waits {
                in_flight_bytes.add(lane, publishes, bytes);
                in_flight.push_back(InFlight { ticket, publishes, bytes, held });
            }
        });
        if refused {
            self.session.close(Close::Broker(ReasonCode::ServerShuttingDown), &mut self.out);
        }
    }

    /// Whether reading has to wait.
    pub(super) fn is_blocked(&mut self, now: Instant) -> bool {
        let options = &self.shared.options;
        self.draining_until.is_some()
            || self.creating.is_some()
            || self.login.is_some()
            || self.waits_for_session
            || self.session.is_accepting()
            || self.out.len() - self.written > options.output_bytes_max
            || (self.stopped == Stopped::GateFull
                && self.session.unacknowledged() >= usize::from(options.session.receive_maximum))
            || self.waits_for_a_lane(now)
            || self.waits_for_memory(now)
    }

    /// Memory is short: who holds a part of a packet is not read, and sent away after a while; the others are read
    /// now and then, since what they acknowledge gives memory back.
    fn waits_for_memory(&mut self, now: Instant) -> bool {
        if !self.shared.budget.is_used_up() {
            self.short_since = None;
            return false;
        }
        let since = *self.short_since.get_or_insert_with(|| {
            count(&self.shared.stats.memory_waits, 1);
            now
        });
        let is_new = since == now;
        if self.tail.is_empty() && !is_new {
            // One read, then the next pause.
            if now >= since + SHORT_PAUSE {
                self.short_since = Some(now);
                return false;
            }
        } else if now >= since + PATIENCE && self.session.closed().is_none() {
            count(&self.shared.stats.memory_shed, 1);
            self.session.close(Close::Broker(ReasonCode::ServerBusy), &mut self.out);
        }
        self.look_again_soon(now);
        true
    }

    /// A lane that works makes room within moments: the socket waits for that. One that is full may take its time;
    /// then only a publish that goes beyond the client's limit in it waits.
    fn waits_for_a_lane(&mut self, now: Instant) -> bool {
        let lanes = &self.shared.lanes;
        let used_up = self.in_flight_bytes.used_up(lanes);
        if used_up == 0 && self.parked.is_empty() {
            return false;
        }
        let is_full = |lane: usize| lanes.get(lane).is_some_and(|l| l.state() == LaneState::Full);
        if self.used_up_lane.is_some_and(|lane| used_up & (1 << lane) != 0) {
            return true;
        }
        let waits = self.parked.iter().any(|parked| !is_full(parked.lane_index()))
            || (0..lanes.len()).any(|lane| used_up & (1 << lane) != 0 && !is_full(lane));
        if waits {
            self.look_again_soon(now);
        }
        waits
    }
}

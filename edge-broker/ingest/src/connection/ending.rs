//! After the connection: the last packet, the session, the will, deliveries that are still owed.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use edge_mqtt::Ending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Connection;
use super::parked::Parked;
use crate::wills;

/// How long bytes of a client that we cut off are read and thrown away, so that our last packet is
/// not lost in a reset.
const LINGER: Duration = Duration::from_millis(250);

impl Connection {
    /// Our last packet is on its way; closing now could overtake it with a reset.
    pub(super) async fn linger(&mut self) {
        let end = tokio::time::Instant::now() + LINGER;
        let drained = async {
            if self.stream.shutdown().await.is_err() {
                return;
            }
            let mut rubbish = [0; 2_048];
            while matches!(self.stream.read(&mut rubbish).await, Ok(1..)) {}
        };
        let _timed_out = tokio::time::timeout_at(end, drained).await;
    }

    /// The session is closed: it is given back, now or when it is known what became of QoS 2 publishes on their way.
    pub(super) fn leave(&mut self, now: Instant) {
        let Some(mut ending) = self.session.take_ending() else { return };
        // What no lane has taken was not acknowledged; the client sends it again.
        for never in std::mem::take(&mut self.parked).iter().flat_map(Parked::tickets) {
            self.in_flight.retain(|in_flight| in_flight.ticket != never);
            ending.state.settle(never, false);
        }
        self.ending = Some(ending);
        self.give_back(now);
    }

    /// Gives the session back if nothing of it is open. True when it is, or there was none.
    fn give_back(&mut self, now: Instant) -> bool {
        // A release that is not durable must not be forgotten: its packet id could be used in another lane.
        let has_events = self.in_flight.iter().any(|in_flight| in_flight.publishes == 0);
        let is_open = |ending: &Ending| {
            ending.session_expiry_s > 0 && (has_events || !ending.state.unsettled.is_empty())
        };
        if self.ending.as_ref().is_some_and(is_open) && self.mailbox.failure().is_none() {
            return false;
        }
        let Some(ending) = self.ending.take() else { return true };
        let Some((client_id, inbox)) = self.intake.leave() else { return true };
        let not_sent = std::mem::take(&mut self.deliveries);
        if let Some(lasting) = inbox.lasting() {
            lasting.take_back(self.ready.drain(..).map(|delivery| delivery.tag));
            if let Some(durable) = &self.shared.durable
                && ending.session_expiry_s > 0
            {
                durable.left(lasting, ending.session_expiry_s, now);
            }
        }
        self.deliveries_bytes = 0;
        let sessions = &self.shared.sessions;
        let aftermath = sessions.give_back(&client_id, &inbox, ending, not_sent, now);
        self.intake.wills.extend(self.shared.clear_up(aftermath));
        true
    }

    /// After the connection: the will, and deliveries of what is not durable yet.
    pub(super) async fn finish(&mut self) {
        self.creating = None;
        for will in std::mem::take(&mut self.intake.wills) {
            wills::publish(self.shared.clone(), will).await;
        }
        // Only what somebody waits for is waited for: subscribers, or a session that is not given back yet.
        if self.ending.is_none() {
            self.in_flight.retain(|in_flight| !in_flight.held.is_empty());
        }
        self.completions(|this| this.in_flight.is_empty()).await;
    }

    /// Waits until it is known what became of QoS 2 publishes: their session is not given back before.
    pub(super) async fn settle(&mut self) {
        self.completions(|this| this.give_back(Instant::now())).await;
    }

    async fn completions(&mut self, mut are_enough: impl FnMut(&mut Self) -> bool) {
        poll_fn(|cx| {
            self.mailbox.register(cx.waker());
            if self.mailbox.look() {
                self.handle_completions(Instant::now());
            }
            match are_enough(self) || self.mailbox.failure().is_some() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

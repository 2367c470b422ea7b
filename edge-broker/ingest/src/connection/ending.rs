//! After the connection: the last packet, the will, deliveries that are still owed.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use edge_mqtt::SessionSink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Connection;
use super::parked::Parked;
use crate::intake::Blocked;

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

    /// After the connection: the will, and deliveries of what is not durable yet.
    pub(super) async fn finish(&mut self) {
        // What no lane has taken was not acknowledged; the client sends it again.
        for never in std::mem::take(&mut self.parked).iter().flat_map(Parked::tickets) {
            self.in_flight.retain(|in_flight| in_flight.ticket != never);
        }
        self.creating = None;
        if let Some(will) = self.session.take_will() {
            let publish = will.publish();
            let bytes = publish.payload.len();
            self.intake.begin(Instant::now(), self.shared.targets.boottime_us(), bytes, 0);
            let _verdict = self.intake.publish(&publish);
            if let Some(Blocked::NoTopic(route)) = self.intake.blocked.take()
                && self.shared.targets.create(route).await.is_ok()
            {
                let _verdict = self.intake.publish(&publish);
            }
            self.hand_over();
            for parked in std::mem::take(&mut self.parked) {
                parked.submitted().await;
            }
        }
        // Only what somebody waits for is waited for.
        self.in_flight.retain(|in_flight| !in_flight.held.is_empty());
        poll_fn(|cx| {
            self.mailbox.register(cx.waker());
            if self.mailbox.look() {
                self.handle_completions();
            }
            match self.in_flight.is_empty() || self.mailbox.failure().is_some() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

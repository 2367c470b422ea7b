//! Output: deliveries into packets, packets into the socket.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use edge_auth::{Action, Identity};
use edge_mqtt::Close;
use tokio::io::AsyncWrite;

use super::Connection;
use crate::stats::count;

/// Output buffers larger than this are given back when they are empty.
const OUTPUT_KEPT_BYTES: usize = 4 * 1024;
/// Delivery queues longer than this are given back when they are empty.
const DELIVERIES_KEPT: usize = 64;

impl Connection {
    /// Messages for this client, as long as it takes what we write.
    pub(super) fn write_deliveries(&mut self, now: Instant) {
        self.write_retained(now);
        self.write_live(now);
        // Shared subscriptions give to those first who take it.
        if let Some(inbox) = &self.intake.inbox {
            inbox.set_busy(!self.deliveries.is_empty() || !self.session.wants_deliveries());
        }
    }

    fn write_live(&mut self, now: Instant) {
        if !self.look_for_deliveries && self.deliveries.is_empty() {
            return;
        }
        let limit = self.shared.options.output_bytes_max;
        let lost_before = self.session.deliveries_lost();
        let Some(inbox) = self.intake.inbox.clone() else { return };
        loop {
            if self.out.len() - self.written > limit {
                break;
            }
            if self.deliveries.is_empty() {
                if !std::mem::take(&mut self.look_for_deliveries) {
                    break;
                }
                self.deliveries_bytes = inbox.take(&mut self.deliveries);
            }
            let Some(delivery) = self.deliveries.pop_front() else { break };
            let bytes = delivery.message.cost_bytes();
            self.deliveries_bytes = self.deliveries_bytes.saturating_sub(bytes);
            self.session.handle_delivery(delivery, now, &mut self.intake, &mut self.out);
        }
        if self.deliveries.is_empty() && self.deliveries.capacity() > DELIVERIES_KEPT {
            self.deliveries = VecDeque::new();
        }
        let lost = self.session.deliveries_lost();
        let stats = &self.shared.stats;
        if lost != lost_before {
            count(&stats.deliveries_dropped, lost.queue_full - lost_before.queue_full);
            let unfit = lost.expired + lost.too_large;
            count(&stats.deliveries_unfit, unfit - lost_before.expired - lost_before.too_large);
        }
    }

    /// Messages from the log, as the client has room for them.
    pub(super) fn write_stored(&mut self, now: Instant) {
        let Some(inbox) = &self.intake.inbox else { return };
        let Some(lasting) = inbox.lasting().cloned() else { return };
        let inbox = inbox.clone();
        let limit = self.shared.options.output_bytes_max;
        let mut arena = BytesMut::new();
        while self.session.wants_deliveries() && self.out.len() - self.written <= limit {
            if self.ready.is_empty() {
                if !std::mem::take(&mut self.reads_on) {
                    break;
                }
                let access = self.shared.options.access.get();
                let may_get = |topic: &str| {
                    let decide =
                        |identity: &Identity| access.topic(identity, Action::Subscribe, topic);
                    inbox.with_identity(decide).is_allowed()
                };
                self.reads_on = lasting.read(&may_get, now, &mut arena, &mut self.ready);
            }
            let Some(delivery) = self.ready.pop_front() else { continue };
            self.session.handle_delivery(delivery, now, &mut self.intake, &mut self.out);
            count(&self.shared.stats.deliveries, 1);
        }
        if self.ready.is_empty() && self.ready.capacity() > DELIVERIES_KEPT {
            self.ready = VecDeque::new();
        }
    }

    /// Retained messages that subscriptions ask for, behind their SUBACK.
    fn write_retained(&mut self, now: Instant) {
        let limit = self.shared.options.output_bytes_max;
        while !self.intake.wants_retained.is_empty()
            && self.session.wants_deliveries()
            && self.out.len() - self.written <= limit
            && let Some(delivery) = self.intake.next_retained(now)
        {
            count(&self.shared.stats.deliveries, 1);
            self.session.handle_delivery(delivery, now, &mut self.intake, &mut self.out);
        }
    }

    /// Writes what waits. True when something was written.
    pub(super) fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut wrote = false;
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty())
            && !self.lost
        {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {
                    self.written += bytes;
                    count(&self.shared.stats.bytes_sent, bytes as u64);
                    self.write_stalled = None;
                    wrote = true;
                }
                Poll::Ready(_) => {
                    self.lost = true;
                    self.session.close(Close::ConnectionLost, &mut self.out);
                }
                Poll::Pending => {
                    self.write_stalled.get_or_insert(now);
                    break;
                }
            }
        }
        let settled = self.lost || self.stream.poll_settle(cx).is_ready();
        if !settled {
            self.write_stalled.get_or_insert(now);
        } else if self.written == self.out.len() {
            self.write_stalled = None;
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if self.out.capacity() > OUTPUT_KEPT_BYTES {
                self.out = Vec::new();
            }
        } else if self.written > self.shared.options.output_bytes_max {
            self.out.drain(..self.written);
            self.written = 0;
        }
        wrote
    }
}

//! What a connection has waiting to be durable, lane by lane.
//!
//! Limits, both set for each lane ([`Holding`](edge_engine::Holding)): payload bytes of one client, and of all clients
//! together; beyond the second only clients that have nothing in the lane are read from. Both are looked at before a
//! read is taken apart, so one read (64 KiB, or one packet) may go beyond. The number of publishes is limited by
//! Receive Maximum, for all lanes of a client together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_engine::LaneHandle;
use edge_mqtt::Ticket;

use crate::mailbox::lane_of;

/// One connection's share of each lane. What is left is given back when it is dropped.
pub(crate) struct InFlightBytes {
    lanes: Arc<[Arc<LaneHandle>]>,
    own: Box<[Own]>,
    publishes: usize,
}

#[derive(Clone, Copy, Default)]
struct Own {
    publishes: usize,
    bytes: usize,
}

impl InFlightBytes {
    pub(crate) fn new(lanes: Arc<[Arc<LaneHandle>]>) -> Self {
        let own = vec![Own::default(); lanes.len()].into();
        Self { lanes, own, publishes: 0 }
    }

    /// Publishes in all lanes.
    pub(crate) fn publishes(&self) -> usize {
        self.publishes
    }

    pub(crate) fn add(&mut self, lane: &LaneHandle, publishes: usize, bytes: usize) {
        let Some(own) = self.own.get_mut(usize::from(lane.id().0)) else { return };
        let all = lane.in_flight();
        if own.publishes == 0 {
            all.clients.fetch_add(1, Ordering::Relaxed);
        }
        all.publishes.fetch_add(publishes as u64, Ordering::Relaxed);
        all.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        own.publishes += publishes;
        own.bytes += bytes;
        self.publishes += publishes;
    }

    pub(crate) fn release(&mut self, ticket: Ticket, publishes: usize, bytes: usize) {
        self.take_back(lane_of(ticket.0), publishes, bytes);
    }

    fn take_back(&mut self, lane: usize, publishes: usize, bytes: usize) {
        let (Some(own), Some(lane)) = (self.own.get_mut(lane), self.lanes.get(lane)) else {
            return;
        };
        let less = |counter: &AtomicU64, by: u64| counter.fetch_sub(by, Ordering::Relaxed);
        let all = lane.in_flight();
        own.publishes -= publishes;
        own.bytes -= bytes;
        self.publishes -= publishes;
        less(&all.publishes, publishes as u64);
        less(&all.bytes, bytes as u64);
        if own.publishes == 0 && publishes > 0 {
            less(&all.clients, 1);
        }
    }

    /// Lanes in which this client has as much as it may, a bit each.
    #[inline]
    pub(crate) fn used_up(&self, lanes: &[Arc<LaneHandle>]) -> u32 {
        if self.publishes == 0 {
            return 0;
        }
        let mut bits = 0;
        for (index, (own, lane)) in self.own.iter().zip(lanes).enumerate() {
            if own.publishes == 0 {
                continue;
            }
            let holding = lane.holding();
            let total = lane.in_flight().bytes.load(Ordering::Relaxed);
            if own.bytes >= holding.client_bytes_max || total >= holding.total_bytes_max as u64 {
                bits |= 1 << index;
            }
        }
        bits
    }
}

impl Drop for InFlightBytes {
    fn drop(&mut self) {
        for lane in 0..self.own.len() {
            let Own { publishes, bytes } = self.own.get(lane).copied().unwrap_or_default();
            self.take_back(lane, publishes, bytes);
        }
    }
}

//! What all connections of a listener share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use edge_config::Router;
use edge_engine::LaneHandle;
use edge_mqtt::Message;

use crate::budget::Budget;
use crate::clients::Clients;
use crate::durable::Durable;
use crate::gatekeeper::Gatekeeper;
use crate::options::MqttOptions;
use crate::registry::Registry;
use crate::retained::Retained;
use crate::seldom::Seldom;
use crate::sessions::{Aftermath, LateWill, Sessions};
use crate::stats::{IngestStats, count};
use crate::targets::Targets;

pub(crate) struct Shared {
    pub(crate) options: MqttOptions,
    pub(crate) router: Arc<Router>,
    pub(crate) targets: Targets,
    pub(crate) registry: Registry,
    pub(crate) retained: Retained,
    pub(crate) sessions: Sessions,
    /// Sessions are kept over a restart.
    pub(crate) durable: Option<Durable>,
    pub(crate) stats: Arc<IngestStats>,
    pub(crate) gatekeeper: Arc<Gatekeeper>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) budget: Arc<Budget>,
    /// One password is hashed at a time for each core.
    pub(crate) hashes: Arc<tokio::sync::Semaphore>,
    /// Handshakes at one time.
    pub(crate) handshakes: tokio::sync::Semaphore,
    /// "Connection refused", of strangers.
    pub(crate) refusals_told: Seldom,
    /// "Connection limit reached".
    pub(crate) limit_told: Seldom,
    /// Entries in all route caches.
    pub(crate) cache_entries: Arc<AtomicUsize>,
    /// Lanes of the engine, `system` included.
    pub(crate) lanes: Arc<[Arc<LaneHandle>]>,
}

impl Shared {
    /// A client failed in a way that counts towards a ban.
    pub(crate) fn failed(&self, peer: &SocketAddr) {
        if self.gatekeeper.failed(peer.ip(), Instant::now()) {
            count(&self.stats.bans, 1);
            tracing::warn!(address = %peer.ip(), "banned for a while: it keeps failing");
        }
    }

    /// A message was published with the retain flag, as the `order`-th of them.
    pub(crate) fn retain(&self, order: u64, message: &Message, now: Instant) {
        if !self.retained.apply(order, message, now) {
            count(&self.stats.retained_dropped, 1);
        }
    }

    /// Sessions have changed: what ended is forgotten. Returns the wills to publish.
    pub(crate) fn clear_up(&self, aftermath: Aftermath) -> Vec<LateWill> {
        for inbox in &aftermath.ended {
            self.registry.forget(inbox);
            if let (Some(durable), Some(lasting)) = (&self.durable, inbox.lasting()) {
                durable.discard(lasting.id());
            }
        }
        if !aftermath.orphans.is_empty() {
            let lost = self.registry.pass_on(aftermath.orphans, &self.options.access.get());
            count(&self.stats.deliveries_dropped, lost);
        }
        aftermath.wills
    }
}

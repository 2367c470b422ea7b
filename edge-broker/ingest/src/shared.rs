//! What all connections of a listener share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use edge_config::Router;
use edge_engine::LaneHandle;

use crate::options::MqttOptions;
use crate::registry::Registry;
use crate::stats::IngestStats;
use crate::targets::Targets;

pub(crate) struct Shared {
    pub(crate) options: MqttOptions,
    pub(crate) router: Arc<Router>,
    pub(crate) targets: Targets,
    pub(crate) registry: Registry,
    pub(crate) stats: Arc<IngestStats>,
    /// One password is hashed at a time for each core.
    pub(crate) hashes: Arc<tokio::sync::Semaphore>,
    /// Handshakes at one time.
    pub(crate) handshakes: tokio::sync::Semaphore,
    /// Entries in all route caches.
    pub(crate) cache_entries: Arc<AtomicUsize>,
    /// Lanes of the engine, `system` included.
    pub(crate) lanes: Arc<[Arc<LaneHandle>]>,
}

//! What the handlers of one connection share.

use std::net::SocketAddr;
use std::sync::Arc;

use edge_engine::Engine;
use edge_wire::TopicId;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::options::KafkaOptions;

/// What all connections share.
pub(crate) struct Context {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: KafkaOptions,
    /// One permit for each KiB of large requests in memory.
    pub(crate) request_memory: Arc<Semaphore>,
    /// One permit for each KiB of Fetch answers in memory.
    pub(crate) response_memory: Arc<Semaphore>,
    /// True once the listener is to stop.
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// One connection, as the handlers see it.
pub(crate) struct Session {
    pub(crate) context: Arc<Context>,
    /// Where this client is told to connect to.
    pub(crate) host: StrBytes,
    pub(crate) port: i32,
}

/// One permit stands for so many bytes.
const PERMIT_BYTES: usize = 1024;

/// Permits for so many bytes, never more than the semaphore can ever give.
pub(crate) fn permits(bytes: usize, total_bytes: usize) -> u32 {
    let all = (total_bytes / PERMIT_BYTES).max(1);
    u32::try_from(bytes.div_ceil(PERMIT_BYTES).clamp(1, all)).unwrap_or(u32::MAX)
}

impl Context {
    pub(crate) fn new(
        engine: Arc<Engine>,
        options: KafkaOptions,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let semaphore = |bytes: usize| Arc::new(Semaphore::new((bytes / PERMIT_BYTES).max(1)));
        Self {
            request_memory: semaphore(options.request_memory_bytes),
            response_memory: semaphore(options.response_memory_bytes),
            engine,
            options,
            shutdown,
        }
    }
}

impl Session {
    pub(crate) fn new(context: Arc<Context>, local: SocketAddr) -> Self {
        let (host, port) = match &context.options.advertised {
            Some((host, port)) => (host.clone(), *port),
            // A dual-stack listener sees IPv4 clients at mapped addresses.
            None => (local.ip().to_canonical().to_string(), local.port()),
        };
        Self { context, host: StrBytes::from_string(host), port: i32::from(port) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.context.engine
    }

    pub(crate) fn options(&self) -> &KafkaOptions {
        &self.context.options
    }
}

/// Resolves when the listener is to stop, or when nobody is left to say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the same to us.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// A topic id as the message codecs want it.
pub(crate) fn uuid_of(id: TopicId) -> Uuid {
    Uuid::from_bytes(id.0)
}

/// A topic id as the engine wants it; `None` for the nil UUID, which means "by name".
pub(crate) fn topic_id_of(uuid: Uuid) -> Option<TopicId> {
    (!uuid.is_nil()).then(|| TopicId(uuid.into_bytes()))
}

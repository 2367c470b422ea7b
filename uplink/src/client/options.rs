//! What a caller may set on a [`Client`](super::Client).

use std::sync::Arc;
use std::time::Duration;

use super::transport::{Connector, TcpConnector};

/// Settings of one client. All limits are per connection.
#[derive(Clone)]
pub struct ClientOptions {
    /// Name the brokers see in their logs and quotas.
    pub client_id: String,
    /// How long name resolution, connecting and version negotiation may take together. Default 10 s.
    pub connect_timeout: Duration,
    /// How long one request may wait for its answer, beyond the time the request itself asks the broker to
    /// wait. Kafka answers in order, so one late answer ends the connection. Default 30 s.
    pub request_timeout: Duration,
    /// Largest answer that is read, in bytes. Default 16 MiB.
    pub frame_bytes_max: usize,
    /// Requests that may wait for an answer on one connection. Default 32.
    pub in_flight_max: usize,
    /// How connections are made; plain TCP unless set. TLS goes here.
    pub connector: Arc<dyn Connector>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_id: "edge-broker".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            frame_bytes_max: 16 * 1024 * 1024,
            in_flight_max: 32,
            connector: Arc::new(TcpConnector),
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("client_id", &self.client_id)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("frame_bytes_max", &self.frame_bytes_max)
            .field("in_flight_max", &self.in_flight_max)
            .finish_non_exhaustive()
    }
}

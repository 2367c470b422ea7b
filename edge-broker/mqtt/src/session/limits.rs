//! Limits of one connection. All of them come from one memory budget, chosen by the listener.

use std::time::Duration;

/// What one connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// A connection that has sent no complete CONNECT by then is closed.
    pub connect_deadline: Duration,
    /// A packet of which nothing more arrives for this long ends the connection, also when
    /// keep-alive is off: half a packet holds memory.
    pub stalled_packet_deadline: Duration,
    /// Largest packet after CONNECT, in bytes, fixed header included. Announced to MQTT 5 clients.
    pub packet_bytes_max: usize,
    /// QoS 1 and 2 publishes whose exchange is not over. Announced to MQTT 5 clients as Receive
    /// Maximum, who are refused beyond it; older clients are not read from while as many answers wait.
    pub receive_maximum: u16,
    /// QoS 1 and 2 deliveries whose exchange is not over, at most; the client's Receive Maximum may be
    /// lower.
    pub deliveries_in_flight_max: u16,
    /// Bytes of them; one is sent whatever its size.
    pub deliveries_in_flight_bytes_max: usize,
    /// Bytes of QoS 1 and 2 deliveries that wait for a free packet identifier. Beyond it the newest are
    /// dropped and counted.
    pub deliveries_queued_bytes_max: usize,
    /// Topic aliases, each way. Announced to MQTT 5 clients.
    pub topic_aliases_max: u16,
    /// Longest session expiry that is granted, in seconds. What is without an end before MQTT 5 (clean
    /// session 0) ends then, too.
    pub session_expiry_max_s: u32,
    /// Longest keep-alive, in seconds; an MQTT 5 client that asks for more, or for none, is told to use
    /// this one. 0: whatever the client says.
    pub keep_alive_max_s: u16,
    /// A publish of a 3.1 or 3.1.1 client that may not be is acknowledged and thrown away; else the connection ends.
    pub denied_publish_v3_is_acknowledged: bool,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(5),
            stalled_packet_deadline: Duration::from_secs(60),
            packet_bytes_max: 256 * 1024,
            receive_maximum: 256,
            deliveries_in_flight_max: 256,
            deliveries_in_flight_bytes_max: 1024 * 1024,
            deliveries_queued_bytes_max: 256 * 1024,
            topic_aliases_max: 16,
            session_expiry_max_s: 7 * 24 * 3_600,
            keep_alive_max_s: 0,
            denied_publish_v3_is_acknowledged: false,
        }
    }
}

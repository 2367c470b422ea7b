//! How much session state there may be.

/// Limits of the [`Store`](crate::Store). What it holds has to fit into checkpoints at the head of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions that outlive their connection.
    pub sessions_max: usize,
    /// Bytes of all sessions, subscriptions and wills together, in the `system` lane's checkpoint.
    pub state_bytes_max: usize,
    /// QoS 2 packet ids that clients have not released, of all sessions in one lane.
    pub received_max: usize,
    /// QoS 2 deliveries that are not over, of one session in one lane.
    pub outbound_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 4_096,
            state_bytes_max: 128 * 1024,
            received_max: 16_384,
            outbound_max: 256,
        }
    }
}

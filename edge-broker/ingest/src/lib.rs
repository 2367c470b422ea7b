//! The MQTT listener: sockets around `edge-mqtt`'s session machine, records into lanes, messages to
//! live subscribers.
//!
//! The way of a read: `connection` reads once, the session checks every packet, `intake` collects
//! the publishes into one chunk per lane, the lane's thread makes them durable and leaves word in the
//! connection's `mailbox`, and all PUBACKs leave in one write. Nothing on that way allocates, locks
//! or hashes per message for a topic that is known.
//!
//! **Invariant:** a PUBACK leaves only after the lane reported the hand-over durable; QoS 1 reaches
//! subscribers only then; QoS 0 reaches them at once, whatever the lane does. What a lane cannot take
//! of QoS 0 is counted, never waited for.

mod connection;
mod intake;
mod listener;
mod mailbox;
mod options;
mod registry;
mod route_cache;
mod shared;
mod stats;
mod targets;

pub use listener::{serve, serve_with_stats};
pub use options::MqttOptions;
pub use stats::{IngestStats, Violations};

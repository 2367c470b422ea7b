//! The MQTT listener: sockets around `edge-mqtt`'s session machine, records into lanes, messages to
//! live subscribers.
//!
//! The way of a read: `connection` reads once, the session checks every packet, `intake` collects
//! the publishes into one chunk per lane, the lane's thread makes them durable and leaves word in the
//! connection's `mailbox`, and all PUBACKs leave in one write. Nothing on that way allocates, locks
//! or hashes per message for a topic that is known.
//!
//! A lane that is full holds what it cannot take: the publishes stay unacknowledged, in the lane's queue
//! and behind it in their connection, up to the limits of [`Holding`](edge_engine::Holding). Meanwhile
//! the connection is read on, for the sake of its other lanes, until the next publish would go beyond
//! a limit; from there on the socket waits, and keep-alive with it. What the lane gives back after its
//! `refuse_after` is answered with 0x97 (MQTT 5) or with the end of the connection (3.1.1).
//!
//! A session (`sessions`) outlives its connection if the client asks for that; what is stored for it is
//! read from the lanes (`lasting`), with a place in each that survives a power cut (`durable`). What cannot be read there
//! waits in its `inbox`, in memory only, and so do `retained` messages.
//!
//! **Invariant:** a PUBACK or PUBREC of success leaves only after the lane reported the hand-over durable; QoS 1 and 2 reach
//! subscribers only then; QoS 0 reaches them at once, whatever the lane does. What a lane cannot take
//! of QoS 0 is counted, never waited for.

mod budget;
mod clients;
mod connection;
mod dead_letter;
mod door;
mod durable;
mod gatekeeper;
mod in_flight;
mod inbox;
mod intake;
mod lasting;
mod listener;
mod mailbox;
mod options;
mod registry;
mod retained;
mod route_cache;
mod seldom;
mod session_keeper;
mod sessions;
mod shared;
mod stats;
mod sys;
mod targets;
mod transport;
mod wills;

pub use clients::ClientInfo;
pub use door::Door;
pub use gatekeeper::Limits as GateLimits;
pub use listener::{MqttServer, ServerHandle, serve, serve_with_stats};
pub use options::MqttOptions;
pub use session_keeper::SessionKeeper;
pub use stats::{IngestStats, Violations};
pub use transport::Carrier;

//! What of MQTT sessions survives a power cut. No I/O, no clock, no randomness: events and times come in.
//!
//! - [`Store`] is the durable state: sessions and their subscriptions, and for each lane the place that a session has
//!   read to, the QoS 2 packet ids it sent, and the QoS 2 deliveries that are under way to it.
//! - Every change is a [`SessionEvent`], made durable in a commit group and applied once it is ([`Store::apply`]).
//!   What belongs to a record is in the group of that record, so neither exists without the other.
//! - State lives in the lane it belongs to: each lane's checkpoints hold its part ([`Store::checkpoint`]), the part of
//!   the `system` lane holds the sessions. Ids of sessions are never used again, so no order between two journals has
//!   to be known: a part that names a session which is not there is left aside.
//! - [`Follow`] is the way of one session through one lane: what was handed over, what is done, where it stands.
//!
//! Limits: [`Limits`]. Times are seconds of powered-on time, counted by the gateway while it runs: a gateway that is
//! switched off ages no session.

mod event;
mod follow;
mod limits;
mod part;
mod place;
mod read;
mod session;
mod store;

pub use event::{Cursor, EVENT_TAG, EventDecodeError, SessionEvent};
pub use follow::Follow;
pub use limits::Limits;
pub use part::{Outbound, OutboundState};
pub use place::Place;
pub use read::{ReadStep, RecordRef, Visit, read_group};
pub use session::{Options, Session, SessionId, StoredWill, Subscription};
pub use store::{Admission, Inherited, SYSTEM, Store};

//! Sessions under power cuts: the real engine, lanes, session state and cursors on a simulated disk.
//!
//! A publisher and a subscriber with persistent stores talk to a gateway whose power goes at a random operation of its
//! disk, several times over; each time what the disk kept is opened again. They see nothing but packets that were
//! allowed to leave. In the end, over all cuts ([`run::run`]):
//!
//! - a QoS 2 publish is in the log exactly once, one of QoS 1 at least once, those of a topic in their order;
//! - the subscriber has each QoS 2 message exactly once and each of QoS 1 at least once, of a topic in its order;
//! - subscriptions are what was acknowledged.
//!
//! Which thread runs when is left to the machine: a seed fixes the load and the cuts, not the interleaving of lanes.

pub mod clients;
pub mod front;
pub mod run;

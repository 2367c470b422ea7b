//! The replicator as a state machine: what to send, what is sent, when to try again. No I/O, no clock.

pub mod backoff;
pub mod link;
pub mod naming;
pub mod rebatch;
pub mod replicator;
pub mod resume;

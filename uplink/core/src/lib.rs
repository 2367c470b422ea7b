//! The replicator as a state machine: what to send, what is sent, when to try again. No I/O, no clock.

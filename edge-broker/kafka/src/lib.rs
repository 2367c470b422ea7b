//! The Kafka listener: protocol handlers over the engine.
//!
//! One node that leads every partition. An answer to Produce with acks 1 or -1 leaves only after the records
//! are durable; Fetch never goes past the durable end. What is answered is in `api_versions.rs`; what is not
//! there (consumer groups with members, transactions, replication between brokers) is not advertised.
//!
//! Limits: [`KafkaOptions`].
//!
//! **Invariant:** nothing from the wire reaches a message codec before `request_layout` has walked it.

mod api_versions;
mod connection;
mod fault;
mod frame;
mod handlers;
mod listener;
mod options;
mod request_layout;
mod session;
mod topic_config;

pub use listener::serve;
pub use options::KafkaOptions;

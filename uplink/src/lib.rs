//! Replicator from the lanes to a central Kafka cluster, and the Kafka client it uses.

pub mod client;

//! What the caller decides about the listener. Every number here is a limit.

use std::time::Duration;

/// Settings of the Kafka listener.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// Host and port that clients are told to connect to; `None`: the address they already reached us at.
    pub advertised: Option<(String, u16)>,
    /// Name of the cluster, shown by clients' tools.
    pub cluster_id: String,
    /// Number of this node. There is only one, and it leads every partition.
    pub node_id: i32,
    /// Whether asking for the metadata of an unknown topic makes it (clients must allow it as well).
    pub auto_create_topics: bool,
    /// Partitions of a topic made without a number.
    pub partitions_default: u32,
    /// Connections at one time; a further one is closed at once.
    pub connections_max: usize,
    /// Requests of one connection that wait for their answer; beyond that its socket is not read.
    pub outstanding_max: usize,
    /// Largest request, in bytes. Requests that carry no records are held to 1 MiB at most.
    pub request_bytes_max: usize,
    /// Bytes of large requests in memory at one time, over all connections.
    pub request_memory_bytes: usize,
    /// Most bytes of records in one Fetch answer, whatever the client asks for. A single larger batch is
    /// answered whole.
    pub fetch_bytes_max: usize,
    /// Bytes of Fetch answers in memory at one time, over all connections.
    pub response_memory_bytes: usize,
    /// Most bytes a producer's batch may unpack to.
    pub unpacked_bytes_max: usize,
    /// A connection without any request for this long is closed.
    pub idle_timeout: Duration,
    /// A request that began to arrive must be whole within this time (a large one gets more, for slow links).
    pub request_timeout: Duration,
    /// A client that does not take its answers for this long is dropped.
    pub write_timeout: Duration,
    /// How long requests in progress may take to finish once the listener is told to stop.
    pub drain_timeout: Duration,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            advertised: None,
            cluster_id: "edge-broker".to_owned(),
            node_id: 1,
            auto_create_topics: true,
            partitions_default: 1,
            connections_max: 256,
            outstanding_max: 32,
            request_bytes_max: 8 << 20,
            request_memory_bytes: 16 << 20,
            fetch_bytes_max: 4 << 20,
            response_memory_bytes: 16 << 20,
            unpacked_bytes_max: 8 << 20,
            // As Kafka's connections.max.idle.ms.
            idle_timeout: Duration::from_secs(600),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

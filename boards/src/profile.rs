//! What a profile says. Every key of a board file is a field here; a file with another key is refused.

use serde::Deserialize;

use crate::units::Bytes;

/// One kind of board, all values filled in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// One line for a human.
    pub description: String,
    /// The Rust target triple that the board runs; none for `base`.
    pub target: Option<String>,
    /// Beginnings of `/proc/device-tree/model` by which the board is known.
    pub models: Vec<String>,
    /// Memory, in bytes unless said otherwise.
    pub memory: Memory,
    /// How many of what.
    pub limits: Limits,
    /// What the log may take of the flash.
    pub flash: Flash,
    /// Compression levels that the processor can pay for.
    pub compression: Compression,
    /// Threads.
    pub threads: Threads,
    /// What is soldered on.
    pub hardware: Hardware,
}

/// Limits of queues, caches and frames.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What the whole process may take; the other values live inside it.
    pub total: Bytes,
    /// Each lane: records taken over that wait for their commit group.
    pub lane_queue: Bytes,
    /// Decoded commit groups, one pool for all readers.
    pub group_cache: Bytes,
    /// What the uplink has read from the log and the upstream has not yet acknowledged.
    pub uplink_window: Bytes,
    /// Each MQTT client: publishes that wait for their sync; at the limit its socket is not read.
    pub mqtt_in_flight: Bytes,
    /// Each MQTT subscriber: messages that wait for its socket.
    pub mqtt_subscriber_queue: Bytes,
    /// The largest MQTT packet after CONNECT.
    pub mqtt_packet: Bytes,
    /// The largest Kafka request frame.
    pub kafka_request: Bytes,
    /// The largest record batch that a Kafka producer may send.
    pub kafka_batch: Bytes,
    /// MQTT topics whose route is remembered (a number, not bytes).
    pub route_cache_entries: u32,
}

/// How many connections and streams.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// MQTT connections at one time.
    pub mqtt_connections: u32,
    /// Kafka connections at one time.
    pub kafka_connections: u32,
    /// Topic partitions, all topics together.
    pub streams: u32,
}

/// What the log may take of the flash.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flash {
    /// All lanes together, where the config file sets no budgets.
    pub lanes_total: Bytes,
    /// What the card should be asked to write in a day.
    pub device_bytes_per_day: Bytes,
    /// What the scrub reads in a second, all lanes together.
    pub scrub_bytes_per_second: Bytes,
    /// Kept for metadata and recovery on a full disk; on a small one less, a 32nd of it.
    pub reserve: Bytes,
    /// How the total is divided.
    pub share: FlashShare,
}

/// Per cent of [`Flash::lanes_total`] for each default lane.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlashShare {
    /// Internal state.
    pub system: u8,
    /// The lane `alarm`.
    pub alarm: u8,
    /// The lane `normal`.
    pub normal: u8,
    /// The lane `bulk`.
    pub bulk: u8,
}

/// Compression levels that the processor can pay for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// zstd level of commit groups. The lane's own thread compresses them.
    pub lane_zstd_level: u8,
    /// zstd level of batches that cross the link.
    pub uplink_zstd_level: u8,
}

/// Threads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threads {
    /// Network threads: no more than there are cores, and no more than this. Each lane has one of its own.
    pub workers_max: u8,
}

/// What is soldered on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// A clock with a battery; without one the time is wrong until the network sets it.
    pub real_time_clock: bool,
    /// The hardware watchdog.
    pub watchdog: Option<Watchdog>,
    /// Name of the status LED under `/sys/class/leds`.
    pub led: Option<String>,
}

/// A hardware watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// Its device file.
    pub device: String,
    /// The longest time it can be told to wait.
    pub timeout_max_ms: u32,
}

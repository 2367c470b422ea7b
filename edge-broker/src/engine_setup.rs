//! From the configuration to what the engine wants to know.

use edge_config::{Compression, Config, Durability, Lane, SYSTEM_LANE, WhenFull};
use edge_engine::{EngineConfig, LaneSetup, TopicConfig, TopicSpec};
use edge_log::{GroupCompression, LaneConfig};

/// The engine's configuration.
#[must_use]
pub(crate) fn engine_config(config: &Config) -> EngineConfig {
    let (system, lanes): (Vec<_>, Vec<_>) =
        config.lanes.iter().partition(|lane| &*lane.name == SYSTEM_LANE);
    // One pool for all readers, by the board: most of it for the lanes that people read.
    let readable = lanes.len().max(1);
    let pool = usize::try_from(config.board.memory.group_cache.0).unwrap_or(usize::MAX);
    let share = pool / readable;
    let uplink = config.uplink.is_some();
    EngineConfig {
        system: system
            .first()
            .map(|lane| setup(lane, false, 64 * 1024))
            .expect("a configuration always has the system lane"),
        lanes: lanes
            .iter()
            // Who writes "refuse" without an uplink means it: nothing goes before somebody deletes it.
            .map(|lane| setup(lane, uplink || lane.when_full == WhenFull::Refuse, share))
            .collect(),
        default_lane: config.kafka.default_lane.to_string(),
    }
}

/// The topics that must exist from the start.
pub(crate) fn topic_specs(config: &Config) -> impl Iterator<Item = TopicSpec> + '_ {
    config.topics.iter().map(|topic| TopicSpec {
        name: topic.name.to_string(),
        partitions: topic.partitions,
        lane: Some(topic.lane.to_string()),
        config: TopicConfig {
            retention_ms: topic.retention.ms,
            retention_bytes: topic.retention.bytes,
            max_message_bytes: config.kafka.max_batch_bytes,
            ..TopicConfig::default()
        },
    })
}

fn setup(lane: &Lane, protect_unsent: bool, decoded_cache_bytes: usize) -> LaneSetup {
    let log = LaneConfig {
        name: lane.name.to_string(),
        budget_bytes: lane.budget_bytes,
        segment_bytes: u32::try_from(lane.segment_bytes).unwrap_or(u32::MAX),
        when_full: match lane.when_full {
            WhenFull::Refuse => edge_log::WhenFull::Refuse,
            WhenFull::DropOldest => edge_log::WhenFull::DropOldest { unsent: true },
        },
        protect_unsent,
        durability: match lane.durability {
            Durability::Sync => edge_log::Durability::Sync,
            Durability::Interval { interval_ms } => {
                edge_log::Durability::Interval { ms: interval_ms }
            }
        },
        commit_window_us: u64::from(lane.commit_window_ms) * 1_000,
        sync_allowance_per_second: lane.sync_allowance.per_second,
        sync_burst: lane.sync_allowance.burst,
        compression: match lane.compression {
            Compression::None => GroupCompression::None,
            Compression::Zstd(level) => GroupCompression::Zstd { level: i32::from(level) },
        },
        decoded_cache_bytes,
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes: usize::try_from(lane.queue_bytes).unwrap_or(usize::MAX) }
}

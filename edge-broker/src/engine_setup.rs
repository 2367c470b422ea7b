//! From the configuration to what the engine wants to know.

use edge_config::{
    Compression, Config, Decay, Durability, FlashConfig, Lane, ReserveConfig, SYSTEM_LANE,
    Timestamps, TopicSettings, WhenFull,
};
use edge_engine::{
    EngineConfig, FlashSetup, Holding, LaneRetention, LaneSetup, ReserveSize, ScrubSetup,
    TimestampType, TopicConfig, TopicKey, TopicSpec,
};
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
            .map(|lane| for_metadata(setup(lane, false, uplink, 64 * 1024)))
            .expect("a configuration always has the system lane"),
        lanes: lanes
            .iter()
            // Who writes "refuse" without an uplink means it: nothing goes before somebody deletes it.
            .map(|lane| setup(lane, uplink || lane.when_full == WhenFull::Refuse, uplink, share))
            .collect(),
        default_lane: config.kafka.default_lane.to_string(),
        lane_retentions: config
            .lanes
            .iter()
            .map(|lane| {
                let kept = LaneRetention { ms: lane.retention.ms, bytes: lane.retention.bytes };
                (lane.name.to_string(), kept)
            })
            .collect(),
        flash: flash_setup(&config.flash),
    }
}

/// Topics and offsets can be written on a full disk: the lane has all its segments from the start, and may use up
/// what others leave free.
fn for_metadata(mut setup: LaneSetup) -> LaneSetup {
    setup.log.preallocate = true;
    setup.log.keep_free_bytes = 0;
    setup
}

/// Where the data directory is, the caller says.
fn flash_setup(flash: &FlashConfig) -> FlashSetup {
    FlashSetup {
        data_dir: None,
        wear_bytes_per_day: flash.wear_bytes_per_day,
        card_endurance_bytes: flash.card_endurance_bytes,
        scrub: (flash.scrub_bytes_per_s > 0).then_some(ScrubSetup {
            bytes_per_s: flash.scrub_bytes_per_s,
            every_s: flash.scrub_every_s,
            ..ScrubSetup::default()
        }),
        reserve: Some(match flash.reserve {
            ReserveConfig::Board(bytes) => ReserveSize::AtMost(bytes),
            ReserveConfig::Chosen(bytes) => ReserveSize::Exactly(bytes),
        }),
    }
}

/// The topics that must exist from the start.
pub(crate) fn topic_specs(config: &Config) -> impl Iterator<Item = TopicSpec> + '_ {
    config.topics.iter().map(|topic| TopicSpec {
        name: topic.name.to_string(),
        partitions: topic.partitions,
        lane: Some(topic.lane.to_string()),
        config: {
            let mut made = TopicConfig {
                max_message_bytes: config.kafka.max_batch_bytes,
                ..TopicConfig::default()
            };
            set_from_file(topic, &mut made);
            made
        },
    })
}

/// Makes the settings that the file names; what it does not name stays as it is.
pub(crate) fn set_from_file(topic: &TopicSettings, config: &mut TopicConfig) {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let named = [
        (TopicKey::RetentionMs, number(topic.retention.ms)),
        (TopicKey::RetentionBytes, number(topic.retention.bytes)),
        (TopicKey::CleanupPolicy, topic.cleanup.map(|cleanup| cleanup.as_str().to_owned())),
        (TopicKey::DeleteRetentionMs, number(topic.delete_retention_ms)),
        (TopicKey::MaxMessageBytes, number(topic.max_message_bytes.map(u64::from))),
        (TopicKey::TimestampType, topic.timestamps.map(|stamped| stamped_by(stamped).to_owned())),
        (TopicKey::TimestampBeforeMaxMs, number(topic.timestamp_before_max_ms)),
        (TopicKey::TimestampAfterMaxMs, number(topic.timestamp_after_max_ms)),
    ];
    for (key, value) in named {
        if let Some(Err(error)) = value.map(|value| key.set(config, &value)) {
            // Both sides agree on their ranges.
            tracing::error!(topic = &*topic.name, %error, "a setting of the file is left out");
        }
    }
}

fn stamped_by(timestamps: Timestamps) -> &'static str {
    match timestamps {
        Timestamps::Create => TimestampType::CreateTime.name(),
        Timestamps::Append => TimestampType::LogAppendTime.name(),
    }
}

fn setup(
    lane: &Lane,
    protect_unsent: bool,
    has_uplink: bool,
    decoded_cache_bytes: usize,
) -> LaneSetup {
    let log = LaneConfig {
        name: lane.name.to_string(),
        budget_bytes: lane.budget_bytes,
        segment_bytes: u32::try_from(lane.segment_bytes).unwrap_or(u32::MAX),
        when_full: match lane.when_full {
            WhenFull::Refuse => edge_log::WhenFull::Refuse,
            WhenFull::DropOldest => edge_log::WhenFull::DropOldest { unsent: lane.drop_unsent },
        },
        protect_unsent,
        retention_waits: has_uplink,
        decay: lane.decay.map(|decay| match decay {
            Decay::KeepEvery(records) => edge_log::Decay::KeepEvery { records },
            Decay::Aggregate(seconds) => edge_log::Decay::Aggregate { seconds },
        }),
        durability: match lane.durability {
            Durability::Sync => edge_log::Durability::Sync,
            Durability::Interval { interval_ms } => {
                edge_log::Durability::Interval { ms: interval_ms }
            }
        },
        commit_window_us: u64::from(lane.commit_window_ms) * 1_000,
        commit_window_max_us: u64::from(lane.commit_window_max_ms) * 1_000,
        sync_allowance_per_second: lane.sync_allowance.per_second,
        sync_burst: lane.sync_allowance.burst,
        compression: match lane.compression {
            Compression::None => GroupCompression::None,
            Compression::Zstd(level) => GroupCompression::Zstd { level: i32::from(level) },
        },
        decoded_cache_bytes,
        ..LaneConfig::default()
    };
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    LaneSetup {
        log,
        queue_bytes: bytes(lane.queue_bytes),
        holding: Holding {
            client_bytes_max: bytes(lane.inflight_bytes),
            total_bytes_max: bytes(lane.inflight_total_bytes),
            refuse_after: lane.refuse_after,
        },
    }
}

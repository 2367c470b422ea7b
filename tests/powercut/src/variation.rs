//! What is varied between runs of cycles: the kernel's cache, the lane's limits, the load's bytes.

use crate::fuse::Cache;

/// One way of running the gateway, on a disk of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variation {
    /// For the report.
    pub name: &'static str,
    /// How the file system is mounted.
    pub cache: Cache,
    /// `[lane.normal]`.
    pub lane: &'static str,
    /// Values that do not compress, in place of telemetry.
    pub incompressible: bool,
    /// The lane forgets the oldest when it is full.
    pub forgets: bool,
    /// A durable sector of a file whose path contains this rots at a part of the cuts.
    pub rots: Option<&'static str>,
}

const ROOMY: &str = "budget = \"96MiB\"\nsegment = \"2MiB\"\nwhen_full = \"refuse\"\n";
const SMALL_SEGMENTS: &str = "budget = \"96MiB\"\nsegment = \"128KiB\"\nwhen_full = \"refuse\"\n";
const PLAIN: &str =
    "budget = \"96MiB\"\nsegment = \"1MiB\"\nwhen_full = \"refuse\"\ncompression = \"none\"\n";
const LAPS: &str = "budget = \"4MiB\"\nsegment = \"256KiB\"\nwhen_full = \"drop-oldest\"\n";

const fn keeps(name: &'static str, cache: Cache, lane: &'static str) -> Variation {
    Variation { name, cache, lane, incompressible: false, forgets: false, rots: None }
}

/// Power cuts alone: nothing may be lost.
pub const CUTS: [Variation; 6] = [
    keeps("O_DIRECT", Cache::Direct, ROOMY),
    keeps("O_DIRECT, 128 KiB segments", Cache::Off, SMALL_SEGMENTS),
    keeps("buffered, write-through", Cache::WriteThrough, PLAIN),
    keeps("buffered, write-back", Cache::WriteBack, SMALL_SEGMENTS),
    Variation {
        incompressible: true,
        forgets: true,
        ..keeps("O_DIRECT, laps", Cache::Direct, LAPS)
    },
    Variation {
        incompressible: true,
        forgets: true,
        ..keeps("buffered, laps", Cache::WriteBack, LAPS)
    },
];

/// Power cuts, and rot in what was durable: what is lost must be named.
pub const ROT: [Variation; 3] = [
    Variation { rots: Some(""), ..keeps("rot, O_DIRECT", Cache::Direct, SMALL_SEGMENTS) },
    Variation { rots: Some(""), ..keeps("rot, buffered", Cache::WriteThrough, PLAIN) },
    Variation {
        rots: Some("lanes/system/"),
        ..keeps("rot of the gateway's own state", Cache::Direct, ROOMY)
    },
];

/// Acknowledges before the sync: what shows that a loss is found.
pub const CARELESS: Variation = keeps(
    "interval",
    Cache::Direct,
    "budget = \"96MiB\"\nsegment = \"2MiB\"\nwhen_full = \"refuse\"\ndurability = \"interval\"\n",
);

/// The most that a lane of a variation that forgets may be below its budget and still forget.
pub const FORGETS_ABOVE_PERCENT: u64 = 60;

/// Topics and their partitions, as [`Variation::config`] sets them up.
pub const TOPICS: [(&str, u32); 3] = [("telemetry", 6), ("alarm", 2), ("orders", 3)];
/// The topic that Kafka producers write to.
pub const ORDERS: usize = 2;

impl Variation {
    /// The gateway's config file.
    pub fn config(&self) -> String {
        format!(
            r##"gateway = "powercut"

[mqtt]
max_packet_bytes = "32KiB"

[kafka]
max_batch_bytes = "32KiB"

[[route]]
filter = "plant/#"
topic = "telemetry"
partitions = 6
lane = "normal"

[[route]]
filter = "alarm/#"
topic = "alarm"
partitions = 2
lane = "urgent"

[[route]]
filter = "orders/#"
topic = "orders"
partitions = 3
lane = "normal"

[lane.normal]
{}
[lane.urgent]
budget = "32MiB"
segment = "256KiB"
when_full = "refuse"
"##,
            self.lane
        )
    }
}

//! What `edge-broker status` shows, as data.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge_log::{
    BootClocks, ClockState, Gap, IoMode, JournalPosition, Lane, LaneStats, OpenError, Storage,
};
use edge_wire::{StreamId, TopicId};
use serde::{Deserialize, Serialize};

use crate::device::{Device, device_below, thread_write_bytes};
use crate::disk::{self, DiskStatus};
use crate::engine::Engine;
use crate::lane_handle::LaneHandle;
use crate::open::{lane_dir, replay};
use crate::scrubber::ScrubStatus;
use crate::state::State;
use crate::wear::{self, LongTerm, WearStatus, stored_status};

/// One look at a gateway.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Every partition.
    pub streams: Vec<StreamStatus>,
    /// By lane name.
    pub lanes: BTreeMap<String, LaneStatus>,
    /// Ranges of offsets that are lost, and why.
    pub gaps: Vec<GapStatus>,
    /// The uplink: `none` without one, else its state in a word.
    pub link: String,
    /// What the uplink tells beside its state.
    #[serde(default)]
    pub uplink: Option<UplinkCounters>,
    /// Counters of the MQTT listeners since the start, by name; of a stopped gateway nothing.
    #[serde(default)]
    pub mqtt: Option<BTreeMap<String, u64>>,
    /// Bytes written to the block device below the data directory since boot, by everybody.
    #[serde(default)]
    pub device_written_bytes: Option<u64>,
    /// That device, and the disk it is a part of.
    #[serde(default)]
    pub device: Option<Device>,
    /// Why the device is unknown.
    #[serde(default)]
    pub device_unknown: Option<String>,
    /// The file system of the data directory.
    #[serde(default)]
    pub disk: Option<DiskStatus>,
    /// What was written, how much that is in a day, and what it leaves of the card.
    #[serde(default)]
    pub wear: WearStatus,
    /// What the gateway thinks of its clock; of a stopped one nothing.
    #[serde(default)]
    pub clock: Option<ClockStatus>,
    /// Whether a running gateway answered.
    pub running: bool,
}

/// The gateway's clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClockStatus {
    /// `synced`: it was set; `unknown`: plausible, and nobody said anything; `unsynced`: it shows a time that cannot be,
    /// and records get the last good time and what has passed since.
    pub state: String,
    /// What records without a time of their own get now, milliseconds since 1970.
    pub now_ms: i64,
    /// What records were given so far in this boot is known to be off by up to this many milliseconds; Kafka clients
    /// and the uplink get it corrected.
    pub corrected_ms: i64,
}

/// One partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Topic name.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// Lane name.
    pub lane: String,
    /// First offset that can be read.
    pub log_start: u64,
    /// First offset that is not durable yet.
    pub durable_end: u64,
    /// First offset that is not upstream yet; `None` without an uplink.
    pub upstream_end: Option<u64>,
    /// The stream's id inside this gateway; not told.
    #[serde(skip)]
    pub stream: Option<StreamId>,
}

/// One lane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Bytes of values appended since the lane was made.
    pub payload_bytes: u64,
    /// Bytes written to the journal since the lane was made, padding included.
    pub journal_bytes: u64,
    /// The padding in it, since the program started.
    #[serde(default)]
    pub padding_bytes: u64,
    /// Bytes written beside the journal since the lane was made: zeroing of new segments, side indexes.
    #[serde(default)]
    pub other_bytes: u64,
    /// All writes since the program started, each rounded up to the 16 KiB pages it touches.
    #[serde(default)]
    pub page_bytes: u64,
    /// Bytes the lane's thread sent to the storage layer since it started, by the kernel's count.
    pub device_bytes: Option<u64>,
    /// Syncs since the lane was made.
    pub syncs: u64,
    /// Commit groups since the lane was made.
    pub groups: u64,
    /// Records appended since the lane was made.
    pub records: u64,
    /// Bytes that readers had read from segment files since the lane was opened.
    #[serde(default)]
    pub read_bytes: u64,
    /// Bytes that groups had when readers had unpacked them, since the lane was opened.
    #[serde(default)]
    pub decoded_bytes: u64,
    /// QoS 0 and acks=0 records the lane could not take.
    pub dropped_records: u64,
    /// Records copied forward out of segments that had to go, since the lane was made, each time counted.
    #[serde(default)]
    pub copied_records: u64,
    /// Bytes written to the journal for them.
    #[serde(default)]
    pub copied_bytes: u64,
    /// Records of compacted topics that cleaning left out, since the lane was made.
    #[serde(default)]
    pub compacted_records: u64,
    /// Records that decay thinned out, since the lane was made.
    #[serde(default)]
    pub thinned_records: u64,
    /// Segments recycled since the lane was made.
    #[serde(default)]
    pub segments_recycled: u64,
    /// Records that went before they were upstream, since the lane was made; see `gaps`.
    #[serde(default)]
    pub unsent_dropped_records: u64,
    /// Records lost to damage, since the lane was made; see `gaps`.
    #[serde(default)]
    pub lost_records: u64,
    /// Records given back to their senders because the lane stayed full.
    #[serde(default)]
    pub refused_records: u64,
    /// QoS 1 publishes that the lane holds unacknowledged because it is full; `None`: it is not.
    #[serde(default)]
    pub held: Option<HeldStatus>,
    /// Bytes of the ring in use.
    pub used_bytes: u64,
    /// Bytes the ring may use.
    pub budget_bytes: u64,
    /// The durable end of the journal; nothing before it is written any more but by recycling.
    #[serde(default)]
    pub journal_end: Option<JournalPosition>,
    /// Bytes that wait in front of the lane.
    pub queued_bytes: u64,
    /// `open`, `full`, `poisoned` or `closed`; `stopped` if no gateway runs.
    pub state: String,
    /// How the lane writes: `direct` or `buffered`.
    pub io: String,
    /// What is wrong, as a sentence.
    pub error: Option<String>,
    /// The lane was gone when the gateway started, as a sentence.
    #[serde(default)]
    pub lost: Option<String>,
    /// How commits are paced.
    #[serde(default)]
    pub pace: PaceStatus,
    /// What the scrub has done.
    #[serde(default)]
    pub scrub: ScrubStatus,
}

/// How a lane's commits are paced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceStatus {
    /// How long a record may wait for company, beyond the sync allowance.
    pub window_ms: u64,
    /// So many waiting bytes commit at once.
    pub commit_bytes: u64,
    /// What a write and sync took, smoothed.
    pub sync_us: u64,
    /// Doublings of window and bytes because the wear budget is spent.
    pub widened: u32,
    /// The wear budget is exceeded although nothing can be widened further.
    pub over_budget: bool,
    /// The lane's part of the wear budget at the moment.
    pub budget_bytes_per_day: Option<u64>,
}

/// What a full lane holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HeldStatus {
    /// QoS 1 publishes without their PUBACK.
    pub publishes: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Clients that have any.
    pub clients: u64,
    /// How long the lane has been full.
    pub since_ms: u64,
}

/// A range of offsets that is lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GapStatus {
    /// Topic name, empty if its definition is lost as well.
    pub topic: String,
    /// Partition number.
    pub partition: u32,
    /// First lost offset.
    pub from: u64,
    /// First offset after the hole.
    pub to: u64,
    /// Why.
    pub reason: String,
}

/// What the uplink counts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UplinkCounters {
    /// Records acknowledged by the upstream.
    pub records: u64,
    /// Bytes of record batches sent, as compressed for the wire.
    pub wire_bytes: u64,
    /// Records that may be upstream twice.
    pub possible_duplicates: u64,
    /// Records that the upstream will never take (too large).
    pub skipped: u64,
    /// Offsets that were gone from the log before they were sent; see `gaps`.
    #[serde(default)]
    pub lost: u64,
    /// What is wrong with the link, as a sentence.
    pub error: Option<String>,
}

impl Engine {
    fn clock_status(&self) -> ClockStatus {
        let now = self.clock().read();
        let boot = self.read().clocks().get(now.boot_id).copied();
        ClockStatus {
            state: match now.state {
                ClockState::Synced => "synced",
                ClockState::Unsynced => "unsynced",
                ClockState::Unknown => "unknown",
            }
            .to_owned(),
            now_ms: now.wall_us.div_euclid(1_000),
            corrected_ms: boot.map_or(0, |boot| boot.shift_ms_max),
        }
    }

    /// Everything the engine knows; `upstream_end` and `link` are filled in by who runs the uplink.
    #[must_use]
    pub fn status(&self, data_dir: &Path) -> Status {
        let mut status = Status { link: "none".to_owned(), running: true, ..Status::default() };
        let (wear, disk, device) = self.keeper.status();
        (status.wear, status.disk) = (wear, disk.or_else(|| disk::look(data_dir)));
        status.set_device(device.or_else(|_| device_below(data_dir)));
        status.clock = Some(self.clock_status());
        let topics = self.topics();
        for lane in self.lanes() {
            let reader = lane.reader();
            let mut entry = lane_status(&lane.stats(), lane.state().as_str());
            entry.pace.budget_bytes_per_day = lane.wear_budget();
            entry.scrub = lane.scrub().status();
            entry.device_bytes = thread_write_bytes(lane.thread_id());
            entry.journal_end = Some(reader.end());
            entry.dropped_records = lane.dropped_records();
            entry.refused_records = lane.refused_records();
            entry.held = lane.full_for().map(|full| held(lane, full));
            entry.queued_bytes = lane.queued_bytes() as u64;
            entry.error = lane.last_error();
            let lost = self.lanes_lost.iter().find(|lost| lost.lane == lane.name());
            entry.lost = lost.map(ToString::to_string);
            status.lanes.insert(lane.name().to_owned(), entry);
            let name_of = |stream: StreamId| {
                topics.iter().find_map(|topic| {
                    let at = topic.streams().iter().position(|known| *known == stream)?;
                    Some((topic.name().to_owned(), at))
                })
            };
            status
                .gaps
                .extend(reader.gaps().iter().map(|gap| gap_status(gap, name_of(gap.stream))));
        }
        for topic in &topics {
            let reader = self.lane_of(topic).reader();
            for (partition, stream) in (0..).zip(topic.streams()) {
                let bounds = reader.bounds(*stream);
                status.streams.push(StreamStatus {
                    topic: topic.name().to_owned(),
                    partition,
                    lane: topic.lane().to_owned(),
                    log_start: bounds.map_or(0, |bounds| bounds.log_start.0),
                    durable_end: bounds.map_or(0, |bounds| bounds.durable_end.0),
                    upstream_end: None,
                    stream: Some(*stream),
                });
            }
        }
        status
    }
}

impl Status {
    fn set_device(&mut self, found: Result<Device, String>) {
        self.device_written_bytes = found.as_ref().ok().map(|device| device.volume.written_bytes);
        (self.device, self.device_unknown) = match found {
            Ok(device) => (Some(device), None),
            Err(why) => (None, Some(why)),
        };
    }
}

/// The same from the files of a gateway that does not run. Changes nothing on disk.
///
/// # Errors
/// [`OpenError`] if the data directory holds no readable lane.
pub fn inspect(
    storage: &dyn Storage,
    data_dir: &Path,
) -> Result<(Status, StoredValues), OpenError> {
    let mut status = Status { link: "stopped".to_owned(), ..Status::default() };
    status.set_device(device_below(data_dir));
    status.disk = disk::look(data_dir);
    let mut names = storage.list("lanes").map_err(|source| OpenError::Io {
        operation: "listing",
        path: "lanes".to_owned(),
        source,
    })?;
    names.sort();
    let system = Lane::inspect(storage, &lane_dir("system"));
    let mut state = system.as_ref().map_or_else(|_| State::default(), |found| replay(found).0);
    status.wear = stored_status(&LongTerm::decode(state.value(wear::KEY)));
    for name in names {
        let recovery = Lane::inspect(storage, &lane_dir(&name))?;
        state.adopt_clocks(&recovery.boot_clocks);
        // A lane that was never written to has nothing to be clean about.
        let untouched = recovery.start == recovery.end;
        let is_clean = recovery.clean_shutdown || untouched;
        let state_word = if is_clean { "stopped" } else { "stopped uncleanly" };
        let stats = LaneStats { used_bytes: recovery.used_bytes, ..recovery.stats };
        let entry = lane_status(&stats, state_word);
        status.lanes.insert(name.clone(), entry);
        for stream in &recovery.streams {
            let definition = &stream.definition;
            if state.topic_by_id(definition.topic_id).is_none() && system.is_ok() {
                continue;
            }
            status.streams.push(StreamStatus {
                topic: definition.topic.clone(),
                partition: definition.partition.0,
                lane: name.clone(),
                log_start: stream.log_start.0,
                durable_end: stream.durable_end.0,
                upstream_end: None,
                stream: Some(definition.stream),
            });
        }
        for gap in &recovery.gaps {
            let known =
                recovery.streams.iter().find(|stream| stream.definition.stream == gap.stream);
            let named = known.map(|stream| {
                (stream.definition.topic.clone(), stream.definition.partition.0 as usize)
            });
            status.gaps.push(gap_status(gap, named));
        }
    }
    // Partitions that nothing was written to are known to the catalogue alone.
    for topic in state.topics() {
        for (partition, stream) in (0..).zip(topic.streams()) {
            if status.streams.iter().any(|known| known.stream == Some(*stream)) {
                continue;
            }
            status.streams.push(StreamStatus {
                topic: topic.name().to_owned(),
                partition,
                lane: topic.lane().to_owned(),
                log_start: 0,
                durable_end: 0,
                upstream_end: None,
                stream: Some(*stream),
            });
        }
    }
    status.streams.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok((status, StoredValues(state)))
}

/// What a stopped gateway has stored under keys ([`Engine::put_value`]).
pub struct StoredValues(State);

impl StoredValues {
    /// The value under a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.value(key)
    }

    /// When boots really began, as far as the gateway found out: what was stamped before is corrected by it.
    #[must_use]
    pub fn boot_clocks(&self) -> &BootClocks {
        self.0.clocks()
    }

    /// The id of a topic in the catalogue.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.0.topic(name).map(|topic| topic.id())
    }
}

fn held(lane: &LaneHandle, full: Duration) -> HeldStatus {
    let in_flight = lane.in_flight();
    HeldStatus {
        publishes: in_flight.publishes.load(Ordering::Relaxed),
        bytes: in_flight.bytes.load(Ordering::Relaxed),
        clients: in_flight.clients.load(Ordering::Relaxed),
        since_ms: u64::try_from(full.as_millis()).unwrap_or(u64::MAX),
    }
}

fn lane_status(stats: &LaneStats, state: &str) -> LaneStatus {
    LaneStatus {
        payload_bytes: stats.payload_bytes,
        journal_bytes: stats.journal_bytes,
        padding_bytes: stats.padding_bytes,
        other_bytes: stats.other_bytes,
        page_bytes: stats.page_bytes,
        device_bytes: None,
        syncs: stats.syncs,
        groups: stats.groups,
        read_bytes: stats.read_bytes,
        decoded_bytes: stats.decoded_bytes,
        records: stats.records,
        copied_records: stats.copied_records,
        copied_bytes: stats.copied_bytes,
        compacted_records: stats.compacted_records,
        thinned_records: stats.thinned_records,
        segments_recycled: stats.segments_recycled,
        unsent_dropped_records: stats.dropped_records,
        lost_records: stats.lost_records,
        dropped_records: 0,
        refused_records: 0,
        held: None,
        used_bytes: stats.used_bytes,
        budget_bytes: stats.budget_bytes,
        journal_end: None,
        queued_bytes: 0,
        state: state.to_owned(),
        io: match stats.io_mode {
            Some(IoMode::Direct { .. }) => "direct",
            Some(IoMode::Buffered { .. }) => "buffered",
            None => "",
        }
        .to_owned(),
        error: None,
        lost: None,
        pace: PaceStatus {
            window_ms: stats.pace.window_us / 1_000,
            commit_bytes: stats.pace.commit_bytes as u64,
            sync_us: stats.pace.latency_us,
            widened: stats.pace.widened,
            over_budget: stats.pace.over_budget,
            budget_bytes_per_day: None,
        },
        scrub: ScrubStatus::default(),
    }
}

fn gap_status(gap: &Gap, named: Option<(String, usize)>) -> GapStatus {
    let (topic, partition) = named.unwrap_or_default();
    GapStatus {
        topic,
        partition: u32::try_from(partition).unwrap_or(u32::MAX),
        from: gap.from.0,
        to: gap.to.0,
        reason: gap.reason.to_string(),
    }
}

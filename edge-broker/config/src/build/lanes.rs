//! `[lane.NAME]`: budgets and segments.
//!
//! A lane without a budget gets its share of the automatic total: the board's, and never more than a quarter of what
//! the disk could give. A segment that nobody chose is an eighth of the budget, a power of two.
//!
//! Where there is an uplink, `alarm` and `normal` refuse when they are full, and `bulk` drops its oldest, what is not
//! upstream yet included: it is the lane of what can be missed.

use std::sync::Arc;
use std::time::Duration;

use boards::Profile;
use boards::units::format_bytes;
use toml::Spanned;

use super::values::{Checked, number, one_of, retention_bytes, retention_ms, size, text};
use crate::error::{Fault, Origin};
use crate::names::validate_lane;
use crate::raw::{RawConfig, RawLane};
use crate::{
    Compression, Decay, Durability, Lane, Retention, SYSTEM_LANE, SyncAllowance, WhenFull,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Each lane is a thread and a journal.
const LANES_MAX: usize = 16;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * KIB..=GIB;
/// Frames start on a device sector, and none is larger than this.
const SEGMENT_ALIGNMENT_BYTES: u64 = 4 * KIB;
/// One that is written, one that is zeroed ahead, one that can be read.
const SEGMENTS_MIN: u64 = 3;
const AUTOMATIC_SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 512 * KIB..=16 * MIB;
/// The state checkpoint at the head of a segment of the system lane needs room.
const SYSTEM_SEGMENT_BYTES_MIN: u64 = MIB;
/// What a record needs in a segment beside its PUBLISH: headers, key, frame, and the segment's own header.
const RECORD_OVERHEAD_BYTES: u64 = 64 * KIB;
/// The automatic total never takes more than this part of the disk.
const DISK_PART: u64 = 4;
const BUDGET_BYTES_MAX: u64 = 1 << 44;

const DEFAULT_COMMIT_WINDOW_MS: u32 = 50;
const COMMIT_WINDOW_MS_MAX: u32 = 10_000;
const DEFAULT_COMMIT_WINDOW_MAX_MS: u32 = 1_000;
const DEFAULT_SYNCS_PER_SECOND: u32 = 20;
const DEFAULT_SYNC_BURST: u32 = 20;
const SYNCS_MAX: u32 = 10_000;
const DEFAULT_INTERVAL_MS: u32 = 1_000;
const INTERVAL_MS_MAX: u32 = 60_000;

const REFUSE_AFTER_MS: std::ops::RangeInclusive<u64> = 1_000..=7 * 24 * 3_600_000;
/// What all clients together may have waiting, all lanes together, where nobody says otherwise; in in-flight limits of
/// one client, so that it follows the board.
const INFLIGHT_TOTAL_CLIENTS: u64 = 32;
const INFLIGHT_BYTES: std::ops::RangeInclusive<u64> = 16 * KIB..=256 * MIB;
const INFLIGHT_TOTAL_BYTES: std::ops::RangeInclusive<u64> = 16 * KIB..=4 * GIB;

/// What lanes depend on beside their own keys.
pub(super) struct Surroundings<'a> {
    pub(super) board: &'a Profile,
    pub(super) available_bytes: Option<u64>,
    pub(super) has_uplink: bool,
    pub(super) max_packet_bytes: u32,
}

pub(super) fn lanes(
    raw: &RawConfig,
    surroundings: &Surroundings<'_>,
    warnings: &mut Vec<Fault>,
) -> Checked<Vec<Lane>> {
    let share = &surroundings.board.flash.share;
    let mut plans = vec![
        Plan::standard(SYSTEM_LANE, share.system),
        Plan::standard("alarm", share.alarm),
        Plan::standard("normal", share.normal),
        Plan::standard("bulk", share.bulk),
    ];
    let mut written: Vec<_> = raw.lane.iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, lane) in written {
        match plans.iter_mut().find(|plan| plan.name == name.get_ref()) {
            Some(plan) => plan.raw = Some(lane),
            None => {
                validate_lane(name.get_ref()).map_err(|error| Fault::at(name, error))?;
                if plans.len() == LANES_MAX {
                    return Err(Fault::at(
                        name,
                        format!("there are {LANES_MAX} lanes already, the limit; merge some"),
                    ));
                }
                plans.push(Plan { name: name.get_ref(), weight: share.bulk, raw: Some(lane) });
            }
        }
    }
    let shares = shares(&plans, surroundings);
    let nothing_written = RawLane::default();
    let mut lanes = Vec::with_capacity(plans.len());
    for (plan, share_bytes) in plans.iter().zip(shares) {
        let raw = plan.raw.map_or(&nothing_written, |raw| raw.get_ref());
        lanes.push(lane(plan.name, raw, share_bytes, surroundings, warnings)?);
    }
    warn_if_larger_than_the_disk(raw, &lanes, surroundings, warnings);
    Ok(lanes)
}

struct Plan<'a> {
    name: &'a str,
    weight: u8,
    raw: Option<&'a Spanned<RawLane>>,
}

impl Plan<'_> {
    fn standard(name: &'static str, weight: u8) -> Self {
        Self { name, weight, raw: None }
    }
}

/// What each lane gets if it has no budget of its own. On a small disk the largest lane gives what the others need
/// for their three segments.
fn shares(plans: &[Plan<'_>], surroundings: &Surroundings<'_>) -> Vec<u64> {
    let weights = plans.iter().map(|plan| u64::from(plan.weight)).sum::<u64>().max(1);
    let total = automatic_total(surroundings);
    let mut shares: Vec<u64> =
        plans.iter().map(|plan| total * u64::from(plan.weight) / weights).collect();
    let has_budget = |plan: &Plan<'_>| plan.raw.is_some_and(|raw| raw.get_ref().budget.is_some());
    let mut missing = 0;
    for (plan, share) in plans.iter().zip(&mut shares) {
        let needed =
            SEGMENTS_MIN * automatic_segment(*share, least_segment(plan.name, surroundings));
        if !has_budget(plan) && *share < needed {
            missing += needed - *share;
            *share = needed;
        }
    }
    if let Some(largest) = shares.iter_mut().max() {
        *largest = largest.saturating_sub(missing);
    }
    shares
}

fn automatic_total(surroundings: &Surroundings<'_>) -> u64 {
    let most = surroundings.board.flash.lanes_total.0;
    surroundings.available_bytes.map_or(most, |available| most.min(available / DISK_PART))
}

fn lane(
    name: &str,
    raw: &RawLane,
    share_bytes: u64,
    surroundings: &Surroundings<'_>,
    warnings: &mut Vec<Fault>,
) -> Checked<Lane> {
    let (budget_bytes, segment_bytes) = budget_and_segment(name, raw, share_bytes, surroundings)?;
    let when_full = text(&raw.when_full, WhenFull::parse)?;
    if let (Some(WhenFull::Refuse), Some(written), false) =
        (when_full, &raw.when_full, surroundings.has_uplink)
    {
        warnings.push(Fault::at(
            written,
            "without an [uplink] only retention frees this lane; once it is full publishers wait",
        ));
    }
    let board = surroundings.board;
    let when_full = when_full.unwrap_or_else(|| default_when_full(name, surroundings.has_uplink));
    let (inflight_bytes, inflight_total_bytes) = inflight(name, raw, surroundings)?;
    Ok(Lane {
        name: Arc::from(name),
        budget_bytes,
        segment_bytes,
        when_full,
        drop_unsent: drop_unsent(name, raw, when_full, surroundings, warnings)?,
        decay: decay(raw, when_full)?,
        refuse_after: refuse_after(name, raw, when_full, warnings)?,
        inflight_bytes,
        inflight_total_bytes,
        retention: retention(name, raw)?,
        durability: durability(raw)?,
        commit_window_ms: number(&raw.commit_window_ms, 0..=COMMIT_WINDOW_MS_MAX)?
            .unwrap_or(DEFAULT_COMMIT_WINDOW_MS),
        commit_window_max_ms: number(&raw.commit_window_max_ms, 1..=COMMIT_WINDOW_MS_MAX)?
            .unwrap_or(DEFAULT_COMMIT_WINDOW_MAX_MS),
        sync_allowance: SyncAllowance {
            per_second: number(&raw.syncs_per_second, 1..=SYNCS_MAX)?
                .unwrap_or(DEFAULT_SYNCS_PER_SECOND),
            burst: number(&raw.sync_burst, 1..=SYNCS_MAX)?.unwrap_or(DEFAULT_SYNC_BURST),
        },
        compression: text(&raw.compression, Compression::parse)?
            .unwrap_or(Compression::Zstd(board.compression.lane_zstd_level)),
        queue_bytes: size(&raw.queue_bytes, 64 * KIB..=256 * MIB)?
            .unwrap_or(board.memory.lane_queue.0),
    })
}

/// Where nothing is sent upstream the log is a ring, as Kafka's retention by bytes; where it is, nothing that has not
/// arrived may be overwritten, except in the lane that exists for what can be missed.
fn default_when_full(name: &str, has_uplink: bool) -> WhenFull {
    match name {
        SYSTEM_LANE => WhenFull::Refuse,
        "bulk" => WhenFull::DropOldest,
        _ if has_uplink => WhenFull::Refuse,
        _ => WhenFull::DropOldest,
    }
}

/// Whether a full lane gives up what is not upstream. Only `bulk` does so without being asked.
fn drop_unsent(
    name: &str,
    raw: &RawLane,
    when_full: WhenFull,
    surroundings: &Surroundings<'_>,
    warnings: &mut Vec<Fault>,
) -> Checked<bool> {
    let by_default = name == "bulk" && surroundings.has_uplink;
    let Some(written) = &raw.drop_unsent else {
        return Ok(by_default && when_full == WhenFull::DropOldest);
    };
    let wanted = *written.get_ref();
    if wanted && when_full == WhenFull::Refuse {
        let what = "only means something with when_full = \"drop-oldest\"; remove it or set that";
        return Err(Fault::at(written, what));
    }
    if wanted && !surroundings.has_uplink {
        warnings.push(Fault::at(
            written,
            "without an [uplink] nothing is unsent: drop-oldest gives up the oldest anyway",
        ));
    }
    Ok(wanted)
}

fn decay(raw: &RawLane, when_full: WhenFull) -> Checked<Option<Decay>> {
    let decay = text(&raw.decay, Decay::parse)?;
    match &raw.decay {
        Some(written) if when_full == WhenFull::Refuse => Err(Fault::at(
            written,
            "only means something with when_full = \"drop-oldest\"; remove it or set that",
        )),
        _ => Ok(decay),
    }
}

fn refuse_after(
    name: &str,
    raw: &RawLane,
    when_full: WhenFull,
    warnings: &mut Vec<Fault>,
) -> Checked<Option<Duration>> {
    let Some(written) = &raw.refuse_after else { return Ok(None) };
    let ms = written.get_ref().0;
    if !REFUSE_AFTER_MS.contains(&ms) {
        return Err(Fault::at(written, "must be from 1s to 7d; leave it out to wait for room"));
    }
    if name == SYSTEM_LANE {
        return Err(Fault::at(written, "no client publishes to this lane; remove it"));
    }
    if when_full == WhenFull::DropOldest && raw.drop_unsent.as_ref().is_some_and(|d| *d.get_ref()) {
        warnings.push(Fault::at(
            written,
            "a lane that drops what is unsent is full only with its disk",
        ));
    }
    Ok(Some(Duration::from_millis(ms)))
}

/// What may wait unacknowledged: of one client, and of all together.
fn inflight(name: &str, raw: &RawLane, surroundings: &Surroundings<'_>) -> Checked<(u64, u64)> {
    let of_board = surroundings.board.memory.mqtt_in_flight.0;
    let client = size(&raw.inflight_bytes, INFLIGHT_BYTES)?;
    let total = size(&raw.inflight_total_bytes, INFLIGHT_TOTAL_BYTES)?;
    // alarm, normal and bulk share it; the lane of telemetry has half.
    let part = if name == "normal" { 2 } else { 4 };
    let of_one = client.unwrap_or(of_board);
    let of_all = total.unwrap_or((of_board * INFLIGHT_TOTAL_CLIENTS / part).max(of_one));
    match (&raw.inflight_bytes, &raw.inflight_total_bytes) {
        (_, Some(written)) if of_all < of_one => Err(Fault::at(
            written,
            format!("must be at least inflight_bytes, {}", format_bytes(of_one)),
        )),
        _ => Ok((of_one, of_all)),
    }
}

fn retention(name: &str, raw: &RawLane) -> Checked<Retention> {
    let ms = retention_ms(&raw.retention, &raw.retention_ms)?;
    let bytes = retention_bytes(&raw.retention_bytes)?;
    if name == SYSTEM_LANE
        && let Some(written) = ms.as_ref().or(bytes.as_ref())
    {
        return Err(Fault::at(written, "this lane keeps what it needs; remove it"));
    }
    Ok(Retention { ms: ms.map(|ms| *ms.get_ref()), bytes: bytes.map(|bytes| *bytes.get_ref()) })
}

fn durability(raw: &RawLane) -> Checked<Durability> {
    let interval_ms = number(&raw.interval_ms, 1..=INTERVAL_MS_MAX)?;
    let is_interval =
        one_of(&raw.durability, &[("sync", false), ("interval", true)])?.unwrap_or(false);
    match (is_interval, &raw.interval_ms) {
        (true, _) => {
            Ok(Durability::Interval { interval_ms: interval_ms.unwrap_or(DEFAULT_INTERVAL_MS) })
        }
        (false, None) => Ok(Durability::Sync),
        (false, Some(written)) => Err(Fault::at(
            written,
            "only means something with durability = \"interval\"; remove it or set that",
        )),
    }
}

fn budget_and_segment(
    name: &str,
    raw: &RawLane,
    share_bytes: u64,
    surroundings: &Surroundings<'_>,
) -> Checked<(u64, u64)> {
    let budget = size(&raw.budget, SEGMENTS_MIN * SEGMENT_BYTES.start()..=BUDGET_BYTES_MAX)?;
    let segment = size(&raw.segment, SEGMENT_BYTES)?;
    let least = least_segment(name, surroundings);
    if let (Some(bytes), Some(written)) = (segment, &raw.segment) {
        if !bytes.is_multiple_of(SEGMENT_ALIGNMENT_BYTES) {
            return Err(Fault::at(written, "must be a multiple of 4KiB"));
        }
        if bytes < least {
            return Err(Fault::at(written, too_small(name, least, surroundings)));
        }
    }
    match (budget, segment) {
        (Some(budget), Some(segment)) => {
            check_segments_fit(raw, budget, segment)?;
            Ok((budget, segment))
        }
        (Some(budget), None) => {
            let third = budget / SEGMENTS_MIN / SEGMENT_ALIGNMENT_BYTES * SEGMENT_ALIGNMENT_BYTES;
            let segment = automatic_segment(budget, least).min(third);
            if segment < least {
                let written = raw.budget.as_ref().map(|budget| Origin::File(budget.span()));
                let origin =
                    written.unwrap_or_else(|| Origin::Default(format!("lane.{name}.budget")));
                let what = format!(
                    "three segments do not fit: one {}",
                    too_small(name, least, surroundings)
                );
                return Err(Fault::new(origin, what));
            }
            Ok((budget, segment))
        }
        (None, Some(segment)) => Ok((rounded(share_bytes).max(SEGMENTS_MIN * segment), segment)),
        (None, None) => {
            let segment = automatic_segment(share_bytes, least);
            Ok((rounded(share_bytes).max(SEGMENTS_MIN * segment), segment))
        }
    }
}

fn check_segments_fit(raw: &RawLane, budget: u64, segment: u64) -> Checked<()> {
    if budget >= SEGMENTS_MIN * segment {
        return Ok(());
    }
    let what = format!(
        "must be at least three segments, {} of {}; raise budget or lower segment",
        format_bytes(SEGMENTS_MIN * segment),
        format_bytes(segment),
    );
    let origin = match &raw.budget {
        Some(budget) => Origin::File(budget.span()),
        None => Origin::Default("budget".to_owned()),
    };
    Err(Fault::new(origin, what))
}

/// A record has to fit into a segment.
fn least_segment(name: &str, surroundings: &Surroundings<'_>) -> u64 {
    if name == SYSTEM_LANE {
        SYSTEM_SEGMENT_BYTES_MIN
    } else {
        u64::from(surroundings.max_packet_bytes) + RECORD_OVERHEAD_BYTES
    }
}

fn too_small(name: &str, least: u64, surroundings: &Surroundings<'_>) -> String {
    if name == SYSTEM_LANE {
        return format!("cannot hold the broker's state; make it {} or more", format_bytes(least));
    }
    format!(
        "cannot hold the largest MQTT packet ({}); make it {} or more, or lower mqtt.max_packet_bytes",
        format_bytes(u64::from(surroundings.max_packet_bytes)),
        format_bytes(least.next_multiple_of(64 * KIB)),
    )
}

fn automatic_segment(budget: u64, least: u64) -> u64 {
    let eighth = (budget / 8).max(1);
    let power_of_two = 1 << eighth.ilog2();
    power_of_two
        .clamp(*AUTOMATIC_SEGMENT_BYTES.start(), *AUTOMATIC_SEGMENT_BYTES.end())
        .max(least.next_power_of_two())
}

/// Automatic budgets are rounded down so that they read well.
fn rounded(bytes: u64) -> u64 {
    let step = if bytes >= 16 * MIB { MIB } else { 64 * KIB };
    bytes / step * step
}

fn warn_if_larger_than_the_disk(
    raw: &RawConfig,
    lanes: &[Lane],
    surroundings: &Surroundings<'_>,
    warnings: &mut Vec<Fault>,
) {
    let sum: u64 = lanes.iter().map(|lane| lane.budget_bytes).sum();
    let Some(available) = surroundings.available_bytes.filter(|available| sum > *available) else {
        return;
    };
    let what = format!(
        "all lanes together may take {}, but the disk has {} for them",
        boards::units::human_bytes(sum),
        boards::units::human_bytes(available)
    );
    let largest = raw
        .lane
        .values()
        .filter_map(|lane| lane.get_ref().budget.as_ref())
        .max_by_key(|budget| budget.get_ref().0);
    let origin = match largest {
        Some(budget) => Origin::File(budget.span()),
        None => Origin::Default("lane".to_owned()),
    };
    warnings.push(Fault::new(origin, what));
}

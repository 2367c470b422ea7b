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

use super::findings::Findings;
use super::values::{Checked, number, one_of, retention_bytes, retention_ms, size, text};
use crate::error::{Fault, Origin};
use crate::names::validate_lane;
use crate::raw::{RawConfig, RawLane, Size};
use crate::{
    Compression, Decay, Durability, Lane, Retention, SYSTEM_LANE, SyncAllowance, WhenFull,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Each lane is a thread and a journal.
const LANES_MAX: usize = 16;
const SEGMENT_BYTES_MAX: u64 = GIB;
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
    findings: &mut Findings,
) -> Vec<Lane> {
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
                let valid = validate_lane(name.get_ref());
                findings.check(valid.map_err(|error| Fault::at(name, error)));
                if plans.len() == LANES_MAX {
                    let what =
                        format!("there are {LANES_MAX} lanes already, the limit; merge some");
                    findings.fault(Fault::at(name, what));
                }
                // Taken even so: what names it is not wrong as well.
                plans.push(Plan { name: name.get_ref(), weight: share.bulk, raw: Some(lane) });
            }
        }
    }
    let shares = shares(&plans, surroundings);
    let nothing_written = RawLane::default();
    let mut lanes = Vec::with_capacity(plans.len());
    for (plan, share_bytes) in plans.iter().zip(shares) {
        let raw = plan.raw.map_or(&nothing_written, |raw| raw.get_ref());
        lanes.push(lane(plan.name, raw, share_bytes, surroundings, findings));
    }
    warn_if_larger_than_the_disk(raw, &lanes, surroundings, findings);
    lanes
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
    findings: &mut Findings,
) -> Lane {
    let (budget_bytes, segment_bytes) =
        budget_and_segment(name, raw, share_bytes, surroundings, findings);
    let faults = findings.faults.len();
    let when_full = findings.take(text(&raw.when_full, WhenFull::parse));
    // What depends on it is looked at only where it is known.
    let is_known = findings.faults.len() == faults;
    if let (Some(WhenFull::Refuse), Some(written), false) =
        (when_full, &raw.when_full, surroundings.has_uplink)
    {
        findings.warn(Fault::at(
            written,
            "without an [uplink] only retention frees this lane; once it is full publishers wait",
        ));
    }
    let board = surroundings.board;
    let when_full = when_full.unwrap_or_else(|| default_when_full(name, surroundings.has_uplink));
    let (inflight_bytes, inflight_total_bytes) = inflight(name, raw, surroundings, findings);
    let (drop_unsent, decay) = if is_known {
        (drop_unsent(name, raw, when_full, surroundings, findings), decay(raw, when_full, findings))
    } else {
        (false, findings.take(text(&raw.decay, Decay::parse)))
    };
    let drops_all = when_full == WhenFull::DropOldest && (drop_unsent || !surroundings.has_uplink);
    Lane {
        name: Arc::from(name),
        budget_bytes,
        segment_bytes,
        when_full,
        drop_unsent,
        decay,
        refuse_after: refuse_after(name, raw, drops_all && is_known, findings),
        inflight_bytes,
        inflight_total_bytes,
        retention: retention(name, raw, findings),
        durability: durability(raw, findings),
        commit_window_ms: findings
            .take(number(&raw.commit_window_ms, 0..=COMMIT_WINDOW_MS_MAX))
            .unwrap_or(DEFAULT_COMMIT_WINDOW_MS),
        commit_window_max_ms: findings
            .take(number(&raw.commit_window_max_ms, 1..=COMMIT_WINDOW_MS_MAX))
            .unwrap_or(DEFAULT_COMMIT_WINDOW_MAX_MS),
        sync_allowance: SyncAllowance {
            per_second: findings
                .take(number(&raw.syncs_per_second, 1..=SYNCS_MAX))
                .unwrap_or(DEFAULT_SYNCS_PER_SECOND),
            burst: findings
                .take(number(&raw.sync_burst, 1..=SYNCS_MAX))
                .unwrap_or(DEFAULT_SYNC_BURST),
        },
        compression: findings
            .take(text(&raw.compression, Compression::parse))
            .unwrap_or(Compression::Zstd(board.compression.lane_zstd_level)),
        queue_bytes: findings
            .take(size(&raw.queue_bytes, 64 * KIB..=256 * MIB))
            .unwrap_or(board.memory.lane_queue.0),
    }
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
    findings: &mut Findings,
) -> bool {
    let by_default = name == "bulk" && surroundings.has_uplink;
    let Some(written) = &raw.drop_unsent else {
        return by_default && when_full == WhenFull::DropOldest;
    };
    let wanted = *written.get_ref();
    if wanted && when_full == WhenFull::Refuse {
        let what = "only means something with when_full = \"drop-oldest\"; remove it or set that";
        findings.fault(Fault::at(written, what));
        return false;
    }
    if wanted && !surroundings.has_uplink {
        findings.warn(Fault::at(
            written,
            "without an [uplink] nothing is unsent: drop-oldest gives up the oldest anyway",
        ));
    }
    wanted
}

fn decay(raw: &RawLane, when_full: WhenFull, findings: &mut Findings) -> Option<Decay> {
    let decay = findings.take(text(&raw.decay, Decay::parse))?;
    match &raw.decay {
        Some(written) if when_full == WhenFull::Refuse => {
            findings.fault(Fault::at(
                written,
                "only means something with when_full = \"drop-oldest\"; remove it or set that",
            ));
            None
        }
        _ => Some(decay),
    }
}

fn refuse_after(
    name: &str,
    raw: &RawLane,
    drops_all: bool,
    findings: &mut Findings,
) -> Option<Duration> {
    let written = raw.refuse_after.as_ref()?;
    let ms = written.get_ref().0;
    if name == SYSTEM_LANE {
        findings.fault(Fault::at(written, "no client publishes to this lane; remove it"));
    } else if !REFUSE_AFTER_MS.contains(&ms) {
        let what = "must be from 1s to 7d; leave it out to wait for room";
        findings.fault(Fault::at(written, what));
    } else if drops_all {
        findings.warn(Fault::at(
            written,
            "only means something when the disk is full: at the end of its budget this lane drops its oldest records \
             and refuses none",
        ));
    }
    Some(Duration::from_millis(ms))
}

/// What may wait unacknowledged: of one client, and of all together.
fn inflight(
    name: &str,
    raw: &RawLane,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> (u64, u64) {
    let of_board = surroundings.board.memory.mqtt_in_flight.0;
    let client = findings.take(size(&raw.inflight_bytes, INFLIGHT_BYTES));
    let total = findings.take(size(&raw.inflight_total_bytes, INFLIGHT_TOTAL_BYTES));
    // alarm, normal and bulk share it; the lane of telemetry has half.
    let part = if name == "normal" { 2 } else { 4 };
    let of_one = client.unwrap_or(of_board);
    let of_all = total.unwrap_or((of_board * INFLIGHT_TOTAL_CLIENTS / part).max(of_one));
    if let (Some(written), true) = (&raw.inflight_total_bytes, of_all < of_one) {
        let what = format!("must be at least inflight_bytes, {}", format_bytes(of_one));
        findings.fault(Fault::at(written, what));
    }
    (of_one, of_all)
}

fn retention(name: &str, raw: &RawLane, findings: &mut Findings) -> Retention {
    let ms = findings.take(retention_ms(&raw.retention, &raw.retention_ms));
    let bytes = findings.take(retention_bytes(&raw.retention_bytes));
    if name == SYSTEM_LANE
        && let Some(written) = ms.as_ref().or(bytes.as_ref())
    {
        findings.fault(Fault::at(written, "this lane keeps what it needs; remove it"));
    }
    Retention { ms: ms.map(|ms| *ms.get_ref()), bytes: bytes.map(|bytes| *bytes.get_ref()) }
}

fn durability(raw: &RawLane, findings: &mut Findings) -> Durability {
    let interval_ms = findings.take(number(&raw.interval_ms, 1..=INTERVAL_MS_MAX));
    let is_interval = one_of(&raw.durability, &[("sync", false), ("interval", true)]);
    if let (Ok(Some(false) | None), Some(written)) = (&is_interval, &raw.interval_ms) {
        findings.fault(Fault::at(
            written,
            "only means something with durability = \"interval\"; remove it or set that",
        ));
    }
    match findings.take(is_interval) {
        Some(true) => {
            Durability::Interval { interval_ms: interval_ms.unwrap_or(DEFAULT_INTERVAL_MS) }
        }
        _ => Durability::Sync,
    }
}

fn budget_and_segment(
    name: &str,
    raw: &RawLane,
    share_bytes: u64,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> (u64, u64) {
    let least = least_segment(name, surroundings);
    let budget = findings.take(at_most(&raw.budget, BUDGET_BYTES_MAX));
    let segment = findings.take(at_most(&raw.segment, SEGMENT_BYTES_MAX)).filter(|bytes| {
        let Some(written) = &raw.segment else { return true };
        let what = if *bytes < least {
            let shown = format_bytes(rounded_segment(name, least));
            format!("must be at least {shown}: it {}", has_to_hold(name, surroundings))
        } else if !bytes.is_multiple_of(SEGMENT_ALIGNMENT_BYTES) {
            "must be a multiple of 4KiB".to_owned()
        } else {
            return true;
        };
        findings.fault(Fault::at(written, what));
        false
    });
    match (budget, segment) {
        (Some(budget), Some(segment)) => {
            findings.check(check_segments_fit(raw, budget, segment));
            (budget, segment)
        }
        (Some(budget), None) => {
            let third = budget / SEGMENTS_MIN / SEGMENT_ALIGNMENT_BYTES * SEGMENT_ALIGNMENT_BYTES;
            let segment = automatic_segment(budget, least).min(third);
            if let (Some(written), true) = (&raw.budget, segment < least) {
                let one = rounded_segment(name, least);
                let what = format!(
                    "must be at least {}, three segments of {}: each {}",
                    format_bytes(SEGMENTS_MIN * one),
                    format_bytes(one),
                    has_to_hold(name, surroundings)
                );
                findings.fault(Fault::at(written, what));
            }
            (budget, segment)
        }
        (None, Some(segment)) => (rounded(share_bytes).max(SEGMENTS_MIN * segment), segment),
        (None, None) => {
            let segment = automatic_segment(share_bytes, least);
            (rounded(share_bytes).max(SEGMENTS_MIN * segment), segment)
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

/// A size that is too small is told by who knows why.
fn at_most(raw: &Size, most: u64) -> Checked<Option<u64>> {
    match raw {
        Some(written) if written.get_ref().0 > most => {
            Err(Fault::at(written, format!("must be at most {}", format_bytes(most))))
        }
        _ => Ok(raw.as_ref().map(|written| written.get_ref().0)),
    }
}

/// Why a segment cannot be smaller, and the remedy.
fn has_to_hold(name: &str, surroundings: &Surroundings<'_>) -> String {
    if name == SYSTEM_LANE {
        return "has to hold the broker's state; raise it, or leave it out".to_owned();
    }
    format!(
        "has to hold the largest MQTT packet ({}); raise it, or lower mqtt.max_packet_bytes",
        format_bytes(u64::from(surroundings.max_packet_bytes)),
    )
}

/// The least segment as a number that people write.
fn rounded_segment(name: &str, least: u64) -> u64 {
    if name == SYSTEM_LANE { least } else { least.next_multiple_of(64 * KIB) }
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
    findings: &mut Findings,
) {
    let sum: u64 = lanes.iter().map(|lane| lane.budget_bytes).sum();
    let Some(available) = surroundings.available_bytes.filter(|available| sum > *available) else {
        return;
    };
    let what = format!(
        "all lanes together may take {}, but the disk has {} for them; lower budgets",
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
    findings.warn(Fault::new(origin, what));
}

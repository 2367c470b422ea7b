//! What must be true of a lane that was opened after whatever happened.

use std::ops::ControlFlow;
use std::sync::Arc;

use edge_log::{Gap, GapReason, LaneReader, Recovery};
use edge_wire::StreamId;

use crate::model::{Mark, Values};
use crate::rig::{Rig, events};

/// What may have happened to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurt {
    /// Power cuts only: what was acknowledged is there.
    Power,
    /// Damage too: what is not there is named, except what cannot be told from a group that was never written, the
    /// last one that was acknowledged.
    Damage,
    /// Damage of which the caller knows what it hit: who is missing without a name is told, not judged.
    Rot,
}

/// One stream as it was found.
#[derive(Clone, Debug)]
pub struct FoundStream {
    /// Its id.
    pub stream: u32,
    /// First offset that can be read.
    pub log_start: u64,
    /// The next offset to be given out.
    pub end: u64,
    /// What can be read.
    pub records: Vec<(u64, Arc<[u8]>)>,
}

/// A lane as it was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// All streams.
    pub streams: Vec<FoundStream>,
    /// Acknowledged records that are missing and named.
    pub named: u64,
    /// Acknowledged records that are missing and not named.
    pub untold: u64,
    /// Records that were acknowledged and are missing, and whether they are named.
    pub missing: Vec<(u32, u64, bool)>,
}

/// All records of a stream.
///
/// # Errors
/// Reading fails, or stops before the durable end.
pub fn read_all(reader: &LaneReader, stream: u32) -> Result<FoundStream, String> {
    let id = StreamId(stream);
    let Some(bounds) = reader.bounds(id) else {
        return Ok(FoundStream { stream, log_start: 0, end: 0, records: Vec::new() });
    };
    let (log_start, end) = (bounds.log_start.0, bounds.durable_end.0);
    let mut records: Vec<(u64, Arc<[u8]>)> = Vec::new();
    let mut failed = None;
    let read = reader.read_batches(id, bounds.log_start, &mut |batch| {
        let read = batch.for_each_record(&mut |record| {
            if record.offset.0 >= log_start {
                records.push((record.offset.0, record.value.unwrap_or_default().into()));
            }
        });
        if let Err(error) = read {
            failed = Some(format!("a batch of stream {stream}: {error}"));
        }
        ControlFlow::Continue(())
    });
    let next = read.map_err(|error| format!("reading stream {stream}: {error:?}"))?.next.0;
    match failed {
        Some(failed) => Err(failed),
        None if next != end => Err(format!("stream {stream}: reading ends at {next}, not {end}")),
        None => Ok(FoundStream { stream, log_start, end, records }),
    }
}

/// Whether a gap names the offset.
#[must_use]
pub fn is_named(gaps: &[Gap], stream: u32, offset: u64) -> bool {
    gaps.iter().any(|gap| gap.stream.0 == stream && (gap.from.0..gap.to.0).contains(&offset))
}

/// Checks a lane that was just opened.
///
/// # Errors
/// Says what is not as it must be.
pub fn verify(rig: &Rig, mark: &Mark, values: &Values, hurt: Hurt) -> Result<Found, String> {
    let reader = rig.reader();
    let gaps = reader.gaps();
    let mut found = Found::default();
    for (index, promised) in mark.streams.iter().enumerate() {
        let stream = index as u32;
        let there = read_all(&reader, stream)?;
        let known = values.get(index).map_or(&[][..], Vec::as_slice);
        let mut before = None;
        for (offset, value) in &there.records {
            if before >= Some(*offset) {
                return Err(format!("stream {stream}: {offset} is there twice or out of order"));
            }
            before = Some(*offset);
            if *offset >= promised.attempted {
                return Err(format!("stream {stream}: {offset} was never written"));
            }
            if known.get(*offset as usize) != Some(value) {
                return Err(format!("stream {stream}: {offset} has another value"));
            }
        }
        if promised.removed {
            found.streams.push(there);
            continue;
        }
        let (log_start, end) = (there.log_start, there.end);
        let least_end = match hurt {
            Hurt::Power => promised.acknowledged,
            Hurt::Damage => promised.acknowledged_before,
            Hurt::Rot => 0,
        };
        let lost_start =
            log_start > promised.log_start && promised.acknowledged > promised.log_start;
        if lost_start && hurt == Hurt::Power {
            let most = promised.log_start;
            return Err(format!("stream {stream}: log start {log_start} is beyond {most}"));
        }
        if end < least_end {
            return Err(format!("stream {stream}: {end}.. could be given out twice"));
        }
        // What was dropped before it was sent is told.
        if mark.drops && hurt == Hurt::Power {
            for offset in promised.sent..log_start.min(promised.acknowledged) {
                if !is_named(&gaps, stream, offset) {
                    return Err(format!(
                        "stream {stream}: {offset} was dropped and nobody says so: {gaps:?}, log start \
                         {log_start}, {:?}..",
                        rig.recovery.start
                    ));
                }
            }
        }
        let mut next = there.records.iter().peekable();
        // Behind what was attempted the next offset may have jumped far.
        for offset in log_start..end.min(promised.attempted.max(promised.acknowledged) + 1) {
            if next.peek().is_some_and(|(at, _)| *at == offset) {
                if hurt != Hurt::Power && is_named(&gaps, stream, offset) {
                    return Err(format!("stream {stream}: {offset} is there and a gap"));
                }
                next.next();
                continue;
            }
            let reason = gaps
                .iter()
                .find(|gap| gap.stream.0 == stream && (gap.from.0..gap.to.0).contains(&offset));
            let reason = reason.map(|gap| gap.reason);
            if offset >= promised.acknowledged {
                if reason.is_none() {
                    return Err(format!("stream {stream}: {offset} is skipped and not named"));
                }
                continue;
            }
            if mark.optional.contains(&(stream, offset)) {
                continue;
            }
            // The segment was being given up.
            if hurt != Hurt::Power && offset < promised.log_start {
                continue;
            }
            let fine = match (hurt, reason) {
                (_, Some(reason)) if reason.is_policy() => mark.drops,
                (Hurt::Power, _) => false,
                (Hurt::Damage | Hurt::Rot, Some(_)) => true,
                (Hurt::Rot, None) => {
                    found.untold += 1;
                    true
                }
                (Hurt::Damage, None) => {
                    found.untold += 1;
                    offset >= promised.acknowledged_before
                }
            };
            if !fine {
                let start = promised.log_start;
                return Err(format!(
                    "stream {stream}: acknowledged {offset} is lost ({reason:?}, log start {start})"
                ));
            }
            found.named += u64::from(reason.is_some());
            found.missing.push((stream, offset, reason.is_some()));
        }
        if hurt != Hurt::Power {
            for offset in end.max(log_start)..promised.acknowledged {
                found.untold += 1;
                found.missing.push((stream, offset, false));
            }
        }
        found.streams.push(there);
    }
    let events = events(&rig.recovery)?.1;
    let least = if hurt == Hurt::Power { mark.events_acknowledged } else { 0 };
    if !(least..=mark.events_attempted).contains(&events) {
        return Err(format!("{events} events, not {least}..={}", mark.events_attempted));
    }
    let told = |gap: &Gap| gap.reason == GapReason::SuspectTail || gap.reason.is_policy();
    if hurt == Hurt::Power && !gaps.iter().all(told) {
        return Err(format!("a power cut is taken for rot: {gaps:?}"));
    }
    Ok(found)
}

/// Checks that everything is still there that was found before, and some records more.
///
/// # Errors
/// Says what is not.
pub fn verify_again(
    rig: &Rig,
    found: &Found,
    more: &[(u32, u64, Arc<[u8]>)],
) -> Result<(), String> {
    let reader = rig.reader();
    for before in &found.streams {
        if reader.bounds(StreamId(before.stream)).is_none() {
            continue;
        }
        let stream = before.stream;
        let now = read_all(&reader, stream)?;
        if now.end < before.end {
            return Err(format!("stream {stream}: {}.. could be given out twice", now.end));
        }
        let more = more.iter().filter(|(of, ..)| *of == stream);
        let wanted = before.records.iter().map(|(offset, value)| (*offset, value));
        let wanted = wanted.chain(more.map(|(_, offset, value)| (*offset, value)));
        let mut there = now.records.iter().peekable();
        for (offset, value) in wanted.filter(|(offset, _)| *offset >= now.log_start) {
            while there.peek().is_some_and(|(at, _)| *at < offset) {
                there.next();
            }
            let missing = there.peek().is_none_or(|(at, found)| *at != offset || found != value);
            // Without the head of the oldest segment it is not known how much was given up before it.
            let rotten = |gap: &Gap| {
                let covers = gap.stream.0 == stream && (gap.from.0..gap.to.0).contains(&offset);
                covers && gap.reason == GapReason::Rot
            };
            if missing && !reader.gaps().iter().any(rotten) {
                let gaps: Vec<_> =
                    reader.gaps().into_iter().filter(|g| g.stream.0 == stream).collect();
                return Err(format!(
                    "stream {stream}: {offset} was served and is lost: {gaps:?}, log start {}, {:?}, {:?}",
                    now.log_start, rig.recovery.torn_tail, rig.recovery.suspect_tail
                ));
            }
        }
        if !now.records.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(format!("stream {stream} is out of order"));
        }
    }
    Ok(())
}

/// Ranges of the gaps, without when they were found.
#[must_use]
pub fn ranges(gaps: &[Gap]) -> Vec<(StreamId, u64, u64, GapReason)> {
    gaps.iter().map(|gap| (gap.stream, gap.from.0, gap.to.0, gap.reason)).collect()
}

/// Whether two recoveries of one disk say the same.
///
/// # Errors
/// Says where they differ.
pub fn same(one: &Recovery, other: &Recovery) -> Result<(), String> {
    if one.streams != other.streams || one.end != other.end || one.start != other.start {
        return Err(format!("recovery twice differs: {one:?} and {other:?}"));
    }
    if one.events != other.events || ranges(&one.gaps) != ranges(&other.gaps) {
        return Err(format!("recovery twice differs in gaps or events: {one:?} and {other:?}"));
    }
    Ok(())
}

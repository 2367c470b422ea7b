//! A whole lane, or one segment of it.

use edge_wire::StreamId;

use super::ranges::Ranges;
use super::replay::{Draft, Reading, Replay, empty};
use super::report::{Damage, DamageKind, LOST_MAX, LaneReport, Lost};
use super::sides::check_side;
use super::slots::{SegmentSeen, SlotUseless, Survey, survey, survey_file};
use super::streams::Streams;
use super::{InspectError, Live, Observer, VerifyOptions};
use crate::journal::frame::HeaderAt;
use crate::journal::scan::header_at;
use crate::lane::{Lane, OpenError};
use crate::position::JournalPosition;
use crate::storage::{OpenMode, Storage};

/// So many of the newest segments may have a side index that a power cut tore; the next start looks after them.
const SIDES_UNSETTLED: usize = 3;

/// Looks at every byte of a lane. `dir` is below the storage's root, as for [`Lane::open`].
///
/// # Errors
/// [`InspectError`]: it cannot be read, or a newer program wrote it.
pub fn verify_lane(
    storage: &dyn Storage,
    dir: &str,
    options: &VerifyOptions,
    observer: &mut dyn Observer,
) -> Result<LaneReport, InspectError> {
    let mut survey = survey(storage, dir)?;
    let mut replay = Replay::new(options.live.is_some(), survey.bytes, observer);
    replay.report.lane = dir.rsplit('/').next().unwrap_or(dir).to_owned();
    let told_start = told_start(storage, &survey, &mut replay)?;
    judge_slots(&mut replay, &mut survey, told_start);
    let freed: Vec<u64> = survey
        .useless
        .iter()
        .filter_map(|(_, _, useless)| match useless {
            SlotUseless::Free(sequence) => Some(*sequence),
            _ => None,
        })
        .collect();
    let mut before: Option<&SegmentSeen> = None;
    let segments = &survey.segments;
    for (index, segment) in segments.iter().enumerate() {
        let sequence = segment.id.sequence;
        let expected = before.map_or(told_start, |before| before.id.sequence + 1);
        let until = sequence.min(segment.previous_segment + 1);
        let missed: Vec<u64> =
            (expected.max(1)..until).filter(|lost| !freed.contains(lost)).take(1 << 16).collect();
        if told_start > 0 && !missed.is_empty() {
            if options.live.is_some() {
                replay.skip();
            } else {
                missing(&mut replay, dir, &missed);
            }
        }
        if before.is_none() {
            let byte = segment.id.first_frame();
            replay.report.start = JournalPosition { segment: sequence, byte };
            replay.report.end = replay.report.start;
        }
        let next = segments.get(index + 1).filter(|next| next.previous_segment == sequence);
        let end = options.live.and_then(|live: Live| live.end);
        if end.is_some_and(|end| end.segment < sequence) {
            break;
        }
        let reading = Reading {
            until: next.and_then(|next| next.previous_end),
            newest: index + 1 == segments.len(),
            limit: end.filter(|end| end.segment == sequence).map(|end| end.byte),
        };
        let opened = storage.open(&segment.path, OpenMode::Read);
        let file = opened.map_err(|source| io("open", &segment.path, source))?;
        replay.segment(&*file, segment, &reading)?;
        if !reading.newest && options.live.is_none() && survey.sides.contains(&segment.slot) {
            // A power cut can tear those written last: they are written without a sync.
            let may_be_torn = index + 1 + SIDES_UNSETTLED >= segments.len();
            check_side(storage, &*file, dir, segment, may_be_torn, &mut replay)?;
        }
        before = Some(segment);
    }
    if options.live.is_none() && !has_newer(&replay) {
        compare_with_recovery(storage, dir, &mut replay)?;
    }
    Ok(settle(replay, options))
}

/// Looks at one segment file, wherever it is: what it needs to be understood is in it.
///
/// # Errors
/// [`InspectError`]: it cannot be read, is no segment, or a newer program wrote it.
pub fn verify_segment(
    storage: &dyn Storage,
    path: &str,
    options: &VerifyOptions,
    observer: &mut dyn Observer,
) -> Result<LaneReport, InspectError> {
    let mut survey = survey_file(storage, path)?;
    let Some(segment) = survey.segments.pop() else {
        return match survey.useless.pop() {
            Some((path, _, SlotUseless::Free(sequence))) => {
                let mut report = LaneReport::default();
                report.note(&path, format!("the slot is free; it held segment {sequence}"));
                Ok(report)
            }
            _ => Err(InspectError::NotASegment { path: path.to_owned() }),
        };
    };
    let mut replay = Replay::new(false, survey.bytes, observer);
    let byte = segment.id.first_frame();
    replay.report.start = JournalPosition { segment: segment.id.sequence, byte };
    replay.report.end = replay.report.start;
    header_and_length(&mut replay, &segment);
    let opened = storage.open(path, OpenMode::Read);
    let file = opened.map_err(|source| io("open", path, source))?;
    replay.segment(&*file, &segment, &Reading { until: None, newest: true, limit: None })?;
    Ok(settle(replay, options))
}

fn io(operation: &'static str, path: &str, source: std::io::Error) -> InspectError {
    InspectError::Io { operation, path: path.to_owned(), source }
}

/// Where the journal starts, as the last frame tells it.
fn told_start(
    storage: &dyn Storage,
    survey: &Survey,
    replay: &mut Replay<'_>,
) -> Result<u64, InspectError> {
    for newest in survey.segments.iter().rev() {
        let failed = |source| io("read", &newest.path, source);
        let file = storage.open(&newest.path, OpenMode::Read).map_err(failed)?;
        replay.window.forget();
        let (mut byte, mut told) = (newest.id.first_frame(), 0);
        while byte < newest.id.segment_bytes {
            match header_at(&mut replay.window, &*file, &newest.id, byte).map_err(failed)? {
                HeaderAt::Frame(header) => {
                    told = header.journal_start.max(told);
                    byte = header.end().byte;
                }
                // A damaged place: what is behind it counts as well.
                _ => byte += newest.id.sector_bytes,
            }
        }
        if told > 0 {
            return Ok(told);
        }
    }
    Ok(0)
}

/// Slots that are not what they should be. Leaves the segments that the journal needs.
fn judge_slots(replay: &mut Replay<'_>, survey: &mut Survey, told_start: u64) {
    for (path, _, useless) in &survey.useless {
        let (kind, what) = match useless {
            SlotUseless::Free(_) | SlotUseless::Blank => continue,
            SlotUseless::Garbage => {
                (DamageKind::SegmentHeader, "neither a header nor any frame is in it".to_owned())
            }
            SlotUseless::Foreign => {
                (DamageKind::ForeignSegment, "its header is of another lane".to_owned())
            }
            SlotUseless::Unreadable(error) => (DamageKind::Unreadable, error.clone()),
        };
        let mut damage = Damage { file: path.clone(), what, ..empty(kind) };
        if matches!(useless, SlotUseless::Garbage) {
            "nothing is in it: edge-broker repair moves it aside".clone_into(&mut damage.remedy);
        }
        replay.draft(plain(damage, JournalPosition::START));
    }
    for path in &survey.unfinished {
        replay.report.note(path, "an unfinished segment: worthless, the next start removes it");
    }
    for path in &survey.unknown {
        replay.report.note(path, "not a file of the gateway");
    }
    let mut kept: Vec<SegmentSeen> = Vec::new();
    for segment in std::mem::take(&mut survey.segments) {
        let sequence = segment.id.sequence;
        if sequence < told_start {
            replay.report.note(&segment.path, format!("segment {sequence}, given up already"));
            continue;
        }
        header_and_length(replay, &segment);
        match kept.last() {
            Some(last) if last.id.sequence == sequence => {
                let what = format!("segment {sequence} is in {} as well", last.path);
                let damage = Damage {
                    file: segment.path,
                    segment: sequence,
                    what,
                    ..empty(DamageKind::DoubleSegment)
                };
                replay.draft(plain(damage, JournalPosition { segment: sequence, byte: 0 }));
            }
            _ => kept.push(segment),
        }
    }
    survey.segments = kept;
}

fn header_and_length(replay: &mut Replay<'_>, segment: &SegmentSeen) {
    let sequence = segment.id.sequence;
    let position = JournalPosition { segment: sequence, byte: 0 };
    let (kind, what) = match &segment.header {
        None => {
            let what = format!("the header is damaged; its frames are those of segment {sequence}");
            (DamageKind::SegmentHeader, what)
        }
        Some(header) if u64::from(header.segment_bytes) != segment.length => {
            let (told, length) = (header.segment_bytes, segment.length);
            (DamageKind::Length, format!("the file has {length} bytes, its header says {told}"))
        }
        Some(_) => return,
    };
    let file = segment.path.clone();
    let bytes = if segment.header.is_none() { u64::from(segment.id.sector_bytes) } else { 0 };
    let damage = Damage { file, segment: sequence, bytes, what, ..empty(kind) };
    replay.draft(plain(damage, position));
}

/// Damage that costs no offsets by itself.
fn plain(damage: Damage, position: JournalPosition) -> Draft {
    Draft { damage, position, held: Vec::new(), held_more: 0, judged: false, superseded: false }
}

fn missing(replay: &mut Replay<'_>, dir: &str, missed: &[u64]) {
    let (Some(first), Some(last)) = (missed.first(), missed.last()) else { return };
    let what = if first == last {
        format!("segment {first} is in no slot")
    } else {
        format!("{} of the segments {first} to {last} are in no slot", missed.len())
    };
    let damage = Damage {
        file: dir.to_owned(),
        segment: *first,
        what,
        blind: true,
        ..empty(DamageKind::MissingSegment)
    };
    replay.draft(plain(damage, JournalPosition { segment: *first, byte: 0 }));
    replay.gap_in_sequence();
}

fn has_newer(replay: &Replay<'_>) -> bool {
    replay.report.notes.iter().any(|note| note.what.contains("which a newer program wrote"))
}

/// Recovery reads from the newest checkpoint on; where nothing is damaged it comes to the same end.
fn compare_with_recovery(
    storage: &dyn Storage,
    dir: &str,
    replay: &mut Replay<'_>,
) -> Result<(), InspectError> {
    let recovery = Lane::inspect(storage, dir).map_err(|error| match error {
        OpenError::Io { operation, path, source } => InspectError::Io { operation, path, source },
        OpenError::NewerFormat { path, found, supported } => {
            InspectError::NewerFormat { path, found, supported }
        }
    })?;
    if recovery.torn_tail.is_some() {
        replay.report.torn_tail = recovery.torn_tail.map(|torn| torn.at);
    }
    if !replay.drafts.is_empty() || replay.drafts_omitted > 0 || recovery.suspect_tail.is_some() {
        return Ok(());
    }
    for found in &recovery.streams {
        let (stream, end) = (found.definition.stream, found.durable_end.0);
        let seen = replay.streams.seen.get(&stream).map_or(0, |seen| seen.next);
        if seen != end {
            let what =
                format!("stream {stream} ends at {end} by recovery, at {seen} by the frames");
            let file = dir.to_owned();
            let damage = Damage { file, what, ..empty(DamageKind::Recovery) };
            replay.draft(plain(damage, recovery.end));
        }
    }
    Ok(())
}

/// The parts of a range that no damaged place is known to have held.
fn not_held(drafts: &[Draft], stream: StreamId, from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut held = Ranges::default();
    for (of, held_from, held_to) in drafts.iter().flat_map(|draft| &draft.held) {
        if *of == stream {
            held.insert((*held_from).max(from), (*held_to).min(to));
        }
    }
    held.missing(from, to)
}

/// Nothing is left of what a place held to say so. What an earlier start told of it as gaps says so.
fn name_by_gaps(damage: &mut Damage, position: JournalPosition, streams: &Streams) {
    let mut reason = None;
    for gap in streams.told_of(position, damage.bytes) {
        reason.get_or_insert(gap.reason);
        if damage.lost.len() < LOST_MAX {
            damage.lost.push(streams.name(gap.stream, gap.from.0, gap.to.0));
        } else {
            damage.lost_more += 1;
        }
    }
    if let Some(reason) = reason {
        damage.what.push_str(&format!("; told as a gap: {reason}"));
    }
}

/// Everything was read: what each damaged place cost, and whether that is known.
fn settle(replay: Replay<'_>, options: &VerifyOptions) -> LaneReport {
    let Replay { mut report, streams, mut drafts, drafts_omitted, window, .. } = replay;
    report.read_bytes = window.read_bytes;
    drafts.sort_by_key(|draft| draft.position);
    let mut holes = Vec::new();
    // Offsets that were left out belong to the damage before them of which nothing else is known.
    let mut untold_holes = streams.jumps_omitted;
    for jump in &streams.jumps {
        for (from, to) in streams.lost(jump.stream, jump.from, jump.to) {
            untold_holes += u64::from(!streams.untold(jump.stream, from, to).is_empty());
            for (from, to) in not_held(&drafts, jump.stream, from, to) {
                let blind = drafts
                    .iter_mut()
                    .rev()
                    .find(|draft| draft.damage.blind && draft.position < jump.at && !draft.judged);
                match blind {
                    Some(draft) => draft.hold(jump.stream, from, to),
                    None if !streams.untold(jump.stream, from, to).is_empty() => {
                        holes.push((jump.stream, from, to, jump.at));
                    }
                    None => {}
                }
            }
        }
    }
    for mut draft in drafts {
        let damage = &mut draft.damage;
        let (mut lost, mut untold) = (Vec::new(), draft.held_more > 0 && untold_holes > 0);
        for (stream, from, to) in &draft.held {
            for (from, to) in streams.lost(*stream, *from, *to) {
                untold |= !streams.untold(*stream, from, to).is_empty();
                lost.push(streams.name(*stream, from, to));
            }
        }
        let dealt_with = options.dealt_with.contains(&(damage.segment, damage.byte));
        let cost = !lost.is_empty() || draft.held_more > 0;
        damage.known = !untold
            && (draft.judged
                || dealt_with && !(damage.blind && untold_holes > 0)
                || cost && draft.superseded && !damage.blind);
        damage.lost = lost;
        damage.lost_more = draft.held_more;
        if damage.lost.is_empty() && damage.blind && damage.segment > 0 {
            name_by_gaps(damage, draft.position, &streams);
        }
        report.add(draft.damage);
    }
    for (stream, from, to, at) in holes {
        let lost: Vec<Lost> = vec![streams.name(stream, from, to)];
        report.add(Damage {
            byte: u64::from(at.byte),
            segment: at.segment,
            what: "offsets are missing before this place and no gap tells of them".to_owned(),
            lost,
            ..empty(DamageKind::Hole)
        });
    }
    report.damage_omitted += drafts_omitted;
    streams.report(&mut report);
    report
}

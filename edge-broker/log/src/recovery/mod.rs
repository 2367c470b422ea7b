//! What is on the disk after whatever happened, and what follows from it. Reads only.
//!
//! What is found, and what is done:
//!
//! - **No slot, or none that was used**: a new lane.
//! - **A slot whose header is free, or of a segment older than the journal start that the last frame tells**: free.
//!   Where the group that tells what was lost with it is missing too, that is found out as for a missing segment.
//! - **A slot with a damaged or blank header**: its frames say which segment it is. One that the journal still
//!   needs goes on being read; any other is free.
//! - **A slot that was cut off before its first frame**: free; unless a segment is known to be missing it may have held the
//!   newest one; as below.
//! - **A newest segment with a side index**: it was sealed, so there was a newer one. That one is lost; as below.
//! - **A newest segment with a header but no intact frame**: the roll was torn. Nothing in it was acknowledged: free.
//! - **A segment missing between others**: what it held is a gap, named by the heads of its neighbours.
//! - **An intact head checkpoint in the newest segment**: the state starts there. Else the newest segment that has
//!   one is the start, and all frames from there on are read; if none has, all frames there are.
//! - **An intact frame**: its group happened. It proves all frames before it.
//! - **No header of ours where the next frame should be, and none behind it, nor a trailer**: the end. A write that was
//!   torn there is cut off silently; it was not acknowledged.
//! - **A damaged frame with an intact one behind it**: rot. What is lost is named by its own directory, else by the
//!   copy in the next frame. If both are gone, every stream that might have been in it jumps past as many offsets
//!   as a group can cover, and that range is a gap.
//! - **A damaged frame at the end, its header intact or plainly once ours, or its trailer there**: a suspect tail. It may have been torn,
//!   or acknowledged and rotten: its offsets are not given out again and are a gap; it is not overwritten.
//! - **A damaged frame before one whose proven end is not behind it**: an earlier recovery judged it and told so.
//! - **A last frame that says clean shutdown**: nothing is open.
//! - **A piece of a file that cannot be read**: like zeros; but at the end of the newest segment it is suspect.
//! - **A slot that cannot be opened or read at all**: not used again. If it may hold the newest segment, every stream
//!   jumps past as many offsets as it can hold, and the segment sequence past it. The next checkpoint names the slot:
//!   that is done once.
//!
//! - **Several slots that cannot be read, and not one intact frame in the others**: the device is at fault, not a file. That
//!   is an error, to be tried again: a lane that begins anew knows neither its offsets nor its segments.
//! - **No intact checkpoint in any segment, and the oldest is not the first ever**: streams that are not in what is left
//!   begin behind all offsets that the segments before can have held.
//!
//! Never done: an offset given out twice; a frame believed whose checksum fails; anything deleted; a start refused
//! because of damage. Recovery writes nothing: a crash during it changes nothing. The caller syncs the tail it
//! adopted before anything is acknowledged or served, and tells new gaps in the first group.

pub(crate) mod find;
mod replay;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use edge_wire::{Offset, ProducerTable, StreamId};

use crate::clock::{BootClocks, ClockReading};
use crate::copies::CopyTable;
use crate::gap::{Gap, GapList, GapReason};
use crate::holes::{heads, walk};
use crate::journal::format::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{Window, frame, header_at, resync};
use crate::journal::unpack::{Unpacker, is_intact};
use crate::lane::OpenError;
use crate::position::JournalPosition;
use crate::recovered::{SuspectTail, TornTail};
use crate::stats::LaneStats;
use crate::storage::{IoMode, Storage};
use crate::stream::StreamDefinition;
use crate::stream_index::TailIndex;
use crate::stream_index::rebuild::load_slot;
use find::{Files, Found, FoundSegment, Freed, find};
use replay::Replay;

/// A stream as found.
#[derive(Clone, Debug)]
pub(crate) struct FoundStream {
    /// Absent if it is lost with the group that had it.
    pub(crate) definition: Option<StreamDefinition>,
    pub(crate) next: Offset,
    pub(crate) log_start: Offset,
    pub(crate) producers: Option<Box<ProducerTable>>,
    pub(crate) tail: TailIndex,
    /// Below it only copies are read.
    pub(crate) home: Offset,
    /// The log start does not follow the ring.
    pub(crate) keeps_start: bool,
    /// How many offsets had been lost blindly when `next` was last known for sure.
    blind_at: u64,
}

/// All that is known of a lane.
pub(crate) struct State {
    /// Live segments, the oldest first.
    pub(crate) segments: Vec<Arc<FoundSegment>>,
    /// Slots that hold nothing live.
    pub(crate) free: Vec<u32>,
    /// Slots that are not to be used, if it can be helped.
    pub(crate) bad_slots: Vec<u32>,
    /// All slots and their lengths.
    pub(crate) slots: Vec<(u32, u64)>,
    pub(crate) streams: BTreeMap<StreamId, FoundStream>,
    pub(crate) copies: CopyTable,
    /// Copies that cannot be read; who still has the original has lost nothing.
    lost_copies: Vec<Gap>,
    pub(crate) stats: LaneStats,
    pub(crate) upstream: JournalPosition,
    /// Gaps that the journal tells.
    pub(crate) gaps: GapList,
    /// Gaps that it does not tell yet.
    pub(crate) new_gaps: Vec<Gap>,
    pub(crate) owner: Option<Vec<u8>>,
    pub(crate) events: Vec<(u16, Vec<u8>)>,
    /// Groups behind the checkpoint that cannot be read.
    pub(crate) lost_groups: u64,
    pub(crate) clean_shutdown: bool,
    pub(crate) torn_tail: Option<TornTail>,
    pub(crate) suspect_tail: Option<SuspectTail>,
    pub(crate) log_id: Option<[u8; 16]>,
    pub(crate) io_mode: Option<IoMode>,
    pub(crate) scanned_bytes: u64,
    /// End of the last intact frame.
    pub(crate) proven_end: JournalPosition,
    /// Where the next frame goes, in the newest segment.
    pub(crate) write_at: u32,
    pub(crate) next_group: u64,
    pub(crate) previous_directory: Vec<u8>,
    /// The journal start that the last intact frame tells.
    pub(crate) told_start: u64,
    /// Offsets that a stream unknown here may have lost.
    pub(crate) blind: u64,
    /// The newest segment takes no more frames: what stands at or behind its end is not known.
    pub(crate) tail_closed: bool,
    /// The next segment has at least this sequence.
    pub(crate) sequence_min: u64,
    /// Bytes that could not be read.
    pub(crate) unreadable_bytes: u64,
    /// What the headers of segments and frames tell of boots whose clock was set.
    pub(crate) boot_clocks: BootClocks,
    /// The clock of the last intact frame.
    pub(crate) last_clock: Option<ClockReading>,
}

/// Recovers a lane from its directory. `write`: open the files for writing too.
pub(crate) fn recover(
    storage: &dyn Storage,
    dir: &str,
    write: bool,
    wall_us: i64,
) -> Result<State, OpenError> {
    let mut window = Window::forgiving();
    let unpacker = Unpacker::default();
    let files = Files { storage, dir, write };
    let Found {
        mut segments,
        mut free,
        mut freed,
        broken,
        unknown,
        slots,
        log_id,
        io_mode,
        clocks,
    } = find(&files, &mut window)?;
    let io = |segment: &FoundSegment, source| files.error(segment, source);
    // A roll that was torn: a header and not one intact frame behind it.
    let mut torn_roll = None;
    let newest_seen = segments.iter().map(|segment| segment.id.sequence);
    let newest_seen = newest_seen.chain(freed.iter().map(|freed| freed.sequence)).max();
    let (mut unreadable, mut proven) = (0, 0);
    while let Some(newest) = segments.last() {
        let unreadable_bytes = window.unreadable_bytes;
        let used = newest.has_frames(&files, &mut window).map_err(|error| io(newest, error))?;
        if used {
            break;
        }
        let length = slots.iter().find(|(slot, _)| *slot == newest.slot).map_or(0, |slot| slot.1);
        let is_whole = length >= u64::from(newest.id.segment_bytes);
        if window.unreadable_bytes > unreadable_bytes || !is_whole {
            // It may have been full of frames.
            tracing::error!(slot = newest.slot, "nothing of the newest segment can be read");
            unreadable += 1;
            segments.pop();
            continue;
        }
        // Who knows its end was written behind it.
        proven = proven.max(newest.previous.map_or(0, |previous| previous.segment));
        // A slot that was free may be the one that was written over.
        if let Some(start) = newest.gave_up {
            let live = segments.iter().map(|segment| segment.id.sequence).min().unwrap_or(0);
            let from = start.saturating_sub(slots.len() as u64).max(1);
            for sequence in from..start.min(live) {
                if !freed.iter().any(|freed| freed.sequence == sequence) {
                    freed.push(Freed { sequence, told_by: 0 });
                }
            }
        }
        let position = JournalPosition { segment: newest.id.sequence, byte: 0 };
        torn_roll = Some(TornTail { at: position });
        if let Some(newest) = segments.pop() {
            free.push(newest.slot);
        }
    }
    // A roll that failed, and another slot took the segment: who stands behind it was not written behind it.
    let mut index = 0;
    while index + 1 < segments.len() {
        let segment = Arc::clone(&segments[index]);
        let skips = |previous: JournalPosition| previous.segment < segment.id.sequence;
        let unreadable_bytes = window.unreadable_bytes;
        if segments[index + 1].previous.is_some_and(skips)
            && !segment.has_frames(&files, &mut window).map_err(|error| io(&segment, error))?
            && window.unreadable_bytes == unreadable_bytes
        {
            segments.remove(index);
            free.push(segment.slot);
        } else {
            index += 1;
        }
    }
    let mut replay = Replay::new(&unpacker, wall_us);
    clocks.values().for_each(|clock| replay.note_clock(clock));
    let mut first = segments.len();
    while first > 0 {
        first -= 1;
        let segment = &segments[first];
        window.forget();
        let found = files
            .open(segment)
            .and_then(|file| heads(&mut window, &*file, &segment.id, &unpacker))
            .map_err(|error| io(segment, error))?;
        if let Some(checkpoint) = found {
            replay.start(checkpoint);
            break;
        }
    }
    for pair in segments[..(first + 1).min(segments.len())].windows(2) {
        let (segment, next) = (&pair[0], &pair[1]);
        let told = next.previous.filter(|previous| previous.segment == segment.id.sequence);
        let end = match told {
            Some(end) => end.byte.min(segment.id.segment_bytes),
            None => frames_end(&files, &mut window, segment).map_err(|error| io(segment, error))?,
        };
        segment.set_end(end);
    }
    if replay.is_blank()
        && let Some(oldest) = segments.first()
    {
        // No checkpoint at all: what only segments before these had is not known by name even.
        replay.lose_segments(oldest.id.sequence - 1, oldest.id.segment_bytes);
    }
    let mut refused = broken.len() as u64 + unreadable;
    let last = segments.len().saturating_sub(1);
    for index in first..segments.len() {
        let unreadable_bytes = window.unreadable_bytes;
        let segment = &segments[index];
        let told = segments.get(index + 1).and_then(|next| next.previous);
        let told = told.filter(|previous| previous.segment == segment.id.sequence);
        let until = told.map(|previous| previous.byte);
        let between = index.checked_sub(1).filter(|_| index > first).map_or(0, |before| {
            let proven = segment.previous.map_or(0, |previous| previous.segment);
            proven.saturating_sub(segments[before].id.sequence)
        });
        window.forget();
        if between > 0 {
            let head = files
                .open(segment)
                .and_then(|file| heads(&mut window, &*file, &segment.id, &unpacker))
                .map_err(|error| io(segment, error))?;
            if head.is_none() {
                replay.lose_segments(between, segment.id.segment_bytes);
            }
            window.forget();
        }
        files
            .open(segment)
            .and_then(|file| replay.segment(&mut window, &*file, segment, until, index == last))
            .map_err(|error| io(segment, error))?;
        refused += u64::from(window.unreadable_bytes > unreadable_bytes);
    }
    if refused > 1 && replay.is_blank() {
        // Not a file but the device. As a new lane it would give out offsets and numbers of segments again.
        let source = io::Error::other("nothing can be read from any segment");
        return Err(OpenError::Io { operation: "read", path: dir.to_owned(), source });
    }
    // Segments are given up in order: one before a free one was given up too, though its own header could not be
    // written.
    let told = freed.iter().filter(|freed| freed.told_by <= replay.intact_group);
    let given_up = told.map(|freed| freed.sequence + 1).max().unwrap_or(0);
    let newest_live = segments.last().map_or(0, |newest| newest.id.sequence);
    replay.told_start = replay.told_start.max(given_up.min(newest_live));
    let journal_start = replay.told_start;
    // Slots that an earlier recovery could not read either hold nothing newer than what it wrote then.
    let judged = broken.iter().filter(|slot| replay.bad_slots.contains(slot)).count() as u64;
    let missing = known_missing(&segments, &freed, journal_start).saturating_sub(judged);
    // A slot that a segment the journal needs was found in is no riddle, if only its head is lost.
    let needed = |slot: &u32| {
        let here = segments.iter().find(|segment| segment.slot == *slot);
        here.is_some_and(|segment| segment.id.sequence >= journal_start)
    };
    let unknown: Vec<u32> = unknown.into_iter().filter(|slot| !needed(slot)).collect();
    let riddles = unknown.iter().filter(|slot| !replay.bad_slots.contains(slot)).count() as u64;
    let unjudged = broken.len() as u64 - judged + riddles;
    // Only a sealed segment has a side index, and none is sealed before the next one is on the device.
    let was_sealed = segments
        .last()
        .is_some_and(|newest| load_slot(storage, dir, newest.slot, &newest.id).is_some());
    let newest_found = segments.last().map_or(0, |newest| newest.id.sequence);
    let gone = u64::from((was_sealed || proven > newest_found) && unjudged == 0);
    let newest_lost = unreadable > 0 || unjudged > missing || gone > 0 || proven > newest_found;
    if newest_lost {
        let sizes = segments.iter().map(|segment| segment.id.segment_bytes);
        let lengths = slots.iter().map(|(_, bytes)| u32::try_from(*bytes).unwrap_or(u32::MAX));
        // One that was cut off does not say how much it held.
        let lengths = lengths.filter(|bytes| *bytes >= SEGMENT_BYTES_MIN);
        let largest = sizes.chain(lengths).max().unwrap_or(0);
        let largest = if largest > 0 { largest.min(SEGMENT_BYTES_MAX) } else { SEGMENT_BYTES_MAX };
        let in_doubt = unreadable == 0 && gone == 0 && unjudged == riddles;
        replay.lose_newest(unjudged + unreadable + gone, largest, in_doubt);
    }
    let stale = segments.partition_point(|segment| segment.id.sequence < journal_start);
    for segment in segments.drain(..stale) {
        free.push(segment.slot);
    }
    let last_group = replay.intact_group;
    let mut state = replay.finish(segments);
    state.free = free;
    state.slots = slots;
    state.log_id = log_id;
    state.io_mode = io_mode;
    if newest_lost {
        state.tail_closed = true;
        // The lost ones are among the next: there are no more of them than slots.
        state.sequence_min = newest_seen.unwrap_or(0) + state.slots.len() as u64 + 1;
    }
    let known = state.bad_slots.iter().filter(|slot| !broken.contains(slot)).copied();
    state.bad_slots = broken.iter().copied().chain(unknown).chain(known).collect();
    if state.torn_tail.is_none() {
        state.torn_tail = torn_roll;
    }
    let mut missing =
        settle_missing(&state, &files, &mut window, &unpacker, (&freed, last_group), wall_us)?;
    missing.extend(settle_starts(&mut state, &files, &mut window, &unpacker, wall_us)?);
    settle_copies(&mut state, &freed, missing, wall_us);
    state.scanned_bytes = window.read_bytes;
    state.unreadable_bytes = window.unreadable_bytes;
    Ok(state)
}

/// How many segments are surely missing between others, at least: so many slots that cannot be read are accounted
/// for and do not hold the newest. Who knows where the segment before it ends was written right behind it.
fn known_missing(segments: &[Arc<FoundSegment>], freed: &[Freed], journal_start: u64) -> u64 {
    let mut before = journal_start.saturating_sub(1);
    let mut missing = 0;
    for segment in segments {
        if let Some(previous) = segment.previous {
            let is_freed = freed.iter().any(|freed| freed.sequence == previous.segment);
            missing += u64::from(previous.segment > before && !is_freed);
        }
        before = before.max(segment.id.sequence);
    }
    missing
}

/// Where the frames of a segment end, when the segment behind it cannot tell.
fn frames_end(files: &Files<'_>, window: &mut Window, segment: &FoundSegment) -> io::Result<u32> {
    let file = files.open(segment)?;
    let (file, id) = (&*file, &segment.id);
    window.forget();
    let (mut byte, mut group) = (id.first_frame(), 0);
    loop {
        let header = match header_at(window, file, id, byte)? {
            HeaderAt::Frame(header) if header.sequence > group => header,
            _ => match resync(window, file, id, byte + id.sector_bytes, id.segment_bytes, group)? {
                Some(header) => header,
                None => return Ok(byte),
            },
        };
        byte = header.end().byte;
        group = header.sequence;
    }
}

/// Below its head in the oldest segment a stream has copies, or nothing: then it starts there.
fn settle_starts(
    state: &mut State,
    files: &Files<'_>,
    window: &mut Window,
    unpacker: &Unpacker,
    wall_us: i64,
) -> Result<Vec<Gap>, OpenError> {
    let Some(oldest) = state.segments.first().cloned() else { return Ok(Vec::new()) };
    let mut missing = Vec::new();
    window.forget();
    let checkpoint = files
        .open(&oldest)
        .and_then(|file| heads(window, &*file, &oldest.id, unpacker))
        .map_err(|source| files.error(&oldest, source))?;
    let heads = match checkpoint {
        Some(checkpoint) => {
            let streams = checkpoint.streams.into_iter();
            streams.map(|stream| (stream.definition.stream, stream.next)).collect()
        }
        // Only its head is lost: what is not in it and behind it was given up with the segments before.
        None if is_whole_behind_head(files, window, &oldest)
            .map_err(|source| files.error(&oldest, source))? =>
        {
            firsts_from(state, 0, files, window, unpacker)?
        }
        // Part of it may have been in the groups behind its head.
        None => {
            let at = JournalPosition { segment: oldest.id.sequence, byte: 0 };
            let mut heads = BTreeMap::new();
            for (stream, to) in firsts_from(state, 0, files, window, unpacker)? {
                let Some(known) = state.streams.get(&stream) else { continue };
                let range = (known.log_start, to);
                missing.push(Gap {
                    stream,
                    from: range.0,
                    to,
                    reason: GapReason::Rot,
                    at,
                    wall_us,
                });
                // No original below it can be read: what copies there are count.
                let copy = state.copies.at_or_after(stream, range.0);
                if copy.is_some_and(|(base, _)| base < to) {
                    heads.insert(stream, to);
                }
            }
            heads
        }
    };
    for (stream, head) in heads {
        if let Some(stream) = state.streams.get_mut(&stream) {
            stream.home = stream.home.max(head);
        }
    }
    for (id, stream) in &mut state.streams {
        // Copies that reach beyond the home were made before it could be told that they count.
        while let Some((base, run)) = state.copies.at_or_after(*id, stream.home)
            && base < stream.home
        {
            stream.home = run.end;
        }
        let has_copies = state.copies.at_or_after(*id, stream.log_start);
        if !stream.keeps_start && has_copies.is_none_or(|(base, _)| base >= stream.home) {
            stream.log_start = stream.log_start.max(stream.home);
        }
    }
    for stream in state.streams.values_mut() {
        stream.log_start = stream.log_start.min(stream.next);
    }
    Ok(missing)
}

/// Copies in segments that are gone, or in groups that cannot be read, are a gap unless the records stand elsewhere.
fn settle_copies(state: &mut State, freed: &[Freed], missing: Vec<Gap>, wall_us: i64) {
    let there: Vec<u64> = state.segments.iter().map(|segment| segment.id.sequence).collect();
    let gone = state.copies.retain(|_, _, run| there.binary_search(&run.at.segment).is_ok());
    // Of what missing segments held the copies are read.
    for gap in missing {
        let home = state.streams.get(&gap.stream).map_or(Offset(0), |stream| stream.home);
        state.note_outside_copies(gap, gap.to.min(home.max(gap.from)));
    }
    let told_start = state.told_start;
    // What is left in segments that were given up was not worth copying.
    let given_up = |segment: u64| freed.iter().any(|freed| freed.sequence == segment);
    let missing = gone
        .into_iter()
        .filter(|(_, _, run)| run.at.segment >= told_start && !given_up(run.at.segment));
    let missing = missing.map(|(stream, from, run)| Gap {
        stream,
        from,
        to: run.end,
        reason: GapReason::Rot,
        at: run.at,
        wall_us,
    });
    let lost: Vec<Gap> =
        std::mem::take(&mut state.lost_copies).into_iter().chain(missing).collect();
    for gap in lost {
        let Some(stream) = state.streams.get(&gap.stream) else { continue };
        let (from, to) = (gap.from.max(stream.log_start), gap.to.min(stream.home));
        if from < to {
            state.note_outside_copies(Gap { from, to, ..gap }, to);
        }
    }
}

/// Whether every frame of a segment is intact but the first.
fn is_whole_behind_head(
    files: &Files<'_>,
    window: &mut Window,
    segment: &FoundSegment,
) -> io::Result<bool> {
    let file = files.open(segment)?;
    let (file, id) = (&*file, &segment.id);
    window.forget();
    let from = id.first_frame() + id.sector_bytes;
    let Some(second) = resync(window, file, id, from, segment.end(), 0)? else { return Ok(false) };
    // It was written right behind a group without records, which is what a head is.
    if second.proven_end != second.position || second.previous_directory_bytes > 0 {
        return Ok(false);
    }
    let mut byte = second.position.byte;
    while byte < segment.end() {
        let HeaderAt::Frame(header) = header_at(window, file, id, byte)? else { return Ok(false) };
        if !is_intact(&header, frame(window, file, &header)?) {
            return Ok(false);
        }
        byte = header.end().byte;
    }
    Ok(true)
}

/// Segments that should be there and are not: what they held is a gap.
fn settle_missing(
    state: &State,
    files: &Files<'_>,
    window: &mut Window,
    unpacker: &Unpacker,
    (freed, last_group): (&[Freed], u64),
    wall_us: i64,
) -> Result<Vec<Gap>, OpenError> {
    let mut missing = Vec::new();
    for (index, after) in state.segments.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &state.segments[before]);
        let expected = before.map_or(state.told_start, |before| before.id.sequence + 1);
        // Numbers behind the segment before were left out, or told of when they were.
        let until = after.previous.map_or(after.id.sequence, |previous| previous.segment + 1);
        let until = until.min(after.id.sequence);
        let given_up = |lost: u64| freed.iter().find(|freed| freed.sequence == lost);
        // One that was given up is not missed, if a group tells what was lost with it.
        let missed: Vec<u64> = (expected.max(1)..until)
            .filter(|lost| given_up(*lost).is_none_or(|freed| freed.told_by > last_group))
            .collect();
        if missed.is_empty() || state.told_start == 0 {
            continue;
        }
        let dropped = missed.iter().all(|lost| given_up(*lost).is_some());
        let copies = state.stats.copied_records > 0 || state.copies.len() > 0;
        let firsts = firsts_from(state, index, files, window, unpacker)?;
        let ends = ends_before(state, index, files, window, unpacker)?;
        for (stream, to) in firsts {
            let Some(known) = state.streams.get(&stream) else { continue };
            // What is below the log start as the last checkpoint had it is not missed.
            let from = ends.get(&stream).copied().unwrap_or(Offset(0)).max(known.log_start);
            let at = JournalPosition { segment: missed[0], byte: 0 };
            // Where copies are made, those of it may be what is damaged, not only the word that it was dropped.
            let reason = if dropped && !copies && !known.keeps_start {
                GapReason::DroppedOldest
            } else {
                GapReason::Rot
            };
            missing.push(Gap { stream, from, to, reason, at, wall_us });
        }
    }
    Ok(missing)
}

/// The first offset of each stream in the segments from `index` on: what the first checkpoint says that can be read,
/// and the groups before it.
fn firsts_from(
    state: &State,
    index: usize,
    files: &Files<'_>,
    window: &mut Window,
    unpacker: &Unpacker,
) -> Result<BTreeMap<StreamId, Offset>, OpenError> {
    let mut firsts = BTreeMap::new();
    for segment in &state.segments[index..] {
        let error = |error| files.error(segment, error);
        let file = files.open(segment).map_err(error)?;
        window.forget();
        if let Some(head) = heads(window, &*file, &segment.id, unpacker).map_err(error)? {
            for head in head.streams {
                firsts.entry(head.definition.stream).or_insert(head.next);
            }
            return Ok(firsts);
        }
        window.forget();
        let walked = walk(window, &*file, &segment.id, segment.end(), unpacker, BTreeMap::new());
        for (stream, first) in walked.map_err(error)?.firsts {
            firsts.entry(stream).or_insert(first);
        }
    }
    for (stream, known) in &state.streams {
        firsts.entry(*stream).or_insert(known.next);
    }
    Ok(firsts)
}

/// Where each stream ended in the segments before `index`.
fn ends_before(
    state: &State,
    index: usize,
    files: &Files<'_>,
    window: &mut Window,
    unpacker: &Unpacker,
) -> Result<BTreeMap<StreamId, Offset>, OpenError> {
    let mut ends = BTreeMap::new();
    for segment in state.segments[..index].iter().rev() {
        let error = |error| files.error(segment, error);
        let file = files.open(segment).map_err(error)?;
        window.forget();
        let walked = walk(window, &*file, &segment.id, segment.end(), unpacker, BTreeMap::new());
        let walked = walked.map_err(error)?;
        for (stream, end) in walked.ends {
            ends.entry(stream).or_insert(end);
        }
        if walked.has_heads {
            break;
        }
    }
    Ok(ends)
}

impl State {
    /// A loss that was found: new unless it was told before.
    fn note_gap(&mut self, gap: Gap) {
        for (from, to) in self.gaps.untold(gap.stream, gap.from, gap.to) {
            let part = Gap { from, to, ..gap };
            self.stats.lost_records += to.0 - from.0;
            self.new_gaps.push(part);
            self.gaps.add(part);
        }
    }

    /// A loss that was found, without what copies hold of it below `home`.
    fn note_outside_copies(&mut self, gap: Gap, home: Offset) {
        let mut from = gap.from;
        while from < home {
            let next = self.copies.at_or_after(gap.stream, from);
            let (base, end) = next.map_or((home, home), |(base, run)| (base, run.end));
            if base > from {
                self.note_gap(Gap { from, to: base.min(home), ..gap });
            }
            from = end.max(base.min(home));
        }
        if from < gap.to {
            self.note_gap(Gap { from, ..gap });
        }
    }

    /// Where the journal starts.
    pub(crate) fn start(&self) -> JournalPosition {
        self.segments.first().map_or(self.proven_end, |segment| JournalPosition {
            segment: segment.id.sequence,
            byte: segment.id.first_frame(),
        })
    }
}

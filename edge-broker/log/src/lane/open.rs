//! Opening a lane: recovery, then the state to go on with.

use std::sync::Arc;

use edge_wire::Offset;
use hashbrown::HashMap;

use super::compact::Cleaning;
use super::key_map::KeyHasher;
use super::pending::{Closed, Pending};
use super::retain::Ages;
use super::slots::Slots;
use super::stamp::Stamp;
use super::streams::{Stream, StreamTable};
use super::writer::{Current, Writer};
use super::{Identity, Lane, OpenError, STREAM_CHECKPOINT_BYTES};
use crate::clock::ClockReading;
use crate::committer::Committer;
use crate::config::LaneConfig;
use crate::journal::entry::put_gap;
use crate::journal::segment::{mix, name_hash};
use crate::position::JournalPosition;
use crate::recovered::{RecoveredStream, Recovery};
use crate::recovery::{State, recover};
use crate::shared::{Segment, Shared, StreamShared, slot_path};
use crate::storage::{OpenMode, Storage, StorageFile, is_of_one_file};

/// Sealed segments whose side index is looked for after opening: a crash can have cost the newest ones theirs.
const SIDES_LOOKED_FOR: usize = 2;

impl Lane {
    /// Opens a lane, creating it if its directory holds none, and recovers it.
    ///
    /// Readers of an earlier `Lane` on the same directory see what they saw; take new ones.
    ///
    /// # Errors
    /// The directory cannot be read or written, or a newer program wrote it. Damage is no error: it is told in
    /// [`Recovery`].
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &str,
        config: LaneConfig,
        clock: &ClockReading,
    ) -> Result<(Self, Recovery), OpenError> {
        let config = config.normalized();
        make_dir(&*storage, dir)?;
        let mut state = recover(&*storage, dir, true, clock.wall_us)?;
        let mut newest = open_newest(&*storage, dir, &state)?;
        // What was adopted may so far be in the page cache or the device's cache only.
        if let Some((file, path)) = &newest
            && let Err(source) = file.sync_data()
        {
            if !is_of_one_file(&source) {
                return Err(OpenError::Io { operation: "sync", path: path.clone(), source });
            }
            // Not tried again: what the device has is read anew, and the lane goes on in another file.
            tracing::error!(path, error = %source, "the newest segment cannot be synced");
            file.forget_cached();
            state = recover(&*storage, dir, true, clock.wall_us)?;
            newest = open_newest(&*storage, dir, &state)?;
            state.tail_closed = true;
            let slot = state.segments.last().map(|newest| newest.slot);
            state.bad_slots.extend(slot);
        }
        let newest = newest.map(|(file, _)| file);
        let recovery = report(&state);
        let shared = Arc::new(Shared::new(Arc::clone(&storage), dir, config.decoded_cache_bytes));
        let mut writer = Writer::new();
        take_segments(&state, newest, &shared, &mut writer);
        let log_id = state.log_id.unwrap_or_else(|| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&mix(clock.entropy, 1).to_le_bytes());
            id[8..].copy_from_slice(&mix(clock.entropy, 2).to_le_bytes());
            id
        });
        let identity = Identity { log_id, name_hash: name_hash(last_name(dir)) };
        let mut slots = Slots::new(
            storage,
            dir,
            config.segment_bytes,
            config.budget_bytes,
            config.keep_free_bytes,
        );
        for slot in &state.bad_slots {
            slots.doubt(*slot);
        }
        for (slot, bytes) in &state.slots {
            slots.add(*slot, *bytes);
        }
        for slot in state.free {
            slots.add_free(slot);
        }
        let mut pending = Pending::default();
        for gap in &state.new_gaps {
            put_gap(pending.state(), gap);
        }
        *shared.gaps() = state.gaps;
        *shared.copies() = state.copies;
        shared.set_clocks(state.boot_clocks);
        let mut stats = state.stats;
        stats.used_bytes = slots.used_bytes();
        stats.budget_bytes = config.budget_bytes;
        stats.io_mode = state.io_mode;
        *shared.stats() = stats;
        let tail_closed = writer.current.as_ref().is_some_and(|current| {
            let sector = current.file.io_mode().sector_bytes();
            state.tail_closed || sector > current.segment.id.sector_bytes
        });
        let (mut streams, mut orphans) = (StreamTable::default(), HashMap::new());
        let mut definition_bytes = 0;
        for (id, found) in state.streams {
            let Some(definition) = found.definition else {
                orphans.insert(id, found.next);
                continue;
            };
            definition_bytes += definition.topic.len() + STREAM_CHECKPOINT_BYTES;
            let seen = Arc::new(StreamShared::new(found.log_start, found.next, found.tail));
            seen.raise_home(found.home);
            shared.add_stream(id, Arc::clone(&seen));
            let stream = Stream::new(definition, seen, found.next, found.producers);
            let clean_home = if found.keeps_start { found.home } else { Offset(0) };
            let was_copied = shared.copies().of(id).next().is_some();
            streams.insert(Stream { clean_home, was_copied, ..stream });
        }
        // A gap may be told before the first use of its stream in this lane, with which its definition comes.
        for gap in shared.gaps().as_slice() {
            if streams.find(gap.stream).is_none() {
                let next = orphans.entry(gap.stream).or_insert(gap.to);
                *next = gap.to.max(*next);
            }
        }
        let unwritten_sides = {
            let segments = shared.segments();
            let sealed = segments.iter().rev().skip(1).take(SIDES_LOOKED_FOR);
            sealed.map(|segment| segment.id.sequence).collect()
        };
        let lane = Self {
            committer: std::cell::RefCell::new(Committer::new(&config)),
            identity,
            shared,
            streams,
            pending,
            stamp: Stamp::new(clock),
            closed: Closed::default(),
            ends_before: Vec::new(),
            writer,
            slots,
            upstream: JournalPosition::START,
            poisoned: false,
            must_roll: tail_closed,
            tail_closed,
            sequence_min: state.sequence_min,
            untouched: true,
            // A recovered tail was synced just now, but no frame on disk says so yet.
            sealed: state.clean_shutdown,
            last_write_us: Some(0),
            retention_due_us: 0,
            grow_again_us: 0,
            unwritten_sides,
            retiring: None,
            pass: None,
            compacted: std::collections::BTreeSet::new(),
            keys: None,
            hasher: KeyHasher::new(log_id),
            cleaning: Cleaning::default(),
            keeping: 0,
            ages: Ages::default(),
            orphans,
            new_stream_floor: Offset(state.blind),
            definition_bytes,
            config,
        };
        Ok((lane, recovery))
    }

    /// Recovers without writing anything: for a look at a stopped gateway.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn inspect(storage: &dyn Storage, dir: &str) -> Result<Recovery, OpenError> {
        Ok(report(&recover(storage, dir, false, 0)?))
    }
}

/// The newest segment for writing, and its path.
type Newest = (Arc<dyn StorageFile>, String);

fn open_newest(
    storage: &dyn Storage,
    dir: &str,
    state: &State,
) -> Result<Option<Newest>, OpenError> {
    let Some(newest) = state.segments.last() else { return Ok(None) };
    let path = slot_path(dir, newest.slot);
    match storage.open(&path, OpenMode::ReadWrite) {
        Ok(file) => Ok(Some((file, path))),
        Err(source) => Err(OpenError::Io { operation: "open", path, source }),
    }
}

fn last_name(dir: &str) -> &str {
    dir.rsplit('/').next().unwrap_or(dir)
}

/// Makes the lane's directory and clears away what an interrupted zeroing left.
fn make_dir(storage: &dyn Storage, dir: &str) -> Result<(), OpenError> {
    let io =
        |operation, path: &str, source| OpenError::Io { operation, path: path.to_owned(), source };
    let names = match storage.list(dir) {
        Ok(names) => names,
        Err(_) => {
            storage.create_dir(dir).map_err(|error| io("create directory", dir, error))?;
            Vec::new()
        }
    };
    // Always: the process may have been killed between making a name and syncing it, and what is acknowledged from
    // now on rests on the names that are seen now.
    let mut path = dir;
    loop {
        storage.sync_dir(path).map_err(|error| io("sync directory", path, error))?;
        if path.is_empty() {
            break;
        }
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    for name in names.iter().filter(|name| name.starts_with("slot-") && name.ends_with(".tmp")) {
        // If it stays, it is only in the way of its own name.
        if let Err(error) = storage.remove(&format!("{dir}/{name}")) {
            tracing::warn!(dir, name, %error, "an unfinished segment could not be removed");
        }
    }
    Ok(())
}

pub(super) fn take_segments(
    state: &State,
    newest: Option<Arc<dyn StorageFile>>,
    shared: &Shared,
    writer: &mut Writer,
) {
    let mut segments = shared.segments_mut();
    for found in &state.segments {
        let segment = Segment::new(shared, found.id, found.slot, found.end());
        segments.push_back(Arc::new(segment));
    }
    if let (Some(segment), Some(file)) = (segments.back(), newest) {
        let segment = Arc::clone(segment);
        writer.current = Some(Current { segment, file, byte: state.write_at });
    }
    writer.next_group = state.next_group;
    writer.previous_directory = state.previous_directory.clone();
    writer.proven_end = state.proven_end;
    writer.told_start = state.told_start;
    shared.publish_end(state.proven_end);
}

pub(super) fn report(state: &State) -> Recovery {
    let streams = state.streams.values().filter_map(|stream| {
        Some(RecoveredStream {
            definition: stream.definition.clone()?,
            log_start: stream.log_start,
            durable_end: stream.next,
        })
    });
    Recovery {
        streams: streams.collect(),
        owner_checkpoint: state.owner.clone(),
        events: state.events.clone(),
        lost_groups: state.lost_groups,
        clean_shutdown: state.clean_shutdown,
        torn_tail: state.torn_tail,
        suspect_tail: state.suspect_tail.clone(),
        gaps: state.gaps.as_slice().to_vec(),
        io_mode: state.io_mode,
        scanned_bytes: state.scanned_bytes,
        unreadable_bytes: state.unreadable_bytes,
        start: state.start(),
        end: state.proven_end,
        upstream: state.upstream,
        boot_clocks: state.boot_clocks.clone(),
        last_clock: state.last_clock,
        used_bytes: state.slots.iter().map(|(_, bytes)| bytes).sum(),
        stats: state.stats,
    }
}

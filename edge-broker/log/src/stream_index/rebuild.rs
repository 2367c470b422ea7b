//! Side indexes: loading one, and making one by reading its segment.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use edge_wire::{Offset, StreamId};

use super::RESIDENT_BYTES_MAX;
use super::TailIndex;
use super::side::{HEAD_BYTES, SideBuilder, SideIndex, SideLine};
use crate::decoded::GroupKind;
use crate::journal::checkpoint::Checkpoint;
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{SegmentId, Window, frame, header_at, resync};
use crate::journal::unpack::is_intact;
use crate::position::JournalPosition;
use crate::shared::{Segment, Shared, lock, side_path};
use crate::storage::{OpenMode, Storage};

/// The side index of a sealed segment: resident, from its file, or made anew.
pub(crate) fn side_index(shared: &Shared, segment: &Segment) -> io::Result<Arc<SideIndex>> {
    let mut slot = lock(&segment.side);
    if let Some(side) = &*slot {
        return Ok(Arc::clone(side));
    }
    let side = match load(shared, segment) {
        Some(side) => side,
        None => {
            let side = rebuild(shared, segment)?;
            shared.note_rebuilt(segment.id.sequence);
            side
        }
    };
    let side = Arc::new(side);
    *slot = Some(Arc::clone(&side));
    drop(slot);
    keep_resident(shared, segment.id.sequence, side.bytes().len());
    Ok(side)
}

/// Counts a side index that is now resident and lets the oldest ones go.
pub(crate) fn keep_resident(shared: &Shared, sequence: u64, bytes: usize) {
    let mut resident = lock(&shared.resident);
    resident.push_back((sequence, bytes));
    let mut total: usize = resident.iter().map(|(_, bytes)| bytes).sum();
    let mut gone = Vec::new();
    while total > RESIDENT_BYTES_MAX && resident.len() > 1 {
        if let Some((sequence, bytes)) = resident.pop_front() {
            total -= bytes;
            gone.push(sequence);
        }
    }
    drop(resident);
    for sequence in gone {
        let segment = shared.segment_at_or_after(sequence);
        if let Some(segment) = segment.filter(|segment| segment.id.sequence == sequence) {
            *lock(&segment.side) = None;
        }
    }
}

/// Whether the slot has a side index that can be believed.
pub(crate) fn load(shared: &Shared, segment: &Segment) -> Option<SideIndex> {
    load_slot(&*shared.storage, &shared.dir, segment.slot, &segment.id)
}

/// The same before there is a lane.
pub(crate) fn load_slot(
    storage: &dyn Storage,
    dir: &str,
    slot: u32,
    id: &SegmentId,
) -> Option<SideIndex> {
    let path = side_path(dir, slot);
    let file = storage.open(&path, OpenMode::Read).ok()?;
    let mut bytes = vec![0; HEAD_BYTES];
    if file.read_at(&mut bytes, 0).ok()? < HEAD_BYTES {
        return None;
    }
    let length = SideIndex::length(&bytes)?;
    if u64::try_from(length).ok()? > file.len().ok()? {
        return None;
    }
    bytes.resize(length, 0);
    file.read_at(&mut bytes, 0).ok()?;
    SideIndex::check(bytes, id.sequence, id.salt).ok()
}

/// Reads a whole segment and notes where its streams are. What is damaged is left out.
pub(crate) fn rebuild(shared: &Shared, segment: &Segment) -> io::Result<SideIndex> {
    let (file, id, end) = (&segment.file, &segment.id, segment.end());
    let mut window = Window::default();
    let mut streams: BTreeMap<StreamId, (TailIndex, Offset)> = BTreeMap::new();
    let mut body = Vec::new();
    let mut byte = id.first_frame();
    let mut group = 0;
    while byte < end {
        let header = match header_at(&mut window, file, id, byte)? {
            HeaderAt::Frame(header) => header,
            _ => {
                let from = byte + id.sector_bytes;
                let next = resync(&mut window, file, id, from, end, group)?;
                let at = JournalPosition { segment: id.sequence, byte };
                // What a recovery judged before is told already.
                if next.is_none_or(|next| next.proven_end > at) {
                    shared.note_damage(at);
                }
                match next {
                    Some(header) => header,
                    None => break,
                }
            }
        };
        byte = header.end().byte;
        group = header.sequence;
        let bytes = frame(&mut window, file, &header)?;
        if header.kind == GroupKind::Checkpoint {
            let unpacked = is_intact(&header, bytes)
                && shared.unpacker.unpack_body(&header, bytes, &mut body).is_ok();
            if let Some(checkpoint) =
                unpacked.then(|| Checkpoint::decode(&body)).and_then(Result::ok)
            {
                for stream in checkpoint.streams {
                    let mut index = TailIndex::default();
                    index.begin(id.sequence, stream.next);
                    streams.insert(stream.definition.stream, (index, stream.next));
                }
            }
            continue;
        }
        let Ok(decoded) = shared.unpacker.decode(&header, bytes) else {
            shared.note_damage(header.position);
            continue;
        };
        for batch in decoded.batches().filter(|batch| !batch.is_copied()) {
            let (index, next) = streams.entry(batch.stream()).or_insert_with(|| {
                let mut index = TailIndex::default();
                index.begin(id.sequence, batch.base_offset());
                (index, batch.base_offset())
            });
            index.note(batch.base_offset(), header.position.byte);
            index.note_batch(
                batch.last_offset(),
                batch.max_timestamp_ms(),
                batch.is_unvouched(),
                batch.stored_bytes(),
            );
            *next = (*next).max(batch.end_offset());
        }
        shared.unpacker.recycle(decoded);
    }
    let mut builder = SideBuilder::new(id.sequence, id.salt, id.segment_bytes, streams.len());
    for (stream, (index, next)) in &streams {
        builder.push(&line(*stream, index, *next));
    }
    Ok(builder.finish())
}

/// The line of a stream whose tail index is of the sealed segment.
pub(crate) fn line(stream: StreamId, index: &TailIndex, end: Offset) -> SideLine {
    SideLine {
        stream,
        head: index.head,
        end: end.max(index.head),
        bytes: index.segment_bytes,
        max_ms: index.segment_max_ms,
        unvouched: index.segment_unvouched,
        places: index.entries().to_vec(),
    }
}

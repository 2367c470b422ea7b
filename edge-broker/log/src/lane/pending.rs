//! The pending group: records as they arrive, gathered by stream when the group closes.
//!
//! Records are encoded once, into one arena in the order of arrival; a run is a stretch of the arena that belongs
//! to one batch. Closing copies the runs, stream by stream, into the body. So appending costs no allocation, no
//! memory per stream, and a group of one stream is gathered in one copy.
//!
//! Nothing here is lost when a commit fails for lack of room: closing does not change the pending group.

use std::sync::Arc;

use edge_wire::varint::{put_unsigned, put_varlong};
use edge_wire::{Envelope, ProducerStamp, StreamId};
use hashbrown::HashMap;

use crate::journal::directory::{DirectoryEntry, DirectoryWriter};
use crate::journal::entry::{
    BUILT, BUILT_ONE, ENVELOPE, PRODUCER_PACKED, PRODUCER_PLAIN, ProducerFields, put_bytes,
    put_definition, put_producer_fields,
};
use crate::journal::format::GROUP_OFFSETS_MAX;
use crate::lane::streams::{Stream, StreamTable};

/// No draft, no run.
pub(crate) const NONE: u32 = u32::MAX;
/// Memory of the arena that is kept from group to group.
const ARENA_KEPT_BYTES: usize = 512 << 10;
/// What a record takes beside its value, at most.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 24;
/// What a batch takes beside its records, at most.
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 64;

/// A batch that is being built.
#[derive(Debug)]
struct Draft {
    /// The stream's next draft in this group.
    next: u32,
    base: u64,
    /// Offsets covered.
    count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    /// Bytes of its runs.
    bytes: u32,
    first_run: u32,
    last_run: u32,
    kind: DraftKind,
}

#[derive(Clone, Copy, Debug)]
enum DraftKind {
    Built,
    Plain(ProducerFields),
    /// Its run is in the raw section.
    Packed(ProducerFields),
}

/// A stretch of the arena.
#[derive(Debug)]
struct Run {
    next: u32,
    start: u32,
    end: u32,
}

/// A producer's batch, to be remembered once it is durable.
#[derive(Debug)]
pub(crate) struct ProducerChange {
    pub(crate) local: u32,
    pub(crate) stamp: ProducerStamp,
    pub(crate) count: u32,
    pub(crate) base: edge_wire::Offset,
    pub(crate) timestamp_ms: i64,
}

/// A producer's batch as it is appended.
pub(crate) struct ProducerBatch<'a> {
    pub(crate) fields: ProducerFields,
    pub(crate) base_timestamp_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    /// Offsets covered.
    pub(crate) span: u32,
    pub(crate) packed: bool,
    pub(crate) records: &'a [u8],
}

/// What has been appended since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    arena: Vec<u8>,
    raw: Vec<u8>,
    runs: Vec<Run>,
    drafts: Vec<Draft>,
    /// Streams with drafts, in the order of their first.
    touched: Vec<u32>,
    /// Envelope entries, encoded.
    envelopes: Vec<u8>,
    envelope_refs: HashMap<usize, u32>,
    /// Keeps the addresses in `envelope_refs` from being used again.
    envelopes_held: Vec<Arc<Envelope>>,
    /// Entries that are neither envelopes nor batches, encoded.
    state: Vec<u8>,
    pub(crate) producers: Vec<ProducerChange>,
    offsets: u32,
    pub(crate) payload_bytes: u64,
}

/// What closing makes of a group.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    pub(crate) directory: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) raw: Vec<u8>,
    /// Anything beside envelopes and built batches is in the body.
    pub(crate) has_state: bool,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.drafts.is_empty() && self.state.is_empty()
    }

    /// Bytes before compression.
    pub(crate) fn bytes(&self) -> usize {
        self.arena.len() + self.raw.len() + self.envelopes.len() + self.state.len()
    }

    pub(crate) fn offsets(&self) -> u32 {
        self.offsets
    }

    /// Whether so many offsets still fit.
    pub(crate) fn has_offsets(&self, count: u32) -> bool {
        self.offsets.saturating_add(count) <= GROUP_OFFSETS_MAX
    }

    pub(crate) fn envelope(&mut self, envelope: &Arc<Envelope>) -> u32 {
        let next = self.envelopes_held.len() as u32;
        match self.envelope_refs.entry(Arc::as_ptr(envelope).addr()) {
            hashbrown::hash_map::Entry::Occupied(known) => *known.get(),
            hashbrown::hash_map::Entry::Vacant(free) => {
                free.insert(next);
                self.envelopes_held.push(Arc::clone(envelope));
                self.envelopes.push(ENVELOPE);
                put_bytes(&mut self.envelopes, envelope.as_bytes());
                next
            }
        }
    }

    pub(crate) fn has_envelope(&self, envelope: u32) -> bool {
        (envelope as usize) < self.envelopes_held.len()
    }

    /// Appends one record to the stream's batch. The caller has checked that it fits.
    #[inline]
    pub(crate) fn push_record(
        &mut self,
        local: u32,
        stream: &mut Stream,
        envelope: u32,
        timestamp_ms: i64,
        value: Option<&[u8]>,
    ) {
        let open = stream.last_draft != NONE
            && matches!(self.drafts[stream.last_draft as usize].kind, DraftKind::Built);
        if !open {
            self.push_draft(local, stream, timestamp_ms, DraftKind::Built);
        }
        let draft = &mut self.drafts[stream.last_draft as usize];
        let start = self.arena.len();
        let mut head = Head::default();
        let delta = timestamp_ms.wrapping_sub(draft.base_timestamp_ms);
        head.put(((delta << 1) ^ (delta >> 63)) as u64);
        head.put(u64::from(envelope));
        head.put(value.map_or(0, |value| value.len() as u64 + 1));
        self.arena.extend_from_slice(head.bytes());
        if let Some(value) = value {
            self.arena.extend_from_slice(value);
            self.payload_bytes += value.len() as u64;
        }
        let end = self.arena.len() as u32;
        draft.bytes += end - start as u32;
        draft.count += 1;
        draft.max_timestamp_ms = draft.max_timestamp_ms.max(timestamp_ms);
        // The arena's last stretch is this batch's: make it longer.
        let last = self.runs.len() as u32;
        if draft.last_run != NONE && draft.last_run + 1 == last {
            self.runs[draft.last_run as usize].end = end;
        } else {
            push_run(&mut self.runs, draft, start as u32, end);
        }
        stream.next += 1;
        self.offsets += 1;
    }

    /// Appends a producer's batch. The caller has checked that it fits.
    pub(crate) fn push_batch(
        &mut self,
        local: u32,
        stream: &mut Stream,
        batch: &ProducerBatch<'_>,
    ) {
        let kind = if batch.packed {
            DraftKind::Packed(batch.fields)
        } else {
            DraftKind::Plain(batch.fields)
        };
        let section = if batch.packed { &mut self.raw } else { &mut self.arena };
        let start = section.len() as u32;
        section.extend_from_slice(batch.records);
        let end = section.len() as u32;
        self.push_draft(local, stream, batch.base_timestamp_ms, kind);
        let draft = &mut self.drafts[stream.last_draft as usize];
        draft.max_timestamp_ms = batch.max_timestamp_ms;
        draft.count = batch.span;
        draft.bytes = end - start;
        push_run(&mut self.runs, draft, start, end);
        stream.next += u64::from(batch.span);
        self.offsets += batch.span;
        self.payload_bytes += batch.records.len() as u64;
    }

    fn push_draft(
        &mut self,
        local: u32,
        stream: &mut Stream,
        base_timestamp_ms: i64,
        kind: DraftKind,
    ) {
        let draft = self.drafts.len() as u32;
        self.drafts.push(Draft {
            next: NONE,
            base: stream.next,
            count: 0,
            base_timestamp_ms,
            max_timestamp_ms: base_timestamp_ms,
            bytes: 0,
            first_run: NONE,
            last_run: NONE,
            kind,
        });
        if stream.last_draft == NONE {
            stream.first_draft = draft;
            self.touched.push(local);
        } else {
            self.drafts[stream.last_draft as usize].next = draft;
        }
        stream.last_draft = draft;
    }

    /// Where entries that are neither envelopes nor batches go.
    pub(crate) fn state(&mut self) -> &mut Vec<u8> {
        &mut self.state
    }

    /// Puts the group together as it goes into `segment`. Changes nothing that a second call would miss.
    pub(crate) fn close(&mut self, streams: &StreamTable, segment: u64, closed: &mut Closed) {
        closed.directory.clear();
        closed.body.clear();
        closed.raw.clear();
        closed.has_state = !self.state.is_empty();
        closed.body.reserve(self.bytes() + self.drafts.len() * 16 + 64);
        self.touched.sort_unstable_by_key(|local| streams.get(*local).definition.stream);
        let body = &mut closed.body;
        for stream in self.touched.iter().map(|local| streams.get(*local)) {
            if stream.defined_in != segment {
                put_definition(body, &stream.definition);
                closed.has_state = true;
            }
        }
        body.extend_from_slice(&self.state);
        body.extend_from_slice(&self.envelopes);
        let mut directory = DirectoryWriter::default();
        let mut base_before = 0i64;
        for stream in self.touched.iter().map(|local| streams.get(*local)) {
            let mut next = stream.first_draft;
            while next != NONE {
                let draft = &self.drafts[next as usize];
                directory.push(draft.entry(stream.definition.stream), &mut closed.directory);
                let delta = draft.base_timestamp_ms.wrapping_sub(base_before);
                base_before = draft.base_timestamp_ms;
                let max_minus_base = draft.max_timestamp_ms.wrapping_sub(draft.base_timestamp_ms);
                match &draft.kind {
                    DraftKind::Built if draft.count == 1 => {
                        body.push(BUILT_ONE);
                        put_varlong(body, delta);
                        let run = &self.runs[draft.first_run as usize];
                        // The first record's timestamp is the base: its delta is the one byte 0.
                        body.extend_from_slice(
                            &self.arena[run.start as usize + 1..run.end as usize],
                        );
                    }
                    DraftKind::Built => {
                        body.push(BUILT);
                        put_varlong(body, delta);
                        put_unsigned(body, max_minus_base as u64);
                        put_unsigned(body, u64::from(draft.bytes));
                        self.copy_runs(draft, body);
                    }
                    DraftKind::Plain(fields) => {
                        closed.has_state = true;
                        body.push(PRODUCER_PLAIN);
                        put_producer_fields(body, fields, delta, max_minus_base);
                        put_unsigned(body, u64::from(draft.bytes));
                        self.copy_runs(draft, body);
                    }
                    DraftKind::Packed(fields) => {
                        closed.has_state = true;
                        body.push(PRODUCER_PACKED);
                        put_producer_fields(body, fields, delta, max_minus_base);
                        put_unsigned(body, u64::from(draft.bytes));
                        let run = &self.runs[draft.first_run as usize];
                        closed
                            .raw
                            .extend_from_slice(&self.raw[run.start as usize..run.end as usize]);
                    }
                }
                next = draft.next;
            }
        }
    }

    fn copy_runs(&self, draft: &Draft, out: &mut Vec<u8>) {
        let mut next = draft.first_run;
        while next != NONE {
            let run = &self.runs[next as usize];
            out.extend_from_slice(&self.arena[run.start as usize..run.end as usize]);
            next = run.next;
        }
    }

    /// Streams with batches in the group, by stream id once the group was closed.
    pub(crate) fn touched(&self) -> &[u32] {
        &self.touched
    }

    /// Calls back for each batch of a stream: base, offsets covered, highest timestamp, bytes.
    pub(crate) fn for_each_batch(
        &self,
        stream: &Stream,
        mut visit: impl FnMut(u64, u32, i64, u32),
    ) {
        let mut next = stream.first_draft;
        while next != NONE {
            let draft = &self.drafts[next as usize];
            visit(draft.base, draft.count, draft.max_timestamp_ms, draft.bytes);
            next = draft.next;
        }
    }

    /// Forgets the group: it is durable.
    pub(crate) fn clear(&mut self) {
        self.arena.clear();
        self.arena.shrink_to(ARENA_KEPT_BYTES);
        self.raw.clear();
        self.raw.shrink_to(ARENA_KEPT_BYTES);
        self.runs.clear();
        self.drafts.clear();
        self.touched.clear();
        self.envelopes.clear();
        self.envelope_refs.clear();
        self.envelopes_held.clear();
        self.state.clear();
        self.producers.clear();
        self.offsets = 0;
        self.payload_bytes = 0;
    }
}

impl Draft {
    fn entry(&self, stream: StreamId) -> DirectoryEntry {
        DirectoryEntry { stream, base: edge_wire::Offset(self.base), count: self.count }
    }
}

fn push_run(runs: &mut Vec<Run>, draft: &mut Draft, start: u32, end: u32) {
    let run = runs.len() as u32;
    runs.push(Run { next: NONE, start, end });
    if draft.last_run == NONE {
        draft.first_run = run;
    } else {
        runs[draft.last_run as usize].next = run;
    }
    draft.last_run = run;
}

/// The varints in front of a value, put together on the stack: one copy into the arena instead of many pushes.
struct Head {
    bytes: [u8; 32],
    len: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self { bytes: [0; 32], len: 0 }
    }
}

impl Head {
    #[inline]
    fn put(&mut self, value: u64) {
        let mut rest = value;
        while rest >= 0x80 {
            self.bytes[self.len] = rest as u8 | 0x80;
            self.len += 1;
            rest >>= 7;
        }
        self.bytes[self.len] = rest as u8;
        self.len += 1;
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

//! The pending group: records as they arrive, gathered by stream when the group closes.
//!
//! Values go into one arena in the order of arrival, what is known of them into a table; a run is a stretch of the
//! table that belongs to one batch. Closing walks the runs, stream by stream, and fills the columns of the body. So
//! appending costs no allocation, no memory per stream, and the values of a run are gathered in one copy.
//!
//! With thousands of streams nearly every record is the only one of its stream and its envelope, and what costs is
//! memory that is far away. So envelopes are copied in, once for many groups, and closing needs nothing of a stream but
//! where it is defined.
//!
//! Nothing here is lost when a commit fails for lack of room: closing does not change the pending group. What its
//! senders want back then is taken out again by `Lane::discard_records`.

use edge_wire::{EnvelopeId, EnvelopeView, ProducerStamp, StreamId};
use hashbrown::HashMap;

use crate::journal::batches::{BatchWriter, Marks, ProducerFields};
use crate::journal::directory::{DirectoryEntry, DirectoryWriter};
use crate::journal::entry::{BATCHES, ENVELOPES, put_definition};
use crate::journal::envelope_arena::EnvelopeArena;
use crate::journal::envelopes::EnvelopeWriter;
use crate::journal::format::GROUP_OFFSETS_MAX;
use crate::lane::streams::{Stream, StreamTable};

/// No draft, no run.
pub(crate) const NONE: u32 = u32::MAX;
/// Memory of the arena that is kept from group to group.
const ARENA_KEPT_BYTES: usize = 512 << 10;
/// Entries of the record table that are kept from group to group.
const RECORDS_KEPT: usize = 16 << 10;
/// What a record takes beside its value, about: deltas, envelope, length.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 8;
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
    marks: Marks,
}

#[derive(Clone, Copy, Debug)]
enum DraftKind {
    Built,
    Plain(ProducerFields),
    /// Its run is in the raw section.
    Packed(ProducerFields),
}

/// A stretch of the record table, or of the arena or raw section for a producer's batch.
#[derive(Debug)]
struct Run {
    next: u32,
    start: u32,
    end: u32,
}

/// A record; its value is in the arena.
#[derive(Clone, Copy, Debug)]
struct Record {
    timestamp_ms: i64,
    envelope: u32,
    start: u32,
    /// 0 = null.
    length_plus_one: u32,
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
    pub(crate) marks: Marks,
    pub(crate) records: &'a [u8],
}

/// A stream with drafts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touched {
    pub(crate) stream: StreamId,
    /// Its place in the table.
    pub(crate) local: u32,
    first_draft: u32,
}

/// What has been appended since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    arena: Vec<u8>,
    records: Vec<Record>,
    raw: Vec<u8>,
    runs: Vec<Run>,
    drafts: Vec<Draft>,
    /// Streams with drafts, in the order of their first; once the group was closed by id.
    touched: Vec<Touched>,
    envelope_refs: HashMap<EnvelopeId, u32>,
    envelopes: EnvelopeArena,
    /// Entries that are neither envelopes nor batches, encoded.
    state: Vec<u8>,
    /// Events that go with a record of the group, encoded: taken back with it.
    bound: Vec<u8>,
    pub(crate) producers: Vec<ProducerChange>,
    offsets: u32,
    pub(crate) payload_bytes: u64,
    /// It has batches that we stamped before the clock was set.
    is_unvouched: bool,
    columns: Columns,
}

/// Memory for closing, kept from group to group.
#[derive(Debug, Default)]
struct Columns {
    batches: BatchWriter,
    envelopes: EnvelopeWriter,
    /// The number in the body of each envelope, or [`NONE`].
    numbers: Vec<u32>,
    /// Envelopes in the order of their numbers.
    named: Vec<u32>,
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
        self.arena.len()
            + self.records.len() * RECORD_OVERHEAD_BYTES
            + self.raw.len()
            + self.envelopes.bytes()
            + self.envelopes.used() * RECORD_OVERHEAD_BYTES
            + self.state.len()
            + self.bound.len()
    }

    pub(crate) fn is_unvouched(&self) -> bool {
        self.is_unvouched
    }

    pub(crate) fn offsets(&self) -> u32 {
        self.offsets
    }

    /// Whether so many offsets still fit.
    pub(crate) fn has_offsets(&self, count: u32) -> bool {
        self.offsets.saturating_add(count) <= GROUP_OFFSETS_MAX
    }

    /// The number of an envelope, which the group uses from now on.
    pub(crate) fn envelope(&mut self, envelope: EnvelopeView<'_>) -> u32 {
        match self.envelope_refs.entry(envelope.id()) {
            hashbrown::hash_map::Entry::Occupied(known) => {
                self.envelopes.mark(*known.get());
                *known.get()
            }
            hashbrown::hash_map::Entry::Vacant(free) => *free.insert(self.envelopes.push(envelope)),
        }
    }

    /// Nothing uses the envelopes of a group that is otherwise empty, if they take more than `bytes_max`.
    pub(crate) fn drop_left_over(&mut self, bytes_max: usize) {
        debug_assert!(self.is_empty(), "records refer to the envelopes");
        if self.envelopes.bytes() + self.envelopes.used() * RECORD_OVERHEAD_BYTES > bytes_max {
            self.begin_envelopes();
        }
    }

    fn begin_envelopes(&mut self) {
        if self.envelopes.begin() {
            self.envelope_refs.clear();
        }
    }

    /// What one envelope takes unpacked.
    pub(crate) fn envelope_bytes(&self, envelope: u32) -> usize {
        self.envelopes.encoded_bytes(envelope).map_or(0, |bytes| bytes + RECORD_OVERHEAD_BYTES)
    }

    pub(crate) fn has_envelope(&self, envelope: u32) -> bool {
        self.envelopes.is_used(envelope)
    }

    /// Appends one record to the stream's batch. The caller has checked that it fits.
    #[inline]
    pub(crate) fn push_record(
        &mut self,
        local: u32,
        stream: &mut Stream,
        envelope: u32,
        timestamp_ms: i64,
        marks: Marks,
        value: Option<&[u8]>,
    ) {
        let open = stream.last_draft != NONE && {
            let last = &self.drafts[stream.last_draft as usize];
            matches!(last.kind, DraftKind::Built) && last.marks == marks
        };
        if !open {
            self.push_draft(local, stream, timestamp_ms, DraftKind::Built, marks);
        }
        let draft = &mut self.drafts[stream.last_draft as usize];
        // A batch has one time of append.
        let timestamp_ms = if marks.append_time { draft.base_timestamp_ms } else { timestamp_ms };
        let record = self.records.len() as u32;
        let length = value.map_or(0, |value| value.len() as u32);
        self.records.push(Record {
            timestamp_ms,
            envelope,
            start: self.arena.len() as u32,
            length_plus_one: length + u32::from(value.is_some()),
        });
        self.arena.extend_from_slice(value.unwrap_or(&[]));
        self.payload_bytes += u64::from(length);
        draft.bytes += length;
        draft.count += 1;
        draft.max_timestamp_ms = draft.max_timestamp_ms.max(timestamp_ms);
        // The last run of all is this batch's: make it longer. A producer's batch in between has a run of its own.
        let last = self.runs.len() as u32;
        if draft.last_run != NONE && draft.last_run + 1 == last {
            self.runs[draft.last_run as usize].end = record + 1;
        } else {
            push_run(&mut self.runs, draft, record, record + 1);
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
        self.push_draft(local, stream, batch.base_timestamp_ms, kind, batch.marks);
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
        marks: Marks,
    ) {
        self.is_unvouched |= marks.unvouched;
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
            marks,
        });
        if stream.last_draft == NONE {
            let id = stream.definition.stream;
            self.touched.push(Touched { stream: id, local, first_draft: draft });
        } else {
            self.drafts[stream.last_draft as usize].next = draft;
        }
        stream.last_draft = draft;
    }

    /// Where entries that are neither envelopes nor batches go.
    pub(crate) fn state(&mut self) -> &mut Vec<u8> {
        &mut self.state
    }

    /// Where events go that are taken back with the records.
    pub(crate) fn bound(&mut self) -> &mut Vec<u8> {
        debug_assert!(!self.drafts.is_empty(), "there is no record that it could go with");
        &mut self.bound
    }

    /// Puts the group together as it goes into `segment`. Changes nothing that a second call would miss.
    pub(crate) fn close(&mut self, streams: &StreamTable, segment: u64, closed: &mut Closed) {
        closed.directory.clear();
        closed.body.clear();
        closed.raw.clear();
        closed.has_state = !self.state.is_empty() || !self.bound.is_empty();
        closed.body.reserve(self.bytes() + self.drafts.len() * 16 + 64);
        self.touched.sort_unstable_by_key(|touched| touched.stream);
        for stream in self.touched.iter().map(|touched| streams.get(touched.local)) {
            if stream.defined_in != segment {
                put_definition(&mut closed.body, &stream.definition);
                closed.has_state = true;
            }
        }
        closed.body.extend_from_slice(&self.state);
        closed.body.extend_from_slice(&self.bound);
        if self.drafts.is_empty() {
            return;
        }
        let mut columns = std::mem::take(&mut self.columns);
        let values_bytes = self.fill_columns(&mut columns, closed);
        let body = &mut closed.body;
        if !columns.named.is_empty() {
            body.push(ENVELOPES);
            columns.envelopes.put(body, &self.envelopes, &columns.named);
        }
        body.push(BATCHES);
        columns.batches.put(body, values_bytes);
        for touched in &self.touched {
            let mut next = touched.first_draft;
            while next != NONE {
                let draft = &self.drafts[next as usize];
                self.copy_values(draft, body);
                next = draft.next;
            }
        }
        self.columns = columns;
    }

    /// Fills all columns but that of the values, whose size it returns, and the directory and raw section.
    fn fill_columns(&self, columns: &mut Columns, closed: &mut Closed) -> usize {
        columns.batches.clear();
        columns.named.clear();
        columns.numbers.clear();
        columns.numbers.resize(self.envelopes.len(), NONE);
        let mut directory = DirectoryWriter::default();
        let mut values_bytes = 0;
        for touched in &self.touched {
            let mut next = touched.first_draft;
            while next != NONE {
                let draft = &self.drafts[next as usize];
                directory.push(draft.entry(touched.stream), &mut closed.directory);
                let (base_ms, max_ms) = (draft.base_timestamp_ms, draft.max_timestamp_ms);
                match &draft.kind {
                    DraftKind::Built => {
                        columns.batches.push_built(draft.count, base_ms, max_ms, draft.marks);
                        self.fill_records(draft, columns);
                        values_bytes += draft.bytes as usize;
                    }
                    DraftKind::Plain(fields) => {
                        closed.has_state = true;
                        let (marks, bytes) = (draft.marks, draft.bytes);
                        columns.batches.push_producer(fields, false, marks, base_ms, max_ms, bytes);
                        values_bytes += draft.bytes as usize;
                    }
                    DraftKind::Packed(fields) => {
                        closed.has_state = true;
                        let (marks, bytes) = (draft.marks, draft.bytes);
                        columns.batches.push_producer(fields, true, marks, base_ms, max_ms, bytes);
                        let run = &self.runs[draft.first_run as usize];
                        let bytes = &self.raw[run.start as usize..run.end as usize];
                        closed.raw.extend_from_slice(bytes);
                    }
                }
                next = draft.next;
            }
        }
        values_bytes
    }

    fn fill_records(&self, draft: &Draft, columns: &mut Columns) {
        let mut before_ms = None;
        let mut next = draft.first_run;
        while next != NONE {
            let run = &self.runs[next as usize];
            for record in &self.records[run.start as usize..run.end as usize] {
                if let Some(before_ms) = before_ms {
                    columns.batches.push_timestamp(record.timestamp_ms, before_ms);
                }
                before_ms = Some(record.timestamp_ms);
                let number = &mut columns.numbers[record.envelope as usize];
                let known = (*number != NONE).then_some(*number);
                if known.is_none() {
                    columns.named.push(record.envelope);
                }
                *number = columns.batches.push_envelope(known);
                columns.batches.push_length(record.length_plus_one);
            }
            next = run.next;
        }
    }

    fn copy_values(&self, draft: &Draft, out: &mut Vec<u8>) {
        if matches!(draft.kind, DraftKind::Packed(_)) {
            return;
        }
        let mut next = draft.first_run;
        while next != NONE {
            let run = &self.runs[next as usize];
            let (start, end) = if matches!(draft.kind, DraftKind::Built) {
                // Nothing but this batch's records was appended between the first and the last of a run.
                let first = &self.records[run.start as usize];
                let last = &self.records[run.end as usize - 1];
                (first.start, last.start + last.length_plus_one.saturating_sub(1))
            } else {
                (run.start, run.end)
            };
            out.extend_from_slice(&self.arena[start as usize..end as usize]);
            next = run.next;
        }
    }

    /// Streams with batches in the group, by stream id once the group was closed.
    pub(crate) fn touched(&self) -> &[Touched] {
        &self.touched
    }

    /// Calls back for each batch of a stream: base, offsets covered, highest timestamp, whether we stamped it before
    /// the clock was set, bytes.
    pub(crate) fn for_each_batch(
        &self,
        touched: &Touched,
        mut visit: impl FnMut(u64, u32, i64, bool, u32),
    ) {
        let mut next = touched.first_draft;
        while next != NONE {
            let draft = &self.drafts[next as usize];
            let unvouched = draft.marks.unvouched;
            visit(draft.base, draft.count, draft.max_timestamp_ms, unvouched, draft.bytes);
            next = draft.next;
        }
    }

    /// The first offset that the group has of a stream.
    pub(crate) fn first_base(&self, touched: &Touched) -> Option<u64> {
        self.drafts.get(touched.first_draft as usize).map(|draft| draft.base)
    }

    /// Forgets the group: it is durable.
    pub(crate) fn clear(&mut self) {
        self.clear_records();
        self.state.clear();
    }

    /// Forgets the records and batches, keeps everything else.
    pub(crate) fn clear_records(&mut self) {
        self.arena.clear();
        self.arena.shrink_to(ARENA_KEPT_BYTES);
        self.bound.clear();
        self.records.clear();
        self.records.shrink_to(RECORDS_KEPT);
        self.raw.clear();
        self.raw.shrink_to(ARENA_KEPT_BYTES);
        self.runs.clear();
        self.runs.shrink_to(RECORDS_KEPT);
        self.drafts.clear();
        self.drafts.shrink_to(RECORDS_KEPT);
        self.touched.clear();
        self.begin_envelopes();
        self.producers.clear();
        self.offsets = 0;
        self.payload_bytes = 0;
        self.is_unvouched = false;
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

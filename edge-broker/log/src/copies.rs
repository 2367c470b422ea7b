//! Where records stand that were copied forward: one entry for each stretch of a stream in a copied group.
//!
//! A stream is read from its copies up to its *home* (`StreamShared::home`), and from where its records were
//! written first from there on. So a copy that exists beside its original is never read, and an original whose
//! records were cleaned is not either.
//!
//! - Limits: [`CopyTable::len`] is kept below [`runs_max`] by who copies; an entry takes some 60 bytes. The whole
//!   table is in every checkpoint, so that nothing is read to have it at hand after a start.
//! - Runs of a stream do not overlap. A newer one cuts what it covers out of older ones: what is left of those
//!   was judged not worth copying, and goes with its segment.

use std::collections::BTreeMap;

use edge_wire::{Offset, StreamId};

use crate::decoded::{DecodedGroup, GroupKind};
use crate::position::JournalPosition;

/// Most runs of a lane whatever its segments, some 4 MiB of memory.
const RUNS_MAX: usize = 64 << 10;
/// Bytes of a segment for each run: so the table takes a sixteenth of a segment in its checkpoint, at most.
const SEGMENT_BYTES_PER_RUN: usize = 256;

/// Most runs of a lane.
pub(crate) fn runs_max(segment_bytes: u32) -> usize {
    (segment_bytes as usize / SEGMENT_BYTES_PER_RUN).min(RUNS_MAX)
}

/// A stretch of a stream's offsets whose live records stand in one copied group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CopyRun {
    /// First offset behind it.
    pub(crate) end: Offset,
    /// The group.
    pub(crate) at: JournalPosition,
    /// Bytes of the records, unpacked.
    pub(crate) bytes: u32,
    /// Its share of the group's bytes on disk.
    pub(crate) frame_bytes: u32,
    /// Highest timestamp, ms.
    pub(crate) max_ms: i64,
    /// No record in it is older than another of the same key below this offset. 0 = not known.
    pub(crate) clean_to: Offset,
    /// Something in it was stamped while the clock was not set, and is not corrected on disk.
    pub(crate) unvouched: bool,
}

/// The runs of a copied group, none of another: batches that touch are one run.
pub(crate) fn copied_runs(
    group: &DecodedGroup,
    frame_bytes: u64,
) -> Vec<(StreamId, Offset, CopyRun)> {
    let mut runs: Vec<(StreamId, Offset, CopyRun)> = Vec::new();
    if group.header().kind != GroupKind::Copied {
        return runs;
    }
    for batch in group.batches() {
        let bytes = batch.stored_bytes() as u32;
        if let Some((stream, _, run)) = runs.last_mut()
            && *stream == batch.stream()
            && run.end == batch.base_offset()
        {
            run.end = batch.end_offset();
            run.bytes = run.bytes.saturating_add(bytes);
            run.max_ms = run.max_ms.max(batch.max_timestamp_ms());
            run.unvouched |= batch.is_unvouched();
            continue;
        }
        let run = CopyRun {
            end: batch.end_offset(),
            at: group.position(),
            bytes,
            frame_bytes: 0,
            max_ms: batch.max_timestamp_ms(),
            clean_to: Offset(0),
            unvouched: batch.is_unvouched(),
        };
        runs.push((batch.stream(), batch.base_offset(), run));
    }
    let whole: u64 = runs.iter().map(|(_, _, run)| u64::from(run.bytes)).sum();
    for (_, _, run) in &mut runs {
        run.frame_bytes = (frame_bytes * u64::from(run.bytes) / whole.max(1)) as u32;
    }
    runs
}

/// All runs of a lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopyTable {
    streams: BTreeMap<StreamId, BTreeMap<Offset, CopyRun>>,
    len: usize,
    frame_bytes: u64,
}

impl CopyRun {
    /// The highest timestamp that a record in it may have, corrected by at most `shift_ms_max`, ms.
    pub(crate) fn latest_ms(&self, shift_ms_max: i64) -> i64 {
        if self.unvouched { self.max_ms.saturating_add(shift_ms_max) } else { self.max_ms }
    }
}

impl CopyTable {
    /// Adds a run that is newer than all that are known.
    pub(crate) fn insert(&mut self, stream: StreamId, base: Offset, run: CopyRun) {
        if base >= run.end {
            return;
        }
        let before = self.range(stream, run.end, base);
        for (known_base, known) in before {
            self.remove(stream, known_base);
            if known_base < base {
                self.put(stream, known_base, part(known_base, &known, known_base, base));
            }
            if known.end > run.end {
                self.put(stream, run.end, part(known_base, &known, run.end, known.end));
            }
        }
        self.put(stream, base, run);
    }

    /// The same, as two runs where it reaches over the stream's home: what is beyond is not read yet. No batch
    /// reaches over it.
    pub(crate) fn insert_at_home(
        &mut self,
        stream: StreamId,
        base: Offset,
        run: CopyRun,
        home: Offset,
    ) {
        if base < home && home < run.end {
            self.insert(stream, base, part(base, &run, base, home));
            self.insert(stream, home, part(base, &run, home, run.end));
        } else {
            self.insert(stream, base, run);
        }
    }

    /// Runs that begin before `until` and end behind `from`.
    fn range(&self, stream: StreamId, until: Offset, from: Offset) -> Vec<(Offset, CopyRun)> {
        let Some(runs) = self.streams.get(&stream) else { return Vec::new() };
        let known = runs.range(..until).rev().take_while(|(_, run)| run.end > from);
        known.map(|(base, run)| (*base, *run)).collect()
    }

    /// The first run that ends behind `offset`, with its base.
    pub(crate) fn at_or_after(
        &self,
        stream: StreamId,
        offset: Offset,
    ) -> Option<(Offset, CopyRun)> {
        let runs = self.streams.get(&stream)?;
        let holder = runs.range(..=offset).next_back().filter(|(_, run)| run.end > offset);
        let found = holder.or_else(|| runs.range(offset..).next());
        found.map(|(base, run)| (*base, *run))
    }

    /// The run that begins there holds what was stamped while the clock was not set.
    pub(crate) fn set_unvouched(&mut self, stream: StreamId, base: Offset) {
        if let Some(run) = self.streams.get_mut(&stream).and_then(|runs| runs.get_mut(&base)) {
            run.unvouched = true;
        }
    }

    /// The run that holds `offset`.
    pub(crate) fn holder(&self, stream: StreamId, offset: Offset) -> Option<CopyRun> {
        self.at_or_after(stream, offset).filter(|(base, _)| *base <= offset).map(|(_, run)| run)
    }

    /// The parts of a range that nothing is left of once its originals are gone. Only below `home` are copies read.
    pub(crate) fn uncovered(
        &self,
        stream: StreamId,
        (from, to): (Offset, Offset),
        home: Offset,
    ) -> Vec<(Offset, Offset)> {
        let (mut parts, mut next) = (Vec::new(), from);
        while next < to {
            let run = self.at_or_after(stream, next).filter(|(base, _)| *base < to.min(home));
            let Some((base, run)) = run.filter(|_| next < home) else {
                parts.push((next, to));
                break;
            };
            if next < base {
                parts.push((next, base));
            }
            next = run.end.min(home);
        }
        parts
    }

    /// The runs of a stream, in order.
    pub(crate) fn of(&self, stream: StreamId) -> impl Iterator<Item = (Offset, &CopyRun)> {
        self.streams.get(&stream).into_iter().flatten().map(|(base, run)| (*base, run))
    }

    /// All runs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (StreamId, Offset, &CopyRun)> {
        let streams = self.streams.iter();
        streams.flat_map(|(stream, runs)| runs.iter().map(|(base, run)| (*stream, *base, run)))
    }

    /// Streams from a number on that have runs.
    pub(crate) fn streams_from(&self, from: StreamId) -> impl Iterator<Item = StreamId> {
        self.streams.range(from..).map(|(stream, _)| *stream)
    }

    /// Streams that have runs.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.streams.keys().copied()
    }

    /// Forgets what lies below `offset`: it fell out of the log.
    pub(crate) fn forget_below(&mut self, stream: StreamId, offset: Offset) {
        for (base, run) in self.range(stream, offset, Offset(0)) {
            if run.end <= offset {
                self.remove(stream, base);
            }
        }
    }

    /// Forgets one run.
    pub(crate) fn forget(&mut self, stream: StreamId, base: Offset) {
        self.remove(stream, base);
    }

    /// Forgets the runs of a stream.
    pub(crate) fn forget_stream(&mut self, stream: StreamId) {
        self.forget_below(stream, Offset(u64::MAX));
    }

    /// Forgets the runs for which `keep` is false, and returns them.
    pub(crate) fn retain(
        &mut self,
        mut keep: impl FnMut(StreamId, Offset, &CopyRun) -> bool,
    ) -> Vec<(StreamId, Offset, CopyRun)> {
        let gone: Vec<_> = self
            .iter()
            .filter(|(stream, base, run)| !keep(*stream, *base, run))
            .map(|(stream, base, run)| (stream, base, *run))
            .collect();
        for (stream, base, _) in &gone {
            self.remove(*stream, *base);
        }
        gone
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on disk of what the runs hold.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    fn put(&mut self, stream: StreamId, base: Offset, run: CopyRun) {
        self.len += 1;
        self.frame_bytes += u64::from(run.frame_bytes);
        let before = self.streams.entry(stream).or_default().insert(base, run);
        debug_assert!(before.is_none(), "two runs at one offset");
    }

    fn remove(&mut self, stream: StreamId, base: Offset) {
        let Some(runs) = self.streams.get_mut(&stream) else { return };
        if let Some(run) = runs.remove(&base) {
            self.len -= 1;
            self.frame_bytes -= u64::from(run.frame_bytes);
        }
        if runs.is_empty() {
            self.streams.remove(&stream);
        }
    }
}

/// The part `from..to` of a run; its bytes are a guess.
fn part(base: Offset, run: &CopyRun, from: Offset, to: Offset) -> CopyRun {
    let (whole, kept) = (run.end.0 - base.0, to.0 - from.0);
    let share = |bytes: u32| (u64::from(bytes).saturating_mul(kept) / whole.max(1)) as u32;
    CopyRun { end: to, bytes: share(run.bytes), frame_bytes: share(run.frame_bytes), ..*run }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(end: u64, segment: u64) -> CopyRun {
        CopyRun {
            end: Offset(end),
            at: JournalPosition { segment, byte: 512 },
            bytes: 10,
            frame_bytes: 20,
            max_ms: 0,
            clean_to: Offset(0),
            unvouched: false,
        }
    }

    fn runs(table: &CopyTable) -> Vec<(u64, u64, u32, u32)> {
        let runs = table.of(StreamId(7));
        runs.map(|(base, run)| (base.0, run.end.0, run.bytes, run.frame_bytes)).collect()
    }

    #[test]
    fn the_table_takes_a_share_of_a_segment() {
        for (segment_bytes, wanted) in [(16 << 10, 64), (1 << 20, 4096), (1 << 30, 64 << 10)] {
            assert_eq!(runs_max(segment_bytes), wanted);
        }
    }

    #[test]
    fn a_newer_run_leaves_of_an_older_one_what_it_does_not_cover_and_its_share_of_the_bytes() {
        let mut table = CopyTable::default();
        table.insert(StreamId(7), Offset(10), run(20, 1));
        table.insert(StreamId(7), Offset(13), run(18, 2));
        assert_eq!(runs(&table), [(10, 13, 3, 6), (13, 18, 10, 20), (18, 20, 2, 4)]);
        assert_eq!(table.frame_bytes(), 30);
        table.insert(StreamId(7), Offset(30), run(30, 3));
        assert_eq!(table.len(), 3, "an empty run is none");
    }

    #[test]
    fn a_run_over_the_home_is_two() {
        for (home, wanted) in [
            (5, vec![(10, 20, 10, 20)]),
            (10, vec![(10, 20, 10, 20)]),
            (14, vec![(10, 14, 4, 8), (14, 20, 6, 12)]),
            (20, vec![(10, 20, 10, 20)]),
            (25, vec![(10, 20, 10, 20)]),
        ] {
            let mut table = CopyTable::default();
            table.insert_at_home(StreamId(7), Offset(10), run(20, 1), Offset(home));
            assert_eq!(runs(&table), wanted, "home {home}");
        }
    }

    #[test]
    fn what_no_copy_below_the_home_holds_is_uncovered() {
        let mut table = CopyTable::default();
        for (base, end) in [(10, 20), (30, 40)] {
            table.insert(StreamId(7), Offset(base), run(end, 1));
        }
        for ((from, to), home, wanted) in [
            ((0, 50), 100, vec![(0, 10), (20, 30), (40, 50)]),
            ((10, 20), 100, vec![]),
            ((12, 35), 100, vec![(20, 30)]),
            ((20, 30), 100, vec![(20, 30)]),
            ((5, 5), 100, vec![]),
            ((0, 50), 15, vec![(0, 10), (15, 50)]),
            ((0, 50), 20, vec![(0, 10), (20, 50)]),
            ((0, 50), 30, vec![(0, 10), (20, 50)]),
            ((0, 10), 10, vec![(0, 10)]),
            ((15, 50), 0, vec![(15, 50)]),
        ] {
            let parts = table.uncovered(StreamId(7), (Offset(from), Offset(to)), Offset(home));
            let parts: Vec<_> = parts.iter().map(|(from, to)| (from.0, to.0)).collect();
            assert_eq!(parts, wanted, "{from}..{to}, home {home}");
        }
    }

    #[test]
    fn streams_are_listed_until_their_last_run_goes() {
        let mut table = CopyTable::default();
        for stream in [3, 7, 9] {
            table.insert(StreamId(stream), Offset(10), run(20, 1));
        }
        let from = |table: &CopyTable, from| {
            table.streams_from(StreamId(from)).map(|stream| stream.0).collect::<Vec<_>>()
        };
        assert_eq!(from(&table, 7), [7, 9]);
        table.forget(StreamId(7), Offset(11));
        assert_eq!(table.len(), 3, "no run begins there");
        table.forget(StreamId(7), Offset(10));
        assert_eq!(from(&table, 0), [3, 9]);
        assert_eq!((table.len(), table.frame_bytes()), (2, 40));
    }

    #[test]
    fn what_a_clock_that_was_not_set_stamped_may_be_later() {
        let plain = CopyRun { max_ms: 1000, ..run(20, 1) };
        assert_eq!(plain.latest_ms(50), 1000);
        assert_eq!(CopyRun { unvouched: true, ..plain }.latest_ms(50), 1050);
        let mut table = CopyTable::default();
        table.insert(StreamId(7), Offset(10), plain);
        table.set_unvouched(StreamId(7), Offset(10));
        assert!(table.holder(StreamId(7), Offset(19)).is_some_and(|run| run.unvouched));
        assert!(table.holder(StreamId(7), Offset(20)).is_none());
    }

    proptest! {
        /// Against one entry for each offset.
        #[test]
        fn the_newest_run_holds_an_offset(
            runs in prop::collection::vec((0u64..60, 1u64..20), 0..30),
            cut in 0u64..60,
        ) {
            let (mut table, mut plain) = (CopyTable::default(), [0u64; 100]);
            for (index, (base, len)) in runs.iter().enumerate() {
                let segment = index as u64 + 1;
                table.insert(StreamId(7), Offset(*base), run(base + len, segment));
                plain[*base as usize..(base + len) as usize].fill(segment);
            }
            let held = |table: &CopyTable, offset: u64| {
                table.holder(StreamId(7), Offset(offset)).map_or(0, |run| run.at.segment)
            };
            for (offset, segment) in (0..).zip(&plain) {
                prop_assert_eq!(held(&table, offset), *segment);
                let next = (offset..100).find(|at| plain[*at as usize] != 0);
                let found = table.at_or_after(StreamId(7), Offset(offset));
                prop_assert_eq!(found.map(|(base, _)| base.0.max(offset)), next);
            }
            prop_assert_eq!(table.len(), table.iter().count());
            let bytes: u64 = table.iter().map(|(_, _, run)| u64::from(run.frame_bytes)).sum();
            prop_assert_eq!(table.frame_bytes(), bytes);
            table.forget_below(StreamId(7), Offset(cut));
            for offset in cut..100 {
                prop_assert_eq!(held(&table, offset), plain[offset as usize]);
            }
            table.retain(|_, _, run| run.at.segment % 2 == 0);
            for offset in cut..100 {
                let segment = plain[offset as usize];
                prop_assert_eq!(held(&table, offset), if segment % 2 == 0 { segment } else { 0 });
            }
            table.forget_stream(StreamId(7));
            prop_assert_eq!((table.len(), table.frame_bytes()), (0, 0));
        }
    }
}

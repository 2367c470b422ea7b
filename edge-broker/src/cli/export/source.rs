//! Where records come from: a lane of a data directory, or one segment file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use edge_engine::status::{Status, StoredValues, inspect};
use edge_engine::tools::SYSTEM_LANE;
use edge_log::inspect::{SegmentReader, VerifyOptions, verify_segment};
use edge_log::{BatchRef, Gap, Lane, LaneReader, OpenError, ReadError, Recovery, Storage};
use edge_wire::{Offset, StreamId};

use crate::card_args::ExportArgs;
use crate::cli::Failure;
use crate::cli::card::{Card, unreadable};
use crate::cli::output::tell;
use crate::cli::progress::Progress;
use crate::cli::verify::beside;

/// Decoded groups that are kept: one pass needs few.
const CACHE_BYTES: usize = 1 << 20;
/// How often a lane that a gateway writes to is looked at until it holds still.
const LOOKS_MAX: usize = 8;

/// A stream that is to be read.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) topic: String,
    pub(super) topic_id: [u8; 16],
    pub(super) partition: u32,
    pub(super) stream: StreamId,
    /// Index of its lane.
    lane: usize,
    /// First offset kept, and the first behind the last.
    pub(super) start: u64,
    pub(super) end: u64,
}

#[cfg(test)]
impl Part {
    pub(super) fn for_test(topic: &str, partition: u32, stream: StreamId) -> Self {
        let (topic, topic_id) = (topic.to_owned(), [0; 16]);
        Self { topic, topic_id, partition, stream, lane: 0, start: 0, end: 0 }
    }
}

enum Reader {
    Lane(LaneReader),
    Segment(SegmentReader),
}

/// A range that is told as lost, or thinned.
struct Told {
    from: u64,
    to: u64,
    reason: String,
    kind: ToldKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ToldKind {
    Damage,
    /// A rule of the lane took all of it.
    Dropped,
    /// A rule of the lane took part of it.
    Thinned,
}

impl Told {
    fn new(gap: &Gap) -> Self {
        let kind = match gap.reason {
            reason if reason.is_thinning() => ToldKind::Thinned,
            reason if reason.is_policy() => ToldKind::Dropped,
            _ => ToldKind::Damage,
        };
        Self { from: gap.from.0, to: gap.to.0, reason: gap.reason.to_string(), kind }
    }
}

/// Why records are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// They are lost.
    Damage(String),
    /// A rule left them out: it is named.
    Rule(String),
}

/// What nothing tells of that lies below a stream's home: its newest of each key is kept, or it fell out of a copy.
const CLEANED: &str = "cleaned";

/// What is read from.
pub(super) struct Source {
    readers: Vec<Reader>,
    parts: Vec<Part>,
    told: BTreeMap<StreamId, Vec<Told>>,
    /// A gateway runs on it: what it recycles while we read is not damage.
    running: Option<Card>,
    shown: String,
}

impl Source {
    pub(super) fn open(args: &ExportArgs) -> Result<Self, Failure> {
        match &args.segment {
            Some(file) => Self::open_segment(file),
            None => Self::open_card(args),
        }
    }

    fn open_segment(file: &std::path::Path) -> Result<Self, Failure> {
        let (storage, name) = beside(file)?;
        let failed = |error| unreadable(file.parent().unwrap_or(file), &error);
        let mut progress = Progress::new(file.display().to_string());
        let report = verify_segment(&storage, &name, &VerifyOptions::default(), &mut progress)
            .map_err(failed)?;
        let reader = SegmentReader::open(&storage, &name).map_err(failed)?;
        let mut parts = Vec::new();
        for stream in report.streams.iter().filter(|stream| stream.first < stream.end) {
            parts.push(Part {
                topic: stream.topic.clone().unwrap_or_default(),
                topic_id: [0; 16],
                partition: stream.partition.unwrap_or_default(),
                stream: StreamId(stream.stream),
                lane: 0,
                start: stream.first,
                end: stream.end,
            });
        }
        let mut told: BTreeMap<StreamId, Vec<Told>> = BTreeMap::new();
        for gap in &report.gaps {
            told.entry(StreamId(gap.range.stream)).or_default().push(Told {
                from: gap.range.from,
                to: gap.range.to,
                reason: gap.reason.clone(),
                kind: if gap.policy { ToldKind::Dropped } else { ToldKind::Damage },
            });
        }
        Ok(Self {
            readers: vec![Reader::Segment(reader)],
            parts,
            told,
            running: None,
            shown: file.display().to_string(),
        })
    }

    fn open_card(args: &ExportArgs) -> Result<Self, Failure> {
        let card = Card::open(&args.data_dir)?;
        let shown = card.path.display().to_string();
        let running = card.is_running()?;
        // Without its catalogue there is what the lanes say of themselves.
        let catalogue = inspect(&card.storage, &card.path).ok();
        let mut source = Self {
            readers: Vec::new(),
            parts: Vec::new(),
            told: BTreeMap::new(),
            running: None,
            shown,
        };
        for name in card.lanes()? {
            // The state of the gateway itself is no topic.
            if name == SYSTEM_LANE {
                continue;
            }
            let (reader, recovery) = source.view(&card, &name, running)?;
            if let Some((_, stored)) = &catalogue {
                reader.set_boot_clocks(stored.boot_clocks().clone());
            }
            source.add_lane(reader, &recovery);
        }
        if let Some((status, stored)) = &catalogue {
            source.add_empty(status, stored);
        }
        if running {
            source.running = Some(card);
        }
        Ok(source)
    }

    /// A reader of a lane. Beside a running gateway it is looked at until no slot changed meanwhile.
    fn view(
        &self,
        card: &Card,
        name: &str,
        running: bool,
    ) -> Result<(LaneReader, Recovery), Failure> {
        let failed = |error: OpenError| match error {
            OpenError::Io { operation, path, source } => {
                Failure::Usage(format!("{}: {operation} {path} failed: {source}", self.shown))
            }
            // Written by a newer program.
            other => {
                Failure::Usage(format!("{}: {other}; use the program that wrote it", self.shown))
            }
        };
        let storage: Arc<dyn Storage> = Arc::new(card.storage.clone());
        let dir = format!("lanes/{name}");
        let mut looks = 0;
        loop {
            let before = running.then(|| heads(card, name));
            let found = Lane::view(storage.clone(), &dir, CACHE_BYTES).map_err(failed)?;
            looks += 1;
            if before.is_none_or(|before| before == heads(card, name)) || looks == LOOKS_MAX {
                return Ok(found);
            }
        }
    }

    fn add_lane(&mut self, reader: LaneReader, recovery: &Recovery) {
        let lane = self.readers.len();
        for stream in &recovery.streams {
            let definition = &stream.definition;
            self.parts.push(Part {
                topic: definition.topic.clone(),
                topic_id: definition.topic_id.0,
                partition: definition.partition.0,
                stream: definition.stream,
                lane,
                start: stream.log_start.0,
                end: stream.durable_end.0,
            });
        }
        for gap in &recovery.gaps {
            self.told.entry(gap.stream).or_default().push(Told::new(gap));
        }
        self.readers.push(Reader::Lane(reader));
    }

    /// Partitions that nothing was written to are known to the catalogue alone.
    fn add_empty(&mut self, status: &Status, stored: &StoredValues) {
        for told in &status.streams {
            let (Some(stream), Some(id)) = (told.stream, stored.topic_id(&told.topic)) else {
                continue;
            };
            if self.parts.iter().any(|part| part.stream == stream) {
                continue;
            }
            self.parts.push(Part {
                topic: told.topic.clone(),
                topic_id: id.0,
                partition: told.partition,
                stream,
                lane: 0,
                start: 0,
                end: 0,
            });
        }
    }

    /// The streams of a topic, by partition.
    pub(super) fn parts(&self, topic: &str, partition: Option<u32>) -> Result<Vec<Part>, Failure> {
        let mut of_topic: Vec<Part> =
            self.parts.iter().filter(|part| part.topic == topic).cloned().collect();
        if of_topic.is_empty() {
            let names: BTreeSet<&str> = self.parts.iter().map(|part| &*part.topic).collect();
            let names: Vec<&str> =
                names.into_iter().filter(|name| !name.is_empty()).take(20).collect();
            let there =
                if names.is_empty() { "no topic at all".to_owned() } else { names.join(", ") };
            return Err(Failure::Usage(format!(
                "{}: no topic {topic} here; there is {there}",
                self.shown
            )));
        }
        // A topic that was deleted and made again: stream ids only grow, the latest counts.
        let latest = of_topic.iter().max_by_key(|part| part.stream).map(|part| part.topic_id);
        if of_topic.iter().any(|part| Some(part.topic_id) != latest) {
            tell(&format!("{topic}: an older topic of the same name is left out"));
            of_topic.retain(|part| Some(part.topic_id) == latest);
        }
        of_topic.sort_by_key(|part| part.partition);
        if let Some(partition) = partition {
            of_topic.retain(|part| part.partition == partition);
            if of_topic.is_empty() {
                return Err(Failure::Usage(format!(
                    "{}: nothing of partition {partition} of {topic} here",
                    self.shown
                )));
            }
        }
        if let Some(status) = self.running.as_ref().and_then(Card::ask) {
            for part in &mut of_topic {
                let told = status.streams.iter().find(|stream| {
                    stream.topic == part.topic && stream.partition == part.partition
                });
                // Not beyond what is durable: frames may be seen before they are synced.
                if let Some(told) = told {
                    part.end = part.end.min(told.durable_end.max(part.start));
                }
            }
        }
        Ok(of_topic)
    }

    /// The first offset at or behind `from` whose record is not older.
    pub(super) fn offset_at_time(
        &self,
        part: &Part,
        from: u64,
        timestamp_ms: i64,
    ) -> Result<Option<u64>, Failure> {
        match &self.readers[part.lane] {
            Reader::Lane(reader) => {
                let found = reader.offset_at_time(part.stream, timestamp_ms);
                let found = found.map_err(|error| self.unreadable(&error))?;
                Ok(found.map(|(offset, _)| offset.0.max(from)))
            }
            Reader::Segment(_) => Ok(Some(from)),
        }
    }

    pub(super) fn read_batches(
        &self,
        part: &Part,
        from: u64,
        visit: &mut dyn FnMut(BatchRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        match &self.readers[part.lane] {
            Reader::Lane(reader) => reader
                .read_batches(part.stream, Offset(from), visit)
                .map(drop)
                .map_err(|error| self.unreadable(&error)),
            Reader::Segment(reader) => reader
                .read_batches(part.stream, Offset(from), visit)
                .map_err(|error| Failure::Usage(format!("{}: {error}", self.shown))),
        }
    }

    fn unreadable(&self, error: &ReadError) -> Failure {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        Failure::Usage(format!("{}: {error}{}", self.shown, cause.unwrap_or_default()))
    }

    /// Why parts of a range are not there, in order.
    pub(super) fn why_missing(&self, part: &Part, from: u64, to: u64) -> Vec<(u64, u64, Why)> {
        let mut why = Vec::new();
        let mut left = vec![(from, to)];
        let told = self.told.get(&part.stream).map_or(&[][..], Vec::as_slice);
        for gap in told.iter().filter(|gap| gap.kind == ToldKind::Damage) {
            for (from, to) in take(&mut left, gap.from, gap.to) {
                why.push((from, to, Why::Damage(gap.reason.clone())));
            }
        }
        for gap in told.iter().filter(|gap| gap.kind == ToldKind::Dropped) {
            for (from, to) in take(&mut left, gap.from, gap.to) {
                why.push((from, to, Why::Rule(gap.reason.clone())));
            }
        }
        // What was thinned or cleaned stands in no copy. What stands in one and is not read is damaged.
        let is_there = (from < to).then(|| self.left_out(part, from, to));
        for (clean_from, clean_to) in is_there.into_iter().flatten() {
            for (from, to) in take(&mut left, clean_from, clean_to) {
                self.by_rules(told, from, to, &mut why);
            }
        }
        for (from, to) in left {
            let text = match (&self.readers[part.lane], self.kept_from(part)) {
                (Reader::Segment(_), _) => "not in this segment",
                (_, Some(start)) if start >= to => "recycled while it was read",
                _ => "damaged; edge-broker verify says where",
            };
            why.push((from, to, Why::Damage(text.to_owned())));
        }
        why.sort_unstable_by_key(|(from, ..)| *from);
        why
    }

    /// Which rules left a range out that is not there and is not damaged.
    pub(super) fn rules(&self, part: &Part, from: u64, to: u64) -> Vec<(u64, u64, Why)> {
        let told = self.told.get(&part.stream).map_or(&[][..], Vec::as_slice);
        let mut why = Vec::new();
        self.by_rules(told, from, to, &mut why);
        why
    }

    fn by_rules(&self, told: &[Told], from: u64, to: u64, why: &mut Vec<(u64, u64, Why)>) {
        let mut left = vec![(from, to)];
        for gap in told.iter().filter(|gap| gap.kind != ToldKind::Damage) {
            for (from, to) in take(&mut left, gap.from, gap.to) {
                why.push((from, to, Why::Rule(gap.reason.clone())));
            }
        }
        why.extend(left.into_iter().map(|(from, to)| (from, to, Why::Rule(CLEANED.to_owned()))));
    }

    /// What a rule dropped of a range although it was not upstream.
    pub(super) fn dropped(&self, part: &Part, from: u64, to: u64) -> Vec<(u64, u64, Why)> {
        let told = self.told.get(&part.stream).map_or(&[][..], Vec::as_slice);
        let dropped = told.iter().filter(|gap| gap.kind == ToldKind::Dropped);
        let inside = dropped.map(|gap| (gap.from.max(from), gap.to.min(to), &gap.reason));
        inside
            .filter(|(from, to, _)| from < to)
            .map(|(from, to, reason)| (from, to, Why::Rule(reason.clone())))
            .collect()
    }

    fn left_out(&self, part: &Part, from: u64, to: u64) -> Vec<(u64, u64)> {
        match &self.readers[part.lane] {
            Reader::Lane(reader) => {
                let parts = reader.left_out(part.stream, Offset(from)..Offset(to));
                parts.into_iter().map(|part| (part.start.0, part.end.0)).collect()
            }
            Reader::Segment(_) => Vec::new(),
        }
    }

    /// Where a running gateway says the partition starts now.
    fn kept_from(&self, part: &Part) -> Option<u64> {
        let status = self.running.as_ref()?.ask()?;
        let mut streams = status.streams.iter();
        streams
            .find(|stream| stream.topic == part.topic && stream.partition == part.partition)
            .map(|stream| stream.log_start)
    }
}

/// Takes `from..to` out of ranges, and returns what of it was in them.
fn take(left: &mut Vec<(u64, u64)>, from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut taken = Vec::new();
    if from >= to {
        return taken;
    }
    let mut kept = Vec::with_capacity(left.len() + 1);
    for (start, end) in left.drain(..) {
        let (inside, behind) = (from.clamp(start, end), to.clamp(start, end));
        let parts = [(start, inside), (behind, end)];
        kept.extend(parts.into_iter().filter(|(from, to)| from < to));
        if inside < behind {
            taken.push((inside, behind));
        }
    }
    *left = kept;
    taken
}

/// The first bytes of all slots of a lane: a slot that was recycled has others.
fn heads(card: &Card, lane: &str) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    const HEAD_BYTES: usize = 128;
    let entries = std::fs::read_dir(card.path.join("lanes").join(lane));
    let slots = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    slots
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .map(|path| {
            let mut head = vec![0; HEAD_BYTES];
            let read = std::fs::File::open(&path).and_then(|file| file.read_exact_at(&mut head, 0));
            if read.is_err() {
                head.clear();
            }
            (path, head)
        })
        .collect()
}

//! Rot: bytes that were synced come back otherwise. Every start succeeds, what is lost is the groups that were hit and
//! is named, everything else is served as it was, and the lane goes on.
//!
//! What is allowed without a name is worked out here from what was hit, not asked of the log: only the last groups of
//! the journal, and only if neither their first sector nor, where they have more, their last one is left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_log::{GroupAt, JournalPosition};

use crate::crash::{go_on, live_streams, open};
use crate::disk::{Content, Disk, SECTOR_BYTES, Sector, Snapshot};
use crate::random::{Random, seed_of};
use crate::rig::guarded;
use crate::survive::{Damage, Policy};
use crate::verify::{Hurt, read_all, verify, verify_again};
use crate::workload::{Moment, Trace, Workload, all, wanted};

/// How much is to be proven.
#[derive(Clone, Debug)]
pub struct Options {
    /// Injections.
    pub injections: u64,
    /// What everything derives from.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Failures after which it ends.
    pub failures_max: usize,
    /// Only this load.
    pub load: Option<&'static str>,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "named after the places")]
pub enum Target {
    Data,
    FrameHead,
    LastFrame,
    Checkpoint,
    SegmentHeader,
    SideIndex,
    Anywhere,
}

/// How it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// One sector.
    Sector(Damage),
    /// A page of 4 KiB reads as zeros.
    ZeroPage,
    /// The file ends here.
    Truncate,
    /// The whole file reads as zeros.
    ZeroFile,
    /// The file is gone.
    Remove,
    /// The file is gone, and the head of the next segment is damaged.
    RemoveAndHead,
}

const TARGETS: [Target; 7] = [
    Target::Data,
    Target::FrameHead,
    Target::LastFrame,
    Target::Checkpoint,
    Target::SegmentHeader,
    Target::SideIndex,
    Target::Anywhere,
];

/// What was done and found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Injections.
    pub injections: u64,
    /// Of them those that hit a live group.
    pub hits: u64,
    /// Acknowledged records that are lost and named.
    pub named: u64,
    /// The same without a name, where nothing of the last groups was left.
    pub untold: u64,
    /// Injections with such records.
    pub untold_injections: u64,
}

/// What was done, by place and kind.
#[derive(Debug, Default)]
pub struct Report {
    /// One line for each.
    pub lines: BTreeMap<(Target, String), Line>,
    /// How to replay each failure, and what it is.
    pub failures: Vec<(String, String)>,
    /// How long it took.
    pub took: Duration,
}

/// A frame of the journal, and what it holds.
#[derive(Debug)]
struct Frame {
    path: String,
    start: u32,
    end: u32,
    sequence: u64,
    records: Vec<(u32, u64, u64)>,
    is_head: bool,
}

/// Which slot holds which segment.
fn slots(disk: &Snapshot) -> BTreeMap<u64, String> {
    let segments = disk.durable_names.keys().filter(|path| path.ends_with(".seg"));
    let live = segments.filter_map(|path| {
        let mut head = [0; 32];
        disk.durable(path)?.read(&mut head, 0);
        let is_live = head.starts_with(b"EDGESEG1") && head[13] == 1;
        let (_, sequence) = head.split_at(24);
        let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
        is_live.then(|| (sequence, path.clone()))
    });
    live.collect()
}

/// All frames of a lane that nothing happened to.
fn frames(load: &Workload, disk: &Snapshot, moment: &Moment) -> Result<Vec<Frame>, String> {
    let slots = slots(disk);
    let rig = open(load, &Disk::new(disk.clone(), load.sector_bytes), &live_streams(moment), 1)?;
    let reader = rig.reader();
    let mut frames = Vec::new();
    let mut at = JournalPosition::START;
    loop {
        match reader.group(at).map_err(|error| format!("reading the journal: {error:?}"))? {
            GroupAt::Group(group) => {
                let (position, next) = (group.position(), group.next());
                let path = slots.get(&position.segment).cloned();
                frames.push(Frame {
                    path: path.ok_or_else(|| format!("no slot holds {position}"))?,
                    start: position.byte,
                    end: next.byte,
                    sequence: position.segment,
                    records: group
                        .batches()
                        .map(|batch| {
                            (batch.stream().0, batch.base_offset().0, batch.end_offset().0)
                        })
                        .collect(),
                    is_head: position.byte == load.sector_bytes,
                });
                at = next;
            }
            GroupAt::Lost { next } => at = next,
            GroupAt::End => return Ok(frames),
        }
    }
}

/// Bytes of a file that are not what they were.
#[derive(Clone, Debug)]
struct Hit {
    path: String,
    from: u64,
    to: u64,
}

impl Hit {
    fn covers(&self, path: &str, from: u32, to: u32) -> bool {
        self.path == path && self.from < u64::from(to) && self.to > u64::from(from)
    }
}

struct Injection {
    image: Snapshot,
    hits: Vec<Hit>,
    target: Target,
    how: How,
}

fn inject(clean: &Snapshot, frames: &[Frame], random: &mut Random) -> Option<Injection> {
    let target = TARGETS[random.below(TARGETS.len() as u64) as usize];
    let how = match random.below(24) {
        0..5 => How::Sector(Damage::Flip),
        5..9 => How::Sector(Damage::Zero),
        9..12 => How::Sector(Damage::Garbage),
        12..16 => How::Sector(Damage::Repeat),
        16..18 => How::ZeroPage,
        18..20 => How::Truncate,
        20 => How::ZeroFile,
        21 => How::Remove,
        _ => How::RemoveAndHead,
    };
    let mut image = clean.clone();
    let pick = |frames: Vec<&Frame>, random: &mut Random| -> Option<(String, u64, u64)> {
        let frame = frames.get(random.below(frames.len() as u64) as usize)?;
        Some((frame.path.clone(), u64::from(frame.start), u64::from(frame.end)))
    };
    let suffix = |suffix: &str, random: &mut Random| -> Option<(String, u64, u64)> {
        let names: Vec<&String> = clean
            .durable_names
            .keys()
            .filter(|name| name.ends_with(suffix))
            .filter(|name| clean.durable(name).is_some_and(|file| !file.is_empty()))
            .collect();
        let path = (*names.get(random.below(names.len() as u64) as usize)?).clone();
        let len = clean.durable(&path)?.len();
        Some((path, 0, len))
    };
    let sector = SECTOR_BYTES as u64;
    let (path, from, to) = match target {
        Target::Data => pick(frames.iter().filter(|f| !f.records.is_empty()).collect(), random)?,
        Target::FrameHead => {
            let (path, from, _) = pick(frames.iter().collect(), random)?;
            (path, from, from + sector)
        }
        Target::LastFrame => pick(frames.last().into_iter().collect(), random)?,
        Target::Checkpoint => pick(frames.iter().filter(|f| f.is_head).collect(), random)?,
        Target::SegmentHeader => {
            let (path, ..) = suffix(".seg", random)?;
            (path, 0, sector)
        }
        Target::SideIndex => suffix(".idx", random)?,
        Target::Anywhere => suffix("", random)?,
    };
    let place = (from + random.below(to - from)) / sector;
    let len = clean.durable(&path)?.len();
    let mut hits = Vec::new();
    let mut hit =
        |path: &str, from: u64, to: u64| hits.push(Hit { path: path.to_owned(), from, to });
    match how {
        How::Sector(damage) => {
            image.damage(&path, |content| {
                let sector = damage.of(content, place as usize, random);
                content.put(place as usize, sector);
            });
            hit(&path, place * sector, (place + 1) * sector);
        }
        How::ZeroPage => {
            let first = place - place % 8;
            image.damage(&path, |content| {
                for place in first..(first + 8).min(len.div_ceil(sector)) {
                    content.put(place as usize, Sector::zero());
                }
            });
            hit(&path, first * sector, (first + 8) * sector);
        }
        How::Truncate => {
            let at = place * sector + random.below(2) * random.below(sector);
            image.damage(&path, |content| content.set_len(at.min(len)));
            hit(&path, at - at % sector, u64::MAX);
        }
        How::ZeroFile => {
            image.damage(&path, |content| {
                let mut zeros = Content::default();
                zeros.set_len(len);
                *content = zeros;
            });
            hit(&path, 0, u64::MAX);
        }
        How::Remove | How::RemoveAndHead => {
            Arc::make_mut(&mut image.durable_names).remove(&path);
            image.names = Arc::clone(&image.durable_names);
            hit(&path, 0, u64::MAX);
            if how == How::RemoveAndHead {
                let sequence = frames.iter().find(|frame| frame.path == path)?.sequence;
                let next =
                    frames.iter().find(|frame| frame.sequence > sequence && frame.is_head)?;
                let damage = Damage::ALL[random.below(4) as usize];
                let place = next.start as usize / SECTOR_BYTES;
                image.damage(&next.path, |content| {
                    let sector = damage.of(content, place, random);
                    content.put(place, sector);
                });
                hit(&next.path, u64::from(next.start), u64::from(next.start) + sector);
            }
        }
    }
    Some(Injection { image, hits, target, how })
}

/// Frames at the end of the journal of which nothing is left that could tell of them.
fn without_trace(frames: &[Frame], injection: &Injection) -> usize {
    let sector = SECTOR_BYTES as u32;
    let gone = |frame: &Frame| {
        let touched = |frame: &Frame, from, to| {
            injection.hits.iter().any(|hit| hit.covers(&frame.path, from, to))
        };
        let hit = |from, to| touched(frame, from, to);
        // One flipped bit leaves the rest of a header to be recognised by. A file that is cut off is missed.
        let erased = matches!(
            injection.how,
            How::Sector(Damage::Zero | Damage::Garbage | Damage::Repeat)
                | How::ZeroPage
                | How::ZeroFile
        );
        // Without a single header nobody knows which segment a slot held.
        let nameless = hit(0, sector)
            && frames
                .iter()
                .filter(|other| other.path == frame.path)
                .all(|other| touched(other, other.start, other.start + sector));
        let frame_is_gone =
            hit(frame.start, frame.start + sector) && hit(frame.end - sector, frame.end);
        erased && (frame_is_gone || nameless)
    };
    // A file that is gone cannot be missed if it was the newest.
    let removed = |frame: &Frame| {
        let removes = matches!(injection.how, How::Remove | How::RemoveAndHead);
        removes && injection.hits[0].path == frame.path
    };
    frames.iter().rev().take_while(|frame| gone(frame) || removed(frame)).count()
}

fn check(
    load: &Workload,
    trace: &Trace,
    moment: &Moment,
    frames: &[Frame],
    injection: &Injection,
    seed: u64,
) -> Result<Line, String> {
    let disk = Disk::new(injection.image.clone(), load.sector_bytes);
    let live = live_streams(moment);
    let mut rig = open(load, &disk, &live, 1 << 40)?;
    for stream in &live {
        read_all(&rig.reader(), *stream)?;
    }
    rig.maintain()?;
    let found = verify(&rig, &moment.mark, &trace.values, Hurt::Rot)?;
    let affected = |frame: &Frame| {
        injection.hits.iter().any(|hit| hit.covers(&frame.path, frame.start, frame.end))
    };
    let holds = |frame: &Frame, stream: u32, offset: u64| {
        frame.records.iter().any(|(of, from, to)| *of == stream && (*from..*to).contains(&offset))
    };
    let silent = without_trace(frames, injection);
    let (told, silent) = frames.split_at(frames.len() - silent);
    let mut line = Line { injections: 1, ..Line::default() };
    line.hits = u64::from(frames.iter().any(affected));
    for (stream, offset, named) in &found.missing {
        let at = |frames: &[Frame]| frames.iter().position(|frame| holds(frame, *stream, *offset));
        if at(frames).is_none() {
            // It was given up before, and what said so is lost.
            continue;
        }
        let hit = frames.iter().any(|frame| holds(frame, *stream, *offset) && affected(frame));
        if !hit {
            let gaps = rig.reader().gaps();
            return Err(format!(
                "stream {stream}: {offset} is lost and its group was not hit: {gaps:?}, {:?}",
                rig.recovery.start
            ));
        }
        if *named {
            line.named += 1;
        } else if at(silent).is_some() && at(told).is_none() {
            line.untold += 1;
        } else {
            let gaps = rig.reader().gaps();
            return Err(format!(
                "stream {stream}: {offset} is lost and nobody says so: {gaps:?}, {:?}",
                rig.recovery
            ));
        }
    }
    line.untold_injections = u64::from(line.untold > 0);
    let more = go_on(&mut rig, &live, &found, seed)?;
    drop(rig);
    let after = Policy::Drop.image(&disk.snapshot(), 0, 0);
    let rig = open(load, &Disk::new(after, load.sector_bytes), &live, 1 << 42)?;
    verify_again(&rig, &found, &more)?;
    let gaps = rig.reader().gaps();
    for (stream, offset, _) in found.missing.iter().filter(|(.., named)| *named) {
        let start = rig.reader().bounds(edge_wire::StreamId(*stream)).map_or(0, |b| b.log_start.0);
        if *offset >= start && !crate::verify::is_named(&gaps, *stream, *offset) {
            return Err(format!("stream {stream}: {offset} was named once and is forgotten"));
        }
    }
    Ok(line)
}

/// One injection, to be replayed alone: load, its seed, operation, number.
struct Case<'a>(&'a str, u64, usize, u64);

impl std::fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}:{}", self.0, self.1, self.2, self.3)
    }
}

/// Injections at one moment of a load.
const AT_ONE_MOMENT: u64 = 60;
/// Moments of one load.
const MOMENTS: u64 = 40;

/// Runs the proof.
#[must_use]
pub fn run(options: &Options) -> Report {
    let loads = wanted(options.load);
    let began = Instant::now();
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let total = Mutex::new(Report::default());
    let finished = || {
        done.load(Ordering::Relaxed) >= options.injections
            || failed.load(Ordering::Relaxed) as usize >= options.failures_max
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                while !finished() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let load = &loads[number as usize % loads.len()];
                    let seed = seed_of(&[options.seed, number, 0x407]);
                    let mut report = Report::default();
                    let recorded = guarded(|| load.record(seed));
                    match recorded {
                        Err(error) => {
                            report.failures.push((Case(load.name, seed, 0, 0).to_string(), error));
                        }
                        Ok(trace) => {
                            let mut random = Random(seed);
                            for _ in 0..MOMENTS.min(options.injections / AT_ONE_MOMENT / 9 + 1) {
                                let moment = random.below(trace.moments.len() as u64) as usize;
                                run_moment(load, &trace, seed, moment, None, &mut report);
                                if finished() {
                                    break;
                                }
                            }
                        }
                    }
                    let injections = report.lines.values().map(|line| line.injections).sum();
                    done.fetch_add(injections, Ordering::Relaxed);
                    failed.fetch_add(report.failures.len() as u64, Ordering::Relaxed);
                    total.lock().unwrap_or_else(PoisonError::into_inner).add(report);
                }
            });
        }
    });
    let mut report = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.took = began.elapsed();
    report
}

fn run_moment(
    load: &Workload,
    trace: &Trace,
    seed: u64,
    operation: usize,
    only: Option<u64>,
    report: &mut Report,
) {
    let moment = &trace.moments[operation];
    let clean = Policy::Drop.image(&moment.disk, 0, 0);
    let frames = match guarded(|| frames(load, &clean, moment)) {
        Ok(frames) => frames,
        Err(error) => {
            let case = Case(load.name, seed, operation, 0).to_string();
            report.failures.push((case, error));
            return;
        }
    };
    for number in only.map_or(0..AT_ONE_MOMENT, |only| only..only + 1) {
        let seed_here = seed_of(&[seed, operation as u64, number]);
        let injected = inject(&clean, &frames, &mut Random(seed_here));
        let Some(injection) = injected else { continue };
        let how = match injection.how {
            How::Sector(damage) => format!("{damage:?}"),
            how => format!("{how:?}"),
        };
        let line = report.lines.entry((injection.target, how.clone())).or_default();
        match guarded(|| check(load, trace, moment, &frames, &injection, seed_here)) {
            Ok(more) => line.add(more),
            Err(error) => {
                line.injections += 1;
                let case = Case(load.name, seed, operation, number).to_string();
                let what = format!("{:?} {how} {:?}: {error}", injection.target, injection.hits);
                report.failures.push((case, what));
            }
        }
    }
}

/// Replays one injection: `LOAD:SEED:OPERATION:NUMBER`.
///
/// # Errors
/// What is wrong in it, or with its name.
pub fn replay(case: &str) -> Result<(), String> {
    let parts: Vec<&str> = case.split(':').collect();
    let wrong = || format!("{case} is not LOAD:SEED:OPERATION:NUMBER");
    let [name, seed, operation, number] = parts[..] else { return Err(wrong()) };
    let loads = all();
    let load = loads.iter().find(|load| load.name == name).ok_or_else(wrong)?;
    let seed = seed.parse().map_err(|_| wrong())?;
    let operation: usize = operation.parse().map_err(|_| wrong())?;
    let number = number.parse().map_err(|_| wrong())?;
    let trace = load.record(seed)?;
    if operation >= trace.moments.len() {
        return Err(wrong());
    }
    let mut report = Report::default();
    run_moment(load, &trace, seed, operation, Some(number), &mut report);
    report.failures.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

impl Line {
    fn add(&mut self, other: Self) {
        self.injections += other.injections;
        self.hits += other.hits;
        self.named += other.named;
        self.untold += other.untold;
        self.untold_injections += other.untold_injections;
    }
}

impl Report {
    /// All lines together.
    #[must_use]
    pub fn sum(&self) -> Line {
        let mut sum = Line::default();
        self.lines.values().for_each(|line| sum.add(*line));
        sum
    }

    fn add(&mut self, other: Self) {
        for (key, line) in other.lines {
            self.lines.entry(key).or_default().add(line);
        }
        self.failures.extend(other.failures);
    }
}

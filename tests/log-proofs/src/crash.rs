//! Power cuts: at every operation of every load, in every way, and again during what follows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_log::{CommitError, Lane};

use crate::disk::{Disk, Snapshot};
use crate::random::{Random, seed_of};
use crate::rig::{DIR, Rig, guarded};
use crate::survive::Policy;
use crate::verify::{Found, Hurt, ranges, same, verify, verify_again};
use crate::workload::{Moment, Trace, Workload, all, wanted};

/// How much is to be proven.
#[derive(Clone, Debug)]
pub struct Options {
    /// Distinct images.
    pub images: u64,
    /// Distinct images of a second power cut.
    pub doubles: u64,
    /// What everything derives from.
    pub seed: u64,
    /// Ends sooner if this time is over.
    pub time: Duration,
    /// Threads.
    pub threads: usize,
    /// Failures after which it ends.
    pub failures_max: usize,
    /// One in so many cases of each policy is looked at.
    pub thin: u64,
    /// Only this load.
    pub load: Option<&'static str>,
}

/// One case, to be replayed alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name of the load.
    pub load: String,
    /// Its seed.
    pub seed: u64,
    /// Number of the operation before which the power goes.
    pub operation: usize,
    /// What survives.
    pub policy: Policy,
    /// Which of the policy's cases.
    pub case: u64,
    /// The second power cut is tried too.
    pub twice: bool,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { load, seed, operation, policy, case, twice } = self;
        let twice = if *twice { ":twice" } else { "" };
        write!(f, "{load}:{seed}:{operation}:{}:{case}{twice}", policy.name())
    }
}

impl std::str::FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let wrong = || format!("{text} is not LOAD:SEED:OPERATION:POLICY:CASE[:twice]");
        let [load, seed, operation, policy, case, rest @ ..] = &parts[..] else {
            return Err(wrong());
        };
        Ok(Self {
            load: (*load).to_owned(),
            seed: seed.parse().map_err(|_| wrong())?,
            operation: operation.parse().map_err(|_| wrong())?,
            policy: Policy::named(policy).ok_or_else(wrong)?,
            case: case.parse().map_err(|_| wrong())?,
            twice: rest == ["twice"],
        })
    }
}

/// What was done, by policy and in all.
#[derive(Debug, Default)]
pub struct Report {
    /// Images that were made, by policy.
    pub images: [u64; Policy::ALL.len()],
    /// Images whose like was not seen before, by policy.
    pub distinct: [u64; Policy::ALL.len()],
    /// Distinct images of second power cuts.
    pub doubles: u64,
    /// Operations that were looked at.
    pub moments: u64,
    /// Loads that were recorded.
    pub traces: u64,
    /// Acknowledged records that rot after a crash took and a gap names.
    pub named: u64,
    /// The same without a name: of a last group of which nothing is left.
    pub untold: u64,
    /// How to replay each failure, and what it is.
    pub failures: Vec<(String, String)>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Distinct images, first power cuts and second ones.
    #[must_use]
    pub fn distinct_images(&self) -> u64 {
        self.distinct.iter().sum::<u64>() + self.doubles
    }

    fn add(&mut self, other: Self) {
        for index in 0..Policy::ALL.len() {
            self.images[index] += other.images[index];
            self.distinct[index] += other.distinct[index];
        }
        self.doubles += other.doubles;
        self.moments += other.moments;
        self.traces += other.traces;
        self.named += other.named;
        self.untold += other.untold;
        self.failures.extend(other.failures);
    }
}

/// Hashes that were seen, for all threads.
struct Seen {
    shards: Vec<Mutex<HashSet<u64>>>,
    count: AtomicU64,
}

impl Seen {
    fn new() -> Self {
        Self { shards: (0..64).map(|_| Mutex::default()).collect(), count: AtomicU64::new(0) }
    }

    fn insert(&self, hash: u64) -> bool {
        let shard = &self.shards[hash as usize % self.shards.len()];
        let new = shard.lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
        self.count.fetch_add(u64::from(new), Ordering::Relaxed);
        new
    }
}

/// What the threads share.
struct Common {
    options: Options,
    began: Instant,
    first: Seen,
    second: Seen,
    /// Images together with what was promised: the same disk may have to keep more.
    checked: Seen,
    next: AtomicU64,
    failures: AtomicU64,
    stop: AtomicBool,
}

impl Common {
    fn is_done(&self) -> bool {
        let images = self.first.count.load(Ordering::Relaxed);
        let doubles = self.second.count.load(Ordering::Relaxed);
        self.stop.load(Ordering::Relaxed)
            || images + doubles >= self.options.images && doubles >= self.options.doubles
            || self.began.elapsed() > self.options.time
            || self.failures.load(Ordering::Relaxed) as usize >= self.options.failures_max
    }
}

/// Runs the proof.
#[must_use]
pub fn run(options: &Options) -> Report {
    let loads = wanted(options.load);
    let common = Common {
        options: options.clone(),
        began: Instant::now(),
        first: Seen::new(),
        second: Seen::new(),
        checked: Seen::new(),
        next: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let total = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                let mut report = Report::default();
                while !common.is_done() {
                    let number = common.next.fetch_add(1, Ordering::Relaxed);
                    let load = &loads[number as usize % loads.len()];
                    let seed = seed_of(&[options.seed, number]);
                    run_load(&common, load, seed, &mut report);
                }
                total.lock().unwrap_or_else(PoisonError::into_inner).add(report);
            });
        }
    });
    let mut report = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.took = common.began.elapsed();
    report
}

fn run_load(common: &Common, load: &Workload, seed: u64, report: &mut Report) {
    let trace = match guarded(|| load.record(seed)) {
        Ok(trace) => trace,
        Err(error) => {
            common.failures.fetch_add(1, Ordering::Relaxed);
            report.failures.push((format!("{}:{seed}:0:drop:0", load.name), error));
            return;
        }
    };
    report.traces += 1;
    let mut random = Random(seed ^ 0xd0b1e);
    for (operation, moment) in trace.moments.iter().enumerate() {
        report.moments += 1;
        for policy in Policy::ALL {
            for case in 0..policy.cases(&moment.disk) {
                if common.options.thin > 1 && !random.one_in(common.options.thin) {
                    continue;
                }
                if common.is_done() {
                    return;
                }
                // As many second cuts as are wanted, spread over all first ones.
                let wanted = common.options.doubles * common.first.count.load(Ordering::Relaxed);
                let doubles = common.second.count.load(Ordering::Relaxed);
                let images = common.options.images.saturating_sub(common.options.doubles).max(1);
                let twice = doubles * images < wanted && random.one_in(3);
                let case =
                    Case { load: load.name.to_owned(), seed, operation, policy, case, twice };
                run_case(common, load, &trace, moment, &case, report);
            }
        }
    }
}

fn run_case(
    common: &Common,
    load: &Workload,
    trace: &Trace,
    moment: &Moment,
    case: &Case,
    report: &mut Report,
) {
    let index = case.policy as usize;
    report.images[index] += 1;
    let image =
        case.policy.image(&moment.disk, case.case, seed_of(&[case.seed, case.operation as u64]));
    let hash = image.fingerprint();
    report.distinct[index] += u64::from(common.first.insert(hash));
    if !common.checked.insert(hash ^ seed_of(&[case.seed, moment.mark.version])) && !case.twice {
        return;
    }
    let mut second = |hash| report.doubles += u64::from(common.second.insert(hash));
    match guarded(|| check(load, trace, moment, image, case, &mut second)) {
        Ok(found) => {
            report.named += found.named;
            report.untold += found.untold;
        }
        Err(error) => {
            common.failures.fetch_add(1, Ordering::Relaxed);
            report.failures.push((case.to_string(), error));
        }
    }
}

/// Replays one case.
///
/// # Errors
/// What is wrong in it.
pub fn replay(case: &Case) -> Result<(), String> {
    let loads = all();
    let load = loads.iter().find(|load| load.name == case.load);
    let load = load.ok_or_else(|| format!("no load {}", case.load))?;
    let trace = load.record(case.seed)?;
    let moment = trace.moments.get(case.operation).ok_or("no such operation")?;
    let seed = seed_of(&[case.seed, case.operation as u64]);
    let image = case.policy.image(&moment.disk, case.case, seed);
    guarded(|| check(load, &trace, moment, image, case, &mut |_| {})).map(|_| ())
}

fn hurt(policy: Policy) -> Hurt {
    if policy == Policy::Rot { Hurt::Damage } else { Hurt::Power }
}

/// Opens an image and checks all that must be true of it.
fn check(
    load: &Workload,
    trace: &Trace,
    moment: &Moment,
    image: Snapshot,
    case: &Case,
    second: &mut dyn FnMut(u64),
) -> Result<Found, String> {
    let seed = seed_of(&[case.seed, case.operation as u64, case.case, 2]);
    let hurt = hurt(case.policy);
    if case.twice {
        // Half of the time the process is killed and the power goes later: nothing is synced that was not.
        let killed =
            case.policy == Policy::Keep || case.policy != Policy::Rot && case.case % 2 == 1;
        let first = if killed { moment.disk.clone() } else { image.clone() };
        cut_again(load, trace, moment, first, hurt, seed, second)?;
    }
    let disk = Disk::new(image, load.sector_bytes);
    let live: Vec<u32> = live_streams(moment);
    let mut rig = open(load, &disk, &live, 1 << 40)?;
    if hurt == Hurt::Damage {
        // Readers find what replay did not look at, maintenance names it.
        for index in 0..moment.mark.streams.len() {
            crate::verify::read_all(&rig.reader(), index as u32)?;
        }
        rig.maintain()?;
    }
    let found = verify(&rig, &moment.mark, &trace.values, hurt)?;
    if hurt == Hurt::Power {
        let again = Lane::inspect(&disk, DIR).map_err(|error| format!("inspect: {error:?}"))?;
        same(&rig.recovery, &again)?;
    }
    // What maintenance drops from here on is told by a group that is not there yet.
    let told = ranges(&rig.reader().gaps());
    let more = go_on(&mut rig, &live, &found, seed)?;
    drop(rig);
    let after = Policy::Drop.image(&disk.snapshot(), 0, 0);
    let rig = open(load, &Disk::new(after, load.sector_bytes), &live, 1 << 42)?;
    verify_again(&rig, &found, &more)?;
    let now = &rig.recovery.gaps;
    for (stream, from, to, reason) in told {
        let covered = (from..to.min(from + 64))
            .chain(to.saturating_sub(1).max(from)..to)
            .all(|offset| crate::verify::is_named(now, stream.0, offset));
        if !covered {
            return Err(format!(
                "the gap {from}..{to} of {stream} ({reason:?}) is forgotten: {now:?}"
            ));
        }
    }
    Ok(found)
}

pub(crate) fn live_streams(moment: &Moment) -> Vec<u32> {
    let streams = moment.mark.streams.iter().enumerate();
    streams.filter(|(_, stream)| !stream.removed).map(|(index, _)| index as u32).collect()
}

pub(crate) fn open(load: &Workload, disk: &Disk, live: &[u32], tick: u64) -> Result<Rig, String> {
    Rig::open(Arc::new(disk.clone()), &load.config, live, tick)
}

/// Records that were appended: stream, offset, value.
pub(crate) type More = Vec<(u32, u64, Arc<[u8]>)>;

/// Appends to every stream and commits: the offsets go on where they ended.
pub(crate) fn go_on(rig: &mut Rig, live: &[u32], found: &Found, seed: u64) -> Result<More, String> {
    let more = append_to_all(rig, live, found, seed)?;
    commit(rig)?;
    rig.maintain()?;
    Ok(more)
}

fn append_to_all(rig: &mut Rig, live: &[u32], found: &Found, seed: u64) -> Result<More, String> {
    let mut more = Vec::new();
    let mut random = Random(seed);
    for stream in live {
        let value: Arc<[u8]> = random.next().to_le_bytes()[..].into();
        let end = rig.reader().bounds(edge_wire::StreamId(*stream)).map_or(0, |b| b.durable_end.0);
        let offset = append(rig, *stream, &value)?;
        let found_end = found.streams.iter().find(|f| f.stream == *stream).map_or(0, |f| f.end);
        if offset != end || offset < found_end {
            return Err(format!("stream {stream}: the next offset is {offset}, not {end}"));
        }
        more.push((*stream, offset, value));
    }
    Ok(more)
}

/// An offset may be far: without the model.
fn append(rig: &mut Rig, stream: u32, value: &Arc<[u8]>) -> Result<u64, String> {
    let envelope = rig.lane.envelope(&Arc::new(edge_wire::Envelope::new(None, &[])));
    let appended = rig.lane.append_record(edge_wire::StreamId(stream), envelope, 1, Some(value));
    appended.map(|offset| offset.0).map_err(|error| format!("append: {error:?}"))
}

fn commit(rig: &mut Rig) -> Result<(), String> {
    match rig.commit() {
        Err(CommitError::Full) => {
            rig.lane.handle_upstream(rig.reader().end());
            rig.commit().map_err(|error| format!("commit with room: {error:?}"))
        }
        result => result.map_err(|error| format!("commit: {error:?}")),
    }
}

/// The power goes a second time, at any operation of recovery and of the first writes after it.
fn cut_again(
    load: &Workload,
    trace: &Trace,
    moment: &Moment,
    first: Snapshot,
    hurt: Hurt,
    seed: u64,
    second: &mut dyn FnMut(u64),
) -> Result<(), String> {
    let disk = Disk::new(first, load.sector_bytes);
    let live = live_streams(moment);
    // 0: recovery, 1: it was opened, 2: the group is acknowledged.
    let stage = Arc::new(AtomicU64::new(0));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (stage_then, moments) = (Arc::clone(&stage), Arc::clone(&taken));
    disk.observe(Box::new(move |now| {
        let stage = stage_then.load(Ordering::Relaxed);
        moments.lock().unwrap_or_else(PoisonError::into_inner).push((stage, now.clone()));
    }));
    let mut rig = open(load, &disk, &live, 1 << 40)?;
    if hurt == Hurt::Damage {
        for index in 0..moment.mark.streams.len() {
            crate::verify::read_all(&rig.reader(), index as u32)?;
        }
    }
    let found = match hurt {
        Hurt::Power => verify(&rig, &moment.mark, &trace.values, hurt)?,
        Hurt::Damage | Hurt::Rot => {
            let streams = live.iter().map(|stream| crate::verify::read_all(&rig.reader(), *stream));
            Found { streams: streams.collect::<Result<_, _>>()?, ..Found::default() }
        }
    };
    stage.store(1, Ordering::Relaxed);
    let more = append_to_all(&mut rig, &live, &found, seed)?;
    commit(&mut rig)?;
    stage.store(2, Ordering::Relaxed);
    rig.maintain()?;
    rig.seal(false)?;
    disk.stop_observing();
    let end = (2, disk.snapshot());
    let mut moments = std::mem::take(&mut *taken.lock().unwrap_or_else(PoisonError::into_inner));
    moments.push(end);
    let mut random = Random(seed);
    for (index, (stage, now)) in moments.iter().enumerate() {
        for policy in Policy::ALL.into_iter().filter(|policy| *policy != Policy::Rot) {
            let cases = policy.cases(now);
            for _ in 0..cases.min(3) {
                let case = random.below(cases);
                let image = policy.image(now, case, seed ^ index as u64);
                second(image.fingerprint());
                let again = Disk::new(image, load.sector_bytes);
                let wrong = |error| {
                    format!(
                        "second cut before {index} of {}, {}:{case}: {error}",
                        moments.len(),
                        policy.name()
                    )
                };
                let rig = open(load, &again, &live, 1 << 41).map_err(wrong)?;
                let checked = match (stage, hurt) {
                    (0, Hurt::Power) => verify(&rig, &moment.mark, &trace.values, hurt).map(|_| ()),
                    (0, _) => verify_again(&rig, &found, &[]),
                    (1, _) => verify_again(&rig, &found, &[]),
                    _ => verify_again(&rig, &found, &more),
                };
                checked.map_err(wrong)?;
            }
        }
    }
    Ok(())
}

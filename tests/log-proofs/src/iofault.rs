//! Calls that fail: EIO, ENOSPC, EINTR and short writes, at every site and occurrence, while a lane is opened, written,
//! rolled and maintained. Nothing is acknowledged that is not durable, nothing that was acknowledged is lost, no sync is
//! tried again and taken for success, and the lane is back without hands: it is reopened as the engine does it.
//!
//! Two layers: the lane on the simulated disk, whose calls fail as a whole; and the real files of the operating system
//! under it, whose calls are interrupted and cut short and must not be noticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_log::storage::SystemCalls;
use edge_log::{CommitError, FileStorage, Storage};
use rustix::io::Errno;

use crate::disk::{Disk, Site, Snapshot};
use crate::random::{Random, seed_of};
use crate::rig::{Rig, guarded};
use crate::survive::Policy;
use crate::verify::{is_named, read_all};
use crate::workload::{Workload, all};

/// How much is to be proven.
#[derive(Clone, Debug)]
pub struct Options {
    /// Injections that strike.
    pub injections: u64,
    /// What everything derives from.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Failures after which it ends.
    pub failures_max: usize,
}

/// How long a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasting {
    /// Once.
    Once,
    /// A few calls of the site in a row.
    Burst,
    /// Always at this place of this file: a bad sector.
    Place,
    /// All calls of the site, until the disk is well again.
    Sticky,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
struct Plan {
    site: Site,
    errno: Errno,
    lasting: Lasting,
    after: u64,
    /// From the very first open on.
    early: bool,
}

impl Plan {
    /// Whether it may keep a lane closed until it is over: only damage to one file can be worked around.
    fn can_close(&self) -> bool {
        let of_one_file = self.errno == Errno::IO && !is_dir(self.site);
        self.lasting == Lasting::Sticky || self.lasting == Lasting::Place && !of_one_file
    }
}

/// What was done, by site and error.
#[derive(Debug, Default)]
pub struct Report {
    /// Runs, runs in which the fault struck, how often lanes were opened.
    pub lines: BTreeMap<(String, String), [u64; 3]>,
    /// How to replay each failure, and what it is.
    pub failures: Vec<(String, String)>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Injections that struck.
    #[must_use]
    pub fn injections(&self) -> u64 {
        self.lines.values().map(|[_, struck, _]| struck).sum()
    }
}

/// What was written and what was promised of it.
#[derive(Default)]
struct Ledger {
    /// Every value an offset may have.
    written: BTreeMap<(u32, u64), Vec<Arc<[u8]>>>,
    acknowledged: BTreeMap<(u32, u64), Arc<[u8]>>,
    pending: Vec<(u32, u64, Arc<[u8]>)>,
}

impl Ledger {
    fn append(&mut self, rig: &mut Rig, random: &mut Random) -> Result<(), String> {
        for _ in 0..1 + random.below(10) {
            let stream = random.below(4) as u32;
            let value: Arc<[u8]> = (0..random.below(180)).map(|_| random.next() as u8).collect();
            let envelope = rig.lane.envelope(&Arc::new(edge_wire::Envelope::new(None, &[])));
            let id = edge_wire::StreamId(stream);
            let offset = match rig.lane.append_record(id, envelope, 1, Some(&value)) {
                Ok(offset) => offset.0,
                // The caller commits.
                Err(error) if error.is_retriable() => return Ok(()),
                Err(_) if rig.is_poisoned() => return Ok(()),
                Err(error) => return Err(format!("append: {error:?}")),
            };
            if self.acknowledged.contains_key(&(stream, offset)) {
                return Err(format!("stream {stream}: {offset} is given out twice"));
            }
            self.written.entry((stream, offset)).or_default().push(Arc::clone(&value));
            self.pending.push((stream, offset, value));
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        for (stream, offset, value) in self.pending.drain(..) {
            self.acknowledged.insert((stream, offset), value);
        }
    }

    /// Everything acknowledged is there, once, in order, and nothing else. `may_be_named`: reading failed when the lane
    /// was opened, so that it may have taken something for lost.
    fn check(&self, rig: &Rig, may_be_named: bool) -> Result<(), String> {
        let reader = rig.reader();
        let gaps = reader.gaps();
        for stream in 0..4 {
            let found = read_all(&reader, stream)?;
            let mut before = None;
            for (offset, value) in &found.records {
                let known = self.written.get(&(stream, *offset));
                if before >= Some(*offset) || !known.is_some_and(|known| known.contains(value)) {
                    return Err(format!("stream {stream}: {offset} is not what was written"));
                }
                before = Some(*offset);
            }
            let there: BTreeMap<u64, &Arc<[u8]>> =
                found.records.iter().map(|(offset, value)| (*offset, value)).collect();
            for ((_, offset), value) in
                self.acknowledged.range((stream, found.log_start)..(stream + 1, 0))
            {
                let by_policy = gaps.iter().any(|gap| {
                    let covers = gap.stream.0 == stream && (gap.from.0..gap.to.0).contains(offset);
                    covers && gap.reason.is_policy()
                });
                let named = by_policy || may_be_named && is_named(&gaps, stream, *offset);
                if there.get(offset) != Some(&value) && !named {
                    return Err(format!(
                        "stream {stream}: acknowledged {offset} is lost: {gaps:?}"
                    ));
                }
            }
            let end = self.acknowledged.range((stream, 0)..(stream + 1, 0)).next_back();
            if end.is_some_and(|((_, last), _)| *last >= found.end) {
                return Err(format!("stream {stream}: {}.. could be given out twice", found.end));
            }
        }
        Ok(())
    }
}

/// Opens the lane as often as it takes, as the engine does.
fn reopen(
    storage: &Arc<dyn Storage>,
    load: &Workload,
    tick: &mut u64,
    tries: u32,
) -> Result<Option<Rig>, String> {
    for _ in 0..tries {
        *tick += 10_000_000;
        match Rig::open(Arc::clone(storage), &load.config, &[0, 1, 2, 3], *tick) {
            Ok(rig) => return Ok(Some(rig)),
            Err(error) if error.starts_with("open: Io") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Runs a lane with a fault on its way. Returns whether it struck, and how often the lane was opened.
fn run_one(load: &Workload, plan: Plan, seed: u64) -> Result<(bool, u64), String> {
    let disk = Disk::new(Snapshot::default(), load.sector_bytes);
    disk.set_noise(seed);
    let struck = Arc::new(AtomicU64::new(0));
    let arm = || {
        let struck = Arc::clone(&struck);
        let (mut calls, mut place) = (0u64, None);
        disk.fail(Box::new(move |call| {
            if call.site != plan.site {
                return None;
            }
            let here = (call.path.to_owned(), call.position / 4096);
            calls += 1;
            let hit = match plan.lasting {
                Lasting::Once => calls == plan.after + 1,
                Lasting::Burst => (plan.after + 1..plan.after + 4).contains(&calls),
                Lasting::Sticky => calls > plan.after,
                Lasting::Place => {
                    if calls == plan.after + 1 {
                        place = Some(here.clone());
                    }
                    place == Some(here)
                }
            };
            struck.fetch_add(u64::from(hit), Ordering::Relaxed);
            hit.then_some(plan.errno)
        }));
    };
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (mut random, mut ledger, mut tick) = (Random(seed), Ledger::default(), 1);
    if plan.early {
        arm();
    }
    let mut reopened = 0;
    let mut open = |tick: &mut u64| -> Result<Rig, String> {
        reopened += 1;
        // A bad place does not keep the lane closed; a disk that refuses everything may, until it is well.
        match reopen(&storage, load, tick, 6)? {
            Some(rig) => Ok(rig),
            None if plan.can_close() => {
                disk.heal();
                reopen(&storage, load, tick, 1)?.ok_or_else(|| "it does not open again".to_owned())
            }
            None => Err("the lane does not come back by itself".to_owned()),
        }
    };
    let mut rig = open(&mut tick)?;
    let mut waits = 0;
    for step in 0..60 {
        if step % 20 == 18 && ledger.pending.is_empty() {
            // A new process.
            tick = tick.max(rig.tick);
            rig = open(&mut tick)?;
        }
        if step == 15 && !plan.early {
            arm();
        }
        if ledger.pending.is_empty() {
            ledger.append(&mut rig, &mut random)?;
        }
        rig.tick = rig.tick.max(tick) + 1_000;
        match rig.commit() {
            Ok(()) => ledger.acknowledge(),
            Err(CommitError::Full) => {
                rig.lane.handle_upstream(rig.reader().end());
                rig.tick += 20_000_000;
                waits += 1;
                if waits > 30 && plan.lasting == Lasting::Sticky {
                    disk.heal();
                } else if waits > 60 {
                    return Err("the lane stays full".to_owned());
                }
            }
            Err(CommitError::Poisoned { .. }) => {
                if rig.commit().is_ok() {
                    return Err("a poisoned lane commits".to_owned());
                }
                ledger.pending.clear();
                tick = tick.max(rig.tick);
                rig = open(&mut tick)?;
                waits += 1;
                if waits > 30 && plan.lasting == Lasting::Sticky {
                    disk.heal();
                } else if waits > 60 {
                    return Err("the lane is poisoned again and again".to_owned());
                }
            }
            Err(error) => return Err(format!("commit: {error:?}")),
        }
        tick = tick.max(rig.tick);
        for _ in 0..50 {
            match rig.lane.maintain(&crate::rig::clock(tick), tick) {
                Ok(true) => {}
                // It is tried again later.
                Ok(false) | Err(_) => break,
            }
        }
        if step % 20 == 19 {
            rig.lane.handle_upstream(rig.reader().end());
            match rig.lane.seal(&crate::rig::clock(tick), false) {
                Ok(()) | Err(CommitError::Full | CommitError::Poisoned { .. }) => {}
                Err(error) => return Err(format!("seal: {error:?}")),
            }
        }
    }
    if let Some(path) = disk.sync_retried() {
        return Err(format!("a failed sync of {path} was tried again"));
    }
    if rig.is_poisoned() || !ledger.pending.is_empty() {
        disk.heal();
    }
    disk.heal();
    // Where a free header was half written nobody can tell whether the segment was given up: it is told as lost.
    let may_be_named = matches!(plan.site, Site::Read | Site::Open | Site::Len)
        || plan.lasting == Lasting::Sticky && matches!(plan.site, Site::Write | Site::Sync);
    // After a power cut, and in the next process.
    let cut = Disk::new(Policy::Drop.image(&disk.snapshot(), 0, 0), load.sector_bytes);
    for storage in [Arc::new(cut) as Arc<dyn Storage>, storage.clone()] {
        let rig = reopen(&storage, load, &mut tick, 1)?;
        ledger.check(&rig.ok_or("a healthy disk does not open")?, may_be_named)?;
    }
    Ok((struck.load(Ordering::Relaxed) > 0, reopened))
}

/// Directories and the list of names have one place: there is no other to go to.
fn is_dir(site: Site) -> bool {
    matches!(site, Site::SyncDir | Site::List | Site::CreateDir | Site::FreeBytes)
}

/// Real system calls, some of which are interrupted, cut short, or fail.
struct Flaky {
    random: Mutex<Random>,
    /// One call in so many fails for good.
    fails_one_in: u64,
    struck: AtomicU64,
    failed: AtomicU64,
}

impl Flaky {
    fn begin(&self) -> io::Result<bool> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        if self.fails_one_in > 0 && random.one_in(self.fails_one_in) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Err(if random.one_in(2) { Errno::IO } else { Errno::NOSPC }.into());
        }
        match random.below(6) {
            0 => {
                self.struck.fetch_add(1, Ordering::Relaxed);
                Err(Errno::INTR.into())
            }
            1 => {
                self.struck.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn shorter(&self, len: usize) -> usize {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        1 + random.below(len.max(1) as u64) as usize
    }
}

impl SystemCalls for Flaky {
    fn pread(&self, file: &File, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let len = if self.begin()? { self.shorter(buf.len()).min(buf.len()) } else { buf.len() };
        file.read_at(&mut buf[..len], position)
    }

    fn pwrite(&self, file: &File, buf: &[u8], position: u64) -> io::Result<usize> {
        let whole = buf.len() / 4096 * 4096;
        let len = if self.begin()? { self.shorter(buf.len()).min(buf.len()) } else { buf.len() };
        // A direct write takes whole sectors, so a short one is short by whole sectors.
        let len = if len == buf.len() { len } else { (len / 4096 * 4096).min(whole) };
        if len == 0 { Ok(0) } else { file.write_at(&buf[..len], position) }
    }

    fn fdatasync(&self, file: &File) -> io::Result<()> {
        self.begin()?;
        file.sync_data()
    }

    fn fsync(&self, directory: &File) -> io::Result<()> {
        self.begin()?;
        directory.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin()?;
        std::fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.begin()?;
        std::fs::remove_file(path)
    }
}

/// A lane on real files. Returns how many calls were interrupted, cut short or failed.
fn run_real(load: &Workload, dir: &Path, seed: u64, fails_one_in: u64) -> Result<u64, String> {
    let told = |error: io::Error| error.to_string();
    std::fs::create_dir_all(dir).map_err(told)?;
    let flaky = Arc::new(Flaky {
        random: Mutex::new(Random(seed)),
        fails_one_in,
        struck: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let calls: Arc<dyn SystemCalls> = flaky.clone();
    let storage = FileStorage::with_calls(dir, seed & 1 == 0, calls).map_err(told)?;
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let (mut random, mut ledger, mut tick) = (Random(seed), Ledger::default(), 1);
    let back = |tick: &mut u64| -> Result<Rig, String> {
        reopen(&storage, load, tick, 200)?.ok_or_else(|| "it does not open again".to_owned())
    };
    let mut rig = back(&mut tick)?;
    for _ in 0..40 {
        if ledger.pending.is_empty() {
            ledger.append(&mut rig, &mut random)?;
        }
        rig.tick = rig.tick.max(tick) + 20_000_000;
        match rig.commit() {
            Ok(()) => ledger.acknowledge(),
            Err(CommitError::Full) => rig.lane.handle_upstream(rig.reader().end()),
            Err(CommitError::Poisoned { .. }) if fails_one_in > 0 => {
                ledger.pending.clear();
                rig = back(&mut tick)?;
            }
            Err(error) => return Err(format!("interrupted or short calls are noticed: {error:?}")),
        }
        tick = tick.max(rig.tick);
        for _ in 0..50 {
            match rig.lane.maintain(&crate::rig::clock(tick), tick) {
                Ok(true) => {}
                Err(error) if fails_one_in == 0 => return Err(format!("maintain: {error:?}")),
                Ok(false) | Err(_) => break,
            }
        }
    }
    drop(rig);
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::open(dir).map_err(told)?);
    let rig = reopen(&storage, load, &mut tick, 1)?.ok_or("a healthy disk does not open")?;
    ledger.check(&rig, fails_one_in > 0)?;
    Ok(flaky.struck.load(Ordering::Relaxed) + flaky.failed.load(Ordering::Relaxed))
}

const ERRORS: [Errno; 3] = [Errno::IO, Errno::NOSPC, Errno::INTR];
const LASTING: [Lasting; 4] = [Lasting::Once, Lasting::Burst, Lasting::Place, Lasting::Sticky];

/// The fault of a number: all sites, errors and durations in turn, then the next occurrence.
fn plan(number: u64, random: &mut Random) -> Plan {
    let kinds = (Site::ALL.len() * ERRORS.len() * LASTING.len()) as u64;
    let (kind, round) = ((number % kinds) as usize, number / kinds);
    Plan {
        site: Site::ALL[kind % Site::ALL.len()],
        errno: ERRORS[kind / Site::ALL.len() % ERRORS.len()],
        lasting: LASTING[kind / Site::ALL.len() / ERRORS.len()],
        after: if round % 2 == 0 { round / 2 % 40 } else { random.below(120) },
        early: random.one_in(3),
    }
}

fn run_number(number: u64, seed: u64, loads: &[Workload]) -> (Plan, Result<(bool, u64), String>) {
    let mut random = Random(seed_of(&[seed, number, 0x10]));
    let plan = plan(number, &mut random);
    let load = &loads[random.below(loads.len() as u64) as usize];
    let seed = random.next();
    (plan, guarded(|| run_one(load, plan, seed)))
}

/// Replays one injection: `SEED:NUMBER`.
///
/// # Errors
/// What is wrong in it, or with its name.
pub fn replay(case: &str) -> Result<(), String> {
    let wrong = || format!("{case} is not SEED:NUMBER");
    let (seed, number) = case.split_once(':').ok_or_else(wrong)?;
    let (seed, number) = (seed.parse().map_err(|_| wrong())?, number.parse().map_err(|_| wrong())?);
    let (plan, result) = run_number(number, seed, &loads());
    result.map(|_| ()).map_err(|error| format!("{plan:?}: {error}"))
}

/// What every load of this proof is written like is its own; of the workloads it takes the settings.
fn loads() -> Vec<Workload> {
    all()
}

/// Runs the proof. `dir`: where real files may be made.
#[must_use]
pub fn run(options: &Options, dir: &Path) -> Report {
    let loads = loads();
    let began = Instant::now();
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let total = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for thread in 0..options.threads.max(1) {
            let (loads, next, done, failed, total) = (&loads, &next, &done, &failed, &total);
            scope.spawn(move || {
                while done.load(Ordering::Relaxed) < options.injections
                    && (failed.load(Ordering::Relaxed) as usize) < options.failures_max
                {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (plan, result) = run_number(number, options.seed, loads);
                    let mut lines = vec![(
                        (format!("{:?}", plan.site), format!("{:?}", plan.lasting)),
                        result.map(|(struck, reopened)| (u64::from(struck), reopened)),
                        format!("{}:{number}", options.seed),
                        format!("{plan:?}"),
                    )];
                    if number % 50 == 0 {
                        let dir = dir.join(format!("{thread}-{number}"));
                        let fails = if number % 100 == 0 { 0 } else { 40 };
                        let seed = seed_of(&[options.seed, number]);
                        let load = &loads[number as usize / 50 % loads.len()];
                        let result = guarded(|| run_real(load, &dir, seed, fails));
                        // Leftovers in a scratch folder harm nobody.
                        let _ = std::fs::remove_dir_all(&dir);
                        let kind = if fails > 0 { "and failing calls" } else { "calls" };
                        lines.push((
                            ("real files".to_owned(), format!("EINTR, short {kind}")),
                            // Thousands of calls each; counted as one.
                            result.map(|struck| (u64::from(struck > 0), 0)),
                            format!("{}:{number}", options.seed),
                            format!("real files, {}", load.name),
                        ));
                    }
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    for (key, result, case, what) in lines {
                        let line = total.lines.entry(key).or_default();
                        line[0] += 1;
                        match result {
                            Ok((struck, reopened)) => {
                                line[1] += struck;
                                line[2] += reopened;
                                done.fetch_add(struck, Ordering::Relaxed);
                            }
                            Err(error) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                                total.failures.push((case, format!("{what}: {error}")));
                            }
                        }
                    }
                }
            });
        }
    });
    let mut report = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.took = began.elapsed();
    report
}

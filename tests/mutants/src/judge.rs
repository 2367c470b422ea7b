//! Is a mutant noticed? The tests that reach it are run with it until one fails; those come first that noticed most for
//! the CPU time they took, so far.
//!
//! A test that takes ten times its CPU time, or far longer by the clock, has noticed as well.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::list::Mutant;
use crate::suite::Test;
use crate::switch_of;

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// A test fails.
    Killed,
    /// A test does not end.
    TimedOut,
    /// All tests pass.
    Survived,
    /// It is no Rust: types do not fit.
    NotBuilt,
    /// It cannot be chosen at run time.
    NotSwitchable,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    Passed,
    Failed,
    TimedOut,
}

/// What a process took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cpu_s: f64,
    pub(crate) wall: Duration,
}

/// CPU seconds that a test may take at least: mutants make some tests slower without harm.
const CPU_S_MIN: f64 = 3.0;
/// Memory of a test with a mutant, address space in bytes.
const MEMORY_BYTES: u64 = 6 << 30;
/// What starting a process takes, CPU seconds.
const CPU_S_OF_A_START: f64 = 0.01;
const POLL: Duration = Duration::from_millis(2);

/// Judges `waiting`, `jobs` at one time.
pub(crate) fn all(
    mutants: &[Mutant],
    waiting: &[usize],
    tests: &[Test],
    limits: Limits,
    told: impl FnMut(&Mutant, Outcome) -> Result<()> + Send,
) -> Result<()> {
    let (next, told) = (AtomicUsize::new(0), Mutex::new(told));
    let order = Order(Mutex::new(vec![(0, 0); tests.len()]));
    let seeds = KeptSeeds::find(tests)?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..limits.jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let turn = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&index) = waiting.get(turn) else { return Ok(()) };
                        let outcome = judge(index, tests, &order, limits.cpu_s)?;
                        seeds.restore()?;
                        if turn % 200 == 199 {
                            println!(
                                "{} of {}, {} s",
                                turn + 1,
                                waiting.len(),
                                began.elapsed().as_secs()
                            );
                        }
                        if let Ok(mut told) = told.lock() {
                            told(&mutants[index], outcome)?;
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// How many mutants at one time, and how much for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) jobs: usize,
    /// CPU seconds of tests that pass, after which a mutant is taken to survive.
    pub(crate) cpu_s: f64,
}

/// Of each test, how many mutants it noticed, and with how many it ran.
struct Order(Mutex<Vec<(u32, u32)>>);

impl Order {
    /// The tests that reach a mutant, the most promising first.
    fn of(&self, index: usize, tests: &[Test]) -> Vec<usize> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let worth = |test: usize| {
            let (noticed, runs) = known[test];
            f64::from(noticed + 1) / f64::from(runs + 2) / tests[test].cpu_s.max(CPU_S_OF_A_START)
        };
        let mut order: Vec<_> =
            (0..tests.len()).filter(|test| tests[*test].reaches.contains(&index)).collect();
        order.sort_by(|a, b| worth(*b).total_cmp(&worth(*a)));
        order
    }

    fn note(&self, test: usize, noticed: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known[test].0 += u32::from(noticed);
        known[test].1 += 1;
    }
}

fn judge(index: usize, tests: &[Test], order: &Order, cpu_s_max: f64) -> Result<Outcome> {
    let mut passed_s = 0.0;
    for number in order.of(index, tests) {
        let test = &tests[number];
        if passed_s > cpu_s_max {
            break;
        }
        let mut command = Command::new("prlimit");
        let cpu_s = (test.cpu_s * 10.0).max(CPU_S_MIN).ceil();
        command
            .arg(format!("--cpu={cpu_s}"))
            .arg(format!("--as={MEMORY_BYTES}"))
            .arg("--core=0")
            .arg("--");
        let plain = test.command();
        command
            .arg(plain.get_program())
            .args(plain.get_args())
            .current_dir(&test.folder)
            .env("MUTANT", switch_of(index).to_string());
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let limit = Duration::from_secs(30) + test.wall * 30;
        let (ran, cost) = run(&mut command, limit)?;
        order.note(number, ran != Ran::Passed);
        passed_s += cost.cpu_s;
        match ran {
            Ran::Passed => {}
            Ran::Failed => return Ok(Outcome::Killed),
            Ran::TimedOut => return Ok(Outcome::TimedOut),
        }
    }
    Ok(Outcome::Survived)
}

/// Seeds that the crate keeps beside its tests. Property tests add those with which a mutant failed; the next mutant
/// must not be judged by them.
struct KeptSeeds(Vec<(PathBuf, Vec<u8>)>);

impl KeptSeeds {
    fn find(tests: &[Test]) -> Result<Self> {
        let folders: BTreeSet<_> = tests.iter().map(|test| test.folder.join("tests/log")).collect();
        let mut kept = Vec::new();
        for folder in folders {
            for file in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let file = file?.path();
                if file.extension().is_some_and(|extension| extension == "proptest-regressions") {
                    kept.push((file.clone(), std::fs::read(file)?));
                }
            }
        }
        Ok(Self(kept))
    }

    fn restore(&self) -> Result<()> {
        for (file, kept) in &self.0 {
            if std::fs::metadata(file).is_ok_and(|now| now.len() != kept.len() as u64) {
                std::fs::write(file, kept)?;
            }
        }
        Ok(())
    }
}

/// Runs a process to its end, or for `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<(Ran, Cost)> {
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let stat = format!("/proc/{}/stat", child.id());
    let mut cpu_s = 0.0_f64;
    let (mut waited, mut polled) = (Duration::ZERO, Instant::now());
    loop {
        // Time in which nothing is polled does not count: we were stopped, and the test with us.
        waited += polled.elapsed().min(POLL * 50);
        polled = Instant::now();
        if let Some(status) = child.try_wait()? {
            let ran = match (status.success(), status.signal()) {
                (true, _) => Ran::Passed,
                // SIGXCPU, or SIGKILL that follows it.
                (_, Some(24 | 9)) => Ran::TimedOut,
                _ => Ran::Failed,
            };
            return Ok((ran, Cost { cpu_s, wall: began.elapsed() }));
        }
        cpu_s = cpu_of(&stat).unwrap_or(cpu_s);
        if waited > limit {
            child.kill()?;
            child.wait()?;
            return Ok((Ran::TimedOut, Cost { cpu_s, wall: began.elapsed() }));
        }
        std::thread::sleep(POLL);
    }
}

/// CPU seconds so far, to a hundredth: user and system time of proc(5).
fn cpu_of(stat: &str) -> Option<f64> {
    let text = std::fs::read_to_string(stat).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / 100.0)
}

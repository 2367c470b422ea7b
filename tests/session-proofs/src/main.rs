//! `session-proofs [--seeds N] [--seed S] [--threads T] [--only SEED]`: plays seeds, prints a line, exits 1 if any failed.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use session_proofs::run::run;

const FAILURES_MAX: usize = 20;

fn main() -> ExitCode {
    match start(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn number(arguments: &[String], name: &str, default: u64) -> Result<u64, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else {
        return Ok(default);
    };
    let text = arguments.get(at + 1).ok_or_else(|| format!("{name} needs a value"))?;
    text.replace('_', "").parse().map_err(|_| format!("{name} {text}: not a number"))
}

fn start(arguments: &[String]) -> Result<bool, String> {
    const KNOWN: [&str; 4] = ["--seeds", "--seed", "--threads", "--only"];
    if let Some(unknown) = arguments.iter().step_by(2).find(|name| !KNOWN.contains(&name.as_str()))
    {
        return Err(format!("no option {unknown}; there are {KNOWN:?}"));
    }
    let only = number(arguments, "--only", u64::MAX)?;
    if only != u64::MAX {
        let result = run(only);
        println!("{only}: {result:?}");
        return Ok(result.is_ok());
    }
    let seeds = number(arguments, "--seeds", 10_000)?;
    let first = number(arguments, "--seed", 1)?;
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get() as u64);
    let threads = number(arguments, "--threads", threads)?;
    let (next, failures) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let (cuts, messages, repeated) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    match run(seed) {
                        Ok(met) => {
                            cuts.fetch_add(met.cuts, Ordering::Relaxed);
                            messages.fetch_add(met.messages, Ordering::Relaxed);
                            repeated.fetch_add(met.repeated, Ordering::Relaxed);
                        }
                        Err(error) => {
                            let mut failures =
                                failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            failures.push((seed, error));
                            if failures.len() >= FAILURES_MAX {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!(
        "{seeds} seeds, {} power cuts, {} messages, {} of QoS 1 delivered again, {:.0} s; {} failures",
        cuts.into_inner(),
        messages.into_inner(),
        repeated.into_inner(),
        started.elapsed().as_secs_f64(),
        failures.len()
    );
    for (seed, error) in &failures {
        println!("FAILED {error}\n  replay: cargo xtask sessions --only {seed}");
    }
    Ok(failures.is_empty())
}

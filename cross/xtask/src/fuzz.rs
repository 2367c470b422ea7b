//! Builds libFuzzer around the targets of `tests/mqtt-proofs` and runs them, one process at a time.
//!
//! It runs on stable: the flags are what cargo-fuzz sets when it leaves the sanitizers away, and there
//! is no `unsafe` of ours for an address sanitizer to look at. New inputs go to `target/fuzz/corpus`;
//! what is worth keeping is put into `tests/mqtt-proofs/corpus` by hand. Needs g++.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell;

/// As in `mqtt_proofs::TARGETS`: name, part of all executions in percent, longest input in bytes.
const TARGETS: [(&str, u64, usize); 4] =
    [("frames", 30, 512), ("packets", 50, 1_024), ("sessions", 15, 1_024), ("filters", 5, 128)];

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-Cpasses=sancov-module -Ccodegen-units=1 \
     -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

struct Wanted {
    executions: u64,
    only: Option<String>,
    seconds_max: Option<u64>,
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let wanted = parse(arguments)?;
    let folder = shell::target_folder().join("fuzz");
    let sources = shell::workspace().join("tests/mqtt-proofs");
    shell::run(
        shell::cargo()
            .args(["build", "--release", "--quiet", "--target", TRIPLE])
            .current_dir(sources.join("fuzz"))
            .env("RUSTFLAGS", FLAGS)
            .env("CARGO_TARGET_DIR", &folder),
    )?;
    let program = folder.join(TRIPLE).join("release/mqtt-fuzz");
    let mut total = 0;
    for (name, share, input_bytes_max) in TARGETS {
        if wanted.only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let share = if wanted.only.is_some() { 100 } else { share };
        let began = Instant::now();
        let kept = folder.join("corpus").join(name);
        std::fs::create_dir_all(&kept)?;
        let mut fuzzer = Command::new(&program);
        fuzzer
            .env("EDGE_FUZZ_TARGET", name)
            .arg(format!("-runs={}", (wanted.executions * share / 100).max(1)))
            .arg(format!("-max_len={input_bytes_max}"))
            .arg(format!("-artifact_prefix={}/{name}-", folder.display()))
            .args(["-print_final_stats=1", "-rss_limit_mb=512", "-timeout=10", "-verbosity=0"]);
        if let Some(seconds) = wanted.seconds_max {
            fuzzer.arg(format!("-max_total_time={seconds}"));
        }
        fuzzer.arg(&kept).arg(sources.join("corpus").join(name));
        let executed = executions(&mut fuzzer, &folder.join(format!("{name}.log")))
            .with_context(|| format!("target {name}"))?;
        let seconds = began.elapsed().as_secs_f64();
        println!("{name:10} {executed:>12} executions in {seconds:>7.1} s, nothing found");
        total += executed;
    }
    println!("{:10} {total:>12} executions", "all");
    Ok(())
}

/// Runs it and reads from its log how often the target was called.
fn executions(fuzzer: &mut Command, log: &Path) -> Result<u64> {
    let file = std::fs::File::create(log)?;
    let status = fuzzer.stdout(Stdio::null()).stderr(file).status()?;
    let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    if !status.success() {
        let tail: Vec<&str> = text.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("ended with {status}; {}:\n{}", log.display(), tail.join("\n"));
    }
    text.lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .context("no number of executions in its log")?
        .trim()
        .parse()
        .context("a number of executions")
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { executions: 1_000_000, only: None, seconds_max: None };
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let value = rest.next().with_context(|| format!("{option} wants a value"))?;
        match option.as_str() {
            "--executions" => wanted.executions = value.parse()?,
            "--seconds" => wanted.seconds_max = Some(value.parse()?),
            "--target" if TARGETS.iter().any(|(name, ..)| name == value) => {
                wanted.only = Some(value.clone());
            }
            _ => bail!("no option {option} {value}"),
        }
    }
    Ok(wanted)
}

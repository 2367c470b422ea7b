//! The mutation test of the log crate, fast enough to be run as a whole.
//!
//! cargo-mutants names the mutants; building each on its own would take half a day. Here all of them are written into
//! one copy of the crate, each behind a switch ([`instrument`]), and built once ([`build`]). A run without a mutant
//! records which test reaches which ([`suite`]); then each mutant is judged by the tests that reach it, the quick ones
//! first, until one fails ([`judge`]).
//!
//! What cannot be switched at run time (constants, `const fn`, types that differ) does not build behind a switch. It
//! is told apart and tried by cargo-mutants itself: `--one-by-one`.
//!
//! Usage: see [`USAGE`]. Results: `target/mutants/outcomes.json`, told in `tests/mutants.md`.

mod build;
mod edits;
mod instrument;
mod judge;
mod list;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use build::Tree;
use judge::{Limits, Outcome};

const USAGE: &str = "\
usage: cargo xtask mutants [--jobs N] [--cpu S] [--file PART]... [--again] [--new] [--one-by-one]
  --jobs N       mutants at one time (2)
  --cpu S        CPU seconds of tests that pass, after which a mutant is taken to survive (no limit)
  --file PART    only mutants of files whose path contains one of the parts
  --again        only those that survived the last run; the others keep their outcome
  --new          only those without an outcome
  --one-by-one   what cannot be switched at run time, each in a build of its own, by cargo-mutants";

struct Options {
    limits: Limits,
    files: Vec<String>,
    again: bool,
    new: bool,
    one_by_one: bool,
}

fn main() -> Result<ExitCode> {
    let Some(options) = options(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let tree = Tree::new()?;
    let outcomes_file = tree.folder().join("outcomes.json");
    let mut mutants = list::all(tree.source())?;
    println!("{} mutants", mutants.len());
    let mut known = read_outcomes(&outcomes_file)?;
    let names: BTreeSet<_> = mutants.iter().map(|mutant| mutant.name.clone()).collect();
    known.retain(|name, _| names.contains(name));
    mutants.retain(|mutant| {
        let known = known.get(&mutant.name);
        let survived = known.is_none_or(|known| *known == Outcome::Survived);
        (options.files.is_empty() || options.files.iter().any(|part| mutant.file.contains(part)))
            && (!options.again || survived)
            && (!options.new || known.is_none())
    });
    if options.one_by_one {
        let left: Vec<_> =
            known.iter().filter(|(_, known)| **known == Outcome::NotSwitchable).collect();
        return one_by_one(
            &tree,
            &left.into_iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        );
    }

    tree.copy()?;
    let not_built = tree.instrument(&mutants)?;
    let binaries = tree.test_binaries()?;
    let tests = suite::record(&binaries, &tree.package(), tree.folder())?;
    println!(
        "{} tests, {:.1} s of CPU; {} mutants do not build behind a switch",
        tests.len(),
        tests.iter().map(|test| test.cpu_s).sum::<f64>(),
        not_built.len()
    );
    let is_part = options.again || options.new || !options.files.is_empty();
    let mut outcomes = if is_part { known } else { BTreeMap::new() };
    for (index, outcome) in &not_built {
        outcomes.insert(mutants[*index].name.clone(), *outcome);
    }
    let waiting: Vec<usize> =
        (0..mutants.len()).filter(|index| !not_built.contains_key(index)).collect();
    // A run that is ended early keeps what it knows.
    let mut untold = 0;
    judge::all(&mutants, &waiting, &tests, options.limits, |mutant, outcome| {
        outcomes.insert(mutant.name.clone(), outcome);
        if outcome == Outcome::Survived {
            println!("survives: {}", mutant.name);
        }
        untold += 1;
        if untold % 50 == 0 {
            std::fs::write(&outcomes_file, serde_json::to_vec_pretty(&outcomes)?)?;
        }
        Ok(())
    })?;
    std::fs::write(&outcomes_file, serde_json::to_vec_pretty(&outcomes)?)?;
    tell(&outcomes);
    Ok(ExitCode::SUCCESS)
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options {
        limits: Limits { jobs: 2, cpu_s: f64::INFINITY },
        files: Vec::new(),
        again: false,
        new: false,
        one_by_one: false,
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--jobs" => {
                let jobs = arguments.next().context("--jobs needs a number")?;
                options.limits.jobs = jobs.parse().context("--jobs needs a number")?;
            }
            "--cpu" => {
                let cpu_s = arguments.next().context("--cpu needs seconds")?;
                options.limits.cpu_s = cpu_s.parse().context("--cpu needs seconds")?;
            }
            "--new" => options.new = true,
            "--file" => {
                options.files.push(arguments.next().context("--file needs a part of a path")?)
            }
            "--again" => options.again = true,
            "--one-by-one" => options.one_by_one = true,
            "--help" | "-h" => return Ok(None),
            other => bail!("what is {other}?\n{USAGE}"),
        }
    }
    Ok(Some(options))
}

fn read_outcomes(file: &Path) -> Result<BTreeMap<String, Outcome>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).context("outcomes.json of an earlier run")?),
        Err(_none_yet) => Ok(BTreeMap::new()),
    }
}

fn tell(outcomes: &BTreeMap<String, Outcome>) {
    let of = |wanted: Outcome| outcomes.values().filter(|outcome| **outcome == wanted).count();
    let (killed, timeout, survived) =
        (of(Outcome::Killed), of(Outcome::TimedOut), of(Outcome::Survived));
    let viable = killed + timeout + survived;
    println!(
        "{} mutants: {} do not build, {} cannot be switched; of {viable} viable {killed} killed, {timeout} by their \
         time limit, {survived} survive: {:.1} % killed",
        outcomes.len(),
        of(Outcome::NotBuilt),
        of(Outcome::NotSwitchable),
        100.0 * (killed + timeout) as f64 / viable.max(1) as f64,
    );
}

/// Hands mutants to cargo-mutants by name.
fn one_by_one(tree: &Tree, names: &[&str]) -> Result<ExitCode> {
    println!("{} mutants, each in a build of its own", names.len());
    if names.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = std::process::Command::new("cargo");
    command.current_dir(tree.source()).args(["mutants", "--package", list::PACKAGE, "--jobs", "1"]);
    command.arg("--output").arg(tree.folder());
    for name in names {
        command.arg("--re").arg(format!("^{}$", escape(name)));
    }
    let status = command.status().context("cargo mutants")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `text` as a regular expression that matches just it.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if !(char.is_alphanumeric() || char == ' ' || char == '_' || char == '/') {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

/// A mutant by its place in the list, as the switch knows it: 0 is none.
fn switch_of(index: usize) -> u32 {
    u32::try_from(index + 1).expect("mutants are counted in thousands")
}

fn index_of(switch: u32) -> usize {
    switch as usize - 1
}

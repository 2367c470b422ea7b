//! `powercut --cycles N [--rot-cycles N] [--seed S] [--only NAME] [--keep DIR]`: power cuts for the binary that
//! `EDGE_BROKER_BIN` names. A table, and one JSON line. Exit 1 at the first broken promise.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use powercut::{campaign, fuse};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("powercut: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let plan = plan(std::env::args().skip(1))?;
    if let Err(reason) = fuse::possible() {
        bail!("no FUSE file system can be mounted here: {reason}");
    }
    let began = Instant::now();
    let outcome = campaign::run(&plan, |line| eprintln!("{line}"))?;
    print!("{}", outcome.table);
    println!("in {:.1} min", began.elapsed().as_secs_f64() / 60.0);
    println!("{}", outcome.json);
    Ok(())
}

fn plan(arguments: impl Iterator<Item = String>) -> Result<campaign::Plan> {
    let mut arguments = arguments;
    let mut plan = campaign::Plan::default();
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--cycles" => plan.cycles = value.parse()?,
            "--rot-cycles" => plan.rot_cycles = value.parse()?,
            "--seed" => plan.seed = value.parse()?,
            "--only" => plan.only = value,
            "--keep" => plan.keep = PathBuf::from(value),
            _ => {
                bail!("no option {name}; there are --cycles, --rot-cycles, --seed, --only, --keep")
            }
        }
    }
    Ok(plan)
}

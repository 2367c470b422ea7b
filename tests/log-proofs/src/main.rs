//! `log-proofs crash|rot|iofault`: runs a proof, prints a table, exits 1 if anything failed.

use std::process::ExitCode;
use std::time::Duration;

use log_proofs::survive::Policy;
use log_proofs::{crash, iofault, rot};

const HELP: &str = "\
log-proofs crash [--images N] [--seed S] [--minutes M] [--threads T] [--only CASE]
log-proofs rot [--injections N] [--seed S] [--threads T] [--only CASE]
log-proofs iofault [--injections N] [--seed S] [--threads T] [--only CASE]
";

struct Arguments(Vec<String>);

impl Arguments {
    fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        match self.text(name)? {
            None => Ok(default),
            Some(text) => {
                text.replace('_', "").parse().map_err(|_| format!("{name} {text}: not a number"))
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let Some(at) = self.0.iter().position(|argument| argument == name) else { return Ok(None) };
        self.0.get(at + 1).map(|text| Some(text.as_str())).ok_or(format!("{name} needs a value"))
    }

    fn check(&self, known: &[&str]) -> Result<(), String> {
        match self.0.iter().step_by(2).find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("no option {name}\n{HELP}")),
            None => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    // Panics of the lane are caught, counted and told as failures.
    std::panic::set_hook(Box::new(|_| {}));
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let arguments = Arguments(arguments.collect());
    let result = match name.as_str() {
        "crash" => run_crash(&arguments),
        "rot" => run_rot(&arguments),
        "iofault" => run_iofault(&arguments),
        _ => Err(HELP.to_owned()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn threads() -> u64 {
    std::thread::available_parallelism().map_or(2, |threads| threads.get() as u64)
}

fn print_failures(command: &str, failures: &[(String, String)]) -> bool {
    for (case, error) in failures.iter().take(20) {
        let error: String = error.chars().take(400).collect();
        println!("FAILED {error}\n  replay: cargo xtask {command} --only {case}");
    }
    failures.is_empty()
}

fn run_crash(arguments: &Arguments) -> Result<bool, String> {
    arguments.check(&["--images", "--seed", "--minutes", "--threads", "--only"])?;
    if let Some(only) = arguments.text("--only")? {
        let result = crash::replay(&only.parse()?);
        println!("{only}: {}", result.as_ref().err().map_or("holds", |error| error.as_str()));
        return Ok(result.is_ok());
    }
    let images = arguments.number("--images", 1_000_000)?;
    let options = crash::Options {
        images,
        doubles: images / 8,
        seed: arguments.number("--seed", 1)?,
        time: Duration::from_secs(60 * arguments.number("--minutes", 15)?),
        threads: arguments.number("--threads", threads())? as usize,
        failures_max: 20,
        thin: 1,
        load: None,
    };
    let report = crash::run(&options);
    println!("{:<22}{:>12}{:>12}", "what survives", "images", "distinct");
    for (index, policy) in Policy::ALL.iter().enumerate() {
        let (images, distinct) = (report.images[index], report.distinct[index]);
        println!("{:<22}{images:>12}{distinct:>12}", policy.name());
    }
    let seconds = report.took.as_secs_f64();
    println!("{:<22}{:>12}{:>12}", "cut again", "", report.doubles);
    println!("{:<22}{:>12}{:>12}", "all", "", report.distinct_images());
    println!(
        "{} loads, {} operations, {:.0} s, {:.0} distinct images/s; rot after a cut: {} records named, {} of a last \
         group gone without a trace; {} failures",
        report.traces,
        report.moments,
        seconds,
        report.distinct_images() as f64 / seconds,
        report.named,
        report.untold,
        report.failures.len(),
    );
    let sound = print_failures("crash", &report.failures);
    if report.distinct_images() < images {
        println!("not all images were reached in time");
    }
    Ok(sound && report.distinct_images() >= images)
}

fn run_rot(arguments: &Arguments) -> Result<bool, String> {
    arguments.check(&["--injections", "--seed", "--threads", "--only"])?;
    if let Some(only) = arguments.text("--only")? {
        let result = rot::replay(only);
        println!("{only}: {}", result.as_ref().err().map_or("holds", |error| error.as_str()));
        return Ok(result.is_ok());
    }
    let options = rot::Options {
        injections: arguments.number("--injections", 100_000)?,
        seed: arguments.number("--seed", 1)?,
        threads: arguments.number("--threads", threads())? as usize,
        failures_max: 20,
        load: None,
    };
    let report = rot::run(&options);
    let head = ["place", "damage", "injections", "hit a group", "named", "without trace"];
    println!(
        "{:<16}{:<16}{:>11}{:>13}{:>10}{:>15}",
        head[0], head[1], head[2], head[3], head[4], head[5]
    );
    for ((target, how), line) in &report.lines {
        let target = format!("{target:?}");
        let (injections, hits, named, untold) =
            (line.injections, line.hits, line.named, line.untold);
        println!("{target:<16}{how:<16}{injections:>11}{hits:>13}{named:>10}{untold:>15}");
    }
    let sum = report.sum();
    println!(
        "{} injections, {} hit a group, {} records lost and named; {} injections left nothing of the last groups \
         ({} records); {:.0} s; {} failures",
        sum.injections,
        sum.hits,
        sum.named,
        sum.untold_injections,
        sum.untold,
        report.took.as_secs_f64(),
        report.failures.len(),
    );
    let sound = print_failures("rot", &report.failures);
    Ok(sound && sum.injections >= options.injections)
}

fn run_iofault(arguments: &Arguments) -> Result<bool, String> {
    arguments.check(&["--injections", "--seed", "--threads", "--only"])?;
    if let Some(only) = arguments.text("--only")? {
        let result = iofault::replay(only);
        println!("{only}: {}", result.as_ref().err().map_or("holds", |error| error.as_str()));
        return Ok(result.is_ok());
    }
    let options = iofault::Options {
        injections: arguments.number("--injections", 10_000)?,
        seed: arguments.number("--seed", 1)?,
        threads: arguments.number("--threads", threads())? as usize,
        failures_max: 20,
    };
    let dir = std::env::temp_dir().join(format!("log-proofs-{}", std::process::id()));
    let report = iofault::run(&options, &dir);
    // Leftovers in a scratch folder harm nobody.
    let _ = std::fs::remove_dir_all(&dir);
    println!(
        "{:<12}{:<30}{:>8}{:>12}{:>14}",
        "site", "for how long", "runs", "injections", "opened again"
    );
    for ((site, lasting), [runs, struck, reopened]) in &report.lines {
        println!("{site:<12}{lasting:<30}{runs:>8}{struck:>12}{reopened:>14}");
    }
    let (injections, seconds) = (report.injections(), report.took.as_secs_f64());
    println!("{injections} injections struck; {seconds:.0} s; {} failures", report.failures.len());
    let sound = print_failures("iofault", &report.failures);
    Ok(sound && injections >= options.injections)
}

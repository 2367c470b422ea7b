//! Project chores: `cargo xtask test|dist|smoke|bench|powercut|mutants|fuzz|tidy|deny`.
//!
//! `test` is what CI runs and what the README says; the others are its parts, and the benchmarks.
//! Nothing here installs anything: what is missing is named with the line that installs it.

mod bench;
mod deny;
mod dist;
mod fuzz;
mod mutants;
mod powercut;
mod proofs;
mod shell;
mod smoke;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask test [--full]          everything: format, lints, tests with real peers, docs, tidy, ARM, emulator
cargo xtask ci [--full]            the same
cargo xtask dist --target TRIPLE   the release binary for a board (all boards' targets without --target)
cargo xtask smoke --target TRIPLE  publish, kill, restart, consume with that binary under qemu-user
cargo xtask bench NAME [ARGS]      ingest, connects, streams, latency, size, generator: a table, then one JSON line
cargo xtask powercut [--cycles N] [--rot-cycles N] [--seed S]   kill -9 over a FUSE disk that loses what was not synced (root)
cargo xtask mutants [--again] [--file PART]...   mutation test of the log crate (needs cargo-mutants; an hour)
cargo xtask crash [--images N] [--seed S] [--minutes M]   power cuts, enumerated: a million images of the log's disk
cargo xtask rot [--injections N] [--seed S]       damage to what was synced
cargo xtask iofault [--injections N] [--seed S]   calls that fail; each of the three takes --only CASE
cargo xtask fuzz [--executions N] [--target NAME] [--seconds S]   the MQTT core on arbitrary bytes, by coverage (g++)
cargo xtask sessions [--seeds N] [--seed S] [--only SEED]   power cuts under sessions: QoS 1, QoS 2, subscriptions
cargo xtask tidy                   what the source tree promises about itself
cargo xtask deny                   licences, advisories and sources of dependencies (needs cargo-deny)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((name, rest)) = arguments.split_first() else {
        print!("{HELP}");
        return Ok(());
    };
    match name.as_str() {
        "test" | "ci" => test::run(flag(rest, "--full")?),
        "dist" => match option(rest, "--target")? {
            Some(target) => dist::build(target).map(drop),
            None => dist::TARGETS.iter().try_for_each(|target| dist::build(target).map(drop)),
        },
        "smoke" => match option(rest, "--target")? {
            Some(target) => smoke::run(target),
            None => dist::TARGETS.iter().try_for_each(|target| smoke::run(target)),
        },
        "bench" => bench::run(rest),
        "powercut" => powercut::run(rest),
        "mutants" => mutants::run(rest),
        "fuzz" => fuzz::run(rest),
        "crash" | "rot" | "iofault" => proofs::run("log-proofs", &[name], rest),
        "sessions" => proofs::run("session-proofs", &[], rest),
        "tidy" => tidy::run(),
        "deny" => deny::run(deny::Checks::All),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        _ => bail!("no chore {name}\n{HELP}"),
    }
}

/// The only flag that may be there.
fn flag(arguments: &[String], name: &str) -> Result<bool> {
    match arguments {
        [] => Ok(false),
        [only] if only == name => Ok(true),
        _ => bail!("unexpected {arguments:?}; only {name} is known here"),
    }
}

/// The value of the only option that may be there.
fn option<'a>(arguments: &'a [String], name: &str) -> Result<Option<&'a str>> {
    match arguments {
        [] => Ok(None),
        [option, value] if option == name => Ok(Some(value)),
        _ => bail!("unexpected {arguments:?}; only {name} VALUE is known here"),
    }
}

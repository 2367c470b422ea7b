//! The tests of the crate: which there are, what each takes, and which mutants it reaches.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::index_of;
use crate::judge::{Ran, run};

/// One test.
pub(crate) struct Test {
    pub(crate) binary: PathBuf,
    pub(crate) name: String,
    /// Where it runs: its crate.
    pub(crate) folder: PathBuf,
    pub(crate) cpu_s: f64,
    pub(crate) wall: Duration,
    /// Indices of mutants.
    pub(crate) reaches: HashSet<usize>,
}

impl Test {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.folder);
        command.args(["--exact", &self.name, "--test-threads", "1", "-q"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Runs every test alone in the folder of its package, without a mutant. The quickest come first.
pub(crate) fn record(binaries: &[PathBuf], package: &Path, folder: &Path) -> Result<Vec<Test>> {
    let file = folder.join("reached");
    let mut tests = Vec::new();
    for binary in binaries {
        let list = Command::new(binary).args(["--list", "--format", "terse"]).output();
        let list = String::from_utf8(list.context("the list of tests")?.stdout)?;
        for name in list.lines().filter_map(|line| line.strip_suffix(": test")) {
            let mut test = Test {
                binary: binary.clone(),
                name: name.to_owned(),
                folder: package.to_owned(),
                cpu_s: 0.0,
                wall: Duration::ZERO,
                reaches: HashSet::new(),
            };
            let _none_yet = std::fs::remove_file(&file);
            let _slower =
                run(test.command().env("MUTANT_REACHED", &file), Duration::from_secs(600))?;
            let (result, cost) = run(&mut test.command(), Duration::from_secs(300))?;
            if result != Ran::Passed {
                bail!("{name} fails without any mutant");
            }
            (test.cpu_s, test.wall) = (cost.cpu_s, cost.wall);
            let reached = std::fs::read_to_string(&file).unwrap_or_default();
            test.reaches =
                reached.lines().filter_map(|line| line.parse().ok()).map(index_of).collect();
            tests.push(test);
        }
    }
    tests.sort_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s));
    Ok(tests)
}

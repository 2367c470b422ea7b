//! A copy of the workspace with all mutants in it, built until the compiler has nothing to say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::instrument::{Instrumented, SWITCH, instrument};
use crate::judge::Outcome;
use crate::list::{Genre, Mutant, PACKAGE};

/// Builds before we take it that something else is wrong.
const ROUNDS_MAX: usize = 40;

/// The workspace and its copy.
pub(crate) struct Tree {
    source: PathBuf,
    folder: PathBuf,
    copy: PathBuf,
}

impl Tree {
    pub(crate) fn new() -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let folder = source.join("target/mutants");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { copy: folder.join("tree"), source, folder })
    }

    /// Where results go.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn source(&self) -> &Path {
        &self.source
    }

    /// The crate under test, in the copy.
    pub(crate) fn package(&self) -> PathBuf {
        self.copy.join("edge-broker/log")
    }

    /// Copies what git knows of, and what it might.
    pub(crate) fn copy(&self) -> Result<()> {
        let files = Command::new("git")
            .current_dir(&self.source)
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .output()
            .context("git ls-files")?;
        if self.copy.exists() {
            std::fs::remove_dir_all(&self.copy)?;
        }
        for file in String::from_utf8(files.stdout)?.split_terminator('\0') {
            let (from, to) = (self.source.join(file), self.copy.join(file));
            if !from.is_file() {
                continue;
            }
            std::fs::create_dir_all(to.parent().context("a file in a folder")?)?;
            std::fs::copy(from, to)?;
        }
        Ok(())
    }

    /// Puts all mutants into the copy that build there. Returns the others.
    pub(crate) fn instrument(&self, mutants: &[Mutant]) -> Result<BTreeMap<usize, Outcome>> {
        let of_other_type =
            |mutant: &Mutant| mutant.genre == Genre::FnValue && mutant.returns_impl();
        let mut out: BTreeMap<usize, Outcome> = (0..mutants.len())
            .filter(|index| of_other_type(&mutants[*index]))
            .map(|index| (index, Outcome::NotSwitchable))
            .collect();
        for round in 1..=ROUNDS_MAX {
            let files = self.write(mutants, &mut out)?;
            let complaints = self.check()?;
            if complaints.is_empty() {
                return Ok(out);
            }
            let before = out.len();
            for complaint in &complaints {
                let Some(file) = files.get(&complaint.file) else { continue };
                for index in blamed(file, &complaint.range) {
                    let other_type = mutants[index].returns_impl();
                    let outcome =
                        if other_type { Outcome::NotSwitchable } else { complaint.outcome() };
                    out.entry(index).or_insert(outcome);
                }
            }
            println!("build {round}: {} mutants left out", out.len() - before);
            if out.len() == before {
                for complaint in complaints.iter().take(5) {
                    eprintln!("{complaint:?}");
                }
                bail!("the instrumented crate does not build, and no mutant is to blame");
            }
        }
        bail!("the instrumented crate does not build after {ROUNDS_MAX} rounds")
    }

    fn write(
        &self,
        mutants: &[Mutant],
        out: &mut BTreeMap<usize, Outcome>,
    ) -> Result<BTreeMap<String, Instrumented>> {
        let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.file.as_str()).collect();
        let mut files = BTreeMap::new();
        for name in names {
            let source = std::fs::read_to_string(self.source.join(name))?;
            let wanted: Vec<_> = mutants
                .iter()
                .enumerate()
                .filter(|(index, mutant)| mutant.file == name && !out.contains_key(index))
                .collect();
            let made = instrument(&source, &wanted).with_context(|| name.to_owned())?;
            for index in &made.not_found {
                out.insert(*index, Outcome::NotSwitchable);
            }
            write_if_changed(&self.copy.join(name), &made.text)?;
            files.insert(name.to_owned(), made);
        }
        // Macros are known behind their definition only: it comes first, behind the crate's own attributes.
        let root = self.source.join("edge-broker/log/src/lib.rs");
        let text = std::fs::read_to_string(root)?;
        let at =
            text.find("\npub mod").or_else(|| text.find("\nmod ")).context("modules in lib.rs")?
                + 1;
        let text = format!("{}{SWITCH}{}", &text[..at], &text[at..]);
        write_if_changed(&self.copy.join("edge-broker/log/src/lib.rs"), &text)?;
        Ok(files)
    }

    fn cargo(&self) -> Command {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", self.folder.join("build"))
            .env("RUSTFLAGS", "--cap-lints=allow");
        cargo
    }

    fn check(&self) -> Result<Vec<Complaint>> {
        let output = self
            .cargo()
            .args(["check", "-q", "--profile", "mutants", "-p", PACKAGE, "--message-format=json"])
            .stderr(Stdio::inherit())
            .output()
            .context("cargo check")?;
        let mut complaints = Vec::new();
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message: Value = serde_json::from_slice(line)?;
            if message["message"]["level"] == "error" {
                complaints.extend(Complaint::all(&message["message"]));
            }
        }
        if complaints.is_empty() && !output.status.success() {
            bail!("cargo check fails without a word about the code");
        }
        Ok(complaints)
    }

    /// Builds the crate's tests: unit tests, and `tests/log`.
    pub(crate) fn test_binaries(&self) -> Result<Vec<PathBuf>> {
        let output = self
            .cargo()
            .args(["test", "-q", "--no-run", "--profile", "mutants", "-p", PACKAGE])
            .args(["--lib", "--test", "log", "--message-format=json"])
            .stderr(Stdio::inherit())
            .output()
            .context("cargo test --no-run")?;
        if !output.status.success() {
            bail!("the tests of the instrumented crate do not build");
        }
        let mut binaries = Vec::new();
        for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message: Value = serde_json::from_slice(line)?;
            binaries.extend(message["executable"].as_str().map(PathBuf::from));
        }
        Ok(binaries)
    }
}

fn write_if_changed(file: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(file).is_ok_and(|known| known == text) {
        return Ok(());
    }
    Ok(std::fs::write(file, text)?)
}

/// What the compiler says, and of what.
#[derive(Debug)]
struct Complaint {
    code: String,
    #[expect(dead_code, reason = "told when no mutant is to blame")]
    text: String,
    file: String,
    range: Range<usize>,
}

impl Complaint {
    /// One for each place in a message, also where a macro was called.
    fn all(message: &Value) -> Vec<Self> {
        let mut out = Vec::new();
        let spans = message["spans"].as_array().into_iter().flatten();
        for span in spans.filter(|span| span["is_primary"] == true) {
            let mut span = span;
            loop {
                let file = span["file_name"].as_str().unwrap_or_default();
                let at = |name: &str| span[name].as_u64().unwrap_or(0) as usize;
                if !span["expansion"].is_object() {
                    out.push(Self {
                        code: message["code"]["code"].as_str().unwrap_or_default().to_owned(),
                        text: message["message"].as_str().unwrap_or_default().to_owned(),
                        file: file.to_owned(),
                        range: at("byte_start")..at("byte_end"),
                    });
                    break;
                }
                span = &span["expansion"]["span"];
            }
        }
        out
    }

    /// What cannot be built like this may still be built alone: calls in constants, and types that differ from each
    /// other.
    fn outcome(&self) -> Outcome {
        match self.code.as_str() {
            "E0015" | "E0658" | "E0716" | "E0505" | "E0502" | "E0499" | "E0382" | "E0507" => {
                Outcome::NotSwitchable
            }
            _ => Outcome::NotBuilt,
        }
    }
}

/// The mutants that stand where the compiler complains: the one whose text it is, else those of the smallest site.
fn blamed(file: &Instrumented, range: &Range<usize>) -> Vec<usize> {
    let touches = |known: &Range<usize>| known.start < range.end && range.start < known.end;
    let contains = |known: &Range<usize>| known.start <= range.start && range.end <= known.end;
    let own: Vec<_> =
        file.mutants.iter().filter(|(_, known)| contains(known)).map(|(index, _)| *index).collect();
    if !own.is_empty() {
        return own;
    }
    let site =
        file.sites.iter().filter(|(_, known)| contains(known)).min_by_key(|(_, known)| known.len());
    match site {
        Some((indices, _)) => indices.clone(),
        None => file
            .mutants
            .iter()
            .filter(|(_, known)| touches(known))
            .map(|(index, _)| *index)
            .collect(),
    }
}

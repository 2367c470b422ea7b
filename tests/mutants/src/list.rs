//! What there is to change: the list of cargo-mutants.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The crate under test.
pub(crate) const PACKAGE: &str = "edge-log";

/// One change.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Mutant {
    /// Place and change in words; names it in reports.
    pub(crate) name: String,
    /// From the root of the workspace.
    pub(crate) file: String,
    pub(crate) genre: Genre,
    /// What stands there instead.
    pub(crate) replacement: String,
    pub(crate) span: Span,
    pub(crate) function: Option<Function>,
}

impl Mutant {
    /// Whether its function returns a type that only its body names: it can have one body only.
    pub(crate) fn returns_impl(&self) -> bool {
        self.function.as_ref().is_some_and(|function| function.return_type.contains("impl "))
    }
}

/// What kind of change.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum Genre {
    /// The function returns something at once.
    FnValue,
    BinaryOperator,
    UnaryOperator,
    /// An arm of a match is left out.
    MatchArm,
    /// A guard is always true, or false.
    MatchArmGuard,
    /// A field is taken from the base of the struct expression.
    StructField,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) return_type: String,
}

/// Lines and columns from 1.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Span {
    pub(crate) start: Place,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// All mutants of the crate in `workspace`.
pub(crate) fn all(workspace: &Path) -> Result<Vec<Mutant>> {
    let output = Command::new("cargo")
        .current_dir(workspace)
        .args(["mutants", "--package", PACKAGE, "--list", "--json"])
        .output()
        .context("cargo mutants --list (cargo install cargo-mutants --locked)")?;
    if !output.status.success() {
        bail!("cargo mutants --list: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("the list of cargo mutants")
}

//! What the source tree promises about itself and no compiler checks.
//!
//! - Rust files have at most [`LINES_MAX`] lines, and begin with a module doc unless they are tests.
//! - No work is left behind in words, and no test is switched off.
//! - `ARCHITECTURE.md` has at most [`ARCHITECTURE_LINES_MAX`] lines.
//! - Every Markdown file has exactly one title, in its first line.
//! - The crates that promise to do no I/O do not name tokio in their `Cargo.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::workspace;

const LINES_MAX: usize = 1_000;
const ARCHITECTURE_LINES_MAX: usize = 200;

/// Crates whose manifest proves that they cannot do network I/O.
const SANS_IO: [&str; 6] = [
    "edge-broker/wire",
    "edge-broker/log",
    "edge-broker/config",
    "edge-broker/mqtt",
    "uplink/core",
    "boards",
];

pub(crate) fn run() -> Result<()> {
    let top = workspace();
    let mut files = Vec::new();
    collect(&top, &mut files)?;
    files.sort();
    let mut faults = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(&top).unwrap_or(path);
        for fault in check_file(name, &text) {
            faults.push(format!("{}:{fault}", name.display()));
        }
    }
    for folder in SANS_IO {
        let manifest = top.join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&manifest)?;
        if dependencies(&text).any(|name| name == "tokio") {
            faults.push(format!("{folder}/Cargo.toml:1: does no I/O, so must not name tokio"));
        }
    }
    if !faults.is_empty() {
        bail!("the tree is not tidy:\n{}", faults.join("\n"));
    }
    eprintln!("==> tidy: {} files", files.len());
    Ok(())
}

/// Source files and documents, without what Git ignores.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "data" {
                collect(&path, files)?;
            }
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            files.push(path);
        }
    }
    Ok(())
}

/// `LINE: what is wrong` for each fault of one file.
fn check_file(name: &Path, text: &str) -> Vec<String> {
    let is_markdown = name.extension().is_some_and(|extension| extension == "md");
    if is_markdown { check_document(name, text) } else { check_source(name, text) }
}

fn check_document(name: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("# ") {
        faults.push("1: begins without a title (`# ...`)".to_owned());
    }
    let mut in_code = false;
    for (number, line) in text.lines().enumerate().skip(1) {
        in_code ^= line.starts_with("```");
        if !in_code && line.starts_with("# ") {
            faults.push(format!("{}: a second title", number + 1));
        }
    }
    let lines = text.lines().count();
    if name == Path::new("ARCHITECTURE.md") && lines > ARCHITECTURE_LINES_MAX {
        faults.push(format!("{lines}: more than {ARCHITECTURE_LINES_MAX} lines"));
    }
    faults
}

fn check_source(name: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{lines}: more than {LINES_MAX} lines; split it by noun"));
    }
    if !text.starts_with("//!") && !is_test_module(name) {
        faults.push("1: begins without a module doc (`//! ...`)".to_owned());
    }
    // In pieces, so that this file is tidy itself.
    let left_behind = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let switched_off =
        [concat!("#[ig", "nore"), concat!("todo", "!("), concat!("unimpl", "emented!(")];
    for (number, line) in text.lines().enumerate() {
        for word in left_behind.iter().chain(&switched_off) {
            if line.contains(word) {
                faults.push(format!("{}: {word}", number + 1));
            }
        }
    }
    faults
}

fn is_test_module(name: &Path) -> bool {
    name.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// Names in the `[dependencies]` section of a manifest.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let section = manifest.split("\n[dependencies]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter_map(|line| line.split(['=', '.', ' ']).next());
    names.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, text: &str) -> Vec<String> {
        check_file(Path::new(name), text)
    }

    #[test]
    fn each_kind_of_untidiness_is_found() {
        assert_eq!(faults("a.rs", "//! Doc.\nfn main() {}\n"), Vec::<String>::new());
        assert_eq!(faults("a.rs", "fn main() {}\n").len(), 1);
        assert_eq!(faults("a.rs", &format!("//! Doc.\n// {}\n", concat!("TO", "DO"))).len(), 1);
        let off = concat!("//! Doc.\n#[ig", "nore]\nfn f() {}\n");
        assert_eq!(faults("a.rs", off).len(), 1);
        let long = format!("//! Doc.\n{}", "// x\n".repeat(LINES_MAX));
        assert_eq!(faults("a.rs", &long).len(), 1);
        assert_eq!(faults("a.md", "No title\n").len(), 1);
        assert_eq!(faults("a.md", "# One\n\n# Two\n").len(), 1);
        assert_eq!(faults("a.md", "# One\n\n```sh\n# not a title\n```\n"), Vec::<String>::new());
        let architecture = format!("# A\n{}", "x\n".repeat(ARCHITECTURE_LINES_MAX));
        assert_eq!(faults("ARCHITECTURE.md", &architecture).len(), 1);
    }

    #[test]
    fn only_the_dependencies_section_counts() {
        let manifest = "[package]\nname = \"tokio\"\n\n[dependencies]\nbytes.workspace = true\n\
                        tokio = \"1\"\n\n[dev-dependencies]\nrand = \"1\"\n";
        assert_eq!(dependencies(manifest).collect::<Vec<_>>(), ["bytes", "tokio"]);
    }
}

//! What can be wrong with a configuration: each mistake in one line, with where it stands in the file.
//!
//! All mistakes are told at once, in the order of the file, [`PROBLEMS_MAX`] at most.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::polish::polished;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; give a readable file with --config, or none", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no configuration: too large.
    #[error("{}: larger than {max_bytes} bytes; this is not a configuration file", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
    /// Keys, values or relations between values are wrong: each a line of its own, in the order of the file.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// Mistakes told at once; a file with more of them is another file.
const PROBLEMS_MAX: usize = 50;

impl ConfigError {
    pub(crate) fn of(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place.as_ref().map(|(_, line)| *line));
        problems.dedup();
        Self::Invalid(problems)
    }
}

fn lines(problems: &[Problem]) -> String {
    let mut lines: Vec<String> =
        problems.iter().take(PROBLEMS_MAX).map(ToString::to_string).collect();
    if let more @ 1.. = problems.len().saturating_sub(PROBLEMS_MAX) {
        lines.push(format!("and {more} more mistakes"));
    }
    lines.join("\n")
}

/// One mistake: place, key, value, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file and the line in it, counted from 1; none for a flag or a value nobody wrote.
    pub place: Option<(String, usize)>,
    /// `lane.normal.budget` or `--mqtt`; empty where the file is not TOML.
    pub key: String,
    /// The value as written, where it is short.
    pub value: Option<String>,
    /// What is wrong and the remedy.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line)) = &self.place {
            write!(f, "{file}:{line}: ")?;
        }
        let is_flag = self.key.starts_with("--");
        match &self.value {
            Some(value) if is_flag => write!(f, "{} {value}: ", self.key)?,
            Some(value) => write!(f, "{} = {value}: ", self.key)?,
            None if self.key.is_empty() => {}
            None => write!(f, "{}: ", self.key)?,
        }
        f.write_str(&self.what)
    }
}

impl Problem {
    /// Where it is, without what is wrong there.
    pub(crate) fn place_text(&self) -> String {
        self.to_string().trim_end_matches(": ").to_owned()
    }
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Bytes of the file.
    File(Range<usize>),
    /// A flag and what it was given.
    Flag(&'static str, String),
    /// Nobody wrote it: the key it would have.
    Default(String),
}

/// A mistake on its way to becoming a [`Problem`].
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) origin: Origin,
    pub(crate) what: String,
}

impl Fault {
    pub(crate) fn new(origin: Origin, what: impl fmt::Display) -> Self {
        Self { origin, what: what.to_string() }
    }

    /// Whether it is about exactly this place of the file.
    pub(crate) fn is_at(&self, place: &Range<usize>) -> bool {
        matches!(&self.origin, Origin::File(span) if span == place)
    }

    /// About a value in the file.
    pub(crate) fn at<T>(value: &Spanned<T>, what: impl fmt::Display) -> Self {
        Self::new(Origin::File(value.span()), what)
    }
}

/// The text of a configuration file and its name.
#[derive(Clone, Copy)]
pub(crate) struct Document<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

/// Values longer than this are left out of messages.
const VALUE_CHARS_MAX: usize = 80;

impl Document<'_> {
    pub(crate) fn problem(&self, fault: Fault) -> Problem {
        let what = one_line(&fault.what);
        match fault.origin {
            Origin::Flag(flag, value) => {
                Problem { place: None, key: flag.to_owned(), value: Some(value), what }
            }
            Origin::Default(key) => Problem { place: None, key, value: None, what },
            Origin::File(span) => {
                let found = self.find(&span);
                let place = Some((self.name.to_owned(), self.line_of(span.start)));
                let (key, value) = match found {
                    Some(found) => {
                        (found.path.join("."), found.leaf.and_then(|leaf| self.short(leaf)))
                    }
                    None => (String::new(), None),
                };
                Problem { place, key, value, what }
            }
        }
    }

    pub(crate) fn unreadable(&self, error: &toml::de::Error) -> Problem {
        let span = error.span().unwrap_or(0..0);
        let readable = DeTable::parse(self.text).is_ok();
        let what = match polished(error.message()) {
            what if readable => what,
            what => format!("not TOML: {what}"),
        };
        let mut problem = self.problem(Fault::new(Origin::File(span), what));
        if error.message().starts_with("unknown field") {
            // The key is what is wrong; its value says nothing.
            problem.value = None;
        }
        problem
    }

    fn line_of(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        1 + self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
    }

    fn short(&self, span: Range<usize>) -> Option<String> {
        let text = self.text.get(span)?.trim();
        let fits = text.chars().count() <= VALUE_CHARS_MAX && !text.contains('\n');
        (fits && !text.is_empty()).then(|| text.to_owned())
    }

    /// The innermost key whose name or value is at `span`.
    fn find(&self, span: &Range<usize>) -> Option<Found> {
        let (root, _) = DeTable::parse_recoverable(self.text);
        let mut best = None;
        search_table(root.get_ref(), span, &mut Vec::new(), &mut best);
        best
    }
}

struct Found {
    path: Vec<String>,
    /// Where the value stands, unless it is a table.
    leaf: Option<Range<usize>>,
    /// How many bytes the place has: the fewest win.
    width: usize,
}

fn search_table(
    table: &DeTable<'_>,
    span: &Range<usize>,
    path: &mut Vec<String>,
    best: &mut Option<Found>,
) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        consider(&key.span(), value, span, path, best);
        search_value(value, span, path, best);
        path.pop();
    }
}

fn search_value(
    value: &Spanned<DeValue<'_>>,
    span: &Range<usize>,
    path: &mut Vec<String>,
    best: &mut Option<Found>,
) {
    consider(&value.span(), value, span, path, best);
    match value.get_ref() {
        DeValue::Table(table) => search_table(table, span, path, best),
        DeValue::Array(array) => array.iter().for_each(|item| search_value(item, span, path, best)),
        _ => {}
    }
}

fn consider(
    place: &Range<usize>,
    value: &Spanned<DeValue<'_>>,
    span: &Range<usize>,
    path: &[String],
    best: &mut Option<Found>,
) {
    let covers = place.start <= span.start && span.end <= place.end;
    let width = place.len();
    // At equal width the later one is the inner one.
    if covers && best.as_ref().is_none_or(|known| width <= known.width) {
        let leaf = match value.get_ref() {
            DeValue::Table(_) => None,
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => None,
            _ => Some(value.span()),
        };
        *best = Some(Found { path: path.to_vec(), leaf, width });
    }
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

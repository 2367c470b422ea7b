//! From the text to its keys, past those that are wrong: a key that nobody knows or a value of the wrong type is told
//! and left out, and the rest is read.
//!
//! What is not TOML at all ends the reading: what would be told behind it follows from it.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use crate::error::{Document, Problem};
use crate::raw::RawConfig;

/// Keys that are left out at most.
const LEFT_OUT_MAX: usize = 200;

/// What was read.
pub(super) struct Read {
    pub(super) problems: Vec<Problem>,
    /// Tables that something was left out of: what seems to be missing there may be what was left out.
    pub(super) incomplete: Vec<Range<usize>>,
    /// `None`: the rest means nothing without what was left out.
    pub(super) raw: Option<RawConfig>,
}

pub(super) fn read(document: &Document<'_>) -> Read {
    let (mut table, errors) = DeTable::parse_recoverable(document.text);
    let mut read = Read { problems: Vec::new(), incomplete: Vec::new(), raw: None };
    if !errors.is_empty() {
        read.problems = not_toml(&errors).map(|error| document.unreadable(error)).collect();
        return read;
    }
    let mut is_whole = true;
    loop {
        let error = match RawConfig::deserialize(Deserializer::from(table.clone())) {
            Ok(raw) => {
                read.raw = is_whole.then_some(raw);
                return read;
            }
            Err(error) => error,
        };
        read.problems.push(document.unreadable(&error));
        let Some(span) = error.span().filter(|_| read.problems.len() < LEFT_OUT_MAX) else {
            return read;
        };
        let whole = table.span();
        let Some(left_out) = leave_out(table.get_mut(), &whole, &span, &[]) else { return read };
        is_whole &= !left_out.is_named_elsewhere;
        read.incomplete.push(left_out.table);
    }
}

/// Keys that are written twice, and the first of everything else.
fn not_toml(errors: &[Error]) -> impl Iterator<Item = &Error> {
    let is_twice = |error: &Error| error.message().starts_with("duplicate key");
    let first = errors.iter().position(|error| !is_twice(error)).unwrap_or(errors.len());
    errors.iter().take(first + 1)
}

struct LeftOut {
    /// The table that it was in.
    table: Range<usize>,
    /// A table, which other parts of the file may name: lanes, topics.
    is_named_elsewhere: bool,
}

/// Removes the innermost key whose name or value is at `span`.
fn leave_out(
    table: &mut DeTable<'_>,
    place: &Range<usize>,
    span: &Range<usize>,
    path: &[&str],
) -> Option<LeftOut> {
    for (name, value) in table.iter_mut() {
        let inner = value.span();
        let path: Vec<&str> = path.iter().copied().chain([&**name.get_ref()]).collect();
        let found = match value.get_mut() {
            DeValue::Table(table) => leave_out(table, &inner, span, &path),
            DeValue::Array(items) => items.iter_mut().find_map(|item| {
                let inner = item.span();
                match item.get_mut() {
                    DeValue::Table(table) => leave_out(table, &inner, span, &path),
                    _ => None,
                }
            }),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    let covers = |place: &Range<usize>| place.start <= span.start && span.end <= place.end;
    let is_it =
        |key: Range<usize>, value: &Spanned<DeValue<'_>>| covers(&key) || covers(&value.span());
    let name = table.iter().find(|(key, value)| is_it(key.span(), value));
    let (name, value) = name.map(|(key, value)| (key.clone(), value.get_ref()))?;
    let is_table = match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|item| item.get_ref().is_table()),
        _ => false,
    };
    let is_named_elsewhere = match path {
        [] => is_table || ["lane", "topic"].contains(&&**name.get_ref()),
        [parent] => *parent == "lane",
        _ => false,
    };
    table.remove(&name);
    Some(LeftOut { table: place.clone(), is_named_elsewhere })
}

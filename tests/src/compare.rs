//! Comparing long lists, told in few words: how many there are, and the first differences.

use std::fmt::{Debug, Write};

/// Differences that are shown.
const SHOWN_MAX: usize = 3;
/// Characters of an item that are shown.
const CHARS_MAX: usize = 120;

/// Compares two lists item by item, in order.
///
/// # Panics
/// When they differ; the message has their lengths and the first differences, not the lists.
#[track_caller]
pub fn assert_same<A, B>(what: &str, got: &[A], wanted: &[B])
where
    A: Debug + PartialEq<B>,
    B: Debug,
{
    if let Some(told) = difference(got, wanted) {
        panic!("{what}: {told}");
    }
}

/// How two lists differ, in a few lines; `None` where they do not.
fn difference<A, B>(got: &[A], wanted: &[B]) -> Option<String>
where
    A: Debug + PartialEq<B>,
    B: Debug,
{
    let places = got.len().max(wanted.len());
    let differing = |&at: &usize| match (got.get(at), wanted.get(at)) {
        (Some(a), Some(b)) => a != b,
        _ => true,
    };
    let count = (0..places).filter(differing).count();
    if count == 0 {
        return None;
    }
    let mut told =
        format!("{} items where {} were wanted, {count} differ", got.len(), wanted.len());
    for at in (0..places).filter(differing).take(SHOWN_MAX) {
        let item = |item: Option<String>| item.as_deref().map_or("nothing".to_owned(), brief);
        let got = item(got.get(at).map(|item| format!("{item:?}")));
        let wanted = item(wanted.get(at).map(|item| format!("{item:?}")));
        write!(told, "\n  at {at}: {got}\n  not {wanted}")
            .expect("writing to a String cannot fail");
    }
    Some(told)
}

/// The beginning of a long text.
pub fn brief(text: &str) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// A line of a log, without the rest of a very long one.
pub fn brief_line(line: &str) -> String {
    match line.char_indices().nth(2 * CHARS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

/// How many there are, and the first few of them.
pub fn first_few<T: Debug>(items: &[T]) -> String {
    let few = &items[..items.len().min(SHOWN_MAX)];
    let more = if items.len() > few.len() { ", ..." } else { "" };
    format!("{} {}{more}", items.len(), brief(&format!("{few:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_in_few_words() {
        let wanted: Vec<String> = (0..10_000).map(|n| format!("row {n}")).collect();
        assert_eq!(difference(&wanted, &wanted), None);
        let mut got = wanted.clone();
        got.push("one more".to_owned());
        let told = difference(&got, &wanted).unwrap();
        assert_eq!(
            told,
            "10001 items where 10000 were wanted, 1 differ\n  at 10000: \"one more\"\n  not nothing"
        );
        got.remove(5_000);
        assert!(difference(&got, &wanted).unwrap().len() < 1_000);
        let told = difference(&["x".repeat(10_000)], &["y".repeat(10_000)]).unwrap();
        assert!(told.len() < 1_000, "{}", told.len());
    }

    #[test]
    fn a_few_of_many_are_shown() {
        assert_eq!(first_few(&[1, 2]), "2 [1, 2]");
        assert_eq!(first_few(&[1, 2, 3, 4]), "4 [1, 2, 3], ...");
    }
}

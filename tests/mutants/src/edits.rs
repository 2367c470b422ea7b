//! Changes to a source text that nest: wraps around ranges, and replacements of tokens.

use std::ops::Range;

/// Changes to one text, by byte offsets of the original.
#[derive(Default)]
pub(crate) struct Edits {
    all: Vec<Edit>,
    wraps: usize,
}

struct Edit {
    at: usize,
    /// Among those at the same offset: what ends comes first, then what begins (outside in), then replacements.
    order: (u8, usize, usize),
    erases: usize,
    text: String,
    note: Option<usize>,
}

/// Where something ended up: a note and its range in the new text.
pub(crate) type Noted = (usize, Range<usize>);

impl Edits {
    /// `before` and `after` around a range. Of two wraps of the same range the first is the outer one.
    pub(crate) fn wrap(
        &mut self,
        range: Range<usize>,
        before: &[(String, Option<usize>)],
        after: &str,
    ) {
        self.wraps += 1;
        for (text, note) in before {
            let order = (1, usize::MAX - range.end, self.wraps);
            self.all.push(Edit {
                at: range.start,
                order,
                erases: 0,
                text: text.clone(),
                note: *note,
            });
        }
        let order = (0, usize::MAX - range.start, usize::MAX - self.wraps);
        self.all.push(Edit { at: range.end, order, erases: 0, text: after.to_owned(), note: None });
    }

    /// `text` at an offset, before anything that begins there.
    pub(crate) fn insert(&mut self, at: usize, text: String, note: usize) {
        self.all.push(Edit { at, order: (1, 0, 0), erases: 0, text, note: Some(note) });
    }

    /// `text` instead of a token.
    pub(crate) fn replace(&mut self, range: Range<usize>, text: &str) {
        let erases = range.len();
        let text = text.to_owned();
        self.all.push(Edit { at: range.start, order: (2, 0, 0), erases, text, note: None });
    }

    /// The new text, and where what carries a note stands in it.
    pub(crate) fn apply(mut self, source: &str) -> (String, Vec<Noted>) {
        self.all.sort_by_key(|edit| (edit.at, edit.order));
        let (mut out, mut noted, mut from) =
            (String::with_capacity(source.len() * 3), Vec::new(), 0);
        for edit in self.all {
            out.push_str(&source[from..edit.at]);
            from = edit.at + edit.erases;
            let start = out.len();
            out.push_str(&edit.text);
            if let Some(note) = edit.note {
                noted.push((note, start..out.len()));
            }
        }
        out.push_str(&source[from..]);
        (out, noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_nest_by_their_ranges() {
        let mut edits = Edits::default();
        edits.wrap(0..1, &[("[".to_owned(), None)], "]");
        edits.wrap(0..5, &[("(".to_owned(), Some(7))], ")");
        edits.replace(2..3, "-");
        edits.insert(0, "x;".to_owned(), 8);
        let (text, noted) = edits.apply("a + b;");
        assert_eq!(text, "x;([a] - b);");
        assert_eq!(noted, [(8, 0..2), (7, 2..3)]);
    }
}

//! One source file with all of its mutants in it, each behind a switch.
//!
//! Operators become calls of a macro that chooses among the operators; a function that returns something else begins
//! with `if switched { return ..; }`; arms and guards of a match get a guard; fields ask which of two they take.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context, Result};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::edits::{Edits, Noted};
use crate::list::{Genre, Mutant};
use crate::switch_of;

/// The switch, put in front of everything else in `lib.rs`.
pub(crate) const SWITCH: &str = include_str!("switch.txt");

/// A file that has been changed.
pub(crate) struct Instrumented {
    pub(crate) text: String,
    /// Where each mutant stands in it: what the compiler complains of is found by that.
    pub(crate) mutants: Vec<Noted>,
    /// Ranges that several mutants share.
    pub(crate) sites: Vec<(Vec<usize>, Range<usize>)>,
    /// Mutants of the list for which no place was found.
    pub(crate) not_found: Vec<usize>,
}

/// `source` with the mutants in it that `wanted` names by their index in the list.
pub(crate) fn instrument(source: &str, wanted: &[(usize, &Mutant)]) -> Result<Instrumented> {
    let file = syn::parse_file(source).context("does not parse")?;
    let lines = line_starts(source);
    let mut by_place: HashMap<(usize, Place), Vec<(usize, &Mutant)>> = HashMap::new();
    for (index, mutant) in wanted {
        let start = mutant.span.start;
        let line = &source[lines[start.line - 1]..];
        let column: usize = line.chars().take(start.column - 1).map(char::len_utf8).sum();
        let at = lines[start.line - 1] + column;
        by_place.entry((at, Place::of(mutant.genre))).or_default().push((*index, mutant));
    }
    let mut visitor = Instrument {
        source,
        by_place,
        edits: Edits::default(),
        done: HashSet::new(),
        sites: Vec::new(),
    };
    visitor.visit_file(&file);
    let not_found = wanted
        .iter()
        .map(|(index, _)| *index)
        .filter(|index| !visitor.done.contains(index))
        .collect();
    let sites = visitor.sites;
    let (text, mutants) = visitor.edits.apply(source);
    // A site runs from its first mutant in the new text to what follows its end in the old one: near enough by the
    // order of the mutants, so it is widened to the line's end.
    let sites = sites
        .into_iter()
        .filter_map(|ids: Vec<usize>| {
            let of = |id: &usize| {
                mutants.iter().find(|(known, _)| known == id).map(|(_, range)| range.clone())
            };
            let start = ids.iter().filter_map(of).map(|range| range.start).min()?;
            Some((ids, start..matching_end(&text, start)))
        })
        .collect();
    Ok(Instrumented { text, mutants, sites, not_found })
}

/// Mutants of different kinds may begin at the same byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Body,
    Binary,
    Unary,
    Arm,
    Guard,
    Field,
}

impl Place {
    fn of(genre: Genre) -> Self {
        match genre {
            Genre::FnValue => Self::Body,
            Genre::BinaryOperator => Self::Binary,
            Genre::UnaryOperator => Self::Unary,
            Genre::MatchArm => Self::Arm,
            Genre::MatchArmGuard => Self::Guard,
            Genre::StructField => Self::Field,
        }
    }
}

struct Instrument<'a> {
    source: &'a str,
    by_place: HashMap<(usize, Place), Vec<(usize, &'a Mutant)>>,
    edits: Edits,
    done: HashSet<usize>,
    sites: Vec<Vec<usize>>,
}

impl<'a> Instrument<'a> {
    fn take(&mut self, at: usize, place: Place) -> Vec<(usize, &'a Mutant)> {
        let found = self.by_place.remove(&(at, place)).unwrap_or_default();
        self.done.extend(found.iter().map(|(index, _)| *index));
        if !found.is_empty() {
            self.sites.push(found.iter().map(|(index, _)| *index).collect());
        }
        found
    }

    fn body(&mut self, block: &syn::Block) {
        let Some(first) = block.stmts.first() else { return };
        let at = first.span().byte_range().start;
        for (index, mutant) in self.take(at, Place::Body) {
            let switch = switch_of(index);
            let text = format!(
                "if crate::mutant_switch::is({switch}) {{ return {}; }}\n",
                mutant.replacement
            );
            self.edits.insert(at, text, index);
        }
    }
}

/// `[1 (<) 2 (==)]`: what may stand in place of an operator.
fn alternatives(found: &[(usize, &Mutant)]) -> Vec<(String, Option<usize>)> {
    found
        .iter()
        .map(|(index, mutant)| {
            (format!("{} ({}) ", switch_of(*index), mutant.replacement), Some(*index))
        })
        .collect()
}

impl<'ast> Visit<'ast> for Instrument<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let op = binary.op.span().byte_range();
        let found = if has_let(&binary.left) || has_let(&binary.right) {
            Vec::new()
        } else {
            self.take(op.start, Place::Binary)
        };
        if !found.is_empty() {
            let mut before = vec![("crate::mutant_operator!([".to_owned(), None)];
            before.extend(alternatives(&found));
            before.push(("] (".to_owned(), None));
            self.edits.wrap(binary.span().byte_range(), &before, "))");
            let text = format!(") ({}) (", &self.source[op.clone()]);
            self.edits.replace(op, &text);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let op = unary.op.span().byte_range();
        for (index, _) in self.take(op.start, Place::Unary) {
            let before = format!("crate::mutant_without!({} ", switch_of(index));
            self.edits.wrap(unary.span().byte_range(), &[(before, Some(index))], "))");
            let text = format!("({}) (", &self.source[op.clone()]);
            self.edits.replace(op.clone(), &text);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let at = arm.span().byte_range().start;
        for (index, _) in self.take(at, Place::Arm) {
            let is = format!("!crate::mutant_switch::is({})", switch_of(index));
            match &arm.guard {
                None => {
                    self.edits.insert(arm.pat.span().byte_range().end, format!(" if {is}"), index)
                }
                Some((_, guard)) => {
                    let before = format!("{is} && (");
                    self.edits.wrap(guard.span().byte_range(), &[(before, Some(index))], ")");
                }
            }
        }
        if let Some((_, guard)) = &arm.guard {
            let range = guard.span().byte_range();
            for (index, mutant) in self.take(range.start, Place::Guard) {
                let value = &mutant.replacement;
                let before = format!(
                    "(if crate::mutant_switch::is({}) {{ {value} }} else {{ ",
                    switch_of(index)
                );
                self.edits.wrap(range.clone(), &[(before, Some(index))], " })");
            }
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, item: &'ast syn::ExprStruct) {
        if let Some(rest) = &item.rest {
            let path = &self.source[item.path.span().byte_range()];
            let rest = &self.source[rest.span().byte_range()];
            let base = match rest {
                "Default::default()" => format!("<{path} as Default>::default()"),
                other => format!("({other})"),
            };
            for field in &item.fields {
                let range = field.span().byte_range();
                let syn::Member::Named(name) = &field.member else { continue };
                for (index, _) in self.take(range.start, Place::Field) {
                    let is = format!(
                        "if crate::mutant_switch::is({}) {{ {base}.{name} }} else {{ ",
                        switch_of(index)
                    );
                    let short = field.colon_token.is_none();
                    let before = if short { format!("{name}: {is}") } else { is };
                    let value = if short { range.clone() } else { field.expr.span().byte_range() };
                    self.edits.wrap(value, &[(before, Some(index))], " }");
                }
            }
        }
        visit::visit_expr_struct(self, item);
    }
}

/// Whether a condition binds names: it cannot stand but in an `if`.
fn has_let(expr: &syn::Expr) -> bool {
    match expr {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

fn line_starts(source: &str) -> Vec<usize> {
    std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// The end of what begins at `start`: where its brackets are closed again, or its line ends.
fn matching_end(text: &str, start: usize) -> usize {
    let before = text[..start].rfind("mutant_operator!(").filter(|at| start - at < 400);
    let from = before.map_or(start, |at| at + "mutant_operator!".len());
    let mut depth = 0_i32;
    for (at, char) in text[from..].char_indices() {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '\n' if depth <= 0 => return from + at,
            _ => continue,
        }
        if depth <= 0 {
            return from + at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Place as At, Span};

    fn mutant(genre: Genre, line: usize, column: usize, replacement: &str) -> Mutant {
        Mutant {
            name: String::new(),
            file: String::new(),
            genre,
            replacement: replacement.to_owned(),
            span: Span { start: At { line, column } },
            function: None,
        }
    }

    #[test]
    fn every_kind_of_mutant_finds_its_place() {
        let source = "fn f(a: u8, b: u8) -> bool {\n    match a {\n        1 if b > 2 => true,\n        _ => !(a + 1 == b),\n    }\n}\n";
        let list = [
            mutant(Genre::FnValue, 2, 5, "true"),
            mutant(Genre::MatchArm, 3, 9, ""),
            mutant(Genre::MatchArmGuard, 3, 14, "false"),
            mutant(Genre::BinaryOperator, 3, 16, "<"),
            mutant(Genre::UnaryOperator, 4, 14, ""),
            mutant(Genre::BinaryOperator, 4, 18, "-"),
            mutant(Genre::BinaryOperator, 4, 22, "!="),
        ];
        let wanted: Vec<_> = list.iter().enumerate().collect();
        let made = instrument(source, &wanted).unwrap();
        assert_eq!(made.not_found, [0_usize; 0]);
        syn::parse_file(&made.text).unwrap();
        assert!(made.text.contains("if crate::mutant_switch::is(1) { return true; }"));
        assert!(made.text.contains("mutant_operator!([6 (-) ] (a ) (+) ( 1)"), "{}", made.text);
    }
}

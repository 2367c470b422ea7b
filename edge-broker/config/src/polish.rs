//! Turns what serde says about a wrong key or type into what an operator can act upon.

/// The nearest of `known` to `word`, if it is near enough to be a typing mistake.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let best = known.iter().map(|name| (distance(word, name), *name)).min()?;
    let tolerated = (word.chars().count().max(best.1.len()) / 3).max(1);
    (best.0 <= tolerated).then_some(best.1)
}

/// `message` of the TOML reader in our words.
pub(crate) fn polished(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut names = rest.split('`').skip(1).step_by(2);
        let wrong = names.next().unwrap_or_default();
        let known: Vec<&str> = names.collect();
        return match nearest(wrong, &known) {
            Some(near) => format!("unknown key; did you mean \"{near}\"?"),
            None => format!("unknown key; known here: {}", known.join(", ")),
        };
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        return format!(
            "wrong type ({}); write {}",
            found.replace('`', ""),
            in_toml_words(expected)
        );
    }
    if message.starts_with("duplicate key") {
        return "is written twice; remove one".to_owned();
    }
    message.to_owned()
}

fn in_toml_words(expected: &str) -> &str {
    match expected {
        "a string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in [ ]",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut least =
                (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_the_key_that_was_meant() {
        let known = ["budget", "segment", "when_full", "durability", "commit_window_ms"];
        for (typed, meant) in [
            ("budgt", Some("budget")),
            ("bugdet", Some("budget")),
            ("when-full", Some("when_full")),
            ("commit_window", Some("commit_window_ms")),
            ("colour", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
        assert_eq!(nearest("x", &[]), None);
    }
}

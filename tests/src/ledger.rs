//! What was promised against what is there.
//!
//! A load client numbers its messages from 0, never sends a number twice, and notes the numbers
//! whose PUBACK it saw. Every record of the log names its client and number, so that the three ways
//! of breaking the promise can be told apart: missing, there twice, out of order.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::{Context, Result};

use crate::clients::Record;
use crate::compare;

/// The account of one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The client's name, as in its payloads.
    pub client: String,
    /// Numbers given out: 0 to this, not included.
    pub sent: u64,
    /// Numbers whose PUBACK came, ascending.
    pub acked: Vec<u64>,
}

/// How the log differs from the ledgers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged, and not there.
    pub missing: Vec<(String, u64)>,
    /// There more than once.
    pub repeated: Vec<(String, u64)>,
    /// First seen after a later number of the same client.
    pub reordered: Vec<(String, u64)>,
    /// There, and never sent by any client.
    pub invented: Vec<(String, u64)>,
}

impl Findings {
    /// True where everything promised is there, once and in order.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// In few words: how many of each kind, and the first of them.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let few = compare::first_few;
        write!(f, "missing {}, ", few(&self.missing))?;
        write!(f, "repeated {}, ", few(&self.repeated))?;
        write!(f, "reordered {}, ", few(&self.reordered))?;
        write!(f, "invented {}", few(&self.invented))
    }
}

/// The payload of a client's message: `CLIENT NUMBER PADDING`.
pub fn payload(client: &str, number: u64, padding: &str) -> String {
    format!("{client} {number} {padding}")
}

/// Compares the values of a topic, in log order within each partition, with the ledgers.
///
/// # Errors
/// When a value was not made by [`payload`].
pub fn compare<'a>(
    values: impl IntoIterator<Item = &'a str>,
    ledgers: &[Ledger],
) -> Result<Findings> {
    let mut seen: HashMap<&str, BTreeMap<u64, u64>> = HashMap::new();
    let mut findings = Findings::default();
    for value in values {
        let mut words = value.splitn(3, ' ');
        let client = words.next().unwrap_or_default();
        let number = words.next().and_then(|word| word.parse::<u64>().ok());
        let number = number.with_context(|| format!("a value that nobody sent: {value:?}"))?;
        let of_client = seen.entry(client).or_default();
        let times = of_client.get(&number).copied().unwrap_or(0);
        let latest = of_client.last_key_value().map(|(&latest, _)| latest);
        if times == 1 {
            findings.repeated.push((client.to_owned(), number));
        } else if times == 0 && latest.is_some_and(|latest| latest > number) {
            findings.reordered.push((client.to_owned(), number));
        }
        of_client.insert(number, times + 1);
    }
    for ledger in ledgers {
        let of_client = seen.remove(ledger.client.as_str()).unwrap_or_default();
        let missing = ledger.acked.iter().filter(|number| !of_client.contains_key(number));
        findings.missing.extend(missing.map(|&number| (ledger.client.clone(), number)));
        let invented = of_client.range(ledger.sent..);
        findings.invented.extend(invented.map(|(&number, _)| (ledger.client.clone(), number)));
    }
    for (client, numbers) in seen {
        findings.invented.extend(numbers.into_keys().map(|number| (client.to_owned(), number)));
    }
    Ok(findings)
}

/// Where the offsets of a partition are not each one more than the one before: `(partition,
/// offset before, offset after)`. Records come in the order in which they were read.
pub fn offset_faults(records: &[Record]) -> Vec<(i64, i64, i64)> {
    let mut last: HashMap<i64, i64> = HashMap::new();
    let mut faults = Vec::new();
    for record in records {
        let before = last.insert(record.partition, record.offset).unwrap_or(-1);
        if record.offset != before + 1 {
            faults.push((record.partition, before, record.offset));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Vec<Ledger> {
        vec![Ledger { client: "a".into(), sent: 5, acked: vec![0, 1, 2] }]
    }

    fn found(values: &[&str]) -> Findings {
        compare(values.iter().copied(), &ledger()).unwrap()
    }

    #[test]
    fn a_whole_log_with_an_unacknowledged_message_is_fine() {
        assert!(found(&["a 0 x", "a 1 x", "a 2 x", "a 4 x"]).are_none());
    }

    #[test]
    fn each_broken_promise_is_found() {
        let one = |number| vec![("a".to_owned(), number)];
        assert_eq!(found(&["a 0 x", "a 2 x"]).missing, one(1));
        assert_eq!(found(&["a 0 x", "a 1 x", "a 2 x", "a 1 x"]).repeated, one(1));
        assert_eq!(found(&["a 0 x", "a 2 x", "a 1 x"]).reordered, one(1));
        assert_eq!(found(&["a 0 x", "a 1 x", "a 2 x", "a 5 x"]).invented, one(5));
        assert_eq!(found(&["b 0 x"]).invented, vec![("b".to_owned(), 0)]);
        assert!(compare(["garbage"], &ledger()).is_err());
    }

    #[test]
    fn holes_and_repeats_of_offsets_are_found() {
        let record = |partition, offset| Record {
            partition,
            offset,
            timestamp_ms: 0,
            key: None,
            value: String::new(),
            headers: Vec::new(),
        };
        let whole = [record(0, 0), record(1, 0), record(0, 1), record(1, 1)];
        assert_eq!(offset_faults(&whole), vec![]);
        assert_eq!(offset_faults(&[record(0, 0), record(0, 2)]), vec![(0, 0, 2)]);
        assert_eq!(offset_faults(&[record(0, 0), record(0, 0)]), vec![(0, 0, 0)]);
        assert_eq!(offset_faults(&[record(3, 1)]), vec![(3, -1, 1)]);
    }
}

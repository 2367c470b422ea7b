//! The demo's verdict: what is upstream, against what was acknowledged.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Names of records that are told one by one before the rest is only counted.
const NAMED_MAX: usize = 5;

/// Checks the records of one upstream, partition by partition, as they are read.
#[derive(Default)]
pub(crate) struct Verdict {
    devices: BTreeMap<String, Seen>,
    records: u64,
    foreign: u64,
    complaints: Vec<String>,
    duplicates: u64,
    out_of_order: u64,
}

#[derive(Default)]
struct Seen {
    /// Reports 0..next are there.
    next: u64,
    count: u64,
    /// Reports that were jumped over, until they turn up late. Bounded by what is missing.
    missing: std::collections::BTreeSet<u64>,
}

#[derive(Deserialize)]
struct Report {
    device: String,
    seq: u64,
}

impl Verdict {
    /// Takes one record's value, in the order of its partition.
    pub(crate) fn record(&mut self, value: &[u8]) {
        let Ok(report) = serde_json::from_slice::<Report>(value) else {
            self.foreign += 1;
            return;
        };
        self.records += 1;
        let seen = self.devices.entry(report.device.clone()).or_default();
        seen.count += 1;
        if report.seq >= seen.next {
            seen.missing.extend(seen.next..report.seq);
            seen.next = report.seq + 1;
            return;
        }
        let complaint = if seen.missing.remove(&report.seq) {
            self.out_of_order += 1;
            format!("{} report {} came out of order", report.device, report.seq)
        } else {
            self.duplicates += 1;
            format!("{} report {} is there twice", report.device, report.seq)
        };
        if self.complaints.len() < NAMED_MAX {
            self.complaints.push(complaint);
        }
    }

    /// The sentence, and whether it is a good one.
    pub(crate) fn conclude(mut self, acknowledged: &BTreeMap<String, u64>) -> (bool, String) {
        let total: u64 = acknowledged.values().sum();
        let mut missing = 0;
        for (device, count) in acknowledged {
            let lost = match self.devices.get(device) {
                Some(seen) => {
                    seen.missing.range(..count).count() as u64 + count.saturating_sub(seen.next)
                }
                None => *count,
            };
            if lost > 0 && self.complaints.len() < NAMED_MAX {
                self.complaints.push(format!("{lost} reports of {device} are missing"));
            }
            missing += lost;
        }
        let good = missing == 0 && self.duplicates == 0 && self.out_of_order == 0;
        let mut text = if good {
            format!(
                "every one of {total} acknowledged records is upstream exactly once, in order per key"
            )
        } else {
            format!(
                "of {total} acknowledged records {missing} are missing, {} are upstream twice, {} are out of order",
                self.duplicates, self.out_of_order
            )
        };
        for complaint in &self.complaints {
            text.push_str("\n  ");
            text.push_str(complaint);
        }
        if self.foreign > 0 {
            text.push_str(&format!("\n  ({} records of others were left aside)", self.foreign));
        }
        (good, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(records: &[(&str, u64)], acknowledged: &[(&str, u64)]) -> (bool, String) {
        let mut verdict = Verdict::default();
        for (device, seq) in records {
            verdict.record(format!("{{\"device\":\"{device}\",\"seq\":{seq}}}").as_bytes());
        }
        let all =
            acknowledged.iter().map(|(device, count)| ((*device).to_owned(), *count)).collect();
        verdict.conclude(&all)
    }

    #[test]
    fn all_there_once_and_in_order_is_good() {
        assert!(judge(&[("a", 0), ("b", 0), ("a", 1)], &[("a", 2), ("b", 1)]).0);
    }

    #[test]
    fn a_record_that_was_not_acknowledged_may_be_there() {
        assert!(judge(&[("a", 0), ("a", 1)], &[("a", 1)]).0);
    }

    #[test]
    fn a_missing_record_is_named() {
        let (good, text) = judge(&[("a", 0), ("a", 2)], &[("a", 3), ("b", 4)]);
        assert!(
            !good && text.contains("1 reports of a are missing") && text.contains("4 reports of b")
        );
    }

    #[test]
    fn a_record_that_is_there_twice_is_named() {
        let (good, text) = judge(&[("a", 0), ("a", 1), ("a", 0)], &[("a", 2)]);
        assert!(!good && text.contains("a report 0 is there twice"), "{text}");
    }

    #[test]
    fn a_late_record_is_out_of_order_and_not_missing() {
        let (good, text) = judge(&[("a", 1), ("a", 0)], &[("a", 2)]);
        assert!(!good && text.contains("0 are missing") && text.contains("out of order"), "{text}");
    }
}

//! What was promised, kept outside of the disk, and how it is compared with what is read back.
//!
//! A *source* numbers its records from 0 and never sends a number twice. A value names its source and number, and all
//! its other bytes follow from these two, so that a value can be checked without being kept. What was read once, by
//! whomever, must be there at the same offset ever after.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use system_tests::random::Random;

use crate::variation::TOPICS;

/// A partition: index into [`TOPICS`], and number.
pub type Partition = (usize, u32);

/// A record that somebody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Its offset.
    pub offset: u64,
    /// Its source.
    pub source: u32,
    /// Its number.
    pub number: u64,
}

/// The account of one source.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Index into [`TOPICS`].
    pub topic: usize,
    /// Numbers given out: 0 to this, not included.
    pub sent: u64,
    /// Numbers whose acknowledgement came and which must be there; those that were given up by the rules of the lane
    /// or named as lost are taken out.
    pub acked: Vec<u64>,
}

/// All that is known of one log.
#[derive(Debug, Default)]
pub struct Books {
    /// By number.
    pub sources: Vec<Source>,
    /// What was read so far and not given up since, by partition, by offset.
    pub read: BTreeMap<Partition, Vec<Read>>,
    incompressible: bool,
}

/// A range of offsets that the gateway says is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub partition: Partition,
    /// First offset lost.
    pub from: u64,
    /// First offset behind it.
    pub to: u64,
}

/// What the gateway's status says and the comparison needs.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// First and end of what can be read.
    pub bounds: BTreeMap<Partition, (u64, u64)>,
    /// What is lost.
    pub gaps: Vec<Gap>,
    /// Bytes used and budget of the lane `normal`.
    pub normal_bytes: (u64, u64),
}

/// What a comparison has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read.
    pub read: u64,
    /// Acknowledged, and given up since by the rules of the lane.
    pub given_up: u64,
    /// Acknowledged, lost, and named by a gap.
    pub named: u64,
}

/// The value of a source's record.
pub fn value(source: u32, number: u64, incompressible: bool) -> Vec<u8> {
    let mut random = Random::seeded((u64::from(source) << 40) ^ number);
    let mut text = format!("{source} {number} ");
    let size = random.below(1_000);
    if incompressible || size < 10 {
        // Mostly some hundred bytes; now and then more than a sector, a page, several.
        let bytes = match size {
            0 => 24_000,
            1..=4 => 5_000,
            _ => 150 + random.below(500),
        };
        while (text.len() as u64) < bytes {
            // Writing to a string does not fail.
            let _ = write!(text, "{:016x}", random.bits());
        }
    } else {
        let (air, torque) = (random.gauss(298.0, 2.0), random.gauss(40.0, 10.0));
        let (speed, wear) = (random.gauss(1_500.0, 180.0), random.below(250));
        let _ = write!(
            text,
            "{{\"air_temperature_K\":{air:.1},\"torque_Nm\":{torque:.1},\"rotational_speed_rpm\":{speed:.0},\
             \"tool_wear_min\":{wear}}}"
        );
    }
    text.into_bytes()
}

impl Books {
    /// No sources yet.
    pub fn new(incompressible: bool) -> Self {
        Self { incompressible, ..Self::default() }
    }

    /// A new source that publishes to a topic.
    pub fn add_source(&mut self, topic: usize) -> u32 {
        self.sources.push(Source { topic, ..Source::default() });
        (self.sources.len() - 1) as u32
    }

    /// Whether values do not compress.
    pub fn incompressible(&self) -> bool {
        self.incompressible
    }

    /// The source and number of a value, which must be the one that was sent.
    ///
    /// # Errors
    /// Nobody sent it.
    pub fn recognise(&self, value: &[u8]) -> Result<(u32, u64)> {
        let text = std::str::from_utf8(value).context("a value that nobody sent")?;
        let shown = || text.chars().take(60).collect::<String>();
        let mut words = text.splitn(3, ' ');
        let source = words.next().and_then(|word| word.parse::<u32>().ok());
        let number = words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(source), Some(number)) = (source, number) else {
            bail!("a value that nobody sent: {:?}", shown());
        };
        let known = self.sources.get(source as usize).is_some_and(|known| number < known.sent);
        if !known || value != self::value(source, number, self.incompressible) {
            bail!("a value that was sent otherwise, or not at all: {:?}", shown());
        }
        Ok((source, number))
    }

    /// Adds what a consumer has read during the load: it must be there ever after.
    pub fn add_read(&mut self, more: BTreeMap<Partition, Vec<Read>>) {
        for (partition, records) in more {
            let known = self.read.entry(partition).or_default();
            let end = known.last().map_or(0, |last| last.offset + 1);
            known.extend(records.into_iter().filter(|record| record.offset >= end));
        }
    }

    /// Compares with everything that is there now, which becomes what was read. After an error nothing has changed.
    ///
    /// # Errors
    /// A broken promise, in words.
    pub fn compare(
        &mut self,
        found: &BTreeMap<Partition, Vec<Read>>,
        told: &Told,
        forgets: bool,
    ) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut given_up = HashSet::new();
        let mut lost = HashSet::new();
        for (partition, records) in found {
            counts.read += records.len() as u64;
            let bounds = *told.bounds.get(partition).context("a partition without bounds")?;
            self.check_order(*partition, records, bounds, &told.gaps)?;
            let before = self.read.get(partition).map(Vec::as_slice).unwrap_or_default();
            let now: HashMap<u64, &Read> =
                records.iter().map(|record| (record.offset, record)).collect();
            for record in before {
                match now.get(&record.offset) {
                    Some(same) if **same == *record => {}
                    Some(other) => bail!("{partition:?}: {record:?} is now {other:?}"),
                    None if record.offset < bounds.0 && forgets => {
                        given_up.insert((record.source, record.number));
                    }
                    None if is_named(&told.gaps, *partition, record.offset) => {
                        lost.insert((record.source, record.number));
                    }
                    None => bail!("{partition:?}: {record:?} was read before and is gone"),
                }
            }
        }
        if !given_up.is_empty() {
            let (used, budget) = told.normal_bytes;
            if used * 100 < budget * crate::variation::FORGETS_ABOVE_PERCENT {
                bail!("records were given up with {used} of {budget} bytes in use");
            }
        }
        self.check_acked(found, told, &given_up, &lost, &mut counts)?;
        self.read.clone_from(found);
        Ok(counts)
    }

    /// Offsets rise within the bounds, holes are named, and each source's numbers rise.
    fn check_order(
        &self,
        partition: Partition,
        records: &[Read],
        (start, end): (u64, u64),
        gaps: &[Gap],
    ) -> Result<()> {
        let mut next = start;
        let mut numbers: HashMap<u32, u64> = HashMap::new();
        let want_named = |from: u64, to: u64| match first_unnamed(gaps, partition, from, to) {
            Some(offset) => bail!(
                "{partition:?}: {from}..{to} is not there and {offset} is named by no gap ({:?})",
                gaps.iter().filter(|gap| gap.partition == partition).collect::<Vec<_>>()
            ),
            None => Ok(()),
        };
        for record in records {
            if record.offset < next {
                bail!("{partition:?}: offset {} where {next} was next", record.offset);
            }
            want_named(next, record.offset)?;
            next = record.offset + 1;
            if let Some(before) = numbers.insert(record.source, record.number)
                && before >= record.number
            {
                bail!("{partition:?}: {record:?} behind number {before}: twice, or out of order");
            }
            if self.sources[record.source as usize].topic != partition.0 {
                bail!("{partition:?}: {record:?} belongs to another topic");
            }
        }
        want_named(next, end)
    }

    /// Every acknowledged number is there, once over all partitions of its topic.
    fn check_acked(
        &mut self,
        found: &BTreeMap<Partition, Vec<Read>>,
        told: &Told,
        given_up: &HashSet<(u32, u64)>,
        lost: &HashSet<(u32, u64)>,
        counts: &mut Counts,
    ) -> Result<()> {
        let mut there: Vec<HashSet<u64>> = vec![HashSet::new(); self.sources.len()];
        for record in found.values().flatten() {
            if !there[record.source as usize].insert(record.number) {
                bail!("{record:?} is in two partitions");
            }
        }
        // Acknowledged and never read: no offset is known, so a gap must have room for it.
        let mut room: Vec<u64> = vec![0; TOPICS.len()];
        for gap in &told.gaps {
            room[gap.partition.0] += gap.to - gap.from;
        }
        for (number, there) in there.iter().enumerate() {
            let source = &self.sources[number];
            let key = |of: u64| (number as u32, of);
            let missing: Vec<u64> =
                source.acked.iter().copied().filter(|acked| !there.contains(acked)).collect();
            for of in &missing {
                if given_up.contains(&key(*of)) {
                    counts.given_up += 1;
                } else if lost.contains(&key(*of)) {
                    counts.named += 1;
                } else if room[source.topic] > 0 {
                    room[source.topic] -= 1;
                    counts.named += 1;
                } else {
                    bail!(
                        "source {number} ({}): {} acknowledged and gone without a word, the first {of}; \
                         {} sent, {} acknowledged",
                        TOPICS[source.topic].0,
                        missing.len(),
                        source.sent,
                        source.acked.len()
                    );
                }
            }
        }
        for (source, there) in self.sources.iter_mut().zip(&there) {
            source.acked.retain(|acked| there.contains(acked));
        }
        Ok(())
    }
}

fn is_named(gaps: &[Gap], partition: Partition, offset: u64) -> bool {
    gaps.iter().any(|gap| gap.partition == partition && gap.from <= offset && offset < gap.to)
}

/// The first offset of `from..to` that no gap covers.
fn first_unnamed(gaps: &[Gap], partition: Partition, from: u64, to: u64) -> Option<u64> {
    let mut next = from;
    while next < to {
        let covers = |gap: &&Gap| gap.partition == partition && gap.from <= next && next < gap.to;
        match gaps.iter().find(covers) {
            Some(gap) => next = gap.to,
            None => return Some(next),
        }
    }
    None
}

impl Told {
    /// From `status --json`.
    ///
    /// # Errors
    /// It has not the documented shape.
    pub fn from_status(status: &Value) -> Result<Self> {
        let mut told = Self::default();
        let number = |value: &Value, name: &str| {
            value[name].as_u64().with_context(|| format!("no number {name:?} in {value}"))
        };
        let partition = |value: &Value| -> Result<Option<Partition>> {
            let topic = TOPICS.iter().position(|(name, _)| value["topic"] == *name);
            let partition = number(value, "partition")? as u32;
            Ok(topic.map(|topic| (topic, partition)))
        };
        for stream in status["streams"].as_array().context("no streams")? {
            if let Some(partition) = partition(stream)? {
                let bounds = (number(stream, "log_start")?, number(stream, "durable_end")?);
                told.bounds.insert(partition, bounds);
            }
        }
        for gap in status["gaps"].as_array().context("no gaps")? {
            if let Some(partition) = partition(gap)? {
                let (from, to) = (number(gap, "from")?, number(gap, "to")?);
                told.gaps.push(Gap { partition, from, to });
            }
        }
        let normal = &status["lanes"]["normal"];
        told.normal_bytes = (number(normal, "used_bytes")?, number(normal, "budget_bytes")?);
        Ok(told)
    }
}

#[cfg(test)]
mod tests;

//! Thinning old records of a lane that would drop them: what is left of a segment before it goes.
//!
//! - `keep_every = n`: of each key the first record of the segment and then every n-th.
//! - `aggregate_seconds = s`: of each key and s seconds (by record timestamps) one record, at the offset and time of
//!   the last: for JSON objects each numeric field becomes `{"min", "mean", "max", "last", "count"}`, other fields
//!   their last value; anything else is the last record itself. An aggregate has the header `edge-aggregate`, whose
//!   value is its seconds. One that comes to the end again is merged into one of ten times the time.
//! - Limits: [`KEYS_MAX`] keys or [`BUCKETS_MAX`] aggregates at a time; beyond them every n-th record of all other
//!   keys is kept, and aggregates are closed early.

use std::collections::BTreeMap;

use edge_wire::{HeadersBuilder, HeadersView, Offset, StreamId};
use hashbrown::HashMap;
use serde_json::{Map, Number, Value};

use super::copy_group::CopiedRecord;
use super::key_map::KeyHash;
use crate::config::Decay;
use crate::decoded::RecordRef;
use crate::journal::stamps::StampClock;

/// Header that marks an aggregate; its value is the number of seconds that it covers.
pub const AGGREGATE_HEADER: &str = "edge-aggregate";

/// Most keys that are counted in one segment.
const KEYS_MAX: usize = 64 << 10;
/// Most aggregates that are open at a time.
const BUCKETS_MAX: usize = 4096;
/// Most bytes of the records that open aggregates hold.
const HELD_BYTES_MAX: usize = 128 << 10;
/// Objects of more fields are not aggregated: the last one is kept.
const FIELDS_MAX: usize = 64;
/// How much longer the time of an aggregate gets when it comes to the end again.
const AGAIN_FACTOR: u32 = 10;

/// Keeps every n-th record of a key.
#[derive(Debug)]
pub(crate) struct Sampler {
    every: u32,
    counts: HashMap<KeyHash, u32>,
    others: u32,
}

impl Sampler {
    pub(crate) fn new(every: u32) -> Self {
        Self { every: every.max(1), counts: HashMap::new(), others: 0 }
    }

    pub(crate) fn keeps(&mut self, key: KeyHash) -> bool {
        let has_room = self.counts.len() < KEYS_MAX;
        let count = match self.counts.entry(key) {
            hashbrown::hash_map::Entry::Occupied(known) => known.into_mut(),
            hashbrown::hash_map::Entry::Vacant(free) if has_room => free.insert(0),
            hashbrown::hash_map::Entry::Vacant(_) => &mut self.others,
        };
        let keeps = *count == 0;
        *count = (*count + 1) % self.every;
        keeps
    }
}

/// A record as aggregation leaves it.
#[derive(Debug, PartialEq)]
pub(crate) struct Left {
    pub(crate) offset: Offset,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers_section: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

impl<'a> From<&'a Left> for CopiedRecord<'a> {
    fn from(record: &'a Left) -> Self {
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            headers_section: &record.headers_section,
            value: record.value.as_deref(),
        }
    }
}

/// What one round of aggregation leaves of a stretch of a stream.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) stream: StreamId,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    /// It was copied before.
    pub(crate) again: bool,
    /// What stamped it, if its times are still to be corrected.
    pub(crate) stamp: Option<StampClock>,
    pub(crate) records: Vec<Left>,
}

/// Makes one record of many.
#[derive(Debug)]
pub(crate) struct Aggregator {
    seconds: u32,
    /// Records whose times are corrected differently are never one.
    buckets: HashMap<(KeyHash, i64, u32, Option<StampClock>), Bucket>,
    stretches: Vec<(StreamId, Offset, Offset, bool, Option<StampClock>)>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Bucket {
    stream: StreamId,
    last: Left,
    /// Of numeric fields; `None` if a value was no object.
    fields: Option<BTreeMap<String, Field>>,
    records: u64,
    seconds: u32,
}

#[derive(Clone, Debug)]
enum Field {
    Numbers(Numbers),
    Other(Value),
}

#[derive(Clone, Copy, Debug)]
struct Numbers {
    min: f64,
    max: f64,
    sum: f64,
    last: f64,
    count: u64,
}

impl Aggregator {
    pub(crate) fn new(seconds: u32) -> Self {
        Self {
            seconds: seconds.max(1),
            buckets: HashMap::new(),
            stretches: Vec::new(),
            held_bytes: 0,
        }
    }

    /// The offsets `base..end` are gone through; their records follow with [`Aggregator::offer`].
    pub(crate) fn cover(
        &mut self,
        stream: StreamId,
        (base, end): (Offset, Offset),
        again: bool,
        stamp: Option<StampClock>,
    ) {
        if let Some(last) = self.stretches.last_mut()
            && last.0 == stream
            && last.2 == base
            && (last.3, last.4) == (again, stamp)
        {
            last.2 = end;
            return;
        }
        self.stretches.push((stream, base, end, again, stamp));
    }

    pub(crate) fn offer(
        &mut self,
        stream: StreamId,
        key: KeyHash,
        stamp: Option<StampClock>,
        record: &RecordRef<'_>,
    ) {
        let aggregated = aggregate_seconds(record.headers_section);
        let seconds = match aggregated {
            Some(seconds) => seconds.saturating_mul(AGAIN_FACTOR).max(self.seconds),
            None => self.seconds,
        };
        let time = record.timestamp_ms.div_euclid(i64::from(seconds) * 1000);
        let fields = record.value.and_then(|value| fields_of(value, aggregated.is_some()));
        let last = Left {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            headers_section: record.headers_section.to_vec(),
            value: record.value.map(<[u8]>::to_vec),
        };
        self.held_bytes += last.bytes();
        match self.buckets.entry((key, time, seconds, stamp)) {
            hashbrown::hash_map::Entry::Occupied(mut known) => {
                let gone = known.get_mut().take(last, fields);
                self.held_bytes -= gone.bytes();
            }
            hashbrown::hash_map::Entry::Vacant(free) => {
                free.insert(Bucket { stream, last, fields, records: 1, seconds });
            }
        }
    }

    /// Whether it holds so much that its aggregates are to be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.buckets.len() >= BUCKETS_MAX || self.held_bytes >= HELD_BYTES_MAX
    }

    /// Closes all aggregates: by stream, in order.
    pub(crate) fn finish(&mut self) -> Vec<Stretch> {
        let mut left: Vec<(StreamId, Left)> =
            self.buckets.drain().map(|(_, bucket)| (bucket.stream, bucket.close())).collect();
        left.sort_by_key(|(stream, record)| (*stream, record.offset));
        self.held_bytes = 0;
        let mut stretches = std::mem::take(&mut self.stretches);
        stretches.sort_unstable();
        let mut left = left.into_iter().peekable();
        let mut out: Vec<Stretch> = Vec::new();
        for (stream, base, end, again, stamp) in stretches {
            let records =
                std::iter::from_fn(|| left.next_if(|(of, one)| *of == stream && one.offset < end));
            let mut records: Vec<Left> = records.map(|(_, one)| one).collect();
            match out.last_mut() {
                Some(last)
                    if last.stream == stream
                        && last.end == base
                        && (last.again, last.stamp) == (again, stamp) =>
                {
                    last.end = end;
                    last.records.append(&mut records);
                }
                _ => out.push(Stretch { stream, base, end, again, stamp, records }),
            }
        }
        out
    }
}

impl Left {
    fn bytes(&self) -> usize {
        let lengths = [self.key.as_ref(), self.value.as_ref()].map(|part| part.map_or(0, Vec::len));
        lengths[0] + lengths[1] + self.headers_section.len() + size_of::<Self>()
    }
}

impl Bucket {
    /// Adds a record. Returns the one that need not be held any more.
    fn take(&mut self, record: Left, fields: Option<BTreeMap<String, Field>>) -> Left {
        self.records += 1;
        self.fields = match (self.fields.take(), fields) {
            (Some(mut known), Some(fields)) => {
                for (name, field) in fields {
                    merge(&mut known, name, field);
                }
                (known.len() <= FIELDS_MAX).then_some(known)
            }
            _ => None,
        };
        if record.offset > self.last.offset {
            std::mem::replace(&mut self.last, record)
        } else {
            record
        }
    }

    fn close(self) -> Left {
        let Some(fields) = self.fields.filter(|_| self.records > 1) else { return self.last };
        let object: Map<String, Value> =
            fields.into_iter().map(|(name, field)| (name, field.close())).collect();
        let headers_section = with_header(&self.last.headers_section, self.seconds);
        let value = Some(Value::Object(object).to_string().into_bytes());
        Left { headers_section, value, ..self.last }
    }
}

impl Field {
    fn close(self) -> Value {
        match self {
            Self::Other(value) => value,
            Self::Numbers(numbers) => {
                let number =
                    |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
                let mut object = Map::new();
                object.insert("min".to_owned(), number(numbers.min));
                object.insert("mean".to_owned(), number(numbers.sum / numbers.count as f64));
                object.insert("max".to_owned(), number(numbers.max));
                object.insert("last".to_owned(), number(numbers.last));
                object.insert("count".to_owned(), Value::from(numbers.count));
                Value::Object(object)
            }
        }
    }
}

fn merge(known: &mut BTreeMap<String, Field>, name: String, field: Field) {
    match (known.get_mut(&name), field) {
        (Some(Field::Numbers(known)), Field::Numbers(more)) => {
            known.min = known.min.min(more.min);
            known.max = known.max.max(more.max);
            known.sum += more.sum;
            known.count += more.count;
            known.last = more.last;
        }
        // What is a number now and was none, or the other way round: as it is now.
        (_, field) => {
            known.insert(name, field);
        }
    }
}

/// The fields of a JSON object; `None` if the value is none, or one of too many.
fn fields_of(value: &[u8], aggregated: bool) -> Option<BTreeMap<String, Field>> {
    if value.first() != Some(&b'{') {
        return None;
    }
    let object: Map<String, Value> = serde_json::from_slice(value).ok()?;
    if object.len() > FIELDS_MAX {
        return None;
    }
    let fields = object.into_iter().map(|(name, value)| {
        let numbers = match value.as_f64() {
            Some(value) => {
                Some(Numbers { min: value, max: value, sum: value, last: value, count: 1 })
            }
            None if aggregated => numbers_of(&value),
            None => None,
        };
        (name, numbers.map_or(Field::Other(value), Field::Numbers))
    });
    Some(fields.collect())
}

/// The numbers of an aggregated field.
fn numbers_of(value: &Value) -> Option<Numbers> {
    let number = |name| value.get(name).and_then(Value::as_f64);
    let count = value.get("count").and_then(Value::as_u64).filter(|count| *count > 0)?;
    Some(Numbers {
        min: number("min")?,
        max: number("max")?,
        sum: number("mean")? * count as f64,
        last: number("last")?,
        count,
    })
}

/// How many seconds an aggregate covers; `None` for a record that is none.
fn aggregate_seconds(headers_section: &[u8]) -> Option<u32> {
    let headers = HeadersView::parse(headers_section).ok()?;
    let value = headers.last(AGGREGATE_HEADER)?.value?;
    std::str::from_utf8(value).ok()?.parse().ok().filter(|seconds| *seconds > 0)
}

fn with_header(headers_section: &[u8], seconds: u32) -> Vec<u8> {
    let mut builder = HeadersBuilder::new();
    if let Ok(headers) = HeadersView::parse(headers_section) {
        for header in headers.iter().filter(|header| header.key != AGGREGATE_HEADER) {
            builder.push(header.key, header.value);
        }
    }
    builder.push(AGGREGATE_HEADER, Some(seconds.to_string().as_bytes()));
    builder.finish()
}

/// What thins the records of a pass.
#[derive(Debug)]
pub(crate) enum Thinner {
    Sample(Sampler),
    Aggregate(Aggregator),
}

impl Thinner {
    pub(crate) fn new(decay: Decay) -> Self {
        match decay {
            Decay::KeepEvery { records } => Self::Sample(Sampler::new(records)),
            Decay::Aggregate { seconds } => Self::Aggregate(Aggregator::new(seconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(
        offset: u64,
        timestamp_ms: i64,
        headers_section: &'a [u8],
        value: &'a [u8],
    ) -> RecordRef<'a> {
        let (key, value) = (Some(&b"k"[..]), Some(value));
        RecordRef { offset: Offset(offset), timestamp_ms, key, headers_section, value }
    }

    fn json(left: &Left) -> Value {
        serde_json::from_slice(left.value.as_deref().unwrap()).unwrap()
    }

    #[test]
    fn every_nth_of_each_key_is_kept() {
        let mut sampler = Sampler::new(3);
        let kept: Vec<bool> = (0..7).map(|_| sampler.keeps([1, 1])).collect();
        assert_eq!(kept, [true, false, false, true, false, false, true]);
        assert!(sampler.keeps([2, 2]));
    }

    #[test]
    fn a_minute_of_objects_is_one_object() {
        let mut aggregator = Aggregator::new(60);
        let stream = StreamId(4);
        aggregator.cover(stream, (Offset(10), Offset(13)), false, None);
        aggregator.cover(stream, (Offset(13), Offset(15)), false, None);
        for (offset, time, value) in [
            (10, 0, r#"{"t":1,"s":"a"}"#),
            (11, 30_000, r#"{"t":4,"s":"b"}"#),
            (12, 59_999, r#"{"t":1.5,"s":"c","n":7}"#),
            (13, 60_000, r#"{"t":9}"#),
        ] {
            aggregator.offer(stream, [0, 0], None, &record(offset, time, &[0], value.as_bytes()));
        }
        let stretches = aggregator.finish();
        assert_eq!(stretches.len(), 1);
        let records = &stretches[0].records;
        assert_eq!((stretches[0].base, stretches[0].end), (Offset(10), Offset(15)));
        assert_eq!(records.iter().map(|r| r.offset.0).collect::<Vec<_>>(), [12, 13]);
        let first = json(&records[0]);
        assert_eq!(first["t"]["min"], 1.0);
        assert_eq!(first["t"]["max"], 4.0);
        assert_eq!(first["t"]["last"], 1.5);
        assert_eq!(first["t"]["count"], 3);
        assert!((first["t"]["mean"].as_f64().unwrap() - 6.5 / 3.0).abs() < 1e-9);
        assert_eq!((&first["s"], &first["n"]["count"]), (&Value::from("c"), &Value::from(1)));
        assert_eq!(aggregate_seconds(&records[0].headers_section), Some(60));
        // A record that is alone in its minute stays as it is.
        assert_eq!(records[1].value.as_deref(), Some(&br#"{"t":9}"#[..]));
        assert_eq!(aggregate_seconds(&records[1].headers_section), None);
    }

    #[test]
    fn aggregates_merge_into_longer_ones() {
        let mut aggregator = Aggregator::new(60);
        let stream = StreamId(4);
        let headers = with_header(&[0], 60);
        let value = |min: f64, count: u64| {
            format!(r#"{{"t":{{"min":{min},"mean":2,"max":3,"last":2.5,"count":{count}}}}}"#)
        };
        let (one, two) = (value(1.0, 5), value(0.5, 10));
        aggregator.cover(stream, (Offset(0), Offset(2)), false, None);
        aggregator.offer(stream, [0, 0], None, &record(0, 0, &headers, one.as_bytes()));
        aggregator.offer(stream, [0, 0], None, &record(1, 540_000, &headers, two.as_bytes()));
        let stretches = aggregator.finish();
        let merged = &stretches[0].records[0];
        assert_eq!(stretches[0].records.len(), 1);
        assert_eq!(aggregate_seconds(&merged.headers_section), Some(600));
        let value = json(merged);
        assert_eq!((&value["t"]["min"], &value["t"]["count"]), (&0.5.into(), &15.into()));
        assert_eq!(value["t"]["mean"], 2.0);
    }

    #[test]
    fn what_is_no_object_leaves_its_last_record() {
        let mut aggregator = Aggregator::new(60);
        let stream = StreamId(4);
        aggregator.cover(stream, (Offset(0), Offset(3)), false, None);
        for (offset, value) in [(0, &b"{\"t\":1}"[..]), (1, b"\xff"), (2, b"plain")] {
            aggregator.offer(stream, [0, 0], None, &record(offset, 5, &[0], value));
        }
        let stretches = aggregator.finish();
        let left = &stretches[0].records;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].value.as_deref(), Some(&b"plain"[..]));
        assert_eq!(left[0].offset, Offset(2));
    }
}

//! Topics: what `[[topic]]` and `[[route]]` say about each, put together. A topic has one lane and one number of
//! partitions, whoever names it.

use std::sync::Arc;

use hashbrown::HashMap;
use toml::Spanned;

use super::findings::Findings;
use super::listeners::DEFAULT_LANE;
use super::retentions;
use super::routes::{DEFAULT_TOPIC, is_stored, needs_default_route};
use super::values::{Checked, number, one_of, retention_bytes, retention_ms, size_u32};
use crate::error::{Fault, Origin};
use crate::names::validate_topic_name;
use crate::polish::nearest;
use crate::raw::{Number, RawConfig, Size, Text, Time};
use crate::{Cleanup, KafkaConfig, Lane, Retention, SYSTEM_LANE, Timestamps, TopicSettings};

pub(super) const PARTITIONS_MAX: u32 = 1_024;
const TOPICS_MAX: usize = 1_024;
/// Kafka carries it as a signed 32-bit number.
const MESSAGE_BYTES_MAX: u32 = i32::MAX.unsigned_abs();

/// What topics depend on beside their own keys.
pub(super) struct Limits {
    pub(super) streams_max: u32,
    pub(super) has_uplink: bool,
}

pub(super) fn topics(
    raw: &RawConfig,
    kafka: &KafkaConfig,
    lanes: &[Lane],
    limits: &Limits,
    findings: &mut Findings,
) -> Vec<TopicSettings> {
    let mut drafts = Drafts::default();
    let mut own_names: HashMap<&str, ()> = HashMap::new();
    for topic in &raw.topic {
        let keys = topic.get_ref();
        let Some(name) = &keys.name else {
            let what = "needs a name, for example name = \"telemetry\"";
            findings.fault(Fault::at(topic, what));
            continue;
        };
        if own_names.insert(name.get_ref(), ()).is_some() {
            let what = "this topic has a [[topic]] of its own already; merge them";
            findings.fault(Fault::at(name, what));
        }
        drafts.add(
            name,
            lanes,
            &Keys {
                lane: &keys.lane,
                partitions: &keys.partitions,
                retention: &keys.retention,
                retention_ms: &keys.retention_ms,
                retention_bytes: &keys.retention_bytes,
                cleanup: &keys.cleanup,
                delete_retention: &keys.delete_retention,
                max_message_bytes: &keys.max_message_bytes,
                timestamps: &keys.timestamps,
                timestamp_before_max: &keys.timestamp_before_max,
                timestamp_after_max: &keys.timestamp_after_max,
            },
            findings,
        );
    }
    for route in &raw.route {
        let keys = route.get_ref();
        if !is_stored(keys) {
            continue;
        }
        let Some(name) = &keys.topic else {
            let what = "needs a topic, for example topic = \"telemetry\", or store = false";
            findings.fault(Fault::at(route, what));
            continue;
        };
        drafts.add(
            name,
            lanes,
            &Keys {
                lane: &keys.lane,
                partitions: &keys.partitions,
                retention: &keys.retention,
                retention_ms: &keys.retention_ms,
                retention_bytes: &keys.retention_bytes,
                cleanup: &keys.cleanup,
                delete_retention: &keys.delete_retention,
                max_message_bytes: &keys.max_message_bytes,
                timestamps: &keys.timestamps,
                timestamp_before_max: &keys.timestamp_before_max,
                timestamp_after_max: &keys.timestamp_after_max,
            },
            findings,
        );
    }
    if needs_default_route(raw) {
        drafts.ensure(DEFAULT_TOPIC);
    }
    let topics: Vec<TopicSettings> =
        drafts.drafts.iter().map(|draft| draft.finished(kafka, lanes)).collect();
    findings.check(check_streams(raw, &topics, limits.streams_max));
    retentions::look(raw, &drafts, &topics, lanes, limits.has_uplink, findings);
    topics
}

/// The lane that `name` names, if topics may be put into it.
pub(super) fn lane_exists(name: &Spanned<String>, lanes: &[Lane]) -> Checked<Arc<str>> {
    if name.get_ref() == SYSTEM_LANE {
        return Err(Fault::at(
            name,
            "this lane is the broker's own; choose alarm, normal, bulk or one of yours",
        ));
    }
    if let Some(lane) = lanes.iter().find(|lane| *lane.name == **name.get_ref()) {
        return Ok(lane.name.clone());
    }
    let known: Vec<&str> =
        lanes.iter().map(|lane| &*lane.name).filter(|name| *name != SYSTEM_LANE).collect();
    Err(Fault::at(
        name,
        match nearest(name.get_ref(), &known) {
            Some(near) => format!("no such lane; did you mean \"{near}\"?"),
            None => format!(
                "no such lane; there are {}, or add a table [lane.{}]",
                known.join(", "),
                name.get_ref()
            ),
        },
    ))
}

struct Keys<'a> {
    lane: &'a Text,
    partitions: &'a Number,
    retention: &'a Time,
    retention_ms: &'a Number,
    retention_bytes: &'a Size,
    cleanup: &'a Text,
    delete_retention: &'a Time,
    max_message_bytes: &'a Size,
    timestamps: &'a Text,
    timestamp_before_max: &'a Time,
    timestamp_after_max: &'a Time,
}

#[derive(Default)]
pub(super) struct Drafts {
    pub(super) drafts: Vec<Draft>,
    by_name: HashMap<String, usize>,
}

#[derive(Default)]
pub(super) struct Draft {
    name: String,
    lane: Option<Arc<str>>,
    partitions: Option<u32>,
    pub(super) retention_ms: Option<Spanned<u64>>,
    pub(super) retention_bytes: Option<Spanned<u64>>,
    cleanup: Option<Cleanup>,
    delete_retention_ms: Option<u64>,
    max_message_bytes: Option<u32>,
    timestamps: Option<Timestamps>,
    timestamp_before_max_ms: Option<u64>,
    timestamp_after_max_ms: Option<u64>,
}

impl Drafts {
    fn add(
        &mut self,
        name: &Spanned<String>,
        lanes: &[Lane],
        keys: &Keys<'_>,
        findings: &mut Findings,
    ) {
        if let Err(error) = validate_topic_name(name.get_ref()) {
            let hint = if name.get_ref().contains('{') {
                "; a topic is a fixed name, templates are for key"
            } else {
                ""
            };
            findings.fault(Fault::at(name, format!("{error}{hint}")));
        }
        if self.drafts.len() >= TOPICS_MAX && !self.by_name.contains_key(name.get_ref()) {
            if self.drafts.len() == TOPICS_MAX {
                let what = format!("more than {TOPICS_MAX} topics; use fewer topics with keys");
                findings.fault(Fault::at(name, what));
            }
            return;
        }
        let draft = self.ensure(name.get_ref());
        let other = |what: &str| {
            format!(
                "another route or [[topic]] gives topic \"{}\" {what}; a topic has one",
                name.get_ref()
            )
        };
        if let Some(written) = keys.lane
            && let Some(lane) = findings.take(lane_exists(written, lanes).map(Some))
        {
            if draft.lane.as_ref().is_some_and(|known| *known != lane) {
                findings.fault(Fault::at(written, other("another lane")));
            }
            draft.lane = Some(lane);
        }
        let partitions = findings.take(number(keys.partitions, 1..=PARTITIONS_MAX));
        findings.check(once(&mut draft.partitions, partitions, keys.partitions, || {
            other("another number of partitions")
        }));
        let ms = findings.take(retention_ms(keys.retention, keys.retention_ms));
        let bytes = findings.take(retention_bytes(keys.retention_bytes));
        for (known, new) in [(&mut draft.retention_ms, ms), (&mut draft.retention_bytes, bytes)] {
            if let Some(new) = new {
                if known.as_ref().is_some_and(|known| known.get_ref() != new.get_ref()) {
                    findings.fault(Fault::at(&new, other("another retention")));
                }
                *known = Some(new);
            }
        }
        let cleanup = findings.take(one_of(keys.cleanup, &Cleanup::NAMES));
        let once_only =
            once(&mut draft.cleanup, cleanup, keys.cleanup, || other("another cleanup"));
        findings.check(once_only);
        let timestamps = findings.take(one_of(keys.timestamps, &Timestamps::NAMES));
        findings.check(once(&mut draft.timestamps, timestamps, keys.timestamps, || {
            other("other timestamps")
        }));
        let bytes = findings.take(size_u32(keys.max_message_bytes, 1..=MESSAGE_BYTES_MAX));
        findings.check(once(&mut draft.max_message_bytes, bytes, keys.max_message_bytes, || {
            other("another max_message_bytes")
        }));
        for (known, time, what) in [
            (&mut draft.delete_retention_ms, keys.delete_retention, "another delete_retention"),
            (
                &mut draft.timestamp_before_max_ms,
                keys.timestamp_before_max,
                "another timestamp_before_max",
            ),
            (
                &mut draft.timestamp_after_max_ms,
                keys.timestamp_after_max,
                "another timestamp_after_max",
            ),
        ] {
            let ms = time.as_ref().map(|ms| ms.get_ref().0);
            findings.check(once(known, ms, time, || other(what)));
        }
    }

    fn ensure(&mut self, name: &str) -> &mut Draft {
        let next = self.drafts.len();
        let index = *self.by_name.entry_ref(name).or_insert(next);
        if index == next {
            self.drafts.push(Draft { name: name.to_owned(), ..Draft::default() });
        }
        &mut self.drafts[index]
    }
}

/// Whoever names it: a topic has one value of each key.
fn once<T: Copy + PartialEq, W>(
    known: &mut Option<T>,
    new: Option<T>,
    written: &Option<Spanned<W>>,
    other: impl FnOnce() -> String,
) -> Checked<()> {
    let (Some(value), Some(written)) = (new, written) else { return Ok(()) };
    if known.is_some_and(|known| known != value) {
        return Err(Fault::at(written, other()));
    }
    *known = Some(value);
    Ok(())
}

impl Draft {
    /// What it says, then what its lane says, then the defaults.
    fn finished(&self, kafka: &KafkaConfig, lanes: &[Lane]) -> TopicSettings {
        let lane = self.lane.clone().unwrap_or_else(|| Arc::from(DEFAULT_LANE));
        let of_lane = lanes.iter().find(|known| known.name == lane).map(|known| known.retention);
        let of_lane = of_lane.unwrap_or_default();
        TopicSettings {
            name: Arc::from(self.name.as_str()),
            lane,
            partitions: self.partitions.unwrap_or(kafka.default_partitions),
            retention: Retention {
                ms: self.retention_ms.as_ref().map(|ms| *ms.get_ref()).or(of_lane.ms),
                bytes: self
                    .retention_bytes
                    .as_ref()
                    .map(|bytes| *bytes.get_ref())
                    .or(of_lane.bytes),
            },
            cleanup: self.cleanup,
            delete_retention_ms: self.delete_retention_ms,
            max_message_bytes: self.max_message_bytes,
            timestamps: self.timestamps,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
        }
    }
}

fn check_streams(raw: &RawConfig, topics: &[TopicSettings], streams_max: u32) -> Checked<()> {
    let streams: u32 = topics.iter().map(|topic| topic.partitions).sum();
    if streams <= streams_max {
        return Ok(());
    }
    let written = raw
        .topic
        .iter()
        .filter_map(|topic| topic.get_ref().partitions.as_ref())
        .chain(raw.route.iter().filter_map(|route| route.get_ref().partitions.as_ref()))
        .max_by_key(|partitions| partitions.get_ref().0);
    let origin = match written {
        Some(partitions) => Origin::File(partitions.span()),
        None => Origin::Default("partitions".to_owned()),
    };
    Err(Fault::new(
        origin,
        format!(
            "all topics together have {streams} partitions; this board takes {streams_max}, lower some"
        ),
    ))
}

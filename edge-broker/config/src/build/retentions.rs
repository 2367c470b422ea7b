//! Retentions beside the lane's budget. The budget is what decides: what is promised beyond it cannot be kept.

use boards::units::{format_duration_ms, human_bytes};
use toml::Spanned;

use super::findings::Findings;
use super::topics::{Draft, Drafts};
use super::values::{retention_bytes, retention_ms};
use crate::error::Fault;
use crate::raw::RawConfig;
use crate::{Lane, TopicSettings, WhenFull};

const DAY_MS: u64 = 86_400_000;
/// A lane that may take less than this a day, as stored, for what it is to keep was not meant so.
const DAILY_BYTES_MIN: u64 = 1 << 20;

/// Warns of bytes that the budget does not have, and says how much a day a retention by time leaves room for.
pub(super) fn look(
    raw: &RawConfig,
    drafts: &Drafts,
    topics: &[TopicSettings],
    lanes: &[Lane],
    has_uplink: bool,
    findings: &mut Findings,
) {
    for lane in lanes {
        let of_lane = Retained { raw, drafts, topics, lane, has_uplink };
        of_lane.look_at_bytes(findings);
        of_lane.look_at_time(findings);
    }
}

struct Retained<'a> {
    raw: &'a RawConfig,
    drafts: &'a Drafts,
    topics: &'a [TopicSettings],
    lane: &'a Lane,
    has_uplink: bool,
}

impl Retained<'_> {
    fn topics(&self) -> impl Iterator<Item = (&TopicSettings, &Draft)> {
        let all = self.topics.iter().zip(&self.drafts.drafts);
        all.filter(|(topic, _)| topic.lane == self.lane.name)
    }

    fn look_at_bytes(&self, findings: &mut Findings) {
        let lane = self.lane;
        let promised = self
            .topics()
            .map(|(topic, _)| {
                topic.retention.bytes.unwrap_or(0).saturating_mul(u64::from(topic.partitions))
            })
            .fold(0, u64::saturating_add);
        let largest = self
            .topics()
            .filter_map(|(_, draft)| draft.retention_bytes.clone())
            .max_by_key(|bytes| *bytes.get_ref())
            .or_else(|| self.of_lane(|lane| retention_bytes(&lane.retention_bytes).ok()?));
        if let (Some(written), true) = (largest, promised > lane.budget_bytes) {
            let (promised, budget) = (human_bytes(promised), human_bytes(lane.budget_bytes));
            findings.warn(Fault::at(
                &written,
                format!(
                    "all partitions of lane {} may keep {promised}, but its budget is {budget}; raise the budget or \
                     lower retention_bytes",
                    lane.name
                ),
            ));
        }
    }

    fn look_at_time(&self, findings: &mut Findings) {
        let lane = self.lane;
        let longest = self
            .topics()
            .filter_map(|(_, draft)| draft.retention_ms.clone())
            .chain(self.of_lane(|lane| retention_ms(&lane.retention, &lane.retention_ms).ok()?))
            .max_by_key(|ms| *ms.get_ref());
        let Some(written) = longest else { return };
        let time = *written.get_ref();
        let a_day = u128::from(lane.budget_bytes) * u128::from(DAY_MS) / u128::from(time.max(1));
        let a_day = u64::try_from(a_day).unwrap_or(u64::MAX);
        let beyond = match (lane.when_full, self.has_uplink) {
            // Whatever is upstream makes room, however old it is.
            (WhenFull::DropOldest, false) => "the oldest go sooner",
            (WhenFull::DropOldest, true) if lane.drop_unsent => "the oldest go sooner",
            (_, true) => "the oldest go sooner, once they are upstream",
            (WhenFull::Refuse, false) => "publishers wait",
        };
        let what = format!(
            "the budget of lane {}, {}, holds {} of up to {} a day as stored; beyond that {beyond}",
            lane.name,
            human_bytes(lane.budget_bytes),
            format_duration_ms(time),
            human_bytes(a_day),
        );
        let fault = Fault::at(&written, what);
        if a_day < DAILY_BYTES_MIN { findings.warn(fault) } else { findings.notes.push(fault) }
    }

    /// What the lane's own table says.
    fn of_lane(
        &self,
        read: impl FnOnce(&crate::raw::RawLane) -> Option<Spanned<u64>>,
    ) -> Option<Spanned<u64>> {
        let tables = &mut self.raw.lane.iter();
        let (_, table) = tables.find(|(name, _)| *name.get_ref() == *self.lane.name)?;
        read(table.get_ref())
    }
}

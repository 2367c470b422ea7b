//! `[[route]]`, and the default route behind them.

use toml::Spanned;

use super::findings::Findings;
use super::values::{Checked, one_of};
use crate::error::Fault;
use crate::raw::{RawConfig, RawHeaders, RawRoute, RawTimestamp, RawTimestampField};
use crate::timestamp::PATH_NAMES_MAX;
use crate::{
    Cleanup, HeaderSelection, KeyTemplate, Route, RouteTarget, StoreTarget, TimestampSource,
    TimestampUnit, TopicSettings,
};

/// Where goes what no route of the file takes.
pub(super) const DEFAULT_TOPIC: &str = "mqtt";
const EVERYTHING: &str = "#";
const ROUTES_MAX: usize = 1_024;

pub(super) fn routes(
    raw: &RawConfig,
    topics: &[TopicSettings],
    findings: &mut Findings,
) -> Vec<Route> {
    if let Some(route) = raw.route.get(ROUTES_MAX) {
        let what = format!("more than {ROUTES_MAX} routes; use wildcards");
        findings.fault(Fault::at(route, what));
    }
    let mut routes: Vec<Route> = Vec::with_capacity(raw.route.len() + 1);
    for written in raw.route.iter().take(ROUTES_MAX) {
        let Some(route) = route(written, topics, findings) else { continue };
        if let Some(filter) = &written.get_ref().filter {
            if let Some(earlier) =
                routes.iter().find(|earlier| covers(&earlier.filter, &route.filter))
            {
                let what = format!(
                    "never reached: \"{}\" comes first and takes all of it",
                    earlier.filter
                );
                findings.warn(Fault::at(filter, what));
            }
            if route.filter.starts_with('$') {
                findings.warn(Fault::at(
                    filter,
                    "never reached: publishing to topics that begin with $ is refused",
                ));
            }
        }
        routes.push(route);
    }
    if needs_default_route(raw) {
        routes.push(default_route(topics));
    }
    // The last one takes everything, so what stands behind a route for everything is never asked.
    if let Some(at) = routes.iter().position(|route| route.filter == EVERYTHING) {
        routes.truncate(at + 1);
    }
    routes
}

/// Whether the file leaves topics that no route takes.
pub(super) fn needs_default_route(raw: &RawConfig) -> bool {
    let takes_all = |route: &Spanned<RawRoute>| {
        route.get_ref().filter.as_ref().is_some_and(|filter| filter.get_ref() == EVERYTHING)
    };
    !raw.route.iter().any(takes_all)
}

pub(super) fn is_stored(route: &RawRoute) -> bool {
    route.store.as_ref().is_none_or(|store| *store.get_ref())
}

fn default_route(topics: &[TopicSettings]) -> Route {
    let topic = settings(topics, DEFAULT_TOPIC).expect("it was put with the topics");
    Route {
        filter: EVERYTHING.to_owned(),
        target: RouteTarget::Store(StoreTarget {
            topic: topic.name.clone(),
            lane: topic.lane.clone(),
            partitions: topic.partitions,
            key: KeyTemplate::MqttTopic,
            headers: HeaderSelection::ALL,
            timestamp: TimestampSource::Now,
        }),
    }
}

fn settings<'a>(topics: &'a [TopicSettings], name: &str) -> Option<&'a TopicSettings> {
    topics.iter().find(|topic| *topic.name == *name)
}

fn route(
    written: &Spanned<RawRoute>,
    topics: &[TopicSettings],
    findings: &mut Findings,
) -> Option<Route> {
    let raw = written.get_ref();
    let headers = findings.or(headers(raw.headers.as_ref()), HeaderSelection::ALL);
    let timestamp = findings.or(timestamp(raw.timestamp.as_ref()), TimestampSource::Now);
    let Some(filter) = &raw.filter else {
        findings.fault(Fault::at(written, "needs a filter, for example filter = \"plant/#\""));
        return None;
    };
    if let Err(error) = edge_mqtt::topic_filter::validate_filter(filter.get_ref()) {
        let what = format!("{error}; write levels with / between them");
        findings.fault(Fault::at(filter, what));
        return None;
    }
    // Checked also where nothing is stored, so that switching `store` back on finds no surprise.
    let key = match &raw.key {
        None => KeyTemplate::MqttTopic,
        Some(key) => findings.or(
            KeyTemplate::parse(key.get_ref(), filter.get_ref())
                .map_err(|error| Fault::at(key, error)),
            KeyTemplate::MqttTopic,
        ),
    };
    let target = if is_stored(raw) {
        // Told while topics were collected if it is not there.
        let topic = settings(topics, raw.topic.as_ref()?.get_ref())?;
        if key == KeyTemplate::Keyless
            && let (Some(written), Some(cleanup)) = (&raw.key, topic.cleanup)
            && cleanup != Cleanup::Delete
        {
            let what = format!(
                "topic \"{}\" is compacted: it keeps the newest record of each key, and takes none without; leave key \
                 out, or write a template such as \"{{client}}\"",
                topic.name
            );
            findings.fault(Fault::at(written, what));
        }
        RouteTarget::Store(StoreTarget {
            topic: topic.name.clone(),
            lane: topic.lane.clone(),
            partitions: topic.partitions,
            key,
            headers,
            timestamp,
        })
    } else {
        if let Some(topic) = &raw.topic {
            let what = "has no effect: store = false keeps nothing of this route";
            findings.warn(Fault::at(topic, what));
        }
        RouteTarget::LiveOnly
    };
    Some(Route { filter: filter.get_ref().clone(), target })
}

fn headers(raw: Option<&Spanned<RawHeaders>>) -> Checked<HeaderSelection> {
    let Some(raw) = raw else { return Ok(HeaderSelection::ALL) };
    match raw.get_ref() {
        RawHeaders::Word(word) if word == "all" => Ok(HeaderSelection::ALL),
        RawHeaders::Word(word) if word == "none" => Ok(HeaderSelection::NONE),
        RawHeaders::Word(_) => Err(Fault::at(
            raw,
            "write \"all\", \"none\" or a list such as [\"mqtt.topic\", \"mqtt.client\"]",
        )),
        RawHeaders::List(names) => {
            let mut selection = HeaderSelection::NONE;
            for name in names {
                match selection.by_name(name.get_ref()) {
                    Some(on) => *on = true,
                    None => {
                        let known = HeaderSelection::NAMES.join(", ");
                        return Err(Fault::at(name, format!("no such header; there are {known}")));
                    }
                }
            }
            Ok(selection)
        }
    }
}

fn timestamp(raw: Option<&Spanned<RawTimestamp>>) -> Checked<TimestampSource> {
    let Some(raw) = raw else { return Ok(TimestampSource::Now) };
    let example = "write \"now\" or { field = \"ts\", unit = \"ms\" }";
    let RawTimestampField { field, unit } = match raw.get_ref() {
        RawTimestamp::Word(word) if word == "now" => return Ok(TimestampSource::Now),
        RawTimestamp::Word(_) => return Err(Fault::at(raw, example)),
        RawTimestamp::Field(field) => field,
    };
    let field =
        field.as_ref().ok_or_else(|| Fault::at(raw, format!("needs a field; {example}")))?;
    let path: Vec<String> = field.get_ref().split('.').map(str::to_owned).collect();
    if path.len() > PATH_NAMES_MAX || path.iter().any(String::is_empty) {
        let what = format!(
            "write one to {PATH_NAMES_MAX} names with dots between them, for example \"meta.ts\""
        );
        return Err(Fault::at(field, what));
    }
    let unit = one_of(unit, &TimestampUnit::NAMES)?.unwrap_or(TimestampUnit::Millis);
    Ok(TimestampSource::Field { path, unit })
}

/// Whether every topic that matches `inner` matches `outer` too.
fn covers(outer: &str, inner: &str) -> bool {
    if inner.starts_with('$') && outer.starts_with(['+', '#']) {
        return false;
    }
    let mut inner = inner.split('/');
    for level in outer.split('/') {
        match (level, inner.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    inner.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_filter_covers_what_it_takes_all_of() {
        for (outer, inner, expected) in [
            ("#", "a/b", true),
            ("a/#", "a/+/c", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("+/+", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("#", "$SYS/#", false),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} over {inner}");
        }
    }
}

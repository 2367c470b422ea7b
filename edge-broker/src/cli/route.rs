//! `edge-broker route test`: what a PUBLISH would become.

use edge_config::{Config, HeaderSelection, KeyKind, Router, StoreTarget, TimestampSource};
use edge_wire::partition_for_key;
use serde::Serialize;

use crate::args::{LayerArgs, RouteCommand, RouteTestArgs};
use crate::cli::{Failure, load_config, output};

pub(super) fn run(command: &RouteCommand) -> Result<(), Failure> {
    let RouteCommand::Test(args) = command;
    let layers = LayerArgs { config: args.config.clone(), ..LayerArgs::default() };
    let answer = answer(&load_config(&layers)?, args)?;
    if args.json { output::print_json(&answer) } else { output::print(&answer.to_text()) }
}

/// Where a PUBLISH goes.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    mqtt_topic: String,
    /// Counted from 1, in file order.
    route: usize,
    filter: String,
    /// False: to live subscribers only; the rest is null then.
    store: bool,
    topic: Option<String>,
    /// Null: there is no key, or it depends on a client that was not given.
    partition: Option<u32>,
    partitions: Option<u32>,
    key: Option<String>,
    key_template: Option<String>,
    lane: Option<String>,
    timestamp: Option<String>,
    headers: Vec<HeaderAnswer>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct HeaderAnswer {
    name: &'static str,
    /// Null: as the PUBLISH says.
    value: Option<String>,
}

fn answer(config: &Config, args: &RouteTestArgs) -> Result<Answer, Failure> {
    let topic = args.topic.as_str();
    edge_mqtt::topic_filter::validate_topic(topic)
        .map_err(|error| Failure::Usage(format!("{topic:?} is not an MQTT topic: {error}")))?;
    if topic.starts_with('$') {
        return Err(Failure::Usage(format!(
            "{topic:?}: topics that begin with $ belong to the broker, publishing to them is refused"
        )));
    }
    let router = Router::new(config);
    let index = router.resolve(topic);
    let route = router.route(index);
    let mut answer = Answer {
        mqtt_topic: topic.to_owned(),
        route: usize::from(index.0) + 1,
        filter: route.filter.clone(),
        store: false,
        topic: None,
        partition: None,
        partitions: None,
        key: None,
        key_template: None,
        lane: None,
        timestamp: None,
        headers: Vec::new(),
    };
    if let Some(store) = route.store() {
        fill_in(&mut answer, store, topic, args.client.as_deref());
    }
    Ok(answer)
}

fn fill_in(answer: &mut Answer, store: &StoreTarget, topic: &str, client: Option<&str>) {
    answer.store = true;
    answer.topic = Some(store.topic.to_string());
    answer.partitions = Some(store.partitions);
    answer.lane = Some(store.lane.to_string());
    answer.timestamp = Some(match &store.timestamp {
        TimestampSource::Now => "when it arrives".to_owned(),
        TimestampSource::Field { path, unit } => {
            format!("field {} of the payload, {}", path.join("."), unit.as_str())
        }
    });
    answer.headers = headers(store.headers, topic, client);
    answer.key_template = Some(store.key.to_string());
    if store.key.depends_on_client() && client.is_none() {
        return;
    }
    let mut key = Vec::new();
    if store.key.render(topic, client.unwrap_or_default(), &mut key) == KeyKind::Keyed {
        answer.partition = Some(partition_for_key(&key, store.partitions).0);
        answer.key = Some(String::from_utf8_lossy(&key).into_owned());
    }
}

fn headers(selection: HeaderSelection, topic: &str, client: Option<&str>) -> Vec<HeaderAnswer> {
    let answer = |name| HeaderAnswer {
        name,
        value: match name {
            "mqtt.topic" => Some(topic.to_owned()),
            "mqtt.client" => client.map(str::to_owned),
            _ => None,
        },
    };
    selection.names().map(answer).collect()
}

impl Answer {
    fn to_text(&self) -> String {
        let mut lines = vec![
            ("mqtt topic", self.mqtt_topic.clone()),
            ("route", format!("{} (filter {:?})", self.route, self.filter)),
        ];
        if !self.store {
            lines.push(("stored", "no: live subscribers only".to_owned()));
        }
        if let (Some(topic), Some(partitions), Some(lane)) =
            (&self.topic, self.partitions, &self.lane)
        {
            lines.push(("topic", topic.clone()));
            lines.push(("partition", self.partition_text(partitions)));
            lines.push(("key", self.key_text()));
            lines.push(("lane", lane.clone()));
        }
        if let Some(timestamp) = &self.timestamp {
            lines.push(("timestamp", timestamp.clone()));
            lines.push(("headers", self.headers_text()));
        }
        lines.iter().map(|(name, value)| format!("{name:<10}  {value}\n")).collect()
    }

    fn is_keyless(&self) -> bool {
        self.key_template.as_deref() == Some("")
    }

    fn partition_text(&self, partitions: u32) -> String {
        match self.partition {
            Some(partition) => format!("{partition} of {partitions}"),
            None if self.is_keyless() => format!("all {partitions} in turn"),
            None => format!("one of {partitions}, by the client id (give --client)"),
        }
    }

    fn key_text(&self) -> String {
        match (&self.key, &self.key_template) {
            (Some(key), _) => key.clone(),
            (None, Some(template)) if !template.is_empty() => template.clone(),
            _ => "none".to_owned(),
        }
    }

    fn headers_text(&self) -> String {
        if self.headers.is_empty() {
            return "none".to_owned();
        }
        let shown = self.headers.iter().map(|header| match &header.value {
            Some(value) => format!("{}={value}", header.name),
            None => format!("{} (as published)", header.name),
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use edge_config::Overrides;

    use super::*;
    use crate::cli::host::ThisMachine;

    fn answer_for(toml: &str, topic: &str, client: Option<&str>) -> Answer {
        let config = Config::parse(toml, "c.toml", &Overrides::default(), &ThisMachine).unwrap();
        let args = RouteTestArgs {
            topic: topic.to_owned(),
            config: None,
            client: client.map(str::to_owned),
            json: false,
        };
        answer(&config, &args).unwrap()
    }

    const ROUTE: &str =
        "[[route]]\nfilter = \"plant/+/+/telemetry\"\ntopic = \"telemetry\"\npartitions = 6\n";

    #[test]
    fn the_answer_is_what_the_listener_does() {
        let text =
            answer_for(&format!("{ROUTE}key = \"{{3}}\""), "plant/l1/m7/telemetry", Some("c1"))
                .to_text();
        let partition = partition_for_key(b"m7", 6).0;
        assert_eq!(
            text,
            format!(
                "mqtt topic  plant/l1/m7/telemetry\nroute       1 (filter \"plant/+/+/telemetry\")\n\
                 topic       telemetry\npartition   {partition} of 6\nkey         m7\nlane        normal\n\
                 timestamp   when it arrives\nheaders     mqtt.topic=plant/l1/m7/telemetry, mqtt.client=c1, \
                 mqtt.qos (as published), mqtt.retain (as published), mqtt.properties (as published), \
                 user-properties (as published)\n"
            )
        );
    }

    #[test]
    fn what_cannot_be_known_is_not_invented() {
        let keyless = answer_for(&format!("{ROUTE}key = \"\""), "plant/l1/m7/telemetry", None);
        assert!(keyless.to_text().contains("partition   all 6 in turn\nkey         none"));
        let by_client =
            answer_for(&format!("{ROUTE}key = \"{{client}}\""), "plant/l1/m7/telemetry", None);
        assert_eq!((by_client.partition, by_client.key.as_deref()), (None, None));
        assert!(by_client.to_text().contains("give --client"));
        let live = answer_for("[[route]]\nfilter = \"v/#\"\nstore = false", "v/1", None);
        assert!(live.to_text().contains("live subscribers only"));
        let default = answer_for(ROUTE, "elsewhere", None);
        assert_eq!(
            (default.topic.as_deref(), default.key.as_deref()),
            (Some("mqtt"), Some("elsewhere"))
        );
    }
}

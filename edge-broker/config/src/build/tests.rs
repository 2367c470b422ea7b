//! What a file means.

mod lanes;
mod mistakes;

use std::path::{Path, PathBuf};

use boards::Profile;

use super::*;
use crate::*;

struct TestHost {
    available_bytes: Option<u64>,
}

impl Host for TestHost {
    fn hostname(&self) -> String {
        "gw-17".to_owned()
    }

    fn board(&self) -> Profile {
        boards::load("x86-64-generic").unwrap()
    }

    fn available_bytes(&self, _: &Path) -> Option<u64> {
        self.available_bytes
    }
}

const ROOMY: TestHost = TestHost { available_bytes: Some(100 << 30) };

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "c.toml", &Overrides::default(), &ROOMY)
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let message = parse(text).expect_err("must be refused").to_string();
    assert_eq!(message, expected);
    assert!(!message.contains('\n'), "one line");
}

fn refused_flags(overrides: Overrides, expected: &str) {
    let result = Config::parse("", "c.toml", &overrides, &ROOMY);
    assert_eq!(result.expect_err("must be refused").to_string(), expected);
}

const ISSUE_EXAMPLE: &str = r#"
gateway = "plant7-gw3"
data_dir = "/var/lib/edge-broker"
board = "raspberry-pi-4"            # optional: budgets; detected, else generic

[mqtt]
listen = "127.0.0.1:1883"
[kafka]
listen = "127.0.0.1:9092"

[[route]]
filter = "plant/+/+/telemetry"
topic = "telemetry"
key = "{3}"                         # third level of the MQTT topic
lane = "normal"
partitions = 6

[lane.normal]
budget = "512MiB"
segment = "16MiB"
when_full = "refuse"                # or "drop-oldest"
durability = "sync"                 # or "interval"
commit_window_ms = 50
compression = "zstd:3"              # or "none"

[uplink]
bootstrap = ["kafka-1.example:9092"]
topic = "{topic}"
"#;

#[test]
fn the_documented_file_means_what_it_says() {
    let config = good(ISSUE_EXAMPLE);
    assert_eq!(config.gateway, "plant7-gw3");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/edge-broker"));
    assert_eq!(config.board.name, "raspberry-pi-4");
    let normal = config.lane("normal").unwrap();
    assert_eq!((normal.budget_bytes, normal.segment_bytes), (512 << 20, 16 << 20));
    assert_eq!(normal.when_full, WhenFull::Refuse);
    assert_eq!(normal.durability, Durability::Sync);
    assert_eq!(normal.commit_window_ms, 50);
    assert_eq!(normal.compression, Compression::Zstd(3));
    let uplink = config.uplink.as_ref().unwrap();
    assert_eq!(uplink.bootstrap, [HostPort { host: "kafka-1.example".to_owned(), port: 9092 }]);
    assert_eq!(uplink.topic.render("telemetry", "gw"), "telemetry");
    let telemetry = config.topic("telemetry").unwrap();
    assert_eq!((telemetry.partitions, &*telemetry.lane), (6, "normal"));
    assert_eq!(config.warnings, Vec::<String>::new());

    let router = Router::new(&config);
    let index = router.resolve("plant/l1/m7/telemetry");
    let mut key = Vec::new();
    assert_eq!(router.render_key(index, "plant/l1/m7/telemetry", "c", &mut key), KeyKind::Keyed);
    assert_eq!(key, b"m7");
    assert_eq!(&*router.route(index).store().unwrap().topic, "telemetry");
}

#[test]
fn no_file_at_all_is_a_working_gateway() {
    let config = Config::load(None, &Overrides::default(), &ROOMY).unwrap();
    assert_eq!(config.gateway, "gw-17");
    assert_eq!(config.data_dir, PathBuf::from("./data"));
    assert_eq!(config.mqtt.listen.to_string(), "127.0.0.1:1883");
    assert_eq!(config.kafka.listen.to_string(), "127.0.0.1:9092");
    assert_eq!(config.uplink, None);
    let names: Vec<&str> = config.lanes.iter().map(|lane| &*lane.name).collect();
    assert_eq!(names, ["system", "alarm", "normal", "bulk"]);
    let [route] = config.routes.as_slice() else { panic!("one route") };
    assert_eq!(route.filter, "#");
    let store = route.store().unwrap();
    assert_eq!((&*store.topic, store.partitions, &*store.lane), ("mqtt", 4, "normal"));
    assert_eq!(store.key, KeyTemplate::MqttTopic);
    assert_eq!(store.headers, HeaderSelection::ALL);
    assert!(config.warnings.is_empty());
}

#[test]
fn flags_override_the_file() {
    let overrides = Overrides {
        data_dir: Some("/tmp/d".into()),
        mqtt: Some("127.0.0.1:2883".into()),
        kafka: Some("[::1]:0".into()),
        upstream: Some("a:1,[::1]:2".into()),
        gateway: Some("other".into()),
    };
    let config = Config::parse(ISSUE_EXAMPLE, "c.toml", &overrides, &ROOMY).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/tmp/d"));
    assert_eq!(config.mqtt.listen.port(), 2883);
    assert_eq!(config.kafka.listen.to_string(), "[::1]:0");
    assert_eq!(config.gateway, "other");
    let brokers: Vec<String> =
        config.uplink.unwrap().bootstrap.iter().map(ToString::to_string).collect();
    assert_eq!(brokers, ["a:1", "[::1]:2"]);
    // An upstream needs no table in the file.
    let config = Config::parse("", "c.toml", &overrides, &ROOMY).unwrap();
    assert_eq!(config.uplink.unwrap().topic.as_str(), "{topic}");
}

#[test]
fn topics_keep_what_their_lane_says_unless_they_say_it_themselves() {
    let config = good(
        "[lane.bulk]\nretention = \"2d\"\nretention_bytes = \"1MiB\"\n\
         [[topic]]\nname = \"a\"\nlane = \"bulk\"\nretention = \"1h\"\n\
         [[topic]]\nname = \"b\"\nlane = \"bulk\"\n[[topic]]\nname = \"c\"",
    );
    let retention = |name: &str| {
        let retention = config.topic(name).unwrap().retention;
        (retention.ms, retention.bytes)
    };
    assert_eq!(retention("a"), (Some(3_600_000), Some(1 << 20)));
    assert_eq!(retention("b"), (Some(2 * 86_400_000), Some(1 << 20)));
    assert_eq!(retention("c"), (None, None));
    refused(
        "[lane.system]\nretention = \"1d\"",
        "c.toml:2: lane.system.retention = \"1d\": this lane keeps what it needs; remove it",
    );
}

#[test]
fn what_matches_no_route_goes_to_the_default_route() {
    let config = good("[[route]]\nfilter = \"a/#\"\ntopic = \"a\"");
    let router = Router::new(&config);
    assert_eq!(&*router.route(router.resolve("b")).store().unwrap().topic, "mqtt");
    // A file's own route for everything takes its place.
    let config = good("[[route]]\nfilter = \"#\"\ntopic = \"all\"");
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.topic("mqtt"), None);
}

#[test]
fn live_only_routes_store_nothing() {
    let config = good("[[route]]\nfilter = \"video/#\"\nstore = false");
    let router = Router::new(&config);
    let index = router.resolve("video/1");
    assert_eq!(router.route(index).target, RouteTarget::LiveOnly);
    assert_eq!(router.render_key(index, "video/1", "c", &mut Vec::new()), KeyKind::Keyless);
}

#[test]
fn topics_are_put_together_from_all_who_name_them() {
    let config = good(
        "[[topic]]\nname = \"t\"\nlane = \"alarm\"\npartitions = 7\nretention = \"7d\"\n\
         [[route]]\nfilter = \"a\"\ntopic = \"t\"\n[[route]]\nfilter = \"b\"\ntopic = \"t\"\nretention_bytes = \"1MiB\"",
    );
    let topic = config.topic("t").unwrap();
    assert_eq!((topic.partitions, &*topic.lane), (7, "alarm"));
    assert_eq!(topic.retention, Retention { ms: Some(604_800_000), bytes: Some(1 << 20) });
    let twice = |key: &str, one: &str, other: &str| {
        format!(
            "[[topic]]\nname = \"t\"\n{key} = \"{one}\"\n[[route]]\nfilter = \"a\"\ntopic = \"t\"\n{key} = \"{other}\""
        )
    };
    for (key, one, other) in [
        ("cleanup", "compact", "delete"),
        ("delete_retention", "1h", "2h"),
        ("max_message_bytes", "1KiB", "2KiB"),
        ("timestamps", "create", "append"),
        ("timestamp_before_max", "1h", "2h"),
        ("timestamp_after_max", "1h", "2h"),
    ] {
        good(&twice(key, one, one));
        let error = parse(&twice(key, one, other)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("c.toml:7: route.{key}")), "{error}");
    }
    refused(
        "[[topic]]\nname = \"t\"\ncleanup = \"shred\"",
        "c.toml:3: topic.cleanup = \"shred\": write one of \"delete\", \"compact\", \"compact,delete\"",
    );
    for route in &config.routes[..2] {
        assert_eq!(route.store().unwrap().partitions, 7);
        assert_eq!(&*route.store().unwrap().lane, "alarm");
    }
}

const RICH: &str = r##"
gateway = "g.1"
data_dir = "/tmp/with \"quotes\" and \\ and ü"
[mqtt]
listen = "[::]:1883"
insecure_remote = true
max_packet_bytes = 100_000
[kafka]
advertised = "gw3.plant:9092"
auto_create_topics = false
default_lane = "vibration"
[[topic]]
name = "audit"
retention = "36h"
retention_bytes = 123457
cleanup = "compact,delete"
delete_retention = "90min"
max_message_bytes = "64KiB"
timestamps = "append"
timestamp_before_max = "7d"
timestamp_after_max = "30min"
[[route]]
filter = "a/+/#"
topic = "audit"
key = "{client}/{2}/{3:-no\"ne}{{}}"
lane = "vibration"
headers = ["mqtt.topic", "user-properties"]
timestamp = { field = "meta.ts", unit = "rfc3339" }
[[route]]
filter = "b"
topic = "b"
key = ""
headers = "none"
[[route]]
filter = "v/#"
store = false
[lane.vibration]
budget = "64MiB"
segment = "4MiB"
durability = "interval"
interval_ms = 250
when_full = "drop-oldest"
drop_unsent = true
decay = "aggregate:90s"
refuse_after = "90s"
inflight_bytes = "100KiB"
inflight_total_bytes = "1MiB"
retention = "3d"
retention_bytes = "7MiB"
compression = "none"
commit_window_ms = 0
[lane.alarm]
segment = 1052672
[uplink]
bootstrap = ["a.b:1", "[::1]:2"]
via = "127.0.0.1:7000"
topic = "edge.{gateway}.{topic}"
create_topics = false
partitions = 3
[log]
format = "json"
level = "debug"
"##;

#[test]
fn what_is_shown_reads_back_as_the_same_configuration() {
    for text in ["", ISSUE_EXAMPLE, RICH, "[[route]]\nfilter = \"#\"\ntopic = \"x\"\n"] {
        let mut config = good(text);
        let shown = config.to_toml();
        // Another machine, with a small disk: nothing may depend on it any more.
        let elsewhere = TestHost { available_bytes: Some(4 << 30) };
        let mut again = Config::parse(&shown, "shown.toml", &Overrides::default(), &elsewhere)
            .unwrap_or_else(|error| panic!("{error}\n{shown}"));
        for config in [&mut config, &mut again] {
            config.warnings.clear();
            config.notes.clear();
        }
        assert_eq!(again, config, "{shown}");
        assert_eq!(again.to_toml(), shown);
    }
}

#[test]
fn what_only_a_start_can_prove_wrong_is_known_by_its_place() {
    let config = good("data_dir = \"/d\"\n\n[mqtt]\nlisten = \"127.0.0.1:2883\"");
    assert_eq!(config.places.data_dir, "c.toml:1: data_dir = \"/d\"");
    assert_eq!(config.places.mqtt_listen, "c.toml:4: mqtt.listen = \"127.0.0.1:2883\"");
    assert_eq!(config.places.kafka_listen, "kafka.listen = \"127.0.0.1:9092\" (default)");
    let overrides = Overrides { mqtt: Some("127.0.0.1:3883".into()), ..Overrides::default() };
    let config = Config::parse("", "c.toml", &overrides, &ROOMY).unwrap();
    assert_eq!(config.places.mqtt_listen, "--mqtt 127.0.0.1:3883");
}

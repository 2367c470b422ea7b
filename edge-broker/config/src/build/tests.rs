//! What a file means, and what a wrong file is told.

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
fn lanes_without_budgets_take_a_gibibyte_or_a_quarter_of_the_disk() {
    let sum = |available_bytes| {
        let host = TestHost { available_bytes };
        let config = Config::load(None, &Overrides::default(), &host).unwrap();
        for lane in &config.lanes {
            assert!(lane.budget_bytes >= 3 * lane.segment_bytes, "{lane:?}");
        }
        config.lanes.iter().map(|lane| lane.budget_bytes).sum::<u64>()
    };
    const GIB: u64 = 1 << 30;
    assert!((GIB * 98 / 100..=GIB).contains(&sum(Some(100 * GIB))));
    assert!((GIB * 98 / 100..=GIB).contains(&sum(None)));
    assert!((GIB * 24 / 100..=GIB / 4).contains(&sum(Some(GIB))));
    assert!(sum(Some(64 << 20)) <= 16 << 20);
    // A full disk: still a gateway, with the smallest lanes there are.
    assert!(sum(Some(0)) <= 8 << 20);
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
fn wrong_flags_are_named() {
    let flags = |change: fn(&mut Overrides)| {
        let mut overrides = Overrides::default();
        change(&mut overrides);
        overrides
    };
    refused_flags(
        flags(|o| o.mqtt = Some("1883".into())),
        "--mqtt 1883: not an address; write IP:PORT, for example \"127.0.0.1:1883\"",
    );
    refused_flags(
        flags(|o| o.upstream = Some("kafka".into())),
        "--upstream kafka: write HOST:PORT, for example \"kafka-1.example:9092\"",
    );
    refused_flags(
        flags(|o| o.gateway = Some("a b".into())),
        "--gateway a b: contains ' '; a-z, A-Z, 0-9, \".\", \"_\" and \"-\" are allowed",
    );
    refused_flags(
        flags(|o| o.kafka = Some("127.0.0.1:1883".into())),
        "--kafka 127.0.0.1:1883: the MQTT listener has this address; choose another port",
    );
    refused_flags(
        flags(|o| o.mqtt = Some("0.0.0.0:1883".into())),
        "--mqtt 0.0.0.0:1883: what goes to and from this address is not encrypted, passwords included; listen on 127.0.0.1, or set insecure_remote = true under [mqtt]",
    );
}

#[test]
fn unknown_keys_suggest_the_nearest_known_one() {
    refused("gatway = \"a\"", "c.toml:1: gatway: unknown key; did you mean \"gateway\"?");
    refused(
        "\n[lane.normal]\nbudgt = \"1GiB\"",
        "c.toml:3: lane.normal.budgt: unknown key; did you mean \"budget\"?",
    );
    refused(
        "[mqtt]\nlisten = \"127.0.0.1:1\"\ncolour = 1",
        "c.toml:3: mqtt.colour: unknown key; known here: listen, tls_listen, ws_listen, wss_listen, denied_publish_v3, max_packet_bytes, max_connections, insecure_remote",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\n\n[[route]]\nfilter = \"b\"\ntopci = \"b\"",
        "c.toml:7: route.topci: unknown key; did you mean \"topic\"?",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\ntimestamp = { feild = \"ts\" }",
        "c.toml:4: route.timestamp.feild: unknown key; did you mean \"field\"?",
    );
    refused("[uplinks]\nx = 1", "c.toml:1: uplinks: unknown key; did you mean \"uplink\"?");
}

#[test]
fn wrong_types_say_what_to_write() {
    refused("gateway = 5", "c.toml:1: gateway = 5: wrong type (integer 5); write a text in quotes");
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\npartitions = \"6\"",
        "c.toml:4: route.partitions = \"6\": wrong type (string \"6\"); write a whole number without quotes",
    );
    refused(
        "[lane.normal]\nbudget = true",
        "c.toml:2: lane.normal.budget = true: wrong type (boolean true); write a size such as \"512MiB\"",
    );
    refused(
        "[uplink]\nbootstrap = \"a:1\"",
        "c.toml:2: uplink.bootstrap = \"a:1\": wrong type (string \"a:1\"); write a list in [ ]",
    );
    refused(
        "[kafka]\nauto_create_topics = \"yes\"",
        "c.toml:2: kafka.auto_create_topics = \"yes\": wrong type (string \"yes\"); write true or false",
    );
    refused("mqtt = 1883", "c.toml:1: mqtt = 1883: wrong type (integer 1883); write a table");
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\nretention = 7",
        "c.toml:4: route.retention = 7: not a duration; write a whole number with ms, s, min, h or d",
    );
}

#[test]
fn wrong_values_name_the_remedy() {
    refused(
        "[lane.normal]\n\nbudget = \"512XB\" # comment",
        "c.toml:3: lane.normal.budget = \"512XB\": not a size; write a whole number with KiB, MiB or GiB",
    );
    refused(
        "board = \"raspbery-pi-4\"",
        "c.toml:1: board = \"raspbery-pi-4\": no such board; did you mean \"raspberry-pi-4\"?",
    );
    refused(
        "[lane.normal]\nwhen_full = \"drop\"",
        "c.toml:2: lane.normal.when_full = \"drop\": write \"refuse\" or \"drop-oldest\"",
    );
    refused(
        "[lane.normal]\ndurability = \"async\"",
        "c.toml:2: lane.normal.durability = \"async\": write one of \"sync\", \"interval\"",
    );
    refused(
        "[lane.normal]\ncompression = \"zstd:40\"",
        "c.toml:2: lane.normal.compression = \"zstd:40\": not a zstd level; write \"none\" or \"zstd:3\" (level 1 to 22)",
    );
    refused(
        "[lane.normal]\ncommit_window_ms = -1",
        "c.toml:2: lane.normal.commit_window_ms = -1: must be from 0 to 10000",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\npartitions = 0",
        "c.toml:4: route.partitions = 0: must be from 1 to 1024",
    );
    refused(
        "[[route]]\nfilter = \"a#\"\ntopic = \"a\"",
        "c.toml:2: route.filter = \"a#\": `#` must be the last level of a topic filter and alone in it; write levels with / between them",
    );
    refused(
        "[[route]]\nfilter = \"a/#\"\ntopic = \"t-{1}\"",
        "c.toml:3: route.topic = \"t-{1}\": contains '{'; a-z, A-Z, 0-9, \".\", \"_\" and \"-\" are allowed; a topic is a fixed name, templates are for key",
    );
    refused(
        "[[route]]\nfilter = \"a/#\"\ntopic = \"a\"\nkey = \"{3}\"",
        "c.toml:4: route.key = \"{3}\": {3} may be absent in topics that match \"a/#\"; give it a default, for example {3:-none}",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\nheaders = [\"mqtt.topic\", \"topic\"]",
        "c.toml:4: route.headers = \"topic\": no such header; there are mqtt.topic, mqtt.client, mqtt.qos, mqtt.retain, mqtt.properties, user-properties",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\ntimestamp = { field = \"ts\", unit = \"sec\" }",
        "c.toml:4: route.timestamp.unit = \"sec\": write one of \"s\", \"ms\", \"us\", \"ns\", \"rfc3339\"",
    );
    refused(
        "[uplink]\nbootstrap = [\"kafka-1\"]",
        "c.toml:2: uplink.bootstrap = \"kafka-1\": write HOST:PORT, for example \"kafka-1.example:9092\"",
    );
    refused(
        "[uplink]\nbootstrap = [\"a:1\"]\nvia = \"tunnel\"",
        "c.toml:3: uplink.via = \"tunnel\": write HOST:PORT, for example \"kafka-1.example:9092\"",
    );
    refused(
        "[uplink]\nbootstrap = [\"a:1\"]\ntopic = \"{lane}.{topic}\"",
        "c.toml:3: uplink.topic = \"{lane}.{topic}\": only {topic} and {gateway} can be used here",
    );
    refused(
        "[mqtt]\nlisten = \"0.0.0.0:1883\"",
        "c.toml:2: mqtt.listen = \"0.0.0.0:1883\": what goes to and from this address is not encrypted, passwords \
         included; listen on 127.0.0.1, or set insecure_remote = true under [mqtt]",
    );
    refused(
        "[log]\nlevel = \"loud\"",
        "c.toml:2: log.level = \"loud\": write one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
    );
}

#[test]
fn wrong_relations_name_the_remedy() {
    refused(
        "[lane.normal]\nbudget = \"32MiB\"\nsegment = \"16MiB\"",
        "c.toml:2: lane.normal.budget = \"32MiB\": must be at least three segments, 48MiB of 16MiB; raise budget or lower segment",
    );
    refused(
        "[lane.normal]\nsegment = \"64KiB\"",
        "c.toml:2: lane.normal.segment = \"64KiB\": cannot hold the largest MQTT packet (256KiB); make it 320KiB or more, or lower mqtt.max_packet_bytes",
    );
    refused(
        "[lane.alarm]\nbudget = \"512KiB\"",
        "c.toml:2: lane.alarm.budget = \"512KiB\": three segments do not fit: one cannot hold the largest MQTT packet (256KiB); make it 320KiB or more, or lower mqtt.max_packet_bytes",
    );
    assert_eq!(
        good("[lane.alarm]\nbudget = \"1MiB\"").lane("alarm").unwrap().segment_bytes,
        340 << 10
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\nlane = \"norml\"",
        "c.toml:4: route.lane = \"norml\": no such lane; did you mean \"normal\"?",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\nlane = \"video\"",
        "c.toml:4: route.lane = \"video\": no such lane; there are alarm, normal, bulk, or add a table [lane.video]",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"a\"\nlane = \"system\"",
        "c.toml:4: route.lane = \"system\": this lane is the broker's own; choose alarm, normal, bulk or one of yours",
    );
    refused(
        "[[route]]\nfilter = \"a\"\ntopic = \"t\"\npartitions = 2\n[[route]]\nfilter = \"b\"\ntopic = \"t\"\npartitions = 3",
        "c.toml:8: route.partitions = 3: another route or [[topic]] gives topic \"t\" another number of partitions; a topic has one",
    );
    refused(
        "[lane.bulk]\ninterval_ms = 5",
        "c.toml:2: lane.bulk.interval_ms = 5: only means something with durability = \"interval\"; remove it or set that",
    );
    refused(
        "[[route]]\nfilter = \"a\"",
        "c.toml:1: route: needs a topic, for example topic = \"telemetry\", or store = false",
    );
    refused(
        "\n[[route]]\ntopic = \"a\"",
        "c.toml:2: route: needs a filter, for example filter = \"plant/#\"",
    );
    refused(
        "[uplink]\nlinger_ms = 5",
        "c.toml:1: uplink: needs a broker to connect to, for example bootstrap = [\"kafka-1.example:9092\"]",
    );
    refused(
        "[kafka]\nmax_batch_bytes = \"8MiB\"",
        "c.toml:2: kafka.max_batch_bytes = \"8MiB\": must be less than kafka.max_request_bytes, since a batch comes inside a request",
    );
    refused(
        "[[topic]]\nname = \"a\"\nretention = \"7d\"\nretention_ms = 5",
        "c.toml:4: topic.retention_ms = 5: retention is set as well; remove one of them",
    );
}

#[test]
fn what_is_not_toml_names_the_line() {
    let message = |text: &str| parse(text).expect_err("must be refused").to_string();
    assert!(message("gateway = \"a").starts_with("c.toml:1: "), "{}", message("gateway = \"a"));
    assert!(message("\n\n[mqtt\n").starts_with("c.toml:3: "), "{}", message("\n\n[mqtt\n"));
    let twice = message("gateway = \"a\"\ngateway = \"b\"");
    assert!(
        twice.starts_with("c.toml:2: ") && twice.ends_with("is written twice; remove one"),
        "{twice}"
    );
    for text in ["\0", "ü = ", "[[", "a = [1,", "= 1", "a.b.c = {"] {
        assert!(!message(text).contains('\n'), "{text}");
    }
}

#[test]
fn a_missing_or_absurd_file_is_named() {
    let load = |path: &Path| Config::load(Some(path), &Overrides::default(), &ROOMY);
    let message = load(Path::new("/nonexistent/c.toml")).unwrap_err().to_string();
    assert!(message.starts_with("/nonexistent/c.toml: cannot be read: "), "{message}");
    assert!(matches!(load(Path::new("/")), Err(ConfigError::Read { .. })));
    // Endless; what is read of it is bounded.
    assert!(matches!(load(Path::new("/dev/zero")), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn what_is_legal_but_not_meant_is_a_warning() {
    let warnings = |text: &str| good(text).warnings;
    let one = |text: &str, expected: &str| {
        let all = warnings(text);
        assert!(all.len() == 1 && all[0].contains(expected), "{all:?}");
    };
    one(
        "[[route]]\nfilter = \"a/#\"\ntopic = \"a\"\n[[route]]\nfilter = \"a/b\"\ntopic = \"b\"",
        "c.toml:5: route.filter = \"a/b\": never reached",
    );
    one("[[route]]\nfilter = \"$SYS/#\"\ntopic = \"a\"", "begin with $ is refused");
    one("[mqtt]\nlisten = \"0.0.0.0:1883\"\ninsecure_remote = true", "not encrypted");
    one("[lane.normal]\nwhen_full = \"refuse\"", "publishers wait");
    one("[lane.normal]\nbudget = \"1TiB\"", "the disk has 100.0 GiB");
    one("[lane.bulk]\ndrop_unsent = true", "without an [uplink] nothing is unsent");
    one(
        "[lane.bulk]\nbudget = \"100MiB\"\nretention_bytes = \"30MiB\"\n[[topic]]\nname = \"t\"\nlane = \"bulk\"",
        "c.toml:3: lane.bulk.retention_bytes = \"30MiB\": all partitions of lane bulk may keep 120.0 MiB",
    );
    one(
        "[lane.normal]\nbudget = \"100MiB\"\n[[topic]]\nname = \"t\"\npartitions = 2\nretention_bytes = \"60MiB\"",
        "may keep 120.0 MiB, but its budget is 100.0 MiB",
    );
    one("[[route]]\nfilter = \"a\"\nstore = false\ntopic = \"t\"", "has no effect");
}

const UPLINK: &str = "[uplink]\nbootstrap = [\"a:1\"]\n";

#[test]
fn a_full_lane_gives_up_what_is_unsent_only_where_it_is_told_to() {
    let lanes = |text: &str| {
        let config = good(text);
        assert_eq!(config.warnings, Vec::<String>::new());
        ["alarm", "normal", "bulk", "system"].map(|name| {
            let lane = config.lane(name).unwrap();
            (lane.when_full, lane.drop_unsent)
        })
    };
    let (refuse, drop) = ((WhenFull::Refuse, false), (WhenFull::DropOldest, false));
    assert_eq!(lanes(""), [drop, drop, drop, refuse]);
    assert_eq!(lanes(UPLINK), [refuse, refuse, (WhenFull::DropOldest, true), refuse]);
    let told = format!(
        "{UPLINK}[lane.normal]\nwhen_full = \"drop-oldest\"\n[lane.bulk]\ndrop_unsent = false"
    );
    assert_eq!(lanes(&told), [refuse, drop, drop, refuse]);
    let told = format!("{UPLINK}[lane.alarm]\nwhen_full = \"drop-oldest\"\ndrop_unsent = true");
    assert_eq!(lanes(&told)[0], (WhenFull::DropOldest, true));
}

#[test]
fn what_a_lane_holds_has_limits() {
    let config = good(
        "[lane.alarm]\nrefuse_after = \"30s\"\ninflight_bytes = \"32KiB\"\ninflight_total_bytes = \"64KiB\"",
    );
    let alarm = config.lane("alarm").unwrap();
    assert_eq!(alarm.refuse_after, Some(std::time::Duration::from_secs(30)));
    assert_eq!((alarm.inflight_bytes, alarm.inflight_total_bytes), (32 << 10, 64 << 10));
    let normal = config.lane("normal").unwrap();
    assert_eq!(normal.refuse_after, None);
    assert_eq!((normal.inflight_bytes, normal.inflight_total_bytes), (1 << 20, 16 << 20));
    refused(
        "[lane.alarm]\nrefuse_after = \"10ms\"",
        "c.toml:2: lane.alarm.refuse_after = \"10ms\": must be from 1s to 7d; leave it out to wait for room",
    );
    refused(
        "[lane.alarm]\ninflight_total_bytes = \"64KiB\"",
        "c.toml:2: lane.alarm.inflight_total_bytes = \"64KiB\": must be at least inflight_bytes, 1MiB",
    );
    refused(
        "[lane.bulk]\nwhen_full = \"refuse\"\ndecay = \"keep-every:10\"",
        "c.toml:3: lane.bulk.decay = \"keep-every:10\": only means something with when_full = \"drop-oldest\"; \
         remove it or set that",
    );
    refused(
        "[lane.bulk]\nwhen_full = \"drop-oldest\"\ndecay = \"keep-every:1\"",
        "c.toml:3: lane.bulk.decay = \"keep-every:1\": no way to thin; write \"keep-every:10\" (2 to 1000000) or \
         \"aggregate:60s\" (1 s to 86400 s)",
    );
    refused(
        "[lane.alarm]\nwhen_full = \"refuse\"\ndrop_unsent = true",
        "c.toml:3: lane.alarm.drop_unsent = true: only means something with when_full = \"drop-oldest\"; remove \
         it or set that",
    );
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
        config.warnings.clear();
        again.warnings.clear();
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

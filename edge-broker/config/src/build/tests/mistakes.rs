//! What a wrong file is told.

use std::path::Path;

use super::*;

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
        "c.toml:3: mqtt.colour: unknown key; known here: listen, tls_listen, ws_listen, wss_listen, denied_publish_v3, max_packet_bytes, max_connections, max_connections_per_address, max_connections_per_identity, connect_deadline, accept_rate, max_handshakes, ban_after, ban, memory, receive_maximum, max_subscriptions, sys_interval, dead_letter, insecure_remote",
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
        "c.toml:2: lane.normal.segment = \"64KiB\": must be at least 320KiB: it has to hold the largest MQTT packet (256KiB); raise it, or lower mqtt.max_packet_bytes",
    );
    refused(
        "[lane.system]\nbudget = \"2MiB\"",
        "c.toml:2: lane.system.budget = \"2MiB\": must be at least 3MiB, three segments of 1MiB: each has to hold the broker's state; raise it, or leave it out",
    );
    refused(
        "[lane.alarm]\nbudget = \"512KiB\"",
        "c.toml:2: lane.alarm.budget = \"512KiB\": must be at least 960KiB, three segments of 320KiB: each has to hold the largest MQTT packet (256KiB); raise it, or lower mqtt.max_packet_bytes",
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
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    refused_all(
        "gatway = \"a\"\nboard = \"amiga\"\n\n[mqtt]\nlisten = 1883\n\n[kafka]\nlisten = \"here\"\n\n[lane.normal]\n\
         segment = \"1KiB\"\nwhen_full = \"drop\"\ndrop_unsent = true\n\n[[route]]\nfilter = \"a/#/b\"\ntopic = \"a b\"\n\
         lane = \"norml\"\n\n[[route]]\nfilter = \"b\"\n\n[flash]\nreserve = \"1MiB\"",
        &[
            "c.toml:1: gatway: unknown key; did you mean \"gateway\"?",
            "c.toml:2: board = \"amiga\": no such board",
            "c.toml:5: mqtt.listen = 1883: wrong type (integer 1883)",
            "c.toml:8: kafka.listen = \"here\": not an address",
            "c.toml:11: lane.normal.segment = \"1KiB\": must be at least 320KiB",
            "c.toml:12: lane.normal.when_full = \"drop\": write",
            "c.toml:16: route.filter = \"a/#/b\": ",
            "c.toml:17: route.topic = \"a b\": contains ' '",
            "c.toml:18: route.lane = \"norml\": no such lane; did you mean \"normal\"?",
            "c.toml:20: route: needs a topic",
            "c.toml:24: flash.reserve = \"1MiB\": must be at least 4MiB, or \"off\"",
        ],
    );
}

#[test]
fn what_was_left_out_for_a_mistake_is_not_missed_as_well() {
    for (text, told) in [
        ("[[route]]\nfilter = \"a\"\ntopic = 5", &["c.toml:3: route.topic = 5: "][..]),
        ("[[route]]\nfiltr = \"a\"\ntopic = \"t\"", &["c.toml:2: route.filtr: "]),
        ("[uplink]\nbootstrap = [5]", &["c.toml:2: uplink.bootstrap = "]),
        // The lane is there, under a wrong name: what names it is right.
        (
            "[lanes.x]\nbudget = \"1MiB\"\n[[topic]]\nname = \"t\"\nlane = \"x\"",
            &["c.toml:1: lanes: "],
        ),
        ("lane.x = 5\n[[topic]]\nname = \"t\"\nlane = \"x\"", &["c.toml:1: lane.x = 5: "]),
        (
            "[lane.x]\nbudgt = 1\n[[topic]]\nname = \"t\"\nlane = \"y\"",
            &["c.toml:2: lane.x.budgt: ", "c.toml:5: topic.lane = \"y\": "],
        ),
        ("[lane.\"a b\"]\n[[topic]]\nname = \"t\"\nlane = \"a b\"", &["c.toml:1: lane.a b"]),
        (
            "gateway = \"a\"\ngateway = \"b\"\nboard = \"c\"\nboard = \"d\"",
            &["c.toml:2: ", "c.toml:4: "],
        ),
    ] {
        refused_all(text, told);
    }
}

#[test]
fn a_file_full_of_mistakes_is_told_up_to_a_limit() {
    let text: String = (0..60).map(|key| format!("k{key} = 1\n")).collect();
    let message = parse(&text).expect_err("must be refused").to_string();
    assert_eq!(message.lines().count(), 51);
    assert!(message.ends_with("\nand 10 more mistakes"), "{message}");
}

#[test]
fn records_without_a_key_are_not_for_compacted_topics() {
    let route = "[[route]]\nfilter = \"a/#\"\ntopic = \"t\"\nkey = \"\"\n";
    for cleanup in ["compact", "compact,delete"] {
        let text = format!("{route}[[topic]]\nname = \"t\"\ncleanup = \"{cleanup}\"");
        refused_all(&text, &["c.toml:4: route.key = \"\": topic \"t\" is compacted: "]);
    }
    good(&format!("{route}[[topic]]\nname = \"t\"\ncleanup = \"delete\""));
    good("[[route]]\nfilter = \"a/#\"\ntopic = \"t\"\ncleanup = \"compact\"");
}

/// Every line begins with what is expected of it, and there are no others.
#[track_caller]
fn refused_all(text: &str, expected: &[&str]) {
    let message = parse(text).expect_err("must be refused").to_string();
    let lines: Vec<&str> = message.lines().collect();
    let is_told = |(line, expected): (&&str, &&str)| line.starts_with(*expected);
    let is_right = lines.len() == expected.len() && lines.iter().zip(expected).all(is_told);
    assert!(is_right, "{message}");
}

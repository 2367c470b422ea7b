//! Topic names and filters: section 4.7 of both standards.

use edge_mqtt::Version::{self, V5, V311};

use crate::peer::*;
use crate::support::Rig;

/// Publishes to each topic; the subscriber gets those in `expected`.
fn delivered(version: Version, filter: &str, topics: &[&str], expected: &[&str]) {
    let rig = Rig::new();
    let mut subscriber = Peer::new(&rig, version, "subscriber");
    assert_eq!(subscriber.subscribe(filter, 0), 0, "{filter}");
    let mut publisher = Peer::new(&rig, version, "publisher");
    for topic in topics {
        publisher.publish(&message(topic, topic));
    }
    for topic in expected {
        assert_eq!(subscriber.take().topic(), *topic, "{filter}");
    }
    subscriber.is_served();
}

fn bad_filters(version: Version, filters: &[&str]) {
    for filter in filters {
        let rig = Rig::new();
        let mut peer = Peer::new(&rig, version, "c");
        peer.send(&subscribe(version, 1, &[(filter, 0)], &[]));
        // Either the filter or the whole packet is refused.
        let answer = peer.client.rest_or_packet();
        match answer.first() {
            None => assert_eq!(version, V311),
            Some(&SUBACK) => assert!(*answer.last().unwrap() >= 0x80, "{filter}"),
            Some(&DISCONNECT) => assert!(matches!(answer[2], 0x81 | 0x82 | 0x8F), "{answer:x?}"),
            _ => panic!("{answer:x?}"),
        }
    }
}

fn multi_level(version: Version) {
    bad_filters(version, &["a/#/b", "a#", "#/a", "a/b#", "##", "#+", "a/##"]);
    let topics = ["sport", "sport/tennis", "sport/tennis/player1", "sporty", "other"];
    delivered(version, "sport/#", &topics, &topics[..3]);
    delivered(version, "#", &topics, &topics);
}

fn single_level(version: Version) {
    bad_filters(version, &["a+", "+a", "a/b+", "a/+b/c", "++"]);
    let topics = ["a", "a/b", "a/", "/a", "a/b/c", "a//c", "/"];
    delivered(version, "+", &topics, &["a"]);
    delivered(version, "+/+", &topics, &["a/b", "a/", "/a", "/"]);
    delivered(version, "/+", &topics, &["/a", "/"]);
    delivered(version, "a/+/c", &topics, &["a/b/c", "a//c"]);
    delivered(version, "a/+", &topics, &["a/b", "a/"]);
}

fn dollar(version: Version) {
    let rig = Rig::new();
    let mut subscriber = Peer::new(&rig, version, "subscriber");
    subscriber.subscribe_all(&[("#", 0), ("+/x", 0), ("+/#", 0), ("fence", 1)], &[]);
    // Publishing there is refused or ignored; either way nobody with a wildcard gets it.
    let mut publisher = Peer::open(&rig, version);
    publisher.send(&connect(version, "publisher").bytes());
    publisher.connack();
    publisher.send(&message("$other/x", "hidden").bytes(version));
    publisher.send(&[0xE0, 0]);
    publisher.client.rest();
    subscriber.gets_nothing(&mut Peer::new(&rig, version, "another"));
}

fn at_least_one_character(version: Version) {
    bad_filters(version, &[""]);
    refused(version, &message("", "x").bytes(version), &[0x81, 0x82, 0x90]);
    refused(version, &unsubscribe(version, 1, &[""]), &[0x81, 0x82, 0x8F]);
    delivered(version, "/", &["/"], &["/"]);
    delivered(version, " ", &[" "], &[" "]);
}

fn no_normalization(version: Version) {
    // One letter, or letter and accent; both cases; slashes at the ends.
    let topics = ["\u{e9}", "e\u{301}", "A", "a", "a/", "/a", "a//b", "a/b", "\u{212b}", "\u{c5}"];
    for topic in topics {
        delivered(version, topic, &topics, &[topic]);
    }
}

fn wildcards_in_names(version: Version) {
    for topic in ["a/+/b", "#"] {
        refused(version, &message(topic, "x").bytes(version), &[0x81, 0x82, 0x90]);
        let wanted = connect(version, "c").will(message(topic, "w"), &[]);
        connect_refused(&wanted, if version == V5 { &[0x81, 0x82, 0x90] } else { &[] });
    }
}

both! {
    mqtt5_4_7_0_1_wildcards_are_for_filters, mqtt311_4_7_1_1_wildcards_are_for_filters
        => wildcards_in_names;
    mqtt5_4_7_1_1_a_multi_level_wildcard_comes_last, mqtt311_4_7_1_2_a_multi_level_wildcard_comes_last
        => multi_level;
    mqtt5_4_7_1_2_a_single_level_wildcard_is_a_level, mqtt311_4_7_1_3_a_single_level_wildcard_is_a_level
        => single_level;
    mqtt5_4_7_2_1_a_first_wildcard_matches_no_dollar, mqtt311_4_7_2_1_a_first_wildcard_matches_no_dollar
        => dollar;
    mqtt5_4_7_3_1_names_and_filters_are_not_empty, mqtt311_4_7_3_1_names_and_filters_are_not_empty
        => at_least_one_character;
    mqtt5_4_7_3_2_names_and_filters_have_no_nul, mqtt311_4_7_3_2_names_and_filters_have_no_nul
        => |version| {
            bad_filters(version, &["a\0", "\0"]);
            refused(version, &message("a/\0/b", "x").bytes(version), &[0x81, 0x90]);
        };
    mqtt5_4_7_3_4_nothing_is_normalized, mqtt311_4_7_3_4_nothing_is_normalized => no_normalization;
}

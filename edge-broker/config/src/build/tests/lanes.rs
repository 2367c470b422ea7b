//! Lanes: their defaults and limits, and what is legal and not meant.

use super::*;

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
    one("[lane.bulk]\nrefuse_after = \"5s\"", "drops its oldest records and refuses none");
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

#[test]
fn a_retention_by_time_is_told_with_what_the_budget_has_room_for() {
    let budget = "[lane.normal]\nbudget = \"70MiB\"\n";
    let config = good(&format!("{budget}retention = \"7d\""));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(
        config.notes,
        [
            "c.toml:3: lane.normal.retention = \"7d\": the budget of lane normal, 70.0 MiB, holds 7d of up to 10.0 MiB a \
             day as stored; beyond that the oldest go sooner"
        ]
    );
    // The longest counts, and what is upstream makes room whatever its age.
    let topics = "[[topic]]\nname = \"a\"\nretention = \"1d\"\n[[topic]]\nname = \"b\"\nretention = \"7d\"\n";
    let config = good(&format!("{UPLINK}{budget}{topics}"));
    assert!(config.notes[0].contains("topic.retention = \"7d\""), "{:?}", config.notes);
    let upstream = "beyond that the oldest go sooner, once they are upstream";
    assert!(config.notes[0].ends_with(upstream), "{:?}", config.notes);
    let config = good(&format!("{budget}retention = \"7d\"\nwhen_full = \"refuse\""));
    assert!(config.notes[0].ends_with("beyond that publishers wait"), "{:?}", config.notes);
    // Hardly anything: not meant so.
    let config = good(&format!("{budget}retention = \"365d\""));
    assert!(
        config.warnings[0].contains("holds 365d of up to 196.4 KiB a day"),
        "{:?}",
        config.warnings
    );
    assert_eq!(config.notes, Vec::<String>::new());
}

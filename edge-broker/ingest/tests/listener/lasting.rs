//! Sessions that outlive their connection and the power.

use std::sync::Arc;

use edge_ingest::{MqttOptions, SessionKeeper};
use edge_log::storage::CrashPolicy;

use crate::support::{Rig, engine_config, options, publish};

/// Without headers, a PUBLISH cannot be rebuilt from its record.
const BARE: &str = "[[route]]\nfilter = \"a\"\ntopic = \"bare\"\nheaders = \"none\"\n";

fn kept() -> MqttOptions {
    MqttOptions { sessions: Some(Arc::new(SessionKeeper::default())), ..options() }
}

#[test]
fn a_session_and_what_waits_for_it_survive_a_power_cut() {
    let rig = Rig::with("", kept());
    let (mut client, _) = rig.lasting_v4("s");
    client.subscribe("a", 1);
    drop(client);
    let mut publisher = rig.v4("p");
    publisher.send(&publish("a", 7, b"kept"));
    assert_eq!(publisher.packet(), [0x40, 2, 0, 7]);
    let disk = rig.disk.crash_image(CrashPolicy::DropAll, 1);
    drop(rig);

    let rig = Rig::on(disk, "", kept(), engine_config(1 << 20));
    let (mut client, resumed) = rig.lasting_v4("s");
    assert!(resumed);
    assert_eq!(client.packet(), publish("a", 1, b"kept"));
}

#[test]
fn a_session_gets_what_cannot_be_rebuilt_from_its_record() {
    let rig = Rig::with(BARE, kept());
    let (mut client, _) = rig.lasting_v4("s");
    client.subscribe("a", 1);
    let mut publisher = rig.v4("p");
    publisher.send(&publish("a", 7, b"bare"));
    assert_eq!(publisher.packet(), [0x40, 2, 0, 7]);
    assert_eq!(client.packet(), publish("a", 1, b"bare"));
}

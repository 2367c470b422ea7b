//! `edge-broker status`: streams, lanes, gaps and the link, for people or as JSON.
//!
//! A running gateway answers through the socket in its data directory; of a stopped one the files are read, and
//! nothing is changed.

use std::io::ErrorKind;

use edge_config::units::human_bytes;
use edge_engine::status::{LaneStatus, Status, inspect};
use edge_log::storage::FileStorage;

use crate::args::StatusArgs;
use crate::cli::Failure;
use crate::cli::flash_status::flash_text;
use crate::cli::output::{print, print_json};
use crate::cli::table::table;
use crate::{control_socket, uplink_bridge};

pub(super) fn run(args: &StatusArgs) -> Result<(), Failure> {
    let status = look(args)?;
    if args.json { print_json(&status) } else { print(&to_text(&status)) }
}

fn look(args: &StatusArgs) -> Result<Status, Failure> {
    let dir = args.data_dir.as_path();
    let shown = dir.display();
    let asked = control_socket::ask_status(dir).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::Usage(format!(
            "{shown}: there is no data directory; name one with --data-dir, or start a gateway with edge-broker run"
        )),
        ErrorKind::PermissionDenied => Failure::Usage(format!(
            "{shown}: {error}; ask as the user that the gateway runs as"
        )),
        _ => Failure::Failed(format!("{shown}: the gateway does not answer: {error}")),
    })?;
    if let Some(status) = asked {
        return Ok(status);
    }
    if !dir.join("lanes").is_dir() {
        return Err(Failure::Usage(format!(
            "{shown}: no gateway has written here; name its data directory with --data-dir"
        )));
    }
    let unreadable = |error: &dyn std::fmt::Display| Failure::Failed(format!("{shown}: {error}"));
    let storage = FileStorage::open(dir).map_err(|error| unreadable(&error))?;
    let (mut status, stored) = inspect(&storage, dir).map_err(|error| unreadable(&error))?;
    uplink_bridge::add_stored(&stored, &mut status);
    Ok(status)
}

/// What people read.
fn to_text(status: &Status) -> String {
    let mut text = String::new();
    let running = if status.running { "running" } else { "stopped" };
    text.push_str(&format!("gateway {running}, link {}", status.link));
    if let Some(uplink) = &status.uplink {
        text.push_str(&format!(
            " ({} records and {} sent",
            uplink.records,
            human_bytes(uplink.wire_bytes)
        ));
        for (count, what) in [
            (uplink.possible_duplicates, "possible duplicates"),
            (uplink.skipped, "skipped"),
            (uplink.lost, "lost before they were sent"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        text.push(')');
        if let Some(error) = &uplink.error {
            text.push_str(&format!(": {error}"));
        }
    }
    if status.clock.as_ref().is_some_and(|clock| clock.state == "unsynced") {
        text.push_str(
            "\nthe clock is not set: timestamps are corrected once it is, in the same boot",
        );
    }
    for line in not_stored(status) {
        text.push_str(&format!("\n{line}"));
    }
    text.push_str("\n\n");
    text.push_str(&lanes(status));
    text.push('\n');
    text.push_str(&flash_text(status));
    text.push('\n');
    text.push_str(&streams(status));
    if !status.gaps.is_empty() {
        text.push('\n');
        text.push_str(&gaps(status));
    }
    text
}

/// What MQTT clients sent and the log did not take.
fn not_stored(status: &Status) -> impl Iterator<Item = String> {
    let counters = status.mqtt.iter().flatten();
    counters.filter(|(_, count)| **count > 0).filter_map(|(name, count)| {
        let what = match name.as_str() {
            "publishes_unstorable" => "can never be stored: without a key, for a compacted topic",
            "publishes_refused" => "refused because their lane stayed full",
            "publishes_denied" => "that no access rule allows",
            _ => return None,
        };
        Some(format!("mqtt: {count} publishes {what}"))
    })
}

fn lanes(status: &Status) -> String {
    let rows: Vec<Vec<String>> =
        status.lanes.iter().map(|(name, lane)| lane_row(name, lane)).collect();
    let heading =
        ["lane", "state", "used", "budget", "records", "payload", "journal", "device", "syncs"];
    let mut text = table(&heading, &rows);
    for (name, lane) in &status.lanes {
        if let Some(error) = &lane.error {
            text.push_str(&format!("{name}: {error}\n"));
        }
        if let Some(lost) = &lane.lost {
            text.push_str(&format!("{name}: lost before this start: {lost}\n"));
        }
        if lane.pace.over_budget {
            text.push_str(&format!(
                "{name}: writes more than its part of the wear budget although the window is {} ms\n",
                lane.pace.window_ms
            ));
        } else if lane.pace.widened > 0 {
            text.push_str(&format!(
                "{name}: the wear budget is spent: the window is {} ms meanwhile\n",
                lane.pace.window_ms
            ));
        }
        if lane.scrub.errors > 0 {
            text.push_str(&format!(
                "{name}: the scrub found {} damaged places; see the log and `gaps`\n",
                lane.scrub.errors
            ));
        }
        if let Some(held) = &lane.held {
            text.push_str(&format!(
                "{name}: full for {} s, {} publishes of {} clients held ({})\n",
                held.since_ms / 1_000,
                held.publishes,
                held.clients,
                human_bytes(held.bytes)
            ));
        }
        if lane.copied_records > 0 {
            text.push_str(&format!(
                "{name}: {} records ({}) copied forward to be kept\n",
                lane.copied_records,
                human_bytes(lane.copied_bytes)
            ));
        }
        for (count, what) in [
            (lane.compacted_records, "records of older values left out by compaction"),
            (lane.thinned_records, "records thinned out by decay"),
            (lane.unsent_dropped_records, "records dropped before they were upstream"),
            (lane.lost_records, "records lost to damage"),
            (lane.dropped_records, "QoS 0 records dropped"),
            (lane.refused_records, "records refused because the lane was full"),
        ] {
            if count > 0 {
                text.push_str(&format!("{name}: {count} {what}\n"));
            }
        }
    }
    text
}

fn lane_row(name: &str, lane: &LaneStatus) -> Vec<String> {
    let unknown = || "-".to_owned();
    // A stopped gateway has counted nothing and knows no budget.
    let budget = if lane.budget_bytes > 0 { human_bytes(lane.budget_bytes) } else { unknown() };
    vec![
        name.to_owned(),
        lane.state.clone(),
        human_bytes(lane.used_bytes),
        budget,
        lane.records.to_string(),
        human_bytes(lane.payload_bytes),
        human_bytes(lane.journal_bytes),
        lane.device_bytes.map_or_else(unknown, human_bytes),
        lane.syncs.to_string(),
    ]
}

fn streams(status: &Status) -> String {
    let rows: Vec<Vec<String>> = status
        .streams
        .iter()
        .map(|stream| {
            let upstream = stream.upstream_end;
            let lag = upstream.map(|end| stream.durable_end.saturating_sub(end));
            let shown =
                |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
            vec![
                stream.topic.clone(),
                stream.partition.to_string(),
                stream.lane.clone(),
                stream.log_start.to_string(),
                stream.durable_end.to_string(),
                shown(upstream),
                shown(lag),
            ]
        })
        .collect();
    table(&["topic", "partition", "lane", "log start", "durable end", "upstream end", "lag"], &rows)
}

fn gaps(status: &Status) -> String {
    let rows: Vec<Vec<String>> = status
        .gaps
        .iter()
        .map(|gap| {
            let lost = gap.to.saturating_sub(gap.from);
            vec![
                gap.topic.clone(),
                gap.partition.to_string(),
                gap.from.to_string(),
                gap.to.to_string(),
                lost.to_string(),
                gap.reason.clone(),
            ]
        })
        .collect();
    table(&["lost of topic", "partition", "from", "to", "records", "reason"], &rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use edge_engine::status::{GapStatus, HeldStatus, StreamStatus, UplinkCounters};

    use super::*;

    #[test]
    fn people_see_lag_gaps_and_errors() {
        let lane = LaneStatus {
            used_bytes: 3 << 20,
            budget_bytes: 512 << 20,
            syncs: 12,
            state: "poisoned".to_owned(),
            refused_records: 3,
            copied_records: 40,
            copied_bytes: 4096,
            compacted_records: 5,
            thinned_records: 6,
            held: Some(HeldStatus { publishes: 7, bytes: 2048, clients: 2, since_ms: 61_500 }),
            error: Some("sync failed: I/O error".to_owned()),
            ..LaneStatus::default()
        };
        let status = Status {
            streams: vec![StreamStatus {
                topic: "mqtt".to_owned(),
                partition: 0,
                lane: "normal".to_owned(),
                log_start: 5,
                durable_end: 1_000,
                upstream_end: Some(900),
                stream: None,
            }],
            lanes: BTreeMap::from([("normal".to_owned(), lane)]),
            gaps: vec![GapStatus {
                topic: "mqtt".to_owned(),
                partition: 0,
                from: 1,
                to: 5,
                reason: "rot".to_owned(),
            }],
            link: "down".to_owned(),
            mqtt: Some(BTreeMap::from([
                ("publishes_unstorable".to_owned(), 8),
                ("publishes_refused".to_owned(), 0),
            ])),
            uplink: Some(UplinkCounters {
                error: Some("connection refused".to_owned()),
                ..UplinkCounters::default()
            }),
            running: true,
            ..Status::default()
        };
        let text = to_text(&status);
        for expected in [
            "gateway running, link down",
            "connection refused",
            "3.0 MiB",
            "512.0 MiB",
            "normal: sync failed: I/O error",
            "100\n",
            "normal: full for 61 s, 7 publishes of 2 clients held (2.0 KiB)",
            "normal: 3 records refused",
            "normal: 40 records (4.0 KiB) copied forward",
            "normal: 5 records of older values left out by compaction",
            "normal: 6 records thinned out by decay",
            "mqtt: 8 publishes can never be stored: without a key, for a compacted topic",
            "rot",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("mqtt: 0"), "{text}");
    }

    #[test]
    fn a_directory_without_a_gateway_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        for data_dir in [dir.path().to_owned(), dir.path().join("missing")] {
            let args = StatusArgs { data_dir, json: false };
            let Err(Failure::Usage(message)) = look(&args) else { panic!("must be refused") };
            assert!(message.contains("--data-dir"), "{message}");
        }
    }
}

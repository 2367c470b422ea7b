//! A card from a dead gateway: what is on it is exported exactly, damage is found, named and settled, and nothing is
//! changed by looking.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::compare::assert_same;
use system_tests::gate::{self, Peer};
use system_tests::gateway::{self, Gateway};
use system_tests::kafka;
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::random::Random;
use system_tests::wait;

const WITHIN: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 64;
const CONFIG: &str = "\
[lane.normal]
budget = \"32MiB\"
segment = \"1MiB\"
";

fn run(arguments: &[&str], input: Option<&Path>) -> Result<Output> {
    let mut command = gateway::command()?;
    command.args(arguments);
    match input {
        Some(input) => wait::output_from_within(&mut command, fs::File::open(input)?, WITHIN),
        None => wait::output_within(&mut command, WITHIN),
    }
}

fn json(output: &Output) -> Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .with_context(|| format!("{text:.300}\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> =
        String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// A gateway with records of 64 partitions, built by us and compressed by their producer, text and bytes.
struct Filled {
    gateway: Gateway,
    /// What `consume` says is there.
    telemetry: Vec<String>,
    mqtt: Vec<String>,
}

fn fill() -> Result<Filled> {
    let gateway = Gateway::start_configured(CONFIG)?;
    let broker = gateway.kafka_address().to_string();
    let partitions = PARTITIONS.to_string();
    let made = run(
        &["topic", "create", "telemetry", "--partitions", &partitions, "--broker", &broker],
        None,
    )?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let input = gateway.data_dir().with_file_name("input");
    let mut random = Random::seeded(7);
    for codec in ["none", "zstd", "gzip", "none"] {
        let noise = |random: &mut Random| -> String {
            (0..16).map(|_| format!("{:x}", random.bits())).collect()
        };
        let rows: Vec<String> = (0..4_000)
            .map(|row| format!("m{}\tvalue {row} {}", random.below(500), noise(&mut random)))
            .collect();
        fs::write(&input, rows.join("\n"))?;
        let produced = run(
            &[
                "produce",
                "telemetry",
                "--key-separator",
                "\t",
                "-z",
                codec,
                "-H",
                "unit=Nm",
                "--broker",
                &broker,
            ],
            Some(&input),
        )?;
        ensure!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
    }
    let mut client =
        MqttClient::connect(gateway.mqtt_address(), &ConnectOptions::new(Version::V5, "sensor"))?;
    for _ in 0..200 {
        let bytes = random.bytes(100);
        client.publish_and_wait("plant/raw", &bytes)?;
    }
    client.disconnect()?;
    let consume = |topic: &str| -> Result<Vec<String>> {
        let output = run(&["consume", topic, "--json", "--broker", &broker], None)?;
        Ok(lines(&output.stdout))
    };
    let (telemetry, mqtt) = (consume("telemetry")?, consume("mqtt")?);
    ensure!(telemetry.len() == 16_000 && mqtt.len() == 200, "{} {}", telemetry.len(), mqtt.len());
    Ok(Filled { gateway, telemetry, mqtt })
}

/// Every file below a folder with its bytes and the time of its last change.
fn state(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>, SystemTime)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(state(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            found.push((entry.path(), fs::read(entry.path())?, entry.metadata()?.modified()?));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Byte of a frame of data in a segment, and of its body: the `skip`-th large one.
fn frame(bytes: &[u8], skip: usize) -> Option<(usize, usize)> {
    let number =
        |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default()) as usize;
    let frames = (512..bytes.len()).step_by(512).filter(|at| &bytes[*at..*at + 4] == b"EDGF");
    let large =
        frames.filter(|at| bytes[at + 9] == 1 && number(at + 100) + number(at + 108) > 1_000);
    large.map(|at| (at, at + 128 + number(at + 96) + number(at + 60) + 400)).nth(skip)
}

#[test]
fn what_is_exported_is_what_was_produced_running_and_dead() -> Result<()> {
    let mut filled = fill()?;
    let data = filled.gateway.data_dir();
    let dir = data.to_str().context("a path of text")?.to_owned();
    let export = |topic: &str, more: &[&str]| {
        let mut arguments = vec!["export", "--topic", topic, "--data-dir", &dir];
        arguments.extend(more);
        run(&arguments, None)
    };
    for running in [true, false] {
        if !running {
            filled.gateway.kill_now()?;
        }
        let before = state(&data)?;
        let verified = run(&["verify", "--json", "--data-dir", &dir], None)?;
        let report = json(&verified)?;
        assert_eq!(verified.status.code(), Some(0), "{report}");
        assert_eq!(
            (&report["sound"], &report["running"]),
            (&Value::Bool(true), &Value::Bool(running))
        );
        for (topic, expected) in [("telemetry", &filled.telemetry), ("mqtt", &filled.mqtt)] {
            let exported = export(topic, &["--format", "jsonl"])?;
            assert_eq!(
                exported.status.code(),
                Some(0),
                "{}",
                String::from_utf8_lossy(&exported.stderr)
            );
            assert_same(&format!("{topic}, running {running}"), &lines(&exported.stdout), expected);
        }
        let csv = export("telemetry", &["--format", "csv"])?;
        assert_eq!(lines(&csv.stdout).len(), 16_001);
        if !running {
            let after = state(&data)?;
            assert!(before == after, "looking changes nothing");
        }
    }
    // A part: from an offset, to one, of a partition; resumed where it stopped.
    let whole = export("telemetry", &["--format", "jsonl", "-p", "5"])?.stdout;
    let mut parts = export("telemetry", &["--format", "jsonl", "-p", "5", "--to", "100"])?.stdout;
    parts.extend(export("telemetry", &["--format", "jsonl", "-p", "5", "--from", "100"])?.stdout);
    assert_eq!(String::from_utf8(whole)?, String::from_utf8(parts)?);
    assert_eq!(
        export("telemetry", &["--format", "jsonl", "--since", "1h"])?.stdout.len(),
        export("telemetry", &["--format", "jsonl"])?.stdout.len()
    );
    assert!(export("telemetry", &["--format", "jsonl", "--until", "1h"])?.stdout.is_empty());
    // What cannot be asked.
    for more in [&["--format", "batches"][..], &["--format", "csv", "-p", "64"]] {
        assert_eq!(export("telemetry", more)?.status.code(), Some(2));
    }
    let unknown = export("no-such", &["--format", "csv"])?;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&unknown.stderr).contains("telemetry"),
        "it says what there is"
    );

    // One segment file, copied elsewhere.
    let copies = tempfile::tempdir()?;
    let mut alone = BTreeSet::new();
    for entry in fs::read_dir(data.join("lanes/normal"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let copy = copies.path().join("copy");
        fs::copy(&path, &copy)?;
        let file = copy.to_str().context("a path of text")?;
        let verified = run(&["verify", "--segment", file], None)?;
        let text = String::from_utf8_lossy(&verified.stderr).into_owned();
        // The slot that is made ahead of use holds nothing.
        if verified.status.code() == Some(2) && text.contains("not a segment") {
            continue;
        }
        assert_eq!(verified.status.code(), Some(0), "{text}");
        let exported =
            run(&["export", "--segment", file, "--topic", "telemetry", "--format", "jsonl"], None)?;
        alone.extend(lines(&exported.stdout));
    }
    assert_same("segments alone", &alone.into_iter().collect::<Vec<_>>(), &filled.telemetry);
    Ok(())
}

/// Topics that are compacted, kept beyond the ring and thinned, in a ring that turned: the card says what a consumer was
/// told, and names no hole that cleaning left.
#[test]
fn a_card_with_copies_is_sound_and_exports_what_a_consumer_reads() -> Result<()> {
    let mut gateway =
        Gateway::start_configured("[lane.normal]\nbudget = \"8MiB\"\nsegment = \"1MiB\"\n")?;
    let broker = gateway.kafka_address().to_string();
    for (topic, setting) in [
        ("state", "cleanup.policy=compact"),
        ("kept", "retention.bytes=500000000"),
        ("busy", "cleanup.policy=delete"),
        ("never", "cleanup.policy=compact"),
    ] {
        let made = run(
            &["topic", "create", topic, "--partitions", "2", "--set", setting, "--broker", &broker],
            None,
        )?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let input = gateway.data_dir().with_file_name("input");
    let mut random = Random::seeded(11);
    let produce = |random: &mut Random, topic: &str, rows: u64, keys: u64| -> Result<()> {
        let noise = |random: &mut Random| -> String {
            (0..30).map(|_| format!("{:016x}", random.bits())).collect()
        };
        let rows: Vec<String> = (0..rows)
            .map(|row| format!("{topic} {}\tvalue {row} {}", random.below(keys), noise(random)))
            .collect();
        fs::write(&input, rows.join("\n"))?;
        let arguments =
            ["produce", topic, "--key-separator", "\t", "-z", "none", "--broker", &broker];
        let produced = run(&arguments, Some(&input))?;
        ensure!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
        Ok(())
    };
    produce(&mut random, "kept", 200, 100)?;
    for _ in 0..12 {
        produce(&mut random, "state", 1_500, 400)?;
        produce(&mut random, "busy", 5_000, 100)?;
    }
    let topics = ["state", "kept", "busy", "never"];
    let dir = gateway.data_dir().to_str().context("a path of text")?.to_owned();
    let mut consumed = Vec::new();
    for topic in topics {
        consumed
            .push(lines(&run(&["consume", topic, "--json", "--broker", &broker], None)?.stdout));
    }
    ensure!(consumed[1].len() == 200, "what has a retention of its own was kept");
    ensure!((400..12_000).contains(&consumed[0].len()), "{} records", consumed[0].len());
    for running in [true, false] {
        if !running {
            gateway.kill_now()?;
        }
        let verified = run(&["verify", "--json", "--data-dir", &dir], None)?;
        let report = json(&verified)?;
        assert_eq!(verified.status.code(), Some(0), "running {running}: {report}");
        let lanes = report["lanes"].as_array().context("lanes")?;
        let streams = lanes.iter().flat_map(|lane| lane["streams"].as_array()).flatten();
        let never = streams.filter(|stream| stream["topic"] == "never").count();
        assert_eq!(never, 2, "running {running}: empty partitions are listed");
        for (topic, expected) in topics.iter().zip(&consumed) {
            let arguments = ["export", "--topic", topic, "--data-dir", &dir, "--format", "jsonl"];
            let exported = run(&arguments, None)?;
            let told = String::from_utf8_lossy(&exported.stderr).into_owned();
            assert_eq!(exported.status.code(), Some(0), "{topic}, running {running}: {told}");
            let found = lines(&exported.stdout);
            assert_same(&format!("{topic}, running {running}"), &found, expected);
        }
    }
    Ok(())
}

/// What rules of a lane thinned or dropped is named, rule by rule, adds up, and is no damage.
#[test]
fn what_rules_left_out_is_told_and_is_no_damage() -> Result<()> {
    let lane = "[lane.normal]\nbudget = \"8MiB\"\nsegment = \"1MiB\"\n\
                when_full = \"drop-oldest\"\ncompression = \"none\"\n";
    let unsent = "drop_unsent = true\n[uplink]\nbootstrap = [\"127.0.0.1:9\"]\n";
    for (more, rule) in [
        ("decay = \"keep-every:10\"\n", "thinned to every 10th of a key"),
        ("decay = \"aggregate:3600s\"\n", "aggregated over 3600 s"),
        (unsent, "dropped oldest"),
    ] {
        let mut gateway = Gateway::start_configured(&format!("{lane}{more}"))?;
        let broker = gateway.kafka_address().to_string();
        let create = ["topic", "create", "busy", "--partitions", "2", "--broker", &broker];
        ensure!(run(&create, None)?.status.success());
        let input = gateway.data_dir().with_file_name("input");
        let mut random = Random::seeded(3);
        for _ in 0..6 {
            let rows: Vec<String> = (0..15_000)
                .map(|row| {
                    let noise: String = (0..8).map(|_| format!("{:016x}", random.bits())).collect();
                    format!("m{}\tvalue {row} {noise}", random.below(50))
                })
                .collect();
            fs::write(&input, rows.join("\n"))?;
            let produce =
                ["produce", "busy", "--key-separator", "\t", "-z", "none", "--broker", &broker];
            let produced = run(&produce, Some(&input))?;
            ensure!(produced.status.success(), "{}", String::from_utf8_lossy(&produced.stderr));
        }
        let consumed =
            lines(&run(&["consume", "busy", "--json", "--broker", &broker], None)?.stdout);
        let dir = gateway.data_dir().to_str().context("a path of text")?.to_owned();
        for running in [true, false] {
            if !running {
                gateway.kill_now()?;
            }
            let verified = run(&["verify", "--json", "--data-dir", &dir], None)?;
            let report = json(&verified)?;
            assert_eq!(verified.status.code(), Some(0), "{rule}, running {running}: {report}");
            let lanes = report["lanes"].as_array().context("lanes")?;
            let gaps = lanes.iter().flat_map(|lane| lane["gaps"].as_array()).flatten();
            let mut policies = gaps.filter(|gap| gap["reason"] == rule).map(|gap| &gap["policy"]);
            assert_eq!(policies.next(), Some(&Value::Bool(true)), "{rule}: {report}");

            let export = ["export", "--topic", "busy", "--data-dir", &dir, "--format", "jsonl"];
            let exported = run(&export, None)?;
            let told = String::from_utf8_lossy(&exported.stderr).into_owned();
            assert_eq!(exported.status.code(), Some(0), "{rule}, running {running}: {told}");
            assert!(told.contains(&format!("left out by rule: {rule}")), "{told}");
            assert!(!told.contains("missing"), "{told}");
            assert_same(rule, &lines(&exported.stdout), &consumed);

            let out = gateway.data_dir().with_file_name("out");
            let out = out.to_str().context("a path of text")?;
            let summary = json(&run(&[&export[..], &["--json", "--out", out]].concat(), None)?)?;
            assert_eq!(summary["complete"], true, "{summary}");
            for part in summary["partitions"].as_array().context("partitions")? {
                let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or_default();
                let left_out = part["left_out"].as_array().context("left out")?;
                // What was dropped lies before the first offset that is looked for, but for the end of it.
                let inside = |left: &Value| {
                    if left["rule"] != "dropped oldest" {
                        return number(left, "records");
                    }
                    let from = number(left, "from").max(number(part, "from"));
                    number(left, "to").saturating_sub(from)
                };
                let left_out_records: u64 = left_out.iter().map(inside).sum();
                let range = number(part, "next") - number(part, "from");
                assert_eq!(number(part, "records") + left_out_records, range, "{summary}");
                let named = left_out.iter().find(|left_out| left_out["rule"] == rule);
                let named = named.context("the rule is named")?;
                assert!(number(named, "records") > 1_000, "{summary}");
            }
        }
    }
    Ok(())
}

#[test]
fn exported_batches_are_a_log_for_kafkas_own_tool() -> Result<()> {
    let mut filled = fill()?;
    filled.gateway.kill_now()?;
    let folder = tempfile::tempdir()?;
    let (dir, out) = (filled.gateway.data_dir(), folder.path().join("out"));
    let (dir, out_text) = (dir.to_str().context("text")?, out.to_str().context("text")?);
    let exported = run(
        &[
            "export",
            "--topic",
            "telemetry",
            "--format",
            "batches",
            "--data-dir",
            dir,
            "--out",
            out_text,
            "--json",
        ],
        None,
    )?;
    assert_eq!(exported.status.code(), Some(0), "{}", String::from_utf8_lossy(&exported.stderr));
    assert_eq!(json(&exported)?["records"], 16_000);
    if !gate::run_with(&[Peer::Kafka]) {
        return Ok(());
    }
    let mut records = 0;
    for partition in [0, 17, 63] {
        let file = out.join(format!("telemetry-{partition}/00000000000000000000.log"));
        let dump = kafka::dump_log(&file)?;
        let mine = filled
            .telemetry
            .iter()
            .filter(|line| line.contains(&format!("\"partition\":{partition},")));
        let dumped: Vec<&str> = dump.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(dumped.len(), mine.count(), "{:.2000}", dump);
        assert!(
            !dump.contains("isvalid: false") && dump.contains("isvalid: true"),
            "{:.2000}",
            dump
        );
        for (offset, line) in dumped.iter().enumerate() {
            assert!(line.contains(&format!("offset: {offset} ")), "{line}");
        }
        records += dumped.len();
    }
    assert!(records > 300);
    Ok(())
}

#[test]
fn damage_is_found_named_settled_and_nothing_else_is_lost() -> Result<()> {
    let mut filled = fill()?;
    filled.gateway.kill_now()?;
    let data = filled.gateway.data_dir();
    let dir = data.to_str().context("a path of text")?;
    let slot = data.join("lanes/normal/slot-0000.seg");
    let mut bytes = fs::read(&slot)?;
    let (at, hit) = frame(&bytes, 1).context("a large frame")?;
    bytes[hit] ^= 0x20;
    fs::write(&slot, &bytes)?;

    let verified = run(&["verify", "--json", "--data-dir", dir], None)?;
    let report = json(&verified)?;
    assert_eq!(verified.status.code(), Some(1), "{report}");
    let lane = report["lanes"]
        .as_array()
        .and_then(|lanes| lanes.iter().find(|lane| lane["lane"] == "normal"));
    let damage = lane.context("the lane")?["damage"].as_array().context("its damage")?.clone();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0]["file"], "lanes/normal/slot-0000.seg");
    assert_eq!(damage[0]["byte"], at as u64);
    assert_eq!(damage[0]["kind"], "body");
    let lost: BTreeSet<(u64, u64)> = damage[0]["lost"]
        .as_array()
        .context("what is lost")?
        .iter()
        .flat_map(|lost| {
            let number = |name: &str| lost[name].as_u64().unwrap_or_default();
            let partition = number("partition");
            (number("from")..number("to")).map(move |offset| (partition, offset))
        })
        .collect();
    assert!(!lost.is_empty());
    let left: Vec<String> = filled
        .telemetry
        .iter()
        .filter(|line| {
            let record: Value = serde_json::from_str(line).unwrap_or_default();
            let number = |name: &str| record[name].as_u64().unwrap_or_default();
            !lost.contains(&(number("partition"), number("offset")))
        })
        .cloned()
        .collect();
    assert_eq!(left.len() + lost.len(), filled.telemetry.len());
    let exported =
        run(&["export", "--topic", "telemetry", "--format", "jsonl", "--data-dir", dir], None)?;
    assert_eq!(exported.status.code(), Some(1));
    assert_same("what is readable", &lines(&exported.stdout), &left);
    assert!(String::from_utf8_lossy(&exported.stderr).contains("are missing"));

    let before = state(&data)?;
    let planned = run(&["repair", "--dry-run", "--data-dir", dir], None)?;
    assert_eq!(planned.status.code(), Some(1));
    let changed = |(path, ..): &&(PathBuf, Vec<u8>, SystemTime)| !path.ends_with("lock");
    let without_lock = |state: &Vec<_>| state.iter().filter(changed).cloned().collect::<Vec<_>>();
    assert!(without_lock(&before) == without_lock(&state(&data)?), "a dry run changes nothing");

    let repaired = run(&["repair", "--json", "--data-dir", dir], None)?;
    let outcome = json(&repaired)?;
    assert_eq!(repaired.status.code(), Some(0), "{outcome}");
    assert_eq!(
        fs::read(data.join("repair-1/lanes/normal/slot-0000.seg"))?,
        bytes,
        "a copy is kept"
    );
    let verified = run(&["verify", "--data-dir", dir], None)?;
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    assert!(
        String::from_utf8_lossy(&verified.stdout).contains("known: lanes/normal/slot-0000.seg")
    );
    let again = run(&["repair", "--data-dir", dir], None)?;
    assert_eq!(again.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing to repair"));
    let exported =
        run(&["export", "--topic", "telemetry", "--format", "jsonl", "--data-dir", dir], None)?;
    assert_same("after the repair", &lines(&exported.stdout), &left);
    assert!(String::from_utf8_lossy(&exported.stderr).contains(": rot"));

    // The gateway goes on, and refuses to be repaired meanwhile.
    filled.gateway.start_again()?;
    assert_eq!(run(&["repair", "--data-dir", dir], None)?.status.code(), Some(2));
    let broker = filled.gateway.kafka_address().to_string();
    let consumed = run(&["consume", "telemetry", "--json", "--broker", &broker], None)?;
    assert_same("what is served", &lines(&consumed.stdout), &left);
    Ok(())
}

/// Copies the files of a folder; sockets are none.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    bytes[at] ^= 0x10;
    Ok(fs::write(path, bytes)?)
}

type Change = Box<dyn Fn(&Path) -> Result<()>>;

#[test]
fn every_kind_of_damage_is_found_and_sound_after_a_repair() -> Result<()> {
    let mut filled = fill()?;
    filled.gateway.kill_now()?;
    let data = filled.gateway.data_dir();
    let slot = |number: u32| format!("lanes/normal/slot-{number:04}.seg");
    let original = fs::read(data.join(slot(0)))?;
    assert!(fs::read(data.join(slot(1)))?.starts_with(b"EDGESEG1"), "two segments at least");
    let partitions = |dir: &str| -> Result<usize> {
        let status = json(&run(&["status", "--json", "--data-dir", dir], None)?)?;
        Ok(status["streams"].as_array().map_or(0, Vec::len))
    };
    let whole = partitions(data.to_str().context("text")?)?;
    // What is done, what verify calls it, and whether records are lost.
    let cases: Vec<(&str, bool, Change)> = vec![
        ("segment-header", false, Box::new(move |dir| flip(&dir.join(slot(0)), 20))),
        ("missing-segment", true, Box::new(move |dir| Ok(fs::remove_file(dir.join(slot(0)))?))),
        (
            "double-segment",
            false,
            Box::new(move |dir| {
                fs::copy(dir.join(slot(1)), dir.join(slot(50))).map(drop).map_err(Into::into)
            }),
        ),
        (
            "segment-header",
            false,
            Box::new(move |dir| Ok(fs::write(dir.join(slot(51)), vec![0x55; 1 << 20])?)),
        ),
        (
            "length",
            true,
            Box::new(move |dir| {
                Ok(fs::OpenOptions::new()
                    .write(true)
                    .open(dir.join(slot(0)))?
                    .set_len(512 << 10)?)
            }),
        ),
        // The checkpoint at the head of the second segment.
        ("body", false, Box::new(move |dir| flip(&dir.join(slot(1)), 512 + 1_000))),
        (
            "body",
            false,
            Box::new(|dir| {
                let path = dir.join("lanes/system/slot-0000.seg");
                let bytes = fs::read(&path)?;
                let at = (512..bytes.len())
                    .step_by(512)
                    .find(|at| bytes[*at..].starts_with(b"EDGF") && bytes[at + 9] == 1);
                flip(&path, at.context("a group of events")? + 140)
            }),
        ),
    ];
    for (index, (kind, loses, change)) in cases.iter().enumerate() {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("data");
        copy(&data, &dir)?;
        change(&dir)?;
        let text = dir.to_str().context("text")?;
        let verified = run(&["verify", "--json", "--data-dir", text], None)?;
        let report = json(&verified)?;
        assert_eq!(verified.status.code(), Some(1), "case {index}: {report}");
        let lanes = report["lanes"].as_array().context("lanes")?;
        let damage: Vec<&Value> =
            lanes.iter().flat_map(|lane| lane["damage"].as_array().into_iter().flatten()).collect();
        assert!(damage.iter().any(|damage| damage["kind"] == *kind), "case {index}: {damage:?}");
        let lost = damage
            .iter()
            .any(|damage| damage["lost"].as_array().is_some_and(|lost| !lost.is_empty()));
        assert_eq!(lost, *loses, "case {index}: {damage:?}");
        let export = || {
            run(&["export", "--topic", "telemetry", "--format", "jsonl", "--data-dir", text], None)
        };
        let readable = lines(&export()?.stdout);
        assert_eq!(readable == filled.telemetry, !loses, "case {index}");

        let repaired = run(&["repair", "--json", "--data-dir", text], None)?;
        let outcome = json(&repaired)?;
        assert_eq!(repaired.status.code(), Some(0), "case {index}: {outcome}");
        let verified = run(&["verify", "--json", "--data-dir", text], None)?;
        assert_eq!(verified.status.code(), Some(0), "case {index}: {}", json(&verified)?);
        let after = export()?;
        assert_same(&format!("case {index}"), &lines(&after.stdout), &readable);
        // What stood before the oldest segment that is left is below the log start now.
        let told = *loses && *kind != "missing-segment";
        assert_eq!(after.status.code(), Some(i32::from(told)), "case {index}");
        if index == 0 {
            assert!(fs::read(dir.join(slot(0)))? == original, "the header is as it was");
        }
        if kind == &"body" {
            // Nothing of the catalogue is gone.
            assert_eq!(partitions(text)?, whole, "case {index}");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_data_directory_is_exit_code_2() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().to_str().context("text")?;
    fs::create_dir_all(folder.path().join("lanes/normal"))?;
    let noise = folder.path().join("noise");
    fs::write(&noise, [7; 10_000])?;
    let noise = noise.to_str().context("text")?;
    for arguments in [
        &["verify", "--data-dir", "/no/such/directory"][..],
        &["verify", "--segment", noise],
        &["verify", "--segment", "/no/such/file"],
        &["export", "--topic", "t", "--format", "csv", "--data-dir", dir],
        &["repair", "--data-dir", "/no/such/directory"],
    ] {
        let output = run(arguments, None)?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    }
    // A segment of a newer version: refused, unchanged.
    let mut header = [0u8; 16 << 10];
    header[..8].copy_from_slice(b"EDGESEG1");
    header[12] = 2;
    let crc = crc32c(&header[12..128]);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
    fs::write(folder.path().join("lanes/normal/slot-0000.seg"), header)?;
    let before = state(folder.path())?;
    for arguments in [
        &["verify", "--data-dir", dir][..],
        &["export", "--topic", "t", "--format", "csv", "--data-dir", dir],
        &["run", "--data-dir", dir, "--mqtt", "127.0.0.1:0", "--kafka", "127.0.0.1:0"],
    ] {
        let output = run(arguments, None)?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains("version 2"), "{message}");
    }
    let segment = |state: Vec<(PathBuf, Vec<u8>, SystemTime)>| {
        state.into_iter().find(|(path, ..)| path.extension().is_some_and(|e| e == "seg"))
    };
    assert!(segment(before) == segment(state(folder.path())?), "nothing of it is changed");
    Ok(())
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

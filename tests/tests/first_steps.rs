//! What somebody meets who learns the program: mistakes are answered at once, by name, with the remedy and the exit
//! code that the help promises.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;
use system_tests::gateway::{Gateway, run_cli};

const WITHIN: Duration = Duration::from_secs(60);
/// Less than any timeout of a request.
const AT_ONCE: Duration = Duration::from_secs(15);
const CONFIG: &str = "\
[lane.normal]
budget = \"32MiB\"
retention = \"36h\"
retention_bytes = \"2MiB\"

[[topic]]
name = \"t\"
partitions = 2
";

fn run(arguments: &[&str]) -> Result<Output> {
    run_cli(arguments, WITHIN)
}

/// Exit code, standard output, standard error.
fn said(arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = run(arguments)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// It ends with this code and says these words on standard error.
fn complains(arguments: &[&str], code: i32, words: &[&str]) -> Result<()> {
    let (ended, _, stderr) = said(arguments)?;
    assert_eq!(ended, Some(code), "{arguments:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: no {word:?} in {stderr}");
    }
    Ok(())
}

#[test]
fn topics_and_partitions_that_are_not_there_are_named_at_once() -> Result<()> {
    let gateway = Gateway::start_configured(CONFIG)?;
    let broker = gateway.kafka_address().to_string();
    let at = ["--broker", broker.as_str()];
    let with = |words: &[&'static str]| [words, &at].concat();
    let begun = Instant::now();
    for command in [
        &["topic", "trim", "t", "--partition", "9", "--before", "1"][..],
        &["topic", "trim", "t", "--partition", "9", "--all"],
        &["produce", "t", "x", "--partition", "9"],
        &["consume", "t", "--partition", "9"],
    ] {
        complains(&with(command), 2, &["topic t has no partition 9; it has 2, 0 to 1"])?;
    }
    for command in [
        &["topic", "trim", "u", "--all"][..],
        &["topic", "alter", "u", "--retention", "1d"],
        &["topic", "describe", "u"],
        &["topic", "delete", "u"],
        &["consume", "u"],
    ] {
        complains(&with(command), 1, &["u"])?;
    }
    complains(
        &with(&["topic", "alter", "t", "--set", "retention=1"]),
        1,
        &["topic t: ", "'retention'", "retention.ms", "cleanup.policy"],
    )?;
    complains(
        &with(&["topic", "alter", "t", "--set", "retention.ms=x"]),
        1,
        &["topic t: ", "retention.ms"],
    )?;
    assert!(begun.elapsed() < 4 * AT_ONCE, "one of them waited for a timeout");

    // A topic that a Kafka client makes keeps what its lane says.
    for name in ["made", "said"] {
        let mut arguments = with(&["topic", "create"]);
        arguments.push(name);
        if name == "said" {
            arguments.extend(["--retention", "1h"]);
        }
        assert_eq!(said(&arguments)?.0, Some(0));
        let mut arguments = with(&["topic", "describe", "--json"]);
        arguments.push(name);
        let described: Value = serde_json::from_str(&said(&arguments)?.1)?;
        let setting = |key: &str| {
            let settings = described["settings"].as_array().into_iter().flatten();
            let mut found = settings.filter(|setting| setting["name"] == key);
            found.next().map(|setting| setting["value"].clone())
        };
        let ms = if name == "said" { "3600000" } else { "129600000" };
        assert_eq!(setting("retention.ms"), Some(ms.into()));
        assert_eq!(setting("retention.bytes"), Some("2097152".into()));
    }
    let lane = gateway.status()?["lanes"]["normal"].clone();
    for counter in [
        "copied_records",
        "copied_bytes",
        "compacted_records",
        "thinned_records",
        "segments_recycled",
    ] {
        assert_eq!(lane[counter], 0, "{counter}");
    }
    Ok(())
}

#[test]
fn a_range_that_is_not_there_is_told() -> Result<()> {
    let mut gateway = Gateway::start_configured(CONFIG)?;
    let broker = gateway.kafka_address().to_string();
    let produced = ["produce", "t", "one", "two", "three", "--partition", "0", "--broker", &broker];
    assert_eq!(said(&produced)?.0, Some(0));
    gateway.terminate()?;
    let data_dir = gateway.data_dir();
    let dir = data_dir.to_str().context("a path of text")?;
    let export =
        ["export", "--data-dir", dir, "--topic", "t", "--format", "jsonl", "--partition", "0"];
    let with = |words: &[&'static str]| [&export[..], words].concat();
    complains(&with(&["--from", "3", "--to", "1"]), 2, &["--from is behind --to"])?;
    complains(&with(&["--since", "1h", "--until", "2h"]), 2, &["--since is behind --until"])?;
    for words in [&["--from", "7"][..], &["--from", "3"], &["--from", "7", "--to", "9"]] {
        complains(
            &with(words),
            0,
            &["t partition 0: nothing of it is there: it has offsets 0 to 2"],
        )?;
    }
    complains(&with(&["--since", "2100-01-01T00:00:00Z"]), 0, &["no record of that time"])?;
    let (code, stdout, stderr) = said(&with(&["--from", "1"]))?;
    assert_eq!((code, stdout.lines().count(), stderr.as_str()), (Some(0), 2, ""));
    Ok(())
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("c.toml");
    fs::write(
        &config,
        "gatway = \"x\"\n[mqtt]\nlisten = \"here\"\n[lane.normal]\nwhen_full = \"drop\"\n[flash]\nreserve = \"1KiB\"\n",
    )?;
    let config = config.to_str().context("a path of text")?;
    for command in [&["config", "check"][..], &["config", "show"], &["run"]] {
        let (code, stdout, stderr) = said(&[command, &["--config", config]].concat())?;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        let told: Vec<&str> = stderr.lines().collect();
        assert_eq!(told.len(), 4, "{stderr}");
        for (line, place) in told.iter().zip([
            "c.toml:1: gatway",
            "c.toml:3: mqtt.listen",
            "c.toml:5: lane.normal.when_full",
            "c.toml:7: flash.reserve",
        ]) {
            assert!(line.starts_with("edge-broker: ") && line.contains(place), "{line}");
        }
    }
    Ok(())
}

#[test]
fn users_go_where_a_gateway_is_and_who_shuts_everybody_out_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("dta");
    let missing = missing.to_str().context("a path of text")?;
    for command in [
        &["user", "add", "m7", "--generate"][..],
        &["user", "list"],
        &["acl", "add", "m7", "allow", "publish", "a/#"],
        &["acl", "list"],
        &["acl", "test", "m7", "publish", "a"],
    ] {
        complains(
            &[command, &["--data-dir", missing]].concat(),
            2,
            &["dta: there is no data directory"],
        )?;
    }
    assert!(!folder.path().join("dta").exists());
    let dir = folder.path().join("data");
    fs::create_dir(&dir)?;
    let dir = dir.to_str().context("a path of text")?;
    let at = ["--data-dir", dir];
    let rule = ["acl", "add", "m7", "allow", "publish", "plant/#"];
    let nobody = "nobody may publish or subscribe";
    complains(&[&rule[..], &at].concat(), 0, &["there is no user", nobody])?;
    complains(&[&["config", "check"], &at[..]].concat(), 0, &["warning: ", "auth.toml", nobody])?;
    let added = said(&[&["user", "add", "m7", "--generate"], &at[..]].concat())?;
    assert!(added.0 == Some(0) && !added.2.contains(nobody), "{added:?}");
    let (_, _, stderr) = said(&[&["config", "check"], &at[..]].concat())?;
    assert_eq!(stderr, "");
    Ok(())
}

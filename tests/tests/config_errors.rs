//! A mistake in the config or on the machine: one line that names key, line and remedy; exit 2.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::Result;
use system_tests::gateway::{Gateway, run_cli};
use system_tests::ports::ReservedPort;

const SOON: Duration = Duration::from_secs(30);

/// Runs with these arguments; the one line that it says before it exits with 2.
fn complaint(arguments: &[&str]) -> Result<String> {
    let output = run_cli(arguments, SOON)?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2), "{arguments:?} said {stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "one line, not:\n{stderr}");
    Ok(stderr)
}

/// Runs and checks a config file of this text; `run` and `config check` have to say the same.
fn complaint_about(text: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("edge-broker.toml");
    fs::write(&config, text)?;
    let config = config.display().to_string();
    let data = folder.path().join("data").display().to_string();
    let run = complaint(&["run", "--config", &config, "--data-dir", &data])?;
    let check = complaint(&["config", "check", "--config", &config])?;
    assert_eq!(run, check);
    Ok(run)
}

#[test]
fn each_mistake_is_told_with_line_and_key() -> Result<()> {
    // Text, the line that is wrong, and words that have to be in the complaint.
    let mistakes: &[(&str, usize, &[&str])] = &[
        ("gatway = \"x\"\n", 1, &["gatway", "gateway"]),
        ("[mqtt]\nlisten = 1883\n", 2, &["listen"]),
        ("[mqtt]\nlisten = \"localhost\"\n", 2, &["mqtt.listen", "localhost"]),
        ("[mqtt]\n\nlisten = \"0.0.0.0:1883\"\n", 3, &["mqtt.listen", "insecure_remote"]),
        ("[lane.normal]\nbudget = \"512XB\"\n", 2, &["lane.normal.budget", "512XB", "MiB"]),
        ("[lane.normal]\nwhen_full = \"explode\"\n", 2, &["when_full", "drop-oldest"]),
        ("[lane.normal]\ndurability = \"maybe\"\n", 2, &["durability", "sync"]),
        ("[lane.normal]\ncompression = \"zstd:99\"\n", 2, &["compression", "zstd"]),
        ("[[route]]\nfilter = \"a/#/b\"\ntopic = \"t\"\n", 2, &["filter", "a/#/b"]),
        ("[[route]]\nfilter = \"a/b\"\ntopic = \"no spaces\"\n", 3, &["topic", "no spaces"]),
        ("[[route]]\nfilter = \"a/#\"\ntopic = \"t\"\nkey = \"{3}\"\n", 4, &["key", "{3}"]),
        ("[[route]]\nfilter = \"a/b\"\ntopic = \"t\"\npartitions = 0\n", 4, &["partitions"]),
        (
            "[[route]]\nfilter = \"a/b\"\ntopic = \"t\"\nlane = \"nowhere\"\n",
            4,
            &["lane", "nowhere"],
        ),
        ("[uplink]\nbootstrap = \"kafka:9092\"\n", 2, &["bootstrap"]),
        ("gateway = \"x\n", 1, &[]),
        ("board = \"commodore-64\"\n", 1, &["board", "commodore-64"]),
    ];
    for (text, line, words) in mistakes {
        let complaint = complaint_about(text)?;
        let place = format!("edge-broker.toml:{line}:");
        assert!(complaint.contains(&place), "no {place} in {complaint}");
        for word in *words {
            assert!(complaint.contains(word), "no {word:?} in {complaint}");
        }
    }
    Ok(())
}

#[test]
fn a_config_file_that_is_not_there_is_told_by_its_path() -> Result<()> {
    let told = complaint(&["run", "--config", "/nowhere/edge-broker.toml"])?;
    assert!(told.contains("/nowhere/edge-broker.toml"), "{told}");
    Ok(())
}

#[test]
fn a_port_in_use_is_told_with_its_key() -> Result<()> {
    let (taken, free) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
    let _holder = TcpListener::bind(taken.address())?;
    let (taken, free) = (taken.address().to_string(), free.address().to_string());
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    for (mqtt, kafka, key) in [(&taken, &free, "mqtt"), (&free, &taken, "kafka")] {
        let told = complaint(&["run", "--data-dir", &data, "--mqtt", mqtt, "--kafka", kafka])?;
        assert!(told.contains(&taken) && told.contains(key), "{told}");
    }
    Ok(())
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() -> Result<()> {
    let mut first = Gateway::start()?;
    let data = first.data_dir().display().to_string();
    let (mqtt, kafka) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
    let (mqtt, kafka) = (mqtt.address().to_string(), kafka.address().to_string());
    let told = complaint(&["run", "--data-dir", &data, "--mqtt", &mqtt, "--kafka", &kafka])?;
    assert!(told.contains(&data), "{told}");
    assert!(first.server()?.exited()?.is_none());
    first.status()?;
    Ok(())
}

#[test]
fn an_unusable_data_directory_is_told_by_its_path() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a-file");
    fs::write(&file, "not a directory")?;
    let (mqtt, kafka) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
    let (mqtt, kafka) = (mqtt.address().to_string(), kafka.address().to_string());
    // A file in the way, and a place where nobody may write, root neither.
    for data in [file.display().to_string(), "/proc/edge-broker-data".to_owned()] {
        let told = complaint(&["run", "--data-dir", &data, "--mqtt", &mqtt, "--kafka", &kafka])?;
        assert!(told.contains(&data), "{told}");
    }
    Ok(())
}

#[test]
fn wrong_arguments_exit_2() -> Result<()> {
    for arguments in [&["run", "--no-such-flag"][..], &["no-such-command"]] {
        let output = run_cli(arguments, SOON)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    Ok(())
}

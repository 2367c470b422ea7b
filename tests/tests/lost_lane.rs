//! What a user meets when a lane's directory is gone, when the card can only be read, and when a name on the command
//! line is not what it should be.

use std::fs;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use system_tests::gateway::{self, Gateway};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};

const WITHIN: Duration = Duration::from_secs(60);

fn run(arguments: &[&str]) -> Result<Output> {
    gateway::run_cli(arguments, WITHIN)
}

/// Standard output and error, and the exit code.
fn told(output: &Output) -> (String, Option<i32>) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.code())
}

fn filled() -> Result<Gateway> {
    let mut gateway = Gateway::start()?;
    let mut client =
        MqttClient::connect(gateway.mqtt_address(), &ConnectOptions::new(Version::V5, "sensor"))?;
    for number in 0..20 {
        client.publish_and_wait("plant/raw", format!("value {number}").as_bytes())?;
    }
    client.disconnect()?;
    gateway.terminate()?;
    Ok(gateway)
}

#[test]
fn a_lane_that_is_gone_is_named_by_verify_log_and_status() -> Result<()> {
    for lane in ["normal", "system"] {
        let mut gateway = filled()?;
        let data = gateway.data_dir();
        let dir = data.to_str().context("text")?;
        assert_eq!(run(&["verify", "--data-dir", dir])?.status.code(), Some(0));
        fs::remove_dir_all(data.join("lanes").join(lane))?;
        let (text, code) = told(&run(&["verify", "--data-dir", dir])?);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&format!("lanes/{lane}")) && text.contains("put the directory back"));
        assert!(text.contains("mqtt"), "it names the topic: {text}");
        let (text, code) = told(&run(&["repair", "--data-dir", dir])?);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("nothing that a repair can do"), "{text}");

        gateway.start_again()?;
        let log = gateway.log_tail();
        assert!(log.contains(&format!("the files of lane {lane} are gone")), "{log}");
        let status = gateway.status()?;
        assert!(status["lanes"][lane]["lost"].is_string(), "{status}");
        let left = if lane == "system" { 20 } else { 0 };
        assert_eq!(gateway.durable_records("mqtt")?, left);
        gateway.terminate()?;
        let (text, code) = told(&run(&["verify", "--data-dir", dir])?);
        assert_eq!(code, Some(0), "{text}");
    }
    Ok(())
}

#[test]
fn a_dry_run_of_repair_writes_nothing_and_refuses_where_a_gateway_runs() -> Result<()> {
    let mut gateway = filled()?;
    let data = gateway.data_dir();
    let dir = data.to_str().context("text")?;
    let lock = data.join("lock");
    let before = (fs::read(&lock)?, fs::metadata(&lock)?.modified()?);
    let (text, code) = told(&run(&["repair", "--dry-run", "--data-dir", dir])?);
    assert_eq!((code, text.contains("nothing to repair")), (Some(0), true), "{text}");
    assert!(before == (fs::read(&lock)?, fs::metadata(&lock)?.modified()?));
    // A card without the file gets none.
    fs::remove_file(&lock)?;
    assert_eq!(run(&["repair", "--dry-run", "--data-dir", dir])?.status.code(), Some(0));
    assert!(!lock.exists());

    gateway.start_again()?;
    let (text, code) = told(&run(&["repair", "--dry-run", "--data-dir", dir])?);
    assert_eq!((code, text.contains("a gateway runs here (process ")), (Some(2), true), "{text}");
    gateway.terminate()?;
    Ok(())
}

#[test]
fn names_on_the_command_line_of_export_and_verify_are_what_they_say() -> Result<()> {
    let gateway = filled()?;
    let data = gateway.data_dir();
    let dir = data.to_str().context("text")?;
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("there"))?;
    let export = |format: &str, out: &str| {
        let out = folder.path().join(out);
        let out = out.to_str().context("text")?;
        let arguments =
            ["export", "--topic", "mqtt", "-p", "0", "--format", format, "--data-dir", dir];
        Ok::<_, anyhow::Error>(told(&run(&[&arguments[..], &["--out", out]].concat())?))
    };
    for (out, file) in [
        ("new/", "new/mqtt-0/00000000000000000000.log"),
        ("there", "there/mqtt-0/00000000000000000000.log"),
        ("plain.log", "plain.log"),
    ] {
        let (text, code) = export("batches", out)?;
        assert_eq!(code, Some(0), "{out}: {text}");
        assert!(folder.path().join(file).is_file(), "{out}");
    }
    for format in ["batches", "jsonl"] {
        let (text, code) = export(format, "missing/file")?;
        assert_eq!((code, text.contains("there is no directory")), (Some(2), true), "{text}");
        assert!(!folder.path().join("missing").exists());
    }

    // Of a name without a folder as well.
    fs::write(folder.path().join("show.toml"), "x = 1\n")?;
    for (name, words) in [("show.toml", "show.toml is not a segment"), ("there", "a directory")] {
        let mut command = gateway::command()?;
        command.current_dir(folder.path()).args(["verify", "--segment", name]);
        let (text, code) = told(&command.output()?);
        assert_eq!((code, text.contains(words)), (Some(2), true), "{text}");
        assert!(!text.contains(": : "), "{text}");
    }
    Ok(())
}

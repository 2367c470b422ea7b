//! A full disk: metadata can still be changed, records wait, and flow again by themselves.
//!
//! On an ext4 file system of its own in a file of 96 MiB. That takes root and a loop device; where there is none the
//! test is left out, with the reason.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use system_tests::gate;
use system_tests::gateway::{Gateway, GatewayOptions, ask_kafka, run_cli};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::random::Random;
use system_tests::wait;
use tempfile::TempDir;

const DISK_BYTES: u64 = 96 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
const PUBACK: u8 = 4;

const CONFIG: &str = r#"
[flash]
reserve = "4MiB"

[lane.system]
budget = "4MiB"
segment = "1MiB"

[lane.normal]
budget = "64MiB"
segment = "2MiB"
when_full = "refuse"
compression = "none"
"#;

/// A mounted file system; unmounted when dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `Err` is the reason why there can be none here.
    fn mount() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount".to_owned());
        }
        let missing = ["mkfs.ext4", "mount", "umount"].into_iter().find(|program| {
            gate::find_program(program).is_none() && !Path::new("/sbin").join(program).is_file()
        });
        if let Some(program) = missing {
            return Err(format!("no {program}"));
        }
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        made.map_err(|error| error.to_string())?;
        let disk = Self { folder };
        std::fs::create_dir(disk.path()).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])?;
        run("mount", &["-o", "loop"], &[&image, &disk.path()])?;
        Ok(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Takes every block there is.
    fn fill(&self) -> Result<Filler> {
        let path = self.path().join("filler");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut at = 0;
        for step in [1 << 20, 4 << 10] {
            let zeros = vec![1; step];
            loop {
                match file.write_all_at(&zeros, at) {
                    Ok(()) => at += step as u64,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        file.sync_all()?;
        Ok(Filler(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What still uses it ends with the test.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// What fills the disk; removed to make room.
struct Filler(PathBuf);

impl Filler {
    fn remove(self) -> Result<()> {
        Ok(std::fs::remove_file(self.0)?)
    }
}

fn run(program: &str, flags: &[&str], paths: &[&Path]) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(flags)
        .args(paths)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}", text.lines().next().unwrap_or("failed")))
}

/// Publishes until the lane takes no more; returns how many were acknowledged.
fn publish_until_full(gateway: &Gateway, client: &mut MqttClient) -> Result<u64> {
    let mut random = Random::seeded(5);
    let mut acknowledged = 0;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        client.publish("plant", &random.bytes(100_000), 1)?;
        loop {
            match client.receive(Duration::from_millis(200))? {
                Some(answer) if answer.kind() == PUBACK => {
                    acknowledged += 1;
                    break;
                }
                Some(_) => {}
                None if lane(&gateway.status()?)["state"] == "full" => return Ok(acknowledged),
                None => ensure!(started.elapsed() < PATIENCE, "{}", gateway.status()?["lanes"]),
            }
        }
    }
    bail!("the lane never filled up: {}", gateway.status()?["lanes"])
}

fn lane(status: &Value) -> &Value {
    &status["lanes"]["normal"]
}

fn until(gateway: &Gateway, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    wait::until(what, PATIENCE, || {
        let status = gateway.status()?;
        Ok(holds(&status).then_some(status))
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn request(key: i16, version: i16) -> Vec<u8> {
    let mut out = key.to_be_bytes().to_vec();
    out.extend(version.to_be_bytes());
    out.extend(7_i32.to_be_bytes());
    put_text(&mut out, "test");
    out
}

/// OffsetCommit version 2 for partition 0; the error code of the answer.
fn commit_offset(kafka: SocketAddr, topic: &str, offset: i64) -> Result<i16> {
    let mut out = request(8, 2);
    put_text(&mut out, "group");
    out.extend((-1_i32).to_be_bytes());
    put_text(&mut out, "");
    out.extend((-1_i64).to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    put_text(&mut out, topic);
    out.extend(1_i32.to_be_bytes());
    out.extend(0_i32.to_be_bytes());
    out.extend(offset.to_be_bytes());
    put_text(&mut out, "a note");
    let answer = ask_kafka(kafka, &out)?;
    let code = answer.last_chunk::<2>().context("an empty answer")?;
    Ok(i16::from_be_bytes(*code))
}

/// OffsetFetch version 1 for partition 0.
fn committed_offset(kafka: SocketAddr, topic: &str) -> Result<i64> {
    let mut out = request(9, 1);
    put_text(&mut out, "group");
    out.extend(1_i32.to_be_bytes());
    put_text(&mut out, topic);
    out.extend(1_i32.to_be_bytes());
    out.extend(0_i32.to_be_bytes());
    let answer = ask_kafka(kafka, &out)?;
    // Correlation id, one topic, its name, one partition, its index.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    let offset = answer.get(at..).and_then(|rest| rest.first_chunk::<8>());
    Ok(i64::from_be_bytes(*offset.context("a short answer")?))
}

fn create_topic(gateway: &Gateway, name: &str) -> Result<()> {
    let broker = gateway.kafka_address().to_string();
    let output = run_cli(&["topic", "create", name, "--broker", &broker], PATIENCE)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn metadata_works_on_a_full_disk_and_records_flow_again_by_themselves() -> Result<()> {
    let disk = match Disk::mount() {
        Ok(disk) => disk,
        Err(why) => {
            let line = format!("left out: a full disk on a file system of its own: {why}\n");
            std::io::stderr().write_all(line.as_bytes())?;
            return Ok(());
        }
    };
    let options = GatewayOptions {
        config: Some(CONFIG.to_owned()),
        base: Some(disk.path()),
        ..GatewayOptions::default()
    };
    let mut gateway = Gateway::start_with(options)?;
    let connect = ConnectOptions::new(Version::V311, "sensor");
    let mut client = MqttClient::connect(gateway.mqtt_address(), &connect)?;
    client.publish_and_wait("plant", b"before")?;
    until(&gateway, "the system lane has all its segments, and there is a reserve", |status| {
        status["lanes"]["system"]["used_bytes"] == 4 << 20 && status["disk"]["reserve_held"] == true
    })?;

    let filler = disk.fill()?;
    let mut acknowledged = 1 + publish_until_full(&gateway, &mut client)?;
    let status = gateway.status()?;
    let error = lane(&status)["error"].as_str().unwrap_or_default().to_owned();
    ensure!(error.starts_with("the disk is full: 0.0 MiB free, 6.0 MiB needed"), "{error:?}");
    ensure!(status["disk"]["level"] == "critical", "{}", status["disk"]);

    create_topic(&gateway, "during")?;
    for offset in 1..=300 {
        ensure!(commit_offset(gateway.kafka_address(), "during", offset)? == 0, "offset {offset}");
    }

    // A start with a disk that is full to the last block.
    drop(client);
    gateway.kill_now()?;
    gateway.start_again()?;
    ensure!(committed_offset(gateway.kafka_address(), "during")? == 300);
    ensure!(commit_offset(gateway.kafka_address(), "during", 301)? == 0);
    create_topic(&gateway, "after-restart")?;
    let mut client = MqttClient::connect(gateway.mqtt_address(), &connect)?;
    acknowledged += publish_until_full(&gateway, &mut client)?;

    filler.remove()?;
    let answer = client.receive(PATIENCE)?.context("the publish that waited is acknowledged")?;
    ensure!(answer.kind() == PUBACK, "{answer:?}");
    client.publish_and_wait("plant", b"after")?;
    let status = until(&gateway, "the lane is well and the reserve is there", |status| {
        lane(status)["state"] == "open" && status["disk"]["reserve_held"] == true
    })?;
    ensure!(lane(&status)["error"].is_null(), "{}", lane(&status));
    let durable = gateway.durable_records("mqtt")?;
    ensure!(durable >= acknowledged + 2, "{durable} of {acknowledged} and two");
    ensure!(gateway.terminate()?.success());
    Ok(())
}

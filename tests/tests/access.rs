//! Users and access rules with Mosquitto's clients: refused where nobody allowed it, in force while the gateway runs,
//! never open by mistake.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use system_tests::gate::{self, Peer};
use system_tests::gateway::{self, Gateway, GatewayOptions};
use system_tests::mqtt::{MqttClient, Version};
use system_tests::{process, wait};

const SOON: Duration = Duration::from_secs(20);

struct User<'a> {
    name: &'a str,
    password: &'a str,
}

/// Publishes with `mosquitto_pub`; whether it was let in, and what it says.
fn publish(at: SocketAddr, v5: bool, user: Option<&User<'_>>, topic: &str) -> Result<Output> {
    let version = if v5 { "mqttv5" } else { "mqttv311" };
    let mut client = process::command("mosquitto_pub");
    client.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "-V", version]);
    client.args(["-q", "1", "-t", topic, "-m", "x", "-i", "c1"]);
    if let Some(user) = user {
        client.args(["-u", user.name, "-P", user.password]);
    }
    wait::output_within(&mut client, SOON)
}

fn edge(arguments: &[&str], data_dir: &str, input: &str) -> Result<String> {
    let mut command = gateway::command()?;
    command.args(arguments).args(["--data-dir", data_dir]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start edge-broker")?;
    if let Some(mut stdin) = child.stdin.take() {
        std::io::Write::write_all(&mut stdin, input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {told}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn rules_are_kept_by_every_client_and_in_force_within_moments() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    let at = gateway.mqtt_address();
    let data_dir = gateway.data_dir();
    let dir = data_dir.to_str().context("a path in UTF-8")?;
    assert!(publish(at, false, None, "a")?.status.success(), "nobody is told apart yet");

    let secret = edge(&["user", "add", "m7", "--generate"], dir, "")?;
    edge(&["user", "add", "anna"], dir, "pass word\n")?;
    edge(&["acl", "add", "m7", "allow", "publish", "plant/%u/#"], dir, "")?;
    edge(&["acl", "add", "anna", "allow", "subscribe", "plant/#"], dir, "")?;
    edge(&["acl", "add", "anna", "deny", "subscribe", "plant/+/secret"], dir, "")?;
    let m7 = User { name: "m7", password: &secret };
    let anna = User { name: "anna", password: "pass word" };
    let closed = || Ok((!publish(at, false, None, "a")?.status.success()).then_some(()));
    wait::until("anonymous is shut out", SOON, closed)?;

    for v5 in [false, true] {
        assert!(publish(at, v5, Some(&m7), "plant/m7/temp")?.status.success());
        let wrong = User { name: "m7", password: "guess" };
        assert!(!publish(at, v5, Some(&wrong), "plant/m7/temp")?.status.success());
        let nobody = User { name: "nobody", password: "guess" };
        assert!(!publish(at, v5, Some(&nobody), "plant/m7/temp")?.status.success());
        let denied = publish(at, v5, Some(&m7), "plant/m8/temp")?;
        if v5 {
            let told = String::from_utf8_lossy(&denied.stderr).into_owned();
            assert!(told.contains("Not authorized"), "{told}");
        }
        assert!(v5 || !denied.status.success(), "3.1.1 is told by closing");
    }
    // 21 hashes of the same password, one computed: the rest is remembered.
    for _ in 0..20 {
        assert!(!publish(at, true, Some(&anna), "plant/m7/temp")?.stderr.is_empty());
    }

    let mut subscriber = process::command("mosquitto_sub");
    subscriber.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "-V", "mqttv5"]);
    subscriber.args(["-u", "anna", "-P", "pass word", "-q", "1", "-t", "plant/#", "-v"]);
    subscriber.args(["-C", "1", "-W", "20", "-d"]).stdout(Stdio::piped());
    let child = subscriber.spawn().context("cannot start mosquitto_sub")?;
    let delivered = || {
        publish(at, true, Some(&m7), "plant/m7/secret")?;
        publish(at, true, Some(&m7), "plant/m7/temp")?;
        let status = gateway.status()?;
        Ok((system_tests::gateway::sum_over_streams(&status, "mqtt", "durable_end")? > 6)
            .then_some(()))
    };
    wait::until("publishes are stored", SOON, delivered)?;
    let output = child.wait_with_output()?;
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(seen.contains("plant/m7/temp x"), "{seen}");
    assert!(!seen.contains("plant/m7/secret"), "a deny below an allowed filter holds: {seen}");

    edge(&["user", "remove", "m7"], dir, "")?;
    let gone =
        || Ok((!publish(at, true, Some(&m7), "plant/m7/temp")?.status.success()).then_some(()));
    wait::until("a removed user is shut out", SOON, gone)
}

#[test]
fn a_file_that_cannot_be_read_opens_nothing() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients]) {
        return Ok(());
    }
    let mut gateway = Gateway::start()?;
    let at = gateway.mqtt_address();
    let data_dir = gateway.data_dir();
    let dir = data_dir.to_str().context("a path in UTF-8")?;
    let secret = edge(&["user", "add", "m7", "--generate"], dir, "")?;
    let m7 = User { name: "m7", password: &secret };
    let closed = || Ok((!publish(at, false, None, "a")?.status.success()).then_some(()));
    wait::until("anonymous is shut out", SOON, closed)?;

    let file = data_dir.join("auth.toml");
    let whole = std::fs::read(&file)?;
    std::fs::write(&file, "version = 1\n[[user]]\nname = ")?;
    let told =
        || Ok(gateway.log_tail().contains("users and rules stay as they were").then_some(()));
    wait::until("the mistake is told", SOON, told)?;
    assert!(!publish(at, false, None, "a")?.status.success());
    std::fs::remove_file(&file)?;
    let told = || Ok(gateway.log_tail().contains("is gone").then_some(()));
    wait::until("the loss is told", SOON, told)?;
    assert!(!publish(at, false, None, "a")?.status.success());
    // A start must not let everybody in because of half a file either.
    std::fs::write(&file, "version = 1\n[[user]]\nname = ")?;
    gateway.terminate()?;
    assert!(gateway.start_again().is_err());
    std::fs::write(&file, whole)?;
    gateway.start_again()?;
    assert!(!publish(gateway.mqtt_address(), false, None, "a")?.status.success());
    let known = publish(gateway.mqtt_address(), true, Some(&m7), "a")?;
    assert!(
        String::from_utf8_lossy(&known.stderr).contains("Not authorized"),
        "known, without rules"
    );
    Ok(())
}

#[test]
fn a_quiet_connection_of_a_removed_user_is_ended() -> Result<()> {
    let gateway = Gateway::start()?;
    let data_dir = gateway.data_dir();
    let dir = data_dir.to_str().context("a path in UTF-8")?;
    edge(&["user", "add", "m7"], dir, "pw\n")?;
    let connect = |password: &[u8; 2]| {
        let mut client = MqttClient::open(gateway.mqtt_address(), Version::V311)?;
        client.send(b"\x10\x15\x00\x04MQTT\x04\xc2\x00\x00\x00\x01q\x00\x02m7\x00\x02")?;
        client.send(password)?;
        let connack = client.receive(SOON)?.context("no CONNACK")?;
        Ok::<_, anyhow::Error>((client, connack.reason()))
    };
    // Before the file is read, everybody on this machine is let in.
    let told_apart = || Ok((connect(b"no")?.1 == 4).then_some(()));
    wait::until("a wrong password is refused", SOON, told_apart)?;
    let (mut quiet, reason) = connect(b"pw")?;
    assert_eq!(reason, 0);
    edge(&["user", "remove", "m7"], dir, "")?;
    let said = quiet.receive_until_closed(SOON)?;
    assert!(said.is_empty(), "3.1.1 has no word for it: {said:?}");
    Ok(())
}

#[test]
fn others_are_not_let_in_before_there_are_users() -> Result<()> {
    let config = "[mqtt]\ninsecure_remote = true\n";
    let mut gateway = Gateway::prepare(GatewayOptions {
        config: Some(config.to_owned()),
        ..GatewayOptions::default()
    })?;
    gateway.start_again()?;
    gateway.terminate()?;
    let dir = gateway.data_dir();
    let dir = dir.to_str().context("a path in UTF-8")?;
    let file = std::env::temp_dir().join(format!("edge-access-{}.toml", std::process::id()));
    std::fs::write(&file, config)?;
    let file_text = file.to_str().context("a path in UTF-8")?;
    let arguments = ["run", "--mqtt", "0.0.0.0:0", "--config", file_text, "--data-dir", dir];
    let refused = gateway::run_cli(&arguments, SOON)?;
    std::fs::remove_file(&file)?;
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("edge-broker user add"), "{told}");
    Ok(())
}

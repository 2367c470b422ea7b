//! Who is connected, and who is sent away: `client list`, `client kick`, limits of one address's failures.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::gateway::{self, Gateway};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::wait;

const SOON: Duration = Duration::from_secs(20);

fn ask(gateway: &Gateway, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = gateway::command()?;
    command.args(arguments).arg("--data-dir").arg(gateway.data_dir());
    let output = wait::output_within(&mut command, SOON)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

#[test]
fn clients_are_listed_and_kicked_while_the_gateway_runs() -> Result<()> {
    let mut gateway = Gateway::start()?;
    let options = ConnectOptions::new(Version::V5, "panel 3");
    let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
    let (code, listed, _) = ask(&gateway, &["client", "list", "--json"])?;
    ensure!(code == Some(0));
    let listed: Value = serde_json::from_str(&listed)?;
    let found = listed.as_array().context("a list")?;
    let found: Vec<_> = found.iter().filter(|client| client["client"] == "panel 3").collect();
    assert_eq!(found.len(), 1, "{listed}");
    assert_eq!((&found[0]["transport"], &found[0]["user"]), (&"tcp".into(), &Value::Null));
    let (code, text, _) = ask(&gateway, &["client", "list"])?;
    assert!(code == Some(0) && text.contains("panel 3"), "{text}");

    let (code, kicked, _) = ask(&gateway, &["client", "kick", "panel 3", "--json"])?;
    assert_eq!((code, kicked.trim()), (Some(0), "{\"kicked\":1}"));
    let said = client.receive_until_closed(SOON)?;
    assert!(!said.is_empty(), "an MQTT 5 client is told");
    let (code, _, told) = ask(&gateway, &["client", "kick", "nobody"])?;
    assert!(code == Some(1) && told.contains("no client `nobody`"), "{told}");
    assert_eq!(gateway.status()?["mqtt"]["kicked"].as_u64(), Some(1));

    gateway.terminate()?;
    let (code, _, told) = ask(&gateway, &["client", "list"])?;
    assert!(code == Some(1) && told.contains("does not run"), "{told}");
    Ok(())
}

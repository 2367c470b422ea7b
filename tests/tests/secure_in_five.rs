//! "Secure in five commands" of the README does what it says.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use system_tests::gate::{self, Peer};
use system_tests::gateway;
use system_tests::ports::ReservedPort;
use system_tests::process::{self, Server};
use system_tests::wait;

const SOON: Duration = Duration::from_secs(60);

/// The first block of this kind behind the heading.
fn block<'a>(text: &'a str, heading: &str, kind: &str) -> Result<&'a str> {
    let rest = text.split_once(heading).context("the heading")?.1;
    let rest = rest.split_once(&format!("```{kind}\n")).context("the block")?.1;
    Ok(rest.split_once("```").context("its end")?.0)
}

#[test]
fn the_five_commands_of_the_readme_work_as_printed() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients, Peer::Openssl]) {
        return Ok(());
    }
    let readme = std::fs::read_to_string(gateway::workspace().join("README.md"))?;
    let heading = "## Secure in five commands";
    let (mqtt, tls, kafka) =
        (ReservedPort::reserve()?, ReservedPort::reserve()?, ReservedPort::reserve()?);
    // Only the ports are others: those of the README may be taken. And what keeps a port for us listens on it
    // at another address of this machine.
    let ours = |text: &str| {
        [("1883", &mqtt), ("8883", &tls), ("9092", &kafka)]
            .iter()
            .fold(text.replace("0.0.0.0", "127.0.0.1"), |text, (printed, port)| {
                text.replace(printed, &port.number().to_string())
            })
    };
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("data"))?;
    std::fs::write(folder.path().join("secure.toml"), ours(block(&readme, heading, "toml")?))?;
    let commands = ours(block(&readme, heading, "sh")?);
    let commands: Vec<&str> = commands.lines().collect();
    assert_eq!(commands.len(), 5, "five commands");
    let binary = gateway::binary()?;
    let path = format!(
        "{}:{}",
        binary.parent().context("a folder")?.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let shell = |command: &str| {
        let mut shell = process::command("sh");
        shell.args(["-c", command]).current_dir(folder.path()).env("PATH", &path);
        shell.stdin(Stdio::null());
        shell
    };
    let done = |command: &str| -> Result<()> {
        let output = wait::output_within(&mut shell(command), SOON)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && !told.contains("uthorized"), "{command}: {told}");
        Ok(())
    };
    for command in &commands[..3] {
        done(command)?;
    }
    let log = folder.path().join("log");
    let run = format!("exec {}", commands[3]);
    let mut server = Server::spawn("edge-broker", &mut shell(&run), &log)?;
    server.wait_until_ready(SOON, || std::net::TcpStream::connect(tls.address()).is_ok())?;
    done(commands[4])?;
    // What was not allowed is not let through.
    let other = commands[4].replace("plant/m7/temp", "plant/m8/temp");
    assert!(done(&format!("{other} -V mqttv5")).is_err());
    let wrong = commands[4].replace("$(cat m7.secret)", "guess");
    assert!(done(&wrong).is_err());
    let plain = commands[4].replace("--cafile gw.crt", "");
    assert!(done(&plain).is_err(), "nothing on that port without TLS");
    Ok(())
}

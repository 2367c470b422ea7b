//! Encrypted listeners with Mosquitto's clients: TLS, client certificates, replacement while connections go on.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use system_tests::certificates::{Authority, Certificate};
use system_tests::gate::{self, Peer};
use system_tests::gateway::{self, Gateway};
use system_tests::ports::ReservedPort;
use system_tests::{process, wait};

const SOON: Duration = Duration::from_secs(20);

/// Publishes over TLS, trusting `ca`, as who `certificate` says.
fn publish(
    at: SocketAddr,
    ca: &Path,
    certificate: Option<&Certificate>,
    topic: &str,
) -> Result<Output> {
    let mut client = process::command("mosquitto_pub");
    client.args(["-h", "localhost", "-p", &at.port().to_string(), "-V", "mqttv5"]);
    client.arg("--cafile").arg(ca).args(["-q", "1", "-t", topic, "-m", "x"]);
    if let Some(Certificate { cert, key }) = certificate {
        client.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    wait::output_within(&mut client, SOON)
}

fn edge(arguments: &[&str], data_dir: &Path) -> Result<()> {
    let mut command = gateway::command()?;
    command.args(arguments).arg("--data-dir").arg(data_dir);
    let output = wait::output_within(&mut command, SOON)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn certificates_prove_who_a_client_is() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients, Peer::Openssl]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (ca, other_ca) =
        (Authority::new(folder.path(), "ca")?, Authority::new(folder.path(), "other")?);
    let server = ca.sign("server", "DNS:localhost,IP:127.0.0.1")?;
    let client = ca.sign("client", "DNS:gw7.plant.example,URI:spiffe://plant/gw7")?;
    let stranger = other_ca.sign("stranger", "DNS:gw7.plant.example")?;
    let port = ReservedPort::reserve()?;
    let at = port.address();
    let gateway = Gateway::start_configured(&format!(
        "[mqtt]\ntls_listen = \"{at}\"\n[tls]\ncert = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
        server.cert,
        server.key,
        ca.cert()
    ))?;
    let dir = gateway.data_dir();
    let allowed = publish(at, &ca.cert(), None, "a")?;
    assert!(allowed.status.success(), "loopback may do everything, over TLS as well");
    let told =
        String::from_utf8_lossy(&publish(at, &ca.cert(), Some(&client), "a")?.stderr).into_owned();
    assert!(told.contains("Not authorized"), "who is known needs rules: {told}");

    edge(&["acl", "add", "cert:gw7.plant.example", "allow", "publish", "plant/gw7/#"], &dir)?;
    edge(&["acl", "add", "cert:spiffe://plant/gw7", "allow", "publish", "uri/#"], &dir)?;
    edge(&["acl", "add", "cert:plant.example", "allow", "publish", "parent/#"], &dir)?;
    edge(&["acl", "add", "cert:client", "allow", "publish", "subject/#"], &dir)?;
    let shut = || Ok((!publish(at, &ca.cert(), None, "a")?.stderr.is_empty()).then_some(()));
    wait::until("rules are in force", SOON, shut)?;
    let may = |topic: &str| -> Result<bool> {
        let output = publish(at, &ca.cert(), Some(&client), topic)?;
        Ok(output.status.success() && output.stderr.is_empty())
    };
    assert!(may("plant/gw7/t")? && may("uri/t")?);
    assert!(!may("plant/gw8/t")?, "another topic");
    assert!(!may("parent/t")?, "a part of a name is another name");
    assert!(!may("subject/t")?, "the subject's common name is no name");
    let refused = publish(at, &ca.cert(), Some(&stranger), "plant/gw7/t")?;
    assert!(!refused.status.success(), "the right name, signed by somebody else");
    let refused = publish(at, &other_ca.cert(), None, "a")?;
    assert!(!refused.status.success(), "a client that trusts others does not talk to us");
    // Plain MQTT on the TLS port ends there; the gateway goes on.
    let mut plain = process::command("mosquitto_pub");
    plain.args(["-h", "localhost", "-p", &at.port().to_string(), "-t", "a", "-m", "x"]);
    assert!(!wait::output_within(&mut plain, SOON)?.status.success());
    assert!(may("plant/gw7/t")?);
    Ok(())
}

#[test]
fn a_new_certificate_is_used_without_dropping_anybody_and_a_broken_one_is_not() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients, Peer::Openssl]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (old, new) = (Authority::new(folder.path(), "old")?, Authority::new(folder.path(), "new")?);
    let first = old.sign("server", "DNS:localhost")?;
    let second = new.sign("next", "DNS:localhost")?;
    let port = ReservedPort::reserve()?;
    let at = port.address();
    let gateway = Gateway::start_configured(&format!(
        "[mqtt]\ntls_listen = \"{at}\"\n[tls]\ncert = {:?}\nkey = {:?}\n",
        first.cert, first.key,
    ))?;
    let mut subscriber = process::command("mosquitto_sub");
    subscriber.args(["-h", "localhost", "-p", &at.port().to_string(), "--cafile"]).arg(old.cert());
    subscriber.args(["-t", "news", "-C", "2", "-W", "60", "-q", "1"]).stdout(Stdio::piped());
    let child = subscriber.spawn().context("cannot start mosquitto_sub")?;
    let heard = || {
        assert!(publish(at, &old.cert(), None, "news")?.status.success());
        Ok((gateway.status()?["mqtt"]["deliveries"].as_u64() > Some(0)).then_some(()))
    };
    wait::until("the subscriber hears something", SOON, heard)?;

    // The certificate comes before its key: they do not fit each other for a moment.
    std::fs::copy(&second.cert, &first.cert)?;
    let told = || Ok(gateway.log_tail().contains("the certificate stays as it was").then_some(()));
    wait::until("the mistake is told", SOON, told)?;
    assert!(publish(at, &old.cert(), None, "other")?.status.success(), "the old one is used on");
    std::fs::copy(&second.key, &first.key)?;
    let replaced = || Ok((publish(at, &new.cert(), None, "other")?.status.success()).then_some(()));
    wait::until("the new one is used", SOON, replaced)?;
    assert!(!publish(at, &old.cert(), None, "news")?.status.success());
    assert!(publish(at, &new.cert(), None, "news")?.status.success());
    let output = child.wait_with_output()?;
    assert!(output.status.success(), "the subscriber was not dropped");
    Ok(())
}

#[test]
fn an_encrypted_listener_needs_a_certificate_that_fits() -> Result<()> {
    if !gate::run_with(&[Peer::Openssl]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let ca = Authority::new(folder.path(), "ca")?;
    let (one, two) = (ca.sign("one", "DNS:localhost")?, ca.sign("two", "DNS:localhost")?);
    let config = folder.path().join("edge-broker.toml");
    let data = folder.path().join("data");
    for (text, expected) in [
        ("[mqtt]\ntls_listen = \"127.0.0.1:0\"\n".to_owned(), "cert and key under [tls]"),
        (
            format!(
                "[mqtt]\ntls_listen = \"127.0.0.1:0\"\n[tls]\ncert = {:?}\nkey = {:?}\n",
                one.cert, two.key
            ),
            "certificate and key cannot be used",
        ),
        (
            format!(
                "[mqtt]\ntls_listen = \"0.0.0.0:0\"\n[tls]\ncert = {:?}\nkey = {:?}\n",
                one.cert, one.key
            ),
            "edge-broker user add",
        ),
        ("[mqtt]\nws_listen = \"0.0.0.0:0\"\n".to_owned(), "insecure_remote"),
    ] {
        std::fs::write(&config, &text)?;
        let mut run = gateway::command()?;
        run.args(["run", "--mqtt", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--config"])
            .arg(&config);
        run.arg("--data-dir").arg(&data);
        let output = wait::output_within(&mut run, SOON)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}: {told}");
        assert!(told.contains(expected), "{text}: {told}");
    }
    Ok(())
}

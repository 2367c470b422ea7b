//! Other people's MQTT clients work unchanged: every QoS, retained messages, wills, sessions, and the
//! cases of Eclipse Paho's interoperability suites.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rumqttc::{Packet, QoS, v5};
use system_tests::gate::{self, Peer};
use system_tests::gateway::{Gateway, workspace};
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::{process, wait};

const SOON: Duration = Duration::from_secs(30);
const A_WHILE: Duration = Duration::from_secs(240);

/// Cases of Paho's suites that ask for more than the standard does.
const NOT_REQUIRED: [(&str, &str); 3] = [
    // A broker may grant every subscription; the suite wants one that refuses `test/nosubscribe`. Refusals
    // are tested with access rules in `access.rs`.
    ("3 test_subscribe_failure", "3.1.1 section 3.9.3: 0x80 is allowed, not demanded"),
    ("5 test_subscribe_failure", "5.0 section 3.9.3: 0x80 and above are allowed, not demanded"),
    // The suite wants a keep-alive of 120 s cut to 60 s.
    ("5 test_server_keep_alive", "5.0 section 3.2.2.3.14: the server may leave it to the client"),
];

#[test]
fn the_cases_of_pahos_interoperability_suites_pass() -> Result<()> {
    if !gate::run_with(&[Peer::PahoPython]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    let address = gateway.mqtt_address();
    let mut suite = process::command("/usr/bin/python3");
    suite.arg("-B").arg(sources().join("paho_interop.py")).args(host_and_port(address));
    let output = wait::output_within(&mut suite, A_WHILE)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcomes: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.match_indices(' ').nth(1).map(|(at, _)| line.split_at(at)))
        .collect();
    ensure!(outcomes.len() == 37, "{} cases: {text}", outcomes.len());
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|(case, outcome)| {
            let passed = outcome.trim() == "passed";
            // What is excused must not pass unnoticed either.
            let excused = NOT_REQUIRED.iter().any(|(excused, _)| excused == *case);
            passed == excused
        })
        .collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

#[test]
fn mosquittos_clients_get_every_qos_in_every_version() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    let port = gateway.mqtt_address().port().to_string();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let mut subscriber = process::command("stdbuf")
            .args(["-oL", "mosquitto_sub", "-p", &port, "-V", version, "-q", "2", "-d"])
            .args(["-t", "m/#", "-C", "4", "-F", "message %q %r %t %p"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(subscriber.stdout.take().context("piped")?).lines();
        let next = |lines: &mut std::io::Lines<_>, start: &str| -> Result<String> {
            for line in lines {
                let line: String = line?;
                if line.starts_with(start) {
                    return Ok(line);
                }
            }
            bail!("ended before it said {start:?}")
        };
        next(&mut lines, "Subscribed")?;
        for qos in ["0", "1", "2"] {
            let mut publisher = process::command("mosquitto_pub");
            publisher.args(["-p", &port, "-V", version, "-q", qos, "-t", "m/t", "-m", "x"]);
            wait::text_within(&mut publisher, SOON)?;
            assert_eq!(next(&mut lines, "message")?, format!("message {qos} 0 m/t x"));
        }
        // Retained: not for who is there, but for who comes.
        let mut publisher = process::command("mosquitto_pub");
        publisher.args(["-p", &port, "-V", version, "-q", "1", "-r", "-t", "m/r", "-m", "kept"]);
        wait::text_within(&mut publisher, SOON)?;
        assert_eq!(next(&mut lines, "message")?, "message 1 0 m/r kept");
        subscriber.wait()?;
        let mut late = process::command("mosquitto_sub");
        late.args([
            "-p", &port, "-V", version, "-q", "1", "-t", "m/r", "-C", "1", "-F", "%q %r %p",
        ]);
        assert_eq!(wait::text_within(&mut late, SOON)?.trim(), "1 1 kept");
        let mut remover = process::command("mosquitto_pub");
        remover.args(["-p", &port, "-V", version, "-r", "-n", "-q", "1", "-t", "m/r"]);
        wait::text_within(&mut remover, SOON)?;
    }
    Ok(())
}

#[test]
fn mqtt_js_gets_back_what_it_sent() -> Result<()> {
    if !gate::run_with(&[Peer::MqttJs]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    for level in ["4", "5"] {
        let mut script = process::command("node");
        script.env("NODE_PATH", "/usr/share/nodejs").arg(sources().join("mqttjs.js"));
        script.args(host_and_port(gateway.mqtt_address())).arg(level);
        wait::text_within(&mut script, A_WHILE).with_context(|| gateway.log_tail())?;
    }
    Ok(())
}

#[test]
fn paho_for_java_gets_back_what_it_sent() -> Result<()> {
    if !gate::run_with(&[Peer::PahoJava]) {
        return Ok(());
    }
    let jars = workspace().join("target/paho-java/lib");
    if !jars.is_dir() {
        let mut maven = process::command("mvn");
        maven.args(["-q", "-B", "dependency:copy-dependencies"]);
        maven.arg(format!("-DoutputDirectory={}", jars.display()));
        maven.current_dir(sources().join("paho-java"));
        wait::text_within(&mut maven, Duration::from_secs(300))?;
    }
    let gateway = Gateway::start()?;
    for version in ["3", "5"] {
        let folder = tempfile::tempdir()?;
        let mut device = process::command("java");
        device.arg("-cp").arg(jars.join("*")).arg(sources().join("paho-java/Device.java"));
        device.args(host_and_port(gateway.mqtt_address())).arg(version).arg(folder.path());
        wait::text_within(&mut device, A_WHILE).with_context(|| gateway.log_tail())?;
    }
    Ok(())
}

#[test]
fn paho_for_c_gets_back_what_it_sent() -> Result<()> {
    if !gate::run_with(&[Peer::PahoC]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    let uri = format!("tcp://{}", gateway.mqtt_address());
    for version in ["31", "311", "5"] {
        // It ends when it has its message, which is retained, so that nothing has to be waited for.
        for qos in ["0", "1", "2"] {
            let topic = format!("c/{version}/{qos}");
            let mut publisher = process::command("paho_cs_pub");
            publisher
                .args(["-t", &topic, "-c", &uri, "-V", version, "-q", qos, "-r", "-m", "kept"]);
            wait::text_within(&mut publisher, SOON)?;
            let mut subscriber = process::command("paho_cs_sub");
            subscriber.args(["-t", &topic, "-c", &uri, "-V", version, "-q", qos, "--verbose"]);
            let mut child = subscriber.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
            let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("kept")));
            child.kill()?;
            child.wait()?;
            found.with_context(|| format!("paho_cs_sub at QoS {qos}"))??;
        }
    }
    Ok(())
}

/// What rumqttc handed out.
#[derive(Debug, PartialEq)]
enum Seen {
    Connected { session_present: bool },
    Subscribed,
    Message(u8, Vec<u8>),
}

fn expect(seen: &Receiver<Seen>, expected: &Seen) -> Result<()> {
    let found = seen.recv_timeout(SOON).with_context(|| format!("waiting for {expected:?}"))?;
    ensure!(found == *expected, "{found:?}, not {expected:?}");
    Ok(())
}

fn rumqttc_3(address: SocketAddr, id: &str) -> (rumqttc::Client, Receiver<Seen>) {
    let mut options = rumqttc::MqttOptions::new(id, address.ip().to_string(), address.port());
    options.set_clean_session(true);
    let (client, mut connection) = rumqttc::Client::new(options, 100);
    let (sender, seen): (Sender<Seen>, _) = channel();
    std::thread::spawn(move || {
        for event in connection.iter() {
            let told = match event {
                Ok(rumqttc::Event::Incoming(Packet::ConnAck(connack))) => {
                    Seen::Connected { session_present: connack.session_present }
                }
                Ok(rumqttc::Event::Incoming(Packet::SubAck(_))) => Seen::Subscribed,
                Ok(rumqttc::Event::Incoming(Packet::Publish(publish))) => {
                    Seen::Message(publish.qos as u8, publish.payload.to_vec())
                }
                Ok(_) => continue,
                Err(_) => return,
            };
            if sender.send(told).is_err() {
                return;
            }
        }
    });
    (client, seen)
}

fn rumqttc_5(address: SocketAddr, id: &str) -> (v5::Client, Receiver<Seen>) {
    let mut options = v5::MqttOptions::new(id, address.ip().to_string(), address.port());
    options.set_clean_start(true);
    let (client, mut connection) = v5::Client::new(options, 100);
    let (sender, seen): (Sender<Seen>, _) = channel();
    std::thread::spawn(move || {
        for event in connection.iter() {
            use v5::mqttbytes::v5::Packet;
            let told = match event {
                Ok(v5::Event::Incoming(Packet::ConnAck(connack))) => {
                    Seen::Connected { session_present: connack.session_present }
                }
                Ok(v5::Event::Incoming(Packet::SubAck(_))) => Seen::Subscribed,
                Ok(v5::Event::Incoming(Packet::Publish(publish))) => {
                    Seen::Message(publish.qos as u8, publish.payload.to_vec())
                }
                Ok(_) => continue,
                Err(_) => return,
            };
            if sender.send(told).is_err() {
                return;
            }
        }
    });
    (client, seen)
}

#[test]
fn rumqttc_gets_back_what_it_sent() -> Result<()> {
    let gateway = Gateway::start()?;
    let address = gateway.mqtt_address();
    {
        let (client, seen) = rumqttc_3(address, "rumqttc-3");
        expect(&seen, &Seen::Connected { session_present: false })?;
        client.subscribe("r/3", QoS::ExactlyOnce)?;
        expect(&seen, &Seen::Subscribed)?;
        for (qos, number) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1), (QoS::ExactlyOnce, 2)] {
            for count in 0..20_u8 {
                client.publish("r/3", qos, false, [count])?;
                expect(&seen, &Seen::Message(number, vec![count]))?;
            }
        }
        client.disconnect()?;
        while seen.recv_timeout(SOON).is_ok() {}

        let (client, seen) = rumqttc_5(address, "rumqttc-5");
        expect(&seen, &Seen::Connected { session_present: false })?;
        client.subscribe("r/5", v5::mqttbytes::QoS::ExactlyOnce)?;
        expect(&seen, &Seen::Subscribed)?;
        use v5::mqttbytes::QoS as Qos5;
        for (qos, number) in [(Qos5::AtMostOnce, 0), (Qos5::AtLeastOnce, 1), (Qos5::ExactlyOnce, 2)]
        {
            for count in 0..20_u8 {
                client.publish("r/5", qos, false, vec![count])?;
                expect(&seen, &Seen::Message(number, vec![count]))?;
            }
        }
        client.disconnect()?;
        while seen.recv_timeout(SOON).is_ok() {}
    }
    Ok(())
}

/// As a microcontroller does it: fixed bytes, one at a time, keep-alive, no library.
#[test]
fn a_client_that_sends_byte_by_byte_is_served() -> Result<()> {
    let gateway = Gateway::start()?;
    for level in [3_u8, 4] {
        let mut stream = TcpStream::connect(gateway.mqtt_address())?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        let mut exchange = |bytes: &[u8], answer: &[u8]| -> Result<()> {
            for byte in bytes {
                stream.write_all(&[*byte])?;
            }
            let mut found = vec![0; answer.len()];
            stream.read_exact(&mut found)?;
            ensure!(found == answer, "{found:x?}, not {answer:x?}");
            Ok(())
        };
        let connect: &[u8] = match level {
            3 => b"\x10\x14\0\x06MQIsdp\x03\x02\0\x1e\0\x06esp-32",
            _ => b"\x10\x12\0\x04MQTT\x04\x02\0\x1e\0\x06esp-32",
        };
        exchange(connect, b"\x20\x02\0\0")?;
        exchange(b"\x82\x0a\0\x01\0\x05led/1\x01", b"\x90\x03\0\x01\x01")?;
        exchange(b"\x30\x08\0\x04temp21", b"")?;
        exchange(b"\x32\x0a\0\x04temp\0\x0222", b"\x40\x02\0\x02")?;
        exchange(b"\xc0\0", b"\xd0\0")?;
        let options = ConnectOptions::new(Version::V311, "switch");
        MqttClient::connect(gateway.mqtt_address(), &options)?.publish_and_wait("led/1", b"on")?;
        exchange(b"", b"\x32\x0b\0\x05led/1\0\x01on")?;
        exchange(b"\x40\x02\0\x01\xc0\0", b"\xd0\0")?;
        exchange(b"\xe0\0", b"")?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        ensure!(rest.is_empty(), "{rest:x?}");
    }
    Ok(())
}

fn sources() -> PathBuf {
    workspace().join("tests/clients")
}

fn host_and_port(address: SocketAddr) -> [String; 2] {
    [address.ip().to_string(), address.port().to_string()]
}

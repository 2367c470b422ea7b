//! Garbage on every port: that connection ends with the right reason, nobody else notices, and
//! memory stays flat.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use system_tests::gateway::{Gateway, ask_kafka};
use system_tests::mqtt::{
    ConnectOptions, MqttClient, Version, connect_frame, put_publish, remaining_length,
    subscribe_frame,
};
use system_tests::random::Random;

const SOON: Duration = Duration::from_secs(20);
/// A CONNECT that does not come, or half a frame, is waited for; then the connection ends.
const PATIENCE: Duration = Duration::from_secs(60);
const GROWTH_BYTES_MAX: u64 = 8 << 20;

/// What strangers send to a port that is not theirs.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random::seeded(77);
    let mut tls = vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03];
    tls.extend(random.bytes(506));
    vec![
        ("random bytes", random.bytes(4_096)),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: gateway\r\nUser-Agent: x\r\n\r\n".to_vec()),
        ("a TLS hello", tls),
        ("zeros", vec![0; 1_024]),
        ("ones", vec![0xFF; 1_024]),
    ]
}

/// Sends bytes and reads until the other side closes; true if it did.
fn is_closed_after(address: SocketAddr, bytes: &[u8], within: Duration) -> Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(within))?;
    // It may have closed before all was written.
    let _ = stream.write_all(bytes);
    let mut sink = Vec::new();
    match stream.read_to_end(&mut sink) {
        Ok(_) => Ok(true),
        Err(error) => Ok(error.kind() == std::io::ErrorKind::ConnectionReset),
    }
}

/// A client that is there all the while, and notices nothing.
struct Witness {
    client: MqttClient,
    kafka: SocketAddr,
    count: u32,
}

impl Witness {
    fn new(gateway: &Gateway) -> Result<Self> {
        let options = ConnectOptions::new(Version::V311, "witness");
        let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
        client.publish_and_wait("witness", b"first")?;
        Ok(Self { client, kafka: gateway.kafka_address(), count: 1 })
    }

    fn still_served(&mut self) -> Result<()> {
        self.count += 1;
        self.client.publish_and_wait("witness", self.count.to_string().as_bytes())?;
        // ApiVersions v0.
        let answer = ask_kafka(self.kafka, &[0, 18, 0, 0, 0, 0, 0, 9, 0xFF, 0xFF])?;
        assert_eq!(answer.get(..4), Some(&[0, 0, 0, 9][..]));
        Ok(())
    }
}

#[test]
fn garbage_ends_its_own_connection_and_memory_stays_flat() -> Result<()> {
    let mut gateway = Gateway::start()?;
    let mut witness = Witness::new(&gateway)?;
    let ports = [gateway.mqtt_address(), gateway.kafka_address()];
    // Once for what is allocated once.
    for address in ports {
        for (name, bytes) in garbage() {
            assert!(is_closed_after(address, &bytes, PATIENCE)?, "{name} on {address}");
        }
    }
    let before = gateway.server()?.usage()?;
    for _ in 0..100 {
        for address in ports {
            for (name, bytes) in garbage() {
                assert!(is_closed_after(address, &bytes, PATIENCE)?, "{name} on {address}");
            }
        }
    }
    witness.still_served().with_context(|| gateway.log_tail())?;
    let after = gateway.server()?.usage()?;
    let growth = after.rss_bytes.saturating_sub(before.rss_bytes);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes: {before:?} {after:?}");
    assert!(after.descriptors <= before.descriptors + 8, "{before:?} {after:?}");
    Ok(())
}

#[test]
fn a_length_of_256_mib_is_refused_before_memory_is_taken() -> Result<()> {
    let mut gateway = Gateway::start()?;
    let mut witness = Witness::new(&gateway)?;
    let before = gateway.server()?.usage()?;
    for _ in 0..20 {
        let mut publish = vec![0x30];
        publish.extend(remaining_length(268_435_455));
        publish.extend([0, 1, b'a']);
        assert!(is_closed_after(gateway.mqtt_address(), &publish, SOON)?, "before CONNECT");

        let options = ConnectOptions::new(Version::V5, "big");
        let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
        client.send(&publish)?;
        let last = client.receive_until_closed(SOON)?;
        let last = last.last().map(|packet| (packet.kind(), packet.reason()));
        assert_eq!(last, Some((14, 0x95)), "packet too large");

        let mut frame = (256_u32 << 20).to_be_bytes().to_vec();
        frame.extend([0, 18, 0, 0, 0, 0, 0, 1]);
        assert!(is_closed_after(gateway.kafka_address(), &frame, SOON)?, "Kafka frame");
    }
    witness.still_served()?;
    let after = gateway.server()?.usage()?;
    let growth = after.rss_bytes_max.saturating_sub(before.rss_bytes_max);
    assert!(growth < GROWTH_BYTES_MAX, "grew by {growth} bytes: {before:?} {after:?}");
    Ok(())
}

#[test]
fn half_a_frame_and_silence_is_given_up() -> Result<()> {
    let gateway = Gateway::start()?;
    let mut witness = Witness::new(&gateway)?;
    let connect = connect_frame(Version::V311, "half", true, 0);
    assert!(is_closed_after(gateway.mqtt_address(), &connect[..7], PATIENCE)?);
    assert!(is_closed_after(gateway.mqtt_address(), &[], PATIENCE)?, "nothing at all");
    witness.still_served()
}

/// A way to break MQTT after a good CONNECT, and the reason code that MQTT 5 has for it.
struct Offence {
    name: &'static str,
    /// The offending bytes for a version.
    bytes: fn(Version) -> Vec<u8>,
    /// Reason codes of which one has to come.
    reasons: &'static [u8],
}

fn publish(version: Version, topic: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_publish(&mut bytes, version, topic, b"x", Some(7), false);
    bytes
}

const MALFORMED: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;
const TOPIC_NAME_INVALID: u8 = 0x90;

const OFFENCES: &[Offence] = &[
    Offence {
        name: "NUL in a topic name",
        bytes: |version| publish(version, b"a\0b"),
        reasons: &[MALFORMED, TOPIC_NAME_INVALID],
    },
    Offence {
        name: "+ in a topic name",
        bytes: |version| publish(version, b"a/+/b"),
        reasons: &[TOPIC_NAME_INVALID],
    },
    Offence {
        name: "# in a topic name",
        bytes: |version| publish(version, b"a/#"),
        reasons: &[TOPIC_NAME_INVALID],
    },
    Offence {
        name: "invalid UTF-8 in a topic name",
        bytes: |version| publish(version, b"a\xC3\x28"),
        reasons: &[MALFORMED],
    },
    Offence {
        name: "a surrogate in a topic name",
        bytes: |version| publish(version, b"a\xED\xA0\x80"),
        reasons: &[MALFORMED],
    },
    Offence {
        name: "both QoS bits",
        bytes: |version| {
            let mut bytes = publish(version, b"a");
            bytes[0] |= 0x06;
            bytes
        },
        reasons: &[MALFORMED],
    },
    Offence {
        name: "packet identifier 0",
        bytes: |version| {
            let mut bytes = Vec::new();
            put_publish(&mut bytes, version, b"a", b"x", Some(0), false);
            bytes
        },
        reasons: &[MALFORMED, PROTOCOL_ERROR],
    },
    Offence {
        name: "a second CONNECT",
        bytes: |version| connect_frame(version, "again", true, 0),
        reasons: &[PROTOCOL_ERROR],
    },
    Offence { name: "CONNACK", bytes: |_| vec![0x20, 2, 0, 0], reasons: &[PROTOCOL_ERROR] },
    Offence { name: "SUBACK", bytes: |_| vec![0x90, 3, 0, 1, 0], reasons: &[PROTOCOL_ERROR] },
    Offence { name: "UNSUBACK", bytes: |_| vec![0xB0, 2, 0, 1], reasons: &[PROTOCOL_ERROR] },
    Offence { name: "PINGRESP", bytes: |_| vec![0xD0, 0], reasons: &[PROTOCOL_ERROR] },
    Offence {
        name: "packet type 0",
        bytes: |_| vec![0x00, 0],
        reasons: &[MALFORMED, PROTOCOL_ERROR],
    },
    Offence {
        name: "wrong flags of SUBSCRIBE",
        bytes: |version| {
            let mut bytes = subscribe_frame(version, 1, b"a", 0);
            bytes[0] = 0x80;
            bytes
        },
        reasons: &[MALFORMED],
    },
    Offence {
        name: "a length of five bytes",
        bytes: |_| vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        reasons: &[MALFORMED],
    },
];

#[test]
fn each_offence_ends_its_connection_with_its_reason_code() -> Result<()> {
    let gateway = Gateway::start()?;
    let mut witness = Witness::new(&gateway)?;
    for offence in OFFENCES {
        for version in Version::BOTH {
            let options = ConnectOptions::new(version, "offender");
            let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
            client.send(&(offence.bytes)(version))?;
            let told = client
                .receive_until_closed(SOON)
                .with_context(|| format!("{} in {version:?}", offence.name))?;
            match version {
                // 3.1.1 has no way to say why: [MQTT-4.8.0-1].
                Version::V311 => assert_eq!(told, [], "{}", offence.name),
                Version::V5 => {
                    let [last] = &told[..] else {
                        panic!("{}: one DISCONNECT, not {told:?}", offence.name);
                    };
                    assert_eq!(last.kind(), 14, "{}", offence.name);
                    let reason = last.reason();
                    assert!(offence.reasons.contains(&reason), "{}: {reason:#x}", offence.name);
                }
            }
            witness.still_served().with_context(|| offence.name)?;
        }
    }
    Ok(())
}

#[test]
fn a_topic_that_begins_with_a_letter_of_two_bytes_is_delivered_like_any_other() -> Result<()> {
    let gateway = Gateway::start()?;
    for version in Version::BOTH {
        let connect = |name: &str| {
            MqttClient::connect(gateway.mqtt_address(), &ConnectOptions::new(version, name))
        };
        let mut subscriber = connect("listener")?;
        subscriber.subscribe("#", 1)?;
        connect("oven")?.publish_and_wait("\u{fc}fen/1/temperatur", b"870")?;
        let message = subscriber.receive_publish(SOON)?.context("the message")?;
        assert_eq!(message.topic, "\u{fc}fen/1/temperatur");
        assert_eq!(message.payload, b"870");
    }
    Ok(())
}

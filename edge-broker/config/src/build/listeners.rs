//! `[mqtt]` and `[kafka]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use boards::Profile;
use boards::units::Bytes;

use super::findings::Findings;
use super::values::{Checked, number, one_of, size_u32, text};
use super::{Overrides, mqtt_limits, topics};
use crate::error::{Fault, Origin};
use crate::raw::{RawConfig, RawKafka, RawMqtt, Switch, Text};
use crate::{HostPort, KafkaConfig, Lane, MqttConfig};

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
pub(super) const CONNECTIONS_MAX: u32 = 100_000;
const MQTT_PORT: u16 = 1883;
const KAFKA_PORT: u16 = 9092;
pub(super) const DEFAULT_LANE: &str = "normal";
const DEFAULT_PARTITIONS: u32 = 4;

pub(super) fn mqtt(
    raw: &RawMqtt,
    overrides: &Overrides,
    board: &Profile,
    findings: &mut Findings,
) -> MqttConfig {
    let listen = listen(&raw.listen, overrides.mqtt.as_ref(), &MQTT);
    let (listen, origin) = findings.or(listen, MQTT.default_listen());
    let insecure_remote = reachable(listen, origin, &raw.insecure_remote, &MQTT, findings);
    let ws_listen = findings.take(optional(&raw.ws_listen, &WEB_SOCKET));
    if let Some((listen, origin)) = &ws_listen {
        reachable(*listen, origin.clone(), &raw.insecure_remote, &MQTT, findings);
    }
    let address = |found: Option<(SocketAddr, Origin)>| found.map(|(address, _)| address);
    MqttConfig {
        listen,
        tls_listen: address(findings.take(optional(&raw.tls_listen, &TLS))),
        ws_listen: address(ws_listen),
        wss_listen: address(findings.take(optional(&raw.wss_listen, &WEB_SOCKET_TLS))),
        max_packet_bytes: findings
            .take(size_u32(&raw.max_packet_bytes, KIB..=16 * MIB))
            .unwrap_or_else(|| narrowed(board.memory.mqtt_packet)),
        max_connections: findings
            .take(number(&raw.max_connections, 1..=CONNECTIONS_MAX))
            .unwrap_or(board.limits.mqtt_connections),
        limits: mqtt_limits::limits(raw, board, findings),
        sys_interval_ms: mqtt_limits::sys_interval_ms(raw, findings),
        dead_letter: mqtt_limits::dead_letter(raw, findings),
        denied_publish_v3_is_acknowledged: findings
            .take(one_of(&raw.denied_publish_v3, &[("close", false), ("ack", true)]))
            .unwrap_or(false),
        insecure_remote,
    }
}

pub(super) fn kafka(
    raw: &RawKafka,
    overrides: &Overrides,
    board: &Profile,
    findings: &mut Findings,
) -> KafkaConfig {
    let listen = listen(&raw.listen, overrides.kafka.as_ref(), &KAFKA);
    let (listen, origin) = findings.or(listen, KAFKA.default_listen());
    let max_request_bytes = findings
        .take(size_u32(&raw.max_request_bytes, 64 * KIB..=100 * MIB))
        .unwrap_or_else(|| narrowed(board.memory.kafka_request));
    let max_batch_bytes = findings
        .take(size_u32(&raw.max_batch_bytes, KIB..=64 * MIB))
        .unwrap_or_else(|| narrowed(board.memory.kafka_batch).min(max_request_bytes / 2));
    if max_batch_bytes >= max_request_bytes {
        let origin = raw.max_batch_bytes.as_ref().map(|value| Origin::File(value.span()));
        findings.fault(Fault::new(
            origin.unwrap_or_else(|| Origin::Default("kafka.max_batch_bytes".to_owned())),
            "must be less than kafka.max_request_bytes, since a batch comes inside a request",
        ));
    }
    KafkaConfig {
        listen,
        advertised: findings.take(text(&raw.advertised, HostPort::parse)),
        auto_create_topics: raw.auto_create_topics.as_ref().is_none_or(|on| *on.get_ref()),
        default_partitions: findings
            .take(number(&raw.default_partitions, 1..=topics::PARTITIONS_MAX))
            .unwrap_or(DEFAULT_PARTITIONS),
        default_lane: raw
            .default_lane
            .as_ref()
            .map_or_else(|| Arc::from(DEFAULT_LANE), |name| Arc::from(name.get_ref().as_str())),
        max_connections: findings
            .take(number(&raw.max_connections, 1..=CONNECTIONS_MAX))
            .unwrap_or(board.limits.kafka_connections),
        max_request_bytes,
        max_batch_bytes,
        insecure_remote: reachable(listen, origin, &raw.insecure_remote, &KAFKA, findings),
    }
}

/// An encrypted or a WebSocket listener, where one is wanted.
fn optional(raw: &Text, which: &Listener) -> Checked<Option<(SocketAddr, Origin)>> {
    raw.as_ref().map(|_| listen(raw, None, which)).transpose()
}

/// No two listeners can have one address. One that is no address at all was told already.
pub(super) fn differ(raw: &RawConfig, overrides: &Overrides, findings: &mut Findings) {
    let mqtt = listen(&raw.mqtt.listen, overrides.mqtt.as_ref(), &MQTT).ok();
    let first = mqtt.as_ref().map(|(address, _)| *address);
    let others = [
        mqtt,
        optional(&raw.mqtt.tls_listen, &TLS).ok().flatten(),
        optional(&raw.mqtt.ws_listen, &WEB_SOCKET).ok().flatten(),
        optional(&raw.mqtt.wss_listen, &WEB_SOCKET_TLS).ok().flatten(),
        listen(&raw.kafka.listen, overrides.kafka.as_ref(), &KAFKA).ok(),
    ];
    let mut taken = Vec::new();
    for (address, origin) in others.into_iter().flatten() {
        if address.port() != 0 && taken.contains(&address) {
            let problem = match Some(address) == first {
                true => "the MQTT listener has this address; choose another port",
                false => "another listener has this address; choose another port",
            };
            findings.fault(Fault::new(origin, problem));
        }
        taken.push(address);
    }
}

pub(super) fn default_lane_exists(raw: &RawKafka, lanes: &[Lane]) -> Checked<()> {
    raw.default_lane.as_ref().map_or(Ok(()), |name| topics::lane_exists(name, lanes).map(drop))
}

struct Listener {
    table: &'static str,
    flag: &'static str,
    port: u16,
    /// What it means that others can reach it.
    exposure: &'static str,
}

impl Listener {
    fn default_listen(&self) -> (SocketAddr, Origin) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        (address, Origin::Default(format!("{}.listen", self.table)))
    }
}

const MQTT: Listener = Listener {
    table: "mqtt",
    flag: "--mqtt",
    port: MQTT_PORT,
    exposure: "what goes to and from this address is not encrypted, passwords included",
};
const TLS: Listener = Listener { port: 8883, ..MQTT };
const WEB_SOCKET: Listener = Listener { port: 8083, ..MQTT };
const WEB_SOCKET_TLS: Listener = Listener { port: 8084, ..MQTT };
const KAFKA: Listener = Listener {
    table: "kafka",
    flag: "--kafka",
    port: KAFKA_PORT,
    exposure: "everybody who can reach this address can read and write, without password or encryption",
};

fn listen(raw: &Text, flag: Option<&String>, which: &Listener) -> Checked<(SocketAddr, Origin)> {
    let (text, origin) = match (flag, raw) {
        (Some(text), _) => (text.as_str(), Origin::Flag(which.flag, text.clone())),
        (None, Some(text)) => (text.get_ref().as_str(), Origin::File(text.span())),
        (None, None) => return Ok(which.default_listen()),
    };
    // Names are not looked up here; this one needs no looking up.
    let numeric = text.replacen("localhost:", "127.0.0.1:", 1);
    match numeric.parse() {
        Ok(address) => Ok((address, origin)),
        Err(_) => Err(Fault::new(
            origin,
            format!("not an address; write IP:PORT, for example \"127.0.0.1:{}\"", which.port),
        )),
    }
}

/// Refuses to be reachable from other machines unless that was asked for in so many words.
fn reachable(
    listen: SocketAddr,
    origin: Origin,
    insecure_remote: &Switch,
    which: &Listener,
    findings: &mut Findings,
) -> bool {
    let allowed = insecure_remote.as_ref().is_some_and(|on| *on.get_ref());
    if listen.ip().is_loopback() {
        return allowed;
    }
    let open = which.exposure;
    if allowed {
        findings.warn(Fault::new(origin, open));
        return true;
    }
    findings.fault(Fault::new(
        origin,
        format!(
            "{open}; listen on 127.0.0.1, or set insecure_remote = true under [{}]",
            which.table
        ),
    ));
    false
}

fn narrowed(bytes: Bytes) -> u32 {
    u32::try_from(bytes.0).unwrap_or(u32::MAX)
}

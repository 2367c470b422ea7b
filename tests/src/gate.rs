//! Which tests run: those that need only the binary always, those with real peers on request.

use std::path::PathBuf;

/// The command that installs every peer on a Debian machine; told wherever one is missing.
pub const APT_LINE: &str = "apt-get install --no-install-recommends mosquitto mosquitto-clients \
     kcat openssl openjdk-17-jdk-headless maven python3-paho-mqtt node-mqtt paho.mqtt.c-examples";

/// A program of somebody else that a test talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The MQTT broker we are measured against.
    Mosquitto,
    /// `mosquitto_pub` and `mosquitto_sub`.
    MosquittoClients,
    /// The librdkafka command line client.
    Kcat,
    /// The `openssl` command, for certificates.
    Openssl,
    /// paho-mqtt for Python.
    PahoPython,
    /// mqtt.js.
    MqttJs,
    /// Eclipse Paho for Java, which Maven fetches.
    PahoJava,
    /// The command line clients of Eclipse Paho for C.
    PahoC,
    /// Apache Kafka and its console tools, on Java and fetched by Maven.
    Kafka,
}

impl Peer {
    /// The programs that have to be on `PATH`, and files of packages by their path.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Peer::Mosquitto => &["mosquitto"],
            Peer::MosquittoClients => &["mosquitto_pub", "mosquitto_sub"],
            Peer::Kcat => &["kcat"],
            Peer::Openssl => &["openssl"],
            Peer::PahoPython => {
                &["/usr/bin/python3", "/usr/lib/python3/dist-packages/paho/mqtt/client.py"]
            }
            Peer::MqttJs => &["node", "/usr/share/nodejs/mqtt/package.json"],
            Peer::PahoJava => &["javac", "java", "mvn"],
            Peer::PahoC => &["paho_cs_pub", "paho_cs_sub"],
            Peer::Kafka => &["java", "mvn"],
        }
    }
}

/// True where tests with real peers were asked for (`EDGE_SYSTEM_TESTS=1`).
pub fn real_peers() -> bool {
    flag("EDGE_SYSTEM_TESTS")
}

/// True for the long form of the tests (`EDGE_TESTS_FULL=1`).
pub fn full() -> bool {
    flag("EDGE_TESTS_FULL")
}

/// True where a test that needs these peers shall run.
///
/// Without `EDGE_SYSTEM_TESTS` it is left out (the test `left_out` says so, once). With it, a
/// missing peer leaves the test out on a developer's machine and fails it where `CI` is set.
///
/// # Panics
/// In CI, when a program of a peer is missing.
pub fn run_with(peers: &[Peer]) -> bool {
    if !real_peers() {
        return false;
    }
    let missing = missing(peers);
    assert!(missing.is_empty() || !flag("CI"), "missing: {}; {APT_LINE}", missing.join(", "));
    missing.is_empty()
}

/// The programs of `peers` that are not on `PATH`.
pub fn missing(peers: &[Peer]) -> Vec<&'static str> {
    let programs = peers.iter().flat_map(|peer| peer.programs());
    programs.copied().filter(|program| find_program(program).is_none()).collect()
}

/// The path of a program on `PATH` or in the system directories.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // mosquitto lives here, and a plain user's PATH does not.
    folders.push(PathBuf::from("/usr/sbin"));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn flag(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0" && value != "false")
}

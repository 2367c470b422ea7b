//! What has to be installed, and the line that installs it.

use std::path::PathBuf;
use std::process::Command;

/// A program, what needs it, and its Debian packages.
pub(crate) struct Tool {
    /// The program on `PATH`.
    pub(crate) program: &'static str,
    /// What is left out without it.
    pub(crate) wanted_for: &'static str,
    /// Debian packages.
    pub(crate) packages: &'static str,
}

/// Everything `cargo xtask test` makes use of besides Rust.
pub(crate) const TOOLS: [Tool; 12] = [
    Tool { program: "mosquitto", wanted_for: "tests beside Mosquitto", packages: "mosquitto" },
    Tool { program: "mosquitto_pub", wanted_for: "MQTT tests", packages: "mosquitto-clients" },
    Tool { program: "kcat", wanted_for: "Kafka client tests", packages: "kcat" },
    Tool { program: "java", wanted_for: "real Kafka", packages: "openjdk-17-jdk-headless" },
    Tool { program: "javac", wanted_for: "paho for Java", packages: "openjdk-17-jdk-headless" },
    Tool {
        program: "/usr/lib/python3/dist-packages/paho/mqtt/client.py",
        wanted_for: "Paho's interoperability cases",
        packages: "python3-paho-mqtt",
    },
    Tool {
        program: "/usr/share/nodejs/mqtt/package.json",
        wanted_for: "mqtt.js",
        packages: "node-mqtt",
    },
    Tool { program: "paho_cs_pub", wanted_for: "paho for C", packages: "paho.mqtt.c-examples" },
    Tool { program: "mvn", wanted_for: "fetching Kafka's jars", packages: "maven" },
    Tool {
        program: "aarch64-linux-gnu-gcc",
        wanted_for: "the aarch64 build",
        packages: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    },
    Tool {
        program: "arm-linux-gnueabihf-gcc",
        wanted_for: "the armv7 build",
        packages: "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    },
    Tool {
        program: "qemu-aarch64-static",
        wanted_for: "running ARM binaries",
        packages: "qemu-user-static",
    },
];

/// The tools that are not there.
pub(crate) fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !is_installed(tool.program)).collect()
}

/// True where `program` is on `PATH` or in the system directories.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    folders.iter().any(|folder| folder.join(program).is_file())
}

/// True where rustup has the standard library of a target (or where there is no rustup to ask).
pub(crate) fn has_rust_target(target: &str) -> bool {
    let Ok(listed) = Command::new("rustup").args(["target", "list", "--installed"]).output() else {
        return true;
    };
    String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == target)
}

/// True in CI, where nothing may be left out.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

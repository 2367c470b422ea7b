//! From the layers to a [`Config`]: gives every key its meaning, fills in defaults, checks values and relations.

mod findings;
mod flash;
mod lanes;
mod listeners;
mod mqtt_limits;
mod reading;
mod retentions;
mod routes;
mod tls;
mod topics;
mod uplink;
mod values;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use boards::Profile;

use crate::error::{Document, Fault, Origin};
use crate::polish::nearest;
use crate::raw::{RawAuth, RawConfig, RawLog, Text};
use crate::{
    Anonymous, AuthConfig, Config, ConfigError, LogConfig, LogFormat, LogLevel, Places, names,
};
use findings::Findings;
use values::{Checked, one_of, text};

/// A configuration file larger than this is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;
const DEFAULT_DATA_DIR: &str = "./data";

/// The uppermost layer: what the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--mqtt`
    pub mqtt: Option<String>,
    /// `--kafka`
    pub kafka: Option<String>,
    /// `--upstream`: one or more HOST:PORT, separated by commas.
    pub upstream: Option<String>,
    /// `--gateway`
    pub gateway: Option<String>,
}

/// What the machine is: the lowest layer, given by the caller because this crate looks at nothing but the file.
pub trait Host {
    /// Its name, the gateway's name by default.
    fn hostname(&self) -> String;

    /// The profile of the running board.
    fn board(&self) -> Profile;

    /// Bytes that the lanes could have if they took everything: what is free where `data_dir` is or will be, and what
    /// the data directory holds already (else the budgets would shrink with every start). `None` if unknown.
    fn available_bytes(&self, data_dir: &Path) -> Option<u64>;
}

impl Config {
    /// Reads `file`, if given, and puts the layers together.
    pub fn load(
        file: Option<&Path>,
        overrides: &Overrides,
        host: &dyn Host,
    ) -> Result<Self, ConfigError> {
        match file {
            Some(path) => {
                let text = read(path)?;
                Self::parse(&text, &path.display().to_string(), overrides, host)
            }
            None => Self::parse("", "(no configuration file)", overrides, host),
        }
    }

    /// As [`load`](Self::load), for a text that was read already. `name` stands for the file in messages.
    pub fn parse(
        text: &str,
        name: &str,
        overrides: &Overrides,
        host: &dyn Host,
    ) -> Result<Self, ConfigError> {
        let document = Document { name, text };
        let read = reading::read(&document);
        let mut problems = read.problems;
        let Some(raw) = read.raw else { return Err(ConfigError::of(problems)) };
        let mut findings = Findings::default();
        let mut config = assemble(&raw, overrides, host, &mut findings);
        findings.faults.retain(|fault| !read.incomplete.iter().any(|table| fault.is_at(table)));
        problems.extend(findings.faults.into_iter().map(|fault| document.problem(fault)));
        if !problems.is_empty() {
            return Err(ConfigError::of(problems));
        }
        let told = |faults: Vec<Fault>| {
            faults.into_iter().map(|fault| document.problem(fault).to_string()).collect()
        };
        config.warnings = told(findings.warnings);
        config.notes = told(findings.notes);
        config.places = places(&raw, overrides, &config, &document);
        Ok(config)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let error = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(error)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(error)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), max_bytes: FILE_BYTES_MAX });
    }
    Ok(text)
}

fn assemble(
    raw: &RawConfig,
    overrides: &Overrides,
    host: &dyn Host,
    findings: &mut Findings,
) -> Config {
    let board = findings.take(board(&raw.board));
    let board = board.unwrap_or_else(|| host.board());
    let data_dir = findings.or(data_dir(raw, overrides), PathBuf::from(DEFAULT_DATA_DIR));
    let mqtt = listeners::mqtt(&raw.mqtt, overrides, &board, findings);
    let kafka = listeners::kafka(&raw.kafka, overrides, &board, findings);
    listeners::differ(raw, overrides, findings);
    let tls = findings.take(tls::tls(raw));
    let uplink = uplink::uplink(raw.uplink.as_ref(), overrides, &board, findings);
    let lanes = lanes::lanes(
        raw,
        &lanes::Surroundings {
            board: &board,
            available_bytes: host.available_bytes(&data_dir),
            has_uplink: uplink.is_some(),
            max_packet_bytes: mqtt.max_packet_bytes,
        },
        findings,
    );
    let flash = flash::flash(&raw.flash, &board, findings);
    findings.check(listeners::default_lane_exists(&raw.kafka, &lanes));
    let limits = topics::Limits { streams_max: board.limits.streams, has_uplink: uplink.is_some() };
    let topics = topics::topics(raw, &kafka, &lanes, &limits, findings);
    let routes = routes::routes(raw, &topics, findings);
    Config {
        gateway: findings.or(gateway(&raw.gateway, overrides, host), String::new()),
        auth: auth(&raw.auth, &data_dir, findings),
        tls,
        data_dir,
        board,
        mqtt,
        kafka,
        routes,
        topics,
        lanes,
        uplink,
        flash,
        log: log(&raw.log, findings),
        warnings: Vec::new(),
        notes: Vec::new(),
        places: Places::default(),
    }
}

fn places(
    raw: &RawConfig,
    overrides: &Overrides,
    config: &Config,
    document: &Document<'_>,
) -> Places {
    let place = |flag: Option<(&'static str, String)>, written: &Text, key: &str, value: String| {
        let origin = match (flag, written) {
            (Some((flag, value)), _) => Origin::Flag(flag, value),
            (None, Some(written)) => Origin::File(written.span()),
            (None, None) => return format!("{key} = \"{value}\" (default)"),
        };
        document.problem(Fault::new(origin, "")).place_text()
    };
    let extra = |written: &Text| match written {
        Some(_) => place(None, written, "", String::new()),
        None => String::new(),
    };
    let data_dir = overrides.data_dir.as_ref().map(|path| path.display().to_string());
    Places {
        data_dir: place(
            data_dir.map(|path| ("--data-dir", path)),
            &raw.data_dir,
            "data_dir",
            config.data_dir.display().to_string(),
        ),
        mqtt_listen: place(
            overrides.mqtt.clone().map(|at| ("--mqtt", at)),
            &raw.mqtt.listen,
            "mqtt.listen",
            config.mqtt.listen.to_string(),
        ),
        mqtt_tls_listen: extra(&raw.mqtt.tls_listen),
        mqtt_ws_listen: extra(&raw.mqtt.ws_listen),
        mqtt_wss_listen: extra(&raw.mqtt.wss_listen),
        kafka_listen: place(
            overrides.kafka.clone().map(|at| ("--kafka", at)),
            &raw.kafka.listen,
            "kafka.listen",
            config.kafka.listen.to_string(),
        ),
    }
}

/// The board that the file names.
fn board(raw: &Text) -> Checked<Option<Profile>> {
    let Some(name) = raw else { return Ok(None) };
    boards::load(name.get_ref()).map(Some).map_err(|_| {
        let known: Vec<&str> = boards::names().collect();
        Fault::at(
            name,
            match nearest(name.get_ref(), &known) {
                Some(near) => format!("no such board; did you mean \"{near}\"?"),
                None => format!("no such board; there are {}", known.join(", ")),
            },
        )
    })
}

fn data_dir(raw: &RawConfig, overrides: &Overrides) -> Checked<PathBuf> {
    let (path, origin) = match (&overrides.data_dir, &raw.data_dir) {
        (Some(path), _) => (path.clone(), Origin::Flag("--data-dir", path.display().to_string())),
        (None, Some(path)) => (PathBuf::from(path.get_ref()), Origin::File(path.span())),
        (None, None) => return Ok(PathBuf::from(DEFAULT_DATA_DIR)),
    };
    if path.as_os_str().is_empty() {
        return Err(Fault::new(origin, "is empty; write a directory"));
    }
    Ok(path)
}

fn gateway(raw: &Text, overrides: &Overrides, host: &dyn Host) -> Checked<String> {
    let (name, origin) = match (&overrides.gateway, raw) {
        (Some(name), _) => (name.clone(), Origin::Flag("--gateway", name.clone())),
        (None, Some(name)) => (name.get_ref().clone(), Origin::File(name.span())),
        (None, None) => return Ok(names::gateway_from_hostname(&host.hostname())),
    };
    names::validate_gateway(&name).map_err(|error| Fault::new(origin, error))?;
    Ok(name)
}

fn auth(raw: &RawAuth, data_dir: &Path, findings: &mut Findings) -> AuthConfig {
    let path = |text: &str| match text {
        "" => Err("is empty; write a file"),
        text => Ok(PathBuf::from(text)),
    };
    let anonymous = findings.take(one_of(&raw.anonymous, &Anonymous::NAMES));
    AuthConfig {
        file: findings.take(text(&raw.file, path)).unwrap_or_else(|| data_dir.join("auth.toml")),
        anonymous: anonymous.unwrap_or(Anonymous::Loopback),
    }
}

fn log(raw: &RawLog, findings: &mut Findings) -> LogConfig {
    LogConfig {
        format: findings.take(one_of(&raw.format, &LogFormat::NAMES)).unwrap_or(LogFormat::Auto),
        level: findings.take(one_of(&raw.level, &LogLevel::NAMES)).unwrap_or(LogLevel::Info),
    }
}

#[cfg(test)]
mod tests;

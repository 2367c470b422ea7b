//! `[uplink]`.

use boards::Profile;
use toml::Spanned;

use super::Overrides;
use super::findings::Findings;
use super::topics::PARTITIONS_MAX;
use super::values::{Checked, number, size, size_u32, text};
use crate::error::{Fault, Origin};
use crate::raw::RawUplink;
use crate::{Compression, HostPort, UplinkConfig, UpstreamTopic};

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
/// What a Kafka broker takes by default, compressed; we count before compression.
const DEFAULT_BATCH_BYTES: u32 = MIB;
const DEFAULT_LINGER_MS: u32 = 100;
const LINGER_MS_MAX: u32 = 60_000;
const BOOTSTRAP_MAX: usize = 32;

pub(super) fn uplink(
    raw: Option<&Spanned<RawUplink>>,
    overrides: &Overrides,
    board: &Profile,
    findings: &mut Findings,
) -> Option<UplinkConfig> {
    let nothing_written = RawUplink::default();
    let keys = match (raw, &overrides.upstream) {
        (None, None) => return None,
        (Some(raw), _) => raw.get_ref(),
        (None, Some(_)) => &nothing_written,
    };
    let bootstrap = match &overrides.upstream {
        Some(upstream) => from_flag(upstream),
        None => from_file(raw, keys),
    };
    let bootstrap = findings.or(bootstrap, Vec::new());
    let window_bytes = findings
        .take(size(&keys.window_bytes, u64::from(64 * KIB)..=u64::from(256 * MIB)))
        .unwrap_or(board.memory.uplink_window.0);
    let least_window = u32::try_from(window_bytes).unwrap_or(u32::MAX);
    let batch_bytes = findings.take(size_u32(&keys.batch_bytes, 16 * KIB..=16 * MIB));
    if let (Some(batch), Some(written)) = (batch_bytes, &keys.batch_bytes)
        && batch > least_window
    {
        findings
            .fault(Fault::at(written, "is more than uplink.window_bytes; lower it or raise that"));
    }
    let default_topic = || UpstreamTopic::parse("{topic}").expect("a legal template");
    Some(UplinkConfig {
        bootstrap,
        via: findings.take(text(&keys.via, HostPort::parse)),
        topic: findings.take(text(&keys.topic, UpstreamTopic::parse)).unwrap_or_else(default_topic),
        create_topics: keys.create_topics.as_ref().is_none_or(|on| *on.get_ref()),
        partitions: findings.take(number(&keys.partitions, 1..=PARTITIONS_MAX)),
        compression: findings
            .take(text(&keys.compression, Compression::parse))
            .unwrap_or(Compression::Zstd(board.compression.uplink_zstd_level)),
        batch_bytes: batch_bytes.unwrap_or(DEFAULT_BATCH_BYTES.min(least_window)),
        linger_ms: findings
            .take(number(&keys.linger_ms, 0..=LINGER_MS_MAX))
            .unwrap_or(DEFAULT_LINGER_MS),
        window_bytes,
    })
}

fn from_flag(upstream: &str) -> Checked<Vec<HostPort>> {
    let brokers: Result<Vec<_>, _> = upstream.split(',').map(HostPort::parse).collect();
    let fault = |what| Fault::new(Origin::Flag("--upstream", upstream.to_owned()), what);
    let brokers = brokers.map_err(fault)?;
    if brokers.len() > BOOTSTRAP_MAX {
        return Err(fault(too_many()));
    }
    Ok(brokers)
}

fn from_file(raw: Option<&Spanned<RawUplink>>, keys: &RawUplink) -> Checked<Vec<HostPort>> {
    let example = "bootstrap = [\"kafka-1.example:9092\"]";
    let Some(list) = &keys.bootstrap else {
        let origin =
            raw.map_or(Origin::Default("uplink".to_owned()), |raw| Origin::File(raw.span()));
        return Err(Fault::new(
            origin,
            format!("needs a broker to connect to, for example {example}"),
        ));
    };
    if list.get_ref().is_empty() {
        return Err(Fault::at(list, format!("needs one broker or more, for example {example}")));
    }
    if list.get_ref().len() > BOOTSTRAP_MAX {
        return Err(Fault::at(list, too_many()));
    }
    let parsed = list
        .get_ref()
        .iter()
        .map(|broker| HostPort::parse(broker.get_ref()).map_err(|what| Fault::at(broker, what)));
    parsed.collect()
}

fn too_many() -> String {
    format!("more than {BOOTSTRAP_MAX} brokers; a few suffice, the others are found through them")
}

//! The effective configuration as a file: every value written out, so that it means the same on any machine.

use std::fmt::{self, Write as _};

use boards::units::{format_bytes, format_duration_ms};
use toml::Value;

use crate::{
    Config, Durability, FlashConfig, HeaderSelection, Lane, MqttConfig, ReserveConfig, Retention,
    Route, RouteTarget, StoreTarget, TimestampSource, TlsConfig, TopicSettings, UplinkConfig,
};

impl Config {
    /// A file that says in full what this configuration is; reading it gives the same configuration.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "gateway = {}", quoted(&self.gateway))?;
        writeln!(out, "data_dir = {}", quoted(&self.data_dir.display().to_string()))?;
        writeln!(out, "board = {}", quoted(&self.board.name))?;

        let mqtt = &self.mqtt;
        writeln!(out, "\n[mqtt]")?;
        writeln!(out, "listen = \"{}\"", mqtt.listen)?;
        for (key, address, port) in [
            ("tls_listen", mqtt.tls_listen, 8883),
            ("ws_listen", mqtt.ws_listen, 8083),
            ("wss_listen", mqtt.wss_listen, 8084),
        ] {
            match address {
                Some(address) => writeln!(out, "{key} = \"{address}\"")?,
                None => writeln!(out, "# {key} = \"0.0.0.0:{port}\"")?,
            }
        }
        writeln!(out, "max_packet_bytes = {}", bytes(mqtt.max_packet_bytes))?;
        writeln!(out, "max_connections = {}", mqtt.max_connections)?;
        write_limits(out, mqtt)?;
        let denied = if mqtt.denied_publish_v3_is_acknowledged { "ack" } else { "close" };
        writeln!(out, "denied_publish_v3 = \"{denied}\"")?;
        writeln!(out, "insecure_remote = {}", mqtt.insecure_remote)?;

        let kafka = &self.kafka;
        writeln!(out, "\n[kafka]")?;
        writeln!(out, "listen = \"{}\"", kafka.listen)?;
        match &kafka.advertised {
            Some(advertised) => writeln!(out, "advertised = \"{advertised}\"")?,
            None => writeln!(out, "# advertised: the address that the client connected to")?,
        }
        writeln!(out, "auto_create_topics = {}", kafka.auto_create_topics)?;
        writeln!(out, "default_partitions = {}", kafka.default_partitions)?;
        writeln!(out, "default_lane = {}", quoted(&kafka.default_lane))?;
        writeln!(out, "max_connections = {}", kafka.max_connections)?;
        writeln!(out, "max_request_bytes = {}", bytes(kafka.max_request_bytes))?;
        writeln!(out, "max_batch_bytes = {}", bytes(kafka.max_batch_bytes))?;
        writeln!(out, "insecure_remote = {}", kafka.insecure_remote)?;

        self.topics.iter().try_for_each(|topic| write_topic(out, topic))?;
        self.routes.iter().try_for_each(|route| write_route(out, route))?;
        self.lanes.iter().try_for_each(|lane| write_lane(out, lane))?;
        match &self.uplink {
            Some(uplink) => write_uplink(out, uplink)?,
            None => writeln!(out, "\n# no [uplink]: nothing is sent anywhere")?,
        }
        write_flash(out, &self.flash)?;
        write_tls(out, self.tls.as_ref())?;
        writeln!(out, "\n[auth]")?;
        writeln!(out, "file = {}", quoted(&self.auth.file.display().to_string()))?;
        writeln!(out, "anonymous = \"{}\"", self.auth.anonymous.as_str())?;
        writeln!(out, "\n[log]")?;
        writeln!(out, "format = \"{}\"", self.log.format.as_str())?;
        writeln!(out, "level = \"{}\"", self.log.level.as_str())
    }
}

fn write_topic(out: &mut String, topic: &TopicSettings) -> fmt::Result {
    writeln!(out, "\n[[topic]]")?;
    writeln!(out, "name = {}", quoted(&topic.name))?;
    writeln!(out, "lane = {}", quoted(&topic.lane))?;
    writeln!(out, "partitions = {}", topic.partitions)?;
    write_retention(out, topic.retention)?;
    if let Some(cleanup) = topic.cleanup {
        writeln!(out, "cleanup = \"{}\"", cleanup.as_str())?;
    }
    if let Some(size) = topic.max_message_bytes {
        writeln!(out, "max_message_bytes = {}", bytes(size))?;
    }
    if let Some(timestamps) = topic.timestamps {
        writeln!(out, "timestamps = \"{}\"", timestamps.as_str())?;
    }
    for (key, ms) in [
        ("delete_retention", topic.delete_retention_ms),
        ("timestamp_before_max", topic.timestamp_before_max_ms),
        ("timestamp_after_max", topic.timestamp_after_max_ms),
    ] {
        if let Some(ms) = ms {
            writeln!(out, "{key} = \"{}\"", format_duration_ms(ms))?;
        }
    }
    Ok(())
}

fn write_retention(out: &mut String, retention: Retention) -> fmt::Result {
    if let Some(ms) = retention.ms {
        writeln!(out, "retention = \"{}\"", format_duration_ms(ms))?;
    }
    if let Some(size) = retention.bytes {
        writeln!(out, "retention_bytes = {}", bytes(size))?;
    }
    Ok(())
}

fn write_route(out: &mut String, route: &Route) -> fmt::Result {
    writeln!(out, "\n[[route]]")?;
    writeln!(out, "filter = {}", quoted(&route.filter))?;
    match &route.target {
        RouteTarget::LiveOnly => writeln!(out, "store = false"),
        RouteTarget::Store(store) => write_store(out, store),
    }
}

fn write_store(out: &mut String, store: &StoreTarget) -> fmt::Result {
    writeln!(out, "topic = {}", quoted(&store.topic))?;
    writeln!(out, "key = {}", quoted(&store.key.to_string()))?;
    writeln!(out, "lane = {}", quoted(&store.lane))?;
    writeln!(out, "partitions = {}", store.partitions)?;
    if store.headers == HeaderSelection::ALL {
        writeln!(out, "headers = \"all\"")?;
    } else {
        let names: Vec<String> = store.headers.names().map(quoted).collect();
        writeln!(out, "headers = [{}]", names.join(", "))?;
    }
    match &store.timestamp {
        TimestampSource::Now => writeln!(out, "timestamp = \"now\""),
        TimestampSource::Field { path, unit } => writeln!(
            out,
            "timestamp = {{ field = {}, unit = \"{}\" }}",
            quoted(&path.join(".")),
            unit.as_str()
        ),
    }
}

fn write_lane(out: &mut String, lane: &Lane) -> fmt::Result {
    writeln!(out, "\n[lane.{}]", lane.name)?;
    writeln!(out, "budget = {}", bytes(lane.budget_bytes))?;
    writeln!(out, "segment = {}", bytes(lane.segment_bytes))?;
    writeln!(out, "when_full = \"{}\"", lane.when_full)?;
    writeln!(out, "drop_unsent = {}", lane.drop_unsent)?;
    match lane.decay {
        Some(decay) => writeln!(out, "decay = \"{decay}\"")?,
        None => writeln!(out, "# decay: old records go as they are")?,
    }
    match lane.refuse_after {
        Some(after) => {
            let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            writeln!(out, "refuse_after = \"{}\"", format_duration_ms(ms))?;
        }
        None => writeln!(out, "# refuse_after: publishes wait until there is room")?,
    }
    writeln!(out, "inflight_bytes = {}", bytes(lane.inflight_bytes))?;
    writeln!(out, "inflight_total_bytes = {}", bytes(lane.inflight_total_bytes))?;
    write_retention(out, lane.retention)?;
    match lane.durability {
        Durability::Sync => writeln!(out, "durability = \"sync\"")?,
        Durability::Interval { interval_ms } => {
            writeln!(out, "durability = \"interval\"")?;
            writeln!(out, "interval_ms = {interval_ms}")?;
        }
    }
    writeln!(out, "commit_window_ms = {}", lane.commit_window_ms)?;
    writeln!(out, "commit_window_max_ms = {}", lane.commit_window_max_ms)?;
    writeln!(out, "syncs_per_second = {}", lane.sync_allowance.per_second)?;
    writeln!(out, "sync_burst = {}", lane.sync_allowance.burst)?;
    writeln!(out, "compression = \"{}\"", lane.compression)?;
    writeln!(out, "queue_bytes = {}", bytes(lane.queue_bytes))
}

fn write_limits(out: &mut String, mqtt: &MqttConfig) -> fmt::Result {
    let limits = &mqtt.limits;
    writeln!(out, "max_connections_per_address = {}", limits.connections_per_address)?;
    writeln!(out, "max_connections_per_identity = {}", limits.connections_per_identity)?;
    writeln!(out, "connect_deadline = \"{}\"", format_duration_ms(limits.connect_deadline_ms))?;
    writeln!(out, "accept_rate = {}", limits.accept_per_second)?;
    writeln!(out, "max_handshakes = {}", limits.handshakes)?;
    writeln!(out, "ban_after = {}", limits.ban_after)?;
    writeln!(out, "ban = \"{}\"", format_duration_ms(limits.ban_ms))?;
    writeln!(out, "memory = {}", bytes(limits.memory_bytes))?;
    writeln!(out, "receive_maximum = {}", limits.receive_maximum)?;
    writeln!(out, "max_subscriptions = {}", limits.subscriptions)?;
    writeln!(out, "sys_interval = \"{}\"", format_duration_ms(mqtt.sys_interval_ms))?;
    let dead_letter = mqtt.dead_letter.as_deref().unwrap_or("off");
    writeln!(out, "dead_letter = {}", quoted(dead_letter))
}

fn write_tls(out: &mut String, tls: Option<&TlsConfig>) -> fmt::Result {
    let Some(tls) = tls else {
        return writeln!(out, "\n# no [tls]: no encrypted listener");
    };
    let path = |path: &std::path::Path| quoted(&path.display().to_string());
    writeln!(out, "\n[tls]")?;
    writeln!(out, "cert = {}", path(&tls.certificate))?;
    writeln!(out, "key = {}", path(&tls.key))?;
    match &tls.client_ca {
        Some(client_ca) => {
            writeln!(out, "client_ca = {}", path(client_ca))?;
            let required = if tls.client_certificate_required { "required" } else { "optional" };
            writeln!(out, "client_certificate = \"{required}\"")
        }
        None => writeln!(out, "# client_ca = \"FILE\"  who signs certificates of clients"),
    }
}

/// In makers' gigabytes.
const GB: u64 = 1_000_000_000;

fn write_flash(out: &mut String, flash: &FlashConfig) -> fmt::Result {
    let or_off = |size: Option<u64>, behind: &str| {
        size.map_or("\"off\"".to_owned(), |size| format!("\"{}{behind}\"", format_bytes(size)))
    };
    let some = |size: u64| (size > 0).then_some(size);
    writeln!(out, "\n[flash]")?;
    writeln!(out, "wear_budget = {}", or_off(flash.wear_bytes_per_day, "/day"))?;
    match flash.card_endurance_bytes {
        // As makers write it, if it is such a number.
        Some(endurance) if endurance.is_multiple_of(GB) => {
            writeln!(out, "card_endurance = \"{}GB\"", endurance / GB)?;
        }
        Some(endurance) => writeln!(out, "card_endurance = {}", bytes(endurance))?,
        None => writeln!(out, "# card_endurance = \"50TB\"  what the card's maker promises (TBW)")?,
    }
    writeln!(out, "scrub = {}", or_off(some(flash.scrub_bytes_per_s), "/s"))?;
    writeln!(out, "scrub_every = \"{}\"", format_duration_ms(flash.scrub_every_s * 1_000))?;
    match flash.reserve {
        ReserveConfig::Chosen(size) => writeln!(out, "reserve = {}", or_off(some(size), "")),
        ReserveConfig::Board(size) => {
            writeln!(out, "# reserve: {}, less on a small disk", format_bytes(size))
        }
    }
}

fn write_uplink(out: &mut String, uplink: &UplinkConfig) -> fmt::Result {
    let brokers: Vec<String> =
        uplink.bootstrap.iter().map(|broker| quoted(&broker.to_string())).collect();
    writeln!(out, "\n[uplink]")?;
    writeln!(out, "bootstrap = [{}]", brokers.join(", "))?;
    match &uplink.via {
        Some(via) => writeln!(out, "via = {}", quoted(&via.to_string()))?,
        None => {
            writeln!(out, "# via = \"HOST:PORT\"  reach every broker through one forwarded port")?
        }
    }
    writeln!(out, "topic = {}", quoted(uplink.topic.as_str()))?;
    writeln!(out, "create_topics = {}", uplink.create_topics)?;
    match uplink.partitions {
        Some(partitions) => writeln!(out, "partitions = {partitions}")?,
        None => writeln!(out, "# partitions: as many as here")?,
    }
    writeln!(out, "compression = \"{}\"", uplink.compression)?;
    writeln!(out, "batch_bytes = {}", bytes(uplink.batch_bytes))?;
    writeln!(out, "linger_ms = {}", uplink.linger_ms)?;
    writeln!(out, "window_bytes = {}", bytes(uplink.window_bytes))
}

fn bytes(size: impl Into<u64>) -> String {
    format!("\"{}\"", format_bytes(size.into()))
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

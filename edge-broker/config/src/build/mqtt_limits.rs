//! What MQTT clients may cost, under `[mqtt]`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use boards::Profile;
use boards::units::format_duration_ms;

use super::findings::Findings;
use super::listeners::CONNECTIONS_MAX;
use super::values::{Checked, number, size};
use crate::error::Fault;
use crate::raw::{Number, RawMqtt, Time};
use crate::{MqttLimits, names};

const DAY_MS: u64 = 86_400_000;
const DEAD_LETTER: &str = "edge.dead-letter";

pub(super) fn limits(raw: &RawMqtt, board: &Profile, findings: &mut Findings) -> MqttLimits {
    let connections = number(&raw.max_connections, 1..=CONNECTIONS_MAX).ok().flatten();
    // One client that goes wild leaves the other half to the others.
    let share = connections.unwrap_or(board.limits.mqtt_connections).div_ceil(2);
    let mut count =
        |raw: &Number, range, default| findings.take(number(raw, range)).unwrap_or(default);
    let connections_per_address =
        count(&raw.max_connections_per_address, 1..=CONNECTIONS_MAX, share);
    let connections_per_identity =
        count(&raw.max_connections_per_identity, 1..=CONNECTIONS_MAX, share);
    let accept_per_second = count(&raw.accept_rate, 0..=100_000, 1_000);
    let handshakes = count(&raw.max_handshakes, 1..=10_000, 64);
    let ban_after = count(&raw.ban_after, 0..=1_000_000, 20);
    let receive_maximum = count(&raw.receive_maximum, 1..=65_535, 256);
    let subscriptions = count(&raw.max_subscriptions, 1..=16_384, 256);
    MqttLimits {
        connections_per_address,
        connections_per_identity,
        accept_per_second,
        handshakes,
        ban_after,
        receive_maximum: u16::try_from(receive_maximum).unwrap_or(u16::MAX),
        subscriptions,
        connect_deadline_ms: findings
            .take(time(&raw.connect_deadline, 100..=60_000))
            .unwrap_or(5_000),
        ban_ms: findings.take(time(&raw.ban, 1_000..=60_000)).unwrap_or(60_000),
        memory_bytes: findings
            .take(size(&raw.memory, 1 << 20..=1 << 40))
            .unwrap_or(board.memory.total.0 / 4),
    }
}

pub(super) fn sys_interval_ms(raw: &RawMqtt, findings: &mut Findings) -> u64 {
    findings.take(time(&raw.sys_interval, 0..=DAY_MS)).unwrap_or(10_000)
}

/// `"off"`, or the name of a topic.
pub(super) fn dead_letter(raw: &RawMqtt, findings: &mut Findings) -> Option<Arc<str>> {
    let Some(name) = &raw.dead_letter else { return Some(Arc::from(DEAD_LETTER)) };
    if name.get_ref() == "off" {
        return None;
    }
    let checked = names::validate_topic_name(name.get_ref());
    let checked = checked.map(|()| Some(Arc::from(name.get_ref().as_str())));
    findings.take(checked.map_err(|error| Fault::at(name, error)))
}

fn time(raw: &Time, range: RangeInclusive<u64>) -> Checked<Option<u64>> {
    let Some(time) = raw else { return Ok(None) };
    let ms = time.get_ref().0;
    if range.contains(&ms) {
        return Ok(Some(ms));
    }
    let (least, most) = (format_duration_ms(*range.start()), format_duration_ms(*range.end()));
    Err(Fault::at(time, format!("must be from {least} to {most}")))
}

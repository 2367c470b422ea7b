//! Messages at a steady rate: for syncs a second and for latency, where a full window would lie.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use system_tests::mqtt::MqttClient;

/// Calls `send` `rate` times a second for `length`, and hands in between to `idle`.
///
/// Whoever falls behind catches up at once: messages keep the moments they were due at.
///
/// # Errors
/// Those of the two.
pub(crate) fn pace(
    rate: f64,
    length: Duration,
    mut send: impl FnMut(u64, Instant) -> Result<()>,
    mut idle: impl FnMut(Duration) -> Result<()>,
) -> Result<u64> {
    let began = Instant::now();
    let mut count = 0;
    loop {
        let due = began + Duration::from_secs_f64(count as f64 / rate);
        let now = Instant::now();
        if now.duration_since(began) >= length {
            return Ok(count);
        }
        if now >= due {
            send(count, due)?;
            count += 1;
        } else {
            idle(due - now)?;
        }
    }
}

/// Takes PUBACKs for as long as `within`; how many came.
///
/// # Errors
/// When something else comes.
pub(crate) fn take_pubacks(client: &mut MqttClient, within: Duration) -> Result<u64> {
    let deadline = Instant::now() + within;
    let mut count = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.receive(left).context("waiting for PUBACKs")? {
            Some(packet) => ensure!(packet.kind() == 4, "expected a PUBACK, got {packet:?}"),
            None => return Ok(count),
        }
        count += 1;
    }
}

//! One client that sends a message when the one before was acknowledged: how long a PUBACK takes, beside the bare write
//! and fdatasync of as many bytes on the same disk.
//!
//! Bound: the median at most 1.3 times that of the bare write and sync, or 100 us more, whichever is larger.

use std::time::{Duration, Instant};

use anyhow::Result;
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};
use system_tests::telemetry::Telemetry;

use crate::bare_loop::Disk;
use crate::ingest::{bench_folder, start_gateway};

/// What a frame with one message takes, its padding included.
const FRAME_BYTES: usize = 512;
const ALLOWED_MORE: Duration = Duration::from_micros(100);

/// Medians.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lone {
    pub(crate) raw: Duration,
    pub(crate) puback: Duration,
}

impl Lone {
    /// What the median may be at most.
    pub(crate) fn bound(&self) -> Duration {
        self.raw.mul_f64(1.3).max(self.raw + ALLOWED_MORE)
    }
}

/// Measures both in turn, for so long each.
pub(crate) fn measure(length: Duration) -> Result<Lone> {
    let (mut raw, mut pubacks) = (Vec::new(), Vec::new());
    let path = bench_folder()?.join(format!("lone-{}", std::process::id()));
    let mut disk = Disk::create(&path)?;
    let gateway = start_gateway(None)?;
    let options = ConnectOptions::new(Version::V311, "lone");
    let mut client = MqttClient::connect(gateway.mqtt_address(), &options)?;
    let mut telemetry = Telemetry::new(1, 1);
    let mut payload = Vec::new();
    let block = [7; FRAME_BYTES];
    let began = Instant::now();
    // In turn, so that a disk that is slow for a second is so for both.
    while began.elapsed() < length * 2 {
        for _ in 0..50 {
            let began = Instant::now();
            disk.write(&block)?;
            raw.push(began.elapsed());
        }
        for _ in 0..50 {
            payload.clear();
            telemetry.compact(&mut payload);
            let began = Instant::now();
            client.publish_and_wait("bench/lone", &payload)?;
            pubacks.push(began.elapsed());
        }
    }
    std::fs::remove_file(&path)?;
    Ok(Lone { raw: median(raw), puback: median(pubacks) })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

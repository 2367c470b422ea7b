//! `$SYS`: what people's tools look for, under Mosquitto's names.
//!
//! Made while somebody subscribes to it: every [`sys_interval`](crate::MqttOptions::sys_interval), and within a second of a
//! change of subscriptions, since nothing is retained here. Who may get it is up to the access rules, as for any topic.
//! `messages` are PUBLISH packets. Load averages are a minute's worth, as there, weighted over 1, 5 and 15 minutes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use edge_mqtt::{Message, Publish, Qos};

use crate::registry::fan_out;
use crate::shared::Shared;
use crate::stats::{IngestStats, count};

const LOAD_MINUTES: [u64; 3] = [1, 5, 15];

/// What load averages are kept of.
const LOADS: [&str; 6] = [
    "messages/received",
    "messages/sent",
    "bytes/received",
    "bytes/sent",
    "connections",
    "publish/dropped",
];

pub(crate) struct SysTopics {
    started: Instant,
    /// Of the counters of `LOADS`, at the last look.
    before: [u64; LOADS.len()],
    looked_at: Instant,
    loads: [[f64; LOAD_MINUTES.len()]; LOADS.len()],
    clients_max: u64,
    due_at: Instant,
    subscriptions_of: u64,
    arena: BytesMut,
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn received(stats: &IngestStats) -> u64 {
    load(&stats.publishes_qos0) + load(&stats.publishes_qos1) + load(&stats.publishes_qos2)
}

impl SysTopics {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            before: [0; LOADS.len()],
            looked_at: now,
            loads: [[0.0; LOAD_MINUTES.len()]; LOADS.len()],
            clients_max: 0,
            due_at: now,
            subscriptions_of: 0,
            arena: BytesMut::new(),
        }
    }

    /// Call once a second.
    pub(crate) fn tick(&mut self, shared: &Shared, now: Instant) {
        let every = shared.options.sys_interval;
        if every.is_zero() {
            return;
        }
        self.clients_max = self.clients_max.max(load(&shared.stats.connections_open));
        let is_due = now >= self.due_at;
        if is_due {
            self.due_at = now + every;
            self.look(&shared.stats, now);
        }
        let generation = shared.registry.generation();
        let has_changed = std::mem::replace(&mut self.subscriptions_of, generation) != generation;
        if generation != 0 && (is_due || has_changed) {
            self.publish(shared, now);
        }
    }

    /// Moves the load averages on.
    fn look(&mut self, stats: &IngestStats, now: Instant) {
        let counts = [
            received(stats),
            load(&stats.deliveries),
            load(&stats.bytes_received),
            load(&stats.bytes_sent),
            load(&stats.connections_accepted),
            load(&stats.deliveries_dropped),
        ];
        let passed = now.duration_since(self.looked_at).max(Duration::from_millis(1));
        for ((count, before), loads) in counts.iter().zip(self.before).zip(&mut self.loads) {
            #[expect(clippy::cast_precision_loss, reason = "an average")]
            let a_minute = count.saturating_sub(before) as f64 * 60.0 / passed.as_secs_f64();
            for (minutes, load) in LOAD_MINUTES.iter().zip(loads) {
                let kept = (-passed.as_secs_f64() / (60 * minutes) as f64).exp();
                *load = *load * kept + a_minute * (1.0 - kept);
            }
        }
        self.before = counts;
        self.looked_at = now;
    }

    fn publish(&mut self, shared: &Shared, now: Instant) {
        let access = shared.options.access.get();
        let (mut taken, mut dropped) = (0, 0);
        let arena = &mut self.arena;
        let mut put = |name: &str, value: String| {
            let topic = format!("$SYS/broker/{name}");
            let recipients = shared.registry.recipients(&topic, None, &access);
            if recipients.is_empty() {
                return;
            }
            let publish = Publish {
                dup: false,
                qos: Qos::AtMostOnce,
                retain: false,
                topic: &topic,
                packet_id: None,
                topic_alias: None,
                properties_raw: &[],
                expiry_s: None,
                payload: value.as_bytes(),
            };
            let (more_taken, more_dropped) =
                fan_out(&Message::copy(&publish, now, arena), &recipients);
            taken += more_taken;
            dropped += more_dropped;
        };
        let stats = &shared.stats;
        let open = load(&stats.connections_open);
        let subscriptions = shared.registry.subscription_count();
        put("version", format!("edge-broker version {}", env!("CARGO_PKG_VERSION")));
        put("uptime", format!("{} seconds", now.duration_since(self.started).as_secs()));
        for (name, value) in [
            ("clients/connected", open),
            ("clients/active", open),
            ("clients/total", open),
            ("clients/maximum", self.clients_max),
            ("clients/disconnected", 0),
            ("clients/inactive", 0),
            ("messages/received", received(stats)),
            ("messages/sent", load(&stats.deliveries)),
            ("publish/messages/received", received(stats)),
            ("publish/messages/sent", load(&stats.deliveries)),
            ("publish/messages/dropped", load(&stats.deliveries_dropped)),
            ("publish/bytes/received", load(&stats.payload_bytes)),
            ("bytes/received", load(&stats.bytes_received)),
            ("bytes/sent", load(&stats.bytes_sent)),
            ("subscriptions/count", subscriptions as u64),
            ("retained messages/count", shared.retained.count() as u64),
        ] {
            put(name, value.to_string());
        }
        for (what, loads) in LOADS.iter().zip(&self.loads) {
            for (minutes, load) in LOAD_MINUTES.iter().zip(loads) {
                put(&format!("load/{what}/{minutes}min"), format!("{load:.2}"));
            }
        }
        count(&stats.deliveries, taken);
        count(&stats.deliveries_dropped, dropped);
    }
}

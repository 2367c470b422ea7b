//! Load that keeps books: QoS 1 clients that survive the broker's death and never resend.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ledger::{self, Ledger};
use crate::mqtt::{ConnectOptions, MqttClient, Version, put_publish};
use crate::telemetry::Telemetry;

/// What a load is.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The broker.
    pub address: SocketAddr,
    /// How many clients; every second one speaks MQTT 5.
    pub clients: usize,
    /// Messages in flight for each client.
    pub window: usize,
    /// Messages a second for each client; without it as many as are acknowledged.
    pub rate: Option<u32>,
    /// Before the client's name in its MQTT topic, with a slash at the end.
    pub topic_prefix: String,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Result<Ledger>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acked: AtomicU64,
}

impl Load {
    /// Starts every client. They connect again, for as long as it takes, whenever they are cut off.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(plan: LoadPlan) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let clients = (0..plan.clients)
            .map(|index| {
                let (plan, shared) = (plan.clone(), Arc::clone(&shared));
                let thread = std::thread::Builder::new().name(format!("load-{index}"));
                Ok(thread.spawn(move || Client::new(plan, index, shared).run())?)
            })
            .collect::<Result<_>>()?;
        Ok(Self { shared, clients })
    }

    /// Messages whose PUBACK was seen, all clients together.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until `more` further messages were acknowledged.
    ///
    /// # Errors
    /// When that takes longer than `within`, or a client has found a fault.
    pub fn wait_for_acks(&self, more: u64, within: Duration) -> Result<()> {
        let goal = self.acked() + more;
        let deadline = Instant::now() + within;
        while self.acked() < goal {
            if self.clients.iter().any(JoinHandle::is_finished) {
                bail!("a load client ended; stop the load to learn why");
            }
            if Instant::now() >= deadline {
                bail!("{} of {goal} PUBACKs after {within:?}", self.acked());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Stops sending, waits for what is in flight while the broker is there, and closes the books.
    ///
    /// # Errors
    /// When a client saw an answer that the standard forbids.
    pub fn finish(self) -> Result<Vec<Ledger>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .map(|client| match client.join() {
                Ok(ledger) => ledger,
                Err(_) => bail!("a load client panicked"),
            })
            .collect()
    }
}

struct Client {
    plan: LoadPlan,
    shared: Arc<Shared>,
    options: ConnectOptions,
    topic: String,
    ledger: Ledger,
    telemetry: Telemetry,
    started: Instant,
}

impl Client {
    fn new(plan: LoadPlan, index: usize, shared: Arc<Shared>) -> Self {
        let name = format!("c{index}");
        let version = Version::BOTH[index % 2];
        Self {
            options: ConnectOptions::new(version, &name),
            topic: format!("{}{name}", plan.topic_prefix),
            ledger: Ledger { client: name, ..Ledger::default() },
            telemetry: Telemetry::new(1, index as u64),
            started: Instant::now(),
            plan,
            shared,
        }
    }

    fn run(mut self) -> Result<Ledger> {
        while !self.stopping() {
            let Ok(mqtt) = MqttClient::connect(self.plan.address, &self.options) else {
                // The broker is down; the test starts it again.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            self.use_connection(mqtt)?;
        }
        Ok(self.ledger)
    }

    /// Publishes until the connection or the load ends. Only a broken promise is an error.
    fn use_connection(&mut self, mut mqtt: MqttClient) -> Result<()> {
        let mut in_flight: VecDeque<(u16, u64)> = VecDeque::new();
        let mut next_id = 1_u16;
        let mut bytes = Vec::new();
        let mut drain_until = None;
        loop {
            if self.stopping() {
                let deadline =
                    *drain_until.get_or_insert_with(|| Instant::now() + Duration::from_secs(10));
                if in_flight.is_empty() || Instant::now() > deadline {
                    return Ok(());
                }
            } else {
                bytes.clear();
                while in_flight.len() < self.plan.window && self.is_due() {
                    let number = self.ledger.sent;
                    self.ledger.sent += 1;
                    let reading = self.telemetry.reading();
                    let payload = ledger::payload(&self.ledger.client, number, &reading.payload);
                    put_publish(
                        &mut bytes,
                        self.options.version,
                        self.topic.as_bytes(),
                        payload.as_bytes(),
                        Some(next_id),
                        false,
                    );
                    in_flight.push_back((next_id, number));
                    next_id = next_id.checked_add(1).unwrap_or(1);
                }
                if mqtt.send(&bytes).is_err() {
                    return Ok(());
                }
            }
            let patience = if self.plan.rate.is_some() { 2 } else { 50 };
            let mut patience = Duration::from_millis(patience);
            loop {
                match mqtt.receive(patience) {
                    Ok(Some(packet)) => self.book(&packet, &mut in_flight)?,
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
                // The rest of what has come already, and then the next window.
                patience = Duration::ZERO;
                if in_flight.is_empty() {
                    break;
                }
            }
        }
    }

    fn book(
        &mut self,
        packet: &crate::mqtt::Incoming,
        in_flight: &mut VecDeque<(u16, u64)>,
    ) -> Result<()> {
        match packet.kind() {
            4 => {}
            // The broker says that it is going.
            14 => return Ok(()),
            _ => bail!("{}: unexpected {packet:?}", self.ledger.client),
        }
        let (id, number) = in_flight.pop_front().context("a PUBACK for nothing")?;
        // PUBACKs come in the order of their PUBLISHes: MQTT 3.1.1 and 5.0, [MQTT-4.6.0-2].
        if packet.packet_id() != id {
            bail!("{}: PUBACK {} where {id} was next", self.ledger.client, packet.packet_id());
        }
        if packet.reason() < 0x80 {
            self.ledger.acked.push(number);
            self.shared.acked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let Some(rate) = self.plan.rate else { return true };
        self.ledger.sent as f64 <= self.started.elapsed().as_secs_f64() * f64::from(rate)
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

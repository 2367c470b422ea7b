//! The load of one cycle: QoS 1 publishers and Kafka producers that keep books and never resend.
//!
//! It goes on until the gateway is gone. Publishers have windows from 1 to 64, producers one batch in flight.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use edge_wire::Compression;
use system_tests::mqtt::{ConnectOptions, Incoming, MqttClient, Version, put_publish};
use system_tests::random::Random;

use crate::books::{Books, Partition, Read, Source, value};
use crate::kafka::{Kafka, batch};
use crate::variation::{ORDERS, TOPICS};

/// Messages in flight of each publisher.
const WINDOWS: [usize; 6] = [1, 4, 16, 16, 64, 64];
/// Of a publisher's sources, by topic: three streams of telemetry and one of alarms.
const SOURCES_OF_PUBLISHER: [usize; 4] = [0, 0, 0, 1];
const PRODUCERS: u32 = 2;
const BATCH_RECORDS_MAX: u64 = 40;

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Result<Account>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acked: AtomicU64,
}

/// What a client hands back.
#[derive(Debug, Default)]
struct Account {
    sources: Vec<(u32, Source)>,
    /// Where acknowledgements said that records are.
    told: BTreeMap<Partition, Vec<Read>>,
}

/// The sources of all clients, made once for a log.
pub fn add_sources(books: &mut Books) {
    for _ in WINDOWS {
        for topic in SOURCES_OF_PUBLISHER {
            books.add_source(topic);
        }
    }
    for _ in 0..PRODUCERS {
        books.add_source(ORDERS);
    }
}

impl Load {
    /// Starts all clients, on the sources that [`add_sources`] made.
    ///
    /// # Errors
    /// The gateway cannot be connected to.
    pub fn start(mqtt: SocketAddr, kafka: SocketAddr, books: &Books, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut clients = Vec::new();
        let mut numbered = (0..).zip(books.sources.iter().cloned());
        for (index, window) in WINDOWS.into_iter().enumerate() {
            let options = ConnectOptions::new(Version::BOTH[index % 2], &format!("c{index}"));
            let publisher = Publisher {
                mqtt: MqttClient::connect(mqtt, &options)?,
                version: options.version,
                window,
                sources: numbered.by_ref().take(SOURCES_OF_PUBLISHER.len()).collect(),
                incompressible: books.incompressible(),
                shared: Arc::clone(&shared),
            };
            clients.push(spawn(move || publisher.run())?);
        }
        for index in 0..PRODUCERS {
            let producer = Producer {
                kafka: Kafka::connect(kafka)?,
                partition: index,
                sources: numbered.by_ref().take(1).collect(),
                incompressible: books.incompressible(),
                random: Random::seeded(seed ^ u64::from(index)),
                shared: Arc::clone(&shared),
            };
            clients.push(spawn(move || producer.run())?);
        }
        Ok(Self { shared, clients })
    }

    /// Records acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Whether a client has ended.
    pub fn has_ended(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }

    /// Stops sending and enters the accounts into the books. The gateway is gone, or answers what is in flight.
    ///
    /// # Errors
    /// A client saw an answer that it must not see.
    pub fn finish(self, books: &mut Books) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            let Ok(account) = client.join() else { bail!("a client panicked") };
            let account = account?;
            for (number, source) in account.sources {
                books.sources[number as usize] = source;
            }
            books.add_read(account.told);
        }
        Ok(self.shared.acked.load(Ordering::Relaxed))
    }
}

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Ok(std::thread::Builder::new().name("client".to_owned()).spawn(body)?)
}

struct Publisher {
    mqtt: MqttClient,
    version: Version,
    window: usize,
    sources: Vec<(u32, Source)>,
    incompressible: bool,
    shared: Arc<Shared>,
}

impl Publisher {
    fn run(mut self) -> Result<Account> {
        let mut in_flight = VecDeque::new();
        let mut next_id = 1_u16;
        let mut turn = 0;
        let mut bytes = Vec::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            bytes.clear();
            while in_flight.len() < self.window {
                let index = turn % self.sources.len();
                turn += 1;
                let (source, account) = &mut self.sources[index];
                let number = account.sent;
                account.sent += 1;
                let first = if account.topic == 0 { "plant" } else { "alarm" };
                let topic = format!("{first}/s{source}");
                let payload = value(*source, number, self.incompressible);
                let id = Some(next_id);
                put_publish(&mut bytes, self.version, topic.as_bytes(), &payload, id, false);
                in_flight.push_back((next_id, index, number));
                next_id = next_id.checked_add(1).unwrap_or(1);
            }
            // An end of the connection is the end of the gateway: this cycle's.
            if self.mqtt.send(&bytes).is_err() || self.receive(&mut in_flight)?.is_none() {
                break;
            }
        }
        Ok(Account { sources: self.sources, told: BTreeMap::new() })
    }

    /// What has come, after a short wait; `None` at the end of the connection.
    fn receive(&mut self, in_flight: &mut VecDeque<(u16, usize, u64)>) -> Result<Option<()>> {
        let mut patience = Duration::from_millis(20);
        while !in_flight.is_empty() {
            match self.mqtt.receive(patience) {
                Ok(Some(packet)) => self.book(&packet, in_flight)?,
                Ok(None) => break,
                Err(_) => return Ok(None),
            }
            patience = Duration::ZERO;
        }
        Ok(Some(()))
    }

    fn book(
        &mut self,
        packet: &Incoming,
        in_flight: &mut VecDeque<(u16, usize, u64)>,
    ) -> Result<()> {
        match packet.kind() {
            4 => {}
            // The gateway says that it is going.
            14 => return Ok(()),
            _ => bail!("unexpected {packet:?}"),
        }
        let (id, index, number) = in_flight.pop_front().context("a PUBACK for nothing")?;
        // In the order of the publishes: MQTT 3.1.1 and 5.0, [MQTT-4.6.0-2].
        if packet.packet_id() != id {
            bail!("PUBACK {} where {id} was next", packet.packet_id());
        }
        if packet.reason() < 0x80 {
            self.sources[index].1.acked.push(number);
            self.shared.acked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

struct Producer {
    kafka: Kafka,
    partition: u32,
    sources: Vec<(u32, Source)>,
    incompressible: bool,
    random: Random,
    shared: Arc<Shared>,
}

impl Producer {
    fn run(mut self) -> Result<Account> {
        let mut account = Account::default();
        let (source, books) = self.sources.first_mut().context("a producer has a source")?;
        let known = account.told.entry((ORDERS, self.partition)).or_default();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let first = books.sent;
            books.sent += 1 + self.random.below(BATCH_RECORDS_MAX);
            let numbers = first..books.sent;
            let values: Vec<Vec<u8>> =
                numbers.clone().map(|number| value(*source, number, self.incompressible)).collect();
            let codec = [Compression::None, Compression::Zstd, Compression::Lz4];
            let codec = codec[self.random.below(codec.len() as u64) as usize];
            let bytes = batch(&values, now_ms(), codec)?;
            match self.kafka.produce(TOPICS[ORDERS].0, self.partition, &bytes) {
                Ok((0, Some(base))) => {
                    books.acked.extend(numbers.clone());
                    known.extend((base..).zip(numbers.clone()).map(|(offset, number)| Read {
                        offset,
                        source: *source,
                        number,
                    }));
                    let records = numbers.end - numbers.start;
                    self.shared.acked.fetch_add(records, Ordering::Relaxed);
                }
                // Not acknowledged, or the gateway is gone.
                Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => break,
            }
        }
        account.sources = self.sources;
        Ok(account)
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64
}

//! Many MQTT clients at a steady rate in all, QoS 1: how long each PUBACK takes from the moment its message was due.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use system_tests::mqtt::{Version, connect_frame, put_publish};

const PUBACK_BYTES: usize = 4;
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// What is published next, by whom.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) client: usize,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// Clients that are connected.
#[derive(Debug)]
pub(crate) struct Fleet {
    clients: Vec<Client>,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    next_id: u16,
    in_flight: VecDeque<(u16, Instant)>,
    inbox: Vec<u8>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    /// Messages sent; every one was acknowledged.
    pub(crate) messages: u64,
    /// Bytes of their payloads.
    pub(crate) payload_bytes: u64,
    /// From due to the last PUBACK.
    pub(crate) elapsed: Duration,
    latencies_us: Vec<u32>,
}

impl Paced {
    /// The latency that `percent` of the messages stayed within.
    pub(crate) fn latency(&mut self, percent: f64) -> Duration {
        if self.latencies_us.is_empty() {
            return Duration::ZERO;
        }
        self.latencies_us.sort_unstable();
        let at = (self.latencies_us.len() as f64 * percent / 100.0) as usize;
        Duration::from_micros(u64::from(self.latencies_us[at.min(self.latencies_us.len() - 1)]))
    }

    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Adds a run that came after this one.
    pub(crate) fn add(&mut self, later: Self) {
        self.messages += later.messages;
        self.payload_bytes += later.payload_bytes;
        self.elapsed += later.elapsed;
        self.latencies_us.extend(later.latencies_us);
    }

    pub(crate) fn note(&mut self, payload_bytes: usize) {
        self.messages += 1;
        self.payload_bytes += payload_bytes as u64;
    }

    pub(crate) fn note_latency(&mut self, due: Instant, now: Instant) {
        let us = now.saturating_duration_since(due).as_micros();
        self.latencies_us.push(u32::try_from(us).unwrap_or(u32::MAX));
    }
}

impl Fleet {
    /// Connects so many clients, `name(index)` each.
    ///
    /// # Errors
    /// When one is refused.
    pub(crate) fn connect(
        address: SocketAddr,
        count: usize,
        name: impl Fn(usize) -> String,
    ) -> Result<Self> {
        let clients = (0..count).map(|index| Client::connect(address, &name(index)));
        Ok(Self { clients: clients.collect::<Result<_>>()?, frame: Vec::new() })
    }

    /// Publishes `rate` messages a second for `length` and waits for every PUBACK. Whoever falls behind catches up
    /// at once.
    ///
    /// # Errors
    /// When a connection breaks, or something but the PUBACK that is next comes.
    pub(crate) fn publish(
        &mut self,
        rate: f64,
        length: Duration,
        next: &mut dyn FnMut(u64, &mut Message),
    ) -> Result<Paced> {
        let (began, mut result) = (Instant::now(), Paced::default());
        let mut message = Message::default();
        loop {
            let due = began + Duration::from_secs_f64(result.messages as f64 / rate);
            let now = Instant::now();
            if due.duration_since(began) >= length {
                break;
            }
            if now < due {
                self.take(due - now, &mut result)?;
                continue;
            }
            next(result.messages, &mut message);
            self.frame.clear();
            let client = &mut self.clients[message.client];
            let id = client.next_id;
            client.next_id = id.checked_add(1).unwrap_or(1);
            let (topic, payload) = (message.topic.as_bytes(), &message.payload);
            put_publish(&mut self.frame, Version::V311, topic, payload, Some(id), false);
            client.in_flight.push_back((id, due));
            client.stream.write_all(&self.frame).context("the broker closed a connection")?;
            result.note(message.payload.len());
        }
        let deadline = Instant::now() + DRAIN_WITHIN;
        while self.clients.iter().any(|client| !client.in_flight.is_empty()) {
            ensure!(Instant::now() < deadline, "PUBACKs are missing after {DRAIN_WITHIN:?}");
            self.take(Duration::from_millis(50), &mut result)?;
        }
        result.elapsed = began.elapsed();
        Ok(result)
    }

    /// Takes what comes within a time.
    fn take(&mut self, within: Duration, result: &mut Paced) -> Result<()> {
        let timeout = Timespec::try_from(within).context("a timeout that the kernel can count")?;
        let mut fds: Vec<PollFd<'_>> =
            self.clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let now = Instant::now();
        for (client, _) in self.clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.take(now, result)?;
        }
        Ok(())
    }
}

impl Client {
    fn connect(address: SocketAddr, name: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(&connect_frame(Version::V311, name, true, 0))?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).context("no CONNACK")?;
        ensure!(connack == [0x20, 2, 0, 0], "refused: {connack:?}");
        Ok(Self { stream, next_id: 1, in_flight: VecDeque::new(), inbox: Vec::new() })
    }

    fn take(&mut self, now: Instant, result: &mut Paced) -> Result<()> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => bail!("the broker closed a connection"),
            Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        let whole = self.inbox.len() / PUBACK_BYTES * PUBACK_BYTES;
        for puback in self.inbox[..whole].chunks(PUBACK_BYTES) {
            let (id, due) = self.in_flight.pop_front().context("a PUBACK for nothing")?;
            let [high, low] = id.to_be_bytes();
            ensure!(puback == [0x40, 2, high, low], "expected the PUBACK of {id}: {puback:?}");
            result.note_latency(due, now);
        }
        self.inbox.drain(..whole);
        Ok(())
    }
}

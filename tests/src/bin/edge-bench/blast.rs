//! As many QoS 1 messages as a broker takes: the load generator.
//!
//! A few threads own a share of the connections each, all nonblocking behind poll(2). Frames are
//! encoded before the clock starts, [`RING`] different ones for each connection, and written in
//! runs: one write for whatever the window has room for, one read for whatever was acknowledged.
//! PUBACKs of MQTT 3.1.1 are four bytes, so that they are counted by dividing. A connection's
//! ring comes round only after all others have sent as many, far beyond any compression window.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use system_tests::mqtt::{Version, connect_frame, put_publish};
use system_tests::process::{Usage, usage_of};
use system_tests::telemetry::Telemetry;

/// Different messages of each connection.
const RING: usize = 2_048;
const PUBACK_BYTES: usize = 4;
const TICK: Duration = Duration::from_millis(20);

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct BlastPlan {
    /// The broker.
    pub(crate) address: SocketAddr,
    /// Connections.
    pub(crate) connections: usize,
    /// Topics, dealt out to the connections, which publish to theirs in turn. At least one each.
    pub(crate) topics: Vec<String>,
    /// What is in a message.
    pub(crate) payload: Payload,
    /// The end, if it comes before the time is over.
    pub(crate) messages_max: Option<u64>,
    /// Unacknowledged messages of each connection.
    pub(crate) window: usize,
    /// Threads of the generator.
    pub(crate) threads: usize,
    /// Time before the measurement begins.
    pub(crate) warm_up: Duration,
    /// Time of the measurement.
    pub(crate) measure: Duration,
}

/// What is in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// A reading of about 100 bytes.
    Compact,
    /// A reading of about 207 bytes.
    Reading,
    /// Readings of at least so many bytes together.
    Readings(usize),
}

/// What came of it, within the time of the measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlastResult {
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Time measured.
    pub(crate) elapsed: Duration,
    /// Mean payload.
    pub(crate) payload_bytes_mean: f64,
    /// CPU time of the broker.
    pub(crate) broker_cpu: Duration,
    /// CPU time of the generator.
    pub(crate) own_cpu: Duration,
    /// The broker at the end.
    pub(crate) broker: Usage,
    /// Messages acknowledged from the first to the last, warm-up included.
    pub(crate) acked_in_all: u64,
}

impl Payload {
    fn put(self, telemetry: &mut Telemetry, out: &mut Vec<u8>) {
        match self {
            Self::Compact => {
                telemetry.compact(out);
            }
            Self::Reading => out.extend_from_slice(telemetry.reading().payload.as_bytes()),
            Self::Readings(bytes) => {
                while out.len() < bytes {
                    Self::Reading.put(telemetry, out);
                }
            }
        }
    }
}

impl BlastResult {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.acked as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU seconds of the broker for a million messages.
    pub(crate) fn cpu_seconds_per_million(&self) -> f64 {
        self.broker_cpu.as_secs_f64() * 1e6 / self.acked.max(1) as f64
    }
}

/// Sends until the time is over.
///
/// # Errors
/// When a connection breaks or an answer is not a PUBACK.
pub(crate) fn blast(plan: &BlastPlan, broker_pid: u32) -> Result<BlastResult> {
    ensure!(plan.window > 0 && plan.window < RING, "a window from 1 to {RING}");
    let stop = Arc::new(AtomicBool::new(false));
    let mut lanes: Vec<Vec<Lane>> = (0..plan.threads.max(1)).map(|_| Vec::new()).collect();
    let mut payload_bytes = 0;
    for index in 0..plan.connections {
        let ring = Ring::new(index, plan)?;
        payload_bytes += ring.payload_bytes;
        let at = index % lanes.len();
        lanes[at].push(Lane::connect(plan, index, ring)?);
    }
    let counters: Vec<Arc<AtomicU64>> = lanes.iter().map(|_| Arc::default()).collect();
    let mut threads = Vec::new();
    for (lanes, counter) in lanes.into_iter().zip(&counters) {
        let (stop, counter) = (Arc::clone(&stop), Arc::clone(counter));
        threads.push(thread::spawn(move || drive(lanes, &stop, &counter)));
    }
    let acked = || counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum::<u64>();

    thread::sleep(plan.warm_up);
    let (first, began) = (acked(), Instant::now());
    let (broker_first, own_first) = (usage_of(broker_pid)?, own_usage()?);
    let deadline = began + plan.measure;
    let enough = |acked: u64| plan.messages_max.is_some_and(|max| acked >= max);
    while Instant::now() < deadline && !enough(acked()) {
        thread::sleep(deadline.saturating_duration_since(Instant::now()).min(TICK));
    }
    let (last, elapsed) = (acked(), began.elapsed());
    let (broker, own) = (usage_of(broker_pid)?, own_usage()?);

    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        match thread.join() {
            Ok(outcome) => outcome?,
            Err(_) => bail!("a thread of the load generator panicked"),
        }
    }
    Ok(BlastResult {
        acked: last - first,
        elapsed,
        payload_bytes_mean: payload_bytes as f64 / (plan.connections * RING) as f64,
        broker_cpu: broker.cpu.saturating_sub(broker_first.cpu),
        own_cpu: own.cpu.saturating_sub(own_first.cpu),
        broker,
        acked_in_all: acked(),
    })
}

fn own_usage() -> Result<Usage> {
    usage_of(std::process::id())
}

/// The frames of one connection, one after the other.
struct Ring {
    bytes: Vec<u8>,
    /// Where frame n begins; one more for the end of the last.
    starts: Vec<usize>,
    payload_bytes: usize,
}

impl Ring {
    fn new(index: usize, plan: &BlastPlan) -> Result<Self> {
        let mut telemetry = Telemetry::new(1, index as u64);
        let mut topics: Vec<&str> =
            plan.topics.iter().skip(index).step_by(plan.connections).map(String::as_str).collect();
        if topics.is_empty() {
            topics = plan.topics.first().map(String::as_str).into_iter().collect();
        }
        ensure!((1..=RING).contains(&topics.len()), "{} topics on a connection", topics.len());
        let mut ring = Self { bytes: Vec::new(), starts: vec![0], payload_bytes: 0 };
        let mut payload = Vec::new();
        for frame in 0..RING {
            payload.clear();
            plan.payload.put(&mut telemetry, &mut payload);
            ring.payload_bytes += payload.len();
            let id = Some(frame as u16 + 1);
            let topic = topics[frame % topics.len()].as_bytes();
            put_publish(&mut ring.bytes, Version::V311, topic, &payload, id, false);
            ring.starts.push(ring.bytes.len());
        }
        Ok(ring)
    }
}

/// One connection.
struct Lane {
    stream: TcpStream,
    ring: Ring,
    window: usize,
    in_flight: usize,
    /// The next frame to give to the socket's run.
    next_frame: usize,
    /// Bytes of the ring that are still to be written: from, and how many.
    write_from: usize,
    write_left: usize,
    /// Bytes of a PUBACK that came in part.
    partial: usize,
}

impl Lane {
    fn connect(plan: &BlastPlan, index: usize, ring: Ring) -> Result<Self> {
        let mut stream = TcpStream::connect(plan.address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&connect_frame(Version::V311, &format!("blast-{index}"), true, 0))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        ensure!(answer == [0x20, 2, 0, 0], "CONNACK {answer:?}");
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            ring,
            window: plan.window,
            in_flight: 0,
            next_frame: 0,
            write_from: 0,
            write_left: 0,
            partial: 0,
        })
    }

    /// Fills the window and writes what the socket takes.
    fn send(&mut self) -> Result<()> {
        // Half a window at a time: a broker that acknowledges one by one is not answered one by
        // one, which would cost it (and us) a system call for each message.
        if self.write_left == 0 && self.in_flight > self.window / 2 {
            return Ok(());
        }
        while self.in_flight < self.window {
            let frames = (self.window - self.in_flight).min(RING - self.next_frame);
            let end = self.next_frame + frames;
            self.write_left += self.ring.starts[end] - self.ring.starts[self.next_frame];
            self.next_frame = end % RING;
            self.in_flight += frames;
        }
        while self.write_left > 0 {
            let run = self.write_left.min(self.ring.bytes.len() - self.write_from);
            match self.stream.write(&self.ring.bytes[self.write_from..self.write_from + run]) {
                Ok(count) => {
                    self.write_left -= count;
                    self.write_from = (self.write_from + count) % self.ring.bytes.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("writing to the broker"),
            }
        }
        Ok(())
    }

    /// Reads what has come; how many messages that acknowledges.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<u64> {
        let count = match self.stream.read(buffer) {
            Ok(0) => bail!("the broker closed a connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error).context("reading from the broker"),
        };
        let first_whole = (PUBACK_BYTES - self.partial) % PUBACK_BYTES;
        if let Some(&first) = buffer[..count].get(first_whole) {
            ensure!(first == 0x40, "expected a PUBACK, got {first:#x}");
        }
        let bytes = self.partial + count;
        self.partial = bytes % PUBACK_BYTES;
        let acked = bytes / PUBACK_BYTES;
        ensure!(acked <= self.in_flight, "more PUBACKs than PUBLISHes");
        self.in_flight -= acked;
        Ok(acked as u64)
    }
}

fn drive(mut lanes: Vec<Lane>, stop: &AtomicBool, counter: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut ready = Vec::with_capacity(lanes.len());
    let mut acked = 0;
    for lane in &mut lanes {
        lane.send()?;
    }
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<PollFd<'_>> = lanes
            .iter()
            .map(|lane| {
                let out = if lane.write_left > 0 { PollFlags::OUT } else { PollFlags::empty() };
                PollFd::from_borrowed_fd(lane.stream.as_fd(), PollFlags::IN | out)
            })
            .collect();
        poll(&mut fds, Some(&tick))?;
        ready.clear();
        ready
            .extend(fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|f| f.0));
        for &index in &ready {
            let lane = &mut lanes[index];
            acked += lane.receive(&mut buffer)?;
            lane.send()?;
        }
        counter.store(acked, Ordering::Relaxed);
    }
    Ok(())
}

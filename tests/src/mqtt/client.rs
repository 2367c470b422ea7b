//! One blocking connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::packet::{self, Incoming, Received, Version};

/// How to introduce ourselves.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Protocol level.
    pub version: Version,
    /// Client identifier.
    pub client_id: String,
    /// Clean session or clean start.
    pub clean: bool,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
}

impl ConnectOptions {
    /// A clean connection without keep-alive.
    pub fn new(version: Version, client_id: &str) -> Self {
        Self { version, client_id: client_id.to_owned(), clean: true, keep_alive: 0 }
    }
}

/// A connection; closed when dropped, without a DISCONNECT.
#[derive(Debug)]
pub struct MqttClient {
    stream: TcpStream,
    version: Version,
    inbox: Vec<u8>,
    next_id: u16,
}

impl MqttClient {
    /// Connects and wants to be accepted.
    ///
    /// # Errors
    /// When there is no connection or the CONNACK refuses.
    pub fn connect(address: SocketAddr, options: &ConnectOptions) -> Result<Self> {
        let mut client = Self::open(address, options.version)?;
        client.send(&packet::connect_frame(
            options.version,
            &options.client_id,
            options.clean,
            options.keep_alive,
        ))?;
        let answer = client.receive(Duration::from_secs(10))?.context("no CONNACK within 10 s")?;
        if answer.kind() != 2 || answer.reason() != 0 {
            bail!("refused: {answer:?}");
        }
        Ok(client)
    }

    /// Only the TCP connection: for tests that send what they like.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr, version: Version) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, version, inbox: Vec::new(), next_id: 0 })
    }

    /// The protocol level of this connection.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Publishes; at QoS 1 the packet identifier that was used.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) -> Result<Option<u16>> {
        let id = (qos > 0).then(|| self.take_id());
        let mut frame = Vec::with_capacity(topic.len() + payload.len() + 16);
        packet::put_publish(&mut frame, self.version, topic.as_bytes(), payload, id, false);
        self.send(&frame)?;
        Ok(id)
    }

    /// Publishes at QoS 1 and waits for its PUBACK.
    ///
    /// # Errors
    /// When another packet comes, a reason above 0x7F, or nothing within 30 s.
    pub fn publish_and_wait(&mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let id = self.publish(topic, payload, 1)?.context("QoS 1 has a packet identifier")?;
        let answer = self.receive(Duration::from_secs(30))?.context("no PUBACK within 30 s")?;
        if answer.kind() != 4 || answer.packet_id() != id || answer.reason() >= 0x80 {
            bail!("expected the PUBACK of {id}, got {answer:?}");
        }
        Ok(())
    }

    /// Subscribes and waits for the SUBACK; the granted QoS.
    ///
    /// # Errors
    /// When it is refused or nothing comes within 10 s.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<u8> {
        let id = self.take_id();
        self.send(&packet::subscribe_frame(self.version, id, filter.as_bytes(), qos))?;
        let answer = self.receive(Duration::from_secs(10))?.context("no SUBACK within 10 s")?;
        if answer.kind() != 9 || answer.reason() >= 0x80 {
            bail!("subscription refused: {answer:?}");
        }
        Ok(answer.reason())
    }

    /// The next PUBLISH, acknowledged if it asks for it; `None` when none comes in time.
    ///
    /// # Errors
    /// When something else comes, or the connection ends.
    pub fn receive_publish(&mut self, within: Duration) -> Result<Option<Received>> {
        let Some(incoming) = self.receive(within)? else { return Ok(None) };
        let received = incoming.publish(self.version)?;
        if let Some(id) = received.packet_id {
            let [high, low] = id.to_be_bytes();
            self.send(&[0x40, 2, high, low])?;
        }
        Ok(Some(received))
    }

    /// The next packet, or `None` when none comes within `within`.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn receive(&mut self, within: Duration) -> Result<Option<Incoming>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(incoming) = packet::cut(&mut self.inbox)? {
                return Ok(Some(incoming));
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Ok(None);
            };
            if self.fill(left)? == Filled::Closed {
                bail!("the broker closed the connection");
            }
        }
    }

    /// Reads until the broker closes; what it said before that.
    ///
    /// # Errors
    /// When it is still open after `within`.
    pub fn receive_until_closed(&mut self, within: Duration) -> Result<Vec<Incoming>> {
        let deadline = Instant::now() + within;
        let mut packets = Vec::new();
        loop {
            while let Some(incoming) = packet::cut(&mut self.inbox)? {
                packets.push(incoming);
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("still open after {within:?}; it said {packets:?}");
            };
            if self.fill(left)? == Filled::Closed {
                return Ok(packets);
            }
        }
    }

    /// A clean goodbye.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub fn disconnect(mut self) -> Result<()> {
        self.send(&[0xE0, 0])
    }

    fn take_id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }

    fn fill(&mut self, within: Duration) -> Result<Filled> {
        // Not the socket's own timeout: that one counts in ticks of 4 ms and spoils a steady pace.
        let timeout = Timespec::try_from(within).context("a timeout that the kernel can count")?;
        let mut readable = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut readable, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Filled::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Ok(Filled::Closed),
            Ok(count) => {
                self.inbox.extend_from_slice(&chunk[..count]);
                Ok(Filled::Some)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                    Ok(Filled::Nothing)
                }
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(Filled::Closed),
                _ => Err(error.into()),
            },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Filled {
    Some,
    Nothing,
    Closed,
}

//! NATS JetStream beside us: `sync_interval: always`, so that it acknowledges after its sync as we do.
//!
//! A client of the bare NATS protocol: one connection publishes with two headers each, and counts what the stream
//! acknowledges on its reply subject, in any order.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use system_tests::gate::find_program;
use system_tests::ports::ReservedPort;
use system_tests::process::{self, Server};
use system_tests::wait;

use crate::fleet::{Message, Paced};

const START_WITHIN: Duration = Duration::from_secs(20);
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// The program: `EDGE_BENCH_NATS`, or on the path.
pub(crate) fn program() -> Option<PathBuf> {
    std::env::var_os("EDGE_BENCH_NATS").map(PathBuf::from).or_else(|| find_program("nats-server"))
}

/// A server with one file stream of everything.
#[derive(Debug)]
pub(crate) struct Nats {
    server: Server,
    _port: ReservedPort,
    address: SocketAddr,
}

impl Nats {
    /// Starts it with its data in `folder`.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self> {
        let port = ReservedPort::reserve()?;
        let config = folder.join("nats.conf");
        let text = format!(
            "listen: 127.0.0.1:{}\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            port.number(),
            folder.join("nats")
        );
        std::fs::write(&config, text)?;
        let mut command = process::command(program);
        command.arg("-c").arg(&config);
        let mut server = Server::spawn("nats-server", &mut command, &folder.join("nats.log"))?;
        let address = port.address();
        server.wait_until_ready(START_WITHIN, || TcpStream::connect(address).is_ok())?;
        Ok(Self { server, _port: port, address })
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Its version, as it says itself.
    pub(crate) fn version(program: &Path) -> String {
        let said = wait::text_within(Command::new(program).arg("--version"), START_WITHIN);
        said.map_or_else(|_| "nats-server".to_owned(), |text| text.trim().replace(": v", " "))
    }

    /// Publishes `rate` messages a second for `length` and waits for every acknowledgement.
    ///
    /// # Errors
    /// When the server refuses something or goes away.
    pub(crate) fn publish(
        &self,
        rate: f64,
        length: Duration,
        next: &mut dyn FnMut(u64, &mut Message),
    ) -> Result<Paced> {
        let mut client = Client::connect(self.address)?;
        client.make_stream()?;
        let (began, mut result) = (Instant::now(), Paced::default());
        let (mut message, mut frame) = (Message::default(), Vec::new());
        let mut due_of = Vec::new();
        let mut acked = 0;
        loop {
            let due = began + Duration::from_secs_f64(result.messages as f64 / rate);
            let now = Instant::now();
            if due.duration_since(began) >= length {
                break;
            }
            if now < due {
                acked += client.take(due - now, &due_of, &mut result)?;
                continue;
            }
            next(result.messages, &mut message);
            let subject = message.topic.replace('/', ".");
            let headers = format!(
                "NATS/1.0\r\nmqtt.topic: {}\r\nmqtt.client: m{:03}\r\n\r\n",
                message.topic, message.client
            );
            frame.clear();
            let total = headers.len() + message.payload.len();
            let number = result.messages;
            write!(frame, "HPUB {subject} ack.{number} {} {total}\r\n{headers}", headers.len())?;
            frame.extend_from_slice(&message.payload);
            frame.extend_from_slice(b"\r\n");
            client.stream.write_all(&frame)?;
            due_of.push(due);
            result.note(message.payload.len());
        }
        let deadline = Instant::now() + DRAIN_WITHIN;
        while acked < result.messages {
            ensure!(Instant::now() < deadline, "{acked} of {} acknowledged", result.messages);
            acked += client.take(Duration::from_millis(50), &due_of, &mut result)?;
        }
        result.elapsed = began.elapsed();
        Ok(result)
    }
}

struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let hello = "CONNECT {\"verbose\":false,\"headers\":true,\"echo\":true}\r\n\
                     SUB ack.* 1\r\nSUB made 2\r\nPING\r\n";
        stream.write_all(hello.as_bytes())?;
        Ok(Self { stream, inbox: Vec::new() })
    }

    fn make_stream(&mut self) -> Result<()> {
        let config = "{\"name\":\"bench\",\"subjects\":[\"plant.>\"],\"storage\":\"file\",\
                      \"retention\":\"limits\",\"discard\":\"old\",\"num_replicas\":1}";
        let length = config.len();
        let ask = format!("PUB $JS.API.STREAM.CREATE.bench made {length}\r\n{config}\r\n");
        self.stream.write_all(ask.as_bytes())?;
        let deadline = Instant::now() + START_WITHIN;
        loop {
            ensure!(Instant::now() < deadline, "no answer to the making of a stream");
            self.fill(Duration::from_millis(100))?;
            while let Some((subject, payload)) = self.cut()? {
                if subject == "made" {
                    ensure!(!payload.contains("\"error\""), "{payload}");
                    return Ok(());
                }
            }
        }
    }

    /// Takes acknowledgements for as long as `within`, at most until some came; how many.
    fn take(&mut self, within: Duration, due: &[Instant], result: &mut Paced) -> Result<u64> {
        self.fill(within)?;
        let (now, mut count) = (Instant::now(), 0);
        while let Some((subject, payload)) = self.cut()? {
            ensure!(payload.contains("\"seq\"") && !payload.contains("\"error\""), "{payload}");
            let number = subject.strip_prefix("ack.").and_then(|number| number.parse().ok());
            let number: usize = number.with_context(|| format!("a message on {subject}"))?;
            result.note_latency(*due.get(number).context("an acknowledgement for nothing")?, now);
            count += 1;
        }
        Ok(count)
    }

    fn fill(&mut self, within: Duration) -> Result<()> {
        let timeout = Timespec::try_from(within).context("a timeout that the kernel can count")?;
        match poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => bail!("the NATS server closed the connection"),
            Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The next message that has come whole: subject and payload.
    fn cut(&mut self) -> Result<Option<(String, String)>> {
        loop {
            let Some(end) = self.inbox.windows(2).position(|pair| pair == b"\r\n") else {
                return Ok(None);
            };
            let line = String::from_utf8_lossy(&self.inbox[..end]).into_owned();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["MSG", subject, .., length] => {
                    let length: usize = length.parse()?;
                    let from = end + 2;
                    if self.inbox.len() < from + length + 2 {
                        return Ok(None);
                    }
                    let payload = &self.inbox[from..from + length];
                    let payload = String::from_utf8_lossy(payload).into_owned();
                    self.inbox.drain(..from + length + 2);
                    return Ok(Some(((*subject).to_owned(), payload)));
                }
                ["-ERR", ..] => bail!("the NATS server says {line}"),
                ["PING"] => self.stream.write_all(b"PONG\r\n")?,
                _ => {}
            }
            self.inbox.drain(..end + 2);
        }
    }
}

//! MQTT 3.1.1 publishers of the demo: real packets over a real socket, QoS 1, a window of
//! unacknowledged publishes, and a ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Semaphore;

/// Most publishes that one device has in flight.
const WINDOW: usize = 64;

/// Which reports were acknowledged: device -> number of reports, all in order from 0.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: Mutex<BTreeMap<String, u64>>,
    total: AtomicU64,
}

impl Ledger {
    /// Reports acknowledged so far, over all devices.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Reports acknowledged by device.
    pub(crate) fn by_device(&self) -> BTreeMap<String, u64> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, device: &str, count: u64) {
        let mut all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(device.to_owned()).or_default() += count;
        self.total.fetch_add(count, Ordering::Relaxed);
    }
}

/// One device's connection.
pub(crate) struct Publisher {
    writer: OwnedWriteHalf,
    window: Arc<Semaphore>,
    packet: Vec<u8>,
    next_id: u16,
    acks: tokio::task::JoinHandle<io::Result<()>>,
}

impl Publisher {
    /// Connects and waits for the CONNACK.
    pub(crate) async fn connect(
        address: &str,
        client_id: &str,
        ledger: Arc<Ledger>,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        writer.write_all(&connect_packet(client_id)).await?;
        let mut answer = [0; 4];
        reader.read_exact(&mut answer).await?;
        if answer != [0x20, 2, 0, 0] {
            return Err(io::Error::other(format!("the gateway refused {client_id}: {answer:?}")));
        }
        let window = Arc::new(Semaphore::new(WINDOW));
        let acks = tokio::spawn(count_acks(reader, client_id.to_owned(), window.clone(), ledger));
        Ok(Self { writer, window, packet: Vec::new(), next_id: 1, acks })
    }

    /// Publishes at QoS 1, waiting for room in the window.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        let permit = self.window.acquire().await.map_err(io::Error::other)?;
        permit.forget();
        self.packet.clear();
        put_publish(&mut self.packet, topic, self.next_id, payload);
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.writer.write_all(&self.packet).await
    }

    /// Waits until everything is acknowledged, then says goodbye.
    pub(crate) async fn finish(mut self, patience: Duration) -> io::Result<()> {
        let all = u32::try_from(WINDOW).unwrap_or(u32::MAX);
        let drained = tokio::time::timeout(patience, self.window.acquire_many(all)).await;
        self.writer.write_all(&[0xe0, 0]).await?;
        self.acks.abort();
        match drained {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "acknowledgements are missing")),
        }
    }
}

async fn count_acks(
    mut reader: OwnedReadHalf,
    device: String,
    window: Arc<Semaphore>,
    ledger: Arc<Ledger>,
) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    let mut filled = 0;
    loop {
        let count = reader.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        if count == 0 {
            // No more permits will come: whoever waits for one hears that the link is gone.
            window.close();
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        let whole = filled / 4;
        let acks = buffer.chunks_exact(4).take(whole).filter(|packet| packet[0] == 0x40).count();
        if acks != whole {
            window.close();
            return Err(io::Error::other("the gateway sent something other than PUBACK"));
        }
        ledger.add(&device, acks as u64);
        window.add_permits(acks);
        buffer.copy_within(whole * 4..filled, 0);
        filled -= whole * 4;
    }
}

fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
    put_string(&mut body, client_id);
    let mut packet = vec![0x10];
    put_length(&mut packet, body.len());
    packet.extend_from_slice(&body);
    packet
}

fn put_publish(out: &mut Vec<u8>, topic: &str, id: u16, payload: &[u8]) {
    out.push(0x32);
    put_length(out, 2 + topic.len() + 2 + payload.len());
    put_string(out, topic);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A length of at most 65,535 bytes in front: topics and client ids of the demo are short.
fn put_string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..length as usize]);
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let digit = (length % 128) as u8;
        length /= 128;
        out.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
}

//! One connection: requests in, answers out, in the same order.
//!
//! - Up to [`KafkaOptions::outstanding_max`](crate::KafkaOptions) requests wait for their answers; then the
//!   socket is not read. A Produce is handed to its lane when it is read, so that consecutive ones share commit
//!   groups; everything else runs when its turn to be answered has come.
//! - A large request waits for its share of the memory that all connections have together before it is read.
//! - An idle connection holds no buffer.
//! - Bytes that are no request end this connection, with one line in the log.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use crate::frame::{Frame, FrameError, Frames, Progress};
use crate::handlers;
use crate::session::{Session, permits, stopped};

/// An answer in the making.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Encoded, CloseReason>> + Send>>;

/// An answer as it goes on the wire, length included.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Its share of the memory for answers, given back once it is written.
    pub(crate) memory: Option<OwnedSemaphorePermit>,
}

/// Requests up to this size are not counted against the shared memory.
const UNCOUNTED_REQUEST_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 4 << 10;
/// A large request that comes slower than this is given up.
const SLOWEST_BYTES_PER_SECOND: usize = 8 << 10;
/// Answers are gathered up to this size before they are written.
const GATHER_BYTES: usize = 64 << 10;

/// Why a connection ends.
#[derive(Debug, Error)]
pub(crate) enum CloseReason {
    /// Not a request.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A request that passed the walk and still does not decode.
    #[error("a {key:?} request does not decode: {reason}")]
    Undecodable { key: kafka_protocol::messages::ApiKey, reason: String },
    /// Our answer does not encode: a bug.
    #[error("an answer does not encode: {reason}")]
    Unencodable { reason: String },
    /// acks=0 has no other way to be told.
    #[error("a Produce with acks=0 was refused: {reason}")]
    SilentProduce { reason: String },
    /// A request was begun and not finished.
    #[error("a request did not arrive within its time")]
    SlowRequest,
    /// Nothing was asked for a long time.
    #[error("idle")]
    Idle,
    /// The client does not take its answers.
    #[error("the client does not read")]
    SlowClient,
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves one client until it leaves.
pub(crate) async fn run(socket: TcpStream, peer: SocketAddr, session: Arc<Session>) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "kafka: no TCP_NODELAY");
    }
    let (read, write) = socket.into_split();
    let (sender, receiver) = mpsc::channel(session.options().outstanding_max.max(1));
    let unanswered = AtomicUsize::new(0);
    let mut writer = std::pin::pin!(write_answers(write, receiver, &session, &unanswered));
    let ended = tokio::select! {
        ended = &mut writer => ended,
        ended = read_requests(read, sender, &session, &unanswered) => match ended {
            // The client is gone: nobody waits for the answers.
            Ok(End::Closed) => Ok(()),
            Ok(End::Shutdown) => {
                // What was read is answered, within limits.
                let drain = session.options().drain_timeout;
                timeout(drain, &mut writer).await.unwrap_or(Ok(()))
            }
            Err(reason) => Err(reason),
        },
    };
    match ended {
        Ok(()) => tracing::debug!(%peer, "kafka: connection closed"),
        Err(CloseReason::Idle | CloseReason::Io(_)) => {
            tracing::debug!(%peer, "kafka: connection lost or idle");
        }
        Err(reason) => tracing::warn!(%peer, %reason, "kafka: connection closed by us"),
    }
}

enum End {
    Closed,
    Shutdown,
}

/// An answer and the memory its request takes until it is given.
struct Outstanding {
    answer: Answer,
    _memory: Option<OwnedSemaphorePermit>,
}

async fn read_requests(
    mut socket: OwnedReadHalf,
    sender: mpsc::Sender<Outstanding>,
    session: &Arc<Session>,
    unanswered: &AtomicUsize,
) -> Result<End, CloseReason> {
    let mut shutdown = session.context.shutdown.clone();
    let mut frames = Frames::new(session.options().request_bytes_max);
    loop {
        // Room first: while none is left the socket is not read.
        let Ok(room) = sender.reserve().await else { return Ok(End::Closed) };
        let request = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return Ok(End::Shutdown),
            request = next_request(&mut socket, &mut frames, session, unanswered) => request?,
        };
        let (answer, memory) = match request {
            Request::Closed => return Ok(End::Closed),
            Request::UnknownApiVersions { correlation_id } => {
                (Some(handlers::unknown_api_versions(correlation_id)), None)
            }
            Request::Frame(frame, memory) => (handlers::start(session, frame).await?, memory),
        };
        if let Some(answer) = answer {
            unanswered.fetch_add(1, Ordering::Relaxed);
            room.send(Outstanding { answer, _memory: memory });
        }
    }
}

enum Request {
    Frame(Frame, Option<OwnedSemaphorePermit>),
    UnknownApiVersions { correlation_id: i32 },
    Closed,
}

async fn next_request(
    socket: &mut OwnedReadHalf,
    frames: &mut Frames,
    session: &Session,
    unanswered: &AtomicUsize,
) -> Result<Request, CloseReason> {
    let options = session.options();
    let mut memory = None;
    let mut deadline = None;
    loop {
        let missing_bytes = match frames.next()? {
            Progress::Frame(frame) => return Ok(Request::Frame(frame, memory)),
            Progress::UnknownApiVersions { correlation_id } => {
                return Ok(Request::UnknownApiVersions { correlation_id });
            }
            Progress::More { missing_bytes } => missing_bytes,
        };
        if missing_bytes > UNCOUNTED_REQUEST_BYTES && memory.is_none() {
            let count = permits(missing_bytes, options.request_memory_bytes);
            let permit = session.context.request_memory.clone().acquire_many_owned(count).await;
            memory = permit.ok();
            // The wait was ours, not the client's.
            deadline = None;
        }
        frames.buffer.reserve(missing_bytes.max(READ_BYTES));
        let read = match socket.try_read_buf(&mut frames.buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if frames.is_empty() {
                    frames.release();
                    wait_for_first_byte(socket, options.idle_timeout, unanswered).await?;
                } else {
                    let allowed = options.request_timeout + time_for(missing_bytes);
                    let end = *deadline.get_or_insert_with(|| Instant::now() + allowed);
                    let readable = timeout_at(end, socket.readable()).await;
                    readable.map_err(|_elapsed| CloseReason::SlowRequest)??;
                }
                continue;
            }
            read => read?,
        };
        if read == 0 {
            return Ok(Request::Closed);
        }
    }
}

/// What a large request may take on top: a slow link is no misbehaviour.
fn time_for(bytes: usize) -> Duration {
    Duration::from_secs((bytes / SLOWEST_BYTES_PER_SECOND) as u64)
}

/// A connection whose answers are still being made is not idle.
async fn wait_for_first_byte(
    socket: &OwnedReadHalf,
    idle_timeout: Duration,
    unanswered: &AtomicUsize,
) -> Result<(), CloseReason> {
    loop {
        match timeout(idle_timeout, socket.readable()).await {
            Ok(ready) => return Ok(ready?),
            Err(_elapsed) if unanswered.load(Ordering::Relaxed) > 0 => {}
            Err(_elapsed) => return Err(CloseReason::Idle),
        }
    }
}

async fn write_answers(
    mut socket: OwnedWriteHalf,
    mut receiver: mpsc::Receiver<Outstanding>,
    session: &Session,
    unanswered: &AtomicUsize,
) -> Result<(), CloseReason> {
    let limit = session.options().write_timeout;
    let mut gathered = Vec::new();
    let mut next = receiver.recv().await;
    while let Some(mut outstanding) = next {
        let Encoded { bytes, memory } = loop {
            tokio::select! {
                biased;
                encoded = &mut outstanding.answer => break encoded?,
                // Not ready yet: what is gathered must not wait for it.
                () = std::future::ready(()), if !gathered.is_empty() => {
                    write(&mut socket, &mut gathered, limit).await?;
                }
            }
        };
        drop(outstanding);
        unanswered.fetch_sub(1, Ordering::Relaxed);
        if bytes.len() >= GATHER_BYTES {
            write(&mut socket, &mut gathered, limit).await?;
            write_all(&mut socket, &bytes, limit).await?;
        } else {
            gathered.extend_from_slice(&bytes);
        }
        drop((bytes, memory));
        next = match receiver.try_recv() {
            Ok(outstanding) if gathered.len() < GATHER_BYTES => Some(outstanding),
            other => {
                write(&mut socket, &mut gathered, limit).await?;
                match other {
                    Ok(outstanding) => Some(outstanding),
                    Err(_empty_or_closed) => receiver.recv().await,
                }
            }
        };
    }
    Ok(())
}

async fn write(
    socket: &mut OwnedWriteHalf,
    gathered: &mut Vec<u8>,
    limit: Duration,
) -> Result<(), CloseReason> {
    if gathered.is_empty() {
        return Ok(());
    }
    // The buffer goes back with the write: an idle connection holds none.
    let bytes = std::mem::take(gathered);
    write_all(socket, &bytes, limit).await
}

/// The time limit is for progress, not for the whole: a slow link may take long over a large answer.
async fn write_all(
    socket: &mut OwnedWriteHalf,
    bytes: &[u8],
    limit: Duration,
) -> Result<(), CloseReason> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = timeout(limit, socket.write(rest))
            .await
            .map_err(|_elapsed| CloseReason::SlowClient)??;
        if written == 0 {
            return Err(CloseReason::Io(io::ErrorKind::WriteZero.into()));
        }
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

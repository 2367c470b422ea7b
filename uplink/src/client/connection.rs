//! One connection to one broker: frames, correlation ids, pipelining, time limits.
//!
//! - Requests leave in the order of [`Connection::submit`]; Kafka answers in the same order, so the waiting
//!   requests are a queue and a wrong correlation id ends the connection.
//! - At most `in_flight_max` requests wait for an answer.
//! - A frame larger than `frame_bytes_max` ends the connection; memory grows with the bytes that arrived,
//!   never with the length that was announced.
//! - An answer that does not come in time ends the connection: what came later could not be told apart.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::api::{self, ApiRange};
use super::error::{ConnectError, RequestError};
use super::options::ClientOptions;
use super::shape;
use super::transport::Transport;

/// An open connection whose protocol versions are known.
pub(crate) struct Connection {
    address: String,
    client_id: StrBytes,
    request_timeout: Duration,
    versions: Vec<ApiRange>,
    next_correlation: AtomicI32,
    in_flight: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Outgoing>,
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl Connection {
    /// Connects and asks for the broker's versions. `ended` is told when the other side ends the connection.
    pub(crate) async fn open(
        host: &str,
        port: u16,
        options: &ClientOptions,
        ended: &Arc<Notify>,
    ) -> Result<Self, ConnectError> {
        let address = format!("{host}:{port}");
        let opening = async {
            let stream = options.connector.connect(host, port).await.map_err(|source| {
                ConnectError::Io { address: address.clone(), source: Arc::new(source) }
            })?;
            let mut connection = Self::start(address.clone(), stream, options, Arc::clone(ended));
            connection.versions = connection.negotiate().await.map_err(|error| match error {
                RequestError::Connect(error) => error,
                other => ConnectError::Negotiation {
                    address: address.clone(),
                    reason: other.to_string(),
                },
            })?;
            Ok(connection)
        };
        match tokio::time::timeout(options.connect_timeout, opening).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout { address, after: options.connect_timeout }),
        }
    }

    fn start(
        address: String,
        stream: Box<dyn Transport>,
        options: &ClientOptions,
        ended: Arc<Notify>,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (queue, outgoing) = mpsc::unbounded_channel();
        let shared =
            Arc::new(Shared { waiting: Mutex::new(VecDeque::new()), closed: OnceLock::new() });
        let tasks = [
            tokio::spawn(write_frames(writer, outgoing, Arc::clone(&shared))),
            tokio::spawn(read_frames(reader, options.frame_bytes_max, Arc::clone(&shared), ended)),
        ];
        Self {
            address,
            client_id: StrBytes::from_string(options.client_id.clone()),
            request_timeout: options.request_timeout,
            versions: Vec::new(),
            next_correlation: AtomicI32::new(0),
            in_flight: Arc::new(Semaphore::new(options.in_flight_max)),
            queue,
            shared,
            tasks,
        }
    }

    /// KIP-511: v3 carries our name; a broker that is too old answers with code 35 in the v0 layout.
    async fn negotiate(&self) -> Result<Vec<ApiRange>, RequestError> {
        const NAME: &str = "ApiVersions";
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("edge-broker"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let frame = self.frame::<ApiVersionsRequest>(NAME, 3, &request)?;
        let body = self.submit(NAME, frame, self.request_timeout, None)?.await?;
        // The v0 layout begins with the error code in every version.
        if body.first_chunk::<2>() != Some(&super::ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes()) {
            return api::decode_api_versions(&body, true)
                .map_err(|reason| RequestError::Decode { api: NAME, reason });
        }
        let frame = self.frame::<ApiVersionsRequest>(NAME, 0, &ApiVersionsRequest::default())?;
        let body = self.submit(NAME, frame, self.request_timeout, None)?.await?;
        api::decode_api_versions(&body, false)
            .map_err(|reason| RequestError::Decode { api: NAME, reason })
    }

    /// Newest version of a request that both sides speak, within `ours`.
    pub(crate) fn version<R: Request>(
        &self,
        api: &'static str,
        min: i16,
        max: i16,
    ) -> Result<i16, RequestError> {
        self.versions
            .iter()
            .find(|range| range.key == R::KEY)
            .map(|theirs| max.min(theirs.max))
            .filter(|version| {
                *version >= min
                    && self
                        .versions
                        .iter()
                        .any(|range| range.key == R::KEY && *version >= range.min)
            })
            .ok_or_else(|| RequestError::Unsupported {
                address: self.address.clone(),
                api,
                min,
                max,
            })
    }

    /// Sends one request and waits for its answer.
    pub(crate) async fn call<R: Request>(
        &self,
        api: &'static str,
        version: i16,
        request: &R,
        extra_wait: Duration,
    ) -> Result<R::Response, RequestError> {
        let permit = Arc::clone(&self.in_flight).acquire_owned().await.ok();
        let frame = self.frame::<R>(api, version, request)?;
        let body = self.submit(api, frame, self.request_timeout + extra_wait, permit)?.await?;
        let decoded = self.decode::<R>(api, version, body);
        if let Err(error) = &decoded {
            self.shared.close(&error.to_string());
        }
        decoded
    }

    /// As [`Connection::call`] in two steps: the request is queued when this returns, and requests leave in the
    /// order of these calls. Does not wait for room: more than `in_flight_max` is `Busy`.
    pub(crate) fn begin<R: Request>(
        self: &Arc<Self>,
        api: &'static str,
        version: i16,
        request: &R,
        extra_wait: Duration,
    ) -> Result<impl Future<Output = Result<R::Response, RequestError>> + Send + use<R>, RequestError>
    {
        let permit = Arc::clone(&self.in_flight)
            .try_acquire_owned()
            .map_err(|_| RequestError::Busy { address: self.address.clone() })?;
        let frame = self.frame::<R>(api, version, request)?;
        let answer = self.submit(api, frame, self.request_timeout + extra_wait, Some(permit))?;
        let connection = Arc::clone(self);
        Ok(async move {
            let body = answer.await?;
            let decoded = connection.decode::<R>(api, version, body);
            if let Err(error) = &decoded {
                connection.shared.close(&error.to_string());
            }
            decoded
        })
    }

    /// Sends a request that has no answer (Produce with acks 0); returns when it has been handed to the system.
    pub(crate) async fn send_only<R: Request>(
        &self,
        api: &'static str,
        version: i16,
        request: &R,
    ) -> Result<(), RequestError> {
        let frame = self.frame::<R>(api, version, request)?;
        let (written, done) = oneshot::channel();
        self.queue
            .send(Outgoing { bytes: frame.bytes, answer: None, written: Some(written) })
            .map_err(|_| self.disconnected(api))?;
        done.await.map_err(|_| self.disconnected(api))
    }

    /// Whether the connection has ended; it never comes back.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.get().is_some()
    }

    /// Ends the connection; every waiting request fails.
    pub(crate) fn close(&self, reason: &str) {
        self.shared.close(reason);
        for task in &self.tasks {
            task.abort();
        }
    }

    fn decode<R: Request>(
        &self,
        api: &'static str,
        version: i16,
        body: Bytes,
    ) -> Result<R::Response, RequestError> {
        shape::decode(api, R::KEY, version, body)
    }

    fn frame<R: Request>(
        &self,
        api: &'static str,
        version: i16,
        request: &R,
    ) -> Result<Frame, RequestError> {
        let encode =
            |error: &dyn std::fmt::Display| RequestError::Encode { api, reason: error.to_string() };
        let correlation = self.next_correlation.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(self.client_id.clone()));
        let size = request.compute_size(version).map_err(|error| encode(&error))?;
        let mut bytes = BytesMut::with_capacity(size + 64 + self.client_id.len());
        bytes.put_u32(0);
        header.encode(&mut bytes, R::header_version(version)).map_err(|error| encode(&error))?;
        request.encode(&mut bytes, version).map_err(|error| encode(&error))?;
        let length = i32::try_from(bytes.len() - 4).map_err(|error| encode(&error))?;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        Ok(Frame {
            bytes: bytes.freeze(),
            correlation,
            answer_header: R::Response::header_version(version),
        })
    }

    /// Queues a frame; the future yields the body of the answer.
    fn submit(
        &self,
        api: &'static str,
        frame: Frame,
        limit: Duration,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<impl Future<Output = Result<Bytes, RequestError>> + Send + use<>, RequestError>
    {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            correlation: frame.correlation,
            answer_header: frame.answer_header,
            reply,
            _permit: permit,
        };
        self.queue
            .send(Outgoing { bytes: frame.bytes, answer: Some(waiting), written: None })
            .map_err(|_| self.disconnected(api))?;
        let shared = Arc::clone(&self.shared);
        let address = self.address.clone();
        Ok(async move {
            match tokio::time::timeout(limit, answer).await {
                Ok(Ok(body)) => Ok(body),
                Ok(Err(_)) => {
                    Err(RequestError::Disconnected { address, api, reason: shared.reason() })
                }
                Err(_) => {
                    shared.close("an answer did not come in time");
                    Err(RequestError::Timeout { address, api, after: limit })
                }
            }
        })
    }

    fn disconnected(&self, api: &'static str) -> RequestError {
        RequestError::Disconnected {
            address: self.address.clone(),
            api,
            reason: self.shared.reason(),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close("the client closed it");
    }
}

struct Frame {
    bytes: Bytes,
    correlation: i32,
    answer_header: i16,
}

struct Outgoing {
    bytes: Bytes,
    answer: Option<Waiting>,
    written: Option<oneshot::Sender<()>>,
}

struct Waiting {
    correlation: i32,
    answer_header: i16,
    reply: oneshot::Sender<Bytes>,
    /// Given back when the answer came or the connection ended.
    _permit: Option<OwnedSemaphorePermit>,
}

struct Shared {
    waiting: Mutex<VecDeque<Waiting>>,
    /// Set once, with the reason; from then on nobody waits here.
    closed: OnceLock<String>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, reason: &str) {
        let mut waiting = self.waiting();
        let _ = self.closed.set(reason.to_owned());
        waiting.clear();
    }

    fn reason(&self) -> String {
        self.closed.get().cloned().unwrap_or_else(|| "closed".to_owned())
    }

    /// False when the connection has ended; then the request is dropped and its caller told so.
    fn push(&self, entry: Waiting) -> bool {
        let mut waiting = self.waiting();
        if self.closed.get().is_some() {
            return false;
        }
        waiting.push_back(entry);
        true
    }

    fn deliver(&self, mut frame: Bytes) -> Result<(), String> {
        let Some(entry) = self.waiting().pop_front() else {
            return Err("an answer nobody asked for".to_owned());
        };
        let header = ResponseHeader::decode(&mut frame, entry.answer_header)
            .map_err(|error| format!("unreadable answer header: {error}"))?;
        if header.correlation_id != entry.correlation {
            return Err(format!(
                "answer {} where {} was due",
                header.correlation_id, entry.correlation
            ));
        }
        // The caller may have gone away; the answer is then nobody's.
        let _ = entry.reply.send(frame);
        Ok(())
    }
}

async fn write_frames(
    mut writer: WriteHalf<Box<dyn Transport>>,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    shared: Arc<Shared>,
) {
    while let Some(item) = outgoing.recv().await {
        if let Some(waiting) = item.answer
            && !shared.push(waiting)
        {
            break;
        }
        if let Err(error) = writer.write_all(&item.bytes).await {
            shared.close(&error.to_string());
            break;
        }
        if let Some(written) = item.written {
            let _ = written.send(());
        }
    }
    // Dropping the receiver fails later submissions at once.
    outgoing.close();
    while outgoing.try_recv().is_ok() {}
}

/// Room that is asked for at once while a frame arrives.
const READ_STEP_BYTES: usize = 64 * 1024;

async fn read_frames(
    mut reader: ReadHalf<Box<dyn Transport>>,
    frame_bytes_max: usize,
    shared: Arc<Shared>,
    ended: Arc<Notify>,
) {
    let mut buffer = BytesMut::new();
    let reason = loop {
        match take_frame(&mut buffer, frame_bytes_max) {
            Ok(Some(frame)) => {
                if let Err(reason) = shared.deliver(frame) {
                    break reason;
                }
                if buffer.is_empty() {
                    // An idle connection keeps no buffer.
                    buffer = BytesMut::new();
                }
                continue;
            }
            Ok(None) => {}
            Err(reason) => break reason,
        }
        buffer.reserve(if buffer.is_empty() { 4096 } else { READ_STEP_BYTES });
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break "the broker closed it".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    shared.close(&reason);
    ended.notify_one();
}

/// Splits one whole frame off the front, if it is there.
fn take_frame(buffer: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<Bytes>, String> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let announced = i32::from_be_bytes(*prefix);
    let length =
        usize::try_from(announced).ok().filter(|length| (4..=frame_bytes_max).contains(length));
    let Some(length) = length else {
        return Err(format!("an answer of {announced} bytes (limit {frame_bytes_max})"));
    };
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_only_when_it_is_whole() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 5, 1, 2, 3, 4][..]);
        assert_eq!(take_frame(&mut buffer, 100), Ok(None));
        buffer.put_u8(5);
        buffer.put_u8(9);
        assert_eq!(take_frame(&mut buffer, 100), Ok(Some(Bytes::from_static(&[1, 2, 3, 4, 5]))));
        assert_eq!(&buffer[..], &[9]);
    }

    #[test]
    fn a_hostile_length_is_refused_before_memory_is_taken() {
        for prefix in [[0xff, 0xff, 0xff, 0xff], [0x10, 0, 0, 0], [0, 0, 0, 3], *b"HTTP"] {
            let mut buffer = BytesMut::from(&prefix[..]);
            assert!(take_frame(&mut buffer, 16 * 1024 * 1024).is_err());
        }
    }
}

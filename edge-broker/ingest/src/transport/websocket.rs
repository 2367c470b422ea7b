//! A WebSocket as the stream of bytes that it carries.
//!
//! Reading decodes in the reader's own buffer; writing puts one binary frame around each write, header and payload in one
//! call. Kept for each connection: a partly written header or control frame, the state of the decoder, nothing else.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use edge_mqtt::websocket::{Decoder, WebSocketError, binary_header, close, close_answer, pong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// "Normal closure" (RFC 6455 section 7.4.1).
const NORMAL: u16 = 1000;

pub(crate) struct WebSocket<S> {
    stream: S,
    decoder: Decoder,
    /// What was read behind the request.
    early: Vec<u8>,
    /// A frame header or control frames, to be written before anything else.
    first: Vec<u8>,
    first_at: usize,
    /// Payload that the last header has promised and that was not written yet.
    promised: usize,
    /// A control frame that has to wait for the end of the frame that is being written.
    control: Vec<u8>,
    /// The client has closed, or was sent away: there is nothing to read any more.
    ended: bool,
    /// Our close frame is on its way.
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// After the handshake; `early` is what came with it.
    pub(crate) fn new(stream: S, early: Vec<u8>) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            early,
            first: Vec::new(),
            first_at: 0,
            promised: 0,
            control: Vec::new(),
            ended: false,
            closing: false,
        }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Writes what has to go first. `Ready`: nothing of the kind is left.
    pub(crate) fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(rest) = self.first.get(self.first_at..).filter(|rest| !rest.is_empty()) else {
                self.first_at = 0;
                if self.promised == 0 && !self.control.is_empty() {
                    self.first = std::mem::take(&mut self.control);
                    continue;
                }
                self.first = Vec::new();
                return Poll::Ready(Ok(()));
            };
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.first_at += count,
            }
        }
    }

    /// Decodes what stands behind `before` in `buf`. True when there is data.
    fn decode(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<bool> {
        let decoded = buf.filled_mut().get_mut(before..).map(|raw| self.decoder.decode(raw));
        let decoded = match decoded.unwrap_or(Err(WebSocketError::Protocol("nothing"))) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.end_with(close(error.status()));
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        buf.set_filled(before + decoded.data_bytes);
        if let Some(payload) = &decoded.close {
            self.end_with(close_answer(payload));
        } else if let Some(payload) = &decoded.ping {
            self.control = pong(payload);
        }
        Ok(decoded.data_bytes > 0)
    }

    fn end_with(&mut self, frame: Vec<u8>) {
        self.ended = true;
        if !self.closing {
            self.closing = true;
            self.control = frame;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            // Answers to pings; when there is no room for them they wait.
            if let Poll::Ready(Err(error)) = this.poll_settle(cx) {
                return Poll::Ready(Err(error));
            }
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            if this.early.is_empty() {
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            } else {
                let count = this.early.len().min(buf.remaining());
                buf.put_slice(this.early.get(..count).unwrap_or_default());
                this.early.drain(..count);
                if this.early.is_empty() {
                    this.early = Vec::new();
                }
            }
            if buf.filled().len() == before {
                this.ended = true;
                return Poll::Ready(Ok(()));
            }
            let has_data = this.decode(buf, before);
            if !matches!(has_data, Ok(false)) {
                // The close frame of one who is sent away leaves now or never.
                let _best_effort = this.poll_settle(cx);
                return Poll::Ready(has_data.map(drop));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.promised == 0 {
            ready!(this.poll_settle(cx))?;
            if this.closing {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            this.first.extend_from_slice(&binary_header(bytes.len()));
            this.promised = bytes.len();
        }
        loop {
            let payload = bytes.get(..this.promised).unwrap_or(bytes);
            let header = this.first.get(this.first_at..).unwrap_or_default();
            let slices = [IoSlice::new(header), IoSlice::new(payload)];
            let header_bytes = header.len();
            let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written < header_bytes {
                this.first_at += written;
                continue;
            }
            this.first.clear();
            this.first_at = 0;
            let count = written - header_bytes;
            if count > 0 {
                this.promised -= count;
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_settle(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.promised == 0 {
            if !this.closing {
                this.closing = true;
                this.control = close(NORMAL);
            }
            ready!(this.poll_settle(cx))?;
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What a client sends, with a mask of zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    #[tokio::test]
    async fn pings_are_answered_between_frames_and_a_close_is_the_end() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut web = WebSocket::new(server, frame(0x82, b"early"));
        let mut buffer = [0; 64];
        assert_eq!(web.read(&mut buffer).await.unwrap(), 5);
        client.write_all(&frame(0x89, b"p")).await.unwrap();
        client.write_all(&frame(0x82, b"data")).await.unwrap();
        assert_eq!(web.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"data");
        let mut answer = [0; 3];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, &[0x8A, 1, b'p']);

        client.write_all(&frame(0x88, &[3, 0xE8])).await.unwrap();
        assert_eq!(web.read(&mut buffer).await.unwrap(), 0);
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 3, 0xE8]);
        assert!(web.write(b"late").await.is_err());
    }

    #[tokio::test]
    async fn a_write_in_pieces_is_one_frame_and_pings_wait_for_its_end() {
        let (mut client, server) = tokio::io::duplex(16);
        let mut web = WebSocket::new(server, Vec::new());
        let payload: Vec<u8> = (0..200).collect();
        let writer = async {
            client.write_all(&frame(0x89, b"?")).await.unwrap();
            let mut seen = vec![0; 4 + 200 + 3];
            client.read_exact(&mut seen).await.unwrap();
            seen
        };
        let sender = async {
            let mut at = web.write(&payload).await.unwrap();
            let mut buffer = [0; 8];
            // Looks at the ping, which must not get in between.
            let _nothing = futures_now(web.read(&mut buffer)).await;
            while at < payload.len() {
                at += web.write(&payload[at..]).await.unwrap();
            }
            web.flush().await.unwrap();
        };
        let (seen, ()) = tokio::join!(writer, sender);
        assert_eq!(&seen[..4], &[0x82, 126, 0, 200]);
        assert_eq!(&seen[4..204], &payload);
        assert_eq!(&seen[204..], &[0x8A, 1, b'?']);
    }

    /// Polls once.
    async fn futures_now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            Poll::Ready(match future.as_mut().poll(cx) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn who_breaks_a_rule_is_told_and_sent_away() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut web = WebSocket::new(server, Vec::new());
        client.write_all(&[0x82, 3, 1, 2, 3]).await.unwrap();
        let mut buffer = [0; 16];
        assert!(web.read(&mut buffer).await.is_err());
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 3, 0xEA]);
    }
}

//! What carries MQTT: TCP, TLS, WebSocket, WebSocket over TLS.
//!
//! One enum rather than a type parameter or a trait object: the connection around it exists once in the binary, and over
//! plain TCP a read is a comparison away from the socket. What other transports need is in boxes of their own, so that
//! an idle TCP connection does not pay for them.

mod accept;
mod upgrade;
mod websocket;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) use accept::{Greeted, greet};
use websocket::WebSocket;

/// How a listener's clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// MQTT over TCP, or over TLS.
    Stream,
    /// MQTT in WebSocket frames.
    WebSocket,
}

/// An established transport.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Tls(Box<Flushed<TlsStream<TcpStream>>>),
    WebSocket(Box<WebSocket<TcpStream>>),
    WebSocketTls(Box<Flushed<WebSocket<TlsStream<TcpStream>>>>),
}

/// Remembers that a layer below may hold back bytes that were written.
pub(crate) struct Flushed<S> {
    stream: S,
    holds_bytes: bool,
}

impl<S> Flushed<S> {
    fn new(stream: S) -> Self {
        Self { stream, holds_bytes: false }
    }
}

impl Transport {
    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.stream.get_ref().0,
            Self::WebSocket(web) => web.get_ref(),
            Self::WebSocketTls(web) => web.stream.get_ref().get_ref().0,
        }
    }

    /// Whether it is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::WebSocketTls(_))
    }

    /// A word for people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Tls(_) => "tls",
            Self::WebSocket(_) => "ws",
            Self::WebSocketTls(_) => "wss",
        }
    }

    /// Sends on what layers below have taken but not sent. `Ready`: nothing is left, or the socket is of no use.
    pub(crate) fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_settle(cx),
            Self::WebSocket(web) => web.poll_settle(cx),
            Self::WebSocketTls(web) => web.poll_settle(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> Flushed<S> {
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.holds_bytes {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.holds_bytes = flushed.is_pending();
        flushed
    }
}

impl AsyncRead for Transport {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_read(cx, buf),
            Self::WebSocket(web) => Pin::new(web.as_mut()).poll_read(cx, buf),
            Self::WebSocketTls(web) => {
                // An answer to a ping may have been written on the way.
                web.holds_bytes = true;
                Pin::new(&mut web.stream).poll_read(cx, buf)
            }
        }
    }
}

impl AsyncWrite for Transport {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => {
                tls.holds_bytes = true;
                Pin::new(&mut tls.stream).poll_write(cx, bytes)
            }
            Self::WebSocket(web) => Pin::new(web.as_mut()).poll_write(cx, bytes),
            Self::WebSocketTls(web) => {
                web.holds_bytes = true;
                Pin::new(&mut web.stream).poll_write(cx, bytes)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_settle(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
            Self::WebSocket(web) => Pin::new(web.as_mut()).poll_shutdown(cx),
            Self::WebSocketTls(web) => Pin::new(&mut web.stream).poll_shutdown(cx),
        }
    }
}

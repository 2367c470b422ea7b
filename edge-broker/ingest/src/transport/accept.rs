//! From a socket that was accepted to a transport: TLS handshake, WebSocket request.
//!
//! All of it before the CONNECT deadline of the connection; what is set up here is dropped before the connection begins,
//! so that it costs nothing afterwards. At most [`handshakes_max`](crate::MqttOptions::handshakes_max) at one time do
//! the expensive part; a client is not one of them before it has sent something.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_tls::{LiveTls, certificate_names};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::upgrade::upgrade;
use super::websocket::WebSocket;
use super::{Carrier, Flushed, Transport};

/// A client that can be listened to.
pub(crate) struct Greeted {
    pub(crate) transport: Transport,
    /// Names in its certificate, which was verified.
    pub(crate) certificate: Vec<String>,
    /// False for a page in a browser that comes from elsewhere.
    pub(crate) is_own_program: bool,
}

/// Why a client cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotGreeted {
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("the WebSocket request failed: {0}")]
    WebSocket(io::Error),
    #[error("the handshake was not done in time")]
    Timeout,
    #[error("its turn for a handshake did not come in time")]
    Busy,
}

impl NotGreeted {
    /// Whether it counts towards a ban: not what we are late with, nor one that only looks whether we are there.
    pub(crate) fn is_of_the_client(&self) -> bool {
        match self {
            Self::Tls(error) | Self::WebSocket(error) => !matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
            ),
            Self::Timeout => true,
            Self::Busy => false,
        }
    }
}

/// A handshake whose turn comes later than this before the deadline is not begun.
const TURN_MARGIN: Duration = Duration::from_millis(100);

/// Sets up what comes before MQTT.
pub(crate) async fn greet(
    tcp: TcpStream,
    tls: Option<&Arc<LiveTls>>,
    carrier: Carrier,
    handshakes: &Semaphore,
    until: Instant,
) -> Result<Greeted, NotGreeted> {
    let greeting = greeting(tcp, tls, carrier, handshakes, until);
    match tokio::time::timeout_at(until.into(), greeting).await {
        Ok(greeted) => greeted,
        Err(_) => Err(NotGreeted::Timeout),
    }
}

async fn greeting(
    tcp: TcpStream,
    tls: Option<&Arc<LiveTls>>,
    carrier: Carrier,
    handshakes: &Semaphore,
    until: Instant,
) -> Result<Greeted, NotGreeted> {
    let plain =
        |transport, is_own_program| Greeted { transport, certificate: Vec::new(), is_own_program };
    let Some(tls) = tls else {
        return match carrier {
            Carrier::Stream => Ok(plain(Transport::Tcp(tcp), true)),
            Carrier::WebSocket => {
                let (web, is_own) = upgrade(tcp).await.map_err(NotGreeted::WebSocket)?;
                Ok(plain(Transport::WebSocket(Box::new(web)), is_own))
            }
        };
    };
    tcp.readable().await.map_err(NotGreeted::Tls)?;
    // Before the whole greeting runs out of time, so that the reason is told.
    let turn = tokio::time::timeout_at((until - TURN_MARGIN).into(), handshakes.acquire());
    let Ok(Ok(permit)) = turn.await else { return Err(NotGreeted::Busy) };
    let stream = TlsAcceptor::from(tls.get()).accept(tcp).await.map_err(NotGreeted::Tls)?;
    drop(permit);
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| certificate_names(certificate))
        .unwrap_or_default();
    let (transport, is_own_program) = match carrier {
        Carrier::Stream => (Transport::Tls(Box::new(Flushed::new(stream))), true),
        Carrier::WebSocket => {
            let (web, is_own): (WebSocket<_>, bool) =
                upgrade(stream).await.map_err(NotGreeted::WebSocket)?;
            (Transport::WebSocketTls(Box::new(Flushed::new(web))), is_own)
        }
    };
    Ok(Greeted { transport, certificate, is_own_program })
}

//! The seam between the protocol and the socket: plain TCP here, TLS and SASL plug in behind [`Connector`].

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connected, ordered byte stream.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// The future a [`Connector`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send + 'a>>;

/// Makes connections. An implementation resolves the name, connects, and does whatever has to happen before
/// the first Kafka frame (TLS).
pub trait Connector: Send + Sync + 'static {
    /// Connects to one broker.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;
}

/// Plain TCP, each address of the name in turn, Nagle off.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Transport>)
        })
    }
}

/// `host:port`, `[v6]:port` or `host` (then port 9092) to its two parts.
#[must_use]
pub fn split_address(address: &str) -> Option<(String, u16)> {
    let address = address.trim();
    if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = match after.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if after.is_empty() => DEFAULT_PORT,
            None => return None,
        };
        return (!host.is_empty()).then(|| (host.to_owned(), port));
    }
    let (host, port) = match address.rsplit_once(':') {
        // More than one colon and no brackets: a bare IPv6 address.
        Some((head, _)) if head.contains(':') => (address, DEFAULT_PORT),
        Some((host, port)) => (host, port.parse().ok()?),
        None => (address, DEFAULT_PORT),
    };
    (!host.is_empty() && port != 0).then(|| (host.to_owned(), port))
}

const DEFAULT_PORT: u16 = 9092;

#[cfg(test)]
mod tests {
    use super::split_address;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        let good = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(split_address("kafka-1.example:9093"), good("kafka-1.example", 9093));
        assert_eq!(split_address(" kafka-1 "), good("kafka-1", 9092));
        assert_eq!(split_address("[::1]:19092"), good("::1", 19092));
        assert_eq!(split_address("[::1]"), good("::1", 9092));
        assert_eq!(split_address("fe80::1"), good("fe80::1", 9092));
        for bad in ["", ":9092", "host:", "host:0", "host:99999", "[::1", "[]:9092", "[::1]x"] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
    }
}

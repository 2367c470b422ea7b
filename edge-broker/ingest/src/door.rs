//! The listening sockets, and which of them has somebody waiting.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use edge_tls::LiveTls;
use tokio::net::{TcpListener, TcpStream};

use crate::transport::Carrier;

/// A listening socket and what is spoken behind it.
#[derive(Debug)]
pub struct Door {
    /// Where clients knock.
    pub listener: TcpListener,
    /// Encrypted, with what is in force when they do.
    pub tls: Option<Arc<LiveTls>>,
    /// What carries MQTT.
    pub carrier: Carrier,
}

impl Door {
    /// MQTT over TCP.
    #[must_use]
    pub fn tcp(listener: TcpListener) -> Self {
        Self { listener, tls: None, carrier: Carrier::Stream }
    }
}

/// All of them; none is preferred.
pub(crate) struct Doors {
    doors: Vec<Door>,
    next: usize,
}

/// Somebody who came in.
pub(crate) struct Arrived {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) tls: Option<Arc<LiveTls>>,
    pub(crate) carrier: Carrier,
}

impl Doors {
    pub(crate) fn new(doors: Vec<Door>) -> Self {
        Self { doors, next: 0 }
    }

    /// The next who comes. May be dropped at any time without losing anybody.
    pub(crate) async fn accept(&mut self) -> io::Result<Arrived> {
        let count = self.doors.len().max(1);
        poll_fn(|cx| {
            for step in 0..count {
                let index = (self.next + step) % count;
                let Some(door) = self.doors.get(index) else { return Poll::Pending };
                if let Poll::Ready(accepted) = door.listener.poll_accept(cx) {
                    self.next = index + 1;
                    return Poll::Ready(accepted.map(|(stream, peer)| Arrived {
                        stream,
                        peer,
                        tls: door.tls.clone(),
                        carrier: door.carrier,
                    }));
                }
            }
            Poll::Pending
        })
        .await
    }
}

//! The link between gateway and hub: a TCP forwarder that can be cut and mended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A link that forwards to one address.
pub(crate) struct Link {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
}

impl Link {
    /// Opens a listener on loopback; whatever connects is forwarded to `target` while the link is up.
    pub(crate) async fn open(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let up = Arc::new(watch::Sender::new(true));
        let state = up.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = target.clone();
                let mut state = state.subscribe();
                // A cut link drops what connects, as a lost route would after a while.
                if *state.borrow_and_update() {
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = forward(near, &target) => {}
                            _ = state.changed() => {}
                        }
                    });
                }
            }
        });
        Ok(Self { address, up })
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it forwards.
    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Cuts every connection and refuses new ones.
    pub(crate) fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Forwards again.
    pub(crate) fn mend(&self) {
        self.up.send_replace(true);
    }
}

async fn forward(mut near: TcpStream, target: &str) -> io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

//! A TCP link that can be cut, mended and stalled: a user-space proxy.
//!
//! *Cut*: every connection is closed and new ones are closed as soon as they are accepted.
//! *Stalled*: connections stay open and new ones are accepted, but no byte moves: the link that
//! says it is up and is not.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::ports::ReservedPort;

/// What the link does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Stalled,
    Cut,
    /// The handle is gone; threads end.
    Gone,
}

/// A link to one address. Dropping it closes every connection.
#[derive(Debug)]
pub struct FaultyLink {
    port: ReservedPort,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inside>,
    changed: Condvar,
    target: SocketAddr,
}

#[derive(Debug)]
struct Inside {
    state: State,
    open: Vec<TcpStream>,
    bytes_up: u64,
    bytes_down: u64,
}

impl FaultyLink {
    /// A whole link to `target`.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn to(target: SocketAddr) -> Result<Self> {
        let port = ReservedPort::reserve()?;
        let listener = TcpListener::bind(port.address())?;
        let state = Mutex::new(Inside {
            state: State::Whole,
            open: Vec::new(),
            bytes_up: 0,
            bytes_down: 0,
        });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), target });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().name("link-accept".into()).spawn(move || {
            for stream in listener.incoming() {
                let Ok(near) = stream else { continue };
                let state = accepting.lock().state;
                match state {
                    State::Gone => return,
                    State::Cut => drop(near),
                    State::Whole | State::Stalled => accepting.join(near),
                }
            }
        })?;
        Ok(Self { port, shared })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Closes every connection and takes no new one.
    pub fn cut(&self) {
        self.shared.enter(State::Cut);
    }

    /// Stops every byte and closes nothing.
    pub fn stall(&self) {
        self.shared.enter(State::Stalled);
    }

    /// Makes it whole again.
    pub fn mend(&self) {
        self.shared.enter(State::Whole);
    }

    /// Bytes that went to the target and came back from it.
    pub fn bytes_carried(&self) -> (u64, u64) {
        let inside = self.shared.lock();
        (inside.bytes_up, inside.bytes_down)
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        self.shared.enter(State::Gone);
        // Wakes the accepting thread; when that fails, nobody listens any more.
        let _ = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn enter(&self, state: State) {
        let mut inside = self.lock();
        inside.state = state;
        if matches!(state, State::Cut | State::Gone) {
            for stream in inside.open.drain(..) {
                // The other side may have closed it already.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.changed.notify_all();
    }

    /// Connects `near` to the target and copies both ways until one side closes.
    fn join(self: &Arc<Self>, near: TcpStream) {
        let Ok(far) = TcpStream::connect_timeout(&self.target, Duration::from_secs(5)) else {
            return;
        };
        let pairs = [
            (near.try_clone(), far.try_clone(), Way::Up),
            (far.try_clone(), near.try_clone(), Way::Down),
        ];
        // What a real link would delay is not ours to add.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        self.lock().open.extend([near, far]);
        for (from, to, way) in pairs {
            let (Ok(from), Ok(to)) = (from, to) else { return };
            let shared = Arc::clone(self);
            let copier = thread::Builder::new().name("link-copy".into());
            // Without a thread the connection stays open and silent, as a bad link may be.
            let _ = copier.spawn(move || shared.copy(from, to, way));
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, way: Way) {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let mut inside = self.lock();
            while inside.state == State::Stalled {
                let woken = self.changed.wait(inside);
                inside = woken.unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            if inside.state != State::Whole {
                break;
            }
            match way {
                Way::Up => inside.bytes_up += count as u64,
                Way::Down => inside.bytes_down += count as u64,
            }
            drop(inside);
            if to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        // Only ours are closed now; dead handles must not pile up in a long test.
        self.lock().open.retain(|stream| stream.peer_addr().is_ok());
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Up,
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo_server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut reader = stream.try_clone().unwrap();
                    std::io::copy(&mut reader, &mut stream)
                });
            }
        });
        address
    }

    fn said_back(stream: &mut TcpStream, word: &[u8]) -> bool {
        let mut answer = vec![0; word.len()];
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(word).is_ok() && stream.read_exact(&mut answer).is_ok() && answer == word
    }

    #[test]
    fn a_cut_link_closes_and_a_mended_one_carries_again() {
        let link = FaultyLink::to(echo_server()).unwrap();
        let mut before = TcpStream::connect(link.address()).unwrap();
        assert!(said_back(&mut before, b"before"));
        link.cut();
        assert!(!said_back(&mut before, b"cut"));
        let mut during = TcpStream::connect(link.address()).unwrap();
        assert!(!said_back(&mut during, b"during"));
        link.mend();
        let mut after = TcpStream::connect(link.address()).unwrap();
        assert!(said_back(&mut after, b"after"));
        assert_eq!(link.bytes_carried().1, 11);
    }

    #[test]
    fn a_stalled_link_keeps_the_connection_and_the_bytes_until_it_is_mended() {
        let link = FaultyLink::to(echo_server()).unwrap();
        let mut stream = TcpStream::connect(link.address()).unwrap();
        assert!(said_back(&mut stream, b"before"));
        link.stall();
        stream.write_all(b"later").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut answer = [0; 5];
        assert!(stream.read_exact(&mut answer).is_err());
        link.mend();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"later");
    }
}

//! Free ports that stay ours while their server is down.
//!
//! A server under test is killed and started again on the same port. A port from the kernel's
//! ephemeral range could meanwhile become the source port of some connection, so ports are taken
//! from below that range, and each is guarded by a listener on an address nobody else uses: the
//! kernel then keeps two test processes from choosing the same one, and frees it if we die.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
const GUARD: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// A port on 127.0.0.1 that no other harness takes while this lives.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    _guard: TcpListener,
}

impl ReservedPort {
    /// Reserves a port that nobody listens on now.
    ///
    /// # Errors
    /// When every port of the range is taken.
    pub fn reserve() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let port = FIRST + (u32::from(start) + u32::from(step) * 7) as u16 % COUNT;
            let Ok(guard) = TcpListener::bind((GUARD, port)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self { port, _guard: guard });
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT)
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.port
    }

    /// The address a server shall listen on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_can_be_listened_on() {
        let ports: Vec<_> = (0..20).map(|_| ReservedPort::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(ReservedPort::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
        TcpListener::bind(ports[0].address()).unwrap();
    }
}

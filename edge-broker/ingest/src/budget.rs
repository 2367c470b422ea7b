//! One memory budget over all connections.
//!
//! Counted is what grows with what clients do: input that is not complete, output that is not taken,
//! deliveries that wait for it, and a fixed amount for each connection. What waits in lanes has limits of its own ([`Holding`](edge_engine::Holding)). Each connection
//! tells its sum when it changes, so the hot path pays nothing.
//!
//! While the budget is used up: connections that hold a part of a packet are not read, the others ten times a second
//! (acknowledgements of subscribers are what gives memory back), new ones are refused. Who holds a part of a packet for
//! [`PATIENCE`] meanwhile is sent away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a part of a packet may be held while memory is short.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection costs whatever it does; an encrypted one has the state of its ciphers and a record's buffer.
pub(crate) const PLAIN_BYTES: usize = 4 * 1024;
pub(crate) const TLS_BYTES: usize = 24 * 1024;

#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.max
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one connection holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// It holds this much now.
    #[inline]
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (Share::new(budget.clone()), Share::new(budget.clone()));
        one.set(60);
        two.set(40);
        assert!(budget.is_used_up());
        two.set(10);
        assert_eq!((budget.used_bytes(), budget.is_used_up()), (70, false));
        drop((one, two));
        assert_eq!(budget.used_bytes(), 0);
    }
}

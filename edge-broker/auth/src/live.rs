//! The [`Access`] in force, and word of when it changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::access::Access;

/// What all listeners ask. The generation is one atomic load: connections keep what they were told until it moves.
#[derive(Debug)]
pub struct LiveAccess {
    current: RwLock<Arc<Access>>,
    generation: AtomicU64,
}

impl LiveAccess {
    /// Begins with this.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { current: RwLock::new(Arc::new(access)), generation: AtomicU64::new(1) }
    }

    /// What is in force.
    #[must_use]
    pub fn get(&self) -> Arc<Access> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Moves with every [`replace`](Self::replace); never 0. Read it before [`get`](Self::get): then what was got is
    /// at least as new.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts another one in force.
    pub fn replace(&self, access: Access) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

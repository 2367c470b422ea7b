//! The certificate in force.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

/// What new connections are greeted with.
#[derive(Debug)]
pub struct LiveTls {
    current: RwLock<Arc<ServerConfig>>,
}

impl LiveTls {
    /// Begins with this.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { current: RwLock::new(config) }
    }

    /// What is in force.
    #[must_use]
    pub fn get(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in force; connections that are open are not touched.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

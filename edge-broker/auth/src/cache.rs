//! Logins that were right a moment ago, so that 5,000 devices that reconnect cost one hash each, not two.
//!
//! What is kept is an HMAC of user, password and verifier under a key that lives as long as the process: nothing
//! that helps whoever reads our memory later, and nothing that outlives a changed password.

use std::collections::VecDeque;

use hashbrown::HashSet;

use crate::secret::{RANDOM_BYTES, Verifier, keyed};

/// Logins that are remembered.
pub(crate) const LOGINS_MAX: usize = 8_192;

pub(crate) type Token = [u8; 32];

#[derive(Default)]
pub(crate) struct LoginCache {
    known: HashSet<Token>,
    order: VecDeque<Token>,
}

impl LoginCache {
    pub(crate) fn token(
        boot_key: &[u8; RANDOM_BYTES],
        user: &str,
        password: &[u8],
        verifier: &Verifier,
    ) -> Token {
        let mut message = Vec::with_capacity(user.len() + password.len() + 128);
        for part in [user.as_bytes(), password, verifier.encode().as_bytes()] {
            message.extend_from_slice(&(part.len() as u64).to_le_bytes());
            message.extend_from_slice(part);
        }
        let mut token = [0; 32];
        token.copy_from_slice(&keyed(boot_key, &message));
        token
    }

    pub(crate) fn contains(&self, token: &Token) -> bool {
        self.known.contains(token)
    }

    pub(crate) fn insert(&mut self, token: Token) {
        if !self.known.insert(token) {
            return;
        }
        self.order.push_back(token);
        if self.order.len() > LOGINS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

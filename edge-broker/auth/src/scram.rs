//! What the Kafka side needs to know of a password for SCRAM (RFC 5802, RFC 7677).
//!
//! A verifier proves a client without holding the password. It is made only where asked for (`user add --scram`):
//! its hash is far cheaper to guess against than argon2id.

use std::fmt;

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

/// Rounds of PBKDF2. RFC 7677 asks for 4,096 at least, and so do Kafka's brokers.
pub const ITERATIONS: u32 = 8_192;
const ITERATIONS_MAX: u32 = 1 << 20;

/// The hash a verifier is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

/// Salt, iterations, StoredKey and ServerKey of RFC 5802 section 3.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    /// Which hash.
    pub hash: ScramHash,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Salt.
    pub salt: Vec<u8>,
    /// H(ClientKey).
    pub stored_key: Vec<u8>,
    /// What proves the server.
    pub server_key: Vec<u8>,
}

/// Why a stored SCRAM verifier is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a SCRAM verifier (`SCRAM-SHA-256$iterations:salt$stored:server`)")]
pub struct ScramError;

impl ScramVerifier {
    /// Of a password. Takes milliseconds.
    #[must_use]
    pub fn of_password(hash: ScramHash, password: &[u8], salt: &[u8]) -> Self {
        Self::with_iterations(hash, password, salt, ITERATIONS)
    }

    fn with_iterations(hash: ScramHash, password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let (stored_key, server_key) = match hash {
            ScramHash::Sha256 => {
                let mut salted = [0; 32];
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted);
                let client = sha256_mac(&salted, b"Client Key");
                (Sha256::digest(client).to_vec(), sha256_mac(&salted, b"Server Key"))
            }
            ScramHash::Sha512 => {
                let mut salted = [0; 64];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut salted);
                let client = sha512_mac(&salted, b"Client Key");
                (Sha512::digest(client).to_vec(), sha512_mac(&salted, b"Server Key"))
            }
        };
        Self { hash, iterations, salt: salt.to_vec(), stored_key, server_key }
    }

    /// As it stands in the file.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = Base64::encode_string;
        format!(
            "{}${}:{}${}:{}",
            self.hash.name(),
            self.iterations,
            text(&self.salt),
            text(&self.stored_key),
            text(&self.server_key)
        )
    }

    /// From the file.
    ///
    /// # Errors
    /// [`ScramError`].
    pub fn decode(text: &str) -> Result<Self, ScramError> {
        let bytes = |part: &str| Base64::decode_vec(part).map_err(|_| ScramError);
        let mut parts = text.split('$');
        let (Some(name), Some(costs), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ScramError);
        };
        let hash =
            [ScramHash::Sha256, ScramHash::Sha512].into_iter().find(|hash| hash.name() == name);
        let hash = hash.ok_or(ScramError)?;
        let (iterations, salt) = costs.split_once(':').ok_or(ScramError)?;
        let (stored, server) = keys.split_once(':').ok_or(ScramError)?;
        let iterations = iterations.parse().map_err(|_| ScramError)?;
        let verifier = Self {
            hash,
            iterations,
            salt: bytes(salt)?,
            stored_key: bytes(stored)?,
            server_key: bytes(server)?,
        };
        let len = hash.key_bytes();
        let is_sane = (4_096..=ITERATIONS_MAX).contains(&iterations)
            && (8..=64).contains(&verifier.salt.len())
            && verifier.stored_key.len() == len
            && verifier.server_key.len() == len;
        is_sane.then_some(verifier).ok_or(ScramError)
    }
}

impl ScramHash {
    /// The mechanism's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramVerifier({}, hidden)", self.hash.name())
    }
}

fn sha256_mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    crate::secret::keyed(key, message)
}

fn sha512_mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677_is_met() {
        let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = ScramVerifier::with_iterations(ScramHash::Sha256, b"pencil", &salt, 4_096);
        // Computed from the RFC's password, salt and iterations with another implementation.
        assert_eq!(
            verifier.encode(),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn what_is_written_is_read() {
        for hash in [ScramHash::Sha256, ScramHash::Sha512] {
            let verifier = ScramVerifier::of_password(hash, b"pencil", &[9; 16]);
            assert_eq!(ScramVerifier::decode(&verifier.encode()), Ok(verifier.clone()));
            assert!(!format!("{verifier:?}").contains(':'));
        }
        for text in ["", "SCRAM-SHA-256$1:AAAA$AAAA:AAAA", "SCRAM-MD5$4096:AAAA$AAAA:AAAA"] {
            assert_eq!(ScramVerifier::decode(text), Err(ScramError), "{text}");
        }
    }
}

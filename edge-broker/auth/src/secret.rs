//! What is kept of a password, and how one is checked against it.
//!
//! - Passwords that people choose: argon2id (RFC 9106), 7 MiB, 5 passes, 1 lane, as a PHC string.
//! - Secrets that we made, 256 random bits: one HMAC-SHA-256 under a key of their own. Guessing them is hopeless
//!   however fast the hash, so a gateway with 5,000 devices need not spend minutes on argon2id after a power cut.
//!
//! Nothing here is ever printed: [`Verifier`]'s `Debug` hides its bytes.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::PASSWORD_BYTES_MAX;

/// Working memory of one argon2id hash, bytes.
pub const ARGON2_MEMORY_BYTES: usize = ARGON2_KIB as usize * 1024;
/// Random bytes that a salt, a key or a generated secret is made of.
pub const RANDOM_BYTES: usize = 32;

const ARGON2_KIB: u32 = 7 * 1024;
const ARGON2_PASSES: u32 = 5;
const ARGON2_PASSES_MAX: u32 = 20;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// What is kept of a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// Of a password.
    Argon2id {
        /// Kibibytes of memory.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Salt.
        salt: Vec<u8>,
        /// Hash.
        hash: Vec<u8>,
    },
    /// Of a secret that we generated.
    Keyed {
        /// Key of the HMAC.
        key: Vec<u8>,
        /// Its result.
        mac: Vec<u8>,
    },
}

/// Why a stored verifier is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a verifier that this version knows (`$argon2id$...` or `$hmac-sha256$...`)")]
pub struct VerifierError;

/// A password cannot be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// There is none.
    #[error("the password is empty")]
    Empty,
    /// It is too long.
    #[error("the password has more than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
}

impl Verifier {
    /// Of a password that somebody chose. Takes milliseconds and [`ARGON2_MEMORY_BYTES`].
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn of_password(
        password: &[u8],
        random: &[u8; RANDOM_BYTES],
    ) -> Result<Self, PasswordError> {
        match password.len() {
            0 => return Err(PasswordError::Empty),
            len if len > PASSWORD_BYTES_MAX => return Err(PasswordError::TooLong),
            _ => {}
        }
        let salt = random[..SALT_BYTES].to_vec();
        let hash = argon2id(ARGON2_KIB, ARGON2_PASSES, &salt, password).unwrap_or_default();
        Ok(Self::Argon2id { memory_kib: ARGON2_KIB, passes: ARGON2_PASSES, salt, hash })
    }

    /// Of a secret from [`generated_secret`].
    #[must_use]
    pub fn of_generated(secret: &str, key: &[u8; RANDOM_BYTES]) -> Self {
        Self::Keyed { key: key.to_vec(), mac: keyed(key, secret.as_bytes()) }
    }

    /// Whether the check is cheap enough for the thread that reads sockets.
    #[must_use]
    pub fn is_cheap(&self) -> bool {
        matches!(self, Self::Keyed { .. })
    }

    /// Whether this is the secret. Takes as long for a wrong one as for the right one.
    #[must_use]
    pub fn check(&self, password: &[u8]) -> bool {
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        match self {
            Self::Argon2id { memory_kib, passes, salt, hash } => {
                argon2id(*memory_kib, *passes, salt, password)
                    .is_some_and(|found| found.ct_eq(hash).into())
            }
            Self::Keyed { key, mac } => keyed(key, password).ct_eq(mac).into(),
        }
    }

    /// As it stands in the file.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = Base64Unpadded::encode_string;
        match self {
            Self::Argon2id { memory_kib, passes, salt, hash } => {
                format!(
                    "$argon2id$v=19$m={memory_kib},t={passes},p=1${}${}",
                    text(salt),
                    text(hash)
                )
            }
            Self::Keyed { key, mac } => format!("$hmac-sha256${}${}", text(key), text(mac)),
        }
    }

    /// From the file.
    ///
    /// # Errors
    /// [`VerifierError`]; also for costs beyond what a gateway can pay: the file must not decide about our memory.
    pub fn decode(text: &str) -> Result<Self, VerifierError> {
        let bytes = |part: &str| Base64Unpadded::decode_vec(part).map_err(|_| VerifierError);
        let parts: Vec<&str> = text.split('$').collect();
        match parts.as_slice() {
            ["", "argon2id", "v=19", costs, salt, hash] => {
                let mut numbers = [0_u32; 3];
                let mut costs = costs.split(',');
                for (number, name) in numbers.iter_mut().zip(["m=", "t=", "p="]) {
                    let cost = costs.next().and_then(|cost| cost.strip_prefix(name));
                    *number = cost.and_then(|cost| cost.parse().ok()).ok_or(VerifierError)?;
                }
                let [memory_kib, passes, lanes] = numbers;
                let (salt, hash) = (bytes(salt)?, bytes(hash)?);
                let is_sane = (8..=ARGON2_KIB + 1024).contains(&memory_kib)
                    && (1..=ARGON2_PASSES_MAX).contains(&passes)
                    && lanes == 1
                    && (8..=64).contains(&salt.len())
                    && hash.len() == HASH_BYTES
                    && costs.next().is_none();
                is_sane
                    .then_some(Self::Argon2id { memory_kib, passes, salt, hash })
                    .ok_or(VerifierError)
            }
            ["", "hmac-sha256", key, mac] => {
                let (key, mac) = (bytes(key)?, bytes(mac)?);
                let is_sane = (16..=64).contains(&key.len()) && mac.len() == HASH_BYTES;
                is_sane.then_some(Self::Keyed { key, mac }).ok_or(VerifierError)
            }
            _ => Err(VerifierError),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argon2id { .. } => "Verifier(argon2id, hidden)",
            Self::Keyed { .. } => "Verifier(hmac-sha256, hidden)",
        })
    }
}

/// A secret to hand out once, as text that survives shells and QR codes.
#[must_use]
pub fn generated_secret(random: &[u8; RANDOM_BYTES]) -> String {
    Base64UrlUnpadded::encode_string(random)
}

/// HMAC-SHA-256.
pub(crate) fn keyed(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn argon2id(memory_kib: u32, passes: u32, salt: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let params = Params::new(memory_kib, passes, 1, Some(HASH_BYTES)).ok()?;
    let mut memory = vec![Block::default(); params.block_count()];
    let mut hash = vec![0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(password, salt, &mut hash, &mut memory)
        .ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_from_what_the_file_says() {
        let verifier = Verifier::of_password("grüße 7".as_bytes(), &[7; 32]).unwrap();
        let text = verifier.encode();
        assert!(text.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"));
        let read = Verifier::decode(&text).unwrap();
        assert!(read.check("grüße 7".as_bytes()));
        assert!(!read.check(b"gruesse 7") && !read.check(b""));
        assert!(!format!("{read:?}").contains("m="));
    }

    #[test]
    fn a_generated_secret_is_known_again_and_cheap() {
        let secret = generated_secret(&[200; 32]);
        let verifier = Verifier::of_generated(&secret, &[3; 32]);
        let read = Verifier::decode(&verifier.encode()).unwrap();
        assert!(read.is_cheap() && read.check(secret.as_bytes()) && !read.check(b"other"));
    }

    #[test]
    fn the_reference_vector_of_another_implementation_is_met() {
        // Computed with the reference implementation in C: t=2, m=1024 KiB, p=1, 32 bytes.
        let expected = [
            0xec, 0x57, 0xec, 0x9c, 0x0e, 0xaf, 0x51, 0xee, 0xea, 0x2e, 0x92, 0xff, 0xdc, 0xaa,
            0x9c, 0xde, 0xe4, 0x78, 0xf1, 0x92, 0x72, 0x15, 0xb5, 0x15, 0xb7, 0xb8, 0xd6, 0x66,
            0x57, 0xf4, 0x1e, 0xd9,
        ];
        assert_eq!(argon2id(1024, 2, b"somesalt", b"password").unwrap(), expected);
    }

    #[test]
    fn a_file_cannot_ask_for_more_memory_than_we_have() {
        let hash = Base64Unpadded::encode_string(&[0; 32]);
        for costs in ["m=1048576,t=5,p=1", "m=7168,t=4000000000,p=1", "m=7168,t=5,p=9", "m=7168"] {
            let text = format!("$argon2id$v=19${costs}$c29tZXNhbHRzYWx0${hash}");
            assert_eq!(Verifier::decode(&text), Err(VerifierError), "{costs}");
        }
        assert_eq!(Verifier::decode("plain"), Err(VerifierError));
        assert_eq!(Verifier::decode("$hmac-sha256$AAAA$AAAA"), Err(VerifierError));
    }
}

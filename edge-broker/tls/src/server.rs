//! From PEM to a configuration that can be put in force.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};

/// Tells what time it is, in time since 1970. `None`: nobody knows; client certificates are refused then.
#[derive(Clone)]
pub struct Clock(pub Arc<dyn Fn() -> Option<Duration> + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        (self.0)().map(UnixTime::since_unix_epoch)
    }
}

/// What the operator's files hold.
#[derive(Clone, Copy)]
pub struct ServerMaterial<'a> {
    /// Our certificate and what leads from it to a root, PEM.
    pub certificate: &'a [u8],
    /// The key that belongs to it, PEM (PKCS#8, SEC1 or PKCS#1).
    pub key: &'a [u8],
    /// Who may sign certificates of clients, PEM; none: clients are not asked for one.
    pub client_ca: Option<&'a [u8]>,
    /// A client without a certificate is refused; else it may log in with a password.
    pub client_certificate_required: bool,
}

/// Why material cannot be put in force. Nothing of it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Not PEM, or damaged.
    #[error("the {what} cannot be read: {problem}")]
    Pem {
        /// `certificate`, `key` or `client CA`.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A file without what it should hold.
    #[error("there is no {what} in it; it has to be PEM (-----BEGIN ...)")]
    Missing {
        /// `certificate`, `key` or `client CA`.
        what: &'static str,
    },
    /// Each is sound, together they are not.
    #[error("certificate and key cannot be used: {0}")]
    Pair(rustls::Error),
    /// A certificate of the client CA cannot be used.
    #[error("the client CA cannot be used: {0}")]
    ClientCa(String),
    /// No random numbers for the key of the tickets.
    #[error("no key for session tickets: {0}")]
    Tickets(rustls::Error),
}

impl ServerMaterial<'_> {
    /// Checks all of it, and makes what connections are greeted with.
    ///
    /// # Errors
    /// [`TlsError`]; what was in force stays so.
    pub fn config(&self, clock: &Clock) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = certificates(self.certificate, "certificate")?;
        let key = match PrivateKeyDer::from_pem_slice(self.key) {
            Ok(key) => key,
            Err(rustls::pki_types::pem::Error::NoItemsFound) => {
                return Err(TlsError::Missing { what: "key" });
            }
            Err(error) => {
                return Err(TlsError::Pem { what: "key", problem: error.to_string() });
            }
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(clock.clone()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?;
        let builder = match self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, "client CA")? {
                    roots
                        .add(certificate)
                        .map_err(|error| TlsError::ClientCa(error.to_string()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match self.client_certificate_required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier = verifier
                    .build()
                    .map_err(|error: VerifierBuilderError| TlsError::ClientCa(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Tickets)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| TlsError::Pem { what, problem: error.to_string() })?;
    if found.is_empty() { Err(TlsError::Missing { what }) } else { Ok(found) }
}

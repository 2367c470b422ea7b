//! Certificates while the gateway runs: read at the start, and again when a file changes.
//!
//! Files that do not fit each other yet (a new certificate is there, its key is not) or cannot be read leave in force what
//! was read before. Connections that are open are not touched.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_config::TlsConfig;
use edge_engine::Engine;
use edge_tls::{Clock, LiveTls, ServerConfig, ServerMaterial, TlsError};

/// How often the files are looked at: what changes is in force within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A file larger than this is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFileError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What they hold is of no use.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        source: TlsError,
    },
}

/// Follows the files.
pub(crate) struct TlsWatch {
    files: TlsConfig,
    clock: Clock,
    live: Arc<LiveTls>,
    seen: Vec<Option<Version>>,
}

/// What changes when a file is replaced or written.
type Version = (u64, u64, i64, i64);

impl TlsWatch {
    /// Reads the files.
    pub(crate) fn open(files: &TlsConfig, engine: &Arc<Engine>) -> Result<Self, TlsFileError> {
        let engine = engine.clone();
        // What the engine believes: a board without a battery-backed clock begins in 1970.
        let clock = Clock(Arc::new(move || {
            let wall_us = u64::try_from(engine.clock().read().wall_us).ok()?;
            Some(Duration::from_micros(wall_us))
        }));
        let seen = versions(files);
        let live = Arc::new(LiveTls::new(load(files, &clock)?));
        Ok(Self { files: files.clone(), clock, live, seen })
    }

    /// What listeners ask.
    pub(crate) fn live(&self) -> Arc<LiveTls> {
        self.live.clone()
    }

    /// Follows the files until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut pause = tokio::time::interval(LOOK_EVERY);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = versions(&self.files);
        // A file that is gone or cannot be looked at is on its way to be replaced.
        if now == self.seen || now.contains(&None) {
            return;
        }
        match load(&self.files, &self.clock) {
            Ok(config) => {
                self.seen = now;
                self.live.replace(config);
                tracing::info!("the certificate was read again; new connections get it");
            }
            Err(error @ TlsFileError::Content { .. }) => {
                self.seen = now;
                tracing::warn!(%error, "the certificate stays as it was");
            }
            // Tried again.
            Err(error) => tracing::warn!(%error, "the certificate cannot be read"),
        }
    }
}

fn load(files: &TlsConfig, clock: &Clock) -> Result<Arc<ServerConfig>, TlsFileError> {
    let certificate = read(&files.certificate)?;
    let key = read(&files.key)?;
    let client_ca = files.client_ca.as_deref().map(read).transpose()?;
    let material = ServerMaterial {
        certificate: &certificate,
        key: &key,
        client_ca: client_ca.as_deref(),
        client_certificate_required: files.client_certificate_required,
    };
    material.config(clock).map_err(|source| {
        let path = match &source {
            TlsError::Pem { what: "key", .. } | TlsError::Missing { what: "key" } => &files.key,
            TlsError::ClientCa(_)
            | TlsError::Pem { what: "client CA", .. }
            | TlsError::Missing { what: "client CA" } => {
                files.client_ca.as_ref().unwrap_or(&files.certificate)
            }
            _ => &files.certificate,
        };
        TlsFileError::Content { path: path.display().to_string(), source }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| TlsFileError::Io { path: path.display().to_string(), source })?;
    Ok(bytes)
}

fn versions(files: &TlsConfig) -> Vec<Option<Version>> {
    let version = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    let files = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    files.into_iter().flatten().map(|path| version(path)).collect()
}
